"""Programs run with a record of every path that they open, list or stat, by Python's own audit events and os.stat."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TRACER = """
import json, os, runpy, sys, threading
import medmim.common.hash_memory
medmim.common.hash_memory.SETTLE_SECONDS = -1e9  # as of files that were written long ago
report, root, kill_at, program, *sys.argv[1:] = sys.argv[1:]
touched, lock = {"open": [], "stat": [], "list": []}, threading.Lock()
def note(kind, path):
    if isinstance(path, (str, os.PathLike)):
        name = os.path.relpath(os.fspath(path), root)
        if not name.startswith(".."):
            with lock:
                touched[kind].append(name)
                if kind == "open" and len(touched[kind]) == int(kill_at):
                    os._exit(9)
kinds = {"open": "open", "os.scandir": "list", "os.listdir": "list"}
sys.addaudithook(lambda event, arguments: note(kinds[event], arguments[0]) if event in kinds else None)
stat = os.stat
def traced_stat(path, *more, **options):
    note("stat", path)
    return stat(path, *more, **options)
os.stat = traced_stat
sys.argv[0] = program
sys.path[0] = os.path.dirname(program)
try:
    runpy.run_path(program, run_name="__main__")
finally:
    with open(report, "w") as file:
        json.dump(touched, file)
"""


def run_traced(program: Path, root: Path, *arguments: str | Path, report: Path, kill_at: int = 0) -> dict[str, Any]:
    """Run a program; paths below `root` that it opened, statted and listed, each as often as it did.

    It is killed as it opens the path of number `kill_at`: then what it touched is unknown.
    """
    command = [sys.executable, "-c", TRACER, report, root.resolve(), str(kill_at), program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, encoding="utf-8", check=False, env=environment
    )
    assert done.returncode == (9 if kill_at else 0), done.stderr
    return {} if kill_at else dict(json.loads(report.read_text(encoding="utf-8")))


def note_call(calls: Path) -> None:
    """Note in a file that a function was called, in whatever process."""
    with calls.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")


def read_calls(calls: Path) -> list[str]:
    """What was noted."""
    return calls.read_text(encoding="utf-8").splitlines()
