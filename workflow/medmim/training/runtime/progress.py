"""What a training says of itself: lines of progress in its log, and rows of the loss table."""

import logging
import math
import time

import numpy as np

from medmim.common.errors import UserError
from medmim.common.progress import ProgressLog

log = logging.getLogger("medmim")


def build_loss_row(stage: str, step: int, loss: float, learning_rate: float, tokens: int) -> dict[str, object]:
    """One row of the loss table. Raises UserError where the loss is not a number: training on would be for nothing."""
    if not math.isfinite(loss):
        raise UserError(
            f"{stage}, step {step}: the loss is {loss}. The training diverged: lower learning_rate, or lengthen its warm-up"
        )
    return {"stage": stage, "step": step, "loss": loss, "learning_rate": learning_rate, "tokens": tokens}


class ProgressReporter:
    """Writes lines of progress with loss and tokens/s. `start` steps are done already."""

    def __init__(self, stage: str, steps: int, start: int = 0, tokens: int = 0, is_shown: bool = True) -> None:
        self.stage, self.steps, self.is_shown = stage, steps, is_shown
        self.log = ProgressLog(stage, start / max(steps, 1))
        self.start_time, self.first_step, self.first_tokens = time.monotonic(), start, tokens

    def report_step(self, step: int, loss: float, tokens: int) -> None:
        """After optimizer step `step`, counted from 1; `tokens` seen so far."""
        rate = (tokens - self.first_tokens) / max(time.monotonic() - self.start_time, 1e-9)
        if self.is_shown:
            self.log.report(step / self.steps, f"step {step} of {self.steps}, loss {loss:.3f}, {rate:,.0f} tokens/s")

    def close(self, step: int, tokens: int) -> str:
        """After step `step`, the whole in words: steps, tokens, seconds, rates."""
        seconds = max(time.monotonic() - self.start_time, 1e-9)
        steps, new_tokens = step - self.first_step, tokens - self.first_tokens
        summary = f"{self.stage}: {steps} steps, {new_tokens:,} tokens in {seconds:.1f} s: {new_tokens / seconds:,.0f} tokens/s"
        if self.is_shown:
            log.info("%s, %.1f steps/s", summary, steps / seconds)
        return summary


def cumulate_tokens(tokens: np.ndarray, size: int) -> np.ndarray:
    """Tokens seen after each step: int64, len(tokens) // size; each step takes the next `size` entries of `tokens`."""
    steps = len(tokens) // size
    return np.cumsum(tokens[: steps * size].reshape(steps, size).sum(1, dtype=np.int64))
