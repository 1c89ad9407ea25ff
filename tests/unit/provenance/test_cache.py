import errno
import json
import logging
import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from record_made import complete_record

from medmim.common import files
from medmim.common.errors import UserError
from medmim.provenance import job_record
from medmim.provenance.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, Cache, find_folder, match_inputs
from users import OTHER_ID, call_as_other

RECORD = complete_record()
NO_LIMIT = 1 << 40


def put(cache: Cache, key: str, folder: Path, **contents: str) -> dict[str, dict[str, tuple[Path, str]]]:
    """Keep files of these contents under a key: `whole` as a single file, the others as one folder."""
    kept: dict[str, dict[str, tuple[Path, str]]] = {}
    for name, text in contents.items():
        path = folder / key / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # as jobs do: never written in place, which would change what the cache holds
        path.write_text(text)
        kept.setdefault("one" if name == "whole" else "many", {})["" if name == "whole" else f"sub/{name}"] = (
            path,
            files.hash_file(path),
        )
    cache.put(key, RECORD, kept)
    return kept


def blobs(cache: Cache) -> dict[str, Path]:
    """Files kept by their content."""
    return {path.read_text(): path for path in cache.folder.glob("blobs/*/*")}


def used(cache: Cache, key: str, at: int) -> None:
    """Set when an entry was used last."""
    os.utime(cache.folder / "jobs" / key[:2] / f"{key}.json", (at, at))


def keys(cache: Cache) -> list[str]:
    return [path.stem for path in cache.list_entries()]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", NO_LIMIT)


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "medmim"):
        yield caplog


def test_what_was_put_is_restored_as_links(cache: Cache, tmp_path: Path) -> None:
    put(cache, "aa1", tmp_path, whole="w", x="x", y="y")
    entry = cache.get("aa1")
    assert entry is not None and entry.record == RECORD and sorted(entry.outputs) == ["many", "one"]
    cache.restore_output(entry.outputs["one"], tmp_path / "to")
    cache.restore_output(entry.outputs["many"], tmp_path / "folder")
    assert (tmp_path / "to").read_text() == "w" and (tmp_path / "to").samefile(blobs(cache)["w"])
    assert {p.name: p.read_text() for p in (tmp_path / "folder/sub").iterdir()} == {"x": "x", "y": "y"}
    assert blobs(cache)["x"].stat().st_nlink == 3, "the job's, the cache's, the restored"
    assert [p.name for p in tmp_path.rglob("*partial*")] == []


def test_an_unknown_key_is_a_miss_without_a_word(cache: Cache, told: pytest.LogCaptureFixture) -> None:
    assert cache.get("aa1") is None
    assert told.text == "" and not cache.folder.exists()


def test_equal_files_are_kept_once(cache: Cache, tmp_path: Path) -> None:
    put(cache, "aa1", tmp_path, x="same", y="same", z="other")
    put(cache, "bb2", tmp_path, whole="same")
    assert sorted(blobs(cache)) == ["other", "same"]
    assert cache.get("aa1") and cache.get("bb2")


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_where_links_are_refused_files_are_copied(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refused)
    put(cache, "aa1", tmp_path, whole="w" * 100_000)
    entry = cache.get("aa1")
    assert entry is not None
    cache.restore_output(entry.outputs["one"], tmp_path / "to")
    (tmp_path / "aa1/whole").write_text("changed in place")
    assert (tmp_path / "to").read_text() == "w" * 100_000
    assert cache.get("aa1") is not None


def test_on_another_device_files_are_copied(tmp_path: Path) -> None:
    other = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    folder = other / f"medmim-{os.getpid()}"
    try:
        cache = Cache(folder, NO_LIMIT)
        put(cache, "aa1", tmp_path, whole="w")
        entry = cache.get("aa1")
        assert entry is not None
        cache.restore_output(entry.outputs["one"], tmp_path / "to")
        assert (tmp_path / "to").read_text() == "w"
        one_device = folder.stat().st_dev == tmp_path.stat().st_dev
        assert (tmp_path / "to").samefile(blobs(cache)["w"]) is one_device
        assert cache.must_copy(tmp_path / "not/yet there") is not one_device and not cache.must_copy(folder / "results")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_damaged_file_is_a_miss_and_named(cache: Cache, tmp_path: Path, told: pytest.LogCaptureFixture, at: int) -> None:
    put(cache, "aa1", tmp_path, whole="abc", x="good")
    put(cache, "bb2", tmp_path, whole="other")
    blob = blobs(cache)["abc"]
    data = bytearray(b"abc")
    data[at] ^= 1
    blob.write_bytes(data)
    assert cache.find_damaged([blob.name, *(p.name for p in blobs(cache).values())]) == [blob] * 2
    assert cache.get("aa1") is None
    assert blob.as_posix() in told.text and "dropped a damaged entry" in told.text
    assert not blob.exists() and sorted(blobs(cache)) == ["good", "other"] and keys(cache) == ["bb2"]
    put(cache, "aa1", tmp_path, whole="abc", x="good")
    assert cache.get("aa1") is not None, "kept again"


