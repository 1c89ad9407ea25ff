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

from medmim.provenance.audit import hash_files

ROUNDS = 5
CORES = os.cpu_count() or 1


def make_files(folder: Path) -> dict[str, list[Path]]:
    """Files as a run has them: small images, of about 20 kB, and a few large shards."""
    rng = random.Random(0)
    sizes = {"small": [int(min(rng.lognormvariate(9.5, 1), 3e5)) for _ in range(5000)], "big": [150_000_000] * 4}
    files_by_kind = {}
    for kind, file_sizes in sizes.items():
        (folder / kind).mkdir()
        files_by_kind[kind] = [folder / kind / f"{i:05}" for i in range(len(file_sizes))]
        for path, size in zip(files_by_kind[kind], file_sizes, strict=True):
            path.write_bytes(rng.randbytes(size))
    return files_by_kind


def run_sha256sum(paths: list[Path], each: int | None = None) -> None:
    """`each` files a process, or as many as xargs gives it."""
    names = b"\0".join(os.fsencode(p) for p in paths)
    limit = ["-n", str(each)] if each else []
    command = ["xargs", "-0", "-P", str(CORES), *limit, "sha256sum"]
    subprocess.run(command, input=names, stdout=subprocess.DEVNULL, check=True)


def time_call(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare_speed(kind: str, paths: list[Path]) -> None:
    """All in turn, several times: on a shared machine only the ratio of what ran side by side says something."""
    each = -(-len(paths) // CORES)
    runs: list[tuple[float, ...]] = []
    for _ in range(ROUNDS):
        audit = time_call(lambda: hash_files(paths))
        plain, even = time_call(lambda: run_sha256sum(paths)), time_call(lambda: run_sha256sum(paths, each))
        runs.append((audit, plain, even))
    audit, plain, even = (statistics.median(column) for column in zip(*runs, strict=True))
    ratio, ratio_even = (statistics.median(run[i] / run[0] for run in runs) for i in (1, 2))
    size = sum(p.stat().st_size for p in paths)
    print(f"{kind}: {len(paths)} files, {size / 1e6:.0f} MB, {CORES} cores; audit {audit:.3f} s, {size / audit / 1e6:.0f} MB/s")
    print(f"  xargs -P {CORES} sha256sum:{'':12} {plain:.3f} s; audit is {ratio:.2f} times as fast")
    print(f"  xargs -P {CORES} -n {each:<5} sha256sum: {even:.3f} s; audit is {ratio_even:.2f} times as fast")


def main() -> None:
    if len(sys.argv) > 1:
        compare_speed(sys.argv[1], sorted(p for p in Path(sys.argv[1]).rglob("*") if p.is_file()))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, paths in make_files(Path(folder)).items():
            compare_speed(kind, paths)


if __name__ == "__main__":
    main()
