"""Questions about glioblastoma MRI over time (LUMIERE), types A to C of the release."""

import re
from collections import defaultdict
from collections.abc import Iterator

from medmim.questions.cohort import Image, Patient, Study, hash_position
from medmim.questions.templates import IMAGE_OPTION_STYLES, Fact, Template

SEQUENCE_TEXTS = {"T1": "native T1", "CT1": "contrast-enhanced T1", "T2": "T2", "FLAIR": "FLAIR"}
RANO_TEXTS = {"PD": "progressive disease", "SD": "stable disease", "PR": "partial response", "CR": "complete response"}
RESECTION = ("complete resection", "partial resection")
PROGRESSION_RATIO, RESPONSE_RATIO = 1.25, 0.5
"""Area of enhancing tumour, as a share of the reference scan's, from which RANO calls it PD, and up to which PR."""
SPECK_MM2 = 25.0
"""Area below which a mask's enhancing tumour counts as none."""
SIZE_TEXTS = {"none": "no tumor", "small": "small tumor", "medium": "medium tumor", "large": "large tumor"}

SEQUENCE_CONTEXTS = (
    "These are MRI slices of one brain.",
    "The images show the same slice of a brain.",
    "A patient with glioblastoma was scanned with several sequences.",
    "Here are brain images from one MRI examination.",
    "The images differ in their MRI sequence.",
    "Look at the contrast between gray matter, white matter and fluid.",
)
SURGERY_CONTEXTS = (
    "These are MRI scans of one patient before and after surgery.",
    "A glioblastoma was operated on between the two scans.",
    "The first scan is preoperative and the second postoperative.",
    "Here is a brain before and after a tumor operation.",
    "Both images show the same slice of one brain.",
    "A neurosurgeon operated on this patient after the first image.",
    "You see contrast-enhanced MRI from before and after an operation.",
    "Image 1 was acquired before the tumor surgery and image 2 after it.",
    "Compare the two contrast-enhanced scans of this brain.",
    "The patient has a glioblastoma.",
    "Two MRI scans frame an operation.",
    "The images are the last scan before surgery and the first one after it.",
    "This pair of scans documents a resection.",
    "The two slices lie at the same level of the brain.",
    "An operation took place between the images.",
    "One brain tumor is shown before and after treatment by surgery.",
)
RESPONSE_CONTEXTS = (
    "These are two MRI scans of one patient with glioblastoma.",
    "The first image is the reference scan of the rating.",
    "Both contrast-enhanced images show the same slice of one brain.",
    "A patient with a brain tumor was scanned twice.",
    "The second image is the follow-up of the first.",
    "Compare the enhancing tumor in the two images.",
)
"""Sentences in front of a wording that does not say itself what is shown."""

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
    further=(
        "The same slice was acquired with different sequences. Which image is {sequence}?",
        "Which of the images shown was acquired as {sequence}?",
        "Identify the {sequence} image.",
        "Tell the sequences apart. Which image is {sequence}?",
        "Which image of this set is the {sequence} image?",
        "These slices come from one MRI examination. Which of them is {sequence}?",
        "Judge by the signal of fluid, fat and tissue: which image is {sequence}?",
        "Which image has the typical look of {sequence}?",
        "One of the sequences shown is {sequence}. Which image shows it?",
        "In this MRI study, which image was acquired with the {sequence} sequence?",
        "Match the label {sequence} to an image.",
        "Which slice would you label {sequence}?",
        "Compare how tissue and fluid appear. Which image is {sequence}?",
        "Pick out the {sequence} image of this brain.",
        "The scanner's labels are missing. Which image must be {sequence}?",
    ),
    styles=IMAGE_OPTION_STYLES,
    open_wordings=(
        "Name the image that is {sequence}.",
        "Where is the {sequence} sequence among these images?",
        "Say which MRI slice is the {sequence} image.",
        "Tell me which image was acquired as {sequence}.",
        "Point out the {sequence} image.",
        "Identify the {sequence} sequence.",
    ),
    open_further=(
        "State which image shows the brain in {sequence}.",
        "Determine the {sequence} image.",
        "Which of these slices is {sequence}? Answer in a sentence.",
        "Find the {sequence} image and name it.",
        "Recognize the {sequence} sequence among these slices.",
        "Report which image was acquired with the {sequence} sequence.",
        "Indicate the slice acquired as {sequence}.",
        "Give the position of the {sequence} image in this series.",
        "By its contrast, which image is {sequence}?",
        "Tell the sequences apart: which image is {sequence}?",
        "Which image carries the signal pattern of {sequence}?",
        "Match {sequence} to one of the MRI slices.",
        "Single out the {sequence} slice.",
        "In this examination, where do you find {sequence}?",
        "Label the images: which is {sequence}?",
    ),
    open_answers=("{gold} shows the {sequence} sequence.", "The {sequence} sequence is seen in {gold}."),
    contexts=SEQUENCE_CONTEXTS,
)
TYPE_B = Template(
    task="lumiere_typeB",
    ability="comparison",
    wordings=(
        "The first MRI was taken before surgery, the second after it. What was the extent of resection?",
        "Brain MRI before and after surgery. What was the extent of resection?",
        "Compare the MRI before surgery with the one after it. What was achieved?",
        "Image 1 is before, image 2 after the operation. Judge the resection of the enhancing tumor.",
        "What did the operation between these two MRI scans achieve?",
        "From the scans before and after surgery, what was the result of the operation?",
        "Which extent of resection do the two scans show?",
    ),
    further=(
        "Which description of the surgical result fits the two scans?",
        "Judge the enhancing tumor on the MRI after surgery against the one before. What is the result of surgery?",
        "The patient was operated on between the two scans. Which result do they show?",
        "How is the result of the operation best described?",
        "Look at the contrast enhancement before and after surgery. What was achieved?",
        "Scan 1 is preoperative, scan 2 postoperative. Which result does the comparison show?",
        "Which term describes the surgery of the enhancing tumor?",
        "Compare preoperative and postoperative contrast MRI. What was the extent of surgery?",
        "What was the outcome of surgery for the enhancing tumor?",
        "Assess the extent of resection from the pair of scans.",
        "Between these scans a neurosurgeon removed tumor. With which result?",
        "Look for residual enhancement in the second scan. Which extent of resection was reached?",
        "Decide from the two images what the extent of resection was.",
        "Which extent of resection would you report for this patient?",
        "The second MRI checks the result of surgery. Which result does it show?",
    ),
    styles=(
        {"complete resection": "complete resection", "partial resection": "partial resection"},
        {
            "complete resection": "complete removal of the enhancing tumor",
            "partial resection": "partial removal of the enhancing tumor",
        },
    ),
    open_wordings=(
        "Describe the result of the surgery between these two MRI scans.",
        "How did surgery change the enhancing tumor?",
        "Report the extent of resection from these scans.",
        "Is any enhancing tumor left after the operation?",
        "Tell me how the surgery went.",
        "Sum up the change from before to after surgery.",
    ),
    open_further=(
        "Compare the scans before and after surgery and describe the resection.",
        "How extensive was the resection?",
        "State the extent of resection.",
        "What did the surgeon achieve between these scans?",
        "Describe the enhancing tumor after surgery compared with before.",
        "Assess the result of the operation.",
        "Report whether enhancing tumor remains in the second scan.",
        "How does the postoperative scan differ from the preoperative one as to the tumor?",
        "Judge how far the tumor was resected.",
        "What is the surgical result seen on these images?",
        "Give your assessment of the resection.",
        "Explain what the postoperative MRI shows about the extent of resection.",
        "Describe the enhancing tumor before and after the operation.",
        "Summarize the surgical outcome from the two MRI scans.",
        "Write the conclusion of the postoperative MRI report.",
    ),
    open_answers=(
        "The two scans show {gold} of the enhancing tumor.",
        "The result of the surgery is {gold} of the enhancing tumor.",
    ),
    open_style={"complete resection": "a complete resection", "partial resection": "a partial resection"},
    meanings={
        "complete resection": "No enhancing tumor is left in the scan that was made after the operation.",
        "partial resection": "Some enhancing tumor is left in the scan that was made after the operation.",
    },
    open_details=(
        ("{meaning}",),
        (
            "The first image was acquired before the operation and the second after it, both with contrast agent, so that the"
            " enhancing tumor can be compared between them slice by slice.",
            "The preoperative MRI comes first and the postoperative MRI second, and contrast agent was given for both, which is"
            " why the enhancing part of the tumor can be followed from one to the other.",
        ),
        (
            "",
            "The extent of resection is judged by the enhancing tumor alone, and not by the edema that surrounds it.",
            "Edema around the tumor does not count here, as the extent of resection refers to the enhancing part only.",
        ),
    ),
    contexts=SURGERY_CONTEXTS,
)
TYPE_C = Template(
    task="lumiere_typeC",
    ability="temporal",
    wordings=(
        "Two brain MRI scans of one patient are shown, the reference scan first. What is the tumor status by RANO?",
        "How did the tumor respond between the first and the second scan?",
        "Scan 1 is the reference of the rating. Which RANO status fits the second scan?",
        "The second scan is a follow-up of the first. What is the tumor status?",
        "Which RANO category describes the change between these scans?",
        "Rate the tumor at the later scan by RANO.",
        "Which response category sums up these weeks?",
    ),
    further=(
        "Classify the change between the two MRI scans by RANO.",
        "Scan 2 was taken weeks after scan 1. Which response category applies?",
        "How is the tumor rated at follow-up, by RANO?",
        "What is the treatment response seen from the first scan to the second?",
        "Judge the enhancing tumor in both scans. Which status describes the course?",
        "Compare the follow-up MRI with the earlier one. Which RANO category is right?",
        "Which of the response categories fits this pair of scans?",
        "An expert rated the later scan against the earlier. What was the rating?",
        "What is the response of this glioblastoma at the second time point?",
        "How would you categorize the tumor's course between these visits?",
        "Decide on the RANO category of the follow-up scan.",
        "The two images are contrast-enhanced scans, the first for reference. What is the status at the later one?",
        "Weigh the tumor in the second scan against the first. Which category results?",
        "Name the RANO response shown by these two visits.",
        "What does the change in enhancement amount to by RANO?",
    ),
    styles=(RANO_TEXTS,),
    open_wordings=(
        "Describe the course of the tumor between the two scans.",
        "What is your RANO rating of the follow-up scan?",
        "Say how the tumor changed over these weeks.",
        "Report the tumor status at the second scan.",
        "Did the tumor respond to treatment?",
        "Sum up the change between the two weeks.",
    ),
    open_further=(
        "Rate the response of the tumor from the first scan to the second.",
        "How has the tumor changed at follow-up?",
        "State the RANO category for the later scan.",
        "Compare the scans and give the response category.",
        "What is the status of the glioblastoma at the second visit?",
        "Assess the change in the enhancing tumor between the visits.",
        "Describe in RANO terms what happened between the scans.",
        "Give your rating of this follow-up examination.",
        "What course does the tumor take from the earlier to the later scan?",
        "Explain how the tumor responded between the two time points.",
        "Judge the follow-up scan against the reference scan.",
        "Write the response assessment for this follow-up MRI.",
        "Tell me the tumor's status at the second time point.",
        "How do you classify the tumor's development over these weeks?",
        "Determine the response to treatment seen in this pair.",
    ),
    open_answers=("The follow-up scan shows {gold}.", "By RANO this is {gold}."),
    open_style={"PR": "a partial response", "CR": "a complete response"},
    meanings={
        "PD": "Against the reference scan, the enhancing tumor has grown by at least a quarter, or a new lesion has appeared.",
        "SD": "Against the reference scan, the enhancing tumor has neither grown by a quarter nor shrunk by half.",
        "PR": "Against the reference scan, the enhancing tumor has shrunk by at least half.",
        "CR": "None of the enhancing tumor of the reference scan is left.",
    },
    open_details=(("{meaning}",),),
    contexts=RESPONSE_CONTEXTS,
)
SEQUENCE_TEMPLATE = Template(
    task="pretrain_lumiere_sequence",
    ability="single",
    wordings=("Which MRI sequence is this?", "What sequence is shown?", "Name the sequence of this brain MRI."),
    styles=(SEQUENCE_TEXTS,),
)
SIZE_TEMPLATE = Template(
    task="pretrain_lumiere_size",
    ability="single",
    wordings=("How large is the enhancing tumor?", "What is the size of the tumor?", "Is there a tumor, and how large is it?"),
    styles=(SIZE_TEXTS,),
)


