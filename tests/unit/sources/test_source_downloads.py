"""Each source from a server that answers as its owner's does: what comes is what the adapter reads, once, and no more."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import boto3
import pytest

import owners_made
from medmim.common import files
from medmim.common.errors import UserError
from medmim.config.download import Download
from medmim.download import credentials, transfer
from medmim.download.errors import AccessDeniedError
from medmim.download.s3 import S3Bucket
from medmim.download.source_folder import DownloadFolder
from medmim.download.transfer import RetryPolicy
from medmim.sources.base import SourceContents
from medmim.sources.needed_files import NeededFiles
from medmim.sources.readers.tar_member import read_source_bytes
from owners_made import LOGIN, SOURCES, Bucket
from servers import TRUNCATED, Site, serve_site

QUICK = RetryPolicy(retries=3, pause=0.001)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort of every source, in its owner's layout."""
    return owners_made.draw_sources(tmp_path_factory.mktemp("owners"))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with owners_made.serve_s3() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with credentials for everything, and nothing of the machine's own."""
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/kaggle.json").write_text(json.dumps(dict(zip(("username", "key"), LOGIN.split(":"), strict=True))))
    (home / ".netrc").write_text('machine 127.0.0.1 login someone password "a password"\n')
    monkeypatch.setenv("HOME", str(home))
    for name in owners_made.CREDENTIAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as found:
        yield found


def owner(source: str, phantoms: Path, site: Site, moto: str) -> Download:
    return Download.model_validate(owners_made.publish_source(source, phantoms, site, moto))


def fetch(source: str, root: Path, settings: Download, limit: int | None = None, parallel: int = 3) -> DownloadFolder:
    with DownloadFolder(source, root, QUICK, parallel) as folder:
        import_module(f"medmim.sources.{source}.download").fetch_source(folder, settings, limit)
    return folder


def read(source: str, root: Path) -> list[tuple[str, bytes]]:
    """What the adapter reads of a source's folder."""
    plan: SourceContents = import_module(f"medmim.sources.{source}.adapter").read_contents(root)
    assert plan.rejected == []
    return sorted((p.study, read_source_bytes(root, p.file)) for p in plan.pictures)


@pytest.mark.parametrize("source", SOURCES)
def test_what_comes_is_what_the_adapter_reads(source: str, phantoms: Path, site: Site, moto: str, tmp_path: Path) -> None:
    settings = owner(source, phantoms, site, moto)
    folder = fetch(source, tmp_path / "data", settings)
    assert folder.missing == {} and folder.wanted_paths
    assert read(source, tmp_path / "data") == read(source, phantoms / source)
    root = tmp_path / "data"
    there = {str(row["path"]): row for row in files.index_files(root)}
    (root / "images").mkdir(exist_ok=True)
    (root / "images/decoy.jpg").write_bytes(b"the user's own")
    adapter = import_module(f"medmim.sources.{source}.adapter")
    needed = NeededFiles(adapter, root, [], None, lambda contents: contents)
    rows = list(needed.iter_index_rows(lambda _, path, __: str(folder.ledger.find_hash(root / path)), 2))
    assert rows == [there[path] for path in needed.paths], "and the hash of each is known from its fetching"
    assert {row["path"] for row in rows} >= {p.file for p in adapter.read_contents(root).pictures}
    assert not any(p.suffix in (".zip", ".part", ".member", ".gz") for p in (tmp_path / "data/.download").iterdir())
    site.requests.clear()
    again = fetch(source, tmp_path / "data", Download.model_validate(settings.model_dump()))
    assert again.meter.received_bytes == again.meter.received_files == 0
    assert again.missing == {} and site.requests == []


@pytest.mark.parametrize("source", ["ms_cxr_t", "vqa_rad", "pmc"])
def test_a_deleted_file_comes_back_alone(source: str, phantoms: Path, site: Site, tmp_path: Path) -> None:
    settings = owner(source, phantoms, site, "")
    fetch(source, tmp_path, settings)
    gone = next(p for p in sorted(tmp_path.rglob("*.jpg")))
    content = gone.read_bytes()
    gone.unlink()
    assert fetch(source, tmp_path, settings).meter.received_files == 1
    assert gone.read_bytes() == content


