"""Write the report: one self-contained HTML file, and on request the picture of its main result."""

from pathlib import Path

from medmim.models.families import registry
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    add = arguments.add_argument
    add("--leaderboard", type=Path, required=True, help="leaderboard table")
    add("--comparisons", type=Path, required=True, help="comparisons table")
    add("--answers", type=Path, nargs="+", required=True, help="answers tables")
    add("--predictions", type=Path, nargs="+", required=True, help="predictions tables")
    add("--train", type=Path, required=True, help="qa table of the training questions")
    add("--benchmark", type=Path, required=True, help="qa table of the benchmark")
    add("--images", type=Path, nargs="*", default=[], help="images tables")
    add("--findings", type=Path, nargs="*", default=[], help="findings tables of the sources")
    add("--rejected", type=Path, nargs="*", default=[], help="rejected tables of the sources, <source>.rejected.parquet")
    add("--left-out", type=Path, nargs="*", default=[], help="tables of what the sources' adapters leave out")
    add("--copies", type=Path, help="copies table")
    add("--loss", type=Path, nargs="*", default=[], help="loss histories, <model>.loss.parquet")
    add("--benchmark-audit", type=Path, help="JSON of audit_release.py")
    add("--statistics", type=Path, help="statistics table of audit_release.py")
    add("--paper", type=Path, help="the paper's figures as you filled them in: CSV with model, set, accuracy (percent)")
    add("--report", type=Path, required=True, help="HTML (written)")
    add("--picture", type=Path, help="PNG of the main figure (written)")
    inputs = [
        "leaderboard",
        "comparisons",
        "answers",
        "predictions",
        "train",
        "benchmark",
        "images",
        "findings",
        "rejected",
        "left_out",
        "copies",
        "loss",
        "benchmark_audit",
        "statistics",
        "paper",
    ]
    with Job(
        arguments, inputs=inputs, outputs=["report", "picture"], modules=[registry.family_module(f) for f in registry.FAMILIES]
    ) as job:
        from medmim.common.formatting import format_bytes
        from medmim.reporting.report import page

        files = page.ReportFiles(**{name: getattr(job.args, name) for name in inputs})
        html = page.render_report(files, job.cfg, job.input_records)
        job.out["report"].write_text(html, encoding="utf-8")
        if "picture" in job.out:
            job.out["picture"].write_bytes(page.render_summary_picture(files, job.cfg))
        job.set_summary(f"{format_bytes(len(html.encode()))}, {html.count('data:image/')} images")


if __name__ == "__main__":
    main()
