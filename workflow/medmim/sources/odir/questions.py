"""The held-out set odir: what the left and the right fundus of one person show."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from medmim.questions.balance import select_fair
from medmim.questions.cohort import Image, Patient, hash_position
from medmim.questions.templates import IMAGE_OPTION_STYLES, Fact, Template
from medmim.sources.odir.keywords import Diagnoses, find_truth, is_false, parse_diagnoses

EACH_TEMPLATE = Template(
    task="odir",
    form="each",
    ability="coreference",
    set="odir",
    wordings=(
        "What is the diagnosis of the {eye} eye, image {n}?",
        "Both eyes of one person are shown. What is the diagnosis of image {n}, the {eye} eye?",
        "Which diagnosis fits the {eye} fundus in image {n}?",
        "Look at image {n}, the {eye} fundus. What is the diagnosis?",
        "How do you diagnose the {eye} eye in image {n}?",
        "Name the diagnosis of the {eye} fundus, image {n}.",
    ),
    further=(
        "Image {n} shows the {eye} eye of this person. Which diagnosis was made?",
        "Which diagnosis describes the fundus in image {n}?",
        "Read the {eye} fundus, image {n}. What do you diagnose?",
        "Of the two fundus photographs, consider image {n}, the {eye} eye. What is its diagnosis?",
        "What was diagnosed in the {eye} eye, image {n}?",
        "How would an ophthalmologist label image {n}, the {eye} fundus?",
        "Choose the diagnosis of image {n}.",
        "Which label fits the {eye} eye shown in image {n}?",
        "Examine image {n}. Which diagnosis of the {eye} eye does it support?",
        "Decide on a diagnosis for the {eye} eye, which is image {n}.",
        "What is the diagnostic label of the {eye} fundus in image {n}?",
        "The {eye} eye is image {n}. Which of the diagnoses applies to it?",
        "Inspect disc, vessels and macula of image {n}. What is the diagnosis of this {eye} eye?",
        "For the {eye} eye, image {n}, which diagnosis was recorded?",
        "Two fundus photographs, one person: what is the diagnosis of image {n}, the {eye} eye?",
    ),
    open_wordings=(
        "Describe the {eye} fundus in image {n}.",
        "What do you find in image {n}, the {eye} eye?",
        "State the diagnosis of image {n}.",
        "Tell me the diagnosis of the {eye} eye.",
        "Report on the {eye} fundus.",
        "Say how image {n} is diagnosed.",
    ),
    open_further=(
        "Give the diagnosis of the {eye} eye in image {n}.",
        "Assess image {n}, the {eye} fundus.",
        "What is your diagnosis of image {n}?",
        "Examine the {eye} fundus in image {n} and report what it shows.",
        "Read image {n} as an ophthalmologist would.",
        "What does the fundus in image {n} show?",
        "Explain what you see in the {eye} eye, image {n}.",
        "Write the finding for the {eye} eye, image {n}.",
        "Look at the {eye} eye in image {n}. What is the diagnosis?",
        "State the diagnosis of the {eye} fundus in image {n}.",
        "How would you label the fundus in image {n}?",
        "Diagnose the {eye} eye, shown in image {n}.",
        "Identify the condition of the {eye} eye in image {n}.",
        "Which condition is seen in image {n}, the {eye} eye?",
        "Put the diagnosis of image {n} into words.",
    ),
    open_answers=(
        "The diagnosis of the {eye} eye, which is shown in image {n}, is {gold}.",
        "Image {n} shows the {eye} eye of this person, and its diagnosis is {gold}.",
        "For the {eye} fundus in image {n}, the diagnosis is {gold}.",
    ),
)
COMPARISONS = {True: "both eyes have the same diagnosis", False: "the two eyes have different diagnoses"}
BOTH_TEMPLATE = Template(
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
    further=(
        "The left fundus comes first, then the right. What are their diagnoses?",
        "Which line gives the diagnoses of left and right eye correctly?",
        "Read the two fundus photographs. What is the diagnosis of each eye?",
        "Assign a diagnosis to each of the two eyes.",
        "What would an ophthalmologist diagnose in the left and in the right eye?",
        "For both eyes of this person, which diagnoses were recorded?",
        "Choose the pair of diagnoses that matches images 1 and 2.",
        "How are the left eye and the right eye to be labelled?",
        "Consider each eye by itself. Which combination of diagnoses is right?",
        "Which combination describes image 1, the left eye, and image 2, the right eye?",
        "Two eyes of one person are shown. What is the diagnosis of each?",
        "Decide on the diagnosis of each fundus image.",
        "Which of these lines is true of the two eyes?",
        "Look at both fundi. Which diagnoses belong to left and right?",
        "What are the diagnoses of the left and the right fundus, in this order?",
    ),
    open_wordings=(
        "Compare the two eyes of this person.",
        "Do both eyes have the same diagnosis?",
        "Describe what the left and the right fundus show.",
        "Do the diagnoses of the two eyes differ?",
        "Report on both fundus images.",
        "Tell me what each eye has.",
    ),
    open_further=(
        "State the diagnosis of each eye.",
        "What is the diagnosis of the left eye, and what of the right?",
        "Give the findings of both eyes.",
        "Describe images 1 and 2, the left and the right eye.",
        "Assess both eyes of this person and compare them.",
        "Are the two eyes alike? Say what each of them shows.",
        "Read both fundus photographs and report.",
        "Which diagnoses do you make, left and right?",
        "Explain what is found in each of the two eyes.",
        "Write a short report on both fundus photographs.",
        "Label each of the two fundus images.",
        "Summarize the state of the left and the right fundus.",
        "Examine both eyes. What do you diagnose?",
        "Diagnose the left eye and the right eye.",
        "Set the left fundus against the right: what is the diagnosis of each?",
    ),
    open_answers=(
        "{comparison}: the left eye is diagnosed as {left}, and the right eye as {right}.",
        "{comparison}. The diagnosis of the left eye, image 1, is {left}, and that of the right eye, image 2, is {right}.",
    ),
)
WHERE_TEMPLATE = Template(
    task="odir",
    form="where",
    ability="comparison",
    set="odir",
    wordings=(
        "Which fundus image has the diagnosis of {diagnosis}?",
        "Which of the two eyes has the diagnosis of {diagnosis}?",
        "To which image does the diagnosis of {diagnosis} apply?",
        "Look at both eyes. Which image has the diagnosis of {diagnosis}?",
        "Which image fits the diagnosis of {diagnosis}?",
        "One person, two eyes. For which image is the diagnosis {diagnosis}?",
    ),
    further=(
        "Which of the fundus images is labelled as {diagnosis}?",
        "Which image of this pair of eyes was labelled as {diagnosis}?",
        "The label {diagnosis} is to be placed. To which image does it belong?",
        "Check the diagnosis of each eye. Which image has that of {diagnosis}?",
        "To which of the two fundus photographs does the label {diagnosis} apply?",
        "Left eye first, right eye second: which image has the diagnosis of {diagnosis}?",
        "For which photograph of this pair is {diagnosis} the right diagnosis?",
        "Decide for which image {diagnosis} is the diagnosis.",
        "Of this person's eyes, which has the diagnosis of {diagnosis}?",
        "The diagnosis in question is {diagnosis}. To which of the photographs does it apply?",
        "Consider both fundi: for which would you record the diagnosis of {diagnosis}?",
        "For which image would an ophthalmologist give the diagnosis of {diagnosis}?",
        "For which of the images is {diagnosis} the right label?",
        "Tell which of these two fundus images was diagnosed as {diagnosis}.",
        "Examine the left and the right fundus. Which has the diagnosis of {diagnosis}?",
    ),
    styles=tuple({**p, "3": "both images", "4": "neither image"} for p in IMAGE_OPTION_STYLES),
    open_wordings=(
        "Say which eye has the diagnosis of {diagnosis}, if any.",
        "Does either eye have the diagnosis of {diagnosis}?",
        "Tell me which eye is diagnosed as {diagnosis}.",
        "Point out the image with the diagnosis of {diagnosis}.",
        "To which of these images does the diagnosis of {diagnosis} apply?",
        "Name the eye or eyes with the diagnosis of {diagnosis}.",
    ),
    open_further=(
        "State which eye or eyes have the diagnosis of {diagnosis}.",
        "In which of the images do you make the diagnosis of {diagnosis}?",
        "Check the diagnosis of both fundus images: which is {diagnosis}?",
        "Which eye would you label as {diagnosis}, if any?",
        "Report which image has the diagnosis of {diagnosis}.",
        "Is the diagnosis of either fundus {diagnosis}? Say of which.",
        "Determine which eye of this pair has the diagnosis of {diagnosis}.",
        "Examine the pair of eyes. Which has the diagnosis of {diagnosis}?",
        "To which image does the label {diagnosis} belong, if to any?",
        "Describe which of the eyes is labelled as {diagnosis}.",
        "Give the image or images diagnosed as {diagnosis}.",
        "Explain which fundus has the diagnosis of {diagnosis}, if any.",
        "Is the diagnosis {diagnosis} in one eye, in both or in none?",
        "Compare both eyes as to the diagnosis of {diagnosis}.",
        "Look at both fundi and say which has the diagnosis of {diagnosis}.",
    ),
    open_answers=(
        "Of the two fundus images of this person, the diagnosis of {diagnosis} applies to {gold}.",
        "The diagnosis of {diagnosis} was made for {gold} of this pair of eyes.",
        "Here {diagnosis} is the diagnosis of {gold}.",
    ),
    open_style={"1": "image 1", "2": "image 2", "3": "both images", "4": "neither image"},
)


def _read_diagnoses(image: Image) -> Diagnoses:
    finding = image.unique_finding("diagnosis")
    return parse_diagnoses(finding.value) if finding else ()


def _iter_eye_pairs(patients: list[Patient]) -> Iterator[tuple[Image, Image]]:
    for patient in patients:
        left, right = ([i for i in patient.iter_images() if i.laterality == side and _read_diagnoses(i)] for side in ("L", "R"))
        if left and right:
            yield left[0], right[0]


def _format_diagnoses(diagnoses: Diagnoses) -> str:
    return " and ".join(diagnoses)


def build_facts(patients: list[Patient]) -> Iterator[Fact]:
    """Of every person: each eye's diagnosis, both together, and in which eye each of the diagnoses is."""
    pairs = list(_iter_eye_pairs(patients))
    all_diagnoses = sorted({_read_diagnoses(i) for pair in pairs for i in pair}, key=_format_diagnoses)
    # To choose from are those that are false of the eye: neither the same in other words, nor a part of it, nor wider.
    choices = {eye: tuple(_format_diagnoses(d) for d in all_diagnoses if d == eye or is_false(d, eye)) for eye in all_diagnoses}
    for pair in pairs:
        for n, eye in enumerate(("left", "right")):
            diagnoses = _read_diagnoses(pair[n])
            yield Fact(
                EACH_TEMPLATE,
                pair,
                _format_diagnoses(diagnoses),
                choices[diagnoses],
                _finding_ids(pair)[n : n + 1],
                {"eye": eye, "n": str(n + 1)},
            )
    yield from _iter_both_facts(pairs)
    for diagnosis in sorted({d for diagnoses in all_diagnoses for d in diagnoses}):
        yield from _iter_where_facts(pairs, diagnosis)


