"""Fetch a source from its owner's server into a folder, and list and hash the files that are needed.

cfg: download (the section download, the part of this source), limit (patients), max_missing (share of files that the owner may
no longer have), rules (of use, as medmim.tables.data_policy records them). What is in the folder is not fetched again, and
what was cut off goes on. Credentials are those of the environment, ~/.netrc, AWS's own settings and kaggle.json.
"""

from pathlib import Path

from medmim.provenance.job import Job, build_parser, log
from medmim.tables.data_policy import DataPolicy


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--source", required=True, help="name of the source, a folder of medmim/sources")
    arguments.add_argument("--root", type=Path, required=True, help="folder to fill")
    arguments.add_argument("--named", nargs="*", type=Path, default=[], help="qa tables of the release: only images it names")
    arguments.add_argument("--index", type=Path, required=True, help="table of the files (written)")
    arguments.add_argument("--watched", type=Path, required=True, help="table of all that the index depends on (written)")
    arguments.add_argument("--missing", type=Path, required=True, help="table of what the owner no longer has (written)")
    arguments.add_argument("--threads", type=int, default=4, help="files fetched at once")
    outputs = ["index", "watched", "missing"]
    modules = ["medmim.sources.{source}.download", "medmim.sources.{source}.adapter"]
    with Job(arguments, inputs=["named"], outputs=outputs, use_cache=False, modules=modules) as job:
        from medmim.common import files
        from medmim.config.download import Download
        from medmim.download.source_folder import DownloadFolder, SourceDownload
        from medmim.download.transfer import RetryPolicy
        from medmim.sources.base import Adapter, SourceContents
        from medmim.sources.contract import load_part
        from medmim.sources.needed_files import NeededFiles
        from medmim.sources.released_pictures import ReleasedPictures
        from medmim.tables import images, table_io

        args = job.args
        job.add_policy(DataPolicy.from_record(job.cfg.get("rules", {})))
        settings = Download.model_validate(job.cfg.get("download", {}))
        download: SourceDownload = load_part(args.source, "download", SourceDownload)
        patience = RetryPolicy(settings.retries, settings.pause)
        with DownloadFolder(args.source, args.root, patience, args.threads) as folder:
            download.fetch_source(folder, settings, job.cfg.get("limit"))
            folder.check_missing_share(job.cfg.get("max_missing", 0.01))
            folder.mark_complete(job.cfg.get("limit"))
            adapter: Adapter = load_part(args.source, "adapter", Adapter)
            released_paths = images.collect_release_paths(args.named, args.source)

            def choose(contents: SourceContents) -> SourceContents:
                if args.named:
                    contents = ReleasedPictures.from_contents(contents, released_paths).select_contents(contents)
                return contents.limit_patients(job.cfg.get("limit"))

            needed = NeededFiles(adapter, args.root, released_paths, job.cfg.get("limit"), choose)
            ledger = folder.ledger
            rows = needed.iter_index_rows(
                lambda root, path, stamp: ledger.find_hash(root / path) or files.hash_file(root / path), args.threads
            )
            count = table_io.write_table(job.out["index"], "files", rows)
        for path, reason in sorted(folder.missing.items()):
            log.info("missing: %s (%s)", path, reason)
        table_io.write_table(job.out["watched"], "watched", needed.recorder.list_rows())
        job.watch_paths(args.root, args.index, args.watched, needed.recorder.compute_digest())
        missing_rows = [{"stage": "fetch_source", "item": path, "reason": why} for path, why in sorted(folder.missing.items())]
        table_io.write_table(job.out["missing"], "rejected", missing_rows)
        job.set_summary(
            f"{args.source}: {folder.meter.received_files} files fetched, {count} needed in {args.root}, {len(missing_rows)} "
            "missing at the owner's"
        )


if __name__ == "__main__":
    main()
