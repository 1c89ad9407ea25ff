import json
import os
from pathlib import Path

import pytest

from medmim.provenance.config_file import config_digest, config_path, write_config
from medmim.provenance.job import build_parser

CFG = {"b": [1, None], "a": {"größe": 1.5}}


def test_a_program_reads_what_was_written(tmp_path: Path) -> None:
    path = config_path(tmp_path, "tune.py", config_digest(CFG))
    write_config(path, CFG)
    assert build_parser("").parse_args(["--cfg", str(path)]).cfg == CFG
    assert path.parent.name == ".config" and path.name.startswith("tune.")


def test_a_name_stands_for_one_content() -> None:
    assert config_digest(CFG) == config_digest(dict(reversed(CFG.items())))
    assert len({config_digest(cfg) for cfg in (CFG, {}, {"a": 1}, {"a": True}, {"a": "1"})}) == 5


def test_a_file_is_written_once_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_config(path, CFG)
    os.utime(path, (0, 0))
    write_config(path, CFG)
    assert path.stat().st_mtime == 0
    path.write_bytes(b"\xff")
    write_config(path, CFG)
    assert json.loads(path.read_text()) == CFG


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "can't be read: No such file or directory"), ("{", "is not JSON: "), ("[1]", "must hold a JSON object")],
)
def test_a_file_that_can_not_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, fault: str
) -> None:
    path = tmp_path / "x.json"
    if content:
        path.write_text(content)
    with pytest.raises(SystemExit):
        build_parser("").parse_args(["--cfg", str(path)])
    assert f"argument --cfg: {path}: {fault}" in capsys.readouterr().err
