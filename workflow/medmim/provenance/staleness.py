"""What has to run: jobs whose outputs are not what their program would make now, by content and nothing else.

Snakemake decides by times and by what it remembers in .snakemake; here the sidecars of a run decide. A job is fresh when each
of its outputs is there as recorded, and command, config part, code digest and the content of every input are those
recorded. Times, checkouts, machines and a lost .snakemake change nothing.
"""

import json
import logging
import shlex
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import SidecarError
from medmim.provenance import code_digest, job_record
from medmim.provenance.cache import Cache, command, key, options

log = logging.getLogger("medmim")
STAMPS = ".stamps.json"
NEW = "not made yet"
NOTHING = object()
SETTLED = 2.0
"""Seconds after which a file's time tells one write from the next on any file system."""


class Hashes:
    """sha256 of files, remembered in `store` for those whose size, time and inode have not changed since."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._new = False
        try:
            self._known: dict[str, list[Any]] = {path: [*stamp] for path, stamp in json.loads(store.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):  # it only saves time
            self._known = {}

    def __call__(self, paths: Iterable[Path]) -> dict[Path, str | None]:
        """Hash of each file, None where there is none."""
        wanted = sorted(set(paths))
        found: dict[Path, str | None] = {}
        stamps = {}
        for path in wanted:
            try:
                stat = path.stat()
            except OSError:
                found[path] = None
                continue
            stamps[path] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
            known = self._known.get(path.as_posix())
            if known and known[:3] == stamps[path]:
                found[path] = known[3]
        unknown = [p for p in wanted if p not in found]
        with ThreadPoolExecutor() as pool:
            found |= dict(zip(unknown, pool.map(files.sha256, unknown), strict=True))
        now = time.time()
        for path in unknown:
            if now - stamps[path][1] / 1e9 > SETTLED:
                self._known[path.as_posix()] = [*stamps[path], found[path]]
                self._new = True
        return found

    def keep(self) -> None:
        """Write what was learned, if the folder is there."""
        if self._new and self.store.parent.is_dir():
            with files.whole(self.store) as temporary:
                temporary.write_text(json.dumps(self._known))


@dataclass(frozen=True, eq=False)
class Planned:
    """One job of the DAG."""

    name: str
    program: str
    command: list[str]
    """As a sidecar has it."""
    cfg: Any
    code: code_digest.Code
    inputs: list[Path]
    outputs: list[Path]

    @classmethod
    def of_shell(cls, name: str, shell: str, code: code_digest.Code, inputs: Iterable[str], outputs: Iterable[str]) -> "Planned":
        """From the shell command that starts a program of workflow/scripts."""
        words = shlex.split(shell)
        at = next(i for i, word in enumerate(words) if "/workflow/scripts/" in word)
        arguments = words[at + 1 :]
        cfg = json.loads(arguments[arguments.index("--cfg") + 1])
        read, made = [Path(p) for p in inputs], [Path(p) for p in outputs]
        return cls(name, Path(words[at]).name, command(arguments), cfg, code, read, made)


def changed(old: Any, new: Any, path: str = "") -> list[str]:
    """Keys of a config part that differ, with both values, for people."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        pairs = [(f"{path}.{k}" if path else str(k), old.get(k, NOTHING), new.get(k, NOTHING)) for k in keys]
        return [told for name, before, after in pairs if before != after for told in changed(before, after, name)]
    before, after = ("none" if v is NOTHING else json.dumps(v, ensure_ascii=False) for v in (old, new))
    return [f"{path} {before} → {after}"]


def _canonical(cfg: Any) -> str:
    return json.dumps(cfg, sort_keys=True)  # in Python, 1 is True


def _short(told: list[str], most: int = 3) -> str:
    return ", ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")


def _recorded(job: Planned) -> job_record.Record | str:
    """What the sidecars of a job's outputs say, or what is wrong with them."""
    records = []
    for output in job.outputs:
        try:
            records.append(job_record.read(job_record.sidecar(output)))
        except FileNotFoundError:
            return f"{output} has no provenance" if output.exists() else NEW
        except SidecarError:
            return f"the provenance of {output} was altered"
    return records[0] if all(r == records[0] for r in records) else "its outputs are not of one job"


def _as_listed(folder: Mapping[str, str], hashes: Hashes) -> bool:
    """Whether a folder holds the files that its index lists: by their times, which is quick, or else by their content.

    A folder of the user's, which may hold terabytes, is left to the job that reads it.
    """
    root = Path(folder["path"])
    if files.tree(root) == folder["tree"]:
        return True
    if Path(folder["index"]).parent != root:
        return False
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder["index"]) as file:
        index = file.read(columns=["path", "sha256"])
    listed = dict(zip(index["path"].to_pylist(), index["sha256"].to_pylist(), strict=True))
    return {p.relative_to(root).as_posix(): sha256 for p, sha256 in hashes(files.walk(root)).items()} == listed


