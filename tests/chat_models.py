"""Tiny randomly initialised models of the architectures that family chat is tried with, as folders a hub could hold.

Each has its real classes of model, processor, image processor and tokenizer; templates are in the real ones' form.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Exaone4_5_Config,
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_Processor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4Processor,
    GemmaTokenizer,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VProcessor,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    Lfm3VlConfig,
    Lfm3VlForConditionalGeneration,
    Lfm3VlProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2Processor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3Processor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

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


@dataclass(frozen=True)
class ProcessorFiles:
    """A processor with a part for videos, which can't be made without torchvision, as the files that a hub holds."""

    kind: type
    images: Any
    tokenizer: Any
    chat_template: str
    settings: dict[str, Any]

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(self.chat_template)
        parts = {"image_processor": self.images, **self.settings}
        record = {name: json.loads(p.to_json_string()) if hasattr(p, "to_json_string") else p for name, p in parts.items()}
        video_name = self.kind.__name__.replace("Processor", "VideoProcessor")
        record |= {"processor_class": self.kind.__name__, "video_processor": {"video_processor_type": video_name}}
        (folder / "processor_config.json").write_text(json.dumps(record))


def with_video(kind: type, images: Any, tokenizer: Any, *, chat_template: str, **settings: Any) -> ProcessorFiles:
    return ProcessorFiles(kind, images, tokenizer, chat_template, settings)


def make_qwen_tokenizer(specials: Iterable[str], **special_tokens: str) -> Qwen2Tokenizer:
    """Byte by byte, with the tokens around thoughts that Qwen 3 has."""
    pieces = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={p: i for i, p in enumerate(pieces)}, eos_token="<|im_end|>", extra_special_tokens=special_tokens
    )
    tokenizer.add_tokens([AddedToken(s, special=True) for s in ("<|im_start|>", "<|im_end|>", *specials)])
    tokenizer.add_tokens([AddedToken(s, special=False) for s in ("<think>", "</think>")])
    return tokenizer


def make_gemma_tokenizer() -> GemmaTokenizer:
    """Character by character."""
    special_tokens = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(chr(c) for c in range(33, 127)), "▁", "\n"]
    tokenizer = GemmaTokenizer(vocab={p: i for i, p in enumerate(pieces)}, extra_special_tokens=special_tokens)
    tokenizer.add_tokens([AddedToken(s, special=True) for s in ("<start_of_turn>", "<end_of_turn>", *special_tokens.values())])
    return tokenizer


VISION_TOKENS = {
    "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
}  # fmt: skip


