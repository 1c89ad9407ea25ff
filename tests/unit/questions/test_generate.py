"""Questions by templates: every task is there, balanced, sound, seeded, and its gold is what the findings say."""

import re
from collections import Counter, defaultdict

import pytest
from qa_made import HELD_IN, SOURCES, SourceTables, make_source_tables

from medmim.common.errors import UserError
from medmim.questions.balance import assign_places, find_cap
from medmim.questions.cohort import build_cohort
from medmim.questions.generate import VARIANTS_PER_FACT, check_declared_sets, is_benchmark_patient
from medmim.questions.prompt import strip_placeholders
from medmim.questions.row import Row
from medmim.questions.templates import SLACK, Template
from medmim.questions.validation import check_row
from medmim.sources.embed import questions as embed
from medmim.sources.lumiere import questions as lumiere
from medmim.sources.ms_cxr_t import questions as ms_cxr_t
from medmim.sources.odir import questions as odir
from medmim.sources.pmc import questions as pmc
from medmim.sources.vqa_rad import questions as vqa_rad

FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
ABILITIES = ("coreference", "temporal", "coreference", "reasoning")
TASKS = {
    "embed": {f"embed_type{t}": ability for t, ability in zip("ABCD", ABILITIES, strict=True)},
    "lumiere": {"lumiere_typeA": "coreference", "lumiere_typeB": "comparison", "lumiere_typeC": "temporal"},
    "ms_cxr_t": {f"ms_cxr_t_{kind}_{f}": "comparison" for kind in ("conv", "vqa") for f in FINDINGS},
    "pmc": {"pmc_composed": "composed"},
    "vqa_rad": {"vqa_rad": ""},
    "odir": {"odir": ""},
}
MODULES = (embed, lumiere, ms_cxr_t, odir, pmc, vqa_rad)


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Row]]:
    """Questions of every source, for pretraining too."""
    return {
        s: make_source_tables(s, 120 if s in HELD_IN else 60).generate_questions(
            pretrain=s not in ("vqa_rad", "odir"), open_fraction=0.2
        )
        for s in SOURCES
    }


def of(rows: list[Row], **columns: object) -> list[Row]:
    return [r for r in rows if all(r[k] == v for k, v in columns.items())]


@pytest.mark.parametrize("source", SOURCES)
def test_every_task_is_there_and_sound(asked: dict[str, list[Row]], source: str) -> None:
    rows = asked[source]
    images = {i["image_id"] for i in make_source_tables(source, 120).images}
    assert all(check_row(r, images) == [] for r in rows)
    assert len({r["qa_id"] for r in rows}) == len(rows)
    multi = [r for r in rows if r["split"] != "pretrain"]
    assert {r["task"] for r in multi} == set(TASKS[source])
    assert {len(r["image_ids"]) for r in multi} <= ({2, 3, 4} if source == "pmc" else {2, 3})
    assert all(r["ability"] == TASKS[source][r["task"]] == r["set"] for r in multi if TASKS[source][r["task"]])
    splits = {"pmc": {"train"}, "vqa_rad": {"benchmark"}, "odir": {"benchmark"}}.get(source, {"train", "benchmark"})
    assert {r["split"] for r in multi} == splits
    for task in TASKS[source]:
        kinds = {r["kind"] for r in multi if r["task"] == task}
        only = {"pmc": {"open"}}.get(source) or (
            {"open"} if "_conv_" in task else {"closed"} if "_vqa_" in task else {"closed", "open"}
        )
        assert kinds == only, task


@pytest.mark.parametrize("source", [s for s in SOURCES if s != "pmc"])
def test_letters_are_balanced(asked: dict[str, list[Row]], source: str) -> None:
    letters = Counter((len(r["options"]), r["answer_index"]) for r in asked[source] if r["kind"] == "closed" and r["image_ids"])
    for n in {n for n, _ in letters}:
        counts = [letters[n, i] for i in range(n)]
        assert max(counts) <= 1.25 * min(counts) + 8, (n, counts)


