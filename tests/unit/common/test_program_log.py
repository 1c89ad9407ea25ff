import subprocess
import sys
from pathlib import Path

import pytest

from medmim.common.program_log import read_result

PROGRAM = """
import logging, sys, warnings
from pathlib import Path
from medmim.common.program_log import open_log
open_log(Path(sys.argv[1]))
log = logging.getLogger("medmim")
log.info("reading")
log.warning("cache: not kept")
logging.getLogger("a.library").warning("deprecated")
warnings.warn("of a library")
log.info("%-18s %s (%.1f s)", "score", "48 questions", 1.25)
"""


@pytest.mark.parametrize("is_redirected", [True, False], ids=["stderr is the log", "by hand"])
def test_a_log_has_each_line_once(tmp_path: Path, is_redirected: bool) -> None:
    log = tmp_path / "logs/score.log"
    if is_redirected:
        log.parent.mkdir()
        with log.open("a") as file:
            subprocess.run([sys.executable, "-c", PROGRAM, log], stderr=file, check=True)
    else:
        done = subprocess.run([sys.executable, "-c", PROGRAM, log], capture_output=True, text=True, check=True)
        assert [line for line in done.stderr.splitlines() if "warn" not in line.lower()] == ["reading", "deprecated", SUMMARY]
        assert "warning: cache: not kept" in done.stderr.splitlines()
    lines = log.read_text().splitlines()
    assert [lines.count(line) for line in ("reading", "warning: cache: not kept", "deprecated", SUMMARY)] == [1, 1, 1, 1]
    assert read_result(log, "score") == (["cache: not kept"], SUMMARY), "and of a library's warnings none"


SUMMARY = "score              48 questions (1.2 s)"


def test_a_log_without_a_result(tmp_path: Path) -> None:
    assert read_result(tmp_path / "l", "score") == ([], None)
    (tmp_path / "l").write_text("score.py: error: no\nmerge_qa           4 questions (1.0 s)\n")
    assert read_result(tmp_path / "l", "score") == ([], None)
    (tmp_path / "l").write_text("score              4 questions (from the cache)\nbye\n")
    assert read_result(tmp_path / "l", "score") == ([], "score              4 questions (from the cache)")
