"""The typed configuration: what a YAML file under config/ may say. Unknown keys are refused."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model, model_validator

from medmim.config import source_plugins
from medmim.config.base import (
    UNIQUE,
    ConfigError,
    Fault,
    Fraction,
    PathText,
    PatternPath,
    Positive,
    Revision,
    Section,
    Threads,
    make_name_check,
    make_name_schema,
    make_text_rule,
)
from medmim.config.conditions import BASELINES, CONDITIONS, Condition
from medmim.config.download import Download
from medmim.config.endpoint import Endpoint
from medmim.config.part_names import EXTERNAL_SETS, MODEL_FAMILIES, SYSTEM_MESSAGES, find_nearest
from medmim.config.question_sets import HELD_IN, PRETRAIN_SETS, QUESTION_SETS, TRAIN_ONLY
from medmim.config.question_writer import Writer
from medmim.config.source_plugins import HELD_OUT_SETS, RESERVED_SETS, SOURCES
from medmim.config.training import TinyBase, Tuning
from medmim.config.validation import Keys, read_option_texts, validate_section
from medmim.config.yaml_files import parse_yaml

HeldOutName = Annotated[str, make_name_check("held-out set", EXTERNAL_SETS), make_name_schema(EXTERNAL_SETS)]
"""Name of a module of medmim/benchmarks/external."""
FAMILY_NAMES = (*MODEL_FAMILIES, "chat", "endpoint")
FamilyName = Annotated[str, make_name_check("model family", FAMILY_NAMES), make_name_schema(FAMILY_NAMES)]
"""Name of a module of medmim/models/families, or of those that need none."""
Name = Annotated[
    str,
    make_text_rule(
        r"^[a-z0-9][a-z0-9._-]{0,99}$",
        "lower-case letters, digits, '.', '_' and '-', at most 100, of which the first is a letter or a digit",
    ),
]
EXPRESSIONS_KEY = "__use_yte__"
"""Has Snakemake compute expressions in a config file."""
RESERVED_MODELS = {*BASELINES, *CONDITIONS, *RESERVED_SETS, *HELD_IN, *TRAIN_ONLY, *HELD_OUT_SETS}
"""Names that mean something else in tables."""


def _check_model_name(name: str) -> str:
    if name in RESERVED_MODELS:
        raise ValueError("is the name of a baseline, a condition, a set or a sum of sets: give the model another")
    return name


ModelName = Annotated[Name, AfterValidator(_check_model_name)]
QuestionCount = Annotated[int, Field(ge=0, le=10_000_000)]
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
    patients: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Patients of a phantom cohort."""
    limit: Positive | None = None
    """At most so many patients of a local or downloaded source, by a hash of their ids; null takes all. Of a partial copy of
    EMBED, of those whose images are there."""
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

    def find_faults(self) -> Iterator[Fault]:
        """Yield what its origin needs and lacks, and what it would not read."""
        if self.origin == "local" and self.path is None:
            yield (), "origin local needs path: the folder that holds the source in its owner's layout"
        if self.origin == "phantom" and self.patients is None:
            yield (), "origin phantom needs patients: how many to draw"
        if self.origin == "phantom" and self.limit is not None:
            yield ("limit",), "is for real sources; a phantom cohort has as many patients as patients says"
        if self.origin == "phantom" and self.path is not None:
            yield ("path",), "is for real sources; a phantom cohort is drawn into the run's own folder: leave it out"
        if self.origin != "phantom" and self.patients is not None:
            yield ("patients",), f"is for origin phantom, and this is {self.origin}: of a real source limit takes a part"
        if self.origin != "download" and "max_missing" in self.model_fields_set:
            yield ("max_missing",), f"is for origin download, and this is {self.origin}: leave it out"


class ImagesConfig(Section):
    """How source images become 8-bit PNGs."""

    size: Annotated[int, Field(ge=1, le=65_536)] = 768
    """Longest side in pixels after downscaling; smaller images are kept as they are."""


