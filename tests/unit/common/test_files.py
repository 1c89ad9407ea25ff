"""What is put in place, and what tells that a file was touched."""

import os
from pathlib import Path

import pytest

from medmim.common import files


def find_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_what_is_put_in_place_has_the_permissions_of_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, file_mode: int, folder_mode: int
) -> None:
    monkeypatch.setattr(files, "UMASK", umask)
    written, folder = tmp_path / "written", tmp_path / "folder"
    written.touch(0o600)
    folder.mkdir(0o700)
    (folder / "sub").mkdir(0o700)
    (folder / "sub/weights").touch(0o600)
    files.replace_path(written, tmp_path / "a")
    files.replace_path(folder, tmp_path / "b")
    assert [find_mode(tmp_path / name) for name in ("a", "b/sub/weights")] == [file_mode] * 2
    assert [find_mode(tmp_path / name) for name in ("b", "b/sub")] == [folder_mode] * 2


def test_permissions_that_a_file_has_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UMASK", 0o077)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    (shared / "read").touch()
    (shared / "read").chmod(0o644)
    (shared / "link").symlink_to("/nowhere")
    files.apply_umask(shared)
    assert shared.stat().st_mode & 0o7777 == 0o2775 and find_mode(shared / "read") == 0o644


@pytest.mark.parametrize("what", ["size", "time", "content alone"])
def test_a_touched_tree_has_another_digest(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a"
    path.write_text("a")
    before, stat = files.tree_digest(tmp_path), path.stat()
    assert files.tree_digest(tmp_path) == before
    path.write_text("aa" if what == "size" else "b")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (what == "time")))
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # a file system's clock may stand for some milliseconds
        path.chmod(stat.st_mode)
    assert files.tree_digest(tmp_path) != before
