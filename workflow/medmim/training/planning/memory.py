"""What a training will take, before it is queued: memory of each GPU, steps, floating-point operations, hours. No torch here.

Exact are the counts: parameters, FLOPs, gradients, optimizer states, and what a layer keeps for its backward pass. What the
allocator, CUDA and the collectives take besides is a stated allowance, and so are the lengths of samples that are not made yet
and the share of its peak that a GPU reaches.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmim.common.errors import UserError
from medmim.config.training import Tuning
from medmim.training.planning.architecture import Architecture, Language, UnknownArchitecture, found
from medmim.training.planning.gpu_types import Gpu

GIB = 1 << 30
BYTES = {"bf16": 2, "fp32": 4}
MASTER, MOMENTS = 4, 8
"""Bytes a trained weight of DeepSpeed's copy in float32, and of AdamW's two moments."""
BUCKET = 500_000_000
"""Numbers in the buffer in which DeepSpeed reduces gradients: its reduce_bucket_size, which no recipe changes."""
LIVE = 1_000_000_000
"""Most weights that ZeRO-3 has gathered at a time: DeepSpeed's stage3_max_live_parameters."""
RESERVE = 4 * GIB
"""Allowed for what no count here has: the CUDA context, NCCL's and cuBLAS's buffers, and memory lost between blocks. Ours."""
UTILISATION = 0.40
"""Share of its peak at which a GPU is taken to compute. Published for LoRA of Llama-3-8B, text only, on one H100: 402 of 989
TFLOP/s (NVIDIA NeMo AutoModel's benchmark). An assumption for anything else."""
FILL = 0.97
"""Share of a pack's tokens that samples are taken to fill."""

IMAGES = {"temporal": 2.14, "reasoning": 2.0, "comparison": 2.0, "coreference": 2.49, "composed": 2.0}
"""Images a question: means of the authors' benchmark files; of the composed ones, which are not published, a guess."""
PAPER = {"temporal": 9000, "reasoning": 4400, "comparison": 3200, "coreference": 12000, "composed": 54600}
"""The paper's questions, taken where the config asks for no number of them: the authors' release is used."""
TEXT, LABELS, LONGEST_TEXT, MOST_IMAGES = 130, 60, 1024, 3
"""Of samples that are not made yet: tokens of text, of these labels, most of text, most images. Assumed."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The samples of one epoch, in sums."""

    samples: int
    tokens: float
    """After expansion of the image tokens."""
    images: float
    labels: float
    squares: float
    """Squared tokens of each sample: what attention grows with."""
    longest: int
    """Tokens of the longest sample."""
    measured: bool
    """Whether these are the samples themselves, or what is expected of the questions asked for."""


def expected(questions: Mapping[str, int], image_tokens: int) -> Workload:
    """Of the numbers of training questions by set, for a model to which an image is `image_tokens`."""
    count = {name: n for name, n in questions.items() if name in IMAGES and n} or PAPER
    lengths = {name: IMAGES[name] * image_tokens + TEXT for name in count}
    return Workload(
        samples=sum(count.values()),
        tokens=sum(n * lengths[name] for name, n in count.items()),
        images=sum(n * IMAGES[name] for name, n in count.items()),
        labels=LABELS * sum(count.values()),
        squares=sum(n * lengths[name] ** 2 for name, n in count.items()),
        longest=MOST_IMAGES * image_tokens + LONGEST_TEXT,
        measured=False,
    )


def measured(samples: Path) -> Workload:
    """Of a samples table. Raises TableError."""
    import pyarrow.compute as pc

    from medmim.tables import table_io

    table = table_io.read(samples, "samples", ["labels", "image_ids", "length"])
    length = table.column("length")
    labels = pc.list_flatten(table.column("labels"))
    return Workload(
        samples=len(table),
        tokens=pc.sum(length).as_py() or 0,
        images=pc.sum(pc.list_value_length(table.column("image_ids"))).as_py() or 0,
        labels=pc.sum(pc.greater_equal(labels, 0)).as_py() or 0,
        squares=pc.sum(pc.multiply(length, length)).as_py() or 0,
        longest=pc.max(length).as_py() or 0,
        measured=True,
    )


def by_lora(tuning: Tuning) -> bool:
    """Whether the language model is trained by LoRA, or in full."""
    return tuning.method == "lora"


