import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from medmim.config import generate_docs, run_config

ROOT = Path(__file__).parents[3]
UNTRAINED = {"any": {"family": "chat", "hub": "a/b"}}
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "config/demo.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(DEMO)
    *parents, last = path.split(".")
    part = values
    for key in parents:
        part = part[key]
    part[last] = value
    return values


def at(family: str = "endpoint", **settings: Any) -> dict[str, Any]:
    """A model at an endpoint."""
    return {"family": family, "endpoint": {"url": "https://a.example/v1", "model": "m", **settings}}


def written(**settings: Any) -> dict[str, Any]:
    """A writer of questions, `parameters` being its endpoint's."""
    prices = {"usd_per_million_prompt": 1, "usd_per_million_completion": 1}
    author = {"url": "https://a.example/v1", "model": "m", **prices, "parameters": settings.pop("parameters", {})}
    return {"generator": author, "budget_tokens": 1000, **settings}


@pytest.mark.parametrize("name", ["config.yaml", "demo.yaml"])
def test_shipped_configs_are_valid(name: str) -> None:
    assert run_config.load_config(ROOT / "config" / name).models


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("imagse", {}, "imagse: unknown key; did you mean 'images'?"),
        ("images.sise", 3, "images.sise: unknown key; did you mean 'size'?"),
        ("sources.embed.patient", 3, "sources.embed.patient: unknown key; did you mean 'patients'?"),
        ("qa.release", {"ur": "x"}, "qa.release.ur: unknown key; did you mean 'url'?"),
        ("models.med-mantis.tuning.lora_rnk", 3, "models.med-mantis.tuning.lora_rnk: unknown key; did you mean 'lora_rank'?"),
        ("models.mantis.tiny.head", 3, "models.mantis.tiny.head: unknown key; did you mean 'heads'?"),
        ("sources.embd", {"origin": "phantom", "patients": 1}, "sources.embd: "),
        ("sources.embed", {"origin": "local"}, "sources.embed: origin local needs path"),
        ("sources.embed", {"origin": "phantom"}, "sources.embed: origin phantom needs patients"),
        ("sources", {}, "name at least one"),
        ("models.med-mantis.base", "mantiss", "no model 'mantiss'; did you mean 'mantis'?"),
        ("models.med-mantis.base", "llava-med", "family mantis is not that of its base"),
        ("models.med-mantis.base", "mim-llava-med", "is itself tuned"),
        ("models.med-mantis.tuning", {"gpus": 4, "nodes": 3}, "4 processes can't be shared evenly by 3 nodes"),
        ("models.med-mantis.tuning", {"gpus": 2, "processes": 2}, "processes: is for trainings without a GPU"),
        ("models.med-mantis.tuning", None, "base and tuning belong together"),
        ("models.mantis.hub", "a/b", "set exactly one of base, hub, path, tiny, endpoint"),
        (
            "models.mantis.endpoint",
            {"url": "https://a.example/v1", "model": "m"},
            "set exactly one of base, hub, path, tiny, endpoint",
        ),
        ("models.mantis", {"family": "endpoint", "hub": "a/b"}, "family endpoint and the section endpoint belong together"),
        ("models.mantis", at(family="chat"), "family endpoint and the section endpoint belong together"),
        ("models.mantis", at(urll="x"), "models.mantis.endpoint.urll: unknown key; did you mean 'url'?"),
        ("models.mantis", at(key="sk-1"), "models.mantis.endpoint.key: unknown key; did you mean 'key_env'?"),
        ("models.mantis", at(key_env="sk-very-secret"), "models.mantis.endpoint.key_env: "),
        ("models.mantis", at(url="a.example/v1"), "models.mantis.endpoint.url: expected a URL that begins with https://"),
        ("models.mantis", at(url="https://u:very-secret@a.example/v1"), "models.mantis.endpoint.url: expected a bare URL"),
        ("models.mantis", at(url="https://a.example/v1?key=very-secret"), "models.mantis.endpoint.url: expected a bare URL"),
        ("models.mantis", at(url="https://a.example/v1/chat/completions"), "the base URL, which ends before /chat/completions"),
        ("models.mantis", at(url="https://[a/v1"), "models.mantis.endpoint.url: not a URL"),
        ("models.mantis", at(url="http://gpu01:8000/v1"), "the key could be read on its way"),
        ("qa.writer", written(), "qa.writer.budget_usd: is required: Most US dollars"),
        ("qa.writer", written(budget_usd=1, generatr={}), "qa.writer.generatr: unknown key; did you mean 'generator'?"),
        ("qa.writer", written(budget_usd=1, rewrite=0), "rewrite and open are both 0"),
        ("qa.writer", written(budget_usd=1, prices={}), "qa.writer.prices: unknown key"),
        ("qa.writer", written(budget_usd=1, parameters={"max_tokens": None}), "a reply could cost any amount"),
        ("models.mantis", at(concurrency=0), "models.mantis.endpoint.concurrency: "),
        ("models.mantis", at(requests_per_minute=0), "models.mantis.endpoint.requests_per_minute: "),
        ("models.mantis", at(parameters={"model": "x", "stream": True}), "parameters: model, stream can't be set here"),
        (
            "sources.embed",
            {"origin": "local", "path": "x", "credentialed": False},
            "sources.embed.credentialed: its owner's agreement",
        ),
        ("qa.pretrain", 0, "tiny base models need pretraining questions"),
        ("qa.release", {"url": "https://example.org/r.zip"}, "url needs sha256"),
        ("qa.origin", "released", "the release has no such questions"),
        ("qa.open_fraction", 1.5, "qa.open_fraction: "),
        ("prediction.batch", 0, "prediction.batch: "),
        ("run", "De mo", "run: "),
        ("cache", {"foldr": "x"}, "cache.foldr: unknown key; did you mean 'folder'?"),
        ("cache", {"limit_gb": 0}, "cache.limit_gb: "),
        ("heldout", {"medframe": {"path": "x"}}, "heldout.medframe: no held-out set 'medframe'; did you mean 'medframeqa'?"),
        ("models.mantis.family", "mantiss", "models.mantis.family: no model family 'mantiss'; did you mean 'mantis'?"),
        ("heldout", {"medframeqa": {"path": "x", "hub": "a/b"}}, "heldout.medframeqa: set exactly one of path"),
        ("heldout", {"medframeqa": {"hub": "a/b"}}, "heldout.medframeqa: hub and revision belong together"),
        ("heldout", {"medframeqa": {"hub": "a/b", "revision": "main"}}, "heldout.medframeqa.revision: "),
        ("heldout", {"medframeqa": {"path": "x", "limt": 3}}, "heldout.medframeqa.limt: unknown key; did you mean 'limit'?"),
        ("run", "Demo", "run: is 'Demo'; allowed: lower-case letters, digits, '.', '_' and '-', at most 100"),
        ("run", "d" * 101, "at most 100"),
        ("run", "demo\n", "run: is 'demo\\n'; allowed: lower-case"),
        ("run", 2026, "run: is 2026 (put it in quotes); allowed: lower-case"),
        ("seed", -1, "seed: is -1; allowed: whole number from 0 to 4,294,967,295. Seed of everything drawn by chance."),
        ("seed", True, "seed: is true; allowed: whole number"),
        ("qa.train.temporal", -16, "qa.train.temporal: is -16; allowed: whole number from 0 to 10,000,000"),
        ("qa.train.temporal", "16", "qa.train.temporal: is '16' (leave the quotes out); allowed"),
        ("qa.pretrain", -1, "qa.pretrain: is -1; allowed"),
        ("qa.train", {"odir": 10}, "qa.train.odir: unknown key; there is qa.open_fractions.odir, qa.benchmark.odir"),
        ("qa.benchmark", {"composed": 1}, "qa.benchmark.composed: unknown key; there is qa.train.composed"),
        ("qa.train", {}, "qa.train: asks for no questions, and med-mantis, mim-llava-med would be tuned on them"),
        ("qa.benchmark", {}, "qa.benchmark: asks for no questions"),
        (
            "sources",
            {"odir": {"path": "x"}},
            "qa.train.temporal: is 1,000, and none of the sources has questions of train.temporal",
        ),
        ("sources", {"odir": {"path": "x"}}, "add embed or lumiere or ms_cxr_t to sources, or set it to 0"),
        ("sources", {"odir": {"path": "x"}}, "qa.pretrain: is 16,000, and none of the sources has questions of pretrain.single"),
        ("qa", None, "qa: is null (give it, or leave the key out); allowed: section"),
        ("qa.train.temporl", 3, "qa.train.temporl: unknown key; did you mean 'temporal'?"),
        ("qa.train", {"x": 3}, "qa.train.x: unknown key; there are temporal, reasoning, comparison, coreference, composed"),
        ("batch", 3, "there is qa.writer.generator.batch, qa.writer.reviewer.batch, models.NAME.tuning.batch"),
        ("images.size", 56.5, "images.size: is 56.5; allowed: whole number"),
        ("sources.embed.patients", 0, "sources.embed.patients: is 0; allowed: whole number from 1 to 1,000,000, or null"),
        ("sources.embed.path", "x", "sources.embed.path: is for real sources"),
        ("sources.embed", {"path": "x", "patients": 3}, "sources.embed.patients: is for origin phantom, and this is local"),
        ("sources.embed", {"path": "x", "max_missing": 0.1}, "sources.embed.max_missing: is for origin download"),
        ("sources.embed", {"path": " "}, "sources.embed.path: is empty"),
        ("sources.embed", {"path": "a\0b"}, "sources.embed.path: holds a null character"),
        ("sources.embed", [], "sources.embed: is a list; allowed: keys with values"),
        ("models", {}, "models: name at least one"),
        ("models.majority", UNTRAINED["any"], "models.majority: is the name of a baseline"),
        ("models.plain", UNTRAINED["any"], "models.plain: is the name of a baseline, a condition"),
        ("models.all", UNTRAINED["any"], "models.all: is the name"),
        ("models.Mantis", UNTRAINED["any"], "models.Mantis: can't be a name here; allowed: lower-case letters"),
        ("models", {1: UNTRAINED["any"]}, "models.1: can't be a name here; allowed: text, so put it in quotes"),
        ("models.mantis.revision", "main", "models.mantis.revision: is a commit of the repository that hub names"),
        ("models.med-mantis.base", "med-mantis", "models.med-mantis.base: med-mantis is itself tuned"),
        ("models.med-mantis.system", "Be brief.", "models.med-mantis.system: is that of its base"),
        ("models.mantis.family", "chat", "models.mantis.family: chat can predict, not be trained here; families that can"),
        (
            "models.mantis.chat",
            {"enable_thinking": False},
            "models.mantis.chat: is for family chat, and this is mantis: leave it",
        ),
        ("models.mantis.thinking", {"tokens": 9}, "models.mantis.thinking: is for family chat, and this is mantis: leave it out"),
        ("models.any", UNTRAINED["any"] | {"chat": {"tokenize": True}}, "models.any.chat: tokenize can't be set here"),
        ("models.any", UNTRAINED["any"] | {"chat": {"x": float("nan")}}, "models.any.chat: can't be recorded as JSON"),
        ("models.any", UNTRAINED["any"] | {"thinking": {"tokens": 0}}, "models.any.thinking.tokens: is 0; allowed: whole number"),
        ("models.any", UNTRAINED["any"] | {"thinking": {"tokens": 9, "end": " "}}, "models.any.thinking.end: is empty"),
        ("models.mantis", at(url="https://h/v1") | {"thinking": {"tokens": 9}}, "endpoint.parameters, as chat_template_kwargs"),
        ("models.mantis.tiny.image_size", 57, "models.mantis.tiny.image_size: is 57; allowed: a multiple of 14, such as 56"),
        ("models.mantis.tiny.heads", 5, "models.mantis.tiny.language_width: is 128; allowed with 5 heads: a multiple of 10"),
        ("models.med-mantis.tuning", {"gpus": -1}, "models.med-mantis.tuning.gpus: is -1; allowed: whole number from 0 to"),
        ("models.med-mantis.tuning.learning_rate", 0, "tuning.learning_rate: is 0; allowed: number above 0 and below 1. Peak"),
        ("models.med-mantis.tuning.learning_rate", float("nan"), "tuning.learning_rate: is .nan; allowed: number above 0"),
        ("models.med-mantis.tuning.zero_stage", True, "tuning.zero_stage: is true; allowed: 0, 1, 2, 3"),
        ("models.med-mantis.tuning.precision", "bf61", "tuning.precision: is 'bf61' (did you mean 'bf16'?); allowed: fp32, bf16"),
        (
            "models.med-mantis.tuning",
            {"packing": False, "pack_tokens": 9000},
            "tuning.pack_tokens: is for trainings with packing",
        ),
        ("models.mantis", at(url="https://h:99999/v1"), "models.mantis.endpoint.url: not a URL"),
        ("models.mantis", at(url="https://u:very-secret"), "models.mantis.endpoint.url: not a URL"),
        ("models.mantis", at(url="https://a b/v1"), "models.mantis.endpoint.url: not a URL"),
        ("models.mantis", at(parameters={"top_p": float("nan")}), "parameters: can't be sent as JSON"),
        ("qa.writer", written(budget_usd=1, parameters={"max_tokens": -5}), "parameters.max_tokens: is -5; allowed"),
        ("qa.writer", written(budget_usd=1, splits=["train", "train"]), "qa.writer.splits: train appears twice: name each once"),
        ("prediction.gpus", 2, "prediction.gpus: is 2; allowed: whole number from 0 to 1"),
        ("prediction.conditions", ["blind"], "prediction.conditions: plain is not among them"),
        ("prediction.conditions", ["plain", "plain"], "prediction.conditions: plain appears twice"),
        ("prediction.conditions", ["plain", "blnd"], "prediction.conditions.1: is 'blnd' (did you mean 'blind'?)"),
        ("prediction.conditions", [], "prediction.conditions: is a list"),
        ("prediction.conditions", "plain", "prediction.conditions: is 'plain' (did you mean 'plain'?); allowed: list of plain"),
        ("prediction.text_likelihood", 1, "prediction.text_likelihood: is 1; allowed: true or false"),
        ("results", "", "results: is empty"),
        ("results", "/", "results: '/' can't hold the runs"),
        ("results", "./", "results: '.' can't hold the runs"),
        (
            "cache",
            {"folder": "results/demo/cache"},
            "cache.folder: results/demo/cache and the run's folder results/demo lie in one",
        ),
        ("cache", {"folder": "x" * 300}, "can't be used: [Errno 36] File name too long"),
        ("cache", {"folder": "results"}, "cache.folder: results and the run's folder results/demo lie in one another"),
        ("qa.train.temporal", -1, "demo.yaml is not a valid configuration:\n  qa.train.temporal: is -1"),
        ("prediction", {"batch": {"size": 1}}, "prediction.batch: is a section; allowed: whole number"),
        ("qa.train.temporal", 1.5, "qa.train.temporal: is 1.5; allowed: whole number"),
        ("export", {"credentialled": True}, "export.credentialled: unknown key; did you mean 'credentialed'?"),
        ("sources.embed", {"path": "x", "credentialed": False}, "sources.embed.credentialed: its owner's agreement forbids"),
    ],
)
def test_wrong_values_are_refused_with_their_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(run_config.ConfigError) as error:
        run_config.parse_config(changed(path, value), "demo.yaml")
    assert message in str(error.value)
    assert "demo.yaml" in str(error.value)
    assert "very-secret" not in str(error.value)


