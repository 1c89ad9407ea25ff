"""The splits and the sets of questions in each."""

from medmim.config.source_plugins import HELD_OUT_SETS

SPLITS = ("train", "benchmark", "pretrain")
HELD_IN = ("temporal", "reasoning", "comparison", "coreference")
"""Sets of the abilities trained on."""
HELD_OUT = tuple(HELD_OUT_SETS)
"""Sets that a source holds out, as its source.yaml declares; any other set of a benchmark is a further one, for itself."""
SETS = {
    "train": (*HELD_IN, "composed"),
    "benchmark": (*HELD_IN, *HELD_OUT),
    "pretrain": ("single", "text"),
}
