"""Sidecars: what a job writes beside each output, `<output>.prov.json`, about what made it.

A record holds program, command (arguments that matter to the result), cfg, options, key (hash of all an output depends
on), inputs {option: [{path, bytes, sha256}]}, outputs {option: {path, bytes, sha256}}, folders [{index, path, tree}]
(those whose files an output lists, `tree` as `files.tree`), rules of use {licence, credentialed} (medmim.tables.data_policy),
code as
`digest.code`, git, machine, summary, start, end (UTC, ISO 8601), peak_memory_bytes, what the program adds, and for outputs
taken from the cache `restored` {at, host}: all else then speaks of the job that computed them, only the paths being those of
this run. `seal` is the sha256 of the rest, so that a change of any byte shows.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmim.common.errors import SidecarError
from medmim.common.files import SIDECAR_SUFFIX, write_atomically

Record = dict[str, Any]


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of a file lies."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def subject_path(path: Path) -> Path:
    """The file that a sidecar speaks of."""
    return path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))


def _to_json(record: Record) -> str:
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_record(path: Path, record: Record) -> None:
    """Seal a record and write it, whole or not at all."""
    bare = {k: v for k, v in record.items() if k != "seal"}
    with write_atomically(path) as temporary:
        temporary.write_text(_to_json(bare | {"seal": hashlib.sha256(_to_json(bare).encode()).hexdigest()}), encoding="utf-8")


def read_record(path: Path) -> Record:
    """A sealed record. Raises FileNotFoundError, SidecarError where any byte is not as `write` left it."""
    data = path.read_bytes()
    try:
        record = json.loads(data)
        bare = {k: v for k, v in record.items() if k != "seal"}
        is_intact = hashlib.sha256(_to_json(bare).encode()).hexdigest() == record["seal"] and _to_json(record).encode() == data
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise SidecarError(f"{path}: not a sealed record: {type(error).__name__}: {error}") from error
    if not is_intact:
        raise SidecarError(f"{path}: is not as it was written: its seal does not fit")
    return dict(record)


def find_sidecars(results: Path) -> Iterator[Path]:
    """All sidecars below a folder, sorted."""
    yield from sorted(results.rglob(f"*{SIDECAR_SUFFIX}"))


def input_files(record: Record) -> list[dict[str, Any]]:
    """Path, bytes and sha256 of every input."""
    return [entry for group in record["inputs"].values() for entry in group]


def output_files(record: Record) -> list[dict[str, Any]]:
    """Path, bytes and sha256 of every output."""
    return list(record["outputs"].values())
