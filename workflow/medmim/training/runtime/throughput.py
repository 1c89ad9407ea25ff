"""What a training makes of its machine: real tokens a second, the share of the GPUs' peak, padding, waiting, memory.

MFU, the model's FLOPs over the peak's, is counted as others publish it: for each real token 4 FLOPs a parameter where the
language model's weights are frozen (LoRA: forward, and backward to the activations), 6 where they are trained. Parameters are
those of the language model, embeddings and head among them; attention, the vision tower and recomputed activations are not
counted, and neither is padding.
"""

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmim.training.planning.gpu_types import find_gpu_type


class ThroughputMeter:
    """Measures the steps of one process that trains together with others; rates are of all of them."""

    def __init__(
        self,
        tokens: np.ndarray,
        cells: np.ndarray,
        *,
        parameters: int,
        gpus: int = 0,
        gpu: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`tokens` and `cells` after each step: real tokens and, with padding, positions, of all processes. `parameters` of the
        language model. `gpus` of the name `gpu`; none on the CPU. `clock` gives seconds.
        """
        self._tokens, self._cells, self._parameters, self._gpus, self._clock = tokens, cells, parameters, gpus, clock
        gpu_type = find_gpu_type(gpu)
        self._peak = gpus * gpu_type.peak_flops if gpu_type else 0.0
        self._wait_seconds = 0.0

    def start(self, step: int) -> None:
        """Before the first step; `step` were done by earlier runs."""
        self._begin = self._last = self._take_snapshot(step)

    def _take_snapshot(self, step: int) -> tuple[int, float, float]:
        return step, self._clock(), self._wait_seconds

    def time_batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the time until each is there counts as waited."""
        source = iter(batches)
        while True:
            wait_start = self._clock()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._wait_seconds += self._clock() - wait_start
            yield batch

    def measure_step(self, step: int) -> dict[str, float]:
        """Of the steps since the last call, up to `step`."""
        previous, self._last = self._last, self._take_snapshot(step)
        return self._measure_between(previous, self._last)

    def measure_run(self) -> dict[str, float]:
        """Of all steps of this run."""
        return self._measure_between(self._begin, self._last)

    def _measure_between(self, first: tuple[int, float, float], last: tuple[int, float, float]) -> dict[str, float]:
        seconds = max(last[1] - first[1], 1e-9)
        tokens, cells = (
            int(counts[last[0] - 1] - (counts[first[0] - 1] if first[0] else 0)) for counts in (self._tokens, self._cells)
        )
        rate = tokens / seconds
        measurements = {
            "tokens_per_second": rate,
            "padding": 1 - tokens / cells,
            "loader_wait": (last[2] - first[2]) / seconds,
            "peak_memory_bytes": float(read_peak_memory(self._gpus)),
        }
        if self._peak:
            measurements |= {f"mfu_{flops}n": flops * self._parameters * rate / self._peak for flops in (4, 6)}
        return measurements


def read_peak_memory(gpus: int) -> int:
    """Most bytes that this process has held: of its GPU's memory, or without one of the machine's."""
    return torch.cuda.max_memory_allocated() if gpus else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def format_measurements(measured: dict[str, float]) -> str:
    """In words, for a log."""
    mfu = "".join(f", MFU {measured[name]:.1%} at {name[4]}N" for name in ("mfu_4n", "mfu_6n") if name in measured)
    return (
        f"{measured['tokens_per_second']:,.0f} tokens/s{mfu}, padding {measured['padding']:.1%},"
        f" waiting for data {measured['loader_wait']:.1%}, peak memory {measured['peak_memory_bytes'] / 1e9:.1f} GB"
    )


class TensorBoardLog:
    """Scalars for TensorBoard; with no folder, none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: Any = None

    def start(self, step: int) -> None:
        """What a stopped run wrote after `step` is overruled."""
        if self._folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step + 1, flush_secs=10)

    def add_scalars(self, step: int, values: dict[str, float]) -> None:
        """Values after `step`."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
