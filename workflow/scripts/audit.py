"""Check what a run left behind: hash every artifact and raw file again and follow every link between them."""

import json
from pathlib import Path

from medmim import files
from medmim.audit import audit
from medmim.job import Job, UserError, log, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--results", type=Path, required=True, help="folder of the run")
    arguments.add_argument("--json", type=Path, help="list of what was found (written)")
    with Job(arguments) as job:
        found = audit(job.args.results, expected=[Path(p) for p in job.cfg.get("expected", [])])
        if job.args.json:
            with files.whole(job.args.json) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
        for fault in found["faults"]:
            log.error("%(kind)s: %(path)s: %(detail)s", fault)
        if found["faults"]:
            raise UserError(f"{len(found['faults'])} faults in {job.args.results}")
        job.done(f"{found['artifacts']} artifacts and {found['files']} files in folders agree with their provenance")


if __name__ == "__main__":
    main()
