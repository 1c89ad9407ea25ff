"""Merge an adapter into its base: a model folder that plain transformers loads, with tokenizer, processor and chat template.

    AutoProcessor.from_pretrained(FOLDER), LlavaForConditionalGeneration.from_pretrained(FOLDER)

A model that was tuned in full is taken as it is. Needs the memory of the model in float32, no GPU. cfg: family, system (the
message that it was tuned with, may be empty).
"""

from pathlib import Path

from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--base", type=Path, required=True, help="index of the base model's folder")
    arguments.add_argument("--tuned", type=Path, required=True, help="index of the adapter's folder")
    arguments.add_argument("--card", type=Path, help="model card, which becomes the folder's README.md")
    arguments.add_argument("--merged", type=Path, required=True, help="index of the merged model's folder (written)")
    with Job(arguments, inputs=["base", "tuned", "card"], outputs=["merged"], modules=[FAMILY_MODULE]) as job:
        import shutil

        from medmim.models.merge import merge_adapter

        family, system = job.cfg["family"], job.cfg["system"]
        merged_info = merge_adapter(job.args.base.parent, job.args.tuned.parent, family, job.out["merged"], system)
        if job.args.card:
            shutil.copyfile(job.args.card, job.out["merged"] / "README.md")
        job.set_summary(f"{merged_info['parameters']:,} parameters in {merged_info['dtype']}")


if __name__ == "__main__":
    main()