@pytest.mark.parametrize("source", HELD_IN)
def test_no_gold_is_too_common(asked: dict[str, list[Row]], source: str) -> None:
    golds: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for r in of(asked[source], split="train", kind="closed"):
        golds[r["task"], len(r["image_ids"])][r["answer"].removeprefix("the ")] += 1
    styles = 2 if source == "ms_cxr_t" else 1
    for key, counts in golds.items():
        n = sum(counts.values())
        if n >= 150:
            share = 1 / (len(counts) / styles) + SLACK + 0.5 * (VARIANTS_PER_FACT / n) ** 0.5 + 0.05
            assert max(counts.values()) / n <= share, (key, counts)


def test_skewed_findings_are_thinned() -> None:
    tables = make_source_tables("ms_cxr_t", 200)
    for finding in tables.findings:  # four of five patients of each finding are stable
        patient = int(str(finding["patient_id"]).split("/")[1])
        if str(finding["name"]).startswith("progression:") and patient // 5 % 5:
            finding["value"] = "stable"
    tables.truth.clear()
    rows = tables.generate_questions(open_fraction=0.0, benchmark_fraction=0.0)
    stable = sum(r["answer"] in ("stable", "unchanged") for r in rows) / len(rows)
    assert 0.3 < stable < 0.6  # of the findings it is more than 0.8


def test_natural_order_is_the_order_of_the_scale() -> None:
    rows = make_source_tables("ms_cxr_t").generate_questions(option_order="natural", open_fraction=0.0)
    orders = {tuple(r["options"]) for r in rows}
    assert orders == {("improving", "stable", "worsening"), ("improved", "unchanged", "worse")}
    assert {r["answer_index"] for r in rows} == {0, 1, 2}
    shuffled = {tuple(r["options"]) for r in make_source_tables("ms_cxr_t").generate_questions(open_fraction=0.0)}
    assert len(shuffled) == 12
    images = make_source_tables("embed", 20).generate_questions(option_order="natural", open_fraction=0.0)
    assert all(r["options"] == sorted(r["options"]) for r in of(images, task="embed_typeC") if "1" in r["options"][0])


@pytest.mark.parametrize("source", HELD_IN)
def test_same_seed_same_rows_whatever_the_order_of_the_tables(source: str) -> None:
    tables = make_source_tables(source, 20)
    rows = tables.generate_questions(pretrain=True)
    tables.images.reverse()
    assert tables.generate_questions(pretrain=True) == rows
    assert tables.generate_questions(pretrain=True, seed=8) != rows


def test_more_data_keeps_most_questions() -> None:
    few, many = ({r["qa_id"] for r in make_source_tables("embed", n).generate_questions()} for n in (60, 66))
    assert len(few & many) > 0.6 * len(few)
    assert all(is_benchmark_patient(p, 0.5) for p in (f"embed/{i}" for i in range(99)) if is_benchmark_patient(p, 0.2))


@pytest.mark.parametrize("source", HELD_IN)
def test_splits_share_no_patient_and_no_image(asked: dict[str, list[Row]], source: str) -> None:
    rows = asked[source]
    held = of(rows, split="benchmark")
    rest = [r for r in rows if r["split"] != "benchmark"]
    assert held
    for column in ("patient_ids", "image_ids"):
        assert {v for r in held for v in r[column]}.isdisjoint(v for r in rest for v in r[column])


def templates() -> list[Template]:
    found = [v for m in MODULES for v in vars(m).values() if isinstance(v, Template)]
    return [*found, *ms_cxr_t.PAIR_TEMPLATES.values()]


def test_twenty_wordings_or_more_and_all_distinct() -> None:
    for t in templates():
        if not t.task.startswith("pretrain"):
            forms = [words for kind in ("closed", "open") if (words := t.select_wordings(kind, None))]
            assert forms, t.task
            for words in forms:
                assert len(set(words)) == len(words) >= 20, t.task


