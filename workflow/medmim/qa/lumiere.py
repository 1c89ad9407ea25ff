"""Questions about glioblastoma MRI over time (LUMIERE), types A to C of the release."""

import re
from collections import defaultdict
from collections.abc import Iterator

from medmim.qa.cohort import Image, Patient, Study, position
from medmim.qa.templates import PLACES, Fact, Template

SPLITS = ("train", "benchmark")
SEQUENCES = {"T1": "native T1", "CT1": "contrast T1", "T2": "T2", "FLAIR": "FLAIR"}
RANO = {"PD": "progressive disease", "SD": "stable disease", "PR": "partial response", "CR": "complete response"}
RESECTION = ("complete resection", "partial resection")
SIZES = {"none": "no tumor", "small": "small tumor", "medium": "medium tumor", "large": "large tumor"}

TYPE_A = Template(
    task="lumiere_typeA",
    ability="coreference",
    wordings=(
        "Which image is {sequence}?",
        "Which of these brain MRI slices is {sequence}?",
        "One brain, several sequences. Which image is {sequence}?",
        "Find the image that was acquired as {sequence}.",
        "Only one of the images is {sequence}. Which one?",
        "Look at the contrast of each MRI. Which image is {sequence}?",
        "In which image do you see the brain in {sequence}?",
    ),
    styles=PLACES,
    open_wordings=(
        "Name the image that is {sequence}.",
        "Where is the {sequence} sequence among these images?",
        "Say which MRI slice is the {sequence} image.",
        "Tell me which image was acquired as {sequence}.",
        "Point out the {sequence} image.",
        "Identify the {sequence} sequence.",
    ),
    open_answers=("{gold} is the {sequence} sequence.", "The {sequence} sequence is {gold}."),
)
TYPE_B = Template(
    task="lumiere_typeB",
    ability="comparison",
    wordings=(
        "The first MRI was taken before surgery, the second after it. How much of the enhancing tumor was removed?",
        "Brain MRI before and after surgery. What was the extent of resection?",
        "Compare the MRI before surgery with the one after it. Which resection was achieved?",
        "Image 1 is before, image 2 after the operation. Judge the resection of the enhancing tumor.",
        "What did the operation between these two MRI scans achieve?",
        "From the scans before and after surgery, was the resection complete?",
        "Which extent of resection do the two scans show?",
    ),
    styles=(
        {"complete resection": "complete resection", "partial resection": "partial resection"},
        {"complete resection": "completely removed", "partial resection": "partially removed"},
    ),
    open_wordings=(
        "Describe the result of the surgery between these two MRI scans.",
        "What happened to the enhancing tumor after surgery?",
        "Report the extent of resection from these scans.",
        "Is any enhancing tumor left after the operation?",
        "Tell me how the surgery went.",
        "Sum up the change from before to after surgery.",
    ),
    open_answers=("Result of the surgery: {gold}.", "The scans show this result: {gold}."),
)
TYPE_C = Template(
    task="lumiere_typeC",
    ability="temporal",
    wordings=(
        "Two brain MRI scans of one patient are shown, weeks apart. What is the tumor status by RANO?",
        "How did the tumor respond between the first and the second scan?",
        "Compare the two weeks. Which RANO status fits the second scan?",
        "The second scan is a follow-up of the first. What is the tumor status?",
        "Which RANO category describes the change between these scans?",
        "Rate the tumor at the later scan by RANO.",
        "What became of the tumor over these weeks?",
    ),
    styles=(RANO,),
    open_wordings=(
        "Describe the course of the tumor between the two scans.",
        "What is your RANO rating of the follow-up scan?",
        "Say how the tumor changed over these weeks.",
        "Report the tumor status at the second scan.",
        "Did the tumor respond to treatment?",
        "Sum up the change between the two weeks.",
    ),
    open_answers=("The follow-up scan shows {gold}.", "By RANO this is {gold}."),
)
SEQUENCE = Template(
    task="pretrain_lumiere_sequence",
    ability="single",
    wordings=("Which MRI sequence is this?", "What sequence is shown?", "Name the sequence of this brain MRI."),
    styles=(SEQUENCES,),
)
SIZE = Template(
    task="pretrain_lumiere_size",
    ability="single",
    wordings=("How large is the enhancing tumor?", "What is the size of the tumor?", "Is there a tumor, and how large is it?"),
    styles=(SIZES,),
)