def test_a_missing_file_is_a_miss_and_named(cache: Cache, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    put(cache, "aa1", tmp_path, whole="abc")
    blob = blobs(cache)["abc"]
    blob.unlink()
    assert cache.get("aa1") is None
    assert blob.as_posix() in told.text and keys(cache) == []


def test_a_damaged_record_is_a_miss_and_named(cache: Cache, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    put(cache, "aa1", tmp_path, whole="abc")
    (path,) = cache.list_entries()
    whole = path.read_bytes()
    for at in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        told.clear()
        assert cache.get("aa1") is None
        assert path.as_posix() in told.text and keys(cache) == []


def test_a_record_under_another_key_is_no_entry_of_it(cache: Cache, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    put(cache, "aa1", tmp_path, whole="abc")
    (path,) = cache.list_entries()
    path.rename(path.with_name("aa2.json"))
    assert cache.get("aa2") is None
    assert "aa2.json" in told.text


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format_version": 2}, "was written in format version 2, and this checkout reads version 1"),
        ({"format_version": None}, "was written before formats had versions"),
        ({"record": {k: v for k, v in RECORD.items() if k != "options"}}, "lacks options"),
        ({"record": None}, "lacks all its fields"),
        ({"outputs": {"one": "a"}}, "lacks outputs"),
    ],
    ids=["newer", "older", "no options", "no record", "no outputs"],
)
def test_a_record_of_another_version_is_a_miss_and_stays(
    cache: Cache, tmp_path: Path, told: pytest.LogCaptureFixture, change: dict[str, object], problem: str
) -> None:
    put(cache, "aa1", tmp_path, whole="abc")
    (path,) = cache.list_entries()
    job_record.write_record(path, job_record.read_sealed_record(path) | change)
    assert cache.get("aa1") is None
    assert f"{path}: {problem}" in told.text and "computing again" in told.text
    assert keys(cache) == ["aa1"]
    put(cache, "aa1", tmp_path, whole="abc")
    assert cache.get("aa1") is not None


def test_a_path_that_leaves_its_output_is_refused(cache: Cache, tmp_path: Path) -> None:
    put(cache, "aa1", tmp_path, whole="abc")
    (path,) = cache.list_entries()
    record = job_record.read_sealed_record(path)
    (sha256,) = record["outputs"]["one"].values()
    for name in ("../../out", "/out", "a/../../out"):
        with pytest.raises(PermissionError, match="would be written outside"):
            cache.restore_output({name: sha256}, tmp_path / "deep/er")
    assert not (tmp_path / "out").exists()


def test_what_may_only_be_read_is_read(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    put(cache, "aa1", tmp_path, whole="abc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refused)
        assert cache.get("aa1") is not None
    blobs(cache)["abc"].write_text("abd")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        assert cache.get("aa1") is None


# The limit


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 30)
    for n, key in enumerate(("aa", "bb", "cc")):
        put(cache, key, tmp_path, whole=key * 5)
        used(cache, key, n)
    assert cache.get("aa") is not None, "used: bb is now the oldest"
    put(cache, "dd", tmp_path, whole="dd" * 5)
    assert keys(cache) == ["aa", "cc", "dd"]
    assert sorted(blobs(cache)) == ["aa" * 5, "cc" * 5, "dd" * 5]


def test_exactly_the_limit_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10)
    put(cache, "aa", tmp_path, whole="aaaaa", x="bbbbb")
    assert cache.get("aa") is not None


def test_too_large_an_entry_is_not_kept_and_drops_no_other(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10)
    put(cache, "aa", tmp_path, whole="a" * 10)
    put(cache, "bb", tmp_path, whole="b" * 6, x="c" * 5)
    assert keys(cache) == ["aa"] and sorted(blobs(cache)) == ["a" * 10]


def test_a_file_of_another_entry_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 25)
    put(cache, "aa", tmp_path, whole="shared" + "." * 4, x="a" * 10)
    used(cache, "aa", 1)
    put(cache, "bb", tmp_path, whole="shared" + "." * 4, x="b" * 5)
    used(cache, "bb", 2)
    put(cache, "cc", tmp_path, whole="c" * 10)
    assert keys(cache) == ["bb", "cc"]
    assert cache.get("bb") is not None


