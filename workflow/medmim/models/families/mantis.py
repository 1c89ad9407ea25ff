"""Mantis (TIGER-Lab/Mantis-8B-siglip-llama3): SigLIP so400m/14 at 384 px and Meta-Llama-3-8B-Instruct.

Llama-3 headers; the i-th image is `(image {i}: <Image><image></Image>)`; images resized to the square, aspect not kept.
"""

from itertools import count

from medmim.models.families.base import Family, TinyRecipe
from medmim.questions.prompt import IMAGE_PLACEHOLDER

SYSTEM_MESSAGE = "You are a pirate chatbot who always responds in pirate speak!"
"""What the published model was trained with: conv_llama_3 of github.com/TIGER-AI-Lab/Mantis, mantis/models/conversation.py. Asked
without it, it is asked in a form that it has never seen."""


class Mantis(Family):
    """Mantis's `llama_3` conversation."""

    name = "mantis"
    end_tokens = ("<|eot_id|>", "<|end_of_text|>")
    control_strings = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", *end_tokens)
    mean = std = (0.5, 0.5, 0.5)
    pads_to_square = False
    chat_template = (
        "{%- set seen = namespace(images=0) %}"
        "{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}"
        "{%- for part in message['content'] %}"
        "{%- if part['type'] == 'image' %}{%- set seen.images = seen.images + 1 %}"
        "{{- '(image ' ~ seen.images ~ ': <Image><image></Image>)' }}"
        "{%- elif part['type'] == 'text' %}{{- part['text'] }}{%- endif %}"
        "{%- endfor %}{%- endif %}"
        "{{- '<|eot_id|>' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
    )
    tiny = TinyRecipe(
        tokenizer="byte_level",
        last_tokens=(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            IMAGE_PLACEHOLDER,
            "<|pad|>",
        ),
        special_tokens={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|pad|>"},
        vision="siglip_vision_model",
        language="llama",
    )

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


def _format_header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def _format_turn(role: str, text: str) -> str:
    return f"{_format_header(role)}{text}<|eot_id|>"


FAMILY = Mantis()
