"""costs.html: one small page, made to be shown in the report's frame as well as alone."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from medmim.reporting import palette
from medmim.reporting.costs.summary import CostRow, sum_by_rule, sum_jobs

TEMPLATE = Path(__file__).with_name("costs.html.j2")
NOT_KNOWN = "–"


def format_duration(seconds: float | None) -> str:
    """4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
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


def format_hours(value: float) -> str:
    """0, <0.001, 0.004, 12.5, 1,234."""
    if value < 0.0005:
        return "<0.001" if value else "0"
    return f"{value:.3f}" if value < 1 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def format_memory(mebibytes: float | None) -> str:
    """610 MB, 15.6 GB: as SLURM counts them, by 1024."""
    if mebibytes is None:
        return NOT_KNOWN
    return f"{mebibytes:.0f} MB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GB"


def format_percent(value: float | None) -> str:
    """71 %."""
    return NOT_KNOWN if value is None else f"{value * 100:.0f} %"


def render_costs(table: Sequence[CostRow], advice: Sequence[str], cache_savings: tuple[int, float]) -> str:
    """The page. `cache_savings`: jobs whose outputs came from the cache, and seconds saved by that."""
    env = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"duration": format_duration, "hours": format_hours, "memory": format_memory, "share": format_percent}
    return env.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        light=palette.LIGHT,
        dark=palette.DARK,
        all=sum_jobs("all", table),
        rules=sum_by_rule(table),
        jobs=table,
        advice=advice,
        cached=cache_savings[0],
        saved=cache_savings[1],
        gpus=any(row["gpu_hours"] for row in table),
        slurm=any(row["slurm_job_id"] for row in table),
        good=("done", "restored"),
    )
