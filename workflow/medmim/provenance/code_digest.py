"""Digest of the code behind a rule: its program, the project modules it imports, the locked versions they use.

Code is digested as parsed, without docstrings and without the text of errors and log lines, so comments, layout and wording
change nothing. The other files of a package that is imported (a page's template) count by their bytes, but for a source's
source.yaml, whose facts reach programs in their cfg; of the tables' schemas (medmim.schemas), those that are named in calls of
medmim.tables.table_io. The engine is not followed: the packages ENGINE_PACKAGES, and what only these import, count by
ENGINE_VERSION alone (medmim.provenance.engine_version). A job proves after its work that nothing else of the project ran.

The result for each file is kept beside its bytecode, for the same content: parsing all files would delay each start of Snakemake.
"""

import ast
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

WORKFLOW = Path(__file__).resolve().parents[2]
LOCK_FILE = WORKFLOW.parent / "requirements.lock"
DISTRIBUTION_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "gdcm": "python-gdcm", "sklearn": "scikit-learn"}

ENGINE_PACKAGES = ("medmim.provenance", "medmim.snakemake_hooks")
"""Packages whose modules, and what only they import, are in no digest."""
TABLE_FUNCTIONS = {"build_table", "read_frame", "read_table", "table_columns", "table_metadata", "table_schema", "write_table"}
"""Functions of medmim.tables.table_io that take a schema's name."""

UNCOUNTED_FILES = {"source.yaml"}
"""Files of packages that do not count: what of them a result depends on stands in the program's cfg."""

LOG_FUNCTIONS = {"critical", "debug", "error", "exception", "info", "log", "warning"}
LOGGER_NAMES = {"log", "logger", "logging", "self.logger"}
"""Methods and objects that make a call a log line."""

DIGEST_FILE_VERSION = 1
"""Version of the format of the files beside bytecode: another version is not read."""
OWN_SOURCE = Path(__file__).read_bytes()
"""Part of the key of those files, so that a change here invalidates them."""

CodeDigest = dict[str, Any]
"""{"sha256", "modules": {module, program or file: sha256}, "packages": {package: locked version}}"""


