"""Small folders in the layouts in which others publish their held-out sets. Synthetic: coloured noise."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
FRAMES = ("image_1", "image_2", "image_3", "image_4", "image_5")
TEXTS = ("question_id", "system", "organ", "keyword", "modality", "video_id", "question", "correct_answer", "reasoning_chain")
OPTIONS = ("Cyst", "Fibroadenoma", "Abscess", "Haematoma", "Lipoma", "No change")


def make_jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def make_frames(*seeds: int) -> dict[str, Any]:
    """Columns image_1 to image_5, null where there are fewer, and image_url."""
    frame_images = [{"bytes": make_jpeg(seed), "path": f"frame_{seed}.jpg"} for seed in seeds]
    return {"image_url": [image["path"] for image in frame_images]} | dict(
        zip(FRAMES, [*frame_images, *[None] * 5][:5], strict=True)
    )


def make_video_question(number: int, **changed: Any) -> dict[str, Any]:
    """A row of MedFrameQA: question `number` shows two or more frames of its own; two questions a video."""
    seeds = range(10 * number, 10 * number + 2 + number % 4)
    return {
        "question_id": f"q{number:04d}", "system": "digestive", "organ": "liver", "keyword": "cyst",
        "modality": ("ultrasound", "CT", "X-ray")[number % 3], "video_id": f"video-{number // 2}",
        "question": f"What do the frames of case {number} show together?", "options": list(OPTIONS),
        "correct_answer": "ABCDEF"[number % 6], "reasoning_chain": "Frame 1 shows it.",
    } | make_frames(*seeds) | changed  # fmt: skip


def write_medframeqa(root: Path, rows: list[dict[str, Any]]) -> Path:
    """Two Parquet files in data/, as the hub has them."""
    fields = [(name, pa.string()) for name in TEXTS]
    fields += [("options", pa.list_(pa.string())), ("image_url", pa.list_(pa.string())), *((name, PICTURE) for name in FRAMES)]
    (root / "data").mkdir(parents=True)
    half = (len(rows) + 1) // 2
    for part, chosen in enumerate((rows[:half], rows[half:])):
        pq.write_table(pa.Table.from_pylist(chosen, pa.schema(fields)), root / f"data/test-0000{part}-of-00002.parquet")
    (root / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nA card.")
    return root


def make_exam_question(number: int, images: int = 2, **changed: Any) -> dict[str, Any]:
    """A record of MedXpertQA MM."""
    options = dict(zip("ABCDE", OPTIONS, strict=False))
    repeated = " ".join(f"({letter}) {text}" for letter, text in options.items())
    return {
        "id": f"MM-{number}",
        "question": f"A patient has complaint {number}. What is the most probable diagnosis?\nAnswer Choices: {repeated}",
        "options": options, "label": "ABCDE"[number % 5], "images": [f"MM-{number}-{x}.jpeg" for x in "abcdef"[:images]],
        "medical_task": "Basic Medicine", "body_system": "Skeletal", "question_type": "Reasoning",
    } | changed  # fmt: skip


def write_medxpertqa(root: Path, records: list[dict[str, Any]], *, unpacked: bool = False, without: tuple[str, ...] = ()) -> Path:
    """MM/test.jsonl, and images.zip or, unpacked, images/."""
    (root / "MM").mkdir(parents=True)
    (root / "MM/test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    names = [name for record in records for name in record["images"] or () if name not in without]
    image_files = {name: make_jpeg(1000 + seed) for seed, name in enumerate(dict.fromkeys(names))}
    if unpacked:
        (root / "images").mkdir()
        for name, data in image_files.items():
            (root / "images" / name).write_bytes(data)
        return root
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for name, data in image_files.items():
            archive.writestr(f"images/{name}", data)
        archive.writestr("__MACOSX/images/._MM-0-a.jpeg", b"a resource fork")
    return root
