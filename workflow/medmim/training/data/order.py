"""Which sample comes when: epoch after epoch, each a permutation that depends on (seed, epoch) alone."""

from collections.abc import Sequence

import numpy as np


def permute_epoch(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of n samples in one epoch: int64, n. A pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def order_samples(seed: int, n: int, total: int) -> np.ndarray:
    """Sample indices of a whole training of `total` samples drawn from n: int64, total.

    Epochs follow each other without a gap, so every batch is full: a last one is filled from the next epoch's order.
    """
    epochs = [permute_epoch(seed, epoch, n) for epoch in range(-(-total // n))]
    return np.concatenate(epochs)[:total] if epochs else np.empty(0, np.int64)


def order_mixed_groups(seed: int, groups: Sequence[str], total: int) -> np.ndarray:
    """Sample indices of a whole training that draws groups by the square root of their size: int64, total.

    Small groups come more often than their share, large ones still most often; within a group epochs follow each other.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    names = sorted(members)
    weights = np.sqrt([len(members[name]) for name in names])
    drawn_groups = np.random.default_rng([seed, *b"mixed"]).choice(len(names), total, p=weights / weights.sum())
    indices = np.empty(total, np.int64)
    for number, name in enumerate(names):
        places = np.flatnonzero(drawn_groups == number)
        indices[places] = np.array(members[name])[order_samples(seed, len(members[name]), len(places))]
    return indices


def order_batches(seed: int, n: int, size: int, count: int) -> list[np.ndarray]:
    """The samples of each of the `count` batches of a training: int64, `size` each."""
    return list(order_samples(seed, n, size * count).reshape(count, size))
