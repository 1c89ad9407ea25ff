"""Templates and the one place where facts become questions: wording, options, their order, balance.

A source module states facts (`Fact`): these images, this gold, these plausible alternatives. `ask` turns facts into
rows of the qa table. Every draw comes from a generator seeded by (seed, content of the fact), so a fact keeps its
wording, distractors and order as data are added; balancing then changes as few of them as it can.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from medmim.questions.balance import level, places
from medmim.questions.cohort import Image
from medmim.questions.row import Row, question_row

GENERATOR = "templates/1"
SLACK = 0.1
"""How far the commonest gold of a task may exceed its fair share; what is beyond is left out, or text alone would win.
Chance in small numbers, 0.5 / sqrt(facts), is allowed on top."""

FEW = 7
"""Wordings of a task's form that are taken first: a tiny model learns from few."""

PLACES: tuple[Mapping[str, str], ...] = (
    {"1": "image 1", "2": "image 2", "3": "image 3"},
    {"1": "the first image", "2": "the second image", "3": "the third image"},
)
"""Option wordings of questions that ask for an image."""


@dataclass(frozen=True)
class Template:
    """How one task is worded. Texts are format strings over the fact's `asked` fields.

    `styles` map a class to its option text (a class without one is its own text); one style is used per question.
    An open answer is one of `open_answers`, where {gold} is the gold's option text. Without `open_wordings` there is
    no open form; `open_task` names the open form's task where the release names it apart. `further` wordings follow the
    first FEW. `form` tells templates of one task apart: each is balanced by itself. `thin`: facts with an answer of their
    own are the open counterpart of closed ones, and only the open share of them is kept. `enough`: facts beyond which no
    more are taken of a split, and none is asked twice.
    """

    task: str
    ability: str
    wordings: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    styles: tuple[Mapping[str, str], ...] = ({},)
    open_wordings: tuple[str, ...] = ()
    open_further: tuple[str, ...] = ()
    open_answers: tuple[str, ...] = ("{gold}",)
    open_task: str = ""
    most: int = 4
    set: str = ""
    form: str = ""
    thin: bool = False
    enough: int = 20_000

    def worded(self, kind: str, most: int | None) -> tuple[str, ...]:
        """Wordings of the closed or the open form, at most so many."""
        few, further = (self.wordings, self.further) if kind == "closed" else (self.open_wordings, self.open_further)
        return few + further if most is None else few[:most] + further[: max(0, most - FEW)]


@dataclass(frozen=True)
class Fact:
    """Something a question can be asked about: its images in order, the gold class and the classes to choose from.

    `which`: the question asks for images[0] among all; its place, and with it the gold, is set by `ask`.
    `states`: what each image shows, in words, for text-only questions; empty where it can't be told per image.
    `answer`: an open answer stated by the source; such a fact has no closed form.
    """

    template: Template
    images: tuple[Image, ...]
    gold: str = ""
    choices: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    asked: Mapping[str, str] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    which: bool = False
    answer: str = ""
    variant: int = 0


@dataclass(slots=True)
class _Draft:
    """A fact on its way: what has been drawn for it."""

    fact: Fact
    rank: bytes
    kind: str
    shift: int
    u: list[float]
    lots: list[float]
    gold: str
    place: int = 0
    letter: int = 0
    others: list[str] = field(default_factory=list)


def _entropy(number: int) -> list[int]:
    """A number as numpy's SeedSequence takes it in: 32-bit words, the lowest first."""
    return [number >> shift & 0xFFFFFFFF for shift in range(0, max(1, number.bit_length()), 32)]


def _draft(fact: Fact, seed: list[int], open_fraction: float) -> _Draft:
    t = fact.template
    images = sorted(i.image_id for i in fact.images) if fact.which else [i.image_id for i in fact.images]
    content = "|".join([t.task, t.form, fact.images[0].image_id, *images, fact.gold, fact.answer, *sorted(fact.asked.values())])
    rank = hashlib.sha256(content.encode()).digest()
    pool = len(fact.images) if fact.which else len(fact.choices)
    # as default_rng([seed, variant, *rank[:16]]), which takes several times as long to read the list
    rng = np.random.Generator(np.random.PCG64(np.array([*seed, fact.variant, *rank[:16]], np.uint32)))
    u = rng.random(4 + pool).tolist()
    kind = "open" if fact.answer or (t.open_wordings and u[0] < open_fraction) else "closed"
    shift = int.from_bytes(rank[16:20], "big")
    return _Draft(fact, rank, kind, shift, u[:4], u[4:], fact.gold)


def _size(fact: Fact) -> int:
    """Options of the fact's closed form."""
    return len(fact.images) if fact.which else min(len(fact.choices), fact.template.most)


