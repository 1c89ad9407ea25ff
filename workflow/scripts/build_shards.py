"""Lay questions and images out for training one model: samples (token ids, labels) and pixels (each image once).

cfg: family (llava-med or mantis), system (message, may be empty), max_length (tokens after image expansion),
max_rejected (share of the questions that may be turned away before this stops).
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.models.families.registry import MODULE
from medmim.provenance.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="files.parquet of a folder with tokenizer and config.json")
    arguments.add_argument("--qa", type=Path, required=True, help="qa table")
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="images tables")
    arguments.add_argument("--samples", type=Path, required=True, help="samples table (written)")
    arguments.add_argument("--pixels", type=Path, required=True, help="pixels table (written)")
    arguments.add_argument("--rejected", type=Path, required=True, help="rejected table (written)")
    arguments.add_argument("--threads", type=int, default=1, help="processes that prepare images; the result is the same")
    outputs = ["samples", "pixels", "rejected"]
    with Job(arguments, inputs=["model", "qa", "images"], outputs=outputs, modules=[MODULE]) as job:
        from medmim.models.families.base import Layout
        from medmim.tables import table_io
        from medmim.tables.images import ImageStore
        from medmim.training.data import build_shards, pixel_table

        cfg, args = job.cfg, job.args
        layout = Layout.open(cfg["family"], args.model.parent)
        store = ImageStore(args.images)
        questions = table_io.read(args.qa, "qa").to_pylist()
        rows, rejected = build_shards.samples(questions, layout, store, system=cfg["system"], max_length=cfg["max_length"])
        if len(rejected) > cfg["max_rejected"] * len(questions):
            first = "\n".join(f"  {r['item']}: {r['reason']}" for r in rejected[:5])
            raise UserError(
                f"{args.qa}: {len(rejected)} of {len(questions)} questions can't be laid out for {cfg['family']}, "
                f"more than the share max_rejected {cfg['max_rejected']}; the first:\n{first}"
            )
        table_io.write(job.out["samples"], "samples", rows)
        images = pixel_table.write(job.out["pixels"], build_shards.pixels(rows, layout, store, args.threads))
        table_io.write(job.out["rejected"], "rejected", rejected)
        tokens = sum(r["length"] for r in rows)
        job.done(f"{len(rows)} samples, {images} images, {tokens:,} tokens, {len(rejected)} rejected")


if __name__ == "__main__":
    main()
