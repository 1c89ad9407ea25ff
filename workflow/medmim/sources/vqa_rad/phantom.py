"""Synthetic VQA-RAD: head, chest and abdomen pictures with questions and answers. A held-out set: the anatomy is that of
the other sources, its sizes, brightness and noise are not."""

from pathlib import Path

import numpy as np
from PIL import Image

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array

Question = tuple[str, str, str]
"""Question, its type, its answer."""
ORGANS = ("HEAD", "CHEST", "ABD")
MODALITY_PHRASES = {"MRI": "an MRI", "CT": "a CT scan", "X-ray": "an X-ray"}
OTHER_ANSWERS = {
    "Axial": "axial plane",
    "X-ray": "Chest x-ray\t",
    "MRI": "MR",
    "CT": "CT scan",
    "Abdomen": "abdominal",
    "Left hemisphere": "left",
    "Right lung": "right-sided",
}
"""Answers as other clinicians would give them."""
OTHER_ANSWERS_SHARE = 0.3
EXPOSURE = ((0.0, 0.06), (0.1, 0.2), (0.5, 0.42), (0.85, 0.66), (1.0, 1.0))
"""Share of the pixels that are not black, and the intensity up to which they reach."""
SIDE, BLACK, BODY_PIXELS = 104, 0.015, (4200, 4700)
"""The picture's height and width, the intensity up to which it is black, and how many pixels are not: of any organ."""
FINDING_ARTICLES = {"pneumothorax": "a ", "pleural_effusion": "a "}


def _format_yes_no(is_so: bool) -> str:
    return "Yes" if is_so else "No"


def _draw_head(rng: np.random.Generator) -> tuple[Array, list[Question]]:
    shape = (144, 128)
    head = anatomy.draw_brain(rng, shape, np.array([rng.uniform(-0.15, 0.25)], np.float32))
    contrast = str(rng.choice(["T1", "CT1", "T2", "FLAIR", "CT"]))
    image, side = anatomy.render_contrast(head, contrast), str(rng.choice(["left", "right", "none"]))
    if side != "none":
        centre = (float(rng.uniform(-0.2, 0.25)), (1 if side == "left" else -1) * float(rng.uniform(0.28, 0.34)))
        reach = primitives.elliptical_distance(head.grid, centre) / primitives.radius_wobble(head.grid, centre, rng, 0.1, (2, 3))
        radius = float(rng.uniform(0.2, 0.3))
        if contrast == "CT":
            image = primitives.overlay_value(image, head.inside * primitives.soft_threshold(radius - reach[None], 0.05), 0.95)
        else:
            image = anatomy.add_tumour(image, head, contrast, reach[None], radius)
    modality = "CT" if contrast == "CT" else "MRI"
    questions = [
        ("What imaging modality is this?", "MODALITY", modality),
        ("What organ is shown?", "ORGAN", "Brain"),
        ("In which plane was this image taken?", "PLANE", "Axial"),
        ("Is there a mass in the brain?", "PRES", _format_yes_no(side != "none")),
        ("Is the brain normal?", "ABN", _format_yes_no(side == "none")),
    ]
    if modality == "MRI":
        questions.append(("Is the cerebrospinal fluid bright?", "ATTRIB", _format_yes_no(contrast == "T2")))
    if side != "none":
        questions += [
            ("Which hemisphere contains the lesion?", "POS", f"{side} hemisphere".capitalize()),
            ("Is the lesion on the patient's left side?", "POS", _format_yes_no(side == "left")),
        ]
    return image[0], questions


def _draw_chest(rng: np.random.Generator) -> tuple[Array, list[Question]]:
    shape = (160, 160)
    frame = anatomy.draw_chest(rng, shape)
    image = anatomy.render_radiograph(frame, rng)
    finding = str(rng.choice([*anatomy.FINDINGS, "none", "none"]))
    side = {"consolidation": "right", "pneumonia": "left"}.get(finding, str(rng.choice(["right", "left"])))
    if finding != "none":
        image = anatomy.add_finding(image, frame, finding, float(rng.uniform(0.6, 0.9)), side, int(rng.integers(2**31)))
    queried_finding = finding if finding != "none" and rng.random() < 0.5 else str(rng.choice(anatomy.FINDINGS))
    questions = [
        ("What imaging modality is this?", "MODALITY", "X-ray"),
        ("What part of the body is shown?", "ORGAN", "Chest"),
        (
            f"Is there {FINDING_ARTICLES.get(queried_finding, '')}{queried_finding.replace('_', ' ')}?",
            "PRES",
            _format_yes_no(finding == queried_finding),
        ),
        ("Are the lungs normal?", "ABN", _format_yes_no(finding == "none")),
        ("What abnormality is seen?", "ABN", finding.replace("_", " ").capitalize() if finding != "none" else "No abnormality"),
    ]
    if finding not in ("none", "edema"):
        questions += [
            ("Which lung is abnormal?", "POS", f"{side} lung".capitalize()),
            ("Is the right lung abnormal?", "POS", _format_yes_no(side == "right")),
        ]
    return image, questions


