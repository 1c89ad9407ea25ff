"""Questions about mammograms (EMBED), types A to D of the release.

Assessments are the letters of the clinical table: A additional evaluation, N negative, B benign, P probably benign,
S suspicious, M highly suggestive of malignancy, K known malignancy; BI-RADS 0 to 6. A forecast (type B) asks, as the release
does, whether a breast stays stable or gets worse: by the outcome of the next yearly visit against that of the last one shown.
"""

from collections.abc import Iterator
from itertools import pairwise

from medmim.questions.cohort import HashRing, Image, Patient, hash_position
from medmim.questions.templates import IMAGE_OPTION_STYLES, Fact, Phrase, Template

ASSESSMENT_TEXTS = {
    "A": "additional imaging needed",
    "N": "negative",
    "B": "benign",
    "P": "probably benign",
    "S": "suspicious",
    "M": "highly suggestive of malignancy",
    "K": "known malignancy",
}
OUTCOME_RANKS = {"N": 0, "B": 0, "P": 1, "S": 2, "M": 3, "K": 3}
"""How grave the outcome of an exam is. Additional imaging is a step on the way, no outcome."""
COURSE_TEXTS = {"stable": "stable", "worse": "worse"}
SUSPICIOUS, CLEAR = ("S", "M", "K"), ("N", "B")
SUSPICION_TEXTS = {"yes": "suspicious finding", "no": "clear breast"}
YEAR_DAYS = (240, 500)
"""Days between two studies that count as a year."""

SCREENING_CONTEXTS = (
    "These mammograms are of different women.",
    "Each image shows a breast of another patient.",
    "Several women had a mammogram.",
    "The mammograms shown come from different patients.",
    "All but one of these mammograms are free of suspicious findings.",
    "Look at each mammogram carefully.",
)
YEARLY_CONTEXTS = (
    "The mammograms show one breast at yearly visits.",
    "A woman comes for a mammogram every year.",
    "One breast was imaged once a year.",
    "The earliest mammogram comes first and the latest last.",
    "These images come from yearly mammography of one breast.",
    "Each image was taken about a year after the one before.",
)
VIEW_CONTEXTS = (
    "These mammograms are of one patient.",
    "One woman had a mammogram in several views.",
    "The images were taken in two different views.",
    "All images come from one mammography examination.",
    "A mammogram consists of several projections.",
    "Look at how each breast was positioned.",
)
PAIR_CONTEXTS = (
    "The CC and the MLO view of one breast are given.",
    "A breast was imaged in two projections.",
    "Both images show the same breast.",
    "Here are two mammograms of one breast.",
    "A radiologist reads the CC view together with the MLO view.",
    "These views come from one mammography examination.",
)
"""Sentences in front of a wording that does not say itself what is shown."""

