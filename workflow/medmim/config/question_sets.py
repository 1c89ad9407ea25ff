"""The sets of questions that are trained on: what they are called, where they are asked, and what the paper has of them.

An ability is one line here: the config's counts, splits, reports, exports and the reader of the authors' files take it from this
table. Its questions come from templates of the sources. Sets that a source holds out stand in its source.yaml.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """One set."""

    name: str
    """As in the config and the tables."""
    label: str
    """Name for people."""
    meaning: str
    """What its questions are, a sentence for the config's documentation."""
    part: Literal["held_in", "train_only"] = "held_in"
    """held_in: in training and benchmark. train_only: in training alone."""
    images: float = 2.0
    """Mean number of images of a question: what the plan of a training takes while there are no questions yet."""
    paper_count: int = 0
    """Training questions of the paper."""


QUESTION_SETS = (
    QuestionSet(name="temporal", label="Temporal", meaning="Temporal understanding.", images=2.14, paper_count=9000),
    QuestionSet(name="reasoning", label="Reasoning", meaning="Reasoning.", paper_count=4400),
    QuestionSet(name="comparison", label="Comparison", meaning="Comparison.", paper_count=3200),
    QuestionSet(name="coreference", label="Co-reference", meaning="Co-reference.", images=2.49, paper_count=12000),
    QuestionSet(
        name="composed",
        label="Composed",
        meaning="Composed of single-image questions; training only.",
        part="train_only",
        paper_count=54600,
    ),
)
"""In the order of the tables. Images a question are means of the authors' benchmark files; those of composed questions, which
are not published, are a guess."""
HELD_IN = tuple(s.name for s in QUESTION_SETS if s.part == "held_in")
"""Sets of the abilities trained on."""
TRAIN_ONLY = tuple(s.name for s in QUESTION_SETS if s.part == "train_only")
"""Sets that are trained on and not asked in the benchmark."""
PRETRAIN_SETS = ("single", "text")
"""Sets of what tiny base models learn first: about one image, and in words only."""
