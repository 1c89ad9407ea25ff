"""Tiny randomly initialised models of the architectures that family chat is tried with, as folders a hub could hold.

Each has its real classes of model, processor, image processor and tokenizer; templates are in the real ones' form. No video
processor is written: it wants torchvision to be made, and the real one where it is to be read.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    GemmaTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from medmim.common.files import INDEX_NAME, index_files
from medmim.tables import table_io

MAX_POSITIONS = 1024
ModelAndProcessor = tuple[Any, Any]
"""Model and processor."""

CHAT_ML = (
    "{{% for m in messages %}}<|im_start|>{{{{ m['role'] }}}}\n"
    "{{% for c in m['content'] %}}{{{{ '{image}' if c['type'] == 'image' else c['text'] }}}}{{% endfor %}}<|im_end|>\n"
    "{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{{ '<start_of_image>' if c['type'] == 'image' else c['text'] }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def without_video(kind: type, *parts: Any, **settings: Any) -> Any:
    """A processor without the one of videos."""
    names = ["image_processor", "tokenizer"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: names)})(*parts, **settings)


def make_qwen_tokenizer(specials: Iterable[str], **special_tokens: str) -> Qwen2Tokenizer:
    """Byte by byte."""
    pieces = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={p: i for i, p in enumerate(pieces)}, eos_token="<|im_end|>", extra_special_tokens=special_tokens
    )
    tokenizer.add_tokens([AddedToken(s, special=True) for s in ("<|im_start|>", "<|im_end|>", *specials)])
    return tokenizer


def make_gemma_tokenizer() -> GemmaTokenizer:
    """Character by character."""
    special_tokens = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(chr(c) for c in range(33, 127)), "▁", "\n"]
    tokenizer = GemmaTokenizer(vocab={p: i for i, p in enumerate(pieces)}, extra_special_tokens=special_tokens)
    tokenizer.add_tokens([AddedToken(s, special=True) for s in ("<start_of_turn>", "<end_of_turn>", *special_tokens.values())])
    return tokenizer


def make_language_config(tokenizer: Any, **settings: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3, "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
        "tie_word_embeddings": False, **settings,
    }  # fmt: skip


def make_vision_config(**settings: Any) -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, **settings}


def qwen2_5_vl() -> ModelAndProcessor:
    """Two whole patches and more an image, by its size."""
    tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = make_qwen_tokenizer(tokens)
    ids = dict(zip(["vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"],
                   tokenizer.convert_tokens_to_ids(tokens), strict=True))  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config=make_language_config(tokenizer, rope_parameters=rope),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
                       "window_size": 56, "fullatt_block_indexes": [1], "initializer_range": 0.3},
        tie_word_embeddings=False, **ids,
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=8 * 28 * 28)
    template = CHAT_ML.format(image="<|vision_start|><|image_pad|><|vision_end|>")
    return Qwen2_5_VLForConditionalGeneration(config), without_video(
        Qwen2_5_VLProcessor, images, tokenizer, chat_template=template
    )


def internvl() -> ModelAndProcessor:
    """Tiles by the aspect of an image, and one of the whole."""
    special_tokens = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    special_tokens |= {"video_token": "<video>"}
    tokenizer = make_qwen_tokenizer(special_tokens.values(), **special_tokens)
    config = InternVLConfig(
        text_config=make_language_config(tokenizer, model_type="qwen2"),
        vision_config=make_vision_config(image_size=[28, 28], initializer_range=0.3, layer_scale_init_value=1.0),
        image_token_id=tokenizer.context_image_token_id, image_seq_length=1, tie_word_embeddings=False,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4)
    template = CHAT_ML.format(image="<IMG_CONTEXT>\n")
    processor = without_video(InternVLProcessor, images, tokenizer, image_seq_length=1, chat_template=template)
    return InternVLForConditionalGeneration(config), processor


def llava_onevision() -> ModelAndProcessor:
    """A single image in crops by its aspect, several as a whole each."""
    special_tokens = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = make_qwen_tokenizer(special_tokens.values(), **special_tokens)
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = LlavaOnevisionConfig(
        text_config=make_language_config(tokenizer, model_type="qwen2"),
        vision_config=make_vision_config(model_type="siglip_vision_model", image_size=28, patch_size=14, vision_use_head=False),
        image_token_index=tokenizer.image_token_id, video_token_index=tokenizer.video_token_id, image_grid_pinpoints=grid,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=grid)
    processor = without_video(
        LlavaOnevisionProcessor, images, tokenizer, num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=CHAT_ML.format(image="<image>"),
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor


def gemma3() -> ModelAndProcessor:
    """Four tokens an image, whatever its size; every other layer sees a window."""
    tokenizer = make_gemma_tokenizer()
    config = Gemma3Config(
        text_config=make_language_config(tokenizer, head_dim=16, sliding_window=64,
        layer_types=["sliding_attention", "full_attention"]),
        vision_config=make_vision_config(image_size=56, patch_size=14, vision_use_head=False),
        mm_tokens_per_image=4, boi_token_index=tokenizer.boi_token_id, eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.3)  # zero, it would see nothing
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    return model, Gemma3Processor(images, tokenizer, chat_template=GEMMA, image_seq_length=4)


CHAT_MODELS: dict[str, Callable[[], ModelAndProcessor]] = {f.__name__: f for f in (qwen2_5_vl, internvl, llava_onevision, gemma3)}


def write_chat_model(folder: Path, kind: str) -> Path:
    """A model of one of CHAT with its processor and index; path of files.parquet."""
    torch.manual_seed(2)
    model, processor = CHAT_MODELS[kind]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    table_io.write_table(folder / INDEX_NAME, "files", index_files(folder))
    return folder / INDEX_NAME
