"""How outputs come to their places: whole, each with its sidecar. An output named files.parquet stands for its folder."""

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import UserError
from medmim.provenance import job_record

FileRecord = dict[str, object]
FolderRecords = list[dict[str, str]]


def target_path(path: Path) -> Path:
    """What is written for an output: the file, or the folder that it stands for."""
    return path.parent if path.name == files.INDEX_NAME else path


class Attempt:
    """One attempt at the outputs of a job, written aside and then put in their places.

    Attempts may overlap: a node that was lost computes on, a Snakemake that was killed leaves its jobs behind. The one that
    began last is the one that counts: beginning removes what others have written aside and claims the outputs, and who has
    lost the claim puts nothing in place.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.output_paths = dict(places)
        self.temporary_paths = {name: files.temporary_path(target_path(place)) for name, place in places.items()}
        """Where each output is to be written, by option."""
        self._claim_id = uuid.uuid4().hex
        first = next(iter(self.output_paths.values()), None)
        self._claim_path = None if first is None else target_path(first).with_name(f".{target_path(first).name}.partial-claim")
        for place in self.output_paths.values():
            target_path(place).parent.mkdir(parents=True, exist_ok=True)
            files.remove_temporaries(target_path(place))
        if self._claim_path:
            self._claim_path.write_text(self._claim_id, encoding="utf-8")

    def is_superseded(self) -> bool:
        """Whether another attempt at the same outputs began after this one."""
        try:
            return self._claim_path is not None and self._claim_path.read_text(encoding="utf-8") != self._claim_id
        except FileNotFoundError:  # it has put them in place already
            return True

    def publish(self, build_record: Callable[[dict[str, FileRecord], FolderRecords], dict[str, Any]]) -> dict[str, Any]:
        """Put what was made in its places and write its sidecars.

        `record` is called with the description of each output and the folders they stand for; returns what it gives.
        Raises UserError where another attempt began meanwhile.
        """
        if self.is_superseded():
            raise UserError("another run of this job began after this one and makes its outputs: this one leaves nothing")
        output_records: dict[str, FileRecord] = {}
        folders: FolderRecords = []
        for name, place in self.output_paths.items():
            job_record.sidecar_path(place).unlink(missing_ok=True)  # it speaks of what is replaced now
            files.replace_path(self.temporary_paths[name], target_path(place))
            output_records[name] = files.file_record(place)
            if place.name == files.INDEX_NAME:
                tree = files.tree_digest(place.parent)
                folders.append({"index": place.as_posix(), "path": place.parent.as_posix(), "tree": tree, "watched": ""})
        record = build_record(output_records, folders)
        for place in self.output_paths.values():
            job_record.write_record(job_record.sidecar_path(place), record)
        return record

    def clean_up(self) -> None:
        """Remove what was not put in place, and the claim; an attempt that has lost its claim leaves the other's alone."""
        for temporary_path in self.temporary_paths.values():
            files.remove_path(temporary_path)
        if self._claim_path and not self.is_superseded():
            self._claim_path.unlink(missing_ok=True)
