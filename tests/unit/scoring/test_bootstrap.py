"""The patient bootstrap against scipy's and by brute force, and its coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from medmim.scoring.bootstrap import Array, Design, resample_means

Patients = list[tuple[str, ...]]
NORMAL = stats.norm.ppf(0.975)


def answers(rng: np.random.Generator, patients: Patients, accuracy: float, spread: float, repeats: int) -> Array:
    """Questions x repeats of 0 and 1, right with that probability on average, leaning the same way where they share patients."""
    place = {name: i for i, name in enumerate(sorted({name for group in patients for name in group}))}
    lean, latent = rng.normal(0, spread, (len(place), repeats)), rng.normal(size=(len(patients), repeats))
    for row, group in zip(latent, patients, strict=True):
        row += lean[[place[name] for name in group]].sum(axis=0) / np.sqrt(len(group))
    right: Array = (latent > stats.norm.ppf(1 - accuracy) * np.sqrt(1 + spread**2)).astype(np.float64)
    return right


def coverage(
    patients: Patients, accuracy: float, spread: float, *, designs: list[Design], repeats: int, seed: int = 9
) -> list[float]:
    """Share of 95 % intervals that hold the true mean, for each design; 100 repeats share their resamples."""
    rng = np.random.default_rng([seed, len(patients)])
    held: list[list[bool]] = [[] for _ in designs]
    for _ in range(0, repeats, 100):
        values = answers(rng, patients, accuracy, spread, 100)
        for found, design in zip(held, designs, strict=True):
            low, high = resample_means(values, design, 1000, rng).confidence_interval()
            found.extend((low <= accuracy) & (accuracy <= high))
    return [float(np.mean(found)) for found in held]


def alone(patients: Patients) -> Design:
    """Each question for itself: the item bootstrap."""
    return Design.from_patients([(str(i),) for i in range(len(patients))])


def joined(patients: Patients) -> Design:
    """Each combination of patients for itself."""
    return Design.from_patients([("+".join(names),) for names in patients])


def drawn(count: int, patients: int, each: int) -> Patients:
    """Questions about so many patients drawn at random."""
    rng = np.random.default_rng(count)
    return [tuple(f"{n:03}" for n in rng.choice(patients, each, replace=False)) for _ in range(count)]


def test_same_resamples_and_intervals_as_scipy() -> None:
    """With one patient a question, and without our corrections for few patients: number by number what scipy's BCa gives."""
    rng = np.random.default_rng(1)
    patient = np.sort(rng.integers(0, 40, 300))
    values = np.column_stack([rng.random(300), rng.integers(0, 2, 300), rng.normal(size=300)])
    units = np.unique(patient)
    counts = np.array([(patient == u).sum() for u in units])
    design = Design.from_patients([(f"{u:02}",) for u in patient])
    ours = resample_means(values, design, 2000, np.random.default_rng(7))
    assert (design.patients.sum(), design.n_units) == (len(units), len(units))
    low, high = ours.bca_interval(np.full(3, NORMAL))
    for column in range(3):
        sums = np.array([values[patient == u, column].sum() for u in units])
        scipys = stats.bootstrap(
            (sums, counts),
            lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True, vectorized=True, n_resamples=2000, method="BCa", rng=np.random.default_rng(7),
        )  # fmt: skip
        resampled = ours.mean[column] + ours.deviations[column]
        assert resampled == pytest.approx(np.sort(scipys.bootstrap_distribution), abs=1e-12)
        assert (low[column], high[column]) == pytest.approx(tuple(scipys.confidence_interval), abs=1e-12)
    assert (ours.confidence_interval()[0] < low).all() and (high < ours.confidence_interval()[1]).all()


def test_the_corrections_for_few_patients() -> None:
    """Clusters of one size: Student's quantile with G - 1 degrees of freedom, and the factor sqrt(G / (G - 1))."""
    design = Design.from_patients([(str(i % 12),) for i in range(48)])
    found = resample_means(np.random.default_rng(0).random((48, 1)), design, 100, np.random.default_rng(0))
    assert (found.units[0], found.shrunk[0]) == pytest.approx((12, 11 / 12))
    sizes = np.array([1, 2, 3, 10])
    uneven = Design.from_patients([(str(i),) for i, size in enumerate(sizes) for _ in range(size)])
    found = resample_means(np.random.default_rng(0).random((16, 1)), uneven, 100, np.random.default_rng(0))
    assert found.units[0] == pytest.approx(16**2 / (sizes**2).sum())
    # a variance of correlated answers as its estimator has it on average: residuals of sums from the mean of all
    assert found.shrunk[0] == pytest.approx(1 - 2 * (sizes**3).sum() / (16 * (sizes**2).sum()) + (sizes**2).sum() / 16**2)
    sums = np.random.default_rng(1).normal(size=(200_000, 4)) * sizes
    residuals = sums - sums.sum(axis=1, keepdims=True) * sizes / 16
    assert np.square(residuals).sum(axis=1).mean() / (sizes**2).sum() == pytest.approx(found.shrunk[0], rel=0.01)


