"""A model without its weights, on torch's meta device: what a training would really load and train, counted."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from medmim.config.training import Tuning
from medmim.training.adapters import make_trainable


def build_empty_model(config: Mapping[str, Any]) -> LlavaForConditionalGeneration:
    """The model of a config.json, as it is loaded in bf16."""
    with torch.device("meta"):
        return LlavaForConditionalGeneration(LlavaConfig(**config)).to(torch.bfloat16)


def build_adapted_model(config: Mapping[str, Any], tuning: Tuning) -> nn.Module:
    """The same with what a recipe trains."""
    with torch.device("meta"):
        return make_trainable(build_empty_model(config), tuning, "")


def count_parameters(model: nn.Module, *, trained: bool = False) -> int:
    """Weights, all or those that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)
