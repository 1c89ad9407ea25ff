"""Released records as rows of the qa table.

Turned away is what can't be asked, answered or keyed: placeholders that don't match the images, an empty text, a gold
that is none of the options, fewer than two options, more than one exchange, an image of no known source, and the exact
repeat of a record before it (rows are keyed by their content). Kept as released, and counted by the audit: option texts
given twice, ids given twice, images and patients that train and benchmark share. Options are lettered anew from A, which
differs from the release only where that skips a letter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from medmim.benchmarks.released.records import Question, Record, Slot, origin_from_path, parse_question
from medmim.questions.row import Row, question_row
from medmim.questions.validation import check_row

STAGE = "import_release"


@dataclass
class ImportResult:
    """Rows of the qa table by split, rows of the rejected table, and how many records were read, unusable, repeats."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {"train": [], "benchmark": []})
    rejected: list[dict[str, str]] = field(default_factory=list)
    records: int = 0
    unusable: int = 0
    repeats: int = 0

    def reject(self, record: Record, reason: str) -> None:
        """List a record as turned away."""
        self.rejected.append({"stage": STAGE, "item": record.location, "reason": reason})


def _check_record(record: Record, parsed: Question, origins: list[tuple[str, str] | None]) -> list[str]:
    """Why a record can't be used, in words; empty where it can."""
    faults = []
    if len(record.turns) > 2:
        faults.append(f"{len(record.turns)} turns, expected one question and its answer")
    if not record.images:
        faults.append("no image")
    if parsed.placeholders != len(record.images):
        faults.append(f"{parsed.placeholders} <image> placeholders for {len(record.images)} images")
    elif parsed.leading != parsed.placeholders:
        faults.append("an <image> placeholder is not in front of the text")
    faults += [f"image path {path!r} is of no known source" for path, o in zip(record.images, origins, strict=True) if o is None]
    sources = sorted({o[0] for o in origins if o})
    if len(sources) > 1:
        faults.append(f"images of several sources: {', '.join(sources)}")
    if parsed.is_closed and parsed.gold is None:
        lines = "; ".join(f"{letter}: {text}" for letter, text in parsed.options) or "none"
        faults.append(f"the answer {parsed.answer!r} is not among the options ({lines})")
    return faults


def row_from_record(record: Record, slot: Slot, generator: str) -> Row:
    """The record's row of the qa table. Raises ValueError saying why it can't be used."""
    parsed = parse_question(record)
    origins = [origin_from_path(image) for image in record.images]
    faults = _check_record(record, parsed, origins)
    if not faults:
        options = [text for _, text in parsed.options]
        qa_row = question_row(
            split=slot.split,
            ability=slot.ability,
            set=slot.set,
            task=record.source,
            text=parsed.text,
            options=options,
            answer=parsed.answer if parsed.gold is None else options[parsed.gold],
            answer_index=parsed.gold,
            image_ids=[f"release/{path}" for path in record.images],
            patient_ids=[o[1] for o in origins if o],
            source=next(o[0] for o in origins if o),
            generator=generator,
        )
        faults = check_row(qa_row)
    if faults:
        raise ValueError("; ".join(faults))
    return qa_row


def convert_records(files: Iterable[tuple[Slot, str, list[Record]]]) -> ImportResult:
    """Rows of release files, each given as (slot, sha256 of the file, records), in their order."""
    result = ImportResult()
    first_records: dict[tuple[str, str], Record] = {}
    for slot, sha256, records in files:
        for record in records:
            result.records += 1
            try:
                qa_row = row_from_record(record, slot, f"released/{sha256[:12]}")
            except ValueError as error:
                result.unusable += 1
                result.reject(record, str(error))
                continue
            first_record = first_records.setdefault((slot.split, qa_row["qa_id"]), record)
            if first_record is not record:
                result.repeats += 1
                result.reject(record, f"repeats {first_record.location}: same question, options, answer and images")
            else:
                result.rows[slot.split].append(qa_row)
    return result