def test_images_in_one_flat_folder_are_taken_as_they_are(phantoms: Path, site: Site, tmp_path: Path) -> None:
    settings = owner("ms_cxr_t", phantoms, site, "")
    absent, *present = sorted((phantoms / "ms_cxr_t").rglob("*.jpg"))
    root = tmp_path / "data"
    root.mkdir()
    for path in present:
        (root / path.name).write_bytes(path.read_bytes())
    assert fetch("ms_cxr_t", root, settings).missing == {}
    in_tree = [p.relative_to(root) for p in root.rglob("*.jpg") if p.parent != root]
    assert in_tree == [absent.relative_to(phantoms / "ms_cxr_t")]
    assert [path.endswith(f"/{absent.name}") for path in site.count_requests() if path.endswith(".jpg")] == [True]
    assert read("ms_cxr_t", root) == read("ms_cxr_t", phantoms / "ms_cxr_t")


def test_a_limit_takes_few_patients_and_a_larger_one_more(phantoms: Path, moto: str, tmp_path: Path) -> None:
    settings = owner("embed", phantoms, Site(), moto)
    plan = import_module("medmim.sources.embed.adapter").read_contents
    patients = []
    for limit in (1, 2):
        fetch("embed", tmp_path, settings, limit)
        there = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.dcm")}
        limited = plan(tmp_path).limit_patients(limit)
        assert there == {p.file for p in limited.pictures}
        assert limited.skipped[f"patients beyond the limit of {limit}"] == 3 - limit
        patients.append({p.patient for p in limited.pictures})
    assert patients[0] < patients[1] and len(patients[1]) == 2


def test_what_the_bucket_lacks_is_missing(phantoms: Path, moto: str, tmp_path: Path) -> None:
    settings = owner("embed", phantoms, Site(), moto)
    adapter = import_module("medmim.sources.embed.adapter")
    gone = min(picture.file for picture in adapter.read_contents(phantoms / "embed").pictures)
    boto3.client("s3", endpoint_url=moto).delete_object(Bucket=settings.embed.name, Key=gone)
    folder = fetch("embed", tmp_path, settings)
    assert folder.missing == {gone: f"s3://{settings.embed.name}/{gone}: not in the bucket"}
    with pytest.raises(UserError, match=r"embed: 1 of \d+ files are missing"):
        folder.check_missing_share(0.0)
    plan = adapter.read_contents(tmp_path).drop_missing(folder.missing)
    assert plan.skipped["missing at the owner's"] == 1 and gone not in {p.file for p in plan.pictures}


def test_an_object_goes_on_where_it_was_cut_off_unless_it_changed(moto: str, tmp_path: Path) -> None:
    bucket, data = Bucket(moto), bytes(range(256)) * 12_000
    bucket.put_object("key", data)
    told: list[int] = []

    def cut(count: int) -> None:
        told.append(count)
        raise KeyboardInterrupt

    def remote() -> transfer.RemoteFile:
        return S3Bucket(bucket.settings["name"], "", "us-east-1", moto, signed=True).make_remote("key", len(data))

    for changed in (False, True):
        with pytest.raises(KeyboardInterrupt):
            transfer.fetch_file(tmp_path, remote(), QUICK, cut)
        if changed:
            data = data[::-1]
            bucket.put_object("key", data)
        told.clear()
        assert transfer.fetch_file(tmp_path, remote(), QUICK, told.append)[0] == hashlib.sha256(data).hexdigest()
        assert sum(told) == len(data) and (min(told) < 0) is changed
        assert (tmp_path / "key").read_bytes() == data
        (tmp_path / "key").unlink()


def test_a_bucket_without_credentials_says_how_to_get_them(
    phantoms: Path, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = owner("embed", phantoms, Site(), moto)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        AccessDeniedError, match=r"no AWS credentials are set up\. Fill in the form at https://registry.opendata.aws"
    ):
        fetch("embed", tmp_path, settings)


@pytest.mark.parametrize(("source", "told"), [("ms_cxr_t", "sign the agreements"), ("odir", "Create a token")])
def test_a_wrong_login_is_refused_and_said_nowhere(source: str, told: str, phantoms: Path, site: Site, tmp_path: Path) -> None:
    settings = owner(source, phantoms, site, "")
    for page in site.pages.values():
        page.login = page.login and "someone:else"
    with pytest.raises(AccessDeniedError, match=f"401.*{told}") as refused:
        fetch(source, tmp_path / "data", settings)
    assert "a password" not in str(refused.value)


