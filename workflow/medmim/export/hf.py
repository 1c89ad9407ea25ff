"""A folder that `datasets.load_dataset` opens and the Hugging Face hub shows: Parquet files of each set, and a card.

The card's header has the form of https://huggingface.co/docs/hub/datasets-cards and .../datasets-manual-configuration: one
configuration a set and one of all, each with one split. Beside the card lies croissant.json.
"""

from pathlib import Path
from typing import Any

import yaml

from medmim.export import card, croissant, parquet
from medmim.export.datasheet import Datasheet
from medmim.export.questions import Questions

SIZE_LIMITS = (1_000, 10_000, 100_000)
HUB_SPLITS = {"benchmark": "test", "train": "train"}
"""What the hub calls our splits."""
QUESTIONS_PER_FILE = 2_048
"""Questions a file: with their images some hundred megabytes."""
USAGE = """
```python
from datasets import load_dataset

questions = load_dataset("{folder}", split="{split}")             # all sets; name one for its questions alone:
{set} = load_dataset("{folder}", "{set}", split="{split}")
```

A question is asked as its images, its text, and one line `A: text` per option.{images}
`croissant.json` describes the files for tools that read Croissant, `mlcroissant` among them.

| column | meaning |
|---|---|
{columns}
"""
NO_IMAGES_NOTE = " The images are not\nin here: `image_ids` names them."


def _build_feature(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, **({"sequence": kind[0]} if isinstance(kind, list) else {"dtype": kind})}


def _format_size_category(count: int) -> str:
    words = [f"{n // 1000}K" for n in SIZE_LIMITS]
    n_reached = sum(count >= n for n in SIZE_LIMITS)
    return (
        f"n<{words[0]}"
        if not n_reached
        else f"{words[n_reached - 1]}<n<{words[n_reached]}"
        if n_reached < len(SIZE_LIMITS)
        else f"n>{words[-1]}"
    )


def write_export(folder: Path, questions: Questions, sheet: Datasheet) -> str:
    """Fill `folder`; says in a few words what was made. Raises mlcroissant.ValidationError."""
    columns = parquet.select_columns(questions.with_images)
    features = [_build_feature(name, kind) for name, (kind, _) in columns.items()]
    split = HUB_SPLITS[questions.split]
    configs: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []
    shards: dict[str, list[Path]] = {}

    def add_config(name: str, path: str, count: int, in_memory: int, on_disk: int) -> None:
        configs.append({"config_name": name, "data_files": [{"split": split, "path": path}]})
        split_info = {"name": split, "num_bytes": in_memory, "num_examples": count}
        sizes = {"download_size": on_disk, "dataset_size": in_memory}
        infos.append({"config_name": name, "features": [dict(f) for f in features], "splits": [split_info], **sizes})

    for name, rows in questions.sets.items():
        starts = range(0, len(rows), QUESTIONS_PER_FILE)
        shards[name] = [folder / f"data/{name}-{n:05d}-of-{len(starts):05d}.parquet" for n in range(len(starts))]
        parts = zip(shards[name], starts, strict=True)
        in_memory = sum(
            parquet.write_questions(path, questions, rows[start : start + QUESTIONS_PER_FILE]) for path, start in parts
        )
        add_config(name, f"data/{name}-*.parquet", len(rows), in_memory, sum(path.stat().st_size for path in shards[name]))
    totals = (sum(i["dataset_size"] for i in infos), sum(i["download_size"] for i in infos))
    add_config("all", "data/*.parquet", len(questions.rows), *totals)
    configs[-1]["default"] = True
    header = {
        "pretty_name": f"Med-MIM {questions.name}",
        **card.build_licence_header(questions),
        "language": ["en"],
        "task_categories": ["visual-question-answering"],
        "tags": ["medical", "multi-image", *(["synthetic"] if questions.synthetic else [])],
        "size_categories": [_format_size_category(len(questions.rows))],
        "configs": configs,
        "dataset_info": infos,
    }
    usage = USAGE.format(
        folder="path/to/this/folder",
        split=split,
        set=next(iter(questions.sets)),
        images="" if questions.with_images else NO_IMAGES_NOTE,
        columns="\n".join(f"| `{name}` | {meaning} |" for name, (_, meaning) in columns.items()),
    )
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    text = card.render_card(questions, usage, sheet)
    (folder / "README.md").write_text(f"---\n{front}---\n\n{text}", encoding="utf-8")
    croissant.write_croissant(folder, questions, sheet, shards)
    return f"{len(questions.sets)} sets, {len(questions.rows)} questions"
