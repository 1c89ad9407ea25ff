import base64
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_run
from PIL import Image

from medmim.common import files
from medmim.reporting.report import page
from medmim.reporting.report.audits import read_compared_audits
from medmim.tables import images, table_io

REPORT = Path(page.__file__).parents[3] / "scripts" / "report.py"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page taken apart: tags with attributes, text by the id of its section, rows of tables; checks that tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.text: dict[str | None, str] = {}
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "small" and {"td", "th"} & {t for t, _ in self.open}:
            self.rows[-1][-1] += " "  # a line of its own
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> at {self.getpos()} closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if "style" in tags:
            return
        section = next((i for tag, i in self.open if tag == "section"), None)
        self.text[section] = self.text.get(section, "") + data
        if {"td", "th"} & set(tags) and "svg" not in tags:
            self.rows[-1][-1] += data

    @property
    def whole(self) -> str:
        return " ".join(" ".join(self.text.values()).split())


def render(options: dict[str, Any], **cfg: Any) -> str:
    return page.render_report(page.ReportFiles(**options), report_run.CFG | cfg, report_run.describe_inputs(options))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return report_run.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def html(run: dict[str, Any]) -> str:
    return render(run)


def test_every_number_of_the_leaderboard_is_shown_with_interval_and_n(html: str) -> None:
    shown = [tuple(row) for row in Page(html).rows if len(row) == 11 and row[2] in ("closed", "open")]
    expected = table_io.build_table("leaderboard", report_run.make_leaderboard()).to_pylist()
    for row in expected:
        low, high = ("" if row[c] is None else f"{row[c]:.4f}" for c in ("ci_low", "ci_high"))
        names = tuple(row[c] for c in ("model", "set", "kind", "condition", "part", "metric"))
        assert (*names, f"{row['value']:.4f}", low, high, str(row["n"]), str(row["n_patients"])) in shown
    assert len(shown) == len(expected)


def test_the_leaderboard_table_shows_scores_intervals_differences_and_rates(html: str) -> None:
    rows = [[" ".join(cell.split()) for cell in row] for row in Page(html).rows]
    head = next(r for r in rows if r[0] == "Model")
    assert head == [
        "Model",
        *(f"{s} n 12 · 6 pat." for s in ("All held-in", "Temporal", "Reasoning", "Comparison", "Co-reference")),
        "unparsed all held-in",
        "refused all held-in",
    ]
    tuned = rows.index(next(r for r in rows if r[0].startswith("med-mantis") and "tuned" in r[0]))
    assert rows[tuned][1] == "80.7 75.6–85.6 1.2 % not read"
    assert rows[tuned][6:] == ["1.2 0.0–3.0", "0.0 0.0–0.0"]
    assert rows[tuned + 1][:2] == ["clean questions", "78.7 73.6–83.6 n 9 · 5 pat."]
    assert rows[tuned + 2][:2] == ["med-mantis without images", "31.0 25.9–35.9"]
    assert rows[tuned + 3][:2] == ["tuned − base paired, points", "+50.7 +45.6 to +55.6"]
    assert rows[tuned + 4][:2] == ["images − blind paired, points", "+49.7 +44.6 to +54.6"]
    assert ["chance", "33.3", "33.3", "33.3", "33.3", "33.3", "–", "–"] in rows


def test_controls_recall_and_pairs_of_models_are_shown(html: str) -> None:
    rows = [[" ".join(cell.split()) for cell in row] for row in Page(html).rows]
    assert ["Model", "as asked", "without images", "options moved on", "circular"] in rows
    told = next(r for r in rows if r[0] == "med-mantis" and len(r) == 5)
    assert told[1].startswith("80.7 ") and told[2].endswith("+49.7 (+44.6 to +54.6)")
    assert told[3].startswith("28.0 ") and told[3].endswith("+52.7 (+47.6 to +57.6)") and told[4].startswith("11.0 ")
    assert ["mantis", "42.0 36.9–46.9 n 7 · 6 pat."] in rows
    assert ["med-mantis − mantis tuned − base", "+10.0 +2.0 to +18.0", "5", "2", "0.012", "< 0.001", "–", "–"] in rows
    assert ["llava-med − mantis", "+10.0 +2.0 to +18.0", "5", "2", "0.012", "< 0.001", "0.040", "0.080"] in rows


def test_the_headline_tells_the_gain_of_each_pair(html: str) -> None:
    result = " ".join(Page(html).text["result"].split())
    assert "mantis→med-mantis" in result.replace(" ", "")
    assert "+50.7 points on held-in closed questions 95 % interval +45.6 to +55.6, n 12, 6 patients" in result
    assert "+45.7 points on held-in closed questions" in result
    assert "Without the images the tuned model reaches 31.0 %" in result


