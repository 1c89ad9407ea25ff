"""TSV files for open-compass/VLMEvalKit: closed questions as a multiple-choice dataset, open ones as a VQA dataset.

Its form (docs/en/Development.md; vlmeval/dataset/image_base.py and image_mcq.py): a row a question; `index` an integer; `image` a
PNG in base64, of several images the Python list of them, which then needs their names in `image_path`; a column a letter for the
options; `answer` a letter. A file that it does not know is taken for multiple choice where it has columns A and B, else for VQA,
and named as such by "openended" in its name. All images come before the text, as ours do, so the text has no placeholders.

VLMEvalKit reads it by pandas' defaults, for which some texts, "None" among them, are no text: they get a space in front.
"""

import base64
import csv
import io
import string
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from medmim.export import card
from medmim.export.questions import QuestionRow, Questions
from medmim.questions.prompt import strip_placeholders
from medmim.questions.sets import find_set_group

DATASET_NAMES = {"closed": "MedMIM", "open": "MedMIM_openended"}
"""Names of the datasets, by kind."""
USAGE = """
```bash
cp path/to/this/folder/MedMIM*.tsv "$LMUData"/    # ~/LMUData where it is not set
python run.py --data MedMIM --model Qwen2.5-VL-7B-Instruct --judge exact_matching
python run.py --data MedMIM_openended --model Qwen2.5-VL-7B-Instruct --mode infer
```

`MedMIM` has the closed questions: accuracies come by `split` (held-in, held-out, further), `category` (the set) and `l2-category`
(the task). VLMEvalKit has no metric for open questions of others: of `MedMIM_openended` it only collects replies.
"""


def _find_null_texts(texts: Collection[str]) -> set[str]:
    """Those texts that pandas reads as none."""
    distinct = sorted(set(texts))
    file = io.StringIO(pd.DataFrame({"text": distinct}).to_csv(index=False, quoting=csv.QUOTE_ALL))
    is_null = pd.read_csv(file, dtype=str)["text"].isna()
    return {text for text, is_lost in zip(distinct, is_null, strict=True) if is_lost}


def _iterate_rows(questions: Questions, rows: list[tuple[str, QuestionRow]], letters: str) -> Iterator[dict[str, Any]]:
    null_texts = _find_null_texts(
        [text for _, row in rows for text in (row["answer"], strip_placeholders(row["question"]), *row["options"])]
    )

    def protect_text(text: str) -> str:
        return f" {text}" if text in null_texts else text

    for index, (set_, row) in enumerate(rows):
        names, pngs = zip(*questions.load_images(row), strict=True)
        encoded = [base64.b64encode(png).decode() for png in pngs]
        options = dict(zip(letters, map(protect_text, row["options"]), strict=False))
        yield {
            "index": index,
            "question": protect_text(strip_placeholders(row["question"])),
            **{letter: options.get(letter, "") for letter in letters},
            "answer": letters[row["answer_index"]] if options else protect_text(row["answer"]),
            "category": set_,
            "l2-category": row["task"],
            "split": find_set_group(set_),
            "qa_id": row["qa_id"],
            "image_path": names[0] if len(names) == 1 else list(names),
            "image": encoded[0] if len(encoded) == 1 else encoded,
        }


def write_export(folder: Path, questions: Questions, cfg: dict[str, Any]) -> str:
    """Fill `folder`; says in a few words what was made. Rows are written as they come: images never all stand in memory."""
    counts = []
    for kind, name in DATASET_NAMES.items():
        rows = [(set_, row) for set_, part_kind, part in questions.iterate_parts() if part_kind == kind for row in part]
        if not rows:
            continue
        letters = string.ascii_uppercase[: max(len(row["options"]) for _, row in rows)]
        with (folder / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
            writer = None
            for line in _iterate_rows(questions, rows, letters):
                writer = writer or csv.DictWriter(file, line, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
                if not line["index"]:
                    writer.writeheader()
                writer.writerow(line)
        counts.append(f"{len(rows)} {kind}")
    (folder / "README.md").write_text(card.render_card(questions, USAGE), encoding="utf-8")
    return f"{' and '.join(counts)} questions"
