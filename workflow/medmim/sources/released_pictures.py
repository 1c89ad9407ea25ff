"""Which picture of a source is meant by each image path of the authors' release, and why one can't be shown."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from medmim.sources.base import Picture, SourceContents, TableBuilder

NOT_IN_TABLES = "the source's tables do not name it, and its file is not there"


@dataclass(frozen=True)
class ReleasedPictures:
    """Image paths of the release that are of one source, with their pictures, and what the adapter says of the others."""

    paths: frozenset[str]
    pictures: dict[str, Picture]
    reasons: dict[str, str]

    @classmethod
    def from_contents(cls, contents: SourceContents, paths: Collection[str]) -> "ReleasedPictures":
        """Look the paths up in all that the source's folder holds."""
        named_pictures = (p for p in contents.pictures if p.release_path in paths)
        pictures = {p.release_path: p for p in sorted(named_pictures, key=lambda p: p.key)}
        return cls(frozenset(paths), pictures, {r.item: r.reason for r in contents.rejected if r.item in paths})

    def select_contents(self, contents: SourceContents) -> SourceContents:
        """Contents of these pictures alone. Files that are absent are left out, as a user's copy need not be whole."""
        pictures = [p for p in contents.pictures if self.pictures.get(p.release_path) is p]
        patients = {p.patient for p in pictures}
        rejected = [r for r in contents.rejected if r.patient in patients]
        skipped = Counter({"pictures that the release does not name": len(contents.pictures) - len(pictures)})
        skipped["broken rows of patients whose pictures it does not name"] = len(contents.rejected) - len(rejected)
        skipped += contents.skipped
        return replace(contents, pictures=pictures, rejected=rejected, skipped=skipped, is_often_partial=True)

    def _explain_absence(self, path: str, build: TableBuilder, limit: int | None) -> str:
        picture = self.pictures.get(path)
        if picture is None:
            return self.reasons.get(path, NOT_IN_TABLES)
        if picture.key in build.failure_reasons:
            return build.failure_reasons[picture.key]
        patients = {p.patient for p in build.contents.pictures}
        if picture.patient not in patients and len(patients) == limit:
            return "its patient is beyond the limit of the config"
        return "its file is not in this copy of the source"

    def list_rows(self, build: TableBuilder, limit: int | None) -> list[dict[str, Any]]:
        """Rows of the released_images table, once the images are built, of the patients within a limit."""
        rows = []
        for path in sorted(self.paths):
            picture = self.pictures.get(path)
            image_id = build.find_image_id(picture.key) if picture else ""
            rows.append(
                {
                    "path": path,
                    "source": build.source,
                    "image_id": image_id,
                    "patient_id": build.prefix_patient(picture.patient) if picture and image_id else "",
                    "reason": "" if image_id else self._explain_absence(path, build, limit),
                }
            )
        return rows
