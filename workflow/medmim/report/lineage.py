"""The jobs behind a file, read from the sidecars beside it, its inputs and theirs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from medmim.files import SIDECAR
from medmim.tables import TableError


@dataclass(frozen=True)
class Step:
    """One job: what it ran and what it made."""

    program: str
    summary: str
    outputs: tuple[dict[str, Any], ...]
    """path, bytes, sha256 of each."""
    code: str
    """sha256 of program and modules; empty where the program was not one of the workflow's."""
    commit: str
    clean: bool
    start: str
    """UTC, ISO 8601."""
    seconds: float
    machine: str
    """Processor, cores and GPUs, without the host's name."""
    python: str


def _step(record: dict[str, Any]) -> Step:
    machine = record["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return Step(
        program=record["program"],
        summary=record["summary"],
        outputs=tuple(sorted(record["outputs"].values(), key=lambda o: str(o["path"]))),
        code=record["code"].get("sha256", ""),
        commit=record["git"]["commit"],
        clean=record["git"]["clean"],
        start=record["start"],
        seconds=(datetime.fromisoformat(record["end"]) - datetime.fromisoformat(record["start"])).total_seconds(),
        machine=f"{machine['cpu']}, {machine['cores']} cores, {gpus}",
        python=machine["python"],
    )


def lineage(paths: Iterable[Path]) -> tuple[list[Step], list[Path]]:
    """Jobs that led to the files, by start, and those of `paths` whose origin no sidecar tells.

    Sidecars name inputs relative to the folder the run was started in; those not found from here end the search.
    Raises TableError where a sidecar can't be read.
    """
    wanted = list(paths)
    queue, seen, steps, untold = list(wanted), set(wanted), {}, []
    while queue:
        path = queue.pop()
        sidecar = path.with_name(path.name + SIDECAR)
        if not sidecar.is_file():
            if path in wanted:
                untold.append(path)
            continue
        try:
            record = json.loads(sidecar.read_text())
            step = _step(record)
            inputs = [Path(entry["path"]) for group in record["inputs"].values() for entry in group]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TableError(f"{sidecar}: not a sidecar of this pipeline: {type(error).__name__}: {error}") from error
        steps[(step.start, step.program, *(str(o["path"]) for o in step.outputs))] = step
        queue += [p for p in dict.fromkeys(inputs) if p not in seen]
        seen.update(inputs)
    return [steps[key] for key in sorted(steps)], sorted(untold)
