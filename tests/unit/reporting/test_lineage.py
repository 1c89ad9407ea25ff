"""What `trace` says of records that it can't read; the trace of a whole run is tested in tests/workflow."""

import subprocess
import sys
from pathlib import Path

import pytest
from record_made import complete_record

from medmim.provenance import job_record
from medmim.provenance.code_digest import WORKFLOW
from medmim.tables import table_io


@pytest.mark.parametrize("fields", [{"format_version": 3}, {"outputs": None}], ids=["newer", "without outputs"])
def test_a_record_of_another_version_is_told_in_a_line(tmp_path: Path, fields: dict[str, object]) -> None:
    board = tmp_path / "leaderboard.parquet"
    table_io.write_table(board, "leaderboard", [])
    job_record.write_record(job_record.sidecar_path(board), complete_record(**fields))
    command = [sys.executable, WORKFLOW / "scripts/trace.py", "--results", tmp_path, "--cell", "m", "odir", "accuracy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"trace.py: error: {board}.prov.json: ") and done.stderr.endswith(": run snakemake again\n")
    assert done.stderr.count("\n") == 1
