"""Adapters: small folders in each owner's layout, with everything that may be wrong in them, become images and findings."""

import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

import lumiere_made
from config_files import config_file
from medmim.common import files
from medmim.common.errors import UserError
from medmim.sources.base import Picture, Rejection, SourceContents, TableBuilder
from medmim.sources.readers import dicom, nifti, raster
from medmim.sources.rendering import decode_bytes
from medmim.tables import table_io
from medmim.tables.images import ImageStore

PROGRAM = Path(__file__).resolve().parents[3] / "workflow/scripts/build_images.py"


def built(source: str, root: Path, size: int = 64, threads: int = 1) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Images, findings, and reasons of rejection by item."""
    build = TableBuilder(source, root, import_module(f"medmim.sources.{source}.adapter").read_contents(root), size, threads)
    images = table_io.build_table("images", list(build.iter_image_rows())).to_pandas()
    findings = table_io.build_table("findings", build.list_finding_rows()).to_pandas()
    return images, findings, {r["item"]: r["reason"] for r in build.list_rejection_rows()}


def facts(findings: pd.DataFrame, name: str) -> list[tuple[str, str, int]]:
    """(study, value, row) of the findings of that name."""
    chosen = findings[findings.name == name]
    return sorted(zip(chosen.study_id, chosen.value, chosen.origin_row, strict=True))


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30), dtype=np.uint8)).save(path)


def csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


# EMBED


def mammogram(path: Path, seed: int) -> None:
    ds = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    ds.PixelData = (ds.pixel_array + np.random.default_rng(seed).integers(0, 300, (128, 128))).astype(np.int16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)


def embed_row(
    number: int, study: str = "900", side: str = "L", view: str = "CC", kind: str = "2D", date: str = "2015-01-31"
) -> dict:
    return {
        "empi_anon": 11,
        "acc_anon": study,
        "study_date_anon": date,
        "anon_dicom_path": f"/mnt/far/away/images/cohort_1/11/1.2.{study}/1.3/{number}.dcm",
        "ImageLateralityFinal": side,
        "ViewPosition": view,
        "FinalImageType": kind,
        "spot_mag": None,
        "SomethingElse": 1,
    }


def clinical_row(study: str, side: str | None, asses: str, severity: float | None = None) -> dict[str, Any]:
    return {"empi_anon": 11, "acc_anon": study, "side": side, "asses": asses, "path_severity": severity, "age_at_study": 50}


@pytest.fixture
def embed(tmp_path: Path) -> Path:
    rows = [
        embed_row(1),
        embed_row(2, view="MLO"),
        embed_row(3, side="R"),
        embed_row(4, study="901", date="2016-02-01 00:00:00"),
        embed_row(5, kind="3D"),
        embed_row(6, view="XCCL"),
        embed_row(7) | {"spot_mag": 1},
    ]
    csv(tmp_path / "tables/EMBED_OpenData_metadata_reduced.csv", rows)
    clinical = [
        clinical_row("900", "L", "B"),
        clinical_row("900", "L", "M", 0.0),
        clinical_row("900", "L", "S", 4),
        clinical_row("900", "R", "N"),
        clinical_row("901", None, "N"),
    ]
    csv(tmp_path / "tables/EMBED_OpenData_clinical_reduced.csv", clinical)
    for number in (1, 2, 3):
        mammogram(tmp_path / f"images/cohort_1/11/1.2.900/1.3/{number}.dcm", number)
    mammogram(tmp_path / "images/cohort_1/11/1.2.901/1.3/4.dcm", 4)
    return tmp_path


def test_embed(embed: Path) -> None:
    images, findings, rejected = built("embed", embed)
    assert rejected == {}
    assert images.origin_file.tolist() == sorted(images.origin_file)
    assert images[["patient_id", "study_id", "day", "view", "laterality", "release_path"]].to_numpy().tolist() == [
        ["embed/11", "embed/900", 0, "CC", "L", "cohort_1/11/1.2.900/1.3/1.png"],
        ["embed/11", "embed/900", 0, "MLO", "L", "cohort_1/11/1.2.900/1.3/2.png"],
        ["embed/11", "embed/900", 0, "CC", "R", "cohort_1/11/1.2.900/1.3/3.png"],
        ["embed/11", "embed/901", 366, "CC", "L", "cohort_1/11/1.2.901/1.3/4.png"],
    ]
    assert images.origin_sha256[0] == files.hash_file(embed / images.origin_file[0])
    birads = findings[findings.name == "birads"].set_index("image_id")
    assert birads.value.reindex(images.image_id).tolist() == ["M", "M", "N", "N"], "the most severe of the breast's rows"
    assert birads.origin_row.reindex(images.image_id).tolist() == [2, 2, 4, 5]
    assert facts(findings, "path_severity") == [("embed/900", "0", 2)] * 2
    assert facts(findings, "laterality") == [
        ("embed/900", "L", 1),
        ("embed/900", "L", 2),
        ("embed/900", "R", 3),
        ("embed/901", "L", 4),
    ]
    assert findings.finding_id.is_unique


def test_embed_lists_what_it_can_not_use(embed: Path) -> None:
    metadata = embed / "tables/EMBED_OpenData_metadata_reduced.csv"
    rows = [
        *pd.read_csv(metadata).to_dict("records"),
        embed_row(8),  # no such file
        embed_row(9, side="B"),
        embed_row(10) | {"anon_dicom_path": "elsewhere/10.dcm"},
        embed_row(11, date="31.1.2015"),
        embed_row(1),
        embed_row(12) | {"acc_anon": None},
        embed_row(13),
        embed_row(14) | {"spot_mag": "yes"},
    ]
    csv(metadata, rows)
    (embed / "images/cohort_1/11/1.2.900/1.3/13.dcm").write_bytes(b"broken")
    clinical = embed / "tables/EMBED_OpenData_clinical_reduced.csv"
    more = [clinical_row("999", "L", "N"), clinical_row("900", "left", "N"), clinical_row("900", "L", "Z", 9)]
    csv(clinical, [*pd.read_csv(clinical).to_dict("records"), *more])
    images, _, rejected = built("embed", embed)
    assert len(images) == 4
    m, c = (p.relative_to(embed).as_posix() for p in (metadata, clinical))
    assert rejected == {
        f"images/cohort_1/11/1.2.900/1.3/8.dcm ({m} row 8)": "no such file",
        f"{m} row 9": "ImageLateralityFinal is 'B', neither L nor R",
        f"{m} row 10": "anon_dicom_path 'elsewhere/10.dcm' has no cohort_1/….dcm in it",
        f"{m} row 11": "study_date_anon '31.1.2015' is no date",
        f"{m} row 12": "same file as row 1",
        f"{m} row 13": "empi_anon or acc_anon is empty",
        f"images/cohort_1/11/1.2.900/1.3/13.dcm ({m} row 14)": "no DICOM file: it lacks the DICM prefix or its header is cut off",
        f"{m} row 15": "spot_mag is 'yes', neither 0 nor 1",
        f"{c} row 7": "side is 'left', none of L, R, B",
        f"{c} row 8": "asses is 'Z', not one of N B P A S M K; path_severity is '9', not one of 6 5 4 3 2 1 0",
    }


# LUMIERE


@pytest.fixture
def lumiere(tmp_path: Path) -> Path:
    return lumiere_made.write_folder(tmp_path / "LUMIERE", lumiere_made.COURSE[:3])


def test_lumiere(lumiere: Path) -> None:
    images, findings, rejected = built("lumiere", lumiere)
    assert rejected == {}
    assert images["view"].tolist() == ["CT1", "FLAIR", "T1", "T2"] * 3
    assert images.day.tolist() == [0] * 8 + [91] * 4
    assert set(images.study_id) == {f"lumiere/Patient-001/week-{w}" for w in ("000-1", "000-2", "013")}
    assert images.release_path[0] == "ct1_LUMIERE_images_tumor1200px_256x256/Patient-001/slice_9/week_000-1.png"
    assert images.release_path[11] == "t2_LUMIERE_images_tumor1200px_256x256/Patient-001/slice_9/week_013.png"
    visit = "lumiere/Patient-001/week-"
    assert facts(findings, "rano") == [(f"{visit}000-1", "Pre-Op", 1), (f"{visit}000-2", "Post-Op", 2), (f"{visit}013", "SD", 3)]
    assert facts(findings, "resection") == [(f"{visit}000-2", "partial resection", 2)]
    assert facts(findings, "reference") == [(f"{visit}013", "000-2", 3)]
    assert len(facts(findings, "sequence")) == 12
    # areas of discs of 5 and 3 voxels, with the dead core that the first encloses, in pixels of 4 mm2
    assert [value for _, value, _ in facts(findings, "enhancing_mm2")] == ["324", "116", "116"]


def test_lumiere_shows_one_slice_in_all_sequences_and_visits(lumiere: Path) -> None:
    images, _, _ = built("lumiere", lumiere)
    for row in images.itertuples():
        bright = _pixels(row.bytes) > 200
        assert (row.height, row.width) == (30, 32)
        rows, columns = np.nonzero(bright)
        # the top is up and the right side on the left, so that both axes run backwards
        assert (round(rows.mean()), round(columns.mean())) == (29 - 15, 31 - 20), row.origin_file
        assert bright.sum() == (81 - 5 if "000-1" in row.study_id else 29)


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_lumiere_lists_what_it_can_not_use(lumiere: Path) -> None:
    imaging, atlas = lumiere / "Imaging", lumiere_made.ATLAS
    (imaging / f"Patient-001/week-000-1/{atlas}/skull_strip/t2_skull_strip.nii.gz").write_bytes(b"broken")
    (imaging / f"Patient-001/week-013/{atlas}/skull_strip/flair_skull_strip.nii.gz").unlink()
    elsewhere = imaging / f"Patient-001/week-013/{atlas}/skull_strip/t1_skull_strip.nii.gz"
    lumiere_made.write_volume(elsewhere, np.ones(lumiere_made.SHAPE, np.int16), shift=40)
    (imaging / "Patient-001/week-020").mkdir()
    (imaging / "Patient-001/later").mkdir()
    lumiere_made.write_visit(imaging / "Patient-001/week-021", 3, seed=50, shift=30.0)
    lumiere_made.write_visit(imaging / "Patient-001/week-022", 3, seed=51)
    (imaging / "Patient-001/week-022" / lumiere_made.MASK).write_bytes(b"cut off")
    lumiere_made.write_visit(imaging / "Patient-002/week-000", None, seed=52)
    more = [
        ("Patient-001", "week-099", "SD", ""),
        ("Patient-001", "week-013", "better", ""),
        ("Patient-001", "week-013", "", ""),
        ("Patient-001", "week-013", "PD", ""),
        ("Patient-001", "soon", "PD", ""),
        ("Patient-001", "week-013", "SD", ""),
    ]
    lumiere_made.write_ratings(lumiere, [*(row for row, _ in lumiere_made.COURSE[:3]), *more])
    contents = import_module("medmim.sources.lumiere.adapter").read_contents(lumiere)
    images, findings, rejected = built("lumiere", lumiere)
    assert len(images) == 9
    assert len(facts(findings, "rano")) == 3
    unmasked = f"a visit without registered volumes: there is no {lumiere_made.MASK}"
    left_out = {
        "Imaging/Patient-001/week-020": unmasked,
        "Imaging/Patient-002/week-000": unmasked,
        "Imaging/Patient-001/week-021": "lies elsewhere: its mask's grid is not that of the patient's other visits",
        f"Imaging/Patient-001/week-013/{atlas}/skull_strip/flair_skull_strip.nii.gz": "a sequence that this visit lacks",
        f"Imaging/Patient-001/week-013/{atlas}/skull_strip/t1_skull_strip.nii.gz": "lies elsewhere: its grid is not that of the "
        "visit's mask",
        f"{lumiere_made.RATINGS_FILE} row 4": "a rating of a visit that isn't shown, Patient-001/week-099",
    }
    assert {r.item: r.reason for r in contents.rejected if not r.is_broken} == left_out
    reasons = {k: v.split(":")[0] for k, v in rejected.items() if k not in left_out}
    assert reasons == {
        f"Imaging/Patient-001/week-000-1/{atlas}/skull_strip/t2_skull_strip.nii.gz slice 9": "no readable NIfTI volume",
        f"Imaging/Patient-001/week-022/{lumiere_made.MASK}": "no readable NIfTI volume",
        "Imaging/Patient-001/later": "a visit's folder is not named week-YYY",
        f"{lumiere_made.RATINGS_FILE} row 5": "rating 'better' is not one of PD, SD, PR, CR, Pre-Op, Post-Op, Post-Op/PD",
        f"{lumiere_made.RATINGS_FILE} row 7": "rating 'PD', but 'SD' in row 3",
        f"{lumiere_made.RATINGS_FILE} row 8": "Date is 'soon', expected week-YYY",
    }
    assert contents.skipped["rows that repeat a rating"] == contents.skipped["visits without a rating"] == 1
    assert contents.skipped["visits that can't be shown"] == 3


def test_lumiere_without_masks_is_refused(lumiere: Path) -> None:
    for mask in lumiere.rglob("seg_mask.nii.gz"):
        mask.unlink()
    with pytest.raises(UserError, match="no visit has registered volumes and a mask that shows a tumour"):
        built("lumiere", lumiere)


# MS-CXR-T


def cxr_row(current: str, previous: str, **progressions: str) -> dict[str, Any]:
    findings = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
    return {
        "dicom_id": current,
        "previous_dicom_id": previous,
        "study_id": f"5{current[0]}",
        "previous_study_id": f"5{previous[0]}",
        "subject_id": 10000032,
        "split": "train",
    } | {f"{f}_progression": progressions.get(f) for f in findings}


@pytest.fixture
def ms_cxr_t(tmp_path: Path) -> Path:
    rows = [cxr_row("2b-2", "1a-1", edema="improving", pneumonia="stable"), cxr_row("3c-3", "2b-2", edema="worsening")]
    csv(tmp_path / "MS_CXR_T_temporal_image_classification_v1.0.0.csv", rows)
    for seed, (study, name) in enumerate((("51", "1a-1"), ("52", "2b-2"), ("53", "3c-3"))):
        picture(tmp_path / f"files/p10/p10000032/s{study}/{name}.jpg", seed)
    return tmp_path


def test_ms_cxr_t(ms_cxr_t: Path) -> None:
    images, findings, rejected = built("ms_cxr_t", ms_cxr_t)
    assert rejected == {}
    assert images.release_path.tolist() == [f"p10/p10000032/s5{n}/{n}{c}-{n}.png" for n, c in ((1, "a"), (2, "b"), (3, "c"))]
    assert set(images.patient_id) == {"ms_cxr_t/10000032"}
    first, second, third = images.image_id
    rows = set(zip(findings.image_id, findings.name, findings.value, findings.origin_row, strict=True))
    assert rows == {
        (second, "progression:edema", "improving", 1),
        (second, "label_quality:edema", "not_stated", 1),
        (second, "previous:edema", first, 1),
        (second, "progression:pneumonia", "stable", 1),
        (second, "label_quality:pneumonia", "not_stated", 1),
        (second, "previous:pneumonia", first, 1),
        (third, "progression:edema", "worsening", 2),
        (third, "label_quality:edema", "not_stated", 2),
        (third, "previous:edema", second, 2),
    }


def test_ms_cxr_t_lists_what_it_can_not_use(ms_cxr_t: Path) -> None:
    path = ms_cxr_t / "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
    more = [
        cxr_row("4d-4", "3c-3", edema="stable"),
        cxr_row("3c-3", "1a-1", edema="better"),
        cxr_row("3c-3", "1a-1"),
        cxr_row("3c-3", "3c-3", edema="stable"),
        cxr_row("../../secret", "3c-3", edema="stable"),
        cxr_row("p10/p10000032/s51/4d-4", "3c-3", edema="stable"),
        cxr_row("4d-4", "3c-3", edema="stable") | {"edema_label_quality": "good"},
    ]
    csv(path, [*pd.read_csv(path).to_dict("records"), *more])
    (ms_cxr_t / "files/p10/p10000032/s51/1a-1.jpg").write_bytes(b"broken")
    _, findings, rejected = built("ms_cxr_t", ms_cxr_t)
    assert set(findings.origin_row) == {2}, "a progression whose pair is broken or absent is dropped"
    assert rejected == {
        f"files/p10/p10000032/s51/1a-1.jpg ({path.name} row 1)": "can't be decoded: no image format that Pillow knows",
        f"files/p10/p10000032/s54/4d-4.jpg ({path.name} row 3)": "no such file",
        f"{path.name} row 4": "edema_progression is 'better', none of improving, stable, worsening",
        f"{path.name} row 5": "no finding has a progression",
        f"{path.name} row 6": "dicom_id and previous_dicom_id are the same",
        f"{path.name} row 7": "study_id is '5.', not a number; dicom_id is '../../secret', not an image of the row's subject and "
        "study, p10/p10000032/s5./secret",
        f"{path.name} row 8": "study_id is '5p', not a number; dicom_id is 'p10/p10000032/s51/4d-4', not an image of the row's "
        "subject and study, p10/p10000032/s5p/4d-4",
        f"{path.name} row 9": "edema_label_quality is 'good', none of one_expert, multiple_experts, disagreement",
    }


# PMC

TURNS = [
    {"from": "human", "value": "What is this?\n<image>"},
    {"from": "gpt", "value": "A chest X-ray."},
    {"from": "human", "value": "Is it normal?"},
    {"from": "gpt", "value": "Yes."},
]


def pmc_record(name: str, turns: Any = TURNS, domain: Any = None) -> dict[str, Any]:
    flags = dict.fromkeys(("chest_xray", "mri", "histology", "gross", "ct_scan"), False) | {"chest_xray": True}
    return {"id": name, "image": f"{name}.jpg", "domain": flags if domain is None else domain, "conversations": turns}


def pmc_write(root: Path, records: list[dict[str, Any]], places: dict[str, str]) -> None:
    (root / "llava_med_instruct_60k.json").write_text(json.dumps(records))
    lines = [
        {"pair_id": pair, "pmc_tar_url": f"https://owner.example/oa/{member.split('/')[0]}.tar.gz", "image_file_path": member}
        for pair, member in places.items()
    ]
    (root / "llava_med_image_urls.jsonl").write_text("\n".join(json.dumps(line) for line in lines))


@pytest.fixture
def pmc(tmp_path: Path) -> Path:
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars/PMC1.tar.gz", "w:gz") as tar:
        for seed, name in enumerate(("f1.jpg", "f2.jpg")):
            picture(tmp_path / name, seed)
            tar.add(tmp_path / name, f"PMC1/{name}")
            (tmp_path / name).unlink()
    pmc_write(tmp_path, [pmc_record("1_F1"), pmc_record("1_F2", TURNS[:2])], {"1_F1": "PMC1/f1.jpg", "1_F2": "PMC1/f2.jpg"})
    return tmp_path


def test_pmc(pmc: Path) -> None:
    images, findings, rejected = built("pmc", pmc)
    assert rejected == {}
    assert images.origin_file.tolist() == ["tars/PMC1.tar.gz!PMC1/f1.jpg", "tars/PMC1.tar.gz!PMC1/f2.jpg"]
    assert images.patient_id.tolist() == ["pmc/PMC1"] * 2
    assert images.study_id.tolist() == ["pmc/1_F1", "pmc/1_F2"]
    assert images.modality.tolist() == ["radiography"] * 2
    stated = findings[findings.image_id == images.image_id[0]].set_index("name").value.to_dict()
    assert stated == {
        "domain": "chest_xray",
        "qa:0:question": "What is this?",
        "qa:0:answer": "A chest X-ray.",
        "qa:1:question": "Is it normal?",
        "qa:1:answer": "Yes.",
    }


def test_pmc_lists_what_it_can_not_use(pmc: Path) -> None:
    records = [
        pmc_record("1_F1"),
        pmc_record("none"),
        pmc_record("1_F2", TURNS[:3]),
        pmc_record("1_F2", TURNS[1:3]),
        pmc_record("1_F2", [{"from": "human", "value": "<image>"}, TURNS[1]]),
        pmc_record("1_F2", domain={"x-ray": True}),
        pmc_record("1_F2", domain=["mri"]),
        pmc_record("1_F2", domain={"mri": "false"}),
        pmc_record("evil"),
        pmc_record("gone"),
        pmc_record("lost"),
    ]
    places = {"1_F1": "PMC1/f1.jpg", "1_F2": "PMC1/f2.jpg", "evil": "../../x.jpg", "gone": "PMC2/f1.jpg", "lost": "PMC1/f9.jpg"}
    pmc_write(pmc, records, places)
    images, _, rejected = built("pmc", pmc)
    assert len(images) == 1
    name = "llava_med_instruct_60k.json record"
    assert rejected == {
        f"{name} 2": "id 'none' is no pair_id in llava_med_image_urls.jsonl",
        f"{name} 3": "conversations is no list of pairs of turns",
        f"{name} 4": "turn 1 is not a text from human",
        f"{name} 5": "turn 1 is empty",
        f"{name} 6": "domain x-ray is none of chest_xray, mri, histology, gross, ct_scan",
        f"{name} 7": "domain is no object of true and false",
        f"{name} 8": "domain is no object of true and false",
        f"tars/...tar.gz!../../x.jpg ({name} 9)": "'../../x.jpg' is not a path below the source's folder",
        f"tars/PMC2.tar.gz!PMC2/f1.jpg ({name} 10)": "no file PMC2.tar.gz",
        f"tars/PMC1.tar.gz!PMC1/f9.jpg ({name} 11)": "no member PMC1/f9.jpg in PMC1.tar.gz",
    }


# VQA-RAD


def rad_record(qid: int, image: str = "synpic1.jpg", **other: Any) -> dict[str, Any]:
    return {
        "qid": qid,
        "phrase_type": "freeform",
        "image_case_url": "https://owner.example",
        "image_name": image,
        "image_organ": "HEAD",
        "question": "Is there blood?",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED ",
    } | other


@pytest.fixture
def vqa_rad(tmp_path: Path) -> Path:
    records = [rad_record(0), rad_record(1, question="How many?", answer=2, answer_type="OPEN"), rad_record(2, "synpic2.jpg")]
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(records))
    for number in (1, 2):
        picture(tmp_path / f"VQA_RAD Image Folder/synpic{number}.jpg", number)
    return tmp_path


def test_vqa_rad(vqa_rad: Path) -> None:
    images, findings, rejected = built("vqa_rad", vqa_rad)
    assert rejected == {}
    assert images.release_path.tolist() == ["synpic1.jpg", "synpic2.jpg"]
    assert images.patient_id.tolist() == ["vqa_rad/synpic1", "vqa_rad/synpic2"]
    stated = findings[findings.image_id == images.image_id[0]].set_index("name").value.to_dict()
    assert stated == {
        "organ": "HEAD",
        "qa:0:question": "Is there blood?",
        "qa:0:answer": "Yes",
        "qa:0:answer_type": "CLOSED",
        "qa:0:question_type": "PRES",
        "qa:1:question": "How many?",
        "qa:1:answer": "2",
        "qa:1:answer_type": "OPEN",
        "qa:1:question_type": "PRES",
    }


def test_vqa_rad_lists_what_it_can_not_use(vqa_rad: Path) -> None:
    path = vqa_rad / "VQA_RAD Dataset Public.json"
    more = [
        rad_record(1),
        rad_record(5, answer=""),
        rad_record(6, answer_type="MAYBE"),
        rad_record(7, image_organ="CHEST"),
        rad_record(8, image_organ="FOOT"),
        rad_record(9, "synpic9.jpg"),
    ]
    path.write_text(json.dumps(json.loads(path.read_text()) + more))
    images, findings, rejected = built("vqa_rad", vqa_rad)
    assert len(images) == 2
    assert findings.origin_row.max() == 3
    name = f"{path.name} record"
    assert rejected == {
        f"{name} 4": "qid 1 is that of record 2",
        f"{name} 5": "answer is empty",
        f"{name} 6": "answer_type is 'MAYBE', neither CLOSED nor OPEN",
        f"{name} 7": "image_organ is CHEST, but HEAD in an earlier record of synpic1.jpg",
        f"{name} 8": "image_organ is 'FOOT', none of HEAD, CHEST, ABD",
        f"VQA_RAD Image Folder/synpic9.jpg ({name} 9)": "no such file",
    }


# ODIR


def odir_row(person: int, **other: Any) -> dict[str, Any]:
    return {
        "ID": person,
        "Patient Age": 60 + person,
        "Patient Sex": "Female",
        "Left-Fundus": f"{person}_left.jpg",
        "Right-Fundus": f"{person}_right.jpg",
        "Left-Diagnostic Keywords": "cataract",
        "Right-Diagnostic Keywords": "normal fundus",
        **dict.fromkeys("NDGCAHMO", 0),
        "C": 1,
        "filepath": "../input/x.jpg",
        "labels": "['C']",
    } | other


@pytest.fixture(params=["csv", "xlsx"])
def odir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "csv":  # a row per eye
        csv(tmp_path / "full_df.csv", [odir_row(1), odir_row(4), odir_row(1)])
        folder = tmp_path / "Training Images"
    else:  # as unpacked from the owner's archive: a row per person
        (tmp_path / "ODIR-5K/ODIR-5K").mkdir(parents=True)
        pd.DataFrame([odir_row(1), odir_row(4)]).to_excel(tmp_path / "ODIR-5K/ODIR-5K/data.xlsx", index=False)
        folder = tmp_path / "ODIR-5K/ODIR-5K/Training Images"
    for person in (1, 4):
        for seed, side in enumerate(("left", "right")):
            picture(folder / f"{person}_{side}.jpg", person * 2 + seed)
    return tmp_path


def test_odir(odir: Path) -> None:
    images, findings, rejected = built("odir", odir)
    assert rejected == {}
    assert images.release_path.tolist() == [f"Training Images/{n}_{s}.jpg" for n in (1, 4) for s in ("left", "right")]
    assert images.laterality.tolist() == ["L", "R"] * 2
    diagnosis = findings[findings.name == "diagnosis"].set_index("image_id").value.reindex(images.image_id)
    assert diagnosis.tolist() == ["cataract", "normal fundus"] * 2
    of_person = findings[(findings.study_id == "odir/4") & (findings.image_id == "")].set_index("name").value.to_dict()
    assert of_person == {"age": "64", "sex": "Female", **dict.fromkeys("NDGAHMO", "0"), "C": "1"}


def test_odir_takes_no_code_or_absurd_number_for_an_age(tmp_path: Path) -> None:
    ages = {1: 57, 2: -999, 3: "89+", 4: 250, 5: None, 6: 999}
    csv(tmp_path / "full_df.csv", [odir_row(n, **{"Patient Age": age}) for n, age in ages.items()])
    for n in ages:
        for seed, side in enumerate(("left", "right")):
            picture(tmp_path / f"Training Images/{n}_{side}.jpg", 2 * n + seed)
    images, findings, rejected = built("odir", tmp_path)
    assert (len(images), rejected) == (12, {})
    assert facts(findings, "age") == [("odir/1", "57", 1)]
    assert import_module("medmim.sources.odir.adapter").read_contents(tmp_path).skipped == {
        "Patient Age that is missing or withheld": 4,
        "Patient Age '250' is no age from 0 to 120 years": 1,
    }


def test_odir_lists_what_it_can_not_use(tmp_path: Path) -> None:
    rows = [odir_row(1), odir_row(2), odir_row(1, **{"Patient Age": 99}), odir_row(3, C=7), odir_row(5, **{"Left-Fundus": None})]
    csv(tmp_path / "full_df.csv", rows)
    picture(tmp_path / "Training Images/1_left.jpg", 1)
    picture(tmp_path / "Training Images/1_right.jpg", 1)
    images, findings, rejected = built("odir", tmp_path)
    assert len(images) == 1
    assert set(findings.patient_id) == {"odir/1"}
    assert rejected == {
        "Training Images/1_right.jpg (full_df.csv row 1)": "same pixels as Training Images/1_left.jpg",
        "Training Images/2_left.jpg (full_df.csv row 2)": "no such file",
        "Training Images/2_right.jpg (full_df.csv row 2)": "no such file",
        "full_df.csv row 3": "Patient Age is '99', but '61' in row 1",
        "full_df.csv row 4": "C is '7', neither 0 nor 1",
        "full_df.csv row 5": "Left-Fundus is empty",
    }


# All


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("embed", "EMBED_OpenData_metadata"),
        ("lumiere", "no folder Imaging"),
        ("ms_cxr_t", r"MS_CXR_T_temporal_image_classification\*"),
        ("pmc", "llava_med_instruct_60k.json"),
        ("vqa_rad", "VQA_RAD Dataset Public.json"),
        ("odir", r"full_df\.csv or data\.xlsx"),
    ],
)
def test_empty_folder_is_refused(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        built(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "table", "column"),
    [
        ("embed", "tables/EMBED_OpenData_clinical_reduced.csv", "asses"),
        ("embed", "tables/EMBED_OpenData_metadata_reduced.csv", "ViewPosition"),
        ("lumiere", "LUMIERE-ExpertRating-v202211.csv", "Date"),
        ("ms_cxr_t", "MS_CXR_T_temporal_image_classification_v1.0.0.csv", "edema_progression"),
    ],
)
def test_missing_column_is_named(source: str, table: str, column: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(source)
    pd.read_csv(root / table).drop(columns=column).to_csv(root / table, index=False)
    with pytest.raises(UserError, match=rf"{Path(table).name}: missing columns {column}; there are "):
        built(source, root)


def test_missing_key_is_named(vqa_rad: Path) -> None:
    path = vqa_rad / "VQA_RAD Dataset Public.json"
    path.write_text(path.read_text().replace("image_organ", "organ", 1))
    with pytest.raises(UserError, match=r"record 1 lacks image_organ; there are .*organ"):
        built("vqa_rad", vqa_rad)


def test_source_without_images_is_refused(odir: Path, vqa_rad: Path) -> None:
    (vqa_rad / "VQA_RAD Dataset Public.json").write_text("[]")
    with pytest.raises(UserError, match=r"Public\.json:1:2: expected records, found an empty list"):
        built("vqa_rad", vqa_rad)
    if (table := odir / "full_df.csv").exists():
        table.write_text(table.read_text().splitlines()[0])
        with pytest.raises(UserError, match="the source odir is empty"):
            built("odir", odir)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "answer is null, expected text or a number"),
        (["left", "right"], "answer is a list, expected text or a number"),
        (True, "answer is true or false, expected text or a number"),
        ({}, "answer is an object, expected text or a number"),
        (3, ""),
        ("axial\t", ""),
    ],
)
def test_an_answer_is_text_or_a_number(vqa_rad: Path, answer: Any, reason: str) -> None:
    path = vqa_rad / "VQA_RAD Dataset Public.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([records[0] | {"answer": answer}, *records[1:]]))
    _, findings, rejected = built("vqa_rad", vqa_rad)
    assert rejected == ({f"{path.name} record 1": reason} if reason else {})
    golds = set(findings[findings.name == f"qa:{records[0]['qid']}:answer"].value)
    assert golds == (set() if reason else {str(answer).strip()})


@pytest.mark.parametrize("key", ["image", "id", "image_file_path", "pmc_tar_url"])
@pytest.mark.parametrize("value", [None, ["x"]])
def test_what_names_a_figure_is_text(pmc: Path, key: str, value: Any) -> None:
    names = ("llava_med_instruct_60k.json", "llava_med_image_urls.jsonl")
    contents = [json.loads((pmc / names[0]).read_text()), [json.loads(x) for x in (pmc / names[1]).read_text().splitlines()]]
    for records in contents:
        if key in records[0]:
            records[0][key] = value
    (pmc / names[0]).write_text(json.dumps(contents[0]))
    (pmc / names[1]).write_text("\n".join(map(json.dumps, contents[1])))
    _, _, rejected = built("pmc", pmc)
    kind = "null" if value is None else "a list"
    assert f"{key} is {kind}, expected text or a number" in rejected[f"{names[0]} record 1"] or key == "id"
    assert "None" not in str(sorted(rejected.values())) or key == "id"


def test_blank_images_are_rejected(vqa_rad: Path) -> None:
    Image.new("L", (30, 30), 17).save(vqa_rad / "VQA_RAD Image Folder/synpic2.jpg")
    _, findings, rejected = built("vqa_rad", vqa_rad)
    assert [*rejected.values()] == ["the image is blank: every value is 17"]
    assert set(findings.patient_id) == {"vqa_rad/synpic1"}


def test_images_are_shrunk_to_size(vqa_rad: Path) -> None:
    images, _, _ = built("vqa_rad", vqa_rad, size=20)
    assert images[["width", "height"]].to_numpy().tolist() == [[15, 20]] * 2


def test_several_processes_make_the_same(lumiere: Path) -> None:
    one, several = built("lumiere", lumiere), built("lumiere", lumiere, threads=2)
    pd.testing.assert_frame_equal(one[0], several[0])
    pd.testing.assert_frame_equal(one[1], several[1])


@pytest.mark.parametrize(("broken", "limit", "passes"), [(1, 0.01, True), (2, 0.01, False), (2, 0.02, True), (1, 0, False)])
def test_share_of_broken(broken: int, limit: float, passes: bool) -> None:
    build = TableBuilder("x", Path("raw/x"), import_module("medmim.sources.base").SourceContents(), 8)
    build.image_ids = {str(n): "" for n in range(100 - broken)}
    build.rejected = [Rejection(f"{n}.jpg", "cut off") for n in range(broken)] + [
        Rejection("d.jpg", "same pixels", is_broken=False)
    ] * 9
    if passes:
        build.check_rejected_share(limit)
    else:
        with pytest.raises(UserError, match=rf"{broken} of 100 .*max_rejected allows\n  {broken} × cut off: 0\.jpg"):
            build.check_rejected_share(limit)


# The program


@pytest.fixture
def program(vqa_rad: Path, tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], Path]]:
    def run(index: bool = True, **cfg: Any) -> tuple[subprocess.CompletedProcess[str], Path]:
        if index:
            table_io.write_table(vqa_rad / "files.parquet", "files", files.index_files(vqa_rad))
        out = tmp_path / "out"
        options = [o for n in ("images", "findings", "rejected", "left-out") for o in (f"--{n}", str(out / f"{n}.parquet"))]
        command = [
            sys.executable,
            str(PROGRAM),
            "--source",
            "vqa_rad",
            "--root",
            str(vqa_rad),
            "--raw",
            str(vqa_rad / "files.parquet"),
        ]
        done = subprocess.run(
            [*command, *options, "--cfg", config_file({"size": 32} | cfg)], capture_output=True, text=True, check=False
        )
        return done, out

    return run


def test_program_writes_its_tables(program: Callable[..., Any], vqa_rad: Path) -> None:
    done, out = program(limit=1)
    assert done.returncode == 0, done.stderr
    reasons = {row["reason"]: row["count"] for row in table_io.read_table(out / "left-out.parquet", "left_out").to_pylist()}
    assert reasons == {"patients beyond the limit of 1": 1}
    done, out = program()
    assert done.returncode == 0, done.stderr
    assert "vqa_rad: 2 images, 14 findings, 0 rejected" in done.stderr
    assert len(ImageStore([out / "images.parquet"])) == 2
    assert table_io.read_table(out / "findings.parquet", "findings").num_rows == 14
    assert table_io.read_table(out / "rejected.parquet", "rejected").num_rows == 0
    record = json.loads((out / "images.parquet.prov.json").read_text())
    assert "medmim.sources.vqa_rad.adapter" in record["code"]["modules"]
    assert {"pillow", "pydicom", "numpy"} & record["code"]["packages"].keys() >= {"pillow", "numpy"}


def test_program_stops_above_the_limit_and_goes_on_below(program: Callable[..., Any], vqa_rad: Path) -> None:
    (vqa_rad / "VQA_RAD Image Folder/synpic2.jpg").write_bytes(b"broken")
    done, out = program()
    assert done.returncode == 1
    assert "1 of 2 images and rows" in done.stderr
    item = "VQA_RAD Image Folder/synpic2.jpg (VQA_RAD Dataset Public.json record 3)"
    reason = "can't be decoded: no image format that Pillow knows"
    assert f"  1 × {reason}: {item}" in done.stderr
    assert "Traceback" not in done.stderr
    kept_list = out / "rejected.failed.csv"
    assert done.stderr.rstrip().endswith(f"turned away so far, 1 with their reasons: {kept_list}")
    assert [p.name for p in out.iterdir()] == [kept_list.name]
    assert pd.read_csv(kept_list).to_dict("records") == [{"stage": "images", "item": item, "reason": reason}]
    done, out = program(max_rejected=0.5)
    assert done.returncode == 0, done.stderr
    assert not kept_list.exists()
    assert table_io.read_frame(out / "rejected.parquet", "rejected").item.tolist() == [
        "VQA_RAD Image Folder/synpic2.jpg (VQA_RAD Dataset Public.json record 3)"
    ]


def test_program_refuses_files_changed_since_they_were_indexed(program: Callable[..., Any], vqa_rad: Path) -> None:
    assert program()[0].returncode == 0
    picture(vqa_rad / "VQA_RAD Image Folder/synpic2.jpg", 77)
    done, _ = program(index=False)
    assert done.returncode == 1
    assert "synpic2.jpg is not as the source's index has it" in done.stderr


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda path: path.unlink(), "synpic2.jpg: was there when the folder was indexed, and is gone"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "synpic2.jpg: can't be read: Too many levels of symbolic links"),
    ],
)
def test_program_stops_where_a_file_is_not_given(program: Callable[..., Any], vqa_rad: Path, fault: Any, message: str) -> None:
    table_io.write_table(vqa_rad / "files.parquet", "files", files.index_files(vqa_rad))
    fault(vqa_rad / "VQA_RAD Image Folder/synpic2.jpg")
    done, out = program(index=False, max_rejected=1)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [*out.iterdir()] == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_a_read_error_is_no_bad_image(vqa_rad: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "synpic2.jpg":
            raise OSError(number, os.strerror(number), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)  # the processes that read are forked from this one
    with pytest.raises(
        UserError, match=rf"synpic2\.jpg: can't be read: {os.strerror(number)} \({errno.errorcode[number]}\): \w+"
    ):
        built("vqa_rad", vqa_rad)


def make_contents(root: Path, **readers: Any) -> TableBuilder:
    """A source of one picture for each reader of pixels."""
    pictures = []
    for seed, (name, reader) in enumerate(readers.items()):
        picture(root / f"{name}.png", seed)
        pictures.append(Picture(file=f"{name}.png", read_pixels=reader, patient=name, study=name, modality="CT"))
    return TableBuilder("x", root, SourceContents(pictures), 64)


def test_patients_of_another_source_bear_its_ids(tmp_path: Path) -> None:
    contents = make_contents(tmp_path, one=raster.read_pixels).contents
    contents.add_facts(contents.pictures[0], "t.csv", 1, {"view": "PA"})
    build = TableBuilder("x", tmp_path, contents, 64, patients_of="ms_cxr_t")
    [row] = build.iter_image_rows()
    assert (row["source"], row["patient_id"], row["study_id"]) == ("x", "ms_cxr_t/one", "x/one")
    assert [r["patient_id"] for r in build.list_finding_rows()] == ["ms_cxr_t/one"]


def end_process(data: bytes) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def leave_process(data: bytes) -> np.ndarray:
    os._exit(3)


def be_killed(data: bytes) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def raise_error(error: Exception, data: bytes) -> np.ndarray:
    raise error


@pytest.mark.usefixtures("quiet_deaths")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_picture_that_ends_its_process_is_named_and_the_rest_is_read(tmp_path: Path, threads: int) -> None:
    good = {f"{letter}{n}": raster.read_pixels for n in range(9) for letter in "ace"}
    build = make_contents(tmp_path, **good, b0=end_process, b1=leave_process, d4=end_process)
    build.threads = threads
    rows = list(build.iter_image_rows())
    assert [row["origin_file"] for row in rows] == sorted(f"{name}.png" for name in good)
    assert {r["item"]: r["reason"] for r in build.list_rejection_rows()} == {
        "b0.png": "its decoder ended the process (SIGSEGV)",
        "b1.png": "its decoder ended the process (exit status 3)",
        "d4.png": "its decoder ended the process (SIGSEGV)",
    }


@pytest.mark.usefixtures("quiet_deaths")
def test_a_jpeg_ls_whose_header_kills_the_decoder_is_named(tmp_path: Path) -> None:
    ds = dcmread(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)))
    frame = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    sizes_at = frame.index(b"\xff\xf7") + 5  # height and width in the frame's header
    frame[sizes_at + 2 : sizes_at + 4] = bytes(2)
    ds.PixelData = encapsulate([bytes(frame)])
    build = make_contents(tmp_path, a=raster.read_pixels, b=dicom.read_pixels)
    ds.save_as(tmp_path / "b.png")
    assert len(list(build.iter_image_rows())) == 1
    assert [r["reason"] for r in build.list_rejection_rows()] == ["its decoder ended the process (SIGSEGV)"]


def test_a_picture_of_absurd_size_is_rejected_before_it_is_decoded(tmp_path: Path) -> None:
    ds = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    ds.Rows = ds.Columns = 65535
    build = make_contents(tmp_path, a=raster.read_pixels, b=dicom.read_pixels, c=raster.read_pixels)
    ds.save_as(tmp_path / "b.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "c.png")
    assert len(list(build.iter_image_rows())) == 1
    assert [r["reason"].split(":")[0] for r in build.list_rejection_rows()] == [
        "65535 x 65535 pixels of 1; at most 268435456 samples are read",
        "can't be decoded",
    ]


def test_a_process_that_was_killed_is_no_bad_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b\.png: the process that reads it was killed \(SIGKILL\), .*more memory"):
        list(make_contents(tmp_path, a=raster.read_pixels, b=be_killed).iter_image_rows())


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "x"), MemoryError()])
def test_an_error_of_the_machine_while_decoding_stops_the_stage(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(UserError, match=r"b\.png: (can't be read|not enough memory).*: \w+"):
        list(make_contents(tmp_path, a=raster.read_pixels, b=partial(raise_error, error)).iter_image_rows())


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("deep"),
        KeyError("x"),
        OSError("no number"),
        AssertionError(),
        NotImplementedError("YBR"),
        ZeroDivisionError(),
    ],
)
def test_whatever_a_decoder_raises_is_a_rejection_with_its_class(tmp_path: Path, error: Exception) -> None:
    build = make_contents(tmp_path, a=raster.read_pixels, b=partial(raise_error, error))
    assert len(list(build.iter_image_rows())) == 1
    assert build.list_rejection_rows()[0]["reason"].startswith(f"{type(error).__name__}: ")


def test_a_page_in_place_of_a_picture_is_called_so(vqa_rad: Path) -> None:
    (vqa_rad / "VQA_RAD Image Folder/synpic2.jpg").write_text("<!doctype html><title>Sign in</title>")
    _, _, rejected = built("vqa_rad", vqa_rad)
    assert next(iter(rejected.values())).startswith("is a web page, titled 'Sign in', in place of the file")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "synpic1.jpg/x.jpg", "."])
def test_a_name_that_can_be_no_file_is_the_tables_fault(vqa_rad: Path, name: str) -> None:
    path = vqa_rad / "VQA_RAD Dataset Public.json"
    path.write_text(path.read_text().replace("synpic2.jpg", name))
    _, _, rejected = built("vqa_rad", vqa_rad)
    assert [*rejected.values()] in (["no such file"], ["is a folder, expected a file"])


def test_lumiere_outlives_any_header(lumiere: Path) -> None:
    """Headers with one byte changed raise many errors: none ends the stage."""
    first = lumiere / f"Imaging/Patient-001/week-000-1/{lumiere_made.ATLAS}/skull_strip/ct1_skull_strip.nii.gz"
    raw = bytearray(gzip.decompress(first.read_bytes()))
    rng = np.random.default_rng(3)
    for number in range(60):
        broken = bytearray(raw)
        for _ in range(4):
            broken[int(rng.integers(0, 348))] = int(rng.integers(0, 256))
        for decode in (nifti.read_grid, nifti.read_windowed_volume):
            try:
                decode_bytes(bytes(broken), decode)
            except ValueError as error:
                assert str(error), number
    broken = bytearray(raw)
    broken[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], "<i2").tobytes()  # of which numpy would allocate terabytes
    mask = lumiere / "Imaging/Patient-001/week-000-2" / lumiere_made.MASK
    mask.write_bytes(gzip.compress(bytes(broken)))
    images, _, rejected = built("lumiere", lumiere)
    assert len(images) == 8
    assert "at most 268435456 voxels are read" in rejected[f"Imaging/Patient-001/week-000-2/{lumiere_made.MASK}"]


@pytest.mark.parametrize("source", ["embed", "lumiere", "ms_cxr_t", "pmc", "vqa_rad", "odir"])
def test_phantoms_are_read_whole(source: str, tmp_path: Path) -> None:
    import_module(f"medmim.sources.{source}.phantom").write_cohort(tmp_path, patients=4, seed=7)
    images, findings, rejected = built(source, tmp_path)
    left_out = {"lumiere": ("a visit without registered volumes", "a rating of a visit that isn't shown")}
    assert all(reason.startswith(left_out.get(source, ())) for reason in rejected.values())
    assert images.patient_id.nunique() == 4
    assert images.image_id.is_unique
    assert (images.release_path == "").all() or images.release_path.is_unique
    assert set(findings.patient_id) == set(images.patient_id)
    assert set(findings.image_id) - {""} <= set(images.image_id)
    assert all(_pixels(b).std() > 10 for b in images.bytes), "no picture is flat"