class ReleaseConfig(Section):
    """The authors' published questions."""

    path: PatternPath | None = None
    """Your copy of the release: its clone, one of its folders Benchmark_Dataset and Instruction_Dataset or what holds them, a zip
    of these, or one JSON file. With generated questions, the benchmark's audit shows theirs beside ours."""
    url: str | None = None
    """Archive (zip or tar) of the release at a pinned commit, used where path is not set."""
    sha256: Annotated[str, make_text_rule("^[0-9a-f]{64}$", "a SHA-256: 64 of the characters 0-9 and a-f")] | None = None
    """Expected hash of the archive."""
    max_missing_images: Fraction = 0.05
    """Share of the released questions of the config's sources that may lack an image, as of a partial copy, before the run stops.
    They are left out and listed by reason in qa/rejected.parquet, as are questions of sources that the config does not have."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield half of a pinned archive."""
        if self.url and not self.sha256:
            yield (), "url needs sha256: the hash of the archive at that commit"
        if self.sha256 and not self.url:
            yield ("sha256",), "is the hash of the archive at url, and url is not set"


class _SomeCounts(Section):
    def select_wanted(self) -> dict[str, int]:
        """Return the counts above 0: a set that nobody asks for, as that of a source which is added later, changes nothing."""
        return {name: count for name, count in self.model_dump().items() if count}


SETS_BY_SPLIT = {"train": (*HELD_IN, *TRAIN_ONLY), "benchmark": (*HELD_IN, *HELD_OUT_SETS)}
"""Sets that may be asked for."""


def _count_fields(split: str, default: int | None = 0) -> dict[str, Any]:
    """Fields for the sets of a split."""
    meanings = {s.name: s.meaning for s in QUESTION_SETS} | {name: s.meaning for name, s in HELD_OUT_SETS.items()}
    return {name: (QuestionCount, Field(default, description=meanings[name])) for name in SETS_BY_SPLIT[split]}


def _check_set_names() -> None:
    """Raise ConfigError where a set that a source or a module brings has a name that is taken."""
    for name in HELD_OUT_SETS:
        if name in (*HELD_IN, *TRAIN_ONLY):
            raise ConfigError(f"held-out set {name} of source {source_plugins.list_suppliers(name)[0]}: it is a set trained on")
    taken_names = {*HELD_IN, *TRAIN_ONLY, *HELD_OUT_SETS, *RESERVED_SETS, *SOURCES}
    for name in EXTERNAL_SETS:
        if name in taken_names:
            raise ConfigError(f"medmim/benchmarks/external/{name}.py: a source or a set has that name: give the module another")


_check_set_names()
_COUNTS_MEANING = "At most how many questions of a kind; what the findings do not yield is reported, not padded."
if TYPE_CHECKING:
    TrainCounts = _SomeCounts
    BenchmarkCounts = _SomeCounts
else:
    TrainCounts = create_model("TrainCounts", __base__=_SomeCounts, __doc__=_COUNTS_MEANING, **_count_fields("train"))
    BenchmarkCounts = create_model("BenchmarkCounts", __base__=_SomeCounts, __doc__=_COUNTS_MEANING, **_count_fields("benchmark"))


class _SomeFractions(Section):
    def select_set(self) -> dict[str, float]:
        """Return the fractions that are set, by set."""
        return {name: fraction for name, fraction in self.model_dump().items() if fraction is not None}


_FRACTIONS_MEANING = "Share of open questions by set; of sets that are left out, open_fraction."
if TYPE_CHECKING:
    OpenFractions = _SomeFractions
