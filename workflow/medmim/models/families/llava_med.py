"""LLaVA-Med v1.5 (microsoft/llava-med-v1.5-mistral-7b): CLIP ViT-L/14 at 336 px and Mistral-7B-Instruct-v0.2.

`[INST] <image>\\n<image>\\n{text} [/INST] {answer}</s>`; images padded to a square with the CLIP mean colour, then resized.
"""

import numpy as np
from PIL import Image

from medmim.models.families.base import Family, split_images
from medmim.questions.prompt import IMAGE_PLACEHOLDER

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PADDING_COLOUR = tuple(int(m * 255) for m in CLIP_MEAN)


class LlavaMed(Family):
    """LLaVA's Llama-2 form of a conversation, without the space that it writes before </s>."""

    name = "llava-med"
    end_tokens = ("</s>",)
    control_strings = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>")
    mean, std = CLIP_MEAN, CLIP_STD

    def format_prompt(self, text: str, system: str = "") -> str:
        """A system message stands inside the first turn."""
        images, rest = split_images(text)
        system_block = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
        placeholders = f"{IMAGE_PLACEHOLDER}\n" * images
        return f"[INST] {system_block}{placeholders}{rest.strip()} [/INST]"

    def format_answer(self, text: str) -> str:
        """One space, the answer, end of sequence."""
        return f" {text}</s>"

    def preprocess_image(self, image: Image.Image, size: int) -> np.ndarray:
        """Padded on both sides alike (the odd pixel right or below), so that the CLIP processor's crop cuts nothing."""
        side = max(image.size)
        square = Image.new("RGB", (side, side), PADDING_COLOUR)
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


FAMILY = LlavaMed()
