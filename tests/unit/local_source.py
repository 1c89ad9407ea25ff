"""A user's folder of a source, read as the origin `local` reads it, up to its questions."""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medmim.config.source_plugins import SOURCES
from medmim.questions.generate import generate_questions
from medmim.questions.row import Row
from medmim.sources.base import TableBuilder
from medmim.tables import table_io


@dataclass
class LocalSource:
    """The tables of a folder, the reasons of rejection by item, and the questions."""

    images: pd.DataFrame
    rejected: dict[str, str]
    questions: list[Row]

    @cached_property
    def _files_by_image(self) -> dict[str, str]:
        return dict(self.images[["image_id", "origin_file"]].itertuples(index=False))

    def list_files(self, row: Row) -> list[str]:
        """Files of a question's images, in order."""
        return [self._files_by_image[i] for i in row["image_ids"]]


def read_local_source(source: str, root: Path, *, open_fraction: float = 0.0, pretrain: bool = False) -> LocalSource:
    """Read a folder in the owner's layout and ask all that can be asked."""
    contents = import_module(f"medmim.sources.{source}.adapter").read_contents(root)
    builder = TableBuilder(source, root, contents, 64)
    images = table_io.build_table("images", list(builder.iter_image_rows())).to_pandas()
    findings = table_io.build_table("findings", builder.list_finding_rows()).to_pandas()
    questions = generate_questions(
        source,
        import_module(f"medmim.sources.{source}.questions"),
        images,
        findings,
        sets=SOURCES[source].list_sets(),
        seed=7,
        benchmark_fraction=0.25,
        open_fraction=open_fraction,
        pretrain=pretrain,
    )
    return LocalSource(images, {r["item"]: r["reason"] for r in builder.list_rejection_rows()}, questions)


def write_picture(path: Path, seed: int) -> None:
    """Write a small picture of noise, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30), dtype=np.uint8)).save(path)
