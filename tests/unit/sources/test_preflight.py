"""What is missing is said before anything starts, with what to do about it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import owners_made
from medmim.config.download import Download
from medmim.download.source_folder import DownloadFolder
from medmim.sources import preflight
from servers import Site, serve_site


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return owners_made.draw_sources(tmp_path_factory.mktemp("owners"), "ms_cxr_t", "odir", "vqa_rad")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without credentials, in a folder without data."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in owners_made.CREDENTIAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as found:
        yield found


def need(name: str, settings: dict[str, Any], **source: Any) -> tuple[preflight.Requirement, list[str]]:
    told = {"origin": "download", "root": f"data/{name}", "limit": None, **source}
    cfg = {"sources": {name: told}, "download": Download.model_validate(settings).model_dump(), "models": {}}
    (found,), gaps = preflight.collect_requirements(cfg)
    return found, gaps


def test_without_credentials_it_says_how_to_get_them(phantoms: Path, site: Site) -> None:
    settings = {name: owners_made.publish_source(name, phantoms, site, "") for name in ("ms_cxr_t", "odir")}
    for name, told in (("ms_cxr_t", "Become a credentialed user"), ("odir", "Create a token")):
        found, gaps = need(name, settings[name])
        assert found.login_status == "missing" and len(gaps) == 1 and f"{name}: no credentials found: {told}" in gaps[0]
    found, gaps = need("embed", {})
    assert found.login_status == "missing" and "Fill in the form" in gaps[0]
    assert site.requests == []


def test_a_login_that_works_and_one_that_does_not(phantoms: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = owners_made.publish_source("ms_cxr_t", phantoms, site, "")
    monkeypatch.setenv("PHYSIONET_USERNAME", "someone")
    monkeypatch.setenv("PHYSIONET_PASSWORD", "a password")
    found, gaps = need("ms_cxr_t", settings)
    assert (found.login_status, gaps) == ("PHYSIONET_USERNAME and PHYSIONET_PASSWORD: accepted", [])
    assert "Credentialed Health Data License" in found.licence and site.count_bytes_sent() == 2
    monkeypatch.setenv("PHYSIONET_PASSWORD", "wrong")
    found, gaps = need("ms_cxr_t", settings)
    assert found.login_status == "refused" and "(401). Become a credentialed user" in gaps[0] and "wrong" not in gaps[0]


def test_bytes_and_disk(phantoms: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = owners_made.publish_source("vqa_rad", phantoms, site, "")
    found, gaps = need("vqa_rad", settings)
    size = sum(p.stat().st_size for p in (phantoms / "vqa_rad").rglob("*") if p.suffix in (".jpg", ".json"))
    assert (found.download_bytes, found.disk_bytes, found.basis, gaps) == (size, size, "as its server states", [])
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: type("Usage", (), {"free": preflight.RESERVED_DISK_BYTES + size - 1})()
    )
    assert need("vqa_rad", settings)[1][0].startswith("disk: vqa_rad need")


def test_a_server_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found, gaps = need("lumiere", {"figshare": "http://127.0.0.1:9/v2"})
    assert found.login_status == "none needed (not reachable)" and "not reachable from here: http://127.0.0.1:9/v2" in gaps[0]
    assert found.download_bytes == 32_500_000_000 and found.basis.startswith("published")


def test_what_is_there_is_not_asked_for(phantoms: Path, site: Site) -> None:
    with DownloadFolder("vqa_rad", Path("data/vqa_rad")) as folder:
        folder.store_member("made", [b"x"], "here")
        folder.mark_complete(3)
    assert need("vqa_rad", {"osf": "http://127.0.0.1:9"}, limit=3)[1] == []
    assert "not reachable" in need("vqa_rad", {"osf": "http://127.0.0.1:9"})[1][0]


def test_a_folder_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    Path("data/embed").mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read any
    assert need("embed", {}, origin="local")[1] == ["embed: data/embed can't be read: Permission denied"]


def test_folders_and_phantoms() -> None:
    assert need("embed", {}, origin="local")[1] == [
        "embed: data/embed holds nothing: put EMBED, Emory there, or set origin: download"
    ]
    Path("data/embed/tables").mkdir(parents=True)
    assert need("embed", {}, origin="local")[1] == need("embed", {}, origin="phantom")[1] == []


def test_gated_models_need_a_token(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's API: https://huggingface.co/docs/hub/api."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", site.url)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", site.url, raising=False)
    files = [{"rfilename": "model.safetensors", "size": 1000}, {"rfilename": "old.bin", "size": 5}]
    told = {"id": "a/open", "siblings": files, "gated": False, "cardData": {"license": "apache-2.0"}}
    site.add_page("/api/models/a/open", json.dumps(told).encode())
    found = preflight.assess_model("open", "a/open", None)
    assert (found.download_bytes, found.licence, found.gaps) == (1000, "apache-2.0", [])
    gone = preflight.assess_model("gone", "a/gone", None)
    assert len(gone.gaps) == 1 and "a/gone" in gone.gaps[0]
    site.add_page("/api/models/a/gated", json.dumps({**told, "id": "a/gated", "gated": "manual"}).encode())
    site.add_page("/api/models/a/gated/auth-check", b"", login="Bearer hf_right")
    assert "accept its terms at https://huggingface.co/a/gated" in preflight.assess_model("gated", "a/gated", None).gaps[0]
