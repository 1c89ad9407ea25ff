"""How well a phantom's questions are answered by how bright their pictures are, without a look at where and what."""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image as Picture
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medmim.questions.cohort import Image, Patient, build_cohort
from medmim.questions.templates import Fact
from medmim.questions.turns import read_turns
from medmim.sources.base import TableBuilder
from medmim.sources.phantom_drawing import primitives
from medmim.tables import table_io

SIZE = 112
"""Longest side of the demo's pictures."""
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
BINS = 16
FOLDS = 5
MIN_CASES = 60
"""Questions of fewer cases are not measured."""
MAX_CASES = 600
RESAMPLES = 500


@dataclass
class Problem:
    """Cases of one task: of each its candidates' features, their patients, and the answer.

    A case with one candidate is answered by a class, one with several by the place of a candidate: the first.
    """

    features: list[np.ndarray] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    patients: list[list[str]] = field(default_factory=list)

    def add(self, features: np.ndarray, answer: str, patients: list[str]) -> None:
        """Add a case; `features`: candidates x features, `patients`: one a candidate."""
        if len(self.answers) < MAX_CASES:
            self.features.append(features)
            self.answers.append(answer)
            self.patients.append(patients)


@dataclass(frozen=True)
class Measurement:
    """Accuracy of the better classifier, balanced over the answers, with its 95 % interval, and that of chance."""

    accuracy: float
    low: float
    high: float
    chance: float
    cases: int

    @property
    def excess(self) -> float:
        """Accuracy beyond chance."""
        return self.accuracy - self.chance


def describe_brightness(pixels: np.ndarray) -> np.ndarray:
    """Moments, percentiles and histogram of each channel, and the size."""
    channels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1).reshape(-1, pixels.shape[0] * pixels.shape[1]) / 255
    values = [
        [c.mean(), c.std(), c.min(), c.max(), *np.percentile(c, PERCENTILES), *np.histogram(c, BINS, (0, 1))[0] / c.size]
        for c in channels
    ]
    return np.array([*np.ravel(values), pixels.shape[0] / SIZE, pixels.shape[1] / SIZE])


