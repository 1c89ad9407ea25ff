"""What a LLaVA model is made of, in numbers: parameters and floating-point operations, from its config.json and nothing else.

No torch here: a plan is made while the workflow is read. The tests hold these counts against models built on torch's meta
device and against torch's own counter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# What a config.json need not say, as transformers fills it in; a test compares them.
CONFIG_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip_vision_model": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "image_size": 224, "patch_size": 32,
    },
    "siglip_vision_model": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "image_size": 224, "patch_size": 16,
    },
    "llama": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": None, "vocab_size": 32000, "attention_bias": False, "mlp_bias": False,
    },
    "mistral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000,
    },
}  # fmt: skip


class UnknownArchitectureError(ValueError):
    """A config.json that is not of a model that is counted here."""


@dataclass(frozen=True, kw_only=True)
class VisionTower:
    """A vision tower: CLIP's or SigLIP's."""

    kind: str
    """clip_vision_model or siglip_vision_model."""
    width: int
    mlp: int
    layers: int
    image_size: int
    """Side of its square input, pixels."""
    patch_size: int
    """Side of a patch, pixels."""
    has_pooling_head: bool = False
    """SigLIP's pooling head: LLaVA runs it, and takes nothing of it."""

    @property
    def patch_count(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def token_count(self) -> int:
        """Positions in the tower: patches, and CLIP's CLS token."""
        return self.patch_count + (self.kind == "clip_vision_model")

    @property
    def _layer_parameters(self) -> int:
        return 4 * self.width**2 + 2 * self.width * self.mlp

    @property
    def parameter_count(self) -> int:
        """All weights."""
        w, m = self.width, self.mlp
        layers = self.layers * (self._layer_parameters + 4 * w + m + w + 4 * w)  # biases; two norms
        embedding = 3 * self.patch_size**2 * w + self.token_count * w
        if self.kind == "clip_vision_model":
            return embedding + w + layers + 4 * w  # CLS; a norm before the layers, one after
        head = w + self._layer_parameters + 4 * w + m + w + 2 * w if self.has_pooling_head else 0
        return embedding + w + layers + 2 * w + head

    @property
    def forward_flops(self) -> int:
        """Of one image, forward: products of matrices, 2 for each multiplication and its addition."""
        w, n = self.width, self.token_count
        layers = self.layers * (2 * self._layer_parameters * n + 4 * n * n * w)
        head = (
            2 * (2 * w * w * (1 + n) + 2 * n * w + 2 * w * self.mlp) if self.has_pooling_head else 0
        )  # one query over all positions
        return 2 * 3 * self.patch_size**2 * w * self.patch_count + layers + head


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A language model: Llama's or Mistral's."""

    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary_size: int
    has_tied_head: bool = False
    """Whether the head's weights are those of the embedding."""

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear maps of a layer: what LoRA adapts."""
        w, m, q, kv = self.width, self.mlp, self.heads * self.head_width, self.kv_heads * self.head_width
        return {
            "q_proj": (w, q), "k_proj": (w, kv), "v_proj": (w, kv), "o_proj": (q, w),
            "gate_proj": (w, m), "up_proj": (w, m), "down_proj": (m, w),
        }  # fmt: skip

    @property
    def layer_parameters(self) -> int:
        """Weights of a layer's linear maps."""
        return sum(i * o for i, o in self.linear_shapes.values())

    @property
    def head_parameters(self) -> int:
        """Weights of the map onto the vocabulary."""
        return self.width * self.vocabulary_size

    @property
    def parameter_count(self) -> int:
        """All weights."""
        return (
            self.layers * (self.layer_parameters + 2 * self.width)
            + self.width
            + self.head_parameters * (1 if self.has_tied_head else 2)
        )

    def lora_parameters(self, rank: int) -> int:
        """Weights of the adapters."""
        return self.layers * rank * sum(i + o for i, o in self.linear_shapes.values())

    def attention_flops(self, squares: float) -> float:
        """FLOPs forward of what attention does beside its linear maps; `squares`: the sum of the samples' squared lengths.

        Every pair of positions is counted, as torch's own counter does; a causal kernel needs half of it.
        """
        return 4 * squares * self.heads * self.head_width * self.layers


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A LLaVA model: tower, a projector of two linear maps with biases, language model."""

    tower: VisionTower
    language: LanguageModel
    drops_first_token: bool = True
    """vision_feature_select_strategy "default": the first position of the tower is no image token."""

    @property
    def image_tokens(self) -> int:
        """Tokens an image takes in the language model."""
        return self.tower.token_count - self.drops_first_token

    @property
    def projector_parameters(self) -> int:
        """Weights of the projector."""
        w = self.language.width
        return self.tower.width * w + w + w * w + w

    @property
    def parameter_count(self) -> int:
        """All weights."""
        return self.tower.parameter_count + self.projector_parameters + self.language.parameter_count

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of a config.json, from `source`. Raises UnknownArchitectureError with what is not counted here."""
        if config.get("model_type") != "llava":
            raise UnknownArchitectureError(
                f"{source}: models of type {config.get('model_type')} are not counted here, those of llava are"
            )
        vision, text = (_fill_defaults(config.get(f"{part}_config", {}), source) for part in ("vision", "text"))
        if text.get("attention_bias") or text.get("mlp_bias"):
            raise UnknownArchitectureError(f"{source}: a language model with biases is not counted here")
        tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        return cls(
            tower=VisionTower(
                kind=vision["model_type"],
                width=vision["hidden_size"],
                mlp=vision["intermediate_size"],
                layers=vision["num_hidden_layers"],
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
                has_pooling_head=vision["model_type"] == "siglip_vision_model" and vision.get("vision_use_head", True),
            ),
            language=LanguageModel(
                width=text["hidden_size"],
                mlp=text["intermediate_size"],
                layers=text["num_hidden_layers"],
                heads=text["num_attention_heads"],
                kv_heads=text["num_key_value_heads"] or text["num_attention_heads"],
                head_width=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
                vocabulary_size=text["vocab_size"],
                has_tied_head=tied,
            ),
            drops_first_token=config.get("vision_feature_select_strategy", "default") == "default",
        )


def _fill_defaults(part: Mapping[str, Any], source: str) -> dict[str, Any]:
    kind = part.get("model_type")
    if kind not in CONFIG_DEFAULTS:
        raise UnknownArchitectureError(f"{source}: a {kind} is not counted here, but {', '.join(CONFIG_DEFAULTS)} are")
    return CONFIG_DEFAULTS[kind] | dict(part)


LLAMA_3_8B = {"model_type": "llama", "intermediate_size": 14336, "num_key_value_heads": 8}
"""meta-llama/Meta-Llama-3-8B-Instruct; with vocab_size 128256 it has the published 8,030,261,248 parameters."""
MISTRAL_7B = {"model_type": "mistral"}
"""mistralai/Mistral-7B-Instruct-v0.2: 7,241,732,096 parameters at vocab_size 32000."""
SIGLIP_SO400M_384 = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
}  # fmt: skip
"""google/siglip-so400m-patch14-384: its vision half has 428,225,600 parameters."""
CLIP_L_336 = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
"""openai/clip-vit-large-patch14-336: its vision half has 303,507,456 parameters."""