class Checkout:
    """The code of one checkout, read as it is now and remembered: its folder `workflow` and the lock file."""

    def __init__(self, workflow: Path, lock: Path) -> None:
        self.workflow, self.lock = workflow, lock
        self._parsed_files: dict[Path, tuple[str, tuple[str, ...]]] = {}
        self._source_paths: dict[str, Path | None] = {}
        self._digests: dict[tuple[str, ...], CodeDigest] = {}

    @cached_property
    def locked_versions(self) -> dict[str, str]:
        """Locked version of every package, by normalised name."""
        pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", self.lock.read_text(encoding="utf-8"), re.M)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}

    def _find_source(self, module: str) -> Path | None:
        if module not in self._source_paths:
            base = self.workflow / module.replace(".", "/")
            self._source_paths[module] = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)
        return self._source_paths[module]

    def _find_modules(self, dotted: str) -> list[tuple[str, Path]]:
        """The module of a dotted name and its packages, which importing it runs as well, with their files."""
        parts = dotted.split(".")
        names = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        return [(name, source) for name in names if (source := self._find_source(name)) is not None]

    def list_engine_modules(self, modules: Iterable[str]) -> set[str]:
        """The engine's modules among some, and all project modules that these import."""
        engine_modules: set[str] = set()
        queue = [found for module in modules if is_engine_module(module) for found in self._find_modules(module)]
        while queue:
            name, path = queue.pop()
            if name not in engine_modules:
                engine_modules.add(name)
                queue += [found for dotted in self._parse_file(path)[1] for found in self._find_modules(dotted)]
        return engine_modules

    def _parse_file(self, path: Path) -> tuple[str, tuple[str, ...]]:
        """Hash of a file's code without docstrings, and the dotted names it imports anywhere in it."""
        if path not in self._parsed_files:
            self._parsed_files[path] = _parse_with_cache(path)
        return self._parsed_files[path]

    def code_digest(self, program: str, *modules: str) -> CodeDigest:
        """What runs when a program of workflow/scripts does, `modules` being those it imports by name at run time.

        Raises FileNotFoundError for an unknown program or module, KeyError for an import that the lock does not have.
        """
        request = (program, *modules)
        if request not in self._digests:
            self._digests[request] = self._compute_digest(program, modules)
        return self._digests[request]

    def _compute_digest(self, program: str, modules: tuple[str, ...]) -> CodeDigest:
        hashes_by_module: dict[str, str] = {}
        packages: dict[str, str] = {}
        queue: list[tuple[str, Path]] = [(f"scripts/{program}", self.workflow / "scripts" / program)]
        for module in modules:
            path = self._find_source(module)
            if path is None:
                raise FileNotFoundError(f"no module {module} below {self.workflow}")
            if not is_engine_module(module):
                queue += self._find_modules(module)
        while queue:
            name, path = queue.pop()
            if name in hashes_by_module:
                continue
            hashes_by_module[name], imports = self._parse_file(path)
            imports = tuple(dotted for dotted in imports if not is_engine_module(dotted))
            if path.name == "__init__.py":
                for file in sorted(path.parent.iterdir()):
                    is_other = file.suffix not in (".py", ".pyc") and file.name not in UNCOUNTED_FILES
                    if file.is_file() and is_other and not file.name.startswith("."):
                        name = file.relative_to(self.workflow).as_posix()
                        hashes_by_module[name] = hashlib.sha256(file.read_bytes()).hexdigest()
            for dotted in imports:
                top = dotted.split(".")[0]
                if top == "medmim":
                    queue += self._find_modules(dotted)
                elif top not in sys.stdlib_module_names and top != "__future__":
                    package = DISTRIBUTION_NAMES.get(top, top).replace("_", "-").lower()
                    if package not in self.locked_versions:
                        raise KeyError(f"{path} imports {top}, but {self.lock.name} has no {package}")
                    packages[package] = self.locked_versions[package]
        record = {"modules": dict(sorted(hashes_by_module.items())), "packages": dict(sorted(packages.items()))}
        return {"sha256": hashlib.sha256(json.dumps(record).encode()).hexdigest(), **record}


def is_engine_module(dotted: str) -> bool:
    """Tell whether a dotted name is in one of the engine's packages."""
    return any(dotted == package or dotted.startswith(f"{package}.") for package in ENGINE_PACKAGES)