def test_all_wordings_are_used(asked: dict[str, list[Row]]) -> None:
    for template, source in ((embed.TYPE_D, "embed"), (lumiere.TYPE_C, "lumiere"), (embed.TYPE_B, "embed")):
        rows = of(asked[source], task=template.task, split="train")
        wordings = {*template.select_wordings("closed", None), *template.select_wordings("open", None)}
        fronted = [f"{context} {wording}" for context in template.contexts for wording in wordings]
        texts = {strip_placeholders(r["question"]) for r in rows}
        assert texts <= {*wordings, *fronted}
        assert {w for w in wordings if any(t.endswith(w) for t in texts)} == wordings
        assert {c for c in template.contexts if any(t.startswith(c) for t in texts)} == {*template.contexts}
    task = ms_cxr_t.PAIR_TEMPLATES["edema"]
    rows = make_source_tables("ms_cxr_t", 300).generate_questions(wordings=100)
    used = {strip_placeholders(r["question"]) for r in of(rows, task=task.task, split="train")}
    assert used == {w.format(finding="edema") for w in task.select_wordings("closed", None)}, "and no contexts, being limited"


def test_gold_is_what_the_findings_say() -> None:
    tables = make_source_tables("embed", 40)
    stated = {(f["image_id"], f["name"]): f["value"] for f in tables.findings}
    by_id = {f["finding_id"]: f for f in tables.findings}
    number = {"image 1": 0, "image 2": 1, "image 3": 2, "the first image": 0, "the second image": 1, "the third image": 2}
    rows = [r for r in tables.generate_questions(open_fraction=0.0) if r["split"] == "train"]
    assert {r["task"] for r in rows} == set(TASKS["embed"])
    for r in rows:
        letters = [stated[i, "birads"] for i in r["image_ids"]]
        if r["task"] == "embed_typeA":
            assert [letter in "SMK" for letter in letters] == [n == number[r["answer"]] for n in range(len(letters))]
            assert len(r["patient_ids"]) == len(letters)
        elif r["task"] == "embed_typeB":
            next_letter = next(by_id[f]["value"] for f in r["findings"] if by_id[f]["image_id"] not in r["image_ids"])
            last_letter = stated[r["image_ids"][-1], "outcome"]
            gravity = {"N": 0, "B": 0, "P": 1, "S": 2, "M": 3, "K": 3}
            assert r["answer"].startswith("worse") == (gravity[next_letter] > gravity[last_letter])
        elif r["task"] == "embed_typeC":
            view = "MLO" if "MLO" in r["question"] else "CC"
            shown = [stated[i, "view"] == view for i in r["image_ids"]]
            assert shown == [n == number[r["answer"]] for n in range(len(shown))]
        else:
            assert [stated[i, "view"] for i in r["image_ids"]] == ["CC", "MLO"]
            assert {embed.ASSESSMENT_TEXTS[letter] for letter in letters} == {r["answer"]}
            assert len(r["options"]) == 7


def test_pairs_keep_their_order_and_label() -> None:
    tables = make_source_tables("ms_cxr_t")
    labels = {f["image_id"]: f["value"] for f in tables.findings if str(f["name"]).startswith("progression")}
    words = {"improved": "improving", "unchanged": "stable", "worse": "worsening"}
    for r in tables.generate_questions(open_fraction=0.0):
        before, after = r["image_ids"]
        assert before.endswith("-0")
        assert after.endswith("-1")
        assert labels[after] == words.get(r["answer"], r["answer"])


def test_surgery_is_between_consecutive_visits(asked: dict[str, list[Row]]) -> None:
    for r in of(asked["lumiere"], task="lumiere_typeB"):
        assert [int(i.split("-")[-2]) for i in r["image_ids"]] == [0, 1]
        assert all(i.endswith("-CT1") for i in r["image_ids"])


