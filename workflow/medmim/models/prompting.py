"""Questions and images to what a model generates from."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medmim.common.errors import explain_library_errors
from medmim.models.collate import collate_samples
from medmim.models.families import registry
from medmim.models.families.base import Layout, Sample
from medmim.models.families.prompter import Prompt, Prompter
from medmim.models.families.registry import get_family

PIXEL_CACHE_BYTES = 1 << 30
"""Preprocessed pixels kept for the next question about the same image."""


class LayoutPrompter(Prompter):
    """A model of a family with a `Layout`."""

    processor = ""

    def __init__(self, layout: Layout, find_image: Callable[[str], Image.Image]) -> None:
        """`find_image` finds the image of a reference."""
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


def load_prompter(
    family: str,
    folder: Path,
    find_image: Callable[[str], Image.Image],
    *,
    chat: Mapping[str, Any] | None = None,
    thinking: Mapping[str, Any] | None = None,
) -> Prompter:
    """How the model in a folder is asked. Raises UserError where the folder does not fit the family, or the two settings.

    chat and thinking: of the model's config, for family chat.
    """
    if family == "chat":
        with explain_library_errors(str(folder)):
            prompter_class = import_module(registry.family_module(family)).ChatPrompter
            chat_prompter: Prompter = prompter_class(folder, find_image, chat, thinking)
        return chat_prompter
    return LayoutPrompter(Layout.from_folder(get_family(family), folder), find_image)
