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
    arguments.add_argument("--named", nargs="*", type=Path, default=[], help="qa tables of the release: only images it names")
    arguments.add_argument("--released", type=Path, help="released_images table of these (written)")
    arguments.add_argument("--images", type=Path, required=True, help="images table (written)")
    arguments.add_argument("--findings", type=Path, required=True, help="findings table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    arguments.add_argument("--left-out", type=Path, help="table of what is left out on purpose (written)")
    arguments.add_argument("--threads", type=int, default=1, help="processes that read images; the result is the same")
    outputs = ["images", "findings", "rejected", "left_out", "released"]
    with Job(arguments, inputs=["raw", "missing", "named"], outputs=outputs, modules=["medmim.sources.{source}.adapter"]) as job:
        from medmim.sources.base import Adapter, TableBuilder
        from medmim.sources.contract import load_part
        from medmim.sources.needed_files import read_source_contents
        from medmim.sources.released_pictures import ReleasedPictures
        from medmim.tables import images, table_io
        from medmim.tables.rejections import get_list_path, keep_rejections

        args = job.args
        if not args.root.is_dir():
            raise UserError(f"--root: {args.root} is no folder")
        adapter: Adapter = load_part(args.source, "adapter", Adapter)
        index = dict(
            zip(*(c.to_pylist() for c in table_io.read_table(args.raw, "files", ["path", "sha256"]).columns), strict=True)
        )
        limit = job.cfg.get("limit")
        released_paths = images.collect_release_paths(args.named, args.source)
        contents = read_source_contents(adapter, args.root, released_paths, limit)
        released = ReleasedPictures.from_contents(contents, released_paths)
        if args.named:
            contents = released.select_contents(contents).choose_present(limit, index.__contains__)
        elif not args.missing:  # a folder of the user's own
            named_count = len(contents.pictures)
            contents = contents.choose_present(limit, index.__contains__)
            if named_count and not contents.pictures:
                raise UserError(
                    f"{args.root}: has none of the {named_count} images that the tables of {args.source} name: expected the "
                    "folder in its owner's layout"
                )
        else:
            contents = contents.limit_patients(limit).drop_missing(
                table_io.read_table(args.missing, "rejected", ["item"])["item"].to_pylist()
            )
        patients_of = job.cfg.get("patients_of", "")
        build = TableBuilder(args.source, args.root, contents, job.cfg["size"], args.threads, index, patients_of)
        is_needed = bool(contents.pictures) or not args.named  # of a source that the release does not show, nothing is
        rows = track_items(build.iter_image_rows() if is_needed else iter([]), args.source, len(contents.pictures), "images")
        with keep_rejections(get_list_path(args.log, args.rejected), build.list_rejection_rows):
            count = images.write_images(job.out["images"], rows)
            if is_needed:
                build.check_rejected_share(job.cfg.get("max_rejected", 0.01))
        findings = table_io.write_table(job.out["findings"], "findings", build.list_finding_rows())
        rejected = table_io.write_table(job.out["rejected"], "rejected", build.list_rejection_rows())
        if args.released:
            table_io.write_table(job.out["released"], "released_images", released.list_rows(build, limit))
        left_out = [{"source": args.source, "reason": r, "count": n} for r, n in sorted(build.contents.skipped.items()) if n]
        if "left_out" in job.out:
            table_io.write_table(job.out["left_out"], "left_out", left_out)
        for row in left_out:
            log.info("left out: %d × %s", row["count"], row["reason"])
        job.set_summary(f"{args.source}: {count} images, {findings} findings, {rejected} rejected")


if __name__ == "__main__":
    main()
