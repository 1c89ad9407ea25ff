"""The store of replies: what is put is there for every later run, whatever was killed meanwhile."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from medmim.common.errors import UserError
from medmim.endpoints import reply_store
from medmim.endpoints.reply_store import ReplyStore


def test_what_was_put_is_there_later(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "replies") as store:
        assert store.get("a") is None and not (tmp_path / "replies").exists()
        store.put("a", {"reply": "ja\n", "logprobs": [-0.1]})
        store.put("b", None)
    with ReplyStore(tmp_path / "replies") as again:
        assert again.get("a") == {"reply": "ja\n", "logprobs": [-0.1]}
        assert "b" in again and "c" not in again


def test_a_torn_line_is_passed_over_and_two_processes_do_not_meet(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as one, ReplyStore(tmp_path) as two:
        one.put("a", 1)
        two.put("b", 2)
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:-3])
    with ReplyStore(tmp_path) as store:
        assert (store.get("a"), store.get("b")) == (1, 2)


def test_nothing_that_was_put_is_lost_by_a_kill(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from medmim.endpoints.reply_store import ReplyStore\n"
        "with ReplyStore(Path(sys.argv[1])) as store:\n"
        "    for n in range(10**6):\n"
        "        store.put(str(n), 'x' * 100)\n"
        "        print(n, flush=True)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    said = [int(running.stdout.readline()) for _ in range(200)]
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    with ReplyStore(tmp_path) as store:
        assert all(str(n) in store for n in said)


def test_replies_are_kept_by_several_processes_and_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_store, "REFRESH_SECONDS", 0.0)
    path = tmp_path / "a/replies"
    with ReplyStore(path) as one, ReplyStore(path) as two:
        one.put("k", {"a": "ä\ud83d"})
        two.put("k", {"a": 2})
        assert two.get("k") == {"a": "ä\ud83d"} and "k" in two and "x" not in two and one.get("x") is None
        name = one.plan_batch("u")
        assert two.pending_batches("u") == {name: None} and two.pending_batches("v") == {}
        two.record_batch_id(name, "b1")
        assert one.pending_batches("u") == {name: "b1"}
        one.end_batch(name, {"z": 1})
        assert two.pending_batches("u") == {} and two.get("z") == 1
    with ReplyStore(path) as again:
        assert again.pending_batches("u") == {} and (again.get("k"), again.get("z")) == ({"a": "ä\ud83d"}, 1)


def test_a_batch_whose_end_was_cut_off_is_still_on_its_way(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as store:
        name = store.plan_batch("u")
        store.record_batch_id(name, "b1")
        store.end_batch(name, {"z": 1})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    with ReplyStore(tmp_path) as store:
        assert store.pending_batches("u") == {name: "b1"} and "z" not in store


def test_replies_that_an_earlier_version_paid_for_are_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "embed.sqlite")) as database, database:
        database.executescript(
            "CREATE TABLE replies (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE batches (name TEXT PRIMARY KEY, url TEXT NOT NULL, id TEXT) WITHOUT ROWID;"
        )
        database.execute("INSERT INTO replies VALUES ('k', '{\"content\": \"A\"}')")
        database.execute("INSERT INTO batches VALUES ('one', 'u', 'b1'), ('two', 'u', NULL)")
    with ReplyStore(tmp_path / "embed") as store:
        assert store.get("k") == {"content": "A"} and store.pending_batches("u") == {"one": "b1", "two": None}
        store.end_batch("one", {"z": 1})
        store.put("k", "other")
    with ReplyStore(tmp_path / "embed") as again:
        assert (again.get("k"), again.get("z"), again.pending_batches("u")) == ({"content": "A"}, 1, {"two": None})


def test_another_file_is_not_taken_for_replies(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("no database, but something dear to somebody\n" * 50)
    with pytest.raises(UserError, match=r"x\.sqlite can't be read: .*move it away"):
        ReplyStore(tmp_path / "x")
    assert (tmp_path / "x.sqlite").read_text().startswith("no database")
    with pytest.raises(UserError, match=r"x\.sqlite is a file, but replies are kept in a folder"):
        ReplyStore(tmp_path / "x.sqlite")
