"""What the owners publish becomes images and findings.

A source's adapter (the Protocol Adapter) reads the tables of a folder in the owner's layout and says which pictures there are,
how each is read, and what is stated of them. TableBuilder reads the pictures and yields the rows. Where the folder came from
(phantom, local, download) is not an adapter's business. medmim.sources.contract says what else makes a source.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medmim.common.errors import UserError
from medmim.common.isolated_processes import ProcessDeath, map_isolated
from medmim.common.outside_files import translate_read_errors
from medmim.sources.readers.tar_member import read_source_bytes
from medmim.sources.rendering import FileDecoder, PixelReader, RenderedImage, describe_death, render_images
from medmim.tables.rejections import summarize_rejections

STAGE = "images"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image to be read. `file` is below the source's folder ('<tar>!<member>' in an archive); with `part` it is unique.

    Columns as in the images table, except that patient and study lack the '<source>/' prefix. `read_pixels` turns the
    file's bytes into uint8 pixels, H x W or H x W x 3, or raises with the reason; it must pickle. `part` names the picture
    where its file holds several: "slice 93". What these share is done once by `decode_file`, the same for all pictures of a
    file: `read_pixels` is given what it makes of the bytes.
    `item` is what a rejection names where a table's row, not the file, is to be mended.
    """

    file: str
    read_pixels: PixelReader
    decode_file: FileDecoder | None = None
    patient: str
    study: str
    day: int | None = None
    view: str = ""
    laterality: str = ""
    modality: str
    release_path: str = ""
    item: str = ""
    part: str = ""

    @property
    def key(self) -> str:
        """File and part: what facts and rejections call the picture."""
        return f"{self.file} {self.part}" if self.part else self.file


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something the source states of a picture (`file`, its key), else of a study, else of a patient.

    `pair` is the key of a second picture, without which it means nothing; where it is the value too, the value becomes
    that picture's image_id. `table` and `row` are its origin.
    """

    name: str
    value: str
    patient: str
    study: str = ""
    file: str = ""
    pair: str = ""
    table: str
    row: int


@dataclass(frozen=True)
class Rejection:
    """Something turned away. `is_broken` counts towards max_rejected; a duplicate of an accepted image does not.

    `patient` is whose it is, where that is known.
    """

    item: str
    reason: str
    is_broken: bool = True
    patient: str = ""


def order_patients(patients: Iterable[str]) -> list[str]:
    """Patients by their hashes, the order in which a limit takes them."""
    return sorted(patients, key=lambda p: hashlib.sha256(f"limit|{p}".encode()).digest())


@dataclass
class SourceContents:
    """What a source's folder holds by its tables. `skipped` counts what is left out on purpose, by reason.

    `is_often_partial`: most users have a part of the owner's files, so that an absent one is left out and not broken.
    """

    pictures: list[Picture] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    is_often_partial: bool = False

    def add_facts(
        self, picture: Picture, table: str, row: int, facts: Mapping[str, str], other_picture: Picture | None = None
    ) -> None:
        """Add facts of a picture, value by name, from one row of a table; of a pair of pictures, the other as `other_picture`."""
        other_file = other_picture.key if other_picture else ""
        for name, value in facts.items():
            self.facts.append(
                Fact(
                    name=name,
                    value=value,
                    patient=picture.patient,
                    study=picture.study,
                    file=picture.key,
                    pair=other_file,
                    table=table,
                    row=row,
                )
            )

    def limit_patients(self, limit: int | None) -> "SourceContents":
        """Contents of the `limit` patients with the least hashes: fewer are among more, whatever the order of the tables."""
        patients = order_patients({p.patient for p in self.pictures})
        if limit is None or len(patients) <= limit:
            return self
        kept_patients = set(patients[:limit])
        rejected = [r for r in self.rejected if r.patient in kept_patients]
        skipped = Counter({f"patients beyond the limit of {limit}": len(patients) - limit})
        skipped["broken rows that are none of theirs"] = len(self.rejected) - len(rejected)
        pictures = [p for p in self.pictures if p.patient in kept_patients]
        return replace(self, pictures=pictures, rejected=rejected, skipped=self.skipped + skipped)

    def drop_missing(self, missing: Collection[str]) -> "SourceContents":
        """Contents without the pictures that their owner no longer has, by file."""
        remaining_pictures = [p for p in self.pictures if p.file not in missing]
        skipped = Counter({"missing at the owner's": len(self.pictures) - len(remaining_pictures)})
        return replace(self, pictures=remaining_pictures, skipped=self.skipped + skipped)

    def choose_present(self, limit: int | None, is_present: Callable[[str], bool]) -> "SourceContents":
        """Contents of a copy of the user's, of the first `limit` patients as by `limit_patients`.

        Of a partial copy only patients count of whom it has a picture; `is_present` is asked of the paths of files, until there
        are enough. Pictures that it lacks are left out. Where a copy is expected to be whole, an absent file is broken.
        """
        if not self.is_often_partial:
            return self.limit_patients(limit)
        pictures_by_patient: dict[str, list[Picture]] = defaultdict(list)
        for picture in self.pictures:
            pictures_by_patient[picture.patient].append(picture)
        ordered_patients = order_patients(pictures_by_patient)
        present_keys: dict[str, set[str]] = {}
        skipped: Counter[str] = Counter()
        for number, patient in enumerate(ordered_patients):
            if len(present_keys) == limit:
                skipped[f"patients beyond the limit of {limit}"] = len(ordered_patients) - number
                break
            pictures = pictures_by_patient[patient]
            keys = {p.key for p in pictures if is_present(p.file.partition("!")[0])}
            skipped["images that this copy lacks"] += len(pictures) - len(keys)
            if keys:
                present_keys[patient] = keys
        rejected = [r for r in self.rejected if r.patient in present_keys]
        reason = "broken rows of patients that this copy lacks, or beyond the limit"
        skipped[reason] = len(self.rejected) - len(rejected)
        pictures = [p for p in self.pictures if p.key in present_keys.get(p.patient, ())]
        return replace(self, pictures=pictures, rejected=rejected, skipped=self.skipped + skipped)


class Adapter(Protocol):
    """What a source's adapter.py offers."""

    def read_contents(self, root: Path) -> SourceContents:
        """Read the tables of a folder in the owner's layout; no pixels. Raises UserError where it is not in that layout."""


