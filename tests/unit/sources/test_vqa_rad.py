"""VQA-RAD as its owner ships it: of the images that are shown, one alone has the answer that is asked for."""

import json

import pytest
from local_source import LocalSource, read_local_source, write_picture

from medmim.sources.vqa_rad import answers

QUESTIONS: dict[str, list[set[str]]] = {
    "In which plane is this?": [{"axial", "Axial plane", "transverse"}, {"coronal", "Coronal\t"}, {"sagittal"}],
    "What type of image is this?": [
        {"chest x ray", "Chest x-ray", "X-ray", "plain film"},
        {"MR - Flair", "MR FLAIR", "MRI", "mri"},
        {"CT", "CT scan", "computed tomography"},
    ],
    "Where is the lesion?": [{"left lung", "left lower lobe", "left"}, {"right lung", "right", "right-sided"}],
    "How many lesions are there?": [{3, "three"}, {"one", "1"}],  # type: ignore[arg-type]
    "Is there a mass?": [{"Yes", "yes "}, {"No", "no", "Not seen"}],
}
"""Answers to each question; those of one set mean the same, or one includes the other, as a reader judges by hand."""


def make_record(qid: int, question: str, answer: object) -> dict[str, object]:
    return {
        "qid": qid, "phrase_type": "freeform", "qid_linked_id": f"x{qid}", "image_case_url": "", "image_organ": "CHEST",
        "image_name": f"synpic{qid}.jpg", "evaluation": "evaluated", "question": question, "question_rephrase": "NULL",
        "question_relation": "NULL", "question_frame": "NULL", "question_type": "OTHER", "answer": answer,
        "answer_type": "CLOSED " if str(answer).strip().lower() in ("yes", "no") else "OPEN",
    }  # fmt: skip


@pytest.fixture(scope="module")
def vqa_rad(tmp_path_factory: pytest.TempPathFactory) -> LocalSource:
    root = tmp_path_factory.mktemp("vqa_rad")
    asked = [(q, a) for q, groups in QUESTIONS.items() for group in groups for a in sorted(group, key=str)] * 2
    records = [make_record(qid, *pair) for qid, pair in enumerate(asked)]
    for record in records:
        write_picture(root / "VQA_RAD Image Folder" / str(record["image_name"]), int(str(record["qid"])))
    odd = [make_record(900, "Is there a mass?", None), make_record(901, "Is there a mass?", ["no"])]
    write_json = (root / "VQA_RAD Dataset Public.json").write_text
    write_json(json.dumps(records + [r | {"image_name": "synpic0.jpg"} for r in odd]), "utf-8")
    return read_local_source("vqa_rad", root)


def find_group(question: str, answer: str) -> int:
    return next(
        n for n, group in enumerate(QUESTIONS[question]) if answer.strip().lower() in {str(a).strip().lower() for a in group}
    )


def test_no_other_image_has_the_answer(vqa_rad: LocalSource) -> None:
    records = {}
    for question, groups in QUESTIONS.items():
        for group in groups:
            for answer in sorted(group, key=str):
                records[len(records)] = question, str(answer)
    asked = 0
    for row in vqa_rad.questions:
        text = next((q for q in QUESTIONS if q in row["question"]), "")
        if row["kind"] != "closed" or "image" not in row["options"][0] or row["options"][0].startswith("Image 1:"):
            continue
        asked += 1
        shown = [records[int(f.rpartition("synpic")[2].removesuffix(".jpg")) % len(records)] for f in vqa_rad.list_files(row)]
        assert {question for question, _ in shown} == {text}
        place = row["options"][row["answer_index"]]
        gold = next(n for n, names in enumerate(("1 first", "2 second", "3 third")) if set(names.split()) & set(place.split()))
        groups_shown = [find_group(*pair) for pair in shown]
        assert groups_shown.count(groups_shown[gold]) == 1, (row["question"], shown)
        assert shown[gold][1].strip().lower() in row["question"].lower()
    assert asked > 40


def test_what_is_no_answer_is_rejected(vqa_rad: LocalSource) -> None:
    reasons = list(vqa_rad.rejected.values())
    assert reasons == ["answer is null, expected text or a number", "answer is a list, expected text or a number"]


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("axial", "axial plane"),
        ("chest x ray", "Chest x-ray"),
        ("MR - Flair", "MR FLAIR"),
        ("suprasellar", "sella and suprasellar cistern"),
        ("left lung", "left lower lobe"),
        ("bilateral lungs", "the right lung"),
        ("x-ray", "axial"),
        ("cardiac", "Heart"),
    ],
)
def test_answers_that_may_both_be_true(answer: str, other: str) -> None:
    assert answers.may_agree(answer, other)


@pytest.mark.parametrize(
    ("answer", "other"),
    [("axial CT", "coronal CT"), ("left lung", "right lung"), ("CT", "MR - Flair"), ("T1", "T2 weighted"), ("brain", "chest"),
     ("with contrast", "without contrast"), ("2", "three"), ("right upper lobe", "right lower lobe"), ("Yes", "Not seen")],
)  # fmt: skip
def test_answers_that_exclude_each_other(answer: str, other: str) -> None:
    assert not answers.may_agree(answer, other)


@pytest.mark.parametrize("table", [answers.SAME, answers.WIDER, answers.OVERLAPPING])
def test_the_thesaurus_names_its_sources(table: tuple[answers.Entry, ...]) -> None:
    assert all(entry.source and entry.name != entry.other for entry in table)
    assert len({(e.name, e.other) for e in table}) == len(table)
