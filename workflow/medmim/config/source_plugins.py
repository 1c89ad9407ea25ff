"""The sources of this checkout: each folder of medmim/sources that holds a source.yaml, read without importing the source.

No code digest covers a source.yaml. Where a result depends on what it states, the rule passes that in its cfg, so that a
change computes again just what it concerns. docs/extending.md tells how to add a source.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from medmim.config.base import ConfigError, Positive, Section
from medmim.config.part_names import find_nearest

SOURCES_FOLDER = Path(__file__).parents[1] / "sources"
DESCRIPTOR_NAME = "source.yaml"
PARTS = ("adapter", "questions", "phantom", "download")
"""Modules of a source; medmim.sources.contract says what each must offer."""
RESERVED_SETS = ("held_in", "held_out", "further", "all")
"""Names of the leaderboard's sums and of all questions, which no set may bear."""
RESERVED_SERVERS = ("parallel", "retries", "pause")
"""Settings of the section download that no source may bring."""
SetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Url = Annotated[str, Field(pattern=r"^https?://[^/@?#]+(/[^@?#]*[^/@?#])?$")]
"""A server and a path on it, without a slash at the end; no login, no query."""


class Bucket(Section):
    """A bucket of S3 or of a server that speaks its protocol."""

    name: str
    """The bucket."""
    prefix: str = ""
    """What stands before all keys, with its slash."""
    region: str
    """Its AWS region."""
    endpoint: Url | None = None
    """Another server than AWS."""


class Server(Section):
    """A setting of the section download: where a source's files come from unless the config names a mirror."""

    url: Url | None = None
    """The owner's server."""
    bucket: Bucket | None = None
    """The owner's bucket, instead of url."""
    is_optional: bool = False
    """Whether the config may set it to null, which asks nobody."""
    meaning: str
    """What is fetched there, for config/README.md."""

    @model_validator(mode="after")
    def _check_one_default(self) -> "Server":
        if (self.url is None) == (self.bucket is None):
            raise ValueError("set exactly one of url and bucket")
        return self


class SuppliedSets(Section):
    """Sets that a source makes questions for, by split. Several sources may supply one set."""

    train: list[SetName] = Field(default=[])
    """Abilities, or composed. A source that trains gives a share of its patients to the benchmark, the others to training."""
    benchmark: list[SetName] = Field(default=[])
    """Abilities."""
    pretrain: list[SetName] = Field(default=[])
    """single: about one image. text: in words only."""


class HeldOutSet(Section):
    """A set of the benchmark that one source alone fills and that nothing is trained on."""

    label: str
    """Its name in the report's tables."""
    meaning: str
    """What it is, for config/README.md."""


class Terms(Section):
    """Whose a source is, and on which terms it is given. Texts are for people."""

    title: str
    """Name of the source and its owner."""
    licence: str
    """Name of the licence."""
    terms: str
    """Where the licence is stated."""
    model_terms: str
    """What it means for a model that was trained on the data."""
    is_verified: bool = False
    """Whether model_terms was written from the owner's own text, or is passed on from others."""
    access: Literal["open", "account", "application"]
    """Whom the owner gives it to."""
    credentialed: bool = False
    """Whether the owner's agreement forbids passing it on."""
    how_to_apply: str = "Nothing to do"
    """How to get it, a sentence without its full stop."""
    published_bytes: Positive | None = None
    """Size of what has to be fetched, as published; null where nobody says."""
    published: str
    """What is published of its size, and where."""


