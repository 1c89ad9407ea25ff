"""The held-out set rad: VQA-RAD's questions about one image each, joined into questions about two or three images.

Closed: which answers are right for the images in turn (yes/no questions), or to which image an answer belongs.
Open: the questions in turn, answered in turn.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

from medmim.questions.cohort import HashRing, Patient, hash_position
from medmim.questions.templates import IMAGE_OPTION_STYLES, Fact, Template
from medmim.questions.turns import JoinedTexts, Turn, collect_findings, number_texts, read_turns
from medmim.sources.vqa_rad.answers import may_agree

MIN_BALANCED_REPEATS = 3
"""A yes/no question asked this often is joined as often with one answer as with the other: its text alone would tell."""

JOINED_TEMPLATE = Template(
    task="vqa_rad",
    form="joined",
    ability="reasoning",
    set="rad",
    max_options=3,
    wordings=(
        "{questions} Which answers are right?",
        "Each image has its own question. {questions} Choose the right answers.",
        "Answer for every image. {questions}",
        "{questions} Which line answers all of them?",
        "Look at the images in turn. {questions} Pick the answers.",
        "Go through the images one by one. {questions}",
    ),
    further=(
        "There is one question for each image. {questions} Which line answers them?",
        "{questions} Choose the line with the right answers.",
        "{questions} What are the answers, in the order of the images?",
        "Read every image, then answer its question. {questions}",
        "Take each question with its own image. {questions} Which answers hold?",
        "{questions} Which combination of answers is correct?",
        "Questions about these images: {questions} Which set of answers is right?",
        "Answer each question from the image it names. {questions}",
        "{questions} Decide for each image, then choose the line.",
        "{questions:number} Which answers are right?",
        "Each of these questions concerns one image only. {questions:number} Choose their answers.",
        "{questions:number} Which line is true of all the images?",
        "Examine the images one after the other. {questions:number}",
        "{questions:number} Give the answers in order of the images.",
        "A question is asked of each image. {questions:number} Which answers fit?",
    ),
)
WHICH_TEMPLATE = Template(
    task="vqa_rad",
    form="which",
    ability="coreference",
    set="rad",
    wordings=(
        'The question is: {question} For which image is the answer "{answer}"?',
        '{question} For one image the answer is "{answer}". Which one?',
        'Ask of each image: {question} Which image gets the answer "{answer}"?',
        'To which image does the answer "{answer}" belong? The question: {question}',
        'Find the image with the answer "{answer}" to this question: {question}',
        'Only one image has the answer "{answer}" to this question: {question} Which image is it?',
    ),
    further=(
        'Of each image it is asked: {question} For which image is the answer "{answer}"?',
        '{question} Which image has "{answer}" as its answer?',
        'For one of these images, the answer to the following question is "{answer}". Which image? {question}',
        'The same question is put to all images: {question} Only one gets the answer "{answer}". Which one?',
        'Read the images with this question in mind: {question} To which does the answer "{answer}" apply?',
        'Consider this question for every image: {question} For which one would you answer "{answer}"?',
        '{question} Pick the image for which "{answer}" is the right answer.',
        'Which image makes "{answer}" the right answer to this question? {question}',
        'Someone asked of one of these images: {question} The answer was "{answer}". Which image was it?',
        'Choose the image to which the answer "{answer}" belongs, given the question: {question}',
        'Given the question: {question} For which of the images is the answer "{answer}"?',
        'Answer for each image, then say for which one the answer is "{answer}". {question}',
        'Match the answer "{answer}" to an image. The question: {question}',
        '{question} The answer "{answer}" holds for one image. Which is it?',
        'Look at each image and ask: {question} For which one is "{answer}" correct?',
    ),
    styles=IMAGE_OPTION_STYLES,
)
OPEN_TEMPLATE = Template(
    task="vqa_rad",
    form="open",
    ability="reasoning",
    set="rad",
    is_open_counterpart=True,
    open_wordings=(
        "Answer one question for each image. {questions}",
        "{questions} Answer for every image.",
        "Look at the images in turn and answer. {questions}",
        "Each image has its own question. {questions}",
        "Go through the images one by one. {questions}",
        "{questions} Give the answers in order of the images.",
    ),
    open_further=(
        "Answer every question from its own image. {questions}",
        "{questions} Answer each in turn.",
        "One question is asked of each image. {questions}",
        "Read the images one after the other and answer. {questions}",
        "For each image, answer the question put to it. {questions}",
        "{questions:number} Answer in the order of the images.",
        "Please answer, image by image. {questions:number}",
        "Each image comes with a question. {questions:number}",
        "{questions:nth} Give one answer for each image.",
        "Take the images in order. {questions:nth}",
        "Each question concerns one image only. {questions:nth}",
        "{questions:for} Give a short answer for each.",
        "Study the images, then answer. {questions:for}",
        "{questions:in} Answer them all.",
        "Here is a question about each image. {questions:in}",
    ),
)


def _read_yes_no(turn: Turn) -> str:
    answer = turn.answer.lower().rstrip(".")
    return answer if answer in ("yes", "no") else ""


def _join_turns(turn: Turn, ring: HashRing[Turn], *salt: str) -> list[Turn]:
    """The turn and one or two others of other images; empty where there are not enough."""
    n = 1 + hash_position(turn.key, *salt) % 2
    others = ring.draw_distinct(n, {turn.image.patient_id}, lambda t: t.image.patient_id, turn.key, *salt)
    return [turn, *others] if len(others) == n else []


def _drop_biased(closed: list[Turn]) -> list[Turn]:
    """Yes/no questions without those that make yes or no the likelier answer to the same text."""
    turns_by_text: defaultdict[str, dict[str, list[Turn]]] = defaultdict(lambda: {"yes": [], "no": []})
    for turn in sorted(closed, key=lambda t: hash_position(t.key)):
        turns_by_text[turn.question.lower()][_read_yes_no(turn)].append(turn)
    unbiased = []
    for turns_by_answer in turns_by_text.values():
        yes, no = turns_by_answer.values()
        n = min(len(yes), len(no)) if len(yes) + len(no) >= MIN_BALANCED_REPEATS else None
        unbiased += yes[:n] + no[:n]
    return unbiased


def build_facts(patients: list[Patient]) -> Iterator[Fact]:
    """Every turn once as the first of a joined question of its kind, and once as the answer asked for, where it can."""
    all_turns = [t for p in patients for i in p.iter_images() for t in read_turns(i)]
    closed = _drop_biased([t for t in all_turns if _read_yes_no(t)])
    ring = HashRing(closed, key=lambda t: t.key)
    for turn in closed:
        if joined := _join_turns(turn, ring):
            choices = tuple(number_texts(answers) for answers in product(("yes", "no"), repeat=len(joined)))
            fields = {"questions": JoinedTexts(t.question for t in joined)}
            gold = number_texts(_read_yes_no(t) for t in joined)
            yield Fact(JOINED_TEMPLATE, tuple(t.image for t in joined), gold, choices, collect_findings(joined), fields)
    yield from _iter_which_facts(all_turns)
    ring = HashRing(all_turns, key=lambda t: t.key)
    for turn in all_turns:
        if joined := _join_turns(turn, ring, "open"):
            fields = {"questions": JoinedTexts(t.question for t in joined)}
            images = tuple(t.image for t in joined)
            yield Fact(
                OPEN_TEMPLATE,
                images,
                findings=collect_findings(joined),
                text_fields=fields,
                answer=number_texts(t.answer for t in joined),
            )


def _iter_which_facts(all_turns: list[Turn]) -> Iterator[Fact]:
    """Images asked the same question, of which one alone has the answer: what is answered of the others can't mean the same."""
    turns_by_text: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in all_turns:
        turns_by_text[turn.question.lower()].append(turn)
    for same_text in turns_by_text.values():
        answers_by_image: defaultdict[str, set[str]] = defaultdict(set)
        for turn in same_text:
            answers_by_image[turn.image.image_id].add(turn.answer.lower())
        rings = {
            answer: HashRing(
                [t for t in same_text if not any(may_agree(answer, a) for a in answers_by_image[t.image.image_id])],
                key=lambda t: t.key,
            )
            for answer in {t.answer.lower() for t in same_text}
        }
        for turn in same_text:
            if joined := _join_turns(turn, rings[turn.answer.lower()], "which"):
                fields = {"question": turn.question, "answer": turn.answer.lower()}
                yield Fact(
                    WHICH_TEMPLATE,
                    tuple(t.image for t in joined),
                    findings=collect_findings(joined),
                    text_fields=fields,
                    asks_for_image=True,
                )