TYPE_A = Template(
    task="embed_typeA",
    ability="coreference",
    wordings=(
        "These mammograms are from different patients. Which one shows a suspicious finding?",
        "Which of these mammograms shows a suspicious finding?",
        "One mammogram here shows a suspicious finding. Which image is it?",
        "Find the mammogram with a suspicious finding.",
        "In which image can a suspicious finding be seen?",
        "Each image is from another woman. Which image shows a suspicious finding?",
        "Only one of the images shows a suspicious finding. Which one?",
    ),
    further=(
        "Each mammogram is of another woman. In which image is there a suspicious finding?",
        "Compare these mammograms. Which image raises suspicion of malignancy?",
        "Which image would you call suspicious?",
        "A radiologist reported a suspicious finding in one of these mammograms. In which one?",
        "Review the mammograms in turn. Which one contains a suspicious finding?",
        "Of these mammograms, which one is not free of suspicious findings?",
        "Which of the images shown needs a work-up for a suspicious finding?",
        "Mammograms of different patients: which image is suspicious?",
        "Look for a suspicious finding in each mammogram. Which one has it?",
        "In which of these images does the breast show a suspicious finding?",
        "Name the mammogram in which you see a suspicious finding.",
        "In which image of this series of mammograms is a suspicious finding visible?",
        "Pick out the mammogram with a suspicious finding. Which image is it?",
        "One of the patients has a suspicious finding. Which image is hers?",
        "Read each mammogram for itself. Which one would be reported as suspicious?",
    ),
    styles=IMAGE_OPTION_STYLES,
    open_wordings=(
        "Name the image that shows a suspicious finding.",
        "Where is a suspicious finding seen among these mammograms?",
        "Say which patient's mammogram shows a suspicious finding.",
        "Compare the mammograms. Where do you see a suspicious finding?",
        "Point out the mammogram that shows a suspicious finding.",
        "Tell me which mammogram shows a suspicious finding.",
    ),
    open_further=(
        "Identify the mammogram with a suspicious finding.",
        "State which image contains a suspicious finding.",
        "Among these women, whose mammogram is suspicious? Give the image.",
        "Which mammogram would you recommend for further work-up of a suspicious finding?",
        "Report which of the mammograms is suspicious.",
        "Go through the mammograms and say where you find anything suspicious.",
        "One of these images is suspicious. Say which.",
        "Indicate the image in which a suspicious finding is present.",
        "Give the position of the suspicious mammogram in this series.",
        "Say which one of the mammograms is suspicious.",
        "Determine where among these images a suspicious finding lies.",
        "Locate the suspicious finding: in which mammogram is it?",
        "After reading these mammograms, where do you see a suspicious finding?",
        "Single out the mammogram that looks suspicious.",
        "Which patient has a suspicious finding? Answer with her image.",
    ),
    open_answers=("{gold} shows a suspicious finding.", "A suspicious finding is seen in {gold}."),
    contexts=SCREENING_CONTEXTS,
)
TYPE_B = Template(
    task="embed_typeB",
    ability="temporal",
    wordings=(
        "These mammograms of one breast were taken a year apart. Will it be stable or worse next year?",
        "The images show yearly visits of one patient. How will this breast be next year, compared with the last image?",
        "Given these yearly mammograms, how will this breast most likely be in a year?",
        "Follow this breast over the years. How will it be at the next visit?",
        "From the visits shown, forecast how this breast will be at the next yearly visit.",
        "The patient returns in a year. How will this breast be then, compared with now?",
        "Will the findings in this breast be stable or worse at next year's visit?",
    ),
    further=(
        "Past yearly mammograms of a breast are shown in order. How will it be a year after the last one?",
        "Judging by the images so far, how will this breast be in the next annual mammogram?",
        "These are consecutive annual mammograms. Predict how the breast will be in the one that follows.",
        "How do the yearly images let you expect this breast to be in a year?",
        "Consider how this breast changes from year to year. How will it be a year from now?",
        "Which state of this breast is to be expected a year after the last image?",
        "The images run from the earliest to the latest visit. How will this breast be a year later?",
        "Estimate how this breast will be at next year's screening.",
        "With these earlier visits in mind, how will this breast probably be in twelve months?",
        "One more mammogram was taken a year after these. How was the breast in it?",
        "Which state of the breast at the next annual visit fits the series?",
        "What is the most probable state of this breast at its next yearly examination, compared with the last?",
        "Extend this series of annual mammograms by one year. Which state of the breast would you predict?",
        "From this history, how will this breast be in the following year?",
        "Taking the annual images together, what is the forecast for this breast at the next visit?",
    ),
    styles=(COURSE_TEXTS, {"stable": "no worse than in the last image", "worse": "worse than in the last image"}),
    open_wordings=(
        "How do you expect this breast to be at next year's visit, compared with the last image?",
        "Describe the course to be expected over one year.",
        "How will the next yearly mammogram of this breast compare with the last one?",
        "Say whether this breast is likely to be stable or worse next year.",
        "What course do these yearly visits point to?",
        "State your forecast for the next yearly visit.",
    ),
    open_further=(
        "Predict how the mammogram one year from now compares with the last image.",
        "Do you think this breast will be stable or worse in a year?",
        "Give your prediction for the next annual mammogram.",
        "What change, if any, would you expect to report at the following yearly visit?",
        "Looking at the visits in order, say what the coming year may bring.",
        "Describe the likely course until the next screening visit.",
        "What is the outlook for this breast at the next annual examination?",
        "Tell me the course you anticipate until next year.",
        "Use these yearly mammograms to forecast the following one.",
        "Explain in a few words how this breast will probably be next year.",
        "One year after the last image, will this breast be stable or worse?",
        "Estimate how the next annual mammogram will compare with this series.",
        "What course does this series suggest for the year to come?",
        "Write down the expected course until the next visit.",
        "Judge from these images whether the breast will be worse at the next visit.",
    ),
    open_answers=("The breast is likely to be {gold}.", "One year later, the breast should be {gold}."),
    meanings={
        "stable": "Its assessment at the next yearly visit should be no more serious than at the last one shown.",
        "worse": "Its assessment at the next yearly visit should be more serious than at the last one shown.",
    },
    open_details=(("{meaning}",),),
    contexts=YEARLY_CONTEXTS,
)
TYPE_C = Template(
    task="embed_typeC",
    ability="coreference",
    wordings=(
        "Which image is the {view} view?",
        "Which of these mammograms was taken in the {view} view?",
        "In which image is the breast seen in the {view} view?",
        "Find the mammogram that shows the {view} view.",
        "Only one of the images is {view:a} view. Which one?",
        "Look at the projections. Which image is the {view} view?",
        "Which mammogram has the {view} projection?",
    ),
    further=(
        "Which of the images shown is {view:a} projection?",
        "The mammograms are in different views. Which one is the {view} view?",
        "Identify the {view} view among these mammograms.",
        "Which image shows the {view} view?",
        "Which image was acquired in the {view} projection?",
        "Judge by the position of the breast: which image is {view:a} view?",
        "One of these mammograms is {view:a} view. Which image is it?",
        "Tell the views apart. Which mammogram is the {view} one?",
        "Pick the image that shows the breast in the {view} projection.",
        "A technologist labelled one image {view}. Which one must it be?",
        "In these mammograms of one patient, which image is the {view} view?",
        "By the projection, which mammogram is {view:a} view?",
        "Which image here corresponds to the {view} view?",
        "Find the {view} projection in this set of mammograms.",
        "Which mammogram did the technologist take in the {view} view?",
    ),
    styles=IMAGE_OPTION_STYLES,
    open_wordings=(
        "Name the image that is the {view} view.",
        "Where is the {view} view among these mammograms?",
        "Say which mammogram is the {view} view.",
        "Tell me which image was taken in the {view} view.",
        "Point out the {view} view.",
        "Identify the mammogram that is {view:a} view.",
    ),
    open_further=(
        "Determine which of the mammograms is the {view} view.",
        "State which image shows the {view} projection.",
        "Find the {view} view and name its image.",
        "Which mammogram shows the breast in the {view} view? Answer in a sentence.",
        "Report the position of the {view} view in this series.",
        "Give the image that was taken as {view:a} view.",
        "Recognize the {view} projection among these images.",
        "By its projection, which image is {view:a} view?",
        "Tell the views apart: which image is the {view} view?",
        "Sort the images by view: which is the {view} view?",
        "Where in this set is the breast seen in the {view} projection?",
        "Indicate the mammogram in the {view} view.",
        "Match the label {view} to one of the mammograms.",
        "Explain which of these images is the {view} view.",
        "In this set, single out the {view} view.",
    ),
    open_answers=("{gold} is the {view} view.", "The {view} view is {gold}."),
    contexts=VIEW_CONTEXTS,
)
TYPE_D = Template(
    task="embed_typeD",
    ability="reasoning",
    max_options=7,
    wordings=(
        "These are the CC and MLO views of one breast. What is the assessment?",
        "Read both views of this breast together. Which assessment fits?",
        "Considering the CC and the MLO view, how should this breast be assessed?",
        "Two views of the same breast are shown. Give the assessment.",
        "Which assessment follows from the CC and MLO views?",
        "Which assessment do the two views of this breast add up to?",
        "Choose the assessment for the breast shown in both views.",
    ),
    further=(
        "Which assessment do the CC and MLO views support?",
        "Both standard views of a breast are given. How is it assessed?",
        "Combine what the CC and the MLO view show. What is the overall assessment?",
        "Image 1 is the CC view, image 2 the MLO view of one breast. Choose its assessment.",
        "Taking the two projections together, which assessment is right?",
        "What is the reader's assessment of this breast, seen in CC and MLO?",
        "One breast, two views: which assessment would you give?",
        "Weigh the CC view against the MLO view. Which assessment describes the breast?",
        "How would a breast radiologist assess this pair of views?",
        "Decide on the assessment of the breast in these two mammograms.",
        "Which of the assessments matches these CC and MLO images?",
        "Reading the two mammograms of this breast as one examination, which assessment do you give?",
        "The examination consists of a CC and an MLO view. What is its assessment?",
        "Which assessment category belongs to this breast?",
        "From both projections of the breast, derive its assessment.",
    ),
    styles=(ASSESSMENT_TEXTS,),
    open_wordings=(
        "What do the two views of this breast show together?",
        "Describe your assessment of this breast from both views.",
        "Say how you assess the breast seen in the CC and MLO views.",
        "What is your reading of these two views?",
        "State the assessment of this breast in words.",
        "Sum up the CC and MLO views of this breast.",
    ),
    open_further=(
        "Give one assessment for the breast in these two views.",
        "What conclusion do you draw from the CC and the MLO view?",
        "Assess this breast on the basis of both views.",
        "How do the two projections add up? Give your assessment.",
        "Report your overall impression of this breast.",
        "Which assessment would you write in the report of these two views?",
        "Put the assessment of these mammograms into words.",
        "Read the CC view and the MLO view together and conclude.",
        "Tell me how this breast should be assessed.",
        "Provide the final assessment for this examination of one breast.",
        "Judge the breast shown in CC and MLO.",
        "What do you make of this breast, considering both views?",
        "Formulate the assessment that follows from the two views.",
        "Explain how you would assess this pair of mammograms.",
        "Write the impression for this breast.",
    ),
    open_answers=("Both views together are assessed as {gold}.", "The assessment of this breast is {gold}."),
    open_style={"A": "incomplete, with additional imaging needed", "K": "a known malignancy"},
    meanings={letter: f"This is BI-RADS category {category}." for category, letter in enumerate("ANBPSMK")},
    open_details=(("{meaning}",),),
    contexts=PAIR_CONTEXTS,
)
VIEW_TEMPLATE = Template(
    task="pretrain_embed_view",
    ability="single",
    wordings=("Which view is this mammogram?", "What is the view of this mammogram?", "Name the view of this breast."),
)
BIRADS_TEMPLATE = Template(
    task="pretrain_embed_birads",
    ability="single",
    max_options=7,
    wordings=("What is the assessment of this mammogram?", "How should this breast be assessed?", "Give the assessment."),
    styles=(ASSESSMENT_TEXTS,),
)
FINDING_TEMPLATE = Template(
    task="pretrain_embed_finding",
    ability="single",
    wordings=("What does this mammogram show?", "Is a suspicious finding seen?", "What can be seen in this breast?"),
    styles=(SUSPICION_TEXTS,),
)


