"""What the sections of the configuration are made of."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from medmim.config.part_names import find_nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class ConfigError(ValueError):
    """A configuration, or a description of a source, that can't be used; the message says where and what to do."""


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused, each field documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
