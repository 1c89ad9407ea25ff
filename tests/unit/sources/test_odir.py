"""ODIR in the challenge's layout, in Kaggle's and in both: no option that is true beside the gold."""

import re
from pathlib import Path

import pandas as pd
import pytest
from local_source import LocalSource, read_local_source, write_picture

from medmim.common.errors import UserError
from medmim.sources.odir import adapter, keywords

JUDGED: dict[str, tuple[set[str], set[str]]] = {
    "normal fundus": ({"normal fundus"}, set()),
    "lens dust，normal fundus": ({"normal fundus"}, set()),
    "laser spot，moderate non proliferative retinopathy": (
        {"laser spot", "moderate nonproliferative retinopathy", "diabetic retinopathy"},
        set(),
    ),
    "moderate non-proliferative retinopathy，post laser photocoagulation": (
        {"laser spot", "moderate nonproliferative retinopathy", "diabetic retinopathy"},
        set(),
    ),
    "diabetic retinopathy": ({"diabetic retinopathy"}, {"moderate nonproliferative retinopathy"}),
    "cataract": ({"cataract"}, set()),
    "cataract，suspected glaucoma": ({"cataract", "suspected glaucoma"}, {"glaucoma"}),
    "glaucoma，low image quality": ({"glaucoma"}, {"suspected glaucoma"}),
    "epiretinal membrane": ({"epiretinal membrane"}, {"macular epiretinal membrane"}),
    "epiretinal membrane over the macula": ({"macular epiretinal membrane", "epiretinal membrane"}, set()),
    "dry age-related macular degeneration": (
        {"dry age-related macular degeneration", "age-related macular degeneration"},
        {"drusen"},
    ),
    "age-related macular degeneration": (
        {"age-related macular degeneration"},
        {"dry age-related macular degeneration", "drusen"},
    ),
    "drusen": ({"drusen"}, {"dry age-related macular degeneration", "age-related macular degeneration"}),
}
"""Keywords of an eye: the diagnoses that it surely has, and those that it may have, as a reader judges by hand."""
NO_DIAGNOSIS = ("no fundus image", "anterior segment image", "optic disk photographically invisible")
PERSONS = [(left, right) for left in JUDGED for right in JUDGED] + [(a, "cataract") for a in NO_DIAGNOSIS]


def make_person(number: int) -> dict[str, object]:
    left, right = PERSONS[number]
    return {
        "ID": number, "Patient Age": 40 + number % 40, "Patient Sex": "Female", "Left-Fundus": f"{number}_left.jpg",
        "Right-Fundus": f"{number}_right.jpg", "Left-Diagnostic Keywords": left, "Right-Diagnostic Keywords": right,
        **dict.fromkeys("NDGCAHMO", 0),
    }  # fmt: skip


def write_photographs(folder: Path, numbers: range) -> None:
    for number in numbers:
        write_picture(folder / f"{number}_left.jpg", 2 * number)
        write_picture(folder / f"{number}_right.jpg", 2 * number + 1)


def write_challenge(root: Path, numbers: range, folder: str = "ODIR-5K_Training_Images/ODIR-5K_Training_Dataset") -> None:
    root.mkdir(exist_ok=True)
    table = root / "ODIR-5K_Training_Annotations(Updated)_V2.xlsx"
    pd.DataFrame(map(make_person, numbers)).to_excel(table, index=False)
    write_photographs(root / folder, numbers)


def write_kaggle(root: Path, numbers: range, left_out: int = 0) -> None:
    """The CSV lacks the last `left_out` persons, as Kaggle's lacks some."""
    inner = root / "ODIR-5K/ODIR-5K"
    write_photographs(inner / "Training Images", numbers)
    write_photographs(root / "preprocessed_images", numbers)
    pd.DataFrame(map(make_person, numbers)).to_excel(inner / "data.xlsx", index=False)
    rows = [make_person(n) | {"labels": "['N']", "filename": f"{n}_{eye}.jpg"} for n in numbers for eye in ("left", "right")]
    pd.DataFrame(rows[: len(rows) - 2 * left_out]).to_csv(root / "full_df.csv", index=False)


@pytest.fixture(scope="module")
def odir(tmp_path_factory: pytest.TempPathFactory) -> LocalSource:
    root = tmp_path_factory.mktemp("odir")
    write_challenge(root, range(len(PERSONS)))
    return read_local_source("odir", root)


def judge(diagnosis: str, eye: str) -> bool | None:
    true, unknown = JUDGED[eye]
    return True if diagnosis in true else None if diagnosis in unknown else False


def judge_text(text: str, eye: str) -> bool | None:
    """Whether all diagnoses of a text are the eye's; None where that is not known."""
    judged = [judge(diagnosis, eye) for diagnosis in text.split(" and ")]
    return False if False in judged else None if None in judged else True