def pack(tuning: Tuning) -> int | None:
    """Most tokens of a pack; None where samples are padded to a rectangle instead."""
    return tuning.budget if tuning.packing else None


def trained(architecture: Architecture, tuning: Tuning) -> int:
    """Weights that are trained: projector, and LoRA's or the language model's own."""
    language = architecture.language
    return architecture.projector + (language.lora(tuning.lora_rank) if by_lora(tuning) else language.parameters)


# Floating-point operations -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOPs of some samples, forward and backward: products of matrices, 2 for each multiplication and its addition."""

    language: float
    """Linear maps of the layers, LoRA's, and the head where a label follows."""
    attention: float
    """Within each sample, every pair of positions counted."""
    projector: float
    vision: float
    recomputed: float
    """The layers' second forward pass where activations are not kept."""

    @property
    def model(self) -> float:
        """What the training needs; causal attention needs half of the pairs."""
        return self.language + self.attention / 2 + self.projector + self.vision

    @property
    def executed(self) -> float:
        """With what is computed a second time."""
        return self.model + self.recomputed


def flops(architecture: Architecture, tuning: Tuning, *, tokens: float, images: float, labels: float, squares: float) -> Flops:
    """Of samples with so many tokens, images, labels and squared tokens in all.

    A frozen map costs 2 FLOPs a weight and token forward and 2 backward, to its input; a trained one 2 more, to its weights.
    """
    language, tower = architecture.language, architecture.tower
    lora = language.lora(tuning.lora_rank) if by_lora(tuning) else 0
    layers, head = language.layers * language.layer, language.head
    passes = 2 if by_lora(tuning) else 3
    attention = language.attention(squares)
    first, second = tower.width * language.width, language.width**2
    last = language.width * (tuning.lora_rank if by_lora(tuning) else language.mlp)  # torch stops before a layer's last product
    again = 2 * tokens * (layers + lora - language.layers * last) + attention / 2 if tuning.gradient_checkpointing else 0
    return Flops(
        language=2 * tokens * (passes * layers + 3 * lora) + 2 * labels * passes * head,
        attention=3 * attention,
        projector=2 * images * architecture.image_tokens * (2 * first + 3 * second),  # the tower's features need no gradient
        vision=images * tower.flops,
        recomputed=again,
    )


# Memory ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a process computes at a time, at most: a pack, or a rectangle of samples."""

    tokens: int
    images: int
    labels: int


