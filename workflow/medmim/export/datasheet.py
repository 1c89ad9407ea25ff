"""The figures of a datasheet (Gebru et al., Datasheets for Datasets, 2021), all computed from what is exported."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from medmim.benchmarks.quality.faults import FAULTS, SetAudit, audit
from medmim.export import card
from medmim.export.questions import NAMES, Questions, Row
from medmim.questions.prompt import blind
from medmim.sources.terms import OWNERS
from medmim.tables.data_policy import UNSTATED

LEAKS = FAULTS[:3]
"""Those of the audit's faults that are about another table of questions."""


def _counted(values: Iterable[Any]) -> str:
    """2 (799), 3 (134)"""
    return ", ".join(f"{value} ({count:,})" for value, count in sorted(Counter(values).items()))


def _share(part: float) -> str:
    return f"{100 * part:.1f} %"


def _set(name: str, rows: list[Row], audited: SetAudit) -> dict[str, Any]:
    found, words = audited.figures(), sorted(len(row["answer"].split()) for row in rows)
    largest = found["largest_patient"]
    return {
        "name": name,
        "questions": len(rows),
        "closed": found["closed"],
        "open": found["open"],
        "wordings": len({blind(row["question"]) for row in rows}),
        "images": _counted(len(row["image_ids"]) for row in rows),
        "options": _counted(len(row["options"]) for row in rows if row["options"]) or "none",
        "letters": ", ".join(f"{letter} {count:,}" for letter, count in found["letters"].items()) or "none",
        "words": f"{median_low(words)}, {words[0]} to {words[-1]}",
        "chance": "none" if found["chance"] is None else _share(found["chance"]),
        "majority": "none" if found["majority"] is None else _share(found["majority"]),
        "patients": found["patients"],
        "largest": _share(largest["share"]) if largest else "none",
        "faults": {fault: found[fault] for fault in FAULTS},
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
    def of(cls, questions: Questions, qa: Path, against: Sequence[Path], tables: Mapping[str, str]) -> "Datasheet":
        """`qa`: the table of the questions; `against`: tables of questions that should share nothing with it.

        Raises tables.TableError, ReleaseError.
        """
        rows = questions.rows
        other = next(name for split, name in NAMES.items() if split != questions.split)
        _, audits = audit(against, [qa])
        shown = questions.shown
        modalities = Counter(shown["modality"].replace("", UNSTATED))
        return cls(
            split=questions.split,
            other=other if against else "",
            sets=[_set(name, of_set, audits[name]) for name, of_set in questions.sets.items()],
            faults=FAULTS if against else FAULTS[len(LEAKS) :],
            abilities=dict(sorted(Counter(row["ability"] for row in rows).items())),
            generators=dict(sorted(Counter(row["generator"] for row in rows).items())),
            modalities=dict(sorted(modalities.items())),
            absent=len({i for row in rows for i in row["image_ids"]} - {*shown.index}),
            largest=(int(shown["width"].max()), int(shown["height"].max())) if len(shown) else (0, 0),
            sources=[_source(questions, name) for name in questions.licences],
            tables=tables,
        )

    def leaks(self) -> dict[str, int]:
        """Questions with each leak, over all sets; empty where none was looked for."""
        return {leak: sum(s["faults"][leak] for s in self.sets) for leak in LEAKS if leak in self.faults}


def _source(questions: Questions, name: str) -> dict[str, Any]:
    drawn, known = name in questions.synthetic, OWNERS.get(name)
    return {
        "name": name,
        "questions": questions.sources[name],
        "what": card.owner(questions, name),
        "licence": questions.licence(name),
        "terms": "drawn here" if drawn else known.terms if known else UNSTATED,
        "access": "none needed" if drawn else known.access if known else UNSTATED,
        "models": "No condition." if drawn else known.models if known else UNSTATED,
    }
