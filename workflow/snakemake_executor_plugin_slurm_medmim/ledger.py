"""What this user submitted, in a file: found again where a site replaces comments, or somebody renames a job."""

import json
from pathlib import Path

from medmim.common.slurm_client import SlurmJob


class JobLedger:
    """The jobs of a run that were submitted, and what each would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add_job(self, job: SlurmJob, fingerprint: str) -> None:
        """Note a job. A line that is lost is no loss: it only saves a second run of a job."""
        line = json.dumps({"id": job.id, "cluster": job.cluster, "fingerprint": fingerprint})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def read_fingerprints(self) -> dict[SlurmJob, str]:
        """What each job would do, as far as the file can be read."""
        fingerprints: dict[SlurmJob, str] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        for line in lines:
            try:
                record = json.loads(line)
                fingerprints[SlurmJob(str(record["id"]), str(record["cluster"]))] = str(record["fingerprint"])
            except (ValueError, KeyError, TypeError):  # half a line, of a Snakemake that was killed
                continue
        return fingerprints
