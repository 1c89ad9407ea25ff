"""What a SLURM job that starts again leaves alone. On the cluster: tests/slurm/test_groups_slurm.py."""

from pathlib import Path
from typing import Any

import pytest
from record_made import complete_record

from medmim.common import files
from medmim.provenance import job_record
from medmim.provenance.staleness import PlannedJob
from medmim.snakemake_hooks.restarts import (
    EARLIER_JOBS_VARIABLE,
    find_finished_jobs,
    list_earlier_slurm_jobs,
    read_common_record,
)


def finish_job(folder: Path, name: str, slurm_id: str | None, **fields: Any) -> PlannedJob:
    """A job whose two outputs are there as a SLURM job has made them."""
    outputs = [folder / f"{name}.{number}" for number in range(2)]
    for output in outputs:
        output.write_text(name)
    code: Any = {"sha256": "0", "modules": {}, "packages": {}}
    record = complete_record(
        outputs={output.suffix: files.file_record(output) for output in outputs}, code=code,
        machine={"host": "c1", "slurm": {"SLURM_JOB_ID": slurm_id} if slurm_id else {}}, **fields,
    )  # fmt: skip
    for output in outputs:
        job_record.write_record(job_record.sidecar_path(output), record)
    return PlannedJob(name, "x.py", [], {}, code, [], outputs)


def test_jobs_are_finished_that_an_earlier_start_has_made_and_that_are_fresh(tmp_path: Path) -> None:
    own, attempt = finish_job(tmp_path, "own", "7"), finish_job(tmp_path, "attempt", "5")
    older, outside = finish_job(tmp_path, "older", "4"), finish_job(tmp_path, "outside", None)
    stale = finish_job(tmp_path, "stale", "7", cfg={"seed": 1})
    cached = finish_job(tmp_path, "cached", "7", restored={"at": "2026-01-01T00:00:00.000+00:00", "host": "c2"})
    altered, partial = finish_job(tmp_path, "altered", "7"), finish_job(tmp_path, "partial", "7")
    altered.outputs[0].write_text("other")
    partial.outputs[1].unlink()
    jobs = [own, attempt, older, outside, stale, cached, altered, partial]
    assert find_finished_jobs(jobs, tmp_path, {"5", "7"}) == [own, attempt]


def test_only_outputs_that_are_all_there_with_their_record_have_one(tmp_path: Path) -> None:
    outputs = finish_job(tmp_path, "job", "7").outputs
    record = read_common_record(outputs)
    assert record is not None and record["machine"]["slurm"] == {"SLURM_JOB_ID": "7"}
    sidecar = job_record.sidecar_path(outputs[1])
    other = finish_job(tmp_path, "other", "8").outputs
    assert read_common_record([outputs[0], other[0]]) is None, "of two jobs"
    sidecar.write_text("{}")
    assert read_common_record(outputs) is None
    sidecar.unlink()
    assert read_common_record(outputs) is None and read_common_record([]) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, set()),
        ({"SLURM_JOB_ID": "7"}, set()),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}, set()),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, {"7"}),
        ({"SLURM_JOB_ID": "7", EARLIER_JOBS_VARIABLE: ""}, set()),
        ({"SLURM_JOB_ID": "7", EARLIER_JOBS_VARIABLE: "4 5"}, {"4", "5"}),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1", EARLIER_JOBS_VARIABLE: "5"}, {"5", "7"}),
    ],
)
def test_earlier_starts_are_told_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: set[str]
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", EARLIER_JOBS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert list_earlier_slurm_jobs() == expected
