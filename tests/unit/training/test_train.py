"""Making a base and tuning it: what is trained, the same bytes twice, stock loading; being stopped, killed, run twice at once,
and going on to the same bytes; two processes, with and without DeepSpeed."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import LlavaForConditionalGeneration

from config_files import config_file
from forked import Program
from medmim.config.training import SIZES, Tuning
from medmim.models import weights
from medmim.models.families.base import Layout
from medmim.models.families.registry import get_family
from medmim.provenance.code_digest import WORKFLOW
from medmim.tables import table_io
from medmim.training.adapters import PROJECTOR, make_trainable
from medmim.training.data.order import order_mixed_groups, order_samples, permute_epoch
from medmim.training.finetune import build_deepspeed_config, total_steps
from medmim.training.runtime import checkpoints, preemption
from medmim.training.runtime.process_group import ProcessGroup, torchrun_env_from_srun
from medmim.training.runtime.throughput import ThroughputMeter, format_measurements
from small_models import run_program, write_model, write_tables

FAMILIES = ["llava-med", "mantis"]
TUNING = {
    "lora_rank": 4, "lora_alpha": 8, "max_steps": 6, "precision": "fp32", "gradient_checkpointing": False,
    "max_length": 128, "checkpoint_steps": 2, "learning_rate": 1e-2,
}  # fmt: skip
PADDED = {"packing": False, "batch": 2}
MODES: dict[str, tuple[str, dict[str, object]]] = {
    "packed": ("llava-med", {}), "padded": ("mantis", PADDED), "full": ("mantis", {"method": "full", "learning_rate": 1e-3}),
}  # fmt: skip
"""Families, and how they are trained."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and shards of both families."""
    folder = tmp_path_factory.mktemp("train")
    qa, images, _ = write_tables(folder)
    with pytest.MonkeyPatch.context() as patch:
        for family in FAMILIES:
            (folder / family).mkdir()
            model = write_model(folder / family, family)
            (folder / family / "chat_template.jinja").write_text("of the base")
            parts = {part: folder / f"{family}.{part}.parquet" for part in ("samples", "pixels", "rejected")}
            run_program(patch, "build_shards.py", model=model, qa=qa, images=images, **parts,
                cfg={"family": family, "system": "", "max_length": 512, "max_rejected": 0})  # fmt: skip
    return folder


def command(prepared: Path, out: Path, family: str, *, board: bool = False, **tuning: object) -> list[str]:
    return [
        str(WORKFLOW / "scripts/tune.py"),
        "--cfg", config_file({"family": family, "hub": "owner/base", "seed": 3, "tuning": TUNING | tuning}),
        "--model", str(prepared / family / "files.parquet"), "--samples", str(prepared / f"{family}.samples.parquet"),
        "--pixels", str(prepared / f"{family}.pixels.parquet"), "--tuned", str(out / "adapter/files.parquet"),
        "--loss", str(out / "loss.parquet"), "--checkpoints", str(out / "checkpoints"),
        *(["--tensorboard", str(out / "board")] if board else []),
    ]  # fmt: skip


ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKFLOW)}


def tune(prepared: Path, out: Path, family: str, status: int = 0, **kwargs: object) -> str:
    with started(command(prepared, out, family, **kwargs)) as process:
        found, said = ended(process)
    assert found == status, said[-4000:]
    return said


def started(words: list[str], **env: str) -> Program:
    """A program that runs, and is killed at the end if it still does."""
    return Program(words, env=ENV | env)


def until_checkpoint(out: Path, *processes: Program) -> None:
    """Wait for a whole checkpoint, which the processes are about to write."""
    deadline = time.monotonic() + 600
    while not list(out.glob("checkpoints/*/*/checkpoint-*/whole.json")):
        assert all(p.poll() is None for p in processes), "no checkpoint was written before the end"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tune_here(patch: pytest.MonkeyPatch, *given: Any, **kwargs: Any) -> None:
    """`tune` in this process. Raises SystemExit where it fails."""
    words = command(*given, **kwargs)[1:]
    options: dict[str, Any] = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    run_program(patch, "tune.py", **options)


def ended(process: Program) -> tuple[int, str]:
    """Exit status and what was said."""
    said = process.communicate(timeout=600)[1]
    return process.returncode, said


