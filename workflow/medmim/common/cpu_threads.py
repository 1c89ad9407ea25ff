"""CPU threads of the numeric libraries, set here alone: another number of threads changes the last bits of their sums."""

import os

THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables without which a library takes as many threads as it finds cores."""
THREAD_LIMITS = ("OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS")
"""Variables with which OpenMP starts fewer threads than a program asks for."""


def limit_library_threads() -> None:
    """Give the numeric libraries one thread, whatever cores there are and whatever the environment says.

    To be called before NumPy or torch is imported, which read the environment once.
    """
    os.environ.update(dict.fromkeys(THREAD_COUNTS, "1"))
    for name in THREAD_LIMITS:
        os.environ.pop(name, None)


def set_torch_threads(threads: int) -> None:
    """Give torch alone more threads: a number that a job's config holds, and so its key."""
    import torch

    torch.set_num_threads(threads)