def compare_brightness(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Statistics of pictures in order, their differences and their ratios."""
    steps = [np.concatenate([b - a, b / np.maximum(a, 0.01)]) for a, b in pairwise(pictures)]
    return np.concatenate([*pictures, *steps])


class BrightnessCohort:
    """Patients of a phantom, and the brightness of each of their pictures as the pipeline keeps it."""

    def __init__(self, source: str, root: Path, patients: int, seed: int) -> None:
        self.source = source
        import_module(f"medmim.sources.{source}.phantom").write_cohort(root, patients=patients, seed=seed)
        contents = import_module(f"medmim.sources.{source}.adapter").read_contents(root)
        builder = TableBuilder(source, root, contents, SIZE)
        images = table_io.build_table("images", list(builder.iter_image_rows())).to_pandas()
        findings = table_io.build_table("findings", builder.list_finding_rows()).to_pandas()
        self.patients: list[Patient] = build_cohort(images, findings)
        self.brightness = {
            row.image_id: describe_brightness(np.asarray(Picture.open(io.BytesIO(row.bytes)))) for row in images.itertuples()
        }
        truth = pd.read_csv(root / primitives.TRUTH_FILE, keep_default_na=False)
        truth = truth.merge(images[["origin_file", "image_id"]], left_on="path", right_on="origin_file")
        self.truth: dict[tuple[str, str], str] = truth.set_index(["image_id", "name"])["value"].to_dict()

    def collect_problems(self) -> dict[str, Problem]:
        """What is asked of the pictures, by task; of sets whose answers rest on what each picture shows, that."""
        problems: defaultdict[str, Problem] = defaultdict(Problem)
        if self.source == "odir":
            for image in (i for p in self.patients for i in p.iter_images()):
                diagnosis = self.truth[image.image_id, "diagnosis"]
                problems["odir diagnosis"].add(self._describe([image]), diagnosis, [image.patient_id])
        elif self.source == "vqa_rad":
            for image in (i for p in self.patients for i in p.iter_images()):
                problems["vqa_rad organ"].add(self._describe([image]), self.truth[image.image_id, "organ"], [image.patient_id])
                for turn in read_turns(image):
                    if turn.answer in ("Yes", "No"):
                        problems[f"vqa_rad {turn.question}"].add(self._describe([image]), turn.answer, [image.patient_id])
        else:
            facts: Iterable[Fact] = import_module(f"medmim.sources.{self.source}.questions").build_facts(self.patients)
            for fact in facts:
                self._add_fact(fact, problems)
        return {name: p for name, p in sorted(problems.items()) if len(p.answers) >= MIN_CASES}

    def _add_fact(self, fact: Fact, problems: defaultdict[str, Problem]) -> None:
        patients = [i.patient_id for i in fact.images]
        if fact.asks_for_image:
            statistics = [self.brightness[i.image_id] for i in fact.images]
            own = [np.concatenate([s, s - np.mean([o for o in statistics if o is not s], 0)]) for s in statistics]
            problems[" ".join([fact.template.task, *fact.text_fields.values()])].add(np.array(own), "first", patients)
        elif fact.choices:
            problems[fact.template.task].add(self._describe(fact.images[-2:]), fact.gold, patients[-1:])

    def _describe(self, images: Sequence[Image]) -> np.ndarray:
        return compare_brightness([self.brightness[i.image_id] for i in images])[None]


def _list_classifiers() -> list[BaseEstimator]:
    return [
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")),
        ExtraTreesClassifier(80, min_samples_leaf=3, class_weight="balanced", random_state=0),
    ]


def _is_right(problem: Problem, classifier: BaseEstimator) -> np.ndarray:
    """Whether each case is answered rightly by a classifier that has seen other patients only."""
    is_choice = len(problem.features[0]) > 1
    rows, owners = np.concatenate(problem.features), np.concatenate(problem.patients)
    cases = np.repeat(np.arange(len(problem.answers)), [len(f) for f in problem.features])
    is_first = np.append(True, cases[1:] != cases[:-1])
    targets = is_first if is_choice else np.array(problem.answers)
    right = np.zeros(len(problem.answers), bool)
    for _, test in GroupKFold(FOLDS).split(right, groups=[p[0] for p in problem.patients]):
        is_test = np.isin(cases, test)
        is_train = ~np.isin(owners, owners[is_test])
        classifier.fit(rows[is_train], targets[is_train])
        if is_choice:
            scores = classifier.predict_proba(rows)[:, 1]
            best_other = np.full(len(right), -1.0)
            np.maximum.at(best_other, cases[~is_first], scores[~is_first])
            right[test] = (scores[is_first] > best_other)[test]
        else:
            right[test] = (classifier.predict(rows) == targets)[test]
    return right


def measure(problem: Problem) -> Measurement:
    """How well brightness answers a problem."""
    classes, numbers = np.unique(problem.answers, return_inverse=True)
    chance = float(np.mean([1 / len(f) for f in problem.features])) if len(classes) == 1 else 1 / len(classes)
    weights = (1 / np.bincount(numbers))[numbers]
    right = max((_is_right(problem, c) for c in _list_classifiers()), key=lambda r: np.average(r, weights=weights))
    owners = np.unique([p[0] for p in problem.patients], return_inverse=True)[1]
    draws = np.random.default_rng(0).integers(0, owners.max() + 1, (RESAMPLES, owners.max() + 1))
    times = np.stack([np.bincount(d, minlength=owners.max() + 1) for d in draws])[:, owners] * weights
    low, high = np.percentile((times * right).sum(1) / times.sum(1), [2.5, 97.5])
    return Measurement(float(np.average(right, weights=weights)), float(low), float(high), chance, len(right))
