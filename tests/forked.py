"""Our programs as processes of their own, forked from one that has imported what takes seconds: torch and the like."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, util
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

PRELOADED_MODULES = [
    "torch",
    "transformers.trainer",
    "transformers.models.llava.modeling_llava",
    "peft",
    "openai",
    "pandas",
    "pyarrow.parquet",
]
FORK_CONTEXT = multiprocessing.get_context("forkserver")
FORK_CONTEXT.set_forkserver_preload(PRELOADED_MODULES)


class Program:
    """A program of workflow/scripts, with what subprocess.Popen has of it."""

    def __init__(self, words: Sequence[object], *, env: Mapping[str, str], cwd: Path | None = None) -> None:
        self._captured_paths = [Path(tempfile.mkstemp(prefix="said-")[1]) for _ in range(2)]
        process_arguments = ([str(word) for word in words], dict(env), str(cwd or Path.cwd()), *map(str, self._captured_paths))
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"):  # as programs set them; for what is imported
            forkserver.ensure_running()
        self._process = FORK_CONTEXT.Process(target=_run_as_program, args=process_arguments)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid
        util.Finalize(None, self._process.kill, exitpriority=1)  # before multiprocessing waits for it, where a test did not

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (path.read_text() for path in self._captured_paths)
        self._delete_captured()
        return out, err

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()
        self._delete_captured()

    def _delete_captured(self) -> None:
        for path in self._captured_paths:
            path.unlink(missing_ok=True)


def _run_as_program(words: list[str], env: dict[str, str], cwd: str, out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    multiprocessing.set_start_method(None, force=True)  # not this one, for what the program starts
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    status: object = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:  # what it held is let go before multiprocessing waits for what it started
        status = end.code
    sys.exit(status)  # type: ignore[arg-type]
