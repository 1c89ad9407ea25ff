"""Samples to the tensors that `LlavaForConditionalGeneration` takes: padded to a rectangle, or one after another in one row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medmim.models.families.base import IGNORE_INDEX, Family, Layout, Sample


def normalise_pixels(family: Family, pixels: np.ndarray) -> torch.Tensor:
    """uint8, n x H x W x 3, to float32, n x 3 x H x W: (pixels / 255 - mean) / std."""
    scale = torch.tensor(family.std) * 255
    writable = np.require(pixels, requirements="W")  # torch warns of others
    return ((torch.from_numpy(writable) - torch.tensor(family.mean) * 255) / scale).permute(0, 3, 1, 2).contiguous()


def collate_samples(layout: Layout, samples: Sequence[Sample], *, pad_left: bool = False) -> dict[str, torch.Tensor]:
    """One batch of B samples, T tokens the longest after expansion.

    input_ids, attention_mask, labels: int64, B x T, padded on the right, or on the left to generate from.
    position_ids: int64, B x T, counted from 0 at each sample's first real token, 0 on padding.
    pixel_values: float32, (images of the batch) x 3 x H x W, all images of the first sample first; absent without images.
    """
    rows = [layout.expand_images(s.input_ids, s.labels) for s in samples]
    width = max(len(ids) for ids, _ in rows)
    input_ids = np.full((len(rows), width), layout.pad_id, np.int64)
    labels = np.full((len(rows), width), IGNORE_INDEX, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    for row, (ids, row_labels) in enumerate(rows):
        filled = slice(width - len(ids), width) if pad_left else slice(0, len(ids))
        input_ids[row, filled], labels[row, filled], mask[row, filled] = ids, row_labels, 1
        positions[row, filled] = np.arange(len(ids))
    batch = {"input_ids": input_ids, "attention_mask": mask, "labels": labels, "position_ids": positions}
    return {name: torch.from_numpy(array) for name, array in batch.items()} | _stack_images(layout, samples)


def pack_samples(layout: Layout, samples: Sequence[Sample]) -> dict[str, Any]:
    """The samples one after another, T tokens in all after expansion, for a model with `attention.enable_packed_attention`.

    input_ids, labels, position_ids: int64, 1 x T; positions are counted from 0 in each sample.
    sample_lengths: the tokens of each sample, a list.
    pixel_values: as from `collate_samples`.
    """
    rows = [layout.expand_images(s.input_ids, s.labels) for s in samples]
    lengths = [len(ids) for ids, _ in rows]
    labels = np.concatenate([row_labels for _, row_labels in rows])
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORE_INDEX  # nothing of its sample stands before a first token
    arrays = {
        "input_ids": np.concatenate([ids for ids, _ in rows]),
        "labels": labels,
        "position_ids": np.concatenate([np.arange(n) for n in lengths]),
    }
    tensors = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
    return {**tensors, "sample_lengths": lengths, **_stack_images(layout, samples)}


def _stack_images(layout: Layout, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    images = [p for s in samples for p in s.pixels]
    return {"pixel_values": normalise_pixels(layout.family, np.stack(images))} if images else {}


def restrict_loss_to_labels(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with its loss taken where a label follows: the model's head, 128,000 wide, computes nothing anywhere else.

    logits_to_keep: bool, B x T, where a label is to be predicted. labels, shift_labels: int64, those labels, N of all samples.
    """
    next_labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE_INDEX)
    has_label = next_labels != IGNORE_INDEX
    return batch | {"logits_to_keep": has_label, "labels": next_labels[has_label], "shift_labels": next_labels[has_label]}
