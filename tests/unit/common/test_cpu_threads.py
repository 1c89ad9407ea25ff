"""What programs compute is the same bytes whatever cores a process may use and whatever its environment says of threads."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from config_files import config_file
from medmim.common.files import INDEX_NAME, hash_file
from medmim.provenance.code_digest import WORKFLOW
from small_models import write_model, write_tables

THREADS = 3
"""Of models, as the config says."""
SURROUNDINGS: dict[str, tuple[bool, Mapping[str, str]]] = {
    "nothing said": (False, {}),
    "one core": (True, {"SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "4"}),
    "limits": (False, {"OMP_DYNAMIC": "true", "OMP_THREAD_LIMIT": "2", "OMP_MAX_ACTIVE_LEVELS": "0", "MKL_NUM_THREADS": "2"}),
}
"""Whether a process is bound to one core, and its environment."""
RESAMPLE = """
import hashlib
from medmim.provenance.job import build_parser
build_parser("")
import numpy as np
from medmim.scoring import bootstrap
rng = np.random.default_rng(1)
design = bootstrap.Design.from_patients([[f"p{n}", f"p{n // 2}"] for n in range(2000)])
means = bootstrap.resample_means(rng.uniform(size=(2000, 31)), design, 1000, rng)
print(hashlib.sha256(means.deviations.tobytes()).hexdigest())
"""
JOIN_GROUP = f"""
from medmim.provenance.job import build_parser
build_parser("")
import torch
from accelerate import PartialState
from medmim.config.training import Tuning
from medmim.training.runtime import environment
environment.prepare_process(Tuning(processes=2, threads={THREADS}), seed=1)
PartialState(cpu=True)
print(torch.get_num_threads())
torch.distributed.destroy_process_group()
"""
LIST_EARLY_IMPORTS = """
import runpy, sys
from pathlib import Path
for script in sorted(Path(sys.argv[1]).glob("*.py")):
    if "build_parser(" in script.read_text(encoding="utf-8"):
        runpy.run_path(str(script), run_name="imported")
        print(script.name, *sorted({"numpy", "scipy", "torch"} & sys.modules.keys()))
"""


def start_python(surroundings: str, *words: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """A new Python, whose libraries read its environment as they are loaded."""
    is_bound, variables = SURROUNDINGS[surroundings]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "OPENBLAS_", "SLURM_"))
    }
    first_words = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))] if is_bound else []
    return subprocess.Popen(
        [*first_words, sys.executable, *words], env={**inherited, "PYTHONPATH": str(WORKFLOW), **variables, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def collect_output(*processes: "subprocess.Popen[str]") -> str:
    """What processes printed, once all have ended well."""
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return "".join(printed for printed, _ in outputs)


def test_no_library_is_loaded_before_its_threads_are_set() -> None:
    lines = collect_output(start_python("nothing said", "-c", LIST_EARLY_IMPORTS, WORKFLOW / "scripts")).splitlines()
    assert len(lines) > 20 and [line for line in lines if " " in line] == []


def test_resampled_means_do_not_depend_on_cores() -> None:
    """NumPy's BLAS has as many threads as cores, if nothing else is said."""
    assert len({collect_output(start_python(name, "-c", RESAMPLE)) for name in SURROUNDINGS}) == 1


def test_replies_do_not_depend_on_limits_of_threads(tmp_path: Path) -> None:
    """OpenMP may be told to start fewer threads than torch asks for."""
    write_tables(tmp_path)
    (tmp_path / "base").mkdir()
    write_model(tmp_path / "base", "mantis")
    cfg = {"model": "m", "family": "mantis", "conditions": ["plain"], "text_likelihood": True, "system": "", "batch": 16}
    cfg |= {"chat": {}, "thinking": None}

    def predict(surroundings: str) -> str:
        out = tmp_path / surroundings
        collect_output(start_python(
            surroundings, WORKFLOW / "scripts/predict.py", "--model", tmp_path / "base" / INDEX_NAME,
            "--cfg", config_file(cfg | {"max_new_tokens": 8, "precision": "bf16", "gpus": 0, "threads": THREADS}),
            "--qa", tmp_path / "qa.parquet", "--images", tmp_path / "images.parquet",
            "--replies", out / "replies", "--predictions", out / "predictions.parquet",
        ))  # fmt: skip
        return hash_file(out / "predictions.parquet")

    assert len({predict(name) for name in SURROUNDINGS}) == 1


def test_processes_that_train_together_keep_the_threads_of_the_config() -> None:
    """As srun starts them: accelerate gives each process a share of the node's cores where the environment names no number."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [start_python("nothing said", "-c", JOIN_GROUP, RANK=rank, LOCAL_RANK=rank, **group) for rank in "01"]
    assert collect_output(*processes).split() == [str(THREADS)] * 2
