"""Sidecars: what a job writes beside each output, `<output>.prov.json`, about what made it.

A record holds format_version (RECORD_VERSION), engine_version and python (medmim.provenance.engine_version), program, command
(arguments that matter to the result), cfg, options, key (hash of all an output depends on), inputs {option: [{path, bytes,
sha256}]}, outputs {option: {path, bytes, sha256}}, folders [{index, path, tree, watched}] (those whose files an output lists,
`tree` as `files.tree_digest`; where `watched` names a table, only what that lists counts, by `watched_paths.digest_paths`),
policies {option: {licence, credentialed}} (the data-use policy of each output, medmim.tables.data_policy),
code as `code_digest.code_digest`, git, machine, summary, start, end (UTC, ISO 8601), peak_memory_bytes, what the program adds,
and for outputs taken from the cache `restored` {at, host}: all else then speaks of the job that computed them, only the paths
being those of this run. `seal` is the sha256 of the rest, so that a change of any byte shows.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medmim.common.errors import RecordVersionError, SidecarError
from medmim.common.files import SIDECAR_SUFFIX, write_atomically

Record = dict[str, Any]
RECORD_VERSION = 2
"""Version of a sidecar's format: to be raised with any change of its fields or their meaning."""
RECORD_FIELDS: dict[str, type] = {
    "engine_version": int,
    "python": str,
    "program": str,
    "command": list,
    "cfg": object,
    "options": dict,
    "key": str,
    "inputs": dict,
    "outputs": dict,
    "folders": list,
    "policies": dict,
    "code": dict,
    "git": dict,
    "machine": dict,
    "summary": str,
    "start": str,
    "end": str,
}
"""Fields of every job's record with their types."""
FILE_FIELDS: dict[str, type] = {"path": str, "bytes": int, "sha256": str}
FOLDER_FIELDS: dict[str, type] = {"index": str, "path": str, "tree": str, "watched": str}
CODE_FIELDS: dict[str, type] = {"sha256": str, "modules": dict, "packages": dict}


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


def read_sealed_record(path: Path) -> Record:
    """Read any sealed record.

    Raises FileNotFoundError, SidecarError where any byte is not as `write_record` left it.
    """
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


def read_record(path: Path) -> Record:
    """Read a job's record.

    Raises FileNotFoundError, SidecarError where any byte is not as `write_record` left it, and RecordVersionError where it is of
    another version of the format, or lacks a field.
    """
    record = read_sealed_record(path)
    check_format_version(path, record, RECORD_VERSION)
    check_fields(path, record)
    return record


def check_format_version(path: Path, record: Mapping[str, Any], version: int) -> None:
    """Raise RecordVersionError for a sealed record of another version of its format."""
    recorded_version = record.get("format_version")
    if recorded_version != version:
        written = "before formats had versions" if recorded_version is None else f"in format version {recorded_version}"
        raise RecordVersionError(path, f"was written {written}, and this checkout reads version {version}")


def check_fields(path: Path, record: Any) -> None:
    """Raise RecordVersionError where a job's record lacks a field that all such records have."""
    if missing_fields := _find_missing_fields(record):
        raise RecordVersionError(path, f"lacks {', '.join(missing_fields[:3])}: another version of this workflow wrote it")


def _find_missing_fields(record: Any) -> list[str]:
    """Fields that are absent or of another type, by dotted name; those inside others only where all others are there."""

    def compare_fields(value: Any, fields: Mapping[str, type], prefix: str = "") -> list[str]:
        if not isinstance(value, dict):
            return [prefix.removesuffix(".") or "all its fields"]
        return [f"{prefix}{name}" for name, kind in fields.items() if name not in value or not isinstance(value[name], kind)]

    if missing_fields := compare_fields(record, RECORD_FIELDS):
        return missing_fields
    missing_fields = [f"inputs.{option}" for option, entries in record["inputs"].items() if not isinstance(entries, list)]
    inputs = [(option, entry) for option, entries in record["inputs"].items() if isinstance(entries, list) for entry in entries]
    for option, entry in inputs:
        missing_fields += compare_fields(entry, FILE_FIELDS, f"inputs.{option}.")
    for option, entry in record["outputs"].items():
        missing_fields += compare_fields(entry, FILE_FIELDS, f"outputs.{option}.")
    for folder in record["folders"]:
        missing_fields += compare_fields(folder, FOLDER_FIELDS, "folders.")
    if record["code"]:  # empty for a program that is none of this workflow's
        missing_fields += compare_fields(record["code"], CODE_FIELDS, "code.")
    missing_fields += compare_fields(record["git"], {"commit": str, "clean": bool}, "git.")
    missing_fields += compare_fields(record["machine"], {"host": str}, "machine.")
    if "restored" in record:
        missing_fields += compare_fields(record["restored"], {"at": str, "host": str}, "restored.")
    return missing_fields


def find_sidecars(results: Path) -> Iterator[Path]:
    """All sidecars below a folder, sorted."""
    yield from sorted(results.rglob(f"*{SIDECAR_SUFFIX}"))


def input_files(record: Record) -> list[dict[str, Any]]:
    """Path, bytes and sha256 of every input."""
    return [entry for group in record["inputs"].values() for entry in group]


def output_files(record: Record) -> list[dict[str, Any]]:
    """Path, bytes and sha256 of every output."""
    return list(record["outputs"].values())
