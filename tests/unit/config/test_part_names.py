"""Parts that are found by being there."""

from pathlib import Path

import pytest

from medmim.config import part_names


def test_a_part_is_a_module_that_defines_the_name_at_its_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_names, "PACKAGE_FOLDER", tmp_path)
    (tmp_path / "parts").mkdir()
    texts = {
        "b": "PART = 1\n",
        "a": "PART: int = 1\n",
        "base": "class Part:\n    PART = 1\n",
        "c": "PARTS = 1\n",
        "d": "x = PART\n",
    }
    for name, text in texts.items():
        (tmp_path / f"parts/{name}.py").write_text(text)
    assert part_names.find_parts("parts", "PART") == ("a", "b")


def test_the_parts_of_this_checkout() -> None:
    assert part_names.MODEL_FAMILIES == ("llava-med", "mantis")
    assert part_names.EXTERNAL_SETS == ("medframeqa", "medxpertqa")


def test_the_nearest_name_is_told_else_all_are() -> None:
    assert part_names.find_nearest("mantiss", ["mantis", "chat"]) == "did you mean 'mantis'?"
    assert part_names.find_nearest("zzz", ["mantis", "chat"]) == "there are mantis, chat"
