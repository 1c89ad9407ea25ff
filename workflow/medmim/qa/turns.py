"""Single-image questions of a source, and how several of them become one question about several images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medmim.qa.cohort import Image
from medmim.qa.prompt import blind


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


def numbered(texts: Iterable[str]) -> str:
    """`Image 1: …. Image 2: ….`"""
    return " ".join(f"Image {n}: {text}" + ("" if text.endswith((".", "?", "!")) else ".") for n, text in enumerate(texts, 1))


def evidence(joined: Sequence[Turn]) -> tuple[str, ...]:
    """Findings that all the turns rest on."""
    return tuple(f for t in joined for f in t.findings)
