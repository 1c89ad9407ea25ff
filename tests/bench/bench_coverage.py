"""How often 95 % intervals hold the truth, by simulation with patients whose answers lean the same way.

Run: python tests/bench/bench_coverage.py [repeats]. Each line is a design: questions, patients, effective units, accuracy, how
strongly patients lean (standard deviation of a patient's effect in a probit model), and the coverage and mean width of our
interval, of the percentile interval over patients, and of ours over questions as if each had a patient of its own.
"""

import sys
from collections.abc import Iterator

import numpy as np
from scipy import stats

from medmim.scoring.bootstrap import Array, Design, ResampledMeans, resample_means

Patients = list[tuple[int, ...]]
RESAMPLES = 2_000
AT_ONCE = 500  # repeats that share resamples


def repeat_patients(sizes: list[int]) -> Patients:
    """Questions about one patient each, so many of each patient."""
    return [(patient,) for patient, size in enumerate(sizes) for _ in range(size)]


def draw_patients(count: int, patients: int, each: int, *, skew: float = 0.0) -> Patients:
    """Questions about so many patients each, drawn at random; with skew some patients come much more often."""
    rng = np.random.default_rng(count)
    weight = np.exp(rng.normal(0, skew, patients))
    return [tuple(int(p) for p in rng.choice(patients, each, replace=False, p=weight / weight.sum())) for _ in range(count)]


def draw_question_counts(patients: int) -> list[int]:
    """Questions of each patient, log-normal: the largest has a tenth of all or more."""
    return [int(n) for n in np.maximum(1, np.round(np.exp(np.random.default_rng(1).normal(1, 1, patients))))]


DESIGNS: dict[str, Patients] = {
    **{f"{n} patients, 1 to 7 questions": repeat_patients([1 + i % 7 for i in range(n)]) for n in (20, 40, 70, 150)},
    **{f"{n} patients, 4 questions": repeat_patients([4] * n) for n in (40, 150)},
    **{f"{n} patients, very uneven": repeat_patients(draw_question_counts(n)) for n in (40, 70, 150)},
    "150 patients, 1 question": repeat_patients([1] * 150),
    "2 of 60 patients a question": draw_patients(240, 60, 2),
    "3 of 300 patients a question": draw_patients(400, 300, 3),
    "3 of 150 patients a question": draw_patients(700, 150, 3),
    "2 or 3 of 315 patients": draw_patients(183, 315, 2) + draw_patients(184, 315, 3),
    "2 of 80 patients, very uneven": draw_patients(300, 80, 2, skew=1.0),
    "fixed pairs of patients": [(2 * i, 2 * i + 1) for i in range(70) for _ in range(1 + i % 5)],
    "1 or 3 patients": repeat_patients([3] * 60) + [tuple(60 + p for p in q) for q in draw_patients(150, 80, 3)],
}


def simulate_answers(rng: np.random.Generator, patients: Patients, accuracy: float, lean: float, repeats: int) -> Array:
    """Questions x repeats of 0 and 1, right with a probability of `accuracy` on average."""
    count = 1 + max(p for names in patients for p in names)
    shows = np.zeros((len(patients), count))
    for question, names in enumerate(patients):
        shows[question, list(names)] = 1 / np.sqrt(len(names))
    latent = shows @ rng.normal(0, lean, (count, repeats)) + rng.normal(size=(len(patients), repeats))
    right: Array = (latent > stats.norm.ppf(1 - accuracy) * np.sqrt(1 + lean**2)).astype(np.float64)
    return right


def percentile_interval(resampled: ResampledMeans) -> tuple[Array, Array]:
    low, high = np.quantile(resampled.deviations, [0.025, 0.975], axis=1)
    return resampled.mean + low, resampled.mean + high


def measure_coverage(patients: Patients, accuracy: float, lean: float, repeats: int) -> Iterator[tuple[str, float, float]]:
    """Name, coverage and mean width of each kind of interval."""
    rng = np.random.default_rng([len(patients), int(accuracy * 100), int(lean * 10)])
    design = Design.from_patients([[str(p) for p in names] for names in patients])
    each = Design.from_patients([[str(i)] for i in range(len(patients))])
    covered: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    for _ in range(0, repeats, AT_ONCE):
        values = simulate_answers(rng, patients, accuracy, lean, AT_ONCE)
        resampled = resample_means(values, design, RESAMPLES, rng)
        items = resample_means(values, each, RESAMPLES, rng)
        for name, (low, high) in {
            "ours": resampled.confidence_interval(), "percentile": percentile_interval(resampled),
            "items": items.confidence_interval()
        }.items():  # fmt: skip
            covered.setdefault(name, []).extend((low <= accuracy + 1e-9) & (accuracy - 1e-9 <= high))
            widths.setdefault(name, []).extend(high - low)
    for name in covered:
        yield name, float(np.mean(covered[name])), float(np.nanmean(widths[name]))


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    error = np.sqrt(0.95 * 0.05 / repeats)
    print(f"{repeats} repeats, {RESAMPLES} resamples; Monte-Carlo error of a coverage of 95 %: {error:.2%}")
    print(f"{'design':34} {'n':>4} {'units':>5} acc. lean   ours  width  percentile  width   items  width")
    for title, patients in DESIGNS.items():
        several = any(len(names) > 1 for names in patients)
        for accuracy in (0.6, 0.85):
            for lean in (0.0, 0.5, 1.0) if several else (1.0,):
                design = Design.from_patients([[str(p) for p in names] for names in patients])
                units = resample_means(np.eye(len(patients))[:, :1], design, 1, np.random.default_rng(0)).units[0]
                results = {name: (cover, width) for name, cover, width in measure_coverage(patients, accuracy, lean, repeats)}
                print(
                    f"{title:34} {len(patients):4} {units:5.0f} {accuracy:.2f}  {lean:.1f}"
                    f"  {results['ours'][0]:.3f}  {results['ours'][1]:.3f}"
                    f"       {results['percentile'][0]:.3f}  {results['percentile'][1]:.3f}"
                    f"   {results['items'][0]:.3f}  {results['items'][1]:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
