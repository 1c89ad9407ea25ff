"""List and hash the files that a run needs of a source that the user has, and no others.

cfg: rules (their data-use policy, as medmim.tables.data_policy records them; unset where nothing is known), limit (patients;
unset takes all). The source's adapter, medmim.sources.<source>.adapter, says which files are needed. Hashes of files that have
not changed since are taken from --hashes, also after a kill.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.progress import track_items
from medmim.provenance.job import Job, build_parser
from medmim.tables.data_policy import DataPolicy


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--source", required=True, help="name of the source, a folder of medmim/sources")
    arguments.add_argument("--root", type=Path, required=True, help="folder that holds the source in its owner's layout")
    arguments.add_argument("--named", nargs="*", type=Path, default=[], help="qa tables of the release: only images it names")
    arguments.add_argument("--hashes", type=Path, required=True, help="file that keeps hashes as they become known")
    arguments.add_argument("--index", type=Path, required=True, help="table of the files (written)")
    arguments.add_argument("--watched", type=Path, required=True, help="table of all that the index depends on (written)")
    arguments.add_argument("--threads", type=int, default=1, help="files hashed at once; the result is the same")
    outputs, modules = ["index", "watched"], ["medmim.sources.{source}.adapter"]
    with Job(arguments, inputs=["named"], outputs=outputs, use_cache=False, modules=modules) as job:
        from medmim.common.hash_memory import HashMemory
        from medmim.common.outside_files import is_file
        from medmim.sources.base import Adapter, SourceContents
        from medmim.sources.contract import load_part
        from medmim.sources.needed_files import NeededFiles
        from medmim.sources.released_pictures import ReleasedPictures
        from medmim.tables import images, table_io

        args = job.args
        job.add_policy(DataPolicy.from_record(job.cfg.get("rules", {})))
        if not args.root.is_dir():
            raise UserError(f"{args.root}: no such folder. Set the source's path in the config to the folder you keep it in")
        adapter: Adapter = load_part(args.source, "adapter", Adapter)
        limit = job.cfg.get("limit")
        released_paths = images.collect_release_paths(args.named, args.source)

        def choose(contents: SourceContents) -> SourceContents:
            if args.named:
                contents = ReleasedPictures.from_contents(contents, released_paths).select_contents(contents)
            return contents.choose_present(limit, lambda file: is_file(args.root / file))

        needed = NeededFiles(adapter, args.root, released_paths, limit, choose)
        rows = needed.iter_index_rows(HashMemory(args.hashes).hash_file, args.threads)
        count = table_io.write_table(job.out["index"], "files", track_items(rows, args.source, len(needed.paths), "files"))
        table_io.write_table(job.out["watched"], "watched", needed.recorder.list_rows())
        job.watch_paths(args.root, args.index, args.watched, needed.recorder.compute_digest())
        job.set_summary(f"{args.root}: {count} files are needed")


if __name__ == "__main__":
    main()
