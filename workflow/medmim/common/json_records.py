"""Records out of JSON that others wrote, a list or one a line: strict, and every fault with its line and column."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from medmim.common import outside_files
from medmim.common.errors import UserError

SURROGATE_ESCAPE = re.compile(r"\\ud[89a-f]", re.I)
KIND_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


def describe_kind(value: object) -> str:
    """What a JSON value is, for a message."""
    return KIND_NAMES.get(type(value), "a number")


@dataclass(frozen=True)
class JsonRecord:
    """A value with the line at which it begins, from 1."""

    value: Any
    line: int


class _TextReader:
    """A file's text while it is parsed: places in it, and the errors that name them."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.end = len(text.rstrip())
        self._line, self._counted = 1, 0

    def line_number(self, at: int) -> int:
        """Line of a position, from 1. Positions must not go back, so that a file is counted once."""
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def skip_space(self, at: int) -> int:
        """First position from `at` on that is not white space."""
        while at < len(self.text) and self.text[at] in " \t\r\n":
            at += 1
        return at

    def describe_at(self, at: int) -> str:
        """What stands at a position, for a message."""
        return repr(self.text[at : at + 20].split("\n")[0]) if at < self.end else "the end of the file"

    def fail_at(self, at: int, message: str) -> NoReturn:
        """Refuse the file at a position."""
        line, column = self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)
        raise UserError(f"{self.name}:{line}:{column}: {message}")

    def decode_value(self, at: int, number: int) -> tuple[Any, int]:
        """The value of record `number` and the position behind it."""
        try:
            value, end = _DECODER.raw_decode(self.text, at)
            if SURROGATE_ESCAPE.search(self.text, at, end):
                json.dumps(value, ensure_ascii=False).encode()
            return value, end
        except json.JSONDecodeError as error:
            expected = error.msg.replace("Expecting", "expected").replace(
                "Unterminated string starting at", "expected the closing quote of the string that starts here"
            )
            rest = self.text[error.pos : self.end]
            # Only the end of the text leaves a string open (a line break in it is another error) or an escape in it short.
            is_cut_off = not rest or error.msg.startswith("Unterminated") or ("escape" in error.msg and '"' not in rest)
            state = f"the file is cut off inside record {number}" if is_cut_off else f"record {number} is not JSON"
            self.fail_at(error.pos, f"{state}, which starts at line {self.line_number(at)}: {expected[0].lower() + expected[1:]}")
        except UnicodeEncodeError:
            self.fail_at(at, f"record {number}: a text has half of a surrogate pair (\\ud800 to \\udfff), which is no character")
        except (ValueError, RecursionError) as error:
            self.fail_at(at, f"record {number}: {error}")


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in names if names.count(k) > 1)!r} stands twice in an object")
    return mapping


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON: expected a number or null")


def _parse_finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"the number {text} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object_from_pairs, parse_constant=_refuse_constant, parse_float=_parse_finite)


def _open_text(data: bytes, name: str) -> _TextReader:
    if substitute := outside_files.describe_substitute(data):
        raise UserError(f"{name}:1:1: expected a list of records, found {substitute}")
    return _TextReader(name, outside_files.decode_text(data, name, json.detect_encoding(data)))


def iter_list(data: bytes, name: str) -> Iterator[JsonRecord]:
    """Records of a JSON list in UTF-8, -16 or -32; `name` is what messages call the file.

    Raises UserError, when it comes to it, for text that is cut off, wrongly encoded, no JSON or no list of records, and for an
    empty list.
    """
    return _iter_list(_open_text(data, name))


def _iter_list(text: _TextReader) -> Iterator[JsonRecord]:
    at = text.skip_space(0)
    if text.text[at : at + 1] != "[":
        text.fail_at(at, f"expected '[' that opens a list of records, found {text.describe_at(at)}")
    number = 1
    at = text.skip_space(at + 1)
    if text.text[at : at + 1] == "]":
        text.fail_at(at, "expected records, found an empty list")
    while True:
        if at >= text.end:
            place = f"after record {number - 1}" if number > 1 else "before its first record"
            text.fail_at(at, f"the file is cut off {place}: expected a record, and in the end ']' that closes the list")
        value, end = text.decode_value(at, number)
        yield JsonRecord(value, text.line_number(at))
        at = text.skip_space(end)
        mark = text.text[at : at + 1]
        if mark == "]":
            break
        if mark != ",":
            state = (
                f"the file is cut off after record {number}"
                if not mark
                else f"after record {number} stands {text.describe_at(at)}"
            )
            text.fail_at(at, f"{state}: expected ',' and the next record, or ']' that closes the list")
        at = text.skip_space(at + 1)
        number += 1
    at = text.skip_space(at + 1)
    if at < len(text.text):
        text.fail_at(at, f"expected the end of the file after the list, found {text.describe_at(at)}")


def _iter_lines(text: _TextReader) -> Iterator[JsonRecord]:
    number = 1
    at = text.skip_space(0)
    if at >= text.end:
        text.fail_at(0, "expected records, found an empty file")
    while at < text.end:
        value, end = text.decode_value(at, number)
        # Only "\n" ends a line: what str.splitlines takes for one more may stand inside a JSON string.
        line_end = text.text.find("\n", end)
        line_end = len(text.text) if line_end < 0 else line_end
        line = text.line_number(at)
        if text.text.find("\n", at, end) >= 0:
            text.fail_at(at, f"record {number} goes over several lines: expected one record a line")
        if rest := text.text[end:line_end].strip():
            text.fail_at(end, f"after record {number} stands {rest[:20]!r}: expected the end of the line")
        yield JsonRecord(value, line)
        at = text.skip_space(line_end)
        number += 1


def _has_record_lines(text: _TextReader) -> bool:
    """Whether the first line is a whole object, and another follows."""
    first, _, rest = text.text.strip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest.strip())
    except ValueError:
        return False


def iter_records(data: bytes, name: str, expect_lines: bool = False) -> Iterator[JsonRecord]:
    """Records of a JSON list, or of JSON lines, whichever it is; `expect_lines` where its name says so.

    Raises UserError as iter_list.
    """
    text = _open_text(data, name)
    is_list = text.text[text.skip_space(0) :][:1] == "["
    return _iter_lines(text) if not is_list and (expect_lines or _has_record_lines(text)) else _iter_list(text)
