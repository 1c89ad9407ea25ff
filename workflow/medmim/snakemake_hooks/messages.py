"""What Snakemake says of jobs: short commands, quiet questions, and a failed program's own error as the last thing on the screen.

All of it is a filter on Snakemake's logger, before any handler: the same for its own, for --logger plugins and for SLURM.
"""

import atexit
import logging
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from medmim.snakemake_hooks.programs import PROGRAM_PATHS

MAX_INPUTS = 3
"""Inputs of a failed job that are named."""
MAX_ERROR_LINES = 12
"""Lines shown of a program's error."""
FAILED_COMMAND = re.compile(
    r"Command '(?P<command>.*?)' (?P<ending>returned non-zero exit status \d+|died with <Signals\.(?P<signal>\w+): \d+>)",
    re.DOTALL,
)
ERROR_LINE = re.compile(r"(?P<program>\S+\.py): (error: |(?P<bug>failed))")
EXCEPTION_LINE = re.compile(r"[\w.]+(: .*|)")
"""Last line of a traceback, where the message is one line."""


def find_program(command: str) -> str | None:
    """Path of the program of ours that a command starts; None where it starts none."""
    return next((path for path in PROGRAM_PATHS if path in command), None)


def describe_job(details: Any) -> str:
    """Name of a job in a record of Snakemake's, for people: its rule and wildcards."""
    return " ".join([details.rule_name, *details.wildcards.values()])


def shorten_command(command: str) -> str | None:
    """A command that starts a program of ours, in short; None for any other."""
    program = find_program(command)
    if program is None:
        return None
    config = re.search(r"--cfg ('[^']*'|\"[^\"]*\"|\S)+", command.partition(program)[2])
    return f"python {program} {config[0] if config else ''} …"


def read_own_error(log: Path) -> str | None:
    """The error with which a program's log ends, None where it has none. Of a bug only the last line of its traceback."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    except OSError:
        return None
    first = next((n for n in range(len(lines) - 1, -1, -1) if ERROR_LINE.match(lines[n])), None)
    if first is None:
        return None
    lines = lines[first:]
    if (match := ERROR_LINE.match(lines[0])) and match["bug"]:
        last = next((line for line in reversed(lines) if EXCEPTION_LINE.fullmatch(line)), lines[-1])
        return f"{match['program']}: failed: {last} (a fault of this program: the traceback is in its log)"
    if len(lines) > MAX_ERROR_LINES:
        lines[1 : len(lines) - MAX_ERROR_LINES + 2] = ["…"]
    return "\n".join(lines)


def _shorten_job_error(details: Any) -> None:
    """Shorten command and inputs of a failed job of ours, in a record of Snakemake's."""
    if command := shorten_command(details.shellcmd or ""):
        details.shellcmd = command
        if details.output:
            first = shlex.quote(str(details.output[0]))
            details.shellcmd += f"\n        # the whole command: snakemake -n --printshellcmds --forcerun {first}"
        if len(details.input) > MAX_INPUTS:
            details.input = [*details.input[:MAX_INPUTS], f"… and {len(details.input) - MAX_INPUTS} more"]


def _absolute_paths(logs: list[str]) -> list[Path]:
    """Paths that hold when Snakemake has left its working directory."""
    return [Path(log).absolute() for log in logs]


def stamp_file(log: Path) -> tuple[int, int] | None:
    """Time and size of a file, by which it is told whether it was written to; None where it is not there."""
    try:
        stat = log.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


@dataclass
class Failure:
    """A failed job, or group of jobs."""

    jobs: frozenset[int]
    logs: list[Path]
    message: str
    """What the executor says of it, or how its command ended."""

    def read_own_error(self, earlier_stamps: dict[Path, Any]) -> tuple[Path, str] | None:
        """Log and error of the program that failed; in a group it is the one that has written last."""
        logs = [log for log in self.logs if stamp_file(log) not in (None, earlier_stamps.get(log))]
        errors = [(log, error) for log in logs if (error := read_own_error(log))]
        if len(self.jobs) > 1:
            errors.sort(key=lambda pair: stamp_file(pair[0]) or (0, 0), reverse=True)
        return errors[0] if errors else None


