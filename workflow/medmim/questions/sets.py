"""The splits and the sets of questions in each."""

SPLITS = ("train", "benchmark", "pretrain")
HELD_IN = ("temporal", "reasoning", "comparison", "coreference")
"""Sets of the abilities trained on."""
HELD_OUT = ("rad", "odir")
"""Sets that are held out; any other set of a benchmark is a further one, which stands for itself."""
SETS = {
    "train": (*HELD_IN, "composed"),
    "benchmark": (*HELD_IN, *HELD_OUT),
    "pretrain": ("single", "text"),
}
