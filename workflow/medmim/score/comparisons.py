"""Tests of pairs of models on the same questions, adjusted by Holm for their number."""

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np

from medmim.score.bootstrap import Array


def holm(p_values: Array) -> Array:
    """Holm's adjusted p-values of those that are not NaN, which stay so and do not count."""
    from statsmodels.stats.multitest import multipletests  # a second or two

    adjusted, given = p_values.copy(), ~np.isnan(p_values)
    if given.any():
        gc.freeze()  # multipletests collects garbage each time: not in all that is here already
        adjusted[given] = multipletests(p_values[given], method="holm")[1]
        gc.unfreeze()
    return adjusted


def mcnemar(one: Array, other: Array) -> float:
    """McNemar's exact two-sided p for two models' rights and wrongs on the same independent questions."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    both = [[float(((one == a) & (other == b)).sum()) for b in (1, 0)] for a in (1, 0)]
    return float(test(both, exact=True).pvalue)


def compare(pairs: Sequence[tuple[Array, Array]], p_values: Array, *, independent: bool) -> list[dict[str, Any]]:
    """Columns p, p_holm, p_mcnemar, p_mcnemar_holm (NaN where there is none), only_model, only_other for each pair.

    pairs: 1 and 0 for each question by both models. p_values: the bootstrap's. independent: whether no patient has two questions.
    """
    exact = np.array([mcnemar(a, b) if independent else np.nan for a, b in pairs])
    columns = {"p": p_values, "p_holm": holm(p_values), "p_mcnemar": exact, "p_mcnemar_holm": holm(exact)}
    return [
        {
            **{name: float(values[i]) for name, values in columns.items()},
            "only_model": int(((a == 1) & (b == 0)).sum()),
            "only_other": int(((a == 0) & (b == 1)).sum()),
        }
        for i, (a, b) in enumerate(pairs)
    ]
