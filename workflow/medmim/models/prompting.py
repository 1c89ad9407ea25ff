"""Questions and images to what a model generates from: of the families laid out here, and the interface all share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medmim.models.collate import collate
from medmim.models.families import registry
from medmim.models.families.base import Layout, Sample
from medmim.questions.prompt import LETTERS

CACHED_BYTES = 1 << 30
"""Preprocessed pixels kept for the next question about the same image."""


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


class Prompter(ABC):
    """How one model is asked."""

    tokenizer: Any
    stops: tuple[int, ...]
    """Token ids that end a reply."""
    pad: int
    """Token id that fills a batch."""
    processor: str
    """What makes the inputs, where the code and the folder's files leave a choice; else empty."""

    @abstractmethod
    def prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """`text` is the user's turn, one `<image>` per image. Raises ValueError where it can't be laid out."""

    @abstractmethod
    def batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Input of generate, padded on the left. Raises ValueError where it does not show the images that the prompts have."""

    @abstractmethod
    def _line(self, reply: str) -> list[int]: ...

    def line(self, reply: str) -> list[int]:
        """Token ids that follow a prompt where `reply` does, without its end."""
        if reply not in self._lines:  # the same options are asked about again and again
            self._lines[reply] = self._line(reply)
        return self._lines[reply]

    @cached_property
    def _lines(self) -> dict[str, list[int]]:
        return {}

    def letters(self, options: int) -> list[int]:
        """Token id with which the reply "A: ..." begins, and so on for each option.

        Raises ValueError where two letters begin with the same token, or with none: then their likelihoods say nothing.
        """
        ids = [token for letter in LETTERS[:options] for token in self.line(f"{letter}: x")[:1]]
        if len(set(ids)) < options:
            raise ValueError(f"the tokenizer does not give each letter from A to {LETTERS[options - 1]} a token of its own")
        return ids


class LaidOut(Prompter):
    """A model of a family with a `Layout`."""

    processor = ""

    def __init__(self, layout: Layout, image: Callable[[str], Image.Image]) -> None:
        """`image` finds the image of a reference."""
        self.layout, self.tokenizer = layout, layout.tokenizer
        self.stops, self.pad = layout.stops, layout.pad
        self._pixels: Callable[[str], np.ndarray] = lru_cache(max(1, CACHED_BYTES // (3 * layout.image_size**2)))(
            lambda reference: layout.pixels(image(reference))
        )

    def prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """As trained: the ids are `Layout.encode` without an answer."""
        ids, _ = self.layout.encode(text, None, system)
        if ids.count(self.layout.image_token) != len(images):
            raise ValueError(f"{ids.count(self.layout.image_token)} placeholders for {len(images)} images")
        return Prompt(self.layout.family.prompt(text, system), ids, images, self.layout.length(ids))

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask, B x T; pixel_values as `collate` makes them."""
        samples = [Sample(p.ids, p.ids, [self._pixels(i) for i in p.images]) for p in prompts]
        tensors = collate(self.layout, samples, left=True)
        return {name: tensors[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in tensors}

    def _line(self, reply: str) -> list[int]:
        """As trained, up to the token that ends an answer."""
        return [i for i in self.layout.encode("x", reply)[1] if i >= 0][:-1]


def prompter(family: str, folder: Path, image: Callable[[str], Image.Image]) -> Prompter:
    """How the model in a folder is asked. Raises ValueError where the folder does not fit the family."""
    if family == "chat":
        made: Prompter = import_module(registry.module(family)).Chat(folder, image)
        return made
    return LaidOut(Layout.open(family, folder), image)
