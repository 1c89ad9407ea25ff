"""What code demands of a written question. Each check gives reasons in words, for people and for the writer's next try."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from medmim.questions.prompt import IMAGE_PLACEHOLDER, strip_placeholders
from medmim.questions.rewriting.facts import extract_facts, normalize_line, referenced_images
from medmim.questions.validation import check_row

ANCHOR_WORDS = frozenset(["left", "right", "both", "yes", "no", "not", "without", "never", "neither", "nor", "more", "less"])
"""Words whose place in a text matters where there are several of them, as it does with references to images."""
LETTER_PREFIX = re.compile(r"^\(?[A-Za-z][):.]\s")
MAX_EXTRA_WORDS = 1
"""Words by which an option may grow more than another."""


def max_text_bytes(text: str) -> int:
    """Bytes that a text written for another may have."""
    return 2 * len(text.encode()) + 200


def check_form(name: str, new: str, old: str) -> list[str]:
    """That a text is one line of words, of no unlikely length."""
    faults = []
    if not new.strip():
        return [f"{name} is empty"]
    if IMAGE_PLACEHOLDER in new or "<image" in new.lower():
        faults.append(f"{name} has an <image> placeholder: they are put in front of it by themselves")
    if any(ord(c) < 32 and c not in "\n\t" for c in new) or "\ufffd" in new:
        faults.append(f"{name} has characters that are no text")
    if len(normalize_line(new).encode()) > max_text_bytes(old):
        faults.append(f"{name} is too long: {len(normalize_line(new).encode())} bytes, at most {max_text_bytes(old)}")
    return faults


def _format_facts(facts: Iterable[str]) -> str:
    return ", ".join(f"image {f[1:]}" if f.startswith("#") else f'"{f}"' for f in dict.fromkeys(facts))


def check_image_references(name: str, facts: Sequence[str], images: int) -> list[str]:
    """That a text refers to images that there are."""
    unknown_images = sorted(n for n in referenced_images(facts) if not 1 <= n <= images)
    return [f"{name} refers to image {n}, but there are {images}" for n in unknown_images]


def check_facts_preserved(name: str, new: Sequence[str], required: Collection[str], allowed: Collection[str]) -> list[str]:
    """That a text says what it must, and nothing that it may not: images and facts alike."""
    faults = []
    if lost := [f for f in required if f not in new]:
        faults.append(f"{name} leaves out {_format_facts(lost)}")
    if added := [f for f in new if f not in allowed]:
        faults.append(f"{name} adds {_format_facts(added)}")
    return faults


def _count_anchors(facts: Iterable[str]) -> int:
    return sum(f.startswith("#") or f in ANCHOR_WORDS for f in facts)


def check_fact_order(name: str, new: Sequence[str], old: Sequence[str]) -> list[str]:
    """That facts keep their order where several images, sides or denials could change places."""
    if _count_anchors(old) > 1 and list(new) != list(old):
        return [f"{name} has its facts in another order or number: {_format_facts(old)} must follow each other so"]
    return []


def check_options(new: Sequence[str], old: Sequence[str], images: int) -> list[str]:
    """That there are the same options in the same order, in other words at most: just one is right, the same as before.

    Which one that is has no part in it, or what is accepted would tell.
    """
    if len(new) != len(old):
        return [f"{len(new)} options, but there are {len(old)}"]
    faults: list[str] = []
    facts = [extract_facts(o, images) for o in old]
    for n, (text, before) in enumerate(zip(new, old, strict=True)):
        name = f"option {n + 1}"
        new_facts = extract_facts(text, images)
        faults += check_form(name, text, before)
        faults += check_image_references(name, new_facts, images)
        faults += check_facts_preserved(name, new_facts, facts[n], facts[n]) or check_fact_order(name, new_facts, facts[n])
        if (not facts[n] or facts.count(facts[n]) > 1) and normalize_line(text) != normalize_line(before):
            faults.append(f"{name} has nothing of its own that can be checked: leave it as it is")
        if LETTER_PREFIX.match(text) and not LETTER_PREFIX.match(before):
            faults.append(f"{name} begins with a letter: letters are put in front of it by themselves")
    normalized = [normalize_line(t).lower().rstrip(".") for t in new]
    if len(set(normalized)) < len(normalized):
        faults.append("two options are the same")
    growth = [len(t.split()) - len(o.split()) for t, o in zip(new, old, strict=True)]
    if max(growth) - min(growth) > MAX_EXTRA_WORDS:
        faults.append("the options are not reworded alike: some grew and others did not")
    return faults


def check_answer_leak(question: str, before: str, answer: str, others: Sequence[str], images: int) -> list[str]:
    """That a question does not tell its answer: the answer's words, or what tells it from other options, unless it did before."""
    question_facts, known_facts = extract_facts(question, images), extract_facts(before, images)
    telling_facts = set(extract_facts(answer, images)).difference(known_facts, *(extract_facts(o, images) for o in others))
    if leaked_facts := [f for f in question_facts if f in telling_facts]:
        return [f"the question gives the answer away: {_format_facts(leaked_facts)}"]
    phrase = normalize_line(answer).lower().strip(" .")
    words = rf"(?<!\w){re.escape(phrase)}(?!\w)"
    if (
        len(phrase) > 2
        and re.search(words, normalize_line(question).lower())
        and not re.search(words, normalize_line(before).lower())
    ):
        return ["the question has the answer in it"]
    return []


