"""The model card of a tuned model: what it is made of, how it scores, what its data's owners allow. Computed, not written.

The scores are those of one run's leaderboard; without one the card says so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medmim.reporting.model_card import licences
from medmim.scoring.items import METRIC_LABELS

SHOWN_METRICS = ("accuracy", "token_f1")
SHOWN_LABELS = {name: METRIC_LABELS[name][0].upper() + METRIC_LABELS[name][1:] for name in SHOWN_METRICS}


def select_scores(leaderboard: pd.DataFrame, model: str, base: str) -> list[dict[str, Any]]:
    """Plain scores of a model with those of its base, by set and kind, in the leaderboard's order."""
    plain = leaderboard.query("part == 'all' and condition == 'plain' and metric in @SHOWN_METRICS")
    base_scores = {(r["set"], r["kind"], r["metric"]): r["value"] for r in plain[plain["model"] == base].to_dict("records")}
    model_scores = []
    for row in plain[plain["model"] == model].to_dict("records"):
        model_scores.append(
            {str(k): v for k, v in row.items()} | {"base": base_scores.get((row["set"], row["kind"], row["metric"]))}
        )
    return model_scores


def render_card(cfg: Mapping[str, Any], hashes: Mapping[str, str], leaderboard: pd.DataFrame | None) -> str:
    """The card, Markdown with the hub's front matter.

    cfg: {"model", "base", "hub", "family", "sources": {name: origin}, "providers": {name: terms}, "seed", "tuning",
    "system"}. `hashes`: sha256 by name of what it was trained on. Equal arguments give equal bytes.
    """
    binding_licences = licences.list_licences(cfg["providers"], cfg["hub"])
    synthetic = "phantom" in cfg["sources"].values()
    scores = [] if leaderboard is None else select_scores(leaderboard, cfg["model"], cfg["base"])
    data = ModelCardData(
        language="en",
        license="other",
        license_name="terms-of-base-and-sources",
        license_link="README.md#licences",
        base_model=cfg["hub"],
        pipeline_tag="image-text-to-text",
        tags=["medical", "multi-image", cfg["family"], *(["synthetic"] if synthetic else [])],
        model_name=cfg["model"],
        eval_results=[
            EvalResult(
                task_type="visual-question-answering",
                dataset_type="med-mim",
                dataset_name=f"Med-MIM {row['set']}, {row['kind']}",
                dataset_config=row["set"],  # what the hub tells results apart by
                dataset_split=row["kind"],
                metric_type=row["metric"],
                metric_name=SHOWN_LABELS[row["metric"]],
                metric_value=round(float(row["value"]), 4),
            )
            for row in scores
        ]
        or None,
    )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # Markdown, not HTML
    environment.filters["share"] = lambda value: "" if pd.isna(value) else f"{value:.3f}"
    body = environment.get_template("card.md.j2").render(
        cfg=cfg, hashes=hashes, scores=scores, licences=binding_licences, synthetic=synthetic, names=SHOWN_LABELS
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"
