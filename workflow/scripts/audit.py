"""Check what a run left behind: hash every artifact and raw file again, follow every link between them, and compare the code."""

import json
from pathlib import Path

from medmim.common import files
from medmim.common.errors import UserError
from medmim.provenance.job import Job, log, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--results", type=Path, required=True, help="folder of the run")
    arguments.add_argument("--cache", type=Path, help="folder of a cache to check as well")
    arguments.add_argument("--json", type=Path, help="list of what was found (written)")
    with Job(arguments) as job:
        from medmim.provenance.audit import audit

        if not job.args.results.is_dir():
            raise UserError(f"{job.args.results}: no such folder: run the workflow first, or name the run's with --results")
        found = audit(job.args.results, [Path(p) for p in job.cfg.get("expected", [])], job.args.cache)
        if job.args.json:
            with files.whole(job.args.json) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        for fault in found["faults"]:
            log.error("%(kind)s: %(path)s: %(detail)s", fault)
        if count := len(found["faults"]):
            raise UserError(f"{count} fault{'s' if count > 1 else ''} in {job.args.results}")
        job.done(f"{found['artifacts']} artifacts and {found['files']} files in folders agree with their provenance")


if __name__ == "__main__":
    main()
