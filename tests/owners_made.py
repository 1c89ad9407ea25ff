"""What the sources' owners have, as their servers give it: phantoms, behind each owner's own API."""

import base64
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from medmim.config.download import Download
from servers import Site

SOURCES = ("embed", "lumiere", "ms_cxr_t", "pmc", "vqa_rad", "odir")
LOGIN = "someone:a password"
CREDENTIAL_VARIABLES = (
    "NETRC", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "KAGGLE_API_TOKEN",
    "KAGGLE_CONFIG_DIR", "KAGGLE_USERNAME", "KAGGLE_KEY", "PHYSIONET_USERNAME", "PHYSIONET_PASSWORD", "HF_TOKEN",
)  # fmt: skip
"""Of the environment, in which credentials are looked for."""


def draw_sources(root: Path, *sources: str) -> Path:
    """A small cohort of some sources, or of all, in their owners' layouts."""
    for source in sources or SOURCES:
        import_module(f"medmim.sources.{source}.phantom").write_cohort(
            root / source, patients=1 if source == "lumiere" else 3, seed=5
        )
    return root


@contextmanager
def serve_s3() -> Iterator[str]:
    """A server that speaks S3's protocol, while the context lasts."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield "http://127.0.0.1:{1}".format(*server.get_host_and_port())
    finally:
        server.stop()


class Bucket:
    """A bucket of the S3 server."""

    names = (f"bucket-{number}" for number in itertools.count())

    def __init__(self, endpoint: str) -> None:
        name = next(self.names)
        self.settings = {"name": name, "region": "us-east-1", "endpoint": endpoint}
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self.client.create_bucket(Bucket=name)

    def put_object(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.settings["name"], Key=key, Body=content)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def publish_embed(phantoms: Path, bucket: Bucket) -> dict[str, Any]:
    for path, content in read_tree(phantoms / "embed").items():
        bucket.put_object(path, content)
    bucket.put_object("tables/EMBED_OpenData_metadata.csv", b"the larger one")
    return {"embed": bucket.settings}


def publish_lumiere(phantoms: Path, site: Site) -> dict[str, Any]:
    """https://docs.figshare.com: collection articles in pages, an article's files."""
    contents = read_tree(phantoms / "lumiere")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for path, content in contents.items():
            if path.startswith("Imaging/"):
                opened.writestr(path, content)
    published = {p: c for p, c in contents.items() if p.endswith(".csv")} | {"Imaging-v202211.zip": archive.getvalue()}
    articles = []
    for number, (name, content) in enumerate(published.items(), 101):
        site.add_page(f"/files/{number}", content)
        file_entry = {
            "id": number, "name": name, "size": len(content), "is_link_only": False, "mimetype": "", "supplied_md5": "",
            "computed_md5": hashlib.md5(content).hexdigest(), "download_url": f"{site.url}/files/{number}",
        }  # fmt: skip
        site.add_page(f"/v2/articles/{number}/files", json.dumps([file_entry]).encode())
        articles.append({"id": number, "title": name, "defined_type_name": "dataset"})
    articles += [{"id": 1, "title": "other"}] * 100
    site.add_page("/v2/articles/1/files", b"[]")

    def answer_page(query: dict[str, list[str]]) -> bytes:
        first = (int(query["page"][0]) - 1) * int(query["page_size"][0])
        return json.dumps(articles[first : first + int(query["page_size"][0])]).encode()

    site.add_page("/v2/collections/5904905/articles", answer=answer_page)
    return {"figshare": f"{site.url}/v2"}


def publish_ms_cxr_t(phantoms: Path, site: Site) -> dict[str, Any]:
    """PhysioNet: files behind a login, with SHA256SUMS.txt."""
    for project, suffix in (("ms-cxr-t/1.0.0", ".csv"), ("mimic-cxr-jpg/2.1.0", ".jpg")):
        sums = ""
        for path, content in read_tree(phantoms / "ms_cxr_t").items():
            if path.endswith(suffix):
                site.add_page(f"/files/{project}/{path}", content, login=LOGIN)
                sums += f"{hashlib.sha256(content).hexdigest()} {path}\n"
        site.add_page(f"/files/{project}/SHA256SUMS.txt", sums.encode(), login=LOGIN)
    return {"physionet": f"{site.url}/files"}


