"""Files of others: reading errors by name, how text is encoded, and what came in a file's place."""

import codecs
import errno
import html
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from medmim.common.errors import ABSENCE_ERRORS, UserError
from medmim.common.watched_paths import FOLDER, is_file_stamp, note_read, stamp_path

HEAD_BYTES = 4096
"""Bytes at a file's start that tell what it is."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PAGE_START = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
PAGE_TITLE = re.compile(rb"<title[^>]*>\s*(.{1,80}?)\s*<", re.I | re.S)
LFS_START = b"version https://git-lfs"
REMEDIES = {
    errno.EACCES: "ask its owner to let you read it (chmod), or copy it to where you may",
    errno.EPERM: "ask its owner to let you read it (chmod), or copy it to where you may",
    errno.ENOENT: "it was there a moment ago: put it back, or index the folder again",
    errno.ENOMEM: "give the job more memory, or fewer threads",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
DEFAULT_REMEDY = "the disk or the network failed, not the file's content: start again, and check the disk if it comes back"


def is_read_error(error: BaseException) -> bool:
    """Whether the system failed to give a file's bytes. Libraries raise OSError for bad content too, without a number."""
    return isinstance(error, OSError) and error.errno is not None


@contextmanager
def translate_read_errors(path: Path | str) -> Iterator[None]:
    """Raise UserError with file and remedy where the system can't read it, or has no memory for it; other errors pass."""
    try:
        yield
    except MemoryError:
        raise UserError(f"{path}: not enough memory to read it: {REMEDIES[errno.ENOMEM]}") from None
    except OSError as error:
        if error.errno is None:
            raise
        reason, code = os.strerror(error.errno), errno.errorcode.get(error.errno, error.errno)
        remedy = REMEDIES.get(error.errno, DEFAULT_REMEDY)
        raise UserError(f"{error.filename or path}: can't be read: {reason} ({code}): {remedy}") from None


def is_file(path: Path) -> bool:
    """Whether a path is a file's. Raises UserError naming it where that can't be known."""
    with translate_read_errors(path):
        return is_file_stamp(stamp_path(path))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder's. Raises UserError naming it where that can't be known."""
    with translate_read_errors(path):
        return stamp_path(path) == FOLDER


def read_bytes(path: Path) -> bytes:
    """All bytes of a file. Raises UserError naming it, and FileNotFoundError, whose cause the caller may know."""
    with translate_read_errors(path):
        note_read(path)
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno not in ABSENCE_ERRORS:
                raise
    raise FileNotFoundError("no such file")


def read_head(path: Path) -> bytes:
    """The first bytes of a file. Raises UserError naming it."""
    with translate_read_errors(path):
        note_read(path)
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)


def describe_substitute(head: bytes) -> str:
    """What a file is that only stands for the one that was wanted, with the remedy; empty where it is not one of these."""
    head = head[:HEAD_BYTES]
    if head.startswith(LFS_START):
        return "a Git LFS pointer in place of the file: fetch the file itself with `git lfs pull`"
    plain = head.removeprefix(codecs.BOM_UTF8).replace(b"\0", b"")  # UTF-16's, near enough
    if not PAGE_START.match(plain):
        return ""
    title = PAGE_TITLE.search(plain)
    shown_title = f", titled {html.unescape(' '.join(title[1].decode(errors='replace').split()))!r}," if title else ""
    return (
        f"a web page{shown_title} in place of the file, perhaps a login or terms to accept: delete it, and fetch the file again"
    )


def find_encoding(head: bytes) -> str:
    """Encoding by the byte order mark; UTF-8 where there is none."""
    return next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")


def decode_text(data: bytes, name: str, encoding: str) -> str:
    """Text of a file's bytes. Raises UserError with line and column, the bytes, and how to save it."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise_decode_error(error, data, name)


def raise_decode_error(error: UnicodeDecodeError, data: bytes, name: str) -> NoReturn:
    """Raise UserError that says where bytes are not text of their encoding."""
    line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
    if error.end == len(data) and error.reason in ("unexpected end of data", "truncated data"):
        raise UserError(f"{name}:{line}:{column}: the file is cut off inside a character; expected more text") from None
    bad_bytes = " ".join(f"{b:02x}" for b in data[error.start : error.start + 4])
    line_start = data.rfind(b"\n", 0, error.start) + 1
    as_latin1 = data[max(line_start, error.start - 20) : error.start + 20].split(b"\n")[0].decode("cp1252", "replace")
    raise UserError(
        f"{name}:{line}:{column}: not UTF-8: found the bytes {bad_bytes} ({error.reason}). Save it as UTF-8: with "
        f"`iconv -f cp1252 -t utf-8` if {as_latin1!r} reads right, else from the encoding that it has (gb18030, shift_jis, ...)"
    ) from None
