"""Fetching a model: what is linked, what is recorded, what is said. The hub is stood in for: no test goes out."""

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from chat_models import write_chat_model
from medmim.common.files import INDEX_NAME
from medmim.provenance import job_record
from medmim.tables import table_io
from medmim.tables.data_policy import DataPolicy
from small_models import run_program, write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetch(monkeypatch: pytest.MonkeyPatch, to: Path, **cfg: str) -> Path:
    index = to / "m" / INDEX_NAME
    defaults = {"family": "mantis", "hub": None, "revision": None, "path": None, "chat": {}, "thinking": None}
    run_program(monkeypatch, "fetch_model.py", cfg=defaults | cfg, model=index)
    return index


@pytest.mark.parametrize("pinned", [True, False])
def test_the_commit_taken_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pinned: bool) -> None:
    snapshot = tmp_path / "hub/snapshots" / COMMIT
    write_model(snapshot, "mantis")
    asked = {}

    def download(hub: str, revision: str | None, **_: object) -> str:
        asked[hub] = revision
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    index = fetch(monkeypatch, tmp_path, hub="owner/model", **({"revision": COMMIT} if pinned else {}))
    assert asked == {"owner/model": COMMIT if pinned else None}
    record = job_record.read_record(job_record.sidecar_path(index))
    assert record["revision"] == COMMIT and record["summary"] == f"owner/model at {COMMIT}"
    assert "config.json" in table_io.read_table(index, "files")["path"].to_pylist()
    assert (index.parent / "config.json").resolve() == (snapshot / "config.json").resolve()


def test_a_hub_that_does_not_answer_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no way out")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(SystemExit):
        fetch(monkeypatch, tmp_path, hub="owner/model")
    assert "owner/model at its newest revision can't be fetched: no way out" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_folder_without_a_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    for problem in (
        "holds no model: it has no config.json",
        "holds no weights of a model: none of its files is *.safetensors",
    ):
        with pytest.raises(SystemExit):
            fetch(monkeypatch, tmp_path, path=str(tmp_path / "mine"))
        assert f"{tmp_path}/mine {problem}" in capsys.readouterr().err
        (tmp_path / "mine/config.json").write_text("{}")


@pytest.mark.parametrize(
    ("hub", "card", "licences"),
    [
        ("owner/model", "---\nlicense: llama3\n---\n", {"llama3"}),
        ("chaoyinshe/llava-med-v1.5-mistral-7b-hf", "No header.", {"that of Mistral-7B-Instruct-v0.2", "Apache-2.0"}),
        ("owner/model", "No header.", {"not stated"}),
        (None, "---\nlicense: mit\n---\n", {"mit"}),
    ],
)
def test_a_model_is_under_the_licence_of_its_card_or_what_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: str | None, card: str, licences: set[str]
) -> None:
    write_model(tmp_path / "m1", "mantis")
    (tmp_path / "m1/README.md").write_text(card)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "m1"))
    index = fetch(monkeypatch, tmp_path, **({"hub": hub} if hub else {"path": str(tmp_path / "m1")}))
    assert DataPolicy.from_table(index).licences == licences
    assert job_record.read_record(job_record.sidecar_path(index))["policies"]["model"]["licence"] == sorted(licences)


Weights = dict[str, torch.Tensor]
PROJECTOR = "multi_modal_projector.linear_1.weight"


def without(weights: Weights, part: str) -> Weights:
    return {name: value for name, value in weights.items() if part not in name}


def renamed(weights: Weights) -> Weights:
    """As the original LLaVA code names them."""
    names = {"multi_modal_projector.linear_1": "model.mm_projector.0", "multi_modal_projector.linear_2": "model.mm_projector.2"}
    return {
        next((name.replace(old, new) for old, new in names.items() if old in name), name): value
        for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "projector"), "lack 4 weights, model.multi_modal_projector.linear_1.bias, "),
        (lambda w: without(w, "lm_head"), "lack 1 weight, lm_head.weight: "),
        (lambda w: without(w, "language_model.model.layers.1."), "lack 9 weights, model.language_model.layers.1."),
        (lambda w: w | {"another.head": torch.zeros(2)}, "have unknown 1 weight, another.head: "),
        (renamed, "have unknown 4 weights, model.mm_projector.0.bias, "),
        (
            lambda w: {n: torch.zeros(3, 5) if n.endswith(PROJECTOR) else v for n, v in w.items()},
            f"have another shape for 1 weight, model.{PROJECTOR} (3 x 5, not 32 x 32): ",
        ),
    ],
    ids=["no projector", "no head", "no layer", "another head", "original names", "another shape"],
)
@pytest.mark.parametrize("stored_as", ["safetensors", "bin"])
def test_weights_that_do_not_fit_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Weights], Weights],
    message: str,
    stored_as: str,
) -> None:
    folder = tmp_path / "mine"
    write_model(folder, "mantis")
    changed = change(load_file(folder / "model.safetensors"))
    if stored_as == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(changed, folder / "pytorch_model.bin")
    else:
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit):
        fetch(monkeypatch, tmp_path, path=str(folder))
    said = capsys.readouterr().err
    assert f"error: {folder}: its files of weights" in said and message in said and "Traceback" not in said
    assert not (tmp_path / "m").exists()


def test_a_folder_of_the_original_code_is_told_with_what_to_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    write_model(folder, "llava-med")
    # As in microsoft/llava-med-v1.5-mistral-7b.
    told = {"architectures": ["LlavaMistralForCausalLM"], "model_type": "llava_mistral", "mm_vision_tower": "clip-vit-l-336"}
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(SystemExit):
        fetch(monkeypatch, tmp_path, family="llava-med", path=str(folder))
    said = capsys.readouterr().err
    assert "is in the format of the original LLaVA code (LlavaMistralForCausalLM)" in said
    assert "chaoyinshe/llava-med-v1.5-mistral-7b-hf" in said


def test_a_tokenizer_of_another_family_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "mine", "llava-med")
    with pytest.raises(SystemExit):
        fetch(monkeypatch, tmp_path, family="mantis", path=str(tmp_path / "mine"))
    assert "the tokenizer has no '<|eot_id|>': is it that of mantis?" in capsys.readouterr().err


def test_a_chat_model_is_loaded_as_it_will_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    write_chat_model(folder, "idefics3")
    assert fetch(monkeypatch, tmp_path, family="chat", path=str(folder)).exists()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(SystemExit):
        fetch(monkeypatch, tmp_path, family="chat", path=str(folder))
    said = capsys.readouterr().err
    assert f"error: {folder}: its processor has no chat template" in said and "Traceback" not in said