def _read_value(holder: Study | Image, name: str) -> str:
    finding = holder.unique_finding(name)
    return finding.value if finding else ""


def _slice_name(image: Image) -> str:
    """Which slice of the brain an image shows, by its path; images of one slice can be compared."""
    match = re.search(r"slice_[^/]+", image.release_path)
    return match[0] if match else ""


def _describe_tumor(image: Image) -> str:
    """The tumor in words, size and side, by a phantom's truth; empty where that is unknown."""
    size, side = _read_value(image, "truth:lesion_size"), _read_value(image, "truth:lesion_side")
    return SIZE_TEXTS.get(size, "") + (f", {'left' if side == 'L' else 'right'}" if side and size != "none" else "")


def _iter_sequence_facts(patients: list[Patient]) -> Iterator[Fact]:
    for study in (s for p in patients for s in p.studies):
        images_by_slice: defaultdict[str, dict[str, Image]] = defaultdict(dict)
        for image in study.images:
            if (sequence := _read_value(image, "sequence")) in SEQUENCE_TEXTS:
                images_by_slice[_slice_name(image)].setdefault(sequence, image)
        for images_by_sequence in images_by_slice.values():
            for sequence, image in images_by_sequence.items():
                others = sorted((s for s in images_by_sequence if s != sequence), key=lambda s: hash_position(image.image_id, s))
                n = 1 + hash_position(image.image_id) % 2
                if len(others) >= n:
                    ids = tuple(
                        f.id for s in (sequence, *others[:n]) for f in [images_by_sequence[s].unique_finding("sequence")] if f
                    )
                    images = (image, *(images_by_sequence[s] for s in others[:n]))
                    states = tuple(SEQUENCE_TEXTS[s] for s in (sequence, *others[:n]))
                    fields = {"sequence": SEQUENCE_TEXTS[sequence]}
                    yield Fact(TYPE_A, images, findings=ids, text_fields=fields, states=states, asks_for_image=True)