def test_a_pair_that_gained_nothing_is_not_called_better(run: dict[str, Any], tmp_path: Path) -> None:
    rows = report_run.make_leaderboard()
    for row in rows:
        if row["metric"] in ("accuracy_minus_base", "accuracy_minus_blind"):
            row |= {"value": 0.01, "ci_low": -0.04, "ci_high": 0.05}
    table_io.write_table(tmp_path / "leaderboard.parquet", "leaderboard", rows)
    result = Page(render(run | {"leaderboard": tmp_path / "leaderboard.parquet"})).text["result"]
    assert "no change can be told" in result and "better" not in result
    assert "it is not shown to look at them" in result and ": it looks at them" not in result


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    parsed = Page(html)
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "iframe", "embed", "base")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            if (tag, name, value) == ("object", "data", "costs.html"):
                continue  # lies beside it, and the page is whole without
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert any(tag == "img" for tag, _ in parsed.tags) and any(tag == "svg" for tag, _ in parsed.tags)


def test_what_the_run_cost_is_the_page_beside_or_a_sentence(html: str) -> None:
    parsed = Page(html)
    assert [a["data"] for tag, a in parsed.tags if tag == "object"] == ["costs.html"]
    assert "That page is not here." in parsed.text["cost"]  # shown where it is not
    policy = next(str(a["content"]) for tag, a in parsed.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';") and "object-src 'self' file:" in policy and "script" not in policy


def test_ids_are_unique_and_references_lead_somewhere(html: str) -> None:
    tags = Page(html).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for _, a in tags if str(a.get("href", "")).startswith("#")} <= set(ids)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></bdi></style>{{ 7*7 }}\u202eevil\x00$\\frac$"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = report_run.write_run(tmp_path, replies=dict.fromkeys(report_run.MODELS, HOSTILE))
    for name in ("train", "benchmark"):
        frame = table_io.read_frame(run[name], "qa")
        frame[["question", "task"]] = HOSTILE
        frame["options"] = frame["options"].map(lambda o: [HOSTILE, *o[1:]] if len(o) else o)
        table_io.write_table(run[name], "qa", frame)
    answers = pd.concat([table_io.read_frame(p, "answers") for p in run["answers"]])
    answers["status"] = HOSTILE
    table_io.write_table(run["answers"][0], "answers", answers)
    (tmp_path / "audit.json").write_text(json.dumps({HOSTILE: {"records": 1, HOSTILE: HOSTILE, "letters": {HOSTILE: 1}}}))
    run |= {"answers": run["answers"][:1], "benchmark_audit": tmp_path / "audit.json"}
    config = {name: model | {"system": HOSTILE} for name, model in report_run.MODELS.items()}
    config |= {HOSTILE: {"family": "chat", "hub": HOSTILE}}
    html = render(run, title=HOSTILE, models=config, examples=12)
    parsed = Page(html)
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "x") and not [a for a in attributes if a.startswith("on")]
        assert attributes.get("src") != "x"
    assert parsed.whole.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in parsed.whole
    for section in ("examples", "models", "audit"):
        assert "<script>alert(1)" in parsed.text[section]
    assert "\u202e" not in parsed.text["examples"] and "\x00" not in parsed.text["examples"]


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_is_said_when_it_is_so_and_only_then(run: dict[str, Any], synthetic: bool) -> None:
    whole = Page(render(run, synthetic=synthetic, models={})).whole
    assert ("The phantoms are synthetic" in whole) == synthetic
    assert ("synthetic" in whole.lower()) == synthetic


def test_what_a_run_does_not_have_is_left_out(tmp_path: Path) -> None:
    run = report_run.write_run(tmp_path, has_open_questions=False)
    parsed = Page(render(run | {"loss": [], "benchmark_audit": None, "images": []}))
    assert "This run has no open questions." in parsed.whole
    assert "This run trained no model." in parsed.whole
    assert "audit" not in parsed.text and "#audit" not in [a.get("href") for _, a in parsed.tags]
    assert "image not in this run" in parsed.whole and not [tag for tag, _ in parsed.tags if tag == "img"]


def test_a_run_without_pairs(run: dict[str, Any]) -> None:
    alone = {name: {"family": "chat", "hub": name} for name in report_run.MODELS}
    parsed = Page(render(run, models=alone))
    assert "No tuned model and its base are both in the leaderboard" in parsed.whole
    assert "mim-llava-med" in parsed.text["leaderboard"]
    with pytest.raises(table_io.TableError, match="nothing to picture"):
        page.render_summary_picture(page.ReportFiles(**run), report_run.CFG | {"models": alone})


