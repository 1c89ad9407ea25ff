"""Digest of the code behind a rule: its program, the project modules it imports, the locked versions they use.

Code is digested as parsed, without docstrings, so comments and layout change nothing. The other files of a package that
is imported (a page's template) count by their bytes; of the tables' schemas (medmim.schemas), those that are named in calls of
medmim.tables.table_io. A job proves after its work that nothing else of the project was imported.

What was found in a file is kept beside its bytecode, for the same content: parsing all took a quarter of a start of Snakemake.
"""

import ast
import hashlib
import json
import os
import re
import sys
from contextlib import suppress
from functools import cached_property
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

WORKFLOW = Path(__file__).resolve().parents[2]
LOCK = WORKFLOW.parent / "requirements.lock"
DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "gdcm": "python-gdcm", "sklearn": "scikit-learn"}


TABLES = {"build", "columns", "frame", "metadata", "read", "schema", "write"}
"""Functions of medmim.tables.table_io that take a schema's name."""

OWN = Path(__file__).read_bytes()
"""What is kept of a file is what this module found in it."""

Code = dict[str, Any]
"""{"sha256", "modules": {module, program or file: sha256}, "packages": {package: locked version}}"""


class Checkout:
    """The code of one checkout, read as it is now and remembered: its folder `workflow` and the lock file."""

    def __init__(self, workflow: Path, lock: Path) -> None:
        self.workflow, self.lock = workflow, lock
        self._files: dict[Path, tuple[str, tuple[str, ...]]] = {}
        self._sources: dict[str, Path | None] = {}
        self._codes: dict[tuple[str, ...], Code] = {}

    @cached_property
    def locked(self) -> dict[str, str]:
        """Locked version of every package, by normalised name."""
        pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", self.lock.read_text(), re.M)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}

    def _source(self, module: str) -> Path | None:
        if module not in self._sources:
            base = self.workflow / module.replace(".", "/")
            self._sources[module] = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)
        return self._sources[module]

    def _parsed(self, path: Path) -> tuple[str, tuple[str, ...]]:
        """Hash of a file's code without docstrings, and the dotted names it imports anywhere in it."""
        if path not in self._files:
            self._files[path] = _kept(path)
        return self._files[path]

    def code(self, program: str, *modules: str) -> Code:
        """What runs when a program of workflow/scripts does, `modules` being those it imports by name at run time.

        Raises FileNotFoundError for an unknown program or module, KeyError for an import that the lock does not have.
        """
        asked = (program, *modules)
        if asked not in self._codes:
            self._codes[asked] = self._code(program, modules)
        return self._codes[asked]

    def _code(self, program: str, modules: tuple[str, ...]) -> Code:
        found: dict[str, str] = {}
        packages: dict[str, str] = {}
        queue: list[tuple[str, Path]] = [(f"scripts/{program}", self.workflow / "scripts" / program)]
        for module in modules:
            path = self._source(module)
            if path is None:
                raise FileNotFoundError(f"no module {module} below {self.workflow}")
            queue += [(parent, source) for parent in _parents(module) if (source := self._source(parent)) is not None]
        while queue:
            name, path = queue.pop()
            if name in found:
                continue
            found[name], imports = self._parsed(path)
            if path.name == "__init__.py":
                for file in sorted(path.parent.iterdir()):
                    if file.is_file() and file.suffix not in (".py", ".pyc") and not file.name.startswith("."):
                        name = file.relative_to(self.workflow).as_posix()
                        found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
            for dotted in imports:
                top = dotted.split(".")[0]
                if top == "medmim":  # importing a.b.c runs a and a.b as well
                    queue += [(module, source) for module in _parents(dotted) if (source := self._source(module)) is not None]
                elif top not in sys.stdlib_module_names and top != "__future__":
                    package = DISTRIBUTION.get(top, top).replace("_", "-").lower()
                    if package not in self.locked:
                        raise KeyError(f"{path} imports {top}, but {self.lock.name} has no {package}")
                    packages[package] = self.locked[package]
        record = {"modules": dict(sorted(found.items())), "packages": dict(sorted(packages.items()))}
        return {"sha256": hashlib.sha256(json.dumps(record).encode()).hexdigest(), **record}


def _parents(dotted: str) -> list[str]:
    parts = dotted.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _kept(path: Path) -> tuple[str, tuple[str, ...]]:
    """What `_parse` finds in a file, kept as Python keeps bytecode."""
    text = path.read_bytes()
    kept, of = Path(cache_from_source(str(path))).with_suffix(".digest"), hashlib.sha256(OWN + text).hexdigest()
    with suppress(OSError, ValueError):
        known = json.loads(kept.read_bytes())
        if known["of"] == of:
            return known["code"], tuple(known["imports"])
    code, imports = _parse(path, text)
    if not sys.dont_write_bytecode:
        partial = kept.with_suffix(f".digest-{os.getpid()}")
        with suppress(OSError):  # in a folder that is not the user's
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"of": of, "code": code, "imports": imports}))
            partial.replace(kept)
    return code, imports


def _parse(path: Path, text: bytes) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(text, str(path))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative imports are not followed: write the full name"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in TABLES:
                strings = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                names.update(f"medmim.schemas.{text}" for text in strings if text.isidentifier())
        if isinstance(body := getattr(node, "body", None), list):  # docstrings, those of attributes too
            code = [
                n
                for n in body
                if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str))
            ]
            node.body = code or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(sorted(names))


HERE = Checkout(WORKFLOW, LOCK)
"""This checkout."""


def code(program: str, *modules: str) -> Code:
    """`Checkout.code` of this checkout."""
    return HERE.code(program, *modules)


KNOWN: dict[str, Code] = {}
"""What `digest` gave, by sha256."""


def digest(program: str, *modules: str) -> str:
    """The sha256 of `code`."""
    found = code(program, *modules)
    KNOWN[found["sha256"]] = found
    return str(found["sha256"])


def changes(old: Code, new: Code) -> list[str]:
    """Modules, files and packages that differ between two codes, for people."""
    told = []
    for kind in ("modules", "packages"):
        for name in sorted(old[kind].keys() | new[kind].keys()):
            before, after = old[kind].get(name), new[kind].get(name)
            if before != after:
                what = name if kind == "modules" else f"{name} {before or 'none'} → {after or 'none'}"
                told.append(what if before and after else f"{what} ({'new' if after else 'gone'})")
    return told
