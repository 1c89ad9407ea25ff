"""Synthetic ODIR-5K: colour fundus photographs of both eyes with diagnostic keywords and flags."""

import io
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from medmim.sources.phantom_drawing import primitives
from medmim.sources.phantom_drawing.primitives import Array, Point

SHAPE = (112, 112)
EXPOSURES = (
    ((0.0, 0.4), (0.1, 0.6), (0.9, 0.84), (1.0, 0.98)),
    ((0.0, 0.1), (0.1, 0.26), (0.8, 0.4), (0.9, 0.56), (1.0, 0.93)),
    ((0.0, 0.06), (0.1, 0.13), (0.8, 0.19), (0.9, 0.36), (1.0, 0.86)),
)
"""Of red, green and blue: share of the fundus's pixels, and the intensity up to which they reach."""
FLAGS = ("N", "D", "G", "C", "A", "H", "M", "O")
DIAGNOSIS_FLAGS = {
    "normal fundus": "N",
    "moderate non proliferative retinopathy": "D",
    "glaucoma": "G",
    "cataract": "C",
    "dry age-related macular degeneration": "A",
    "hypertensive retinopathy": "H",
    "pathological myopia": "M",
    "drusen": "O",
}
"""Diagnostic keywords of one eye and the flag they raise."""
OTHER_KEYWORDS = {
    "moderate non proliferative retinopathy": "moderate non-proliferative retinopathy",
    "dry age-related macular degeneration": "age-related macular degeneration",
    "glaucoma": "suspected glaucoma",
    "drusen": "macular epiretinal membrane，drusen",
    "hypertensive retinopathy": "laser spot，hypertensive retinopathy",
}
"""Keywords that the same picture may have: spelled otherwise, wider, suspected, or with a second one."""
SECOND_KEYWORDS_SHARE, ARTEFACT_SHARE = 0.2, 0.15
TABLE_COLUMNS = (
    "ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus", "Left-Diagnostic Keywords", "Right-Diagnostic Keywords",
    *FLAGS,
)  # fmt: skip
"""Columns of data.xlsx; full_df.csv has more."""
LEFT_OUT_EVERY = 7
"""Every seventh person is in data.xlsx alone, as 142 are of Kaggle's."""
WORKBOOK_PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/>'
    "</Relationships>",
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
    '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
    'Target="worksheets/sheet1.xml"/></Relationships>',
}
"""A workbook of one sheet, but for the sheet."""
RED, BLOOD, DARK = (0.42, 0.03, 0.02), (0.2, 0.01, 0.01), (0.3, 0.04, 0.02)
YELLOW, PALE, WHITE = (1.0, 0.92, 0.35), (1.0, 0.86, 0.6), (0.97, 0.95, 0.88)


def _sample_bezier(a: Point, b: Point, c: Point) -> list[Point]:
    t = np.linspace(0, 1, 14)[:, None]
    curve = (1 - t) ** 2 * np.array(a) + 2 * t * (1 - t) * np.array(b) + t**2 * np.array(c)
    return [(float(y), float(x)) for y, x in curve]


def _draw_vessels(rng: np.random.Generator, disc: Point, nasal_sign: float, thickness: float) -> Array:
    """Arcades from the disc around the macula and branches away from it; `nasal_sign` is the sign of the nasal side."""
    paths = []
    for up in (-1, 1):
        reach = rng.uniform(0.55, 0.75)
        main = _sample_bezier(
            disc, (disc[0] + up * reach, disc[1] - nasal_sign * 0.25), (disc[0] + up * 0.62, disc[1] - nasal_sign * 1.25)
        )
        paths.append((main, 0.045 * thickness))
        for k in (4, 7, 10):
            end = (main[k][0] + up * rng.uniform(0.25, 0.45), main[k][1] - nasal_sign * rng.uniform(-0.1, 0.3))
            paths.append(
                (_sample_bezier(main[k], (main[k][0] + up * 0.1, main[k][1] - nasal_sign * 0.15), end), 0.025 * thickness)
            )
        for bend in (0.5, 0.95):
            end = (disc[0] + up * bend * 0.7, disc[1] + nasal_sign * (1.0 - bend) * 0.7 + nasal_sign * 0.1)
            paths.append((_sample_bezier(disc, (disc[0] + up * 0.3 * bend, disc[1] + nasal_sign * 0.05), end), 0.03 * thickness))
    return primitives.draw_polylines(SHAPE, paths)


