"""What has to run: jobs whose outputs are not what their program would make now, by content and nothing else.

Snakemake decides by times and by what it remembers in .snakemake; here the sidecars of a run decide. A job is fresh when each
of its outputs is there as recorded, and engine version, Python, command, config part, code digest and the content of every
input are those recorded. Times, checkouts, machines and a lost .snakemake change nothing.
"""

import json
import logging
import shlex
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmim.common import files, watched_paths
from medmim.common.errors import RecordVersionError, SidecarError, UserError
from medmim.provenance import code_digest, engine_version, job_record
from medmim.provenance.cache import Cache, job_key, match_inputs, parse_options, result_arguments

log = logging.getLogger("medmim")
STAMPS_NAME = ".stamps.json"
STAMPS_VERSION = 2
"""Version of the format of that file: to be raised with any change of it. Another version is not read, as it only saves time."""
NOT_MADE_YET = "not made yet"
ABSENT = object()
SETTLE_SECONDS = 2.0
"""Seconds after which the time of a file's last change tells it from the next on any file system."""


class HashCache:
    """sha256 of files, remembered in `store` for those whose size, times and inode have not changed since.

    The time of an inode's last change tells of a write after which the other time was set back. Links change it too, as those
    to the cache do: such a file is hashed again, and is what it was.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self._has_new_stamps = False
        try:
            content = json.loads(store.read_text(encoding="utf-8"))
            stamps = content["stamps"] if content["format_version"] == STAMPS_VERSION else {}
            self._stamps: dict[str, list[Any]] = {path: [*stamp] for path, stamp in stamps.items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError):  # it only saves time
            self._stamps = {}

    def __call__(self, paths: Iterable[Path]) -> dict[Path, str | None]:
        """Hash of each file, None where there is none."""
        unique_paths = sorted(set(paths))
        hashes_by_path: dict[Path, str | None] = {}
        stamps = {}
        for path in unique_paths:
            try:
                stat = path.stat()
            except OSError:
                hashes_by_path[path] = None
                continue
            stamps[path] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]
            cached_stamp = self._stamps.get(path.as_posix())
            if cached_stamp and cached_stamp[:-1] == stamps[path]:
                hashes_by_path[path] = cached_stamp[-1]
        unhashed_paths = [p for p in unique_paths if p not in hashes_by_path]
        with ThreadPoolExecutor() as pool:
            hashes_by_path |= dict(zip(unhashed_paths, pool.map(files.hash_file, unhashed_paths), strict=True))
        now = time.time()
        for path in unhashed_paths:
            if now - stamps[path][-1] / 1e9 > SETTLE_SECONDS:
                self._stamps[path.as_posix()] = [*stamps[path], hashes_by_path[path]]
                self._has_new_stamps = True
        return hashes_by_path

    def save(self) -> None:
        """Write what was learned, if the folder is there and may be written."""
        if self._has_new_stamps and self.store.parent.is_dir():
            content = json.dumps({"format_version": STAMPS_VERSION, "stamps": self._stamps})
            with suppress(OSError), files.write_atomically(self.store) as temporary:
                temporary.write_text(content, encoding="utf-8")


@dataclass(frozen=True, eq=False)
class PlannedJob:
    """One job of the DAG."""

    name: str
    program: str
    command: list[str]
    """As a sidecar has it."""
    cfg: Any
    code: code_digest.CodeDigest
    inputs: list[Path]
    outputs: list[Path]

    @classmethod
    def from_shell_command(
        cls, name: str, shell: str, cfg: Any, code: code_digest.CodeDigest, inputs: Iterable[str], outputs: Iterable[str]
    ) -> "PlannedJob":
        """From the shell command that starts a program of workflow/scripts, and the part of the config that it is to be given."""
        words = shlex.split(shell)
        program_index = next(i for i, word in enumerate(words) if Path(word).match("workflow/scripts/*.py"))
        arguments = words[program_index + 1 :]
        input_paths, output_paths = [Path(p) for p in inputs], [Path(p) for p in outputs]
        return cls(name, Path(words[program_index]).name, result_arguments(arguments), cfg, code, input_paths, output_paths)


def describe_config_changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Keys of a config part that differ, with both values, for people."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        pairs = [(f"{path}.{k}" if path else str(k), old.get(k, ABSENT), new.get(k, ABSENT)) for k in keys]
        return [
            change for name, before, after in pairs if before != after for change in describe_config_changes(before, after, name)
        ]
    before, after = ("none" if v is ABSENT else json.dumps(v, ensure_ascii=False) for v in (old, new))
    return [f"{path} {before} → {after}"]


def _canonical_json(cfg: Any) -> str:
    return json.dumps(cfg, sort_keys=True)  # in Python, 1 is True


def _shorten_list(items: list[str], limit: int = 3) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def _read_job_record(job: PlannedJob) -> job_record.Record | str:
    """What the sidecars of a job's outputs say, or what is wrong with them."""
    records = []
    for output in job.outputs:
        try:
            records.append(job_record.read_record(job_record.sidecar_path(output)))
        except FileNotFoundError:
            return f"{output} has no provenance" if output.exists() else NOT_MADE_YET
        except RecordVersionError as error:
            return f"the record of {output} {error.problem}"
        except SidecarError:
            return f"the provenance of {output} was altered"
    if any(record != records[0] for record in records):
        return "its outputs are not of one job"
    return engine_version.describe_engine_changes(records[0]) or records[0]


