"""Checkpoints of one training: each run of it writes to a folder of its own and goes on from the newest whole one of any run.

Two runs may overlap, as where a node was lost and its job was started elsewhere while it still computes. So no run writes,
or deletes what is newer than its own, where another may write.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from medmim.common import files
from medmim.common.errors import UserError
from medmim.training.runtime.preemption import StopRequest

COMPLETE_MARKER = "whole.json"
"""Written last into a checkpoint: {"format_version": MARKER_VERSION, "files": {name: {"bytes": size, "sha256": digest}}}."""
MARKER_VERSION = 2
"""To be raised with any change of the marker's or a checkpoint's format: training does not go on from another version."""
HASH_THREADS = 8
"""Files hashed at a time: those of several processes are as many, and of one a thread's speed is that of sha256sum."""

log = logging.getLogger("medmim")


def _list_files(checkpoint: Path) -> list[Path]:
    return [p for p in sorted(checkpoint.rglob("*")) if p.is_file() and p.name != COMPLETE_MARKER]


def _measure_files(checkpoint: Path) -> dict[str, int]:
    """Size of each file by its name below the checkpoint."""
    return {p.relative_to(checkpoint).as_posix(): p.stat().st_size for p in _list_files(checkpoint)}


def _hash_files(checkpoint: Path) -> dict[str, str]:
    """Sha256 of each file by its name below the checkpoint."""
    paths = _list_files(checkpoint)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = list(pool.map(files.hash_file, paths))
    return {path.relative_to(checkpoint).as_posix(): digest for path, digest in zip(paths, digests, strict=True)}


def _sync_path(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk and not in the machine's memory alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(checkpoint: Path) -> None:
    """Have all of a checkpoint on the disk. To be called on each node: a machine can only sync what it wrote itself."""
    for path in (*_list_files(checkpoint), *(p for p in checkpoint.rglob("*") if p.is_dir()), checkpoint, checkpoint.parent):
        with suppress(FileNotFoundError):  # temporary files of another process
            _sync_path(path)


def mark_complete(checkpoint: Path) -> None:
    """Declare a checkpoint whole, once its files are on the disk: else a power loss could leave zeros that are called whole."""
    sync_files(checkpoint)
    sizes, digests = _measure_files(checkpoint), _hash_files(checkpoint)
    records = {name: {"bytes": size, "sha256": digests[name]} for name, size in sizes.items()}
    temporary = checkpoint / f".{COMPLETE_MARKER}.{os.getpid()}"
    temporary.write_text(json.dumps({"format_version": MARKER_VERSION, "files": records}), encoding="utf-8")
    _sync_path(temporary)
    temporary.replace(checkpoint / COMPLETE_MARKER)
    _sync_path(checkpoint)


def is_complete(checkpoint: Path) -> bool:
    """Tell whether it was marked in this version of the format and its files are still those, byte by byte.

    One that was never marked is of a run that was killed while it wrote: no word is said of it.
    """
    try:
        marker = json.loads((checkpoint / COMPLETE_MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        problem = f"its {COMPLETE_MARKER} is damaged"
    else:
        problem = _find_damage(checkpoint, marker if isinstance(marker, dict) else {})
    if problem:
        log.warning("%s: not used: %s", checkpoint, problem)
    return not problem


def _find_damage(checkpoint: Path, marker: Mapping[str, Any]) -> str:
    """Why a marked checkpoint can't be used; an empty string where it can."""
    if (marker_version := marker.get("format_version")) != MARKER_VERSION:
        version = "not stated" if marker_version is None else marker_version
        return f"its format version is {version}, and this checkout reads version {MARKER_VERSION}"
    records = marker.get("files", {})
    sizes = _measure_files(checkpoint)
    changed = [name for name in sorted(records.keys() | sizes) if records.get(name, {}).get("bytes") != sizes.get(name)]
    if not changed:
        changed = [name for name, digest in _hash_files(checkpoint).items() if records[name]["sha256"] != digest]
    return f"{', '.join(changed)}: not the bytes that were written, as after a power loss" if changed else ""


def _list_checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Steps and path of every checkpoint of any run, whole or not."""
    for path in sorted(folder.glob("*/checkpoint-*")):
        if (steps := path.name.removeprefix("checkpoint-")).isdigit():
            yield int(steps), path


def find_newest(folder: Path) -> Path | None:
    """The whole checkpoint of the most steps of any run, or None. `folder` of the training holds a folder a run."""
    return next((path for _, path in sorted(_list_checkpoints(folder), reverse=True) if is_complete(path)), None)


def prune_checkpoints(folder: Path, own_checkpoint: Path, steps: int) -> None:
    """Delete what other runs left, up to the steps of `own_checkpoint`, this run's whole checkpoint."""
    for other_steps, path in _list_checkpoints(folder):
        if other_steps <= steps and path.parent != own_checkpoint.parent:
            shutil.rmtree(path, ignore_errors=True)


def _any_process(condition: bool, args: TrainingArguments) -> bool:
    """Whether it is so in any of the processes; all of them must ask."""
    if not dist.is_available() or not dist.is_initialized():
        return condition
    flag = torch.tensor(int(condition), device=args.device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


class CheckpointCallback(TrainerCallback):
    """Ends a training between two steps where any of its processes was told to, and marks each checkpoint once it is whole.

    `is_superseded` tells whether another run of the same work took over: then nothing more is written.
    """

    def __init__(self, stop: StopRequest, is_superseded: Callable[[], bool]) -> None:
        self.stop, self.is_superseded = stop, is_superseded

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer when all is loaded: from here on, work would be lost."""
        self.stop.steps = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer after each step, and after its own choice whether to save."""
        self.stop.steps = (self.stop.steps or 0) + 1
        if _any_process(self.stop.is_requested, args):
            control.should_save = control.should_training_stop = True
        if control.should_save and _any_process(state.is_world_process_zero and self.is_superseded(), args):
            raise UserError("another run of this training took over and goes on from its checkpoints: this one ends")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Called by the Trainer in each process once it wrote its part of a checkpoint."""
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
            if args.local_process_index == 0:
                sync_files(checkpoint)
            dist.barrier()
        if state.is_world_process_zero:
            mark_complete(checkpoint)
            if not self.is_superseded():
                prune_checkpoints(checkpoint.parent.parent, checkpoint, state.global_step)
