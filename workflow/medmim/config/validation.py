"""Checks of what files say against the sections' types, with messages for people: key, value, what is allowed, a hint."""

import datetime
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from medmim.config.base import FAULTS, PATTERN_MEANINGS, ConfigError, list_value_types
from medmim.config.yaml_files import read_scalar

S = TypeVar("S", bound=BaseModel)
Keys = tuple[int | str, ...]
"""What leads to a value: names of keys, and places in lists."""
_TYPE_NAMES = {
    "integer": "whole number", "boolean": "true or false", "string": "text", "array": "list", "object": "keys with values",
}  # fmt: skip
_SECRET_KEYS = ("url", "key_env")
"""Where people put keys of services by mistake: what stands there is not shown."""


@dataclass(frozen=True)
class _Place:
    """Where some keys lead in the sections' types."""

    owner: type[BaseModel] | None
    """The section that has the last key as its field; None where that is a name in a mapping."""
    name: str
    """That field."""
    section: type[BaseModel] | None
    """The section that stands there, or in the values of the mapping that stands there."""


def validate_section(
    model: type[S], values: Any, title: str, find_place: Callable[[Keys], str], known_faults: Sequence[str] = ()
) -> S:
    """Return the section that values state. Raises ConfigError with a line for each fault.

    `title` begins the message, and `known_faults` of the file are its first lines. `find_place` says where some keys stand, such
    as "FILE:LINE", or "".
    """
    lines = list(known_faults)
    try:
        section = model.model_validate(values)
        if not lines:
            return section
    except ValidationError as error:
        for keys, message in (fault for e in error.errors() for fault in _list_faults(model, e)):
            lines.append(": ".join(filter(None, (find_place(keys), ".".join(map(str, keys)), message))))
    raise ConfigError("\n  ".join([f"{title}:", *lines]))


def read_option_texts(model: type[BaseModel], values: Any, options: Any, keys: Keys = ()) -> Any:
    """Return values in which what the option --config sets has the types that its keys expect.

    Snakemake reads {gpus: 1} there as {"gpus": "1"}. A text stays one where the key may be a text.
    """
    if isinstance(values, Mapping) and isinstance(options, Mapping):
        common = {key: options[key] for key in options if key in values}
        return {**values, **{key: read_option_texts(model, values[key], o, (*keys, key)) for key, o in common.items()}}
    if isinstance(values, list):
        return [read_option_texts(model, value, value, (*keys, i)) for i, value in enumerate(values)]
    if not isinstance(values, str):
        return values
    place = _find_place(model, keys)
    types = list_value_types(place.owner.model_fields[place.name].annotation) if place.owner else {Any}
    value = read_scalar(values)
    return values if str in types and not (value is None and type(None) in types) else value


