"""What a stage turns away: summed up by reason in its error, and kept as a list where the stage fails."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from medmim.common.errors import UserError
from medmim.common.files import write_atomically

SHOWN_REASONS, SHOWN_ITEMS = 6, 3
DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|\S*\d\S*")
"""What differs between two reasons of one kind: quoted values, numbers, names with numbers in them."""
Rejections = Sequence[Mapping[str, str]]
"""Rows of the rejected table, or more: item and reason."""


def summarize_rejections(rejections: Rejections) -> str:
    """A line for each kind of reason, the commonest first: how many, the reason, and the first items. Empty for none."""
    items_by_kind: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for rejection in sorted(rejections, key=lambda r: (r["item"], r["reason"])):
        items_by_kind[DETAIL.sub("…", rejection["reason"])].append(rejection)
    kinds = sorted(items_by_kind.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    lines = []
    for _, rows in kinds[:SHOWN_REASONS]:
        reason = rows[0]["reason"] + ("" if len({r["reason"] for r in rows}) == 1 else ", and alike")
        shown_items = ", ".join(r["item"] for r in rows[:SHOWN_ITEMS]) + (", …" if len(rows) > SHOWN_ITEMS else "")
        lines.append(f"\n  {len(rows)} × {reason}: {shown_items}")
    if len(kinds) > SHOWN_REASONS:
        remaining_count = sum(len(rows) for _, rows in kinds[SHOWN_REASONS:])
        lines.append(f"\n  and {remaining_count} for {len(kinds) - SHOWN_REASONS} other reasons")
    return "".join(lines)


def count_reasons(rejections: Rejections) -> list[tuple[str, int]]:
    """Kinds of reasons, their details left out, and how many of each, the commonest first."""
    counts = Counter(DETAIL.sub("…", rejection["reason"]) for rejection in rejections)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def get_list_path(log: Path | None, rejected: Path) -> Path:
    """Where a stage's list is kept if it fails: beside its log, which outlives its outputs, else beside these."""
    return log.with_suffix(".rejected.csv") if log else rejected.with_suffix(".failed.csv")


@contextmanager
def keep_rejections(path: Path, list_rows: Callable[[], Rejections]) -> Iterator[None]:
    """Write what was turned away to `path` if the context fails, and say so in a UserError; a list of before is deleted."""
    path.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if rows := list_rows():
            with suppress(OSError):  # a full disk: the error itself is the thing to be seen
                with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
                if isinstance(error, UserError):
                    error.args = (f"{error}\n  turned away so far, {len(rows)} with their reasons: {path}",)
        raise