def _finding_ids(pair: tuple[Image, Image]) -> tuple[str, ...]:
    return tuple(f.id for i in pair for f in [i.unique_finding("diagnosis")] if f)


def _iter_both_facts(pairs: list[tuple[Image, Image]]) -> Iterator[Fact]:
    """Two diagnoses in all four ways: a person whose eyes differ, and with the same options one whose eyes are alike.

    Both eyes mostly have one diagnosis, and mostly a common one. Asked of all, the options alone would tell.
    Eyes differ where each one's diagnosis is false of the other; where it may be true, one option would be as right as another.
    """
    alike: defaultdict[Diagnoses, list[tuple[Image, Image]]] = defaultdict(list)
    unlike = []
    for pair in sorted(pairs, key=lambda pair: hash_position(pair[0].image_id)):
        left, right = map(_read_diagnoses, pair)
        if left == right:
            alike[left].append(pair)
        elif is_false(left, right) and is_false(right, left):
            unlike.append(pair)
    use_counts: Counter[tuple[Diagnoses, ...]] = Counter()
    for pair in unlike:
        both = tuple(sorted(map(_read_diagnoses, pair), key=_format_diagnoses))
        alike_diagnoses = [d for d in (both if use_counts[both] % 2 else both[::-1]) if alike[d]]
        if alike_diagnoses:
            use_counts[both] += 1
            for asked_pair in (pair, alike[alike_diagnoses[0]].pop()):
                gold = _format_pair(*map(_read_diagnoses, asked_pair))
                choices = tuple(_format_pair(a, b) for a in both for b in both)
                named = [_format_diagnoses(_read_diagnoses(i)) for i in asked_pair]
                fields = {"left": named[0], "right": named[1], "comparison": COMPARISONS[named[0] == named[1]]}
                yield Fact(BOTH_TEMPLATE, asked_pair, gold, choices, _finding_ids(asked_pair), fields)


def _format_pair(left: Diagnoses, right: Diagnoses) -> str:
    return f"left {_format_diagnoses(left)}, right {_format_diagnoses(right)}"


def _iter_where_facts(pairs: list[tuple[Image, Image]], diagnosis: str) -> Iterator[Fact]:
    """Where a diagnosis is, of so many persons that each place is as likely: of all, a rare one would be in neither.

    A person of whom the keywords leave open whether an eye has it is not asked about.
    """
    golds = {("true", "false"): "1", ("false", "true"): "2", ("true", "true"): "3", ("false", "false"): "4"}
    pair_golds = [
        (pair, golds[truths])
        for pair in sorted(pairs, key=lambda pair: hash_position(pair[0].image_id, diagnosis))
        if (truths := (find_truth(diagnosis, _read_diagnoses(pair[0])), find_truth(diagnosis, _read_diagnoses(pair[1])))) in golds
    ]
    for (pair, gold), is_kept in zip(pair_golds, select_fair([g for _, g in pair_golds], len(golds)), strict=True):
        if is_kept:
            yield Fact(WHERE_TEMPLATE, pair, gold, ("1", "2", "3", "4"), _finding_ids(pair), {"diagnosis": diagnosis})