REFERENCE_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    # 8,480,007,232 parameters, SigLIP's pooling head among them: the hub shows 8.48B.
    "TIGER-Lab/Mantis-8B-siglip-llama3": (
        {"model_type": "llava", "vision_config": SIGLIP_SO400M_384, "text_config": LLAMA_3_8B | {"vocab_size": 128258}},
        "SigLIP so400m/14 at 384 px and Llama-3-8B, as published",
    ),
    "chaoyinshe/llava-med-v1.5-mistral-7b-hf": (
        {"model_type": "llava", "vision_config": CLIP_L_336, "text_config": MISTRAL_7B | {"vocab_size": 32064}},
        "CLIP ViT-L/14 at 336 px and Mistral-7B-v0.2, as published",
    ),
}
"""config.json of models of the hub, and what they are: their plan is made before they are fetched."""


def find_config(hub: str | None, *folders: Path | str | None) -> tuple[dict[str, Any], str]:
    """config.json of a model and where it is from: the first of the folders that has one, else the reference.

    Raises UnknownArchitectureError where there is neither.
    """
    for folder in folders:
        if folder and (path := Path(folder, "config.json")).is_file():
            try:
                return json.loads(path.read_text(encoding="utf-8")), path.as_posix()
            except ValueError as error:
                raise UnknownArchitectureError(f"{path} is no JSON: {error}") from None
    if hub in REFERENCE_CONFIGS:
        return REFERENCE_CONFIGS[hub]
    raise UnknownArchitectureError(f"{hub or 'the base'} has no config.json here yet, and is none of the models known beforehand")
