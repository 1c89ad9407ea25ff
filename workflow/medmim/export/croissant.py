"""croissant.json: what is in the folder, for machines, by the Croissant format 1.0 with its vocabulary for responsible AI.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html and .../croissant-rai-spec.html. Each Parquet file is a FileObject
with its hash, those of a set are a FileSet, and of that a RecordSet reads the columns.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlcroissant as mlc

from medmim.common import files
from medmim.export import parquet
from medmim.export.datasheet import Datasheet
from medmim.export.questions import Questions
from medmim.tables.data_policy import SYNTHETIC_POLICY

FILE_NAME = "croissant.json"
PAPER_URL = "https://arxiv.org/abs/2505.19031"
APACHE_URL = "https://www.apache.org/licenses/LICENSE-2.0"
PARQUET_MIME_TYPE = "application/x-parquet"
CROISSANT_TYPES = {"string": mlc.DataType.TEXT, "int64": mlc.DataType.INTEGER, "image": mlc.DataType.IMAGE_OBJECT}


def _build_field(set_: str, column: str, kind: Any, meaning: str) -> mlc.Field:
    is_list = isinstance(kind, list)
    inner = kind[0] if is_list else kind
    pixels = [mlc.Transform(json_path="bytes")] if inner == "image" else []
    return mlc.Field(
        id=f"{set_}/{column}",
        name=column,
        description=meaning,
        data_types=[CROISSANT_TYPES[inner]],
        repeated=is_list or None,
        source=mlc.Source(file_set=f"{set_}-files", extract=mlc.Extract(column=column), transforms=pixels),
    )


def _describe_files(folder: Path, set_: str, shards: Sequence[Path]) -> list[mlc.FileObject | mlc.FileSet]:
    objects = [
        mlc.FileObject(
            id=path.name,
            name=path.name,
            content_url=path.relative_to(folder).as_posix(),
            content_size=f"{path.stat().st_size} B",
            encoding_formats=[PARQUET_MIME_TYPE],
            sha256=files.hash_file(path),
        )
        for path in shards
    ]
    pattern = f"{shards[0].parent.relative_to(folder).as_posix()}/{set_}-*.parquet"
    return [
        *objects,
        mlc.FileSet(id=f"{set_}-files", name=f"{set_}-files", encoding_formats=[PARQUET_MIME_TYPE], includes=[pattern]),
    ]


def build_metadata(folder: Path, questions: Questions, sheet: Datasheet, shards: Mapping[str, Sequence[Path]]) -> mlc.Metadata:
    """What lies in `folder`: `shards` are the Parquet files of each set."""
    columns = parquet.select_columns(questions.with_images)
    generator_counts = ", ".join(f"{name} {count:,}" for name, count in sheet.generators.items())
    is_synthetic = questions.licences.keys() <= questions.synthetic
    return mlc.Metadata(
        name=f"Med-MIM-{questions.name.replace(' ', '-')}-{questions.run}",
        description=f"{len(questions.rows):,} questions about several medical images each: the {questions.name} of the Med-MIM"
        f" pipeline, run {questions.run}." + (" Synthetic: no patient is shown." if is_synthetic else ""),
        license=[APACHE_URL if licence in SYNTHETIC_POLICY.licences else licence for licence in sorted(questions.rules.licences)],
        cite_as=PAPER_URL,
        url=PAPER_URL,
        in_language=["en"],
        keywords=["medical", "multi-image", "visual question answering", *(["synthetic"] if questions.synthetic else [])],
        distribution=[file for set_, paths in shards.items() for file in _describe_files(folder, set_, paths)],
        record_sets=[
            mlc.RecordSet(
                id=set_,
                name=set_,
                description=f"{len(rows):,} questions of the set {set_}",
                key=[f"{set_}/qa_id"],
                fields=[_build_field(set_, column, kind, meaning) for column, (kind, meaning) in columns.items()],
            )
            for set_, rows in questions.sets.items()
        ],
        data_collection="Images and facts of " + ", ".join(source["what"] for source in sheet.sources),
        data_preprocessing_protocol=["Images as 8-bit PNG, grey or RGB"],
        data_annotation_protocol=[f"Questions by what made them: {generator_counts}"],
        data_biases=[f"{s['name']}: the most frequent letter is right in {s['majority']}" for s in sheet.sets if s["closed"]],
        data_limitations=[
            f"{leak.replace('_', ' ').replace('train', sheet.other)}: {n:,}" for leak, n in sheet.count_leaks().items()
        ],
        data_use_cases=[{"train": "Fine-tuning", "benchmark": "Testing"}[questions.split], "Research, not clinical care"],
        personal_sensitive_information=[
            "None: synthetic" if is_synthetic else "Medical images of people, de-identified by their owners",
            *(f"Not to be passed on: {count:,} questions of {name}" for name, count in sorted(questions.credentialed.items())),
        ],
        data_release_maintenance_plan="Made anew by the pipeline: the same tables give the same bytes",
    )


def write_croissant(folder: Path, questions: Questions, sheet: Datasheet, shards: Mapping[str, Sequence[Path]]) -> None:
    """Write it into `folder`, once it is valid."""
    metadata = build_metadata(folder, questions, sheet, shards).to_json()
    mlc.Metadata.from_json(mlc.Context(folder=folder), metadata)  # raises where it is not
    (folder / FILE_NAME).write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
