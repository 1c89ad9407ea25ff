"""What a run cost: a table on the terminal, costs.parquet and costs.html in the run's folder.

By rule and job: time in SLURM's queue, run time, CPU and GPU hours, peak memory, node, job id and retries, and the settings to
change where much more was asked than used, or almost too little. From logs/*.runs.jsonl, which every program leaves; at the
end of each run Snakemake calls this by itself.
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from medmim.common.files import write_atomically
from medmim.common.formatting import format_duration, format_hours, format_mebibytes, format_percent
from medmim.common.process_setup import prepare_process
from medmim.reporting.costs import page, runs, summary
from medmim.reporting.costs.advice import suggest_settings
from medmim.tables import table_io

MAX_RULES, MAX_SUGGESTIONS = 8, 3
"""Rules and pieces of advice on the terminal."""


def build_summary_grid(table: list[summary.CostRow]) -> Table:
    """The rules that ran longest, and all."""
    rules = summary.sum_by_rule(table)
    rest = {row["name"] for row in rules[MAX_RULES:]}
    lines = rules[:MAX_RULES]
    if rest:
        lines.append(summary.sum_jobs(f"{len(rest)} more rules", [row for row in table if row["rule"] in rest]))
    lines.append(summary.sum_jobs("all", table))
    grid = Table("rule", box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")  # fits 80 columns
    for head in ("jobs", "run", "queue", "CPU h", "used", "GPU h", "peak memory", "retries"):
        grid.add_column(head, justify="right", no_wrap=True)
    for row in lines:
        grid.add_row(
            row["name"],
            str(row["jobs"]),
            format_duration(row["run_seconds"]) + "+" * bool(row["unmeasured"]),
            format_duration(row["queue_seconds"]),
            format_hours(row["cpu_hours"]),
            format_percent(row["cpu_efficiency"], 0),
            format_hours(row["gpu_hours"]),
            format_mebibytes(row["memory_mb"]),
            str(row["retries"]),
            style="bold" if row is lines[-1] else "",
        )
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder of the run")
    parser.add_argument("--parquet", type=Path, help="table costs (written; default costs.parquet in that folder)")
    parser.add_argument("--html", type=Path, help="page (written; default costs.html in that folder)")
    args = parser.parse_args()
    prepare_process()
    if not args.results.is_dir():
        sys.exit(
            f"{parser.prog}: error: {args.results}: no such folder: run the workflow first, or name the run's with --results"
        )
    program_runs = runs.read_runs(args.results)
    table, advice, cached = (
        summary.build_job_rows(program_runs),
        [text for _, text in suggest_settings(program_runs)],
        summary.count_cached_jobs(args.results),
    )
    html = args.html or args.results / "costs.html"
    try:
        table_io.write_table(args.parquet or args.results / "costs.parquet", "costs", table)
        with write_atomically(html) as temporary:
            temporary.write_text(page.render_costs(table, advice, cached), encoding="utf-8")
    except OSError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    console = Console(
        width=None if sys.stdout.isatty() else 130,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # rich would leave its bold
        highlight=False,
        markup=False,
    )
    if table:
        console.print(build_summary_grid(table))
    if cached[0]:
        console.print(f"from the cache: outputs of {cached[0]} jobs, which took {format_duration(cached[1])} to compute")
    for text in advice[:MAX_SUGGESTIONS]:
        console.print(text)
    more = f"{len(advice) - MAX_SUGGESTIONS} more to change, and each" if len(advice) > MAX_SUGGESTIONS else "Each"
    console.print(f"{more} job: {html}" if table else f"No program has run in {args.results} for what is in it now")


if __name__ == "__main__":
    main()
