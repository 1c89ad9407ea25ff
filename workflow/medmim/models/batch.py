"""Samples to the padded tensors that `LlavaForConditionalGeneration` takes."""

from collections.abc import Sequence

import numpy as np
import torch

from medmim.models.layout import IGNORE, Family, Layout, Sample


def normalise(family: Family, pixels: np.ndarray) -> torch.Tensor:
    """uint8, n x H x W x 3, to float32, n x 3 x H x W: (pixels / 255 - mean) / std."""
    scale = torch.tensor(family.std) * 255
    writable = np.require(pixels, requirements="W")  # torch warns of others
    return ((torch.from_numpy(writable) - torch.tensor(family.mean) * 255) / scale).permute(0, 3, 1, 2).contiguous()


def collate(layout: Layout, samples: Sequence[Sample], *, left: bool = False) -> dict[str, torch.Tensor]:
    """One batch of B samples, T tokens the longest after expansion.

    input_ids, attention_mask, labels: int64, B x T, padded on the right, or on the left to generate from.
    position_ids: int64, B x T, counted from 0 at each sample's first real token, 0 on padding.
    pixel_values: float32, (images of the batch) x 3 x H x W, all images of the first sample first; absent without images.
    """
    rows = [layout.expand(s.input_ids, s.labels) for s in samples]
    width = max(len(ids) for ids, _ in rows)
    input_ids = np.full((len(rows), width), layout.pad, np.int64)
    labels = np.full((len(rows), width), IGNORE, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    for row, (ids, wanted) in enumerate(rows):
        place = slice(width - len(ids), width) if left else slice(0, len(ids))
        input_ids[row, place], labels[row, place], mask[row, place] = ids, wanted, 1
        positions[row, place] = np.arange(len(ids))
    batch = {"input_ids": input_ids, "attention_mask": mask, "labels": labels, "position_ids": positions}
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    if images := [p for s in samples for p in s.pixels]:
        tensors["pixel_values"] = normalise(layout.family, np.stack(images))
    return tensors
