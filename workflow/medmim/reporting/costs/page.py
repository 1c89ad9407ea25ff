"""costs.html: one small page, made to be shown in the report's frame as well as alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jinja2

from medmim.common.formatting import format_duration, format_hours, format_mebibytes, format_percent
from medmim.reporting import palette
from medmim.reporting.costs.summary import CostRow, sum_by_rule, sum_jobs

TEMPLATE = Path(__file__).with_name("costs.html.j2")


def render_costs(table: Sequence[CostRow], advice: Sequence[str], cache_savings: tuple[int, float]) -> str:
    """The page. `cache_savings`: jobs whose outputs came from the cache, and seconds saved by that."""
    env = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {
        "duration": format_duration,
        "hours": format_hours,
        "memory": format_mebibytes,
        "share": partial(format_percent, digits=0),
    }
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
