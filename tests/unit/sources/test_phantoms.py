"""The synthetic cohorts: owners' layouts, same bytes from a seed, and tables that are true of the pixels."""

import hashlib
import importlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from mammogram_reader import read_view
from PIL import Image
from pydicom.pixels import apply_modality_lut
from scipy import ndimage

from config_files import config_file
from medmim.sources.embed import phantom as embed
from medmim.sources.lumiere import phantom as lumiere
from medmim.sources.ms_cxr_t import phantom as ms_cxr_t
from medmim.sources.odir import phantom as odir
from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.pmc import phantom as pmc
from medmim.tables import table_io

SCRIPT = Path(__file__).parents[3] / "workflow" / "scripts" / "make_phantoms.py"
PATIENTS = {"embed": 10, "lumiere": 8, "ms_cxr_t": 40, "pmc": 15, "vqa_rad": 18, "odir": 16}
SOURCES = tuple(PATIENTS)
TABLES = {
    "embed": tuple(f"tables/EMBED_OpenData_{n}{r}.csv" for r in ("_reduced", "") for n in ("metadata", "clinical")),
    "lumiere": ("LUMIERE-ExpertRating-v202211.csv", "LUMIERE-Demographics_Pathology.csv"),
    "ms_cxr_t": ("MS_CXR_T_temporal_image_classification_v1.0.0.csv",),
    "pmc": ("llava_med_instruct_60k.json", "llava_med_image_urls.jsonl"),
    "vqa_rad": ("VQA_RAD Dataset Public.json",),
    "odir": ("full_df.csv", "data.xlsx"),
}
Cohort = Callable[[str], Path]


def module(source: str) -> ModuleType:
    return importlib.import_module(f"medmim.sources.{source}.phantom")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Folder of a source's cohort, drawn once."""
    drawn: dict[str, Path] = {}

    def of(source: str) -> Path:
        if source not in drawn:
            drawn[source] = tmp_path_factory.mktemp(source)
            module(source).write_cohort(drawn[source], patients=PATIENTS[source], seed=7)
        return drawn[source]

    return of


def hashes(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def rows(path: Path) -> list[object]:
    """Rows of a table, records of a JSON list or JSON lines."""
    if path.suffix == ".csv":
        return list(pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records"))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".xlsx":
        return pd.read_excel(path).to_dict("records")
    return list(json.loads(path.read_text()))


def truth(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / primitives.TRUTH_FILE, keep_default_na=False)


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), float) / 255


@pytest.mark.parametrize("source", SOURCES)
def test_a_seed_gives_the_same_bytes(source: str, cohort: Cohort, tmp_path: Path) -> None:
    module(source).write_cohort(tmp_path / "again", patients=PATIENTS[source], seed=7)
    assert hashes(tmp_path / "again") == hashes(cohort(source))


@pytest.mark.parametrize("source", SOURCES)
def test_another_patient_or_seed(source: str, cohort: Cohort, tmp_path: Path) -> None:
    """Another patient changes nothing of those before; another seed changes every picture."""
    lists = {*TABLES[source], primitives.TRUTH_FILE}
    whole = cohort(source)
    module(source).write_cohort(tmp_path / "fewer", patients=PATIENTS[source] - 1, seed=7)
    fewer, more = hashes(tmp_path / "fewer"), hashes(whole)
    assert fewer.keys() < more.keys()
    assert {p: h for p, h in fewer.items() if p not in lists} == {p: more[p] for p in fewer if p not in lists}
    for name in lists:
        short, long = rows(tmp_path / "fewer" / name), rows(whole / name)
        assert short == long[: len(short)] and len(short) < len(long)
    module(source).write_cohort(tmp_path / "other", patients=1, seed=8)
    other = {p: h for p, h in hashes(tmp_path / "other").items() if p.endswith((".dcm", ".gz", ".jpg"))}
    other = {p: h for p, h in other.items() if not p.endswith(("mask.nii.gz", "segmentation.nii.gz"))}  # no tumour is no tumour
    assert other and not set(other.values()) & set(more.values())