def _enhanced_by_slice(study: Study) -> dict[str, Image]:
    """Contrast-enhanced T1 images of a study by slice."""
    return {_slice_name(i): i for i in reversed(study.images) if _read_value(i, "sequence") == "CT1"}


def _is_supported(rano: str, reference_mm2: float, rated_mm2: float) -> bool:
    """Whether a slice's enhancing tumour, rated scan against reference scan, is as the rating says."""
    if rated_mm2 < SPECK_MM2:
        return rano == ("SD" if reference_mm2 < SPECK_MM2 else "CR")
    if reference_mm2 < SPECK_MM2 or rated_mm2 >= PROGRESSION_RATIO * reference_mm2:
        return rano == "PD"
    return rano == ("PR" if rated_mm2 <= RESPONSE_RATIO * reference_mm2 else "SD")


def _describe_pair(pair: tuple[Image, Image]) -> tuple[str, ...]:
    return tuple(_describe_tumor(i) for i in pair) if all(map(_describe_tumor, pair)) else ()


def _iter_resection_facts(patient: Patient) -> Iterator[Fact]:
    for before, after in zip(patient.studies, patient.studies[1:], strict=False):
        extent = after.unique_finding("resection")
        if _read_value(before, "rano") == "Pre-Op" and extent and extent.value in RESECTION:
            first, second = _enhanced_by_slice(before), _enhanced_by_slice(after)
            for slice_name in sorted(first.keys() & second.keys()):
                pair = (first[slice_name], second[slice_name])
                yield Fact(TYPE_B, pair, extent.value, RESECTION, (extent.id,), states=_describe_pair(pair))


