"""The page: everything read from the run's tables, put into report.html.j2."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from medmim.benchmarks.quality.faults import FAULTS, NEAR_COPY
from medmim.common.formatting import MINUS, format_bytes, format_percent
from medmim.models.families import registry as families
from medmim.questions.copies import count_source_pairs
from medmim.questions.prompt import IMAGE_PLACEHOLDER, LETTERS, prompt_text
from medmim.questions.sets import SUMS
from medmim.reporting import palette
from medmim.reporting.report import plots
from medmim.reporting.report.audits import read_compared_audits
from medmim.reporting.report.board import Cell, Leaderboard, ScoredModel, read_paper_scores, sort_sets
from medmim.reporting.report.contents import build_examples, count_composition, count_findings, count_sources
from medmim.reporting.report.headlines import format_difference, format_point_interval
from medmim.scoring.items import METRIC_LABELS
from medmim.tables import table_io
from medmim.tables.images import ImageStore
from medmim.tables.rejections import count_reasons

TEMPLATE = Path(__file__).with_name("report.html.j2")
MAX_IMAGE_SIDE_PIXELS = 320
"""Examples' images are shown at most so large: larger ones are scaled down, as JPEG."""
MAX_TEXT_CHARACTERS = 1000
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
DIFFERENCE_LABELS = {"base": f"tuned {MINUS} base", "blind": f"images {MINUS} blind"}
LEADERBOARD_CONDITIONS = ("plain", "blind")
"""Conditions with lines of their own in the leaderboard; the others stand in the table of controls."""
CONTROL_LABELS = {
    "blind": "without images",
    "other_patient": "another patient’s images",
    "reordered": "images in another order",
    "rotated": "options moved on",
}
AUDIT_LABELS = {
    "records": "records",
    "closed": "closed",
    "open": "open",
    "patients": "patients",
    "largest_patient": "largest patient’s share",
    "same_images_in_train": "same image tuple in train",
    "shares_image_with_train": "share an image with train",
    "shares_patient_with_train": "share a patient with train",
    NEAR_COPY: "share a near copy with train",
    "duplicate_ids": "duplicate ids",
    "duplicate_records": "duplicate records",
    "duplicate_options": "duplicate option texts",
    "gold_not_in_options": "gold not among the options",
    "placeholder_mismatch": "placeholders do not match the images",
    "letters": "gold letters",
    "chance": "chance",
    "majority": "majority letter",
    "constant": "best answer that never changes",
    "text_only": "classifier of the text alone, taught by train",
    "text_only_within": "the same, taught by the rest of the set",
    "metadata_only_within": "classifier of number, size and brightness of the images, taught by the rest of the set",
}
AUDIT_SHARES = ("chance", "majority", "constant", "text_only", "text_only_within", "metadata_only_within")


@dataclass(frozen=True)
class ReportFiles:
    """Where the report's content lies; what is None or empty is left out of the page."""

    leaderboard: Path
    comparisons: Path
    answers: Sequence[Path]
    predictions: Sequence[Path]
    train: Path
    benchmark: Path
    images: Sequence[Path]
    findings: Sequence[Path]
    rejected: Sequence[Path]
    left_out: Sequence[Path]
    copies: Path | None
    loss: Sequence[Path]
    benchmark_audit: Path | None
    paper: Path | None
    statistics: Path | None = None


format_share = partial(format_percent, unit="")
"""0.7125 becomes 71.3: the page's tables name the unit."""


def format_interval(cell: Cell) -> str:
    """65.0–77.1 in percent; empty where there is none."""
    return "" if cell.low is None or cell.high is None else f"{format_share(cell.low)}–{format_share(cell.high)}"


def replace_control_characters(value: Any) -> Any:
    """Text fit for a page: control characters, those of writing direction too, shown as �. Other values as they are."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return CONTROL_CHARACTERS.sub("\ufffd", value)


def truncate_text(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Text cut where it is very long, saying so."""
    return text if len(text) <= limit else text[:limit] + f" … [{len(text) - limit} more characters]"


