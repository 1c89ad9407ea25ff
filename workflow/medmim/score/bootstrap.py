"""Bootstrap over patients, vectorised: intervals of means and of paired differences.

A resample draws patients with replacement, as many as there are; a patient's questions come as often as the patient. That is
the usual cluster bootstrap of a mean, and exactly what is done where each question is about one patient.

Questions about several patients tie patients together. Patients joined to one cluster per question would treat questions that
share a patient as independent (too narrow); connected components soon join a whole set to one cluster, of which nothing can be
said. Here each patient drawn moves the mean by the residuals of all questions about it, so a question is moved by each of its
patients. The variance is that of multi-way clustering without taking off what is counted twice (Cameron, Gelbach and Miller 2011,
J Bus Econ Stat 29:238-249; the first-order part of Owen's pigeonhole bootstrap, 2007, Ann Appl Stat 1:386-411): all dependence
through shared patients is covered, and where there is none an interval over k patients a question is up to sqrt(k) too wide.
No resampling is exact for such data (McCullagh 2000, Bernoulli 6:285-301). Patients who stand in exactly the same questions
are one unit, so questions that share no patient with another are resampled as usual.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
_BLOCK = 1 << 21  # draws held at a time


@dataclass(frozen=True)
class Design:
    """Which questions are about which units: pairs (question[i], unit[i])."""

    n_questions: int
    n_patients: int
    n_units: int
    question: Index
    unit: Index

    @classmethod
    def of(cls, patients: Sequence[Sequence[str]]) -> "Design":
        """From each question's patients. ValueError for a question without any."""
        held: dict[str, list[int]] = {}
        for number, names in enumerate(patients):
            if not names:
                raise ValueError(f"question number {number} has no patient")
            for name in set(names):
                held.setdefault(name, []).append(number)
        units = sorted({tuple(numbers) for numbers in held.values()})
        question = [number for numbers in units for number in numbers]
        unit = [row for row, numbers in enumerate(units) for _ in numbers]
        return cls(len(patients), len(held), len(units), np.array(question, np.intp), np.array(unit, np.intp))


def resampled_means(values: Array, design: Design, resamples: int, rng: np.random.Generator) -> Array:
    """Means over the questions in each resample, all columns on the same resamples.

    values: questions x columns. Returns resamples x columns, within the range of each column's values.
    """
    mean, units = values.mean(axis=0), design.n_units
    held = np.bincount(design.question, minlength=design.n_questions)
    residual = np.zeros((units, values.shape[1] + 1))
    np.add.at(residual, design.unit, np.column_stack([values - mean, 1 / held])[design.question])
    # Questions about many patients count in many rows: without this, resamples would centre on their mean, not on the set's.
    residual[:, :-1] -= residual[:, :-1].mean(axis=0)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _BLOCK // units)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, units, (rows, units)) + np.arange(rows)[:, None] * units
        times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        total = times.astype(np.float64) @ residual  # the last column is the resample's size in questions, never 0
        means[start : start + rows] = mean + total[:, :-1] / total[:, -1:]
    return np.clip(means, values.min(axis=0), values.max(axis=0))


def interval(means: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Percentile interval of each column of resampled means."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
