"""Small release files made for the tests."""

import contextlib
import io
import json
import logging
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from medmim.common import files
from medmim.provenance.code_digest import WORKFLOW
from medmim.tables import table_io

BENCHMARK = "Med_MIM_benchmark_Held_in_Temporal.json"
TRAIN = "Med_MIM_train_inherent_Temporal.json"


def make_chest_paths(patient: int, *studies: int) -> list[str]:
    """Paths of one chest X-ray per study."""
    return [f"p10/p{patient}/s{study}/image-{study}.png" for study in studies]


def make_record(
    number: int = 1,
    *,
    images: Sequence[str] | None = None,
    text: str = "Which is worse?",
    options: Sequence[str] = ("first", "second"),
    answer: str = "B: second",
    placeholders: int | None = None,
) -> dict[str, Any]:
    """A record in the authors' form; open where `options` is empty."""
    images = make_chest_paths(number, 1, 2) if images is None else list(images)
    lines = "".join(f"\n{letter}: {option}" for letter, option in zip("ABCDEFG", options, strict=False))
    placeholder_text = "<image>" * (len(images) if placeholders is None else placeholders)
    return {
        "id": f"made-{number}",
        "images": list(images),
        "conversation": [
            {"role": "user", "content": placeholder_text + text + lines + "\n" * bool(options)},
            {"role": "assistant", "content": answer},
        ],
        "source": "MS_CXR_T_vqa_edema",
    }


def write_records(path: Path, records: Any) -> Path:
    """Write records as the authors do: indented by four."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=4, ensure_ascii=False), encoding="utf-8")
    return path


RELEASE_SETS = {
    "Benchmark_Dataset/Med_MIM_benchmark_Held_in_Temporal.json": ("lumiere", 2),
    "Benchmark_Dataset/Med_MIM_benchmark_Held_in_Reasoning.json": ("embed", 2),
    "Benchmark_Dataset/Med_MIM_benchmark_Held_in_Comparison.json": ("ms_cxr_t", 2),
    "Benchmark_Dataset/Med_MIM_benchmark_Held_in_Co-reference.json": ("embed", 3),
    "Benchmark_Dataset/Med_MIM_benchmark_Held_out_RAD.json": ("vqa_rad", 3),
    "Benchmark_Dataset/Med_MIM_benchmark_Held_out_ODIR.json": ("odir", 2),
    "Instruction_Dataset/Med_MIM_train_inherent_Comparison.json": ("ms_cxr_t", 2),
    "Instruction_Dataset/Med_MIM_train_composed.json": ("pmc", 2),
}
"""Files of a made release: the source of its images, and how many a question shows."""


def write_release(clone: Path, paths_by_source: dict[str, list[str]], questions: int = 4) -> Path:
    """Write a release of some questions a set about images, by the paths that it gives them, as a clone has it."""
    remaining_paths = {source: iter(paths) for source, paths in paths_by_source.items()}
    for name, (source, image_count) in RELEASE_SETS.items():
        shown = [[next(remaining_paths[source]) for _ in range(image_count)] for _ in range(questions)]
        write_records(clone / name, [make_record(n, images=images) for n, images in enumerate(shown)])
    (clone / "README.md").write_text("# Med-MIM")
    (clone / ".git").mkdir()
    (clone / ".git/Med_MIM_train_composed.json").write_text("git's own")
    return clone


def index_folder(folder: Path) -> Path:
    """Index a folder's files, in the folder."""
    table_io.write_table(folder / files.INDEX_NAME, "files", files.index_files(folder))
    return folder / files.INDEX_NAME


@dataclass
class ProgramResult:
    """How a program ended, and what it wrote to stderr."""

    returncode: int
    stderr: str


def run_program(program: str, *arguments: object) -> ProgramResult:
    """Run a program of workflow/scripts in this process: a tenth of the time that a new one takes to import."""
    script = str(WORKFLOW / "scripts" / program)
    stderr, handlers, returncode = io.StringIO(), logging.root.handlers[:], 0
    with mock.patch.object(sys, "argv", [script, *map(str, arguments)]), contextlib.redirect_stderr(stderr):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            returncode = int(end.code or 0)
        finally:
            logging.root.handlers[:] = handlers
    return ProgramResult(returncode, stderr.getvalue())
