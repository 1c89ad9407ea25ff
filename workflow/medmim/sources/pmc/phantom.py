"""Synthetic PMC-15M subset: figures of five domains in tars, with LLaVA-Med's instruct JSON and list of URLs."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np

from medmim.sources.phantom_drawing import anatomy, primitives
from medmim.sources.phantom_drawing.primitives import Array

SHAPE = (128, 128)
DOMAINS = ("chest_xray", "mri", "histology", "gross", "ct_scan")
COUNT_ANSWERS = ("One lesion is visible.", "Two lesions are visible.", "Three lesions are visible.")
QUESTIONS = {
    "modality": ("What type of image is shown in the figure?", "Which imaging technique was used here?"),
    "finding": ("What abnormality is visible in the chest?", "What is the main finding of this radiograph?"),
    "lung": ("Which lung is affected?", "On which side is the abnormality?"),
    "hemisphere": ("Which hemisphere contains the lesion?", "On which side of the brain is the lesion?"),
    "size": ("How large is the abnormality?", "Is the abnormality small or large?"),
    "count": ("How many lesions are visible?", "What is the number of lesions in the figure?"),
    "density": ("Are the lesions dark or bright?", "How do the lesions appear compared with the surrounding tissue?"),
    "colour": ("What is the main colour of the tissue?", "Which colour does the tissue have?"),
    "cells": ("Are there few or many cells in the field?", "How dense are the cells?"),
}
SEVERAL_EVERY = 10
SEVERAL_TURN = ("What has changed between the baseline and follow-up images?", "The follow-up image shows a smaller abnormality.")
"""Every tenth conversation speaks of images that it does not show, as some of the owner's do."""
MODALITY_PHRASES = {
    "chest_xray": "a chest X-ray",
    "mri": "a brain MRI",
    "histology": "a histology section",
    "gross": "a gross specimen photograph",
    "ct_scan": "an abdominal CT scan",
}
STAIN_COLOURS = {
    "purple": ((0.93, 0.72, 0.85), (0.36, 0.12, 0.5)),
    "brown": ((0.9, 0.85, 0.8), (0.45, 0.25, 0.08)),
    "blue": ((0.85, 0.88, 0.95), (0.1, 0.15, 0.55)),
}
"""Ground and nuclei of a histology section by its main colour."""
TISSUE_COLOURS = {"red": (0.62, 0.1, 0.1), "brown": (0.42, 0.22, 0.1), "yellow": (0.88, 0.72, 0.28)}


def _grey_to_rgb(image: Array) -> Array:
    return np.repeat(image[..., None], 3, 2)


def _draw_chest(rng: np.random.Generator) -> tuple[Array, dict[str, str]]:
    finding = str(rng.choice(anatomy.FINDINGS))
    side = {"consolidation": "right", "pneumonia": "left"}.get(finding, str(rng.choice(["right", "left"])))
    size = str(rng.choice(["small", "large"]))
    frame = anatomy.draw_chest(rng, SHAPE)
    image = anatomy.render_radiograph(frame, rng)
    image = anatomy.add_finding(image, frame, finding, {"small": 0.4, "large": 1.0}[size], side, int(rng.integers(2**31)))
    facts = {"finding": f"The image shows {finding.replace('_', ' ')}.", "size": f"The abnormality is {size}."}
    if finding != "edema":
        facts["lung"] = f"The {side} lung is affected."
    return image, facts


def _draw_mri(rng: np.random.Generator) -> tuple[Array, dict[str, str]]:
    side, size = str(rng.choice(["right", "left"])), str(rng.choice(["small", "large"]))
    head = anatomy.draw_brain(rng, SHAPE, np.zeros(1, np.float32))
    contrast = str(rng.choice(["CT1", "FLAIR"]))
    centre = (float(rng.uniform(-0.25, 0.28)), (1 if side == "left" else -1) * float(rng.uniform(0.28, 0.34)))
    reach = primitives.elliptical_distance(head.grid, centre) / primitives.radius_wobble(head.grid, centre, rng, 0.14, (2, 3, 5))
    image = anatomy.add_tumour(
        anatomy.render_contrast(head, contrast), head, contrast, reach[None], 0.17 if size == "small" else 0.34
    )
    facts = {"hemisphere": f"The lesion is in the {side} hemisphere.", "size": f"The abnormality is {size}."}
    return image[0] + 0.015 * primitives.smooth_noise(rng, SHAPE, 40), facts


def _draw_ct(rng: np.random.Generator) -> tuple[Array, dict[str, str]]:
    count, density = int(rng.integers(1, 4)), str(rng.choice(["dark", "bright"]))
    image, places = anatomy.draw_abdomen(rng, SHAPE)
    (y, x), turn = places["liver"], rng.uniform(0, 2 * np.pi)
    for k in range(count):
        away = 0.0 if count == 1 else 0.2
        spot = (y + away * np.sin(turn + 2 * np.pi * k / count), x + away * np.cos(turn + 2 * np.pi * k / count))
        image = primitives.overlay_value(
            image, primitives.soft_ellipse(primitives.make_grid(*SHAPE), spot, (0.11, 0.11)), 0.15 if density == "dark" else 1.0
        )
    facts = {"count": COUNT_ANSWERS[count - 1], "density": f"The lesions are {density}."}
    return image, facts


