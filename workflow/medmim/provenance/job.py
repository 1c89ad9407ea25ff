"""What every program of workflow/scripts shares: arguments, log, whole-or-nothing outputs and their provenance.

    def main() -> None:
        arguments = build_parser(__doc__)
        arguments.add_argument("--images", type=Path, required=True, help="images table (written)")
        with Job(arguments, inputs=["raw"], outputs=["images"]) as job:
            ...
            table_io.write_table(job.out["images"], "images", rows)
            job.set_summary("12 images")

What computes is imported inside the `with`: where the cache has the outputs, the program ends on entering it.

Every output gets a sidecar `<output>.prov.json`. An output named files.parquet stands for its folder: job.out gives
the folder to fill, and the index of its files is written here. Outputs depend on the content and the file names of the
inputs, on cfg, on options other than paths and --threads, and on the code; on nothing else, or the cache would lie:
numeric libraries have one thread each, and torch as many as cfg says (medmim.common.cpu_threads).
Outputs are under the data-use policies (medmim.tables.data_policy) of all inputs and those that the program adds with
`job.add_policy`; an output whose rows rest on some of the inputs only is written inside `job.apply_output_policy`.
"""

import argparse
import errno
import gc
import logging
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.cpu_threads import limit_library_threads
from medmim.common.errors import RunInterruptedError, TableError, UserError
from medmim.common.process_setup import prepare_process
from medmim.common.processes import JobProcesses
from medmim.common.program_log import open_log
from medmim.provenance import cache, code_digest, engine_version, git, job_record
from medmim.provenance.cache import Cache
from medmim.provenance.config_file import read_config
from medmim.provenance.outputs import Attempt, FileRecord, FolderRecords, target_path
from medmim.provenance.resource_log import Journal
from medmim.tables import data_policy
from medmim.tables.data_policy import DataPolicy

