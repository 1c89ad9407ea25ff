"""Small synthetic bases of the real architectures: a tokenizer of the questions' own words, and a config to fit it.

Sizes and settings are those with which such a model was found to learn (issue 2's demo): a wide initialisation, features
from the last vision layer, no grouped-query attention. Everything else is as in the real models.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CONFIG_MAPPING, LlavaConfig, PreTrainedTokenizerFast

from medmim.config.training import PATCH_SIZE
from medmim.models.families.base import Family, TinyRecipe, count_image_tokens
from medmim.questions.prompt import IMAGE_PLACEHOLDER, LETTERS

MAX_WORDS = 1024
"""At most so many whole words in a vocabulary; every other word is spelled out."""
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


def _build_byte_level_tokenizer(texts: list[str], recipe: TinyRecipe) -> Tokenizer:
    """Words as in Llama 3: byte-level."""
    special_tokens = [*recipe.first_tokens, *recipe.last_tokens]
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = _find_frequent_words(texts, special_tokens, pre_tokenizer.pre_tokenize_str)
    pieces = [*recipe.first_tokens, *sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    tokenizer = Tokenizer(models.BPE(vocab=_number_pieces(pieces), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special_tokens])
    return tokenizer


def _build_sentence_piece_tokenizer(texts: list[str], recipe: TinyRecipe) -> Tokenizer:
    """Words as in Llama 2 and Mistral: SentencePiece-like after ▁, bytes for unseen characters."""
    special_tokens = [*recipe.first_tokens, *recipe.last_tokens]
    pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split(Regex(_PIECE_PATTERN), "isolated")]
    )
    words = _find_frequent_words(texts, special_tokens, pre_tokenizer.pre_tokenize_str)
    characters = sorted({c for text in texts for c in text if not c.isspace()} | {"▁"})
    byte_pieces = [f"<0x{b:02X}>" for b in range(256)]
    # Letters of options begin a reply: each is one token, also where the texts rarely have it.
    pieces = [*recipe.first_tokens, *byte_pieces, *characters, *(f"▁{letter}" for letter in LETTERS), *words]
    unknown = recipe.special_tokens["unk_token"]
    tokenizer = Tokenizer(
        models.BPE(vocab=_number_pieces(pieces), merges=[], ignore_merges=True, byte_fallback=True, unk_token=unknown)
    )
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special_tokens])
    return tokenizer


def _number_pieces(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


_TOKENIZER_BUILDERS = {"byte_level": _build_byte_level_tokenizer, "sentence_piece": _build_sentence_piece_tokenizer}


def _require_recipe(family: Family) -> TinyRecipe:
    if family.tiny is None:
        raise ValueError(f"family {family.name} has no recipe for a tiny base: set hub or path, or give its module one")
    return family.tiny


def build_tokenizer(family: Family, dialogues: Iterable[tuple[str, str]], system: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer of the words in (prompt text, answer) pairs, in the family's layout, with its real special tokens.

    Any other text can be encoded too, character by character. Saves and reloads with the stock AutoTokenizer.
    """
    texts = [family.format_prompt(text, system) + family.format_answer(answer) for text, answer in dialogues]
    recipe = _require_recipe(family)
    backend = _TOKENIZER_BUILDERS[recipe.tokenizer](texts, recipe)
    bos = recipe.special_tokens["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **recipe.special_tokens,
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
    """LlavaConfig of the family's vision tower and language model, with the tokenizer's ids.

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
    recipe = _require_recipe(family)
    further_settings: dict[str, dict[str, Any]] = {
        "siglip_vision_model": {"vision_use_head": False},
        "clip_vision_model": {"projection_dim": vision_width, "initializer_range": INITIALIZER_RANGE},
        "mistral": {"sliding_window": None},
    }
    vision = CONFIG_MAPPING[recipe.vision](**vision_settings, **further_settings.get(recipe.vision, {}))
    text = CONFIG_MAPPING[recipe.language](**language_settings, **further_settings.get(recipe.language, {}))
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
