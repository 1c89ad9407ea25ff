"""What is exported: questions of the benchmark or the instruction set, their images, and the rules of who may have them."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medmim.common.errors import UserError
from medmim.questions.sets import HELD_IN, HELD_OUT, SETS
from medmim.sources.terms import OWNERS
from medmim.tables import table_io
from medmim.tables.data_policy import SYNTHETIC, UNSTATED, Rules, union
from medmim.tables.images import RELEASE, ImageStore

Row = dict[str, Any]
NAMES = {"benchmark": "benchmark", "train": "instruction set"}
"""What questions are called, by their split."""


def group(set_: str) -> str:
    """The sum that a benchmark's set belongs to: held_in or held_out; further for one in neither."""
    return "held_in" if set_ in HELD_IN else "held_out" if set_ in HELD_OUT else "further"


def _licences(images: Sequence[Path], synthetic: Collection[str]) -> dict[str, frozenset[str]]:
    """Names of the licences of each source: those that its images table is under, else its owner's."""
    found = {name: frozenset({owner.licence}) for name, owner in OWNERS.items()} | dict.fromkeys(synthetic, SYNTHETIC.licences)
    told: dict[str, frozenset[str]] = {}
    for path in images:
        for source in table_io.read(path, "images", ["source"])["source"].unique().to_pylist():
            told[source] = told.get(source, frozenset()) | Rules.of(path).licences
    return found | {source: held for source, held in told.items() if held}


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions by set, held-in sets first, in the order of the table; and where their images are."""

    run: str
    split: str
    """benchmark or train."""
    sets: dict[str, list[Row]]
    with_images: bool
    """Whether the images go with them, or are only named."""
    store: ImageStore
    shown: pd.DataFrame
    """Rows of the images table without the bytes, by reference: those that the questions show."""
    synthetic: frozenset[str]
    """Sources that are phantoms."""
    credentialed: Counter[str]
    """Questions of each source that may not be passed on."""
    rules: Rules
    """Those of the table of questions and of the sources it shows."""
    sources: Counter[str]
    """Questions of each source, or that show an image of it."""
    licences: Mapping[str, frozenset[str]]
    """Names of each source's licences."""

    @classmethod
    def read(
        cls,
        qa: Path,
        images: Sequence[Path],
        *,
        run: str,
        synthetic: Collection[str],
        credentialed: Collection[str],
        allowed: bool,
        with_images: bool = True,
    ) -> "Questions":
        """`credentialed`: sources that may not be passed on, besides those that the tables say; with `allowed` they are
        exported all the same.

        Raises UserError where they are not allowed, there is no question, or an image to be shown is in no table; TableError.
        """
        store, rows = ImageStore(images), table_io.read(qa, "qa").to_pylist()
        if not rows:
            raise UserError(f"{qa}: no questions")
        if with_images and (absent := [(row["qa_id"], i) for row in rows for i in row["image_ids"] if i not in store]):
            raise UserError(f"{qa}: question {absent[0][0]} shows {absent[0][1]}, which is in none of the images tables")
        known = store.frame()
        released = known[known["release_path"] != ""]
        shown = pd.concat([known.set_index("image_id"), released.set_index(RELEASE + released["release_path"])])
        shown = shown[~shown.index.duplicated()]  # of two tables, the first counts
        shown = shown.loc[[i for i in dict.fromkeys(i for row in rows for i in row["image_ids"]) if i in shown.index]]
        source = shown["source"].to_dict()
        of_row = [{row["source"], *(source[i] for i in row["image_ids"] if i in source)} for row in rows]
        sources = Counter(s for found in of_row for s in sorted(found))
        forbidden = {*credentialed} | union([qa, *images]).credentialed
        held = Counter({s: count for s, count in sources.items() if s in forbidden})
        if held and not allowed:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(held.items()))
            raise UserError(
                f"of the {len(rows)} questions, some are of sources whose owners forbid to pass them on ({counts}): nothing is"
                " exported. Leave these sources out of the config; or set export.credentialed: true, for people who may have them"
            )
        order = [*SETS["benchmark"], *SETS["train"]]
        terms = _licences(images, synthetic)
        licences = {s: terms.get(s, frozenset({UNSTATED})) for s in sorted(sources)}
        names = sorted({row["set"] for row in rows}, key=lambda s: (order.index(s) if s in order else len(order), s))
        return cls(
            run=run,
            split=rows[0]["split"],
            sets={name: [row for row in rows if row["set"] == name] for name in names},
            with_images=with_images,
            store=store,
            shown=shown,
            synthetic=frozenset(synthetic),
            credentialed=held,
            rules=Rules.of(qa) | Rules(frozenset().union(*licences.values()), frozenset(held)),
            sources=sources,
            licences=licences,
        )

    @property
    def rows(self) -> list[Row]:
        """All questions."""
        return [row for rows in self.sets.values() for row in rows]

    @property
    def name(self) -> str:
        """What they are called together."""
        return NAMES[self.split]

    def parts(self) -> Iterator[tuple[str, str, list[Row]]]:
        """(set, closed or open, its questions) where there are any."""
        for name, rows in self.sets.items():
            for kind in ("closed", "open"):
                if chosen := [row for row in rows if row["kind"] == kind]:
                    yield name, kind, chosen

    def images(self, row: Row) -> list[tuple[str, bytes]]:
        """(name, PNG) of a question's images in order; the same image has the same name."""
        return [(f"{self.store.content(i)}.png", self.store.png(i)) for i in row["image_ids"]]

    def licence(self, source: str) -> str:
        """Licences of a source, for people."""
        return "Apache-2.0" if source in self.synthetic else "; ".join(sorted(self.licences[source]))
