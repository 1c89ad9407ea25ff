"""What a stage turned away, in its error and in the list that outlives it."""

from pathlib import Path

import pandas as pd
import pytest

from medmim.common.errors import RunInterruptedError, UserError
from medmim.tables.rejections import get_list_path, keep_rejections, summarize_rejections

ROWS = [{"stage": "images", "item": f"b{n}.jpg", "reason": "cut off"} for n in (3, 1, 2, 0)] + [
    {"stage": "images", "item": f"t.csv row {n}", "reason": f"side is {side!r}, neither L nor R"}
    for n, side in ((2, "B"), (1, "x"))
]


def test_reasons_are_counted_with_the_first_items() -> None:
    assert summarize_rejections(ROWS) == (
        "\n  4 × cut off: b0.jpg, b1.jpg, b2.jpg, …\n  2 × side is 'x', neither L nor R, and alike: t.csv row 1, t.csv row 2"
    )
    assert summarize_rejections([]) == ""


def test_many_reasons_are_summed_up() -> None:
    rows = [{"item": "i", "reason": letter * 3} for letter in "abcdefgh"]
    assert summarize_rejections(rows).endswith("\n  1 × fff: i\n  and 2 for 2 other reasons")


@pytest.mark.parametrize("error", [UserError("too many"), RunInterruptedError("stopped"), KeyError("bug")])
def test_the_list_outlives_a_failure_and_not_the_next_attempt(tmp_path: Path, error: Exception) -> None:
    path = get_list_path(tmp_path / "logs/build_images.x.log", tmp_path / "images/x.rejected.parquet")
    assert path == tmp_path / "logs/build_images.x.rejected.csv"
    with pytest.raises(type(error)) as raised, keep_rejections(path, lambda: ROWS):
        raise error
    assert (f"turned away so far, 6 with their reasons: {path}" in str(raised.value)) is isinstance(error, UserError)
    assert pd.read_csv(path).to_dict("records") == ROWS
    with keep_rejections(path, lambda: ROWS):
        pass
    assert not path.exists()


def test_a_list_that_can_not_be_written_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^too many$"), keep_rejections(tmp_path / "list.csv", lambda: ROWS):
        (tmp_path / "list.csv").mkdir()
        raise UserError("too many")
