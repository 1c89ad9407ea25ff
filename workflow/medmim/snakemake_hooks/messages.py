"""What Snakemake says of jobs: short commands, quiet questions, and a failed program's own error as the last thing on the screen.

All of it is a filter on Snakemake's logger, before any handler: the same for its own, for --logger plugins and for SLURM.
"""

import atexit
import logging
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from medmim.snakemake_hooks.programs import PROGRAM_PATHS

MAX_INPUTS = 3
"""Inputs of a failed job that are named."""
MAX_ERROR_LINES = 12
"""Lines shown of a program's error."""
FAILED_COMMAND = re.compile(r"Command '(?P<command>.*?)' returned non-zero exit status", re.DOTALL)
ERROR_LINE = re.compile(r"\S+\.py: (error: |failed)")


def shorten_command(command: str) -> str | None:
    """A command that starts a program of ours, in short; None for any other."""
    program = next((path for path in PROGRAM_PATHS if path in command), None)
    if program is None:
        return None
    config = re.search(r"--cfg ('[^']*'|\"[^\"]*\"|\S)+", command.partition(program)[2])
    return f"python {program} {config[0] if config else ''} …"


def read_own_error(log: Path) -> str | None:
    """The error with which a program's log ends, None where it has none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    except OSError:
        return None
    first = next((n for n in range(len(lines) - 1, -1, -1) if ERROR_LINE.match(lines[n])), None)
    if first is None:
        return None
    lines = lines[first:]
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


def _stamp(log: Path) -> tuple[int, int] | None:
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
    """What the executor says of it."""

    def read_own_error(self, earlier_stamps: dict[Path, Any]) -> tuple[Path, str] | None:
        """Log and error of the program that failed; in a group it is the one that has written last."""
        logs = [log for log in self.logs if _stamp(log) not in (None, earlier_stamps.get(log))]
        errors = [(log, error) for log in logs if (error := read_own_error(log))]
        if len(self.jobs) > 1:
            errors.sort(key=lambda pair: _stamp(pair[0]) or (0, 0), reverse=True)
        return errors[0] if errors else None


@dataclass(eq=False)
class JobMessages(logging.Filter):
    """Shortens what Snakemake logs of jobs of a workflow, and remembers which of them failed."""

    workflow: Any
    made_outputs: bool = False
    """Whether a job with outputs was started."""
    failures: list[Failure] = field(default_factory=list)
    """Jobs that failed and were not tried again."""
    _stamps: dict[Path, tuple[int, int] | None] = field(default_factory=dict)
    """Time and size of logs when their jobs were started: what has these is of an earlier attempt."""
    _has_started: bool = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown; it is made short in place."""
        details: Any = record
        match getattr(record, "event", None):
            case LogEvent.JOB_INFO:
                self._note_start(details)
            case LogEvent.JOB_FINISHED:
                self._forget_failures(details.job_id)
            case LogEvent.JOB_ERROR:
                self.failures.append(Failure(frozenset({details.jobid}), _absolute_paths(details.log), details.rule_msg or ""))
                _shorten_job_error(details)
            case LogEvent.GROUP_ERROR:
                jobs = frozenset(job["jobid"] for job in details.job_error_info)
                logs = [path for job in details.job_error_info for path in _absolute_paths(job["log"])]
                self.failures.append(Failure(jobs, logs, getattr(record, "slurm_status", None) or str(record.msg)))
            case LogEvent.ERROR:
                record.msg = FAILED_COMMAND.sub(self._shorten_failed_command, str(record.msg))
        return not self._is_muted(record)

    def _note_start(self, details: Any) -> None:
        self._has_started = True
        self.made_outputs |= bool(details.output)
        self._forget_failures(details.jobid)
        self._stamps |= {path: _stamp(path) for path in _absolute_paths(details.log)}

    def _forget_failures(self, job: int) -> None:
        self.failures = [failure for failure in self.failures if job not in failure.jobs]

    @staticmethod
    def _shorten_failed_command(match: re.Match[str]) -> str:
        command = shorten_command(match["command"])
        return f"Command '{command}' returned non-zero exit status" if command else match[0]

    def _is_question(self) -> bool:
        """Whether the run only asks what is missing: the program's answer is all to be shown, and to exit with 1 is no fault."""
        settings = self.workflow.dag_settings
        return settings is not None and set(settings.targets) == {"plan"} and not self.workflow.output_settings.dryrun

    def _is_muted(self, record: logging.LogRecord) -> bool:
        return self._is_question() and (self._has_started or record.levelno < logging.ERROR)

    def list_errors(self) -> list[str]:
        """For each failure the program's own error, or what the executor says where the program has written none."""
        errors: list[str] = []
        for failure in self.failures:
            if own_error := failure.read_own_error(self._stamps):
                log, error = own_error
                errors.append(f"{os.path.relpath(log)}:\n{error}")
            elif failure.message:
                errors.append(failure.message.splitlines()[0].partition("For further error details")[0])
        return errors

    def print_errors(self) -> None:
        """Print the errors of what failed."""
        if not self._is_question():
            for error in self.list_errors():
                print(f"\n{error}", file=sys.stderr)


def install_messages(workflow: Any) -> JobMessages:
    """Put the filter on Snakemake's logger, and print errors when everything else is said."""
    from snakemake.logging import logger

    messages = JobMessages(workflow)
    logger.addFilter(messages)
    if workflow.is_main_process:
        atexit.register(messages.print_errors)
    return messages