@pytest.mark.parametrize("source", SOURCES)
def test_every_picture_says_that_it_is_synthetic(source: str, cohort: Cohort) -> None:
    folder = cohort(source)
    assert "SYNTHETIC" in (folder / "README.txt").read_text()
    for path in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert ds.PatientName == "SYNTHETIC^PHANTOM" and "SYNTHETIC" in ds.ImageComments
    for path in folder.rglob("*.nii.gz"):
        assert b"SYNTHETIC" in nib.load(path).header["descrip"].item()
    for path in folder.rglob("*.jpg"):
        assert b"SYNTHETIC" in Image.open(path).info["comment"]
    for path in folder.rglob("*.tar.gz"):
        with tarfile.open(path) as tar:
            members = {m.name: m for m in tar.getmembers()}
            assert all(m.mtime == 0 and m.uid == 0 for m in members.values())
            contents = {n: tar.extractfile(n).read() for n in members}  # type: ignore[union-attr]
        assert all(b"SYNTHETIC" in data for data in contents.values())


@pytest.mark.parametrize("source", SOURCES)
def test_the_truth_names_files_that_are_there(source: str, cohort: Cohort) -> None:
    found = truth(cohort(source))
    assert list(found) == ["path", "name", "value"] and not found.duplicated(["path", "name"]).any()
    assert all((cohort(source) / p.split("!")[0]).is_file() for p in found.path)


# EMBED


def shown(path: Path) -> np.ndarray:
    """A mammogram as a viewer shows it, 0 to 1, air black."""
    ds = pydicom.dcmread(path)
    values = apply_modality_lut(ds.pixel_array, ds).astype(float)
    values = np.clip((values - ds.WindowCenter + 0.5) / (ds.WindowWidth - 1) + 0.5, 0, 1)
    return 1 - values if ds.PhotometricInterpretation == "MONOCHROME1" else values


@pytest.fixture(scope="module")
def mammograms(cohort: Cohort) -> pd.DataFrame:
    """Rows of the metadata table with their pixels and the assessment of their breast."""
    folder = cohort("embed")
    metadata, clinical = (pd.read_csv(folder / t, dtype=str, keep_default_na=False) for t in TABLES["embed"][:2])
    clinical = clinical[clinical.asses != "X"].assign(acc_anon=clinical.acc_anon.str.removesuffix(".0"))
    metadata["file"] = [folder / "images" / p[p.index("cohort_1") :] for p in metadata.anon_dicom_path]
    metadata["letter"] = [
        clinical[(clinical.acc_anon == a) & clinical.side.isin(["", "B", s])].asses.item()
        for a, s in zip(metadata.acc_anon, metadata.ImageLateralityFinal, strict=True)
    ]
    metadata["pixels"] = [shown(f) for f in metadata.file]
    return metadata


def test_embed_tables_and_files(mammograms: pd.DataFrame, cohort: Cohort) -> None:
    assert {p.resolve() for p in cohort("embed").rglob("*.dcm")} == {p.resolve() for p in mammograms.file}
    assert set(mammograms.spot_mag) == {"0.0", "1.0"}
    full = mammograms[(mammograms.FinalImageType == "2D") & (mammograms.spot_mag == "0.0")]
    assert (full.groupby(["acc_anon", "ImageLateralityFinal", "ViewPosition"]).size() == 1).all()
    is_whole = full.StudyDescription.str.contains("Bilateral")
    assert (full.groupby("acc_anon").size() == 2 + 2 * is_whole.groupby(full.acc_anon).first()).all()
    clinical = pd.read_csv(cohort("embed") / TABLES["embed"][1], keep_default_na=False, dtype=str)
    assert {"empi_anon", "study_date_anon", "path_severity", "age_at_study"} <= set(clinical)
    assert (
        set(clinical.asses) <= set("ANBPSMKX")
        and clinical.acc_anon.str.endswith(".0").all()
        and not (clinical.asses.isin([*"SMK"]) ^ (clinical.path_severity != "")).any()
    )
    assert set(clinical[clinical.desc.str.contains("Screening")].asses) <= set("ANBX")
    days = pd.to_datetime(mammograms.study_date_anon.str[:10]).groupby(mammograms.empi_anon).unique()
    gaps = [gap for d in days for gap in np.diff(np.sort(d)) / np.timedelta64(1, "D")]
    assert all(14 <= gap <= 42 or 300 < gap < 430 for gap in gaps) and min(gaps) < 50 < max(gaps)


