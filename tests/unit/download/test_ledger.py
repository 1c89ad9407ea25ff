"""What is known of a downloaded file, and when it has to be looked at again."""

import os
from pathlib import Path

import pytest

from medmim.common import files
from medmim.download import ledger
from medmim.download.ledger import Ledger


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """A file that was noted."""
    path = tmp_path / "images/a"
    path.parent.mkdir()
    path.write_text("a")
    Ledger(tmp_path).add_file("images/a", files.hash_file(path), "https://example.org/a")
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files hashed."""
    names: list[str] = []
    monkeypatch.setattr(ledger, "hash_file", lambda path: names.append(path.name) or files.hash_file(path))
    return names


def change_inode(path: Path) -> None:
    """As by writing in place, with the file's time set back."""
    stat = path.stat()
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # a file system's clock may stand for some milliseconds
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_file_that_nobody_touched_is_not_read(noted: Path, tmp_path: Path, read: list[str]) -> None:
    assert Ledger(tmp_path).find_hash(noted) == files.hash_file(noted)
    assert read == []


def test_a_write_in_place_that_keeps_size_and_time_is_seen(noted: Path, tmp_path: Path) -> None:
    stat = noted.stat()
    noted.write_text("b")
    os.utime(noted, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    change_inode(noted)
    assert Ledger(tmp_path).find_hash(noted) is None and not Ledger(tmp_path).has_file("images/a")


def test_a_touched_inode_is_read_once(noted: Path, tmp_path: Path, read: list[str]) -> None:
    change_inode(noted)
    for _ in range(2):
        assert Ledger(tmp_path).find_hash(noted) == files.hash_file(noted)
    assert read == ["a"]


def test_a_line_of_before_is_looked_at_once(noted: Path, tmp_path: Path, read: list[str]) -> None:
    lines = tmp_path / ".download/ledger.jsonl"
    lines.write_text(lines.read_text().replace('"ctime_ns"', '"other"'))
    for _ in range(2):
        assert Ledger(tmp_path).has_file("images/a")
    assert read == ["a"]
