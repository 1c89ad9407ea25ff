"""Numbers for people, and what a server asks to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from medmim.common import formatting


def test_shares_for_people() -> None:
    assert [formatting.format_percent(s, 0) for s in (None, 0.714)] == ["–", "71 %"]
    assert (formatting.format_percent(0.71249, unit=""), formatting.format_percent(-0.5)) == ("71.2", "−50.0 %")
    assert [formatting.format_points(v, 1) for v in (0.215, -0.215, 0.0, -0.0004)] == ["+21.5", "−21.5", "0.0", "0.0"]


def test_sizes_for_people() -> None:
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 123_456: "123 kB", 2_500_000_000: "2.5 GB"}
    assert {n: formatting.format_bytes(n) for n in sizes} == sizes
    assert [formatting.format_mebibytes(m) for m in (None, 610.2, 16000)] == ["–", "610 MB", "15.6 GB"]
    assert formatting.format_gibibytes(80 * formatting.GIB) == "80.0 GiB"
    assert [formatting.format_hours(h) for h in (0, 1e-5, 0.004, 12.34, 1234.5)] == ["0", "<0.001", "0.004", "12.3", "1,234"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_for_people(seconds: float | None, text: str) -> None:
    assert formatting.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), (" 0.5 ", 0.5), ("-3", 0), ("nan", None), ("inf", None), ("", None), (None, None), ("soon", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("21 Oct 2015 07:28:00", None)],
)  # fmt: skip
def test_what_a_server_asks_to_wait(header: str | None, seconds: float | None) -> None:
    assert formatting.parse_retry_after(header) == seconds


def test_a_date_to_come_is_waited_for() -> None:
    seconds = formatting.parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert seconds is not None and 85 < seconds <= 90
