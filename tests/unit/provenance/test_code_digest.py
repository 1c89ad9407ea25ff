import importlib
import os
import pkgutil
import sys
from pathlib import Path

import pytest

from medmim import schemas
from medmim.provenance import code_digest
from medmim.provenance.code_digest import Checkout
from medmim.tables import table_io


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "medmim/part").mkdir(parents=True)
    (tmp_path / "medmim/schemas").mkdir()
    for name, text in {
        "scripts/a.py": '"""Doc."""\nfrom medmim import leaf\nimport numpy as np\n',
        "scripts/b.py": "from medmim.part import deep\n",
        "scripts/c.py": 'from medmim import tables\nX = "images"\ntables.write_table(place, "qa", rows)\n'
        "tables.read_table(place, name)\n",
        "medmim/__init__.py": "",
        "medmim/leaf.py": "def f():\n    return 1\n",
        "medmim/part/__init__.py": "",
        "medmim/part/deep.py": "def g():\n    import pandas\n    from medmim.leaf import f\n    return f\n",
        "medmim/part/page.html": "<p>",
        "medmim/plugin.py": "X = 1\n",
        "medmim/tables.py": "",
        "medmim/schemas/__init__.py": "",
        "medmim/schemas/qa.py": "COLUMNS = ()\n",
        "medmim/schemas/images.py": "COLUMNS = ()\n",
        "requirements.lock": "numpy==1.0\npandas==2.0\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def code(workflow: Path, program: str, *modules: str) -> code_digest.CodeDigest:
    """As a new process finds it."""
    return Checkout(workflow, workflow / "requirements.lock").code_digest(program, *modules)


def sha256(workflow: Path, program: str, *modules: str) -> str:
    return str(code(workflow, program, *modules)["sha256"])


def test_names_modules_and_packages(workflow: Path) -> None:
    a = code(workflow, "a.py")
    assert list(a["modules"]) == ["medmim", "medmim.leaf", "scripts/a.py"]
    assert a["packages"] == {"numpy": "1.0"}
    b = code(workflow, "b.py")
    assert set(b["modules"]) == {
        "medmim", "medmim.part", "medmim.part.deep", "medmim.leaf", "medmim/part/page.html", "scripts/b.py",
    }  # fmt: skip
    assert b["packages"] == {"pandas": "2.0"}


def test_what_was_found_in_a_file_is_kept_for_the_same_content(workflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before, leaf = code(workflow, "b.py"), workflow / "medmim/leaf.py"
    with monkeypatch.context() as patched:
        patched.setattr(code_digest, "_parse_source", None)
        assert code(workflow, "b.py") == before
    times = leaf.stat()
    leaf.write_text(leaf.read_text().replace("1", "2"))
    os.utime(leaf, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert code_digest.describe_code_changes(before, code(workflow, "b.py")) == ["medmim.leaf"]
    leaf.write_text(leaf.read_text().replace("2", "1"))
    for kept in workflow.rglob("*.digest"):
        kept.write_text(kept.read_text()[:-9])
    assert code(workflow, "b.py") == before


def test_comments_docstrings_and_layout_change_nothing(workflow: Path) -> None:
    before = sha256(workflow, "a.py")
    (workflow / "medmim/leaf.py").write_text('"""New."""\n# why\ndef f():\n    """Doc."""\n\n    return (1)\n')
    (workflow / "scripts/a.py").write_text('"""Other."""\nfrom medmim import leaf\nimport numpy as np  # for g\n')
    assert sha256(workflow, "a.py") == before


@pytest.mark.parametrize("program", ["a.py", "b.py"])
def test_code_of_a_module_behind_it_changes_it(workflow: Path, program: str) -> None:
    before = sha256(workflow, program)
    (workflow / "medmim/leaf.py").write_text("def f():\n    return 2\n")
    assert sha256(workflow, program) != before


def test_only_what_a_program_uses_counts(workflow: Path) -> None:
    before = sha256(workflow, "a.py")
    (workflow / "medmim/part/deep.py").write_text("import pandas\n")
    (workflow / "requirements.lock").write_text("numpy==1.0\npandas==3.0\n")
    assert sha256(workflow, "a.py") == before
    (workflow / "requirements.lock").write_text("numpy==1.1\npandas==3.0\n")
    assert sha256(workflow, "a.py") != before


def test_modules_named_at_run_time(workflow: Path) -> None:
    assert sha256(workflow, "a.py", "medmim.plugin") != sha256(workflow, "a.py")
    assert "medmim.part" in code(workflow, "a.py", "medmim.part.deep")["modules"]
    with pytest.raises(FileNotFoundError, match=r"medmim\.absent"):
        sha256(workflow, "a.py", "medmim.absent")


def test_a_package_outside_the_lock_is_an_error(workflow: Path) -> None:
    (workflow / "medmim/leaf.py").write_text("import leftpad\n")
    with pytest.raises(KeyError, match="leftpad"):
        sha256(workflow, "a.py")


def test_a_relative_import_is_refused(workflow: Path) -> None:
    (workflow / "medmim/leaf.py").write_text("from .plugin import X\n")
    with pytest.raises(AssertionError, match="relative imports are not followed"):
        sha256(workflow, "a.py")


def test_other_files_of_an_imported_package_count(workflow: Path) -> None:
    a, b = sha256(workflow, "a.py"), sha256(workflow, "b.py")
    (workflow / "medmim/part/page.html").write_text("<p >")
    assert sha256(workflow, "a.py") == a and sha256(workflow, "b.py") != b
    b = sha256(workflow, "b.py")
    (workflow / "medmim/part/deep.cpython-311.pyc").write_bytes(b"x")
    (workflow / "medmim/part/.page.html.swp").write_bytes(b"x")
    assert sha256(workflow, "b.py") == b
    (workflow / "medmim/part/new.txt").write_text("")
    assert sha256(workflow, "b.py") != b


def test_only_the_schemas_that_calls_name_count(workflow: Path) -> None:
    assert {name for name in code(workflow, "c.py")["modules"] if "schemas" in name} == {"medmim.schemas", "medmim.schemas.qa"}
    before = sha256(workflow, "c.py")
    (workflow / "medmim/schemas/images.py").write_text("COLUMNS = (1,)\n")
    assert sha256(workflow, "c.py") == before
    (workflow / "medmim/schemas/qa.py").write_text("COLUMNS = (1,)\n")
    assert sha256(workflow, "c.py") != before


def test_changes_are_told_by_name(workflow: Path) -> None:
    old = code(workflow, "b.py")
    assert code_digest.describe_code_changes(old, code(workflow, "b.py")) == []
    (workflow / "medmim/part/deep.py").write_text("import numpy\nimport pandas\nfrom medmim import plugin\n")
    (workflow / "medmim/part/page.html").write_text("<p >")
    (workflow / "requirements.lock").write_text("numpy==1.0\npandas==3.0\n")
    assert code_digest.describe_code_changes(old, code(workflow, "b.py")) == [
        "medmim.leaf (gone)", "medmim.part.deep", "medmim.plugin (new)", "medmim/part/page.html",
        "numpy none → 1.0 (new)", "pandas 2.0 → 3.0",
    ]  # fmt: skip


def test_a_checkout_remembers_what_it_read(workflow: Path) -> None:
    checkout = Checkout(workflow, workflow / "requirements.lock")
    before = checkout.code_digest("a.py")
    (workflow / "medmim/leaf.py").write_text("def f():\n    return 2\n")
    assert checkout.code_digest("a.py") is before


def test_every_program_of_this_checkout_has_a_digest() -> None:
    programs = sorted(p.name for p in (code_digest.WORKFLOW / "scripts").glob("*.py"))
    found = {name: code_digest.code_digest(name) for name in programs}
    assert len({c["sha256"] for c in found.values()}) == len(programs) > 10
    named = {m.rsplit(".", 1)[1] for c in found.values() for m in c["modules"] if m.startswith("medmim.schemas.")}
    assert named == {m.name for m in pkgutil.iter_modules(schemas.__path__)}, "a table that no program is known to read or write"


def test_every_function_of_tables_that_takes_a_name_is_followed() -> None:
    taking = {
        name
        for name, f in vars(importlib.import_module("medmim.tables.table_io")).items()
        if callable(f) and f.__module__ == table_io.__name__ and not name.startswith("_") and "name" in f.__annotations__
    }
    assert taking == code_digest.TABLE_FUNCTIONS
