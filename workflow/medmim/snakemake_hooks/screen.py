"""What a run shows: a line for each stage that stays, and on a terminal, below them, what runs and how far it is.

All is read from the logs of jobs, so that it is the same for jobs of this machine and of a cluster. What Snakemake itself
says of them is in .snakemake/log.
"""

import atexit
import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from medmim.common.formatting import format_duration, format_percent
from medmim.common.program_log import read_result
from medmim.common.progress import Progress, read_progress
from medmim.snakemake_hooks.messages import FAILED_COMMAND, JobMessages, describe_job, find_program, stamp_file

NAME_WIDTH = 18
"""Columns that the name of a stage takes in its line, as programs write it."""
MAX_RUNNING = 8
"""Stages shown that run."""
REFRESHES_PER_SECOND = 4
READ_INTERVAL_SECONDS = 1.0
"""Seconds between two looks into a log."""
BAR_WIDTH = 20
NOISE = re.compile(
    r"Building DAG of jobs|Using shell: |Provided |Rules claiming more threads|Conda environments: ignored|Group jobs: inactive"
    r"|Singularity containers: ignored|Select jobs to execute|Execute \d+ jobs|Assuming unrestricted shared filesystem"
    r"|Elapsed time: |Complete log|Shutting down, this might|\d+ jobs have (missing|outdated) provenance|Removing output files of"
    r"|Exiting because a job execution failed|At least one job did not complete|WorkflowError:\nAt least one job did not"
    r"|--keep-incomplete mode is set|SLURM run ID: |Job \d+ has been submitted|No wall time information|Trying to restart job"
    r"|Workflow has started"
)
"""Words of Snakemake's that say nothing of this run, or what the screen says itself."""
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


@dataclass
class Stage:
    """A job that has begun, or waits in a cluster's queue."""

    name: str
    program: str | None
    """Stem of the program of ours that it starts."""
    log: Path | None
    is_logged: bool
    """Whether all that it says goes into its log; another's words are on the terminal."""
    start: float = field(default_factory=time.monotonic)
    progress: Progress | None = None
    has_begun: bool = False
    """Whether it has written into its log; one without a log has."""
    _next_look: float = 0.0

    def __post_init__(self) -> None:
        self._earlier_log = self.log and stamp_file(self.log)

    def look_at_log(self) -> None:
        """See how far it is, now and then."""
        if self.log is None:
            self.has_begun = True
        elif time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + READ_INTERVAL_SECONDS
            self.has_begun = self.has_begun or stamp_file(self.log) not in (None, self._earlier_log)
            self.progress = read_progress(self.log) if self.has_begun else None

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.start


def _is_own_failure(text: str) -> bool:
    """Whether an error is just that a program of ours failed, which has said why itself."""
    match = FAILED_COMMAND.search(text)
    return match is not None and find_program(match["command"]) is not None


def _count_stages(workflow: Any) -> int:
    return sum(not job.rule.norun for job in workflow.dag.needrun_jobs())


