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
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls its attention functions: 1 x heads x T x width each, to 1 x T x heads x width.

    `sample_lengths` are those of `collate.pack_samples`; their sum is T. `sliding_window`, of the model's config: positions that
    one sees, its own among them; None, all before it.
    """
    sample_states = zip(*(states.split(list(sample_lengths), 2) for states in (query, key, value)), strict=True)
    masks = {length: _build_window_mask(length, sliding_window, query.device) for length in set(sample_lengths)}
    outputs = [
        sdpa_attention_forward(module, *states, masks[states[0].shape[2]], dropout=dropout, scaling=scaling)[0]
        for states in sample_states
    ]
    return torch.cat(outputs, 1), None


def _build_window_mask(length: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Whether a position sees another, bool, 1 x 1 x length x length; None where the sample is not longer than the window.

    Without a mask torch takes its fast causal kernel.
    """
    if sliding_window is None or length <= sliding_window:
        return None
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal.triu(1 - sliding_window)[None, None]


AttentionInterface.register(PACKED_ATTENTION, attend_inside_samples)


def enable_packed_attention(model: LlavaForConditionalGeneration) -> None:
    """Have a model's language model take packs, and nothing else."""
    model.set_attn_implementation({"text_config": PACKED_ATTENTION})