def test_columns_that_leave_questions_out_are_resampled_with_the_others() -> None:
    """By brute force: the mean over the questions that a column covers, each as often as its patient was drawn."""
    rng = np.random.default_rng(2)
    patient = np.sort(rng.integers(0, 12, 60))
    values = np.column_stack([rng.random(60), rng.random(60)])
    values[patient % 3 == 0, 1] = np.nan
    values[5, 1] = np.nan
    design = Design.from_patients([(f"{u:02}",) for u in patient])
    found = resample_means(values, design, 300, np.random.default_rng(4))
    draws = np.random.default_rng(4).integers(0, design.n_units, (300, design.n_units))
    units = np.unique(patient)
    for column in range(2):
        means = []
        for draw in draws:
            drawn = np.concatenate([values[patient == units[u], column] for u in draw])
            means.append(np.nanmean(drawn))
        assert found.mean[column] + found.deviations[column] == pytest.approx(np.sort(means), abs=1e-12)
    covered = ~np.isnan(values[:, 1])
    assert (found.n.tolist(), found.patients.tolist()) == ([60, covered.sum()], [12, len(set(patient[covered]))])


def test_paired_differences_share_the_resamples() -> None:
    rng = np.random.default_rng(2)
    values = rng.random((80, 2))
    design = Design.from_patients([(str(i % 17),) for i in range(80)])
    both = np.column_stack([values, values[:, 0] - values[:, 1]])
    whole = resample_means(both, design, 500, np.random.default_rng(0))
    single = resample_means(both[:, 2:], design, 500, np.random.default_rng(0))
    assert whole.deviations[2] == pytest.approx(single.deviations[0], abs=1e-12)
    assert whole.mean[2] == pytest.approx(whole.mean[0] - whole.mean[1])


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values, design = np.random.default_rng(3).random((50, 2)), Design.from_patients([(str(i % 9), str(i % 7)) for i in range(50)])
    whole = resample_means(values, design, 300, np.random.default_rng(0))
    monkeypatch.setattr("medmim.scoring.bootstrap._BLOCK", 100)
    assert resample_means(values, design, 300, np.random.default_rng(0)).deviations == pytest.approx(whole.deviations, abs=1e-12)


def test_patients_always_together_are_one_unit() -> None:
    values = np.random.default_rng(4).random((30, 1))
    pairs = Design.from_patients([(f"left {i % 10}", f"right {i % 10}") for i in range(30)])
    single = Design.from_patients([(f"both {i % 10}",) for i in range(30)])
    assert (pairs.patients.sum(), pairs.n_units) == (20, 10)
    same = [np.array(resample_means(values, d, 200, np.random.default_rng(5)).confidence_interval()) for d in (pairs, single)]
    assert same[0] == pytest.approx(same[1], abs=1e-12)


def test_variance_counts_each_pair_of_questions_that_share_a_patient_once() -> None:
    rng = np.random.default_rng(6)
    patients = drawn(300, 60, 2)
    values = answers(rng, patients, 0.6, 1.0, 1)
    residual = (values - values.mean())[:, 0]
    share = np.array([[bool(set(a) & set(b)) for a in patients] for b in patients])
    found = resample_means(values, Design.from_patients(patients), 20_000, rng)
    assert found.deviations.std() == pytest.approx(np.sqrt(residual @ share @ residual) / 300, rel=0.05)


def test_variance_is_never_below_that_of_independent_questions() -> None:
    """Answers that go against each other within a patient."""
    patients = drawn(200, 20, 2)
    values = np.array([[float(int(a) + int(b) & 1)] for a, b in patients])
    found = resample_means(values, Design.from_patients(patients), 20_000, np.random.default_rng(0))
    assert found.deviations.std() >= 0.95 * values.std() / np.sqrt(200)


