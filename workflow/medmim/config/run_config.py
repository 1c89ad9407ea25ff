"""The typed configuration: what a YAML file under config/ may say. Unknown keys are refused."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from medmim.config import source_plugins
from medmim.config.base import ConfigError, Fraction, PathText, PatternPath, Positive, Section, make_name_check, make_name_schema
from medmim.config.conditions import CONDITIONS, Condition
from medmim.config.download import Download
from medmim.config.endpoint import Endpoint
from medmim.config.part_names import EXTERNAL_SETS, MODEL_FAMILIES, find_nearest
from medmim.config.question_sets import QUESTION_SETS
from medmim.config.question_writer import Writer
from medmim.config.source_plugins import HELD_OUT_SETS, SOURCES
from medmim.config.training import TinyBase, Tuning

HeldOutName = Annotated[str, make_name_check("held-out set", EXTERNAL_SETS), make_name_schema(EXTERNAL_SETS)]
"""Name of a module of medmim/benchmarks/external."""
FAMILY_NAMES = (*MODEL_FAMILIES, "chat", "endpoint")
FamilyName = Annotated[str, make_name_check("model family", FAMILY_NAMES), make_name_schema(FAMILY_NAMES)]
"""Name of a module of medmim/models/families, or of those that need none."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
CREDENTIALED_SOURCES = [name for name, source in SOURCES.items() if source.credentialed]
"""Sources that their owners give under an agreement not to pass them on."""
SourceName = Annotated[str, make_name_check("source", list(SOURCES)), make_name_schema(list(SOURCES))]
"""Name of a folder of medmim/sources."""


class SourceConfig(Section):
    """One source of images and facts."""

    origin: Literal["phantom", "local", "download"] = "local"
    """phantom: drawn here, synthetic. local: a folder in the owner's layout that you have. download: the owner's server, with
    your credentials; what is in the folder already is not fetched again."""
    path: PathText | None = None
    """Folder of a local or downloaded source, shared by runs; by default of a downloaded one data/NAME."""
    patients: Positive | None = None
    """Patients of a phantom cohort."""
    limit: Positive | None = None
    """At most so many patients of a local or downloaded source, by a hash of their ids; null takes all."""
    max_rejected: Fraction = 0.01
    """Share of files or rows that may be broken before the stage stops."""
    max_missing: Fraction = 0.01
    """Share of the files of a downloaded source that the owner may no longer have before the stage stops."""
    credentialed: bool | None = Field(
        default=None,
        description="Whether its images and texts may only go where it is said that they may: to endpoints with credentialed: "
        "true, and into exports with export.credentialed: true. By default true of "
        f"{' and '.join(CREDENTIALED_SOURCES)} unless phantom, as their owners' agreements forbid passing them on: these can't "
        "be set to false. Else false.",
    )

    @model_validator(mode="after")
    def _check_complete(self) -> "SourceConfig":
        if self.origin == "local" and self.path is None:
            raise ValueError("origin local needs path: the folder that holds the source in its owner's layout")
        if self.origin == "phantom" and self.patients is None:
            raise ValueError("origin phantom needs patients: how many to draw")
        if self.origin == "phantom" and self.limit is not None:
            raise ValueError("limit is for real sources; a phantom cohort has as many patients as patients says")
        return self


class ImagesConfig(Section):
    """How source images become 8-bit PNGs."""

    size: Positive = 768
    """Longest side in pixels after downscaling; smaller images are kept as they are."""


class ReleaseConfig(Section):
    """The authors' published questions."""

    path: PathText | None = None
    """Folder that holds the release's JSON files. With generated questions, the benchmark's audit shows theirs beside ours."""
    url: str | None = None
    """Archive (zip or tar) of the release at a pinned commit, used where path is not set."""
    sha256: str | None = None
    """Expected hash of the archive."""

    @model_validator(mode="after")
    def _check_complete(self) -> "ReleaseConfig":
        if self.url and not self.sha256:
            raise ValueError("url needs sha256: the hash of the archive at that commit")
        return self


class _SomeCounts(Section):
    def select_wanted(self) -> dict[str, int]:
        """Return the counts above 0: a set that nobody asks for, as that of a source which is added later, changes nothing."""
        return {name: count for name, count in self.model_dump().items() if count}


