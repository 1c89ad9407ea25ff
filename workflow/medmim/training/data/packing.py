"""Samples put together into packs of nearly a budget of tokens, ahead of training and the same for any number of processes.

A window of samples in random order is emptied pack by pack: the longest sample that is left opens one, and the subset of the
others that fills it best, found exactly, joins it. Among equals the first in order are taken: packs mix as the samples do.
"""

from collections.abc import Sequence

import numpy as np

from medmim.common.errors import UserError
from medmim.training.data.order import permute_epoch

WINDOW_SIZE = 256
"""Samples to choose from. More fill hardly better, and take longer."""
CARRIED_OVER = 24
"""Samples that the window is left with, to go with those that come next: the last packs of a window would be badly filled."""


def pack_epoch(lengths: np.ndarray, seed: int, epoch: int, budget: int) -> list[np.ndarray]:
    """Sample indices, int64, of every pack of one epoch, in random order: each sample once. A pure function of its arguments.

    `lengths` of all samples after expansion; the tokens of no pack are more than `budget`. Raises UserError where a sample is.
    """
    if len(lengths) and lengths.max() > budget:
        raise UserError(
            f"a training sample has {lengths.max()} tokens, more than pack_tokens {budget}: raise it, or lower max_length"
        )
    token_counts = lengths.tolist()
    order = permute_epoch(seed, epoch, len(token_counts)).tolist()
    packs: list[list[int]] = []
    window: list[int] = []
    taken = 0
    while window or taken < len(order):
        next_samples = order[taken : taken + WINDOW_SIZE - len(window)]
        window, taken = window + next_samples, taken + len(next_samples)
        while len(window) > (CARRIED_OVER if taken < len(order) else 0):
            longest = window.pop(max(range(len(window)), key=lambda place: token_counts[window[place]]))
            places = find_fullest_subset([token_counts[sample] for sample in window], budget - token_counts[longest])
            packs.append([longest, *(window[place] for place in places)])
            for place in places:
                del window[place]
    shuffled = np.random.default_rng([seed, epoch, *b"packs"]).permutation(len(packs))
    return [np.array(packs[pack], np.int64) for pack in shuffled]


def find_fullest_subset(lengths: Sequence[int], capacity: int) -> list[int]:
    """Places, falling, of a subset whose sum is the largest that is not more than `capacity`."""
    mask = (1 << (capacity + 1)) - 1
    sums = [1]  # bit n of sums[k]: some of the first k lengths add up to n
    for length in lengths:
        sums.append((sums[-1] | sums[-1] << length) & mask)
        if sums[-1] >> capacity:
            break
    chosen, remaining, k = [], sums[-1].bit_length() - 1, len(sums) - 1
    while remaining:
        while sums[k - 1] >> remaining & 1:
            k -= 1
        k -= 1
        chosen.append(k)
        remaining -= lengths[k]
    return chosen


def pack_batches(lengths: np.ndarray, seed: int, budget: int, count: int) -> list[np.ndarray]:
    """The first `count` packs of a training, epoch after epoch."""
    all_packs: list[np.ndarray] = []
    epoch = 0
    while len(all_packs) < count:
        all_packs += pack_epoch(lengths, seed, epoch, budget)
        epoch += 1
    return all_packs[:count]
