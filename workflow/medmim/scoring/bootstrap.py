"""Bootstrap over patients, vectorised: intervals of means and of paired differences, and their p-values.

A resample draws patients with replacement, as many as there are; a patient's questions come as often as the patient. That is
the usual cluster bootstrap of a mean, and exactly what is done where each question is about one patient.

Questions about several patients tie patients together. Patients joined to one cluster per question would treat questions that
share a patient as independent (too narrow); connected components soon join a whole set to one cluster, of which nothing can be
said. Here each patient drawn moves the mean by the residuals of all questions about it. That counts a pair of questions as often
as they share a patient, and a question with itself as often as it has patients: too wide. So the resamples are drawn together
until their variance is that which counts each pair once, the dyadic-robust one (Aronow, Samii and Assenova 2015, Political
Analysis 23:564-577; for clusters Cameron, Gelbach and Miller 2011, J Bus Econ Stat 29:238-249), but never below that of
independent questions. Patients who stand in exactly the same questions are one unit.

Intervals are BCa (Efron 1987, J Am Stat Assoc 82:171-185) for the skewness of scores near 0 and 1, with two corrections for few
patients, without which they are too narrow. The quantile is Student's, with as many degrees of freedom as there are independent
units less one: n² over the sum of all correlations, which for clusters is n² / sum of squared sizes (Kish). And the deviation is
divided by the square root of the share that the variance's estimate has of the variance on average, since residuals are taken
from the mean of the same questions: 1 - 1/G for G clusters of one size. Both follow from how questions share patients, under a
correlation of |A ∩ B| / sqrt(|A| |B|) between questions about the patients A and B. tests/bench/bench_coverage.py tells how often
such intervals hold the truth.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]
Index = NDArray[np.intp]
_BLOCK = 1 << 21  # draws held at a time
_MAX_STANDARD_DEVIATIONS = 1e6  # standard deviations: all of a distribution
_TOLERANCE = 1e-12  # means this near are the same: sums of the same numbers in another order


@dataclass(frozen=True)
class Design:
    """Which questions are about which units: pairs (question[i], unit[i]). patients: how many patients each unit is."""

    n_questions: int
    n_units: int
    question: Index
    unit: Index
    patients: Index

    @classmethod
    def from_patients(cls, patients: Sequence[Sequence[str]]) -> "Design":
        """From each question's patients. ValueError for a question without any."""
        questions_of_patient: dict[str, list[int]] = {}
        for number, names in enumerate(patients):
            if not names:
                raise ValueError(f"question number {number} has no patient")
            for name in set(names):
                questions_of_patient.setdefault(name, []).append(number)
        patient_counts = Counter(tuple(numbers) for numbers in questions_of_patient.values())
        units = sorted(patient_counts)
        question = [number for numbers in units for number in numbers]
        unit = [row for row, numbers in enumerate(units) for _ in numbers]
        patients_of = [patient_counts[numbers] for numbers in units]
        return cls(len(patients), len(units), *(np.array(x, np.intp) for x in (question, unit, patients_of)))

    def draw_blocks(self, resamples: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """First and last resample of each block that is drawn at once."""
        step = max(1, _BLOCK // self.n_units)
        return [(start, min(start + step, resamples)) for start in range(0, resamples, step)]


@dataclass(frozen=True)
class ResampledMeans:
    """Means of columns of values, and how they fell out in each resample.

    n, patients: questions that each column covers, and patients they are about.
    known: whether a column's resamples tell anything: not where all its questions are of one unit, or all units have one mean.
    deviations: columns x resamples, sorted, of the resampled means from the mean.
    units: effective number of independent units. shrunk: share that the variance's estimate has of the variance on average.
    bias, acceleration: BCa's z0 and a. low, high: range of the column's values.
    """

    mean: Array
    n: Index
    patients: Index
    is_known: NDArray[np.bool_]
    deviations: Array
    units: Array
    shrunk: Array
    bias: Array
    acceleration: Array
    low: Array
    high: Array

    @property
    def _degrees_of_freedom(self) -> Array:
        """Student's degrees of freedom, and 1 where they are not asked for."""
        return np.where(self.is_known, self.units - 1, 1.0)

    def confidence_interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Both ends for each column, within the range of its values; NaN where the resamples tell nothing."""
        student = stdtrit(self._degrees_of_freedom, (1 + level) / 2)
        return self.bca_interval(np.minimum(student, _MAX_STANDARD_DEVIATIONS) / np.sqrt(self.shrunk))

    def bca_interval(self, z: Array) -> tuple[Array, Array]:
        """Ends at so many standard deviations of the normal distribution to each side; plain BCa's for 1.96."""
        ends = []
        for side in (-1, 1):
            t = self.bias + side * z
            share = ndtr(self.bias + t / np.maximum(1 - self.acceleration * t, 0.1))
            place = share * (self.deviations.shape[1] - 1)
            below = np.floor(place).astype(np.intp)
            above = np.minimum(below + 1, self.deviations.shape[1] - 1)
            row = np.arange(len(place))
            start = self.deviations[row, below]
            end = self.mean + start + (place - below) * (self.deviations[row, above] - start)
            ends.append(np.where(self.is_known, np.clip(end, self.low, self.high), np.nan))
        return ends[0], ends[1]

    def p_values(self) -> Array:
        """Two-sided p of each column's mean being 0: 1 - the level at which the interval ends at 0; 1 where all values are 0."""
        count = self.deviations.shape[1]
        share = _share_below(self.deviations, -self.mean)
        w = ndtri(np.clip(share, 1 / (count + 1), count / (count + 1))) - self.bias
        z = w / np.maximum(1 + self.acceleration * w, 0.1) - self.bias
        p = 2 * stdtr(self._degrees_of_freedom, -np.abs(z) * np.sqrt(self.shrunk))
        return np.where(self.is_known, p, np.where((self.low == 0) & (self.high == 0), 1.0, np.nan))


def _share_below(ordered: Array, places: Array) -> Array:
    """Share of each row below its place; what is at the place counts half."""
    pairs = list(zip(ordered, places, strict=True))
    left = [np.searchsorted(row, x - _TOLERANCE, "left") for row, x in pairs]
    right = [np.searchsorted(row, x + _TOLERANCE, "right") for row, x in pairs]
    share: Array = (np.array(left, np.float64) + np.array(right, np.float64)) / 2 / ordered.shape[1]
    return share


def resample_means(values: Array, design: Design, resamples: int, rng: np.random.Generator) -> ResampledMeans:
    """Resampled means of questions, all columns on the same resamples.

    values: questions x columns; NaN where a column does not cover a question, whose mean is over the others. Each column
    covers a question.
    """
    covers = np.ascontiguousarray(~np.isnan(values).T)
    column_of_mask = {covers[i].tobytes(): i for i in range(len(covers) - 1, -1, -1)}  # columns that cover the same questions
    mask_index = {key: i for i, key in enumerate(column_of_mask)}
    mask_of = np.array([mask_index[row.tobytes()] for row in covers])
    masks = covers[list(column_of_mask.values())].T
    parts = [_SubDesign.from_mask(design, mask) for mask in masks.T]
    columns = values.shape[1]
    mean, is_known = np.empty(columns), np.empty(columns, bool)
    residual, acceleration, scale = np.empty((design.n_units, columns)), np.empty(columns), np.empty(columns)
    for number, part in enumerate(parts):
        columns_of_part = np.flatnonzero(mask_of == number)
        covered = values[np.ix_(masks[:, number], columns_of_part)]
        mean[columns_of_part] = covered.mean(axis=0)
        error = np.zeros((design.n_questions, len(columns_of_part)))
        error[masks[:, number]] = covered - mean[columns_of_part]
        residual[:, columns_of_part], acceleration[columns_of_part], scale[columns_of_part], is_known[columns_of_part] = (
            part.compute_residuals(error)
        )
    sizes = np.stack([part.size for part in parts])
    deviations = np.empty((columns, resamples))
    for start, stop in design.draw_blocks(resamples, rng):
        rows = stop - start
        drawn = rng.integers(0, design.n_units, (rows, design.n_units)) + np.arange(rows)[:, None] * design.n_units
        draw_counts = np.bincount(drawn.ravel(), minlength=rows * design.n_units).reshape(rows, design.n_units).astype(np.float64)
        weighted_sums, size = (residual * scale).T @ draw_counts.T, sizes @ draw_counts.T
        size[size == 0] = np.inf  # a resample that has none of a column's questions says nothing: no deviation
        np.divide(weighted_sums, size[mask_of] if len(parts) > 1 else size, out=deviations[:, start:stop])
    deviations.sort(axis=1)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    middle = np.clip(_share_below(deviations, np.zeros(columns)), 1 / (resamples + 1), resamples / (resamples + 1))
    units, shrunk = (np.array([getattr(part, name) for part in parts])[mask_of] for name in ("units", "shrunk"))
    n, patients = masks.sum(axis=0)[mask_of], np.array([design.patients[part.size > 0].sum() for part in parts])[mask_of]
    return ResampledMeans(mean, n, patients, is_known, deviations, units, shrunk, ndtri(middle), acceleration, low, high)


@dataclass(frozen=True)
class _SubDesign:
    """A design cut down to the questions of some columns.

    on: questions x units, 1 where a question of the part is about the unit. size: questions a unit stands for, one about k units
    being a k-th for each. repeated: questions x questions, how much too often a pair is counted, by unit; None where it never is.
    """

    on: sparse.csr_array
    size: Array
    repeated: sparse.csr_array | None
    units: float
    shrunk: float

    @classmethod
    def from_mask(cls, design: Design, mask: NDArray[np.bool_]) -> "_SubDesign":
        in_mask = mask[design.question]
        question, unit = design.question[in_mask], design.unit[in_mask]
        shape = (design.n_questions, design.n_units)
        on = sparse.csr_array((np.ones(len(question)), (question, unit)), shape=shape)
        unit_counts = np.bincount(question, minlength=design.n_questions)
        share = 1 / np.maximum(unit_counts, 1)
        repeated, neighbour_counts = None, on @ on.sum(axis=0)  # near: questions that share a unit with each
        if unit_counts.max() > 1:
            shared = sparse.csr_array(on * (unit_counts > 1)[:, None])
            repeated = sparse.csr_array(shared @ shared.T)
            repeated.data -= 1
            repeated.eliminate_zeros()
            neighbour_counts = neighbour_counts - repeated.sum(axis=1)
        even = sparse.csr_array(on * np.sqrt(share)[:, None])
        correlations = even @ even.sum(axis=0)  # correlations of each question with all
        n, total = mask.sum(), correlations.sum()
        shrunk = 1 - 2 * (neighbour_counts @ correlations) / (n * total) + neighbour_counts.sum() / n**2
        return cls(on, on.T @ share, repeated, n**2 / total, max(float(shrunk), _TOLERANCE))

    def compute_residuals(self, error: Array) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """Units x columns residuals, whose sums over a resample are its deviation, BCa's acceleration, their scale, `known`."""
        inside = self.size > 0
        residual: Array = self.on.T @ error
        scale = np.ones(error.shape[1])
        varies = np.square(residual).sum(axis=0) > _TOLERANCE
        if self.repeated is not None:
            independent_variance = np.square(error).sum(axis=0)
            dyadic_variance = np.square(residual).sum(axis=0) - (error * (self.repeated @ error)).sum(axis=0)
            # Questions about many patients count in many rows: without this, resamples would centre elsewhere than on the mean.
            residual[inside] -= residual.sum(axis=0) / inside.sum()
            resampled_variance = np.square(residual).sum(axis=0)
            scale = np.sqrt(
                np.divide(
                    np.maximum(dyadic_variance, independent_variance),
                    resampled_variance,
                    out=np.ones_like(resampled_variance),
                    where=resampled_variance > _TOLERANCE,
                )
            )
        jackknife = (
            -residual[inside] / np.maximum(self.size.sum() - self.size[inside], _TOLERANCE)[:, None]
        )  # jackknife, less the mean
        jackknife = jackknife.mean(axis=0) - jackknife
        squares = np.square(jackknife).sum(axis=0)
        cubes = (jackknife**3).sum(axis=0)
        acceleration = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > _TOLERANCE**2)
        return residual, acceleration, scale, varies & (self.units > 1 + _TOLERANCE)
