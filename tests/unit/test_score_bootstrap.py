"""The patient bootstrap against scipy's, and its coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from medmim.score.bootstrap import Array, Design, interval, resampled_means

Patients = list[tuple[str, ...]]


def clustered(rng: np.random.Generator, patients: Patients, spread: float) -> Array:
    """0/1 answers, right with probability 0.62 on average, that lean the same way where they share patients."""
    lean = {name: rng.normal(0, spread) for name in sorted({n for names in patients for n in names})}
    latent = np.array([sum(lean[n] for n in names) / np.sqrt(len(names)) for names in patients]) + rng.normal(size=len(patients))
    return (latent > stats.norm.ppf(0.38) * np.sqrt(1 + spread**2)).astype(float)


def coverage(rng: np.random.Generator, patients: Patients, spread: float, *, designs: list[Design], repeats: int) -> list[float]:
    """Share of 95 % intervals that hold the true mean, for each design."""
    held = np.zeros(len(designs))
    for _ in range(repeats):
        values = clustered(rng, patients, spread)[:, None]
        for i, design in enumerate(designs):
            low, high = interval(resampled_means(values, design, 600, rng))
            held[i] += low[0] <= 0.62 <= high[0]
    return list(held / repeats)


def alone(patients: Patients) -> Design:
    """Each question for itself: the item bootstrap."""
    return Design.of([(str(i),) for i in range(len(patients))])


def joined(patients: Patients) -> Design:
    """Each combination of patients for itself."""
    return Design.of([("+".join(names),) for names in patients])


def test_same_resamples_as_scipy() -> None:
    """With one patient a question: the same draws from the same generator give scipy's distribution, number by number."""
    rng = np.random.default_rng(1)
    patient = np.sort(rng.integers(0, 40, 300))
    values = np.column_stack([rng.random(300), rng.integers(0, 2, 300), rng.normal(size=300)])
    units = np.unique(patient)
    counts = np.array([(patient == u).sum() for u in units])
    design = Design.of([(f"{u:02}",) for u in patient])
    ours = resampled_means(values, design, 2000, np.random.default_rng(7))
    assert (design.n_patients, design.n_units) == (len(units), len(units))
    low, high = interval(ours)
    for column in range(3):
        sums = np.array([values[patient == u, column].sum() for u in units])
        scipys = stats.bootstrap(
            (sums, counts),
            lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True, vectorized=True, n_resamples=2000, method="percentile", rng=np.random.default_rng(7),
        )  # fmt: skip
        assert ours[:, column] == pytest.approx(scipys.bootstrap_distribution, abs=1e-12)
        assert (low[column], high[column]) == pytest.approx(tuple(scipys.confidence_interval), abs=1e-12)


def test_paired_differences_share_the_resamples() -> None:
    rng = np.random.default_rng(2)
    values = rng.random((80, 2))
    design = Design.of([(str(i % 17),) for i in range(80)])
    both = resampled_means(np.column_stack([values, values[:, 0] - values[:, 1]]), design, 500, rng)
    assert both[:, 2] == pytest.approx(both[:, 0] - both[:, 1], abs=1e-12)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values, design = np.random.default_rng(3).random((50, 2)), Design.of([(str(i % 9), str(i % 7)) for i in range(50)])
    whole = resampled_means(values, design, 300, np.random.default_rng(0))
    monkeypatch.setattr("medmim.score.bootstrap._BLOCK", 100)
    assert resampled_means(values, design, 300, np.random.default_rng(0)) == pytest.approx(whole, abs=1e-12)


def test_patients_always_together_are_one_unit() -> None:
    values = np.random.default_rng(4).random((30, 1))
    pairs = Design.of([(f"left {i % 10}", f"right {i % 10}") for i in range(30)])
    single = Design.of([(f"both {i % 10}",) for i in range(30)])
    assert (pairs.n_patients, pairs.n_units) == (20, 10)
    same = [resampled_means(values, d, 200, np.random.default_rng(5)) for d in (pairs, single)]
    assert same[0] == pytest.approx(same[1], abs=1e-12)


def test_variance_with_shared_patients_is_that_of_multiway_clusters() -> None:
    """Sum over patients of the squared sum of the residuals of their questions, over the squared number of questions."""
    rng = np.random.default_rng(6)
    patients = [tuple(str(n) for n in rng.choice(60, 2, replace=False)) for _ in range(300)]
    values = clustered(rng, patients, 1.0)
    residual = values - values.mean()
    sums = [sum(r for r, names in zip(residual, patients, strict=True) if str(n) in names) for n in range(60)]
    means = resampled_means(values[:, None], Design.of(patients), 20_000, rng)
    assert means.std() == pytest.approx(np.sqrt(np.square(sums).sum()) / 300, rel=0.05)


def test_means_stay_within_the_values() -> None:
    rng = np.random.default_rng(8)
    values = np.column_stack([np.ones(40), (np.arange(40) > 0).astype(float)])
    patients = [tuple(str(n) for n in rng.choice(8, 3, replace=False)) for _ in range(40)]
    means = resampled_means(values, Design.of(patients), 1000, rng)
    assert (means[:, 0] == 1).all()
    assert means[:, 1].max() <= 1


def test_question_without_patients() -> None:
    with pytest.raises(ValueError, match="question number 1 has no patient"):
        Design.of([("a",), ()])


def test_coverage_with_one_patient_a_question() -> None:
    rng = np.random.default_rng(9)
    patients = [(str(i),) for i in range(70) for _ in range(1 + i % 7)]
    ours, items = coverage(rng, patients, 1.0, designs=[Design.of(patients), alone(patients)], repeats=600)
    assert 0.92 <= ours <= 0.97
    assert items < 0.85


def test_coverage_with_several_patients_a_question() -> None:
    rng = np.random.default_rng(10)
    patients = [tuple(str(n) for n in rng.choice(60, 2, replace=False)) for _ in range(240)]
    ours, pairs, items = coverage(
        rng, patients, 1.0, designs=[Design.of(patients), joined(patients), alone(patients)], repeats=400
    )
    assert ours >= 0.93
    assert pairs < 0.85 and items < 0.85
    ours, items = coverage(rng, patients, 0.0, designs=[Design.of(patients), alone(patients)], repeats=300)
    assert ours >= items >= 0.91  # wider than need be where patients do not matter


def test_resamples_centre_on_the_mean_where_questions_have_unequal_numbers_of_patients() -> None:
    rng = np.random.default_rng(5)
    patients = [[f"a{n}", f"b{n}", f"c{n % 40}"] if n % 2 else [f"d{n}"] for n in range(200)]
    values = np.array([[float(n % 2)] for n in range(200)])
    means = resampled_means(values, Design.of(patients), 4000, rng)
    assert means.mean() == pytest.approx(0.5, abs=0.01)
