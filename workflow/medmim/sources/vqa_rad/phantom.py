"""Synthetic VQA-RAD: head, chest and abdomen pictures with questions and answers. A held-out set: the anatomy is that of
the other sources, its sizes, brightness and noise are not."""

from pathlib import Path

import numpy as np

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array

Ask = tuple[str, str, str]
"""Question, its type, its answer."""
ORGANS = ("HEAD", "CHEST", "ABD")
MODALITIES = {"MRI": "an MRI", "CT": "a CT scan", "X-ray": "an X-ray"}
ARTICLE = {"pneumothorax": "a ", "pleural_effusion": "a "}


def _yes(is_so: bool) -> str:
    return "Yes" if is_so else "No"


def _head(rng: np.random.Generator) -> tuple[Array, list[Ask]]:
    shape = (144, 128)
    head = anatomy.brain(rng, shape, np.array([rng.uniform(-0.15, 0.25)], np.float32))
    contrast = str(rng.choice(["T1", "CT1", "T2", "FLAIR", "CT"]))
    image, side = anatomy.weigh(head, contrast), str(rng.choice(["left", "right", "none"]))
    if side != "none":
        centre = (float(rng.uniform(-0.2, 0.25)), (1 if side == "left" else -1) * float(rng.uniform(0.28, 0.34)))
        reach = primitives.distance(head.at, centre) / primitives.wobble(head.at, centre, rng, 0.1, (2, 3))
        radius = float(rng.uniform(0.2, 0.3))
        if contrast == "CT":
            image = primitives.over(image, head.inside * primitives.ramp(radius - reach[None], 0.05), 0.95)
        else:
            image = anatomy.tumour(image, head, contrast, reach[None], radius)
    modality = "CT" if contrast == "CT" else "MRI"
    asked = [
        ("What imaging modality is this?", "MODALITY", modality),
        ("What organ is shown?", "ORGAN", "Brain"),
        ("In which plane was this image taken?", "PLANE", "Axial"),
        ("Is there a mass in the brain?", "PRES", _yes(side != "none")),
        ("Is the brain normal?", "ABN", _yes(side == "none")),
    ]
    if modality == "MRI":
        asked.append(("Is the cerebrospinal fluid bright?", "ATTRIB", _yes(contrast == "T2")))
    if side != "none":
        asked += [
            ("Which hemisphere contains the lesion?", "POS", f"{side} hemisphere".capitalize()),
            ("Is the lesion on the patient's left side?", "POS", _yes(side == "left")),
        ]
    return image[0], asked


def _chest(rng: np.random.Generator) -> tuple[Array, list[Ask]]:
    shape = (160, 160)
    frame = anatomy.chest(rng, shape)
    image = anatomy.radiograph(frame, rng)
    finding = str(rng.choice([*anatomy.FINDINGS, "none", "none"]))
    side = {"consolidation": "right", "pneumonia": "left"}.get(finding, str(rng.choice(["right", "left"])))
    if finding != "none":
        image = anatomy.afflict(image, frame, finding, float(rng.uniform(0.6, 0.9)), side, int(rng.integers(2**31)))
    sought = finding if finding != "none" and rng.random() < 0.5 else str(rng.choice(anatomy.FINDINGS))
    asked = [
        ("What imaging modality is this?", "MODALITY", "X-ray"),
        ("What part of the body is shown?", "ORGAN", "Chest"),
        (f"Is there {ARTICLE.get(sought, '')}{sought.replace('_', ' ')}?", "PRES", _yes(finding == sought)),
        ("Are the lungs normal?", "ABN", _yes(finding == "none")),
        ("What abnormality is seen?", "ABN", finding.replace("_", " ").capitalize() if finding != "none" else "No abnormality"),
    ]
    if finding not in ("none", "edema"):
        asked += [
            ("Which lung is abnormal?", "POS", f"{side} lung".capitalize()),
            ("Is the right lung abnormal?", "POS", _yes(side == "right")),
        ]
    return image, asked


def _abdomen(rng: np.random.Generator) -> tuple[Array, list[Ask]]:
    shape = (128, 152)
    image, places = anatomy.abdomen(rng, shape)
    where = str(rng.choice(["liver", "left kidney", "right kidney", "none"]))
    if where != "none":
        radius = float(rng.uniform(0.14, 0.18))
        image = primitives.over(image, primitives.disc(primitives.grid(*shape), places[where], (radius, radius)), 0.1)
    asked = [
        ("What imaging modality is this?", "MODALITY", "CT"),
        ("What part of the body is shown?", "ORGAN", "Abdomen"),
        ("In which plane was this image taken?", "PLANE", "Axial"),
        ("Is there a lesion in the liver?", "PRES", _yes(where == "liver")),
        ("Is there a mass in a kidney?", "PRES", _yes("kidney" in where)),
    ]
    if where != "none":
        asked.append(("Which organ contains the lesion?", "POS", where.capitalize()))
    return image, asked


DRAWN = {"HEAD": _head, "CHEST": _chest, "ABD": _abdomen}


def write(folder: Path, *, patients: int, seed: int) -> None:
    """Write the questions and `VQA_RAD Image Folder/synpicN.jpg`, one picture a patient."""
    records: list[dict[str, object]] = []
    truth = primitives.Truth()
    for number in range(patients):
        rng = primitives.generator(seed, "vqa_rad", number)
        organ = ORGANS[number % len(ORGANS)]
        image, asked = DRAWN[organ](rng)
        modality = next(answer for question, kind, answer in asked if kind == "MODALITY")
        for other in rng.choice(sorted(MODALITIES), 2, replace=False):
            asked.append((f"Is this {MODALITIES[other]}?", "MODALITY", _yes(other == modality)))
        name = f"synpic{10_000 + number}.jpg"
        image = image * rng.uniform(0.85, 1.0) + rng.uniform(0, 0.05) + 0.01 * primitives.texture(rng, image.shape, 60)
        primitives.put(folder / "VQA_RAD Image Folder" / name, primitives.jpeg(image))
        truth.add(f"VQA_RAD Image Folder/{name}", organ=organ)
        for n, (question, kind, answer) in enumerate(asked):
            records.append({
                "qid": number * 20 + n, "phrase_type": "freeform", "qid_linked_id": f"phantom-{number:04d}-{n}",
                "image_case_url": f"https://phantom.invalid/cases/{number}", "image_name": name, "image_organ": organ,
                "evaluation": "not evaluated", "question": question, "question_type": kind, "answer": answer,
                "answer_type": "CLOSED" if answer in ("Yes", "No") else "OPEN",
            })  # fmt: skip
    primitives.put_json(folder / "VQA_RAD Dataset Public.json", records)
    truth.write(folder)
    primitives.put_readme(folder, "VQA-RAD", "Questions beside the folder of pictures.")