@pytest.mark.parametrize("settings", [{"key_env": None}, {"key_env": "VLLM_KEY"}, {"url": "http://[::1]:8000/v1/"}, {}])
def test_an_endpoint_whose_key_is_safe_is_valid(settings: dict[str, Any]) -> None:
    url = "http://gpu01:8000/v1" if settings else "http://localhost:8000/v1"
    found = run_config.parse_config(changed("models.served", at(**{"url": url, **settings}))).models["served"].endpoint
    assert found is not None and found.url.endswith(":8000/v1")


def test_a_published_mantis_is_asked_with_the_message_that_it_was_trained_with() -> None:
    """Set nothing, and base and tuned have it; a tiny base, which was trained without, and other families have none."""
    models = run_config.load_config(ROOT / "config/config.yaml").models
    assert models["mantis"].system == "You are a pirate chatbot who always responds in pirate speak!"
    assert {name: m.system for name, m in models.items() if name != "mantis"} == dict.fromkeys(models.keys() - {"mantis"}, "")
    assert (
        run_config.parse_config(changed("models.mantis.system", "Be brief."), "demo.yaml").models["mantis"].system == "Be brief."
    )
    assert run_config.parse_config(DEMO, "demo.yaml").models["mantis"].system == ""
    mine = {"family": "mantis", "path": "mine"}
    for told in ({}, {"system": ""}):
        model = run_config.parse_config(changed("models.mine", mine | told), "demo.yaml").models["mine"]
        assert bool(model.system) is not bool(told)


