"""What every program of workflow/scripts shares: arguments, log, whole-or-nothing outputs and their provenance.

    def main() -> None:
        arguments = parser(__doc__)
        arguments.add_argument("--images", type=Path, required=True, help="images table (written)")
        with Job(arguments, inputs=["raw"], outputs=["images"]) as job:
            ...
            tables.write(job.out["images"], "images", rows)
            job.done("12 images")

Every output gets a sidecar `<output>.prov.json`. An output named files.parquet stands for its folder: job.out gives
the folder to fill, and the index of its files is written here.
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmim import digest, files, tables

log = logging.getLogger("medmim")


class UserError(Exception):
    """Something the user can mend: shown as its message alone, without a traceback."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Argument parser with the options every program has."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cfg", type=json.loads, default={}, metavar="JSON", help="the part of the config this program uses")
    p.add_argument("--code", default="", metavar="SHA256", help="code digest it was planned with; checked when given")
    p.add_argument("--log", type=Path, default=None, metavar="FILE", help="also write the log here")
    return p


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", str(digest.WORKFLOW), *args], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # a program that did not import torch used no GPU
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def described(path: Path) -> dict[str, object]:
    """Path, size and sha256 of one file, for a sidecar."""
    return {"path": path.as_posix(), "bytes": path.stat().st_size, "sha256": files.sha256(path)}


class Job:
    """One run of a program, as a context: parses, hashes inputs, puts outputs in place whole, writes sidecars.

    Arguments: `inputs` and `outputs` name options holding a Path or a list of them (an output: one Path);
    `modules` are project modules imported by name at run time, `{option}` in them filled from the options.
    Leaving by an exception deletes what was unfinished, logs the error and exits with status 1.
    """

    def __init__(
        self,
        arguments: argparse.ArgumentParser,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        modules: Sequence[str] = (),
        argv: Sequence[str] | None = None,
    ) -> None:
        self.args = arguments.parse_args(argv)
        self.cfg: dict[str, Any] = self.args.cfg
        self.program = Path(sys.argv[0]).name
        self._inputs, self._outputs = inputs, outputs
        self._modules = tuple(m.format(**vars(self.args)).replace("-", "_") for m in modules)
        self.out: dict[str, Path] = {}
        self.extra: dict[str, object] = {}
        self._summary = ""
        self.first = os.environ.get("RANK", "0") == "0"  # of several processes of one job, only this one leaves outputs

    def _places(self) -> dict[str, Path]:
        return {name: Path(getattr(self.args, name)) for name in self._outputs if getattr(self.args, name) is not None}

    def key(self) -> str:
        """Hex digest of what the outputs depend on: the content of the inputs, the config part and the code."""
        content = {name: [d["sha256"] for d in described_files] for name, described_files in self._read.items()}
        return hashlib.sha256(json.dumps([content, self.cfg, self.code.get("sha256")], sort_keys=True).encode()).hexdigest()

    def done(self, summary: str) -> None:
        """Say in a few words what was made; shown as the stage's progress line."""
        self._summary = summary

    def __enter__(self) -> "Job":
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]  # other ranks are heard when they fail
        if self.args.log and self.first:
            self.args.log.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(self.args.log, mode="w"))
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
        self._start = time.time()
        try:
            self._prepare()
        except Exception as error:
            self._fail(error)
        return self

    def _prepare(self) -> None:
        self.code = digest.code(self.program, *self._modules) if (digest.WORKFLOW / "scripts" / self.program).exists() else {}
        if self.args.code and self.args.code != self.code.get("sha256"):
            raise UserError(f"the code of {self.program} changed after this run was planned: start snakemake again")
        self._read: dict[str, list[dict[str, object]]] = {}
        for name in self._inputs:
            value = getattr(self.args, name)
            paths = [Path(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
            for path in paths:
                if not path.exists():
                    raise UserError(f"--{name.replace('_', '-')}: {path} does not exist")
            self._read[name] = [described(p) for p in paths]
        for name, place in self._places().items():
            target = place.parent if place.name == files.INDEX else place
            target.parent.mkdir(parents=True, exist_ok=True)
            self.out[name] = files.partial(target)
            files.remove(self.out[name])
            if target != place:
                self.out[name].mkdir()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._finish() if self.first else self._discard()
            except Exception as late:
                error = late
        if error is None and self.first:
            log.info("%-18s %s (%.1f s)", self.program.removesuffix(".py"), self._summary, time.time() - self._start)
        elif error is not None:
            self._fail(error)

    def _discard(self) -> None:
        for path in self.out.values():
            files.remove(path)

    def _fail(self, error: BaseException) -> None:
        self._discard()
        if not isinstance(error, Exception):
            return
        if isinstance(error, UserError | tables.TableError):
            log.error("%s: error: %s", self.program, error)
        else:
            log.error("%s: failed", self.program, exc_info=error)
        raise SystemExit(1) from None

    def _finish(self) -> None:
        written: dict[str, dict[str, object]] = {}
        for name, place in self._places().items():
            place.with_name(place.name + files.SIDECAR).unlink(missing_ok=True)  # it speaks of what is replaced now
            if place.name == files.INDEX:
                tables.write(self.out[name] / files.INDEX, "files", files.index(self.out[name]))
                files.put(self.out[name], place.parent)
            else:
                if not self.out[name].exists():
                    raise RuntimeError(f"--{name} was not written")
                files.put(self.out[name], place)
            written[name] = described(place)
        record = self._record(written)
        for place in self._places().values():
            with files.whole(place.with_name(place.name + files.SIDECAR)) as temporary:
                temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")

    def _record(self, written: dict[str, dict[str, object]]) -> dict[str, object]:
        return {
            "program": self.program,
            "cfg": self.cfg,
            "options": {
                k: v
                for k, v in vars(self.args).items()
                if k not in {"cfg", "code", "log", *self._inputs, *self._outputs} and isinstance(v, str | int | float | bool)
            }
            | {
                k: v.as_posix()
                for k, v in vars(self.args).items()
                if isinstance(v, Path) and k not in {"log", *self._inputs, *self._outputs}
            },
            "inputs": self._read,
            "outputs": written,
            "code": self.code,
            "git": {"commit": _git("rev-parse", "HEAD"), "clean": not _git("status", "--porcelain", "--untracked-files=no")},
            "machine": {
                "host": platform.node(),
                "system": platform.platform(),
                "python": platform.python_version(),
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
