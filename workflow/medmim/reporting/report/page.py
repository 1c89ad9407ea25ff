"""The page: everything read from the run's tables, put into report.html.j2."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from medmim.benchmarks.quality.faults import FAULTS
from medmim.models.families import registry as families
from medmim.questions.prompt import IMAGE, LETTERS, prompt_text
from medmim.reporting import palette
from medmim.reporting.report import plots
from medmim.reporting.report.board import SUMS, Board, Cell, Model, label, ordered, read_paper
from medmim.reporting.report.contents import composition, examples, sources
from medmim.tables import table_io
from medmim.tables.images import ImageStore

TEMPLATE = Path(__file__).with_name("report.html.j2")
SHOWN_SIDE = 320
"""Examples' images are shown at most so large: larger ones are scaled down, as JPEG."""
REPLY_LIMIT = 1000
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
METRICS = {
    "accuracy": "accuracy",
    "loglikelihood_accuracy": "log-likelihood accuracy",
    "text_loglikelihood_accuracy": "text log-likelihood accuracy",
    "circular_accuracy": "circular accuracy",
    "exact_match": "exact match",
    "token_recall": "token recall",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
}
DIFFERENCES = {"base": f"tuned {plots.MINUS} base", "blind": f"images {plots.MINUS} blind"}
SHOWN_WHOLE = ("plain", "blind")
"""Conditions with lines of their own in the leaderboard; the others stand in the table of controls."""
CONTROLS = {
    "blind": "without images",
    "other_patient": "another patient’s images",
    "reordered": "images in another order",
    "rotated": "options moved on",
}
AUDIT = {
    "records": "records",
    "closed": "closed",
    "open": "open",
    "patients": "patients",
    "largest_patient": "largest patient’s share",
    "same_images_in_train": "same image tuple in train",
    "shares_image_with_train": "share an image with train",
    "shares_patient_with_train": "share a patient with train",
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
}
SHARES = ("chance", "majority", "constant", "text_only", "text_only_within")


@dataclass(frozen=True)
class Files:
    """Where the report's content lies; what is None or empty is left out of the page."""

    leaderboard: Path
    comparisons: Path
    answers: Sequence[Path]
    predictions: Sequence[Path]
    train: Path
    benchmark: Path
    images: Sequence[Path]
    loss: Sequence[Path]
    benchmark_audit: Path | None
    paper: Path | None


def percent(value: float, digits: int = 1) -> str:
    """0.7125 -> 71.3, with no sign and no unit."""
    return f"{value * 100:.{digits}f}".replace("-", plots.MINUS)


def interval(cell: Cell) -> str:
    """65.0–77.1 in percent; empty where there is none."""
    return "" if cell.low is None or cell.high is None else f"{percent(cell.low)}–{percent(cell.high)}"


def points(value: float) -> str:
    """+21.5 in percentage points."""
    return plots.points(value, 1)


def point_interval(cell: Cell) -> str:
    """+15.0 to +28.1 in percentage points; empty where there is none."""
    return "" if cell.low is None or cell.high is None else f"{points(cell.low)} to {points(cell.high)}"


