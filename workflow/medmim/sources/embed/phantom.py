"""Synthetic EMBED: mammograms as DICOM with the metadata and clinical tables.

An assessment is seen by the shape of its sign, of which a part (SIGNS) is shown by one of the two views alone.

Each breast follows one course over its yearly visits, of outcomes (A: recalled, and then negative). As with the owner,
screening ends in N or B, or in A, and the outcome of an A is that of a diagnostic exam weeks later, of this breast alone; a
breast whose outcome was P, S, M or K is seen in diagnostic exams from then on. Two consecutive yearly exams determine
whether the outcome is worse at the next.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medmim.sources.phantom_drawing import primitives
from medmim.sources.phantom_drawing.primitives import Array, Point

SHAPE = (112, 88)
EXPOSURE = ((0.0, 0.06), (0.08, 0.14), (0.55, 0.3), (0.62, 0.46), (0.74, 0.56), (0.78, 0.8), (1.0, 1.0))
"""Share of the breast's pixels, and the intensity up to which they reach: fat, gland, muscle, and all that shines."""
BODY_SHARES, MUSCLE_SHARES, BRIGHT_SHARE = (0.46, 0.56), (0.06, 0.08), 0.1
"""Of the picture: the breast, the pectoral muscle, and all that shines, signs and ducts together."""
CHEST_WALL_X = -SHAPE[1] / SHAPE[0]
"""x of the chest wall, the left edge."""
MAMMOGRAPHY_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.1.2"
"""SOP class Digital Mammography X-Ray Image Storage - For Presentation."""
COURSES = ("NNNN", "ANNN", "BBBB", "PPPP", "APSM", "NPSM", "PSMK", "SMKK", "MKKK")
COURSE_WEIGHTS = (0.15, 0.15, 0.14, 0.08, 0.14, 0.12, 0.12, 0.05, 0.05)
FOLLOWED = "PSMK"
"""Outcomes after which a breast is seen in diagnostic exams."""
POSITIONS = ("CC", "MLO")
SIDE_NAMES = {"L": "Left", "R": "Right"}
SIGNS = {
    "N": ("", ""),
    "A": ("distortion", ""),
    "B": ("", "calcifications"),
    "P": ("", "round mass"),
    "S": ("distortion", "core"),
    "M": ("irregular mass", ""),
    "K": ("irregular mass", "clip"),
}
"""What an assessment rests on: a sign that both views of the breast show, and one that only one of them does."""
PATH_SEVERITY = {"S": 1.0, "M": 0.0, "K": 0.0}
"""path_severity where a biopsy followed: 0 invasive cancer, 1 non-invasive cancer."""


@dataclass(frozen=True)
class Machine:
    """How one mammography unit stores its pixels."""

    model: str
    photometric: str
    bits: int
    slope: float | None = None
    intercept: float = 0.0
    tomosynthesis: bool = False


MACHINES = (
    Machine("PHANTOM-12", "MONOCHROME2", 12),
    Machine("PHANTOM-INVERSE", "MONOCHROME1", 12),
    Machine("PHANTOM-RESCALE", "MONOCHROME2", 12, 2.0, -100.0),
    Machine("PHANTOM-14", "MONOCHROME2", 14, tomosynthesis=True),
)


@dataclass(frozen=True)
class Breast:
    """What stays the same in one breast over the visits."""

    seed: int
    depth: float
    height: float
    density: float
    lesion: dict[str, tuple[float, float]]
    """Centre (y, x) of the lesion in each view; the breast is drawn with the chest wall at the left edge."""


def _make_breast(rng: np.random.Generator) -> Breast:
    across = rng.uniform(0.44, 0.58)
    depth = rng.uniform(1.1, 1.32)
    cc = (rng.uniform(-0.16, 0.16), CHEST_WALL_X + depth * across)
    mlo = (rng.uniform(0.1, 0.32), CHEST_WALL_X + depth * across)
    height, density = rng.uniform(0.68, 0.8), rng.uniform(0.05, 0.13)
    return Breast(int(rng.integers(2**31)), depth, height, density, {"CC": cc, "MLO": mlo})


