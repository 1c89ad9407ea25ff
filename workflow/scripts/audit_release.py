"""Audit benchmark files against training files: leaks, repeats, broken options, letter skew, and what answers without looking.

Files are the authors' released JSON or our qa tables (Parquet), mixed as you like. Needs no config and no run:

    python workflow/scripts/audit_release.py --train train.json --benchmark benchmark.json --json audit.json --html audit.html

The JSON maps the name of each benchmark file (of a qa table: each set in it) to its figures; medmim.benchmarks.quality.faults and
medmim.benchmarks.quality.text_only say what each figure counts. The HTML page explains them and names the records. With
--release-train and --release-benchmark the authors' files are audited beside, by their own training files.
"""

import json
from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--train", type=Path, nargs="+", required=True, metavar="FILE", help="training questions")
    arguments.add_argument("--benchmark", type=Path, nargs="+", required=True, metavar="FILE", help="benchmark questions")
    arguments.add_argument("--json", type=Path, required=True, metavar="OUT", help="figures (written)")
    arguments.add_argument("--html", type=Path, metavar="OUT", help="readable page (written)")
    arguments.add_argument("--release-train", type=Path, nargs="*", default=[], metavar="FILE", help="released, to set beside")
    arguments.add_argument(
        "--release-benchmark", type=Path, nargs="*", default=[], metavar="FILE", help="released, to set beside"
    )
    arguments.add_argument(
        "--images", type=Path, nargs="*", default=[], metavar="FILE", help="images tables, to try what size and brightness tell"
    )
    arguments.add_argument("--statistics", type=Path, metavar="OUT", help="statistics table (written)")
    inputs = ["train", "benchmark", "release_train", "release_benchmark", "images"]
    with Job(arguments, inputs=inputs, outputs=["json", "html", "statistics"]) as job:
        from medmim.benchmarks.quality.faults import FAULTS
        from medmim.benchmarks.quality.page import AuditReport, render_page
        from medmim.benchmarks.quality.statistics import compute_statistics
        from medmim.tables import table_io

        ours = AuditReport.from_files("ours", job.args.train, job.args.benchmark, job.args.images)
        theirs = (
            [AuditReport.from_files("release", job.args.release_train, job.args.release_benchmark)]
            if job.args.release_benchmark
            else []
        )
        if repeated_sets := [name for part in theirs for name in part.sets if name in ours.sets]:
            raise UserError(f"both among --benchmark and --release-benchmark: {', '.join(repeated_sets)}")
        parts = [ours, *theirs]
        rows = [
            row
            for part in parts
            for row in [
                *compute_statistics(part.origin, "train", part.train.sets),
                *compute_statistics(
                    part.origin,
                    "benchmark",
                    {name: a.entries for name, a in part.sets.items()},
                    part.text_scores,
                    {name: {fault: len(a.where[fault]) for fault in FAULTS} for name, a in part.sets.items()},
                ),
            ]
        ]
        figures = {
            name: a.compute_figures() | part.text_scores[name].compute_figures()
            for part in parts
            for name, a in part.sets.items()
        }
        if "statistics" in job.out:
            table_io.write_table(job.out["statistics"], "statistics", rows)
        job.out["json"].write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        if "html" in job.out:
            job.out["html"].write_text(render_page(parts, rows), encoding="utf-8")
        leaks = sum(a.compute_figures()["shares_patient_with_train"] for a in ours.sets.values())
        total = sum(len(a.entries) for a in ours.sets.values())
        beside_note = f"; {len(theirs[0].sets)} released beside" if theirs else ""
        job.set_summary(
            f"{len(ours.sets)} sets, {total} questions, {leaks} share a patient with {ours.train.questions} training questions"
            + beside_note
        )


if __name__ == "__main__":
    main()
