"""The workflow fetches sources from servers that answer as their owners' do; and no credential is ever written or printed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import owners_made
from servers import Site, serve_site

SOURCES = ("embed", "ms_cxr_t", "odir")
SECRETS = {"physionet": "NetrcSecret4711", "aws": "AwsSecret4711", "kaggle": "KaggleSecret4711", "hub": "hf_HubSecret4711"}
INDEXES = [f"results/real/sources/{source}.parquet" for source in ("ms_cxr_t", "odir")]
IMAGES = "results/real/images/embed.images.parquet"


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, Any]]]:
    """Servers of three owners, each with its own login, and the settings that lead to them."""
    phantoms = owners_made.draw_sources(tmp_path_factory.mktemp("owners"), *SOURCES)
    with serve_site() as site, owners_made.serve_s3() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of the test's own")
        settings: dict[str, Any] = {}
        for source in SOURCES:
            settings |= owners_made.publish_source(source, phantoms, site, endpoint)
        for path, page in site.pages.items():
            page.login = page.login and f"someone:{SECRETS['kaggle' if 'kaggle' in path or '/api/' in path else 'physionet']}"
        yield site, settings


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user whose credentials are where each service's own tools look for them."""
    home = tmp_path_factory.mktemp("home")
    (home / ".kaggle").mkdir()
    (home / ".kaggle/kaggle.json").write_text(json.dumps({"username": "someone", "key": SECRETS["kaggle"]}))
    (home / ".netrc").write_text(f"machine 127.0.0.1 login someone password {SECRETS['physionet']}\n")
    environment = dict.fromkeys(owners_made.CREDENTIAL_VARIABLES, "")
    del environment["NETRC"], environment["AWS_PROFILE"], environment["AWS_SESSION_TOKEN"], environment["KAGGLE_CONFIG_DIR"]
    own = {"AWS_ACCESS_KEY_ID": "AKIA4711", "AWS_SECRET_ACCESS_KEY": SECRETS["aws"], "HF_TOKEN": SECRETS["hub"]}
    return {**environment, **own, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}


def config(folder: Path, settings: dict[str, Any]) -> Path:
    values = {
        "run": "real",
        "sources": {s: {"origin": "download", "limit": 2} if s == "embed" else {"origin": "download"} for s in SOURCES},
        "download": {**settings, "retries": 2, "pause": 0.01},
        "qa": {"benchmark": {"odir": 1}},
        "models": {"any": {"family": "chat", "path": "model"}},
    }
    path = folder / "real.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def secrets_in(data: bytes) -> list[str]:
    """Credentials that a text holds, as they are or as they are sent."""
    sent = {s: base64.b64encode(f"someone:{s}".encode()).rstrip(b"=")[:-1] for s in SECRETS.values()}
    return [s for s, coded in sent.items() if s.encode() in data or coded in data]


def leaks(folder: Path) -> list[tuple[str, list[str]]]:
    found = ((p, secrets_in(p.read_bytes())) for p in sorted(folder.rglob("*")) if p.is_file())
    return [(p.name, secrets) for p, secrets in found if secrets]


def test_sources_are_fetched_and_no_secret_is_kept(
    snakemake, owners: tuple[Site, dict[str, Any]], user: dict[str, str], tmp_path: Path
) -> None:
    settings = config(tmp_path, owners[1])
    done = snakemake(tmp_path, "plan", IMAGES, *INDEXES, "--configfile", settings, "--cores", "2", **user)
    assert "nothing is missing for this run" in done.stderr
    found = {path: pq.read_schema(tmp_path / path).metadata for path in (IMAGES, *INDEXES)}
    assert [metadata.get(b"credentialed") for metadata in found.values()] == [b"embed", b"ms_cxr_t", None]
    assert found[IMAGES][b"licence"] == b"EMBED Research Use Agreement"
    assert len({row["patient_id"] for row in pq.read_table(tmp_path / IMAGES).to_pylist()}) == 2
    assert {p.name for p in (tmp_path / "data").iterdir()} == set(SOURCES)
    assert leaks(tmp_path) == [] and secrets_in((done.stdout + done.stderr).encode()) == []


def test_refused_logins_tell_what_to_do_and_no_secret(
    snakemake, owners: tuple[Site, dict[str, Any]], user: dict[str, str], tmp_path: Path
) -> None:
    for page in owners[0].pages.values():
        page.login = page.login and "someone:else"
    settings = config(tmp_path, owners[1])
    failed = snakemake(tmp_path, "plan", *INDEXES, "--configfile", settings, "--cores", "2", "--keep-going", ok=False, **user)
    assert "2 things are missing for this run" in failed.stderr
    assert "sign the agreements of ms-cxr-t" in failed.stdout and "Create a token" in failed.stdout
    assert failed.stderr.count("(401)") >= 2
    assert leaks(tmp_path) == [] and secrets_in((failed.stdout + failed.stderr).encode()) == []
    assert not any((tmp_path / index).exists() for index in INDEXES)
