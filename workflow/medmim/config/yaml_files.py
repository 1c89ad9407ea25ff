"""YAML files, strictly: what a file says twice, or what YAML reads otherwise than people do, is refused with its line.

YAML 1.1 reads no, yes, on and off as booleans, 010 as 8 and 1:30 as 90, and of a key that appears twice takes the last.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medmim.config.base import ConfigError

_TWICE = "appears twice in its section, and the last would win: leave one out, or give it another name"
_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class YamlFile:
    """A file that was read."""

    path: Path | str
    values: dict[str, Any]
    root: yaml.Node | None
    """Of YAML, for the lines; None of JSON."""
    faults: tuple[str, ...] = ()
    """What is wrong with how it is written, with its lines; the values are then those that YAML takes."""

    def find_line(self, keys: Sequence[int | str]) -> tuple[int, int | None]:
        """How many of some keys are there, one below the other, and the line of the last of these."""
        node, line = self.root, None
        for depth, key in enumerate(keys):
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == str(key)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                found = (node.value[key], node.value[key])
            else:
                found = None
            if found is None:
                return depth, line
            line, node = found[0].start_mark.line + 1, found[1]
        return len(keys), line

    def format_place(self, keys: Sequence[int | str]) -> str:
        """FILE:LINE of the last of some keys that is there; the file alone where none is."""
        _, line = self.find_line(keys)
        return f"{self.path}:{line}" if line else str(self.path)


def parse_yaml(path: Path | str) -> YamlFile:
    """Read a file of keys and values, with the faults of its writing. Raises ConfigError where it has none; OSError."""
    content = Path(path).read_bytes()
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(content)
        root = loader.get_single_node()
        faults = tuple(_find_faults(root, path)) if root is not None else ()
        values = loader.construct_document(root) if root is not None else {}
    except yaml.YAMLError as error:
        if json_file := _parse_json(path, content):
            return json_file
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{place}: not valid YAML: {problem}") from None
    except (ValueError, RecursionError) as error:  # a date of month 13; brackets without end
        raise ConfigError(f"{path}: not valid YAML: {str(error) or type(error).__name__}") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys with their values at the top")
    return YamlFile(path, values, root, faults)


def read_scalar(text: str) -> Any:
    """Return what YAML makes of a text alone; the text itself where that is not what it looks like."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        is_scalar = isinstance(node, yaml.ScalarNode) and not _describe_misread(node)
        return yaml.safe_load(text) if is_scalar else text
    except (yaml.YAMLError, ValueError):
        return text


def _parse_json(path: Path | str, content: bytes) -> YamlFile | None:
    """Read a file that is JSON and not YAML, as tabs make it; None where it is not JSON either."""
    faults: list[str] = []

    def note_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        faults.extend(f"{path}: {key} {_TWICE}" for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(pairs)

    try:
        values = json.loads(content, object_pairs_hook=note_repeated_keys)
    except ValueError:
        return None
    return YamlFile(path, values, None, tuple(faults)) if isinstance(values, dict) else None


def _find_faults(root: yaml.Node, path: Path | str) -> Iterator[str]:
    """Yield keys that appear twice, values that YAML reads otherwise than they look, and values that hold themselves."""
    seen: set[int] = set()
    open_nodes: set[int] = set()

    def visit(node: yaml.Node, keys: tuple[str, ...]) -> Iterator[str]:
        place = f"{path}:{node.start_mark.line + 1}: {'.'.join(keys)}"
        if id(node) in open_nodes:
            yield f"{place}: refers to itself"
        if id(node) in seen:  # an alias
            return
        seen.add(id(node))
        open_nodes.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if misread := _describe_misread(node):
                yield f"{place}: {misread}"
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                yield from visit(item, (*keys, str(i)))
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode):
                    if misread := _describe_misread(key):
                        yield f"{path}:{line}: {'.'.join((*keys, name))}: as a key, {misread}"
                    if name in lines and key.tag != _MERGE_TAG:
                        yield f"{path}:{line}: {'.'.join((*keys, name))}: {_TWICE}; the first is on line {lines[name]}"
                    lines.setdefault(name, line)
                yield from visit(value, keys if key.tag == _MERGE_TAG else (*keys, name))
        open_nodes.discard(id(node))

    return visit(root, ())


def _describe_misread(node: yaml.ScalarNode) -> str | None:
    """What YAML 1.1 makes of a text that people would read otherwise; None where it is read as it looks."""
    kind, text = node.tag.rpartition(":")[2], node.value
    if node.style is not None:
        return None
    if kind == "bool" and text.lower() not in ("true", "false"):
        meaning = "true" if text.lower() in ("yes", "on") else "false"
        return f"{text} is read as {meaning}: write {meaning}, or put it in quotes if it is a text"
    is_octal = kind == "int" and text.lstrip("+-").replace("_", "").isdigit() and text.lstrip("+-")[0] == "0" != text.lstrip("+-")
    if (kind in ("int", "float") and ":" in text) or is_octal:
        number = yaml.safe_load(text)
        return f"{text} is read as {number}: write {number}, or put it in quotes if it is a text"
    return None
