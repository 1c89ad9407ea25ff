"""Disk that the checkpoints of a training take, before it is queued. No torch here.

Counted are weights and optimizer states; names, random states and the like are less than a megabyte.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medmim.config.training import Tuning
from medmim.training.planning.architecture import Architecture, UnknownArchitectureError
from medmim.training.planning.memory import (
    BYTES_PER_NUMBER,
    MASTER_BYTES,
    MOMENT_BYTES,
    count_trained,
    plan_run_training,
    uses_lora,
)

KEPT_CHECKPOINTS = 2
"""Of a run: where the newest is damaged, training goes on from the one before it."""


def count_checkpoint_bytes(architecture: Architecture, tuning: Tuning) -> int:
    """Bytes of one checkpoint, of all processes together.

    Trained weights in float32 and their moments, whoever holds them; of a whole model also the frozen tower. Under ZeRO-1 and 2
    also the trained weights that are computed with.
    """
    b, trained = BYTES_PER_NUMBER[tuning.precision], count_trained(architecture, tuning)
    frozen_bytes = 0 if uses_lora(tuning) else b * architecture.tower.parameter_count
    working_bytes = b * trained if tuning.zero_stage in (1, 2) else 0
    return (MASTER_BYTES + MOMENT_BYTES) * trained + frozen_bytes + working_bytes


def count_peak_bytes(architecture: Architecture, tuning: Tuning) -> int:
    """Most bytes of checkpoints at a time: one is deleted once the next is written."""
    return (KEPT_CHECKPOINTS + 1) * count_checkpoint_bytes(architecture, tuning)


def count_run_checkpoints(
    models: Mapping[str, Any], folder: Path, questions: Mapping[str, int]
) -> Iterator[tuple[str, int | None, str]]:
    """Of each training of a run whose base is not made in it: model, most bytes of its checkpoints, and how they are known.

    Bytes are None where the base is not known yet. Arguments as of `plan_run_training`.
    """
    for name, model in models.items():
        if not model["base"] or models[model["base"]]["tiny"]:
            continue
        try:
            plan, _, source = plan_run_training(models, name, folder, questions)
        except UnknownArchitectureError as error:
            yield name, None, str(error)
            continue
        yield name, count_peak_bytes(plan.architecture, plan.tuning), f"{KEPT_CHECKPOINTS + 1} at a time, counted: {source}"
