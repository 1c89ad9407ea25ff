"""Speed of the audit's hashing beside sha256sum on the same files. Run: python tests/bench/bench_audit.py [FOLDER]."""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from medmim.provenance.audit import hashes

ROUNDS = 5
CORES = os.cpu_count() or 1


def made(folder: Path) -> dict[str, list[Path]]:
    """Files as a run has them: small images, of about 20 kB, and a few large shards."""
    rng = random.Random(0)
    sizes = {"small": [int(min(rng.lognormvariate(9.5, 1), 3e5)) for _ in range(5000)], "big": [150_000_000] * 4}
    found = {}
    for kind, wanted in sizes.items():
        (folder / kind).mkdir()
        found[kind] = [folder / kind / f"{i:05}" for i in range(len(wanted))]
        for path, size in zip(found[kind], wanted, strict=True):
            path.write_bytes(rng.randbytes(size))
    return found


def sha256sum(paths: list[Path], each: int | None = None) -> None:
    """`each` files a process, or as many as xargs gives it."""
    names = b"\0".join(os.fsencode(p) for p in paths)
    limit = ["-n", str(each)] if each else []
    command = ["xargs", "-0", "-P", str(CORES), *limit, "sha256sum"]
    subprocess.run(command, input=names, stdout=subprocess.DEVNULL, check=True)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(kind: str, paths: list[Path]) -> None:
    """All in turn, several times: on a shared machine only the ratio of what ran side by side says something."""
    each = -(-len(paths) // CORES)
    runs: list[tuple[float, ...]] = []
    for _ in range(ROUNDS):
        audit = timed(lambda: hashes(paths))
        plain, even = timed(lambda: sha256sum(paths)), timed(lambda: sha256sum(paths, each))
        runs.append((audit, plain, even))
    audit, plain, even = (statistics.median(column) for column in zip(*runs, strict=True))
    ratio, ratio_even = (statistics.median(run[i] / run[0] for run in runs) for i in (1, 2))
    size = sum(p.stat().st_size for p in paths)
    print(f"{kind}: {len(paths)} files, {size / 1e6:.0f} MB, {CORES} cores; audit {audit:.3f} s, {size / audit / 1e6:.0f} MB/s")
    print(f"  xargs -P {CORES} sha256sum:{'':12} {plain:.3f} s; audit is {ratio:.2f} times as fast")
    print(f"  xargs -P {CORES} -n {each:<5} sha256sum: {even:.3f} s; audit is {ratio_even:.2f} times as fast")


def main() -> None:
    if len(sys.argv) > 1:
        compare(sys.argv[1], sorted(p for p in Path(sys.argv[1]).rglob("*") if p.is_file()))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, paths in made(Path(folder)).items():
            compare(kind, paths)


if __name__ == "__main__":
    main()