def build_figure_rows(board: Leaderboard, base: str, tuned: str) -> list[plots.FigureRow]:
    """Rows of the main figure for one pair: each sum above its sets."""
    figure_rows = []
    for sum_, sets in board.sets_by_sum("accuracy"):
        for name in sets:
            row = plots.FigureRow(
                label=board.get_set_label(name),
                is_sum=name == sum_,
                base=board.get(base, name, "accuracy"),
                tuned=board.get(tuned, name, "accuracy"),
                blind=board.get(tuned, name, "accuracy", condition="blind"),
                chance=board.get("chance", name, "accuracy"),
                majority=board.get("majority", name, "accuracy"),
                gain=board.get(tuned, name, "accuracy_minus_base"),
                sight=board.get(tuned, name, "accuracy_minus_blind"),
            )
            if row.base or row.tuned:
                figure_rows.append(row)
    return figure_rows


def _find_model_pairs(models: Sequence[ScoredModel]) -> list[tuple[str, str]]:
    return [(str(m.base), m.name) for m in models if m.role == "tuned"]


def _build_headlines(board: Leaderboard, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """What the run shows of each pair, on the two sums."""
    headlines = []
    for base, tuned in pairs:
        sums = [
            {
                "set": s,
                "base": board.get(base, s, "accuracy"),
                "tuned": board.get(tuned, s, "accuracy"),
                "blind": board.get(tuned, s, "accuracy", condition="blind"),
                "gain": board.get(tuned, s, "accuracy_minus_base"),
                "sight": board.get(tuned, s, "accuracy_minus_blind"),
            }
            for s in SUMS
        ]
        headlines.append({"base": base, "tuned": tuned, "sums": [s for s in sums if s["tuned"] and s["base"]]})
    return headlines


def _build_score_lines(
    board: Leaderboard, model: ScoredModel, metric: str, sets: Sequence[str], rates: Sequence[str]
) -> list[dict[str, Any]]:
    """A model's lines of a leaderboard table: its score under each condition, and on the clean questions."""
    lines: list[dict[str, Any]] = []
    for condition in LEADERBOARD_CONDITIONS:
        cells = {s: board.get(model.name, s, metric, condition=condition) for s in sets}
        unread_shares = {
            s: sum(c.value for r in rates if (c := board.get(model.name, s, r, condition=condition)) is not None) for s in sets
        }
        if any(cells.values()):
            lines.append({"kind": "score", "model": model, "condition": condition, "cells": cells, "unread": unread_shares})
    if model.role != "baseline":
        plain = {s: board.get(model.name, s, metric) for s in sets}
        clean = {s: board.get(model.name, s, metric, part="clean") for s in sets}
        if any(c and (d := clean[s]) and d.n < c.n for s, c in plain.items()):  # else the two lines are the same
            place = sum(line["condition"] == "plain" for line in lines)
            lines.insert(place, {"kind": "clean", "model": model, "cells": clean})
    return lines


def _build_difference_lines(board: Leaderboard, model: ScoredModel, metric: str, sets: Sequence[str]) -> list[dict[str, Any]]:
    """A model's lines of paired differences."""
    lines: list[dict[str, Any]] = []
    for other, difference_label in DIFFERENCE_LABELS.items():
        cells = {s: board.get(model.name, s, f"{metric}_minus_{other}") for s in sets}
        if any(cells.values()):
            lines.append({"kind": "difference", "model": model, "words": difference_label, "cells": cells})
    return lines


def _build_score_table(
    board: Leaderboard, models: Sequence[ScoredModel], metric: str, sum_: str, sets: Sequence[str]
) -> dict[str, Any]:
    """Rows of one leaderboard table: scores by condition, then paired differences, then baselines."""
    rates = [m for m in board.list_metrics("closed") if m.endswith("_rate")] if metric == "accuracy" else []
    lines: list[dict[str, Any]] = []
    for model in models:
        lines += _build_score_lines(board, model, metric, sets, rates)
        if model.role != "base":
            lines += _build_difference_lines(board, model, metric, sets)
    counts = {}
    for s in sets:
        distinct_counts = {(c.n, c.patients) for line in lines if line["kind"] != "clean" and (c := line["cells"][s])}
        counts[s] = distinct_counts.pop() if len(distinct_counts) == 1 else None  # None: said in each cell
    rates = rates if sum_ in sets else []  # they are of the sum
    return {"metric": metric, "sum": sum_, "sets": sets, "lines": lines, "counts": counts, "rates": rates}


def _build_control_table(board: Leaderboard, models: Sequence[ScoredModel]) -> dict[str, Any]:
    """Accuracy as asked, under each control with what it costs, and circular, on each sum and further set."""
    groups = [s for sum_, sets in board.sets_by_sum("accuracy") for s in ([sum_] if sum_ in sets else sets)]
    conditions = [c for c in CONTROL_LABELS if c in board.list_conditions()]
    blocks = []
    for s in groups:
        lines = [
            {
                "model": m,
                "plain": board.get(m.name, s, "accuracy"),
                "controls": [
                    (board.get(m.name, s, "accuracy", condition=c), board.get(m.name, s, f"accuracy_minus_{c}"))
                    for c in conditions
                ],
                "circular": board.get(m.name, s, "circular_accuracy", condition="rotated"),
            }
            for m in models
            if m.role != "baseline" and board.get(m.name, s, "accuracy")
        ]
        blocks.append({"set": s, "lines": lines})
    return {"conditions": [CONTROL_LABELS[c] for c in conditions], "circular": "rotated" in conditions, "blocks": blocks}


def _build_recall_table(board: Leaderboard, models: Sequence[ScoredModel]) -> dict[str, Any]:
    """Recall by the letter of the gold, on each sum and further set."""
    letters = sorted({m.removeprefix("recall_") for m in board.list_metrics("closed") if m.startswith("recall_")})
    groups = [s for sum_, sets in board.sets_by_sum("accuracy") for s in ([sum_] if sum_ in sets else sets)]
    blocks = []
    for s in groups:
        lines = [(m, [board.get(m.name, s, f"recall_{letter}") for letter in letters]) for m in models if m.role != "baseline"]
        blocks.append({"set": s, "lines": [(m, cells) for m, cells in lines if any(cells)]})
    return {"letters": letters, "blocks": [b for b in blocks if b["lines"]]}


def _build_comparison_blocks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of models by set, on all questions, those of a tuned model and its base first."""
    blocks = []
    for s in sort_sets(row["set"] for row in rows):
        set_rows = [row for row in rows if (row["set"], row["part"]) == (s, "all")]
        lines = [
            (row, Cell(row["value"], row["ci_low"], row["ci_high"], row["n"], row["n_patients"]))
            for row in sorted(set_rows, key=lambda row: (row["relation"] != "base", row["model"], row["other"]))
        ]
        blocks.append({"set": s, "lines": lines, "exact": any(row["p_mcnemar"] is not None for row in set_rows)})
    return [block for block in blocks if block["lines"]]


def format_p_value(p: float | None) -> str:
    """p for people."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _build_open_table(board: Leaderboard, models: Sequence[ScoredModel], min_ranked: int) -> dict[str, Any]:
    """Open-ended scores with images, a block per set: each model's scores, then what tuning gained."""
    metric_order = list(METRIC_LABELS)  # in the order of the table
    metrics = [m for m in board.list_metrics("open") if "_minus_" not in m and not m.endswith("_rate")]
    metrics.sort(key=lambda m: (metric_order.index(m) if m in metric_order else len(metric_order), m))
    blocks = []
    for s in [s for _, group in (board.sets_by_sum(metrics[0], "open") if metrics else []) for s in group]:
        lines: list[dict[str, Any]] = []
        for model in models:
            for suffix, difference_label in (("", ""), ("_minus_base", DIFFERENCE_LABELS["base"])):
                cells = [board.get(model.name, s, m + suffix, "open") for m in metrics]
                if any(cells):
                    lines.append({"model": model, "words": difference_label, "cells": cells})
        counts = [c for line in lines for c in line["cells"] if c]
        n, patients = max((c.n for c in counts), default=0), max((c.patients for c in counts), default=0)
        blocks.append({"set": s, "n": n, "patients": patients, "ranked": n >= min_ranked, "lines": lines})
    return {"metrics": metrics, "blocks": blocks}


def _build_paper_table(
    board: Leaderboard, models: Sequence[ScoredModel], figures: Mapping[tuple[str, str], float]
) -> dict[str, Any]:
    sets = [s for _, group in board.sets_by_sum("accuracy") for s in group]
    names = dict.fromkeys([*(m.name for m in models if m.role != "baseline"), *(m for m, _ in figures)])
    lines = [
        {
            "model": name,
            "ours": [board.get(name, s, "accuracy") for s in sets],
            "paper": [figures.get((name, s)) for s in sets],
        }
        for name in names
    ]
    return {"sets": sets, "lines": lines, "given": bool(figures)}


def encode_example_image(store: ImageStore, reference: str) -> dict[str, Any]:
    """One image of an example as a data URI with what is known of it; without one where the run does not have it."""
    if reference not in store:
        return {"uri": None, "reference": reference, "about": ""}
    row = store.read_row(reference)
    png, kind = store.read_png(reference), "png"
    if max(row["width"], row["height"]) > MAX_IMAGE_SIDE_PIXELS:
        image = store.read_image(reference)
        image.thumbnail((MAX_IMAGE_SIDE_PIXELS, MAX_IMAGE_SIDE_PIXELS), Image.Resampling.LANCZOS)
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=88)
        png, kind = jpeg.getvalue(), "jpeg"
    day = "" if row["day"] is None else f"day {row['day']}"
    caption_parts = [row["modality"], row["view"] if row["view"] != row["modality"] else "", row["laterality"], day]
    return {
        "uri": f"data:image/{kind};base64,{base64.b64encode(png).decode()}",
        "reference": reference,
        "about": " · ".join(a for a in caption_parts if a),
    }