def test_what_no_entry_holds_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 20)
    put(cache, "aa", tmp_path, whole="a" * 10)
    put(cache, "bb", tmp_path, whole="b" * 5)
    (cache.folder / "jobs/bb/bb.json").unlink()
    left = next(cache.folder.glob("blobs/*")) / ".0123.partial-4567"
    left.write_text("x" * 10)  # of a process killed while it copied
    put(cache, "cc", tmp_path, whole="c" * 10)
    assert keys(cache) == ["aa", "cc"]
    assert sorted(blobs(cache)) == ["a" * 10, "c" * 10]


@pytest.mark.parametrize("text", ["[]", '"outputs"', "{}", "{", '{"outputs": {"a": {"b": []}}}', '{"outputs": [1]}'])
def test_trimming_passes_over_damaged_records(tmp_path: Path, text: str) -> None:
    cache = Cache(tmp_path / "cache", 10)
    put(cache, "aa", tmp_path, whole="a" * 10)
    (cache.folder / "jobs/aa/aa.json").write_text(text)
    put(cache, "bb", tmp_path, whole="b" * 10)
    assert cache.get("bb") is not None and sorted(blobs(cache)) == ["b" * 10]
    assert cache.get("aa") is None


def test_what_is_trimmed_between_two_looks_is_a_miss_and_named(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path / "cache", 10)
    put(cache, "aa", tmp_path, whole="a" * 10)
    entry, record = cache.get("aa"), (cache.folder / "jobs/aa/aa.json").read_bytes()
    put(cache, "bb", tmp_path, whole="b" * 10)
    assert entry is not None
    with pytest.raises(OSError):
        cache.restore_output(entry.outputs["one"], tmp_path / "to")
    assert not (tmp_path / "to").exists()
    (cache.folder / "jobs/aa/aa.json").write_bytes(record)  # as if written just after its file was trimmed
    assert cache.get("aa") is None and "or gone" in told.text


# Several processes


def work(folder: Path, number: int, limit: int, times: int) -> None:
    """Put, get and restore the same few entries again and again. Raises AssertionError where a wrong byte comes back."""
    rng = random.Random(number)
    cache = Cache(folder / "cache", limit)
    own = folder / f"worker{number}"
    for _ in range(times):
        key = f"{rng.randrange(4):02d}"
        if rng.random() < 0.5:
            try:
                put(cache, key, own, whole=key * 1000, x="shared" * 100)
            except OSError:
                continue
        elif (entry := cache.get(key)) is not None:
            try:
                cache.restore_output(entry.outputs["one"], own / "to")
                cache.restore_output(entry.outputs["many"], own / "too")
            except OSError:
                continue
            assert (own / "to").read_text() == key * 1000
            assert (own / "too/sub/x").read_text() == "shared" * 100


@pytest.mark.parametrize("limit", [NO_LIMIT, 5000])
def test_several_processes_share_a_cache(tmp_path: Path, limit: int) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(tmp_path, n, limit, 60)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    cache = Cache(tmp_path / "cache", limit)
    assert [p for p in cache.folder.rglob("*partial*")] == []
    for path in cache.list_entries():
        assert json.loads(path.read_text())["record"] == RECORD
    if limit == NO_LIMIT:
        assert keys(cache) == ["00", "01", "02", "03"] and all(cache.get(key) for key in keys(cache))
    else:
        cache.trim()
        assert sum(p.stat().st_size for p in blobs(cache).values()) <= limit


# Two users of one cache


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """A cache below a folder that any user may enter and write to, and the present folder."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    for path in (folder, folder / "cache"):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    monkeypatch.chdir(folder)
    yield Cache(folder / "cache", NO_LIMIT)
    shutil.rmtree(folder)


def take_as_other(cache: Cache, key: str) -> None:
    def take() -> None:
        entry = cache.get(key)
        assert entry is not None, "a miss"
        place = Path("of the other user")
        cache.restore_output(entry.outputs["one"], place)
        assert place.read_text() == "weights" and place.stat().st_uid in (0, OTHER_ID)

    assert call_as_other(take) == 0


def test_what_one_user_puts_another_takes(shared: Cache) -> None:
    """The weights of a model, which their library writes for the user alone; the job puts them in place first."""
    Path("temporary").write_text("weights")
    Path("temporary").chmod(0o600)
    files.replace_path(Path("temporary"), Path("model"))
    shared.put("aa1", RECORD, {"one": {"": (Path("model"), files.hash_file(Path("model")))}})
    take_as_other(shared, "aa1")


def test_what_is_put_belongs_to_the_group_of_the_cache(shared: Cache) -> None:
    """A link to a file outside it would have that file's group, of whom the others need not be."""
    os.chown(shared.folder, -1, OTHER_ID)
    shared.folder.chmod(0o2777)
    put(shared, "aa1", Path("put"), whole="weights")
    (blob,) = blobs(shared).values()
    assert blob.samefile("put/aa1/whole")
    assert {path.stat().st_gid for path in shared.folder.rglob("*")} == {OTHER_ID}


