"""Lay questions and images out for training one model: samples (token ids, labels) and pixels (each image once).

cfg: family (one of medmim.models.families), system (message, may be empty), max_length (tokens after image expansion),
max_rejected (share of the questions that may be turned away before this stops).
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.progress import track_items
from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="files.parquet of a folder with tokenizer and config.json")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--samples", type=Path, required=True, help="samples table (written)")
    arguments.add_argument("--pixels", type=Path, required=True, help="pixels table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    arguments.add_argument("--threads", type=int, default=1, help="processes that prepare images; the result is the same")
    outputs = ["samples", "pixels", "rejected"]
    with Job(arguments, inputs=["model", "qa", "images"], outputs=outputs, modules=[FAMILY_MODULE]) as job:
        from medmim.models.families.base import Layout
        from medmim.models.families.registry import get_family
        from medmim.tables import table_io
        from medmim.tables.data_policy import combine_policies
        from medmim.tables.images import ImageStore
        from medmim.tables.rejections import get_list_path, keep_rejections, summarize_rejections
        from medmim.training.data import build_shards, pixel_table

        cfg, args = job.cfg, job.args
        layout = Layout.from_folder(get_family(cfg["family"]), args.model.parent)
        store = ImageStore(args.images)
        questions = table_io.read_table(args.qa, "qa").to_pylist()
        rows, rejected = build_shards.build_samples(questions, layout, store, system=cfg["system"], max_length=cfg["max_length"])
        with keep_rejections(get_list_path(args.log, args.rejected), lambda: rejected):
            if len(rejected) > cfg["max_rejected"] * len(questions):
                raise UserError(
                    f"{args.qa}: {len(rejected)} of {len(questions)} questions can't be laid out for {cfg['family']}, "
                    f"more than the share max_rejected {cfg['max_rejected']}" + summarize_rejections(rejected)
                )
        shown_images = {image for row in rows for image in row["image_ids"]}
        shown_tables = store.find_tables(shown_images)
        policy = combine_policies([args.qa, *shown_tables])  # images that no sample shows put no terms on a training
        with job.apply_output_policy(policy, "samples", "pixels"):
            table_io.write_table(job.out["samples"], "samples", rows)
            pixels = build_shards.render_pixels(rows, layout, store, args.threads)
            tracked = track_items(pixels, "pixels", len(shown_images), "images")
            images = pixel_table.write_pixels(job.out["pixels"], tracked)
        table_io.write_table(job.out["rejected"], "rejected", rejected)
        tokens = sum(r["length"] for r in rows)
        job.set_summary(f"{len(rows)} samples, {images} images, {tokens:,} tokens, {len(rejected)} rejected")


if __name__ == "__main__":
    main()
