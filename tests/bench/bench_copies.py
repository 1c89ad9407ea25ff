"""What the search for near copies misses, calls a copy by mistake, and costs. Run: python tests/bench/bench_copies.py [PAIRS].

Misses: 12 changes of the real pictures that the tests use, each looked for from both sides. False alarms: the same pictures
warped by 8 %, and the phantoms of different patients. Time: 50,000 pictures of training and 10,000 of the
benchmark, drawn by chance. PAIRS, 500 million by default, scales the last.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medmim.provenance.code_digest import WORKFLOW
from medmim.questions.near_copies import find_near_copies
from medmim.sources.base import Adapter, TableBuilder
from medmim.sources.contract import Phantom, load_part
from medmim.tables.thumbnails import SIDE, stack_thumbnails

sys.path += [str(WORKFLOW.parent / "tests" / folder) for folder in ("", "unit", "unit/questions")]
from test_copies import CHANGES, find_pairs, load_pictures, warp

COHORTS = {"embed": 20, "ms_cxr_t": 40, "odir": 40, "lumiere": 10}
QUERIES, PICTURES = 10_000, 50_000


def count_misses() -> None:
    pictures = list(load_pictures().values())
    for name, change in CHANGES.items():
        changed = [change(p) for p in pictures]
        found = [pair for sides in ((pictures, changed), (changed, pictures)) for pair in find_pairs(*sides)]
        hits = sum(query == picture for query, picture in found)
        print(f"{name:22} missed {2 * len(pictures) - hits} of {2 * len(pictures)}, {len(found) - hits} others called copies")
    warped = [warp(p, n) for n, p in enumerate(pictures)]
    print(f"warped by 8 %: {len(find_pairs(pictures, warped))} of {len(pictures) ** 2} pairs called copies")


def draw_thumbnails(source: str, patients: int, folder: Path) -> Iterator[tuple[bytes, str]]:
    """Thumbnails of a cohort of phantoms, each with its patient."""
    load_part(source, "phantom", Phantom).write_cohort(folder, patients=patients, seed=1)
    contents = load_part(source, "adapter", Adapter).read_contents(folder)
    for row in TableBuilder(source, folder, contents, 336).iter_image_rows():
        yield row["thumbnail"], row["patient_id"]


def count_false_alarms() -> None:
    for source, patients in COHORTS.items():
        with tempfile.TemporaryDirectory() as folder:
            stored, names = zip(*draw_thumbnails(source, patients, Path(folder)), strict=True)
        thumbnails, groups = stack_thumbnails(list(stored)), np.unique(names, return_inverse=True)[1].astype(np.int64)
        start = time.perf_counter()
        alarms = len(find_near_copies(thumbnails, thumbnails, groups, groups)) // 2
        pairs = sum(a != b for a, b in itertools.combinations(groups, 2))
        print(f"{source:9} {alarms} of {pairs:,} pairs of different patients called copies, {time.perf_counter() - start:.1f} s")


def draw_pictures(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Thumbnails of pictures that are alike in nothing: smooth noise."""
    noise = gaussian_filter(rng.standard_normal((count, SIDE, SIDE), np.float32), (0, 2, 2))
    return (128 + 350 * noise).clip(0, 255).astype(np.uint8)


def measure_time(share: float) -> None:
    rng = np.random.default_rng(0)
    queries, pictures = (draw_pictures(round(n * share**0.5), rng) for n in (QUERIES, PICTURES))
    pictures[::100] = queries[: len(pictures[::100]), :, ::-1]
    start = time.perf_counter(), time.process_time()
    found = find_near_copies(queries, pictures, np.arange(len(queries)), np.arange(len(pictures)) + len(queries))
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(
        f"{len(queries):,} x {len(pictures):,}: {seconds:.0f} s, {cpu:.0f} s of CPU; {len(found)} found of "
        f"{len(pictures[::100])} mirrored"
    )


if __name__ == "__main__":
    count_misses()
    count_false_alarms()
    measure_time(float(sys.argv[1]) / (QUERIES * PICTURES) if len(sys.argv) > 1 else 1)
