"""Make the tokenizer and config.json of a tiny synthetic base model, from the words of its training questions.

cfg: family (one of medmim.models.families), tiny (image_size, vision_width, vision_layers, language_width, language_layers,
heads).
"""

from pathlib import Path

from medmim.common.errors import UserError
from medmim.models.families.registry import FAMILY_MODULE
from medmim.provenance.job import Job, build_parser

COLUMNS = ["question", "options", "answer", "answer_index"]


def main() -> None:
    arguments = build_parser(__doc__)
    arguments.add_argument("--qa", type=Path, nargs="+", required=True, help="qa tables to take the words from")
    arguments.add_argument("--tokenizer", type=Path, required=True, help="files.parquet of the folder (written)")
    with Job(arguments, inputs=["qa"], outputs=["tokenizer"], modules=[FAMILY_MODULE]) as job:
        from medmim.models import tiny
        from medmim.models.families.registry import get_family
        from medmim.questions.prompt import prompt_text, target_text
        from medmim.tables import table_io

        layout = get_family(job.cfg["family"])
        questions = [q for path in job.args.qa for q in table_io.read_table(path, "qa", COLUMNS).to_pylist()]
        try:
            prompts = [prompt_text(q["question"], q["options"]) for q in questions]
            targets = [target_text(q["options"], q["answer_index"], q["answer"]) for q in questions]
            tokenizer = tiny.build_tokenizer(layout, list(zip(prompts, targets, strict=True)))
            config = tiny.build_config(layout, tokenizer, **job.cfg["tiny"])
        except ValueError as error:
            raise UserError(str(error)) from error
        tokenizer.save_pretrained(str(job.out["tokenizer"]))
        config.save_pretrained(str(job.out["tokenizer"]))
        job.set_summary(f"{len(tokenizer)} tokens from {len(questions)} questions")


if __name__ == "__main__":
    main()
