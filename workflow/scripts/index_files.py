"""List and hash the files of a folder that the user has.

cfg: rules (their data-use policy, as medmim.tables.data_policy records them; unset where nothing is known), card (whether they
are a repository of the hub, whose card states their licence), licence (what holds where that card states none).
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import UNSTATED_LICENCE, DataPolicy


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--root", type=Path, required=True, help="the folder")
    arguments.add_argument("--index", type=Path, required=True, help="table of its files (written)")
    with Job(arguments, outputs=["index"], use_cache=False) as job:
        from medmim.common import files, huggingface_hub
        from medmim.tables import table_io

        job.add_policy(DataPolicy.from_record(job.cfg.get("rules", {})))
        if job.cfg.get("card"):
            job.add_policy(
                DataPolicy(
                    huggingface_hub.read_licences(job.args.root) or frozenset({job.cfg.get("licence") or UNSTATED_LICENCE})
                )
            )
        job.watch_folder(job.args.root, job.args.index.as_posix())
        try:
            rows = files.index_files(job.args.root)
        except (FileNotFoundError, ValueError) as error:
            raise UserError(f"{error}. Set the source's path in the config to the folder you keep it in") from None
        table_io.write_table(job.out["index"], "files", rows)
        job.set_summary(f"{job.args.root}: {len(rows)} files")


if __name__ == "__main__":
    main()
