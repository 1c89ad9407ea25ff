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

NUMBER_WORDS = {
    w: n
    for n, w in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 1)
}
ORDINAL_WORDS = {
    w: n for n, w in enumerate(["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], 1)
}
ORDINAL_WORDS |= {"1st": 1, "2nd": 2, "3rd": 3, **{f"{n}th": n for n in range(4, 11)}}
IMAGE_NOUN = (
    r"(?:image|picture|photo(?:graph)?|scan|mammogram|radiograph|x-?ray|film|mri|slice|figure|panel|view|fundus|exam(?:ination)?"
    r"|study|visit)"
)
IMAGE_NOUNS = rf"(?:{IMAGE_NOUN}s|mris|x-?rays|fundi|studies)"
NUMBER_PATTERN = rf"(?:\d+|{'|'.join(NUMBER_WORDS)})\b"
NUMBERED_IMAGES = re.compile(
    rf"\b(?:{IMAGE_NOUN}|{IMAGE_NOUNS})\s*(?:no\.?|nr\.?|number|#)?\s*({NUMBER_PATTERN}(?:\s*(?:,\s*and|,|and|or|&|to|-|–)\s*{NUMBER_PATTERN})*)",
    re.I,
)
RANGE_PATTERN = re.compile(r"(\d+)\s*(?:-|–|to)\s*(\d+)")
COUNTED_IMAGES = re.compile(
    rf"\b(both|two|three|four|five|six|[2-9])(?=\s+(?:of\s+)?(?:the\s+|these\s+)?(?:[\w-]+\s+){{0,2}}?{IMAGE_NOUNS}\b)", re.I
)
LAST_IMAGE = re.compile(rf"\b(?:last|final)(?=\s+(?:of\s+the\s+)?(?:[\w-]+\s+)?(?:{IMAGE_NOUN}|{IMAGE_NOUNS})\b)", re.I)
WORD_PATTERN = re.compile(r"#\d+|\d+(?:[.,]\d+)*(?!\w)|\w+(?:[-'/]\w+)*")
CONTRACTIONS = {"can't": "can not", "won't": "will not", "cannot": "can not", "n't": " not"}


def normalize_line(text: str) -> str:
    """The text on one line, in the usual form of its characters."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").replace("‐", "-").replace("‑", "-").split())


_english_stem = EnglishStemmer().stem


@cache
def _load_everyday_words() -> frozenset[str]:
    return frozenset((Path(__file__).parent / "everyday.txt").read_text(encoding="utf-8").split())


@cache
def stem_word(word: str) -> str:
    """A word without its ending, so that its forms are one."""
    return str(_english_stem(word.removesuffix("'s")))


def _parse_number(word: str) -> int:
    return 2 if word == "both" else NUMBER_WORDS.get(word) or int(word)


def _parse_numbers(text: str) -> list[int]:
    """Numbers of images: `1, 2 and 4`, `1-3`, `two`."""
    numbers = [n for a, b in RANGE_PATTERN.findall(text) for n in range(int(a), min(int(b), int(a) + 20) + 1)]
    return list(dict.fromkeys(numbers + [_parse_number(w.lower()) for w in re.findall(NUMBER_PATTERN, text, re.I)]))


def _mark_count(word: str, images: int) -> str:
    return " " if _parse_number(word) == images else f" {_parse_number(word)} images-of-{images} "


def _mark_references(text: str, images: int) -> list[str]:
    """Words of a text, with `#2` for a reference to image 2."""
    text = normalize_line(text)
    for short, long in CONTRACTIONS.items():
        text = text.replace(short, long)
    text = NUMBERED_IMAGES.sub(lambda m: " ".join(f" #{n}" for n in _parse_numbers(m[1])) + " ", text)
    text = LAST_IMAGE.sub(f" #{images} ", text)
    text = COUNTED_IMAGES.sub(lambda m: _mark_count(m[1].lower(), images), text)
    places = ORDINAL_WORDS | {"former": 1, "latter": images}
    return [f"#{places[w.lower()]}" if w.lower() in places else w for w in WORD_PATTERN.findall(text)]


def _fact_from_word(word: str) -> str:
    """What a word says, if it is no everyday one."""
    lower_word = word.lower()
    if lower_word.startswith("#"):
        return lower_word
    if lower_word in NUMBER_WORDS:
        return "" if lower_word == "one" else str(NUMBER_WORDS[lower_word])
    return "" if lower_word in _load_everyday_words() and lower_word != "both" else stem_word(lower_word)


def extract_facts(text: str, images: int) -> list[str]:
    """Facts of a text in their order: stems of words that are not everyday ones, and `#2` for a reference to image 2.

    `images`: how many are shown, so that "the last image" is one of them and "both images" says nothing new.
    """
    return [fact for word in _mark_references(text, images) if (fact := _fact_from_word(word))]


def protected_words(text: str, images: int) -> list[str]:
    """Words of a text that a writer must leave in it, as they are spelt, each once; its references to images aside."""
    return [
        w
        for w in dict.fromkeys(_mark_references(text, images))
        if not w.startswith("#") and "-of-" not in w and _fact_from_word(w)
    ]


def referenced_images(facts: Sequence[str]) -> set[int]:
    """Images that tokens refer to."""
    return {int(t[1:]) for t in facts if t.startswith("#")}
