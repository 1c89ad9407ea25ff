"""Turn a held-out set, as its authors publish it, into images and questions of the benchmark.

cfg: size (longest side in pixels; larger images are shrunk), limit (at most so many questions, null for all), max_rejected
(share of questions that may be broken before it stops, default 0.01). The set's adapter, medmim.benchmarks.external.<set>,
says what is
read and how.
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.provenance.job import Job, build_parser, log


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--set", required=True, help="name of the set: a module of medmim/benchmarks/external")
    arguments.add_argument("--root", type=Path, required=True, help="folder that holds the set in its authors' layout")
    arguments.add_argument("--raw", type=Path, required=True, help="index of that folder, a files table")
    arguments.add_argument("--images", type=Path, required=True, help="images table (written)")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    arguments.add_argument("--threads", type=int, default=1, help="threads that read images; the result is the same")
    with Job(
        arguments, inputs=["raw"], outputs=["images", "qa", "rejected"], modules=["medmim.benchmarks.external.{set}"]
    ) as job:
        from medmim.benchmarks.external.base import HeldoutImporter, load_external_set
        from medmim.tables import images, table_io
        from medmim.tables.rejections import get_list_path, keep_rejections

        args = job.args
        if not args.root.is_dir():
            raise UserError(f"--root: {args.root} is no folder")
        external_set = load_external_set(args.set)
        index = dict(
            zip(*(c.to_pylist() for c in table_io.read_table(args.raw, "files", ["path", "sha256"]).columns), strict=True)
        )
        imported_set = HeldoutImporter(
            args.set, args.root, external_set.read_cases, index, job.cfg["size"], job.cfg.get("limit"), args.threads
        )
        with keep_rejections(get_list_path(args.log, args.rejected), imported_set.rejection_rows):
            count = images.write_images(job.out["images"], imported_set.iter_image_rows())
            imported_set.check_rejected_share(job.cfg.get("max_rejected", 0.01))
        table_io.write_table(job.out["qa"], "qa", imported_set.rows)
        rejected = table_io.write_table(job.out["rejected"], "rejected", imported_set.rejection_rows())
        if imported_set.single_image_count:
            log.info("left out: %d × a question about one image or none", imported_set.single_image_count)
        job.set_summary(f"{args.set}: {len(imported_set.rows)} questions, {count} images, {rejected} rejected")


if __name__ == "__main__":
    main()
