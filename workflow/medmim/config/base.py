"""What the sections of the configuration are made of."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from medmim.common.user_paths import expand_path
from medmim.config.part_names import find_nearest

# Every number has a lowest and a highest value: the highest is far above any use, and refuses a slip of the keyboard.
Fraction = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Threads = Annotated[int, Field(ge=1, le=1024)]

_EXPONENT_PATTERN = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+")

Fault = tuple[tuple[str, ...], str]
"""A fault of a section: the keys that lead from the section to it, none for the section itself, and what is wrong."""
FAULTS = "section_faults"
"""Type of pydantic's error that carries a section's faults."""


def check_braces(path: str) -> str:
    """Return a path that an input or output of a rule begins with. Raises ValueError for one that Snakemake would take apart."""
    if "{" in path or "}" in path:
        raise ValueError(f"{path!r} holds a brace, which Snakemake takes for a wildcard: choose a name without")
    return path


PathText = Annotated[str, AfterValidator(expand_path)]
"""A path of the user's."""
PatternPath = Annotated[PathText, AfterValidator(check_braces)]
"""A path of the user's that rules name as input or output."""


class ConfigError(ValueError):
    """A configuration, or a description of a source, that can't be used; the message says where and what to do."""


def list_value_types(annotation: Any) -> set[Any]:
    """Types that a field's value may have: of a union all members, of a Literal those of its values, of list[int] list."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return list_value_types(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if origin in (dict, list, None):
        return {origin or annotation}
    return {inner for argument in get_args(annotation) for inner in list_value_types(argument)}


class Section(BaseModel):
    """Base of every section: frozen, unknown keys and other types refused, each field documented."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_yaml_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take: true for 1, empty text. Read 1e-4, which is text to YAML 1.1, as a number."""
        field = cls.model_fields[str(info.field_name)]
        types = list_value_types(field.annotation)
        if isinstance(value, bool) and not types & {bool, Any}:
            raise PydanticCustomError("bool_refused", "true and false are not among its values")
        if isinstance(value, str):
            if types & {float} and _EXPONENT_PATTERN.fullmatch(value):
                return float(value)
            if "\0" in value:
                raise ValueError("holds a null character, which no text or path may")
            if not value.strip() and field.default != "":
                raise ValueError("is empty: give a value, or leave the key out")
        return value

    @model_validator(mode="after")
    def _refuse_faults(self) -> Self:
        if faults := list(self.find_faults()):
            text = "; ".join(": ".join(filter(None, (".".join(keys), message))) for keys, message in faults)
            raise PydanticCustomError(FAULTS, "{text}", {"text": text, "faults": faults})
        return self

    def find_faults(self) -> Iterator[Fault]:
        """Yield what is wrong about the keys together; called once each of them is right by itself."""
        yield from ()


def make_name_check(kind: str, known: Sequence[str]) -> AfterValidator:
    """Return the check that a setting names one of some parts; its error has the nearest right name."""

    def check_name(name: str) -> str:
        if name not in known:
            raise ValueError(f"no {kind} {name!r}; {find_nearest(name, known)}")
        return name

    return AfterValidator(check_name)


def make_name_schema(known: Sequence[str]) -> WithJsonSchema:
    """Return the schema for editors of a setting that names one of some parts."""
    return WithJsonSchema({"enum": list(known), "type": "string"})


PATTERN_MEANINGS: dict[str, str] = {}
"""Patterns of texts in words, for messages."""


def make_text_rule(pattern: str, meaning: str) -> Any:
    """Return the rule that a text fits a pattern, which people are told in words."""
    PATTERN_MEANINGS[pattern] = meaning
    return Field(pattern=pattern)


Revision = Annotated[str, make_text_rule("^[0-9a-f]{40}$", "a commit: 40 of the characters 0-9 and a-f")]


def _refuse_repetition(values: list[Any]) -> list[Any]:
    if repeated := [str(value) for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{', '.join(dict.fromkeys(repeated))} appears twice: name each once")
    return values


UNIQUE = AfterValidator(_refuse_repetition)
"""For lists: each of its values once."""