def test_intervals_stay_within_the_values() -> None:
    values = np.zeros((40, 2))
    values[:3, 0] = 1
    values[:, 1] = np.arange(40) % 3 > 0
    low, high = resample_means(
        values, Design.from_patients([(str(i // 4),) for i in range(40)]), 1000, np.random.default_rng(8)
    ).confidence_interval()
    assert low[0] == 0 and 0 < high[0] <= 1 and 0 < low[1] < high[1] < 1


def test_what_the_resamples_cannot_tell() -> None:
    """All values alike, all patients alike, or all questions about one patient."""
    rng = np.random.default_rng(0)
    found = resample_means(
        np.column_stack([np.ones(20), np.zeros(20)]), Design.from_patients([(str(i),) for i in range(20)]), 100, rng
    )
    assert np.isnan(found.confidence_interval()).all() and not found.is_known.any()
    assert np.isnan(found.p_values()[0]) and found.p_values()[1] == 1
    found = resample_means(np.array([[0.0], [1.0]] * 10), Design.from_patients([(str(i // 2),) for i in range(20)]), 100, rng)
    assert np.isnan(found.confidence_interval()).all() and np.isnan(found.p_values()).all()
    found = resample_means(rng.random((20, 1)), Design.from_patients([("one",)] * 20), 100, rng)
    assert np.isnan(found.confidence_interval()).all() and np.isnan(found.p_values()).all()


def test_question_without_patients() -> None:
    with pytest.raises(ValueError, match="question number 1 has no patient"):
        Design.from_patients([("a",), ()])


def test_resamples_centre_on_the_mean_where_questions_have_unequal_numbers_of_patients() -> None:
    patients = [[f"a{n}", f"b{n}", f"c{n % 40}"] if n % 2 else [f"d{n}"] for n in range(200)]
    values = np.array([[float(n % 2)] for n in range(200)])
    found = resample_means(values, Design.from_patients(patients), 4000, np.random.default_rng(5))
    assert found.deviations.mean() == pytest.approx(0, abs=0.01)


def test_an_interval_ends_at_zero_where_p_is_its_level() -> None:
    rng = np.random.default_rng(3)
    patients = [(str(i // 3),) for i in range(90)]
    values = rng.integers(-1, 2, (90, 40)) + rng.normal(0, 0.3, 40) * rng.integers(0, 2, (90, 40))
    found = resample_means(values, Design.from_patients(patients), 4000, rng)
    for p, column in zip(found.p_values(), range(40), strict=True):
        if 0.02 < p < 0.98:  # beyond, few resamples are left
            low, high = found.confidence_interval(1 - p)
            assert min(abs(low[column]), abs(high[column])) < 0.01


def test_p_values_of_no_difference() -> None:
    """Two models of the same accuracy: p below 0.05 in about as many of 2,000 sets (Monte-Carlo error 0.5 points)."""
    patients: Patients = [(str(i),) for i in range(70) for _ in range(1 + i % 7)]
    rng = np.random.default_rng(12)
    both = [answers(rng, patients, 0.7, 0.7, 2000) for _ in range(2)]
    p = resample_means(both[0] - both[1], Design.from_patients(patients), 1000, rng).p_values()
    assert 0.035 <= (p < 0.05).mean() <= 0.065
    assert 0.07 <= (p < 0.1).mean() <= 0.13


# 2,000 repeats: Monte-Carlo error 0.5 points


@pytest.mark.parametrize("accuracy", [0.6, 0.85])
@pytest.mark.parametrize("count", [40, 70, 150])
def test_coverage_with_one_patient_a_question(count: int, accuracy: float) -> None:
    patients: Patients = [(f"{i:03}",) for i in range(count) for _ in range(1 + i % 7)]
    assert 0.93 <= coverage(patients, accuracy, 1.0, designs=[Design.from_patients(patients)], repeats=2000)[0] <= 0.97


def test_coverage_of_questions_as_if_each_had_its_own_patient() -> None:
    patients: Patients = [(f"{i:03}",) for i in range(40) for _ in range(1 + i % 7)]
    assert coverage(patients, 0.6, 1.0, designs=[alone(patients)], repeats=1000)[0] < 0.88


@pytest.mark.parametrize("patients", [drawn(240, 60, 2), drawn(300, 225, 3)], ids=["2 of 60", "3 of 225"])
def test_coverage_with_several_patients_a_question(patients: Patients) -> None:
    ours, groups, items = coverage(
        patients, 0.6, 1.0, designs=[Design.from_patients(patients), joined(patients), alone(patients)], repeats=2000
    )
    assert 0.93 <= ours <= 0.97
    assert groups < 0.9 and items < 0.9
    ours = coverage(patients, 0.6, 0.0, designs=[Design.from_patients(patients)], repeats=2000)[0]
    assert 0.93 <= ours <= 0.985  # a little wide where patients do not matter
