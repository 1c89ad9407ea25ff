"""Say what a run needs of the outside before it starts: licences, credentials and whether they work, bytes, disk, questions.

cfg: sources (of each: origin, root, limit), download (settings.Download), models (of each from the hub: hub, revision),
questions (of each split: how many of a kind). Exits with 1 where something is missing. It asks each server a little, and
writes nothing.
"""

from medmim.download.settings import SERVERS
from medmim.job import Job, UserError, parser


def main() -> None:
    arguments = parser(__doc__)
    with Job(arguments, modules=[f"medmim.download.{source}" for source in SERVERS]) as job:
        from medmim.download import preflight

        needs, gaps = preflight.look(job.cfg)
        preflight.show(needs, job.cfg["questions"], gaps)
        if gaps:
            raise UserError(f"{len(gaps)} thing{'s are' if len(gaps) > 1 else ' is'} missing for this run: see above")
        job.done("nothing is missing for this run")


if __name__ == "__main__":
    main()