@runtime_checkable
class LimitedAdapter(Adapter, Protocol):
    """What an adapter offers besides where `read_contents` has to read more than tables, which a limit can spare."""

    def read_limited_contents(self, root: Path, limit: int | None) -> SourceContents:
        """As `read_contents`, of the first `limit` patients, as by `order_patients`, who have a picture; of all for None."""


@runtime_checkable
class ReleaseAdapter(Adapter, Protocol):
    """What an adapter offers besides where the authors' release names pictures that `read_contents` does not choose."""

    def add_released_pictures(self, root: Path, contents: SourceContents, paths: Collection[str]) -> None:
        """Add the pictures of these paths of the release, of all sources; list those of this source that can't be found."""


def render_file(root: Path, size: int, item: tuple[list[Picture], bool]) -> list[RenderedImage | str]:
    """Read a file once, and normalise and encode its pictures; of each the reason, where that can't be done.

    `item`: the pictures, and whether their file is indexed. Raises UserError where the system can't read it, or what was there
    when the folder was indexed is gone.
    """
    pictures, is_indexed = item
    file = pictures[0].file
    path = root / file.partition("!")[0]
    try:
        data = read_source_bytes(root, file)
    except FileNotFoundError as error:
        if is_indexed and not path.exists():
            raise UserError(
                f"{path}: was there when the folder was indexed, and is gone: put it back, or index the folder again (delete its "
                "index, and run snakemake)"
            ) from None
        return [str(error)] * len(pictures)
    except ValueError as error:
        return [str(error)] * len(pictures)
    with translate_read_errors(path):
        return render_images(data, pictures[0].decode_file, [p.read_pixels for p in pictures], size)


