"""Which images of the benchmark are copies of images of training: the table of pairs, made and looked up."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medmim.questions.near_copies import find_near_copies
from medmim.tables import table_io
from medmim.tables.images import RELEASE_PREFIX
from medmim.tables.thumbnails import stack_thumbnails

EXACT, NEAR = "exact", "near"
BATCH_ROWS = 4096


@dataclass(frozen=True)
class ShownImages:
    """Images that questions show, as they name them, each with the source of the first question; of the benchmark, and others."""

    benchmark: dict[str, str]
    training: dict[str, str]


def collect_shown_images(qa_paths: Iterable[Path]) -> ShownImages:
    """Images of the questions of qa tables. Raises TableError."""
    shown = ShownImages({}, {})
    for path in qa_paths:
        columns = table_io.read_table(path, "qa", ["split", "source", "image_ids"]).columns
        for split, source, image_ids in zip(*(c.to_pylist() for c in columns), strict=True):
            images = shown.benchmark if split == "benchmark" else shown.training
            for image in image_ids:
                images[image] = min(source, images.get(image, source))
    return shown


@dataclass
class Pictures:
    """Shown images that the images tables have: of each reference its image_id; of each image_id patient and thumbnail."""

    image_ids: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    thumbnails: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def from_tables(cls, paths: Sequence[Path], references: Iterable[str]) -> "Pictures":
        """Read the rows of the references alone. Where two tables hold the same pixels, the first answers. Raises TableError."""
        pictures, wanted = cls(), set(references)
        for path in paths:
            table_io.read_table(path, "images", ["image_id"])  # checks its schema
            batches = pq.ParquetFile(path, memory_map=True).iter_batches(
                BATCH_ROWS, columns=["image_id", "patient_id", "release_path", "thumbnail"]
            )
            for batch in batches:
                ids, patients, released = (batch.column(i).to_pylist() for i in range(3))
                for row, (image_id, patient, path_in_release) in enumerate(zip(ids, patients, released, strict=True)):
                    names = {image_id, RELEASE_PREFIX + path_in_release if path_in_release else image_id} & wanted
                    for name in names:
                        pictures.image_ids.setdefault(name, image_id)
                    if names and image_id not in pictures.patients:
                        pictures.patients[image_id] = patient
                        pictures.thumbnails[image_id] = batch.column(3)[row].as_py()
        return pictures


def find_copies(shown: ShownImages, pictures: Pictures) -> list[dict[str, Any]]:
    """Rows of the copies table, sorted.

    Near copies are looked for between pictures of different patients: two of one patient are a leak by patient, found without.
    Images that no table has are left out.
    """
    names_by_id: dict[str, defaultdict[str, list[str]]] = {}
    for side, images in (("benchmark", shown.benchmark), ("training", shown.training)):
        names_by_id[side] = defaultdict(list)
        for name in sorted(images):
            if name in pictures.image_ids:
                names_by_id[side][pictures.image_ids[name]].append(name)
    pairs = {(i, i): (EXACT, 1.0) for i in names_by_id["benchmark"] if i in names_by_id["training"]}
    queries, others = (sorted(names_by_id[side]) for side in ("benchmark", "training"))
    patients = {patient: n for n, patient in enumerate(sorted(set(pictures.patients.values())))}
    near_copies = find_near_copies(
        *(stack_thumbnails([pictures.thumbnails[i] for i in ids]) for ids in (queries, others)),
        *(np.array([patients[pictures.patients[i]] for i in ids], np.int64) for ids in (queries, others)),
    )
    for copy in near_copies:
        pairs.setdefault((queries[copy.query], others[copy.picture]), (NEAR, round(copy.correlation, 3)))
    rows = [
        {
            "image": name,
            "source": shown.benchmark[name],
            "training_image": other_name,
            "training_source": shown.training[other_name],
            "relation": relation,
            "correlation": correlation,
        }
        for (image_id, other_id), (relation, correlation) in pairs.items()
        for name in names_by_id["benchmark"][image_id]
        for other_name in names_by_id["training"][other_id]
    ]
    return sorted(rows, key=lambda row: (row["image"], row["training_image"]))


@dataclass(frozen=True)
class CopyIndex:
    """The copies table, looked up from either side: by image, its copies on the other side, each with its relation."""

    of_benchmark: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    of_training: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def from_table(cls, path: Path | None) -> "CopyIndex":
        """Read a copies table; of None, no copies. Raises TableError."""
        of_benchmark: defaultdict[str, dict[str, str]] = defaultdict(dict)
        of_training: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for row in table_io.read_table(path, "copies").to_pylist() if path else []:
            of_benchmark[row["image"]][row["training_image"]] = row["relation"]
            of_training[row["training_image"]][row["image"]] = row["relation"]
        return cls(dict(of_benchmark), dict(of_training))

    def map_exact_names(self) -> dict[str, str]:
        """One name for all names of the same pixels: that of the first training image."""
        names: dict[str, str] = {}
        for image, copies in self.of_benchmark.items():
            if exact := [other for other, relation in copies.items() if relation == EXACT]:
                names |= dict.fromkeys([image, *exact], min(exact))
        return names

    def list_near_copies(self) -> dict[str, list[str]]:
        """Of images of the benchmark, those of training that are near copies and not exact ones, sorted."""
        pairs = {i: sorted(o for o, relation in copies.items() if relation == NEAR) for i, copies in self.of_benchmark.items()}
        return {image: others for image, others in pairs.items() if others}


@dataclass(frozen=True)
class SourcePair:
    """A source of the benchmark and one of training: how many of the first one's images are copies of the second one's."""

    source: str
    training_source: str
    exact: int
    near: int


def count_source_pairs(path: Path) -> list[SourcePair]:
    """Pairs of sources of a copies table that have copies; an image that has both kinds counts as exact. Raises TableError."""
    relations: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in table_io.read_table(path, "copies").to_pylist():
        images = relations[row["source"], row["training_source"]]
        images[row["image"]] = min(row["relation"], images.get(row["image"], NEAR))
    counts = {pair: Counter(images.values()) for pair, images in relations.items()}
    return [SourcePair(*pair, counts[pair][EXACT], counts[pair][NEAR]) for pair in sorted(counts)]
