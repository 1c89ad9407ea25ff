"""GPUs by name: their memory, and the most that they compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuType:
    """One type of GPU."""

    name: str
    memory_gb: int
    """GiB: what the makers call GB."""
    peak_flops: float
    """FLOP/s of dense bf16 products; data sheets lead with twice as much, for sparse ones."""


# NVIDIA's data sheets. The first whose words are all in a GPU's name is it.
GPU_TYPES = (
    GpuType("H100 PCIe", 80, 756e12),
    GpuType("H100 NVL", 94, 835e12),
    GpuType("H100", 80, 989e12),
    GpuType("H200", 141, 989e12),
    GpuType("GH200", 96, 989e12),
    GpuType("B200", 180, 2250e12),
    GpuType("A100 40GB", 40, 312e12),
    GpuType("A100", 80, 312e12),
    GpuType("L40S", 48, 362e12),
    GpuType("A40", 48, 150e12),
    GpuType("A10", 24, 125e12),
    GpuType("L4", 24, 121e12),
)


def find_gpu_type(name: str) -> GpuType | None:
    """The type of a GPU by its name, such as NVIDIA A100-SXM4-80GB or h100; None where it is not known."""
    words = set(name.lower().replace("-", " ").split())
    return next((gpu for gpu in GPU_TYPES if words.issuperset(gpu.name.lower().split())), None)
