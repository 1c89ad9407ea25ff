"""The section of the configuration that tells what a language model writes; apart from others, whose changes are none of its."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from medmim.config.base import UNIQUE, Fault, Fraction, Section
from medmim.config.endpoint import Author


class Writer(Section):
    """Questions written by a language model, from those of templates."""

    generator: Author
    """The model that writes."""
    reviewer: Author | None = None
    """A model that is asked whether what was written means the same; null asks none. Code checks it in any case."""
    splits: Annotated[list[Literal["train", "benchmark"]], UNIQUE] = Field(default=["train", "benchmark"], min_length=1)
    """Sets whose questions are written."""
    rewrite: Fraction = 1.0
    """Share of the templates' questions, by a hash of their ids, that are put in other words."""
    open: Fraction = 0.0
    """Share of the closed ones to each of which an open one is added, written from the findings that it rests on."""
    tries: Annotated[int, Field(ge=1, le=100)] = 3
    """How often a question is written at most, each time with what was wrong with the last."""
    budget_tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)]
    """Most tokens of all sources together, sent and received; each source has an equal part. What would exceed it is not sent."""
    budget_usd: Annotated[float, Field(ge=0, le=10_000_000)]
    """Most US dollars, as budget_tokens. What was paid for by earlier runs, and is used again, counts."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield that nothing is to be written."""
        if self.rewrite == self.open == 0:
            yield (), "rewrite and open are both 0: there is nothing to write"
