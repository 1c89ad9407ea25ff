"""Programs whose standard streams are closed, of another encoding, or read by nobody, and whose user has no name or home."""

import subprocess
import sys
from pathlib import Path

import pytest

from runs import ROOT
from users import NAMELESS

PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
from medmim.common.process_setup import prepare_process
prepare_process()
with open("table", "w", encoding="utf-8") as table:
    for number in range(20_000):
        print("é →", number)
    print("é →", file=sys.stderr)
    os.write(2, b"a library's warning\\n")
    print("whole", table.fileno() > 2, file=table)
"""


def call_shell(folder: Path, redirection: str, *first: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    words = [sys.executable, str(program), str(ROOT / "workflow")]
    script = f'"$@" {redirection}'
    command = [*first, "bash", "-c", f"set -o pipefail; {script}", "bash", *words]
    env = {"PATH": "/usr/bin:/bin", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| head -1", "2>&1 | head -1"])
def test_closed_streams_and_readers_that_leave(tmp_path: Path, redirection: str) -> None:
    called = call_shell(tmp_path, redirection, LC_ALL="C.UTF-8")
    assert called.returncode == 0
    assert (tmp_path / "table").read_text() == "whole True\n", "nothing was written into another file"
    assert b"Traceback" not in called.stderr and b"Broken" not in called.stderr
    if "head" in redirection:
        assert called.stdout.decode() == "é → 0\n"


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "iso-8859-1"}], ids=["C", "latin-1"]
)
def test_a_terminal_of_another_encoding(tmp_path: Path, environment: dict[str, str]) -> None:
    called = call_shell(tmp_path, "", **environment)
    assert called.returncode == 0
    shown = b"\xe9 \\u2192" if "PYTHONIOENCODING" in environment else b"\\xe9 \\u2192"
    assert called.stdout.startswith(shown + b" 0\n") and called.stderr.startswith(shown)


def test_a_user_without_name_and_home(tmp_path: Path) -> None:
    script = "import getpass; from pathlib import Path; print(getpass.getuser()); assert Path.home().is_dir()"
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r}); from medmim.common.process_setup import prepare_process"
    )
    call = f"{program}; prepare_process(); {script}"
    env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    called = subprocess.run([*NAMELESS, sys.executable, "-c", call], env=env, capture_output=True, text=True, check=False)
    assert (called.returncode, called.stdout, called.stderr) == (0, "12345\n", "")
    assert [*tmp_path.iterdir()] == [], "nothing stays"