def test_responses_are_shown_with_the_scan_they_are_rated_against(asked: dict[str, list[Row]]) -> None:
    tables = make_source_tables("lumiere", 120)
    values = {(f["study_id"], f["name"]): f["value"] for f in tables.findings}
    studies = {str(i["image_id"]): str(i["study_id"]) for i in tables.images}
    gaps = []
    for r in of(asked["lumiere"], task="lumiere_typeC"):
        reference, rated = (studies[i] for i in r["image_ids"])
        assert reference.endswith(f"/week-{values[rated, 'reference']}")
        assert all(i.endswith("-CT1") for i in r["image_ids"])
        gaps.append(int(rated[-3:]) - int(reference[-3:]))
    assert min(gaps) == 1
    assert max(gaps) > 1


@pytest.mark.parametrize(
    ("rating", "before", "after", "is_asked"),
    [
        ("PD", "100", "125", True),
        ("PD", "100", "120", False),
        ("PD", "0", "30", True),
        ("SD", "100", "120", True),
        ("SD", "100", "51", True),
        ("SD", "20", "10", True),
        ("PR", "100", "50", True),
        ("PR", "100", "60", False),
        ("CR", "100", "24", True),
        ("CR", "20", "10", False),
        ("CR", "100", "30", False),
    ],
)
def test_responses_that_the_masks_contradict_are_not_asked(rating: str, before: str, after: str, is_asked: bool) -> None:
    tables = SourceTables("lumiere")
    for week, area in enumerate((before, after)):
        image = tables.add_image("p", f"p/week-{week:03}", f"slice_3/{week}", week)
        tables.add_findings("p", f"p/week-{week:03}", image, sequence="CT1", enhancing_mm2=area)
    tables.add_findings("p", "p/week-001", "", rano=rating, reference="000")
    golds = [f.gold for f in lumiere.build_facts(build_cohort(**tables.to_frames()))]
    assert golds == ([rating] if is_asked else [])
    tables.add_findings("p", "p/week-001", "", progression="T2")
    assert not list(lumiere.build_facts(build_cohort(**tables.to_frames()))), "contrast T1 shows no T2 progression"


def test_composed_joins_turns_of_other_figures(asked: dict[str, list[Row]]) -> None:
    rows = of(asked["pmc"], split="train")
    assert all(len(r["patient_ids"]) == len(r["image_ids"]) and r["kind"] == "open" for r in rows)
    assert {len(r["image_ids"]) for r in rows} == {2, 3, 4}
    assert any("{figure}" in r["answer"] for r in rows)
    ways = set()
    for r in rows:  # each question says by place which image it is about
        for n, nth in enumerate(("first", "second", "third", "fourth")[: len(r["image_ids"])], 1):
            way = rf"((?:For )?image {n}: |(?:For the |About the )?{nth} image: |In the {nth} image, )what is part"
            said = re.findall(way, r["question"], re.I)
            assert len(said) == 1, r["question"]
            ways.add(said[0].lower().replace(nth, "nth").replace(str(n), "n"))
        assert len(re.findall("what is part", r["question"], re.I)) == len(r["image_ids"])
        assert r["answer"].startswith("Image 1: Answer")
    assert ways == {
        "image n: ",
        "for image n: ",
        "nth image: ",
        "for the nth image: ",
        "about the nth image: ",
        "in the nth image, ",
    }


def test_rad_leaves_out_what_the_text_alone_tells(asked: dict[str, list[Row]]) -> None:
    closed = of(asked["vqa_rad"], kind="closed")
    joined = [r for r in closed if r["options"][0].startswith("Image 1:")]
    assert joined
    assert not any("Is this an image?" in r["question"] for r in joined)
    assert len(closed) > len(joined)  # the others ask for an image
    assert {len(r["image_ids"]) for r in joined} == {2, 3}