def test_a_run_without_blind_replies_does_not_speak_of_them(run: dict[str, Any], tmp_path: Path) -> None:
    rows = [r for r in report_run.make_leaderboard() if r["condition"] == "plain" and r["metric"] != "accuracy_minus_blind"]
    table_io.write_table(tmp_path / "leaderboard.parquet", "leaderboard", rows)
    parsed = Page(render(run | {"leaderboard": tmp_path / "leaderboard.parquet"}))
    assert "without" not in " ".join(parsed.text[None].split()) and "Without the images" not in parsed.text["result"]
    assert "images − blind" not in parsed.text["leaderboard"]


def test_small_open_sets_are_marked_not_ranked(html: str) -> None:
    blocks = [row[1] for row in Page(html).rows if len(row) == 2 and row[1].startswith("n ")]
    assert len(blocks) == len(report_run.SETS)
    assert [("not ranked" in b) for b in blocks] == [not b.startswith("n 120 ") for b in blocks]
    assert sum("not ranked" in b for b in blocks) == 5


def test_examples_show_images_gold_replies_and_marks(html: str, run: dict[str, Any]) -> None:
    shown = html[html.index('id="examples"') : html.index('id="audit"')]
    cards = shown.split("<article")[1:]
    assert len(cards) == 3 * len(report_run.SETS)
    first = Page("<article" + cards[0].split("</article>")[0] + "</article>")
    assert "base wrong, tuned right" in first.whole
    qa_id = re.search(r"<code>(\w+)</code>", cards[0])
    assert qa_id
    row = table_io.read_frame(run["benchmark"], "qa").set_index("qa_id").loc[qa_id[1]].to_dict()
    index = int(row["answer_index"])
    assert row["question"].replace("<image>", "") in first.whole and "<image>" not in first.whole
    assert f"{'ABC'[index]}: {row['answer']}gold" in first.whole.replace(" gold", "gold")
    assert sum(tag == "img" for tag, _ in first.tags) == len(row["image_ids"])
    replies = pd.concat([table_io.read_frame(p, "predictions") for p in run["predictions"]]).set_index(
        ["qa_id", "model", "condition"]
    )
    answers = pd.concat([table_io.read_frame(p, "answers") for p in run["answers"]]).set_index(["qa_id", "model", "condition"])
    for model in report_run.MODELS:
        cells = next(r for r in first.rows if r and r[0] == model)
        for cell, condition in zip(cells[1:], ("plain", "blind"), strict=True):
            key = (qa_id[1], model, condition)
            mark = "✓" if answers.loc[[key]].query("metric == 'accuracy'")["value"].iloc[0] else "✗"
            assert " ".join(cell.split()) == f"{mark} {replies.loc[key, 'reply']}"


def test_large_images_are_scaled_down(tmp_path: Path) -> None:
    run = report_run.write_run(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (900, 600), np.uint8)
    rows = report_run.make_image_rows()
    for row in rows:
        row |= {"bytes": images.encode_png(noise)[1], "width": 600, "height": 900}
    table_io.write_table(run["images"][0], "images", rows)
    html = render(run)
    assert "data:image/jpeg;base64," in html and "data:image/png;base64," not in html
    assert len(html) < 3e6
    picture = page.encode_example_image(images.ImageStore(run["images"]), rows[0]["image_id"])
    assert Image.open(io.BytesIO(base64.b64decode(picture["uri"].split(",")[1]))).size == (213, 320)


def test_what_sources_state_and_what_is_not_used_is_counted(html: str, run: dict[str, Any]) -> None:
    text = re.sub(r"<[^>]+>", " ", html[html.index("What sources state, by value") :])
    words = " ".join(text.split())
    assert words.startswith("What sources state, by value; labels on which a source’s experts disagree are no answers Source")
    assert "no answers" not in render(run, disputed_labels=True)
    assert "lumiere label_quality:edema disagreement 1 lumiere rating PD 3, SD 1 Left out" in words  # and no week
    assert "lumiere 1,234 visits without T1" in words
    assert "lumiere 2 row … the value … is no number lumiere 1 no such file" in words


def test_sources_that_share_pictures_are_told(html: str, run: dict[str, Any], tmp_path: Path) -> None:
    assert '<th scope="row">vqa_rad</th><td class="text">pmc</td><td>1</td><td>2</td>' in html
    empty = tmp_path / "copies.parquet"
    table_io.write_table(empty, "copies", [])
    assert "No image of the benchmark is repeated in training" in render(run | {"copies": empty})


def test_patients_in_training_and_benchmark_are_told(tmp_path: Path, html: str) -> None:
    assert "No patient is in both." in Page(html).whole
    run = report_run.write_run(tmp_path)
    frame = table_io.read_frame(run["train"], "qa")
    frame.at[0, "patient_ids"] = [table_io.read_frame(run["benchmark"], "qa")["patient_ids"][0][0]]
    table_io.write_table(run["train"], "qa", frame)
    assert "Patients with questions in both: 1." in Page(render(run)).whole


