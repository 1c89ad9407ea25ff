"""The splits, the sets of questions in each, and the sums that sets count to."""

from medmim.config.question_sets import QUESTION_SETS
from medmim.config.source_plugins import HELD_OUT_SETS

SPLITS = ("train", "benchmark", "pretrain")
HELD_IN = tuple(s.name for s in QUESTION_SETS if s.part == "held_in")
"""Sets of the abilities trained on."""
HELD_OUT = tuple(HELD_OUT_SETS)
"""Sets that a source holds out, as its source.yaml declares; any other set of a benchmark is a further one, for itself."""
TRAIN_ONLY = tuple(s.name for s in QUESTION_SETS if s.part == "train_only")
"""Sets that are trained on and not asked in the benchmark."""
SETS = {
    "train": (*HELD_IN, *TRAIN_ONLY),
    "benchmark": (*HELD_IN, *HELD_OUT),
    "pretrain": ("single", "text"),
}
SUMS = {"held_in": "Held-in", "held_out": "Held-out"}
"""Scores over several sets, and their names for people."""
FURTHER = "further"
"""What the benchmark's sets that count to no sum are called together."""


def find_set_group(name: str) -> str:
    """Return the sum that a benchmark's set counts to, or FURTHER."""
    return "held_in" if name in HELD_IN else "held_out" if name in HELD_OUT else FURTHER
