"""What the sections of the configuration are made of."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from medmim.common.user_paths import expand_path
from medmim.config.part_names import find_nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


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
