"""What is touched of a large copy of MIMIC-CXR-JPG, and of LUMIERE's volumes. Run: python tests/bench/bench_index.py [FOLDER].

400,000 files in the owner's tree, of which MS-CXR-T's table names 2,652: the time to index them, again, and to plan, beside the
time that it takes to look at all files, and to hash them, where those that are not needed are empty, which spares them most.
Then 38 slices of one registered volume, decoded once and one by one.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from medmim.common import files
from medmim.provenance import code_digest
from medmim.provenance.cache import result_arguments
from medmim.provenance.staleness import PlannedJob, decide_jobs
from medmim.sources.readers import nifti
from medmim.sources.rendering import render_images

PROGRAM = Path(__file__).resolve().parents[2] / "workflow/scripts/index_source.py"
FILES, NEEDED = 400_000, 2652
IMAGE_BYTES = 1_500_000
"""Mean size of an image of MIMIC-CXR-JPG."""
IMAGES_PER_STUDY, STUDIES_PER_PATIENT = 3, 4
FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
SLICES = 38
CORES = os.cpu_count() or 1


def time_call(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def iter_stems() -> Iterator[str]:
    """Paths of images below files/, without their ending, patient by patient."""
    for number in range(FILES):
        study = number // IMAGES_PER_STUDY
        subject = f"1{study // STUDIES_PER_PATIENT:07d}"
        yield f"p{subject[:2]}/p{subject}/s5{study:07d}/{number:08x}-{number * 2654435761 % 2**32:08x}"


def write_copy(root: Path) -> None:
    """The folder: images that are needed have their size and no content on the disk, all others are empty."""
    rows = []
    previous = ""
    images_per_patient = IMAGES_PER_STUDY * STUDIES_PER_PATIENT
    step = FILES // (NEEDED // 2) // images_per_patient * images_per_patient
    for number, stem in enumerate(iter_stems()):
        path = root / f"files/{stem}.jpg"
        if number % IMAGES_PER_STUDY == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        place = number % step
        if place in (0, IMAGES_PER_STUDY) and number // step < NEEDED // 2:
            os.truncate(path, IMAGE_BYTES)
            if place:
                subject, studies = stem.split("/")[1][1:], [s.split("/")[2][1:] for s in (stem, previous)]
                labels = dict.fromkeys((f"{f}_progression" for f in FINDINGS), "stable")
                ids = {"dicom_id": stem, "previous_dicom_id": previous, "subject_id": subject}
                rows.append(ids | dict(zip(("study_id", "previous_study_id"), studies, strict=True)) | labels)
            previous = stem
    with (root / "MS_CXR_T_temporal_image_classification_v1.0.0.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def measure_index(root: Path) -> None:
    """Index and plan, from the present folder."""
    outputs = {"index": "r/sources/ms_cxr_t.parquet", "watched": "r/sources/ms_cxr_t.watched.parquet"}
    options = {"source": "ms_cxr_t", "root": str(root), "hashes": "r/checkpoints/hashes.jsonl", **outputs}
    arguments = [word for name, value in {**options, "threads": str(CORES)}.items() for word in (f"--{name}", value)]
    command = [sys.executable, str(PROGRAM), *arguments]
    code = code_digest.code_digest(PROGRAM.name, "medmim.sources.ms_cxr_t.adapter")
    planned = PlannedJob(
        "index", PROGRAM.name, result_arguments(arguments), {}, code, [], [Path(place) for place in outputs.values()]
    )
    # The walk first, so that all that follow find the folders in memory as it left them.
    walk = time_call(lambda: files.tree_digest(root))
    index = time_call(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))
    again = time_call(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))
    plan = time_call(lambda: decide_jobs([planned], Path("r")))
    assert not decide_jobs([planned], Path("r")).to_run
    everything = time_call(lambda: files.index_files(root))
    size = NEEDED * IMAGE_BYTES
    print(f"index of {NEEDED} of {FILES} files, {size / 1e9:.1f} GB: {index:.2f} s, again {again:.2f} s, {CORES} threads")
    print(f"  all files walked and hashed, the others empty: {walk + everything:.2f} s, {(walk + everything) / index:.1f} times")
    print(f"  all files hashed at the speed of those that are needed: {index * FILES / NEEDED / 60:.0f} minutes, by calculation")
    print(f"plan: {plan:.3f} s; all files statted: {walk:.2f} s, {walk / plan:.0f} times")


def measure_decoding() -> None:
    """Slices of a volume on DeepBraTumIA's grid."""
    values = np.random.default_rng(0).integers(0, 1000, (182, 218, 182)).astype(np.int16)
    values[:30] = values[150:] = 0
    data = nib.Nifti1Image(values, np.eye(4)).to_bytes()
    readers = [partial(nifti.cut_coronal_slice, index=index) for index in range(80, 80 + SLICES)]
    together = time_call(lambda: render_images(data, nifti.read_windowed_volume, readers, 256))
    singly = time_call(lambda: [render_images(data, nifti.read_windowed_volume, [r], 256) for r in readers])
    one = time_call(lambda: render_images(data, nifti.read_windowed_volume, readers[:1], 256))
    print(f"{SLICES} slices of a volume decoded once: {together:.2f} s (one slice {one:.2f} s)")
    print(f"  decoded for each slice: {singly:.2f} s, {singly / together:.1f} times")


def main() -> None:
    measure_decoding()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        root = Path(folder, "mimic")
        print(f"{FILES} files made in {time_call(lambda: write_copy(root)):.0f} s")
        os.chdir(folder)
        measure_index(root)
        os.chdir("/")


if __name__ == "__main__":
    main()
