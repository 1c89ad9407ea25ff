"""Templates and the one place where facts become questions: wording, options, their order, balance.

A source module states facts (`Fact`): these images, this gold, these plausible alternatives. `rows_from_facts` turns facts into
rows of the qa table. Every draw comes from a generator seeded by (seed, content of the fact), so a fact keeps its
wording, distractors and order as data are added; balancing then changes as few of them as it can.
"""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from medmim.questions.balance import assign_places, find_cap
from medmim.questions.cohort import Image
from medmim.questions.row import Row, question_row

GENERATOR = "templates/2"
SLACK = 0.1
"""How far the commonest gold of a task may exceed its fair share; what is beyond is left out, or text alone would win.
Chance in small numbers, 0.5 / sqrt(facts), is allowed on top."""

FEW_WORDINGS = 7
"""Wordings of a task's form that are taken first: a tiny model learns from few."""

IMAGE_OPTION_STYLES: tuple[Mapping[str, str], ...] = (
    {"1": "image 1", "2": "image 2", "3": "image 3"},
    {"1": "the first image", "2": "the second image", "3": "the third image"},
)
"""Option wordings of questions that ask for an image."""


INNER_END_PATTERN = re.compile(r"[.?!:] ")
"""Ends a sentence within a wording: what is shown is said there already."""


class Phrase(str):
    """A noun or name as a format field: `{view:a}` has the indefinite article in front, by how it is said: an MLO view."""

    __slots__ = ()

    def __format__(self, way: str) -> str:
        if way == "a":
            return f"{'an' if VOWEL_SOUND_PATTERN.match(self) else 'a'} {self}"
        return super().__format__(way)


VOWEL_SOUND_PATTERN = re.compile(r"[AEFHILMNORSX](?=[A-Z0-9]{0,2}\b)|[AaEeIiOo](?=[a-z])|[Uu](?!ni|se)(?=[a-z])")
"""Begins with a vowel as it is said: letters that are spelled out (MLO; FLAIR is said as a word), or a word."""


@dataclass(frozen=True)
class Template:
    """How one task is worded. Texts are format strings over the fact's `asked` fields.

    `styles` map a class to its option text (a class without one is its own text); one style is used per question.
    An open answer is one of `open_answers`, where {gold} is the gold's option text, or, where a sentence needs another form
    of it, its text in `open_style`; {meaning} is the gold's sentence in `meanings`. One sentence of each of `open_details`
    follows. A wording of one sentence may follow one of `contexts`, which say what is shown. Contexts and details are left
    out where the number of wordings is limited. Without `open_wordings` there is no open form; `open_task` names the open
    form's task where the release names it apart. `further` wordings follow the
    first FEW. `form` tells templates of one task apart: each is balanced by itself. `is_open_counterpart`: facts with an
    answer of their
    own are the open counterpart of closed ones, and only the open share of them is kept. `max_facts`: facts beyond which no
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
    open_style: Mapping[str, str] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    open_details: tuple[tuple[str, ...], ...] = ()
    contexts: tuple[str, ...] = ()
    open_task: str = ""
    max_options: int = 4
    set: str = ""
    form: str = ""
    is_open_counterpart: bool = False
    max_facts: int = 20_000

    def select_wordings(self, kind: str, most: int | None) -> tuple[str, ...]:
        """Wordings of the closed or the open form, at most so many."""
        first, further = (self.wordings, self.further) if kind == "closed" else (self.open_wordings, self.open_further)
        return first + further if most is None else first[:most] + further[: max(0, most - FEW_WORDINGS)]

    def draw_wording(self, kind: str, most: int | None, lot: int) -> str:
        """The wording for a number drawn for the question, after a context where it takes one."""
        wordings = self.select_wordings(kind, most)
        lot, place = divmod(lot, len(wordings))
        wording = wordings[place]
        if most is not None or not self.contexts or INNER_END_PATTERN.search(wording):
            return wording
        context = ("", *self.contexts)[lot % (1 + len(self.contexts))]
        return f"{context} {wording}" if context else wording

    def draw_open_answer(self, most: int | None, lot: int) -> str:
        """The open answer's sentences for a number drawn for the question."""
        sentences = []
        for alternatives in (self.open_answers, *(self.open_details if most is None else ())):
            lot, place = divmod(lot, len(alternatives))
            sentences.append(alternatives[place])
        return " ".join(filter(None, sentences))