def largest(architecture: Architecture, tuning: Tuning, workload: Workload) -> Batch:
    """The largest batch that may come: full of tokens, these of images, and twice the usual share of labels."""
    tokens = pack(tuning) or tuning.batch * min(tuning.max_length, workload.longest)
    labels = 2 * workload.labels / max(workload.tokens, 1)
    return Batch(tokens=tokens, images=tokens // architecture.image_tokens, labels=math.ceil(tokens * labels))


def kept_by_layer(language: Language, tuning: Tuning) -> int:
    """Bytes that one layer keeps for its backward pass, a token.

    As transformers writes a layer: norms in float32, products and activations of the MLP one by one, attention by a kernel
    that keeps its inputs, its output and a sum. A frozen map keeps nothing; one with LoRA its adapter's input, after a dropout
    of its own, with the dropout's mask.
    """
    b, w, m = BYTES[tuning.precision], language.width, language.mlp
    wide, narrow = language.heads * language.head_width, language.kv_heads * language.head_width
    kept = 2 * (4 * w + 4) + b * (2 * wide + 2 * narrow) + 4 * language.heads + 3 * b * m
    own = sum(inputs for inputs, _ in language.linears.values())
    shared = 2 * w + wide + m  # the inputs of q, k, v are one tensor, and so are those of gate and up
    if not by_lora(tuning):
        return kept + b * shared + 2 * b * w  # and what a norm's weights are multiplied with
    ranks = len(language.linears) * b * tuning.lora_rank
    if tuning.lora_dropout:
        return kept + ranks + (b + 1) * own
    return kept + ranks + b * (own if _autocast(tuning) else shared)


def _autocast(tuning: Tuning) -> bool:
    """Whether trained weights are in float32 and cast where they are used: bf16 without DeepSpeed."""
    return tuning.precision == "bf16" and not tuning.zero_stage


def kept(architecture: Architecture, tuning: Tuning, batch: Batch) -> int:
    """Bytes kept at the end of the language model's layers, for the backward pass."""
    language, tower = architecture.language, architecture.tower
    b, w = BYTES[tuning.precision], language.width
    a_layer = b * w if tuning.gradient_checkpointing else kept_by_layer(language, tuning)
    ends = 4 * w + 4 + 2 * b * language.head_width  # the last norm; cosines and sines of the positions
    projected = b * tower.width + 2 * b * w
    casts = b * trained(architecture, tuning) if _autocast(tuning) else 0
    return batch.tokens * (language.layers * a_layer + ends) + batch.images * architecture.image_tokens * projected + casts


def activations(architecture: Architecture, tuning: Tuning, batch: Batch) -> int:
    """Most bytes beside weights, gradients and optimizer at any time of a forward and backward pass."""
    language, tower = architecture.language, architecture.tower
    b = BYTES[tuning.precision]
    head = batch.labels * (b * language.width + language.vocabulary * (2 * b + 12))  # logits, in float32, and their gradients
    backward = batch.tokens * b * (2 * language.mlp + 3 * language.width)
    if tuning.gradient_checkpointing:
        backward += batch.tokens * kept_by_layer(language, tuning)
    vision = batch.images * tower.tokens * tower.width * b * (tower.layers + 1)
    return max(kept(architecture, tuning, batch) + max(head, backward), vision)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process, on its GPU."""

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    """In which gradients are reduced, and ZeRO-3's gathered weights."""
    working: int
    """Activations, or what the optimizer's step takes, whichever is more."""
    reserve: int = RESERVE

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.buffers + self.working + self.reserve


def memory(architecture: Architecture, tuning: Tuning, batch: Batch) -> Memory:
    """Of each of the processes of a recipe."""
    b, world, stage = BYTES[tuning.precision], tuning.world, tuning.zero_stage
    own = trained(architecture, tuning)
    frozen = architecture.parameters - (0 if by_lora(tuning) else own)  # peft trains a copy of the projector
    working = activations(architecture, tuning, batch)
    if not stage:  # trained weights in float32, and DistributedDataParallel's buckets as large as all gradients
        return Memory(
            weights=b * frozen + 4 * own,
            gradients=4 * own,
            optimizer=MOMENTS * own,
            buffers=4 * own if world > 1 else 0,
            working=max(working, 4 * own),
        )
    share = own / world
    return Memory(
        weights=int(b * (frozen + own) / (world if stage == 3 else 1)),
        gradients=int(b * (own if stage == 1 else share)),
        optimizer=int((MASTER + MOMENTS) * share),
        buffers=b * BUCKET + (b * min(LIVE, architecture.parameters) if stage == 3 else 0),
        working=max(working, int(2 * 4 * share)),  # the step's gradients in float32, and AdamW's temporary
    )


# The plan ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training, planned."""

    architecture: Architecture
    tuning: Tuning
    workload: Workload
    batch: Batch
    memory: Memory
    batches: int
    """Packs, or rectangles, of an epoch."""
    steps: int
    flops: Flops
    """Of the whole training."""

    @property
    def tokens(self) -> float:
        """Real tokens of the whole training."""
        return self.steps * self.tuning.accumulation * self.tuning.world * self.workload.tokens / self.batches

    def gpu_hours(self, gpu: Gpu, utilisation: float = UTILISATION) -> float:
        """On GPUs of that type, which compute at `utilisation` of their peak."""
        return self.flops.executed / (gpu.peak * utilisation) / 3600


def plan(architecture: Architecture, tuning: Tuning, workload: Workload) -> Plan:
    """The plan of a recipe."""
    room = pack(tuning)
    batches = math.ceil(workload.tokens / (room * FILL) if room else workload.samples / tuning.batch)
    a_step = tuning.accumulation * tuning.world
    steps = tuning.max_steps or max(1, math.ceil(batches * tuning.epochs / a_step))
    epochs = steps * a_step / batches
    batch = largest(architecture, tuning, workload)
    sums = {name: getattr(workload, name) * epochs for name in ("tokens", "images", "labels", "squares")}
    return Plan(
        architecture=architecture,
        tuning=tuning,
        workload=workload,
        batch=batch,
        memory=memory(architecture, tuning, batch),
        batches=batches,
        steps=steps,
        flops=flops(architecture, tuning, **sums),
    )


def of_run(models: Mapping[str, Any], name: str, folder: Path, questions: Mapping[str, int]) -> tuple[Plan, dict[str, Any], str]:
    """The plan of the training of model `name` of a run in `folder`; its base's config.json, and where that is from.

    `models`: the section of a config. Samples are the run's where these are made, else what is expected of the `questions`
    asked for. Raises UnknownArchitecture, TableError.
    """
    base, tuning = models[name]["base"], Tuning(**models[name]["tuning"])
    config, source = found(models[base]["hub"], folder / "models" / base, models[base]["path"])
    architecture = Architecture.read(config, source)
    samples = folder / "shards" / base / "train.samples.parquet"
    work = measured(samples) if samples.exists() else expected(questions, architecture.image_tokens)
    return plan(architecture, tuning, work), config, source


@dataclass(frozen=True)
class Variant:
    """A recipe that differs in a few keys."""

    changes: dict[str, Any]
    plan: Plan

    def __str__(self) -> str:
        changes = ", ".join(f"{key}: {str(value).lower()}" for key, value in self.changes.items())
        return f"{changes} ({gib(self.plan.memory.total)})"


def variants(planned: Plan, limit: int) -> list[Variant]:
    """Recipes near that of a plan that fit `limit` bytes: those first that train the same, then by changes and FLOPs.

    max_length is only lowered where the longest sample stays.
    """
    tuning, longest = planned.tuning, planned.workload.longest
    choices: dict[str, list[Any]] = {
        "gradient_checkpointing": [tuning.gradient_checkpointing, not tuning.gradient_checkpointing],
        "max_length": [tuning.max_length, *(n for n in (tuning.max_length // 2, tuning.max_length // 4) if n >= longest)],
        "lora_dropout": sorted({tuning.lora_dropout, 0.0}, reverse=True) if by_lora(tuning) else [tuning.lora_dropout],
        "zero_stage": [tuning.zero_stage, *(s for s in (2, 3) if s > tuning.zero_stage and tuning.world > 1)],
    }
    found = []
    for values in itertools.product(*choices.values()):
        changes = {key: value for key, value in zip(choices, values, strict=True) if value != getattr(tuning, key)}
        update = dict(changes)
        if "max_length" in changes and tuning.pack_tokens:
            update["pack_tokens"] = changes["pack_tokens"] = changes["max_length"]
        other = plan(planned.architecture, tuning.model_copy(update=update), planned.workload)
        if changes and other.memory.total <= limit:
            found.append(Variant(changes, other))
    return sorted(found, key=lambda v: ("lora_dropout" in v.changes, len(v.changes), v.plan.flops.executed))


def faster(planned: Plan, limit: int) -> Variant | None:
    """The recipe that fits and computes least, if that is a tenth less than what is planned."""
    now = planned.flops.executed
    least = min(variants(planned, limit), key=lambda v: round(v.plan.flops.executed / now, 2), default=None)
    return least if least and least.plan.flops.executed < 0.9 * now else None


def require(planned: Plan, name: str) -> None:
    """Raise UserError where a training, of the model `name`, needs more than the gpu_memory_gb of its recipe."""
    has = planned.tuning.gpu_memory_gb
    if has is None or not planned.tuning.gpus or planned.memory.total <= has * GIB:
        return
    raise UserError(
        f"models.{name}.tuning can't run: it needs {gib(planned.memory.total)} of each GPU, which has {has:g} (gpu_memory_gb): "
        f"{parts(planned.memory)}. These would fit: {ways(planned, int(has * GIB))}"
    )


# In words ----------------------------------------------------------------------------------------------------------------


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.1f} GiB"


def parts(has: Memory) -> str:
    """What memory is needed for."""
    named = {name: getattr(has, name) for name in ("weights", "gradients", "optimizer", "buffers", "working", "reserve")}
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in named.items())


def ways(planned: Plan, limit: int, most: int = 3) -> str:
    """What to change of a recipe that does not fit."""
    return "; or ".join(map(str, variants(planned, limit)[:most])) or "more GPUs, or larger ones"


def told(planned: Plan, name: str, source: str, gpu: Gpu, utilisation: float = UTILISATION) -> str:
    """A plan in lines."""
    architecture, tuning, work, has = planned.architecture, planned.tuning, planned.workload, planned.memory
    own = trained(architecture, tuning)
    every = architecture.parameters + (own if by_lora(tuning) else 0)
    length, images = work.tokens / work.samples, work.images / work.samples
    batch = f"packs of at most {pack(tuning):,} tokens" if pack(tuning) else f"batches of {tuning.batch} samples"
    tokens = planned.tokens
    per = {k: getattr(planned.flops, k) / tokens / 1e9 for k in ("language", "attention", "projector", "vision", "recomputed")}
    per["attention"] /= 2
    hours = planned.gpu_hours(gpu, utilisation)
    rate = tokens / (hours * 3600)
    rows = {
        name: f"{'LoRA of rank ' + str(tuning.lora_rank) if by_lora(tuning) else 'full fine-tuning'}, {source}",
        "parameters": f"{every:,}, trained {own:,} ({own / every:.1%})",
        "samples": f"{work.samples:,} of {length:,.0f} tokens and {images:.2f} images, "
        + ("measured" if work.measured else "assumed"),
        "batches": f"{planned.batches:,} {batch} an epoch",
        "steps": f"{planned.steps:,} of {tuning.accumulation * tuning.world} batches, {tokens / 1e6:,.1f} M tokens",
        "GFLOPs a token": ", ".join(f"{k} {v:.2f}" for k, v in per.items()),
        "GiB a process": f"{has.total / GIB:.1f}: {parts(has)}",
        "GPU hours": f"{hours:,.1f}, {hours / tuning.world:,.1f} hours on {tuning.world} {gpu.name}: {utilisation:.0%} of its "
        f"{gpu.peak / 1e12:,.0f} TFLOP/s assumed, {rate:,.0f} tokens/s each",
    }
    limit = int((tuning.gpu_memory_gb or gpu.memory) * GIB)
    if has.total > limit:
        rows["does not fit"] = f"{gib(limit)}. These would: {ways(planned, limit)}"
    else:
        rows["fits"] = gib(limit)
        if better := faster(planned, limit):
            rows["faster"] = f"{better}: {better.plan.gpu_hours(gpu, utilisation):,.1f} GPU hours"
    return "\n".join(f"{key:<16}{value}" for key, value in rows.items())


def hours(models: Mapping[str, Any], folder: Path, questions: Mapping[str, int], gpu: Gpu) -> list[str]:
    """GPU hours of each of a run's trainings that has GPUs, and their sum, in lines; arguments as of `of_run`."""
    lines, total, unknown = [], 0.0, []
    for name in (n for n, model in models.items() if model["base"] and model["tuning"]["gpus"]):
        try:
            planned, *_ = of_run(models, name, folder, questions)
        except UnknownArchitecture as error:
            unknown.append(name)
            lines.append(f"GPU hours, {name}: not known: {error}")
            continue
        own = planned.gpu_hours(gpu)
        total += own
        lines.append(
            f"GPU hours, {name}: {own:,.1f} ({own / planned.tuning.world:,.1f} hours on {planned.tuning.world} {gpu.name} at"
            f" {UTILISATION:.0%} of the peak, assumed)"
        )
    if not lines:
        return ["GPU hours: none, no model is tuned on a GPU"]
    return [*lines, f"GPU hours of all trainings: {total:,.1f}" + (f" and those of {', '.join(unknown)}" if unknown else "")]


def figures(planned: Plan, gpu: Gpu, utilisation: float = UTILISATION) -> dict[str, Any]:
    """A plan for machines: counts, FLOPs, bytes and hours."""
    own, limit = trained(planned.architecture, planned.tuning), planned.tuning.gpu_memory_gb or gpu.memory
    return {
        "parameters": planned.architecture.parameters,
        "trained": own,
        "workload": asdict(planned.workload),
        "batches": planned.batches,
        "steps": planned.steps,
        "tokens": planned.tokens,
        "flops": asdict(planned.flops) | {"model": planned.flops.model, "executed": planned.flops.executed},
        "memory_bytes": asdict(planned.memory) | {"total": planned.memory.total},
        "gpu": gpu.name,
        "gpu_memory_gb": limit,
        "fits": planned.memory.total <= limit * GIB,
        "utilisation": utilisation,
        "gpu_hours": planned.gpu_hours(gpu, utilisation),
    }
