"""What every program of workflow/scripts shares: arguments, log, whole-or-nothing outputs and their provenance.

    def main() -> None:
        arguments = parser(__doc__)
        arguments.add_argument("--images", type=Path, required=True, help="images table (written)")
        with Job(arguments, inputs=["raw"], outputs=["images"]) as job:
            ...
            tables.write(job.out["images"], "images", rows)
            job.done("12 images")

What computes is imported inside the `with`: where the cache has the outputs, the program ends on entering it.

Every output gets a sidecar `<output>.prov.json`. An output named files.parquet stands for its folder: job.out gives
the folder to fill, and the index of its files is written here. Outputs depend on the content and the file names of the
inputs, on cfg, on options other than paths and --threads, and on the code; on nothing else, or the cache would lie.
Outputs are under the rules of use (medmim.tables.data_policy) of all inputs, and those that the program adds with `job.hold`.
"""

import argparse
import errno
import gc
import json
import logging
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmim.common import files
from medmim.common.errors import Interrupted, TableError, UserError
from medmim.common.processes import Processes
from medmim.provenance import cache, code_digest
from medmim.provenance.cache import Cache
from medmim.provenance.outputs import Attempt, Described, Folders, target
from medmim.provenance.resource_log import Journal
from medmim.tables import data_policy
from medmim.tables.data_policy import Rules

log = logging.getLogger("medmim")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Argument parser with the options every program has."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cfg", type=json.loads, default={}, metavar="JSON", help="the part of the config this program uses")
    p.add_argument("--code", default="", metavar="SHA256", help="code digest it was planned with; checked when given")
    p.add_argument("--log", type=Path, default=None, metavar="FILE", help="also write the log here")
    return p


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", str(code_digest.WORKFLOW), *args], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # a program that did not import torch used no GPU
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _installed(locked: dict[str, str]) -> dict[str, str]:
    """Installed versions of packages, of which the code digest knows the locked ones."""
    import importlib.metadata  # a third of this module's import, and not needed where the cache has the outputs

    found = {name: importlib.metadata.version(name) for name in locked}
    for name, version in found.items():
        if version.split("+")[0] != locked[name]:
            log.warning("%s %s is installed, but the lock file has %s", name, version, locked[name])
    return found