def test_odir_options_do_not_point_at_the_gold(asked: dict[str, list[Row]]) -> None:
    both = [r for r in of(asked["odir"], kind="closed") if r["options"][0].startswith("left ")]
    assert both
    for r in both:  # two diagnoses, each as often in every place
        parts = [o.removeprefix("left ").split(", right ") for o in r["options"]]
        assert sorted(Counter(p for pair in parts for p in pair).values()) == [4, 4]
    assert not any("lens dust" in o for r in both for o in r["options"])


@pytest.mark.parametrize("source", HELD_IN)
def test_pretraining_shows_one_image_or_none(asked: dict[str, list[Row]], source: str) -> None:
    rows = of(asked[source], split="pretrain")
    single, text = of(rows, set="single"), of(rows, set="text")
    assert all(len(r["image_ids"]) == 1 for r in single)
    assert all(r["image_ids"] == [] and r["question"].startswith("Image 1: ") and r["patient_ids"] for r in text)
    assert {r["task"] for r in text} == {f"pretrain_text_{t}" for t in TASKS[source] if "_conv_" not in t}
    labels: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for r in of(single, kind="closed"):
        labels[r["task"], r["image_ids"][0]].add(r["answer"])
    assert all(len(answers) == 1 for answers in labels.values())  # task and answer are a class of the image
    wanted = {
        "embed": {"view", "birads", "finding"},
        "lumiere": {"sequence", "size"},
        "ms_cxr_t": {"finding", *FINDINGS},
    }[source]
    assert {r["task"] for r in single} == {f"pretrain_{source}_{a}" for a in wanted}
    assert not any(f == "" for r in rows for f in r["findings"])


def test_text_only_questions_state_what_decides(asked: dict[str, list[Row]]) -> None:
    grades = ("mild", "moderate", "severe")
    rows = of(asked["ms_cxr_t"], set="text")
    for r in rows:
        before, after = (next(grades.index(g) for g in grades if f"Image {n}: {g}" in r["question"]) for n in (1, 2))
        change = "stable" if before == after else "worsening" if after > before else "improving"
        assert r["answer"] in (change, {"stable": "unchanged", "worsening": "worse", "improving": "improved"}[change])


def test_shared_and_unknown_images_are_not_asked_about() -> None:
    tables = make_source_tables("ms_cxr_t", 20)
    lost = str(tables.images[0]["image_id"])
    shared = tables.images[2] | {"patient_id": "ms_cxr_t/other", "study_id": "ms_cxr_t/other"}
    tables.images = [*tables.images[1:], shared]
    shown = {i for r in tables.generate_questions() for i in r["image_ids"]}
    assert shown
    assert lost not in shown
    assert shared["image_id"] not in shown


def test_places_and_level() -> None:
    assert Counter(assign_places([0.1] * 7, 3)) == {0: 3, 1: 2, 2: 2}
    assert assign_places([0.0, 0.4, 0.9], 3) == [0, 1, 2]
    assert find_cap([100, 10], 0.6) == 15
    assert find_cap([5, 5, 5], 1 / 3) == 5
    assert find_cap([], 1.0) == 0


def test_questions_of_a_set_that_is_not_declared_are_refused_by_name() -> None:
    sets = {"train": ["comparison"], "benchmark": ["comparison"]}
    assert make_source_tables("ms_cxr_t", 20).generate_questions(sets=sets)
    with pytest.raises(UserError, match=r"source ms_cxr_t: task ms_cxr_t_\w+ makes questions of benchmark\.comparison, which .*"):
        make_source_tables("ms_cxr_t", 20).generate_questions(sets={"benchmark": ["temporal"]})
    with pytest.raises(UserError, match=r"the set rad is supplied by vqa_rad\): name another set in the task's template"):
        check_declared_sets("toy", [{"split": "benchmark", "set": "rad", "task": "t"}], sets)
    with pytest.raises(UserError, match=r"no source declares toys"):
        check_declared_sets("toy", [{"split": "train", "set": "toys", "task": "t"}], sets)
