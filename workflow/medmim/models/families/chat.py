"""Any other model for images and text, asked by its own processor and chat template. To predict only, never trained here.

For models whose processor takes several images a turn. What they want beside token ids comes from their processors, so none is
named here.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoConfig, AutoProcessor, GenerationConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from medmim.models.families.prompter import Prompt, Prompter, Thinking
from medmim.questions.prompt import IMAGE_PLACEHOLDER

ASSUMED_IMAGE_TOKENS = 512
"""Tokens that an image is taken for where batches are made of like lengths; how many it is, the processor says later."""

VIDEO_PART = "video_processor"
"""Name of the part of a processor that videos need."""
THINKING_START = "<think>"
"""What the templates of most models that think end with, where they are to."""
OPTIONAL_PACKAGES = {"torchvision": "torchvision", VIDEO_PART: "torchvision", "num2words": "num2words"}
"""Packages of the extra `chat`, by what a processor's error says where it lacks one."""


@contextmanager
def _explain_missing_packages() -> Iterator[None]:
    """Raise ValueError that names the optional package which a processor lacks."""
    try:
        yield
    except (AttributeError, ImportError, ValueError) as error:
        package = next((package for word, package in OPTIONAL_PACKAGES.items() if word in str(error).lower()), None)
        if package is None or find_spec(package) is not None:
            raise
        raise ValueError(
            f"its processor needs {package}, which is not installed: in the workflow's folder, run pip install '.[chat]'; with "
            "--sdm conda, add it to envs/gpu.yaml"
        ) from error


