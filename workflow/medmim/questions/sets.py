"""The splits, the sets of questions in each, and the sums that sets count to."""

from medmim.config.question_sets import HELD_IN, PRETRAIN_SETS, TRAIN_ONLY
from medmim.config.source_plugins import HELD_OUT_SETS

SPLITS = ("train", "benchmark", "pretrain")
HELD_OUT = tuple(HELD_OUT_SETS)
"""Sets that a source holds out, as its source.yaml declares; any other set of a benchmark is a further one, for itself."""
SETS = {
    "train": (*HELD_IN, *TRAIN_ONLY),
    "benchmark": (*HELD_IN, *HELD_OUT),
    "pretrain": PRETRAIN_SETS,
}
SUMS = {"held_in": "Held-in", "held_out": "Held-out"}
"""Scores over several sets, and their names for people."""
FURTHER = "further"
"""What the benchmark's sets that count to no sum are called together."""


def find_set_group(name: str) -> str:
    """Return the sum that a benchmark's set counts to, or FURTHER."""
    return "held_in" if name in HELD_IN else "held_out" if name in HELD_OUT else FURTHER