class Source(Terms):
    """What a source.yaml states."""

    order: int = 1000
    """Place among the sources in tables and lists; of equal ones the name decides."""
    servers: dict[str, Server] = Field(default={})
    """Settings of the section download that the source's download reads, by name."""
    sets: SuppliedSets = SuppliedSets()
    """Sets that it makes questions for."""
    held_out: dict[SetName, HeldOutSet] = Field(default={})
    """Sets of its own in the benchmark, by name."""

    @field_validator("servers")
    @classmethod
    def _check_server_names(cls, servers: dict[str, Server]) -> dict[str, Server]:
        if unusable := [name for name in servers if name in RESERVED_SERVERS or not name.isidentifier()]:
            raise ValueError(f"{', '.join(unusable)} can't be the name of a server: take another, such as the owner's")
        return servers

    @field_validator("held_out")
    @classmethod
    def _check_set_names(cls, held_out: dict[str, HeldOutSet]) -> dict[str, HeldOutSet]:
        if unusable := [name for name in held_out if name in RESERVED_SETS]:
            raise ValueError(f"{', '.join(unusable)} is the name of a sum of sets: take another")
        return held_out

    @model_validator(mode="after")
    def _check_some_set(self) -> "Source":
        if not self.list_sets():
            raise ValueError("sets and held_out are both empty: say which sets its questions belong to")
        return self

    def list_sets(self) -> dict[str, list[str]]:
        """Sets that it supplies, by split; splits without any are left out."""
        sets = {**self.sets.model_dump(), "benchmark": [*self.sets.benchmark, *self.held_out]}
        return {split: names for split, names in sets.items() if names}

    def describe_terms(self) -> dict[str, object]:
        """Its terms alone, as a program is passed them."""
        return self.model_dump(mode="json", include=set(Terms.model_fields))


def read_sources(folder: Path) -> dict[str, Source]:
    """Read every source.yaml one folder below `folder`; sources by name, in their order. Raises ConfigError."""
    sources = {}
    for path in sorted(folder.glob(f"*/{DESCRIPTOR_NAME}")):
        name = path.parent.name
        if not name.isidentifier():
            raise ConfigError(f"{path.parent}: a source's folder is a Python package: name it with letters, digits and _")
        try:
            sources[name] = Source.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except ValidationError as error:
            problems = [
                ".".join(map(str, e["loc"])) + f": {'unknown key' if e['type'] == 'extra_forbidden' else e['msg']}"
                for e in error.errors()
            ]
            raise ConfigError(f"{path} is not a valid description of a source:\n  " + "\n  ".join(problems)) from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from None
    sources = {name: sources[name] for name in sorted(sources, key=lambda n: (sources[n].order, n))}
    _check_owners(sources)
    return sources


def _check_owners(sources: Mapping[str, Source]) -> None:
    """Raise ConfigError where two sources claim one server's name or one held-out set."""
    server_owners: dict[str, str] = {}
    set_owners: dict[str, str] = {}
    for name, source in sources.items():
        for kind, owners, claimed in (("server", server_owners, source.servers), ("held-out set", set_owners, source.held_out)):
            for item in claimed:
                if owners.setdefault(item, name) != name:
                    raise ConfigError(
                        f"source {name}: the {kind} {item} belongs to source {owners[item]}: give it another name in "
                        f"{SOURCES_FOLDER / name / DESCRIPTOR_NAME}"
                    )
    for name, source in sources.items():
        for set_ in (s for names in source.sets.model_dump().values() for s in names):
            if set_ in set_owners:
                raise ConfigError(
                    f"source {name}: sets names {set_}, the held-out set of source {set_owners[set_]}, which it alone fills: "
                    f"leave it out of {SOURCES_FOLDER / name / DESCRIPTOR_NAME}, or declare a set of its own under held_out"
                )


SOURCES = read_sources(SOURCES_FOLDER)
"""The sources of this checkout, by name."""
HELD_OUT_SETS = {name: held_out for source in SOURCES.values() for name, held_out in source.held_out.items()}
"""The sources' held-out sets, by name, in the order of the tables."""


def find_source(name: str) -> Source:
    """The source of this name. Raises ConfigError with the nearest name where there is none."""
    if name not in SOURCES:
        hint = find_nearest(name, list(SOURCES))
        raise ConfigError(f"no source {name!r}; {hint}")
    return SOURCES[name]


@cache
def list_parts(name: str) -> tuple[str, ...]:
    """Modules that a source has, of PARTS."""
    return tuple(part for part in PARTS if (SOURCES_FOLDER / name / f"{part}.py").is_file())


def list_suppliers(set_: str) -> list[str]:
    """Sources that make questions for a set."""
    return [name for name, source in SOURCES.items() if any(set_ in sets for sets in source.list_sets().values())]