def _build_loss_figures(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """A figure per stage; a model's name is its file's, up to .loss.parquet."""
    history = {p.name.removesuffix(".parquet").removesuffix(".loss"): table_io.read_frame(p, "loss") for p in paths}
    colours = {m: plots.SERIES_COLOURS[i % len(plots.SERIES_COLOURS)] for i, m in enumerate(history)}
    stages = dict.fromkeys(str(s) for frame in history.values() for s in frame["stage"])
    stage_order = ["vision", "language", "tune"]
    figures = []
    for stage in sorted(stages, key=lambda s: (stage_order.index(s) if s in stage_order else len(stage_order), s)):
        curves = {m: part for m, frame in history.items() if len(part := frame[frame["stage"] == stage])}
        last = [
            {"model": m, "steps": int(c["step"].iloc[-1]), "tokens": int(c["tokens"].iloc[-1]), "loss": float(c["loss"].iloc[-1])}
            for m, c in curves.items()
        ]
        figures.append({"stage": stage, "svg": plots.plot_losses(stage, curves, colours), "last": last})
    return figures


def _build_recipes(config: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each model is, and the prompt it is given, written out for a question with two images and two options."""
    recipes = []
    for name, model in config.items():
        prompt = None
        if model.get("family") in families.FAMILIES:
            text = prompt_text(f"{IMAGE_PLACEHOLDER}{IMAGE_PLACEHOLDER}QUESTION", ["OPTION", "OPTION"])
            prompt = families.get_family(model["family"]).format_prompt(text, model.get("system") or "")
        recipes.append({"name": name, "prompt": prompt, **model})
    return recipes


def read_benchmark_audit(path: Path) -> dict[str, Any]:
    """The benchmark audit's values as table rows: a row per check, a column per file. Raises TableError."""
    try:
        checks_by_set = json.loads(path.read_text(encoding="utf-8"))
        keys = list(dict.fromkeys(k for values in checks_by_set.values() for k in values))
    except (ValueError, AttributeError, TypeError) as error:
        raise table_io.TableError(f"{path}: not the JSON of a benchmark audit: {error}") from error
    order = [k for k in AUDIT_LABELS if k in keys] + [k for k in keys if k not in AUDIT_LABELS]
    names = sort_sets(checks_by_set)
    return {"files": names, "lines": [{"key": k, "cells": [checks_by_set[name].get(k) for name in names]} for k in order]}


def load_template(board: Leaderboard) -> jinja2.Template:
    """The template with everything escaped and every name that it uses required to exist."""
    env = jinja2.Environment(
        autoescape=True,
        finalize=replace_control_characters,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {
        "percent": format_share,
        "interval": format_interval,
        "points": format_difference,
        "point_interval": format_point_interval,
        "shortened": truncate_text,
        "size": format_bytes,
        "filename": lambda path: Path(path).name,
        "label": board.get_set_label,
        "p_value": format_p_value,
    }
    return env.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _score_context(
    board: Leaderboard, models: Sequence[ScoredModel], files: ReportFiles, cfg: Mapping[str, Any]
) -> dict[str, Any]:
    """What the template shows of the leaderboard and of the comparisons."""
    pairs = _find_model_pairs(models)
    figures = [(base, tuned, build_figure_rows(board, base, tuned)) for base, tuned in pairs]
    tables = {
        metric: [_build_score_table(board, models, metric, *group) for group in board.sets_by_sum(metric)]
        for metric in ("accuracy", "loglikelihood_accuracy", "text_loglikelihood_accuracy")
    }
    min_open_ranked = int(cfg.get("min_open_ranked", 100))
    return {
        "board": board,
        "headlines": _build_headlines(board, pairs),
        "main": [(f"{base} → {tuned}", plots.plot_comparison(tuned, lines)) for base, tuned, lines in figures],
        "forest": [
            (tuned, plots.plot_differences(tuned, lines)) for _, tuned, lines in figures if any(r.gain or r.sight for r in lines)
        ],
        "tables": tables["accuracy"],
        "all_clean": all(line["kind"] != "clean" for table in tables["accuracy"] for line in table["lines"]),
        "likelihood": tables["loglikelihood_accuracy"],
        "text_likelihood": tables["text_loglikelihood_accuracy"],
        "controls": _build_control_table(board, models),
        "recall": _build_recall_table(board, models),
        "comparisons": _build_comparison_blocks(table_io.read_table(files.comparisons, "comparisons").to_pylist()),
        "open": _build_open_table(board, models, min_open_ranked),
        "min_open_ranked": min_open_ranked,
        "paper": _build_paper_table(board, models, read_paper_scores(files.paper, list(cfg["models"])) if files.paper else {}),
        "roles": {m.name: m.role for m in models},
    }


def _composition_context(board: Leaderboard, splits: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What the template shows of the questions' numbers."""
    composition = count_composition(splits)
    images = {split: {str(n): count for n, count in counts.items()} for split, counts in composition.images.items()}
    bars = {split: [(board.get_set_label(c.set), c.closed, c.open) for c in counts] for split, counts in composition.sets.items()}
    return {
        "made_of": composition,
        "composition": [{"split": s, "svg": plots.plot_question_counts(s, counts)} for s, counts in bars.items() if counts],
        "images_svg": plots.plot_shares("images", images, "images in a question"),
        "letters_svg": plots.plot_shares("letters", composition.letters, "letter of the right option"),
    }


def _example_context(benchmark: pd.DataFrame, models: Sequence[ScoredModel], files: ReportFiles, count: int) -> dict[str, Any]:
    """What the template shows of single questions, and of the images that there are."""
    store = ImageStore(list(files.images))
    answers = pd.concat([table_io.read_frame(p, "answers") for p in files.answers], ignore_index=True)
    columns = ["qa_id", "model", "condition", "rotation", "reply"]
    predictions = pd.concat([table_io.read_frame(p, "predictions", columns) for p in files.predictions], ignore_index=True)
    predictions = predictions[predictions["rotation"] == 0]  # an example shows its options in one order
    return {
        "sources": count_sources(store.to_frame()) if files.images else [],
        "examples": [
            {"item": e, "images": [encode_example_image(store, i) for i in e.image_ids]}
            for e in build_examples(benchmark, answers, predictions, models, count)
        ],
    }


def _source_context(files: ReportFiles, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of the sources beside their images: what they state, what of it is not used, what they share."""
    columns = ["source", "name", "value"]
    findings = [count_findings(table_io.read_frame(p, "findings", columns), cfg["counted_findings"]) for p in files.findings]
    left_out = [row for path in files.left_out for row in table_io.read_table(path, "left_out").to_pylist()]
    rejected = [
        {"source": path.name.removesuffix(".rejected.parquet"), "reason": reason, "count": count}
        for path in files.rejected
        for reason, count in count_reasons(table_io.read_table(path, "rejected").to_pylist())
    ]
    return {
        "findings": [count for counts in findings for count in counts],
        "left_out": left_out,
        "rejected": rejected,
        "source_pairs": count_source_pairs(files.copies) if files.copies else None,
        "disputed_labels": cfg.get("disputed_labels", False),
    }


def render_report(files: ReportFiles, cfg: Mapping[str, Any], inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Render the whole page.

    cfg: title, examples, synthetic, models {name: settings}, counted_findings {source: names}, and optionally min_open_ranked,
    disputed_labels, resamples, precision, max_new_tokens, set_labels {further held-out set: its name for people}. inputs: path,
    bytes and sha256 of each file read, by role. Raises TableError for a table that is not what it should be.
    """
    board = Leaderboard(table_io.read_frame(files.leaderboard, "leaderboard"), cfg.get("set_labels"))
    models = board.list_models(cfg["models"])
    splits = {"train": table_io.read_frame(files.train, "qa"), "benchmark": table_io.read_frame(files.benchmark, "qa")}
    return load_template(board).render(
        title=cfg["title"],
        synthetic=cfg["synthetic"],
        light=palette.LIGHT,
        dark=palette.DARK,
        **_score_context(board, models, files, cfg),
        **_composition_context(board, splits),
        **_source_context(files, cfg),
        **_example_context(splits["benchmark"], models, files, int(cfg["examples"])),
        metrics=METRIC_LABELS,
        loss=_build_loss_figures(files.loss),
        letters=LETTERS,
        audit=read_benchmark_audit(files.benchmark_audit) if files.benchmark_audit else None,
        compared_audits=read_compared_audits(files.statistics) if files.statistics else [],
        audit_labels=AUDIT_LABELS,
        audit_faults=(*FAULTS, NEAR_COPY),
        audit_shares=AUDIT_SHARES,
        recipes=_build_recipes(cfg["models"]),
        precision=cfg.get("precision"),
        max_new_tokens=cfg.get("max_new_tokens"),
        resamples=cfg.get("resamples"),
        inputs=inputs,
    )


def render_summary_picture(files: ReportFiles, cfg: Mapping[str, Any]) -> bytes:
    """PNG of the main figure, for a README."""
    board = Leaderboard(table_io.read_frame(files.leaderboard, "leaderboard"), cfg.get("set_labels"))
    panels = [
        (f"{base} → {tuned}", build_figure_rows(board, base, tuned))
        for base, tuned in _find_model_pairs(board.list_models(cfg["models"]))
    ]
    if not panels:
        raise table_io.TableError("no tuned model and its base are both in the leaderboard: there is nothing to picture")
    note = "Points: accuracy on closed questions with 95 % intervals (bootstrap over patients)."
    if cfg["synthetic"]:
        note += " Synthetic phantoms and tiny models: says nothing about real performance."
    return plots.render_summary_png(panels, cfg["title"], note)
