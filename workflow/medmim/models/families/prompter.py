"""How one model is asked: the interface that all families share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from medmim.questions.prompt import LETTERS


@dataclass(frozen=True)
class Prompt:
    """One question, laid out."""

    text: str
    """The exact text given to the tokenizer."""
    ids: Sequence[int]
    """Its token ids where the layout makes them itself."""
    images: Sequence[str]
    """References of its images, in order."""
    length: int
    """Tokens with the images, or something that grows with them: batches are made of like lengths."""


@dataclass(frozen=True)
class Thinking:
    """What a model may think before its reply."""

    max_tokens: int
    """After so many tokens it is cut off."""
    end_id: int
    """Token id with which the model ends it."""
    closing_ids: Sequence[int]
    """Token ids that stand between it and the reply, however it ended."""


class Prompter(ABC):
    """How one model is asked."""

    tokenizer: Any
    stop_ids: tuple[int, ...]
    """Token ids that end a reply."""
    pad_id: int
    """Token id that fills a batch."""
    processor: str
    """What makes the inputs, where the code and the folder's files leave a choice; else empty."""
    thinking: Thinking | None = None
    """What the model may think before a reply; None where it replies at once."""

    @abstractmethod
    def build_prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """`text` is the user's turn, one `<image>` per image. Raises ValueError where it can't be laid out."""

    @abstractmethod
    def build_batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Input of generate, padded on the left. Raises ValueError where it does not show the images that the prompts have."""

    @abstractmethod
    def _encode_reply(self, reply: str) -> list[int]: ...

    def encode_reply(self, reply: str) -> list[int]:
        """Token ids that follow a prompt, and what the model thought, where `reply` does, without its end."""
        if reply not in self._reply_cache:  # the same options are asked about again and again
            self._reply_cache[reply] = self._encode_reply(reply)
        return self._reply_cache[reply]

    @cached_property
    def _reply_cache(self) -> dict[str, list[int]]:
        return {}

    def encode_letters(self, options: int) -> list[int]:
        """Token id with which the reply "A: ..." begins, and so on for each option.

        Raises ValueError where two letters begin with the same token, or with none: then their likelihoods say nothing.
        """
        ids = [token for letter in LETTERS[:options] for token in self.encode_reply(f"{letter}: x")[:1]]
        if len(set(ids)) < options:
            raise ValueError(f"the tokenizer does not give each letter from A to {LETTERS[options - 1]} a token of its own")
        return ids
