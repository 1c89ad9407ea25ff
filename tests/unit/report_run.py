"""A made-up run for the report's tests: six small sets, two pairs of models, every table that the report reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from config_files import config_file
from medmim.common.files import file_record
from medmim.tables import images, table_io

SETS = {
    "temporal": ("temporal", "lumiere_typeC"),
    "reasoning": ("reasoning", "embed_typeD"),
    "comparison": ("comparison", "ms_cxr_t_vqa_edema"),
    "coreference": ("coreference", "embed_typeC"),
    "rad": ("coreference", "vqa_rad"),
    "odir": ("comparison", "odir"),
}
MODELS: dict[str, dict[str, Any]] = {
    "mantis": {"family": "mantis", "tiny": {"image_size": 56}, "system": ""},
    "med-mantis": {
        "family": "mantis",
        "base": "mantis",
        "system": "You read images.",
        "tuning": {
            "lora_rank": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.0,
            "learning_rate": 3e-3,
            "max_steps": 200,
            "epochs": None,
        },
    },
    "llava-med": {"family": "llava-med", "hub": "owner/llava-med", "revision": "c0ffee"},
    "mim-llava-med": {
        "family": "llava-med",
        "base": "llava-med",
        "tuning": {"lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.1},
    },
}
ACCURACIES = {"mantis": 0.3, "med-mantis": 0.8, "llava-med": 0.25, "mim-llava-med": 0.7}
# As a program reads it: the file that holds it has its keys sorted.
CFG: dict[str, Any] = json.loads(
    json.dumps(
        {
            "title": "A made-up run", "examples": 3, "synthetic": True, "models": MODELS, "resamples": 1000,
            "counted_findings": {"lumiere": ["rating", "label_quality"], "embed": ["week"]},
        },
        sort_keys=True,
    )
)  # fmt: skip


def make_question(set_: str, number: int, kind: str, split: str) -> dict[str, Any]:
    ability, task = SETS[set_]
    options = ["improving", "stable", "worsening"] if kind == "closed" else []
    index = number % 3
    patient = f"{task.split('_')[0]}/{split}{number // 2}"
    return {
        "qa_id": f"{split[0]}{set_[:3]}{kind[0]}{number:03d}",
        "split": split,
        "ability": ability,
        "set": set_,
        "kind": kind,
        "task": task,
        "question": f"<image><image>What of the {set_} pair number {number}?",
        "options": options,
        "answer": options[index] if options else "a larger lesion",
        "answer_index": index if options else None,
        "image_ids": [IDS[number % 4], IDS[(number + 1) % 4]],
        "patient_ids": [patient],
        "source": task.split("_")[0],
        "generator": "templates/1",
        "findings": [],
    }


def _make_pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (24, 20), np.uint8)


ENCODED = [images.encode_png(_make_pixels(n)) for n in range(4)]
IDS = [image_id for image_id, _ in ENCODED]


def make_image_rows() -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "source": "lumiere",
            "patient_id": f"lumiere/{n}",
            "study_id": f"lumiere/{n}",
            "day": 7 * n,
            "view": "T1",
            "laterality": "",
            "modality": "MRI",
            "width": 20,
            "height": 24,
            "bytes": png,
            "thumbnail": bytes(4096),
            "release_path": "",
            "origin_file": f"{n}.nii.gz",
            "origin_sha256": "0" * 64,
        }
        for n, (image_id, png) in enumerate(ENCODED)
    ]


def make_cell(model: str, set_: str, metric: str, value: float, **other: Any) -> dict[str, Any]:
    row = {"model": model, "set": set_, "kind": "closed", "condition": "plain", "metric": metric, "value": value}
    row |= {"ability": set_ if set_ in ("temporal", "reasoning", "comparison", "coreference", "held_in") else "held_out"}
    return row | {"part": "all", "ci_low": value - 0.051, "ci_high": value + 0.049, "n": 12, "n_patients": 6} | other


def make_leaderboard(*, has_open_questions: bool = True) -> list[dict[str, Any]]:
    rows = []
    for s in [*SETS, "held_in", "held_out"]:
        for model, settings in MODELS.items():
            value = ACCURACIES[model] + 0.001 * len(s)
            rows += [
                make_cell(model, s, "accuracy", value),
                make_cell(model, s, "accuracy", 0.31, condition="blind"),
                make_cell(model, s, "unparsed_rate", 0.0125, ci_low=0.0, ci_high=0.03),
                make_cell(model, s, "refused_rate", 0.0, ci_low=0.0, ci_high=0.0),
                make_cell(model, s, "accuracy_minus_blind", value - 0.31),
            ]
            rows += [
                make_cell(model, s, "accuracy", value - 0.02, part="clean", n=9, n_patients=5),
                make_cell(model, s, "accuracy", 0.28, condition="rotated"),
                make_cell(model, s, "circular_accuracy", 0.11, condition="rotated"),
                make_cell(model, s, "accuracy_minus_rotated", value - 0.28),
                make_cell(model, s, "recall_A", 0.42, n=7),
            ]
            if "base" in settings:
                rows.append(make_cell(model, s, "accuracy_minus_base", value - ACCURACIES[settings["base"]]))
            if has_open_questions and s not in ("held_in", "held_out"):
                rows += [
                    make_cell(model, s, m, 0.4, kind="open", n=120 if s == "rad" else 4) for m in ("token_f1", "token_recall")
                ]
        rows.append(make_cell("chance", s, "accuracy", 1 / 3, ci_low=None, ci_high=None))
        rows.append(make_cell("majority", s, "accuracy", 0.35))
    return rows


def make_comparison(model: str, other: str, set_: str, **changed: Any) -> dict[str, Any]:
    row = {"set": set_, "part": "all", "model": model, "other": other, "relation": "", "value": 0.1, "ci_low": 0.02}
    row |= {"ci_high": 0.18, "p": 0.012, "p_holm": 0.0004, "p_mcnemar": None, "p_mcnemar_holm": None}
    return row | {"only_model": 5, "only_other": 2, "n": 12, "n_patients": 6} | changed


def _write_source_tables(folder: Path) -> None:
    """What one source states, what of it is not used, and three images that training repeats."""
    statements = [("rating", "PD")] * 3 + [("rating", "SD"), ("label_quality:edema", "disagreement"), ("week", "12")]
    findings = [
        dict(
            finding_id=f"lumiere/{n}", source="lumiere", patient_id="lumiere/1", study_id="", image_id="", name=name, value=value
        )
        | dict(origin_file="t.csv", origin_row=n)
        for n, (name, value) in enumerate(statements)
    ]
    reasons = [f"row {n}: the value 'x{n}' is no number" for n in range(2)] + ["no such file"]
    rejected = [{"stage": "images", "item": f"{n}", "reason": reason} for n, reason in enumerate(reasons)]
    left_out = [{"source": "lumiere", "reason": "visits without T1", "count": 1234}]
    pairs = [("a", "x", "exact"), ("a", "y", "near"), ("b", "x", "near"), ("c", "x", "near")]
    copies = [
        dict(image=image, source="vqa_rad", training_image=other, training_source="pmc", relation=relation, correlation=0.99)
        for image, other, relation in pairs
    ]
    for name, rows in {"findings": findings, "rejected": rejected, "left_out": left_out}.items():
        table_io.write_table(folder / "images" / f"lumiere.{name}.parquet", name, rows)
    table_io.write_table(folder / "qa" / "copies.parquet", "copies", copies)


def write_run(folder: Path, *, has_open_questions: bool = True, replies: dict[str, str] | None = None) -> dict[str, Any]:
    """Write the run; returns the options of report.py. `replies`: replies of the models to their first questions."""
    kinds = ["closed"] * 12 + (["open"] * 4 if has_open_questions else [])
    benchmark = [make_question(s, n, kind, "benchmark") for s in SETS for n, kind in enumerate(kinds)]
    train = [make_question(s, n, kind, "train") for s in list(SETS)[:4] for n, kind in enumerate(kinds * 2)]
    for i, row in enumerate(train):
        row["qa_id"] += f"-{i}"
    table_io.write_table(folder / "qa" / "train.parquet", "qa", train)
    table_io.write_table(folder / "qa" / "benchmark.parquet", "qa", benchmark)
    table_io.write_table(folder / "images" / "lumiere.images.parquet", "images", make_image_rows())
    _write_source_tables(folder)
    table_io.write_table(folder / "leaderboard.parquet", "leaderboard", make_leaderboard(has_open_questions=has_open_questions))
    pairs = [("med-mantis", "mantis", {"relation": "base"}), ("llava-med", "mantis", {"p_mcnemar": 0.04, "p_mcnemar_holm": 0.08})]
    comparison_rows = [make_comparison(a, b, s, **more) for s in [*SETS, "held_in", "held_out"] for a, b, more in pairs]
    table_io.write_table(folder / "comparisons.parquet", "comparisons", comparison_rows)
    options: dict[str, Any] = {
        "leaderboard": folder / "leaderboard.parquet",
        "comparisons": folder / "comparisons.parquet",
        "answers": [],
        "predictions": [],
        "train": folder / "qa" / "train.parquet",
        "benchmark": folder / "qa" / "benchmark.parquet",
        "images": [folder / "images" / "lumiere.images.parquet"],
        "findings": [folder / "images" / "lumiere.findings.parquet"],
        "rejected": [folder / "images" / "lumiere.rejected.parquet"],
        "left_out": [folder / "images" / "lumiere.left_out.parquet"],
        "copies": folder / "qa" / "copies.parquet",
        "loss": [],
        "benchmark_audit": folder / "benchmark_audit.json",
        "statistics": folder / "statistics.parquet",
        "paper": None,
    }
    for model in MODELS:
        rng = np.random.default_rng([5, *model.encode()])
        answers: list[dict[str, Any]] = []
        for condition in ("plain", "blind"):
            predictions = []
            for row in benchmark:
                closed = row["kind"] == "closed"
                right = bool(rng.random() < (ACCURACIES[model] if condition == "plain" else 0.31))
                index = row["answer_index"] if right or not closed else (row["answer_index"] + 1) % 3
                reply = f"{'ABC'[index]}: {row['options'][index]}" if closed else "a lesion"
                if replies and condition == "plain" and model in replies and row["qa_id"] == benchmark[0]["qa_id"]:
                    reply = replies[model]
                predictions.append(
                    {
                        "qa_id": row["qa_id"],
                        "model": model,
                        "condition": condition,
                        "rotation": 0,
                        "prompt_sha256": "0" * 64,
                        "reply": reply,
                        "option_logprobs": [-1.0] * len(row["options"]),
                        "text_logprobs": [],
                        "failure": "",
                    }
                )
                scores = {"accuracy": float(right)} if closed else {"exact_match": 0.0, "token_f1": 0.5, "token_recall": 1 / 3}
                answers += [
                    {k: row[k] for k in ("qa_id", "set", "ability", "kind")}
                    | {"model": model, "condition": condition, "cluster": row["patient_ids"][0], "metric": metric, "value": value}
                    | {"rotation": 0, "option": index if closed else None}
                    | ({"status": "ok", "read": "ABC"[index]} if closed else {"status": "", "read": ""})
                    for metric, value in scores.items()
                ]
            path = folder / "predictions" / f"{model}.{condition}.parquet"
            table_io.write_table(path, "predictions", predictions)
            options["predictions"].append(path)
        table_io.write_table(folder / "scores" / f"{model}.parquet", "answers", answers)
        options["answers"].append(folder / "scores" / f"{model}.parquet")
        path = folder / "models" / f"{model}.loss.parquet"
        stages = ["tune"] if "base" in MODELS[model] else ["vision", "language"]
        history = [
            {"stage": stage, "step": step, "loss": 3.0 / (1 + step / 20), "learning_rate": 1e-3, "tokens": 100 * step}
            for stage in stages
            for step in range(10, 101, 10)
        ]
        table_io.write_table(path, "loss", history)
        options["loss"].append(path)
    faults = {
        "records": 16,
        "closed": 12,
        "open": 4,
        "same_images_in_train": 7,
        "duplicate_ids": 0,
        "patients": 6,
        "chance": 1 / 3,
    }
    faults |= {"letters": {"A": 4, "B": 4, "C": 4}, "largest_patient": {"patient": "lumiere/1", "records": 4, "share": 0.25}}
    table_io.write_table(options["statistics"], "statistics", make_statistics())
    options["benchmark_audit"].write_text(json.dumps({s: faults | {"majority": None} for s in SETS}))
    return options


def make_statistics() -> list[dict[str, Any]]:
    """Figures of ours and of a release that has the sets temporal and odir."""
    figures = {
        "ours": [("questions", "closed", 12), ("questions", "open", 4), ("wordings", "", 9), ("answer_words", "open mean", 7.25)],
        "release": [("questions", "closed", 5), ("questions", "open", 5), ("wordings", "", 3), ("fault", "duplicate_options", 2)],
    }
    figures["ours"] += [("fault", "duplicate_options", 0), ("guess", "constant", 0.5), ("guess", "metadata_only_within", 0.25)]
    return [
        {"origin": origin, "split": "benchmark", "set": s, "statistic": statistic, "key": key, "value": float(value), "n": 10}
        for origin, sets in (("ours", SETS), ("release", ("temporal", "odir")))
        for s in sets
        for statistic, key, value in figures[origin]
    ]


def describe_inputs(options: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The files read, by option and in the order of report.py, as a job describes them."""
    paths = {name: value if isinstance(value, list) else [value] for name, value in options.items()}
    return {name: [file_record(path) for path in option_paths if path] for name, option_paths in paths.items()}


def build_argv(options: dict[str, Any], report: Path, cfg: dict[str, Any]) -> list[str]:
    """Command line of report.py."""
    words = ["--report", str(report), "--cfg", config_file(cfg)]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        if value is not None and values:
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words