log = logging.getLogger("medmim")


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Argument parser with the options every program has."""
    prepare_process()
    limit_library_threads()
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cfg", type=read_config, default={}, metavar="FILE", help="JSON file with this program's part of the config")
    p.add_argument("--code", default="", metavar="SHA256", help="code digest it was planned with; checked when given")
    p.add_argument("--log", type=Path, default=None, metavar="FILE", help="also write the log here")
    return p


def _list_gpus() -> list[str]:
    torch = sys.modules.get("torch")  # a program that did not import torch used no GPU
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _installed_versions(locked: dict[str, str]) -> dict[str, str]:
    """Installed versions of packages, of which the code digest knows the locked ones."""
    import importlib.metadata  # a third of this module's import, and not needed where the cache has the outputs

    versions = {name: importlib.metadata.version(name) for name in locked}
    for name, version in versions.items():
        if version.split("+")[0] != locked[name]:
            log.warning("%s %s is installed, but the lock file has %s", name, version, locked[name])
    return versions


def is_pattern(path: Path) -> bool:
    """Whether a path stands for the files that it matches: not where a file has that very name."""
    return "*" in path.name and not path.exists()


class Job:
    """One run of a program, as a context: parses, hashes inputs, puts outputs in place whole, writes sidecars.

    Arguments: `inputs` and `outputs` name options holding a Path or a list of them (an output: one Path);
    `modules` are project modules imported by name at run time, `{option}` in them filled from the options.
    `use_cache` False is for programs that read what is not among their inputs, such as a server.
    `scratch` names options holding folders that are deleted once the outputs are in place.
    `preflight` is called with cfg before anything is read, and raises UserError where this machine can't do it.
    Leaving by an exception deletes what was unfinished, logs the error and exits with its status, else with 1.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        modules: Sequence[str] = (),
        use_cache: bool = True,
        scratch: Sequence[str] = (),
        preflight: Callable[[dict[str, Any]], None] = lambda cfg: None,
        processes: JobProcesses | None = None,
        argv: Sequence[str] | None = None,
    ) -> None:
        self.args = parser.parse_args(argv)
        self._command = cache.result_arguments(sys.argv[1:] if argv is None else argv)
        self._use_cache = use_cache
        self.cfg: dict[str, Any] = self.args.cfg
        self.program = Path(sys.argv[0]).name
        self._input_options, self._output_options, self._scratch_options = inputs, outputs, scratch
        self._preflight, self._processes = preflight, processes or JobProcesses()
        self._modules = tuple(m.format(**vars(self.args)).replace("-", "_") for m in modules)
        self.out: dict[str, Path] = {}
        self._attempt: Attempt | None = None
        self.extra_fields: dict[str, object] = {}
        self._watched_folders: list[dict[str, str]] = []
        self.policy = DataPolicy()
        """Policy of the outputs that have none of their own."""
        self._output_policies: dict[str, DataPolicy] = {}
        self._summary = ""
        self.is_main = self._processes.is_main
        self._journal = Journal(self.args.log if self.is_main else None, getattr(self.args, "threads", None))

    def _output_paths(self) -> dict[str, Path]:
        return {name: Path(getattr(self.args, name)) for name in self._output_options if getattr(self.args, name) is not None}

    def _recorded_options(self) -> dict[str, Any]:
        """Other options than inputs and outputs, as a record has them."""
        excluded_names = {"cfg", "code", "log", *self._input_options, *self._output_options}
        options = {
            k: v for k, v in vars(self.args).items() if k not in excluded_names and isinstance(v, str | int | float | bool | Path)
        }
        return {k: v.as_posix() if isinstance(v, Path) else v for k, v in options.items()}

    def compute_key(self) -> str:
        """Hex digest of all that the outputs depend on."""
        input_hashes = {str(d["path"]): str(d["sha256"]) for records in self._input_records.values() for d in records}
        output_paths = [place.as_posix() for place in self._output_paths().values()]
        return cache.job_key(self.program, self._command, self.cfg, str(self.code.get("sha256")), input_hashes, output_paths)

    def watch_folder(self, folder: Path, index: str) -> None:
        """Say that the output `index` lists the files of a folder: a change there makes it anew. To be called before reading."""
        self._watched_folders.append(
            {"index": index, "path": folder.as_posix(), "tree": files.tree_digest(folder), "watched": ""}
        )

    def watch_paths(self, folder: Path, index: Path, watched: Path, digest: str) -> None:
        """Say that the output `index` lists files of a folder, and that a change of what `watched` lists makes it anew.

        `watched`: an output, a table of that schema; `digest`: of what it lists, by medmim.common.watched_paths, before reading.
        """
        self._watched_folders.append(
            {"index": index.as_posix(), "path": folder.as_posix(), "tree": digest, "watched": watched.as_posix()}
        )

    def add_policy(self, policy: DataPolicy) -> None:
        """Put the outputs under a further data-use policy. To be called before writing."""
        self.policy |= policy
        data_policy.set_current_policy(self.policy)

    @contextmanager
    def apply_output_policy(self, policy: DataPolicy, *outputs: str) -> Iterator[None]:
        """Write some outputs under a policy of their own instead of that of all inputs."""
        self._output_policies |= dict.fromkeys(outputs, policy)
        data_policy.set_current_policy(policy)
        try:
            yield
        finally:
            data_policy.set_current_policy(self.policy)

    @property
    def input_records(self) -> dict[str, list[dict[str, object]]]:
        """Path, bytes and sha256 of every input, by option."""
        return self._input_records

    def set_summary(self, summary: str) -> None:
        """Say in a few words what was made; shown as the stage's progress line."""
        self._summary = summary

    def __enter__(self) -> "Job":
        gc.set_threshold(10_000)  # what programs import is there to stay: looking through it again and again took a seventh
        self._start_time, self._started_at = time.monotonic(), datetime.now(UTC)
        try:
            open_log(self.args.log if self.is_main else None)  # other ranks are heard when they fail
            self._journal.write_start(self.program, self.cfg, getattr(self.args, "threads", None))
            self._preflight(self.cfg)
            self._hash_inputs()
            if not (restored := self._restore_from_cache()):
                self._begin_attempt()
        except Exception as error:
            self._exit_with_error(error)
        if restored:
            self._journal.write_end("restored")
            self._delete_scratch()
            raise SystemExit(0)
        return self

    def _hash_inputs(self) -> None:
        self.code = (
            code_digest.code_digest(self.program, *self._modules)
            if (code_digest.WORKFLOW / "scripts" / self.program).exists()
            else {}
        )
        if self.args.code and self.args.code != self.code.get("sha256"):
            raise UserError(f"the code of {self.program} changed after this run was planned: start snakemake again")
        self._input_records: dict[str, list[dict[str, object]]] = {}
        for name in self._input_options:
            value = getattr(self.args, name)
            paths = [Path(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
            if any(map(is_pattern, paths)):  # in a list it stands for the files it matches
                paths = [p for path in paths for p in (sorted(path.parent.glob(path.name)) if is_pattern(path) else []) or [path]]
                setattr(self.args, name, paths)
            for path in paths:
                if not path.exists():
                    raise UserError(f"--{name.replace('_', '-')}: {path} does not exist")
            self._input_records[name] = [files.file_record(p) for p in paths]

    def _begin_attempt(self) -> None:
        self.add_policy(
            data_policy.combine_policies(Path(str(read["path"])) for group in self._input_records.values() for read in group)
        )
        output_paths = self._output_paths()
        if self.is_main:
            self._attempt = Attempt(output_paths)
            self.out = self._attempt.temporary_paths
        else:
            self.out = {name: files.temporary_path(target_path(place)) for name, place in output_paths.items()}
        for name, place in output_paths.items():
            self.out[name].parent.mkdir(parents=True, exist_ok=True)
            if place.name == files.INDEX_NAME:
                self.out[name].mkdir()

    def _restore_from_cache(self) -> bool:
        """Take the outputs from the cache, if it has them."""
        return bool(self._processes.broadcast("restored", lambda: "yes" if self._try_restore() else ""))

    def _try_restore(self) -> bool:
        store = Cache.from_environment()
        if store is None or not self._use_cache or not self._output_options:
            return False
        entry = store.get(self.compute_key())
        if entry is None:
            return False
        run_fields = {"inputs": self._input_records, "command": self._command, "options": self._recorded_options()}
        try:
            store.restore_entry(entry, self._output_paths(), run_fields)
        except OSError as error:  # trimmed by another just now
            log.warning("cache: %s; computing again", error)
            return False
        log.info("%-18s %s (from the cache)", self.program.removesuffix(".py"), entry.record["summary"])
        return True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._journal.record_child_memory()
        if error is None:
            try:
                self._publish_outputs() if self.is_main else self._discard_outputs()
            except Exception as finish_error:
                error = finish_error
        data_policy.set_current_policy(DataPolicy())
        if error is None and self.is_main:
            self._journal.write_end("done")
            self._delete_scratch()
            log.info("%-18s %s (%.1f s)", self.program.removesuffix(".py"), self._summary, time.monotonic() - self._start_time)
        elif error is not None:
            self._exit_with_error(error)

    def _delete_scratch(self) -> None:
        if self.is_main:
            for name in self._scratch_options:  # another run, which this one took over from, may still write there
                shutil.rmtree(getattr(self.args, name), ignore_errors=True)

    def is_superseded(self) -> bool:
        """Whether another run of this job began after this one, as after the loss of a node: then nothing is to be written."""
        return self._attempt is not None and self._attempt.is_superseded()

    def _discard_outputs(self) -> None:
        if self._attempt is not None:
            self._attempt.clean_up()
        else:
            for path in self.out.values():
                files.remove_path(path)

    def _is_disk_full(self, error: BaseException) -> bool:
        """Whether there was no room: not all libraries say so, and then what is left of the disk does."""
        if "no space left" in str(error).lower() or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        return any(p.parent.exists() and shutil.disk_usage(p.parent).free < 1 << 16 for p in self._output_paths().values())

    def _exit_with_error(self, error: BaseException) -> None:
        is_disk_full, is_superseded = self._is_disk_full(error), self.is_superseded()
        has_failed = isinstance(error, Exception) and not isinstance(error, RunInterruptedError)
        self._discard_outputs()
        self._journal.write_end("superseded" if is_superseded else "failed" if has_failed else "stopped")
        if not isinstance(error, Exception):
            return
        if is_superseded and not isinstance(error, UserError):  # what it wrote is taken away, so any error may have come of that
            log.error(
                "%s: error: another run of this job began after this one: this one leaves nothing (%s)", self.program, error
            )
        elif isinstance(error, RunInterruptedError):
            log.warning("%s: %s", self.program, error)
        elif isinstance(error, UserError | TableError):
            log.error("%s: error: %s", self.program, error)
        elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
            log.error(
                "%s: error: %s: %s. Let this user read or write it, or set another folder in the config",
                self.program,
                error.filename,
                error.strerror,
            )
        elif is_disk_full:
            output_names, first_line = (
                ", ".join(str(p) for p in self._output_paths().values()) or "temporary files: TMPDIR may name another folder",
                (str(error).splitlines() or [""])[0],
            )
            log.error("%s: error: no space left for %s (%s)", self.program, output_names, first_line)
            log.error("Nothing is half written: make room and start again")
        else:
            log.error("%s: failed", self.program, exc_info=error)
        raise SystemExit(error.exit_status if isinstance(error, UserError) else 1) from None

    def _publish_outputs(self) -> None:
        self._check_modules()
        from medmim.tables import table_io

        for name, place in self._output_paths().items():
            if place.name == files.INDEX_NAME:
                table_io.write_table(self.out[name] / files.INDEX_NAME, "files", files.index_files(self.out[name]))
            elif not self.out[name].exists():
                raise RuntimeError(f"--{name} was not written")
        assert self._attempt is not None
        record = self._attempt.publish(self._build_record)
        self._attempt.clean_up()
        store = Cache.from_environment()
        if store is not None and self._use_cache and self._output_options:
            cached_files: dict[str, dict[str, tuple[Path, str]]] = {}
            for name, place in self._output_paths().items():
                sha256 = record["outputs"][name]["sha256"]
                cached_files[name] = {"": (place, sha256)}
                if place.name == files.INDEX_NAME:
                    rows = table_io.read_table(place, "files").to_pylist()
                    cached_files[name] = {row["path"]: (place.parent / row["path"], row["sha256"]) for row in rows}
                    cached_files[name][files.INDEX_NAME] = (place, sha256)
            try:
                store.put(record["key"], record, cached_files)
            except OSError as error:
                log.warning("cache: not kept: %s", error)  # a full or read-only cache is no reason to lose the result

    def _check_modules(self) -> None:
        """Prove that only code ran that the code digest covers, which is found by reading imports, and the engine's."""
        main = getattr(sys.modules["__main__"], "__file__", None)
        if not self.code or main is None or Path(main).resolve() != code_digest.WORKFLOW / "scripts" / self.program:
            return
        loaded_modules = {name for name in sys.modules if name.split(".")[0] == "medmim"}
        engine_modules = code_digest.THIS_CHECKOUT.list_engine_modules(loaded_modules)
        if uncovered_modules := sorted(loaded_modules - self.code["modules"].keys() - engine_modules):
            raise RuntimeError(f"{self.program} imported {', '.join(uncovered_modules)}, which its code digest does not cover")

    def _build_record(self, output_records: dict[str, FileRecord], folders: FolderRecords) -> dict[str, Any]:
        policies = {name: self._output_policies.get(name, self.policy) for name in output_records}
        ended_at = self._started_at + timedelta(seconds=time.monotonic() - self._start_time)  # though the clock be set meanwhile
        return {
            "format_version": job_record.RECORD_VERSION,
            "engine_version": engine_version.ENGINE_VERSION,
            "python": engine_version.PYTHON_VERSION,
            "program": self.program,
            "cfg": self.cfg,
            "command": self._command,
            "options": self._recorded_options(),
            "key": self.compute_key(),
            "inputs": self._input_records,
            "outputs": output_records,
            "folders": [*self._watched_folders, *folders],
            "policies": {name: policy.to_record() for name, policy in policies.items()},
            "code": self.code,
            "git": git.describe_commit(code_digest.WORKFLOW.parent),
            "machine": {
                "host": platform.node(),
                "system": platform.platform(),
                "python": platform.python_version(),
                "packages": _installed_versions(self.code.get("packages", {})),
                "cpu": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "gpus": _list_gpus(),
                "slurm": {k: v for k, v in os.environ.items() if k in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURMD_NODENAME")},
            },
            "summary": self._summary,
            "start": self._started_at.isoformat(timespec="milliseconds"),
            "end": ended_at.isoformat(timespec="milliseconds"),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **self.extra_fields,
        }
