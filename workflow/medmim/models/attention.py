"""Attention that stays inside each sample of a pack, for the language model of a training.

Each sample is a causal attention of its own, through torch's own kernels: on a GPU its flash attention, with nothing to be
installed. A mask over the whole pack, as transformers makes one of restarting positions, would compute all that it hides.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, LlavaForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PACKED_ATTENTION = "inside_samples"


def attend_inside_samples(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    sample_lengths: Sequence[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls its attention functions: 1 x heads x T x width each, to 1 x T x heads x width.

    `sample_lengths` are those of `collate.pack_samples`; their sum is T.
    """
    sample_states = zip(*(states.split(list(sample_lengths), 2) for states in (query, key, value)), strict=True)
    return torch.cat(
        [sdpa_attention_forward(module, *p, None, dropout=dropout, scaling=scaling)[0] for p in sample_states], 1
    ), None


AttentionInterface.register(PACKED_ATTENTION, attend_inside_samples)


def enable_packed_attention(model: LlavaForConditionalGeneration) -> None:
    """Have a model's language model take packs, and nothing else."""
    model.set_attn_implementation({"text_config": PACKED_ATTENTION})
