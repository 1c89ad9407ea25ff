"""Programs and code run as a user who has no name, and no rights but those that files give."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

OTHER_ID = 65534
NAMELESS = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""First words of a command that runs as a user without a passwd entry; what root owns is this one's, by its permissions alone."""


def call_nameless(
    words: Sequence[str | Path], folder: Path, *, unset: Sequence[str] = (), **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a program as the nameless user until it ends."""
    env = {k: v for k, v in (os.environ | environment).items() if k not in ("USER", "LOGNAME", "LNAME", "USERNAME", *unset)}
    return subprocess.run([*NAMELESS, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


def call_as_other(function: Callable[[], None]) -> int:
    """Run a function in a fork of this process, as another user where this one is root; its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(OTHER_ID, OTHER_ID, OTHER_ID)
            os.setresuid(OTHER_ID, OTHER_ID, OTHER_ID)
            function()
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