def _read_birads(image: Image) -> str:
    finding = image.unique_finding("birads")
    return finding.value if finding and finding.value in ASSESSMENT_TEXTS else ""


def _finding_ids(*images: Image, name: str = "birads") -> tuple[str, ...]:
    return tuple(f.id for i in images for f in [i.unique_finding(name)] if f)


def _describe_image(image: Image, shown: str) -> str:
    """An image in words: side, view and what it shows."""
    return f"{'left' if image.laterality == 'L' else 'right'} {image.view} view, {shown}"


def _iter_suspicion_facts(patients: list[Patient]) -> Iterator[Fact]:
    images = [i for p in patients for i in p.iter_images()]
    for view in ("CC", "MLO"):
        clear = HashRing([i for i in images if i.view == view and _read_birads(i) in CLEAR], key=lambda i: i.image_id)
        for image in images:
            if image.view == view and _read_birads(image) in SUSPICIOUS:
                for n in (1, 2):
                    others = clear.draw_distinct(n, {image.patient_id}, lambda i: i.patient_id, image.image_id, n)
                    if len(others) == n:
                        shown_images = (image, *others)
                        states = tuple(_describe_image(i, SUSPICION_TEXTS["no" if i in others else "yes"]) for i in shown_images)
                        yield Fact(TYPE_A, shown_images, findings=_finding_ids(*shown_images), states=states, asks_for_image=True)