else:
    OpenFractions = create_model(
        "OpenFractions",
        __base__=_SomeFractions,
        __doc__=_FRACTIONS_MEANING,
        **{name: (Fraction | None, field) for name, (_, field) in _count_fields("benchmark", None).items()},
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
    open_fractions: OpenFractions = OpenFractions()
    """The same by set, where it is to be another; a set has that share then, whatever open questions a writer adds."""
    option_order: Literal["shuffled", "natural"] = "shuffled"
    """Order of a closed question's options. natural, e.g. from mild to severe, is for tiny models, which have no time to learn
    to look a letter up."""
    wordings: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most wordings of a task's closed form, and of its open one; null takes all. Tiny models learn from few."""
    composed_images: Annotated[int, Field(ge=2, le=4)] = 4
    """Most images of a composed question."""
    disputed_labels: bool = False
    """Whether a label that a source's experts disagree on may be the right answer of a question, as some of MS-CXR-T's."""
    train: TrainCounts = TrainCounts()
    """Training questions."""
    benchmark: BenchmarkCounts = BenchmarkCounts()
    """Benchmark questions."""
    pretrain: QuestionCount = 0
    """Single-image and text-only questions for the demo's base models; 0 makes none."""
    writer: Writer | None = None
    """Have a language model put generated questions in other words, and add open ones; null has it write nothing."""
    max_rejected: Fraction = 0.01
    """Share of released records that may be unusable before the stage stops."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield what does not go with released questions, and what they lack."""
        if self.origin == "released" and self.pretrain:
            yield ("pretrain",), "the release has no such questions; set it to 0"
        if self.origin == "released" and self.writer:
            yield ("writer",), "it writes generated questions, and these are released; leave it out"
        if self.origin == "released" and not (self.release.path or self.release.url):
            yield (), "origin released needs release.path, a folder you have, or release.url with release.sha256"


class HeldOutConfig(Section):
    """A published benchmark to ask beside ours."""

    path: PathText | None = None
    """Folder that holds it as its authors publish it."""
    hub: str | None = None
    """Repository on the hub, used where path is not set."""
    revision: Revision | None = None
    """Commit of that repository, 40 hex digits."""
    limit: Positive | None = None
    """At most so many questions, by a hash of their ids; null takes all."""
    max_rejected: Fraction = 0.01
    """Share of questions that may be broken before the stage stops."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield a set of no place, or of two, or of a place whose content changes."""
        if (self.path is None) == (self.hub is None):
            yield (), "set exactly one of path, a folder you have, and hub, a repository to fetch"
        if (self.hub is None) != (self.revision is None):
            yield (), "hub and revision belong together: a repository's content changes, that of a commit does not"


TEMPLATE_PARTS = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "load_audio_from_video", "messages",
        "processor_kwargs", "return_assistant_tokens_mask", "return_dict", "return_tensors", "sanitize_control_tokens",
        "tokenize",
    }
)  # fmt: skip
"""What the pipeline tells a chat template itself."""


class Thinking(Section):
    """What a model of family chat may think before it replies. Only the reply is scored."""

    tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    """Most tokens of it. Then, as when the model ends it, the reply is asked for."""
    end: str = "</think>\n\n"
    """Text between it and the reply; without the spaces around it the token with which the model ends it."""


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
    """System message; empty for none. Unset: what the family's published model was trained with, which mantis has; none for a
    tiny base. A tuned model has that of its base."""
    chat: dict[str, Any] = Field(default={})
    """Arguments of the chat template of a model of family chat, such as {enable_thinking: false}."""
    thinking: Thinking | None = None
    """Let a model of family chat think before it replies; null where it replies at once."""
    tuning: Tuning | None = None
    """The recipe, for a model with a base."""

    @model_validator(mode="before")
    @classmethod
    def fill_system(cls, values: Any) -> Any:
        """Set the system message of a published model where none is set."""
        if isinstance(values, dict) and "system" not in values and (values.get("hub") or values.get("path")):
            return {**values, "system": SYSTEM_MESSAGES.get(str(values.get("family")), "")}
        return values

    def find_faults(self) -> Iterator[Fault]:
        """Yield a model of no origin, or of two, and what its origin would not read."""
        origins = [name for name in ("base", "hub", "path", "tiny", "endpoint") if getattr(self, name) is not None]
        if len(origins) != 1:
            yield (), f"set exactly one of base, hub, path, tiny, endpoint: {' and '.join(origins) or 'none of them'} is set"
        if (self.family == "endpoint") != (self.endpoint is not None):
            yield (), "family endpoint and the section endpoint belong together"
        if (self.base is None) != (self.tuning is None):
            yield (), "base and tuning belong together"
        if self.family not in MODEL_FAMILIES and (self.base or self.tiny):
            yield ("family",), f"{self.family} can predict, not be trained here; families that can: {', '.join(MODEL_FAMILIES)}"
        if self.revision and not self.hub:
            yield ("revision",), "is a commit of the repository that hub names, and hub is not set: leave it out"
        if self.base and self.system:
            yield ("system",), f"is that of its base: set it at {self.base}, or leave it out"
        yield from self._find_template_faults()

    def _find_template_faults(self) -> Iterator[Fault]:
        """Yield what only a chat template reads, of a model that has none here, and what can't be told to one."""
        for name in ("chat", "thinking"):
            if self.family != "chat" and getattr(self, name):
                remedy = "set it in endpoint.parameters, as chat_template_kwargs" if self.endpoint else "leave it out"
                yield (name,), f"is for family chat, and this is {self.family}: {remedy}"
        if fixed := sorted(self.chat.keys() & TEMPLATE_PARTS):
            yield ("chat",), f"{', '.join(fixed)} can't be set here"
        try:
            json.dumps(self.chat, allow_nan=False)
        except (TypeError, ValueError) as error:
            yield ("chat",), f"can't be recorded as JSON: {error}"