def _draw_histology(rng: np.random.Generator) -> tuple[Array, dict[str, str]]:
    colour, cells = str(rng.choice(sorted(STAIN_COLOURS))), str(rng.choice(["few", "many"]))
    ground, nucleus = STAIN_COLOURS[colour]
    grid = primitives.make_grid(*SHAPE)
    shade = 1 + 0.06 * primitives.smooth_noise(rng, SHAPE, 10) - 0.1 * np.abs(primitives.smooth_noise(rng, SHAPE, 5))
    image: Array = np.asarray(ground, np.float32) * shade[..., None]
    side = 4 if cells == "few" else 9
    step = 2 / side
    for i in range(side):
        for j in range(side):
            spot = (-1 + (i + rng.uniform(0.3, 0.7)) * step, -1 + (j + rng.uniform(0.3, 0.7)) * step)
            radii = (float(rng.uniform(0.06, 0.085)), float(rng.uniform(0.05, 0.07)))
            image = primitives.paint_colour(image, primitives.soft_ellipse(grid, spot, radii, float(rng.uniform(0, 3))), nucleus)
    return image, {"colour": f"The tissue is mainly {colour}.", "cells": f"There are {cells} cells in the field."}


def _draw_gross(rng: np.random.Generator) -> tuple[Array, dict[str, str]]:
    colour, count = str(rng.choice(sorted(TISSUE_COLOURS))), int(rng.integers(1, 4))
    grid = primitives.make_grid(*SHAPE)
    image = np.full((*SHAPE, 3), (0.25, 0.45, 0.6), np.float32) * (1 + 0.03 * primitives.smooth_noise(rng, SHAPE, 30))[..., None]
    edge = primitives.radius_wobble(grid, (-0.1, 0), rng, 0.12, (2, 3, 4))
    reach = primitives.elliptical_distance(grid, (-0.1, 0), (0.62, 0.78)) / edge
    flesh = (
        np.asarray(TISSUE_COLOURS[colour], np.float32)
        * (1.1 - 0.25 * reach + 0.06 * primitives.smooth_noise(rng, SHAPE, 14))[..., None]
    )
    image = image + primitives.soft_threshold(1 - reach, 0.05)[..., None] * (flesh - image)
    turn = rng.uniform(0, 2 * np.pi)
    for k in range(count):
        away = 0.0 if count == 1 else 0.32
        spot = (-0.1 + 0.9 * away * np.sin(turn + 2 * np.pi * k / count), away * np.cos(turn + 2 * np.pi * k / count))
        image = primitives.paint_colour(image, primitives.soft_ellipse(grid, spot, (0.15, 0.15)), (0.95, 0.93, 0.85))
    for tick in np.arange(-0.8, 0.85, 0.16):  # ruler
        image = primitives.paint_colour(
            image, ((np.abs(grid[0] - 0.86) < 0.08) & (np.abs(grid[1] - tick) < 0.04)).astype(np.float32), (1, 1, 1)
        )
    facts = {"colour": f"The tissue is mainly {colour}.", "count": COUNT_ANSWERS[count - 1]}
    return image, facts


DRAW_FUNCTIONS = {
    "chest_xray": _draw_chest,
    "mri": _draw_mri,
    "histology": _draw_histology,
    "gross": _draw_gross,
    "ct_scan": _draw_ct,
}


def _make_tar(members: dict[str, bytes]) -> bytes:
    """tar.gz whose bytes depend on its members alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return primitives.compress_gzip(buffer.getvalue())


def write_cohort(folder: Path, *, patients: int, seed: int) -> None:
    """Write the instruct JSON, the URL list and `tars/`; one paper with one figure stands for a patient."""
    records: list[dict[str, object]] = []
    url_lines: list[str] = []
    truth = primitives.TruthTable()
    for number in range(patients):
        rng = primitives.make_generator(seed, "pmc", number)
        domain = DOMAINS[number % len(DOMAINS)]
        image, facts = DRAW_FUNCTIONS[domain](rng)
        paper, pair_id = f"PMC{90_000_000 + number}", f"{90_000_000 + number}_F1"
        member = f"{paper}/phantom-{number:04d}-g001.jpg"
        archive = _make_tar({
            f"{paper}/README.txt": f"{primitives.SYNTHETIC}.\n".encode(),
            member: primitives.encode_jpeg(image if image.ndim == 3 else _grey_to_rgb(image)),
        })  # fmt: skip
        primitives.write_file(folder / "tars" / f"{paper}.tar.gz", archive)
        url = f"https://phantom.invalid/pub/pmc/oa_package/{number % 256:02x}/{paper}.tar.gz"
        url_lines.append(json.dumps({"pair_id": pair_id, "pmc_tar_url": url, "image_file_path": member}))
        facts = {"modality": f"The figure shows {MODALITY_PHRASES[domain]}.", **facts}
        turns: list[dict[str, str]] = []
        for fact in rng.permutation(sorted(facts)):
            question = QUESTIONS[fact][rng.integers(len(QUESTIONS[fact]))]
            if not turns:
                question = f"<image>\n{question}" if rng.random() < 0.5 else f"{question}\n<image>"
            turns += [{"from": "human", "value": question}, {"from": "gpt", "value": facts[fact]}]
        if number % SEVERAL_EVERY == SEVERAL_EVERY - 1:
            turns += [{"from": s, "value": text} for s, text in zip(("human", "gpt"), SEVERAL_TURN, strict=True)]
        records.append({
            "id": pair_id, "image": f"{pair_id}.jpg", "domain": {d: d == domain for d in DOMAINS}, "conversations": turns,
        })  # fmt: skip
        truth.add(f"tars/{paper}.tar.gz!{member}", domain=domain, **facts)
    primitives.write_json(folder / "llava_med_instruct_60k.json", records)
    primitives.write_file(folder / "llava_med_image_urls.jsonl", "".join(f"{u}\n" for u in url_lines))
    truth.write(folder)
    primitives.write_readme(folder, "LLaVA-Med's instruct data", "Conversations, list of URLs, and the papers' archives in tars.")
