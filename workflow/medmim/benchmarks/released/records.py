"""The release's JSON files: strict reading, and what a record, a file name and an image path say.

A file is a list of records in Mantis's form, `{"id", "images": [paths], "conversation": [{"role", "content"}, ...],
"source"}`. What breaks that form is refused with its place; what a record says wrongly (a gold that is no option, a
placeholder too few) is read as it stands, for the import to reject and the audit to count.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from medmim.benchmarks.released.question_files import JSON_SUFFIX
from medmim.common import json_records, outside_files
from medmim.common.errors import UserError
from medmim.questions.prompt import IMAGE_PLACEHOLDER
from medmim.questions.sets import HELD_IN, HELD_OUT, SETS, TRAIN_ONLY

RECORD_KEYS = ("id", "images", "conversation", "source")
OPTION_PATTERN = re.compile(r"[ \t]*([A-Z]):(.*)")
LETTERED_PATTERN = re.compile(r"([A-Z]):(.*)", re.S)
LEADING_PATTERN = re.compile(rf"\s*((?:{IMAGE_PLACEHOLDER}\s*)*)")
# How each source's paths name the patient; one VQA-RAD image is one patient, as its owner links none.
PATH_PATTERNS = (
    ("embed", re.compile(r"cohort_\d+/([^/]+)/.+")),
    ("lumiere", re.compile(r"[^/]*LUMIERE[^/]*/(Patient-[^/]+)/.+")),
    ("ms_cxr_t", re.compile(r"p\d+/p(\d+)/s\d+/.+")),
    ("vqa_rad", re.compile(r"(synpic\d+)\.jpg")),
    ("odir", re.compile(r"[^/]+ Images/(\d+)_(?:left|right)\.jpg")),
    ("pmc", re.compile(r"(?:.*/)?(PMC\d+|\d{6,9})[_/][^/]+\.(?:jpe?g|png)")),
)


class ReleaseError(UserError):
    """A release file that can't be used; the message gives file, line, column and what was expected."""


@dataclass(frozen=True)
class Record:
    """One record as released. `number` and `line` count from 1; `turns` are (role, content), user first."""

    file: str
    number: int
    line: int
    id: str
    images: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    source: str

    @property
    def location(self) -> str:
        """File, record, line and id, for a person."""
        return f"{self.file}, record {self.number} (line {self.line}, id {self.id!r})"


@dataclass(frozen=True)
class Question:
    """What the first two turns of a record ask and answer.

    `options` are (letter, text) as lettered in the text; `gold` is the place of the answer among them, None where
    letter and text together name no option; `letter` is the gold's letter as written, empty if open.
    `placeholders` counts those of all user turns, `leading` those in front of the first.
    """

    text: str
    options: tuple[tuple[str, str], ...]
    answer: str
    gold: int | None
    letter: str
    placeholders: int
    leading: int

    @property
    def is_closed(self) -> bool:
        """Whether options are listed, or the answer is lettered as if they were."""
        return bool(self.options or self.letter)


@dataclass(frozen=True)
class Slot:
    """Where the questions of a file belong; the columns of the qa table."""

    split: str
    ability: str
    set: str


def parse_records(data: bytes, name: str) -> list[Record]:
    """Records of a release file's bytes; `name` is what messages call it.

    Raises ReleaseError as json_records.iter_list raises UserError, and for a record whose keys or types are not those of the
    form.
    """
    try:
        items = enumerate(json_records.iter_list(data, name), 1)
        return [_parse_record(item.value, name, number, item.line) for number, item in items]
    except ReleaseError:
        raise
    except UserError as error:
        raise ReleaseError(str(error)) from None


def read_records(path: Path, name: str | None = None) -> list[Record]:
    """Records of a release file; see `parse_records`. Messages and records call it `name`, by default the file's own."""
    try:
        data = outside_files.read_bytes(path)
    except FileNotFoundError:
        raise ReleaseError(f"{path}: no such file") from None
    return parse_records(data, name or path.name)


def _parse_record(value: Any, file: str, number: int, line: int) -> Record:
    def raise_error(message: str) -> NoReturn:
        raise ReleaseError(f"{file}:{line}: record {number}: {message}")

    def check_keys(mapping: Any, expected: tuple[str, ...], what: str) -> None:
        if not isinstance(mapping, dict):
            raise_error(f"{what} is {json_records.describe_kind(mapping)}, expected an object with {', '.join(expected)}")
        missing, unknown = [k for k in expected if k not in mapping], [k for k in mapping if k not in expected]
        if missing or unknown:
            faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
            raise_error(f"{what} {' and '.join(faults)}; expected the keys {', '.join(expected)}")

    check_keys(value, RECORD_KEYS, "the record")
    key, images, conversation, source = (value[k] for k in RECORD_KEYS)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise_error(f"id is {json_records.describe_kind(key)}, expected text")
    if not isinstance(images, list):
        raise_error(f"images is {json_records.describe_kind(images)}, expected a list of paths")
    for place, image in enumerate(images, 1):
        if not isinstance(image, str) or not image:
            raise_error(f"image {place} is {json_records.describe_kind(image) if image != '' else 'empty'}, expected a path")
    if not isinstance(conversation, list) or not conversation or len(conversation) % 2:
        shape = f"a list of {len(conversation)}" if isinstance(conversation, list) else json_records.describe_kind(conversation)
        raise_error(f"conversation is {shape}, expected a list of turns, user and assistant by turns")
    for place, turn in enumerate(conversation, 1):
        check_keys(turn, ("role", "content"), f"turn {place}")
        role = "user" if place % 2 else "assistant"
        if turn["role"] != role:
            raise_error(f"the role of turn {place} is {turn['role']!r}, expected {role!r}")
        if not isinstance(turn["content"], str):
            raise_error(f"the content of turn {place} is {json_records.describe_kind(turn['content'])}, expected text")
    if not isinstance(source, str):
        raise_error(f"source is {json_records.describe_kind(source)}, expected text")
    turns = tuple((turn["role"], turn["content"]) for turn in conversation)
    return Record(file, number, line, str(key), tuple(images), turns, source)