def _draw_sign(letter: str, centre: Point, has_mark: bool, rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Masks of what shines and of what is dark in the sign of one assessment, and the radius that it takes up."""
    grid = primitives.make_grid(*SHAPE)
    bright: Array = np.zeros(SHAPE, np.float32)
    dark: Array = np.zeros(SHAPE, np.float32)
    radius = 0.0
    sign, mark = SIGNS[letter]
    if sign == "distortion":
        angles = np.arange(9) * (2 * np.pi / 9) + rng.uniform(0, 2 * np.pi) + rng.uniform(-0.15, 0.15, 9)
        lengths = rng.uniform(0.36, 0.46, 9)
        tips = [(centre[0] + r * np.sin(a), centre[1] + r * np.cos(a)) for a, r in zip(angles, lengths, strict=True)]
        bright, radius = primitives.draw_polylines(SHAPE, [([centre, tip], 0.05) for tip in tips]), 0.46
    elif sign == "irregular mass":
        size = rng.uniform(0.26, 0.3)
        edge = primitives.radius_wobble(grid, centre, rng, 0.25, (2, 3, 5, 8))
        bright = primitives.soft_threshold((edge - primitives.elliptical_distance(grid, centre, (size, size))) * size, 0.04)
        radius = 0.4
    if not has_mark:
        return bright, dark, radius
    if mark == "core":
        bright = np.maximum(bright, primitives.soft_ellipse(grid, centre, (0.18, 0.18)))
    elif mark == "clip":
        dark = primitives.soft_ellipse(grid, centre, (0.12, 0.2))
        bar = primitives.soft_ellipse(grid, centre, (0.045, 0.13))
        bright, dark = np.maximum(bright * (1 - dark), bar), dark * (1 - bar)
    elif mark == "round mass":
        size = rng.uniform(0.17, 0.2)
        bright, radius = primitives.soft_ellipse(grid, centre, (size, size)), 0.3
    elif mark == "calcifications":
        turn = rng.uniform(0, 2 * np.pi)
        for k in range(11):  # scattered evenly over the gland
            away, angle = 0.38 * np.sqrt((k + rng.uniform(0.2, 0.8)) / 11), turn + 2.4 * k
            spot = (centre[0] + away * np.sin(angle), centre[1] + away * np.cos(angle))
            bright = np.maximum(bright, primitives.soft_ellipse(grid, spot, (0.055, 0.055)))
        radius = 0.45
    return bright, dark, radius


def _list_ducts(rng: np.random.Generator, nipple: Point, height: float, depth: float) -> list[tuple[list[Point], float]]:
    """Ducts from the nipple into the breast, in an order by which any number of them is spread."""
    ducts: list[tuple[list[Point], float]] = []
    for across in rng.permutation(np.linspace(-0.95, 0.95, 26)):
        y, x = nipple
        bend, reach = rng.uniform(-0.12, 0.12), rng.uniform(0.75, 0.98) * depth
        middle = (y + 0.7 * across * height + bend, x - 0.45 * reach)
        start = (y + 0.3 * across * height, x - 0.15 * depth)
        ducts.append(([start, middle, (y + across * height, x - reach)], 0.036))
    return ducts


@dataclass(frozen=True)
class View:
    """One picture of a visit: side L or R, position CC or MLO, kind as in FinalImageType."""

    side: str
    position: str
    kind: str
    image: Array
    is_spot: bool = False


def draw_mammogram(
    breast: Breast, view: str, laterality: str, letter: str, rng: np.random.Generator, *, has_mark: bool = True
) -> Array:
    """One view (CC or MLO) of a breast, 112 x 88, intensities 0 to 1.

    `has_mark`: it shows, if the assessment has one, also the sign that only one view shows. How much shines, and how bright
    the breast is, does not depend on assessment or view.
    """
    grid = primitives.make_grid(*SHAPE)
    y, x = grid
    gland_rng = np.random.default_rng([breast.seed, len(view)])  # the gland's pattern stays over the years
    drift = rng.uniform(-0.03, 0.03, 2)
    mlo = view == "MLO"
    middle = (0.2 if mlo else 0.0) + drift[0]
    half_height = np.where(y < middle, breast.height * (1.25 if mlo else 1.0), breast.height * (0.9 if mlo else 1.0))
    reach = np.abs((y - middle) / half_height) ** 2.2 + (np.maximum(x - CHEST_WALL_X, 0) / breast.depth) ** 2.0
    level = np.quantile(reach, rng.uniform(*BODY_SHARES))  # compression differs, and with it how much of the picture is breast
    reach, size = (reach / level).astype(np.float32), float(np.sqrt(level))
    height, depth = breast.height * size, breast.depth * size
    nipple = (middle, CHEST_WALL_X + depth)
    body = np.maximum(primitives.soft_threshold(1 - reach, 0.12), primitives.soft_ellipse(grid, nipple, (0.05, 0.06)))
    inside = body > 0.5
    gland = primitives.gaussian_bump(grid, (middle, CHEST_WALL_X + 0.48 * depth), (0.4, 0.4))
    strands = np.abs(primitives.smooth_noise(gland_rng, SHAPE, 11)) + 0.7 * np.abs(
        primitives.smooth_noise(gland_rng, SHAPE, 20)
    )  # ridges between lobules
    image = 0.2 + gland * (breast.density + 0.09 * (0.7 - strands)) + 0.05 * primitives.soft_threshold(reach - 0.93, 0.05)
    if mlo:
        wall = 1.0 - (y + 1) / 1.15 - (x - CHEST_WALL_X) / 0.72 + 0.05 * np.sin(2.2 * (y + 1))
    else:  # a crescent in the middle of the chest wall instead of a wedge at its top
        wall = -primitives.elliptical_distance(grid, (middle + gland_rng.uniform(-0.05, 0.2), CHEST_WALL_X), (0.4, 0.3))
    muscle_pixels = int(rng.uniform(*MUSCLE_SHARES) * image.size)
    wall_edge = -np.partition(-wall[inside], muscle_pixels)[muscle_pixels]
    muscle = primitives.soft_threshold(wall - wall_edge, 0.06)
    image = primitives.overlay_value(image, muscle, 0.6)
    cy, cx = breast.lesion[view]
    centre = (cy + drift[0], CHEST_WALL_X + (cx - CHEST_WALL_X) * size + drift[1])
    bright, dark, radius = _draw_sign(letter, centre, has_mark, rng)
    image = primitives.overlay_value(image, dark, 0.15)
    free = inside & (reach < 0.85) & (muscle < 0.5) & (primitives.elliptical_distance(grid, centre) > radius)
    order = primitives.order_strands(SHAPE, _list_ducts(gland_rng, nipple, height, depth))
    ducts = primitives.take_strands(order, free & (order < order.max()), int(BRIGHT_SHARE * image.size - bright.sum()))
    image = primitives.overlay_value(image, np.maximum(bright, ducts), 0.9)
    image = np.where(inside, primitives.expose(image, EXPOSURE, rng, inside), 0.05 * body)
    return image if laterality == "L" else image[:, ::-1]


def make_dicom(image: Array, machine: Machine, **tags: object) -> FileDataset:
    """DICOM data set of intensities 0 to 1 as this machine stores them; the window spans exactly the intensities."""
    top = float(2**machine.bits - 1)
    low, high = 0.02 * top, 0.98 * top  # values after rescaling for intensity 0 and 1
    if machine.slope is not None:
        high = 2 * high + machine.intercept  # slope 2: the stored numbers still fill the bits
    value = low + np.clip(image, 0, 1) * (high - low)
    if machine.photometric == "MONOCHROME1":
        value = low + high - value
    stored = (value - machine.intercept) / (machine.slope or 1.0)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MAMMOGRAPHY_SOP_CLASS
    meta.MediaStorageSOPInstanceUID = tags["SOPInstanceUID"]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = "2.25.1"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    fixed = {
        "SOPClassUID": MAMMOGRAPHY_SOP_CLASS, "ImageType": ["DERIVED", "PRIMARY"],
        "Modality": "MG", "Manufacturer": "Med-MIM phantom",
        "ManufacturerModelName": machine.model, "PatientName": "SYNTHETIC^PHANTOM", "ImageComments": primitives.SYNTHETIC,
        "BodyPartExamined": "BREAST", "BurnedInAnnotation": "NO", "PresentationIntentType": "FOR PRESENTATION",
        "SamplesPerPixel": 1, "PhotometricInterpretation": machine.photometric, "Rows": image.shape[0],
        "Columns": image.shape[1], "BitsAllocated": 16, "BitsStored": machine.bits, "HighBit": machine.bits - 1,
        "PixelRepresentation": 0, "WindowCenter": f"{(low + high) / 2:.1f}", "WindowWidth": f"{high - low:.1f}",
        "PixelData": np.clip(stored + 0.5, 0, top).astype("<u2").tobytes(),
    }  # fmt: skip
    if machine.slope is not None:
        fixed |= {"RescaleSlope": machine.slope, "RescaleIntercept": machine.intercept, "RescaleType": "US"}
    for name, content in sorted({**fixed, **tags}.items()):
        setattr(ds, name, content)
    ds["PixelData"].VR = "OW"
    return ds


@dataclass(frozen=True)
class Exam:
    """One exam: its description, its day after the yearly visit's, and the assessment of each breast that it shows."""

    description: str
    delay: int
    letters: dict[str, str]


def plan_exams(courses: dict[str, str], visit: int, delay: int) -> list[Exam]:
    """The exams of a yearly visit: that of both breasts and, `delay` days later, the diagnostic one of those recalled."""
    outcomes = {side: course[visit] for side, course in courses.items()}
    recalled_sides = [
        side
        for side, outcome in outcomes.items()
        if outcome == "A" or (outcome in FOLLOWED and (visit == 0 or courses[side][visit - 1] not in FOLLOWED))
    ]
    letters = {side: "A" if side in recalled_sides else outcome for side, outcome in outcomes.items()}
    is_diagnostic = any(letter in FOLLOWED for letter in letters.values())
    exams = [Exam(f"MG {'Diagnostic' if is_diagnostic else 'Screening'} Bilateral", 0, letters)]
    if recalled_sides:
        name = "Bilateral" if len(recalled_sides) == 2 else SIDE_NAMES[recalled_sides[0]]
        final_letters = {side: "N" if outcomes[side] == "A" else outcomes[side] for side in recalled_sides}
        exams.append(Exam(f"MG Diagnostic {name}", delay, final_letters))
    return exams


def sample_course(rng: np.random.Generator) -> dict[str, str]:
    """Assessments of each breast of a patient, one letter a yearly visit, one to four visits."""
    visits = int(rng.choice([1, 2, 3, 4], p=[0.1, 0.2, 0.4, 0.3]))
    return {side: COURSES[rng.choice(len(COURSES), p=COURSE_WEIGHTS)][:visits] for side in "LR"}


def _write_visit(folder: Path, person: dict[str, str], views: list[View], machine: Machine) -> list[dict[str, object]]:
    """Write the DICOM files of one visit; returns their rows of the metadata table, anon_dicom_path below `folder`."""
    key = ("embed", person["seed"], person["empi_anon"], person["acc_anon"])
    study, day = generate_uid(entropy_srcs=[*key]), person["study_date_anon"]
    rows: list[dict[str, object]] = []
    for view in views:
        name = f"{view.side} {view.position}{'' if view.kind == '2D' else ' ' + view.kind}{' spot' if view.is_spot else ''}"
        series, sop = (generate_uid(entropy_srcs=[*key, name, what]) for what in ("series", "image"))
        path = f"cohort_1/{person['empi_anon']}/{study}/{series}/{sop}.dcm"
        ds = make_dicom(
            view.image, machine, PatientID=person["empi_anon"], AccessionNumber=person["acc_anon"], StudyInstanceUID=study,
            SeriesInstanceUID=series, SOPInstanceUID=sop, StudyDate=day.replace("-", ""), ImageLaterality=view.side,
            ViewPosition=view.position, PatientSex="F", SeriesDescription=name,
        )  # fmt: skip
        dicom_path = folder / path
        dicom_path.parent.mkdir(parents=True)
        pydicom.dcmwrite(dicom_path, ds, enforce_file_format=True)
        rows.append({
            "empi_anon": person["empi_anon"], "acc_anon": person["acc_anon"],
            "study_date_anon": day if len(rows) % 2 else f"{day} 00:00:00",
            "StudyDescription": person["desc"], "SeriesDescription": name, "FinalImageType": view.kind,
            "ImageLateralityFinal": view.side, "ViewPosition": view.position, "spot_mag": float(view.is_spot), "num_roi": 0,
            "Manufacturer": "Med-MIM phantom", "ManufacturerModelName": machine.model,
            "PhotometricInterpretation": machine.photometric, "anon_dicom_path": path,
        })  # fmt: skip
    return rows


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write `images/cohort_1/...` and the tables."""
    metadata: list[dict[str, object]] = []
    clinical: list[dict[str, object]] = []
    truth = primitives.TruthTable()
    for number in range(patients):
        rng = primitives.make_generator(seed, "embed", number)
        patient = f"{1000 + number}{rng.integers(10**4):04d}"
        letters_by_side = sample_course(rng)
        breasts = {side: _make_breast(rng) for side in "LR"}
        machine = MACHINES[rng.integers(len(MACHINES))]
        bilateral = str(rng.choice(["B", ""]))  # how the owner marks a finding of both breasts
        day, age = date(2013, 1, 1) + timedelta(int(rng.integers(700))), int(rng.integers(40, 78))
        for visit in range(len(letters_by_side["L"])):
            for exam in plan_exams(letters_by_side, visit, int(rng.integers(14, 43))):
                exam_day = day + timedelta(exam.delay)
                person = {
                    "seed": str(seed), "empi_anon": patient, "desc": exam.description, "study_date_anon": exam_day.isoformat(),
                    "acc_anon": f"{1000 + number}{visit + 1}{int(exam.delay > 0)}{rng.integers(10**8):08d}",
                }  # fmt: skip
                marked_views = {side: POSITIONS[rng.integers(2)] for side in exam.letters}
                views = [
                    View(
                        side,
                        position,
                        "2D",
                        draw_mammogram(breasts[side], position, side, letter, rng, has_mark=position == marked_views[side]),
                    )
                    for side, letter in exam.letters.items()
                    for position in POSITIONS
                ]
                if machine.tomosynthesis:  # it adds a 2D image made from slices, which no question may use
                    views.append(replace(views[0], kind="cview"))
                if exam.delay and visit == 0:
                    views.append(replace(views[0], is_spot=True))
                for row in _write_visit(folder / "images", person, views, machine):
                    side = str(row["ImageLateralityFinal"])
                    sign, mark = SIGNS[exam.letters[side]]
                    shown_mark = mark if row["ViewPosition"] == marked_views[side] else ""
                    truth.add(f"images/{row['anon_dicom_path']}", sign=sign or "none", mark=shown_mark or "none")
                    path = f"/synthetic/images/{row['anon_dicom_path']}"
                    metadata.append({"": len(metadata), **row, "anon_dicom_path": path})
                sides = {bilateral: "N"} if set(exam.letters.items()) == {("L", "N"), ("R", "N")} else exam.letters
                assessments = [*sides.items(), *([("", "X")] if rng.random() < 0.05 else [])]
                for n, (side, letter) in enumerate(assessments, 1):
                    clinical.append({
                        "empi_anon": f"{patient}.0", "acc_anon": f"{person['acc_anon']}.0",
                        "study_date_anon": person["study_date_anon"], "desc": exam.description, "numfind": n, "side": side,
                        "asses": letter, "path_severity": PATH_SEVERITY.get(letter), "age_at_study": age + visit,
                        "GENDER_DESC": "Female",
                    })  # fmt: skip
            day += timedelta(365 + int(rng.integers(-20, 21)))
    for name, rows in (("metadata", metadata), ("clinical", clinical)):  # the owner ships each table whole and reduced
        primitives.write_csv(folder / "tables" / f"EMBED_OpenData_{name}.csv", [{**row, "first_3_zip": None} for row in rows])
        primitives.write_csv(folder / "tables" / f"EMBED_OpenData_{name}_reduced.csv", rows)
    truth.write(folder)
    primitives.write_readme(folder, "the EMBED open data", "DICOM files below images/cohort_1, tables in tables/.")
