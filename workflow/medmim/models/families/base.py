"""What a model family is: how a question becomes token ids and an image becomes pixels. No torch here.

A prompt text is `medmim.questions.prompt.prompt_text`: one `<image>` per image in front, the question, the options. A family
writes it in its own words (`Family.format_prompt`) and one tokenizer call makes ids of it, one image token per image.
`Layout.expand_images` repeats each image token as often as the model's vision tower gives features.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from PIL import Image

from medmim.common.errors import explain_library_errors
from medmim.questions.prompt import IMAGE_PLACEHOLDER

IGNORE_INDEX = -100
"""Label where no loss is taken."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class TinyRecipe:
    """What a small synthetic base of a family is made of, for the demo and the tests; medmim.models.tiny makes it."""

    tokenizer: Literal["byte_level", "sentence_piece"]
    """How words become tokens: as in Llama 3, or as in Llama 2 and Mistral."""
    first_tokens: tuple[str, ...] = ()
    """Special tokens at the beginning of the vocabulary."""
    last_tokens: tuple[str, ...]
    """Special tokens at its end; the image placeholder must be one of the two."""
    special_tokens: Mapping[str, str]
    """bos_token, eos_token, pad_token and, where there is one, unk_token."""
    vision: str
    """Type of the vision tower in transformers, such as clip_vision_model."""
    language: str
    """Type of the language model in transformers, such as llama."""


class Family(ABC):
    """Prompt layout and image preprocessing of one family. Stateless."""

    name: ClassVar[str]
    """As in the config."""
    end_tokens: ClassVar[tuple[str, ...]]
    """Tokens that end a reply; the first is the one written after an answer in training."""
    control_strings: ClassVar[tuple[str, ...]]
    """Strings that structure a prompt: no question or answer may hold one."""
    mean: ClassVar[tuple[float, float, float]]
    """Subtracted from pixels / 255."""
    std: ClassVar[tuple[float, float, float]]
    """Divides what is left."""
    pads_to_square: ClassVar[bool]
    """Whether an image is padded to a square with the mean colour; else it is stretched to one."""
    chat_template: ClassVar[str]
    """The prompt layout as a Jinja chat template, but for its beginning: what a merged model is published with."""
    tiny: ClassVar[TinyRecipe | None] = None
    """Recipe of a tiny base; without one, only published models of the family can be used."""

    @abstractmethod
    def format_prompt(self, text: str, system: str = "") -> str:
        """The whole prompt up to where the answer begins; `text` is the user's turn, `system` may be empty."""

    @abstractmethod
    def format_answer(self, text: str) -> str:
        """What follows the prompt: the answer and the token that ends it."""

    def preprocess_image(self, image: Image.Image, size: int) -> np.ndarray:
        """Return the image as the vision tower sees it before rescaling and normalisation: uint8, size x size x 3."""
        if not self.pads_to_square:
            source = image if image.mode == "L" else image.convert("RGB")  # a grey image is resized once, not three times over
            return np.asarray(source.resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))
        # Both sides alike, the odd pixel right or below, so that the crop of CLIP's own processor would cut nothing.
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(m * 255) for m in self.mean))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))

    def check_control_strings(self, text: str, where: str) -> None:
        """Raises ValueError where the text holds a control string of the layout."""
        for string in self.control_strings:
            if string in text:
                raise ValueError(f"the {where} holds {string!r}, which structures the prompt of {self.name}")

    def encode_sample(
        self, tokenizer: Any, text: str, answer: str | None = None, system: str = ""
    ) -> tuple[list[int], list[int]]:
        """Token ids of prompt and answer, one image token per image, and labels: the id in the answer and its end, else -100.

        Without an answer the ids end where the reply begins and all labels are -100. The ids of a prompt are always
        the first ids of the prompt with its answer. Raises ValueError where the text can't be laid out.
        """
        self.check_control_strings(text, "question")
        prompt = self.format_prompt(text, system)
        ids = _encode_text(tokenizer, prompt)
        image_id, image_count = tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER), text.count(IMAGE_PLACEHOLDER)
        if ids.count(image_id) != image_count:
            raise ValueError(
                f"the tokenizer makes {ids.count(image_id)} image tokens of {image_count} {IMAGE_PLACEHOLDER}: is it that "
                f"of {self.name}?"
            )
        if answer is None:
            return ids, [IGNORE_INDEX] * len(ids)
        self.check_control_strings(answer, "answer")
        if IMAGE_PLACEHOLDER in answer or not answer.strip():
            raise ValueError(f"the answer {answer!r} is empty or holds {IMAGE_PLACEHOLDER}")
        full_ids = _encode_text(tokenizer, prompt + self.format_answer(answer.strip()))
        if full_ids[: len(ids)] != ids:
            raise ValueError(f"the tokenizer joins the end of the prompt with the answer {answer!r}")
        return full_ids, [IGNORE_INDEX] * len(ids) + full_ids[len(ids) :]


