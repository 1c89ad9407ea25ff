import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import release_made as made

from config_files import config_file
from medmim.benchmarks.released import question_files
from medmim.common.errors import UserError
from medmim.tables import table_io

TEXT = b'[{"made": "here"}]'
LINK = "link"


def zipped(*members: tuple[str, object]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            if content is LINK:
                info.external_attr = 0o120777 << 16
            archive.writestr(info, b"/etc/passwd" if content is LINK else content)  # type: ignore[arg-type]
    return out.getvalue()


def tarred(*members: tuple[str, object], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = (tarfile.SYMTYPE if content is LINK else tarfile.LNKTYPE), "/etc/passwd"
                archive.addfile(info)
    return out.getvalue()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which it is served on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def run(url: str | None, digest: str | None, index: Path) -> made.ProgramResult:
    return made.run_program("fetch_release.py", "--index", index, "--cfg", config_file({"url": url, "sha256": digest}))


def extract(tmp_path: Path, data: bytes) -> list[str]:
    (tmp_path / "archive").write_bytes(data)
    written = question_files.extract_question_files(tmp_path / "archive", tmp_path / "out")
    return sorted(p.relative_to(tmp_path / "out").as_posix() for p in written)


MEMBERS = (
    ("Med-MIM-1/a/set.json", TEXT),
    ("Med-MIM-1/README.md", b"hello"),
    ("Med-MIM-1/b/other.json", TEXT),
    ("x/._set.json", b"\0"),
)


@pytest.mark.parametrize("data", [zipped(*MEMBERS), *(tarred(*MEMBERS, mode=m) for m in ("w", "w:gz", "w:xz"))])
def test_fetches_checks_and_keeps_the_json(server, tmp_path, data):
    folder, url = server
    (folder / "release").write_bytes(data)
    index = tmp_path / "raw" / "release" / "files.parquet"
    done = run(f"{url}/release", sha256(data).hexdigest(), index)
    assert done.returncode == 0, done.stderr
    rows = table_io.read_table(index, "files").to_pylist()
    assert [r["path"] for r in rows] == ["Med-MIM-1/a/set.json", "Med-MIM-1/b/other.json"]
    assert {r["sha256"] for r in rows} == {sha256(TEXT).hexdigest()}
    assert (index.parent / rows[0]["path"]).read_bytes() == TEXT
    assert json.loads(index.with_name("files.parquet.prov.json").read_text())["cfg"]["sha256"] == sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "path", "digest", "expected"),
    [
        (zipped(*MEMBERS), "/release", "0" * 64, "not the file that was pinned"),
        (zipped(*MEMBERS), "/other", None, "can't be downloaded: 404"),
        (zipped(*MEMBERS)[:-40], "/release", None, "can't be extracted"),
        (tarred(*MEMBERS)[:-40], "/release", None, "can't be extracted"),
        (b"<html>Sign in</html>", "/release", None, "can't be extracted"),
        (zipped(("good.json", TEXT), ("../evil.json", TEXT)), "/release", None, "member '../evil.json' would be written outside"),
    ],
)
def test_what_cannot_be_fetched_is_told_and_leaves_nothing(server, tmp_path, data, path, digest, expected):
    folder, url = server
    (folder / "release").write_bytes(data)
    index = tmp_path / "raw" / "release" / "files.parquet"
    done = run(url + path, digest or sha256(data).hexdigest(), index)
    assert done.returncode == 1
    assert expected in done.stderr
    assert url in done.stderr
    assert "Traceback" not in done.stderr
    assert [p for p in (tmp_path / "raw").rglob("*") if p.is_file()] == []
    assert not list(tmp_path.rglob("evil.json"))


def test_no_server_no_hash_and_no_url(tmp_path):
    index = tmp_path / "release" / "files.parquet"
    assert "can't be downloaded" in run("http://127.0.0.1:9/release.zip", "0" * 64, index).stderr
    assert "expected a URL that begins with https://" in run("file:///etc/passwd", "0" * 64, index).stderr
    assert "qa.release needs url and sha256" in run("http://127.0.0.1:9/release.zip", None, index).stderr


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["/tmp/evil.json", "../evil.json", "a/../../evil.json", "..\\evil.json", "C:evil.json", "a\n.json"]
)
def test_members_that_leave_the_folder_are_refused(tmp_path, pack, name):
    with pytest.raises(UserError, match="would be written outside its folder"):
        extract(tmp_path, pack((name, TEXT)))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("data", [zipped(("a.json", LINK)), tarred(("a.json", LINK)), tarred(("a.json", "hard"))])
def test_links_are_refused(tmp_path, data):
    with pytest.raises(UserError, match=r"member 'a\.json' is a link or a device"):
        extract(tmp_path, data)


def test_links_and_paths_of_other_files_do_no_harm(tmp_path):
    assert extract(tmp_path, tarred(("docs", LINK), ("../evil.md", b"x"), ("set.json", TEXT))) == ["set.json"]
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["set.json"]


def test_an_archive_that_grows_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(question_files, "MAX_BYTES", 10_000)
    assert extract(tmp_path, zipped(("a.json", b" " * 6_000), ("notes.txt", b" " * 60_000))) == ["a.json"]
    with pytest.raises(UserError, match="larger than 10000 bytes together"):
        extract(tmp_path, zipped(("b.json", b" " * 6_000), ("c.json", b" " * 6_000)))


def test_a_member_given_twice_and_an_archive_without_json(tmp_path):
    with pytest.raises(UserError, match=r"member 'set\.json' stands in the archive twice"):
        extract(tmp_path, tarred(("set.json", TEXT), ("set.json", TEXT)))
    with pytest.raises(UserError, match=r"holds no \.json file"):
        extract(tmp_path, zipped(("README.md", TEXT)))


def test_an_encrypted_archive_is_refused(tmp_path):
    data = bytearray(zipped(("set.json", TEXT)))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1  # the flag that says so, in both headers
    with pytest.raises(UserError, match="can't be extracted"):
        extract(tmp_path, bytes(data))
