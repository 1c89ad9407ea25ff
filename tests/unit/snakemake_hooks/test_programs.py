"""Commands of rules: whatever a path or a setting holds arrives at the program as it is, and nothing in it is executed."""

import json
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.utils import format as format_command

from medmim.provenance.code_digest import WORKFLOW
from medmim.snakemake_hooks import programs

ODD_WORDS = [
    "a b", "it's", 'say "x"', "#1", "$HOME", "$(touch x)", "`touch x`", "; touch x", "& touch x", "| touch x", "> x", "*", "?[a]",
    "{x}", "{{", "}", "é", "~", "~root", "a\\b", "!", "%j", "\n", "-n", "", "''",
]  # fmt: skip
ECHO = """if True:
    import json, os, sys
    print(json.dumps([os.environ["A"], *sys.argv[1:]]))
"""


@pytest.mark.parametrize("odd", ODD_WORDS)
def test_a_program_gets_every_word_as_it_is(odd: str, tmp_path: Path) -> None:
    """The interpreter, the program, the run's folder, the environment and every field of a rule hold the same odd text."""
    folder = tmp_path / f"x{odd}"
    folder.mkdir()
    program, python = folder / f"x{odd}.py", folder / f"python{odd}"
    program.write_text(ECHO)
    python.symlink_to(sys.executable)
    run = programs.Run(folder, None)
    command = programs.start_program(program, programs.quote_word(python), {"A": odd}, run) + "--one {params.x} --all {params.y}"
    digest = programs.register_config({"a": (1, 2)})
    params = type("Params", (), {"cfg": digest, "code": 0, "x": odd, "y": ["--b", odd, folder]})
    shell = format_command(str(command), params=params, log=f"{odd}.log")
    done = subprocess.run(["bash", "-euc", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    value = [odd] if odd else []  # an empty value is none
    options = ["--cfg", str(command.config_path(digest)), "--code", "0", "--log", f"{odd}.log"]
    assert json.loads(done.stdout) == [odd, *options, "--one", *value, "--all", "--b", *value, str(folder)]
    assert set(tmp_path.iterdir()) == {folder, tmp_path / f"{odd}.log"}


def test_a_command_knows_its_program_run_and_config(tmp_path: Path) -> None:
    run = programs.Run(tmp_path, None)
    command = programs.start_program(Path("/x/workflow/scripts/tune.py"), "python", {"A": "b c"}, run) + "--more {input}"
    assert isinstance(command, programs.ProgramCommand) and (command.program, command.run) == ("tune.py", run)
    assert command.startswith("2>>{log:q} A='b c' exec python /x/workflow/scripts/tune.py --cfg ")
    assert programs.start_program(Path("/x/plan.py"), "python", {"A": 1}, run, is_shown=True).startswith("A=1 exec")
    digest = programs.register_config({"a": (1, 2)})
    assert programs.CONFIGS[digest] == {"a": [1, 2]}


def test_quoting_can_not_be_forgotten_or_undone() -> None:
    run = programs.Run(Path("r"), None)
    for field in ("{input}", "{input:u}", "{input:>9}", "{input!r}", "{input.qa:q}", "{params.many[0]}"):
        command = programs.start_program(Path("p.py"), "python", {}, run) + f"--x {field} --y " + field
        assert {spec for _, name, spec, _ in string.Formatter().parse(command) if name} == {"q"}


def test_every_rule_starts_a_program_and_none_calls_a_shell() -> None:
    """So that every command is one that quotes."""
    for path in (*WORKFLOW.glob("rules/*.smk"), WORKFLOW.parent / "Snakefile"):
        text = path.read_text()
        starts = re.findall(r"^\s+shell:\n\s+(\S+?)\(", text, re.MULTILINE)
        commands = re.findall(r"^\s+(?:shell|run|script):", text, re.MULTILINE)
        assert set(starts) <= {"program"} and len(starts) == len(commands), path
        assert "shell(" not in text and "os.system(" not in text, path
