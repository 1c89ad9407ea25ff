"""Make the tokenizer and config.json of a tiny synthetic base model, from the words of its training questions.

cfg: family (llava-med or mantis), tiny (image_size, vision_width, vision_layers, language_width, language_layers, heads;
its training steps are not used here).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmim import tables
from medmim.job import Job, UserError, parser
from medmim.models import MODULE, family, tiny
from medmim.qa.prompt import prompt_text, target_text

SIZES = ("image_size", "vision_width", "vision_layers", "language_width", "language_layers", "heads")
COLUMNS = ["question", "options", "answer", "answer_index"]


def dialogue(question: Mapping[str, Any]) -> tuple[str, str]:
    return (
        prompt_text(question["question"], question["options"]),
        target_text(question["options"], question["answer_index"], question["answer"]),
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--qa", type=Path, nargs="+", required=True, help="qa tables to take the words from")
    arguments.add_argument("--tokenizer", type=Path, required=True, help="files.parquet of the folder (written)")
    with Job(arguments, inputs=["qa"], outputs=["tokenizer"], modules=[MODULE]) as job:
        layout = family(job.cfg["family"])
        questions = [q for path in job.args.qa for q in tables.read(path, "qa", COLUMNS).to_pylist()]
        try:
            made = tiny.tokenizer(layout, [dialogue(q) for q in questions])
            config = tiny.config(layout, made, **{size: job.cfg["tiny"][size] for size in SIZES})
        except ValueError as error:
            raise UserError(str(error)) from error
        made.save_pretrained(str(job.out["tokenizer"]))
        config.save_pretrained(str(job.out["tokenizer"]))
        job.done(f"{len(made)} tokens from {len(questions)} questions")


if __name__ == "__main__":
    main()