def printable(value: Any) -> Any:
    """Text fit for a page: control characters, those of writing direction too, shown as �. Other values as they are."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return CONTROL.sub("\ufffd", value)


def shortened(text: str, limit: int = REPLY_LIMIT) -> str:
    """Text cut where it is very long, saying so."""
    return text if len(text) <= limit else text[:limit] + f" … [{len(text) - limit} more characters]"


def size(count: int) -> str:
    """Bytes for people: 1.2 MB."""
    power = min(4, (len(str(count)) - 1) // 3)
    value = count / 1000**power
    return f"{value:.{1 if power and value < 100 else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def rows(board: Board, base: str, tuned: str) -> list[plots.Row]:
    """Rows of the main figure for one pair: each sum above its sets."""
    found = []
    for sum_, sets in board.groups("accuracy"):
        for name in sets:
            row = plots.Row(
                set=name,
                head=name == sum_,
                base=board.get(base, name, "accuracy"),
                tuned=board.get(tuned, name, "accuracy"),
                blind=board.get(tuned, name, "accuracy", condition="blind"),
                chance=board.get("chance", name, "accuracy"),
                majority=board.get("majority", name, "accuracy"),
                gain=board.get(tuned, name, "accuracy_minus_base"),
                sight=board.get(tuned, name, "accuracy_minus_blind"),
            )
            if row.base or row.tuned:
                found.append(row)
    return found


def _pairs(models: Sequence[Model]) -> list[tuple[str, str]]:
    return [(str(m.base), m.name) for m in models if m.role == "tuned"]


def _headlines(board: Board, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """What the run shows of each pair, on the two sums."""
    found = []
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
        found.append({"base": base, "tuned": tuned, "sums": [s for s in sums if s["tuned"] and s["base"]]})
    return found


def _score_table(board: Board, models: Sequence[Model], metric: str, sum_: str, sets: Sequence[str]) -> dict[str, Any]:
    """Rows of one leaderboard table: scores by condition, then paired differences, then baselines."""
    rates = [m for m in board.metrics("closed") if m.endswith("_rate")] if metric == "accuracy" else []
    lines: list[dict[str, Any]] = []
    for model in models:
        for condition in SHOWN_WHOLE:
            cells = {s: board.get(model.name, s, metric, condition=condition) for s in sets}
            unread = {
                s: sum(c.value for r in rates if (c := board.get(model.name, s, r, condition=condition)) is not None)
                for s in sets
            }
            if any(cells.values()):
                lines.append({"kind": "score", "model": model, "condition": condition, "cells": cells, "unread": unread})
            clean = {s: board.get(model.name, s, metric, condition=condition, part="clean") for s in sets}
            known = any(c and (d := clean[s]) and d.n < c.n for s, c in cells.items())  # else the two lines are the same
            if condition == "plain" and known and model.role != "baseline":
                lines.append({"kind": "clean", "model": model, "cells": clean})
        for other, words in DIFFERENCES.items() if model.role != "base" else ():
            cells = {s: board.get(model.name, s, f"{metric}_minus_{other}") for s in sets}
            if any(cells.values()):
                lines.append({"kind": "difference", "model": model, "words": words, "cells": cells})
    counts = {}
    for s in sets:
        found = {(c.n, c.patients) for line in lines if line["kind"] != "clean" and (c := line["cells"][s])}
        counts[s] = found.pop() if len(found) == 1 else None  # None: said in each cell
    rates = rates if sum_ in sets else []  # they are of the sum
    return {"metric": metric, "sum": sum_, "sets": sets, "lines": lines, "counts": counts, "rates": rates}


def _controls(board: Board, models: Sequence[Model]) -> dict[str, Any]:
    """Accuracy as asked, under each control with what it costs, and circular, on each sum and further set."""
    groups = [s for sum_, sets in board.groups("accuracy") for s in ([sum_] if sum_ in sets else sets)]
    conditions = [c for c in CONTROLS if c in board.conditions()]
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
    return {"conditions": [CONTROLS[c] for c in conditions], "circular": "rotated" in conditions, "blocks": blocks}


def _recall(board: Board, models: Sequence[Model]) -> dict[str, Any]:
    """Recall by the letter of the gold, on each sum and further set."""
    letters = sorted({m.removeprefix("recall_") for m in board.metrics("closed") if m.startswith("recall_")})
    groups = [s for sum_, sets in board.groups("accuracy") for s in ([sum_] if sum_ in sets else sets)]
    blocks = []
    for s in groups:
        lines = [(m, [board.get(m.name, s, f"recall_{letter}") for letter in letters]) for m in models if m.role != "baseline"]
        blocks.append({"set": s, "lines": [(m, cells) for m, cells in lines if any(cells)]})
    return {"letters": letters, "blocks": [b for b in blocks if b["lines"]]}


def _comparisons(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of models by set, on all questions, those of a tuned model and its base first."""
    blocks = []
    for s in ordered(row["set"] for row in rows):
        own = [row for row in rows if (row["set"], row["part"]) == (s, "all")]
        lines = [
            (row, Cell(row["value"], row["ci_low"], row["ci_high"], row["n"], row["n_patients"]))
            for row in sorted(own, key=lambda row: (row["relation"] != "base", row["model"], row["other"]))
        ]
        blocks.append({"set": s, "lines": lines, "exact": any(row["p_mcnemar"] is not None for row in own)})
    return [block for block in blocks if block["lines"]]


