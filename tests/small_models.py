"""Small questions, images and models for the tests of layouts, shards and predictions."""

import runpy
import sys
from pathlib import Path

import numpy as np

from config_files import config_file
from medmim.common.files import INDEX_NAME, index_files
from medmim.models import tiny
from medmim.models.families import registry
from medmim.provenance.code_digest import WORKFLOW
from medmim.questions.prompt import prompt_text, target_text
from medmim.questions.row import question_row
from medmim.tables import images, table_io

SIZES = [(70, 50), (40, 60), (56, 56), (30, 31), (80, 20)]


def make_image_rows(count: int = 5) -> list[dict[str, object]]:
    """Rows of an images table: noise of several shapes, grey and RGB; the last is also named by the release."""
    rows = []
    for n in range(count):
        rng = np.random.default_rng([7, n])
        width, height = SIZES[n % len(SIZES)]
        pixels = rng.integers(0, 256, (height, width, 3) if n % 2 else (height, width), np.uint8)
        image_id, png = images.encode_png(pixels)
        rows.append(
            dict.fromkeys(["view", "laterality", "release_path"], "")
            | dict(image_id=image_id, source="embed", patient_id=f"embed/{n}", study_id=f"embed/{n}", day=None, modality="MRI")
            | dict(width=width, height=height, bytes=png, thumbnail=bytes(4096), origin_file=f"{n}.png", origin_sha256="0" * 64)
        )
    rows[-1]["release_path"] = "last.png"
    return rows


def make_questions(ids: list[str]) -> list[dict[str, object]]:
    """Closed and open questions about 0, 1, 2 and 3 of the images."""
    common = dict(split="train", ability="comparison", set="comparison", task="t", source="embed", generator="test/1")
    texts = ["Which image shows the larger lesion?", "In which image is the lesion on the left?"]
    rows = []
    for n in range(12):
        image_ids = [ids[(n + k) % len(ids)] for k in range(n % 4)]
        options = ["the first image", "the second image", "neither of the images"][: 2 + n % 2]
        rows.append(question_row(text=texts[n % 2], options=options, answer=options[n % 2], image_ids=image_ids, **common))
    rows.append(question_row(text="What is the change over time?", answer="The lesion is larger.", image_ids=ids[:2], **common))
    return rows


def write_tables(folder: Path) -> tuple[Path, Path, list[dict[str, object]]]:
    """(qa file, images file, questions) written to a folder."""
    rows = make_image_rows()
    images.write_images(folder / "images.parquet", rows)
    qa_rows = make_questions([str(r["image_id"]) for r in rows])
    table_io.write_table(folder / "qa.parquet", "qa", qa_rows)
    return folder / "qa.parquet", folder / "images.parquet", qa_rows


def make_dialogues(qa_rows: list[dict[str, object]]) -> list[tuple[str, str]]:
    return [
        (prompt_text(q["question"], q["options"]), target_text(q["options"], q["answer_index"], q["answer"])) for q in qa_rows
    ]


def write_model(folder: Path, family: str, *, weights: bool = True) -> Path:
    """A tiny base with random weights and its index; path of files.parquet."""
    model_family = registry.get_family(family)
    tokenizer = tiny.build_tokenizer(model_family, make_dialogues(make_questions(["a", "b", "c"])))
    config = tiny.build_config(model_family, tokenizer, vision_width=32, vision_layers=1, language_width=32, language_layers=2)
    tokenizer.save_pretrained(str(folder))
    if weights:
        import torch
        from transformers import LlavaForConditionalGeneration

        torch.set_num_threads(1)
        torch.manual_seed(3)
        LlavaForConditionalGeneration(config).save_pretrained(str(folder))
    else:
        config.save_pretrained(str(folder))
    table_io.write_table(folder / INDEX_NAME, "files", index_files(folder))
    return folder / INDEX_NAME


def run_program(monkeypatch, program: str, **options: object) -> None:
    """Run a program of workflow/scripts in this process; `cfg` is a dict. Raises SystemExit where it fails."""
    script = WORKFLOW / "scripts" / program
    argv = [str(script)]
    for name, value in options.items():
        value = config_file(value) if isinstance(value, dict) else value
        argv += [f"--{name}", *(str(v) for v in (value if isinstance(value, list) else [value]))]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(script), run_name="__main__")
