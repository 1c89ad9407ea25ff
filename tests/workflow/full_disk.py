"""Runs a job on a disk without room, then with: see test_faults. Needs a mount namespace of its own.

full_disk.py DISK COMMAND OUTPUTS: the command's arguments and the record's outputs as JSON; prints JSON.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

KEPT = ("checkpoints", "replies")
"""Folders of what jobs leave for their next run."""


def main() -> None:
    disk, command, outputs = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    places = {}
    for name, output in outputs.items():
        old = Path(output["path"])
        places[name] = disk / (Path(old.parent.name, old.name) if old.name == "files.parquet" else Path("out", old.name))
        command = [str(places[name]) if word == output["path"] else word for word in command]
    for kept in KEPT:
        command = [str(disk / kept) if f"/{kept}/" in word else word for word in command]
    room = sum(f.stat().st_size for o in outputs.values() for f in parts(Path(o["path"])))
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(room // 2, 4096)}", "tmpfs", disk], check=True)
    full = call(command)
    left = [str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file() and not {*KEPT} & {*p.parts}]
    subprocess.run(["mount", "-o", f"remount,size={room * 3 + (64 << 20)}", disk], check=True)
    roomy = call(command)
    hashes = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in places.items() if p.exists()}
    json.dump({"full": {**full, "left": left}, "roomy": {**roomy, "hashes": hashes}}, sys.stdout)


def parts(path: Path) -> list[Path]:
    """Files of an output: all of its folder where it stands for one."""
    return [p for p in path.parent.rglob("*") if p.is_file()] if path.name == "files.parquet" else [path]


def call(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"status": done.returncode, "said": done.stderr}


if __name__ == "__main__":
    main()
