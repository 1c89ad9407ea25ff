"""What the layers contract of `make lint` can't say: what packages hold, what plug-ins import, how things are named."""

import ast
import re
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "workflow/medmim"
MODULES = sorted(LIBRARY.rglob("*.py"))
SOURCES = sorted(path.parent for path in LIBRARY.glob("sources/*/adapter.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_an_init_is_a_docstring() -> None:
    for path in MODULES:
        if path.name == "__init__.py":
            body = parse(path).body
            assert len(body) == 1 and ast.get_docstring(parse(path)), f"{path} holds code"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_source_imports_no_other(source: Path) -> None:
    others = {f"medmim.sources.{other.name}" for other in SOURCES if other != source}
    for path in source.glob("*.py"):
        imported = {node.module or "" for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in imported if any(f"{name}.".startswith(f"{other}.") for other in others)}, path


@pytest.mark.parametrize("path", sorted(LIBRARY.parent.rglob("*.py")), ids=lambda path: path.stem)
def test_text_is_read_and_written_as_utf_8(path: Path) -> None:
    """Whatever a machine's locale is. Ruff has a rule for this, which does not follow a path through names and attributes."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
            assert "encoding" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


def test_a_function_is_a_verb_and_a_noun() -> None:
    """One word does where a class supplies the noun, and only there; of all functions that is a small part."""
    names = [
        node.name.strip("_")
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__")
    ]
    one_word = [name for name in names if "_" not in name]
    assert len(one_word) < 0.1 * len(names), sorted(one_word)


def test_no_pattern_has_a_possessive_quantifier() -> None:
    """They match wrongly before Python 3.11.5; atomic groups don't."""
    for path in MODULES:
        patterns = [line for line in path.read_text().splitlines() if re.search(r"\brf?[\"']", line)]
        assert not [line for line in patterns if re.search(r"(?:(?<!\\)[*+?]|\{\d*,?\d*\}+)\+", line)], path
