"""The held-out set odir: what the left and the right fundus of one person show."""

import re
from collections.abc import Iterator

from medmim.qa.cohort import Image, Patient, position
from medmim.qa.templates import PLACES, Fact, Template

SPLITS = ("benchmark",)
ARTEFACTS = re.compile(r"lens dust|low image quality|optic disk photographically invisible|image offset|no fundus image")
"""Keywords that say how the photograph came out, not what the eye has."""

EACH = Template(
    task="odir",
    form="each",
    ability="coreference",
    set="odir",
    wordings=(
        "What is the diagnosis of the {eye} eye, image {n}?",
        "Both eyes of one person are shown. What does image {n}, the {eye} eye, show?",
        "Which diagnosis fits the {eye} fundus in image {n}?",
        "Look at image {n}, the {eye} fundus. What is the diagnosis?",
        "How do you diagnose the {eye} eye in image {n}?",
        "Name what is seen in the {eye} fundus, image {n}.",
    ),
    open_wordings=(
        "Describe the {eye} fundus in image {n}.",
        "What do you find in image {n}, the {eye} eye?",
        "State the diagnosis of image {n}.",
        "Tell me what the {eye} eye has.",
        "Report on the {eye} fundus.",
        "Say what image {n} shows.",
    ),
    open_answers=("The {eye} eye shows {gold}.", "Image {n} shows {gold}."),
)
BOTH = Template(
    task="odir",
    form="both",
    ability="comparison",
    set="odir",
    wordings=(
        "What are the diagnoses of the left and the right eye?",
        "Image 1 is the left eye, image 2 the right. Which diagnoses fit?",
        "Diagnose both fundus images of this person.",
        "Which pair of diagnoses describes the two eyes?",
        "Compare both eyes. Which line is right?",
        "Give the diagnosis of each fundus image.",
    ),
    open_wordings=(
        "Compare the two eyes of this person.",
        "Do both eyes have the same diagnosis?",
        "Describe what the left and the right fundus show.",
        "How do the diagnoses of the two eyes differ?",
        "Report on both fundus images.",
        "Tell me what each eye has.",
    ),
)
WHERE = Template(
    task="odir",
    form="where",
    ability="comparison",
    set="odir",
    wordings=(
        "Which fundus image shows {diagnosis}?",
        "In which of the two eyes do you see {diagnosis}?",
        "Where is {diagnosis} found?",
        "Look for {diagnosis} in both eyes. Where is it?",
        "Which image fits the diagnosis {diagnosis}?",
        "One person, two eyes. Which shows {diagnosis}?",
    ),
    styles=tuple({**p, "3": "both images", "4": "neither image"} for p in PLACES),
    open_wordings=(
        "Say where {diagnosis} is seen.",
        "Is {diagnosis} present in either eye?",
        "Tell me which eye has {diagnosis}.",
        "Point out {diagnosis}.",
        "Locate {diagnosis} in these images.",
        "Name the eye or eyes with {diagnosis}.",
    ),
    open_answers=("It is seen in {gold}.", "Seen in {gold}."),
)


def diagnoses(keywords: str) -> tuple[str, ...]:
    """The diagnoses in an eye's keywords, which are parted by ASCII or full-width commas; artefacts left out."""
    found = (k.strip().lower() for k in re.split(r"[,，;；]", keywords))
    return tuple(dict.fromkeys(k for k in found if k and not ARTEFACTS.search(k)))


def _pairs(patients: list[Patient]) -> Iterator[tuple[Image, Image]]:
    for patient in patients:
        left, right = ([i for i in patient.images() if i.laterality == side and _words(i)] for side in ("L", "R"))
        if left and right:
            yield left[0], right[0]


def _words(image: Image) -> str:
    found = image.one("diagnosis")
    return " and ".join(diagnoses(found.value)) if found else ""


def facts(patients: list[Patient]) -> Iterator[Fact]:
    """Of every person: each eye's diagnosis, both together, and in which eye each of the diagnoses is."""
    pairs = list(_pairs(patients))
    known = tuple(sorted({_words(i) for pair in pairs for i in pair}))
    single = tuple(sorted({d for words in known for d in words.split(" and ")}))
    for pair in pairs:
        left, right = map(_words, pair)
        ids = tuple(f.id for i in pair for f in [i.one("diagnosis")] if f)
        for n, eye in enumerate(("left", "right")):
            gold = (left, right)[n]
            yield Fact(EACH, pair, gold, known, ids[n : n + 1], {"eye": eye, "n": str(n + 1)})
        if len(known) > 1:
            third = next(d for d in sorted(known, key=lambda d: position(pair[0].image_id, d)) if d != left)
            two = (left, right if right != left else third)
            # all four pairs of two diagnoses: no option is nearer to the others than the rest, so none gives itself away
            yield Fact(BOTH, pair, _both(left, right), tuple(_both(a, b) for a in two for b in two), ids)
        for diagnosis in single:
            has = [diagnosis in words.split(" and ") for words in (left, right)]
            gold = {(True, False): "1", (False, True): "2", (True, True): "3", (False, False): "4"}[has[0], has[1]]
            yield Fact(WHERE, pair, gold, ("1", "2", "3", "4"), ids, {"diagnosis": diagnosis})


def _both(left: str, right: str) -> str:
    return f"left {left}, right {right}"


def singles(patients: list[Patient]) -> Iterator[Fact]:
    """None: a held-out source trains nothing."""
    return iter(())
