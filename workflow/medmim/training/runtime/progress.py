"""What a training says of itself: a progress bar on a terminal, lines in a log elsewhere, rows of the loss table always."""

import logging
import math
import sys
import time

import numpy as np
from tqdm import tqdm

from medmim.common.errors import UserError

log = logging.getLogger("medmim")
LINES = 10
"""Lines a stage writes to a log that is not a terminal."""


def row(stage: str, step: int, loss: float, learning_rate: float, tokens: int) -> dict[str, object]:
    """One row of the loss table. Raises UserError where the loss is not a number: training on would be for nothing."""
    if not math.isfinite(loss):
        raise UserError(
            f"{stage}, step {step}: the loss is {loss}. The training diverged: lower learning_rate, or lengthen its warm-up"
        )
    return {"stage": stage, "step": step, "loss": loss, "learning_rate": learning_rate, "tokens": tokens}


class Progress:
    """A bar with loss and tokens/s on a terminal, else about LINES lines in the log. `start` steps are done already."""

    def __init__(self, stage: str, steps: int, start: int = 0, tokens: int = 0, shown: bool = True) -> None:
        self.stage, self.steps, self.shown = stage, steps, shown
        self.every = max(1, steps // LINES)
        self.terminal = shown and sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, desc=stage, unit="step", disable=not self.terminal, leave=False)
        self.begin, self.first_step, self.first_tokens = time.monotonic(), start, tokens

    def step(self, step: int, loss: float, tokens: int) -> None:
        """After optimizer step `step`, counted from 1; `tokens` seen so far."""
        rate = (tokens - self.first_tokens) / max(time.monotonic() - self.begin, 1e-9)
        if self.terminal:
            self.bar.set_postfix({"loss": f"{loss:.3f}", "tokens/s": f"{rate:,.0f}"}, refresh=False)
            self.bar.update(1)
        elif self.shown and (step % self.every == 0 or step == self.steps):
            log.info("%-10s step %d of %d  loss %.3f  %s tokens/s", self.stage, step, self.steps, loss, f"{rate:,.0f}")

    def close(self, step: int, tokens: int) -> str:
        """Clear the bar after step `step`; the whole in words: steps, tokens, seconds, rates."""
        self.bar.close()
        seconds = max(time.monotonic() - self.begin, 1e-9)
        steps, seen = step - self.first_step, tokens - self.first_tokens
        said = f"{self.stage}: {steps} steps, {seen:,} tokens in {seconds:.1f} s: {seen / seconds:,.0f} tokens/s"
        if self.shown:
            log.info("%s, %.1f steps/s", said, steps / seconds)
        return said


def cumulated(tokens: np.ndarray, size: int) -> np.ndarray:
    """Tokens seen after each step: int64, len(tokens) // size; each step takes the next `size` entries of `tokens`."""
    steps = len(tokens) // size
    return np.cumsum(tokens[: steps * size].reshape(steps, size).sum(1, dtype=np.int64))