class ChatPrompter(Prompter):
    """A model with a processor that has a chat template."""

    @_explain_missing_packages()
    def __init__(
        self,
        folder: Path,
        find_image: Callable[[str], Image.Image],
        template_arguments: Mapping[str, Any] | None = None,
        thinking: Mapping[str, Any] | None = None,
    ) -> None:
        """Load what is in a folder beside the weights.

        `template_arguments` and `thinking` are `chat` and `thinking` of the config. Raises ValueError where the processor has no
        chat template, no image token or no pad token, and where its template does not go with the two settings.
        """
        self._processor = _load_processor(folder)
        template = getattr(self._processor, "chat_template", None)
        if template is None:
            raise ValueError("its processor has no chat template")
        self._template_arguments = dict(template_arguments or {})
        unread = [name for name in self._template_arguments if not re.search(rf"\b{re.escape(name)}\b", str(template))]
        if unread:
            raise ValueError(f"chat: its template does not read {', '.join(unread)}")
        self._find_image = find_image
        self.tokenizer = self._processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            raise ValueError("its tokenizer has no pad token")
        self.pad_id = self.tokenizer.pad_token_id
        self.stop_ids = _read_stop_ids(folder, self.tokenizer)
        image_token: str | None = getattr(self._processor, "image_token", None)
        if image_token is None:
            raise ValueError("its processor has no token that stands for an image")
        self._image_token = image_token
        self.processor = f"{type(self._processor).__name__}, {type(self._processor.image_processor).__name__}"
        self._control_strings = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        self._closing_text = "" if thinking is None else str(thinking["end"])
        self.thinking = None
        if thinking is not None:
            self.thinking = self._read_thinking(int(thinking["tokens"]))
            self._control_strings += [THINKING_START, self._closing_text.strip()]
        elif self._empty_prompt[0].rstrip().endswith(THINKING_START):
            raise ValueError(
                f"its template has it think before it replies, after {THINKING_START}: set thinking: {{tokens: 2048}}, or turn "
                "that off where its template has an argument for it, as by chat: {enable_thinking: false}"
            )

    def build_prompt(self, text: str, images: Sequence[str], system: str = "") -> Prompt:
        """Images stand where their placeholders do."""
        first, *rest = text.split(IMAGE_PLACEHOLDER)
        if len(rest) != len(images):
            raise ValueError(f"{len(rest)} placeholders for {len(images)} images")
        for control_string in self._control_strings:
            if control_string in first or any(control_string in part for part in rest):
                raise ValueError(f"the question holds {control_string!r}, which structures the prompt of this model")
        content: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
        for part in rest:
            content += [{"type": "image"}, *([{"type": "text", "text": part}] if part else [])]
        messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages.append({"role": "user", "content": content})
        try:
            prompt_text: str = self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **self._template_arguments
            )
        except (TemplateError, TypeError) as error:
            raise ValueError(f"the model's chat template refuses it: {error}") from error
        shown_images = prompt_text.count(self._image_token)
        if shown_images != len(images):
            raise ValueError(f"the model's chat template shows {shown_images} images of {len(images)}")
        return Prompt(prompt_text, (), images, len(self._tokenize_text(prompt_text)) + ASSUMED_IMAGE_TOKENS * len(images))

    def build_batch(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Whatever the processor makes of texts and images. The model refuses more or fewer images than it has tokens for."""
        images = [[self._find_image(i).convert("RGB") for i in p.images] for p in prompts]
        image_arguments = {"images": images} if any(images) else {}
        # A template that writes BOS itself must not get a second one.
        bos = self.tokenizer.bos_token
        add_special_tokens = bos is None or not prompts[0].text.startswith(bos)
        try:
            inputs = self._processor(
                text=[p.text for p in prompts],
                **image_arguments,
                padding=True,
                padding_side="left",
                add_special_tokens=add_special_tokens,
                return_tensors="pt",
            )
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # processors raise anything where images and their tokens do not go together
            raise ValueError(f"the model's processor fails: {type(error).__name__}: {error}") from error
        return dict(inputs)

    def _encode_reply(self, reply: str) -> list[int]:
        """As it follows the template's last words, and the end of thinking."""
        prompt_text, prompt_ids = self._empty_prompt
        full_ids = self._tokenize_text(prompt_text + reply)
        if full_ids[: len(prompt_ids)] != prompt_ids:
            raise ValueError("the tokenizer joins the end of the prompt with the reply")
        return full_ids[len(prompt_ids) :]

    @cached_property
    def _empty_prompt(self) -> tuple[str, list[int]]:
        text = self.build_prompt("x", ()).text + self._closing_text
        return text, self._tokenize_text(text)

    def _read_thinking(self, max_tokens: int) -> Thinking:
        end = self._closing_text.strip()
        end_ids, closing_ids = self._tokenize_text(end), self._tokenize_text(self._closing_text)
        if len(end_ids) != 1:
            raise ValueError(f"thinking.end: {end} is {len(end_ids)} tokens of its tokenizer, and should be one")
        return Thinking(max_tokens, end_ids[0], closing_ids)

    def _tokenize_text(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class _WithoutVideos(ProcessorMixin):
    """A processor without the part for videos, which needs torchvision. To inherit from after the processor's own class."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        settings |= zip(super().get_attributes(), parts, strict=False)
        settings.pop(VIDEO_PART, None)
        super().__init__(**settings)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in super().get_attributes() if name != VIDEO_PART]

    @classmethod
    def _get_arguments_from_pretrained(cls, *arguments: Any, **settings: Any) -> list[Any]:
        parts = super()._get_arguments_from_pretrained(*arguments, **settings)
        names = super().get_attributes()
        return parts if VIDEO_PART not in names else [*parts[: (at := names.index(VIDEO_PART))], None, *parts[at:]]


def _load_processor(folder: Path) -> Any:
    """The folder's processor; where there is no torchvision, which videos need, that of its images and text alone."""
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    processor_class = PROCESSOR_MAPPING.get(type(config), None)
    if processor_class is None:
        raise ValueError(f"a {config.model_type} has no processor of images and text")
    image_processor_class: Any = type(processor_class.__name__, (processor_class, _WithoutVideos), {})
    return image_processor_class.from_pretrained(str(folder), local_files_only=True)


def _read_stop_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """End tokens of the model's own generation settings, and the tokenizer's."""
    stop_ids: list[int | None] = [tokenizer.eos_token_id]
    if (folder / "generation_config.json").exists():
        eos_ids = GenerationConfig.from_pretrained(str(folder)).eos_token_id
        stop_ids += eos_ids if isinstance(eos_ids, list) else [eos_ids]
    return tuple(dict.fromkeys(i for i in stop_ids if i is not None))
