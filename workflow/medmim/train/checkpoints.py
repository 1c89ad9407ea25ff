"""Checkpoints of one training: whole ones marked, the newest found, those of other work never touched by it."""

import json
import os
import shutil
from pathlib import Path

from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

MARK = "whole.json"
"""Written last into a checkpoint: its files with their sizes."""


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        p.relative_to(checkpoint).as_posix(): p.stat().st_size
        for p in sorted(checkpoint.rglob("*"))
        if p.is_file() and p.name != MARK
    }


def mark(checkpoint: Path) -> None:
    """Declare a checkpoint whole."""
    temporary = checkpoint / f".{MARK}.{os.getpid()}"
    temporary.write_text(json.dumps(_sizes(checkpoint)))
    temporary.replace(checkpoint / MARK)


def is_whole(checkpoint: Path) -> bool:
    """Whether it was marked and its files are still those."""
    try:
        return bool(json.loads((checkpoint / MARK).read_text()) == _sizes(checkpoint))
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def newest(folder: Path) -> Path | None:
    """The whole checkpoint of the most steps in a folder, or None."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit() and is_whole(p)]
    return max(found, key=lambda p: int(p.name.removeprefix("checkpoint-")), default=None)


def drop_torn(folder: Path) -> None:
    """Delete the checkpoints that are not whole: a kill left them."""
    for path in folder.glob("checkpoint-*"):
        if not is_whole(path):
            shutil.rmtree(path)


class Marker(TrainerCallback):
    """Marks each checkpoint after it was saved by all processes."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer once a checkpoint is written."""
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            mark(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