def _count_fields() -> dict[str, Any]:
    """Fields for the sets that are trained on and for the held-out sets of all sources."""
    meanings = {s.name: s.meaning for s in QUESTION_SETS}
    if taken := [name for name in HELD_OUT_SETS if name in meanings]:
        owner = source_plugins.list_suppliers(taken[0])[0]
        raise ConfigError(f"held-out set {taken[0]} of source {owner}: it is a set trained on")
    meanings |= {name: held_out.meaning for name, held_out in HELD_OUT_SETS.items()}
    return {name: (int, Field(0, description=meaning)) for name, meaning in meanings.items()}


if TYPE_CHECKING:
    QuestionCounts = _SomeCounts
else:
    QuestionCounts = create_model(
        "QuestionCounts",
        __base__=_SomeCounts,
        __doc__="At most how many questions of a kind; what the findings do not yield is reported, not padded.",
        **_count_fields(),
    )


class QAConfig(Section):
    """Questions."""

    origin: Literal["generated", "released"] = "generated"
    """generated: by templates from findings. released: the authors' files."""
    release: ReleaseConfig = ReleaseConfig()
    """Where the authors' files are."""
    benchmark_fraction: Fraction = 0.2
    """Share of the held-in sources' patients, by a hash of their id, whose questions make the benchmark."""
    open_fraction: Fraction = 0.1
    """Share of open questions in a set, where the task has an open form."""
    option_order: Literal["shuffled", "natural"] = "shuffled"
    """Order of a closed question's options. natural, e.g. from mild to severe, is for tiny models, which have no time to learn
    to look a letter up."""
    wordings: Positive | None = None
    """Most wordings of a task's closed form, and of its open one; null takes all. Tiny models learn from few."""
    composed_images: Annotated[int, Field(ge=2, le=4)] = 4
    """Most images of a composed question."""
    train: QuestionCounts = QuestionCounts()
    """Training questions."""
    benchmark: QuestionCounts = QuestionCounts()
    """Benchmark questions."""
    pretrain: int = 0
    """Single-image and text-only questions for the demo's base models; 0 makes none."""
    writer: Writer | None = None
    """Have a language model put generated questions in other words, and add open ones; null has it write nothing."""
    max_rejected: Fraction = 0.01
    """Share of released records that may be unusable before the stage stops."""

    @model_validator(mode="after")
    def _check_complete(self) -> "QAConfig":
        if self.origin == "released" and self.pretrain:
            raise ValueError("pretrain: the release has no such questions; set it to 0")
        if self.origin == "released" and self.writer:
            raise ValueError("writer: it writes generated questions, and these are released; leave it out")
        if self.origin == "released" and not (self.release.path or self.release.url):
            raise ValueError("origin released needs release.path, a folder you have, or release.url with release.sha256")
        return self


class HeldOutConfig(Section):
    """A published benchmark to ask beside ours."""

    path: PathText | None = None
    """Folder that holds it as its authors publish it."""
    hub: str | None = None
    """Repository on the hub, used where path is not set."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of that repository, 40 hex digits."""
    limit: Positive | None = None
    """At most so many questions, by a hash of their ids; null takes all."""
    max_rejected: Fraction = 0.01
    """Share of questions that may be broken before the stage stops."""

    @model_validator(mode="after")
    def _check_complete(self) -> "HeldOutConfig":
        if (self.path is None) == (self.hub is None):
            raise ValueError("set exactly one of path, a folder you have, and hub, a repository to fetch")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision belong together: a repository's content changes, that of a commit does not")
        return self


