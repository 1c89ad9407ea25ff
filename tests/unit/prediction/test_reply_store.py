"""The store of replies: what is put is there for every later run, whatever was killed meanwhile."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from medmim.prediction.reply_store import ReplyStore


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
        "import sys; from pathlib import Path; from medmim.prediction.reply_store import ReplyStore\n"
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
