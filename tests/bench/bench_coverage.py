"""How often 95 % intervals hold the truth, by simulation with patients whose answers lean the same way.

Run: python tests/bench/bench_coverage.py [repeats]. Each line is a design: questions, patients, effective units, accuracy, how
strongly patients lean (standard deviation of a patient's effect in a probit model), and the coverage and mean width of our
interval, of the percentile interval over patients, and of ours over questions as if each had a patient of its own.
"""

import sys
from collections.abc import Iterator

import numpy as np
from scipy import stats

from medmim.scoring.bootstrap import Array, Design, Resampled, resample

Patients = list[tuple[int, ...]]
RESAMPLES = 2_000
AT_ONCE = 500  # repeats that share resamples


def alone(sizes: list[int]) -> Patients:
    """Questions about one patient each, so many of each patient."""
    return [(patient,) for patient, size in enumerate(sizes) for _ in range(size)]


def drawn(count: int, patients: int, each: int, *, skew: float = 0.0) -> Patients:
    """Questions about so many patients each, drawn at random; with skew some patients come much more often."""
    rng = np.random.default_rng(count)
    weight = np.exp(rng.normal(0, skew, patients))
    return [tuple(int(p) for p in rng.choice(patients, each, replace=False, p=weight / weight.sum())) for _ in range(count)]


def uneven(patients: int) -> list[int]:
    """Questions of each patient, log-normal: the largest has a tenth of all or more."""
    return [int(n) for n in np.maximum(1, np.round(np.exp(np.random.default_rng(1).normal(1, 1, patients))))]


DESIGNS: dict[str, Patients] = {
    **{f"{n} patients, 1 to 7 questions": alone([1 + i % 7 for i in range(n)]) for n in (20, 40, 70, 150)},
    **{f"{n} patients, 4 questions": alone([4] * n) for n in (40, 150)},
    **{f"{n} patients, very uneven": alone(uneven(n)) for n in (40, 70, 150)},
    "150 patients, 1 question": alone([1] * 150),
    "2 of 60 patients a question": drawn(240, 60, 2),
    "3 of 300 patients a question": drawn(400, 300, 3),
    "3 of 150 patients a question": drawn(700, 150, 3),
    "2 or 3 of 315 patients": drawn(183, 315, 2) + drawn(184, 315, 3),
    "2 of 80 patients, very uneven": drawn(300, 80, 2, skew=1.0),
    "fixed pairs of patients": [(2 * i, 2 * i + 1) for i in range(70) for _ in range(1 + i % 5)],
    "1 or 3 patients": alone([3] * 60) + [tuple(60 + p for p in q) for q in drawn(150, 80, 3)],
}


def answers(rng: np.random.Generator, patients: Patients, accuracy: float, lean: float, repeats: int) -> Array:
    """Questions x repeats of 0 and 1, right with a probability of `accuracy` on average."""
    count = 1 + max(p for names in patients for p in names)
    shows = np.zeros((len(patients), count))
    for question, names in enumerate(patients):
        shows[question, list(names)] = 1 / np.sqrt(len(names))
    latent = shows @ rng.normal(0, lean, (count, repeats)) + rng.normal(size=(len(patients), repeats))
    right: Array = (latent > stats.norm.ppf(1 - accuracy) * np.sqrt(1 + lean**2)).astype(np.float64)
    return right


def percentile(found: Resampled) -> tuple[Array, Array]:
    low, high = np.quantile(found.deviations, [0.025, 0.975], axis=1)
    return found.mean + low, found.mean + high


def measured(patients: Patients, accuracy: float, lean: float, repeats: int) -> Iterator[tuple[str, float, float]]:
    """Name, coverage and mean width of each kind of interval."""
    rng = np.random.default_rng([len(patients), int(accuracy * 100), int(lean * 10)])
    design = Design.of([[str(p) for p in names] for names in patients])
    each = Design.of([[str(i)] for i in range(len(patients))])
    held: dict[str, list[float]] = {}
    wide: dict[str, list[float]] = {}
    for _ in range(0, repeats, AT_ONCE):
        values = answers(rng, patients, accuracy, lean, AT_ONCE)
        found = resample(values, design, RESAMPLES, rng)
        items = resample(values, each, RESAMPLES, rng)
        for name, (low, high) in {
            "ours": found.interval(), "percentile": percentile(found), "items": items.interval()
        }.items():  # fmt: skip
            held.setdefault(name, []).extend((low <= accuracy + 1e-9) & (accuracy - 1e-9 <= high))
            wide.setdefault(name, []).extend(high - low)
    for name in held:
        yield name, float(np.mean(held[name])), float(np.nanmean(wide[name]))


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    error = np.sqrt(0.95 * 0.05 / repeats)
    print(f"{repeats} repeats, {RESAMPLES} resamples; Monte-Carlo error of a coverage of 95 %: {error:.2%}")
    print(f"{'design':34} {'n':>4} {'units':>5} acc. lean   ours  width  percentile  width   items  width")
    for title, patients in DESIGNS.items():
        several = any(len(names) > 1 for names in patients)
        for accuracy in (0.6, 0.85):
            for lean in (0.0, 0.5, 1.0) if several else (1.0,):
                design = Design.of([[str(p) for p in names] for names in patients])
                units = resample(np.eye(len(patients))[:, :1], design, 1, np.random.default_rng(0)).units[0]
                told = {name: (cover, width) for name, cover, width in measured(patients, accuracy, lean, repeats)}
                print(
                    f"{title:34} {len(patients):4} {units:5.0f} {accuracy:.2f}  {lean:.1f}"
                    f"  {told['ours'][0]:.3f}  {told['ours'][1]:.3f}"
                    f"       {told['percentile'][0]:.3f}  {told['percentile'][1]:.3f}"
                    f"   {told['items'][0]:.3f}  {told['items'][1]:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
