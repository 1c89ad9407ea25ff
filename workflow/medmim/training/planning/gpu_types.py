"""GPUs by name: their memory, and the most that they compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One type of GPU."""

    name: str
    memory: int
    """GiB: what the makers call GB."""
    peak: float
    """FLOP/s of dense bf16 products; data sheets lead with twice as much, for sparse ones."""


# NVIDIA's data sheets. The first whose words are all in a GPU's name is it.
GPUS = (
    Gpu("H100 PCIe", 80, 756e12),
    Gpu("H100 NVL", 94, 835e12),
    Gpu("H100", 80, 989e12),
    Gpu("H200", 141, 989e12),
    Gpu("GH200", 96, 989e12),
    Gpu("B200", 180, 2250e12),
    Gpu("A100 40GB", 40, 312e12),
    Gpu("A100", 80, 312e12),
    Gpu("L40S", 48, 362e12),
    Gpu("A40", 48, 150e12),
    Gpu("A10", 24, 125e12),
    Gpu("L4", 24, 121e12),
)


def named(name: str) -> Gpu | None:
    """The type of a GPU by its name, such as NVIDIA A100-SXM4-80GB or h100; None where it is not known."""
    words = set(name.lower().replace("-", " ").split())
    return next((gpu for gpu in GPUS if words.issuperset(gpu.name.lower().split())), None)
