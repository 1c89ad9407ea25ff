"""How outputs come to their places: whole, each with its sidecar. An output named files.parquet stands for its folder."""

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import UserError
from medmim.provenance import job_record

Described = dict[str, object]
Folders = list[dict[str, str]]


def target(place: Path) -> Path:
    """What is written for an output: the file, or the folder that it stands for."""
    return place.parent if place.name == files.INDEX else place


class Attempt:
    """One attempt at the outputs of a job, written aside and then put in their places.

    Attempts may overlap: a node that was lost computes on, a Snakemake that was killed leaves its jobs behind. The one that
    began last is the one that counts: beginning removes what others have written aside and claims the outputs, and who has
    lost the claim puts nothing in place.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.places = dict(places)
        self.made = {name: files.partial(target(place)) for name, place in places.items()}
        """Where each output is to be written, by option."""
        self._mark = uuid.uuid4().hex
        first = next(iter(self.places.values()), None)
        self._claim = None if first is None else target(first).with_name(f".{target(first).name}.partial-claim")
        for place in self.places.values():
            target(place).parent.mkdir(parents=True, exist_ok=True)
            files.remove_partials(target(place))
        if self._claim:
            self._claim.write_text(self._mark)

    def superseded(self) -> bool:
        """Whether another attempt at the same outputs began after this one."""
        try:
            return self._claim is not None and self._claim.read_text() != self._mark
        except FileNotFoundError:  # it has put them in place already
            return True

    def put(self, record: Callable[[dict[str, Described], Folders], dict[str, Any]]) -> dict[str, Any]:
        """Put what was made in its places and write its sidecars.

        `record` is called with the description of each output and the folders they stand for; returns what it gives.
        Raises UserError where another attempt began meanwhile.
        """
        if self.superseded():
            raise UserError("another run of this job began after this one and makes its outputs: this one leaves nothing")
        written: dict[str, Described] = {}
        folders: Folders = []
        for name, place in self.places.items():
            job_record.sidecar(place).unlink(missing_ok=True)  # it speaks of what is replaced now
            files.put(self.made[name], target(place))
            written[name] = files.described(place)
            if place.name == files.INDEX:
                folders.append({"index": place.as_posix(), "path": place.parent.as_posix(), "tree": files.tree(place.parent)})
        told = record(written, folders)
        for place in self.places.values():
            job_record.write(job_record.sidecar(place), told)
        return told

    def end(self) -> None:
        """Remove what was not put in place, and the claim; an attempt that has lost its claim leaves the other's alone."""
        for made in self.made.values():
            files.remove(made)
        if self._claim and not self.superseded():
            self._claim.unlink(missing_ok=True)
