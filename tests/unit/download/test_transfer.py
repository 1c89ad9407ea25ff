"""One file from a server that does what servers do: it breaks off, waits, refuses, moves, lies."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmim.common import files
from medmim.common.errors import UserError
from medmim.download import transfer
from medmim.download.credentials import Login
from medmim.download.errors import AccessDeniedError, NotFoundError, TransientError
from medmim.download.http import HttpClient
from medmim.download.source_folder import DownloadFolder
from medmim.download.transfer import Checksum, RetryPolicy
from servers import CORRUPTED, TRUNCATED, Site, serve_site

DATA = bytes(range(256)) * 12_000  # three chunks
QUICK = RetryPolicy(retries=4, pause=0.001)
GOOD = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as found:
        found.add_page("/file", DATA)
        yield found


def fetch(site: Site, root: Path, path: str = "/file", checksum: Checksum | None = None, login: Login | None = None) -> str:
    server = HttpClient(site.url, login, "Ask the owner")
    return transfer.fetch_file(root, server.make_remote("here/file", site.url + path, None, checksum), QUICK)[0]


def left(root: Path) -> list[str]:
    return sorted(p.name for p in root.rglob("*") if p.is_file())


def test_a_file_comes_whole_and_nothing_stays_beside_it(site: Site, tmp_path: Path) -> None:
    assert fetch(site, tmp_path) == GOOD
    assert (tmp_path / "here/file").read_bytes() == DATA
    assert left(tmp_path) == ["file"]


@pytest.mark.parametrize("etag", [True, False])
def test_cut_connections_go_on_where_they_were_cut(site: Site, tmp_path: Path, etag: bool) -> None:
    site.add_page("/file", DATA, etag=etag)
    site.add_faults("/file", TRUNCATED, TRUNCATED, TRUNCATED)
    assert fetch(site, tmp_path) == GOOD
    assert [r.status for r in site.requests] == [200, 206, 206, 206]
    assert site.count_bytes_sent() == len(DATA)
    assert [("If-Range" in r.headers) for r in site.requests[1:]] == [etag] * 3


def test_more_cuts_than_attempts_do_no_harm_while_bytes_come(site: Site, tmp_path: Path) -> None:
    site.add_faults("/file", *[TRUNCATED] * 10)
    assert fetch(site, tmp_path) == GOOD


def test_another_process_goes_on_where_one_was_ended(site: Site, tmp_path: Path) -> None:
    site.add_faults("/file", TRUNCATED, *[500] * 4)
    with pytest.raises(TransientError, match="500"):
        fetch(site, tmp_path)
    assert not (tmp_path / "here/file").exists()
    site.requests.clear()
    assert fetch(site, tmp_path, checksum=Checksum("sha256", GOOD)) == GOOD
    assert site.requests[0].headers["Range"] == f"bytes={len(DATA) // 2}-" and site.count_bytes_sent() == len(DATA) // 2


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.add_page("/file", DATA, ranges=False)
    site.add_faults("/file", TRUNCATED)
    assert fetch(site, tmp_path) == GOOD
    assert [r.status for r in site.requests] == [200, 200]


@pytest.mark.parametrize("etag", [True, False])
def test_a_file_that_changed_at_its_owners_starts_again(site: Site, tmp_path: Path, etag: bool) -> None:
    site.add_page("/file", DATA, etag=etag)
    site.add_faults("/file", TRUNCATED, *[500] * 4)
    with pytest.raises(TransientError):
        fetch(site, tmp_path)
    new = DATA[1:] + b"abc"
    site.add_page("/file", new, etag=etag)
    assert fetch(site, tmp_path) == hashlib.sha256(new).hexdigest()
    assert (tmp_path / "here/file").read_bytes() == new


def test_a_kill_as_it_starts_again_mixes_no_two_files(site: Site, tmp_path: Path) -> None:
    site.add_faults("/file", TRUNCATED, *[500] * 4)
    with pytest.raises(TransientError):
        fetch(site, tmp_path)
    partial = transfer.PartialFile(tmp_path, "here/file")
    partial.begin(transfer.FileResponse(iter(()), 0, len(DATA), "of another", None), {"sha256"})  # and then it is killed
    assert transfer.PartialFile(tmp_path, "here/file").size == 0


def test_wrong_bytes_are_fetched_again_and_never_kept(site: Site, tmp_path: Path) -> None:
    site.add_faults("/file", CORRUPTED)
    assert fetch(site, tmp_path, checksum=Checksum("md5", hashlib.md5(DATA).hexdigest())) == GOOD
    with pytest.raises(TransientError, match=f"has sha256 {GOOD}, its owner states 00"):
        fetch(site, tmp_path / "other", checksum=Checksum("sha256", "00"))
    assert left(tmp_path / "other") == []


def test_the_md5_that_a_storage_states_is_checked(site: Site, tmp_path: Path) -> None:
    site.add_page("/file", DATA, headers={"X-Goog-Hash": "crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA=="})
    with pytest.raises(TransientError, match="its owner states 0000"):
        fetch(site, tmp_path)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_faults_are_waited_out(site: Site, tmp_path: Path, status: int) -> None:
    site.add_faults("/file", status, status)
    assert fetch(site, tmp_path) == GOOD


def test_a_server_that_says_how_long_to_wait_is_obeyed(site: Site, tmp_path: Path) -> None:
    site.retry_after = "1"
    site.add_faults("/file", 429)
    began = time.monotonic()
    assert fetch(site, tmp_path) == GOOD
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (410, NotFoundError), (401, AccessDeniedError), (403, AccessDeniedError), (400, UserError)],
)
def test_lasting_faults_are_not_tried_again(site: Site, tmp_path: Path, status: int, kind: type[Exception]) -> None:
    site.add_faults("/file", status)
    with pytest.raises(kind, match=str(status)):
        fetch(site, tmp_path)
    assert len(site.requests) == 1


def test_no_server_and_no_room(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HttpClient("http://127.0.0.1:9")
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:9/x: can't be reached"):
        transfer.fetch_file(tmp_path, server.make_remote("x", "http://127.0.0.1:9/x?signature=secret"), QUICK)
    monkeypatch.setattr(transfer, "RESERVED_DISK_BYTES", 1 << 60)
    with pytest.raises(UserError, match="make room"):
        fetch(site, tmp_path)


# Logins


def test_a_login_goes_to_its_server_and_no_further(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login somebody password elses\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve_site("localhost") as storage:
        storage.add_page("/signed", DATA)
        site.add_page("/file", login="me:pass word", moved=f"{storage.url}/signed?Signature=abc")
        assert fetch(site, tmp_path, login=Login("me", "pass word", "a test")) == GOOD
        assert "Authorization" in site.requests[0].headers
        assert [r.headers.get("Authorization") for r in storage.requests] == [None]


def test_a_token_and_a_redirect_within_the_server(site: Site, tmp_path: Path) -> None:
    site.add_page("/old", login="Bearer abc", moved=f"{site.url}/file")
    site.pages["/file"].login = "Bearer abc"
    assert fetch(site, tmp_path, "/old", login=Login("", "abc", "a test")) == GOOD


def test_a_refused_login_is_told_without_it(site: Site, tmp_path: Path) -> None:
    site.add_page("/file", DATA, login="me:right")
    with pytest.raises(AccessDeniedError, match=r"refuses the login of ~/\.netrc \(401\)\. Ask the owner") as told:
        fetch(site, tmp_path, login=Login("me", "very secret", "~/.netrc"))
    assert "very secret" not in str(told.value)
    with pytest.raises(AccessDeniedError, match="a request without a login"):
        fetch(site, tmp_path)


def test_no_login_over_http() -> None:
    with pytest.raises(UserError, match="a login is not sent over http"):
        HttpClient("http://physionet.org/files", Login("me", "secret", "a test"))


PAGE = b"\xef\xbb\xbf\n<!-- portal --><HTML lang=en><head><title>Please log in</title></head></HTML>" + bytes(3)


@pytest.mark.parametrize("checksum", [None, Checksum("sha256", GOOD)])
def test_a_page_in_place_of_a_file_is_refused_at_once_and_not_kept(site: Site, tmp_path: Path, checksum: Checksum | None) -> None:
    site.add_page("/page", PAGE)
    with pytest.raises(
        AccessDeniedError, match=r"/page: the server sent a web page, titled 'Please log in', in place of the file"
    ):
        fetch(site, tmp_path, "/page", checksum)
    assert left(tmp_path) == []
    assert len(site.requests) == 1
    remote = HttpClient(site.url).make_remote("terms.html", f"{site.url}/page")
    transfer.fetch_file(tmp_path, remote, QUICK)
    assert left(tmp_path) == ["terms.html"]


# Many files


def test_a_page_that_was_kept_before_is_fetched_again_and_the_users_own_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    remote = HttpClient(site.url).make_remote("a.jpg", f"{site.url}/file")
    with DownloadFolder("made", tmp_path, QUICK) as folder:
        (tmp_path / "a.jpg").write_bytes(PAGE)
        with pytest.raises(UserError, match=r"a\.jpg is a web page, titled 'Please log in', .*: move it away"):
            folder.fetch_files([remote])
        folder.ledger.add_file("a.jpg", "0" * 64, remote.origin)  # as it was noted when pages were not refused
        assert not folder.has_file("a.jpg")
    with DownloadFolder("made", tmp_path, QUICK) as folder:
        folder.fetch_files([remote])
        assert folder.has_file("a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == DATA


def test_a_ledger_of_odd_names_is_read_whole(site: Site, tmp_path: Path) -> None:
    name = "a\u2028b\u0085.txt"
    with DownloadFolder("made", tmp_path) as folder:
        (tmp_path / name).touch()
        folder.ledger._append_entry({"done": name})
    with DownloadFolder("made", tmp_path) as folder:
        assert folder.ledger.is_done(name)


def test_a_folder_is_filled_once(site: Site, tmp_path: Path) -> None:
    for number in range(20):
        site.add_page(f"/{number}", DATA[:number])
    server = HttpClient(site.url)

    def fill() -> DownloadFolder:
        with DownloadFolder("made", tmp_path, QUICK, 4) as folder:
            folder.fetch_files(server.make_remote(f"{n}.txt", f"{site.url}/{n}") for n in range(21))
        return folder

    assert fill().missing == {"20.txt": f"{site.url}/20: not there (404)"}
    rows = files.index_files(tmp_path, fill().ledger.find_hash)
    assert {r["path"]: r["sha256"] for r in rows} == {f"{n}.txt": hashlib.sha256(DATA[:n]).hexdigest() for n in range(20)}
    assert site.count_requests() == {"/20": 2, **{f"/{n}": 1 for n in range(20)}}
    (tmp_path / "7.txt").write_bytes(b"edited")
    with pytest.raises(UserError, match="move it away"), DownloadFolder("made", tmp_path, QUICK, 1) as folder:
        folder.fetch_files([server.make_remote("7.txt", f"{site.url}/7", size=7)])
    (tmp_path / "7.txt").unlink()
    with DownloadFolder("made", tmp_path, QUICK, 1) as folder:
        folder.fetch_files([server.make_remote("7.txt", f"{site.url}/7", size=7)])
    assert (tmp_path / "7.txt").read_bytes() == DATA[:7]


def test_what_is_missing_stops_it_only_beyond_the_limit(site: Site, tmp_path: Path) -> None:
    with DownloadFolder("made", tmp_path, QUICK, 2) as folder:
        folder.fetch_files([HttpClient(site.url).make_remote(name, f"{site.url}/{name}") for name in ("file", "gone")])
        folder.check_missing_share(0.5)
        with pytest.raises(UserError, match=r"made: 1 of 2 files are missing.*\n  gone: .*404"):
            folder.check_missing_share(0.49)


def test_what_a_kill_left_in_its_place_is_checked_and_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with DownloadFolder("made", tmp_path, QUICK) as folder:
        folder.fetch_files([HttpClient(site.url).make_remote("file", f"{site.url}/file", len(DATA), Checksum("sha256", GOOD))])
        assert folder.has_file("file") and site.requests == []
    with (tmp_path / ".download/ledger.jsonl").open("a") as ledger:
        ledger.write('{"path": "file", "bytes": 3, "mti')
    with DownloadFolder("made", tmp_path, QUICK) as folder:
        assert folder.has_file("file")


def test_paths_of_others_stay_in_the_folder(site: Site, tmp_path: Path) -> None:
    names = ["../out", "/tmp/out", "a/../../out", ".download/ledger.jsonl", "a\\b"]
    with DownloadFolder("made", tmp_path / "root", QUICK) as folder:
        folder.fetch_files([HttpClient(site.url).make_remote(name, f"{site.url}/file") for name in names])
    assert folder.missing.keys() == set(names) and site.requests == []


def test_one_download_at_a_time(tmp_path: Path) -> None:
    with DownloadFolder("made", tmp_path), pytest.raises(UserError, match="another download"), DownloadFolder("made", tmp_path):
        pass


def test_one_refusal_ends_the_others(site: Site, tmp_path: Path) -> None:
    site.add_page("/no", DATA, login="me:x")
    site.retry_after = "60"
    site.add_faults("/file", 429)
    server = HttpClient(site.url)
    began = time.monotonic()
    with pytest.raises(AccessDeniedError), DownloadFolder("made", tmp_path, RetryPolicy(), 2) as folder:
        folder.fetch_files([server.make_remote("file", f"{site.url}/file"), server.make_remote("no", f"{site.url}/no")])
    assert time.monotonic() - began < 30
