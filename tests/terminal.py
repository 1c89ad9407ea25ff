"""A terminal for tests: a program runs on a real one, and an emulator says what stands there at the end."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class TerminalSession:
    """What a program left on a terminal."""

    status: int
    output: bytes
    lines: list[str]
    """All lines, those that have scrolled away too."""


def run_in_terminal(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], columns: int = 80, rows: int = 24
) -> TerminalSession:
    """Run a command in a terminal of its own until it ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")} | dict(environment)
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    screen = pyte.HistoryScreen(columns, rows, history=100_000)
    stream, output = pyte.ByteStream(screen), b""
    while chunk := _read_chunk(ours):
        output += chunk
        stream.feed(chunk)
    os.close(ours)
    scrolled = ["".join(row[column].data for column in range(columns)) for row in screen.history.top]
    lines = [line.rstrip() for line in [*scrolled, *screen.display]]
    while lines and not lines[-1]:
        lines.pop()
    return TerminalSession(process.wait(), output, lines)


def _read_chunk(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # all that wrote to it have ended
        return b""
