import importlib
import os
import pkgutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    for damage in (
        lambda text: text[:-9],
        lambda text: text.replace('"format_version": 1, "of"', '"format_version": 2, "of"').replace('"code": "', '"code": "0'),
        lambda text: "[]",
        lambda text: "{}",
    ):
        for kept in workflow.rglob("*.digest"):
            assert kept.read_text() != damage(kept.read_text())
            kept.write_text(damage(kept.read_text()))
        assert code(workflow, "b.py") == before


def test_comments_docstrings_and_layout_change_nothing(workflow: Path) -> None:
    before = sha256(workflow, "a.py")
    (workflow / "medmim/leaf.py").write_text('"""New."""\n# why\ndef f():\n    """Doc."""\n\n    return (1)\n')
    (workflow / "scripts/a.py").write_text('"""Other."""\nfrom medmim import leaf\nimport numpy as np  # for g\n')
    assert sha256(workflow, "a.py") == before


MESSAGES = """
import logging
import math

log = logging.getLogger("medmim")


class Part:
    def f(self, rows, name):
        assert rows, "no rows"
        if name == "a":
            raise ValueError("no a in " + name, 3)
        log.info("%d rows", len(rows))
        log.warning(f"{name} has {len(rows)} rows")
        self.logger.error("first" if rows[0] else "second")
        logging.exception("a", exc_info=True)
        try:
            return math.sqrt(rows[0]), f"{name} is good", "text"
        except ValueError as error:
            raise RuntimeError(f"{name}: " "bad") from error
        raise KeyError(", ".join(rows)) from None
"""


def digest_of(workflow: Path, text: str) -> str:
    (workflow / "medmim/leaf.py").write_text(text)
    return sha256(workflow, "a.py")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"no rows"', '"there are no rows"'),
        ('"no rows"', 'f"no rows of {name}"'),
        ('"no a in " + name', '"a is not in " + name'),
        ('"%d rows"', '"rows: %d"'),
        ('f"{name} has {len(rows)} rows"', 'f"{len(rows)} rows in {name}"'),
        ('"first" if', '"one" if'),
        ('else "second"', 'else "two"'),
        ('"a", exc', '"b", exc'),
        ('f"{name}: " "bad"', 'f"{name} is bad: {error}"'),
        ('", ".join(rows)', '"; ".join(rows)'),
    ],
)
def test_the_text_of_errors_and_log_lines_changes_nothing(workflow: Path, old: str, new: str) -> None:
    assert MESSAGES.count(old) == 1
    assert digest_of(workflow, MESSAGES) == digest_of(workflow, MESSAGES.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"medmim"', '"other"'),
        ("assert rows,", "assert not rows,"),
        ('name == "a"', 'name == "b"'),
        ("ValueError(", "TypeError("),
        (", 3)", ", 4)"),
        ("+ name", "+ str(name)"),
        ("log.info(", "log.debug("),
        ('"%d rows", len(rows)', '"%d rows", len(rows[1:])'),
        ("if rows[0] else", "if rows[1] else"),
        ("exc_info=True", "exc_info=False"),
        ('f"{name} is good"', 'f"{name} is fine"'),
        ('"text"', '"texts"'),
        ("math.sqrt", "math.exp"),
        ("from error", "from None"),
        ("join(rows)", "join(rows[1:])"),
        ('        log.info("%d rows", len(rows))\n', ""),
    ],
)
def test_all_else_beside_them_changes_it(workflow: Path, old: str, new: str) -> None:
    assert MESSAGES.count(old) == 1
    assert digest_of(workflow, MESSAGES) != digest_of(workflow, MESSAGES.replace(old, new))


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    form=st.sampled_from(
        ["raise ValueError({})", "assert f, {}", "log.info({})", "log.error('%s' + {}, f)", "x = {}", "print({})"]
    ),
)
def test_any_text_may_stand_there_and_nowhere_else(text: str, form: str) -> None:
    """Whatever the wording, quotes and braces in it too."""

    def digest(words: str) -> str:
        return code_digest._parse_source(Path("x.py"), form.format(repr(words)).encode())[0]

    assert (digest(text) == digest("other")) is (form[0] not in "xp" or text == "other")


def test_what_a_message_does_beyond_its_wording_counts(workflow: Path) -> None:
    for line in (
        'log.info("%d", write(rows, "{}"))',
        'log.info("%d", counts["{}"])',
        'log.info(f"{{(n := count(rows, {!r}))}} rows")',
        'raise ValueError(describe("{}"))',
        'raise errors["{}"](rows)',
        'console.info("{}")',
        'log.append("{}")',
        'error = ValueError("{}")',
    ):
        assert digest_of(workflow, line.format("a")) != digest_of(workflow, line.format("b")), line


def test_imports_and_schemas_inside_messages_are_found(workflow: Path) -> None:
    (workflow / "medmim/leaf.py").write_text(
        "def f(rows):\n    from medmim import tables\n"
        "    raise ValueError(f\"{tables.read_table(rows, 'images')} {__import__('medmim')}\")\n"
    )
    assert {"medmim.tables", "medmim.schemas.images"} <= code(workflow, "a.py")["modules"].keys()


def test_the_engine_and_what_only_it_imports_is_in_no_digest(workflow: Path) -> None:
    for name, text in {
        "medmim/provenance/__init__.py": "",
        "medmim/provenance/job.py": "import leftpad\nfrom medmim import plugin\nfrom medmim.part import deep\n",
        "medmim/snakemake_hooks/__init__.py": "from medmim import plugin\n",
        "medmim/provenance_report.py": "X = 1\n",
    }.items():
        (workflow / name).parent.mkdir(exist_ok=True)
        (workflow / name).write_text(text)
    before = code(workflow, "a.py")
    program = workflow / "scripts/a.py"
    program.write_text(program.read_text() + "from medmim.provenance.job import Job\nfrom medmim import snakemake_hooks\n")
    after = code(workflow, "a.py", "medmim.provenance.job")
    assert code_digest.describe_code_changes(before, after) == ["scripts/a.py"]
    for path in ("medmim/provenance/job.py", "medmim/plugin.py", "medmim/part/deep.py"):
        (workflow / path).write_text("X = 2\n")
    assert code(workflow, "a.py") == after
    program.write_text(program.read_text() + "import medmim.provenance_report\n")
    assert "medmim.provenance_report" in code(workflow, "a.py")["modules"]


def test_no_program_of_this_checkout_counts_the_engine() -> None:
    for program in (code_digest.WORKFLOW / "scripts").glob("*.py"):
        modules = code_digest.code_digest(program.name)["modules"]
        assert [name for name in modules if code_digest.is_engine_module(name)] == []


def test_the_engines_modules_are_those_that_it_imports() -> None:
    found = code_digest.THIS_CHECKOUT.list_engine_modules(["medmim.provenance.cache", "medmim.questions.split"])
    assert {"medmim", "medmim.provenance", "medmim.provenance.cache", "medmim.provenance.outputs", "medmim.common.files"} <= found
    assert "medmim.provenance.audit" not in found and not any(name.startswith("medmim.questions") for name in found)
    assert code_digest.THIS_CHECKOUT.list_engine_modules(["medmim.questions.split"]) == set()


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
