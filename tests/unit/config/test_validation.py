"""Every key refuses what it can't mean, by name, in the check and in the schema for editors."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from snakemake.utils import update_config

from medmim.config.download import Download
from medmim.config.run_config import Config, ConfigError, parse_config
from medmim.config.source_plugins import Source
from medmim.config.validation import describe_values, list_sections

ROOT = Path(__file__).parents[3]
SERVICE = {"url": "https://a.example/v1", "model": "m"}
AUTHOR = SERVICE | {"usd_per_million_prompt": 1, "usd_per_million_completion": 1}
FULL: dict[str, Any] = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
FULL["models"]["served"] = {"family": "endpoint", "endpoint": dict(SERVICE)}
FULL["models"]["thinker"] = {"family": "chat", "hub": "a/b", "thinking": {"tokens": 1000}}
FULL["qa"]["writer"] = {"generator": AUTHOR, "reviewer": AUTHOR, "budget_tokens": 1000, "budget_usd": 1}
FULL["heldout"] = {"medframeqa": {"path": "x"}}
FULL["download"] = Download().model_dump(mode="json")
FULL = json.loads(json.dumps(FULL))
"""A valid configuration in which every section with a number stands, none of them shared."""
NAMES = {
    "sources.NAME": "sources.embed",
    "heldout.NAME": "heldout.medframeqa",
    "models.NAME.tiny": "models.mantis.tiny",
    "models.NAME.tuning": "models.med-mantis.tuning",
    "models.NAME.endpoint": "models.served.endpoint",
    "models.NAME.thinking": "models.thinker.thinking",
}
"""An instance of each section below a name."""
VALIDATOR = jsonschema.Draft202012Validator(Config.model_json_schema())


def list_leaves(model: type[BaseModel]) -> list[tuple[str, str, dict[str, Any]]]:
    """Path of a section, name of a field of it, and each of the schemas of its values."""
    leaves = []
    for path, section in list_sections(model):
        for name, schema in section.model_json_schema()["properties"].items():
            leaves += [(path, name, kind) for kind in schema.get("anyOf", [schema])]
    return leaves


def is_number(schema: dict[str, Any]) -> bool:
    return schema.get("type") in ("integer", "number") and "enum" not in schema


NUMBERS = [leaf for leaf in list_leaves(Config) if is_number(leaf[2])]


def put(path: str, name: str, value: Any) -> dict[str, Any]:
    """The full configuration with another value."""
    values = copy.deepcopy(FULL)
    section = values
    for key in NAMES.get(path, path).split(".") if path else ():
        section = section.setdefault(key, {})
    section[name] = value
    return values


def refuse(values: dict[str, Any]) -> str:
    """The message of a configuration that is refused."""
    with pytest.raises(ConfigError) as error:
        parse_config(values, "x.yaml")
    return str(error.value)


def full_name(path: str, name: str) -> str:
    return f"{NAMES.get(path, path)}.{name}".lstrip(".")


def test_the_full_configuration_is_valid_and_has_every_section() -> None:
    assert parse_config(FULL) and VALIDATOR.is_valid(FULL)
    assert {path for path, _, _ in NUMBERS if "NAME" in path} == set(NAMES) and len(NUMBERS) > 70


@pytest.mark.parametrize("model", [Config, Source])
def test_every_number_has_a_lowest_and_a_highest_value_between_which_its_default_lies(model: type[BaseModel]) -> None:
    unbounded = [
        full_name(path, name)
        for path, name, schema in list_leaves(model)
        if is_number(schema)
        and not ({"minimum", "exclusiveMinimum"} & schema.keys() and {"maximum", "exclusiveMaximum"} & schema.keys())
    ]
    assert not unbounded, "give them Field(ge=, le=)"
    for _, section in list_sections(model):
        required = {name: None for name, field in section.model_fields.items() if field.is_required()}
        defaults = {name: f.get_default(call_default_factory=True) for name, f in section.model_fields.items()}
        shown = {name: value for name, value in defaults.items() if name not in required}
        schema = section.model_json_schema()
        properties = {name: schema["properties"][name] for name in shown}
        whole = {"$defs": schema.get("$defs", {}), "properties": properties}
        dumped = json.loads(
            json.dumps({k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in shown.items()})
        )
        jsonschema.Draft202012Validator(whole).validate(dumped)


@pytest.mark.parametrize("model", [Config, Source])
def test_every_list_names_each_value_once(model: type[BaseModel]) -> None:
    from medmim.config.base import UNIQUE

    sections = {section for _, section in list_sections(model)}
    lists = [
        (s, n) for s in sections for n, schema in s.model_json_schema()["properties"].items() if schema.get("type") == "array"
    ]
    assert lists and [n for s, n in lists if UNIQUE not in s.model_fields[n].metadata] == []


def numbers_outside(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    """Numbers that a schema does not allow."""
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum", lowest), schema.get("exclusiveMaximum", highest)
    if schema["type"] == "integer":
        return st.integers(max_value=above - 1) | st.integers(min_value=below + 1) | st.sampled_from([-(10**400), 10**400])
    return st.floats(max_value=above, allow_infinity=False, exclude_max=lowest is not None) | st.floats(
        min_value=below, allow_infinity=False, exclude_min=highest is not None
    )


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_number_out_of_range_is_refused_by_name_and_by_the_schema(data: st.DataObject) -> None:
    path, name, schema = data.draw(st.sampled_from(NUMBERS))
    value = data.draw(numbers_outside(schema))
    message = refuse(put(path, name, value))
    assert f"  {full_name(path, name)}: is {value}"[:60] in message
    assert f"; allowed: {describe_values(schema)}" in message and len(message.splitlines()) == 2
    assert not VALIDATOR.is_valid(put(path, name, value))


@pytest.mark.parametrize(("path", "name", "schema"), NUMBERS, ids=[full_name(*leaf[:2]) for leaf in NUMBERS])
def test_what_is_no_number_is_refused_by_name(path: str, name: str, schema: dict[str, Any]) -> None:
    for value, shown in (
        (float("nan"), ".nan"), (float("inf"), ".inf"), (float("-inf"), "-.inf"), (True, "true"), (False, "false"),
        ("1", "'1' (leave the quotes out)"), ("x", "'x'"), ([], "a list"), ({}, "an empty section"), ("", ""),
    ):  # fmt: skip
        message = refuse(put(path, name, value))
        assert f"  {full_name(path, name)}: is {shown or 'empty'}" in message, message


def test_the_ends_of_a_range_are_in_it() -> None:
    for path, name, schema in NUMBERS:
        for bound in ("minimum", "maximum"):
            if bound in schema:
                try:
                    parse_config(put(path, name, schema[bound]))
                except ConfigError as error:  # what does not go with other settings
                    assert f"{name}: is {schema[bound]}; allowed: {schema['type']}" not in str(error)
                    assert "whole number" not in str(error) and "allowed: number" not in str(error)


def test_exponents_without_a_dot_are_numbers() -> None:
    """YAML 1.1 reads 1e-4 as text."""
    for text in ("1e-4", "1E-4", "+1e-4"):
        config = parse_config(put("models.NAME.tuning", "learning_rate", text))
        assert config.models["med-mantis"].tuning.learning_rate == 1e-4  # type: ignore[union-attr]
    assert "tuning.lora_rank: is '1e1'" in refuse(put("models.NAME.tuning", "lora_rank", "1e1"))


ANY_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.sampled_from(["plain", "chat", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted({(path, name) for path, name, _ in list_leaves(Config) if NAMES.get(path, path).count("NAME") == 0})


@settings(deadline=None, max_examples=200)
@given(key=st.sampled_from(KEYS), value=ANY_VALUES)
def test_whatever_a_key_says_is_taken_or_refused_by_its_name(key: tuple[str, str], value: Any) -> None:
    try:
        parse_config(put(*key, value))
    except ConfigError as error:
        assert re.search(rf"\b{re.escape(key[1])}\b", str(error))


def write(folder: Path, name: str, values: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_fault_is_told_with_the_line_of_its_file_or_the_option_that_said_it(tmp_path: Path) -> None:
    first = write(tmp_path, "first.yaml", {"run": "x", "seed": -1, "qa": {"pretrain": -2, "train": {"temporal": -16}}})
    second = write(tmp_path, "second.yaml", {"qa": {"pretrain": -3}})
    rest = {k: v for k, v in FULL.items() if k not in ("run", "seed", "qa")}
    values = {"run": "x", "seed": -1, "qa": {"pretrain": -3, "train": {"temporal": -16}}, "images": {"size": 0}, **rest}
    values["images"] = {"size": 0}
    with pytest.raises(ConfigError) as error:
        parse_config(values, "both", [first, second], {"images": {"size": 0}})
    lines = str(error.value).splitlines()
    assert lines[0] == "both is not a valid configuration:"
    places = {line.split(": ")[1]: line.split(": ")[0].strip() for line in lines[1:]}
    assert places["seed"] == f"{first}:2" and places["qa.train.temporal"] == f"{first}:6"
    assert places["qa.pretrain"] == f"{second}:2" and places["images.size"] == "--config"


def test_texts_of_the_command_line_are_what_their_keys_expect() -> None:
    """Snakemake reads --config 'prediction={gpus: 1}' as {"gpus": "1"}."""
    options: dict[str, Any] = {
        "run": "10",
        "prediction": {"gpus": "1", "text_likelihood": "false", "conditions": ["plain", "blind"], "precision": "fp32"},
        "cache": {"folder": "null", "limit_gb": "0.5"},
        "report": {"title": "yes", "paper": "~"},
        "models": {"med-mantis": {"tuning": {"zero_stage": "2", "pack_tokens": "null"}}},
    }
    values = copy.deepcopy(FULL)
    for name in options:
        update_config(values, {name: options[name]})
    values["models"]["served"]["endpoint"]["parameters"] = {"top_p": "1"}
    config = parse_config(values, "x", options=options)
    assert config.run == "10" and config.prediction.gpus == 1 and config.prediction.text_likelihood is False
    assert config.cache.folder is None and config.cache.limit_gb == 0.5
    assert config.report.title == "yes" and config.report.paper is None
    tuning, endpoint = config.models["med-mantis"].tuning, config.models["served"].endpoint
    assert tuning is not None and (tuning.zero_stage, tuning.pack_tokens) == (2, None)
    assert endpoint is not None and endpoint.parameters == {"top_p": "1"}, "which the file says"
    for text in ("-1", "010", "1:30", "x", "", "[1]", "{", "1.5"):
        values["prediction"]["gpus"] = text
        with pytest.raises(ConfigError, match=r"--config: prediction\.gpus: is "):
            parse_config(values, "x", options={"prediction": {"gpus": text}})


def test_expressions_in_a_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "config.yaml", {"__use_yte__": True, **FULL})
    with pytest.raises(ConfigError, match="__use_yte__: a config holds values, no expressions"):
        parse_config(FULL, "x", [path])


def test_all_faults_of_writing_and_of_values_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(FULL) + "seed: -1\nseed: -2\nimages: {size: 010}\n")
    with pytest.raises(ConfigError) as error:
        parse_config(yaml.safe_load(path.read_text()), str(path), [path])
    keys = re.findall(r": (\w+[\w.]*): (?=appears|is)", str(error.value))
    assert sorted(keys) == ["images", "seed", "seed", "seed"]
    assert "images.size: 010 is read as 8" in str(error.value)


def test_a_file_of_another_workflow_is_its_own_matter(tmp_path: Path) -> None:
    path = tmp_path / "outer.yaml"
    path.write_text("outer: yes\nouter: no\n")
    assert parse_config(FULL, "x", [path]).run == "demo"
