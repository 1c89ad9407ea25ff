"""MS-CXR-T as PhysioNet has it, ids made up: ids that are paths, label quality, the owner's tree or one flat folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from local_sources import LocalSource

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
PROGRESSIONS = ("improving", "stable", "worsening")
QUALITIES = ("one_expert", "multiple_experts", "disagreement")
OPTION_TEXTS = {"improving": "improved", "stable": "unchanged", "worsening": "worse"}
TABLE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"


def make_pairs(patients: int = 60) -> list[dict[str, Any]]:
    """Rows of the owner's table; each patient has two pairs, of three studies, and two findings in each."""
    rng = np.random.default_rng(5)
    rows = []
    for patient in range(patients):
        subject = 10_000_032 + 71 * patient
        studies = [50_000_000 + 10 * patient + visit for visit in range(3)]
        hashes = ["-".join(f"{n:08x}" for n in rng.integers(0, 2**32, 5)) for _ in studies]
        stems = [f"p{str(subject)[:2]}/p{subject}/s{s}/{h}" for s, h in zip(studies, hashes, strict=True)]
        for visit in (1, 2):
            row: dict[str, Any] = {
                "dicom_id": stems[visit],
                "previous_dicom_id": stems[visit - 1],
                "study_id": studies[visit],
                "previous_study_id": studies[visit - 1],
                "subject_id": subject,
            }
            for number, finding in enumerate(FINDINGS):
                labelled = number in (patient % 5, (patient + 1) % 5)
                row[f"{finding}_progression"] = str(rng.choice(PROGRESSIONS)) if labelled else None
                row[f"{finding}_label_quality"] = str(rng.choice(QUALITIES)) if labelled else None
            rows.append(row)
    return rows


def write_folder(root: Path, pairs: list[dict[str, Any]], image_path: str) -> None:
    """The table, and each image where `image_path` says, by its `stem` and `hash`."""
    root.mkdir(parents=True)
    pd.DataFrame(pairs).to_csv(root / TABLE, index=False)
    for number, stem in enumerate(sorted({row[k] for row in pairs for k in ("dicom_id", "previous_dicom_id")})):
        path = root / image_path.format(stem=stem, hash=stem.rpartition("/")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 30), dtype=np.uint8)).save(path)


def list_labels(pairs: list[dict[str, Any]], qualities: tuple[str, ...]) -> set[tuple[str, str, str, str]]:
    """(previous image, image, finding, progression) of the labels of some qualities."""
    return {
        (row["previous_dicom_id"], row["dicom_id"], f, row[f"{f}_progression"])
        for row in pairs
        for f in FINDINGS
        if row[f"{f}_label_quality"] in qualities
    }


def list_asked(source: LocalSource, questions: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """The same of the questions, the paths from the images table and the progression from the right option."""
    images = source.read_table("images").set_index("image_id").release_path.str.removesuffix(".png")
    words = {text: progression for pair in OPTION_TEXTS.items() for progression, text in ((pair[0], pair[0]), pair)}
    return {
        (images[q["image_ids"][0]], images[q["image_ids"][1]], q["task"].removeprefix("ms_cxr_t_vqa_"), words[q["answer"]])
        for q in questions
    }


@pytest.mark.parametrize("image_path", ["files/{stem}.jpg", "{stem}.jpg", "{hash}.jpg", "my images/{hash}.jpg"])
def test_golds_are_the_labels_that_experts_agree_on(image_path: str, tmp_path: Path) -> None:
    pairs = make_pairs()
    write_folder(tmp_path / "cxr", pairs, image_path)
    source = LocalSource("ms_cxr_t", tmp_path / "cxr", tmp_path)
    source.build_tables()
    assert source.read_table("rejected").empty
    asked = list_asked(source, source.generate_questions())
    agreed = list_labels(pairs, ("one_expert", "multiple_experts"))
    assert asked <= agreed and len(asked) > 0.8 * len(agreed), "golds too frequent are thinned out"


def test_label_quality_is_a_finding_and_disputed_labels_a_setting(tmp_path: Path) -> None:
    pairs = make_pairs()
    write_folder(tmp_path / "cxr", pairs, "files/{stem}.jpg")
    source = LocalSource("ms_cxr_t", tmp_path / "cxr", tmp_path)
    source.build_tables()
    findings = source.read_table("findings")
    for finding in FINDINGS:
        stated = findings[findings.name == f"label_quality:{finding}"].set_index("origin_row").value
        column = pd.Series([row[f"{finding}_label_quality"] for row in pairs], range(1, len(pairs) + 1)).dropna()
        assert stated.to_dict() == column.to_dict()
    disputed = list_labels(pairs, ("disagreement",))
    assert not disputed & list_asked(source, source.generate_questions())
    assert disputed & list_asked(source, source.generate_questions(disputed_labels=True))


def test_a_table_without_label_quality_is_read(tmp_path: Path) -> None:
    pairs = [{k: v for k, v in row.items() if not k.endswith("_label_quality")} for row in make_pairs(6)]
    write_folder(tmp_path / "cxr", pairs, "files/{stem}.jpg")
    source = LocalSource("ms_cxr_t", tmp_path / "cxr", tmp_path)
    source.build_tables()
    findings = source.read_table("findings")
    assert set(findings[findings.name.str.startswith("label_quality:")].value) == {"not_stated"}
    assert source.generate_questions()
