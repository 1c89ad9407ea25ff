import logging
from itertools import pairwise
from pathlib import Path

import pytest

from medmim.common import progress
from medmim.common.progress import CountedProgress, Progress, parse_progress, read_progress, track_items


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_further_apart(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counted = CountedProgress("predict", 86_400, "questions")
    for second in range(1, 86_401):  # a day
        clock[0] = second
        counted.advance()
    times = [int(line.split(" done, ")[1].split(" of ")[0].replace(",", "")) for line in caplog.messages]
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] == 2 and gaps[0] == 2 and max(gaps) <= 0.05 * 86_400 and len(times) < 200
    assert caplog.messages[0] == "predict: 0.0 % done, 2 of 86,400 questions, about 23 h 59 min left"


def test_a_short_stage_says_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(track_items("abc", "x", 3, "letters")) == ["a", "b", "c"]
    assert caplog.messages == []


def test_what_was_done_before_does_not_shorten_the_time_left(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counted = CountedProgress("replies", 100, "replies", done=80)
    clock[0] = 10.0
    counted.advance(10)
    assert caplog.messages == ["replies: 90.0 % done, 90 of 100 replies, about 10 s left"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tune: 43.0 % done, step 43 of 100, loss 0.512, 1,234 tokens/s, about 3 min 20 s left", Progress(0.43, "3 min 20 s")),
        ("embed: 0.1 % done, 3.1 GB of 12 GB, 2 of 50 files", Progress(0.001, "")),
        ("a model: 100.0 % done", Progress(1.0, "")),
        ("predict            mantis: 96 replies under 2 conditions, 96 asked now (73.8 s)", None),
        ("accuracy: 43 % of it is done", None),
    ],
)
def test_lines_of_progress_are_known(line: str, expected: Progress | None) -> None:
    assert parse_progress(line) == expected


def test_the_newest_line_of_a_log_counts(tmp_path: Path) -> None:
    log = tmp_path / "l"
    assert read_progress(log) is None
    log.write_bytes(b"x" * 9000 + b"\ntune: 10.0 % done\ntune: 20.0 % done, about 5 s left\nsome \xff warning\n")
    assert read_progress(log) == Progress(0.2, "5 s")
