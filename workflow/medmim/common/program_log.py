"""The log of a program: how it is written, and what of it is worth showing."""

import logging
import os
import re
from pathlib import Path

OWN_LOGGER = "medmim"
WARNING_PREFIX = "warning: "


class LogFormatter(logging.Formatter):
    """Messages as they are; a warning of this project's says that it is one, unlike those of libraries."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        text = super().format(record)
        return f"{WARNING_PREFIX}{text}" if record.name == OWN_LOGGER and record.levelno == logging.WARNING else text


def open_log(path: Path | None) -> None:
    """Send all that is logged to stderr, and to a file where that is another one."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if path is not None and not _is_stderr(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        handlers.append(logging.FileHandler(path, encoding="utf-8"))  # appends, as may a lost run of this job
    for handler in handlers:
        handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


def _is_stderr(path: Path) -> bool:
    """Whether what is written to stderr goes into a file, as it does where Snakemake starts a program."""
    try:
        return os.path.samestat(os.fstat(2), path.stat())
    except OSError:
        return False


def read_result(path: Path, program: str) -> tuple[list[str], str | None]:
    """Read the warnings of a program's log, and the line with which it says what it made; None where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [], None
    summary = re.compile(rf"{re.escape(program):<18} .*\((?:\d+\.\d s|from the cache)\)")
    warnings = [line.removeprefix(WARNING_PREFIX) for line in lines if line.startswith(WARNING_PREFIX)]
    return list(dict.fromkeys(warnings)), next((line for line in reversed(lines) if summary.fullmatch(line)), None)