def make_vision_tokenizer(tokens: Mapping[str, str] = VISION_TOKENS) -> tuple[Qwen2Tokenizer, dict[str, int]]:
    """A tokenizer with the tokens around and of images, and their ids by the names of a config."""
    tokenizer = make_qwen_tokenizer(tokens.values())
    return tokenizer, {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


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
    tokenizer, ids = make_vision_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config=make_language_config(tokenizer, rope_parameters=rope),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
                       "window_size": 56, "fullatt_block_indexes": [1], "initializer_range": 0.3},
        tie_word_embeddings=False, **ids,
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=8 * 28 * 28)
    template = CHAT_ML.format(image="<|vision_start|><|image_pad|><|vision_end|>")
    return Qwen2_5_VLForConditionalGeneration(config), with_video(Qwen2_5_VLProcessor, images, tokenizer, chat_template=template)


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
    processor = with_video(InternVLProcessor, images, tokenizer, image_seq_length=1, chat_template=template)
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
    processor = with_video(
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


def gemma4() -> ModelAndProcessor:
    """At most 70 tokens an image, by its size; the last layers share keys and values; a part for audio, which is not used."""
    special_tokens = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"}
    special_tokens |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(chr(c) for c in range(33, 127)), "▁", "\n"]
    tokenizer = GemmaTokenizer(vocab={p: i for i, p in enumerate(pieces)}, extra_special_tokens=special_tokens)
    turns = ("<|turn>", "<turn|>", "<|video|>")
    tokenizer.add_tokens([AddedToken(s, special=True) for s in (*turns, *special_tokens.values())])
    config = Gemma4Config(
        text_config=make_language_config(
            tokenizer, head_dim=16, global_head_dim=16, sliding_window=64, num_hidden_layers=4, num_kv_shared_layers=2,
            layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=len(tokenizer), use_bidirectional_attention="vision",
        ),
        vision_config=make_vision_config(
            patch_size=4, head_dim=16, num_key_value_heads=2, position_embedding_size=1024, initializer_range=0.3
        ),
        boi_token_id=tokenizer.boi_token_id, eoi_token_id=tokenizer.eoi_token_id, image_token_id=tokenizer.image_token_id,
        audio_token_id=tokenizer.audio_token_id, boa_token_id=tokenizer.boa_token_id, eoa_token_index=tokenizer.eoa_token_id,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"), tie_word_embeddings=False,
    )  # fmt: skip
    template = GEMMA.replace("<start_of_turn>", "<|turn>").replace("<end_of_turn>", "<turn|>")
    images = Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70)
    processor = with_video(
        Gemma4Processor, images, tokenizer, chat_template=template.replace("<start_of_image>", "<|image|>"),
        feature_extractor=Gemma4AudioFeatureExtractor(),
    )  # fmt: skip
    return Gemma4ForConditionalGeneration(config), processor


def make_idefics_tokenizer(*specials: str) -> Qwen2Tokenizer:
    return make_qwen_tokenizer(("<fake_token_around_image>", "<image>", "<end_of_utterance>", *specials))


def idefics2() -> ModelAndProcessor:
    """As many tokens an image as the perceiver has latents; processor of the old kind, which expands texts itself."""
    tokenizer = make_idefics_tokenizer()
    config = Idefics2Config(
        text_config=make_language_config(tokenizer, model_type="mistral"),
        vision_config=make_vision_config(image_size=56, patch_size=14, initializer_range=0.3),
        perceiver_config={"hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2,
                          "resampler_head_dim": 16, "num_key_value_heads": 1, "initializer_range": 0.3},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=False,
    )  # fmt: skip
    images = Idefics2ImageProcessorPil(size={"shortest_edge": 28, "longest_edge": 56})
    processor = Idefics2Processor(images, tokenizer, image_seq_len=3, chat_template=CHAT_ML.format(image="<image>"))
    return Idefics2ForConditionalGeneration(config), processor


def idefics3() -> ModelAndProcessor:
    """Parts by the aspect of an image, each with its row and column, and one of the whole."""
    tokenizer = make_idefics_tokenizer("<global-img>", *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)))
    config = Idefics3Config(
        text_config=make_language_config(tokenizer, model_type="llama"),
        vision_config=make_vision_config(image_size=56, patch_size=14, initializer_range=0.3),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    images = Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT_ML.format(image="<image>"))
    return Idefics3ForConditionalGeneration(config), processor


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}


def make_qwen_images(patch: int = 14) -> Qwen2VLImageProcessorPil:
    pixels = (2 * patch) ** 2
    return Qwen2VLImageProcessorPil(patch_size=patch, min_pixels=pixels, max_pixels=8 * pixels)


def qwen2_vl() -> ModelAndProcessor:
    tokenizer, ids = make_vision_tokenizer()
    config = Qwen2VLConfig(
        text_config=make_language_config(tokenizer, rope_parameters=QWEN_ROPE),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "initializer_range": 0.3},
        tie_word_embeddings=False, **ids,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Qwen2VLProcessor, make_qwen_images(), tokenizer, chat_template=template)
    return Qwen2VLForConditionalGeneration(config), processor


def make_qwen3_vision(**settings: Any) -> dict[str, Any]:
    return {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
        "num_position_embeddings": 64, "initializer_range": 0.3, **settings,
    }  # fmt: skip


