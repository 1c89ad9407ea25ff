"""Audit benchmark files against training files: leaks, repeats, broken options, letter skew, baselines.

Files are the authors' released JSON or our qa tables (Parquet), mixed as you like. Needs no config and no run:

    python workflow/scripts/audit_release.py --train train.json --benchmark benchmark.json --json audit.json --html audit.html

The JSON maps the name of each benchmark file (of a qa table: each set in it) to its figures; medmim.release.audit says
what each figure counts. The HTML page explains them and names the records.
"""

import json
from pathlib import Path

from medmim.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--train", type=Path, nargs="+", required=True, metavar="FILE", help="training questions")
    arguments.add_argument("--benchmark", type=Path, nargs="+", required=True, metavar="FILE", help="benchmark questions")
    arguments.add_argument("--json", type=Path, required=True, metavar="OUT", help="figures (written)")
    arguments.add_argument("--html", type=Path, metavar="OUT", help="readable page (written)")
    with Job(arguments, inputs=["train", "benchmark"], outputs=["json", "html"]) as job:
        from medmim.release.audit import audit
        from medmim.release.page import page

        train, audits = audit(job.args.train, job.args.benchmark)
        figures = {name: found.figures() for name, found in audits.items()}
        job.out["json"].write_text(json.dumps(figures, indent=1) + "\n")
        if "html" in job.out:
            job.out["html"].write_text(page([p.name for p in job.args.train], train, audits))
        leaks = sum(f["shares_patient_with_train"] for f in figures.values())
        total = sum(f["records"] for f in figures.values())
        job.done(f"{len(figures)} sets, {total} questions, {leaks} share a patient with {train.questions} training questions")


if __name__ == "__main__":
    main()