class Job:
    """One run of a program, as a context: parses, hashes inputs, puts outputs in place whole, writes sidecars.

    Arguments: `inputs` and `outputs` name options holding a Path or a list of them (an output: one Path);
    `modules` are project modules imported by name at run time, `{option}` in them filled from the options.
    `cached` False is for programs that read what is not among their inputs, such as a server.
    `scratch` names options holding folders that are deleted once the outputs are in place.
    `before` is called with cfg before anything is read, and raises UserError where this machine can't do it.
    Leaving by an exception deletes what was unfinished, logs the error and exits with its status, else with 1.
    """

    def __init__(
        self,
        arguments: argparse.ArgumentParser,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        modules: Sequence[str] = (),
        cached: bool = True,
        scratch: Sequence[str] = (),
        before: Callable[[dict[str, Any]], None] = lambda cfg: None,
        processes: Processes | None = None,
        argv: Sequence[str] | None = None,
    ) -> None:
        self.args = arguments.parse_args(argv)
        self._command = cache.command(sys.argv[1:] if argv is None else argv)
        self._cached = cached
        self.cfg: dict[str, Any] = self.args.cfg
        self.program = Path(sys.argv[0]).name
        self._inputs, self._outputs, self._scratch = inputs, outputs, scratch
        self._before, self._processes = before, processes or Processes()
        self._modules = tuple(m.format(**vars(self.args)).replace("-", "_") for m in modules)
        self.out: dict[str, Path] = {}
        self._attempt: Attempt | None = None
        self.extra: dict[str, object] = {}
        self._folders: list[dict[str, str]] = []
        self.rules = Rules()
        self._summary = ""
        self.first = self._processes.first
        self._journal = Journal(self.args.log if self.first else None, getattr(self.args, "threads", None))

    def _places(self) -> dict[str, Path]:
        return {name: Path(getattr(self.args, name)) for name in self._outputs if getattr(self.args, name) is not None}

    def _options(self) -> dict[str, Any]:
        """Other options than inputs and outputs, as a record has them."""
        known = {"cfg", "code", "log", *self._inputs, *self._outputs}
        kept = {k: v for k, v in vars(self.args).items() if k not in known and isinstance(v, str | int | float | bool | Path)}
        return {k: v.as_posix() if isinstance(v, Path) else v for k, v in kept.items()}

    def key(self) -> str:
        """Hex digest of all that the outputs depend on."""
        content = {str(d["path"]): str(d["sha256"]) for read in self._read.values() for d in read}
        places = [place.as_posix() for place in self._places().values()]
        return cache.key(self.program, self._command, self.cfg, str(self.code.get("sha256")), content, places)

    def watch(self, folder: Path, index: str) -> None:
        """Say that the output `index` lists the files of a folder: a change there makes it anew. To be called before reading."""
        self._folders.append({"index": index, "path": folder.as_posix(), "tree": files.tree(folder)})

    def hold(self, added: Rules) -> None:
        """Put the outputs under further rules of use. To be called before writing."""
        self.rules |= added
        data_policy.hold(self.rules)

    @property
    def inputs(self) -> dict[str, list[dict[str, object]]]:
        """Path, bytes and sha256 of every input, by option."""
        return self._read

    def done(self, summary: str) -> None:
        """Say in a few words what was made; shown as the stage's progress line."""
        self._summary = summary

    def __enter__(self) -> "Job":
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
        gc.set_threshold(10_000)  # what programs import is there to stay: looking through it again and again took a seventh
        self._start = time.time()
        try:
            if self.args.log and self.first:  # other ranks are heard when they fail
                self.args.log.parent.mkdir(parents=True, exist_ok=True)
                self.args.log.write_text("")
                logging.getLogger().addHandler(logging.FileHandler(self.args.log))  # appends, as may a lost run of this job
            self._journal.start(self.program, self.cfg, getattr(self.args, "threads", None))
            self._before(self.cfg)
            self._prepare()
            if not (restored := self._restore()):
                self._begin()
        except Exception as error:
            self._fail(error)
        if restored:
            self._journal.end("restored")
            self._clear()
            raise SystemExit(0)
        return self

    def _prepare(self) -> None:
        self.code = (
            code_digest.code(self.program, *self._modules) if (code_digest.WORKFLOW / "scripts" / self.program).exists() else {}
        )
        if self.args.code and self.args.code != self.code.get("sha256"):
            raise UserError(f"the code of {self.program} changed after this run was planned: start snakemake again")
        self._read: dict[str, list[dict[str, object]]] = {}
        for name in self._inputs:
            value = getattr(self.args, name)
            paths = [Path(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
            if any("*" in path.name for path in paths):  # a pattern in a list stands for the files it matches
                paths = [p for path in paths for p in (sorted(path.parent.glob(path.name)) or [path])]
                setattr(self.args, name, paths)
            for path in paths:
                if not path.exists():
                    raise UserError(f"--{name.replace('_', '-')}: {path} does not exist")
            self._read[name] = [files.described(p) for p in paths]

    def _begin(self) -> None:
        self.hold(data_policy.union(Path(str(read["path"])) for group in self._read.values() for read in group))
        places = self._places()
        if self.first:
            self._attempt = Attempt(places)
            self.out = self._attempt.made
        else:
            self.out = {name: files.partial(target(place)) for name, place in places.items()}
        for name, place in places.items():
            self.out[name].parent.mkdir(parents=True, exist_ok=True)
            if place.name == files.INDEX:
                self.out[name].mkdir()

    def _restore(self) -> bool:
        """Take the outputs from the cache, if it has them."""
        return bool(self._processes.agreed("restored", lambda: "yes" if self._restored() else ""))

    def _restored(self) -> bool:
        store = Cache.of_environment()
        if store is None or not self._cached or not self._outputs:
            return False
        entry = store.get(self.key())
        if entry is None:
            return False
        own = {"inputs": self._read, "command": self._command, "options": self._options()}
        try:
            store.take(entry, self._places(), own)
        except OSError as error:  # trimmed by another just now
            log.warning("cache: %s; computing again", error)
            return False
        log.info("%-18s %s (from the cache)", self.program.removesuffix(".py"), entry.record["summary"])
        return True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._journal.worked()
        if error is None:
            try:
                self._finish() if self.first else self._discard()
            except Exception as late:
                error = late
        data_policy.hold(Rules())
        if error is None and self.first:
            self._journal.end("done")
            self._clear()
            log.info("%-18s %s (%.1f s)", self.program.removesuffix(".py"), self._summary, time.time() - self._start)
        elif error is not None:
            self._fail(error)

    def _clear(self) -> None:
        if self.first:
            for name in self._scratch:  # another run, which this one took over from, may still write there
                shutil.rmtree(getattr(self.args, name), ignore_errors=True)

    def superseded(self) -> bool:
        """Whether another run of this job began after this one, as after the loss of a node: then nothing is to be written."""
        return self._attempt is not None and self._attempt.superseded()

    def _discard(self) -> None:
        if self._attempt is not None:
            self._attempt.end()
        else:
            for path in self.out.values():
                files.remove(path)

    def _full(self, error: BaseException) -> bool:
        """Whether there was no room: not all libraries say so, and then what is left of the disk does."""
        if "no space left" in str(error).lower() or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        return any(p.parent.exists() and shutil.disk_usage(p.parent).free < 1 << 16 for p in self._places().values())

    def _fail(self, error: BaseException) -> None:
        full, superseded = self._full(error), self.superseded()
        failed = isinstance(error, Exception) and not isinstance(error, Interrupted)
        self._discard()
        self._journal.end("superseded" if superseded else "failed" if failed else "stopped")
        if not isinstance(error, Exception):
            return
        if superseded and not isinstance(error, UserError):  # what it wrote is taken away, so any error may have come of that
            log.error(
                "%s: error: another run of this job began after this one: this one leaves nothing (%s)", self.program, error
            )
        elif isinstance(error, Interrupted):
            log.warning("%s: %s", self.program, error)
        elif isinstance(error, UserError | TableError):
            log.error("%s: error: %s", self.program, error)
        elif full:
            places, first = ", ".join(str(p) for p in self._places().values()), (str(error).splitlines() or [""])[0]
            log.error("%s: error: no space left for %s (%s)", self.program, places, first)
            log.error("Nothing is half written: make room and start again")
        else:
            log.error("%s: failed", self.program, exc_info=error)
        raise SystemExit(error.status if isinstance(error, UserError) else 1) from None

    def _finish(self) -> None:
        self._check_modules()
        from medmim.tables import table_io

        for name, place in self._places().items():
            if place.name == files.INDEX:
                table_io.write(self.out[name] / files.INDEX, "files", files.index(self.out[name]))
            elif not self.out[name].exists():
                raise RuntimeError(f"--{name} was not written")
        assert self._attempt is not None
        record = self._attempt.put(self._record)
        self._attempt.end()
        store = Cache.of_environment()
        if store is not None and self._cached and self._outputs:
            kept: dict[str, dict[str, tuple[Path, str]]] = {}
            for name, place in self._places().items():
                sha256 = record["outputs"][name]["sha256"]
                kept[name] = {"": (place, sha256)}
                if place.name == files.INDEX:
                    rows = table_io.read(place, "files").to_pylist()
                    kept[name] = {row["path"]: (place.parent / row["path"], row["sha256"]) for row in rows}
                    kept[name][files.INDEX] = (place, sha256)
            try:
                store.put(record["key"], record, kept)
            except OSError as error:
                log.warning("cache: not kept: %s", error)  # a full or read-only cache is no reason to lose the result

    def _check_modules(self) -> None:
        """The code digest is found by reading imports: prove that nothing ran which it does not cover."""
        main = getattr(sys.modules["__main__"], "__file__", None)
        if not self.code or main is None or Path(main).resolve() != code_digest.WORKFLOW / "scripts" / self.program:
            return
        ran = {name for name in sys.modules if name.split(".")[0] == "medmim"}
        if missed := sorted(ran - self.code["modules"].keys()):
            raise RuntimeError(f"{self.program} imported {', '.join(missed)}, which its code digest does not cover")

    def _record(self, written: dict[str, Described], folders: Folders) -> dict[str, Any]:
        commit = _git("rev-parse", "HEAD")
        return {
            "program": self.program,
            "cfg": self.cfg,
            "command": self._command,
            "options": self._options(),
            "key": self.key(),
            "inputs": self._read,
            "outputs": written,
            "folders": [*self._folders, *folders],
            "rules": self.rules.record(),
            "code": self.code,
            "git": {"commit": commit, "clean": bool(commit) and not _git("status", "--porcelain", "--untracked-files=no")},
            "machine": {
                "host": platform.node(),
                "system": platform.platform(),
                "python": platform.python_version(),
                "packages": _installed(self.code.get("packages", {})),
                "cpu": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "gpus": _gpus(),
                "slurm": {k: v for k, v in os.environ.items() if k in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURMD_NODENAME")},
            },
            "summary": self._summary,
            "start": datetime.fromtimestamp(self._start, UTC).isoformat(timespec="milliseconds"),
            "end": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **self.extra,
        }
