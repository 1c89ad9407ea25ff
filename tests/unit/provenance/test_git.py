"""What of a repository is recorded of a job: this checkout's own commit, or none."""

import os
import subprocess
from pathlib import Path

import pytest

from medmim.provenance.git import describe_commit, run_git
from users import OTHER_ID

pytestmark = pytest.mark.needs("git")

UNKNOWN = {"commit": "", "clean": False}


def call_git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", folder, *settings, *words], check=True, capture_output=True, text=True).stdout.strip()


def make_checkout(folder: Path) -> Path:
    (folder / "workflow/scripts").mkdir(parents=True)
    (folder / "workflow/scripts/tune.py").write_text("1")
    return folder


def commit_all(folder: Path) -> str:
    call_git(folder, "init", "--quiet")
    call_git(folder, "add", ".")
    call_git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    return call_git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "check out")


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    commit = commit_all(checkout)
    assert describe_commit(checkout) == {"commit": commit, "clean": True}
    (checkout / "workflow/scripts/tune.py").write_text("2")
    assert describe_commit(checkout) == {"commit": commit, "clean": False}


def test_a_linked_worktree_and_a_link_to_a_checkout(checkout: Path, tmp_path: Path) -> None:
    commit = commit_all(checkout)
    call_git(checkout, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    (tmp_path / "link").symlink_to(checkout)
    assert describe_commit(tmp_path / "tree") == describe_commit(tmp_path / "link") == {"commit": commit, "clean": True}


def test_without_git_no_commit_is_known(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit_all(checkout)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_commit(checkout) == UNKNOWN


@pytest.mark.parametrize("is_tracked", [False, True], ids=["beside its files", "with its files"])
def test_a_commit_of_a_repository_around_is_not_ours(checkout: Path, tmp_path: Path, is_tracked: bool) -> None:
    if not is_tracked:
        (tmp_path / ".gitignore").write_text("check out\n")
    commit_all(tmp_path)
    assert describe_commit(checkout) == UNKNOWN


def test_a_repository_that_knows_other_files_is_not_ours(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("workflow\n")
    commit_all(checkout)
    assert describe_commit(checkout) == UNKNOWN


def test_a_repository_without_a_commit(checkout: Path) -> None:
    call_git(checkout, "init", "--quiet")
    assert describe_commit(checkout) == UNKNOWN


def test_what_git_has_set_for_a_hook_counts_for_nothing(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_checkout(tmp_path / "other")
    (other / "more").touch()
    commit, other_commit = commit_all(checkout), commit_all(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert describe_commit(checkout) == {"commit": commit, "clean": True} and commit != other_commit


@pytest.mark.needs("root")
def test_another_users_checkout(checkout: Path) -> None:
    commit = commit_all(checkout)
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, OTHER_ID, OTHER_ID)
    refused = subprocess.run(["git", "-C", checkout, "status"], capture_output=True, text=True, check=False)
    assert "dubious ownership" in refused.stderr
    assert describe_commit(checkout) == {"commit": commit, "clean": True}


def test_nothing_is_written_into_the_repository(checkout: Path) -> None:
    commit_all(checkout)
    (checkout / "workflow/scripts/tune.py").touch()  # git would note the new time in its index
    index = (checkout / ".git/index").read_bytes()
    assert describe_commit(checkout)["clean"] is True
    assert (checkout / ".git/index").read_bytes() == index


def test_a_command_that_fails_is_none(checkout: Path) -> None:
    assert run_git(checkout, "no-such-command") is None