def _placed(drafts: list[_Draft]) -> list[_Draft]:
    """Drafts of one template, number of images and variant: the images asked for get their places, and golds that have
    more than SLACK beyond their fair share are cut, those last in order of content first."""
    drafts.sort(key=lambda d: d.rank)
    if drafts[0].fact.which:
        for draft, place in zip(drafts, places([d.u[1] for d in drafts], len(drafts[0].fact.images)), strict=True):
            draft.place, draft.gold = place, str(place + 1)
    golds = Counter(d.gold for d in drafts)
    chance_excess = 0.5 / math.sqrt(len(drafts))  # a few facts are never quite even: don't throw those away
    cap = level(list(golds.values()), min(1, 1 / len(golds) + SLACK + chance_excess))
    taken: Counter[str] = Counter()
    kept = []
    for draft in drafts:
        taken[draft.gold] += 1
        if draft.fact.answer or taken[draft.gold] <= cap:
            kept.append(draft)
    return kept


def _optioned(drafts: list[_Draft], natural: bool) -> None:
    """Give closed drafts of one template, number of options and variant their distractors and the gold's letter.

    Distractors are drawn in proportion to how often they are gold: else the option that is gold most often would show.
    In natural order the letter follows from the gold; golds being even, letters nearly are.
    """
    size, which = _size(drafts[0].fact), drafts[0].fact.which
    golds = Counter(d.gold for d in drafts)
    for draft, letter in zip(drafts, places([d.u[2] for d in drafts], size), strict=True):
        draft.letter = letter
        choices = [str(i + 1) for i in range(size)] if which else list(draft.fact.choices)
        lots = {c: -math.log(1 - lot) for c, lot in zip(choices, draft.lots, strict=True)}
        others = sorted((c for c in choices if c != draft.gold), key=lambda c: lots[c] / (golds[c] or 1e-9))
        draft.others = sorted(others[: size - 1], key=lots.__getitem__)
        if natural:
            draft.others.sort(key=choices.index)
            draft.letter = sum(choices.index(c) < choices.index(draft.gold) for c in draft.others)


def _row(draft: _Draft, split: str, source: str, text_only: bool, most_wordings: int | None) -> Row:
    fact, t = draft.fact, draft.fact.template
    images, states = list(fact.images), list(fact.states)
    if fact.which:
        rest = sorted(range(1, len(images)), key=draft.lots.__getitem__)
        order = [*rest[: draft.place], 0, *rest[draft.place :]]
        images, states = [images[i] for i in order], [states[i] for i in order] if states else []
    style = t.styles[int(draft.u[3] * len(t.styles))]
    wordings = t.worded(draft.kind, most_wordings)
    text = wordings[(draft.shift + fact.variant) % len(wordings)].format(**fact.asked)

    def worded(choice: str) -> str:
        return style[choice].format(**fact.asked) if choice in style else choice

    gold = worded(draft.gold)
    options: list[str] = []
    answer = fact.answer or gold
    if draft.kind == "closed":
        options = [worded(c) for c in draft.others]
        options.insert(draft.letter, gold)
    elif not fact.answer:
        answers = t.open_answers
        answer = answers[(draft.shift + fact.variant) % len(answers)].format(gold=gold, **fact.asked)
        answer = answer[:1].upper() + answer[1:]
    if text_only:
        text = " ".join([*(f"Image {n}: {s}." for n, s in enumerate(states, 1)), text])
    task = (t.open_task or t.task) if draft.kind == "open" else t.task
    return question_row(
        split=split,
        ability="text" if text_only else t.ability,
        set="text" if text_only else t.set or t.ability,
        task=f"pretrain_text_{task}" if text_only else task,
        text=text,
        options=options,
        answer=answer,
        answer_index=draft.letter if options else None,
        image_ids=() if text_only else [i.image_id for i in images],
        patient_ids=[i.patient_id for i in images],
        source=source,
        generator=GENERATOR,
        findings=fact.findings,
    )


def ask(
    facts: Iterable[Fact],
    *,
    split: str,
    source: str,
    seed: int,
    open_fraction: float = 0.0,
    natural: bool = False,
    text_only: bool = False,
    wordings: int | None = None,
) -> list[Row]:
    """Rows of the qa table for the facts, in order of content.

    Letters, and the places of images asked for, are equally frequent per task, number of options and variant; golds
    that are more than SLACK above their fair share are thinned out. `natural` leaves the options in the order of the
    fact's choices (then letters are as even as golds); else they are shuffled. `text_only` states in words what the
    images show and shows none; facts without states, or whose answer is the source's own text, have no such form.
    """
    groups: defaultdict[tuple[object, ...], list[_Draft]] = defaultdict(list)
    words = _entropy(seed)
    for fact in facts:
        if text_only and (fact.answer or not fact.states):
            continue
        if len({i.image_id for i in fact.images}) < len(fact.images):
            continue  # an image is compared with itself
        draft = _draft(fact, words, 0.0 if text_only else open_fraction)
        if not fact.template.thin or draft.u[0] < open_fraction:
            groups[fact.template.task, fact.template.form, len(fact.images), fact.variant].append(draft)
    rows: dict[str, Row] = {}
    for key in sorted(groups, key=repr):
        drafts = _placed(groups[key])
        closed: defaultdict[int, list[_Draft]] = defaultdict(list)
        for draft in drafts:
            if draft.kind == "closed":
                closed[_size(draft.fact)].append(draft)
        for same in closed.values():
            _optioned(same, natural)
        for draft in drafts:
            row = _row(draft, split, source, text_only, wordings)
            rows.setdefault(row["qa_id"], row)
    return list(rows.values())
