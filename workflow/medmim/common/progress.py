"""How far a long stage is: lines in its log, of which Snakemake's screen makes a bar."""

import logging
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from medmim.common.formatting import format_duration

log = logging.getLogger("medmim")
MIN_SECONDS = 2.0
"""Least seconds between two lines."""
MIN_SHARE_OF_TIME = 0.05
"""Least time between two lines, as a share of the time so far: a stage of a day writes fewer than 200."""
LINE = re.compile(r"\S.*: (?P<percent>\d+\.\d) % done(?:(?:, .*)?, about (?P<left>[^,]+) left|, .*)?", re.ASCII)
TAIL_BYTES = 4096

T = TypeVar("T")


class Progress(NamedTuple):
    """What a line of progress says."""

    share: float
    """Of 1."""
    time_left: str
    """For people; empty where nobody can say yet."""


class ProgressLog:
    """Writes lines of progress, the further apart the longer it takes. `done` is the share of 1 that was done before."""

    def __init__(self, name: str, done: float = 0.0) -> None:
        self.name = name
        self._first_share, self._start = done, time.monotonic()
        self._next_time = self._start + MIN_SECONDS

    def report(self, share: float, detail: str = "") -> None:
        """Write a line if it is time for one: the share of 1 that is done, and more in words."""
        now = time.monotonic()
        if now < self._next_time:
            return
        elapsed = now - self._start
        self._next_time = now + max(MIN_SECONDS, MIN_SHARE_OF_TIME * elapsed)
        new = share - self._first_share
        left = f"about {format_duration(elapsed * (1 - share) / new)} left" if new > 0 and share < 1 else ""
        log.info("%s", ", ".join(filter(None, (f"{self.name}: {share:.1%}".replace("%", " % done"), detail, left))))


class CountedProgress(ProgressLog):
    """Progress of a number of things, counted one by one."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0) -> None:
        super().__init__(name, done / max(total, 1))
        self.total, self.unit, self.done = total, unit, done

    def advance(self, count: int = 1) -> None:
        """Count things that are done."""
        self.done += count
        self.report(self.done / max(self.total, 1), f"{self.done:,} of {self.total:,} {self.unit}")


def track_items(items: Iterable[T], name: str, total: int, unit: str) -> Iterator[T]:
    """Give the items on, and write how many of the total have come."""
    progress = CountedProgress(name, total, unit)
    for item in items:
        yield item
        progress.advance()


def parse_progress(line: str) -> Progress | None:
    """Read what a line of progress says; None where it is none."""
    parts = LINE.fullmatch(line)
    return Progress(float(parts["percent"]) / 100, parts["left"] or "") if parts else None


def read_progress(log_file: Path) -> Progress | None:
    """Read the newest progress in a log; None where it has none."""
    try:
        with log_file.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((progress for line in reversed(lines) if (progress := parse_progress(line))), None)