def _parse_with_cache(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return what `_parse_source` finds in a file, kept as Python keeps bytecode."""
    text = path.read_bytes()
    cache_path, content_hash = (
        Path(cache_from_source(str(path))).with_suffix(".digest"),
        hashlib.sha256(OWN_SOURCE + text).hexdigest(),
    )
    with suppress(OSError, ValueError, KeyError, TypeError):
        cached_entry = json.loads(cache_path.read_bytes())
        if cached_entry["format_version"] == DIGEST_FILE_VERSION and cached_entry["of"] == content_hash:
            return cached_entry["code"], tuple(cached_entry["imports"])
    code, imports = _parse_source(path, text)
    if not sys.dont_write_bytecode:
        temporary = cache_path.with_suffix(f".digest-{os.getpid()}")
        with suppress(OSError):  # in a folder that is not the user's
            cache_path.parent.mkdir(parents=True, exist_ok=True)
            entry = {"format_version": DIGEST_FILE_VERSION, "of": content_hash, "code": code, "imports": imports}
            temporary.write_text(json.dumps(entry), encoding="utf-8")
            temporary.replace(cache_path)
    return code, imports


def _parse_source(path: Path, text: bytes) -> tuple[str, tuple[str, ...]]:
    """Hash of a file's code without what changes no result, and the dotted names that it imports."""
    tree = ast.parse(text, str(path))
    names = {name for node in ast.walk(tree) for name in _imported_names(node, path)}
    for node in list(ast.walk(tree)):
        _blank_messages(node)
        _remove_docstrings(node)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(sorted(names))


def _imported_names(node: ast.AST, path: Path) -> list[str]:
    """Dotted names that a node imports: modules, and schemas of tables that it names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        assert not node.level, f"{path}: relative imports are not followed: write the full name"
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call):
        function_name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if function_name in TABLE_FUNCTIONS:
            strings = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            return [f"medmim.schemas.{text}" for text in strings if text.isidentifier()]
    return []


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _remove_docstrings(node: ast.AST) -> None:
    """Remove docstrings from a body, those of attributes too."""
    if isinstance(body := getattr(node, "body", None), list):
        node.body = [n for n in body if not _is_docstring(n)] or [ast.Pass()]  # type: ignore[attr-defined]


def _blank_messages(node: ast.AST) -> None:
    """Blank the text that a raise, an assert or a log line is worded with: no result depends on it."""
    call: ast.AST | None = None
    if isinstance(node, ast.Raise):
        call = node.exc
    elif isinstance(node, ast.Assert) and node.msg is not None:
        node.msg = _blank_text(node.msg)
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOG_FUNCTIONS
        and ast.unparse(node.func.value) in LOGGER_NAMES
    ):
        call = node
    if isinstance(call, ast.Call):
        call.args = [_blank_text(argument) for argument in call.args]
        for keyword in call.keywords:
            keyword.value = _blank_text(keyword.value)


def _blank_text(node: ast.expr) -> ast.expr:
    """An expression with its texts blank: constants, f-strings, and texts joined from these.

    What is not the wording itself stays: conditions, subscripts, and arguments of functions, which may do more than word.
    """
    if isinstance(node, ast.Constant):
        return ast.Constant("") if isinstance(node.value, str) else node
    if isinstance(node, ast.JoinedStr):
        does_more = any(isinstance(part, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom) for part in ast.walk(node))
        return node if does_more else ast.Constant("")
    if isinstance(node, ast.BinOp):
        node.left, node.right = _blank_text(node.left), _blank_text(node.right)
    elif isinstance(node, ast.BoolOp):
        node.values = [_blank_text(value) for value in node.values]
    elif isinstance(node, ast.IfExp):
        node.body, node.orelse = _blank_text(node.body), _blank_text(node.orelse)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # "...".join(...), "...".format(...)
        node.func.value = _blank_text(node.func.value)
    return node


THIS_CHECKOUT = Checkout(WORKFLOW, LOCK_FILE)
"""This checkout."""


def code_digest(program: str, *modules: str) -> CodeDigest:
    """`Checkout.code_digest` of this checkout."""
    return THIS_CHECKOUT.code_digest(program, *modules)


CODES_BY_SHA256: dict[str, CodeDigest] = {}
"""What `digest` gave, by sha256."""


def code_sha256(program: str, *modules: str) -> str:
    """The sha256 of `code`."""
    code_record = code_digest(program, *modules)
    CODES_BY_SHA256[code_record["sha256"]] = code_record
    return str(code_record["sha256"])


def describe_code_changes(old: CodeDigest, new: CodeDigest) -> list[str]:
    """Modules, files and packages that differ between two codes, for people."""
    differences = []
    for kind in ("modules", "packages"):
        old_hashes, new_hashes = old.get(kind, {}), new.get(kind, {})
        for name in sorted(old_hashes.keys() | new_hashes.keys()):
            before, after = old_hashes.get(name), new_hashes.get(name)
            if before != after:
                label = name if kind == "modules" else f"{name} {before or 'none'} → {after or 'none'}"
                differences.append(label if before and after else f"{label} ({'new' if after else 'gone'})")
    return differences