def check_rewritten_question(new: str, row: Mapping[str, Any]) -> list[str]:
    """That a question asks what the row's question does."""
    images, old = len(row["image_ids"]), strip_placeholders(row["question"])
    new_facts, facts = extract_facts(new, images), extract_facts(old, images)
    faults = check_form("the question", new, old) + check_image_references("the question", new_facts, images)
    faults += check_facts_preserved("the question", new_facts, facts, facts) or check_fact_order("the question", new_facts, facts)
    for option in row["options"] or [row["answer"]]:  # of every option, so that what is rejected does not depend on the gold
        faults += check_answer_leak(new, old, option, [o for o in row["options"] if o != option], images)
    return list(dict.fromkeys(faults))


def check_rewritten_answer(new: str, row: Mapping[str, Any]) -> list[str]:
    """That an open answer says what the row's answer does; it may repeat what is asked."""
    images = len(row["image_ids"])
    new_facts, facts = extract_facts(new, images), extract_facts(row["answer"], images)
    question_facts = extract_facts(strip_placeholders(row["question"]), images)
    faults = check_form("the answer", new, row["answer"]) + check_image_references("the answer", new_facts, images)
    return faults + (
        check_facts_preserved("the answer", new_facts, facts, {*facts, *question_facts})
        or check_fact_order("the answer", new_facts, facts)
    )


def check_open_question(question: str, answer: str, row: Mapping[str, Any], findings: Iterable[str]) -> list[str]:
    """That an open question and its answer say together what the closed question and its gold do.

    `findings`: the facts it rests on, in words, which both may name; what tells the answer may not stand in the question.
    """
    images, old = len(row["image_ids"]), strip_placeholders(row["question"])
    old_facts, gold_facts = extract_facts(old, images), extract_facts(row["answer"], images)
    known_facts = {*old_facts, *gold_facts, *(t for f in findings for t in extract_facts(f, images))}
    question_facts, answer_facts = extract_facts(question, images), extract_facts(answer, images)
    faults = check_form("the question", question, old) + check_form("the answer", answer, old + row["answer"])
    faults += check_image_references("the question", question_facts, images) + check_image_references(
        "the answer", answer_facts, images
    )
    faults += check_facts_preserved("the question", question_facts, (), known_facts) + check_facts_preserved(
        "the answer", answer_facts, gold_facts, known_facts
    )
    if lost := [f for f in old_facts if f not in question_facts and f not in answer_facts]:
        faults.append(f"neither question nor answer has {_format_facts(lost)}")
    answer_gold_facts = [f for f in answer_facts if f in gold_facts]
    return (
        faults
        + check_fact_order("the answer", answer_gold_facts, gold_facts)
        + check_answer_leak(question, old, row["answer"], (), images)
    )


def check_written_row(row: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """That the row as a whole can be used, and is another than the one before."""
    faults = check_row(row)
    if row["options"] and row["answer_index"] != before["answer_index"] and before["options"]:
        faults.append("another option is right than before")
    if row["qa_id"] == before["qa_id"]:
        faults.append("nothing is worded otherwise")
    return faults
