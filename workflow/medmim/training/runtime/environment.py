"""What a training sets before it begins: threads, seeds, the environment of its libraries."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from medmim.common.cpu_threads import set_torch_threads
from medmim.config.training import Tuning


def prepare_process(tuning: Tuning, seed: int) -> None:
    """Fix threads and seeds, and what DeepSpeed reads of its environment."""
    fix_threads_and_seeds(seed, tuning.threads, tuning.gpus)
    if tuning.zero_stage:
        _set_deepspeed_env()


def fix_threads_and_seeds(seed: int, threads: int, gpus: int = 0) -> None:
    """Fix the number of CPU threads and seed every generator; hush the libraries."""
    transformers.logging.set_verbosity_warning()
    transformers.logging.disable_progress_bar()
    if not gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed, which accelerate imports, looks for GPUs and warns
    set_torch_threads(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _set_deepspeed_env() -> None:
    """The environment DeepSpeed reads: its build tools (ninja stands beside python), a group of one without torchrun."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # any that is free
