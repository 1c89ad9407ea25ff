"""The model card: front matter that the hub reads, and what a reader must know before passing a model on."""

import pandas as pd
from huggingface_hub import ModelCard

from medmim.config.run_config import load_config
from medmim.config.source_plugins import SOURCES
from medmim.provenance.code_digest import WORKFLOW
from medmim.reporting.model_card import licences
from medmim.reporting.model_card.page import render_card
from medmim.training.planning.architecture import REFERENCE_CONFIGS

CFG = {
    "model": "med-mantis", "base": "mantis", "hub": "TIGER-Lab/Mantis-8B-siglip-llama3", "family": "mantis", "system": "",
    "seed": 1, "sources": {"embed": "local", "odir": "local"},
    "providers": {name: SOURCES[name].describe_terms() for name in ("embed", "odir")},
    "tuning": {"lora_rank": 128, "learning_rate": 1e-4},
}  # fmt: skip
HASHES = {"training questions": "a" * 64}


def board() -> pd.DataFrame:
    common = {
        "part": "all",
        "ability": "x",
        "kind": "closed",
        "ci_low": 0.4,
        "ci_high": 0.6,
        "n": 50,
        "n_patients": 20,
        "metric": "accuracy",
    }
    rows = [
        {"model": "med-mantis", "set": "temporal", "condition": "plain", "value": 0.5123},
        {"model": "med-mantis", "set": "odir", "condition": "plain", "value": 0.75},
        {"model": "mantis", "set": "temporal", "condition": "plain", "value": 0.25},
        {"model": "med-mantis", "set": "temporal", "condition": "blind", "value": 0.9},
        {"model": "med-mantis", "set": "temporal", "condition": "plain", "part": "clean", "value": 0.9},
    ]
    return pd.DataFrame([common | row for row in rows])


def test_front_matter_and_scores() -> None:
    text = render_card(CFG, HASHES, board())
    card = ModelCard(text)
    assert (
        card.data.base_model == CFG["hub"]
        and card.data.pipeline_tag == "image-text-to-text"
        and "synthetic" not in card.data.tags
    )
    results = {r.dataset_name: r.metric_value for r in card.data.eval_results}
    assert results == {"Med-MIM temporal, closed": 0.5123, "Med-MIM odir, closed": 0.75}
    assert "| temporal | closed | Accuracy | 0.512 | 0.400 to 0.600 | 0.250 | 50 | 20 |" in text and "0.9" not in text
    assert "a" * 64 in text and "| lora_rank | 128 |" in text and "Synthetic" not in text
    assert text == render_card(CFG, HASHES, board())


def test_who_must_be_asked_is_said() -> None:
    text = render_card(CFG, HASHES, None)
    assert "Not scored." in text and "may not be released publicly" in text and "Built with Meta Llama 3" in text
    assert "LUMIERE" not in text  # which it was not trained on
    assert ModelCard(text).data.eval_results is None


def test_a_model_of_phantoms_says_so() -> None:
    text = render_card(CFG | {"sources": {"embed": "phantom"}, "providers": {}, "hub": None}, HASHES, None)
    assert "**Synthetic.**" in text and "synthetic" in ModelCard(text).data.tags and "EMBED" not in text


def test_every_source_and_base_of_the_papers_config_has_its_terms() -> None:
    config = load_config(WORKFLOW.parent / "config/config.yaml")
    assert config.sources.keys() <= SOURCES.keys()
    assert (
        {config.models[m.base].hub for m in config.models.values() if m.base}
        == licences.BASE_LICENCES.keys()
        == REFERENCE_CONFIGS.keys()
    )


def test_terms_are_whole() -> None:
    for hub in licences.BASE_LICENCES:
        for one in licences.list_licences({name: source.describe_terms() for name, source in SOURCES.items()}, hub):
            assert one.terms and one.says and one.source and "|" not in one.terms + one.says + one.source, one
