"""The released questions that the run can ask: each upon the images that its paths mean.

Left out, each with its reason, are questions that name an image which the sources don't have, and those that equal one before,
as other paths of theirs mean the same pixels.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medmim.common.errors import UserError
from medmim.questions.row import Row, hash_question
from medmim.tables.images import RELEASE_PREFIX
from medmim.tables.rejections import summarize_rejections

STAGE = "select_released"


@dataclass
class Selection:
    """Rows of the qa table by split, rows of the rejected table, and how many questions are of the config's sources."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {"train": [], "benchmark": []})
    missing: list[dict[str, str]] = field(default_factory=list)
    """Questions of the config's sources that lack an image."""
    of_other_sources: list[dict[str, str]] = field(default_factory=list)
    repeats: list[dict[str, str]] = field(default_factory=list)
    considered_count: int = 0

    @property
    def left_out(self) -> list[dict[str, str]]:
        """All that is left out, with its reason."""
        return [*self.missing, *self.of_other_sources, *self.repeats]

    def check_missing_share(self, max_share: float) -> None:
        """Raise UserError where more than the share `max_share` of the questions of the config's sources lack an image."""
        if len(self.missing) > max_share * self.considered_count:
            raise UserError(
                f"{len(self.missing)} of {self.considered_count} released questions name images that the sources don't have, "
                f"more than the share {max_share:g} that qa.release.max_missing_images allows"
                + summarize_rejections(self.missing)
            )
        if not self.rows["benchmark"]:
            raise UserError("no benchmark question of the release can be asked" + summarize_rejections(self.left_out))


def _explain_missing(paths: Iterable[str], images: Mapping[str, Mapping[str, str]]) -> str:
    """Reasons why images of a question can't be shown, each with the first of them."""
    paths_by_reason: dict[str, str] = {}
    for path in paths:
        if path not in images or not images[path]["image_id"]:
            paths_by_reason.setdefault(images[path]["reason"] if path in images else "not looked up", path)
    return "; ".join(f"{reason} (image '{path}')" for reason, path in paths_by_reason.items())


def select_questions(questions: Iterable[Row], images: Sequence[Mapping[str, str]], sources: Collection[str]) -> Selection:
    """Questions upon their images, in their order. `images`: rows of the released_images tables of the config's `sources`."""
    images_by_path = {image["path"]: image for image in images}
    selection = Selection()
    first_ids: dict[tuple[str, str], str] = {}
    for row in questions:
        item = f"{row['split']} question {row['qa_id']}"
        if row["source"] not in sources:
            reason = f"source {row['source']} is not in the config"
            selection.of_other_sources.append({"stage": STAGE, "item": item, "reason": reason})
            continue
        selection.considered_count += 1
        paths = [image_id.removeprefix(RELEASE_PREFIX) for image_id in row["image_ids"]]
        if reason := _explain_missing(paths, images_by_path):
            selection.missing.append({"stage": STAGE, "item": item, "reason": reason})
            continue
        image_ids = [images_by_path[path]["image_id"] for path in paths]
        patient_ids = sorted({images_by_path[path]["patient_id"] for path in paths})
        qa_id = hash_question(row["question"], row["options"], row["answer"], image_ids)
        first_id = first_ids.setdefault((row["split"], qa_id), row["qa_id"])
        if first_id != row["qa_id"]:
            reason = f"repeats question {first_id}: same question, options and answer, and images of the same pixels"
            selection.repeats.append({"stage": STAGE, "item": item, "reason": reason})
            continue
        selection.rows[row["split"]].append({**row, "qa_id": qa_id, "image_ids": image_ids, "patient_ids": patient_ids})
    return selection
