"""No statistic of brightness solves a task of the phantoms, at the demo's size: their pictures are to be looked at."""

from pathlib import Path

import numpy as np
import pytest
from brightness import BrightnessCohort, Measurement, Problem, measure

PATIENTS = {"embed": 60, "lumiere": 60, "ms_cxr_t": 400, "odir": 160, "vqa_rad": 900}
"""So many that chance keeps within the margin: about those of the demo, and more where a drawing takes little time."""
TASKS = {"embed": 5, "lumiere": 6, "ms_cxr_t": 5, "odir": 1, "vqa_rad": 15}
MARGIN = 0.1


@pytest.mark.parametrize("source", PATIENTS)
def test_brightness_does_not_tell_the_answers(source: str, tmp_path: Path) -> None:
    problems = BrightnessCohort(source, tmp_path, PATIENTS[source], 2025).collect_problems()
    assert len(problems) == TASKS[source], list(problems)
    results = {name: measure(problem) for name, problem in problems.items()}
    assert {name: m for name, m in results.items() if m.excess >= MARGIN} == {}


def test_the_measurement_finds_what_brightness_tells() -> None:
    def make_problem(shift: float, *, is_choice: bool) -> Measurement:
        rng, problem = np.random.default_rng(1), Problem()
        for i in range(200):
            noise = rng.standard_normal((2 if is_choice else 1, 6))
            noise[0, 2] += shift * (is_choice or i % 2)
            problem.add(noise, "first" if is_choice else "ab"[i % 2], [f"{i} {k}" for k in range(len(noise))])
        return measure(problem)

    for is_choice in (True, False):
        assert make_problem(0.0, is_choice=is_choice).excess < MARGIN
        clear = make_problem(3.0, is_choice=is_choice)
        assert clear.accuracy > 0.85 and clear.low > clear.chance == 0.5
