"""Fetching a model: what is linked, what is recorded, what is said. The hub is stood in for: no test goes out."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from medmim.common.files import INDEX_NAME
from medmim.provenance import job_record
from medmim.tables import table_io
from medmim.tables.data_policy import DataPolicy
from small_models import run_program, write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetch(monkeypatch: pytest.MonkeyPatch, to: Path, **cfg: str) -> Path:
    index = to / "m" / INDEX_NAME
    run_program(monkeypatch, "fetch_model.py", cfg={"hub": None, "revision": None, "path": None} | cfg, model=index)
    return index


@pytest.mark.parametrize("pinned", [True, False])
def test_the_commit_taken_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pinned: bool) -> None:
    snapshot = tmp_path / "hub/snapshots" / COMMIT
    write_model(snapshot, "mantis", weights=False)
    (snapshot / "model.safetensors").touch()
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
    (tmp_path / "m1").mkdir()
    (tmp_path / "m1/config.json").write_text("{}")
    (tmp_path / "m1/model.safetensors").touch()
    (tmp_path / "m1/README.md").write_text(card)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "m1"))
    index = fetch(monkeypatch, tmp_path, **({"hub": hub} if hub else {"path": str(tmp_path / "m1")}))
    assert DataPolicy.from_table(index).licences == licences
    assert job_record.read_record(job_record.sidecar_path(index))["policies"]["model"]["licence"] == sorted(licences)
