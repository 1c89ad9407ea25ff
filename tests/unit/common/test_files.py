"""Files put in place, and the walker of folders: links are followed; what has no end, name or access is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medmim.common import files
from medmim.common.errors import UserError


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


def write_tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def list_names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files.list_files(root)]


def test_odd_names_and_links_to_elsewhere_are_listed(tmp_path: Path) -> None:
    names = ["#1 é/it's {a} $(b) `c`.png", "a\nb", "b.png"]
    root = write_tree(tmp_path / "root", *names)
    outside = write_tree(tmp_path / "outside", "x/1.png", "2.png")
    (root / "folder").symlink_to(outside)
    (root / "again").symlink_to(outside)  # twice is no loop
    (root / "file").symlink_to(outside / "2.png")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    linked = [f"{name}/{path}" for name in ("again", "folder") for path in ("2.png", "x/1.png")]
    assert list_names(root) == sorted([*names, *linked, "file"], key=Path)
    assert [row["path"] for row in files.index_files(root)] == list_names(root)


def test_a_folder_that_is_not_there_holds_no_files(tmp_path: Path) -> None:
    assert files.list_files(tmp_path / "nowhere") == []


@pytest.mark.parametrize("link, target", [("a/loop", "."), ("a/b/up", "../.."), ("a/b/there", "{root}"), ("itself", "itself")])
def test_a_loop_of_links_is_named(tmp_path: Path, link: str, target: str) -> None:
    root = write_tree(tmp_path / "root", "a/b/1.png")
    (root / link).symlink_to(target.format(root=root))
    for walk in (files.list_files, files.index_files, files.tree_digest):
        with pytest.raises(UserError, match=rf"{link}.*(would have no end: remove the link|levels of symbolic links)"):
            walk(root)


def test_two_links_to_each_other_are_named(tmp_path: Path) -> None:
    """Each is no loop by itself; without a look at the ancestors the walk would not end."""
    root = write_tree(tmp_path / "root", "a/1.png", "b/1.png")
    (root / "a/b").symlink_to("../b")
    (root / "b/a").symlink_to("../a")
    with pytest.raises(UserError, match="would have no end"):
        files.list_files(root)


def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    folder = write_tree(tmp_path, "a/1.png") / "a"
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).touch()
    with pytest.raises(UserError, match=r"/a: the name b'caf\\xe9\.png' is not UTF-8: rename it") as caught:
        files.list_files(tmp_path)
    str(caught.value).encode()  # it can be written to a log


@pytest.mark.parametrize("mode, path", [(0o000, "closed"), (0o444, "closed/1.png")], ids=["folder", "what it links to"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, mode: int, path: str) -> None:
    """In a process without root's rights."""
    write_tree(tmp_path, "root/closed/2.png")
    (tmp_path / "root/closed/1.png").symlink_to("2.png")
    tmp_path.chmod(0o755)
    (tmp_path / "root/closed").chmod(mode)
    code = """if True:
        import os
        from pathlib import Path
        from medmim.common import files
        os.getuid() or os.setuid(65534)
        try:
            files.index_files(Path("root"))
        except files.UserError as error:
            print(error)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[2])}
    try:
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
    finally:
        (tmp_path / "root/closed").chmod(0o755)
    assert run.stdout.startswith(f"root/{path}: can't be read: Permission denied (EACCES): ask its owner")
