"""The programs of workflow/scripts as rules start them: how this workflow's own jobs are told from other people's rules."""

import json
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmim.provenance.cache import Cache
from medmim.provenance.config_file import config_digest, config_path

PROGRAM_PATHS: set[str] = set()
"""Programs that rules have asked for in this process, as their commands name them."""
CONFIGS: dict[str, Any] = {}
"""Parts of the config that rules have asked for in this process, by digest."""


def register_config(cfg: Any) -> str:
    """Remember a part of the config; its digest, which stands for it in a rule's params."""
    digest = config_digest(cfg)
    CONFIGS[digest] = json.loads(json.dumps(cfg))  # as a record will have it
    return digest


@dataclass(frozen=True)
class Run:
    """A run of this workflow: the folder of its results, and the cache it takes outputs from, if any."""

    folder: Path
    cache: Cache | None


RUNS: list[Run] = []
"""Runs that the workflow of this process consists of: one, unless it is used as a module more than once."""


def register_run(folder: Path, cache: Cache | None) -> Run:
    """Remember a run, whose programs rules are about to start."""
    run = Run(folder, cache)
    RUNS.append(run)
    return run


class ProgramCommand(str):
    """Shell command that starts a program of workflow/scripts.

    A rule whose command is one is this workflow's own, and its sidecars decide when it runs. Every other rule is Snakemake's.
    Each of its fields is quoted, whether a rule says so or not: the shell reads nothing into a value. Of a list each item is a
    word.
    """

    program: str
    """Its file name."""
    run: Run

    def __new__(cls, text: str, program: str, run: Run) -> "ProgramCommand":
        """Command `text`, which starts a program for a run."""
        command = super().__new__(cls, quote_fields(text))
        command.program, command.run = program, run
        return command

    def __add__(self, more: str) -> "ProgramCommand":
        return ProgramCommand(f"{self!s}{more}", self.program, self.run)

    def config_path(self, digest: str) -> Path:
        """Place of the part of the config that the program is given."""
        return config_path(self.run.folder, self.program, digest)


def quote_fields(command: str) -> str:
    """A command in which Snakemake quotes the value of each field, as of {input}: with q as its format, {input:q}."""
    parts = string.Formatter().parse(command)
    return "".join(_escape_braces(text) + (f"{{{field}:q}}" if field is not None else "") for text, field, *_ in parts)


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def quote_word(word: object) -> str:
    """A word of a command as it stands: neither the shell nor Snakemake reads anything into it."""
    return _escape_braces(shlex.quote(str(word)))


def start_program(
    program: Path, python: str, environment: Mapping[str, object], run: Run, is_shown: bool = False
) -> ProgramCommand:
    """First part of a rule's shell command; other programs' options follow it.

    What it says goes into its log, of which Snakemake's screen shows what is worth it, unless `is_shown`: then to the terminal.

    No shell stays between the program and SLURM's signals. The environment is the program's alone, not that of other rules.

    Args:
        python: what starts an interpreter, as a command has it: a quoted word, or a field such as {params.launcher}
    """
    PROGRAM_PATHS.add(shlex.quote(str(program)))
    variables = " ".join(f"{name}={quote_word(value)}" for name, value in environment.items())
    config = quote_word(config_path(run.folder, program.name, "DIGEST")).replace("DIGEST", "{params.cfg}")
    options = f"--cfg {config} --code {{params.code}} --log {{log}} "
    redirection = "" if is_shown else "2>>{log} "
    return ProgramCommand(f"{redirection}{variables} exec {python} {quote_word(program)} {options}", program.name, run)