def _strip_lines(text: str) -> str:
    """Lines without white space around them, blank ones dropped: options carry stray spaces and empty lines."""
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _split_options(content: str) -> tuple[str, list[tuple[str, str]]]:
    """The words before the options, and the options: from the line `A: ...` on, each with its further lines."""
    lines = content.split("\n")
    start = next((n for n, line in enumerate(lines) if (m := OPTION_PATTERN.match(line)) and m[1] == "A"), len(lines))
    options: list[tuple[str, str]] = []
    for line in lines[start:]:
        match = OPTION_PATTERN.match(line)
        # Only a later letter opens the next option (the release skips some): "A: ..." inside an option's text is text.
        if match and (not options or match[1] > options[-1][0]):
            options.append((match[1], match[2]))
        else:
            letter, text = options[-1]
            options[-1] = (letter, f"{text}\n{line}")
    return "\n".join(lines[:start]), [(letter, _strip_lines(text)) for letter, text in options]


def _find_gold(options: list[tuple[str, str]], answer: str) -> tuple[int | None, str]:
    """Place of the gold among the options, and its letter as written. A letter or a text alone will do if it is clear."""
    texts = [text for _, text in options]
    if match := LETTERED_PATTERN.fullmatch(answer):
        letter, text = match[1], _strip_lines(match[2])
        places = [n for n, option in enumerate(options) if option == (letter, text) or (option[0] == letter and not text)]
    elif answer in (letters := [letter for letter, _ in options]):
        letter, places = answer, [letters.index(answer)]
    else:
        places = [n for n, text in enumerate(texts) if text == answer]
        letter = options[places[0]][0] if len(places) == 1 else ""
    return (places[0], letter) if len(places) == 1 else (None, letter)


def parse_question(record: Record) -> Question:
    """The question of a record: its first two turns."""
    content, answer = record.turns[0][1], _strip_lines(record.turns[1][1])
    front = LEADING_PATTERN.match(content)
    leading = front[1].count(IMAGE_PLACEHOLDER) if front else 0
    text, options = _split_options(content[front.end() if front else 0 :])
    gold, letter = _find_gold(options, answer)
    placeholders = sum(turn.count(IMAGE_PLACEHOLDER) for role, turn in record.turns if role == "user")
    if not options and not letter:
        answer = record.turns[1][1].strip()
    return Question(text.strip(), tuple(options), answer, gold, letter, placeholders, leading)


def slot_from_name(name: str) -> Slot:
    """Split, ability and set of a release file, by the words of its name.

    Raises ReleaseError for a name that says none or several.
    """
    stem = Path(name).name.lower().removesuffix(JSON_SUFFIX)
    words, letters = set(re.split(r"[^a-z]+", stem)), re.sub(r"[^a-z]", "", stem)
    splits = [s for s, said in (("train", {"train"}), ("benchmark", {"benchmark", "held"})) if words & said]
    # A composed question is composed of other sets' questions, whose names may stand in the file's name too.
    sets = [s for s in TRAIN_ONLY if s in letters]
    sets = sets or [s for s in HELD_IN if s in letters] + [s for s in HELD_OUT if s in words]
    if len(splits) != 1 or len(sets) != 1 or sets[0] not in SETS[splits[0]]:
        raise ReleaseError(
            f"{name}: the name does not say where its questions belong (split: {' and '.join(splits) or 'none'}, "
            f"set: {' and '.join(sets) or 'none'}); expected a name like Med_MIM_train_inherent_<Set>.json with one of "
            f"{', '.join(SETS['train'])}, or Med_MIM_benchmark_Held_in_<Set>.json or ..._Held_out_<Set>.json with one of "
            f"{', '.join(SETS['benchmark'])}"
        )
    return Slot(splits[0], "comparison" if sets[0] in HELD_OUT else sets[0], sets[0])


def origin_from_path(path: str) -> tuple[str, str] | None:
    """(source, patient_id) of an image path of the release; None for a path in no known source's layout."""
    for source, pattern in PATH_PATTERNS:
        if match := pattern.fullmatch(path):
            return source, f"{source}/{match[1]}"
    return None
