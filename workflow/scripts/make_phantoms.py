"""Draw a synthetic cohort of one source, in its owner's layout and formats.

--cfg keys: patients (how many), seed.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import SYNTHETIC_POLICY


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--source", required=True, help="whose layout: a folder of medmim/sources")
    arguments.add_argument("--raw", type=Path, required=True, help="files table of the cohort's folder (both written)")
    with Job(arguments, outputs=["raw"], modules=["medmim.sources.{source}.phantom"]) as job:
        if job.cfg.keys() != {"patients", "seed"} or job.cfg["patients"] < 1:
            raise UserError(f"--cfg needs patients (at least 1) and seed, got {job.cfg}")
        from medmim.sources.contract import Phantom, load_part

        job.add_policy(SYNTHETIC_POLICY)
        phantom: Phantom = load_part(job.args.source, "phantom", Phantom)
        phantom.write_cohort(job.out["raw"], patients=job.cfg["patients"], seed=job.cfg["seed"])
        job.set_summary(f"{job.args.source}: {job.cfg['patients']} synthetic patients")


if __name__ == "__main__":
    main()