def qwen3_vl() -> ModelAndProcessor:
    """Deeper features of images are added in the first layers."""
    tokenizer, ids = make_vision_tokenizer()
    rope = QWEN_ROPE | {"mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=make_language_config(tokenizer, head_dim=16, rope_parameters=rope),
        vision_config=make_qwen3_vision(deepstack_visual_indexes=[0, 1]), tie_word_embeddings=False, **ids,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Qwen3VLProcessor, make_qwen_images(16), tokenizer, chat_template=template)
    return Qwen3VLForConditionalGeneration(config), processor


def qwen3_5() -> ModelAndProcessor:
    """Layers of linear attention, whose state is no cache of keys and values, between those of full attention."""
    tokenizer, ids = make_vision_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6, "mrope_interleaved": True}
    config = Qwen3_5Config(
        text_config=make_language_config(
            tokenizer, head_dim=16, rope_parameters=rope | {"partial_rotary_factor": 0.5}, linear_key_head_dim=16,
            linear_value_head_dim=16, linear_num_key_heads=1, linear_num_value_heads=2,
            layer_types=["linear_attention", "full_attention"],
        ),
        vision_config=make_qwen3_vision(), tie_word_embeddings=False, **ids,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Qwen3VLProcessor, make_qwen_images(16), tokenizer, chat_template=template)
    return Qwen3_5ForConditionalGeneration(config), processor


GLM_TOKENS = {
    "image_start_token_id": "<|begin_of_image|>", "image_end_token_id": "<|end_of_image|>", "image_token_id": "<|image|>",
    "video_start_token_id": "<|begin_of_video|>", "video_end_token_id": "<|end_of_video|>", "video_token_id": "<|video|>",
}  # fmt: skip


def glm4v() -> ModelAndProcessor:
    tokenizer, ids = make_vision_tokenizer(GLM_TOKENS)
    config = Glm4vConfig(
        text_config=make_language_config(
            tokenizer, rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
        ),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
                       "image_size": 56, "initializer_range": 0.3},
        tie_word_embeddings=False, **ids,
    )  # fmt: skip
    images = Glm4vImageProcessorPil(size={"shortest_edge": 28 * 28 * 2, "longest_edge": 16 * 28 * 28})
    template = CHAT_ML.format(image="<|begin_of_image|><|image|><|end_of_image|>")
    return Glm4vForConditionalGeneration(config), with_video(Glm4vProcessor, images, tokenizer, chat_template=template)


def video_llama_3() -> ModelAndProcessor:
    tokenizer, ids = make_vision_tokenizer()
    config = VideoLlama3Config(
        text_config=make_language_config(tokenizer, model_type="qwen2"),
        vision_config=make_vision_config(patch_size=14, initializer_range=0.3),
        image_token_id=ids["image_token_id"], video_token_id=ids["video_token_id"], tie_word_embeddings=False,
    )  # fmt: skip
    images = VideoLlama3ImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28})
    template = CHAT_ML.format(image="<|image_pad|>")
    return VideoLlama3ForConditionalGeneration(config), with_video(
        VideoLlama3Processor, images, tokenizer, chat_template=template
    )


