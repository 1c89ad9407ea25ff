"""What the crate says of records that it can't read; the crate of a whole run is tested in tests/workflow."""

from pathlib import Path

import pytest
from record_made import complete_record

from medmim.common.errors import UserError
from medmim.provenance import job_record, ro_crate


@pytest.mark.parametrize("fields", [{"format_version": 3}, {"outputs": None}], ids=["newer", "without outputs"])
def test_a_record_of_another_version_is_told_in_a_line(tmp_path: Path, fields: dict[str, object]) -> None:
    path = tmp_path / "leaderboard.parquet.prov.json"
    job_record.write_record(path, complete_record(**fields))
    with pytest.raises(UserError, match=r"leaderboard.parquet.prov.json: .*: run snakemake again$") as told:
        ro_crate.write_crate(tmp_path)
    assert "\n" not in str(told.value)
