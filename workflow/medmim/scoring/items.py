"""What is scored: the benchmark's sets, its questions by id, and the metrics of each kind."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from medmim.common.errors import TableError
from medmim.questions.prompt import LETTERS
from medmim.scoring.open_ended import OPEN_METRICS


@dataclass(frozen=True)
class ClosedMetric:
    """A metric of closed questions: its name for people, and what it means where the name does not say it."""

    label: str
    note: str = ""


CLOSED_METRICS = {
    "accuracy": ClosedMetric("accuracy"),
    "loglikelihood_accuracy": ClosedMetric("log-likelihood accuracy", "by letter"),
    "text_loglikelihood_accuracy": ClosedMetric("text log-likelihood accuracy"),
    "circular_accuracy": ClosedMetric("circular accuracy", "right as asked and under every rotation"),
}
METRICS: dict[str, tuple[str, ...]] = {"closed": tuple(CLOSED_METRICS), "open": tuple(OPEN_METRICS)}
"""Metrics by kind of question; the first of a kind is scored wherever a question of it was asked."""
METRIC_LABELS = {name: metric.label for name, metric in (CLOSED_METRICS | OPEN_METRICS).items()}
"""Names of the metrics for people, in the order of the tables."""


def describe_metrics() -> str:
    """Name every metric, as the answers table explains its column."""
    closed = [f"{name} ({metric.note})" if metric.note else name for name, metric in CLOSED_METRICS.items()]
    return ", ".join([*closed, *OPEN_METRICS])


NOT_ASKED = "not_asked"
"""Status of an item that the model could not be asked."""
COLUMNS = ("qa_id", "set", "ability", "kind", "options", "answer", "answer_index", "image_ids", "patient_ids")


def index_questions(qa: pa.Table) -> dict[str, dict[str, Any]]:
    """Rows of a qa table by qa_id, sorted, with the columns that scoring needs.

    Raises TableError for no question, a repeated id, a kind unknown, no patient, or a gold that is none of the options.
    """
    questions_by_id: dict[str, dict[str, Any]] = {}
    for row in qa.select(COLUMNS).to_pylist():
        name, answer_index = row["qa_id"], row["answer_index"]
        if name in questions_by_id:
            raise TableError(f"question {name} stands twice in the benchmark")
        if row["kind"] not in METRICS:
            raise TableError(f"question {name}: kind {row['kind']!r}, expected one of {', '.join(METRICS)}")
        if row["kind"] == "closed" and not (answer_index is not None and 0 <= answer_index < len(row["options"])):
            raise TableError(f"question {name}: answer_index {answer_index} is none of its {len(row['options'])} options")
        if len(row["options"]) > len(LETTERS):
            raise TableError(f"question {name}: {len(row['options'])} options, more than there are letters")
        if not row["patient_ids"]:
            raise TableError(f"question {name} has no patient")
        questions_by_id[name] = row
    if not questions_by_id:
        raise TableError("the benchmark holds no questions")
    return dict(sorted(questions_by_id.items()))
