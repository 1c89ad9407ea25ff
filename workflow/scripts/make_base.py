"""Make a tiny synthetic base model of a real architecture and teach it to read one image: for the demo and the tests.

cfg: {"family": ..., "seed": ..., "threads": ..., "tiny": the section TinyBase}
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--samples", type=Path, required=True, help="pretraining samples of the family")
    arguments.add_argument("--pixels", type=Path, required=True, help="their images' pixels")
    arguments.add_argument("--qa", type=Path, required=True, help="pretraining questions the samples were made of")
    arguments.add_argument("--tokenizer", type=Path, required=True, help="index of the folder with tokenizer and config.json")
    arguments.add_argument("--model", type=Path, required=True, help="index of the model's folder (written)")
    arguments.add_argument("--loss", type=Path, required=True, help="loss history (written)")
    inputs = ["samples", "pixels", "qa", "tokenizer"]
    with Job(arguments, inputs=inputs, outputs=["model", "loss"], modules=[FAMILY_MODULE]) as job:
        import numpy as np
        from transformers import AutoConfig

        from medmim.config.training import TinyBase
        from medmim.models.families.base import Layout
        from medmim.models.families.registry import get_family
        from medmim.tables import table_io
        from medmim.training import tiny_base
        from medmim.training.data.dataset import ShardDataset
        from medmim.training.runtime import environment

        family, seed, tiny = job.cfg["family"], job.cfg["seed"], TinyBase(**job.cfg["tiny"])
        environment.fix_threads_and_seeds(seed, job.cfg["threads"])
        layout = Layout.from_folder(get_family(family), job.args.tokenizer.parent)
        shards = ShardDataset(job.args.samples, job.args.pixels)
        qa = table_io.read_frame(job.args.qa, "qa").set_index("qa_id", drop=False).loc[list(shards.qa_ids)]
        is_validation = tiny_base.select_validation_split(qa, seed)

        model = tiny_base.build_model(AutoConfig.from_pretrained(job.args.tokenizer.parent), seed)
        labelled_images = tiny_base.collect_attribute_labels(qa[~is_validation])
        pixels = np.stack([shards.get_image(i) for i in labelled_images.image_ids])
        rows = tiny_base.train_vision(model, layout, labelled_images, pixels, tiny, seed)
        train_indices = np.flatnonzero(~is_validation).tolist()
        tasks = qa["task"].iloc[train_indices].tolist()
        rows += tiny_base.train_language(
            model, layout, [shards[i] for i in train_indices], shards.lengths[train_indices], tasks, tiny, seed
        )

        validation_indices = np.flatnonzero(is_validation & (qa["kind"] == "closed").to_numpy()).tolist()
        if not validation_indices:
            raise UserError("no pretraining question is left to see what the base can read: more patients are needed")
        is_correct = tiny_base.is_first_token_correct(model, layout, [shards[i] for i in validation_indices])
        reading_scores = tiny_base.summarise_accuracy(
            qa["task"].iloc[validation_indices].tolist(), qa["ability"].iloc[validation_indices].tolist(), is_correct
        )
        job.extra_fields["reading"] = reading_scores

        model.save_pretrained(job.out["model"])
        layout.tokenizer.save_pretrained(job.out["model"])
        table_io.write_table(job.out["loss"], "loss", rows)
        abilities = ", ".join(
            f"{a} {reading_scores[a]['accuracy']:.2f} of {reading_scores[a]['n']}"
            for a in ("single", "text")
            if a in reading_scores
        )
        job.set_summary(f"{sum(p.numel() for p in model.parameters()):,} parameters; reads held-back questions: {abilities}")


if __name__ == "__main__":
    main()