@dataclass(frozen=True)
class Fact:
    """Something a question can be asked about: its images in order, the gold class and the classes to choose from.

    `asks_for_image`: the question asks for images[0] among all; its place, and with it the gold, is set by `rows_from_facts`.
    `states`: what each image shows, in words, for text-only questions; empty where it can't be told per image.
    `answer`: an open answer stated by the source; such a fact has no closed form.
    `is_disputed`: the source's experts disagree on the gold.
    """

    template: Template
    images: tuple[Image, ...]
    gold: str = ""
    choices: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    text_fields: Mapping[str, str] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    asks_for_image: bool = False
    answer: str = ""
    is_disputed: bool = False
    variant: int = 0


@dataclass(slots=True)
class _Draft:
    """A fact on its way: what has been drawn for it."""

    fact: Fact
    rank: bytes
    kind: str
    shift: int
    uniforms: list[float]
    option_lots: list[float]
    gold: str
    place: int = 0
    letter: int = 0
    distractors: list[str] = field(default_factory=list)


def _seed_words(number: int) -> list[int]:
    """A number as numpy's SeedSequence takes it in: 32-bit words, the lowest first."""
    return [number >> shift & 0xFFFFFFFF for shift in range(0, max(1, number.bit_length()), 32)]


def _draft_from_fact(fact: Fact, seed: list[int], open_fraction: float) -> _Draft:
    template = fact.template
    images = sorted(i.image_id for i in fact.images) if fact.asks_for_image else [i.image_id for i in fact.images]
    content = "|".join(
        [
            template.task,
            template.form,
            fact.images[0].image_id,
            *images,
            fact.gold,
            fact.answer,
            *sorted(fact.text_fields.values()),
        ]
    )
    rank = hashlib.sha256(content.encode()).digest()
    pool = len(fact.images) if fact.asks_for_image else len(fact.choices)
    # as default_rng([seed, variant, *rank[:16]]), which takes several times as long to read the list
    rng = np.random.Generator(np.random.PCG64(np.array([*seed, fact.variant, *rank[:16]], np.uint32)))
    uniforms = rng.random(4 + pool).tolist()
    kind = "open" if fact.answer or (template.open_wordings and uniforms[0] < open_fraction) else "closed"
    shift = int.from_bytes(rank[16:20], "big")
    return _Draft(fact, rank, kind, shift, uniforms[:4], uniforms[4:], fact.gold)


def _count_options(fact: Fact) -> int:
    """Options of the fact's closed form."""
    return len(fact.images) if fact.asks_for_image else min(len(fact.choices), fact.template.max_options)


def _place_and_balance(drafts: list[_Draft]) -> list[_Draft]:
    """Drafts of one template, number of images and variant: the images asked for get their places, and golds that have
    more than SLACK beyond their fair share are cut, those last in order of content first."""
    drafts.sort(key=lambda d: d.rank)
    if drafts[0].fact.asks_for_image:
        for draft, place in zip(drafts, assign_places([d.uniforms[1] for d in drafts], len(drafts[0].fact.images)), strict=True):
            draft.place, draft.gold = place, str(place + 1)
    golds = Counter(d.gold for d in drafts)
    chance_excess = 0.5 / math.sqrt(len(drafts))  # a few facts are never quite even: don't throw those away
    cap = find_cap(list(golds.values()), min(1, 1 / len(golds) + SLACK + chance_excess))
    taken: Counter[str] = Counter()
    balanced = []
    for draft in drafts:
        taken[draft.gold] += 1
        if draft.fact.answer or taken[draft.gold] <= cap:
            balanced.append(draft)
    return balanced


def _draw_options(drafts: list[_Draft], natural: bool) -> None:
    """Give closed drafts of one template, number of options and variant their distractors and the gold's letter.

    Distractors are drawn in proportion to how often they are gold: else the option that is gold most often would show.
    In natural order the letter follows from the gold; golds being even, letters nearly are.
    """
    size, asks_for_image = _count_options(drafts[0].fact), drafts[0].fact.asks_for_image
    golds = Counter(d.gold for d in drafts)
    for draft, letter in zip(drafts, assign_places([d.uniforms[2] for d in drafts], size), strict=True):
        draft.letter = letter
        choices = [str(i + 1) for i in range(size)] if asks_for_image else list(draft.fact.choices)
        lots = {c: -math.log(1 - lot) for c, lot in zip(choices, draft.option_lots, strict=True)}
        others = sorted((c for c in choices if c != draft.gold), key=lambda c: lots[c] / (golds[c] or 1e-9))
        draft.distractors = sorted(others[: size - 1], key=lots.__getitem__)
        if natural:
            draft.distractors.sort(key=choices.index)
            draft.letter = sum(choices.index(c) < choices.index(draft.gold) for c in draft.distractors)


