"""The figures of a datasheet (Gebru et al., Datasheets for Datasets, 2021), all computed from what is exported."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from medmim.benchmarks.quality.faults import FAULTS, SetAudit, audit_files
from medmim.common.formatting import format_percent
from medmim.export.questions import SPLIT_NAMES, QuestionRow, Questions
from medmim.questions.prompt import strip_placeholders
from medmim.tables.data_policy import UNSTATED_LICENCE

LEAK_FAULTS = FAULTS[:3]
"""Those of the audit's faults that are about another table of questions."""


def _format_counts(values: Iterable[Any]) -> str:
    """2 (799), 3 (134)"""
    return ", ".join(f"{value} ({count:,})" for value, count in sorted(Counter(values).items()))


def _describe_set(name: str, rows: list[QuestionRow], audited: SetAudit) -> dict[str, Any]:
    figures, words = audited.compute_figures(), sorted(len(row["answer"].split()) for row in rows)
    largest = figures["largest_patient"]
    return {
        "name": name,
        "questions": len(rows),
        "closed": figures["closed"],
        "open": figures["open"],
        "wordings": len({strip_placeholders(row["question"]) for row in rows}),
        "images": _format_counts(len(row["image_ids"]) for row in rows),
        "options": _format_counts(len(row["options"]) for row in rows if row["options"]) or "none",
        "letters": ", ".join(f"{letter} {count:,}" for letter, count in figures["letters"].items()) or "none",
        "words": f"{median_low(words)}, {words[0]} to {words[-1]}",
        "chance": "none" if figures["chance"] is None else format_percent(figures["chance"]),
        "majority": "none" if figures["majority"] is None else format_percent(figures["majority"]),
        "patients": figures["patients"],
        "largest": format_percent(largest["share"]) if largest else "none",
        "faults": {fault: figures[fault] for fault in FAULTS},
    }


@dataclass(frozen=True, kw_only=True)
class Datasheet:
    """What the datasheet tells; texts are for people."""

    split: str
    other: str
    """What leaks are looked for in; empty if in nothing."""
    sets: list[dict[str, Any]]
    """Of each set: name, numbers of questions, and figures in words."""
    faults: tuple[str, ...]
    """Those that were looked for."""
    abilities: dict[str, int]
    generators: dict[str, int]
    """Questions by what made them."""
    modalities: dict[str, int]
    """Images by modality, as far as they are in an images table."""
    absent: int
    """Images that are in none."""
    largest: tuple[int, int]
    """Most pixels across and down."""
    sources: list[dict[str, Any]]
    """Of each source: name, questions, whose it is, licence, where that is stated, who may have it, what it means for a model."""
    tables: Mapping[str, str]
    """sha256 of each table that it was made from, by the name of the file."""

    @classmethod
    def from_questions(cls, questions: Questions, qa: Path, against: Sequence[Path], tables: Mapping[str, str]) -> "Datasheet":
        """`qa`: the table of the questions; `against`: tables of questions that should share nothing with it.

        Raises tables.TableError, ReleaseError.
        """
        rows = questions.rows
        other = next(name for split, name in SPLIT_NAMES.items() if split != questions.split)
        _, audits = audit_files(against, [qa])
        image_rows = questions.image_rows
        modalities = Counter(image_rows["modality"].replace("", UNSTATED_LICENCE))
        return cls(
            split=questions.split,
            other=other if against else "",
            sets=[_describe_set(name, of_set, audits[name]) for name, of_set in questions.sets.items()],
            faults=FAULTS if against else FAULTS[len(LEAK_FAULTS) :],
            abilities=dict(sorted(Counter(row["ability"] for row in rows).items())),
            generators=dict(sorted(Counter(row["generator"] for row in rows).items())),
            modalities=dict(sorted(modalities.items())),
            absent=len({i for row in rows for i in row["image_ids"]} - {*image_rows.index}),
            largest=(int(image_rows["width"].max()), int(image_rows["height"].max())) if len(image_rows) else (0, 0),
            sources=[_describe_source(questions, name) for name in questions.licences],
            tables=tables,
        )

    def count_leaks(self) -> dict[str, int]:
        """Questions with each leak, over all sets; empty where none was looked for."""
        return {leak: sum(s["faults"][leak] for s in self.sets) for leak in LEAK_FAULTS if leak in self.faults}


def _describe_source(questions: Questions, name: str) -> dict[str, Any]:
    is_synthetic, owner = name in questions.synthetic, questions.providers.get(name)
    return {
        "name": name,
        "questions": questions.sources[name],
        "what": questions.describe_owner(name),
        "licence": questions.format_licence(name),
        "terms": "drawn here" if is_synthetic else owner.terms if owner else UNSTATED_LICENCE,
        "access": "none needed" if is_synthetic else owner.access if owner else UNSTATED_LICENCE,
        "models": "No condition." if is_synthetic else owner.model_terms if owner else UNSTATED_LICENCE,
    }
