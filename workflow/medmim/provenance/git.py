"""What git says of this checkout, where it is installed and the checkout is a repository of its own."""

import os
import subprocess
from pathlib import Path
from typing import Any


def run_git(checkout: Path, *arguments: str) -> bytes | None:
    """Output of a git command in a checkout; None where it fails or git is not installed.

    The checkout may be another user's: its code runs here already. Nothing is written into its repository, and what a hook of
    git's has set for another one does not count.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = ("--no-optional-locks", "-c", f"safe.directory={checkout.resolve()}", "-c", "core.fsmonitor=false")
    try:
        completed = subprocess.run(
            ["git", *settings, "-C", checkout, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, check=True, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout


def owns_checkout(checkout: Path) -> bool:
    """Whether the repository is the checkout's own: not one that a source archive was unpacked in, which knows other files."""
    toplevel = run_git(checkout, "rev-parse", "--show-toplevel")
    is_toplevel = toplevel is not None and Path(os.fsdecode(toplevel.rstrip(b"\n"))).resolve() == checkout.resolve()
    return is_toplevel and run_git(checkout, "ls-files", "--error-unmatch", "workflow/scripts") is not None


def describe_commit(checkout: Path) -> dict[str, Any]:
    """A record's `git`: {"commit", "clean"}; an empty commit where it is not known."""
    commit = run_git(checkout, "rev-parse", "HEAD") if owns_checkout(checkout) else None
    changes = run_git(checkout, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": (commit or b"").decode().strip(), "clean": changes == b""}
