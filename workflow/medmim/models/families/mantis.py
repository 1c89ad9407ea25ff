"""Mantis (TIGER-Lab/Mantis-8B-siglip-llama3): SigLIP so400m/14 at 384 px and Meta-Llama-3-8B-Instruct.

Llama-3 headers; the i-th image is `(image {i}: <Image><image></Image>)`; images resized to the square, aspect not kept.
"""

from itertools import count

import numpy as np
from PIL import Image

from medmim.models.families.base import Family
from medmim.questions.prompt import IMAGE_PLACEHOLDER


class Mantis(Family):
    """Mantis's `llama_3` conversation; its shipped system message is left to the config."""

    name = "mantis"
    end_tokens = ("<|eot_id|>", "<|end_of_text|>")
    control_strings = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", *end_tokens)
    mean = std = (0.5, 0.5, 0.5)

    def format_prompt(self, text: str, system: str = "") -> str:
        """Images are counted from 1 where they stand; nothing is added between them."""
        first, *rest = text.split(IMAGE_PLACEHOLDER)
        numbered = first + "".join(
            f"(image {i}: <Image>{IMAGE_PLACEHOLDER}</Image>){part}" for i, part in zip(count(1), rest, strict=False)
        )
        return (_format_turn("system", system) if system else "") + _format_turn("user", numbered) + _format_header("assistant")

    def format_answer(self, text: str) -> str:
        """The answer and the end of the turn."""
        return f"{text}<|eot_id|>"

    def preprocess_image(self, image: Image.Image, size: int) -> np.ndarray:
        """As the SigLIP processor resizes; a grey image once, not three times over."""
        source = image if image.mode == "L" else image.convert("RGB")
        return np.asarray(source.resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))


def _format_header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def _format_turn(role: str, text: str) -> str:
    return f"{_format_header(role)}{text}<|eot_id|>"


FAMILY = Mantis()
