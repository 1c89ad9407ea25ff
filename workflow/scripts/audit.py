"""Check what a run left behind: hash every artifact and raw file again, follow every link between them, and compare the code."""

import json
from pathlib import Path

from medmim.common import files
from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser, log


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--results", type=Path, required=True, help="folder of the run")
    arguments.add_argument("--cache", type=Path, help="folder of a cache to check as well")
    arguments.add_argument("--json", type=Path, help="list of what was found (written)")
    with Job(arguments) as job:
        from medmim.provenance.audit import audit_run

        if not job.args.results.is_dir():
            raise UserError(f"{job.args.results}: no such folder: run the workflow first, or name the run's with --results")
        report = audit_run(job.args.results, [Path(p) for p in job.cfg.get("expected", [])], job.args.cache)
        if job.args.json:
            with files.write_atomically(job.args.json) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        for fault in report["faults"]:
            log.error("%(kind)s: %(path)s: %(detail)s", fault)
        if count := len(report["faults"]):
            raise UserError(f"{count} fault{'s' if count > 1 else ''} in {job.args.results}")
        job.set_summary(f"{report['artifacts']} artifacts and {report['files']} files in folders agree with their provenance")


if __name__ == "__main__":
    main()