def _value(of: Study | Image, name: str) -> str:
    found = of.one(name)
    return found.value if found else ""


def _slice(image: Image) -> str:
    """Which slice of the brain an image shows, by its path; images of one slice can be compared."""
    found = re.search(r"slice_[^/]+", image.release_path)
    return found[0] if found else ""


def _state(image: Image) -> str:
    """The tumor in words, size and side, by a phantom's truth; empty where that is unknown."""
    size, side = _value(image, "truth:lesion_size"), _value(image, "truth:lesion_side")
    return SIZES.get(size, "") + (f", {'left' if side == 'L' else 'right'}" if side and size != "none" else "")


def _sequences(patients: list[Patient]) -> Iterator[Fact]:
    for study in (s for p in patients for s in p.studies):
        slices: defaultdict[str, dict[str, Image]] = defaultdict(dict)
        for image in study.images:
            if (sequence := _value(image, "sequence")) in SEQUENCES:
                slices[_slice(image)].setdefault(sequence, image)
        for shown in slices.values():
            for sequence, image in shown.items():
                others = sorted((s for s in shown if s != sequence), key=lambda s: position(image.image_id, s))
                n = 1 + position(image.image_id) % 2
                if len(others) >= n:
                    ids = tuple(f.id for s in (sequence, *others[:n]) for f in [shown[s].one("sequence")] if f)
                    images = (image, *(shown[s] for s in others[:n]))
                    states = tuple(SEQUENCES[s] for s in (sequence, *others[:n]))
                    asked = {"sequence": SEQUENCES[sequence]}
                    yield Fact(TYPE_A, images, findings=ids, asked=asked, states=states, which=True)


def _enhanced(study: Study) -> dict[str, Image]:
    """Contrast-enhanced T1 images of a study by slice."""
    return {_slice(i): i for i in reversed(study.images) if _value(i, "sequence") == "CT1"}


def _changes(patients: list[Patient]) -> Iterator[Fact]:
    for patient in patients:
        for before, after in zip(patient.studies, patient.studies[1:], strict=False):
            rating, extent = after.one("rano"), after.one("resection")
            first, second = _enhanced(before), _enhanced(after)
            for place in sorted(first.keys() & second.keys()):
                pair = (first[place], second[place])
                states = tuple(_state(i) for i in pair) if all(map(_state, pair)) else ()
                if _value(before, "rano") == "Pre-Op" and extent and extent.value in RESECTION:
                    yield Fact(TYPE_B, pair, extent.value, RESECTION, (extent.id,), states=states)
                elif rating and rating.value in RANO and _value(before, "rano") != "Pre-Op":
                    yield Fact(TYPE_C, pair, rating.value, tuple(RANO), (rating.id,), states=states)


def facts(patients: list[Patient]) -> Iterator[Fact]:
    """What types A to C can ask of these patients; B and C compare consecutive visits in contrast-enhanced T1."""
    yield from _sequences(patients)
    yield from _changes(patients)


def singles(patients: list[Patient]) -> Iterator[Fact]:
    """What the types compare, image by image: the sequence and, where a phantom's truth states it, the tumor's size."""
    for image in (i for p in patients for i in p.images()):
        if (sequence := image.one("sequence")) and sequence.value in SEQUENCES:
            yield Fact(SEQUENCE, (image,), sequence.value, tuple(SEQUENCES), (sequence.id,))
            if sequence.value == "CT1" and _state(image):
                yield Fact(SIZE, (image,), _value(image, "truth:lesion_size"), tuple(SIZES))
