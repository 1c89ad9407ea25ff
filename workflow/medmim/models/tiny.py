"""Small synthetic bases of the real architectures: a tokenizer of the questions' own words, and a config to fit it.

Sizes and settings are those with which such a model was found to learn (issue 2's demo): a wide initialisation, features
from the last vision layer, no grouped-query attention. Everything else is as in the real models.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, MistralConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from medmim.models.families.base import Family, count_image_tokens
from medmim.questions.prompt import IMAGE_PLACEHOLDER, LETTERS

MAX_WORDS = 1024
"""At most so many whole words in a vocabulary; every other word is spelled out."""
PATCH_SIZE = 14
INITIALIZER_RANGE = 0.08
MAX_POSITIONS = 2048

# The Llama-3 tokenizer's own expression for where words begin and end.
_LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Below a SentencePiece word: digits, punctuation and line ends stand alone.
_PIECE_PATTERN = r"▁?\d|▁?[^\w\s▁]|\n"


def _find_frequent_words(
    texts: Iterable[str], special_tokens: Iterable[str], split_words: Callable[[str], list[tuple[str, Any]]]
) -> list[str]:
    """Words that stand at least twice in the texts, most frequent first, at most WORDS."""
    special_pattern = re.compile("|".join(map(re.escape, special_tokens)))
    counts = Counter(w for text in texts for part in special_pattern.split(text) for w, _ in split_words(part))
    return sorted((w for w, n in counts.items() if n > 1), key=lambda w: (-counts[w], w))[:MAX_WORDS]


def _build_mantis_tokenizer(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    """Llama 3: byte-level words, control tokens and then <image> and <|pad|> at the end of the vocabulary."""
    control_tokens = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        IMAGE_PLACEHOLDER,
        "<|pad|>",
    ]
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pieces = [
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *_find_frequent_words(texts, control_tokens, pre_tokenizer.pre_tokenize_str),
    ]
    tokenizer = Tokenizer(models.BPE(vocab=_number_pieces(pieces), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control_tokens])
    return tokenizer, {"bos_token": control_tokens[0], "eos_token": "<|eot_id|>", "pad_token": "<|pad|>"}


def _build_llava_med_tokenizer(texts: list[str]) -> tuple[Tokenizer, dict[str, str]]:
    """Mistral: SentencePiece-like words after ▁, bytes for unseen characters, <image> and <pad> at the end."""
    first_tokens, last_tokens = ["<unk>", "<s>", "</s>"], [IMAGE_PLACEHOLDER, "<pad>"]
    pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split(Regex(_PIECE_PATTERN), "isolated")]
    )
    words = _find_frequent_words(texts, [*first_tokens, *last_tokens], pre_tokenizer.pre_tokenize_str)
    characters = sorted({c for text in texts for c in text if not c.isspace()} | {"▁"})
    # Letters of options begin a reply: each is one token, also where the texts rarely have it.
    pieces = [*first_tokens, *(f"<0x{b:02X}>" for b in range(256)), *characters, *(f"▁{letter}" for letter in LETTERS), *words]
    tokenizer = Tokenizer(
        models.BPE(vocab=_number_pieces(pieces), merges=[], ignore_merges=True, byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (*first_tokens, *last_tokens)])
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def _number_pieces(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


_TOKENIZER_BUILDERS = {"mantis": _build_mantis_tokenizer, "llava-med": _build_llava_med_tokenizer}


def build_tokenizer(family: Family, dialogues: Iterable[tuple[str, str]], system: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer of the words in (prompt text, answer) pairs, in the family's layout, with its real special tokens.

    Any other text can be encoded too, character by character. Saves and reloads with the stock AutoTokenizer.
    """
    texts = [family.format_prompt(text, system) + family.format_answer(answer) for text, answer in dialogues]
    backend, special_tokens = _TOKENIZER_BUILDERS[family.name](texts)
    bos = special_tokens["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **special_tokens,
        extra_special_tokens={"image_token": IMAGE_PLACEHOLDER},
        model_max_length=MAX_POSITIONS,
    )


def build_config(
    family: Family,
    tokenizer: PreTrainedTokenizerFast,
    *,
    image_size: int = 56,
    vision_width: int = 96,
    vision_layers: int = 3,
    language_width: int = 128,
    language_layers: int = 3,
    heads: int = 4,
) -> LlavaConfig:
    """LlavaConfig of CLIP and Mistral (llava-med) or SigLIP and Llama (mantis), with the tokenizer's ids.

    Raises ValueError where the sizes do not divide.
    """
    for name, size, divisor in (
        ("image_size", image_size, PATCH_SIZE),
        ("vision_width", vision_width, heads),
        ("language_width", language_width, 2 * heads),
    ):
        if size % divisor:
            raise ValueError(f"{name} {size} is not a multiple of {divisor}")
    vision_settings: dict[str, Any] = {
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": PATCH_SIZE,
    }
    special_ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    language_settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": language_width,
        "intermediate_size": 3 * language_width,
        "num_hidden_layers": language_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": INITIALIZER_RANGE,
        "tie_word_embeddings": False,
        **special_ids,
    }
    if family.name == "mantis":
        vision: Any = SiglipVisionConfig(**vision_settings, vision_use_head=False)
        text: Any = LlamaConfig(**language_settings)
    else:
        vision = CLIPVisionConfig(**vision_settings, projection_dim=vision_width, initializer_range=INITIALIZER_RANGE)
        text = MistralConfig(**language_settings, sliding_window=None)
    llava_config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER),
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
        **special_ids,
    )
    llava_config.image_seq_length = count_image_tokens(llava_config)
    return llava_config
