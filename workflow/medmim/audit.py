"""Audit of a run: every artifact against its sidecar, every input against its producer."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medmim import files, tables

UNTRACKED = ("logs", "checkpoints", "audit.json")  # below the run's folder: not artifacts


def _hashes(paths: Iterable[Path]) -> dict[Path, str | None]:
    """sha256 of every file, None where it is absent; hashed on all cores (hashlib releases the interpreter's lock)."""
    wanted = sorted(set(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(wanted, pool.map(lambda p: files.sha256(p) if p.is_file() else None, wanted), strict=True))


def _sidecars(results: Path) -> tuple[dict[Path, dict[str, Any]], list[dict[str, str]]]:
    found: dict[Path, dict[str, Any]] = {}
    faults = []
    for path in sorted(results.rglob(f"*{files.SIDECAR}")):
        try:
            record = json.loads(path.read_text())
            found[path] = {
                "inputs": [e for group in record["inputs"].values() for e in group],
                "outputs": list(record["outputs"].values()),
                "root": record["options"].get("root"),
            }
        except (ValueError, KeyError, AttributeError) as error:
            faults.append({"kind": "damaged sidecar", "path": str(path), "detail": f"{type(error).__name__}: {error}"})
    return found, faults


def audit(results: Path, expected: Iterable[Path] = ()) -> dict[str, Any]:
    """Check the run below `results`; paths in its sidecars are relative to the present folder.

    Returns {"artifacts", "files", "faults": [{"kind", "path", "detail"}]}. Kinds: altered, missing, broken link (an
    input's hash is not its producer's), no provenance, orphaned (nothing made it), damaged sidecar.
    """
    sidecars, faults = _sidecars(results)

    def fault(kind: str, path: object, detail: str) -> None:
        faults.append({"kind": kind, "path": str(path), "detail": detail})

    made: dict[Path, str] = {}  # every file that some job wrote or indexed -> its recorded hash
    folders: list[Path] = []
    indexed = 0
    for sidecar, record in sidecars.items():
        subject = Path(str(sidecar).removesuffix(files.SIDECAR))
        if subject not in [Path(o["path"]) for o in record["outputs"]]:
            fault("damaged sidecar", sidecar, f"does not speak of {subject.name}")
        for output in record["outputs"]:
            path = Path(output["path"])
            made[path] = output["sha256"]
            own = path.name == files.INDEX
            if path == subject and path.is_file() and (own or record["root"]) and path.suffix == ".parquet":
                root = path.parent if own else Path(record["root"])
                try:
                    rows = tables.read(path, "files").to_pylist()
                except tables.TableError:
                    if own:
                        fault("altered", path, "is no longer an index of files")
                    continue  # an adapter has a root too, and its tables are no index
                indexed += len(rows)
                made |= {root / row["path"]: row["sha256"] for row in rows}
                if own:
                    folders.append(root)
    hashes = _hashes(made)
    for path, recorded in made.items():
        actual = hashes[path]
        if actual is None:
            fault("missing", path, "was made by this run and is gone")
        elif actual != recorded:
            fault("altered", path, f"sha256 is {actual[:12]}…, its provenance says {recorded[:12]}…")
    for sidecar, record in sidecars.items():
        for entry in record["inputs"]:
            path = Path(entry["path"])
            producer = made.get(path)
            if producer is None and path.is_relative_to(results):
                fault(
                    "no provenance", path, f"input of {sidecar.name.removesuffix(files.SIDECAR)}, but nothing says what made it"
                )
            elif producer is not None and producer != entry["sha256"]:
                fault("broken link", path, f"{sidecar.name.removesuffix(files.SIDECAR)} was made from other bytes of it")
    for path in sorted(p for p in results.rglob("*") if p.is_file()):
        top = path.relative_to(results).parts[0]
        if top not in UNTRACKED and path not in made and not path.name.endswith(files.SIDECAR):
            fault("orphaned", path, "no sidecar speaks of it")
    for path in expected:
        if path not in made:
            fault("missing", path, "was not made: run the workflow first")
    return {"artifacts": len(made) - indexed, "files": indexed, "faults": faults}
