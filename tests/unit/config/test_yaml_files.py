"""YAML files are read as they look, and what they say twice is refused with its line."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medmim.config.base import ConfigError
from medmim.config.yaml_files import parse_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("a: 1\nb: 2\na: 3\n", [":3: a: appears twice in its section, and the last would win"]),
        ("a: {x: 1, y: {z: 1, z: 2}}\n", [":1: a.y.z: appears twice"]),
        ("a:\n- {x: 1,\n   x: 2}\n", [":3: a.0.x: appears twice"]),
        ("'a': 1\n\"a\": 3\n", [":2: a: appears twice"]),
        ("a: yes\nb: [on, No]\n", [":1: a: yes is read as true", ":2: b.0: on is read as true", ":2: b.1: No is read as false"]),
        ("a: 010\nb: -07\nc: 1:30\nd: 1:30.5\n", ["a: 010 is read as 8: write 8", "b: -07 is", "c: 1:30 is read as 90", "d: "]),
        ("a: &x [1]\nb: *x\nb: 3\n", [":3: b: appears twice"]),
        ("no: 1\n", [":1: no: as a key, no is read as false"]),
        ("a: &a\n  b: *a\n", ["a.b: refers to itself"]),
        ('{"a": 1,\n\t"b": {"c": 1,\n\t"c": 2}}', ["config.yaml: c appears twice"]),
    ],
)  # fmt: skip
def test_what_is_read_otherwise_than_it_looks_is_a_fault(tmp_path: Path, text: str, faults: list[str]) -> None:
    found = parse_yaml(write(tmp_path, text)).faults
    assert len(found) == len(faults)
    assert all(fault in message for fault, message in zip(faults, found, strict=True)), found


@pytest.mark.parametrize(
    "text",
    [
        "a: true\nb: False\nc: 'yes'\nd: \"010\"\ne: 0\nf: 0x1F\ng: 1_000\nh: 10:30pm\ni: 0.5\nj: -0.0\nk: ~\n",
        "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n",
        '{"a": 1,\n\t"b": {"c": 1}}',
        "",
    ],
)
def test_what_is_read_as_it_looks_is_none(tmp_path: Path, text: str) -> None:
    file = parse_yaml(write(tmp_path, text))
    assert file.faults == () and file.values == (yaml.safe_load(text.replace("\t", " ")) or {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"config\.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", r"config\.yaml:2: not valid YAML: but found another document"),
        ("a: *nowhere\n", r"config\.yaml:1: not valid YAML: found undefined alias 'nowhere'"),
        ("- a\n", "expected keys with their values at the top"),
        ("a\n", "expected keys with their values at the top"),
        ("? [a]\n: 1\n", r"config\.yaml:1: not valid YAML: found unhashable key"),
        ("a: 2026-13-45\n", "not valid YAML: month must be"),
        ("a: !!python/object/apply:os.getcwd []\n", r"config\.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: é\n".encode("latin-1"), "not valid YAML: invalid"),
        (b"a: \x00\n", "not valid YAML: special characters are not allowed"),
        ("[" * 1500, "not valid YAML"),
    ],
)
def test_what_is_no_yaml_is_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse_yaml(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_the_line_of_what_is_there_is_found(tmp_path: Path) -> None:
    file = parse_yaml(write(tmp_path, "a:\n  b: 1\n  c:\n  - 1\n  - x: 2\n7: 1\n"))
    assert [file.find_line(keys) for keys in (("a",), ("a", "b"), ("a", "c", 1, "x"))] == [(1, 1), (2, 2), (4, 5)]
    assert file.find_line(("a", "none", "x")) == (1, 1) and file.find_line(("none",)) == (0, None)
    assert file.format_place((7,)) == f"{file.path}:6" and file.format_place(("none",)) == str(file.path)


@settings(deadline=None, max_examples=100)
@given(values=st.dictionaries(st.text(), VALUES, max_size=4), flow=st.booleans())
def test_what_yaml_writes_has_no_fault(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object], flow: bool) -> None:
    file = parse_yaml(write(tmp_path_factory.getbasetemp(), yaml.safe_dump(values, default_flow_style=flow)))
    assert file.faults == () and file.values == values
