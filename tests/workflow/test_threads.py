"""A run on other cores, with other threads asked of Snakemake and in the environment, leaves the same bytes."""

import os
import shutil
from pathlib import Path

from runs import MINI, call_snakemake, hash_artifacts

RUN_PATH = Path("results/mini")
COMPUTED = ("models", "predictions", "replies", "scores", "leaderboard.parquet", "comparisons.parquet")
"""What models and statistics are made into; all else is no arithmetic."""
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SLURM_CPUS_PER_TASK"), "3"),
    "OMP_DYNAMIC": "true",
}


def test_a_run_is_the_same_bytes_on_one_core(mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini / RUN_PATH, tmp_path / RUN_PATH, symlinks=True, ignore=shutil.ignore_patterns(*COMPUTED, "checkpoints"))
    cores = os.sched_getaffinity(0)
    threads = ("--set-threads", *(f"{rule}=3" for rule in ("make_base", "tune", "predict", "score", "leaderboard")))
    os.sched_setaffinity(0, {min(cores)})
    try:
        call_snakemake(tmp_path, *threads, "--configfile", MINI, "--cores", "3", MEDMIM_CACHE="", **ENVIRONMENT)
    finally:
        os.sched_setaffinity(0, cores)
    assert hash_artifacts(tmp_path) == hash_artifacts(mini)
