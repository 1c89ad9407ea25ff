"""Names and short answers are compared by what they mean."""

import pytest

from medmim.questions.meanings import Entry, Thesaurus

THESAURUS = Thesaurus(
    same=(
        Entry("lung", "pulmonary", "x"),
        Entry("xray", "x-ray", "x"),
        Entry("xray", "x ray", "x"),
        Entry("no", "not seen", "x"),
    ),
    wider=(Entry("lower lobe", "lung", "x"), Entry("lung", "chest", "x")),
    overlapping=(Entry("pneumonia", "consolidation", "x"),),
    aspects=(("left", "right"), ("upper", "lower")),
    filler_words=("the", "of"),
)


@pytest.mark.parametrize(
    ("text", "other", "implies", "implied", "agree"),
    [
        ("the x-ray", "X ray", True, True, True),
        ("Lungs", "pulmonary\t", True, True, True),
        ("right lung", "lung", True, False, True),
        ("lower lobe", "chest", True, False, True),
        ("left lower lobe", "left lung", True, False, True),
        ("left lung", "right lung", False, False, False),
        ("left", "lower", False, False, True),
        ("left pneumonia", "consolidation", False, False, True),
        ("suspected pneumonia", "pneumonia", False, False, True),
        ("suspected pneumonia", "suspected pneumonia", True, True, True),
        ("pneumonia", "effusion", False, False, False),
        ("no", "not seen", True, True, True),
        ("yes", "no", False, False, False),
        ("chest,x－ray", "xray chest", True, True, True),
        ("xray-like", "xray", False, False, False),
        ("?", "yes", False, True, True),
    ],
)
def test_meanings(text: str, other: str, implies: bool, implied: bool, agree: bool) -> None:
    assert (THESAURUS.implies(text, other), THESAURUS.implies(other, text)) == (implies, implied)
    assert THESAURUS.may_agree(text, other) == THESAURUS.may_agree(other, text) == agree


def test_preferred_names_are_whole_words() -> None:
    assert THESAURUS.rename("Pulmonary X Rays, subpulmonary x-ray") == "lung x rays subpulmonary xray"