class Screen(logging.Handler):
    """Shows a run of a workflow on a stream."""

    def __init__(self, workflow: Any, stream: TextIO) -> None:
        super().__init__()
        self.workflow = workflow
        self.is_terminal = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        has_colours = self.is_terminal and not os.environ.get("NO_COLOR") and not workflow.output_settings.nocolor
        self.console = Console(
            file=stream,
            force_terminal=self.is_terminal,
            color_system="auto" if has_colours else None,
            highlight=False,
            markup=False,
        )
        self._stages: dict[int, Stage] = {}
        self._done = self._total = 0
        self._start = time.monotonic()
        self._has_failed = False
        self._live: Live | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show what a record says."""
        try:
            self._show(record)
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Take away all that does not stay."""
        self.finish()
        super().close()

    def finish(self) -> None:
        """Leave the terminal to others."""
        self._stages.clear()
        self._update_live()

    def _show(self, record: logging.LogRecord) -> None:
        details: Any = record
        match getattr(record, "event", None):
            case LogEvent.RUN_INFO:
                self._total = _count_stages(self.workflow)
                self.say(f"{self._total} stage{'s' * (self._total != 1)} to run")
            case LogEvent.JOB_INFO if details.output or details.shellcmd:
                self._begin_stage(details)
            case LogEvent.JOB_FINISHED if stage := self._stages.pop(details.job_id, None):
                self._done += 1
                self._say_result(stage)
            case LogEvent.JOB_ERROR if not details.indent:
                self._say_failure(details.rule_name, [details])
            case LogEvent.GROUP_ERROR:
                rules = dict.fromkeys(job["rule_name"] for job in details.job_error_info)
                self._say_failure(", ".join(rules), [])
                for job in details.job_error_info:
                    self._stages.pop(job["jobid"], None)
            case LogEvent.ERROR if not _is_own_failure(text := str(record.msg)) and not NOISE.match(text):
                self.say(text, "red")
            case None if not NOISE.match(text := record.getMessage()):
                self.say(text, STYLES.get(record.levelno, ""))
            case None if self._has_failed and record.getMessage().startswith("Complete log"):
                self.say(f"Snakemake's log: {os.path.relpath(record.getMessage().partition(': ')[2])}")
        self._update_live()

    def _begin_stage(self, details: Any) -> None:
        program = find_program(details.shellcmd or "")
        log = Path(details.log[0]).absolute() if details.log else None
        is_logged = program is not None and details.shellcmd.startswith("2>>")
        self._stages[details.jobid] = Stage(describe_job(details), program and Path(program).stem, log, is_logged)

    def _say_result(self, stage: Stage) -> None:
        summary = None
        if stage.program and stage.log:
            warnings, summary = read_result(stage.log, stage.program)
            for warning in warnings if stage.is_logged else ():
                self.say(f"{stage.name}: {warning} ({os.path.relpath(stage.log)})", "yellow")
        if stage.is_logged or stage.program is None:  # others have said so themselves
            self.say(summary or f"{stage.name:<{NAME_WIDTH}} done ({stage.elapsed:.1f} s)")

    def _say_failure(self, name: str, jobs: Iterable[Any]) -> None:
        self._has_failed = True
        message, logs = "", []
        for details in jobs:
            if stage := self._stages.pop(details.jobid, None):
                name, message = stage.name, f" after {format_duration(stage.elapsed)}"
            if details.rule_msg:
                message += f": {details.rule_msg.partition('For further error details')[0].strip().splitlines()[0]}"
            logs = [os.path.relpath(log) for log in details.log[:1]]
        self.say(f"{name:<{NAME_WIDTH}} failed{message}" + "".join(f" ({log})" for log in logs), "red")

    def say(self, text: str, style: str = "") -> None:
        """Print lines that stay."""
        for line in text.rstrip("\n").split("\n"):
            if self.is_terminal and line:
                line = textwrap.fill(line, self.console.width, subsequent_indent=" " * (NAME_WIDTH + 1), break_on_hyphens=False)
            self.console.print(Text(line, style=style), soft_wrap=not self.is_terminal)

    def say_errors(self, messages: JobMessages) -> None:
        """Print the errors of what failed, when all else is said."""
        self.finish()  # however Snakemake has ended
        for error in messages.list_errors():
            self.say(f"\n{error}", "red")

    def _update_live(self) -> None:
        """Show what runs, unless another writes on this terminal."""
        is_wanted = self.is_terminal and bool(self._stages) and all(stage.is_logged for stage in self._stages.values())
        if is_wanted and self._live is None:  # a new one each time: one that is started again would erase the lines above it
            self._live = Live(
                console=self.console, get_renderable=self._render, refresh_per_second=REFRESHES_PER_SECOND, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start(refresh=True)
        elif self._live is not None and not is_wanted:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        stages = list(self._stages.values())
        for stage in stages:
            stage.look_at_log()
        running = [stage for stage in stages if stage.has_begun]
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=28)
        grid.add_column(width=BAR_WIDTH)
        grid.add_column(no_wrap=True)
        for stage in running[:MAX_RUNNING]:
            if stage.progress:
                left = f"  {stage.progress.time_left} left" if stage.progress.time_left else ""
                grid.add_row(stage.name, _build_bar(stage.progress.share), f"{format_percent(stage.progress.share, 0)}{left}")
            else:
                grid.add_row(stage.name, "", format_duration(stage.elapsed))
        total = max(self._total, self._done + len(stages), 1)
        notes = [f"{len(running) - MAX_RUNNING} more run"] if len(running) > MAX_RUNNING else []
        notes += [f"{len(stages) - len(running)} in the queue"] if len(running) < len(stages) else []
        text = ", ".join([format_duration(time.monotonic() - self._start), *notes])
        grid.add_row(f"{self._done} of {total} stages", _build_bar(self._done / total), text, style="bold")
        return Group(Text(""), grid)


def _build_bar(share: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share, width=BAR_WIDTH)


def hide_noise(record: logging.LogRecord) -> bool:
    """Whether a record of a dry run is to be shown: Snakemake's banner is not, nor what it says of records that are not ours."""
    return getattr(record, "event", None) is not LogEvent.WORKFLOW_STARTED and not NOISE.match(str(record.msg))


def install_screen(workflow: Any, messages: JobMessages) -> Screen:
    """Show runs of a workflow on a screen of ours, and errors when everything else is said.

    Dry runs, and runs for which an option asks for more, for less or for another logger, look as Snakemake shows them.
    """
    from snakemake.logging import logger

    settings = workflow.output_settings
    screen = Screen(workflow, sys.stderr or Path(os.devnull).open("w"))  # noqa: SIM115  open until the end
    if not workflow.is_main_process:
        return screen
    atexit.register(screen.say_errors, messages)
    default = next((handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"), None)
    if default is not None and settings.dryrun:
        default.addFilter(hide_noise)
    elif default is not None and not (settings.quiet or settings.verbose or settings.printshellcmds or settings.debug_dag):
        logger.removeHandler(default)
        logger.addHandler(screen)
    return screen
