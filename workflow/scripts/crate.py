"""Describe a finished run for others' tools: a Workflow Run RO-Crate in its folder."""

from pathlib import Path

from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--results", type=Path, required=True, help="folder of the run")
    with Job(arguments) as job:
        from medmim.provenance import ro_crate

        jobs, parts = ro_crate.write_crate(job.args.results)
        job.set_summary(f"{job.args.results / ro_crate.METADATA_FILE}: {jobs} jobs, {parts} files")


if __name__ == "__main__":
    main()
