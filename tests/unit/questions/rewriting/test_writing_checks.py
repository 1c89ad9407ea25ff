"""Checks of what a language model wrote: whatever it changes of what a question says is noticed, and plain rewordings pass."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qa_made import SOURCES, make_source_tables

from medmim.questions.prompt import strip_placeholders
from medmim.questions.rewriting import checks
from medmim.questions.rewriting.facts import extract_facts, referenced_images
from medmim.questions.row import Row, question_row

COMMON = dict(split="train", ability="comparison", set="comparison", task="t", source="odir", generator="templates/1")
ROWS = [
    r for source in SOURCES for r in make_source_tables(source, 16).generate_questions(benchmark_fraction=0.3, open_fraction=0.3)
]
CLOSED, OPEN = [r for r in ROWS if r["options"]], [r for r in ROWS if not r["options"]]
any_row, any_closed, any_open = st.sampled_from(ROWS), st.sampled_from(CLOSED), st.sampled_from(OPEN)
FOREIGN = ("fracture", "left", "no", "7", "edema", "not", "stable", "MLO", "T2", "after", "larger", "metastatic")


def row(text: str, images: int = 2, **told: object) -> Row:
    return question_row(text=text, image_ids=[f"i{n}" for n in range(images)], **{**COMMON, **told})  # type: ignore[arg-type]


def facts_of(text: str, images: int = 2) -> list[str]:
    return extract_facts(text, images)


@pytest.mark.parametrize(
    ("text", "images", "facts"),
    [
        ("Compare images 1, 2 and 3.", 3, ["#1", "#2", "#3"]),
        ("Compare images 1-3 of this person.", 3, ["#1", "#2", "#3"]),
        ("In image two, and in the 3rd scan?", 3, ["#2", "#3"]),
        ("Look at the last image.", 3, ["#3"]),
        ("the former and the latter", 2, ["#1", "#2"]),
        ("Which of both images, which of the two mammogram views?", 2, []),
        ("Which of the two images?", 3, ["2", "images-of-3"]),
        ("Are both lungs clear?", 2, ["both", "lung", "clear"]),
        ("It isn't seen; it can't be seen.", 2, ["not", "not"]),
        ("Image 1: yes. Image 2: no.", 2, ["#1", "yes", "#2", "no"]),
        ("A T1-weighted scan of 12 mm, 3.5 % and BI-RADS 4", 2, ["t1-weight", "12", "mm", "3.5", "bi-rad", "4"]),
        ("What medication, what positive specimen?", 2, ["medic", "posit", "specimen"]),
    ],
)  # fmt: skip
def test_what_a_text_says(text: str, images: int, facts: list[str]) -> None:
    assert extract_facts(text, images) == facts


@given(any_row)
@settings(deadline=None)
def test_every_question_of_templates_passes_for_itself_in_more_everyday_words(row: Row) -> None:
    text = f"Please look at what is shown and answer. {strip_placeholders(row['question'])}"
    images = len(row["image_ids"])
    assert checks.check_rewritten_question(text, row) == []
    if row["options"]:
        assert checks.check_options(row["options"], row["options"], images) == []
        assert not checks.check_open_question(f"{text} Please describe.", f"What is seen here is this: {row['answer']}", row, [])
    else:
        assert checks.check_rewritten_answer(f"This is shown: {row['answer']}", row) == []
    assert all(1 <= n <= images for n in referenced_images(extract_facts(strip_placeholders(row["question"]), images)))


@given(any_row, st.sampled_from(FOREIGN), st.integers(0, 30))
@settings(deadline=None)
def test_a_word_that_is_no_everyday_one_can_not_be_added(row: Row, word: str, place: int) -> None:
    words = strip_placeholders(row["question"]).split()
    new = " ".join([*words[:place], word, *words[place:]])
    assume(
        set(extract_facts(new, len(row["image_ids"])))
        - set(extract_facts(strip_placeholders(row["question"]), len(row["image_ids"])))
    )
    assert any("the question adds" in r for r in checks.check_rewritten_question(new, row))
    if not row["options"]:
        assert any("the answer" in r for r in checks.check_rewritten_answer(f"{row['answer']} {word} zzz", row))


@given(any_row, st.data())
@settings(deadline=None)
def test_no_fact_can_be_left_out(row: Row, data: st.DataObject) -> None:
    images, old = len(row["image_ids"]), strip_placeholders(row["question"])
    words = [w for w in old.split() if extract_facts(w, images)]
    assume(words)
    lost = data.draw(st.sampled_from(words))
    new = " ".join(w for w in old.split() if w != lost)
    assume(set(extract_facts(old, images)) - set(extract_facts(new, images)))
    assert any("the question leaves out" in r for r in checks.check_rewritten_question(new, row))


@given(any_row, st.integers(1, 12))
@settings(deadline=None)
def test_other_images_can_not_be_referred_to(row: Row, number: int) -> None:
    images, old = len(row["image_ids"]), strip_placeholders(row["question"])
    assume(number not in referenced_images(extract_facts(old, images)))
    for way in (f"Look at image {number}. {old}", f"{old} See scan no. {number}.", f"In mammogram #{number}: {old}"):
        found = checks.check_rewritten_question(way, row)
        assert any(f"adds image {number}" in r for r in found)
        assert any("but there are" in r for r in found) == (number > images)


@given(any_closed, st.data())
@settings(deadline=None)
def test_options_can_be_neither_exchanged_nor_added_nor_lost(row: Row, data: st.DataObject) -> None:
    old, images = row["options"], len(row["image_ids"])
    a, b = data.draw(st.permutations(range(len(old))))[:2]
    swapped = list(old)
    swapped[a], swapped[b] = old[b], old[a]
    assert checks.check_options(swapped, old, images) != []
    assert any("options, but there are" in r for r in checks.check_options(old[:-1], old, images))
    assert any("options, but there are" in r for r in checks.check_options([*old, "none"], old, images))
    twice = [*old]
    twice[a] = old[b]
    assert "two options are the same" in checks.check_options(twice, old, images)
    longer = [*old]
    longer[a] = f"{old[a]} as you can see here"
    assert any("reworded alike" in r for r in checks.check_options(longer, old, images))
    for bad in ("", "  ", f"A: {old[a]}", f"{old[a]} <image>", f"not {old[a]}", "x" * 2000):
        broken = [*old]
        broken[a] = bad
        assert checks.check_options(broken, old, images) != []


@given(any_closed, st.data())
@settings(deadline=None)
def test_no_option_may_be_told_by_the_question(row: Row, data: st.DataObject) -> None:
    option = data.draw(st.sampled_from(row["options"]))
    old, images = strip_placeholders(row["question"]), len(row["image_ids"])
    assume(set(extract_facts(option, images)) - set(extract_facts(old, images)))
    new = f"{old} It is {option}."
    reasons = " ".join(checks.check_rewritten_question(new, row))
    assert re.search("gives the answer away|has the answer in it", reasons)
    if option == row["answer"] and not any(extract_facts(o, images) == [] for o in row["options"]):
        assert checks.check_answer_leak(new, old, option, (), images) != []
        assert any("gives the answer away" in r for r in checks.check_open_question(new, f"It is {option}. {old}", row, []))


def test_all_faults_of_an_opened_question_are_said() -> None:
    gold = "Image 1: no. Image 2: yes."
    asked = row("Image 1: a mass? Image 2: a mass?", options=[gold, "Image 1: yes. Image 2: no."], answer=gold)
    found = " ".join(checks.check_open_question(f"Is it {gold}", "Image 2: yes. Image 1: no. A mass.", asked, []))
    assert "another order" in found and "gives the answer away" in found


@given(any_open)
@settings(deadline=None)
def test_answers_keep_their_facts(row: Row) -> None:
    images = len(row["image_ids"])
    words = [w for w in row["answer"].split() if extract_facts(w, images)]
    assume(words)
    shorter = " ".join(w for w in row["answer"].split() if w != words[0])
    assume(set(extract_facts(row["answer"], images)) - set(extract_facts(shorter, images)))
    assert any("the answer leaves out" in r for r in checks.check_rewritten_answer(shorter, row))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("Image 1: no. Image 2: yes.", "Image 1: yes. Image 2: no."),
        ("The right eye shows cataract, the left eye glaucoma.", "The left eye shows cataract, the right eye glaucoma."),
        ("Image 2 shows a mass, image 1 none.", "Image 1 shows a mass, image 2 none."),
    ],
)
def test_facts_can_not_change_places(new: str, old: str) -> None:
    asked = row("What is seen in either?", answer=old)
    assert any("another order" in r for r in checks.check_rewritten_answer(new, asked))
    assert checks.check_rewritten_answer(old, asked) == []


def test_one_reference_may_stand_anywhere() -> None:
    asked = row("Which is it?", answer="Image 2 shows a suspicious finding.")
    assert checks.check_rewritten_answer("Suspicious findings can be seen in the second image.", asked) == []


def test_what_a_fact_names_may_stand_in_question_and_answer_of_an_open_one() -> None:
    asked = row("How did the edema change?", options=["improving", "worsening"], answer="worsening")
    facts = ["progression edema: worsening"]
    assert checks.check_open_question("What is the change of the edema?", "The edema is worsening.", asked, facts) == []
    found = checks.check_open_question("Is the edema worsening, or what is its change?", "The edema is worsening.", asked, facts)
    assert found == ['the question gives the answer away: "worsen"']
    assert any(
        "leaves out" in r for r in checks.check_open_question("What is the change of the edema?", "It is seen.", asked, facts)
    )
    assert any(
        "neither question nor answer" in r for r in checks.check_open_question("What is seen?", "It is worsening.", asked, facts)
    )
    assert any(
        'adds "pneumonia"' in r
        for r in checks.check_open_question("The edema?", "The change: worsening pneumonia.", asked, facts)
    )


@given(any_row, st.text(max_size=300))
@settings(deadline=None)
def test_noise_is_turned_away_for_a_reason(row: Row, noise: str) -> None:
    images = len(row["image_ids"])
    if (
        sorted(set(extract_facts(noise, images))) != sorted(set(extract_facts(strip_placeholders(row["question"]), images)))
        or not noise.strip()
    ):
        found = checks.check_rewritten_question(noise, row)
        assert found and all(isinstance(r, str) and r for r in found)


def test_a_row_is_checked_as_a_whole() -> None:
    before = row("Which?", options=["left", "right"], answer="left")
    assert checks.check_written_row(before, before) == ["nothing is worded otherwise"]
    other = row("Which is it?", options=["left", "right"], answer="right")
    assert checks.check_written_row(other, before) == ["another option is right than before"]
    assert checks.check_written_row(other | {"answer": "none"}, before)[0] == "the answer 'none' is not among the options"
    assert not re.search(
        "option", " ".join(checks.check_written_row(row("Which one?", options=["left", "right"], answer="left"), before))
    )
