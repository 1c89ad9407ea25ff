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


def chest(patient: int, *studies: int) -> list[str]:
    """Paths of one chest X-ray per study."""
    return [f"p10/p{patient}/s{study}/image-{study}.png" for study in studies]


def record(
    number: int = 1,
    *,
    images: Sequence[str] | None = None,
    text: str = "Which is worse?",
    options: Sequence[str] = ("first", "second"),
    answer: str = "B: second",
    placeholders: int | None = None,
) -> dict[str, Any]:
    """A record in the authors' form; open where `options` is empty."""
    images = chest(number, 1, 2) if images is None else list(images)
    lines = "".join(f"\n{letter}: {option}" for letter, option in zip("ABCDEFG", options, strict=False))
    shown = "<image>" * (len(images) if placeholders is None else placeholders)
    return {
        "id": f"made-{number}",
        "images": list(images),
        "conversation": [
            {"role": "user", "content": shown + text + lines + "\n" * bool(options)},
            {"role": "assistant", "content": answer},
        ],
        "source": "MS_CXR_T_vqa_edema",
    }


def write(path: Path, records: Any) -> Path:
    """Write records as the authors do: indented by four."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=4, ensure_ascii=False), encoding="utf-8")
    return path


def index(folder: Path) -> Path:
    """Index a folder's files, in the folder."""
    table_io.write(folder / files.INDEX, "files", files.index(folder))
    return folder / files.INDEX


@dataclass
class Done:
    """How a program ended, and what it wrote to stderr."""

    returncode: int
    stderr: str


def run(program: str, *arguments: object) -> Done:
    """Run a program of workflow/scripts in this process: a tenth of the time that a new one takes to import."""
    script = str(WORKFLOW / "scripts" / program)
    said, handlers, code = io.StringIO(), logging.root.handlers[:], 0
    with mock.patch.object(sys, "argv", [script, *map(str, arguments)]), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            logging.root.handlers[:] = handlers
    return Done(code, said.getvalue())
