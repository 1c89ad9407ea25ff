"""Bring a published held-out set to its place, from the hub at its commit.

cfg: hub, the repository, and revision, its commit; files, patterns of what is read of it; licence, as the set's authors state it.
The files are linked, not copied: the hub's cache keeps the bytes. They are under the licence that its card states, or else under
that of cfg.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import UNSTATED_LICENCE, DataPolicy

CARD_FILE = "README.md"
"""States the licence."""


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--index", type=Path, required=True, help="files.parquet of the folder to fill (written)")
    with Job(arguments, outputs=["index"], use_cache=False) as job:
        from medmim.common import huggingface_hub

        repository, revision = job.cfg["hub"], job.cfg["revision"]
        folder = huggingface_hub.download_snapshot(
            repository, revision, repo_type="dataset", allow_patterns=[*job.cfg["files"], CARD_FILE]
        )
        if folder.name != revision:
            raise UserError(f"{repository}: the hub gave commit {folder.name}, not {revision}")
        job.add_policy(
            DataPolicy(huggingface_hub.read_licences(folder) or frozenset({job.cfg.get("licence") or UNSTATED_LICENCE}))
        )
        job.set_summary(f"{huggingface_hub.link_files(folder, job.out['index'])} files of {repository} at {revision}")


if __name__ == "__main__":
    main()
