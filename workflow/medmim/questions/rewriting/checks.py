"""What code demands of a written question. Each check gives reasons in words, for people and for the writer's next try."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from medmim.questions.prompt import IMAGE, blind
from medmim.questions.rewriting.facts import line, references, tokens
from medmim.questions.validation import problems

ANCHORS = frozenset(["left", "right", "both", "yes", "no", "not", "without", "never", "neither", "nor", "more", "less"])
"""Words whose place in a text matters where there are several of them, as it does with references to images."""
LETTER = re.compile(r"^\(?[A-Za-z][):.]\s")
GROWTH = 1
"""Words by which an option may grow more than another."""


def longest(text: str) -> int:
    """Bytes that a text written for another may have."""
    return 2 * len(text.encode()) + 200


def form(name: str, new: str, old: str) -> list[str]:
    """That a text is one line of words, of no unlikely length."""
    found = []
    if not new.strip():
        return [f"{name} is empty"]
    if IMAGE in new or "<image" in new.lower():
        found.append(f"{name} has an <image> placeholder: they are put in front of it by themselves")
    if any(ord(c) < 32 and c not in "\n\t" for c in new) or "\ufffd" in new:
        found.append(f"{name} has characters that are no text")
    if len(line(new).encode()) > longest(old):
        found.append(f"{name} is too long: {len(line(new).encode())} bytes, at most {longest(old)}")
    return found


def _told(facts: Iterable[str]) -> str:
    return ", ".join(f"image {f[1:]}" if f.startswith("#") else f'"{f}"' for f in dict.fromkeys(facts))


def shown(name: str, facts: Sequence[str], images: int) -> list[str]:
    """That a text refers to images that there are."""
    beyond = sorted(n for n in references(facts) if not 1 <= n <= images)
    return [f"{name} refers to image {n}, but there are {images}" for n in beyond]


def kept(name: str, new: Sequence[str], required: Collection[str], allowed: Collection[str]) -> list[str]:
    """That a text says what it must, and nothing that it may not: images and facts alike."""
    found = []
    if lost := [f for f in required if f not in new]:
        found.append(f"{name} leaves out {_told(lost)}")
    if added := [f for f in new if f not in allowed]:
        found.append(f"{name} adds {_told(added)}")
    return found


def _anchors(facts: Iterable[str]) -> int:
    return sum(f.startswith("#") or f in ANCHORS for f in facts)


def ordered(name: str, new: Sequence[str], old: Sequence[str]) -> list[str]:
    """That facts keep their order where several images, sides or denials could change places."""
    if _anchors(old) > 1 and list(new) != list(old):
        return [f"{name} has its facts in another order or number: {_told(old)} must follow each other so"]
    return []


def options(new: Sequence[str], old: Sequence[str], images: int) -> list[str]:
    """That there are the same options in the same order, in other words at most: just one is right, the same as before.

    Which one that is has no part in it, or what is accepted would tell.
    """
    if len(new) != len(old):
        return [f"{len(new)} options, but there are {len(old)}"]
    found: list[str] = []
    facts = [tokens(o, images) for o in old]
    for n, (text, before) in enumerate(zip(new, old, strict=True)):
        name = f"option {n + 1}"
        told = tokens(text, images)
        found += form(name, text, before)
        found += shown(name, told, images)
        found += kept(name, told, facts[n], facts[n]) or ordered(name, told, facts[n])
        if (not facts[n] or facts.count(facts[n]) > 1) and line(text) != line(before):
            found.append(f"{name} has nothing of its own that can be checked: leave it as it is")
        if LETTER.match(text) and not LETTER.match(before):
            found.append(f"{name} begins with a letter: letters are put in front of it by themselves")
    same = [line(t).lower().rstrip(".") for t in new]
    if len(set(same)) < len(same):
        found.append("two options are the same")
    growth = [len(t.split()) - len(o.split()) for t, o in zip(new, old, strict=True)]
    if max(growth) - min(growth) > GROWTH:
        found.append("the options are not reworded alike: some grew and others did not")
    return found


def leaks(question: str, before: str, answer: str, others: Sequence[str], images: int) -> list[str]:
    """That a question does not tell its answer: the answer's words, or what tells it from other options, unless it did before."""
    asked, known = tokens(question, images), tokens(before, images)
    told = set(tokens(answer, images)).difference(known, *(tokens(o, images) for o in others))
    if given := [f for f in asked if f in told]:
        return [f"the question gives the answer away: {_told(given)}"]
    phrase = line(answer).lower().strip(" .")
    words = rf"(?<!\w){re.escape(phrase)}(?!\w)"
    if len(phrase) > 2 and re.search(words, line(question).lower()) and not re.search(words, line(before).lower()):
        return ["the question has the answer in it"]
    return []


def rewritten_question(new: str, row: Mapping[str, Any]) -> list[str]:
    """That a question asks what the row's question does."""
    images, old = len(row["image_ids"]), blind(row["question"])
    told, facts = tokens(new, images), tokens(old, images)
    found = form("the question", new, old) + shown("the question", told, images)
    found += kept("the question", told, facts, facts) or ordered("the question", told, facts)
    for option in row["options"] or [row["answer"]]:  # of every option, so that what is rejected does not depend on the gold
        found += leaks(new, old, option, [o for o in row["options"] if o != option], images)
    return list(dict.fromkeys(found))


def rewritten_answer(new: str, row: Mapping[str, Any]) -> list[str]:
    """That an open answer says what the row's answer does; it may repeat what is asked."""
    images = len(row["image_ids"])
    told, facts = tokens(new, images), tokens(row["answer"], images)
    asked = tokens(blind(row["question"]), images)
    found = form("the answer", new, row["answer"]) + shown("the answer", told, images)
    return found + (kept("the answer", told, facts, {*facts, *asked}) or ordered("the answer", told, facts))


def opened(question: str, answer: str, row: Mapping[str, Any], findings: Iterable[str]) -> list[str]:
    """That an open question and its answer say together what the closed question and its gold do.

    `findings`: the facts it rests on, in words, which both may name; what tells the answer may not stand in the question.
    """
    images, old = len(row["image_ids"]), blind(row["question"])
    asked, gold = tokens(old, images), tokens(row["answer"], images)
    known = {*asked, *gold, *(t for f in findings for t in tokens(f, images))}
    new, told = tokens(question, images), tokens(answer, images)
    found = form("the question", question, old) + form("the answer", answer, old + row["answer"])
    found += shown("the question", new, images) + shown("the answer", told, images)
    found += kept("the question", new, (), known) + kept("the answer", told, gold, known)
    if lost := [f for f in asked if f not in new and f not in told]:
        found.append(f"neither question nor answer has {_told(lost)}")
    told_order = [f for f in told if f in gold]
    return found + ordered("the answer", told_order, gold) + leaks(question, old, row["answer"], (), images)


def made(row: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """That the row as a whole can be used, and is another than the one before."""
    found = problems(row)
    if row["options"] and row["answer_index"] != before["answer_index"] and before["options"]:
        found.append("another option is right than before")
    if row["qa_id"] == before["qa_id"]:
        found.append("nothing is worded otherwise")
    return found
