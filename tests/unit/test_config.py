import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from medmim import config, config_docs

ROOT = Path(__file__).parents[2]
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "config/demo.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(DEMO)
    *parents, last = path.split(".")
    part = values
    for key in parents:
        part = part[key]
    part[last] = value
    return values


@pytest.mark.parametrize("name", ["config.yaml", "demo.yaml"])
def test_shipped_configs_are_valid(name: str) -> None:
    assert config.load(ROOT / "config" / name).models


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
        ("models.med-mantis.tuning", {"gpus": 2, "processes": 2}, "processes is for trainings without a GPU"),
        ("models.med-mantis.tuning", None, "base and tuning belong together"),
        ("models.mantis.hub", "a/b", "set exactly one of base, hub, path, tiny"),
        ("qa.pretrain", 0, "tiny base models need pretraining questions"),
        ("qa.release", {"url": "https://example.org/r.zip"}, "url needs sha256"),
        ("qa.origin", "released", "the release has no such questions"),
        ("qa.open_fraction", 1.5, "qa.open_fraction: "),
        ("prediction.batch", 0, "prediction.batch: "),
        ("run", "De mo", "run: "),
        ("cache", {"foldr": "x"}, "cache.foldr: unknown key; did you mean 'folder'?"),
        ("cache", {"limit_gb": 0}, "cache.limit_gb: "),
    ],
)
def test_wrong_values_are_refused_with_their_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.parse(changed(path, value), "demo.yaml")
    assert message in str(error.value)
    assert "demo.yaml" in str(error.value)


def test_every_key_is_documented() -> None:
    parts = [c for c in vars(config).values() if isinstance(c, type) and issubclass(c, BaseModel) and c is not BaseModel]
    missing = [f"{c.__name__}.{n}" for c in parts for n, f in c.model_fields.items() if not f.description]
    assert not missing


def test_generated_pages_are_in_step() -> None:
    assert (ROOT / "config/README.md").read_text() == config_docs.markdown(), "run make docs"
    assert json.loads((ROOT / "config/schema.json").read_text()) == config.Config.model_json_schema(), "run make docs"