def _iter_response_facts(patient: Patient) -> Iterator[Fact]:
    """Ratings beside the scan that RANO rates against, where the slice shows what they say.

    T2 progression is not one of enhancing tumour, which contrast-enhanced T1 would not show.
    """
    studies_by_week = {s.study_id.rpartition("/week-")[2]: s for s in patient.studies}
    for study in patient.studies:
        rating, reference = study.unique_finding("rano"), study.unique_finding("reference")
        if not rating or not reference or rating.value not in RANO_TEXTS or study.unique_finding("progression"):
            continue
        if (reference_study := studies_by_week.get(reference.value)) is None:
            continue
        first, second = _enhanced_by_slice(reference_study), _enhanced_by_slice(study)
        for slice_name in sorted(first.keys() & second.keys()):
            pair = (first[slice_name], second[slice_name])
            areas = [a for i in pair if (a := i.unique_finding("enhancing_mm2"))]
            if len(areas) == 2 and _is_supported(rating.value, *(float(a.value) for a in areas)):
                ids = (rating.id, reference.id, *(a.id for a in areas))
                yield Fact(TYPE_C, pair, rating.value, tuple(RANO_TEXTS), ids, states=_describe_pair(pair))


def build_facts(patients: list[Patient]) -> Iterator[Fact]:
    """What types A to C can ask of these patients; B and C compare two visits in contrast-enhanced T1."""
    yield from _iter_sequence_facts(patients)
    for patient in patients:
        yield from _iter_resection_facts(patient)
        yield from _iter_response_facts(patient)


def build_single_facts(patients: list[Patient]) -> Iterator[Fact]:
    """What the types compare, image by image: the sequence and, where a phantom's truth states it, the tumor's size."""
    for image in (i for p in patients for i in p.iter_images()):
        if (sequence := image.unique_finding("sequence")) and sequence.value in SEQUENCE_TEXTS:
            yield Fact(SEQUENCE_TEMPLATE, (image,), sequence.value, tuple(SEQUENCE_TEXTS), (sequence.id,))
            if sequence.value == "CT1" and _describe_tumor(image):
                yield Fact(SIZE_TEMPLATE, (image,), _read_value(image, "truth:lesion_size"), tuple(SIZE_TEXTS))
