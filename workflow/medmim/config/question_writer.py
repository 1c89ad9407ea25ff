"""The section of the configuration that tells what a language model writes; apart from others, whose changes are none of its."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medmim.config.base import Fraction, Positive, Section
from medmim.config.endpoint import Author


class Writer(Section):
    """Questions written by a language model, from those of templates."""

    generator: Author
    """The model that writes."""
    reviewer: Author | None = None
    """A model that is asked whether what was written means the same; null asks none. Code checks it in any case."""
    splits: list[Literal["train", "benchmark"]] = Field(default=["train", "benchmark"], min_length=1)
    """Sets whose questions are written."""
    rewrite: Fraction = 1.0
    """Share of the templates' questions, by a hash of their ids, that are put in other words."""
    open: Fraction = 0.0
    """Share of the closed ones to each of which an open one is added, written from the findings that it rests on."""
    tries: Positive = 3
    """How often a question is written at most, each time with what was wrong with the last."""
    budget_tokens: Positive
    """Most tokens of all sources together, sent and received; each source has an equal part. What would exceed it is not sent."""
    budget_usd: Annotated[float, Field(ge=0)]
    """Most US dollars, as budget_tokens. What was paid for by earlier runs, and is used again, counts."""

    @model_validator(mode="after")
    def _check_shares(self) -> "Writer":
        if self.rewrite == self.open == 0:
            raise ValueError("rewrite and open are both 0: there is nothing to write")
        return self
