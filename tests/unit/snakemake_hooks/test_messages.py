import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from medmim.snakemake_hooks import messages
from medmim.snakemake_hooks.messages import JobMessages, read_own_error

PROGRAM = "/some where/workflow/scripts/score.py"
COMMAND = f"X=1 exec python {shlex.quote(PROGRAM)} --cfg r/.config/score.12.json --code 0 --log l {'--qa file.parquet ' * 99}"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[JobMessages]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(messages, "PROGRAM_PATHS", {shlex.quote(PROGRAM)})
    yield JobMessages(SimpleNamespace(dag_settings=SimpleNamespace(targets=()), output_settings=SimpleNamespace(dryrun=False)))


def record(event: LogEvent | None, message: str = "", level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"event": event, "msg": message, "levelno": level, **fields})


def start(said: JobMessages, job: int = 1, log: str = "score.log") -> None:
    assert said.filter(record(LogEvent.JOB_INFO, jobid=job, output=["o"], log=[log]))


def fail(said: JobMessages, job: int = 1, message: str | None = None, command: str | None = COMMAND) -> logging.LogRecord:
    error = record(
        LogEvent.JOB_ERROR, jobid=job, rule_msg=message, log=["score.log", "slurm.log"], output=["o", "p"], rule_name="score",
        input=[f"i{n}" for n in range(9)], shellcmd=command,
    )  # fmt: skip
    assert said.filter(error)
    return error


def test_a_failed_job_is_short(said: JobMessages) -> None:
    error = fail(said)
    lines = error.shellcmd.splitlines()
    assert lines[0] == f"python '{PROGRAM}' --cfg r/.config/score.12.json …"
    assert len(lines) <= 3 and max(map(len, lines)) < 130 and "--forcerun o" in lines[1]
    assert error.input == ["i0", "i1", "i2", "… and 6 more"]


@pytest.mark.parametrize("folder", ["r s", "it's", 'it\'s "odd" $(x)'])
def test_a_short_command_names_the_whole_config_file(said: JobMessages, folder: str) -> None:
    path = shlex.quote(f"{folder}/.config/score.12.json")
    error = fail(said, command=f"exec python {shlex.quote(PROGRAM)} --cfg {path} --code 0 --log l")
    assert error.shellcmd.splitlines()[0] == f"python '{PROGRAM}' --cfg {path} …"


def test_the_command_of_an_exception_is_short(said: JobMessages) -> None:
    for command, short in ((COMMAND, f"python '{PROGRAM}' --cfg r/.config/score.12.json …"), ("cp a\nb", "cp a\nb")):
        error = record(LogEvent.ERROR, f"RuleException:\nCommand '{command}' returned non-zero exit status 1.")
        assert said.filter(error)
        assert error.msg == f"RuleException:\nCommand '{short}' returned non-zero exit status 1."


def test_a_job_that_is_not_ours_is_left_alone(said: JobMessages) -> None:
    error = fail(said, command="cat {input}" * 99)
    assert error.shellcmd == "cat {input}" * 99 and len(error.input) == 9
    assert said.list_errors() == []


def test_the_programs_own_error_is_told(said: JobMessages) -> None:
    start(said)
    Path("score.log").write_text("reading\nscore.py: error: row 3\nhas no reply\n")
    fail(said)
    assert said.list_errors() == ["score.log:\nscore.py: error: row 3\nhas no reply"]


def test_where_a_program_could_say_nothing_all_that_the_executor_says_is_told(said: JobMessages) -> None:
    start(said)
    fail(said, message="SLURM-job '7' failed. The end of 7.log:\n/no/python: not found\nFor further error details see the log")
    assert said.list_errors() == ["SLURM-job '7' failed. The end of 7.log:\n/no/python: not found"]


def test_an_error_of_an_earlier_attempt_is_not_told(said: JobMessages) -> None:
    Path("score.log").write_text("score.py: error: of yesterday\n")
    start(said)
    fail(said, message="SLURM status is: 'TIMEOUT'. For further error details see the log")
    assert said.list_errors() == ["score.log:\nSLURM status is: 'TIMEOUT'."]


def test_a_job_that_ends_well_the_second_time_is_no_failure(said: JobMessages) -> None:
    start(said)
    fail(said, message="once")
    start(said)
    said.filter(record(LogEvent.JOB_FINISHED, job_id=1))
    assert said.list_errors() == []


def test_of_a_group_the_last_error_is_told(said: JobMessages) -> None:
    for job, name in enumerate("ab"):
        start(said, job, f"{name}.log")
        Path(f"{name}.log").write_text(
            f"{name}.py: made\n" if name == "a" else "b.py: failed\nTraceback\n  File x\nValueError: no\n\n"
        )
    jobs = [{"jobid": job, "log": [f"{name}.log"]} for job, name in enumerate("ab")]
    said.filter(record(LogEvent.GROUP_ERROR, "Error in group x", job_error_info=jobs, groupid="x"))
    assert said.list_errors() == ["b.log:\nb.py: failed: ValueError: no (a fault of this program: the traceback is in its log)"]


def test_a_long_error_keeps_its_first_and_last_lines(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("score.py: error: much\n" + "".join(f"line {n}\n" for n in range(50)))
    lines = str(read_own_error(tmp_path / "l")).splitlines()
    assert len(lines) == messages.MAX_ERROR_LINES and lines[:2] == ["score.py: error: much", "…"] and lines[-1] == "line 49"


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("died with <Signals.SIGKILL: 9>.", "score was killed by SIGKILL"),
        ("returned non-zero exit status 3.", "score returned non-zero exit status 3"),
    ],
)
def test_a_program_that_says_nothing_is_told_by_how_it_ended(said: JobMessages, ending: str, told: str) -> None:
    start(said)
    Path("score.log").write_text("reading\n")
    assert said.filter(record(LogEvent.ERROR, f"CalledProcessError in file x:\nCommand 'set -e; {COMMAND}' {ending}"))
    fail(said)
    assert said.list_errors() == [f"score.log:\n{told}"]


def test_a_plan_is_all_that_is_shown(said: JobMessages) -> None:
    said.workflow.dag_settings.targets = ["plan"]
    assert not said.filter(record(None, "Building DAG of jobs..."))
    assert said.filter(record(LogEvent.ERROR, "LockException", logging.ERROR)), "what stops it before it begins is"
    said.filter(record(LogEvent.JOB_INFO, jobid=0, output=[], log=["plan.log"]))
    error = record(
        LogEvent.JOB_ERROR,
        level=logging.ERROR,
        jobid=0,
        rule_msg="no",
        log=[],
        output=[],
        input=[],
        shellcmd=None,
        rule_name="plan",
    )
    assert not said.filter(error) and not said.made_outputs
    assert said.list_errors() == []
    said.workflow.output_settings.dryrun = True
    assert said.filter(record(None, "Building DAG of jobs..."))
