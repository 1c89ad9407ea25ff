"""The programs of workflow/scripts as rules start them: how this workflow's own jobs are told from other people's rules."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medmim.provenance.cache import Cache


@dataclass(frozen=True)
class Run:
    """A run of this workflow: the folder of its results, and the cache it takes outputs from, if any."""

    folder: Path
    cache: Cache | None


class ProgramCommand(str):
    """Shell command that starts a program of workflow/scripts.

    A rule whose command is one is this workflow's own, and its sidecars decide when it runs. Every other rule is Snakemake's.
    """

    run: Run

    def __new__(cls, text: str, run: Run) -> "ProgramCommand":
        """Command `text`, which belongs to a run."""
        command = super().__new__(cls, text)
        command.run = run
        return command

    def __add__(self, more: str) -> "ProgramCommand":
        return ProgramCommand(f"{self!s}{more}", self.run)


def start_program(program: Path, python: str, environment: Mapping[str, object], run: Run) -> ProgramCommand:
    """First part of a rule's shell command; other programs' options follow it.

    No shell stays between the program and SLURM's signals. The environment is the program's alone, not that of other rules.
    """
    variables = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in environment.items())
    options = "--cfg {params.cfg:q} --code {params.code} --log {log} "
    return ProgramCommand(f"{variables} exec {python} {shlex.quote(str(program))} {options}", run)