def p_value(p: float | None) -> str:
    """p for people."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _open_table(board: Board, models: Sequence[Model], ranked: int) -> dict[str, Any]:
    """Open-ended scores with images, a block per set: each model's scores, then what tuning gained."""
    known = list(METRICS)  # in the order of the table
    metrics = [m for m in board.metrics("open") if "_minus_" not in m and not m.endswith("_rate")]
    metrics.sort(key=lambda m: (known.index(m) if m in known else len(known), m))
    blocks = []
    for s in [s for _, group in (board.groups(metrics[0], "open") if metrics else []) for s in group]:
        lines: list[dict[str, Any]] = []
        for model in models:
            for suffix, words in (("", ""), ("_minus_base", DIFFERENCES["base"])):
                cells = [board.get(model.name, s, m + suffix, "open") for m in metrics]
                if any(cells):
                    lines.append({"model": model, "words": words, "cells": cells})
        counts = [c for line in lines for c in line["cells"] if c]
        n, patients = max((c.n for c in counts), default=0), max((c.patients for c in counts), default=0)
        blocks.append({"set": s, "n": n, "patients": patients, "ranked": n >= ranked, "lines": lines})
    return {"metrics": metrics, "blocks": blocks}


def _paper(board: Board, models: Sequence[Model], figures: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    sets = [s for _, group in board.groups("accuracy") for s in group]
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


def shown(store: ImageStore, reference: str) -> dict[str, Any]:
    """One image of an example as a data URI with what is known of it; without one where the run does not have it."""
    if reference not in store:
        return {"uri": None, "reference": reference, "about": ""}
    row = store.row(reference)
    png, kind = store.png(reference), "png"
    if max(row["width"], row["height"]) > SHOWN_SIDE:
        image = store.image(reference)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=88)
        png, kind = jpeg.getvalue(), "jpeg"
    day = "" if row["day"] is None else f"day {row['day']}"
    about = [row["modality"], row["view"] if row["view"] != row["modality"] else "", row["laterality"], day]
    return {
        "uri": f"data:image/{kind};base64,{base64.b64encode(png).decode()}",
        "reference": reference,
        "about": " · ".join(a for a in about if a),
    }