def test_figures_come_of_cut_archives_and_of_the_cloud(phantoms: Path, site: Site, moto: str, tmp_path: Path) -> None:
    settings = owner("pmc", phantoms, site, "")
    first, second, third = (p for p in site.pages if p.endswith(".tar.gz"))
    site.add_faults(first, TRUNCATED)
    del site.pages[second], site.pages[third]
    assert fetch("pmc", tmp_path / "without", settings, parallel=1).missing.keys() == {
        f"images/{line['id']}.jpg" for line in json.loads(site.pages["/med/instruct/llava_med_instruct_60k.json"].content)[1:]
    }
    bucket = Bucket(moto)
    paper = Path(second).name.removesuffix(".tar.gz")
    boto3.client("s3", endpoint_url=moto).put_bucket_acl(Bucket=bucket.settings["name"], ACL="public-read")
    for version, content in ((1, b"old"), (2, b"new")):
        bucket.put_object(f"{paper}.{version}/phantom-0001-g001.jpg", content)
    folder = fetch(
        "pmc", tmp_path / "with", settings.model_copy(update={"pmc_cloud": settings.embed.model_validate(bucket.settings)})
    )
    assert (tmp_path / "with/images/90000001_F1.jpg").read_bytes() == b"new"
    (why,) = folder.missing.values()
    assert why == f"{site.url}{third}: not there (404); nor in s3://{bucket.settings['name']}"


@pytest.mark.parametrize("is_moved", [True, False])
def test_archives_are_found_where_they_are_and_where_they_were(
    is_moved: bool, phantoms: Path, site: Site, tmp_path: Path
) -> None:
    settings = owner("pmc", phantoms, site, "")
    listed = [json.loads(x)["pmc_tar_url"] for x in site.pages["/med/llava_med_image_urls.jsonl"].content.splitlines()]
    assert all(url.startswith("https://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/") for url in listed)
    for path in [p for p in site.pages if p.endswith(".tar.gz")]:
        assert path.startswith("/pmc/deprecated/oa_package/")
        if not is_moved:
            site.pages[path.replace("/deprecated", "")] = site.pages.pop(path)
    folder = fetch("pmc", tmp_path, settings)
    assert folder.missing == {} and len(list(tmp_path.glob("images/*.jpg"))) == len(listed)


def test_a_paper_whose_archive_means_ill_is_missing(phantoms: Path, site: Site, tmp_path: Path) -> None:
    settings = owner("pmc", phantoms, site, "")
    archive = next(p for p in site.pages if p.endswith(".tar.gz"))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as opened:
        info = tarfile.TarInfo("zeros")
        info.size = 1 << 25
        opened.addfile(info, io.BytesIO(bytes(info.size)))
    site.add_page(archive, made.getvalue())
    folder = fetch("pmc", tmp_path, settings)
    (why,) = folder.missing.values()
    assert "refused as a bomb" in why and sorted(p.name for p in tmp_path.glob("images/*")) == [
        "90000001_F1.jpg",
        "90000002_F1.jpg",
    ]


# Credentials


def test_logins_of_the_environment_go_to_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "https://physionet.org/files"
    assert credentials.find_physionet_login(own) is None
    monkeypatch.setenv("PHYSIONET_USERNAME", "u")
    monkeypatch.setenv("PHYSIONET_PASSWORD", "secret")
    found = credentials.find_physionet_login(own)
    assert found and found.where == "PHYSIONET_USERNAME and PHYSIONET_PASSWORD" and "secret" not in repr(found)
    assert credentials.find_physionet_login("https://mirror.example.org/files") is None
    (tmp_path / "mine").write_text("machine mirror.example.org login a password b\ndefault login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "mine"))
    mirror = credentials.find_physionet_login("https://mirror.example.org/files")
    assert mirror and (mirror.name, mirror.password) == ("a", "b")
    assert credentials.find_physionet_login("https://other.example.org") is None
    assert credentials.find_kaggle_login("https://mirror.example.org/kaggle") == mirror


def test_kaggle_credentials_are_where_its_client_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, home = "https://www.kaggle.com/api/v1", tmp_path / "home/.kaggle"
    found = credentials.find_kaggle_login(url)
    assert found and (found.name, found.where) == ("someone", str(home / "kaggle.json"))
    (home / "kaggle.json").write_text('{"username": "u", "key": "very secret"')
    with pytest.raises(UserError, match="can't be read as Kaggle's file") as told:
        credentials.find_kaggle_login(url)
    assert "very secret" not in str(told.value)
    monkeypatch.setenv("KAGGLE_USERNAME", "a")
    monkeypatch.setenv("KAGGLE_KEY", "b")
    assert (found := credentials.find_kaggle_login(url)) and found.name == "a"
    (home / "access_token").write_text("token\n")
    assert (found := credentials.find_kaggle_login(url)) and (found.name, found.password) == ("", "token")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "other")
    assert (found := credentials.find_kaggle_login(url)) and found.password == "other"