def read_keywords(odir: LocalSource, row: dict) -> tuple[str, str]:
    left, right = (int(re.search(r"(\d+)_(?:left|right)", f)[1]) for f in odir.list_files(row))
    assert left == right
    return PERSONS[left]


def test_one_option_of_each_question_is_true(odir: LocalSource) -> None:
    counts = {"each": 0, "both": 0, "where": 0}
    for row in odir.questions:
        left, right = read_keywords(odir, row)
        if row["options"][0].startswith("left "):
            counts["both"] += 1
            pairs = [re.fullmatch("left (.*), right (.*)", o).groups() for o in row["options"]]
            parts = [(judge_text(a, left), judge_text(b, right)) for a, b in pairs]
            truths = [False if False in part else None if None in part else True for part in parts]
        elif "image" in row["options"][0]:
            counts["where"] += 1
            asked = next(d for d in sorted({d for t, _ in JUDGED.values() for d in t}, key=len)[::-1] if d in row["question"])
            truth = (judge(asked, left), judge(asked, right))
            places = {(True, False): "image 1|the first image", (False, True): "image 2|the second image"}
            places |= {(True, True): "both images", (False, False): "neither image"}
            truths = [bool(re.fullmatch(places[truth], o)) for o in row["options"]]
        else:
            counts["each"] += 1
            eye = left if re.search("image 1|left", row["question"], re.I) else right
            truths = [judge_text(o, eye) for o in row["options"]]
        assert truths.count(False) == len(truths) - 1 and truths[row["answer_index"]] is True, (row["question"], row["options"])
    assert min(counts.values()) > 20, counts


def test_eyes_without_a_diagnosis_are_not_asked_about(odir: LocalSource) -> None:
    shown = {f for row in odir.questions for f in odir.list_files(row)}
    assert len(shown) > 100
    assert not any(re.search(rf"/{n}_", f) for f in shown for n in range(len(PERSONS) - len(NO_DIAGNOSIS), len(PERSONS)))


@pytest.mark.parametrize("folder", ["ODIR-5K_Training_Images", "ODIR-5K_Training_Dataset", "any/ODIR-5K_Training_Images"])
def test_the_challenge_and_kaggle_say_the_same(tmp_path: Path, folder: str) -> None:
    write_challenge(tmp_path / "challenge", range(30), folder)
    write_kaggle(tmp_path / "kaggle", range(30), left_out=4)
    challenge, kaggle = (read_local_source("odir", tmp_path / name) for name in ("challenge", "kaggle"))
    assert challenge.rejected == kaggle.rejected == {}
    assert set(kaggle.images.release_path) == {f"Training Images/{n}_{e}.jpg" for n in range(30) for e in ("left", "right")}
    assert not kaggle.images.origin_file.str.startswith("preprocessed_images").any()
    assert [q["question"] for q in challenge.questions] == [q["question"] for q in kaggle.questions] != []


def test_both_owners_folders_are_merged(tmp_path: Path) -> None:
    write_kaggle(tmp_path, range(20), left_out=3)
    write_challenge(tmp_path / "challenge", range(10, 30))
    table = tmp_path / "challenge/ODIR-5K_Training_Annotations(Updated)_V2.xlsx"
    changed = pd.read_excel(table, dtype=object)
    changed.loc[changed.ID == 12, "Patient Age"] = 99
    changed["N"] = changed["N"].astype(float)
    changed.to_excel(table, index=False)
    contents = adapter.read_contents(tmp_path)
    assert {p.patient for p in contents.pictures} == set(map(str, range(30)))
    assert len(contents.pictures) == 60 and all((tmp_path / p.file).is_file() for p in contents.pictures)
    (rejection,) = contents.rejected
    name = "challenge/ODIR-5K_Training_Annotations(Updated)_V2.xlsx"
    assert (rejection.item, rejection.reason) == (f"{name} row 3", "Patient Age is '99', but '52' in full_df.csv row 25")


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    pd.DataFrame([make_person(0)]).to_csv(tmp_path / "full_df.csv", index=False)
    with pytest.raises(UserError, match="no Training Images or ODIR-5K_Training_Dataset or ODIR-5K_Training_Images here"):
        adapter.read_contents(tmp_path)


@pytest.mark.parametrize("table", [keywords.SAME, keywords.WIDER, keywords.OVERLAPPING])
def test_the_thesaurus_names_its_sources(table: tuple[keywords.Entry, ...]) -> None:
    assert all(entry.source and entry.name != entry.other for entry in table)
    assert len({(e.name, e.other) for e in table}) == len(table)
