"""Names of the parts that are found by being there: model families and further held-out sets.

A part is a module that defines a certain name at its top. Its file is read, not imported, as the configuration knows no stage.
docs/extending.md tells how to add one.
"""

import ast
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

PACKAGE_FOLDER = Path(__file__).parents[1]


def find_parts(folder: str, definition: str) -> tuple[str, ...]:
    """Return the modules of a folder below medmim that define a name at their top, sorted."""
    pattern = re.compile(rf"^{definition}\b *[:=]", re.M)
    paths = sorted((PACKAGE_FOLDER / folder).glob("*.py"))
    return tuple(path.stem for path in paths if pattern.search(path.read_text(encoding="utf-8")))


def read_constant(module: str, name: str, default: str = "") -> str:
    """Return the text that a module below medmim, such as models/families/mantis, assigns to a name at its top."""
    tree = ast.parse((PACKAGE_FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    return str(ast.literal_eval(values[0])) if values else default


MODEL_FAMILIES = tuple(name.replace("_", "-") for name in find_parts("models/families", "FAMILY"))
"""Families with a layout of their own, which can be trained here."""
SYSTEM_MESSAGES = {name: read_constant(f"models/families/{name.replace('-', '_')}", "SYSTEM_MESSAGE") for name in MODEL_FAMILIES}
"""What each family's published model was trained with, by family; empty for none."""
EXTERNAL_SETS = find_parts("benchmarks/external", "EXTERNAL_SET")
"""Held-out sets as others publish them."""


def find_nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint to the right name for one that is not known."""
    close_matches = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close_matches[0]!r}?" if close_matches else f"there are {', '.join(known)}"