@dataclass(eq=False)
class JobMessages(logging.Filter):
    """Shortens what Snakemake logs of jobs of a workflow, and remembers which of them failed."""

    workflow: Any
    tell_result: Callable[[], None] = lambda: None
    """Called when all is said of a run in which there was nothing to do."""
    made_outputs: bool = False
    """Whether a job with outputs was started."""
    failures: list[Failure] = field(default_factory=list)
    """Jobs that failed and were not tried again."""
    _stamps: dict[Path, tuple[int, int] | None] = field(default_factory=dict)
    """Time and size of logs when their jobs were started: what has these is of an earlier attempt."""
    _has_started: bool = False
    _endings: dict[str, str] = field(default_factory=dict)
    """How commands of ours ended that failed, in short."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown; it is made short in place."""
        details: Any = record
        match getattr(record, "event", None):
            case LogEvent.JOB_INFO:
                self._note_start(details)
            case LogEvent.JOB_FINISHED:
                self._forget_failures(details.job_id)
            case LogEvent.JOB_ERROR:
                ending = self._endings.pop(shorten_command(details.shellcmd or "") or "", "")
                message = details.rule_msg or (f"{details.rule_name} {ending}" if ending else "")
                self.failures.append(Failure(frozenset({details.jobid}), _absolute_paths(details.log), message))
                _shorten_job_error(details)
            case LogEvent.GROUP_ERROR:
                jobs = frozenset(job["jobid"] for job in details.job_error_info)
                logs = [path for job in details.job_error_info for path in _absolute_paths(job["log"])]
                self.failures.append(Failure(jobs, logs, getattr(record, "slurm_status", None) or str(record.msg)))
            case LogEvent.ERROR:
                record.msg = FAILED_COMMAND.sub(self._shorten_failed_command, str(record.msg))
            case None if str(record.msg).startswith("Nothing to be done") and not self.workflow.output_settings.dryrun:
                atexit.register(self.tell_result)
        return not self._is_muted(record)

    def _note_start(self, details: Any) -> None:
        self._has_started = True
        self.made_outputs |= bool(details.output)
        self._forget_failures(details.jobid)
        self._stamps |= {path: stamp_file(path) for path in _absolute_paths(details.log)}

    def _forget_failures(self, job: int) -> None:
        self.failures = [failure for failure in self.failures if job not in failure.jobs]

    def _shorten_failed_command(self, match: re.Match[str]) -> str:
        command = shorten_command(match["command"])
        if command is None:
            return match[0]
        self._endings[command] = f"was killed by {match['signal']}" if match["signal"] else match["ending"]
        return f"Command '{command}' {match['ending']}"

    def _is_question(self) -> bool:
        """Whether the run only asks what is missing: the program's answer is all to be shown, and to exit with 1 is no fault."""
        settings = self.workflow.dag_settings
        return settings is not None and set(settings.targets) == {"plan"} and not self.workflow.output_settings.dryrun

    def _is_muted(self, record: logging.LogRecord) -> bool:
        return self._is_question() and (self._has_started or record.levelno < logging.ERROR)

    def list_errors(self) -> list[str]:
        """For each failure the program's own error, or what the executor says where the program has written none."""
        if self._is_question():  # its program has said it
            return []
        errors: list[str] = []
        for failure in self.failures:
            if own_error := failure.read_own_error(self._stamps):
                log, error = own_error
                errors.append(f"{os.path.relpath(log)}:\n{error}")
            elif failure.message:
                logs = "".join(f"{os.path.relpath(log)}:\n" for log in failure.logs[:1] if log.exists())
                errors.append(logs + failure.message.partition("For further error details")[0].rstrip())
        return errors


def install_messages(workflow: Any) -> JobMessages:
    """Put the filter on Snakemake's logger."""
    from snakemake.logging import logger

    messages = JobMessages(workflow)
    logger.addFilter(messages)
    return messages