def _sample_free_points(rng: np.random.Generator, count: int, disc: Point, min_distance: float) -> list[Point]:
    """Random points of the fundus away from the optic disc and from each other."""
    points: list[Point] = []
    for _ in range(400):
        r, a = 0.8 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        p = (float(r * np.sin(a)), float(r * np.cos(a)))
        if np.hypot(p[0] - disc[0], p[1] - disc[1]) > 0.32 and all(
            np.hypot(p[0] - q[0], p[1] - q[1]) > min_distance for q in points
        ):
            points.append(p)
        if len(points) == count:
            break
    return points


def draw_fundus(diagnosis: str, eye: str, rng: np.random.Generator) -> Array:
    """Fundus of a left or right eye, 112 x 112 RGB, 0 to 1: the optic disc lies towards the nose."""
    grid = primitives.make_grid(*SHAPE)
    nasal_sign = -1.0 if eye == "left" else 1.0
    disc: Point = (float(rng.uniform(-0.08, 0.08)), nasal_sign * float(rng.uniform(0.44, 0.52)))
    macula: Point = (disc[0] + 0.06, disc[1] - nasal_sign * 0.62)
    tone = np.array([rng.uniform(0.78, 0.88), rng.uniform(0.34, 0.42), rng.uniform(0.1, 0.16)], np.float32)
    shade = 1 - 0.28 * primitives.elliptical_distance(grid, (0, 0)) ** 2 + 0.03 * primitives.smooth_noise(rng, SHAPE, 8)
    image = tone * shade[..., None]
    image = primitives.paint_colour(image, 0.45 * primitives.gaussian_bump(grid, macula, (0.13, 0.13)), DARK)
    if diagnosis == "pathological myopia":
        crescent = primitives.soft_ellipse(grid, (disc[0], disc[1] - nasal_sign * 0.16), (0.4, 0.36), edge=0.06)
        image = primitives.paint_colour(image, crescent, WHITE)
    if diagnosis == "dry age-related macular degeneration":
        edge = primitives.radius_wobble(grid, macula, rng, 0.15, (2, 3, 5, 7))
        image = primitives.paint_colour(
            image, primitives.soft_threshold(0.3 * edge - primitives.elliptical_distance(grid, macula), 0.05), PALE
        )
    has_narrow_vessels = diagnosis == "hypertensive retinopathy"
    image = primitives.paint_colour(
        image,
        0.85 * _draw_vessels(rng, disc, nasal_sign, 2.0 if has_narrow_vessels else 1.0),
        DARK if has_narrow_vessels else RED,
    )
    radius = float(rng.uniform(0.15, 0.17))
    image = primitives.paint_colour(image, primitives.soft_ellipse(grid, disc, (radius * 1.08, radius)), (1.0, 0.75, 0.4))
    cup = radius * (0.88 if diagnosis == "glaucoma" else 0.35)
    if diagnosis == "glaucoma":
        image = primitives.paint_colour(image, primitives.soft_ellipse(grid, disc, (radius * 1.5, radius * 1.4)), (1.0, 0.7, 0.3))
        cup *= 1.4
    image = primitives.paint_colour(image, primitives.soft_ellipse(grid, disc, (cup, cup), edge=0.03), WHITE)
    if diagnosis == "moderate non proliferative retinopathy":
        for spot in _sample_free_points(rng, 26, disc, 0.2):
            size = rng.uniform(0.05, 0.075)
            image = primitives.paint_colour(image, primitives.soft_ellipse(grid, spot, (size, size), edge=0.03), BLOOD)
    if diagnosis == "drusen":
        for spot in _sample_free_points(rng, 34, disc, 0.14):
            size = rng.uniform(0.045, 0.065)
            image = primitives.paint_colour(image, primitives.soft_ellipse(grid, spot, (size, size), edge=0.03), YELLOW)
    if has_narrow_vessels:
        for spot in _sample_free_points(rng, 6, disc, 0.35):
            image = primitives.paint_colour(
                image, primitives.gaussian_bump(grid, spot, (0.06, 0.09), float(rng.uniform(0, 3))), WHITE
            )
    if diagnosis == "cataract":
        image = primitives.paint_colour(image, 0.72 * (1 - 0.1 * primitives.smooth_noise(rng, SHAPE, 3)), (0.72, 0.68, 0.6))
    fundus = primitives.elliptical_distance(grid, (0, 0)) < 0.95
    surround = np.where(fundus[..., None], image, primitives.draw_black(rng, SHAPE)[..., None])
    return primitives.expose_channels(surround, EXPOSURES, rng, fundus)


