"""Making a base and tuning it: what is trained, the same bytes twice, resuming, stock loading, DeepSpeed on two processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_models import run, write_model, write_tables
from transformers import LlavaForConditionalGeneration

from medmim import tables
from medmim.digest import WORKFLOW
from medmim.models import weights
from medmim.train import checkpoints
from medmim.train.order import mixed, permutation, positions
from medmim.train.recipe import SIZES, Tuning
from medmim.train.tune import PROJECTOR, adapt, total_steps

FAMILIES = ["llava-med", "mantis"]
TUNING = {
    "lora_rank": 4, "lora_alpha": 8, "max_steps": 6, "batch": 2, "precision": "fp32", "gradient_checkpointing": False,
    "max_length": 512, "checkpoint_steps": 2, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and shards of both families."""
    folder = tmp_path_factory.mktemp("train")
    qa, images, _ = write_tables(folder)
    with pytest.MonkeyPatch.context() as patch:
        for family in FAMILIES:
            (folder / family).mkdir()
            model = write_model(folder / family, family)
            parts = {part: folder / f"{family}.{part}.parquet" for part in ("samples", "pixels", "rejected")}
            run(patch, "build_shards.py", model=model, qa=qa, images=images, **parts,
                cfg={"family": family, "system": "", "max_length": 512, "max_rejected": 0})  # fmt: skip
    return folder


def command(prepared: Path, out: Path, family: str, *, launcher: list[str] | None = None, **tuning: object) -> list[str]:
    return [
        *(launcher or [sys.executable]), str(WORKFLOW / "scripts/tune.py"),
        "--cfg", json.dumps({"family": family, "seed": 3, "tuning": TUNING | tuning}),
        "--model", str(prepared / family / "files.parquet"), "--samples", str(prepared / f"{family}.samples.parquet"),
        "--pixels", str(prepared / f"{family}.pixels.parquet"), "--adapter", str(out / "adapter/files.parquet"),
        "--loss", str(out / "loss.parquet"), "--checkpoints", str(out / "checkpoints"),
    ]  # fmt: skip


def tune(prepared: Path, out: Path, family: str, ok: bool = True, **kwargs: object) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKFLOW)}
    done = subprocess.run(command(prepared, out, family, **kwargs), capture_output=True, text=True, env=env, check=False)
    assert (done.returncode == 0) is ok, done.stderr[-4000:]
    return done.stderr


