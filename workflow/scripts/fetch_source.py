"""Fetch a source from its owner's server into a folder, and list and hash its files.

cfg: download (settings.Download, the part of this source), limit (patients), max_missing (share of files that the owner may
no longer have), rules (of use, as medmim.tables.data_policy records them). What is in the folder is not fetched again, and
what was cut
off goes on. Credentials are those of the environment, ~/.netrc, AWS's own settings and kaggle.json.
"""

import importlib
from pathlib import Path

from medmim.provenance.job import Job, log, parser
from medmim.tables.data_policy import Rules


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--source", required=True, help="name of the source: embed, lumiere, ms_cxr_t, pmc, vqa_rad, odir")
    arguments.add_argument("--root", type=Path, required=True, help="folder to fill")
    arguments.add_argument("--index", type=Path, required=True, help="table of its files (written)")
    arguments.add_argument("--missing", type=Path, required=True, help="table of what the owner no longer has (written)")
    arguments.add_argument("--threads", type=int, default=4, help="files fetched at once")
    outputs = ["index", "missing"]
    with Job(arguments, outputs=outputs, cached=False, modules=["medmim.sources.{source}.download"]) as job:
        from medmim.common import files
        from medmim.config.download import Download
        from medmim.download.source_folder import Folder
        from medmim.download.transfer import Patience
        from medmim.tables import table_io

        args = job.args
        job.hold(Rules.told(job.cfg.get("rules", {})))
        settings = Download.model_validate(job.cfg.get("download", {}))
        module = importlib.import_module(f"medmim.sources.{args.source}.download")
        patience = Patience(settings.retries, settings.pause)
        with Folder(args.source, args.root, patience, args.threads) as folder:
            module.fetch(folder, settings, job.cfg.get("limit"))
            folder.check(job.cfg.get("max_missing", 0.01))
            folder.complete(job.cfg.get("limit"))
        for path, why in sorted(folder.missing.items()):
            log.info("missing: %s (%s)", path, why)
        job.watch(args.root, args.index.as_posix())
        count = table_io.write(job.out["index"], "files", files.index(args.root, folder.ledger.known))
        told = [{"stage": "fetch_source", "item": path, "reason": why} for path, why in sorted(folder.missing.items())]
        table_io.write(job.out["missing"], "rejected", told)
        job.done(f"{args.source}: {folder.meter.files} files fetched, {count} in {args.root}, {len(told)} missing at the owner's")


if __name__ == "__main__":
    main()
