"""Notes that jobs leave when they end: seen at once, where SLURM's controller should be asked rarely."""

import shlex
from contextlib import suppress
from pathlib import Path

from medmim.common.slurm_client import SlurmJob


class EndNotes:
    """A folder on the shared file system, with a note of each job that has ended: the status of its command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[str] = set()

    def add_to_script(self, command: str, fingerprint: str) -> str:
        """The script of a job that runs a command and leaves a note; a job that is killed leaves none."""
        note = f"{shlex.quote(str(self.folder / fingerprint))}.$SLURM_JOB_ID"
        return f"#!/bin/sh\n{command}\nstatus=$?\necho $status > {note}.part && mv {note}.part {note}\nexit $status\n"

    def has_new(self) -> bool:
        """Whether a note has come since the last time that this was asked."""
        try:
            names = {path.name for path in self.folder.iterdir()}
        except OSError:
            return False
        new_names = names - self._seen
        self._seen = names
        return bool(new_names)

    def read_status(self, job: SlurmJob, fingerprint: str) -> int | None:
        """Status with which a job ended; None where it has left no note yet."""
        try:
            return int(self._find_note(job, fingerprint).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or not whole
            return None

    def remove(self, job: SlurmJob, fingerprint: str) -> None:
        """Remove a job's note, if there is one."""
        with suppress(OSError):
            self._find_note(job, fingerprint).unlink()

    def _find_note(self, job: SlurmJob, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.{job.id}"
