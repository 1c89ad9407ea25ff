"""Whether the GPUs are there that a job was promised."""

import os

from medmim.common.errors import UserError


def require_gpus(gpus: int) -> None:
    """Raise UserError unless this process finds that many GPUs. To be asked first of all: weights take long to read."""
    if not gpus:
        return
    import torch

    device_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device_count < gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise UserError(
            f"gpus: {gpus} asked for, but torch {torch.__version__} finds {device_count} on this node (CUDA_VISIBLE_DEVICES "
            f"{visible}): "
            "start the job on a GPU node, install a torch built for CUDA, or set gpus: 0"
        )
