"""Read one source in its owner's layout and write its images, what is stated of them, and what could not be used.

cfg: size (longest side in pixels; larger images are shrunk), max_rejected (share of images and rows that may be broken
before it stops, default 0.01), limit (patients; unset takes all), patients_of (the source whose ids the patients bear, where it
is another). The source's adapter, medmim.sources.<source>.adapter, says what is read and how.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.progress import track_items
from medmim.provenance.job import Job, build_parser, log


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--source", required=True, help="name of the source, a folder of medmim/sources")
    arguments.add_argument("--root", type=Path, required=True, help="folder that holds the source in its owner's layout")
    arguments.add_argument("--raw", type=Path, required=True, help="index of that folder, a files table")
    arguments.add_argument("--missing", type=Path, help="table of what its owner no longer has, where it was downloaded")
    arguments.add_argument("--named", nargs="*", type=Path, default=[], help="qa tables of the release, whose images are wanted")
    arguments.add_argument("--images", type=Path, required=True, help="images table (written)")
    arguments.add_argument("--findings", type=Path, required=True, help="findings table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    arguments.add_argument("--left-out", type=Path, help="table of what is left out on purpose (written)")
    arguments.add_argument("--threads", type=int, default=1, help="processes that read images; the result is the same")
    outputs = ["images", "findings", "rejected", "left_out"]
    with Job(arguments, inputs=["raw", "missing", "named"], outputs=outputs, modules=["medmim.sources.{source}.adapter"]) as job:
        from medmim.common.outside_files import translate_read_errors
        from medmim.sources.base import Adapter, ReleaseAdapter, TableBuilder
        from medmim.sources.contract import load_part
        from medmim.tables import images, table_io
        from medmim.tables.rejections import get_list_path, keep_rejections

        args = job.args
        if not args.root.is_dir():
            raise UserError(f"--root: {args.root} is no folder")
        adapter: Adapter = load_part(args.source, "adapter", Adapter)
        index = dict(
            zip(*(c.to_pylist() for c in table_io.read_table(args.raw, "files", ["path", "sha256"]).columns), strict=True)
        )
        with translate_read_errors(args.root):
            contents = adapter.read_contents(args.root)
            if args.named and isinstance(adapter, ReleaseAdapter):
                adapter.add_released_pictures(args.root, contents, images.collect_release_paths(args.named))
        if not args.missing:  # a folder of the user's own
            named_count = len(contents.pictures)
            contents = contents.drop_absent(index.keys())
            if named_count and not contents.pictures:
                raise UserError(
                    f"{args.root}: has none of the {named_count} images that the tables of {args.source} name: expected the "
                    "folder in its owner's layout"
                )
        contents = contents.limit_patients(job.cfg.get("limit"))
        if args.missing:
            contents = contents.drop_missing(table_io.read_table(args.missing, "rejected", ["item"])["item"].to_pylist())
        patients_of = job.cfg.get("patients_of", "")
        build = TableBuilder(args.source, args.root, contents, job.cfg["size"], args.threads, index, patients_of)
        rows = track_items(build.iter_image_rows(), args.source, len(contents.pictures), "images")
        with keep_rejections(get_list_path(args.log, args.rejected), build.list_rejection_rows):
            count = images.write_images(job.out["images"], rows)
            build.check_rejected_share(job.cfg.get("max_rejected", 0.01))
        findings = table_io.write_table(job.out["findings"], "findings", build.list_finding_rows())
        rejected = table_io.write_table(job.out["rejected"], "rejected", build.list_rejection_rows())
        left_out = [{"source": args.source, "reason": r, "count": n} for r, n in sorted(build.contents.skipped.items()) if n]
        if "left_out" in job.out:
            table_io.write_table(job.out["left_out"], "left_out", left_out)
        for row in left_out:
            log.info("left out: %d × %s", row["count"], row["reason"])
        job.set_summary(f"{args.source}: {count} images, {findings} findings, {rejected} rejected")


if __name__ == "__main__":
    main()
