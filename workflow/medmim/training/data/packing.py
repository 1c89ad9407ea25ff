"""Samples put together into packs of nearly a budget of tokens, ahead of training and the same for any number of processes.

A window of samples in random order is emptied pack by pack: the longest sample that is left opens one, and the subset of the
others that fills it best, found exactly, joins it. Among equals the first in order are taken: packs mix as the samples do.
"""

from collections.abc import Sequence

import numpy as np

from medmim.common.errors import UserError
from medmim.training.data.order import permutation

WINDOW = 256
"""Samples to choose from. More fill hardly better, and take longer."""
LEFT = 24
"""Samples that the window is left with, to go with those that come next: the last packs of a window would be badly filled."""


def packs(lengths: np.ndarray, seed: int, epoch: int, budget: int) -> list[np.ndarray]:
    """Sample indices, int64, of every pack of one epoch, in random order: each sample once. A pure function of its arguments.

    `lengths` of all samples after expansion; the tokens of no pack are more than `budget`. Raises UserError where a sample is.
    """
    if len(lengths) and lengths.max() > budget:
        raise UserError(
            f"a training sample has {lengths.max()} tokens, more than pack_tokens {budget}: raise it, or lower max_length"
        )
    long = lengths.tolist()
    order = permutation(seed, epoch, len(long)).tolist()
    made: list[list[int]] = []
    window: list[int] = []
    taken = 0
    while window or taken < len(order):
        coming = order[taken : taken + WINDOW - len(window)]
        window, taken = window + coming, taken + len(coming)
        while len(window) > (LEFT if taken < len(order) else 0):
            opening = window.pop(max(range(len(window)), key=lambda place: long[window[place]]))
            places = fullest([long[sample] for sample in window], budget - long[opening])
            made.append([opening, *(window[place] for place in places)])
            for place in places:
                del window[place]
    shuffled = np.random.default_rng([seed, epoch, *b"packs"]).permutation(len(made))
    return [np.array(made[pack], np.int64) for pack in shuffled]


def fullest(lengths: Sequence[int], room: int) -> list[int]:
    """Places, falling, of a subset whose sum is the largest that is not more than `room`."""
    within = (1 << (room + 1)) - 1
    sums = [1]  # bit n of sums[k]: some of the first k lengths add up to n
    for length in lengths:
        sums.append((sums[-1] | sums[-1] << length) & within)
        if sums[-1] >> room:
            break
    chosen, left, k = [], sums[-1].bit_length() - 1, len(sums) - 1
    while left:
        while sums[k - 1] >> left & 1:
            k -= 1
        k -= 1
        chosen.append(k)
        left -= lengths[k]
    return chosen


def batches(lengths: np.ndarray, seed: int, budget: int, count: int) -> list[np.ndarray]:
    """The first `count` packs of a training, epoch after epoch."""
    made: list[np.ndarray] = []
    epoch = 0
    while len(made) < count:
        made += packs(lengths, seed, epoch, budget)
        epoch += 1
    return made[:count]
