"""Numbers, sizes and times for people, and the time that a server asks to wait: each written or read in one place."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUS = "\N{MINUS SIGN}"
NOT_KNOWN = "\N{EN DASH}"
"""Stands where a number is not known."""
GIB = 1 << 30


def format_percent(share: float | None, digits: int = 1, unit: str = " %") -> str:
    """Format a share of 1 in percent: 0.7125 becomes 71.3 %."""
    return NOT_KNOWN if share is None else f"{share * 100:.{digits}f}{unit}".replace("-", MINUS)


def format_points(difference: float, digits: int = 0) -> str:
    """Format a difference of shares in percentage points with its sign: 0.215 becomes +22."""
    text = f"{abs(difference) * 100:.{digits}f}"
    return ("" if float(text) == 0 else "+" if difference > 0 else MINUS) + text


def format_bytes(count: int) -> str:
    """Format a number of bytes by powers of 1000: 1.2 MB."""
    power = min(4, (len(str(count)) - 1) // 3)
    value = count / 1000**power
    return f"{value:.{1 if power and value < 100 else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def format_mebibytes(mebibytes: float | None) -> str:
    """Format memory as SLURM does, by powers of 1024: 610 MB, 15.6 GB."""
    if mebibytes is None:
        return NOT_KNOWN
    return f"{mebibytes:.0f} MB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GB"


def format_gibibytes(count: float) -> str:
    """Format bytes of a GPU's memory: 15.6 GiB."""
    return f"{count / GIB:.1f} GiB"


def format_duration(seconds: float | None) -> str:
    """Format a time: 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return NOT_KNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    remaining = round(seconds)
    for size, unit, below, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if remaining >= size:
            rest = remaining % size // below
            return f"{remaining // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{remaining} s"


def format_hours(hours: float) -> str:
    """Format hours of CPUs or GPUs: 0, <0.001, 0.004, 12.5, 1,234."""
    if hours < 0.0005:
        return "<0.001" if hours else "0"
    return f"{hours:.3f}" if hours < 1 else f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"


def parse_retry_after(header: str | None) -> float | None:
    """Read the seconds of a Retry-After, which is a number or a date; None where it is neither."""
    text = (header or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without its zone
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
