"""Tests of pairs of models on the same questions, adjusted by Holm for their number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import bdtr

from medmim.scoring.bootstrap import Array


def adjust_holm(p_values: Array) -> Array:
    """Holm's adjusted p-values of those that are not NaN, which stay so and do not count; as statsmodels'."""
    adjusted = p_values.copy()
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN comes last
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.arange(len(order), 0, -1) * p_values[order]))
    return adjusted


def mcnemar_p_value(one: Array, other: Array) -> float:
    """McNemar's exact two-sided p for two models' rights and wrongs on the same independent questions, as statsmodels'."""
    only_one, only_other = int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))


def compare_pairs(pairs: Sequence[tuple[Array, Array]], p_values: Array, *, independent: bool) -> list[dict[str, Any]]:
    """Columns p, p_holm, p_mcnemar, p_mcnemar_holm (NaN where there is none), only_model, only_other for each pair.

    pairs: 1 and 0 for each question by both models. p_values: the bootstrap's. independent: whether no patient has two questions.
    """
    exact = np.array([mcnemar_p_value(a, b) if independent else np.nan for a, b in pairs])
    columns = {"p": p_values, "p_holm": adjust_holm(p_values), "p_mcnemar": exact, "p_mcnemar_holm": adjust_holm(exact)}
    return [
        {
            **{name: float(values[i]) for name, values in columns.items()},
            "only_model": int(((a == 1) & (b == 0)).sum()),
            "only_other": int(((a == 0) & (b == 1)).sum()),
        }
        for i, (a, b) in enumerate(pairs)
    ]
