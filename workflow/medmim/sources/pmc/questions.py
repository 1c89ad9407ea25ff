"""The composed subset: single-image questions about figures of papers, two to four of them joined into one."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from medmim.questions.cohort import HashRing, Image, Patient, hash_position
from medmim.questions.templates import Fact, Template
from medmim.questions.turns import JoinedTexts, Turn, collect_findings, number_texts, read_turns

DOMAIN_TEXTS = {
    "chest_xray": "chest X-ray",
    "mri": "MRI",
    "histology": "histology",
    "gross": "gross pathology",
    "ct_scan": "CT scan",
}

IMAGE_WORDS = "image|figure|picture|panel|photo|photograph|photomicrograph|micrograph|scan|slide|subfigure|x-ray|radiograph|view"
IMAGE_NOUN = f"(?:{IMAGE_WORDS})"
PLURAL_WORDS = frozenset(f"{word.rpartition('-')[2]}s" for word in IMAGE_WORDS.split("|"))
PLACE_WORDS = (
    "first|second|third|fourth|last|other|next|previous|both|two|three|four|several|multiple|these|those|each|all"
    "|left|right|top|bottom|upper|lower|middle"
)
PLACE_SET = frozenset(PLACE_WORDS.split("|"))
FURTHER_WORD = r"(?!(?:of|in|from|by|with|using|for|that|which|is|are|was|were|has|to|on|at|the|a|before|after)\b)[\w,/-]+"
ONE_OF_SEVERAL = re.compile(rf"\b(?:{PLACE_WORDS})[- ](?:{FURTHER_WORD} ){{0,3}}{IMAGE_NOUN}s?\b")
FIGURE_PART = re.compile(
    rf"\b(?=[fipsxmrv])(?:{IMAGE_NOUN}s? (?:\(?[a-h]\)|\d|(?-i:[A-H])\b)|panels?\b|fig\. ?\w)|\([a-h]\)",
    re.IGNORECASE,
)
"""A lettered or numbered part of a figure. Looking at the first letter before all words halves the time."""
TIMES = r"(?:baseline|follow-?\s?up|previous|prior|earlier|initial|pre-?\w+|post-?\w+)"
SHOWING = (
    "are|were|show|reveal|demonstrate|depict|illustrate|indicate|display|suggest|represent|provided|presented|in (?:this|the)"
)
GROUP = "pairs?|series|sets?|sequence|groups?|collection|number|comparison|types?|kinds?"
SEVERAL_IMAGES = re.compile(
    rf"\bthe (?:{FURTHER_WORD} ){{0,4}}{IMAGE_NOUN}s\b"
    rf"|\b{IMAGE_NOUN}s (?:{SHOWING})\b"
    rf"|\b(?:{GROUP}) of (?:[\w-]+ ){{0,5}}{IMAGE_NOUN}s\b"
    rf"|\b(?:different|various|serial|sequential|subsequent|{TIMES}) (?:[\w-]+ ){{0,2}}{IMAGE_NOUN}s\b"
)
"""Several images by their plural, in a text that has one of PLURAL_WORDS. Bare plurals are what a technique makes in general."""
OTHER_IMAGE = re.compile(
    r"\b(?:compar\w+ (?:to|with)|than (?:in|on)|(?:change\w*|differ\w*) (?:from|since)) (?:the |an? |his |her |their )?"
    rf"{TIMES} (?:[\w-]+ ){{0,2}}(?:{IMAGE_NOUN}s?|ct|mri|stud(?:y|ies)|exam\w*)\b"
    r"|\bbaseline (?:[\w-]+ ){0,2}(?:and|to|versus|vs\.?|with) (?:[\w-]+ ){0,2}follow-?\s?up\b"
    rf"|\b{IMAGE_NOUN}s? (?:on|to|at|in) the (?:left|right|top|bottom|upper|lower|middle|cent(?:er|re))\b"
    r"|\b(?:left|right|top|bottom|upper|lower|middle|each) (?:column|row)\b"
    r"|\b(?:different|various|several|multiple|two|three|four|five|six|each) (?:time ?points?|columns?|rows?)\b"
    r"|\bbefore and after\b|\bpre-? and post-?"
)
"""Another image in time, or beside this one."""
EARLIER_TURN = re.compile(
    r"\b(?:you|as) (?:just )?(?:mentioned|said|described)\b|\b(?:mentioned|described) (?:above|earlier|before)\b"
    r"|\b(?:previous|earlier) (?:answer|question|response)\b|\b(?:what|anything|something) else\b|\bmore about (?:it|this|that)\b"
    r"|^(?:and|also|so|then|ok|okay|thanks|thank you)\b",
    re.IGNORECASE,
)
"""Words that need the turn before."""
COMPOSED_TEMPLATE = Template(
    task="pmc_composed",
    ability="composed",
    max_facts=60_000,
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
DOMAIN_TEMPLATE = Template(
    task="pretrain_pmc_domain",
    ability="single",
    max_options=5,
    wordings=("What kind of image is this?", "Which type of medical image is shown?", "Name the kind of this image."),
    styles=(DOMAIN_TEXTS,),
)
SINGLE_TURN_TEMPLATE = Template(task="pretrain_pmc_turn", ability="single", open_wordings=("{question}",))


def build_facts(patients: list[Patient], most: int = 4) -> Iterator[Fact]:
    """Turns about two to `most` images joined: of different papers, so never of one figure, and of one domain where known."""
    return islice(_iter_composed_facts(patients, most), COMPOSED_TEMPLATE.max_facts)


def _iter_composed_facts(patients: list[Patient], most: int) -> Iterator[Fact]:
    all_turns = [t for p in patients for i in p.iter_images() for t in _read_own_turns(i)]
    domain_by_image = {
        i.image_id: found.value for p in patients for i in p.iter_images() if (found := i.unique_finding("domain"))
    }
    turns_by_domain: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in all_turns:
        turns_by_domain[domain_by_image.get(turn.image.image_id, "")].append(turn)
    rings = {d: HashRing(found, key=lambda t: t.key) for d, found in turns_by_domain.items()}
    shown_keys: set[str] = set()
    for turn in _iter_new_first(all_turns, shown_keys):
        n = 1 + hash_position(turn.key) % (most - 1)
        ring = rings[domain_by_image.get(turn.image.image_id, "")]
        joined = [turn, *ring.draw_distinct(n, {turn.image.patient_id}, lambda t: t.image.patient_id, turn.key)]
        if len(joined) == n + 1:
            shown_keys |= {t.key for t in joined}
            yield Fact(
                COMPOSED_TEMPLATE,
                tuple(t.image for t in joined),
                findings=collect_findings(joined),
                text_fields={"questions": JoinedTexts(t.question for t in joined)},
                answer=number_texts(t.answer for t in joined),
            )


def _iter_new_first(all_turns: list[Turn], shown_keys: set[str]) -> Iterator[Turn]:
    """Every turn once, those last that were `shown_keys` in the meantime: where there are many, few are shown twice."""
    repeats = []
    for turn in sorted(all_turns, key=lambda t: hash_position(t.key)):
        if turn.key in shown_keys:
            repeats.append(turn)
        else:
            yield turn
    yield from repeats


def _read_own_turns(image: Image) -> list[Turn]:
    """Turns about this image alone; none where any of its conversation speaks of several: the others mean them without a word.

    Left out, too, are those that point at a part of the figure or back in the conversation: beside others they are ambiguous.
    """
    turns = read_turns(image)
    if any(_speaks_of_several(turn) for turn in turns):
        return []
    return [t for t in turns if not FIGURE_PART.search(f"{t.question} {t.answer}") and not EARLIER_TURN.search(t.question)]


def _speaks_of_several(turn: Turn) -> bool:
    """Whether a turn speaks of more images than one."""
    text = f"{turn.question} {turn.answer}".lower()
    words = set(re.findall(r"[a-z]+", text))
    return bool(
        (not PLACE_SET.isdisjoint(words) and ONE_OF_SEVERAL.search(text))
        or (not PLURAL_WORDS.isdisjoint(words) and SEVERAL_IMAGES.search(text))
        or OTHER_IMAGE.search(text)
    )


def build_single_facts(patients: list[Patient]) -> Iterator[Fact]:
    """The turns about one image, as they are, and the kind of image."""
    for image in (i for p in patients for i in p.iter_images()):
        for turn in _read_own_turns(image):
            yield Fact(
                SINGLE_TURN_TEMPLATE,
                (image,),
                findings=turn.findings,
                text_fields={"question": turn.question},
                answer=turn.answer,
            )
        domain = image.unique_finding("domain")
        if domain and domain.value in DOMAIN_TEXTS:
            yield Fact(DOMAIN_TEMPLATE, (image,), domain.value, tuple(DOMAIN_TEXTS), (domain.id,))