def list_sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the path and type of a section and of all below it; NAME stands for the names of a mapping."""
    yield path, model
    for name, field in model.model_fields.items():
        for section in _list_models(field.annotation):
            is_mapping = get_origin(field.annotation) is dict
            yield from list_sections(section, f"{path}.{name}".lstrip(".") + (".NAME" if is_mapping else ""))


def describe_values(schema: Mapping[str, Any]) -> str:
    """Say in words which values a field's JSON schema allows, such as "whole number from 1 to 64, or null"."""
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(map(describe_values, schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return "section"
    if schema.get("pattern") in PATTERN_MEANINGS:
        return PATTERN_MEANINGS[schema["pattern"]]
    words = _TYPE_NAMES.get(schema.get("type", ""), schema.get("type", "any value"))
    if values := schema.get("items", {}).get("enum"):
        words = f"{words} of {', '.join(values)}"
    bounds = (
        (">=", schema.get("minimum")), ("above", schema.get("exclusiveMinimum")),
        ("<=", schema.get("maximum")), ("below", schema.get("exclusiveMaximum")),
    )  # fmt: skip
    limits = [f"{word} {_format_number(bound)}" for word, bound in bounds if bound is not None]
    return f"{words} {' and '.join(limits)}".replace(">=", "from").replace("and <=", "to").strip()


@cache
def _read_schema(section: type[BaseModel]) -> dict[str, Any]:
    """JSON schemas of a section's fields."""
    schemas: dict[str, Any] = section.model_json_schema()["properties"]
    return schemas


def _format_number(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else str(number)


def _list_models(annotation: Any) -> list[type[BaseModel]]:
    """Sections among the types of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _list_models(argument)]


def _find_place(model: type[BaseModel], keys: Keys) -> _Place:
    """Follow some keys, of which the last may be unknown or a place in a list."""
    place, is_mapping = _Place(None, "", model), False
    for key in keys:
        if is_mapping:  # whose values have the section
            place, is_mapping = _Place(None, "", place.section), False
        elif place.section is not None and key in place.section.model_fields:
            annotation = place.section.model_fields[str(key)].annotation
            place = _Place(place.section, str(key), next(iter(_list_models(annotation)), None))
            is_mapping = get_origin(annotation) is dict
    return place


def _list_faults(model: type[BaseModel], error: Any) -> list[tuple[Keys, str]]:
    """What one of pydantic's errors says: the keys of each fault, and the message."""
    keys: Keys = tuple(key for key in error["loc"] if key != "[key]")
    if error["type"] == FAULTS:
        return [((*keys, *more), message) for more, message in error["ctx"]["faults"]]
    if error["type"] == "extra_forbidden":
        return [(keys, _describe_unknown_key(model, keys))]
    if error["type"] == "value_error":
        return [(keys, str(error["ctx"]["error"]))]
    if "[key]" in error["loc"]:
        meaning = PATTERN_MEANINGS.get(error.get("ctx", {}).get("pattern", ""), "text, so put it in quotes")
        return [(keys, f"can't be a name here; allowed: {meaning}")]
    place = _find_place(model, keys)
    if place.owner is None:
        return [(keys, f"is {_describe_value(error['input'])}; allowed: keys with values")]
    field, schema = place.owner.model_fields[place.name], _read_schema(place.owner)[place.name]
    allowed = describe_values(schema)
    description = " ".join((field.description or "").split()).partition(". ")[0].rstrip(".")
    if error["type"] == "missing":
        return [(keys, f"is required: {description}; allowed: {allowed}")]
    remedy = _describe_remedy(error["input"], list_value_types(field.annotation), schema)
    shown = "" if place.name in _SECRET_KEYS else f"is {_describe_value(error['input'])}{remedy}; "
    return [(keys, f"{shown}allowed: {allowed}. {description}.")]


def _describe_value(value: Any) -> str:
    """A value as YAML has it, or what it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a section" if value else "an empty section"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _describe_remedy(value: Any, types: set[Any], schema: Mapping[str, Any]) -> str:
    """What to do about a value of another type, or a name that is nearly right; "" where there is nothing to add."""
    names = [str(name) for name in schema.get("enum") or schema.get("items", {}).get("enum") or ()]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_.]*", value) and types & {int, float}:
        return " (leave the quotes out)"
    if isinstance(value, bool | int | float | datetime.date) and str in types and not names:
        return " (put it in quotes)"
    if value is None:
        return " (give it, or leave the key out)"
    close_matches = difflib.get_close_matches(str(value), names, 1)
    return f" (did you mean {close_matches[0]!r}?)" if close_matches else ""


def _describe_unknown_key(model: type[BaseModel], keys: Keys) -> str:
    """What an unknown key may have been meant to be: one of its section, or one of the same name elsewhere."""
    section, name = _find_place(model, keys[:-1]).section, str(keys[-1])
    known = list(section.model_fields) if section else []
    elsewhere = [f"{path}.{name}".lstrip(".") for path, other in list_sections(model) if name in other.model_fields]
    hints = [f"did you mean {close!r}?" for close in difflib.get_close_matches(name, known, 1)]
    hints += [f"there is {', '.join(elsewhere[:3])}"] if elsewhere else []
    if "." in name and _find_place(model, tuple(name.split("."))).name == name.split(".")[-1]:
        *parents, last = name.split(".")
        hints.append(f"write {': {'.join(parents)}: {{{last}: VALUE{'}' * len(parents)}")
    return "; ".join(["unknown key", *(hints or [f"there are {', '.join(known)}"])])
