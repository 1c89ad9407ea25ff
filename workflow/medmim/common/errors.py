"""Errors whose message alone is for the user, shown without a traceback."""

from pathlib import Path


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