def _encode_workbook(rows: list[dict[str, object]]) -> bytes:
    """An xlsx file of the rows' TABLE_COLUMNS, which holds no time: openpyxl would write that of now."""
    cells = [
        "".join(
            f"<c><v>{v}</v></c>" if isinstance(v, int) else f'<c t="inlineStr"><is><t>{escape(str(v))}</t></is></c>'
            for v in values
        )
        for values in (TABLE_COLUMNS, *([row[c] for c in TABLE_COLUMNS] for row in rows))
    ]
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        + "".join(f"<row>{c}</row>" for c in cells)
        + "</sheetData></worksheet>"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (WORKBOOK_PARTS | {"xl/worksheets/sheet1.xml": sheet}).items():
            archive.writestr(zipfile.ZipInfo(name), f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode())
    return buffer.getvalue()


def _choose_keywords(diagnosis: str, rng: np.random.Generator) -> str:
    """Keywords of an eye with this diagnosis, parted by full-width commas as the owner's are."""
    has_others, has_artefact, is_first = rng.random() < SECOND_KEYWORDS_SHARE, rng.random() < ARTEFACT_SHARE, rng.random() < 0.5
    keywords = OTHER_KEYWORDS.get(diagnosis, diagnosis) if has_others else diagnosis
    if not has_artefact:
        return keywords
    return f"lens dust，{keywords}" if is_first else f"{keywords}，low image quality"


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write `full_df.csv` (a row per eye), `data.xlsx` (a row per person) and `Training Images/N_left.jpg`, `N_right.jpg`."""
    rows: list[dict[str, object]] = []
    persons: list[dict[str, object]] = []
    truth = primitives.TruthTable()
    disease_names = [d for d in DIAGNOSIS_FLAGS if d != "normal fundus"]
    for number in range(patients):
        rng = primitives.make_generator(seed, "odir", number)
        pairing, first_diagnosis = rng.random(), str(rng.choice(disease_names))
        other_diagnosis = (
            "normal fundus" if pairing < 0.5 else (first_diagnosis if pairing < 0.75 else str(rng.choice(disease_names)))
        )
        pair = ("normal fundus", "normal fundus") if pairing > 0.9 else (first_diagnosis, other_diagnosis)
        eyes = dict(zip(("left", "right"), pair if rng.random() < 0.5 else pair[::-1], strict=True))
        raised_flags = {DIAGNOSIS_FLAGS[d] for d in eyes.values()} - {"N"} or {"N"}
        patient = {
            "ID": number, "Patient Age": int(rng.integers(30, 85)), "Patient Sex": str(rng.choice(["Female", "Male"])),
            "Left-Fundus": f"{number}_left.jpg", "Right-Fundus": f"{number}_right.jpg",
            "Left-Diagnostic Keywords": _choose_keywords(eyes["left"], rng),
            "Right-Diagnostic Keywords": _choose_keywords(eyes["right"], rng),
            **{flag: int(flag in raised_flags) for flag in FLAGS},
        }  # fmt: skip
        persons.append(patient)
        for eye, diagnosis in eyes.items():
            path = f"Training Images/{number}_{eye}.jpg"
            primitives.write_file(folder / path, primitives.encode_jpeg(draw_fundus(diagnosis, eye, rng)))
            truth.add(path, diagnosis=diagnosis)
            if number % LEFT_OUT_EVERY == LEFT_OUT_EVERY - 1:
                continue
            flag = DIAGNOSIS_FLAGS[diagnosis]
            rows.append({
                **patient, "filepath": f"../input/ocular-disease-recognition-odir5k/ODIR-5K/{path}", "labels": f"['{flag}']",
                "target": str([int(f == flag) for f in FLAGS]), "filename": f"{number}_{eye}.jpg",
            })  # fmt: skip
    primitives.write_csv(folder / "full_df.csv", rows)
    primitives.write_file(folder / "data.xlsx", _encode_workbook(persons))
    truth.write(folder)
    primitives.write_readme(
        folder, "ODIR-5K", "full_df.csv, one row an eye; data.xlsx, one row a person; photographs in Training Images."
    )
