"""Single-image questions of a source, and how several of them become one question about several images."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medmim.questions.cohort import Image
from medmim.questions.prompt import blind


@dataclass(frozen=True)
class Turn:
    """One question the source asks of one image; `kind` is the source's own word for the answer's type, or empty."""

    image: Image
    number: str
    question: str
    answer: str
    kind: str
    findings: tuple[str, ...]

    @property
    def key(self) -> str:
        """Unique within the source."""
        return f"{self.image.image_id}|{self.number}"


def turns(image: Image) -> list[Turn]:
    """The questions stated of an image as findings qa:<n>:question, qa:<n>:answer and, if given, qa:<n>:answer_type."""
    found = []
    for name, stated in image.facts.items():
        if name.startswith("qa:") and name.endswith(":question"):
            number = name.split(":")[1]
            answer, kind = image.one(f"qa:{number}:answer"), image.one(f"qa:{number}:answer_type")
            if answer and blind(stated[0].value) and answer.value.strip():
                question = _line(blind(stated[0].value))
                ids = (stated[0].id, answer.id)
                found.append(Turn(image, number, question, _line(answer.value), kind.value if kind else "", ids))
    return found


def _line(text: str) -> str:
    return " ".join(text.split())


class Joined(str):
    """Texts about images in turn, `Image 1: …. Image 2: ….`; as a format field it points at the images in other ways too:
    `{questions:in}` is "In the first image, …" (WAYS)."""

    __slots__ = ("texts",)
    texts: tuple[str, ...]

    def __new__(cls, texts: Iterable[str]) -> "Joined":
        """Of one text an image, in the images' order."""
        told = tuple(texts)
        joined = super().__new__(cls, _pointed(told, ""))
        joined.texts = told
        return joined

    def __format__(self, way: str) -> str:
        return _pointed(self.texts, way)


NTH = ("first", "second", "third", "fourth")
WAYS = {
    "": "Image {n}: ",
    "number": "For image {n}: ",
    "nth": "{Nth} image: ",
    "for": "For the {nth} image: ",
    "about": "About the {nth} image: ",
    "in": "In the {nth} image, ",
}
POINTERS = {way: [said.format(n=n, nth=nth, Nth=nth.capitalize()) for n, nth in enumerate(NTH, 1)] for way, said in WAYS.items()}
OPENING = re.compile(
    r"(?:An?|Are|Can|Could|Did|Do|Does|Has|Have|How|Is|The|There|Was|Were|What|When|Where|Which|Who|Whose|Why|Would)\b"
    r"(?!.*\b(?:image|figure|picture|photograph)\b)"
)
"""Begins a question that goes on after "In the first image,": small, and without naming the image again."""


def _pointed(texts: Sequence[str], way: str) -> str:
    parts = []
    for n, text in enumerate(texts):
        begun = way == "in" and OPENING.match(text)
        pointer = POINTERS["for" if way == "in" and not begun else way][n]
        said = text[0].lower() + text[1:] if begun else text
        parts.append(f"{pointer}{said}{'' if text.endswith(('.', '?', '!')) else '.'}")
    return " ".join(parts)


def numbered(texts: Iterable[str]) -> str:
    """`Image 1: …. Image 2: ….`"""
    return str(Joined(texts))


def evidence(joined: Sequence[Turn]) -> tuple[str, ...]:
    """Findings that all the turns rest on."""
    return tuple(f for t in joined for f in t.findings)
