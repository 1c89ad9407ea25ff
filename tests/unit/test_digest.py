from pathlib import Path

import pytest

from medmim import digest


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "medmim/part").mkdir(parents=True)
    for name, text in {
        "scripts/a.py": '"""Doc."""\nfrom medmim import leaf\nimport numpy as np\n',
        "scripts/b.py": "from medmim.part import deep\n",
        "medmim/__init__.py": "",
        "medmim/leaf.py": "def f():\n    return 1\n",
        "medmim/part/__init__.py": "",
        "medmim/part/deep.py": "def g():\n    import pandas\n    from medmim.leaf import f\n    return f\n",
        "medmim/plugin.py": "X = 1\n",
    }.items():
        (tmp_path / name).write_text(text)
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==1.0\npandas==2.0\n")
    monkeypatch.setattr(digest, "WORKFLOW", tmp_path)
    monkeypatch.setattr(digest, "LOCK", lock)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget() -> None:
    for f in (digest.locked, digest._parsed, digest.code):
        f.cache_clear()


def edit(path: Path, text: str) -> None:
    path.write_text(text)
    forget()


def test_names_modules_and_packages(workflow: Path) -> None:
    assert list(digest.code("a.py")["modules"]) == ["medmim", "medmim.leaf", "scripts/a.py"]
    assert digest.code("a.py")["packages"] == {"numpy": "1.0"}
    b = digest.code("b.py")
    assert set(b["modules"]) == {"medmim", "medmim.part", "medmim.part.deep", "medmim.leaf", "scripts/b.py"}
    assert b["packages"] == {"pandas": "2.0"}


def test_comments_docstrings_and_layout_change_nothing(workflow: Path) -> None:
    before = digest.digest("a.py")
    edit(workflow / "medmim/leaf.py", '"""New."""\n# why\ndef f():\n    """Doc."""\n\n    return (1)\n')
    edit(workflow / "scripts/a.py", '"""Other."""\nfrom medmim import leaf\nimport numpy as np  # for g\n')
    assert digest.digest("a.py") == before


@pytest.mark.parametrize("program", ["a.py", "b.py"])
def test_code_of_a_module_behind_it_changes_it(workflow: Path, program: str) -> None:
    before = digest.digest(program)
    edit(workflow / "medmim/leaf.py", "def f():\n    return 2\n")
    assert digest.digest(program) != before


def test_only_what_a_program_uses_counts(workflow: Path) -> None:
    before = digest.digest("a.py")
    edit(workflow / "medmim/part/deep.py", "import pandas\n")
    edit(workflow / "requirements.lock", "numpy==1.0\npandas==3.0\n")
    assert digest.digest("a.py") == before
    edit(workflow / "requirements.lock", "numpy==1.1\npandas==3.0\n")
    assert digest.digest("a.py") != before


def test_modules_named_at_run_time(workflow: Path) -> None:
    assert digest.digest("a.py", "medmim.plugin") != digest.digest("a.py")
    with pytest.raises(FileNotFoundError, match=r"medmim\.absent"):
        digest.digest("a.py", "medmim.absent")


def test_a_package_outside_the_lock_is_an_error(workflow: Path) -> None:
    edit(workflow / "medmim/leaf.py", "import leftpad\n")
    with pytest.raises(KeyError, match="leftpad"):
        digest.digest("a.py")