class PredictionConfig(Section):
    """Replies."""

    conditions: Annotated[list[Condition], UNIQUE] = Field(default=list(CONDITIONS), min_length=1)
    """plain: as asked. rotated: once for each further place of the options. blind: without its images. other_patient: with
    another patient's. reordered: its images moved on by one place."""
    text_likelihood: bool = True
    """Under plain also how likely a model finds the whole line of each option, not only its letter."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Questions a batch at most; replies do not depend on it."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Longest reply."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of weights and activations."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """1: each model predicts on a GPU, models side by side. 0: on the CPU."""
    threads: Threads = 1
    """CPU threads, whatever cores a node has. Replies depend on it in the last digits of likelihoods."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield that nothing is asked as it is, on which scores and controls rest."""
        if "plain" not in self.conditions:
            yield ("conditions",), "plain is not among them, and every other condition is compared with it: add it"


class ScoringConfig(Section):
    """Scores and intervals."""

    resamples: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Bootstrap resamples of patients."""
    min_open_ranked: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Sets with fewer open items are shown, not ranked."""


class CacheConfig(Section):
    """Outputs of jobs by what they depend on: what was computed before, in any run, is not computed again."""

    folder: PathText | None = "results/.cache"
    """Where they are kept; null keeps none. On the results' file system they take no further space. The environment variable
    MEDMIM_CACHE comes first."""
    limit_gb: Annotated[float, Field(gt=0, le=1_000_000_000)] = 100
    """Most gigabytes (10^9 bytes) kept; what was used longest ago goes first."""


