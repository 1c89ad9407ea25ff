"""Digest of the code behind a rule: its program, the project modules it imports, the locked versions they use.

Code is digested as parsed, without docstrings, so comments and layout change nothing.
"""

import ast
import hashlib
import json
import re
import sys
from functools import cache
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parent.parent
LOCK = WORKFLOW.parent / "requirements.lock"
DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "gdcm": "python-gdcm", "sklearn": "scikit-learn"}


@cache
def locked() -> dict[str, str]:
    """Locked version of every package, by normalised name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK.read_text(), re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def _source(module: str) -> Path | None:
    base = WORKFLOW / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _parsed(path: Path) -> tuple[str, tuple[str, ...]]:
    """Hash of a file's code without docstrings, and the dotted names it imports anywhere in it."""
    tree = ast.parse(path.read_text(), str(path))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative imports are not followed: write the full name"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(sorted(names))


@cache
def code(program: str, *modules: str) -> dict[str, object]:
    """What runs when a program of workflow/scripts does, `modules` being those it imports by name at run time.

    Returns {"sha256", "modules": {module or program: sha256}, "packages": {package: locked version}}.
    Raises FileNotFoundError for an unknown program or module, KeyError for an import that the lock does not have.
    """
    script = WORKFLOW / "scripts" / program
    found: dict[str, str] = {}
    packages: dict[str, str] = {}
    queue: list[tuple[str, Path]] = [(f"scripts/{program}", script)]
    for module in modules:
        path = _source(module)
        if path is None:
            raise FileNotFoundError(f"no module {module} below {WORKFLOW}")
        queue.append((module, path))
    while queue:
        name, path = queue.pop()
        if name in found:
            continue
        found[name], imports = _parsed(path)
        for dotted in imports:
            top = dotted.split(".")[0]
            if top == "medmim":
                parts = dotted.split(".")
                for depth in range(1, len(parts) + 1):  # importing a.b.c runs a and a.b as well
                    module = ".".join(parts[:depth])
                    if (source := _source(module)) is not None:
                        queue.append((module, source))
            elif top not in sys.stdlib_module_names and top != "__future__":
                package = DISTRIBUTION.get(top, top).replace("_", "-").lower()
                if package not in locked():
                    raise KeyError(f"{path} imports {top}, but {LOCK.name} has no {package}")
                packages[package] = locked()[package]
    record = {"modules": dict(sorted(found.items())), "packages": dict(sorted(packages.items()))}
    return {"sha256": hashlib.sha256(json.dumps(record).encode()).hexdigest(), **record}


def digest(program: str, *modules: str) -> str:
    """The sha256 of `code`."""
    return str(code(program, *modules)["sha256"])