def _list_yearly_visits(patient: Patient, side: str, view: str) -> list[Image]:
    """The first image of a breast of each visit, in order; an exam soon after one, which it goes with, is no further visit."""
    visits: list[Image] = []
    for image in patient.iter_images():
        if (image.laterality, image.view) == (side, view) and _read_birads(image):
            days = None if not visits or image.day is None or visits[-1].day is None else image.day - visits[-1].day
            if days is None or days >= YEAR_DAYS[0]:
                visits.append(image)
    return visits


def _name_course(before: Image, after: Image) -> str:
    """How a breast went on from one visit to the next; empty where that is not known, or it got better."""
    outcomes = [image.unique_finding("outcome") for image in (before, after)]
    ranks = [OUTCOME_RANKS.get(outcome.value) if outcome else None for outcome in outcomes]
    if ranks[0] is None or ranks[1] is None or ranks[1] < ranks[0]:
        return ""
    return "worse" if ranks[1] > ranks[0] else "stable"


def _iter_forecast_facts(patients: list[Patient]) -> Iterator[Fact]:
    for visits in (_list_yearly_visits(p, side, view) for p in patients for side in ("L", "R") for view in ("CC", "MLO")):
        for n in range(2, len(visits)):
            first = max(0, n - 3) if hash_position(visits[n].image_id) % 3 == 0 else n - 2
            before, after = tuple(visits[first:n]), visits[n]
            is_yearly = all(_is_year_apart(a, b) for a, b in pairwise((*before, after)))
            if is_yearly and (course := _name_course(before[-1], after)):
                states = tuple(_describe_image(i, ASSESSMENT_TEXTS[_read_birads(i)]) for i in before)
                finding_ids = (*_finding_ids(*before), *_finding_ids(before[-1], after, name="outcome"))
                yield Fact(TYPE_B, before, course, tuple(COURSE_TEXTS), finding_ids, states=states)