def _itself(job: Planned, record: job_record.Record, hashes: Mapping[Path, str | None], remembered: Hashes) -> str | None:
    told = {Path(o["path"]): o["sha256"] for o in job_record.outputs(record)}
    for output in job.outputs:
        if hashes[output] is None:
            return f"{output} is gone"
        if hashes[output] != told.get(output):
            return f"{output} was altered"
    if record["program"] != job.program:
        return f"made by {record['program']}"
    if _canonical(record["cfg"]) != _canonical(job.cfg):
        return f"config: {_short(changed(record['cfg'], job.cfg))}"
    if record["code"].get("sha256") != job.code["sha256"]:
        return f"code: {_short(code_digest.changes(record['code'], job.code))}"
    if record["command"] != job.command:
        return f"its command was {shlex.join(record['command'])}"
    for folder in record["folders"]:
        if not _as_listed(folder, remembered):
            return f"a file in {folder['path']} has changed"
    return None


@dataclass
class Decision:
    """What a plan comes to: the jobs that have to run themselves, and those whose outputs the cache has, each with the reason.

    Jobs that follow from the first are Snakemake's to find.
    """

    run: dict[Planned, str]
    cached: dict[Planned, str]


def unpinned(jobs: Iterable[Planned]) -> list[str]:
    """Models that jobs would fetch from the hub at whatever commit is its newest."""
    fetched = [job for job in jobs if job.program == "fetch_model.py"]
    return sorted(job.name.split()[-1] for job in fetched if job.cfg["hub"] and not job.cfg["revision"])


def decide(jobs: Iterable[Planned], results: Path, cache: Cache | None = None, take: bool = False) -> Decision:
    """Compare jobs, producers before consumers, with what is there; with `take`, put in place what the cache has of them.

    What can be taken stops a change here: its consumers are compared with its content.
    """
    jobs = list(jobs)
    records = {job: _recorded(job) for job in jobs}
    read = {
        job: {} if isinstance(record, str) else {Path(e["path"]): e["sha256"] for e in job_record.inputs(record)}
        for job, record in records.items()
    }
    remembered = Hashes(results / STAMPS)
    hashes = remembered(p for job in jobs for p in (*read[job], *job.inputs, *job.outputs))
    unknown: set[Path] = set()  # outputs of jobs that will run: they say nothing yet of who reads them
    decision = Decision({}, {})
    for job in jobs:
        record = records[job]
        why = record if isinstance(record, str) else _itself(job, record, hashes, remembered)
        if why is None:
            other = [p for p, sha256 in read[job].items() if p not in unknown and hashes[p] != sha256]
            why = f"{other[0]} has changed" if other else None
        if why is None and unknown.isdisjoint(job.inputs):
            continue
        if cache is not None and unknown.isdisjoint(job.inputs) and (told := _cached(job, hashes, cache, take)):
            decision.cached[job] = str(why)
            hashes |= told
            continue
        unknown.update(job.outputs)
        if why is not None:
            decision.run[job] = why
    remembered.keep()
    return decision


def _cached(job: Planned, hashes: Mapping[Path, str | None], cache: Cache, take: bool) -> dict[Path, str | None] | None:
    """Hashes of a job's outputs as the cache has them, None where it does not; with `take` they are put in place."""
    content = {p.as_posix(): sha256 for p in job.inputs if (sha256 := hashes[p]) is not None}
    places = [p.as_posix() for p in job.outputs]
    entry = cache.get(key(job.program, job.command, job.cfg, str(job.code["sha256"]), content, places))
    if entry is None:
        return None
    given, old = options(job.command), entry.record
    at = {name: Path(given[name][0]) for name in entry.outputs}
    if take:
        own = {
            "command": job.command,
            "options": {n: type(v)(given[n][0]) if n in given else v for n, v in old["options"].items()},
            "inputs": {
                n: [{"path": p, "bytes": Path(p).stat().st_size, "sha256": content[p]} for p in given.get(n, [])]
                for n in old["inputs"]
            },
        }
        try:
            cache.take(entry, at, own)
        except OSError as error:  # trimmed by another just now, or no room: the job will say so
            log.warning("cache: %s", error)
            return None
    return {place: entry.outputs[name].get("") or entry.outputs[name][files.INDEX] for name, place in at.items()}
