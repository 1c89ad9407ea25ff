"""What a text says, as far as code can tell: the images it refers to, and its words that are not everyday ones.

A writer may change everyday words (everyday.txt), their order and their form. All other words, numbers, sides, "no", "not",
"before", "larger" and the like among them, are taken for facts: none may be lost, none added.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from nltk.stem.snowball import EnglishStemmer

NUMBERS = {
    w: n
    for n, w in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 1)
}
ORDINALS = {
    w: n for n, w in enumerate(["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], 1)
}
ORDINALS |= {"1st": 1, "2nd": 2, "3rd": 3, **{f"{n}th": n for n in range(4, 11)}}
NOUN = (
    r"(?:image|picture|photo(?:graph)?|scan|mammogram|radiograph|x-?ray|film|mri|slice|figure|panel|view|fundus|exam(?:ination)?"
    r"|study|visit)"
)
NOUNS = rf"(?:{NOUN}s|mris|x-?rays|fundi|studies)"
NUMBER = rf"(?:\d+|{'|'.join(NUMBERS)})\b"
NUMBERED = re.compile(
    rf"\b(?:{NOUN}|{NOUNS})\s*(?:no\.?|nr\.?|number|#)?\s*({NUMBER}(?:\s*(?:,\s*and|,|and|or|&|to|-|–)\s*{NUMBER})*)", re.I
)
RANGE = re.compile(r"(\d+)\s*(?:-|–|to)\s*(\d+)")
COUNTED = re.compile(
    rf"\b(both|two|three|four|five|six|[2-9])(?=\s+(?:of\s+)?(?:the\s+|these\s+)?(?:[\w-]+\s+){{0,2}}?{NOUNS}\b)", re.I
)
LAST = re.compile(rf"\b(?:last|final)(?=\s+(?:of\s+the\s+)?(?:[\w-]+\s+)?(?:{NOUN}|{NOUNS})\b)", re.I)
WORD = re.compile(r"#\d+|\d+(?:[.,]\d+)*(?!\w)|\w+(?:[-'/]\w+)*")
LONG = {"can't": "can not", "won't": "will not", "cannot": "can not", "n't": " not"}


def line(text: str) -> str:
    """The text on one line, in the usual form of its characters."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").replace("‐", "-").replace("‑", "-").split())


_stem = EnglishStemmer().stem


@cache
def _everyday() -> frozenset[str]:
    return frozenset((Path(__file__).parent / "everyday.txt").read_text().split())


@cache
def stem(word: str) -> str:
    """A word without its ending, so that its forms are one."""
    return str(_stem(word.removesuffix("'s")))


def _number(word: str) -> int:
    return 2 if word == "both" else NUMBERS.get(word) or int(word)


def _listed(text: str) -> list[int]:
    """Numbers of images: `1, 2 and 4`, `1-3`, `two`."""
    found = [n for a, b in RANGE.findall(text) for n in range(int(a), min(int(b), int(a) + 20) + 1)]
    return list(dict.fromkeys(found + [_number(w.lower()) for w in re.findall(NUMBER, text, re.I)]))


def _counted(word: str, images: int) -> str:
    return " " if _number(word) == images else f" {_number(word)} images-of-{images} "


def _marked(text: str, images: int) -> list[str]:
    """Words of a text, with `#2` for a reference to image 2."""
    text = line(text)
    for short, long in LONG.items():
        text = text.replace(short, long)
    text = NUMBERED.sub(lambda m: " ".join(f" #{n}" for n in _listed(m[1])) + " ", text)
    text = LAST.sub(f" #{images} ", text)
    text = COUNTED.sub(lambda m: _counted(m[1].lower(), images), text)
    places = ORDINALS | {"former": 1, "latter": images}
    return [f"#{places[w.lower()]}" if w.lower() in places else w for w in WORD.findall(text)]


def _fact(word: str) -> str:
    """What a word says, if it is no everyday one."""
    small = word.lower()
    if small.startswith("#"):
        return small
    if small in NUMBERS:
        return "" if small == "one" else str(NUMBERS[small])
    return "" if small in _everyday() and small != "both" else stem(small)


def tokens(text: str, images: int) -> list[str]:
    """Facts of a text in their order: stems of words that are not everyday ones, and `#2` for a reference to image 2.

    `images`: how many are shown, so that "the last image" is one of them and "both images" says nothing new.
    """
    return [fact for word in _marked(text, images) if (fact := _fact(word))]


def protected(text: str, images: int) -> list[str]:
    """Words of a text that a writer must leave in it, as they are spelt, each once; its references to images aside."""
    return [w for w in dict.fromkeys(_marked(text, images)) if not w.startswith("#") and "-of-" not in w and _fact(w)]


def references(facts: Sequence[str]) -> set[int]:
    """Images that tokens refer to."""
    return {int(t[1:]) for t in facts if t.startswith("#")}
