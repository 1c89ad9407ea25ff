"""costs.html: one small page, made to be shown in the report's frame as well as alone."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from medmim.reporting import palette
from medmim.reporting.costs.summary import Row, by_rule, total

TEMPLATE = Path(__file__).with_name("costs.html.j2")
NONE = "–"


def duration(seconds: float | None) -> str:
    """4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    for size, unit, below, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // below
            return f"{left // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{left} s"


def hours(value: float) -> str:
    """0, <0.001, 0.004, 12.5, 1,234."""
    if value < 0.0005:
        return "<0.001" if value else "0"
    return f"{value:.3f}" if value < 1 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def memory(mebibytes: float | None) -> str:
    """610 MB, 15.6 GB: as SLURM counts them, by 1024."""
    if mebibytes is None:
        return NONE
    return f"{mebibytes:.0f} MB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GB"


def share(value: float | None) -> str:
    """71 %."""
    return NONE if value is None else f"{value * 100:.0f} %"


def render(table: Sequence[Row], advice: Sequence[str], cached: tuple[int, float]) -> str:
    """The page. `cached`: jobs whose outputs came from the cache, and seconds saved by that."""
    env = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"duration": duration, "hours": hours, "memory": memory, "share": share}
    return env.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        light=palette.LIGHT,
        dark=palette.DARK,
        all=total("all", table),
        rules=by_rule(table),
        jobs=table,
        advice=advice,
        cached=cached[0],
        saved=cached[1],
        gpus=any(row["gpu_hours"] for row in table),
        slurm=any(row["slurm_job_id"] for row in table),
        good=("done", "restored"),
    )