def aya_vision() -> ModelAndProcessor:
    """Tiles by the aspect of an image, each with its number."""
    names = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL")
    tokenizer = make_qwen_tokenizer((*names, *(f"TILE_{n}" for n in range(1, 13))))
    config = AyaVisionConfig(
        text_config=make_language_config(tokenizer, model_type="cohere2", head_dim=16),
        vision_config=make_vision_config(
            model_type="siglip_vision_model", image_size=56, patch_size=14, vision_use_head=False
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"), tie_word_embeddings=False,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4)
    processor = AyaVisionProcessor(
        images, tokenizer, patch_size=14, img_size=56, downsample_factor=2, chat_template=CHAT_ML.format(image="<image>")
    )
    return AyaVisionForConditionalGeneration(config), processor


def llava_next() -> ModelAndProcessor:
    """Crops by the aspect of an image, and one of the whole."""
    tokenizer = make_qwen_tokenizer(("<image>",), image_token="<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        text_config=make_language_config(tokenizer, model_type="llama"),
        vision_config=make_vision_config(model_type="clip_vision_model", image_size=28, patch_size=14),
        image_token_index=tokenizer.image_token_id, image_grid_pinpoints=grid, tie_word_embeddings=False,
    )  # fmt: skip
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_ML.format(image="<image>"),
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config), processor


def ovis2() -> ModelAndProcessor:
    """Images as mixtures over a visual vocabulary, with tokens between rows and columns of crops."""
    indicators = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tokenizer = make_qwen_tokenizer(("<image>", "<IMG_ATOM>", *indicators))
    config = Ovis2Config(
        text_config=make_language_config(tokenizer, model_type="qwen2"),
        vision_config=make_vision_config(
            image_size=56, patch_size=14, vocab_size=64, hidden_stride=2, initializer_range=0.3
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"), vocab_size=len(tokenizer), hidden_size=32,
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(list(indicators)), tie_word_embeddings=False,
    )  # fmt: skip
    images = Ovis2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4)
    processor = Ovis2Processor(images, tokenizer, image_seq_length=4, chat_template=CHAT_ML.format(image="<image>"))
    return Ovis2ForConditionalGeneration(config), processor


def glm46v() -> ModelAndProcessor:
    """Two classes beside those of GLM-4V."""
    tokenizer, ids = make_vision_tokenizer(GLM_TOKENS)
    model, _ = glm4v()
    config = Glm46VConfig(
        text_config=model.config.text_config.to_dict(), vision_config=model.config.vision_config.to_dict(),
        tie_word_embeddings=False, **ids,
    )  # fmt: skip
    images = Glm46VImageProcessorPil(size={"shortest_edge": 28 * 28 * 2, "longest_edge": 16 * 28 * 28})
    template = CHAT_ML.format(image="<|begin_of_image|><|image|><|end_of_image|>")
    return Glm46VForConditionalGeneration(config), with_video(Glm46VProcessor, images, tokenizer, chat_template=template)


def make_experts(**settings: Any) -> dict[str, Any]:
    return {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, **settings}


def qwen3_vl_moe() -> ModelAndProcessor:
    """A mixture of experts."""
    tokenizer, ids = make_vision_tokenizer()
    rope = QWEN_ROPE | {"mrope_interleaved": True}
    config = Qwen3VLMoeConfig(
        text_config=make_language_config(tokenizer, head_dim=16, rope_parameters=rope, **make_experts()),
        vision_config=make_qwen3_vision(deepstack_visual_indexes=[0, 1]), tie_word_embeddings=False, **ids,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Qwen3VLProcessor, make_qwen_images(16), tokenizer, chat_template=template)
    return Qwen3VLMoeForConditionalGeneration(config), processor


def qwen3_5_moe() -> ModelAndProcessor:
    """A mixture of experts, with layers of linear attention."""
    tokenizer, ids = make_vision_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6, "mrope_interleaved": True}
    config = Qwen3_5MoeConfig(
        text_config=make_language_config(
            tokenizer, head_dim=16, rope_parameters=rope | {"partial_rotary_factor": 0.5}, linear_key_head_dim=16,
            linear_value_head_dim=16, linear_num_key_heads=1, linear_num_value_heads=2,
            layer_types=["linear_attention", "full_attention"], **make_experts(shared_expert_intermediate_size=32),
        ),
        vision_config=make_qwen3_vision(), tie_word_embeddings=False, **ids,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Qwen3VLProcessor, make_qwen_images(16), tokenizer, chat_template=template)
    return Qwen3_5MoeForConditionalGeneration(config), processor