class ModelConfig(Section):
    """A model to be scored."""

    family: FamilyName
    """Prompt layout and image preprocessing. chat: the model's own processor and chat template. endpoint: a service's."""
    base: Name | None = None
    """Name of the model this one is tuned from; unset for models taken as they are."""
    hub: str | None = None
    """Repository on the hub."""
    revision: str | None = None
    """Commit of that repository."""
    path: PathText | None = None
    """Local folder with the model, instead of hub."""
    tiny: TinyBase | None = None
    """Make a small synthetic base of this family here, instead of hub or path."""
    endpoint: Endpoint | None = None
    """Ask a service, instead of hub or path."""
    system: str = ""
    """System message; empty for none."""
    tuning: Tuning | None = None
    """The recipe, for a model with a base."""

    @model_validator(mode="after")
    def _check_complete(self) -> "ModelConfig":
        if sum(x is not None for x in (self.base, self.hub, self.path, self.tiny, self.endpoint)) != 1:
            raise ValueError("set exactly one of base, hub, path, tiny, endpoint")
        if (self.family == "endpoint") != (self.endpoint is not None):
            raise ValueError("family endpoint and the section endpoint belong together")
        if (self.base is None) != (self.tuning is None):
            raise ValueError("base and tuning belong together")
        return self


class PredictionConfig(Section):
    """Replies."""

    conditions: list[Condition] = Field(default=list(CONDITIONS), min_length=1)
    """plain: as asked. rotated: once for each further place of the options. blind: without its images. other_patient: with
    another patient's. reordered: its images moved on by one place."""
    text_likelihood: bool = True
    """Under plain also how likely a model finds the whole line of each option, not only its letter."""
    batch: Positive = 8
    """Questions a batch at most; replies do not depend on it."""
    max_new_tokens: Positive = 64
    """Longest reply."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of weights and activations."""
    gpus: int = 0
    """GPUs of the job; 0 predicts on the CPU."""
    threads: Positive = 1
    """CPU threads."""


class ScoringConfig(Section):
    """Scores and intervals."""

    resamples: Positive = 10_000
    """Bootstrap resamples of patients."""
    min_open_ranked: Positive = 100
    """Sets with fewer open items are shown, not ranked."""


class CacheConfig(Section):
    """Outputs of jobs by what they depend on: what was computed before, in any run, is not computed again."""

    folder: PathText | None = "results/.cache"
    """Where they are kept; null keeps none. On the results' file system they take no further space. The environment variable
    MEDMIM_CACHE comes first."""
    limit_gb: Annotated[float, Field(gt=0)] = 100
    """Most gigabytes (10^9 bytes) kept; what was used longest ago goes first."""


class ReportConfig(Section):
    """The report."""

    title: str = "Med-MIM"
    """Heading of the page."""
    examples: Positive = 3
    """Examples a set."""
    paper: PatternPath | None = None
    """File with the paper's own figures, as you filled it in; without it the report says "not available"."""


class ExportConfig(Section):
    """The benchmark and the instruction set for others' tools."""

    credentialed: bool = False
    """Write questions and images of credentialed sources too, for those who may have them: the export is not to be passed on."""
    images: bool = True
    """Put its images into the instruction set; else its questions only name them. The benchmark always has them."""