@pytest.fixture(scope="module")
def tuned(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished training of each family."""
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        tune(prepared, folder, family)
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_only_lora_in_the_language_model_and_the_projector_are_trained(prepared: Path, family: str) -> None:
    model = adapt(weights.load(prepared / family, family=family), Tuning(**TUNING), "base")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    lora = [name for name in trained if "lora_" in name]
    layers = model.config.text_config.num_hidden_layers
    assert len(lora) == layers * 7 * 2 and all("language_model" in name for name in lora)
    rest = sorted(set(trained) - set(lora))
    assert rest and all(PROJECTOR in name and "modules_to_save" in name for name in rest)
    whole = dict(model.named_parameters())
    assert sum(whole[n].numel() for n in rest) == sum(p.numel() for p in weights.load(prepared / family, family=family)
                                                      .model.multi_modal_projector.parameters())  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_is_what_stock_peft_loads(prepared: Path, tuned: dict[str, Path], family: str) -> None:
    folder = tuned[family] / "adapter"
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


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_recorded_and_falls(tuned: dict[str, Path], family: str) -> None:
    loss = tables.frame(tuned[family] / "loss.parquet", "loss")
    assert loss.step.tolist() == list(range(1, 7)) and set(loss.stage) == {"tune"}
    assert loss.tokens.is_monotonic_increasing and loss.loss.iloc[-2:].mean() < loss.loss.iloc[:2].mean()
    assert not (tuned[family] / "checkpoints").exists()


def same(a: Path, b: Path) -> bool:
    return all((a / n).read_bytes() == (b / n).read_bytes() for n in ("loss.parquet", "adapter/adapter_model.safetensors"))


def test_two_runs_give_the_same_bytes(prepared: Path, tuned: dict[str, Path], tmp_path: Path) -> None:
    tune(prepared, tmp_path, "llava-med")
    assert same(tmp_path, tuned["llava-med"])


def test_a_killed_run_goes_on_to_the_same_weights(prepared: Path, tmp_path: Path) -> None:
    long = {"max_steps": 40, "checkpoint_steps": 2}
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    tune(prepared, undisturbed, "llava-med", **long)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKFLOW)}
    process = subprocess.Popen(command(prepared, killed, "llava-med", **long), env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(killed.glob("checkpoints/*/checkpoint-*/whole.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written before the end"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "adapter/files.parquet").exists() and not (killed / "loss.parquet").exists()
    newest = checkpoints.newest(next(killed.glob("checkpoints/*")))
    assert newest is not None
    torn = newest.with_name("checkpoint-39")
    shutil.copytree(newest, torn)
    (torn / "adapter_model.safetensors").write_bytes(b"torn")
    assert "resumes from checkpoint-" in tune(prepared, killed, "llava-med", **long)
    assert same(undisturbed, killed)


def test_checkpoints_of_other_work_are_not_resumed(prepared: Path, tmp_path: Path) -> None:
    command_ = command(prepared, tmp_path, "mantis", max_steps=40, checkpoint_steps=1)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKFLOW)}
    process = subprocess.Popen(command_, env=env, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("checkpoints/*/checkpoint-*/whole.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert "resumes" not in tune(prepared, tmp_path, "mantis", learning_rate=1e-3)


def test_gpus_that_are_not_there_fail_at_once(prepared: Path, tmp_path: Path) -> None:
    said = tune(prepared, tmp_path, "mantis", ok=False, gpus=1)
    assert "asks for 1 GPU(s)" in said and "Traceback" not in said
    assert not (tmp_path / "adapter").exists()


def test_a_diverging_training_says_so(prepared: Path, tmp_path: Path) -> None:
    said = tune(prepared, tmp_path, "mantis", ok=False, learning_rate=1e30, clip=1e30)
    assert "diverged" in said and "Traceback" not in said


def test_deepspeed_zero_2_on_two_processes(prepared: Path, tmp_path: Path) -> None:
    """The first start compiles DeepSpeed's communication operator: about a minute."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    tune(prepared, tmp_path / "two", "llava-med", launcher=launcher, batch=1, zero_stage=2)
    tune(prepared, tmp_path / "one", "llava-med", batch=2)
    two, one = (tables.frame(tmp_path / n / "loss.parquet", "loss") for n in ("two", "one"))
    # The same batches, so the same first loss; Adam at this learning rate then magnifies the order of summation.
    assert two.step.tolist() == one.step.tolist()
    assert two.loss[0] == pytest.approx(one.loss[0], abs=1e-5)
    assert two.loss.tolist() == pytest.approx(one.loss.tolist(), rel=0.03)
    adapter = [load_file(tmp_path / n / "adapter/adapter_model.safetensors") for n in ("two", "one")]
    assert adapter[0].keys() == adapter[1].keys()


def test_a_base_is_made_and_says_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qa = pretraining(tmp_path)
    cfg = {"image_size": 28, "vision_width": 16, "vision_layers": 1, "language_width": 32, "language_layers": 1, "heads": 2,
           "vision_steps": 30, "vision_batch": 8, "language_steps": 5, "language_batch": 4, "learning_rate": 2e-3}  # fmt: skip
    tokenizer = tmp_path / "tokenizer/files.parquet"
    run(monkeypatch, "make_tokenizer.py", qa=qa, tokenizer=tokenizer,
        cfg={"family": "mantis", "tiny": {size: cfg[size] for size in SIZES}})  # fmt: skip
    shards = {part: tmp_path / f"{part}.parquet" for part in ("samples", "pixels")}
    limits = {"family": "mantis", "system": "", "max_length": 512, "max_rejected": 0}
    tables_ = {"qa": qa, "images": tmp_path / "images.parquet", "rejected": tmp_path / "rejected.parquet"}
    run(monkeypatch, "build_shards.py", model=tokenizer, **tables_, **shards, cfg=limits)
    for name in ("a", "b"):
        run(monkeypatch, "make_base.py", **shards, qa=qa, tokenizer=tokenizer, model=tmp_path / name / "files.parquet",
            loss=tmp_path / f"{name}.parquet", cfg={"family": "mantis", "seed": 1, "threads": 1, "tiny": cfg})  # fmt: skip
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    loss = tables.frame(tmp_path / "a.parquet", "loss")
    assert loss.groupby("stage").step.max().to_dict() == {"vision": 30, "language": 5}
    vision = loss[loss.stage == "vision"].loss
    assert vision.iloc[-5:].mean() < 0.5 * vision.iloc[:5].mean(), "the tower did not learn black from white"
    reading = json.loads((tmp_path / "a/files.parquet.prov.json").read_text())["reading"]
    assert reading["single"]["n"] > 0
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "a")
    assert model.config.vision_config.model_type == "siglip_vision_model" and model.config.text_config.model_type == "llama"


def pretraining(folder: Path) -> Path:
    """Closed questions about one image, black or white, and text-only ones."""
    from medmim import images
    from medmim.qa.row import question_row

    common = dict(split="pretrain", source="embed", generator="test/1", options=["black", "white"])
    pictures, rows = [], []
    for n in range(40):
        shade = np.full((28, 28), 255 * (n % 2), np.uint8)
        shade[0, :8] = [255 * (n >> bit & 1) for bit in range(8)]  # every picture is another
        image_id, png = images.encode(shade)
        pictures.append(
            dict.fromkeys(["view", "laterality", "release_path"], "")
            | dict(image_id=image_id, source="embed", patient_id=f"embed/{n}", study_id=f"embed/{n}", day=None, modality="MRI")
            | dict(width=28, height=28, bytes=png, origin_file=f"{n}.png", origin_sha256="0" * 64)
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
    images.write(folder / "images.parquet", pictures)
    tables.write(folder / "pretrain.parquet", "qa", rows)
    return folder / "pretrain.parquet"


def test_order_is_a_pure_function() -> None:
    assert positions(1, 5, 13).tolist() == [*permutation(1, 0, 5), *permutation(1, 1, 5), *permutation(1, 2, 5)[:3]]
    assert positions(1, 5, 13)[:7].tolist() == positions(1, 5, 7).tolist()
    drawn = mixed(1, ["a"] * 100 + ["b"] * 4, 1000)
    assert drawn.tolist() == mixed(1, ["a"] * 100 + ["b"] * 4, 1000).tolist()
    assert (drawn >= 100).mean() == pytest.approx(2 / 12, abs=0.05)


def test_steps_of_epochs() -> None:
    assert total_steps(Tuning(epochs=1, batch=4, accumulation=8), 83_200, 4) == 650
    assert total_steps(Tuning(epochs=2, batch=1), 3, 1) == 6
    assert total_steps(Tuning(max_steps=7), 3, 1) == 7