def test_embed_stores_pixels_as_real_machines_do(mammograms: pd.DataFrame) -> None:
    headers = [pydicom.dcmread(f) for f in mammograms.file]
    assert all(h.BitsAllocated == 16 and h.pixel_array.max() < 2**h.BitsStored for h in headers)
    assert {h.PhotometricInterpretation for h in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert {h.BitsStored for h in headers} >= {12} and any("RescaleSlope" in h for h in headers)
    for header, row in zip(headers, mammograms.itertuples(), strict=True):
        assert (header.ImageLaterality, header.ViewPosition) == (row.ImageLateralityFinal, row.ViewPosition)
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID == row.file.stem


def test_embed_side_and_view_are_in_the_pixels(mammograms: pd.DataFrame) -> None:
    for row in mammograms.itertuples():
        left = row.pixels if row.ImageLateralityFinal == "L" else row.pixels[:, ::-1]
        assert left[:, :10].mean() > 3 * left[:, -10:].mean()  # the chest wall is on this side
        top = np.flatnonzero(left[:, :3].mean(1) > 0.1)[0]
        muscle = np.median(left[top + 3 : top + 9, :4])
        assert (muscle > 0.42) == (row.ViewPosition == "MLO")


@pytest.fixture(scope="module")
def readings(mammograms: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The whole mammograms with what a reader of shapes sees in them, and what was drawn."""
    whole = mammograms[(mammograms.FinalImageType == "2D") & (mammograms.spot_mag == "0.0")].copy()
    seen = [read_view(p if side == "L" else p[:, ::-1]) for p, side in zip(whole.pixels, whole.ImageLateralityFinal, strict=True)]
    drawn = truth(cohort("embed")).pivot(index="path", columns="name", values="value")
    drawn = drawn.loc[[f.relative_to(cohort("embed")).as_posix() for f in whole.file]]
    signs = [" with ".join([w for w in pair if w != "none"] or ["nothing"]) for pair in zip(drawn.sign, drawn.mark, strict=True)]
    return whole.assign(seen=seen, drawn=signs)


def test_embed_signs_are_in_the_pixels(readings: pd.DataFrame) -> None:
    assert (readings.seen == readings.drawn).mean() > 0.93
    assert (readings.seen == readings.drawn).groupby(readings.drawn).mean().min() > 0.7
    assert readings.drawn.nunique() == 7


def test_embed_both_views_tell_the_assessment_and_one_does_not(readings: pd.DataFrame) -> None:
    """The best guess by what is seen, of an exam of a breast: each assessment counts as much."""
    breasts = readings.pivot(index=["acc_anon", "ImageLateralityFinal", "letter"], columns="ViewPosition", values="seen")
    breasts = breasts.reset_index()
    weights = 1 / breasts.groupby("letter").letter.transform("size")

    def guess(views: list[str]) -> float:
        odds = weights.groupby([breasts[v] for v in views] + [breasts.letter]).sum()
        return float(odds.groupby(level=views).max().sum() / breasts.letter.nunique())

    assert guess(["CC", "MLO"]) > 0.9
    assert max(guess(["CC"]), guess(["MLO"])) < 0.8


def test_embed_two_visits_tell_the_next() -> None:
    """Of a breast: the assessments of two yearly exams, and whether the outcome of the third is worse than the second's."""
    gravity = {"A": 0, "N": 0, "B": 0, "P": 1, "S": 2, "M": 3, "K": 3}
    following: dict[tuple[str, ...], set[bool]] = {}
    for course in embed.COURSES:
        yearly = [embed.plan_exams({"L": course}, i, 20)[0].letters["L"] for i in range(len(course))]
        for i in range(len(course) - 2):
            following.setdefault(tuple(yearly[i : i + 2]), set()).add(gravity[course[i + 2]] > gravity[course[i + 1]])
    assert {len(v) for v in following.values()} == {1}
    counts = [embed.sample_course(np.random.default_rng(i)) for i in range(400)]
    letters = pd.Series([c for p in counts for years in p.values() for c in years]).value_counts(normalize=True)
    assert set(letters.index) == set("ANBPSMK") and letters.min() > 0.04 and letters.max() < 0.4
    assert {len(years) for p in counts for years in p.values()} == {1, 2, 3, 4}


# LUMIERE


def volume(path: Path) -> np.ndarray:
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


SPECKS = 9
"""Diameter product of normal enhancement (choroid plexus), in pixels."""


def registered(visit: Path, sequence: str) -> Path:
    return visit / lumiere.SEGMENTATION_FOLDER / f"skull_strip/{sequence.lower()}_skull_strip.nii.gz"


def enhancing(visit: Path) -> int | None:
    """Product of the diameters of the largest enhancing part of the tumour in a middle slice of CT1, in pixels, as RANO measures.

    None where there is no registered volume. What enhances outside of the tumour's mask is narrow: vessels.
    """
    path = registered(visit, "CT1")
    if not path.exists():
        return None
    tumour = volume(visit / lumiere.SEGMENTATION_FOLDER / "segmentation/seg_mask.nii.gz")[:, 4] > 0
    bright = volume(path)[:, 4] > 690
    assert not ndimage.binary_opening(bright & ~ndimage.binary_dilation(tumour), np.ones((6, 6))).any()
    parts, count = ndimage.label(bright & tumour, np.ones((3, 3)))
    return (
        max((np.ptp(x) + 1) * (np.ptp(y) + 1) for x, y in (np.nonzero(parts == k) for k in range(1, count + 1))) if count else 0
    )


def ratings(folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Patients with their ratings, each once, without what blanks and rows twice the table has."""
    table = pd.read_csv(folder / TABLES["lumiere"][0], keep_default_na=False).drop_duplicates()
    table = table.rename(columns={c: c.split(" (")[0] for c in table.columns})
    yield from table.map(str.strip).groupby("Patient")


def test_lumiere_volumes(cohort: Cohort) -> None:
    folder = cohort("lumiere")
    orientations, slopes, grids = set(), set(), set()
    for path in folder.rglob("*.nii.gz"):
        image = nib.load(path)
        assert image.header["sform_code"] > 0
        assert path.read_bytes()[4:8] == b"\0\0\0\0"  # no time in the gzip header
        if "segmentation" in path.as_posix():  # of either program, on the atlas
            grids.add((image.shape, *np.round(image.affine, 3).ravel()))
        else:
            assert volume(path).shape == (32, 8, 32)
            orientations.add("".join(nib.aff2axcodes(image.affine)))
            slopes.add(image.dataobj.slope)
    assert len(orientations) > 2 and slopes == {1.0, 4.0}
    assert len(grids) == 1 and next(iter(grids))[0] == (64, 8, 64)
    counts = {"masks": 0, "none": 0, "no images": 0}
    for patient, table in ratings(folder):
        for week in table.Date:
            visit = folder / "Imaging" / patient / week
            present = [(visit / f"{s}.nii.gz").is_file() for s in lumiere.SEQUENCES]
            masks = (visit / lumiere.SEGMENTATION_FOLDER / "segmentation/seg_mask.nii.gz").is_file()
            assert [registered(visit, s).is_file() for s in lumiere.SEQUENCES] == [masks] * 4
            assert sum(present) == (4 if masks else 3 if visit.exists() else 0)
            counts["masks" if masks else "none" if visit.exists() else "no images"] += 1
    assert counts["masks"] > 30
    people = pd.read_csv(folder / TABLES["lumiere"][1])
    assert {"Patient", "Age at surgery (years)", "Sex", "Survival time (weeks)"} <= set(people)


def test_lumiere_masks_show_the_tumour(cohort: Cohort) -> None:
    folder = cohort("lumiere")
    for path in folder.rglob("seg_mask.nii.gz"):
        labels, contrast = volume(path), volume(registered(path.parents[3], "CT1"))
        stated = json.loads(path.with_name("measured_volumes_in_mm3.json").read_text())
        voxel = abs(np.linalg.det(nib.load(path).affine[:3, :3]))
        names = ("Enhancing_Core", "Necrotic_NonEnhancing", "Edema_Compartment")
        assert [stated[n] for n in names] == pytest.approx([(labels == k).sum() * voxel for k in (1, 2, 3)])
        if (labels == 1).any():
            assert np.median(contrast[labels == 1]) > 800 and np.median(contrast[labels == 3]) < 500
        if (labels == 2).any():
            assert np.median(contrast[labels == 2]) < 300


def test_lumiere_tables_have_the_owners_oddities(cohort: Cohort, tmp_path: Path) -> None:
    raw = (cohort("lumiere") / TABLES["lumiere"][0]).read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and raw.count(b"\r\n") == raw.count(b"\n")
    rng = primitives.make_generator(1, "courses")
    weeks = [week for _ in range(200) for week in lumiere.sample_course(rng)]
    assert {"Pre-Op", "Post-Op ", "Post-Op/PD", "None", "PD", "SD", "PR", "CR"} == {week.rating for week in weeks}
    assert {"", "CRET", "PRET ", "T2-Progr."} == {week.rationale for week in weeks}
    assert any(week.name.count("-") == 2 and not week.name.startswith("week-000") for week in weeks)
    assert not all(week.has_images for week in weeks) and not all(week.has_mask for week in weeks)


def test_lumiere_ratings_follow_the_enhancing_tumour(cohort: Cohort) -> None:
    """Against the scan after surgery, or the last one rated PD (baseline), and the least since (nadir)."""
    folder = cohort("lumiere")
    seen = set()
    for patient, table in ratings(folder):
        course: list[int | None] = []
        for week, rating, rationale in zip(table.Date, table.Rating, table["Rating rationale"], strict=True):
            area = enhancing(folder / "Imaging" / patient / week)
            known = area is not None and bool(course) and None not in course
            if rating == "Post-Op":
                assert area is not None and (area > SPECKS) == (rationale == "PRET")
            elif rating in ("PD", "SD", "PR", "CR") and not rationale and known:
                seen.add(rating)
                baseline, nadir = course[0], min(course)  # type: ignore[type-var]
                right = {
                    "PD": area > 1.4 * nadir + SPECKS,
                    "SD": abs(area - baseline) <= 0.3 * baseline + 4,
                    "PR": SPECKS < area < 0.75 * baseline,
                    "CR": area <= SPECKS < baseline,
                }
                assert right[rating], (patient, week, rating, course, area)
            if rating in ("PD", "Post-Op", "Post-Op/PD"):
                course = [area]
            elif rating in ("SD", "PR", "CR"):
                course.append(area)
    assert seen == {"PD", "SD", "PR", "CR"}


def test_lumiere_sequences_differ(cohort: Cohort) -> None:
    """Fluid is bright on T2 and dark on FLAIR, white matter bright on T1; on CT1 vessels in the midline shine."""
    middle: dict[str, list[np.ndarray]] = {s: [] for s in lumiere.SEQUENCES}
    vessels: dict[str, list[float]] = {s: [] for s in lumiere.SEQUENCES}
    for visit in (cohort("lumiere") / "Imaging").glob("*/*"):
        for sequence in lumiere.SEQUENCES:
            if registered(visit, sequence).exists():
                image = volume(registered(visit, sequence))[:, 3]
                middle[sequence].append(np.percentile(image[28:36, 24:44], [10, 90]))
                vessels[sequence].append(image[28:36, :14].max())
    dark, bright = ({s: np.median(v, 0)[k] for s, v in middle.items()} for k in (0, 1))
    assert bright["T2"] > 750 and max(dark["FLAIR"], dark["CT1"], dark["T1"]) < 250
    assert min(vessels["CT1"]) > 750


# MS-CXR-T


def test_ms_cxr_t_pairs(cohort: Cohort) -> None:
    folder = cohort("ms_cxr_t")
    pairs = pd.read_csv(folder / TABLES["ms_cxr_t"][0], dtype=str)
    for row in pairs.itertuples():
        for study, dicom in ((row.study_id, row.dicom_id), (row.previous_study_id, row.previous_dicom_id)):
            assert dicom.startswith(f"p{row.subject_id[:2]}/p{row.subject_id}/s{study}/")
            assert (folder / f"files/{dicom}.jpg").is_file()
    labels = pairs[[f"{f}_progression" for f in anatomy.FINDINGS]]
    assert labels.notna().any().all() and labels.notna().any(axis=1).all()
    assert set(labels.stack().dropna()) == {"improving", "stable", "worsening"}
    qualities = pairs[[f"{f}_label_quality" for f in anatomy.FINDINGS]]
    assert (qualities.notna().to_numpy() == labels.notna().to_numpy()).all()
    assert set(qualities.stack().dropna()) == {"one_expert", "multiple_experts", "disagreement"}


def opacity(image: np.ndarray, finding: str) -> float:
    """How much of a finding a radiograph shows, in the part of the lungs where it belongs, by tissue as bright or dark as it."""
    heart = np.median(image[64:76, 50:62])
    if finding == "edema":
        return float((ndimage.gaussian_filter(image, 2)[20:80, 22:86] > np.median(image[-8:])).mean())
    if finding == "pneumothorax":
        smooth = ndimage.median_filter(image, 5)
        base = smooth[62:74, 9:95]  # gas rises
        labels, _ = ndimage.label(smooth[10:78, 8:96] < 0.7 * np.median(base[base < 0.8 * heart]))
        return float(np.bincount(labels.ravel())[1:].max())
    if finding == "pleural_effusion":
        return float((image[29:99, [*range(3, 35), *range(77, 100)]] > heart).mean())
    return float(((image[35:88, 3:44] if finding == "consolidation" else image[12:61, 63:97]) > heart).mean())


def test_ms_cxr_t_progression_is_in_the_pixels(cohort: Cohort) -> None:
    folder = cohort("ms_cxr_t")
    pairs = pd.read_csv(folder / TABLES["ms_cxr_t"][0], dtype=str)
    checked = set()
    for row in pairs.to_dict("records"):
        named = [f for f in anatomy.FINDINGS if isinstance(row[f"{f}_progression"], str)]
        if len(named) == 1:
            (finding,) = named
            if row[f"{finding}_label_quality"] == "disagreement":
                continue
            before, after = (opacity(grey(folder / f"files/{row[k]}.jpg"), finding) for k in ("previous_dicom_id", "dicom_id"))
            step = {"edema": 0.85, "pneumothorax": 0.76}.get(finding, 0.8)
            change = {"improving": after < step * before, "worsening": after > before / step}
            steady = not any(change.values())
            assert change.get(row[f"{finding}_progression"], steady), (finding, row, before, after)
            checked.add((finding, row[f"{finding}_progression"]))
    assert len(checked) >= 12


def test_findings_grow_with_their_extent_and_keep_to_their_place() -> None:
    frame = anatomy.draw_chest(np.random.default_rng(3), ms_cxr_t.SHAPE)
    clean = anatomy.render_radiograph(frame, np.random.default_rng(4))
    for finding in anatomy.FINDINGS:
        changes = [
            np.abs(anatomy.add_finding(clean, frame, finding, e, "left", 5) - clean) for e in ms_cxr_t.SEVERITY_EXTENTS.values()
        ]
        areas = [(c > 0.1).sum() for c in changes]
        assert areas[0] * 1.3 < areas[1] and areas[1] * 1.3 < areas[2], finding
        across = (changes[2] * frame.grid[1]).sum() / changes[2].sum()
        assert {"consolidation": across < -0.2, "edema": abs(across) < 0.1}.get(finding, across > 0.2), finding


# PMC-15M


def test_pmc_records_have_their_figure(cohort: Cohort) -> None:
    folder = cohort("pmc")
    urls = {u["pair_id"]: u for u in rows(folder / TABLES["pmc"][1])}  # type: ignore[call-overload]
    domains = set()
    for record in json.loads((folder / TABLES["pmc"][0]).read_text()):
        url = urls[record["id"]]
        with tarfile.open(folder / "tars" / url["pmc_tar_url"].rsplit("/", 1)[1]) as tar:
            image = Image.open(io.BytesIO(tar.extractfile(url["image_file_path"]).read()))  # type: ignore[union-attr]
        assert image.mode == "RGB" and image.size == (128, 128)
        turns = record["conversations"]
        assert [t["from"] for t in turns] == ["human", "gpt"] * (len(turns) // 2) and len(turns) >= 4
        assert turns[0]["value"].count("<image>") == 1 and not any("<image>" in t["value"] for t in turns[1:])
        (domain,) = [d for d, true in record["domain"].items() if true]
        domains.add(domain)
        pixels = np.asarray(image, float)
        spread = np.abs(pixels - pixels.mean(2, keepdims=True)).mean()
        assert (spread > 10) == (domain in ("gross", "histology"))
        if domain == "gross":
            answers = [t["value"] for t in turns if t["value"] in pmc.COUNT_ANSWERS]
            white = ndimage.binary_opening((pixels.min(2) > 190)[:100])
            assert [pmc.COUNT_ANSWERS.index(a) + 1 for a in answers] == [ndimage.label(white)[1]]
    assert domains == set(pmc.DOMAINS)


# VQA-RAD


def test_vqa_rad_questions(cohort: Cohort) -> None:
    folder = cohort("vqa_rad")
    table = pd.DataFrame(json.loads((folder / TABLES["vqa_rad"][0]).read_text()))
    assert {"qid", "phrase_type", "image_name", "image_organ", "question", "question_type", "answer", "answer_type"} <= set(table)
    assert table.qid.is_unique and set(table.image_organ) == {"HEAD", "CHEST", "ABD"}
    closed = table[table.answer_type.str.strip() == "CLOSED"]
    assert set(closed.answer) == {"Yes", "No"} and len(table) > len(closed) > len(table) / 4
    often = closed.groupby("question").answer.agg(["size", "nunique"])
    assert (often[often["size"] >= 6]["nunique"] == 2).all()  # the question alone does not tell the answer
    for name, group in table.groupby("image_name"):
        image = grey(folder / "VQA_RAD Image Folder" / name)
        if group.image_organ.iloc[0] == "HEAD":
            side = dict(zip(group.question, group.answer, strict=True)).get("Which hemisphere contains the lesion?")
            rows, columns = (np.flatnonzero((image > 0.1).any(axis)) for axis in (1, 0))
            head, half = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], len(columns) // 2
            unlike = np.abs(head[:, :half][:, ::-1] - head[:, -half:])[25:70]
            uneven = ndimage.uniform_filter(unlike, 9).max()  # a lesion is a large spot
            assert (uneven > 0.3) == (side is not None), name


# ODIR-5K


def test_odir_table(cohort: Cohort) -> None:
    folder = cohort("odir")
    diagnoses = dict(truth(folder)[["path", "value"]].itertuples(index=False))
    workbook, table = pd.read_excel(folder / "data.xlsx"), pd.read_csv(folder / TABLES["odir"][0])
    assert {"labels", "target", "filepath", *workbook} <= set(table)
    assert table[list(workbook)].isin(workbook.to_dict("list")).all().all() and workbook.ID.is_unique
    assert set(workbook.ID) > set(table.ID) and (table.groupby("ID").size() == 2).all()
    for row in workbook.to_dict("records"):
        eyes = {odir.DIAGNOSIS_FLAGS[diagnoses[f"Training Images/{row['ID']}_{eye}.jpg"]] for eye in ("left", "right")}
        assert {f for f in odir.FLAGS if row[f]} == (eyes - {"N"} or {"N"})
        assert {"Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus"} <= set(row)
    for row in table.to_dict("records"):
        diagnosis = diagnoses[f"Training Images/{row['filename']}"]
        assert row["labels"] == f"['{odir.DIAGNOSIS_FLAGS[diagnosis]}']"
        keywords = row["Left-Diagnostic Keywords" if "left" in row["filename"] else "Right-Diagnostic Keywords"]
        bare = keywords.replace("lens dust，", "").replace("，low image quality", "")
        assert bare in (diagnosis, odir.OTHER_KEYWORDS.get(diagnosis))
    assert table["Left-Diagnostic Keywords"].str.contains("，").any()


def test_odir_disc_is_towards_the_nose(cohort: Cohort) -> None:
    for row in truth(cohort("odir")).itertuples():
        if row.value == "normal fundus":
            image = np.asarray(Image.open(cohort("odir") / row.path), float)
            y, x = np.unravel_index(ndimage.uniform_filter(image[..., 2], 5).argmax(), image.shape[:2])
            assert (x < 56) == ("left" in row.path) and 39 < y < 73


def test_odir_diagnoses_look_different() -> None:
    """By the size of bright and dark spots, and by how bright disc and macula are."""

    def look(diagnosis: str, seed: int) -> np.ndarray:
        green = odir.draw_fundus(diagnosis, "left", np.random.default_rng(seed))[..., 1]
        middle = np.hypot(*np.mgrid[-56:56, -56:56]) < 48
        spots = [f(green, size)[middle].mean() for f in (ndimage.white_tophat, ndimage.black_tophat) for size in (3, 7, 13, 25)]
        places = ndimage.gaussian_filter(green, 2)[36:76:5, 10:80:5]  # disc and macula
        return np.array([*spots, *places.max(0), *places.min(0)])

    looks = {d: np.array([look(d, s) for s in range(24)]) for d in odir.DIAGNOSIS_FLAGS}
    spread = np.mean([x.std(0) for x in looks.values()], 0)
    hits = [
        min(looks, key=lambda m: np.abs((looks[m][:12].mean(0) - x) / spread).sum()) == d for d in looks for x in looks[d][12:]
    ]
    assert np.mean(hits) > 0.75


# The program


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_program_writes_an_indexed_folder(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "odir" / "files.parquet"
    done = run("--source", "odir", "--raw", str(raw), "--cfg", config_file({"patients": 2, "seed": 1}))
    assert done.returncode == 0, done.stderr
    index = table_io.read_frame(raw, "files")
    assert {"full_df.csv", "README.txt", primitives.TRUTH_FILE, "Training Images/0_left.jpg"} < set(index.path)
    assert all(hashes(raw.parent)[r.path] == r.sha256 for r in index.itertuples())
    record = json.loads(raw.with_name("files.parquet.prov.json").read_text())
    assert (
        "medmim.sources.odir.phantom" in record["code"]["modules"]
        and "medmim.sources.embed.phantom" not in record["code"]["modules"]
    )


@pytest.mark.parametrize("cfg", [{"patients": 0, "seed": 1}, {"patients": 2}, {"patients": 2, "seed": 1, "sede": 2}])
def test_program_refuses_a_wrong_config(cfg: dict[str, int], tmp_path: Path) -> None:
    done = run("--source", "odir", "--raw", str(tmp_path / "o" / "files.parquet"), "--cfg", config_file(cfg))
    assert done.returncode == 1 and "--cfg needs patients" in done.stderr and "Traceback" not in done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