class Config(Section):
    """One run. Artifacts go to <results>/<run>."""

    run: Name
    """Name of the run."""
    results: PatternPath = "results"
    """Folder of all runs."""
    seed: int = 2025
    """Seed of everything drawn by chance."""
    sources: dict[SourceName, SourceConfig] = Field(description=f"The sources to use, by name: {', '.join(SOURCES)}.")
    download: Download = Download()
    """Where sources of origin download come from."""
    images: ImagesConfig = ImagesConfig()
    """Image normalisation."""
    qa: QAConfig = QAConfig()
    """Questions."""
    heldout: dict[HeldOutName, HeldOutConfig] = Field(
        default={},
        description=f"Further held-out sets, by name: {', '.join(EXTERNAL_SETS)}. They are asked and shown on their own, in no "
        "sum.",
    )
    models: dict[Name, ModelConfig]
    """The models to score, by name."""
    prediction: PredictionConfig = PredictionConfig()
    """How replies are made."""
    scoring: ScoringConfig = ScoringConfig()
    """How scores are made."""
    report: ReportConfig = ReportConfig()
    """The report."""
    export: ExportConfig = ExportConfig()
    """The benchmark and the instruction set for others' tools."""
    cache: CacheConfig = CacheConfig()
    """What is kept of jobs for other runs."""

    @model_validator(mode="after")
    def _check_consistent(self) -> "Config":
        if not self.sources:
            raise ValueError("sources: name at least one")
        for source_name, source in self.sources.items():
            self._check_source_parts(source_name, source.origin)
            if source_name in CREDENTIALED_SOURCES and source.origin != "phantom" and source.credentialed is False:
                raise ValueError(
                    f"sources.{source_name}.credentialed: its owner's agreement forbids passing it on, which no setting "
                    "here changes; "
                    "models.NAME.endpoint.credentialed says of an endpoint that it may have it"
                )
        for name, model in self.models.items():
            if model.base is None:
                continue
            if model.base not in self.models:
                raise ValueError(f"models.{name}.base: no model {model.base!r}; {find_nearest(model.base, list(self.models))}")
            base = self.models[model.base]
            if base.base is not None:
                raise ValueError(f"models.{name}.base: {model.base} is itself tuned")
            if base.family != model.family:
                raise ValueError(f"models.{name}: family {model.family} is not that of its base, {base.family}")
        if self.qa.pretrain == 0 and any(m.tiny for m in self.models.values()):
            raise ValueError("qa.pretrain: tiny base models need pretraining questions")
        return self

    def _check_source_parts(self, name: str, origin: str) -> None:
        """Raise ValueError where a source lacks a module that this run needs of it."""
        folder, parts = source_plugins.SOURCES_FOLDER / name, source_plugins.list_parts(name)
        if origin in ("phantom", "download") and origin not in parts:
            others = [o for o in ("phantom", "download") if o in parts]
            raise ValueError(
                f"sources.{name}.origin: {name} can't be of origin {origin}, as {folder} has no {origin}.py: "
                f"set it to {' or '.join(['local', *others])}, or add that module"
            )
        for part in ("adapter", "questions") if self.qa.origin == "generated" else ("adapter",):
            if part not in parts:
                raise ValueError(f"sources.{name}: {folder} has no {part}.py; docs/extending.md tells what it must offer")

    @property
    def run_folder(self) -> str:
        """Folder of the run's artifacts."""
        return f"{self.results}/{self.run}"

    @property
    def held_out_labels(self) -> list[list[str]]:
        """Name and label of the sources' held-out sets that may be in the benchmark, in the order of the tables.

        Part of the cfg of each program that reads source_plugins.HELD_OUT_SETS, as no code digest covers a source.yaml.
        """
        names = self.sources if self.qa.origin == "generated" else SOURCES
        return [[s, told.label] for name in SOURCES if name in names for s, told in SOURCES[name].held_out.items()]

    @property
    def credentialed_sources(self) -> list[SourceName]:
        """Sources whose images and texts may only go where that is said to be allowed."""
        return [
            name
            for name, source in self.sources.items()
            if source.credentialed
            or (source.credentialed is None and source.origin != "phantom" and name in CREDENTIALED_SOURCES)
        ]


def _allowed_keys(loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the section at `loc`; keys of a mapping are passed over."""
    section: Any = Config
    for key in loc:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(key)].annotation
        else:  # dict[Name, Section] or Section | None
            section = next((a for a in get_args(section) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if get_origin(section) is not dict and get_args(section):
            section = next((a for a in get_args(section) if isinstance(a, type) and issubclass(a, BaseModel)), None)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def parse_config(values: dict[str, Any], where: str = "config") -> Config:
    """Check a configuration. Raises ConfigError listing every wrong key with its path and the nearest right one."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            path = ".".join(str(p) for p in e["loc"] if p != "[key]")
            message = e["msg"].removeprefix("Value error, ")
            if e["type"] == "extra_forbidden":
                close_matches = difflib.get_close_matches(str(e["loc"][-1]), _allowed_keys(e["loc"][:-1]), 1)
                message = "unknown key" + (f"; did you mean {close_matches[0]!r}?" if close_matches else "")
            lines.append(f"  {path}: {message}" if path else f"  {message}")
        raise ConfigError(f"{where} is not a valid configuration:\n" + "\n".join(lines)) from None


def load_config(path: Path | str) -> Config:
    """Read and check a YAML file. Raises ConfigError, FileNotFoundError."""
    return parse_config(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}, str(path))
