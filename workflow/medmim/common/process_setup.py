"""What a process finds around it, made such that nothing in it need ask: standard streams, a user's name, a home."""

import atexit
import getpass
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any


class _Pipe(io.FileIO):
    """Where a reader has gone, as `head` does, what is written goes nowhere and is no error."""

    def write(self, data: Any) -> int:
        """Write, or discard what nobody will read."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


def prepare_process() -> None:
    """Give this process, and those that it starts, what machines may lack. To be called before anything is opened."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _prepare_stream(number, name)
    try:
        getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as of a container's user
        os.environ["USER"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:  # libraries would make a folder named ~
        os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def _prepare_stream(number: int, name: str) -> None:
    """Make a standard stream one that can always be written to; one that something else has replaced stays as it is.

    A closed one is opened on /dev/null: else the next file that is opened takes its number, and a library's warning is
    written into it. A character that a terminal's encoding lacks is shown by its number.
    """
    try:
        os.fstat(number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes this number, the lowest that is free
    stream = getattr(sys, name)
    if stream is None:
        setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w" if number else "r", closefd=False), encoding="utf-8"))
    elif number and stream is getattr(sys, f"__{name}__"):
        stream.flush()
        buffer = io.BufferedWriter(_Pipe(number, "w", closefd=False))
        line_buffering = stream.line_buffering or name == "stderr"
        setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=line_buffering))
