"""Any other model for images and text, asked by its own processor and chat template. To predict only, never trained here.

For models whose processor takes several images a turn. Tried with the architectures of Qwen2.5-VL (Lingshu is one), InternVL
(those named -hf), LLaVA-OneVision and Gemma 3 (MedGemma): what they want beside token ids comes from their processors, so
none is named here.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, GenerationConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from medmim.models.prompting import Prompt, Prompter
from medmim.questions.prompt import IMAGE

IMAGE_LENGTH = 512
"""Tokens that an image is taken for where batches are made of like lengths; how many it is, the processor says later."""


class Chat(Prompter):
    """A model with a processor that has a chat template."""

    def __init__(self, folder: Path, image: Callable[[str], Image.Image]) -> None:
        """Raises ValueError where the folder's processor has no chat template or no pad token."""
        self._processor = _processor(folder)
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError("its processor has no chat template")
        self._image = image
        self.tokenizer = self._processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            raise ValueError("its tokenizer has no pad token")
        self.pad = self.tokenizer.pad_token_id
        self.stops = _stops(folder, self.tokenizer)
        self.processor = f"{type(self._processor).__name__}, {type(self._processor.image_processor).__name__}"
        self._control = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]

    def prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """Images stand where their placeholders do."""
        first, *rest = text.split(IMAGE)
        if len(rest) != len(images):
            raise ValueError(f"{len(rest)} placeholders for {len(images)} images")
        for string in self._control:
            if string in first or any(string in part for part in rest):
                raise ValueError(f"the question holds {string!r}, which structures the prompt of this model")
        content: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
        for part in rest:
            content += [{"type": "image"}, *([{"type": "text", "text": part}] if part else [])]
        messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages.append({"role": "user", "content": content})
        whole = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return Prompt(whole, (), images, len(self._ids(whole)) + IMAGE_LENGTH * len(images))

    def batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Whatever the processor makes of texts and images."""
        images = [[self._image(i).convert("RGB") for i in p.images] for p in prompts]
        shown = {"images": images} if any(images) else {}
        # A template that writes BOS itself must not get a second one.
        bos = self.tokenizer.bos_token
        special = bos is None or not prompts[0].text.startswith(bos)
        try:
            made = self._processor(
                text=[p.text for p in prompts],
                **shown,
                padding=True,
                padding_side="left",
                add_special_tokens=special,
                return_text_replacement_offsets=True,
                return_tensors="pt",
            )
        except IndexError as error:
            raise ValueError(f"the model's processor lost an image: {error}") from error
        for prompt, replaced in zip(prompts, made.pop("text_replacement_offsets"), strict=True):
            if len(replaced) != len(prompt.images):
                raise ValueError(f"the model's processor shows {len(replaced)} images of {len(prompt.images)}")
        return dict(made)

    def _line(self, reply: str) -> list[int]:
        """As it follows the template's last words."""
        before, ids = self._before
        whole = self._ids(before + reply)
        if whole[: len(ids)] != ids:
            raise ValueError("the tokenizer joins the end of the prompt with the reply")
        return whole[len(ids) :]

    @cached_property
    def _before(self) -> tuple[str, list[int]]:
        text = self.prompt("x", ()).text
        return text, self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _processor(folder: Path) -> Any:
    """The folder's processor; where there is no torchvision, which videos need, that of its images and text alone."""
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None:
        raise ValueError(f"a {config.model_type} has no processor of images and text")
    parts = [name for name in kind.get_attributes() if name != "video_processor"]
    still: Any = type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: parts)})
    return still.from_pretrained(str(folder), local_files_only=True)


def _stops(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the model's own generation settings, and the tokenizer's."""
    found: list[int | None] = [tokenizer.eos_token_id]
    if (folder / "generation_config.json").exists():
        ends = GenerationConfig.from_pretrained(str(folder)).eos_token_id
        found += ends if isinstance(ends, list) else [ends]
    return tuple(dict.fromkeys(i for i in found if i is not None))
