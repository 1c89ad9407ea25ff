"""The sets of questions follow from the config's table and from what sources hold out."""

import pytest

from medmim.questions.sets import HELD_IN, HELD_OUT, SETS, TRAIN_ONLY, find_set_group


def test_sets_of_the_splits() -> None:
    assert HELD_IN == ("temporal", "reasoning", "comparison", "coreference")
    assert (HELD_OUT, TRAIN_ONLY) == (("rad", "odir"), ("composed",))
    assert SETS["train"] == (*HELD_IN, "composed") and SETS["benchmark"] == (*HELD_IN, "rad", "odir")


@pytest.mark.parametrize(("name", "group"), [("temporal", "held_in"), ("odir", "held_out"), ("medframeqa", "further")])
def test_the_sum_of_a_set(name: str, group: str) -> None:
    assert find_set_group(name) == group