def test_the_prompt_and_recipe_of_each_model_are_stated(html: str) -> None:
    models = " ".join(Page(html).text["models"].split())
    assert "(image 1: <Image><image></Image>)(image 2: <Image><image></Image>)QUESTION" in models
    assert "[INST] <image> <image> QUESTION A: OPTION B: OPTION [/INST]" in models
    assert "You read images." in models and "revision c0ffee" in models
    assert "rank 16, alpha 32, dropout 0.0" in models and "learning rate 0.003" in models
    assert "epochs" not in models  # unset: not said


def test_what_a_chat_template_is_told_and_what_a_model_may_think_are_stated(run: dict[str, Any]) -> None:
    chat = {"family": "chat", "hub": "owner/chat", "revision": "c0ffee", "system": "", "chat": {}, "thinking": None}
    thinks = chat | {"chat": {"enable_thinking": True, "effort": "low"}, "thinking": {"tokens": 2048, "end": "</think>"}}
    models = report_run.CFG["models"] | {"mantis": thinks, "llava-med": chat}
    said = " ".join(Page(render(run, models=models)).text["models"].split())
    assert 'enable_thinking: true, effort: "low"' in said
    assert "at most 2,048 tokens before the reply, not scored" in said
    assert said.count("chat template’s arguments") == said.count("not scored") == 1


def test_the_papers_figures_come_from_the_users_file_alone(run: dict[str, Any], html: str, tmp_path: Path) -> None:
    assert html.count("not available") == len(report_run.MODELS) * 8
    paper = tmp_path / "paper.csv"
    paper.write_text("model,set,accuracy\nmed-mantis,held_in,61.26\nanother,odir,40\nmantis,rad,\n")
    parsed = Page(render(run | {"paper": paper}))
    values = [[cell.strip() for cell in row] for row in parsed.rows if row[0] == "paper"]
    assert ["paper", "61.3", *["not available"] * 7] in values
    assert ["paper", *["not available"] * 7, "40.0"] in values
    assert sum(row.count("not available") for row in values) == 5 * 8 - 2


def test_the_release_stands_beside_each_set(run: dict[str, Any]) -> None:
    compared = {c.set: c for c in read_compared_audits(run["statistics"])}
    assert next(iter(compared)) == "temporal"
    assert set(compared) == set(report_run.SETS)
    assert compared["temporal"].origins == ("ours", "release")
    lines = {line.label: line.cells for line in compared["temporal"].lines}
    assert lines["questions"] == (16, 10)
    assert lines["share of open questions"] == (0.25, 0.5)
    assert lines["distinct texts of questions"] == (9, 3)
    assert lines["duplicate options"] == (0, 2)
    assert lines["metadata only, taught by the rest of the set"] == (0.25, None)
    assert "gold not in options" not in lines
    published = compared["reasoning"]
    assert published.origins == ("ours", "release, as published")
    assert {line.label: line.cells for line in published.lines}["questions"] == (16, 484)
    assert {line.label: line.cells for line in published.lines}["open"] == (4, 30)
    text = Page(render(run)).text["audit"]
    assert "ours beside release" in text
    assert "7.2" in text
    assert "ours beside" not in Page(render(run | {"statistics": None})).text["audit"]


def test_a_broken_audit_is_refused(tmp_path: Path) -> None:
    for text in ("[1]", "{", '{"a": 1}'):
        (tmp_path / "audit.json").write_text(text)
        with pytest.raises(table_io.TableError, match=r"audit\.json: not the JSON of a benchmark audit"):
            page.read_benchmark_audit(tmp_path / "audit.json")


def test_the_program_writes_the_same_bytes_and_its_provenance(run: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        report, picture = tmp_path / seed / "report.html", tmp_path / seed / "report.png"
        argv = [*report_run.build_argv(run, report, report_run.CFG), "--picture", str(picture)]
        env = os.environ | {"PYTHONHASHSEED": seed, "MPLCONFIGDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, str(REPORT), *argv], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append((report.read_bytes(), picture.read_bytes()))
    assert found[0] == found[1]
    assert found[0][0].decode() == render(run)
    assert found[0][1].startswith(b"\x89PNG")
    record = json.loads((tmp_path / "1" / "report.html.prov.json").read_text())
    assert [i["path"] for i in record["inputs"]["leaderboard"]] == [run["leaderboard"].as_posix()]
    assert {"medmim.reporting.report.page", "medmim.reporting.report.plots", "medmim.models.families.mantis"} <= set(
        record["code"]["modules"]
    )
    assert record["code"]["modules"]["medmim/reporting/report/report.html.j2"] == files.hash_file(page.TEMPLATE)
