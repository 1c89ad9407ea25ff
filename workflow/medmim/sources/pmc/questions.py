"""The composed subset: single-image questions about figures of papers, two to four of them joined into one."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from medmim.questions.cohort import Patient, Ring, position
from medmim.questions.templates import Fact, Template
from medmim.questions.turns import Joined, Turn, evidence, numbered, turns

SPLITS = ("train",)
DOMAINS = {
    "chest_xray": "chest X-ray",
    "mri": "MRI",
    "histology": "histology",
    "gross": "gross pathology",
    "ct_scan": "CT scan",
}

IMAGE = r"(?:image|figure|picture|panel|photo(?:graph|micrograph)?|scan|slide|subfigure|x-ray)"
PLACES = (
    "first|second|third|fourth|last|other|next|previous|both|two|three|four|several|multiple|these|those|each|all"
    "|left|right|top|bottom|upper|lower|middle"
)
PLACE = frozenset(PLACES.split("|"))
ONE_OF_SEVERAL = re.compile(rf"\b(?:{PLACES})(?:[- ]\w+)? {IMAGE}s?\b")
PART = re.compile(
    rf"\b(?=[fipsx])(?:{IMAGE}s? (?:\(?[a-h]\)|\d|are\b|show\b|(?-i:[A-H])\b)|panels?\b|fig\. ?\w)",
    re.IGNORECASE,
)
"""A lettered or numbered part of a figure, or several. Looking at the first letter before all words halves the time."""
EARLIER = re.compile(
    r"\b(?:you|as) (?:just )?(?:mentioned|said|described)\b|\b(?:mentioned|described) (?:above|earlier|before)\b"
    r"|\b(?:previous|earlier) (?:answer|question|response)\b|\b(?:what|anything|something) else\b|\bmore about (?:it|this|that)\b"
    r"|^(?:and|also|so|then|ok|okay|thanks|thank you)\b",
    re.IGNORECASE,
)
"""Words that need the turn before."""
COMPOSED = Template(
    task="pmc_composed",
    ability="composed",
    enough=60_000,
    open_wordings=(
        "Answer one question for each image. {questions}",
        "{questions} Answer for every image.",
        "Look at the images in turn. {questions}",
        "Each image has its own question. {questions}",
        "Go through the images one by one. {questions}",
        "{questions} Give the answers in order of the images.",
        "Read each image and answer. {questions}",
    ),
    open_further=(
        "Here are questions, each about one image. {questions:number}",
        "{questions:number} Answer for each image in turn.",
        "Please answer the following, image by image. {questions:number}",
        "{questions:nth} Answer each question.",
        "Answer what is asked of each image. {questions:nth}",
        "Take the images in order. {questions:nth}",
        "{questions:for} Give an answer for every image.",
        "Study the images before you answer. {questions:for}",
        "One question for each image. {questions:for}",
        "{questions:about} Answer them in this order.",
        "I have a question about each image. {questions:about}",
        "Tell me about these images. {questions:about}",
        "{questions:in}",
        "{questions:in} Please answer for each image.",
        "Look at every image and answer. {questions:in}",
        "These images come from different papers. {questions:in}",
    ),
)
DOMAIN = Template(
    task="pretrain_pmc_domain",
    ability="single",
    most=5,
    wordings=("What kind of image is this?", "Which type of medical image is shown?", "Name the kind of this image."),
    styles=(DOMAINS,),
)
ALONE = Template(task="pretrain_pmc_turn", ability="single", open_wordings=("{question}",))


def facts(patients: list[Patient], most: int = 4) -> Iterator[Fact]:
    """Turns about two to `most` images joined: of different papers, so never of one figure, and of one domain where known."""
    return islice(_compositions(patients, most), COMPOSED.enough)


def _compositions(patients: list[Patient], most: int) -> Iterator[Fact]:
    every = [t for p in patients for i in p.images() for t in turns(i) if not _elsewhere(t)]
    domain = {i.image_id: found.value for p in patients for i in p.images() if (found := i.one("domain"))}
    of_domain: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in every:
        of_domain[domain.get(turn.image.image_id, "")].append(turn)
    rings = {d: Ring(found, key=lambda t: t.key) for d, found in of_domain.items()}
    shown: set[str] = set()
    for turn in _new_first(every, shown):
        n = 1 + position(turn.key) % (most - 1)
        ring = rings[domain.get(turn.image.image_id, "")]
        joined = [turn, *ring.draw(n, {turn.image.patient_id}, lambda t: t.image.patient_id, turn.key)]
        if len(joined) == n + 1:
            shown |= {t.key for t in joined}
            yield Fact(
                COMPOSED,
                tuple(t.image for t in joined),
                findings=evidence(joined),
                asked={"questions": Joined(t.question for t in joined)},
                answer=numbered(t.answer for t in joined),
            )


def _new_first(every: list[Turn], shown: set[str]) -> Iterator[Turn]:
    """Every turn once, those last that were `shown` in the meantime: where there are many, few are shown twice."""
    again = []
    for turn in sorted(every, key=lambda t: position(t.key)):
        if turn.key in shown:
            again.append(turn)
        else:
            yield turn
    yield from again


def _elsewhere(turn: Turn) -> bool:
    """Whether a turn points at other images than its own, or back in its conversation: beside others it would be ambiguous."""
    text = f"{turn.question} {turn.answer}"
    small = text.lower()
    placed = not PLACE.isdisjoint(small.replace("-", " ").split()) and ONE_OF_SEVERAL.search(small)
    return bool(placed or PART.search(text) or EARLIER.search(turn.question))


def singles(patients: list[Patient]) -> Iterator[Fact]:
    """The turns as they are, and the kind of image."""
    for image in (i for p in patients for i in p.images()):
        for turn in turns(image):
            yield Fact(ALONE, (image,), findings=turn.findings, asked={"question": turn.question}, answer=turn.answer)
        found = image.one("domain")
        if found and found.value in DOMAINS:
            yield Fact(DOMAIN, (image,), found.value, tuple(DOMAINS), (found.id,))
