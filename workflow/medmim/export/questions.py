"""What is exported: questions of the benchmark or the instruction set, their images, and the rules of who may have them."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medmim.common.errors import UserError
from medmim.config.source_plugins import SOURCES, Terms
from medmim.questions.sets import SETS
from medmim.tables import table_io
from medmim.tables.data_policy import SYNTHETIC_POLICY, UNSTATED_LICENCE, DataPolicy, combine_policies
from medmim.tables.images import RELEASE_PREFIX, ImageStore

QuestionRow = dict[str, Any]
SPLIT_NAMES = {"benchmark": "benchmark", "train": "instruction set"}
"""What questions are called, by their split."""


def _find_licences(
    images: Sequence[Path], synthetic: Collection[str], providers: Mapping[str, Terms]
) -> dict[str, frozenset[str]]:
    """Names of the licences of each source: those that its images table is under, else its owner's."""
    licences_by_owner = {name: frozenset({owner.licence}) for name, owner in providers.items()} | dict.fromkeys(
        synthetic, SYNTHETIC_POLICY.licences
    )
    licences_by_table: dict[str, frozenset[str]] = {}
    for path in images:
        for source in table_io.read_table(path, "images", ["source"])["source"].unique().to_pylist():
            licences_by_table[source] = licences_by_table.get(source, frozenset()) | DataPolicy.from_table(path).licences
    return licences_by_owner | {source: licences for source, licences in licences_by_table.items() if licences}


def _check_images_present(qa: Path, rows: Sequence[QuestionRow], store: ImageStore) -> None:
    for row in rows:
        for reference in row["image_ids"]:
            if reference not in store:
                raise UserError(f"{qa}: question {row['qa_id']} shows {reference}, which is in none of the images tables")


def _check_none_forbidden(forbidden_counts: Mapping[str, int], question_count: int) -> None:
    if forbidden_counts:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(forbidden_counts.items()))
        raise UserError(
            f"of the {question_count} questions, some are of sources whose owners forbid to pass them on ({counts}): nothing is"
            " exported. Leave these sources out of the config; or set export.credentialed: true, for people who may have them"
        )


def _find_image_rows(store: ImageStore, rows: Sequence[QuestionRow]) -> pd.DataFrame:
    """Rows of the images that questions show, by reference: an image_id or a path of the release."""
    all_images = store.to_frame()
    released = all_images[all_images["release_path"] != ""]
    image_rows = pd.concat([all_images.set_index("image_id"), released.set_index(RELEASE_PREFIX + released["release_path"])])
    image_rows = image_rows[~image_rows.index.duplicated()]  # of two tables, the first counts
    return image_rows.loc[[i for i in dict.fromkeys(i for row in rows for i in row["image_ids"]) if i in image_rows.index]]


def _order_sets(names: Collection[str]) -> list[str]:
    """Held-in sets first, then held-out ones, then any other by name."""
    order = [*SETS["benchmark"], *SETS["train"]]
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions by set, held-in sets first, in the order of the table; and where their images are."""

    run: str
    split: str
    """benchmark or train."""
    sets: dict[str, list[QuestionRow]]
    with_images: bool
    """Whether the images go with them, or are only named."""
    image_store: ImageStore
    image_rows: pd.DataFrame
    """Rows of the images table without the bytes, by reference: those that the questions show."""
    synthetic: frozenset[str]
    """Sources that are phantoms."""
    credentialed: Counter[str]
    """Questions of each source that may not be passed on."""
    rules: DataPolicy
    """Those of the table of questions and of the sources it shows."""
    sources: Counter[str]
    """Questions of each source, or that show an image of it."""
    licences: Mapping[str, frozenset[str]]
    """Names of each source's licences."""
    providers: Mapping[str, Terms]
    """Terms of the sources of this pipeline, by name."""

    @classmethod
    def from_tables(
        cls,
        qa: Path,
        images: Sequence[Path],
        *,
        run: str,
        synthetic: Collection[str],
        credentialed: Collection[str],
        allowed: bool,
        with_images: bool = True,
        providers: Mapping[str, Terms] = SOURCES,
    ) -> "Questions":
        """`credentialed`: sources that may not be passed on, besides those that the tables say; with `allowed` they are
        exported all the same. `providers`: terms of the sources, by name.

        Raises UserError where they are not allowed, there is no question, or an image to be shown is in no table; TableError.
        """
        store, rows = ImageStore(images), table_io.read_table(qa, "qa").to_pylist()
        if not rows:
            raise UserError(f"{qa}: no questions")
        if with_images:
            _check_images_present(qa, rows, store)
        image_rows = _find_image_rows(store, rows)
        source = image_rows["source"].to_dict()
        row_sources = [{row["source"], *(source[i] for i in row["image_ids"] if i in source)} for row in rows]
        sources = Counter(s for source_names in row_sources for s in sorted(source_names))
        forbidden = {*credentialed} | combine_policies([qa, *images]).credentialed
        forbidden_counts = Counter({s: count for s, count in sources.items() if s in forbidden})
        if not allowed:
            _check_none_forbidden(forbidden_counts, len(rows))
        terms = _find_licences(images, synthetic, providers)
        licences = {s: terms.get(s, frozenset({UNSTATED_LICENCE})) for s in sorted(sources)}
        names = _order_sets({row["set"] for row in rows})
        return cls(
            run=run,
            split=rows[0]["split"],
            sets={name: [row for row in rows if row["set"] == name] for name in names},
            with_images=with_images,
            image_store=store,
            image_rows=image_rows,
            synthetic=frozenset(synthetic),
            credentialed=forbidden_counts,
            rules=DataPolicy.from_table(qa) | DataPolicy(frozenset().union(*licences.values()), frozenset(forbidden_counts)),
            sources=sources,
            licences=licences,
            providers=providers,
        )

    @property
    def rows(self) -> list[QuestionRow]:
        """All questions."""
        return [row for rows in self.sets.values() for row in rows]

    @property
    def name(self) -> str:
        """What they are called together."""
        return SPLIT_NAMES[self.split]

    def iterate_parts(self) -> Iterator[tuple[str, str, list[QuestionRow]]]:
        """(set, closed or open, its questions) where there are any."""
        for name, rows in self.sets.items():
            for kind in ("closed", "open"):
                if kind_rows := [row for row in rows if row["kind"] == kind]:
                    yield name, kind, kind_rows

    def load_images(self, row: QuestionRow) -> list[tuple[str, bytes]]:
        """(name, PNG) of a question's images in order; the same image has the same name."""
        return [(f"{self.image_store.resolve_image_id(i)}.png", self.image_store.read_png(i)) for i in row["image_ids"]]

    def format_licence(self, source: str) -> str:
        """Licences of a source, for people."""
        return "Apache-2.0" if source in self.synthetic else "; ".join(sorted(self.licences[source]))

    def describe_owner(self, source: str) -> str:
        """Say whose a source is."""
        if source in self.synthetic:
            return "phantoms, synthetic"
        return self.providers[source].title if source in self.providers else source