def _losses(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """A figure per stage; a model's name is its file's, up to .loss.parquet."""
    history = {p.name.removesuffix(".parquet").removesuffix(".loss"): table_io.frame(p, "loss") for p in paths}
    colours = {m: plots.SERIES[i % len(plots.SERIES)] for i, m in enumerate(history)}
    stages = dict.fromkeys(str(s) for frame in history.values() for s in frame["stage"])
    known = ["vision", "language", "tune"]
    figures = []
    for stage in sorted(stages, key=lambda s: (known.index(s) if s in known else len(known), s)):
        curves = {m: part for m, frame in history.items() if len(part := frame[frame["stage"] == stage])}
        last = [
            {"model": m, "steps": int(c["step"].iloc[-1]), "tokens": int(c["tokens"].iloc[-1]), "loss": float(c["loss"].iloc[-1])}
            for m, c in curves.items()
        ]
        figures.append({"stage": stage, "svg": plots.losses(stage, curves, colours), "last": last})
    return figures


def _recipes(config: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each model is, and the prompt it is given, written out for a question with two images and two options."""
    found = []
    for name, model in config.items():
        prompt = None
        if model.get("family") in families.FAMILIES:
            text = prompt_text(f"{IMAGE}{IMAGE}QUESTION", ["OPTION", "OPTION"])
            prompt = families.family(model["family"]).prompt(text, model.get("system") or "")
        found.append({"name": name, "prompt": prompt, **model})
    return found


def read_audit(path: Path) -> dict[str, Any]:
    """The benchmark audit's values as table rows: a row per check, a column per file. Raises TableError."""
    try:
        found = json.loads(path.read_text())
        keys = list(dict.fromkeys(k for values in found.values() for k in values))
    except (ValueError, AttributeError, TypeError) as error:
        raise table_io.TableError(f"{path}: not the JSON of a benchmark audit: {error}") from error
    order = [k for k in AUDIT if k in keys] + [k for k in keys if k not in AUDIT]
    names = ordered(found)
    return {"files": names, "lines": [{"key": k, "cells": [found[name].get(k) for name in names]} for k in order]}


def environment() -> jinja2.Template:
    """The template with everything escaped and every name that it uses required to exist."""
    env = jinja2.Environment(
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {
        "percent": percent,
        "interval": interval,
        "points": points,
        "point_interval": point_interval,
        "shortened": shortened,
        "size": size,
        "filename": lambda path: Path(path).name,
        "label": label,
        "p_value": p_value,
    }
    return env.from_string(TEMPLATE.read_text(encoding="utf-8"))


def render(files: Files, cfg: Mapping[str, Any], inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The whole page. `cfg`: title, examples, synthetic, models {name: settings}, and optionally
    min_open_ranked, resamples, precision, max_new_tokens. `inputs`: path, bytes and sha256 of each file read, by role.

    Raises TableError for a table that is not what it should be.
    """
    config: dict[str, dict[str, Any]] = cfg["models"]
    board = Board(table_io.frame(files.leaderboard, "leaderboard"))
    models = board.models(config)
    pairs = _pairs(models)
    splits = {"train": table_io.frame(files.train, "qa"), "benchmark": table_io.frame(files.benchmark, "qa")}
    made_of = composition(splits)
    store = ImageStore(list(files.images))
    answers = pd.concat([table_io.frame(p, "answers") for p in files.answers], ignore_index=True)
    columns = ["qa_id", "model", "condition", "rotation", "reply"]
    predictions = pd.concat([table_io.frame(p, "predictions", columns) for p in files.predictions], ignore_index=True)
    predictions = predictions[predictions["rotation"] == 0]  # an example shows its options in one order
    figures = [(base, tuned, rows(board, base, tuned)) for base, tuned in pairs]
    closed = [_score_table(board, models, "accuracy", *group) for group in board.groups("accuracy")]
    return environment().render(
        title=cfg["title"],
        synthetic=cfg["synthetic"],
        light=palette.LIGHT,
        dark=palette.DARK,
        headlines=_headlines(board, pairs),
        main=[(f"{base} → {tuned}", plots.comparison(tuned, lines)) for base, tuned, lines in figures],
        forest=[(tuned, plots.differences(tuned, lines)) for _, tuned, lines in figures if any(r.gain or r.sight for r in lines)],
        tables=closed,
        all_clean=all(line["kind"] != "clean" for table in closed for line in table["lines"]),
        likelihood=[
            _score_table(board, models, "loglikelihood_accuracy", *group) for group in board.groups("loglikelihood_accuracy")
        ],
        text_likelihood=[
            _score_table(board, models, "text_loglikelihood_accuracy", *group)
            for group in board.groups("text_loglikelihood_accuracy")
        ],
        controls=_controls(board, models),
        recall=_recall(board, models),
        comparisons=_comparisons(table_io.read(files.comparisons, "comparisons").to_pylist()),
        open=_open_table(board, models, int(cfg.get("min_open_ranked", 100))),
        min_open_ranked=int(cfg.get("min_open_ranked", 100)),
        paper=_paper(board, models, read_paper(files.paper) if files.paper else {}),
        board=board,
        metrics=METRICS,
        made_of=made_of,
        composition=[
            {"split": split, "svg": plots.questions(split, [(c.set, c.closed, c.open) for c in counts])}
            for split, counts in made_of.sets.items()
            if counts
        ],
        images_svg=plots.shares(
            "images", {s: {str(k): v for k, v in c.items()} for s, c in made_of.images.items()}, "images in a question"
        ),
        letters_svg=plots.shares("letters", made_of.letters, "letter of the right option"),
        sources=sources(store.frame()) if files.images else [],
        loss=_losses(files.loss),
        examples=[
            {"item": e, "images": [shown(store, i) for i in e.image_ids]}
            for e in examples(splits["benchmark"], answers, predictions, models, int(cfg["examples"]))
        ],
        roles={m.name: m.role for m in models},
        letters=LETTERS,
        audit=read_audit(files.benchmark_audit) if files.benchmark_audit else None,
        audit_labels=AUDIT,
        audit_faults=FAULTS,
        audit_shares=SHARES,
        recipes=_recipes(config),
        precision=cfg.get("precision"),
        max_new_tokens=cfg.get("max_new_tokens"),
        resamples=cfg.get("resamples"),
        inputs=inputs,
    )


def picture(files: Files, cfg: Mapping[str, Any]) -> bytes:
    """PNG of the main figure, for a README."""
    board = Board(table_io.frame(files.leaderboard, "leaderboard"))
    panels = [(f"{base} → {tuned}", rows(board, base, tuned)) for base, tuned in _pairs(board.models(cfg["models"]))]
    if not panels:
        raise table_io.TableError("no tuned model and its base are both in the leaderboard: there is nothing to picture")
    note = "Points: accuracy on closed questions with 95 % intervals (bootstrap over patients)."
    if cfg["synthetic"]:
        note += " Synthetic phantoms and tiny models: says nothing about real performance."
    return plots.picture(panels, cfg["title"], note)
