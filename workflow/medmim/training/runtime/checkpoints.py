"""Checkpoints of one training: each run of it writes to a folder of its own and goes on from the newest whole one of any run.

Two runs may overlap, as where a node was lost and its job was started elsewhere while it still computes. So no run writes,
or deletes what is newer than its own, where another may write.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from medmim.common.errors import UserError
from medmim.training.runtime.preemption import Stop

MARK = "whole.json"
"""Written last into a checkpoint: its files with their sizes."""


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        p.relative_to(checkpoint).as_posix(): p.stat().st_size
        for p in sorted(checkpoint.rglob("*"))
        if p.is_file() and p.name != MARK
    }


def mark(checkpoint: Path) -> None:
    """Declare a checkpoint whole."""
    temporary = checkpoint / f".{MARK}.{os.getpid()}"
    temporary.write_text(json.dumps(_sizes(checkpoint)))
    temporary.replace(checkpoint / MARK)


def is_whole(checkpoint: Path) -> bool:
    """Whether it was marked and its files are still those."""
    try:
        return bool(json.loads((checkpoint / MARK).read_text()) == _sizes(checkpoint))
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _found(folder: Path) -> Iterator[tuple[int, Path]]:
    """Steps and path of every checkpoint of any run, whole or not."""
    for path in sorted(folder.glob("*/checkpoint-*")):
        if (steps := path.name.removeprefix("checkpoint-")).isdigit():
            yield int(steps), path


def newest(folder: Path) -> Path | None:
    """The whole checkpoint of the most steps of any run, or None. `folder` of the training holds a folder a run."""
    return next((path for _, path in sorted(_found(folder), reverse=True) if is_whole(path)), None)


def prune(folder: Path, own: Path, steps: int) -> None:
    """Delete what other runs left, up to the steps of `own`, this run's whole checkpoint."""
    for past, path in _found(folder):
        if past <= steps and path.parent != own.parent:
            shutil.rmtree(path, ignore_errors=True)


def _any(yes: bool, args: TrainingArguments) -> bool:
    """Whether it is so in any of the processes; all of them must ask."""
    if not dist.is_available() or not dist.is_initialized():
        return yes
    said = torch.tensor(int(yes), device=args.device)
    dist.all_reduce(said, op=dist.ReduceOp.MAX)
    return bool(said.item())


class Keeper(TrainerCallback):
    """Ends a training between two steps where any of its processes was told to, and marks each checkpoint once it is whole.

    `superseded` tells whether another run of the same work took over: then nothing more is written.
    """

    def __init__(self, stop: Stop, superseded: Callable[[], bool]) -> None:
        self.stop, self.superseded = stop, superseded

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer when all is loaded: from here on, work would be lost."""
        self.stop.steps = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer after each step, and after its own choice whether to save."""
        self.stop.steps = (self.stop.steps or 0) + 1
        if _any(self.stop.asked, args):
            control.should_save = control.should_training_stop = True
        if control.should_save and _any(state.is_world_process_zero and self.superseded(), args):
            raise UserError("another run of this training took over and goes on from its checkpoints: this one ends")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer in each process once it wrote its part of a checkpoint."""
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            mark(checkpoint)
            if not self.superseded():
                prune(checkpoint.parent.parent, checkpoint, state.global_step)