@dataclass
class TableBuilder:
    """Turns contents into rows: first exhaust iter_image_rows, then call list_finding_rows and list_rejection_rows.

    The same pixels in two files make one image, that of the first in sorted order: the second is listed as
    rejected, not as broken, and what is stated of it alone is dropped.
    """

    source: str
    root: Path
    contents: SourceContents
    size: int
    threads: int = 1
    index_hashes: Mapping[str, str] | None = None
    """sha256 of each file below root, as the source's index has it; checked where given."""
    patients_of: str = ""
    """The source whose ids the patients bear, where it is another."""
    image_ids: dict[str, str] = field(default_factory=dict)
    """image_id of every picture accepted, by its key."""
    rejected: list[Rejection] = field(default_factory=list)
    duplicate_ids: dict[str, str] = field(default_factory=dict)
    """image_id of every picture left out because another has its pixels, by its key."""
    failure_reasons: dict[str, str] = field(default_factory=dict)
    """Why a picture could not be read, by its key."""

    def __post_init__(self) -> None:
        self.rejected = list(self.contents.rejected)

    def find_image_id(self, key: str) -> str:
        """The image that shows a picture's pixels; empty where there is none."""
        return self.image_ids.get(key) or self.duplicate_ids.get(key, "")

    def _prefix_id(self, local_id: str) -> str:
        return f"{self.source}/{local_id}" if local_id else ""

    def prefix_patient(self, patient: str) -> str:
        """A patient's id in the tables."""
        return f"{self.patients_of or self.source}/{patient}"

    def iter_image_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the images table, sorted by file and part. Raises UserError where the source has no picture at all."""
        pictures = sorted(self.contents.pictures, key=lambda p: p.key)
        if not pictures:
            raise UserError(
                f"{self.root}: the source {self.source} is empty: its tables name no image" + self._summarize_broken()
            )
        keys_by_image_id: dict[str, str] = {}
        for picture, result in zip(pictures, self._render_pictures(pictures), strict=True):
            item = f"{picture.key} ({picture.item})" if picture.item else picture.key
            if isinstance(result, str):
                self.failure_reasons[picture.key] = result
                self.rejected.append(Rejection(item, result))
                continue
            if self.index_hashes is not None and "!" not in picture.file and self.index_hashes.get(picture.file) != result.sha256:
                raise UserError(f"{self.root / picture.file} is not as the source's index has it: index the folder again")
            if result.image_id in keys_by_image_id:
                self.duplicate_ids[picture.key] = result.image_id
                self.rejected.append(Rejection(item, f"same pixels as {keys_by_image_id[result.image_id]}", is_broken=False))
                continue
            keys_by_image_id[result.image_id] = picture.key
            self.image_ids[picture.key] = result.image_id
            yield {
                "image_id": result.image_id,
                "source": self.source,
                "patient_id": self.prefix_patient(picture.patient),
                "study_id": self._prefix_id(picture.study),
                "day": picture.day,
                "view": picture.view,
                "laterality": picture.laterality,
                "modality": picture.modality,
                "width": result.width,
                "height": result.height,
                "bytes": result.png,
                "thumbnail": result.thumbnail,
                "release_path": picture.release_path,
                "origin_file": picture.file,
                "origin_sha256": result.sha256,
            }

    def _render_pictures(self, pictures: list[Picture]) -> Iterator[RenderedImage | str]:
        index = self.index_hashes or {}
        groups = [list(group) for _, group in groupby(pictures, key=lambda p: p.file)]
        items = ((group, group[0].file.partition("!")[0] in index) for group in groups)
        # In other processes also where it is one: a decoder may end it.
        results = map_isolated(partial(render_file, self.root, self.size), items, self.threads)
        for group, result in zip(groups, results, strict=True):
            if isinstance(result, ProcessDeath):
                result = [describe_death(result, self.root / group[0].file)] * len(group)
            yield from result

    def list_finding_rows(self) -> list[dict[str, Any]]:
        """Rows of the findings table whose image, study or patient was accepted, sorted by origin."""
        accepted = [p for p in self.contents.pictures if p.key in self.image_ids]
        studies = {p.study for p in accepted}
        patients = {p.patient for p in accepted}
        rows_by_content: dict[str, dict[str, Any]] = {}
        for fact in self.contents.facts:
            fact_files = [f for f in (fact.file, fact.pair) if f]
            if not all(f in self.image_ids for f in fact_files):
                continue
            if fact.patient not in patients or (fact.study and fact.study not in studies):
                continue
            row: dict[str, Any] = {
                "source": self.source,
                "patient_id": self.prefix_patient(fact.patient),
                "study_id": self._prefix_id(fact.study),
                "image_id": self.image_ids[fact.file] if fact.file else "",
                "name": fact.name,
                "value": self.image_ids[fact.pair] if fact.pair and fact.value == fact.pair else fact.value,
                "origin_file": fact.table,
                "origin_row": fact.row,
            }
            content_hash = hashlib.sha256("\0".join(str(v) for v in row.values()).encode()).hexdigest()[:16]
            rows_by_content[content_hash] = {"finding_id": f"{self.source}/{content_hash}", **row}
        return sorted(
            rows_by_content.values(), key=lambda r: (r["origin_file"], r["origin_row"], r["name"], r["image_id"], r["value"])
        )

    def list_rejection_rows(self) -> list[dict[str, Any]]:
        """Rows of the rejected table, sorted."""
        return [
            {"stage": STAGE, "item": r.item, "reason": r.reason} for r in sorted(self.rejected, key=lambda r: (r.item, r.reason))
        ]

    def check_rejected_share(self, max_share: float) -> None:
        """Raise UserError where more than the share `max_share` of all images and rows is broken."""
        broken = [r for r in self.rejected if r.is_broken]
        total = len(self.image_ids) + len(broken)
        if not self.image_ids or len(broken) > max_share * total:
            raise UserError(
                f"{self.root}: {len(broken)} of {total} images and rows of {self.source} can't be used, more than the share"
                f" {max_share:g} that max_rejected allows" + self._summarize_broken()
            )

    def _summarize_broken(self) -> str:
        return summarize_rejections([{"item": r.item, "reason": r.reason} for r in self.rejected if r.is_broken])