def _is_year_apart(a: Image, b: Image) -> bool:
    return a.day is not None and b.day is not None and YEAR_DAYS[0] <= b.day - a.day <= YEAR_DAYS[1]


def _iter_view_facts(patients: list[Patient]) -> Iterator[Fact]:
    for patient in patients:
        for study in patient.studies:
            for image in study.images:
                if image.view in ("CC", "MLO"):
                    others = [i for i in study.images if i.view in ("CC", "MLO") and i.view != image.view]
                    others.sort(key=lambda i: hash_position(image.image_id, i.image_id))
                    n = 1 + hash_position(image.image_id) % 2
                    if len(others) >= n:
                        shown_images = (image, *others[:n])
                        states = tuple(f"{i.view} view" for i in shown_images)
                        yield Fact(
                            TYPE_C,
                            shown_images,
                            findings=_finding_ids(*shown_images, name="view"),
                            text_fields={"view": Phrase(image.view)},
                            states=states,
                            asks_for_image=True,
                        )


def _iter_assessment_facts(patients: list[Patient]) -> Iterator[Fact]:
    for patient in patients:
        for study in patient.studies:
            for side in ("L", "R"):
                cc, mlo = ([i for i in study.images if (i.laterality, i.view) == (side, v)] for v in ("CC", "MLO"))
                if cc and mlo and _read_birads(cc[0]) and _read_birads(cc[0]) == _read_birads(mlo[0]):
                    states = tuple(_describe_image(i, ASSESSMENT_TEXTS[_read_birads(i)]) for i in (cc[0], mlo[0]))
                    ids = _finding_ids(cc[0], mlo[0])
                    yield Fact(TYPE_D, (cc[0], mlo[0]), _read_birads(cc[0]), tuple(ASSESSMENT_TEXTS), ids, states=states)


def build_facts(patients: list[Patient]) -> Iterator[Fact]:
    """What types A to D can ask of these patients."""
    yield from _iter_suspicion_facts(patients)
    yield from _iter_forecast_facts(patients)
    yield from _iter_view_facts(patients)
    yield from _iter_assessment_facts(patients)


def build_single_facts(patients: list[Patient]) -> Iterator[Fact]:
    """What the types compare, image by image: view, assessment, suspicious or not."""
    for image in (i for p in patients for i in p.iter_images()):
        if image.view in ("CC", "MLO"):
            yield Fact(VIEW_TEMPLATE, (image,), image.view, ("CC", "MLO"), _finding_ids(image, name="view"))
        if letter := _read_birads(image):
            yield Fact(BIRADS_TEMPLATE, (image,), letter, tuple(ASSESSMENT_TEXTS), _finding_ids(image))
            if letter in SUSPICIOUS or letter in CLEAR:
                yield Fact(
                    FINDING_TEMPLATE, (image,), "yes" if letter in SUSPICIOUS else "no", ("yes", "no"), _finding_ids(image)
                )
