"""What is exported: the benchmark's questions by set, with their images, and the rules of who may have them."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmim import tables
from medmim.errors import UserError
from medmim.images import RELEASE, ImageStore
from medmim.qa.check import HELD_IN, HELD_OUT

Row = dict[str, Any]


def group(set_: str) -> str:
    """The sum that a set belongs to: held_in or held_out; further for one in neither."""
    return "held_in" if set_ in HELD_IN else "held_out" if set_ in HELD_OUT else "further"


@dataclass(frozen=True)
class Benchmark:
    """Questions by set, held-in sets first, in the order of the table; and where their images are."""

    run: str
    sets: dict[str, list[Row]]
    store: ImageStore
    synthetic: frozenset[str]
    """Sources that are phantoms."""
    credentialed: Counter[str]
    """Questions of each source that may not be passed on."""

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
    ) -> "Benchmark":
        """`credentialed`: sources that may not be passed on; with `allowed` they are exported all the same.

        Raises UserError where they are not allowed, or an image is in no table; TableError.
        """
        store, rows = ImageStore(images), tables.read(qa, "qa").to_pylist()
        if absent := [(row["qa_id"], i) for row in rows for i in row["image_ids"] if i not in store]:
            raise UserError(f"{qa}: question {absent[0][0]} shows {absent[0][1]}, which is in none of the images tables")
        known = store.frame()
        source = dict(zip(RELEASE + known["release_path"], known["source"], strict=True))
        source |= dict(zip(known["image_id"][::-1], known["source"][::-1], strict=True))  # of two tables, the first counts
        held = Counter(s for row in rows for s in {row["source"], *(source[i] for i in row["image_ids"])} & {*credentialed})
        if held and not allowed:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(held.items()))
            raise UserError(
                f"of the {len(rows)} questions, some are of sources whose owners forbid to pass them on ({counts}): nothing is"
                " exported. Leave these sources out of the config; or set export.credentialed: true, for people who may have them"
            )
        order = [*HELD_IN, *HELD_OUT]
        names = sorted({row["set"] for row in rows}, key=lambda s: (order.index(s) if s in order else len(order), s))
        sets = {name: [row for row in rows if row["set"] == name] for name in names}
        return cls(run, sets, store, frozenset(synthetic), held)

    @property
    def rows(self) -> list[Row]:
        """All questions."""
        return [row for rows in self.sets.values() for row in rows]

    def parts(self) -> Iterator[tuple[str, str, list[Row]]]:
        """(set, closed or open, its questions) where there are any."""
        for name, rows in self.sets.items():
            for kind in ("closed", "open"):
                if chosen := [row for row in rows if row["kind"] == kind]:
                    yield name, kind, chosen

    def images(self, row: Row) -> list[tuple[str, bytes]]:
        """(name, PNG) of a question's images in order; the same image has the same name."""
        return [(f"{self.store.row(i)['image_id']}.png", self.store.png(i)) for i in row["image_ids"]]
