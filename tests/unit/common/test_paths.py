"""One check says whether a path of others stays below its folder."""

import pytest

from medmim.common.files import is_inside_folder


@pytest.mark.parametrize("path", ["a", "a/b.jpg", "./a", "a b/ü.png", "..a/b..", ".hidden"])
def test_paths_below_the_folder(path: str) -> None:
    assert is_inside_folder(path)


@pytest.mark.parametrize("path", ["", ".", "..", "../a", "a/../../b", "/a", "a\\b", "C:/a", "a\nb", "a\0b"])
def test_paths_that_may_leave_it(path: str) -> None:
    assert not is_inside_folder(path)