@pytest.mark.parametrize("hidden", ["blob", "record", "folder"])
def test_what_another_user_may_not_read_is_no_damage(shared: Cache, hidden: str, capfd: pytest.CaptureFixture[str]) -> None:
    for key in ("aa1", "bb2"):
        Path(key).write_text(f"weights of {key}")
        shared.put(key, RECORD, {"one": {"": (Path(key), files.hash_file(Path(key)))}})
    kept = sorted(p for p in shared.folder.rglob("*") if p.is_file())
    for path in shared.folder.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for path in shared.folder.glob({"blob": "blobs/*/*", "record": "jobs/*/*", "folder": "blobs/*"}[hidden]):
        path.chmod(0o600)

    def miss() -> None:
        logging.getLogger("medmim").addHandler(logging.StreamHandler())
        assert shared.get("aa1") is None and shared.get("bb2") is None

    assert call_as_other(miss) == 0
    assert sorted(p for p in shared.folder.rglob("*") if p.is_file()) == kept
    (said,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cache:")]
    assert "Permission denied" in said and f"chmod -R a+rX {shared.folder}" in said and "damaged" not in said


def test_the_second_user_puts_anew_what_was_not_readable(shared: Cache) -> None:
    Path("model").write_text("weights")
    Path("model").chmod(0o600)
    sha256 = files.hash_file(Path("model"))
    shared.put("aa1", RECORD, {"one": {"": (Path("model"), sha256)}})
    for path in shared.folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o777)

    def put_again() -> None:
        assert shared.get("aa1") is None
        Path("computed").write_text("weights")
        shared.put("aa1", RECORD, {"one": {"": (Path("computed"), sha256)}})

    Path().chmod(0o777)
    assert call_as_other(put_again) == 0
    assert shared.get("aa1") is not None
    take_as_other(shared, "aa1")


def test_links_to_another_users_files_may_be_forbidden(shared: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As fs.protected_hardlinks forbids them, whatever it is set to here."""

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))

    monkeypatch.setattr(os, "link", refuse)
    test_what_one_user_puts_another_takes(shared)


def test_trimming_leaves_what_may_not_be_deleted(shared: Cache) -> None:
    put(shared, "aa1", Path("put"), whole="x" * 1000)
    kept = sorted(shared.folder.rglob("*"))
    assert call_as_other(Cache(shared.folder, 10).trim) == 0
    assert sorted(shared.folder.rglob("*")) == kept


def test_trimming_spares_files_of_entries_that_one_may_not_read(shared: Cache) -> None:
    put(shared, "aa1", Path("put"), whole="x" * 1000)
    for path in shared.folder.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (record,) = shared.list_entries()
    record.chmod(0o600)
    assert call_as_other(Cache(shared.folder, 10).trim) == 0
    assert [*blobs(shared).values()] and record.exists()


INPUTS = ["r[1]*/qa/a train.json", "r[1]*/qa/b train.json", "r1x/qa/c train.json", "paper *.csv", "paper 2.csv"]


@pytest.mark.parametrize(
    "word, matched",
    [
        ("r[1]*/qa/*train*.json", INPUTS[:2]),
        ("./r[1]*/qa/a train.json", INPUTS[:1]),
        ("paper *.csv", ["paper *.csv"]),
        ("pap*.csv", INPUTS[3:]),
        ("r*/qa/a train.json", []),
    ],
)
def test_only_a_name_is_a_pattern_and_no_name_that_a_file_has(word: str, matched: list[str]) -> None:
    assert match_inputs(word, INPUTS) == matched


def test_a_home_folder_in_the_environment_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home of/me")
    monkeypatch.setenv("MEDMIM_CACHE", "~/cache")
    assert find_folder("configured") == "/home of/me/cache"
    monkeypatch.setenv("MEDMIM_CACHE", "")
    assert find_folder("configured") == ""
    monkeypatch.setenv("MEDMIM_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UserError, match=r"MEDMIM_CACHE: .*home folder of ~nobody-of-this-name is not known"):
        find_folder("configured")
    monkeypatch.delenv("MEDMIM_CACHE")
    assert find_folder("configured") == "configured" and find_folder(None) == ""


@pytest.mark.parametrize("limit", ["ten", "-1", "0", "1.5", "1e9", " "])
def test_a_limit_that_is_no_number_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(LIMIT_VARIABLE, limit)
    with pytest.raises(UserError, match=r"environment variable MEDMIM_CACHE_LIMIT: is .*; allowed: whole number of bytes from 1"):
        Cache.from_environment()
    monkeypatch.setenv(LIMIT_VARIABLE, "12")
    found = Cache.from_environment()
    assert found is not None and found.limit == 12
