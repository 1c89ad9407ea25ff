"""Single-image questions of a source, and how several of them become one question about several images."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medmim.questions.cohort import Image
from medmim.questions.prompt import strip_placeholders


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


def read_turns(image: Image) -> list[Turn]:
    """The questions stated of an image as findings qa:<n>:question, qa:<n>:answer and, if given, qa:<n>:answer_type."""
    image_turns = []
    for name, questions in image.findings.items():
        if name.startswith("qa:") and name.endswith(":question"):
            number = name.split(":")[1]
            answer, kind = image.unique_finding(f"qa:{number}:answer"), image.unique_finding(f"qa:{number}:answer_type")
            if answer and strip_placeholders(questions[0].value) and answer.value.strip():
                question = _collapse_whitespace(strip_placeholders(questions[0].value))
                ids = (questions[0].id, answer.id)
                image_turns.append(
                    Turn(image, number, question, _collapse_whitespace(answer.value), kind.value if kind else "", ids)
                )
    return image_turns


def _collapse_whitespace(text: str) -> str:
    return " ".join(text.split())


class JoinedTexts(str):
    """Texts about images in turn, `Image 1: …. Image 2: ….`; as a format field it points at the images in other ways too:
    `{questions:in}` is "In the first image, …" (WAYS)."""

    __slots__ = ("texts",)
    texts: tuple[str, ...]

    def __new__(cls, texts: Iterable[str]) -> "JoinedTexts":
        """Of one text an image, in the images' order."""
        text_tuple = tuple(texts)
        joined = super().__new__(cls, _point_at_images(text_tuple, ""))
        joined.texts = text_tuple
        return joined

    def __format__(self, way: str) -> str:
        return _point_at_images(self.texts, way)


NTH = ("first", "second", "third", "fourth")
POINTER_FORMATS = {
    "": "Image {n}: ",
    "number": "For image {n}: ",
    "nth": "{Nth} image: ",
    "for": "For the {nth} image: ",
    "about": "About the {nth} image: ",
    "in": "In the {nth} image, ",
}
POINTERS = {
    way: [said.format(n=n, nth=nth, Nth=nth.capitalize()) for n, nth in enumerate(NTH, 1)]
    for way, said in POINTER_FORMATS.items()
}
OPENING_PATTERN = re.compile(
    r"(?:An?|Are|Can|Could|Did|Do|Does|Has|Have|How|Is|The|There|Was|Were|What|When|Where|Which|Who|Whose|Why|Would)\b"
    r"(?!.*\b(?:image|figure|picture|photograph)\b)"
)
"""Begins a question that goes on after "In the first image,": small, and without naming the image again."""


def _point_at_images(texts: Sequence[str], way: str) -> str:
    parts = []
    for n, text in enumerate(texts):
        is_continued = way == "in" and OPENING_PATTERN.match(text)
        pointer = POINTERS["for" if way == "in" and not is_continued else way][n]
        clause = text[0].lower() + text[1:] if is_continued else text
        parts.append(f"{pointer}{clause}{'' if text.endswith(('.', '?', '!')) else '.'}")
    return " ".join(parts)


def number_texts(texts: Iterable[str]) -> str:
    """`Image 1: …. Image 2: ….`"""
    return str(JoinedTexts(texts))


def collect_findings(joined: Sequence[Turn]) -> tuple[str, ...]:
    """Findings that all the turns rest on."""
    return tuple(f for t in joined for f in t.findings)
