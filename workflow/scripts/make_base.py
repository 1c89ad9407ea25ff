"""Make a tiny synthetic base model of a real architecture and teach it to read one image: for the demo and the tests.

cfg: {"family": ..., "seed": ..., "threads": ..., "tiny": the section TinyBase}
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.models.families.registry import MODULE
from medmim.provenance.job import Job, parser


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--samples", type=Path, required=True, help="pretraining samples of the family")
    arguments.add_argument("--pixels", type=Path, required=True, help="their images' pixels")
    arguments.add_argument("--qa", type=Path, required=True, help="pretraining questions the samples were made of")
    arguments.add_argument("--tokenizer", type=Path, required=True, help="index of the folder with tokenizer and config.json")
    arguments.add_argument("--model", type=Path, required=True, help="index of the model's folder (written)")
    arguments.add_argument("--loss", type=Path, required=True, help="loss history (written)")
    inputs = ["samples", "pixels", "qa", "tokenizer"]
    with Job(arguments, inputs=inputs, outputs=["model", "loss"], modules=[MODULE]) as job:
        import numpy as np
        from transformers import AutoConfig

        from medmim.config.training import TinyBase
        from medmim.models.families.base import Layout
        from medmim.tables import table_io
        from medmim.training import tiny_base
        from medmim.training.data.dataset import Shards
        from medmim.training.runtime import environment

        family, seed, tiny = job.cfg["family"], job.cfg["seed"], TinyBase(**job.cfg["tiny"])
        environment.fix(seed, job.cfg["threads"])
        layout = Layout.open(family, job.args.tokenizer.parent)
        shards = Shards(job.args.samples, job.args.pixels)
        qa = table_io.frame(job.args.qa, "qa").set_index("qa_id", drop=False).loc[list(shards.qa_ids)]
        held = tiny_base.held_back(qa, seed)

        model = tiny_base.make(AutoConfig.from_pretrained(job.args.tokenizer.parent), seed)
        known = tiny_base.labels(qa[~held])
        pixels = np.stack([shards.image(i) for i in known.image_ids])
        rows = tiny_base.train_vision(model, layout, known, pixels, tiny, seed)
        kept = np.flatnonzero(~held).tolist()
        tasks = qa["task"].iloc[kept].tolist()
        rows += tiny_base.train_language(model, layout, [shards[i] for i in kept], shards.lengths[kept], tasks, tiny, seed)

        asked = np.flatnonzero(held & (qa["kind"] == "closed").to_numpy()).tolist()
        if not asked:
            raise UserError("no pretraining question is left to see what the base can read: more patients are needed")
        right = tiny_base.first_token_right(model, layout, [shards[i] for i in asked])
        read = tiny_base.reading(qa["task"].iloc[asked].tolist(), qa["ability"].iloc[asked].tolist(), right)
        job.extra["reading"] = read

        model.save_pretrained(job.out["model"])
        layout.tokenizer.save_pretrained(job.out["model"])
        table_io.write(job.out["loss"], "loss", rows)
        abilities = ", ".join(f"{a} {read[a]['accuracy']:.2f} of {read[a]['n']}" for a in ("single", "text") if a in read)
        job.done(f"{sum(p.numel() for p in model.parameters()):,} parameters; reads held-back questions: {abilities}")


if __name__ == "__main__":
    main()
