import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent

from medmim.snakemake_hooks import messages
from medmim.snakemake_hooks.screen import Screen

PROGRAM = "/x/workflow/scripts/predict.py"
LOGGED, SHOWN = f"2>>l exec python {PROGRAM} --cfg c", f"exec python {PROGRAM} --cfg c"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(messages, "PROGRAM_PATHS", {PROGRAM})
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def open_screen(stream: io.StringIO, jobs: int = 3) -> Screen:
    needed = [SimpleNamespace(rule=SimpleNamespace(norun=n == 0)) for n in range(jobs + 1)]
    dag = SimpleNamespace(needrun_jobs=lambda: needed)
    screen = Screen(SimpleNamespace(output_settings=SimpleNamespace(nocolor=False), dag=dag), stream)
    show(screen, LogEvent.RUN_INFO)
    return screen


def show(screen: Screen, event: LogEvent | None, message: str = "", level: int = logging.INFO, **fields: Any) -> None:
    screen.emit(logging.makeLogRecord({"event": event, "msg": message, "levelno": level, **fields}))


def begin(screen: Screen, job: int, command: str = LOGGED, log: str = "predict.log", rule: str = "predict") -> None:
    show(
        screen, LogEvent.JOB_INFO, jobid=job, rule_name=rule, wildcards={"m": "mantis"}, output=["o"], log=[log], shellcmd=command
    )


def picture(screen: Screen) -> str:
    """What stands below the lines that stay."""
    stream = io.StringIO()
    Console(file=stream, width=80).print(screen._render())
    return stream.getvalue()


def test_a_stage_is_the_line_with_which_its_program_ends() -> None:
    stream = io.StringIO()
    screen = open_screen(stream)
    begin(screen, 1)
    Path("predict.log").write_text(
        "warning: cache: not kept\nUserWarning: of a library\npredict: 50.0 % done\n"
        "predict            mantis: 96 replies (73.8 s)\nlibrary: bye (1 s)\n"
    )
    show(screen, LogEvent.JOB_FINISHED, job_id=1)
    assert stream.getvalue().splitlines() == [
        "3 stages to run",
        "predict mantis: cache: not kept (predict.log)",
        "predict            mantis: 96 replies (73.8 s)",
    ]


def test_what_snakemake_says_of_itself_does_not_show() -> None:
    stream = io.StringIO()
    screen = open_screen(stream)
    for noise in (
        "Building DAG of jobs...", "Using shell: /bin/bash", "Select jobs to execute...", "Execute 2 jobs...",
        "41 jobs have missing provenance/metadata so that it in part cannot be used", "Elapsed time: 0:00:01",
    ):  # fmt: skip
        show(screen, None, noise)
    show(screen, LogEvent.WORKFLOW_STARTED, "Workflow has started!")
    show(
        screen,
        LogEvent.ERROR,
        f"CalledProcessError:\nCommand 'python {PROGRAM} …' returned non-zero exit status 1.",
        logging.ERROR,
    )
    assert stream.getvalue() == "3 stages to run\n"
    show(screen, None, "SLURM does not answer: waiting for it", logging.WARNING)
    show(screen, LogEvent.ERROR, "CalledProcessError:\nCommand 'cat x' returned non-zero exit status 1.", logging.ERROR)
    assert stream.getvalue().splitlines()[1:] == [
        "SLURM does not answer: waiting for it", "CalledProcessError:", "Command 'cat x' returned non-zero exit status 1.",
    ]  # fmt: skip


def test_a_failure_is_a_line_with_its_log() -> None:
    stream = io.StringIO()
    screen = open_screen(stream)
    begin(screen, 1)
    error = {"jobid": 1, "rule_name": "predict", "rule_msg": None, "log": ["predict.log"], "indent": False}
    show(screen, LogEvent.JOB_ERROR, "Error in rule predict", logging.ERROR, **error)
    failed = stream.getvalue().splitlines()[-1]
    assert failed.startswith("predict mantis     failed after 0.") and failed.endswith(" s (predict.log)")


def test_a_group_that_fails_is_one_line() -> None:
    stream = io.StringIO()
    screen = open_screen(stream)
    begin(screen, 1, rule="score")
    begin(screen, 2, rule="report")
    jobs = [{"jobid": n, "rule_name": rule, "log": []} for n, rule in ((1, "score"), (2, "report"))]
    show(screen, LogEvent.GROUP_ERROR, "Error in group x", logging.ERROR, job_error_info=jobs)
    for job in jobs:
        show(screen, LogEvent.JOB_ERROR, "", logging.ERROR, **job, rule_msg=None, indent=True)
    assert stream.getvalue().splitlines()[1:] == ["score, report      failed"]


def test_a_bar_and_the_time_left_of_a_long_stage() -> None:
    screen = open_screen(Terminal())
    Path("queued.log").write_text("tune: 77.0 % done, of yesterday\n")
    begin(screen, 1)
    begin(screen, 2, log="queued.log")
    Path("predict.log").write_text("tune: 43.0 % done, step 43 of 100, about 2 min left\n")
    for stage in screen._stages.values():
        stage._next_look = 0.0
    shown = picture(screen)
    screen.finish()
    assert "predict mantis" in shown and "43 %  2 min left" in shown
    assert "0 of 3 stages" in shown and "1 in the queue" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_nothing_is_drawn_while_another_writes_on_the_terminal() -> None:
    screen = open_screen(Terminal())
    begin(screen, 1)
    assert screen._live is not None
    begin(screen, 2, command=SHOWN, log="plan.log")
    assert screen._live is None
    show(screen, LogEvent.JOB_FINISHED, job_id=2)
    assert screen._live is not None
    begin(screen, 3, command="cat x", log="cat.log")
    assert screen._live is None
    screen.close()


@pytest.mark.parametrize(
    ("name", "value", "is_live"), [("TERM", "dumb", False), ("FORCE_COLOR", "1", False), ("TERM", "xterm", True)]
)
def test_a_terminal_is_what_can_be_drawn_on(monkeypatch: pytest.MonkeyPatch, name: str, value: str, is_live: bool) -> None:
    monkeypatch.setenv(name, value)
    stream = io.StringIO() if name == "FORCE_COLOR" else Terminal()
    screen = open_screen(stream)
    begin(screen, 1)
    assert (screen._live is not None) is is_live
    show(screen, None, "careful", logging.WARNING)
    screen.finish()
    assert ("\x1b" in stream.getvalue()) is is_live