def exaone4_5() -> ModelAndProcessor:
    tokenizer, ids = make_vision_tokenizer()
    config = Exaone4_5_Config(
        text_config=make_language_config(tokenizer, model_type="exaone4", sliding_window=64, sliding_window_pattern=2),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "num_key_value_heads": 1,
                       "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1], "initializer_range": 0.3},
        image_token_id=ids["image_token_id"], video_token_id=ids["video_token_id"], tie_word_embeddings=False,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Exaone4_5_Processor, make_qwen_images(), tokenizer, chat_template=template)
    return Exaone4_5_ForConditionalGeneration(config), processor


def lfm3_vl() -> ModelAndProcessor:
    """Short convolutions, whose state is no cache of keys and values, between layers of attention."""
    tokenizer, ids = make_vision_tokenizer()
    config = Lfm3VlConfig(
        text_config=make_language_config(
            tokenizer, model_type="lfm3", head_dim=16, layer_types=["conv", "full_attention"], tie_word_embeddings=True
        ),
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "num_key_value_heads": 1, "initializer_range": 0.3},
        projector_hidden_size=32, tie_word_embeddings=True, **ids,
    )  # fmt: skip
    template = CHAT_ML.format(image=QWEN_IMAGE)
    processor = with_video(Lfm3VlProcessor, make_qwen_images(16), tokenizer, chat_template=template)
    return Lfm3VlForConditionalGeneration(config), processor


def llava() -> ModelAndProcessor:
    """As Mantis and LLaVA-Med are, in a template of its own."""
    tokenizer = make_qwen_tokenizer(("<image>",), image_token="<image>")
    config = LlavaConfig(
        text_config=make_language_config(tokenizer, model_type="llama"),
        vision_config=make_vision_config(model_type="clip_vision_model", image_size=56, patch_size=14),
        image_token_index=tokenizer.image_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_ML.format(image="<image>"),
    )  # fmt: skip
    return LlavaForConditionalGeneration(config), processor


def mllama() -> ModelAndProcessor:
    """Images by attention across, not among the tokens."""
    tokenizer = make_qwen_tokenizer(("<|image|>", "<|python_tag|>"))
    tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    config = MllamaConfig(
        text_config=make_language_config(tokenizer, cross_attention_layers=[1]),
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
                       "attention_heads": 2, "vision_output_dim": 64, "image_size": 56, "initializer_range": 0.3,
                       "intermediate_layers_indices": [1]},
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"), tie_word_embeddings=False,
    )  # fmt: skip
    images = MllamaImageProcessorPil(size={"height": 56, "width": 56}, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer, chat_template="{{ bos_token }}" + CHAT_ML.format(image="<|image|>"))
    model = MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "gate" in name and parameter.numel() == 1:  # zero, it would see nothing
            torch.nn.init.constant_(parameter, 0.5)
    return model, processor


CHAT_MODELS: dict[str, Callable[[], ModelAndProcessor]] = {
    f.__name__: f for f in (qwen2_5_vl, internvl, llava_onevision, gemma3, gemma4, idefics2, idefics3)
}
FURTHER_CHAT_MODELS: dict[str, Callable[[], ModelAndProcessor]] = {
    f.__name__: f
    for f in (
        qwen2_vl,
        qwen3_vl,
        qwen3_vl_moe,
        qwen3_5,
        qwen3_5_moe,
        glm4v,
        glm46v,
        video_llama_3,
        aya_vision,
        llava,
        llava_next,
        ovis2,
        exaone4_5,
        lfm3_vl,
        mllama,
    )
}  # fmt: skip
"""Those that fewer tests are made with."""


def write_chat_model(folder: Path, kind: str) -> Path:
    """A model of one of these with its processor and index; path of files.parquet."""
    torch.manual_seed(2)
    model, processor = (CHAT_MODELS | FURTHER_CHAT_MODELS)[kind]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    table_io.write_table(folder / INDEX_NAME, "files", index_files(folder))
    return folder / INDEX_NAME