def test_the_shipped_chat_models_are_pinned() -> None:
    models = run_config.load_config(ROOT / "config/config.yaml").models
    assert len(models) == 8
    chat = {name: model for name, model in models.items() if model.family == "chat"}
    assert len(chat) == 4 and all(re.fullmatch("[0-9a-f]{40}", str(model.revision)) for model in chat.values())
    assert {name: model.chat for name, model in chat.items() if model.chat} == {"qwen3.5-9b": {"enable_thinking": False}}


def test_which_sources_are_credentialed() -> None:
    def credentialed(**sources: dict[str, Any]) -> list[str]:
        values = changed("sources", sources) | {"qa": {}, "heldout": {"medframeqa": {"path": "x"}}, "models": UNTRAINED}
        return list(run_config.parse_config(values).credentialed_sources)

    local, phantom = {"origin": "local", "path": "x"}, {"origin": "phantom", "patients": 3}
    assert run_config.load_config(ROOT / "config/config.yaml").credentialed_sources == ["embed", "ms_cxr_t"]
    assert run_config.load_config(ROOT / "config/demo.yaml").credentialed_sources == []
    assert credentialed(embed=local, lumiere=local, pmc=phantom) == ["embed"]
    assert credentialed(embed=phantom | {"credentialed": True}, odir=local | {"credentialed": True}) == ["embed", "odir"]
    assert credentialed(ms_cxr_t=phantom | {"credentialed": False}) == []


def test_what_is_credentialed_follows_from_source_and_origin() -> None:
    local = {name: {"path": "data"} for name in ("embed", "ms_cxr_t", "lumiere", "odir")} | {
        "odir": {"path": "x", "credentialed": True}
    }
    values = changed("sources", local) | {"qa": {}, "heldout": {"medframeqa": {"path": "x"}}, "models": UNTRAINED}
    assert run_config.parse_config(values).credentialed_sources == ["embed", "ms_cxr_t", "odir"]
    assert run_config.parse_config(DEMO).credentialed_sources == []


def test_every_key_is_documented() -> None:
    parts = [c for c in vars(run_config).values() if isinstance(c, type) and issubclass(c, BaseModel) and c is not BaseModel]
    missing = [f"{c.__name__}.{n}" for c in parts for n, f in c.model_fields.items() if not f.description]
    assert not missing


def test_generated_pages_are_in_step() -> None:
    assert (ROOT / "config/README.md").read_text() == generate_docs.render_markdown(), "run make docs"
    assert json.loads((ROOT / "config/schema.json").read_text()) == run_config.Config.model_json_schema(), "run make docs"
