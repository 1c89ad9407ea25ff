"""What the machine must offer a training, checked before anything is read: GPUs, processes, threads."""

import os
import random
import socket
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from medmim.job import UserError
from medmim.train.recipe import Tuning


def rank() -> int:
    """This process's number among all of torchrun's; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def settle(tuning: Tuning, seed: int) -> None:
    """Check the machine against the config, fix threads and seeds. Raises UserError where it can't do what the config asks."""
    if tuning.gpus:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if found < local:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
            raise UserError(
                f"the config asks for {tuning.gpus} GPU(s), but torch {torch.__version__} finds {found} here "
                f"(CUDA_VISIBLE_DEVICES {visible}): run where they are, or set gpus: 0"
            )
        if world() != tuning.gpus:
            raise UserError(
                f"gpus: {tuning.gpus}, but {world()} process(es) were started: start torchrun with one process for each GPU"
            )
    fix(seed, tuning.threads, tuning.gpus)
    if tuning.zero_stage:
        _deepspeed()


def fix(seed: int, threads: int, gpus: int = 0) -> None:
    """Fix the number of CPU threads, which changes the last bits of a sum, and seed every generator; hush the libraries."""
    transformers.logging.set_verbosity_warning()
    transformers.logging.disable_progress_bar()
    if not gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed, which accelerate imports, looks for GPUs and warns
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _deepspeed() -> None:
    """The environment DeepSpeed reads: its build tools (ninja stands beside python), a group of one without torchrun."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