class ReportConfig(Section):
    """The report."""

    title: str = "Med-MIM"
    """Heading of the page."""
    examples: Annotated[int, Field(ge=1, le=1000)] = 3
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
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 2025
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
    models: dict[ModelName, ModelConfig]
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

    def find_faults(self) -> Iterator[Fault]:
        """Yield what sections say that does not go together."""
        yield from self._find_source_faults()
        yield from self._find_model_faults()
        if self.qa.origin == "generated":
            yield from self._find_count_faults()
        yield from self._find_folder_faults()

    def _find_source_faults(self) -> Iterator[Fault]:
        if not self.sources:
            yield ("sources",), f"name at least one: {', '.join(SOURCES)}"
        for name, source in self.sources.items():
            yield from self._find_missing_parts(name, source.origin)
            if name in CREDENTIALED_SOURCES and source.origin != "phantom" and source.credentialed is False:
                yield (
                    ("sources", name, "credentialed"),
                    "its owner's agreement forbids passing it on, which no setting here changes; "
                    "models.NAME.endpoint.credentialed says of an endpoint that it may have it",
                )

    def _find_missing_parts(self, name: str, origin: str) -> Iterator[Fault]:
        """Yield the modules that this run needs of a source and that it lacks."""
        folder, parts = source_plugins.SOURCES_FOLDER / name, source_plugins.list_parts(name)
        if origin in ("phantom", "download") and origin not in parts:
            others = [o for o in ("phantom", "download") if o in parts]
            yield (
                ("sources", name, "origin"),
                f"{name} can't be of origin {origin}, as {folder} has no {origin}.py: "
                f"set it to {' or '.join(['local', *others])}, or add that module",
            )
        for part in ("adapter", "questions") if self.qa.origin == "generated" else ("adapter",):
            if part not in parts:
                yield ("sources", name), f"{folder} has no {part}.py; docs/extending.md tells what it must offer"

    def _find_model_faults(self) -> Iterator[Fault]:
        if not self.models:
            yield ("models",), "name at least one, such as {mantis: {family: mantis, hub: TIGER-Lab/Mantis-8B-siglip-llama3}}"
        for name, model in self.models.items():
            if model.base is None:
                continue
            if model.base not in self.models:
                hint = find_nearest(model.base, [other for other in self.models if other != name])
                yield ("models", name, "base"), f"no model {model.base!r}; {hint}"
                continue
            base = self.models[model.base]
            if base.base is not None:
                yield ("models", name, "base"), f"{model.base} is itself tuned; name the model that it is tuned from"
            if base.family != model.family:
                yield ("models", name), f"family {model.family} is not that of its base, {base.family}"

    def _find_count_faults(self) -> Iterator[Fault]:
        """Yield questions that nothing can make, and stages that have none."""
        wanted: dict[str, dict[str, int]] = {
            "train": self.qa.train.select_wanted(),
            "benchmark": self.qa.benchmark.select_wanted(),
            "pretrain": dict.fromkeys(PRETRAIN_SETS, self.qa.pretrain) if self.qa.pretrain else {},
        }
        for split, counts in wanted.items():
            for name, count in counts.items():
                suppliers = source_plugins.list_suppliers(name, split)
                if not self.sources.keys() & set(suppliers):
                    keys = ("qa", split) if split == "pretrain" else ("qa", split, name)
                    remedy = f"add {' or '.join(suppliers)} to sources, or set it to 0" if suppliers else "set it to 0"
                    yield keys, f"is {count:,}, and none of the sources has questions of {split}.{name}: {remedy}"
        if not wanted["benchmark"] and not self.heldout:
            yield ("qa", "benchmark"), "asks for no questions, so that there is nothing to ask the models: give some set a number"
        tuned = [name for name, model in self.models.items() if model.base]
        if tuned and not wanted["train"]:
            yield ("qa", "train"), f"asks for no questions, and {', '.join(tuned)} would be tuned on them: give some set a number"
        if self.qa.pretrain == 0 and any(m.tiny for m in self.models.values()):
            yield ("qa", "pretrain"), "is 0, and tiny base models need pretraining questions: the demo has 16,000"

    def _find_folder_faults(self) -> Iterator[Fault]:
        """Yield folders in which a run would mix with other files."""
        if Path(self.results).absolute() in (Path.cwd(), Path("/")):
            yield ("results",), f"{self.results!r} can't hold the runs: name a folder of their own, such as results"
        if self.cache.folder and (problem := self.describe_cache_fault(self.cache.folder)):
            yield ("cache", "folder"), problem

    def describe_cache_fault(self, folder: str) -> str | None:
        """Return what is wrong about a folder for the cache, or None."""
        try:
            cache, run = Path(folder).resolve(), Path(self.run_folder).resolve()
            if cache.is_relative_to(run) or run.is_relative_to(cache):
                return f"{folder} and the run's folder {self.run_folder} lie in one another: name another, such as results/.cache"
            with suppress(FileNotFoundError):
                cache.lstat()
        except (OSError, RuntimeError) as error:  # a name too long, a parent that may not be read, links in a circle
            return f"{folder} can't be used: {error}"
        return None

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


def parse_config(
    values: Mapping[str, Any], where: str = "config", files: Sequence[Path | str] = (), options: Mapping[str, Any] | None = None
) -> Config:
    """Check a configuration. Raises ConfigError listing every wrong key with its value, what is allowed, and a hint.

    `files` are those that the values come from: what they say twice is refused too, and lines are named. A file whose keys are
    not among the values, as that of a workflow which uses this one as a module, is another's. `options` is what the command
    line sets by --config.
    """
    own_files = [file for file in map(parse_yaml, files) if file.values.keys() - {EXPRESSIONS_KEY} <= values.keys()]
    faults = [fault for file in own_files for fault in file.faults]
    faults += [
        f"{f.path}: {EXPRESSIONS_KEY}: a config holds values, no expressions" for f in own_files if EXPRESSIONS_KEY in f.values
    ]

    def find_place(keys: Keys) -> str:
        part: Any = options
        for key in keys:
            part = part.get(key) if isinstance(part, Mapping) else None
        if part is not None:
            return "--config"
        nearest_file = max(reversed(own_files), key=lambda file: file.find_line(keys)[0], default=None)
        return nearest_file.format_place(keys) if nearest_file else ""

    values = read_option_texts(Config, values, options)
    return validate_section(Config, values, f"{where} is not a valid configuration", find_place, faults)


def load_config(path: Path | str) -> Config:
    """Read and check a YAML file. Raises ConfigError, OSError."""
    return parse_config(parse_yaml(path).values, str(path), [path])
