"""The sources of this checkout: each folder of medmim/sources that holds a source.yaml, read without importing the source.

No code digest covers a source.yaml. Where a result depends on what it states, the rule passes that in its cfg, so that a
change computes again just what it concerns. docs/extending.md tells how to add a source.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medmim.config.base import UNIQUE, ConfigError, Fault, Section, make_text_rule
from medmim.config.part_names import find_nearest
from medmim.config.question_sets import HELD_IN, PRETRAIN_SETS, TRAIN_ONLY
from medmim.config.validation import validate_section
from medmim.config.yaml_files import parse_yaml

SOURCES_FOLDER = Path(__file__).parents[1] / "sources"
DESCRIPTOR_NAME = "source.yaml"
PARTS = ("adapter", "questions", "phantom", "download")
"""Modules of a source; medmim.sources.contract says what each must offer."""
RESERVED_SETS = ("held_in", "held_out", "further", "all")
"""Names of the leaderboard's sums and of all questions, which no set may bear."""
RESERVED_SERVERS = ("parallel", "retries", "pause")
"""Settings of the section download that no source may bring."""
RESERVED_SOURCES = ("train", "benchmark", "pretrain", "rejected", "heldout", "copies")
"""Names of the tables of questions beside those of the sources, which no source may bear."""
SetName = Annotated[str, make_text_rule(r"^[a-z][a-z0-9_]*$", "lower-case letters, digits and _, of which the first is a letter")]
Url = Annotated[
    str,
    make_text_rule(
        r"^https?://[^/@?#]+(/[^@?#]*[^/@?#])?$",
        "a URL that begins with https:// or http://, without a slash at the end, a login, a query or a fragment",
    ),
]
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

    def find_faults(self) -> Iterator[Fault]:
        """Yield a server of no place, or of two."""
        if (self.url is None) == (self.bucket is None):
            yield (), "set exactly one of url and bucket"


class SuppliedSets(Section):
    """Sets that a source makes questions for, by split. Several sources may supply one set."""

    train: Annotated[list[SetName], UNIQUE] = Field(default=[])
    """Abilities, or composed. A source that trains gives a share of its patients to the benchmark, the others to training."""
    benchmark: Annotated[list[SetName], UNIQUE] = Field(default=[])
    """Abilities."""
    pretrain: Annotated[list[SetName], UNIQUE] = Field(default=[])
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
    published_bytes: Annotated[int, Field(ge=1, le=10**18)] | None = None
    """Size of what has to be fetched, as published; null where nobody says."""
    published: str
    """What is published of its size, and where."""


class Source(Terms):
    """What a source.yaml states."""

    order: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """Place among the sources in tables and lists; of equal ones the name decides."""
    servers: dict[str, Server] = Field(default={})
    """Settings of the section download that the source's download reads, by name."""
    sets: SuppliedSets = SuppliedSets()
    """Sets that it makes questions for."""
    held_out: dict[SetName, HeldOutSet] = Field(default={})
    """Sets of its own in the benchmark, by name."""
    counted_findings: Annotated[list[str], UNIQUE] = Field(default=[])
    """Findings whose values the report counts, by name or by the part of it before a colon."""
    patients_of: SetName | None = None
    """Another source whose patients these are, by the same ids: a patient is then on one side of the split for both."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield names that it can't give, and that it has no set."""
        for name in self.servers:
            if name in RESERVED_SERVERS or not name.isidentifier():
                yield ("servers", name), f"{name} can't be the name of a server: take another, such as the owner's"
        for name in self.held_out:
            if name in RESERVED_SETS:
                yield ("held_out", name), f"{name} is the name of a sum of sets: take another"
        if not self.list_sets():
            yield (), "sets and held_out are both empty: say which sets its questions belong to"

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
        if name in RESERVED_SOURCES:
            raise ConfigError(f"{path.parent}: {name} is the name of a table of questions: give the source another")
        file = parse_yaml(path)
        title = f"{path} is not a valid description of a source"
        sources[name] = validate_section(Source, file.values, title, file.format_place, file.faults)
    sources = {name: sources[name] for name in sorted(sources, key=lambda n: (sources[n].order, n))}
    _check_owners(sources)
    _check_sets_exist(folder, sources)
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
        if source.patients_of and source.patients_of not in sources.keys() - {name}:
            raise ConfigError(
                f"{SOURCES_FOLDER / name / DESCRIPTOR_NAME}: patients_of: {source.patients_of} is not another source; "
                f"{find_nearest(source.patients_of, list(sources.keys() - {name}))}"
            )
    for name, source in sources.items():
        for set_ in (s for names in source.sets.model_dump().values() for s in names):
            if set_ in set_owners:
                raise ConfigError(
                    f"source {name}: sets names {set_}, the held-out set of source {set_owners[set_]}, which it alone fills: "
                    f"leave it out of {SOURCES_FOLDER / name / DESCRIPTOR_NAME}, or declare a set of its own under held_out"
                )


def _check_sets_exist(folder: Path, sources: Mapping[str, Source]) -> None:
    """Raise ConfigError where a source declares a set that its split does not have."""
    known_sets = {"train": (*HELD_IN, *TRAIN_ONLY), "benchmark": HELD_IN, "pretrain": PRETRAIN_SETS}
    for name, source in sources.items():
        for split, sets in source.sets.model_dump().items():
            for set_ in sets:
                if set_ not in known_sets[split]:
                    raise ConfigError(
                        f"{folder / name / DESCRIPTOR_NAME}: sets.{split}: {split} has no set {set_!r}; "
                        f"{find_nearest(set_, known_sets[split])}"
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


def list_suppliers(set_: str, split: str | None = None) -> list[str]:
    """Sources that make questions for a set, in any split or in one."""
    sets_by_source = {name: source.list_sets() for name, source in SOURCES.items()}
    return [
        name
        for name, sets_by_split in sets_by_source.items()
        if any(set_ in sets for part, sets in sets_by_split.items() if split in (None, part))
    ]