def _order_images(draft: _Draft) -> tuple[list[Image], list[str]]:
    """Images as they are shown, and what each shows in words: the one asked for stands at the draft's place."""
    fact = draft.fact
    images, states = list(fact.images), list(fact.states)
    if not fact.asks_for_image:
        return images, states
    rest = sorted(range(1, len(images)), key=draft.option_lots.__getitem__)
    order = [*rest[: draft.place], 0, *rest[draft.place :]]
    return [images[i] for i in order], [states[i] for i in order] if states else []


SENTENCE_START_PATTERN = re.compile(r"^[a-z]|(?<=[.?!] )[a-z]")


def _word_options(draft: _Draft, most_wordings: int | None) -> tuple[list[str], str]:
    """Options of a closed question, none of an open one, and the answer."""
    fact, template = draft.fact, draft.fact.template
    style = template.styles[int(draft.uniforms[3] * len(template.styles))]

    def format_choice(choice: str) -> str:
        return style[choice].format(**fact.text_fields) if choice in style else choice

    gold = format_choice(draft.gold)
    if draft.kind == "closed":
        options = [format_choice(c) for c in draft.distractors]
        options.insert(draft.letter, gold)
        return options, fact.answer or gold
    if fact.answer:
        return [], fact.answer
    open_gold = template.open_style.get(draft.gold, gold)
    fields = {"gold": open_gold, "meaning": template.meanings.get(draft.gold, "")} | dict(fact.text_fields)
    sentences = template.draw_open_answer(most_wordings, draft.shift + fact.variant).format(**fields)
    return [], SENTENCE_START_PATTERN.sub(lambda start: start[0].upper(), sentences)


def _row_from_draft(draft: _Draft, split: str, source: str, text_only: bool, most_wordings: int | None) -> Row:
    fact, template = draft.fact, draft.fact.template
    images, states = _order_images(draft)
    text = template.draw_wording(draft.kind, most_wordings, draft.shift + fact.variant).format(**fact.text_fields)
    options, answer = _word_options(draft, most_wordings)
    if text_only:
        text = " ".join([*(f"Image {n}: {s}." for n, s in enumerate(states, 1)), text])
    task = (template.open_task or template.task) if draft.kind == "open" else template.task
    return question_row(
        split=split,
        ability="text" if text_only else template.ability,
        set="text" if text_only else template.set or template.ability,
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


def rows_from_facts(
    facts: Iterable[Fact],
    *,
    split: str,
    source: str,
    seed: int,
    open_fraction: float = 0.0,
    open_fractions: Mapping[str, float] = MappingProxyType({}),
    natural: bool = False,
    text_only: bool = False,
    wordings: int | None = None,
) -> list[Row]:
    """Rows of the qa table for the facts, in order of content.

    Letters, and the places of images asked for, are equally frequent per task, number of options and variant; golds
    that are more than SLACK above their fair share are thinned out. `natural` leaves the options in the order of the
    fact's choices (then letters are as even as golds); else they are shuffled. `open_fractions`: by set, in place of
    `open_fraction`. `text_only` states in words what the
    images show and shows none; facts without states, or whose answer is the source's own text, have no such form.
    """
    groups: defaultdict[tuple[object, ...], list[_Draft]] = defaultdict(list)
    seed_words = _seed_words(seed)
    for fact in facts:
        if text_only and (fact.answer or not fact.states):
            continue
        if len({i.image_id for i in fact.images}) < len(fact.images):
            continue  # an image is compared with itself
        fraction = open_fractions.get(fact.template.set or fact.template.ability, open_fraction)
        draft = _draft_from_fact(fact, seed_words, 0.0 if text_only else fraction)
        if not fact.template.is_open_counterpart or draft.uniforms[0] < fraction:
            groups[fact.template.task, fact.template.form, len(fact.images), fact.variant].append(draft)
    rows: dict[str, Row] = {}
    for key in sorted(groups, key=repr):
        drafts = _place_and_balance(groups[key])
        closed: defaultdict[int, list[_Draft]] = defaultdict(list)
        for draft in drafts:
            if draft.kind == "closed":
                closed[_count_options(draft.fact)].append(draft)
        for same_size in closed.values():
            _draw_options(same_size, natural)
        for draft in drafts:
            row = _row_from_draft(draft, split, source, text_only, wordings)
            rows.setdefault(row["qa_id"], row)
    return list(rows.values())
