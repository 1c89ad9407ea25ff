"""LLaVA-Med v1.5 (microsoft/llava-med-v1.5-mistral-7b): CLIP ViT-L/14 at 336 px and Mistral-7B-Instruct-v0.2.

`[INST] <image>\\n<image>\\n{text} [/INST] {answer}</s>`; images padded to a square with the CLIP mean colour, then resized.
"""

from medmim.models.families.base import CLIP_MEAN, CLIP_STD, Family, TinyRecipe, split_images
from medmim.questions.prompt import IMAGE_PLACEHOLDER


class LlavaMed(Family):
    """LLaVA's Llama-2 form of a conversation, without the space that it writes before </s>."""

    name = "llava-med"
    end_tokens = ("</s>",)
    control_strings = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>")
    mean, std = CLIP_MEAN, CLIP_STD
    pads_to_square = True
    chat_template = (
        "{%- set before = namespace(system='') %}"
        "{%- for message in messages %}"
        "{%- set told = namespace(images='', text='') %}"
        "{%- if message['content'] is string %}{%- set told.text = message['content'] %}{%- else %}"
        "{%- for part in message['content'] %}"
        "{%- if part['type'] == 'image' %}{%- set told.images = told.images + '<image>\n' %}"
        "{%- elif part['type'] == 'text' %}{%- set told.text = told.text + part['text'] %}{%- endif %}"
        "{%- endfor %}{%- endif %}"
        "{%- if message['role'] == 'system' %}"
        "{%- set before.system = '<<SYS>>\n' + told.text + '\n<</SYS>>\n\n' %}"
        "{%- elif message['role'] == 'user' %}"
        "{{- '[INST] ' + before.system + told.images + told.text.strip() + ' [/INST]' }}{%- set before.system = '' %}"
        "{%- else %}{{- ' ' + told.text.strip() + '</s>' }}{%- endif %}"
        "{%- endfor %}"
    )
    tiny = TinyRecipe(
        tokenizer="sentence_piece",
        first_tokens=("<unk>", "<s>", "</s>"),
        last_tokens=(IMAGE_PLACEHOLDER, "<pad>"),
        special_tokens={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        vision="clip_vision_model",
        language="mistral",
    )

    def format_prompt(self, text: str, system: str = "") -> str:
        """A system message stands inside the first turn."""
        images, rest = split_images(text)
        system_block = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
        placeholders = f"{IMAGE_PLACEHOLDER}\n" * images
        return f"[INST] {system_block}{placeholders}{rest.strip()} [/INST]"

    def format_answer(self, text: str) -> str:
        """One space, the answer, end of sequence."""
        return f" {text}</s>"


FAMILY = LlavaMed()
