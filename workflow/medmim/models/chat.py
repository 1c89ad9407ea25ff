"""Any other model for images and text, asked by its own processor and chat template. To predict only, never trained here.

For models whose processor takes several images a turn: Qwen2.5-VL, InternVL (hf), LLaVA-OneVision, MedGemma, SmolVLM ...
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, GenerationConfig

from medmim.models.prompter import Prompt, Prompter
from medmim.qa.prompt import IMAGE


class Chat(Prompter):
    """A model with a processor that has a chat template."""

    def __init__(self, folder: Path, image: Callable[[str], Image.Image]) -> None:
        """Raises ValueError where the folder's processor has no chat template or no pad token."""
        self._processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError(f"{folder}: its processor has no chat template")
        self._image = image
        self.tokenizer = self._processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            raise ValueError(f"{folder}: its tokenizer has no pad token")
        self.pad = self.tokenizer.pad_token_id
        self.stops = _stops(folder, self.tokenizer)

    def prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """Images stand where their placeholders do."""
        first, *rest = text.split(IMAGE)
        if len(rest) != len(images):
            raise ValueError(f"{len(rest)} placeholders for {len(images)} images")
        content: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
        for part in rest:
            content += [{"type": "image"}, *([{"type": "text", "text": part}] if part else [])]
        messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages.append({"role": "user", "content": content})
        whole = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return Prompt(whole, (), images, len(whole) + 4096 * len(images))

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Whatever the processor makes of texts and images."""
        images = [[self._image(i).convert("RGB") for i in p.images] for p in prompts]
        shown = {"images": images} if any(images) else {}
        # A template that writes BOS itself must not get a second one.
        bos = self.tokenizer.bos_token
        special = bos is None or not prompts[0].text.startswith(bos)
        return dict(
            self._processor(
                text=[p.text for p in prompts],
                **shown,
                padding=True,
                padding_side="left",
                add_special_tokens=special,
                return_tensors="pt",
            )
        )

    def _after(self, reply: str) -> list[int]:
        before = self.prompt("x", ()).text
        ids, whole = (self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (before, before + reply))
        if whole[: len(ids)] != ids:
            raise ValueError("the tokenizer joins the end of the prompt with the reply")
        return list(whole[len(ids) :])


def _stops(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the model's own generation settings, and the tokenizer's."""
    found: list[int | None] = [tokenizer.eos_token_id]
    if (folder / "generation_config.json").exists():
        ends = GenerationConfig.from_pretrained(str(folder)).eos_token_id
        found += ends if isinstance(ends, list) else [ends]
    return tuple(dict.fromkeys(i for i in found if i is not None))
