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

from medmim.models.collate import collate_samples
from medmim.models.families import registry
from medmim.models.families.base import Layout, Sample
from medmim.questions.prompt import LETTERS

PIXEL_CACHE_BYTES = 1 << 30
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
    stop_ids: tuple[int, ...]
    """Token ids that end a reply."""
    pad_id: int
    """Token id that fills a batch."""
    processor: str
    """What makes the inputs, where the code and the folder's files leave a choice; else empty."""

    @abstractmethod
    def build_prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """`text` is the user's turn, one `<image>` per image. Raises ValueError where it can't be laid out."""

    @abstractmethod
    def build_batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Input of generate, padded on the left. Raises ValueError where it does not show the images that the prompts have."""

    @abstractmethod
    def _encode_reply(self, reply: str) -> list[int]: ...

    def encode_reply(self, reply: str) -> list[int]:
        """Token ids that follow a prompt where `reply` does, without its end."""
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


class LayoutPrompter(Prompter):
    """A model of a family with a `Layout`."""

    processor = ""

    def __init__(self, layout: Layout, find_image: Callable[[str], Image.Image]) -> None:
        """`image` finds the image of a reference."""
        self.layout, self.tokenizer = layout, layout.tokenizer
        self.stop_ids, self.pad_id = layout.stop_ids, layout.pad_id
        self._load_pixels: Callable[[str], np.ndarray] = lru_cache(max(1, PIXEL_CACHE_BYTES // (3 * layout.image_size**2)))(
            lambda reference: layout.preprocess_image(find_image(reference))
        )

    def build_prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """As trained: the ids are `Layout.encode` without an answer."""
        ids, _ = self.layout.encode_sample(text, None, system)
        if ids.count(self.layout.image_token_id) != len(images):
            raise ValueError(f"{ids.count(self.layout.image_token_id)} placeholders for {len(images)} images")
        return Prompt(self.layout.family.format_prompt(text, system), ids, images, self.layout.count_tokens(ids))

    def build_batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask, B x T; pixel_values as `collate` makes them."""
        samples = [Sample(p.ids, p.ids, [self._load_pixels(i) for i in p.images]) for p in prompts]
        tensors = collate_samples(self.layout, samples, pad_left=True)
        return {name: tensors[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in tensors}

    def _encode_reply(self, reply: str) -> list[int]:
        """As trained, up to the token that ends an answer."""
        return [i for i in self.layout.encode_sample("x", reply)[1] if i >= 0][:-1]


def load_prompter(family: str, folder: Path, find_image: Callable[[str], Image.Image]) -> Prompter:
    """How the model in a folder is asked. Raises ValueError where the folder does not fit the family."""
    if family == "chat":
        chat_prompter: Prompter = import_module(registry.family_module(family)).ChatPrompter(folder, find_image)
        return chat_prompter
    return LayoutPrompter(Layout.from_folder(family, folder), find_image)
