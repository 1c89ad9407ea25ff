"""A folder that `datasets.load_dataset` opens and the Hugging Face hub shows: a Parquet file a set, and a card.

The card's header has the form of https://huggingface.co/docs/hub/datasets-cards and .../datasets-manual-configuration: one
configuration a set and one of all, each with the one split `test`.
"""

from pathlib import Path
from typing import Any

import yaml

from medmim.export import card, parquet
from medmim.export.benchmark import Benchmark

SIZES = (1_000, 10_000, 100_000)
USE = """
```python
from datasets import load_dataset

benchmark = load_dataset("{folder}", split="test")             # all sets; name one for its questions alone:
{set} = load_dataset("{folder}", "{set}", split="test")
```

A question is asked as its images, its text, and one line `A: text` per option.

| column | meaning |
|---|---|
{columns}
"""


def _feature(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, **({"sequence": kind[0]} if isinstance(kind, list) else {"dtype": kind})}


def _size(count: int) -> str:
    words = [f"{n // 1000}K" for n in SIZES]
    place = sum(count >= n for n in SIZES)
    return f"n<{words[0]}" if not place else f"{words[place - 1]}<n<{words[place]}" if place < len(SIZES) else f"n>{words[-1]}"


def write(folder: Path, benchmark: Benchmark, cfg: dict[str, Any]) -> str:
    """Fill `folder`; says in a few words what was made."""
    features = [_feature(name, kind) for name, (kind, _) in parquet.COLUMNS.items()]
    configs: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []

    def describe(name: str, path: str, count: int, in_memory: int, on_disk: int) -> None:
        configs.append({"config_name": name, "data_files": [{"split": "test", "path": path}]})
        split = {"name": "test", "num_bytes": in_memory, "num_examples": count}
        sizes = {"download_size": on_disk, "dataset_size": in_memory}
        infos.append({"config_name": name, "features": [dict(f) for f in features], "splits": [split], **sizes})

    for name, rows in benchmark.sets.items():
        path = folder / "data" / f"{name}.parquet"
        in_memory = parquet.write(path, benchmark, rows)
        describe(name, f"data/{name}.parquet", len(rows), in_memory, path.stat().st_size)
    totals = (sum(i["dataset_size"] for i in infos), sum(i["download_size"] for i in infos))
    describe("all", "data/*.parquet", len(benchmark.rows), *totals)
    configs[-1]["default"] = True
    header = {
        "pretty_name": "Med-MIM benchmark",
        **card.licence(benchmark),
        "language": ["en"],
        "task_categories": ["visual-question-answering"],
        "tags": ["medical", "multi-image", *(["synthetic"] if benchmark.synthetic else [])],
        "size_categories": [_size(len(benchmark.rows))],
        "configs": configs,
        "dataset_info": infos,
    }
    columns = "\n".join(f"| `{name}` | {meaning} |" for name, (_, meaning) in parquet.COLUMNS.items())
    use = USE.format(folder="path/to/this/folder", set=next(iter(benchmark.sets)), columns=columns)
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    (folder / "README.md").write_text(f"---\n{front}---\n\n{card.text(benchmark, use)}", encoding="utf-8")
    return f"{len(benchmark.sets)} sets, {len(benchmark.rows)} questions"
