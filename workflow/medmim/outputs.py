"""How outputs come to their places: whole, each with its sidecar. An output named files.parquet stands for its folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medmim import files, provenance

Described = dict[str, object]
Folders = list[dict[str, str]]


def target(place: Path) -> Path:
    """What is written for an output: the file, or the folder that it stands for."""
    return place.parent if place.name == files.INDEX else place


def partial(place: Path) -> Path:
    """Where an output is written until it is whole, with nothing there that a killed job left."""
    whole = target(place)
    whole.parent.mkdir(parents=True, exist_ok=True)
    files.remove_abandoned(whole)
    return files.partial(whole)


def put(
    made: Mapping[str, Path], places: Mapping[str, Path], record: Callable[[dict[str, Described], Folders], dict[str, Any]]
) -> dict[str, Any]:
    """Put what was made, by option, in its places and write its sidecars.

    `record` is called with the description of each output and the folders they stand for; returns what it gives.
    """
    written: dict[str, Described] = {}
    folders: Folders = []
    for name, place in places.items():
        provenance.sidecar(place).unlink(missing_ok=True)  # it speaks of what is replaced now
        files.put(made[name], target(place))
        written[name] = files.described(place)
        if place.name == files.INDEX:
            folders.append({"index": place.as_posix(), "path": place.parent.as_posix(), "tree": files.tree(place.parent)})
    told = record(written, folders)
    for place in places.values():
        provenance.write(provenance.sidecar(place), told)
    return told
