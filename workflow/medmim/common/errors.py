"""Errors whose message alone is for the user, shown without a traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABSENCE_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Numbers of an OSError by which a path can't be a file's."""
MAX_LIBRARY_MESSAGE_CHARS = 300
"""Most characters of a library's message that are repeated."""


class UserError(Exception):
    """Something the user can mend."""

    exit_status = 1
    """What the program's exit says of it."""


class RunInterruptedError(UserError):
    """Work that was told to stop and goes on when it is started again: the system's "temporary failure", EX_TEMPFAIL."""

    exit_status = 75


class TableError(ValueError):
    """A table that does not have the columns its schema declares."""


class SidecarError(ValueError):
    """A sidecar or cache record that is not as it was written."""


class RecordVersionError(SidecarError):
    """A sidecar or cache record of another version of its format than this checkout reads."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}: run snakemake again")
        self.problem = problem
        """What is wrong with it, without its path."""


@contextmanager
def explain_library_errors(problem: str) -> Iterator[None]:
    """Raise UserError in one line, "problem: reason", for all that libraries raise at files and servers that a user named.

    They raise anything: ValueError, RuntimeError, KeyError, exceptions of their own. Only what calls them belongs in the block.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        reason = " ".join(str(error).split()) or type(error).__name__
        shortened = reason if len(reason) <= MAX_LIBRARY_MESSAGE_CHARS else f"{reason[:MAX_LIBRARY_MESSAGE_CHARS]}…"
        raise UserError(f"{problem}: {kind}{shortened}") from error