def publish_pmc(phantoms: Path, site: Site) -> dict[str, Any]:
    """LLaVA-Med's lists, whose addresses are NCBI's, and the papers' archives."""
    for path, content in read_tree(phantoms / "pmc").items():
        if path.endswith(".json"):
            site.add_page(f"/med/instruct/{path}", content)
        elif path.endswith(".jsonl"):
            site.add_page(f"/med/{path}", content.replace(b"phantom.invalid", b"ftp.ncbi.nlm.nih.gov"))
    for line in (phantoms / "pmc/llava_med_image_urls.jsonl").read_text().splitlines():
        url = json.loads(line)["pmc_tar_url"]
        site.add_page("/pmc/deprecated" + url.partition("/pmc")[2], (phantoms / "pmc/tars" / Path(url).name).read_bytes())
    return {"llava_med": f"{site.url}/med", "pmc": f"{site.url}/pmc", "pmc_cloud": None}


def publish_vqa_rad(phantoms: Path, site: Site) -> dict[str, Any]:
    """https://developer.osf.io: entries of a folder in pages, with hashes; downloads lie with another server."""
    contents = {p: c for p, c in read_tree(phantoms / "vqa_rad").items() if not p.endswith((".csv", ".txt"))}
    entries: dict[str, list[dict[str, Any]]] = {"": [], "VQA_RAD Image Folder": []}
    for number, (path, content) in enumerate(contents.items()):
        site.add_page(f"/stored/{number}", content)
        site.add_page(f"/download/{number}/", moved=f"{site.url}/stored/{number}")
        folder, _, name = path.rpartition("/")
        hashes = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
        attributes = {
            "name": name,
            "kind": "file",
            "size": len(content),
            "materialized_path": f"/{path}",
            "extra": {"hashes": hashes},
        }
        entries[folder].append(
            {"type": "files", "attributes": attributes, "links": {"download": f"{site.url}/download/{number}/"}}
        )
    related = {"files": {"links": {"related": {"href": f"{site.url}/v2/nodes/89kps/files/osfstorage/5b/", "meta": {}}}}}
    attributes = {"name": "VQA_RAD Image Folder", "kind": "folder"}
    entries[""].append({"type": "files", "attributes": attributes, "relationships": related, "links": {}})
    for place, folder in (("", ""), ("5b/", "VQA_RAD Image Folder")):

        def answer_page(query: dict[str, list[str]], place: str = place, folder: str = folder) -> bytes:
            number = int(query.get("page", ["1"])[0])
            part, more = entries[folder][2 * number - 2 : 2 * number], entries[folder][2 * number :]
            following = f"{site.url}/v2/nodes/89kps/files/osfstorage/{place}?page={number + 1}" if more else None
            return json.dumps({"data": part, "links": {"first": None, "next": following, "meta": {"per_page": 2}}}).encode()

        site.add_page(f"/v2/nodes/89kps/files/osfstorage/{place}", answer=answer_page)
    return {"osf": f"{site.url}/v2"}


def publish_odir(phantoms: Path, site: Site) -> dict[str, Any]:
    """Kaggle: a login, then a signed address of its storage, which states the md5."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for path, content in read_tree(phantoms / "odir").items():
            opened.writestr(path if path == "full_df.csv" else f"ODIR-5K/ODIR-5K/{path}", content)
            opened.writestr(f"preprocessed_images/{Path(path).name}", content)
    content = archive.getvalue()
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    site.add_page("/stored.zip", content, headers={"X-Goog-Hash": f"crc32c=AAAAAA==,md5={md5}"})
    moved = f"{site.url.replace('127.0.0.1', 'localhost')}/stored.zip?X-Goog-Signature=abc"
    site.add_page("/api/v1/datasets/download/andrewmvd/ocular-disease-recognition-odir5k", login=LOGIN, moved=moved)
    return {"kaggle": f"{site.url}/api/v1"}


def publish_source(source: str, phantoms: Path, site: Site, endpoint: str) -> dict[str, Any]:
    """Let a server have what a source's owner has; returns the settings that lead there."""
    settings: dict[str, Any] = globals()[f"publish_{source}"](phantoms, Bucket(endpoint) if source == "embed" else site)
    Download.model_validate(settings)
    return settings
