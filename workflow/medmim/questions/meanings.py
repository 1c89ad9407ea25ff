"""Whether two names or short answers of a source say the same, whatever their spelling, order and width.

A source keeps its thesaurus: small tables of names that mean the same, that one includes the other, or that may both be true.
A name's meaning is its words: more words say something narrower, "macular epiretinal membrane" is an epiretinal membrane.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

WORD_PATTERN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
SUSPICION_WORDS = frozenset(("suspected", "suspicious", "possible", "probable"))


class Entry(NamedTuple):
    """A line of a thesaurus: two names, what they have to do with each other being the table's matter, and who says so."""

    name: str
    other: str
    source: str


@dataclass(frozen=True)
class Meaning:
    """The words of a name, and those with all wider ones that they include."""

    words: frozenset[str]
    implied_words: frozenset[str]
    is_suspected: bool


def _list_words(text: str) -> list[str]:
    return WORD_PATTERN.findall(unicodedata.normalize("NFKC", text).lower())


def _strip_plural(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


class Thesaurus:
    """Tables of what a source's names mean.

    `same`: `other` is written `name`. `wider`: whatever is `name` is `other`, too. `overlapping`: neither includes the other, but
    both may be true. `aspects`: words that exclude each other within a group, and say nothing of what another group says.
    `filler_words` mean nothing.
    """

    def __init__(
        self,
        *,
        same: Iterable[Entry] = (),
        wider: Iterable[Entry] = (),
        overlapping: Iterable[Entry] = (),
        aspects: Iterable[Collection[str]] = (),
        filler_words: Collection[str] = (),
    ) -> None:
        pairs = {" ".join(_list_words(e.other)): " ".join(_list_words(e.name)) for e in same}
        self._preferred_names = dict(sorted(pairs.items(), key=lambda pair: (-len(pair[0]), pair[0])))
        names = "|".join(map(re.escape, self._preferred_names))
        self._name_pattern = re.compile(rf"(?<![\w-])(?:{names or '(?!)'})(?![\w-])")
        self._filler_words = frozenset(filler_words)
        self._aspects = {self._select_word(word): number for number, group in enumerate(aspects) for word in group}
        self._wider = [(self._select_words(e.name), self._select_words(e.other)) for e in wider]
        self._overlapping = [(self._select_words(e.name), self._select_words(e.other)) for e in overlapping]
        # As long as this thesaurus lives, which is as long as its module.
        self.read_meaning = cache(self._read_meaning)
        self.may_agree = cache(self._may_agree)

    def rename(self, text: str) -> str:
        """The text in small letters, without punctuation, and in preferred names."""
        return self._name_pattern.sub(lambda match: self._preferred_names[match[0]], " ".join(_list_words(text)))

    def _select_word(self, word: str) -> str:
        return _strip_plural(self.rename(word))

    def _select_words(self, text: str) -> frozenset[str]:
        words = self.rename(text).split()
        return frozenset(_strip_plural(w) for w in words if w not in self._filler_words)

    def _read_meaning(self, text: str) -> Meaning:
        """What a text means."""
        all_words = self._select_words(text)
        words = all_words - SUSPICION_WORDS
        implied_words, previous = words, frozenset[str]()
        while implied_words != previous:
            previous = implied_words
            for narrower, wider in self._wider:
                if narrower <= implied_words:
                    implied_words |= wider
        return Meaning(words, implied_words, is_suspected=words != all_words)

    def implies(self, text: str, other: str) -> bool:
        """Whether the other is true wherever the text is."""
        meaning, other_meaning = self.read_meaning(text), self.read_meaning(other)
        return meaning.is_suspected == other_meaning.is_suspected and other_meaning.words <= meaning.implied_words

    def _may_agree(self, text: str, other: str) -> bool:
        """Whether both may be true at once: one includes or suspects the other, they overlap, or say nothing of each other."""
        a, b = self.read_meaning(text), self.read_meaning(other)
        if a.words <= b.implied_words or b.words <= a.implied_words:
            return True
        if any(
            (x <= a.implied_words and y <= b.implied_words) or (x <= b.implied_words and y <= a.implied_words)
            for x, y in self._overlapping
        ):
            return True
        aspects, other_aspects = (
            {self._aspects.get(w) for w in rest}
            for rest in (a.implied_words - b.implied_words, b.implied_words - a.implied_words)
        )
        return None not in aspects | other_aspects and aspects.isdisjoint(other_aspects)
