"""The held-out set rad: VQA-RAD's questions about one image each, joined into questions about two or three images.

Closed: which answers are right for the images in turn (yes/no questions), or to which image an answer belongs.
Open: the questions in turn, answered in turn.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

from medmim.qa.cohort import Patient, Ring, position
from medmim.qa.templates import PLACES, Fact, Template
from medmim.qa.turns import Turn, evidence, numbered, turns

SPLITS = ("benchmark",)
OFTEN = 3
"""A yes/no question asked this often and always answered alike is left out: its text alone would tell."""

JOINED = Template(
    task="vqa_rad",
    form="joined",
    ability="reasoning",
    set="rad",
    most=3,
    wordings=(
        "{questions} Which answers are right?",
        "Each image has its own question. {questions} Choose the right answers.",
        "Answer for every image. {questions}",
        "{questions} Which line answers all of them?",
        "Look at the images in turn. {questions} Pick the answers.",
        "Go through the images one by one. {questions}",
    ),
)
WHICH = Template(
    task="vqa_rad",
    form="which",
    ability="coreference",
    set="rad",
    wordings=(
        "The question is: {question} For which image is the answer {answer}?",
        "{question} For one image the answer is {answer}. Which one?",
        "Ask of each image: {question} Which image gets the answer {answer}?",
        "To which image does the answer {answer} belong? The question: {question}",
        "Find the image with the answer {answer} to this question: {question}",
        "Only one image has the answer {answer} to: {question} Which image is it?",
    ),
    styles=PLACES,
)
OPEN = Template(
    task="vqa_rad",
    form="open",
    ability="reasoning",
    set="rad",
    thin=True,
    open_wordings=(
        "Answer one question for each image. {questions}",
        "{questions} Answer for every image.",
        "Look at the images in turn and answer. {questions}",
        "Each image has its own question. {questions}",
        "Go through the images one by one. {questions}",
        "{questions} Give the answers in order of the images.",
    ),
)


def _yes_no(turn: Turn) -> str:
    answer = turn.answer.lower().rstrip(".")
    return answer if answer in ("yes", "no") else ""


def _joined(turn: Turn, ring: Ring[Turn], *salt: str) -> list[Turn]:
    """The turn and one or two others of other images; empty where there are not enough."""
    n = 1 + position(turn.key, *salt) % 2
    others = ring.draw(n, {turn.image.patient_id}, lambda t: t.image.patient_id, turn.key, *salt)
    return [turn, *others] if len(others) == n else []


def facts(patients: list[Patient]) -> Iterator[Fact]:
    """Every turn once as the first of a joined question of its kind, and once as the answer asked for, where it can."""
    every = [t for p in patients for i in p.images() for t in turns(i)]
    closed = [t for t in every if _yes_no(t)]
    answers = defaultdict(list)
    for turn in closed:
        answers[turn.question.lower()].append(_yes_no(turn))
    told = {q for q, given in answers.items() if len(given) >= OFTEN and len(set(given)) == 1}
    closed = [t for t in closed if t.question.lower() not in told]
    ring = Ring(closed, key=lambda t: t.key)
    for turn in closed:
        if joined := _joined(turn, ring):
            choices = tuple(numbered(answers) for answers in product(("yes", "no"), repeat=len(joined)))
            asked = {"questions": numbered(t.question for t in joined)}
            gold = numbered(_yes_no(t) for t in joined)
            yield Fact(JOINED, tuple(t.image for t in joined), gold, choices, evidence(joined), asked)
    yield from _which(every)
    ring = Ring(every, key=lambda t: t.key)
    for turn in every:
        if joined := _joined(turn, ring, "open"):
            asked = {"questions": numbered(t.question for t in joined)}
            images = tuple(t.image for t in joined)
            yield Fact(OPEN, images, findings=evidence(joined), asked=asked, answer=numbered(t.answer for t in joined))


def _which(every: list[Turn]) -> Iterator[Fact]:
    """Images asked the same question, one of which has an answer that the others have not."""
    same: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in every:
        same[turn.question.lower()].append(turn)
    for asked in same.values():
        rings = {
            a: Ring([t for t in asked if t.answer.lower() != a], key=lambda t: t.key) for a in {t.answer.lower() for t in asked}
        }
        for turn in asked:
            if shown := _joined(turn, rings[turn.answer.lower()], "which"):
                words = {"question": turn.question, "answer": turn.answer.lower()}
                yield Fact(WHICH, tuple(t.image for t in shown), findings=evidence(shown), asked=words, which=True)


def singles(patients: list[Patient]) -> Iterator[Fact]:
    """None: a held-out source trains nothing."""
    return iter(())