@pytest.fixture(scope="module")
def tuned(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished training of each mode."""
    folders = {mode: tmp_path_factory.mktemp(mode) for mode in MODES}
    for mode, (family, tuning) in MODES.items():
        tune(prepared, folders[mode], family, **tuning)
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_only_lora_in_the_language_model_and_the_projector_are_trained(prepared: Path, family: str) -> None:
    model = make_trainable(weights.load_model(prepared / family, family=family), Tuning(**TUNING), "base")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    lora = [name for name in trained if "lora_" in name]
    layers = model.config.text_config.num_hidden_layers
    assert len(lora) == layers * 7 * 2 and all("language_model" in name for name in lora)
    rest = sorted(set(trained) - set(lora))
    assert rest and all(PROJECTOR in name and "modules_to_save" in name for name in rest)
    whole = dict(model.named_parameters())
    assert sum(whole[n].numel() for n in rest) == sum(p.numel() for p in weights.load_model(prepared / family, family=family)
                                                      .model.multi_modal_projector.parameters())  # fmt: skip


def test_an_adapter_names_its_base_by_repository_and_commit(prepared: Path, tmp_path: Path) -> None:
    base = weights.load_model(prepared / "mantis", family="mantis")
    make_trainable(base, Tuning(**TUNING), "owner/base", "0123abc").save_pretrained(str(tmp_path))
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == ("owner/base", "0123abc")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_frozen_tower_keeps_nothing_to_go_back_through(prepared: Path, method: str) -> None:
    base = weights.load_model(prepared / "mantis", family="mantis").train()
    side = base.config.vision_config.image_size
    model = make_trainable(base, Tuning(**TUNING | {"method": method}), "base")
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})  # as the Trainer does
    assert not base.model.vision_tower(torch.zeros(1, 3, side, side)).last_hidden_state.requires_grad


@pytest.mark.parametrize("mode", ["packed", "padded"])
def test_the_adapter_is_what_stock_peft_loads(prepared: Path, tuned: dict[str, Path], mode: str) -> None:
    folder, family = tuned[mode] / "adapter", MODES[mode][0]
    assert {p.name for p in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "files.parquet", "files.parquet.prov.json",
    }  # fmt: skip
    base = LlavaForConditionalGeneration.from_pretrained(prepared / family, dtype=torch.float32)
    before = {name: p.clone() for name, p in base.named_parameters()}
    model = PeftModel.from_pretrained(base, folder)
    merged = model.merge_and_unload()
    changed = {name for name, p in merged.named_parameters() if name in before and not torch.equal(p, before[name])}
    assert changed and not [n for n in changed if "vision_tower" in n]
    assert [n for n in changed if PROJECTOR in n] and [n for n in changed if "mlp.up_proj" in n]
    assert str(prepared) not in (folder / "adapter_config.json").read_text()


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_recorded_and_falls(tuned: dict[str, Path], mode: str) -> None:
    loss = table_io.read_frame(tuned[mode] / "loss.parquet", "loss")
    assert loss.step.tolist() == list(range(1, 7)) and set(loss.stage) == {"tune"}
    assert loss.tokens.is_monotonic_increasing and loss.loss.iloc[-2:].mean() < loss.loss.iloc[:2].mean()
    assert not (tuned[mode] / "checkpoints").exists()


def same(a: Path, b: Path) -> bool:
    names = ["loss.parquet", *(str(p.relative_to(a)) for p in a.glob("adapter/*.safetensors"))]
    return len(names) == 2 and all((a / n).read_bytes() == (b / n).read_bytes() for n in names)


def test_two_runs_give_the_same_bytes_with_and_without_workers(prepared: Path, tuned: dict[str, Path], tmp_path: Path) -> None:
    tune(prepared, tmp_path, "llava-med", workers=1)
    assert same(tmp_path, tuned["packed"])


LONG = {"max_steps": 80, "checkpoint_steps": 2, "lora_dropout": 0.1}
"""A training with time to be disturbed, whose result depends on the state of the random generators."""


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of LONG."""
    folder = tmp_path_factory.mktemp("undisturbed")
    tune(prepared, folder, "llava-med", **LONG)
    return folder


def test_a_killed_run_goes_on_to_the_same_weights(prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    with started(command(prepared, tmp_path, "llava-med", **LONG)) as process:
        until_checkpoint(tmp_path, process)
        process.kill()
    assert not (tmp_path / "adapter/files.parquet").exists() and not (tmp_path / "loss.parquet").exists()
    newest = checkpoints.find_newest(next(tmp_path.glob("checkpoints/*")))
    assert newest is not None
    torn = newest.with_name("checkpoint-79")
    shutil.copytree(newest, torn)
    weights_file = torn / "adapter_model.safetensors"
    weights_file.write_bytes(bytes(weights_file.stat().st_size))
    said = tune(prepared, tmp_path, "llava-med", **LONG)
    assert f"resumes from {newest.name}" in said
    assert "checkpoint-79: not used: adapter_model.safetensors: not the bytes that were written" in said
    assert same(undisturbed, tmp_path) and not (tmp_path / "checkpoints").exists()


def test_a_run_told_to_stop_goes_on_to_the_same_weights(prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    with started(command(prepared, tmp_path, "llava-med", **LONG)) as process:
        until_checkpoint(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        status, said = ended(process)
    assert status == 75 and "told to stop (SIGTERM) at step" in said and "Traceback" not in said
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints"}
    step = said.split("at step ")[1].split()[0]
    assert f"resumes from checkpoint-{step}" in tune(prepared, tmp_path, "llava-med", **LONG)
    assert same(undisturbed, tmp_path)


@pytest.mark.parametrize(
    ("mode", "steps"), [("packed", [0]), ("padded", [1]), ("packed", [3, 4]), ("full", [5]), ("packed", [6])]
)
def test_stopped_after_any_step(
    prepared: Path, tuned: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, steps: list[int]
) -> None:
    """SIGTERM while the model is loaded, after the first step, twice, before and after the last."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    family, tuning = MODES[mode]
    checked, loaded = checkpoints.CheckpointCallback.on_step_end, weights.load_model

    def on_step_end(keeper, args, state, control, **kwargs):
        if state.global_step in steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return checked(keeper, args, state, control, **kwargs)

    def load(*args, **kwargs):
        if 0 in steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return loaded(*args, **kwargs)

    monkeypatch.setattr(checkpoints.CheckpointCallback, "on_step_end", on_step_end)
    monkeypatch.setattr(weights, "load_model", load)
    for step in steps:
        if step < 6:
            with pytest.raises(SystemExit) as end:
                tune_here(monkeypatch, prepared, tmp_path, family, **tuning)
            assert end.value.code == 75
            assert {p.name for p in tmp_path.iterdir()} == ({"checkpoints"} if step else set())
    steps.clear()
    if not (tmp_path / "adapter").exists():
        tune_here(monkeypatch, prepared, tmp_path, family, **tuning)
    assert same(tuned[mode], tmp_path) and not (tmp_path / "checkpoints").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_two_runs_of_one_training_do_not_meet(prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The first one is cut off (here: halted), the second one takes over, then the first one comes back."""
    words = command(prepared, tmp_path, "llava-med", **LONG)
    with started(words) as lost:
        until_checkpoint(tmp_path, lost)
        lost.send_signal(signal.SIGSTOP)
        [kept] = tmp_path.glob("checkpoints/*/*/")
        before = len(list(kept.glob("checkpoint-*")))
        with started(words) as new:
            while len(list(tmp_path.glob("checkpoints/*/*/"))) < 2:
                assert new.poll() is None
                time.sleep(0.01)
            new.send_signal(signal.SIGSTOP)
            assert len(list(kept.glob("checkpoint-*"))) == before
            lost.send_signal(signal.SIGCONT)
            status, said = ended(lost)
            assert status == 1 and "another run of this training took over" in said and "Traceback" not in said
            new.send_signal(signal.SIGCONT)
            status, said = ended(new)
            assert status == 0 and "resumes from checkpoint-" in said, said
    assert same(undisturbed, tmp_path) and not (tmp_path / "checkpoints").exists()


def test_a_run_deletes_what_it_has_overtaken_and_no_more(tmp_path: Path) -> None:
    for run_, step, whole in [("a", 2, True), ("a", 4, True), ("a", 5, False), ("b", 6, True), ("c", 7, False), ("c", 8, True)]:
        made = tmp_path / run_ / f"checkpoint-{step}"
        made.mkdir(parents=True)
        (made / "weights").write_text("x")
        if whole:
            checkpoints.mark_complete(made)
    assert checkpoints.find_newest(tmp_path) == tmp_path / "c/checkpoint-8"
    checkpoints.prune_checkpoints(tmp_path, tmp_path / "b/checkpoint-6", 6)
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*"))
    assert left == ["b/checkpoint-6", "c/checkpoint-7", "c/checkpoint-8"]


@pytest.mark.parametrize("mark", [{"format_version": 3}, {}, None], ids=["newer", "older", "no object"])
def test_a_checkpoint_of_another_format_version_is_told_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: dict[str, object] | None
) -> None:
    for step in (2, 4):
        made = tmp_path / f"a/checkpoint-{step}"
        made.mkdir(parents=True)
        (made / "weights").write_text("x")
        checkpoints.mark_complete(made)
    marker = made / checkpoints.COMPLETE_MARKER
    content = json.loads(marker.read_text())
    sha256 = hashlib.sha256(b"x").hexdigest()
    assert content == {"format_version": 2, "files": {"weights": {"bytes": 1, "sha256": sha256}}}
    marker.write_text(json.dumps([1] if mark is None else {"files": content["files"]} | mark))
    assert checkpoints.find_newest(tmp_path) == tmp_path / "a/checkpoint-2"
    version = "3" if mark else "not stated"
    assert f"{made}: not used: its format version is {version}, and this checkout reads version 2" in caplog.text


@pytest.mark.parametrize("harm", ["zeros", "a bit", "cut", "gone", "more", "marker"])
def test_a_checkpoint_that_a_power_loss_damaged_is_told_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    """Also where its files have the sizes that were written."""
    for step in (2, 4):
        made = tmp_path / f"a/checkpoint-{step}"
        (made / "global_step").mkdir(parents=True)
        for name in ("weights", "global_step/moments"):
            (made / name).write_bytes(bytes(range(256)) * 4000)
        checkpoints.mark_complete(made)
    assert checkpoints.find_newest(tmp_path) == made
    moments, marker = made / "global_step/moments", made / checkpoints.COMPLETE_MARKER
    whole = moments.read_bytes()
    if harm == "gone":
        moments.unlink()
    elif harm == "more":
        (made / "global_step/other").write_bytes(b"")
    elif harm == "marker":
        marker.write_bytes(bytes(marker.stat().st_size))
    else:
        moments.write_bytes({"zeros": bytes(len(whole)), "a bit": whole[:-1] + b"\xfe", "cut": whole[:-1]}[harm])
    assert checkpoints.find_newest(tmp_path) == tmp_path / "a/checkpoint-2"
    named = {"more": "global_step/other: not the bytes", "marker": "its whole.json is damaged"}
    assert f"{made}: not used: {named.get(harm, 'global_step/moments: not the bytes')}" in caplog.text


def test_a_checkpoint_is_on_the_disk_before_it_is_called_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file and folder is synced, then the marker, then the folder with its name."""
    made = tmp_path / "run/checkpoint-2"
    (made / "global_step").mkdir(parents=True)
    (made / "global_step/moments").write_text("m")
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    checkpoints.mark_complete(made)
    *first, marker, last = [path.relative_to(tmp_path).as_posix() for path in synced]
    assert set(first) == {"run/checkpoint-2/global_step/moments", "run/checkpoint-2/global_step", "run/checkpoint-2", "run"}
    assert "whole.json" in marker and last == "run/checkpoint-2"


def test_checkpoints_of_other_work_are_not_resumed(prepared: Path, tmp_path: Path) -> None:
    with started(command(prepared, tmp_path, "mantis", max_steps=40, checkpoint_steps=1)) as process:
        until_checkpoint(tmp_path, process)
    assert "resumes" not in tune(prepared, tmp_path, "mantis", learning_rate=1e-3)


def test_what_is_left_of_a_training_goes_when_the_cache_has_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENV, "MEDMIM_CACHE", str(tmp_path / "cache"))
    tune(prepared, tmp_path / "a", "mantis")
    (tmp_path / "b/checkpoints/0/run/checkpoint-2").mkdir(parents=True)
    assert "(from the cache)" in tune(prepared, tmp_path / "b", "mantis")
    assert same(tmp_path / "a", tmp_path / "b") and not (tmp_path / "b/checkpoints").exists()


SCONTROL = """#!/bin/sh
echo "$@" >> {calls}
[ "$1" = show ] && echo 'JobId=7 JobName=tune JobState={state} Reason=None PreemptTime={preempted} Restarts=0'
exit {status}
"""


@pytest.mark.parametrize(
    ("state", "preempted", "moved", "status", "queued", "said"),
    [
        ("RUNNING", "None", True, 0, True, "is queued again"),
        ("RUNNING", "2026-01-01T00:00:00", False, 0, True, "is queued again"),
        ("RUNNING", "None", False, 0, False, "did no step in its time"),
        ("COMPLETING", "None", True, 0, False, "is ending (COMPLETING)"),  # the user's scancel, or the end of its time
        ("RUNNING", "None", True, 1, False, "SLURM did not queue job 7 again"),
    ],
)
def test_slurm_is_asked_to_go_on_where_it_would_not_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    state: str, preempted: str, moved: bool, status: int, queued: bool, said: str,
) -> None:  # fmt: skip
    calls, stand_in = tmp_path / "calls", tmp_path / "scontrol"
    stand_in.write_text(SCONTROL.format(calls=calls, state=state, preempted=preempted, status=status))
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with caplog.at_level("INFO"):
        preemption.requeue_job(moved)
    assert said in caplog.text
    assert ("requeue 7" in calls.read_text()) is queued


STEP = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "2", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.3",
}  # fmt: skip


def test_a_step_of_srun_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun_env_from_srun(STEP) == {
        "RANK": "4", "LOCAL_RANK": "0", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "10.0.0.3", "MASTER_PORT": "20113",
    }  # fmt: skip
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (STEP | {"SLURM_STEP_NUM_TASKS": "1"}).items():
        monkeypatch.setenv(name, value)
    alone = ProcessGroup.from_environment()
    assert (alone.rank, alone.world_size, alone.is_main) == (0, 1, True) and alone.broadcast("it", lambda: "said") == "said"


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[dict[str, str]]]:
    """What srun tells each of two processes on two nodes, in a job that SLURM does not know."""
    job = str(os.getpid() * 10 + 1)  # the port comes from it
    told = STEP | {"SLURM_JOB_ID": job, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(SCONTROL.format(calls=tmp_path / "calls", state="RUNNING", preempted="None", status=0))
    (tmp_path / "bin/scontrol").chmod(0o755)
    told |= {"SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return [told | {"SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in ("0", "1")]


def assert_holds_what_is_trained(checkpoint: Path) -> None:
    """Of DeepSpeed's files: the adapter's weights once, and of each its copy in float32 and two moments; no others."""
    [model_file] = checkpoint.glob("*/mp_rank_*_model_states.pt")
    held = torch.load(model_file, weights_only=False)["module"]
    assert len(held) == 2 * 7 * 2 + 4 and all("lora_" in name or PROJECTOR in name for name in held)
    trained = sum(weight.numel() for weight in held.values())
    assert model_file.stat().st_size < 2 * 4 * trained + 30_000  # names and a flat buffer's padding; the base has 90,000 weights
    copies = 0
    for path in checkpoint.glob("*/*_optim_states.pt"):
        state = torch.load(path, weights_only=False)["optimizer_state_dict"]
        moments = [
            m for group in state["base_optimizer_state"]["state"].values() for m in (group["exp_avg"], group["exp_avg_sq"])
        ]
        copies += sum(tensor.numel() for tensor in (*moments, *state["single_partition_of_fp32_groups"]))
    assert 3 * trained <= copies < 3.1 * trained
    assert not list(checkpoint.rglob("*.safetensors"))


@pytest.mark.needs("compiler")
def test_two_processes_stop_at_one_step_and_go_on(prepared: Path, tmp_path: Path, two: list[dict[str, str]]) -> None:
    """With DeepSpeed. SIGTERM reaches only one of them, and not the one that speaks with SLURM; then one dies."""
    pair = {"processes": 2, "max_steps": 24, "checkpoint_steps": 2, "zero_stage": 2, "workers": 1}
    words = command(prepared, tmp_path / "a", "llava-med", **pair)
    with ExitStack() as stack:
        first, second = (stack.enter_context(started(words, **told)) for told in two)
        until_checkpoint(tmp_path / "a", first, second)
        second.send_signal(signal.SIGTERM)
        (status, said), (other, told) = ended(first), ended(second)
    assert status == other == 75, (said, told)
    assert said.split("at step ")[1].split()[0] == told.split("at step ")[1].split()[0]
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"show job --oneliner {two[0]['SLURM_JOB_ID']}", f"requeue {two[0]['SLURM_JOB_ID']}",
    ]  # fmt: skip
    step = said.split("at step ")[1].split()[0]
    stopped = checkpoints.find_newest(next((tmp_path / "a").glob("checkpoints/*")))
    assert stopped is not None and stopped.name == f"checkpoint-{step}"
    assert_holds_what_is_trained(stopped)
    with ExitStack() as stack:
        first, second = (stack.enter_context(started(words, **told)) for told in two)
        while not list((tmp_path / "a").glob(f"checkpoints/*/*/checkpoint-{int(step) // 2 * 2 + 2}/whole.json")):
            assert first.poll() is None and second.poll() is None
            time.sleep(0.01)
        second.kill()
        status, said = ended(first)
    assert status == 1 and f"resumes from checkpoint-{step}" in said
    assert "process 0 lost another of the 2" in said and "Traceback" not in said
    for out in (tmp_path / "a", tmp_path / "b"):
        words = command(prepared, out, "llava-med", **pair)
        with ExitStack() as stack:
            assert [ended(p)[0] for p in [stack.enter_context(started(words, **told)) for told in two]] == [0, 0]
    assert same(tmp_path / "a", tmp_path / "b")


def test_two_processes_take_one_cached_result(prepared: Path, tmp_path: Path, two: list[dict[str, str]]) -> None:
    """Only the first one looks, so that they can't see different caches."""
    pair = {"processes": 2}
    for out in (tmp_path / "a", tmp_path / "b"):
        words = command(prepared, out, "mantis", **pair)
        with ExitStack() as stack:
            cache = {"MEDMIM_CACHE": str(tmp_path / "cache")}
            processes = [
                stack.enter_context(started(words, **(told | cache if told["SLURM_PROCID"] == "0" else told))) for told in two
            ]
            said = [ended(p) for p in processes]
        assert [status for status, _ in said] == [0, 0], said
    assert "(from the cache)" in said[0][1] and same(tmp_path / "a", tmp_path / "b")


def test_gpus_that_are_not_there_fail_before_anything_is_read(prepared: Path, tmp_path: Path) -> None:
    said = tune(tmp_path, tmp_path / "out", "mantis", status=1, gpus=1)  # where there is no model to read
    assert "gpus: 1 asked for, but torch" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert "gpus: 2, but 1 process(es) were started" in tune(prepared, tmp_path / "out", "mantis", status=1, gpus=2)
    assert "processes: 2, but 1 process(es) were started" in tune(prepared, tmp_path / "out", "mantis", status=1, processes=2)


def test_a_diverging_training_says_so(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overshoot(optimizer: torch.optim.Optimizer, *given: Any, **options: Any) -> None:
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                tensor.data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", overshoot)
    with pytest.raises(SystemExit):
        tune_here(monkeypatch, prepared, tmp_path, "mantis")
    said = capsys.readouterr().err
    assert "diverged" in said and "Traceback" not in said


METHODS: dict[str, dict[str, object]] = {
    "lora": {"projector_learning_rate": 5e-3},
    "full": {"method": "full", "learning_rate": 1e-3, "projector_learning_rate": 1e-4},
}
SHARED = {"max_steps": 8, "lora_dropout": 0.0}  # each process draws its dropout for itself


@pytest.fixture(scope="module")
def alone(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process learns from two packs a step, by method."""
    folders = {method: tmp_path_factory.mktemp(method) for method in METHODS}
    for method, folder in folders.items():
        tune(prepared, folder, "llava-med", accumulation=2, **SHARED, **METHODS[method])
    return folders


def learned(folder: Path, method: str) -> dict[str, torch.Tensor]:
    """The weights; of a whole model as stock transformers loads them, all of them: ZeRO-3 gives them other names on disk."""
    if method == "lora":
        return load_file(folder / "adapter_model.safetensors")
    model, told_ = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not told_["missing_keys"] and not told_["unexpected_keys"]
    return model.state_dict()


@pytest.mark.needs("compiler")
@pytest.mark.parametrize(("stage", "method"), [(1, "lora"), (2, "lora"), (3, "lora"), (3, "full")])
def test_two_processes_with_deepspeed_learn_what_one_without_learns(
    prepared: Path, alone: dict[str, Path], tmp_path: Path, two: list[dict[str, str]], stage: int, method: str
) -> None:
    """Some packs have no image on one of the two, and their label tokens are not as many. ZeRO-3 gathers what is saved. The first
    start compiles DeepSpeed's communication operator: a minute. By torchrun once, else as srun starts them."""
    words = command(prepared, tmp_path, "llava-med", processes=2, zero_stage=stage, **SHARED, **METHODS[method])
    if stage == 2:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        subprocess.run([*launcher, *words], env=ENV, check=True)
    else:
        with ExitStack() as stack:
            processes = [stack.enter_context(started(words, **told)) for told in two]
            assert [ended(process)[0] for process in processes] == [0, 0]
    shared, one = (table_io.read_frame(out / "loss.parquet", "loss") for out in (tmp_path, alone[method]))
    assert shared[["step", "tokens"]].equals(one[["step", "tokens"]])
    assert shared.loss.tolist() == pytest.approx(one.loss.tolist(), rel=1e-5)
    trained = [learned(out / "adapter", method) for out in (tmp_path, alone[method])]
    assert trained[0].keys() == trained[1].keys()
    assert max(float((trained[0][name] - trained[1][name]).abs().max()) for name in trained[0]) < 1e-4


def updates(folder: Path, prepared: Path, method: str) -> torch.Tensor:
    """What a training of llava-med added to its base, as one vector: of LoRA the second factors, which begin at zero."""
    base = LlavaForConditionalGeneration.from_pretrained(prepared / "llava-med", dtype=torch.float32).state_dict()
    found = learned(folder / "adapter", method)
    if method == "lora":
        start = {name.split(PROJECTOR)[1]: weight for name, weight in base.items() if PROJECTOR in name}
        parts = [w.float() - (start[name.split(PROJECTOR)[1]] if PROJECTOR in name else 0)
                 for name, w in sorted(found.items()) if "lora_A" not in name]  # fmt: skip
    else:
        parts = [found[name].float() - base[name] for name in sorted(found)]
    return torch.cat([part.flatten() for part in parts])


def assert_bf16_learns_the_same(bf16: Path, fp32: Path, prepared: Path, method: str) -> None:
    """Losses within 0.5 %, and what was learned within 10 % of its length.

    bfloat16 rounds to 2^-9, 0.2 %: a loss, a mean over many labels, is off by no more than about that. AdamW divides each
    gradient by its size, so that weights whose gradients are near the rounding error go either way; the others go the same.
    """
    losses = [table_io.read_frame(out / "loss.parquet", "loss") for out in (bf16, fp32)]
    assert losses[0][["step", "tokens"]].equals(losses[1][["step", "tokens"]])
    assert losses[0].loss.tolist() == pytest.approx(losses[1].loss.tolist(), rel=5e-3)
    assert losses[0].loss.tolist() != losses[1].loss.tolist(), "it computed in fp32"
    ours, exact = (updates(out, prepared, method) for out in (bf16, fp32))
    assert float((ours - exact).norm()) < 0.1 * float(exact.norm())


BF16 = {"precision": "bf16", **SHARED}


@pytest.mark.parametrize(("packing", "method"), [("packed", "lora"), ("packed", "full"), ("padded", "lora")])
def test_bf16_learns_what_fp32_learns(
    prepared: Path, alone: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str, method: str
) -> None:
    tuning: dict[str, Any] = {"accumulation": 2, **METHODS[method], **(PADDED if packing == "padded" else {})}
    grads: set[torch.dtype] = set()
    stepped = torch.optim.AdamW.step

    def note_types(optimizer: torch.optim.AdamW, *given: Any, **options: Any) -> Any:
        for group in optimizer.param_groups:
            grads.update(type_ for p in group["params"] if p.grad is not None for type_ in (p.dtype, p.grad.dtype))
        return stepped(optimizer, *given, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", note_types)
    tune_here(monkeypatch, prepared, tmp_path / "bf16", "llava-med", **BF16, **tuning)
    assert grads == {torch.float32}
    fp32 = alone[method]
    if packing == "padded":
        fp32 = tmp_path / "fp32"
        tune_here(monkeypatch, prepared, fp32, "llava-med", **SHARED, **tuning)
    assert_bf16_learns_the_same(tmp_path / "bf16", fp32, prepared, method)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_adds_gradients_up_in_fp32(stage: int) -> None:
    """As DeepSpeed itself reads what it is given."""
    from deepspeed.runtime.config import DeepSpeedConfig

    given = build_deepspeed_config(Tuning(zero_stage=stage))
    assert given is not None
    config = DeepSpeedConfig({k: v for k, v in given.items() if v != "auto"} | {"train_batch_size": 1, "bf16": {"enabled": True}})
    assert config.grad_accum_dtype == "fp32" and config.zero_optimization_stage == stage


@pytest.mark.needs("compiler")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_of_two_processes_learns_what_fp32_of_one_learns(
    prepared: Path, alone: dict[str, Path], tmp_path: Path, two: list[dict[str, str]], stage: int
) -> None:
    words = command(prepared, tmp_path, "llava-med", processes=2, zero_stage=stage, **BF16, **METHODS["lora"])
    with ExitStack() as stack:
        processes = [stack.enter_context(started(words, **told)) for told in two]
        assert [ended(process)[0] for process in processes] == [0, 0]
    assert_bf16_learns_the_same(tmp_path, alone["lora"], prepared, "lora")


def test_the_projector_has_a_learning_rate_of_its_own(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune_here(monkeypatch, prepared, tmp_path, "mantis", projector_learning_rate=0.0, weight_decay=0.1)
    adapter = load_file(tmp_path / "adapter/adapter_model.safetensors")
    base = load_file(prepared / "mantis/model.safetensors")
    projector = {name.split(PROJECTOR)[1]: weight for name, weight in adapter.items() if PROJECTOR in name}
    assert len(projector) == 4
    for name, weight in base.items():
        if PROJECTOR in name:
            assert torch.equal(projector[name.split(PROJECTOR)[1]], weight)
    assert all(weight.abs().max() > 0 for name, weight in adapter.items() if "lora_B" in name)
    assert set(table_io.read_frame(tmp_path / "loss.parquet", "loss").learning_rate) != {0.0}


def test_full_fine_tuning_saves_a_model(prepared: Path, tuned: dict[str, Path]) -> None:
    """With all that the base's folder has beside its weights, as stock transformers and our own prediction load it."""
    folder = tuned["full"] / "adapter"
    assert {p.name for p in folder.iterdir()} == {p.name for p in (prepared / "mantis").iterdir()} | {"files.parquet.prov.json"}
    assert (folder / "chat_template.jinja").read_text() == "of the base"
    base = LlavaForConditionalGeneration.from_pretrained(prepared / "mantis", dtype=torch.float32).state_dict()
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, base[name])}
    assert changed == {name for name in base if "vision_tower" not in name}
    assert weights.load_model(folder, family="mantis").config.text_config._attn_implementation == "sdpa"
    tuned, base = (Layout.from_folder(get_family("mantis"), path) for path in (folder, prepared / "mantis"))
    assert tuned.image_tokens == base.image_tokens


def test_what_a_run_made_of_its_machine_is_told(
    prepared: Path, tuned: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the log, for TensorBoard and in the record; not in the tables, which are the same twice."""
    tune_here(monkeypatch, prepared, tmp_path, "mantis", **PADDED, board=True)
    said = capsys.readouterr().err
    assert re.search(r"[\d,]+ tokens/s, padding \d+\.\d%, waiting for data \d+\.\d%, peak memory \d+\.\d GB", said)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    names = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "padding", "loader_wait", "peak_memory_bytes"}
    assert set(board.Tags()["scalars"]) == names
    losses = [(e.step, e.value) for e in board.Scalars("loss")]
    kept = table_io.read_frame(tmp_path / "loss.parquet", "loss")
    assert losses == [(step, pytest.approx(loss)) for step, loss in zip(kept.step, kept.loss, strict=True)]
    measured = json.loads((tmp_path / "adapter/files.parquet.prov.json").read_text())["measured"]
    assert set(measured) == names - {"loss", "learning_rate", "grad_norm"} and 0 < measured["padding"] < 0.5
    assert same(tmp_path, tuned["padded"])


def test_a_meter_measures() -> None:
    now = iter([0.0, 10, 10.5, 12, 12.5, 12.5, 20])  # the start, one batch, another, that there is no third, the end
    seen = {"tokens": np.array([1000, 5000]), "cells": np.array([1000, 6000])}
    meter = ThroughputMeter(**seen, parameters=8 * 10**9, gpus=2, gpu="NVIDIA H100 80GB HBM3", clock=lambda: next(now))
    meter._gpus = 0  # whose memory can't be asked for here
    meter.start(1)
    assert list(meter.time_batches("ab")) == ["a", "b"]
    found = meter.measure_step(2)
    assert found == meter.measure_run() and found.pop("peak_memory_bytes") > 1e6
    mfu = 8e9 * 200 / (2 * 989e12)
    wanted = {"tokens_per_second": 200, "padding": 0.2, "loader_wait": 0.05, "mfu_4n": 4 * mfu, "mfu_6n": 6 * mfu}
    assert found == pytest.approx(wanted)
    assert format_measurements(found | {"peak_memory_bytes": 7.1e10}) == (
        "200 tokens/s, MFU 0.3% at 4N, MFU 0.5% at 6N, padding 20.0%, waiting for data 5.0%, peak memory 71.0 GB"
    )


def test_a_base_is_made_and_says_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qa = pretraining(tmp_path)
    cfg = {"image_size": 28, "vision_width": 16, "vision_layers": 1, "language_width": 32, "language_layers": 1, "heads": 2,
           "vision_steps": 30, "vision_batch": 8, "language_steps": 5, "language_batch": 4, "learning_rate": 2e-3}  # fmt: skip
    tokenizer = tmp_path / "tokenizer/files.parquet"
    run_program(monkeypatch, "make_tokenizer.py", qa=qa, tokenizer=tokenizer,
        cfg={"family": "mantis", "tiny": {size: cfg[size] for size in SIZES}})  # fmt: skip
    shards = {part: tmp_path / f"{part}.parquet" for part in ("samples", "pixels")}
    limits = {"family": "mantis", "system": "", "max_length": 512, "max_rejected": 0}
    tables_ = {"qa": qa, "images": tmp_path / "images.parquet", "rejected": tmp_path / "rejected.parquet"}
    run_program(monkeypatch, "build_shards.py", model=tokenizer, **tables_, **shards, cfg=limits)
    for name in ("a", "b"):
        run_program(monkeypatch, "make_base.py", **shards, qa=qa, tokenizer=tokenizer, model=tmp_path / name / "files.parquet",
            loss=tmp_path / f"{name}.parquet", cfg={"family": "mantis", "seed": 1, "threads": 1, "tiny": cfg})  # fmt: skip
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    loss = table_io.read_frame(tmp_path / "a.parquet", "loss")
    assert loss.groupby("stage").step.max().to_dict() == {"vision": 30, "language": 5}
    vision = loss[loss.stage == "vision"].loss
    assert vision.iloc[-5:].mean() < 0.5 * vision.iloc[:5].mean(), "the tower did not learn black from white"
    reading = json.loads((tmp_path / "a/files.parquet.prov.json").read_text())["reading"]
    assert reading["single"]["n"] > 0
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "a")
    assert model.config.vision_config.model_type == "siglip_vision_model" and model.config.text_config.model_type == "llama"


def pretraining(folder: Path) -> Path:
    """Closed questions about one image, black or white, and text-only ones."""
    from medmim.questions.row import question_row
    from medmim.tables import images

    common = dict(split="pretrain", source="embed", generator="test/1", options=["black", "white"])
    pictures, rows = [], []
    for n in range(40):
        shade = np.full((28, 28), 255 * (n % 2), np.uint8)
        shade[0, :8] = [255 * (n >> bit & 1) for bit in range(8)]  # every picture is another
        image_id, png = images.encode_png(shade)
        pictures.append(
            dict.fromkeys(["view", "laterality", "release_path"], "")
            | dict(image_id=image_id, source="embed", patient_id=f"embed/{n}", study_id=f"embed/{n}", day=None, modality="MRI")
            | dict(width=28, height=28, bytes=png, thumbnail=bytes(4096), origin_file=f"{n}.png", origin_sha256="0" * 64)
        )
        rows.append(
            question_row(
                ability="single",
                set="single",
                task="shade",
                text="Which shade is it?",
                answer=common["options"][n % 2],
                image_ids=[image_id],
                patient_ids=[f"embed/{n}"],
                **common,
            )
        )
    images.write_images(folder / "images.parquet", pictures)
    table_io.write_table(folder / "pretrain.parquet", "qa", rows)
    return folder / "pretrain.parquet"


def test_order_is_a_pure_function() -> None:
    assert order_samples(1, 5, 13).tolist() == [*permute_epoch(1, 0, 5), *permute_epoch(1, 1, 5), *permute_epoch(1, 2, 5)[:3]]
    assert order_samples(1, 5, 13)[:7].tolist() == order_samples(1, 5, 7).tolist()
    drawn = order_mixed_groups(1, ["a"] * 100 + ["b"] * 4, 1000)
    assert drawn.tolist() == order_mixed_groups(1, ["a"] * 100 + ["b"] * 4, 1000).tolist()
    assert (drawn >= 100).mean() == pytest.approx(2 / 12, abs=0.05)


def test_steps_of_epochs() -> None:
    assert total_steps(Tuning(epochs=1, packing=False, batch=4, accumulation=8, gpus=4), 83_200 / 4) == 650
    assert total_steps(Tuning(epochs=2), 3) == 6
    assert total_steps(Tuning(max_steps=7), 3) == 7