def _encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text with its own BOS and nothing else added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def _find_pad_token(tokenizer: Any, config: Any) -> str:
    """The pad token that a config names where the tokenizer names none, as in checkpoints of Mantis's own training code."""
    pad_id = config.pad_token_id if config.pad_token_id is not None else config.get_text_config().pad_token_id
    token = None if pad_id is None or pad_id < 0 else tokenizer.convert_ids_to_tokens(pad_id)
    if token is None:
        raise ValueError(f"the tokenizer has no pad token, and pad_token_id of config.json is {pad_id}, no token of it")
    return str(token)


def count_image_tokens(config: Any) -> int:
    """How many features the model of a LlavaConfig puts in place of one image.

    Patches, plus the CLS token of a CLIP tower, minus the first where vision_feature_select_strategy is "default": that is
    CLS for CLIP, a real patch for SigLIP. From the weights' shapes, not from image_seq_length, which exports get wrong.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    return side * side + (vision.model_type == "clip_vision_model") - (config.vision_feature_select_strategy == "default")


class Sample(NamedTuple):
    """One sample before expansion."""

    input_ids: Sequence[int] | np.ndarray
    """One image token per image."""
    labels: Sequence[int] | np.ndarray
    """As long as input_ids."""
    pixels: Sequence[np.ndarray]
    """uint8, image_size x image_size x 3, in order of the image tokens."""


@dataclass(frozen=True)
class Layout:
    """A family with the tokenizer and the numbers of one model folder. Pickles."""

    family: Family
    tokenizer: Any
    image_size: int
    """Pixels along the side of the vision tower's square input."""
    image_tokens: int
    """Tokens an image takes."""
    image_token_id: int
    """Id of the token that stands for an image."""
    pad_id: int
    """Id that fills a batch."""
    stop_ids: tuple[int, ...]
    """Ids that end a reply."""

    @classmethod
    def from_folder(cls, family: Family, folder: Path | str) -> "Layout":
        """Of the tokenizer and config.json in a model folder. Raises UserError where they are not those of the family."""
        from transformers import AutoConfig, AutoTokenizer

        with explain_library_errors(str(folder)):
            return cls.from_tokenizer(family, AutoTokenizer.from_pretrained(str(folder)), AutoConfig.from_pretrained(str(folder)))

    @classmethod
    def from_tokenizer(cls, family: Family, tokenizer: Any, config: Any) -> "Layout":
        """Of a tokenizer and a LlavaConfig. Raises ValueError where they do not fit each other."""
        if config.model_type != "llava":
            raise ValueError(f"family {family.name} is for models of type llava, but this is a {config.model_type}")
        image_id = tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER)
        if image_id != config.image_token_index:
            raise ValueError(
                f"the tokenizer's {IMAGE_PLACEHOLDER} is {image_id}, the config's image_token_index {config.image_token_index}"
            )
        vocabulary = tokenizer.get_vocab()
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = _find_pad_token(tokenizer, config)
        stop_ids = dict.fromkeys([*(vocabulary[t] for t in family.end_tokens if t in vocabulary), tokenizer.eos_token_id])
        if family.end_tokens[0] not in vocabulary:
            raise ValueError(f"the tokenizer has no {family.end_tokens[0]!r}: is it that of {family.name}?")
        return cls(
            family=family,
            tokenizer=tokenizer,
            image_size=config.vision_config.image_size,
            image_tokens=count_image_tokens(config),
            image_token_id=image_id,
            pad_id=tokenizer.pad_token_id,
            stop_ids=tuple(s for s in stop_ids if s is not None),
        )

    def encode_sample(self, text: str, answer: str | None = None, system: str = "") -> tuple[list[int], list[int]]:
        """`Family.encode_sample` with this tokenizer."""
        return self.family.encode_sample(self.tokenizer, text, answer, system)

    def preprocess_image(self, image: Image.Image) -> np.ndarray:
        """`Family.preprocess_image` at this model's size: uint8, image_size x image_size x 3."""
        return self.family.preprocess_image(image, self.image_size)

    def count_tokens(self, ids: Sequence[int]) -> int:
        """Tokens after expansion."""
        return len(ids) + sum(i == self.image_token_id for i in ids) * (self.image_tokens - 1)

    def expand_images(self, ids: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids and labels, int64, with each image token repeated image_tokens times."""
        ids = np.asarray(ids, np.int64)
        repeats = np.where(ids == self.image_token_id, self.image_tokens, 1)
        return np.repeat(ids, repeats), np.repeat(np.asarray(labels, np.int64), repeats)


def split_images(text: str) -> tuple[int, str]:
    """How many `<image>` stand in front of a text, and the rest of it."""
    leading_images = re.match(rf"(?:\s*{IMAGE_PLACEHOLDER})*", text)
    assert leading_images is not None
    return leading_images[0].count(IMAGE_PLACEHOLDER), text[leading_images.end() :]