def _draw_abdomen(rng: np.random.Generator) -> tuple[Array, list[Question]]:
    shape = (128, 152)
    image, places = anatomy.draw_abdomen(rng, shape)
    image = image - 0.02  # black around the body
    lesion_organ = str(rng.choice(["liver", "left kidney", "right kidney", "none"]))
    if lesion_organ != "none":
        radius = float(rng.uniform(0.14, 0.18))
        image = primitives.overlay_value(
            image, primitives.soft_ellipse(primitives.make_grid(*shape), places[lesion_organ], (radius, radius)), 0.1
        )
    questions = [
        ("What imaging modality is this?", "MODALITY", "CT"),
        ("What part of the body is shown?", "ORGAN", "Abdomen"),
        ("In which plane was this image taken?", "PLANE", "Axial"),
        ("Is there a lesion in the liver?", "PRES", _format_yes_no(lesion_organ == "liver")),
        ("Is there a mass in a kidney?", "PRES", _format_yes_no("kidney" in lesion_organ)),
    ]
    if lesion_organ != "none":
        questions.append(("Which organ contains the lesion?", "POS", lesion_organ.capitalize()))
    return image, questions


def _frame_picture(image: Array, rng: np.random.Generator) -> Array:
    """Set a body in black, so that neither the picture's size nor its brightness tells which organ it is."""
    rows, columns = (np.flatnonzero((image > BLACK).any(axis)) for axis in (1, 0))
    body = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = np.sqrt(rng.uniform(*BODY_PIXELS) / (body > BLACK).sum())
    size = (round(body.shape[1] * scale), round(body.shape[0] * scale))
    resized = np.asarray(Image.fromarray(body.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    inside = resized > BLACK
    top, left = int(rng.integers(SIDE - size[1] + 1)), int(rng.integers(SIDE - size[0] + 1))
    framed = primitives.draw_black(rng, (SIDE, SIDE))
    window = framed[top : top + size[1], left : left + size[0]]
    window[inside] = primitives.expose(resized, EXPOSURE, rng, inside)[inside]
    return framed


DRAW_FUNCTIONS = {"HEAD": _draw_head, "CHEST": _draw_chest, "ABD": _draw_abdomen}


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write the questions and `VQA_RAD Image Folder/synpicN.jpg`, one picture a patient."""
    records: list[dict[str, object]] = []
    truth = primitives.TruthTable()
    for number in range(patients):
        rng = primitives.make_generator(seed, "vqa_rad", number)
        organ = ORGANS[number % len(ORGANS)]
        image, questions = DRAW_FUNCTIONS[organ](rng)
        modality = next(answer for question, kind, answer in questions if kind == "MODALITY")
        for other_modality in rng.choice(sorted(MODALITY_PHRASES), 2, replace=False):
            questions.append(
                (f"Is this {MODALITY_PHRASES[other_modality]}?", "MODALITY", _format_yes_no(other_modality == modality))
            )
        name = f"synpic{10_000 + number}.jpg"
        primitives.write_file(folder / "VQA_RAD Image Folder" / name, primitives.encode_jpeg(_frame_picture(image, rng)))
        truth.add(f"VQA_RAD Image Folder/{name}", organ=organ)
        for n, (question, kind, answer) in enumerate(questions):
            written_answer = OTHER_ANSWERS.get(answer, answer) if rng.random() < OTHER_ANSWERS_SHARE else answer
            blank = " " if rng.random() < OTHER_ANSWERS_SHARE else ""
            records.append({
                "qid": number * 20 + n, "phrase_type": "freeform", "qid_linked_id": f"phantom-{number:04d}-{n}",
                "image_case_url": f"https://phantom.invalid/cases/{number}", "image_name": name, "image_organ": organ,
                "evaluation": "not evaluated", "question": question, "question_type": kind, "answer": written_answer,
                "answer_type": f"CLOSED{blank}" if answer in ("Yes", "No") else "OPEN",
            })  # fmt: skip
    primitives.write_json(folder / "VQA_RAD Dataset Public.json", records)
    truth.write(folder)
    primitives.write_readme(folder, "VQA-RAD", "Questions beside the folder of pictures.")