def digest_watched(root: Path, watched: Path) -> str:
    """Digest of what a table of watched paths lists of a folder, as it is now. Raises OSError, UserError."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(watched) as file:
        table = file.read(columns=["path", "kind"])
    names: dict[bool, list[str]] = {False: [], True: []}  # one name may be a path and a pattern
    for name, kind in zip(table["path"].to_pylist(), table["kind"].to_pylist(), strict=True):
        names[kind == watched_paths.PATTERN].append(name)
    return watched_paths.digest_paths(root, paths=names[False], patterns=names[True])


def _folder_matches_index(folder: Mapping[str, str], hashes: HashCache) -> bool:
    """Whether a folder holds the files that its index lists, by their content.

    A folder of the user's, which may hold terabytes, is looked at by its times, and left to the job that reads it.
    """
    root = Path(folder["path"])
    try:
        if folder["watched"]:
            return digest_watched(root, Path(folder["watched"])) == folder["tree"]
        if Path(folder["index"]).parent != root:
            return files.tree_digest(root) == folder["tree"]
        paths = files.list_files(root)
    except (UserError, OSError):  # the job that reads it will say so
        return False
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder["index"]) as file:
        index = file.read(columns=["path", "sha256"])
    listed_hashes = dict(zip(index["path"].to_pylist(), index["sha256"].to_pylist(), strict=True))
    return {p.relative_to(root).as_posix(): sha256 for p, sha256 in hashes(paths).items()} == listed_hashes


def _find_own_change(
    job: PlannedJob, record: job_record.Record, hashes: Mapping[Path, str | None], hash_cache: HashCache
) -> str | None:
    recorded_hashes = {Path(o["path"]): o["sha256"] for o in job_record.output_files(record)}
    for output in job.outputs:
        if hashes[output] is None:
            return f"{output} is gone"
        if hashes[output] != recorded_hashes.get(output):
            return f"{output} was altered"
    if record["program"] != job.program:
        return f"made by {record['program']}"
    if _canonical_json(record["cfg"]) != _canonical_json(job.cfg):
        return f"config: {_shorten_list(describe_config_changes(record['cfg'], job.cfg))}"
    if record["code"].get("sha256") != job.code["sha256"]:
        return f"code: {_shorten_list(code_digest.describe_code_changes(record['code'], job.code))}"
    if record["command"] != job.command:
        return f"its command was {shlex.join(record['command'])}"
    for folder in record["folders"]:
        if not _folder_matches_index(folder, hash_cache):
            return f"a file in {folder['path']} has changed"
    return None


@dataclass
class Decision:
    """What a plan comes to: the jobs that have to run themselves, and those whose outputs the cache has, each with the reason.

    Jobs that follow from the first are Snakemake's to find.
    """

    to_run: dict[PlannedJob, str]
    from_cache: dict[PlannedJob, str]


def find_unpinned_models(jobs: Iterable[PlannedJob]) -> list[str]:
    """Models that jobs would fetch from the hub at whatever commit is its newest."""
    fetch_jobs = [job for job in jobs if job.program == "fetch_model.py"]
    return sorted(job.name.split()[-1] for job in fetch_jobs if job.cfg["hub"] and not job.cfg["revision"])


def decide_jobs(jobs: Iterable[PlannedJob], results: Path, cache: Cache | None = None, take: bool = False) -> Decision:
    """Compare jobs, producers before consumers, with what is there; with `take`, put in place what the cache has of them.

    What can be taken stops a change here: its consumers are compared with its content.
    """
    jobs = list(jobs)
    records = {job: _read_job_record(job) for job in jobs}
    recorded_inputs = {
        job: {} if isinstance(record, str) else {Path(e["path"]): e["sha256"] for e in job_record.input_files(record)}
        for job, record in records.items()
    }
    hash_cache = HashCache(results / STAMPS_NAME)
    hashes = hash_cache(p for job in jobs for p in (*recorded_inputs[job], *job.inputs, *job.outputs))
    pending_outputs: set[Path] = set()  # outputs of jobs that will run: they say nothing yet of who reads them
    decision = Decision({}, {})
    for job in jobs:
        record = records[job]
        reason = record if isinstance(record, str) else _find_own_change(job, record, hashes, hash_cache)
        if reason is None:
            changed_inputs = [p for p, sha256 in recorded_inputs[job].items() if p not in pending_outputs and hashes[p] != sha256]
            reason = f"{changed_inputs[0]} has changed" if changed_inputs else None
        if reason is None and pending_outputs.isdisjoint(job.inputs):
            continue
        if (
            cache is not None
            and pending_outputs.isdisjoint(job.inputs)
            and (cached_hashes := _find_in_cache(job, hashes, cache, take))
        ):
            decision.from_cache[job] = str(reason)
            hashes |= cached_hashes
            continue
        pending_outputs.update(job.outputs)
        if reason is not None:
            decision.to_run[job] = reason
    hash_cache.save()
    return decision


def _find_in_cache(job: PlannedJob, hashes: Mapping[Path, str | None], cache: Cache, take: bool) -> dict[Path, str | None] | None:
    """Hashes of a job's outputs as the cache has them, None where it does not; with `take` they are put in place."""
    input_hashes = {p.as_posix(): sha256 for p in job.inputs if (sha256 := hashes[p]) is not None}
    output_paths = [p.as_posix() for p in job.outputs]
    entry = cache.get(job_key(job.program, job.command, job.cfg, str(job.code["sha256"]), input_hashes, output_paths))
    if entry is None:
        return None
    option_values, cached_record = parse_options(job.command), entry.record
    outputs_by_option = {name: Path(option_values[name][0]) for name in entry.outputs}
    if take:
        run_fields = {
            "command": job.command,
            "options": {
                n: type(v)(option_values[n][0]) if n in option_values else v for n, v in cached_record["options"].items()
            },
            "inputs": {
                n: [
                    {"path": p, "bytes": Path(p).stat().st_size, "sha256": input_hashes[p]}
                    for word in option_values.get(n, [])
                    for p in match_inputs(word, input_hashes)
                ]
                for n in cached_record["inputs"]
            },
        }
        try:
            cache.restore_entry(entry, outputs_by_option, run_fields)
        except OSError as error:  # trimmed by another just now, or no room: the job will say so
            log.warning("cache: %s", error)
            return None
    return {
        place: entry.outputs[name].get("") or entry.outputs[name][files.INDEX_NAME] for name, place in outputs_by_option.items()
    }
