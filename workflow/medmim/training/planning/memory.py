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
from medmim.common.formatting import GIB, format_gibibytes
from medmim.config.question_sets import QUESTION_SETS
from medmim.config.training import Tuning
from medmim.training.planning.architecture import Architecture, LanguageModel, UnknownArchitectureError, find_config
from medmim.training.planning.gpu_types import GpuType

BYTES_PER_NUMBER = {"bf16": 2, "fp32": 4}
MASTER_BYTES, MOMENT_BYTES, GRADIENT_BYTES = 4, 8, 4
"""Bytes a trained weight of DeepSpeed's copy in float32, of AdamW's two moments, and of gradients, which add up in float32."""
REDUCE_BUCKET_SIZE = 500_000_000
"""Numbers in the buffer in which DeepSpeed reduces gradients: its reduce_bucket_size, which no recipe changes."""
MAX_LIVE_PARAMETERS = 1_000_000_000
"""Most weights that ZeRO-3 has gathered at a time: DeepSpeed's stage3_max_live_parameters."""
RESERVED_BYTES = 4 * GIB
"""Allowed for what no count here has: the CUDA context, NCCL's and cuBLAS's buffers, and memory lost between blocks. Ours."""
UTILISATION = 0.40
"""Share of its peak at which a GPU is taken to compute. Published for LoRA of Llama-3-8B, text only, on one H100: 402 of 989
TFLOP/s (NVIDIA NeMo AutoModel's benchmark). An assumption for anything else."""
PACK_FILL_SHARE = 0.97
"""Share of a pack's tokens that samples are taken to fill."""

IMAGES_PER_QUESTION = {s.name: s.images for s in QUESTION_SETS}
"""Images a question of the sets that are trained on."""
PAPER_QUESTIONS = {s.name: s.paper_count for s in QUESTION_SETS if s.paper_count}
"""The paper's questions, taken where the config asks for no number of them: the authors' release is used."""
TEXT_TOKENS, LABEL_TOKENS, MAX_TEXT_TOKENS, MAX_IMAGES = 130, 60, 1024, 3
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


def estimate_workload(questions: Mapping[str, int], image_tokens: int) -> Workload:
    """Of the numbers of training questions by set, for a model to which an image is `image_tokens`."""
    counts = {name: n for name, n in questions.items() if name in IMAGES_PER_QUESTION and n} or PAPER_QUESTIONS
    lengths = {name: IMAGES_PER_QUESTION[name] * image_tokens + TEXT_TOKENS for name in counts}
    return Workload(
        samples=sum(counts.values()),
        tokens=sum(n * lengths[name] for name, n in counts.items()),
        images=sum(n * IMAGES_PER_QUESTION[name] for name, n in counts.items()),
        labels=LABEL_TOKENS * sum(counts.values()),
        squares=sum(n * lengths[name] ** 2 for name, n in counts.items()),
        longest=MAX_IMAGES * image_tokens + MAX_TEXT_TOKENS,
        measured=False,
    )


def measure_workload(samples: Path) -> Workload:
    """Of a samples table. Raises TableError."""
    import pyarrow.compute as pc

    from medmim.tables import table_io

    table = table_io.read_table(samples, "samples", ["labels", "image_ids", "length"])
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


def uses_lora(tuning: Tuning) -> bool:
    """Whether the language model is trained by LoRA, or in full."""
    return tuning.method == "lora"


def max_pack_tokens(tuning: Tuning) -> int | None:
    """Most tokens of a pack; None where samples are padded to a rectangle instead."""
    return tuning.pack_budget if tuning.packing else None


def count_trained(architecture: Architecture, tuning: Tuning) -> int:
    """Weights that are trained: projector, and LoRA's or the language model's own."""
    language = architecture.language
    return architecture.projector_parameters + (
        language.lora_parameters(tuning.lora_rank) if uses_lora(tuning) else language.parameter_count
    )


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


def count_flops(
    architecture: Architecture, tuning: Tuning, *, tokens: float, images: float, labels: float, squares: float
) -> Flops:
    """Of samples with so many tokens, images, labels and squared tokens in all.

    A frozen map costs 2 FLOPs a weight and token forward and 2 backward, to its input; a trained one 2 more, to its weights.
    """
    language, tower = architecture.language, architecture.tower
    lora = language.lora_parameters(tuning.lora_rank) if uses_lora(tuning) else 0
    layers, head = language.layers * language.layer_parameters, language.head_parameters
    passes = 2 if uses_lora(tuning) else 3
    attention = language.attention_flops(squares)
    first, second = tower.width * language.width, language.width**2
    skipped_product = language.width * (
        tuning.lora_rank if uses_lora(tuning) else language.mlp
    )  # torch stops before a layer's last product
    recomputed = (
        2 * tokens * (layers + lora - language.layers * skipped_product) + attention / 2 if tuning.gradient_checkpointing else 0
    )
    return Flops(
        language=2 * tokens * (passes * layers + 3 * lora) + 2 * labels * passes * head,
        attention=3 * attention,
        projector=2 * images * architecture.image_tokens * (2 * first + 3 * second),  # the tower's features need no gradient
        vision=images * tower.forward_flops,
        recomputed=recomputed,
    )


# Memory ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PeakBatch:
    """What a process computes at a time, at most: a pack, or a rectangle of samples."""

    tokens: int
    images: int
    labels: int


def estimate_peak_batch(architecture: Architecture, tuning: Tuning, workload: Workload) -> PeakBatch:
    """The largest batch that may come: full of tokens, these of images, and twice the usual share of labels."""
    tokens = max_pack_tokens(tuning) or tuning.batch * min(tuning.max_length, workload.longest)
    labels = 2 * workload.labels / max(workload.tokens, 1)
    return PeakBatch(tokens=tokens, images=tokens // architecture.image_tokens, labels=math.ceil(tokens * labels))


def layer_activation_bytes(language: LanguageModel, tuning: Tuning) -> int:
    """Bytes that one layer keeps for its backward pass, a token.

    As transformers writes a layer: norms in float32, products and activations of the MLP one by one, attention by a kernel
    that keeps its inputs, its output and a sum. A frozen map keeps nothing; one with LoRA its adapter's input, after a dropout
    of its own, with the dropout's mask.
    """
    b, w, m = BYTES_PER_NUMBER[tuning.precision], language.width, language.mlp
    query_width, key_width = language.heads * language.head_width, language.kv_heads * language.head_width
    stored_bytes = 2 * (4 * w + 4) + b * (2 * query_width + 2 * key_width) + 4 * language.heads + 3 * b * m
    adapter_inputs = sum(inputs for inputs, _ in language.linear_shapes.values())
    shared_inputs = 2 * w + query_width + m  # the inputs of q, k, v are one tensor, and so are those of gate and up
    if not uses_lora(tuning):
        return stored_bytes + b * shared_inputs + 2 * b * w  # and what a norm's weights are multiplied with
    rank_bytes = len(language.linear_shapes) * b * tuning.lora_rank
    if tuning.lora_dropout:
        return stored_bytes + rank_bytes + (b + 1) * adapter_inputs
    return stored_bytes + rank_bytes + b * (adapter_inputs if _uses_autocast(tuning) else shared_inputs)


def _uses_autocast(tuning: Tuning) -> bool:
    """Whether trained weights are in float32 and cast where they are used: bf16 without DeepSpeed."""
    return tuning.precision == "bf16" and not tuning.zero_stage


def stored_activation_bytes(architecture: Architecture, tuning: Tuning, batch: PeakBatch) -> int:
    """Bytes kept at the end of the language model's layers, for the backward pass."""
    language, tower = architecture.language, architecture.tower
    b, w = BYTES_PER_NUMBER[tuning.precision], language.width
    layer_bytes = b * w if tuning.gradient_checkpointing else layer_activation_bytes(language, tuning)
    end_bytes = 4 * w + 4 + 2 * b * language.head_width  # the last norm; cosines and sines of the positions
    projector_bytes = b * tower.width + 2 * b * w
    cast_bytes = b * count_trained(architecture, tuning) if _uses_autocast(tuning) else 0
    return (
        batch.tokens * (language.layers * layer_bytes + end_bytes)
        + batch.images * architecture.image_tokens * projector_bytes
        + cast_bytes
    )


def peak_activation_bytes(architecture: Architecture, tuning: Tuning, batch: PeakBatch) -> int:
    """Most bytes beside weights, gradients and optimizer at any time of a forward and backward pass."""
    language, tower = architecture.language, architecture.tower
    b = BYTES_PER_NUMBER[tuning.precision]
    head = batch.labels * (
        b * language.width + language.vocabulary_size * (2 * b + 12)
    )  # logits, in float32, and their gradients
    backward = batch.tokens * b * (2 * language.mlp + 3 * language.width)
    if tuning.gradient_checkpointing:
        backward += batch.tokens * layer_activation_bytes(language, tuning)
    vision = batch.images * tower.token_count * tower.width * b * (tower.layers + 1)
    return max(stored_activation_bytes(architecture, tuning, batch) + max(head, backward), vision)


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
    reserve: int = RESERVED_BYTES

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.buffers + self.working + self.reserve


def estimate_memory(architecture: Architecture, tuning: Tuning, batch: PeakBatch) -> Memory:
    """Of each of the processes of a recipe."""
    b, world, stage = BYTES_PER_NUMBER[tuning.precision], tuning.world_size, tuning.zero_stage
    trained_parameters = count_trained(architecture, tuning)
    frozen_parameters = architecture.parameter_count - (
        0 if uses_lora(tuning) else trained_parameters
    )  # peft trains a copy of the projector
    working_bytes = peak_activation_bytes(architecture, tuning, batch)
    if not stage:  # trained weights in float32, and DistributedDataParallel's buckets as large as all gradients
        return Memory(
            weights=b * frozen_parameters + 4 * trained_parameters,
            gradients=GRADIENT_BYTES * trained_parameters,
            optimizer=MOMENT_BYTES * trained_parameters,
            buffers=4 * trained_parameters if world > 1 else 0,
            working=max(working_bytes, 4 * trained_parameters),
        )
    sharded_parameters = trained_parameters / world
    return Memory(
        weights=int(b * (frozen_parameters + trained_parameters) / (world if stage == 3 else 1)),
        gradients=int(GRADIENT_BYTES * (trained_parameters if stage == 1 else sharded_parameters)),
        optimizer=int((MASTER_BYTES + MOMENT_BYTES) * sharded_parameters),
        buffers=b * REDUCE_BUCKET_SIZE + (b * min(MAX_LIVE_PARAMETERS, architecture.parameter_count) if stage == 3 else 0),
        working=max(working_bytes, int(2 * 4 * sharded_parameters)),  # the step's gradients in float32, and AdamW's temporary
    )


# The plan ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """One training, planned."""

    architecture: Architecture
    tuning: Tuning
    workload: Workload
    batch: PeakBatch
    memory: Memory
    batches: int
    """Packs, or rectangles, of an epoch."""
    steps: int
    flops: Flops
    """Of the whole training."""

    @property
    def total_tokens(self) -> float:
        """Real tokens of the whole training."""
        return self.steps * self.tuning.accumulation * self.tuning.world_size * self.workload.tokens / self.batches

    def gpu_hours(self, gpu: GpuType, utilisation: float = UTILISATION) -> float:
        """On GPUs of that type, which compute at `utilisation` of their peak."""
        return self.flops.executed / (gpu.peak_flops * utilisation) / 3600


def plan_training(architecture: Architecture, tuning: Tuning, workload: Workload) -> TrainingPlan:
    """The plan of a recipe."""
    pack_tokens = max_pack_tokens(tuning)
    batches = math.ceil(workload.tokens / (pack_tokens * PACK_FILL_SHARE) if pack_tokens else workload.samples / tuning.batch)
    batches_per_step = tuning.accumulation * tuning.world_size
    steps = tuning.max_steps or max(1, math.ceil(batches * tuning.epochs / batches_per_step))
    epochs = steps * batches_per_step / batches
    batch = estimate_peak_batch(architecture, tuning, workload)
    sums = {name: getattr(workload, name) * epochs for name in ("tokens", "images", "labels", "squares")}
    return TrainingPlan(
        architecture=architecture,
        tuning=tuning,
        workload=workload,
        batch=batch,
        memory=estimate_memory(architecture, tuning, batch),
        batches=batches,
        steps=steps,
        flops=count_flops(architecture, tuning, **sums),
    )


def plan_run_training(
    models: Mapping[str, Any], name: str, folder: Path, questions: Mapping[str, int]
) -> tuple[TrainingPlan, dict[str, Any], str]:
    """The plan of the training of model `name` of a run in `folder`; its base's config.json, and where that is from.

    `models`: the section of a config. Samples are the run's where these are made, else what is expected of the `questions`
    asked for. Raises UnknownArchitectureError, TableError.
    """
    base, tuning = models[name]["base"], Tuning(**models[name]["tuning"])
    config, source = find_config(models[base]["hub"], folder / "models" / base, models[base]["path"])
    architecture = Architecture.from_config(config, source)
    samples = folder / "shards" / base / "train.samples.parquet"
    workload = measure_workload(samples) if samples.exists() else estimate_workload(questions, architecture.image_tokens)
    return plan_training(architecture, tuning, workload), config, source


@dataclass(frozen=True)
class RecipeVariant:
    """A recipe that differs in a few keys."""

    changes: dict[str, Any]
    plan: TrainingPlan

    def __str__(self) -> str:
        changes = ", ".join(f"{key}: {str(value).lower()}" for key, value in self.changes.items())
        return f"{changes} ({format_gibibytes(self.plan.memory.total)})"


def find_variants(base_plan: TrainingPlan, limit: int) -> list[RecipeVariant]:
    """Recipes near that of a plan that fit `limit` bytes: those first that train the same, then by changes and FLOPs.

    max_length is only lowered where the longest sample stays.
    """
    tuning, longest = base_plan.tuning, base_plan.workload.longest
    choices: dict[str, list[Any]] = {
        "gradient_checkpointing": [tuning.gradient_checkpointing, not tuning.gradient_checkpointing],
        "max_length": [tuning.max_length, *(n for n in (tuning.max_length // 2, tuning.max_length // 4) if n >= longest)],
        "lora_dropout": sorted({tuning.lora_dropout, 0.0}, reverse=True) if uses_lora(tuning) else [tuning.lora_dropout],
        "zero_stage": [tuning.zero_stage, *(s for s in (2, 3) if s > tuning.zero_stage and tuning.world_size > 1)],
    }
    fitting = []
    for values in itertools.product(*choices.values()):
        changes = {key: value for key, value in zip(choices, values, strict=True) if value != getattr(tuning, key)}
        update = dict(changes)
        if "max_length" in changes and tuning.pack_tokens:
            update["pack_tokens"] = changes["pack_tokens"] = changes["max_length"]
        variant_plan = plan_training(base_plan.architecture, tuning.model_copy(update=update), base_plan.workload)
        if changes and variant_plan.memory.total <= limit:
            fitting.append(RecipeVariant(changes, variant_plan))
    return sorted(fitting, key=lambda v: ("lora_dropout" in v.changes, len(v.changes), v.plan.flops.executed))


def find_faster(plan: TrainingPlan, limit: int) -> RecipeVariant | None:
    """The recipe that fits and computes least, if that is a tenth less than what is planned."""
    planned_flops = plan.flops.executed
    cheapest = min(find_variants(plan, limit), key=lambda v: round(v.plan.flops.executed / planned_flops, 2), default=None)
    return cheapest if cheapest and cheapest.plan.flops.executed < 0.9 * planned_flops else None


def require_gpu_memory(plan: TrainingPlan, name: str) -> None:
    """Raise UserError where a training, of the model `name`, needs more than the gpu_memory_gb of its recipe."""
    gpu_memory_gb = plan.tuning.gpu_memory_gb
    if gpu_memory_gb is None or not plan.tuning.gpus or plan.memory.total <= gpu_memory_gb * GIB:
        return
    raise UserError(
        f"models.{name}.tuning can't run: it needs {format_gibibytes(plan.memory.total)} of each GPU, which has "
        f"{gpu_memory_gb:g} (gpu_memory_gb): "
        f"{format_memory(plan.memory)}. These would fit: {format_variants(plan, int(gpu_memory_gb * GIB))}"
    )


# In words ----------------------------------------------------------------------------------------------------------------


def format_memory(memory: Memory) -> str:
    """What memory is needed for."""
    sizes = {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer", "buffers", "working", "reserve")}
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in sizes.items())


def format_variants(plan: TrainingPlan, limit: int, max_variants: int = 3) -> str:
    """What to change of a recipe that does not fit."""
    return "; or ".join(map(str, find_variants(plan, limit)[:max_variants])) or "more GPUs, or larger ones"


def format_plan(plan: TrainingPlan, name: str, source: str, gpu: GpuType, utilisation: float = UTILISATION) -> str:
    """A plan in lines."""
    architecture, tuning, workload, memory = plan.architecture, plan.tuning, plan.workload, plan.memory
    trained_parameters = count_trained(architecture, tuning)
    total_parameters = architecture.parameter_count + (trained_parameters if uses_lora(tuning) else 0)
    length, images = workload.tokens / workload.samples, workload.images / workload.samples
    batch = (
        f"packs of at most {max_pack_tokens(tuning):,} tokens"
        if max_pack_tokens(tuning)
        else f"batches of {tuning.batch} samples"
    )
    tokens = plan.total_tokens
    gflops_per_token = {
        k: getattr(plan.flops, k) / tokens / 1e9 for k in ("language", "attention", "projector", "vision", "recomputed")
    }
    gflops_per_token["attention"] /= 2
    gpu_hours = plan.gpu_hours(gpu, utilisation)
    rate = tokens / (gpu_hours * 3600)
    rows = {
        name: f"{'LoRA of rank ' + str(tuning.lora_rank) if uses_lora(tuning) else 'full fine-tuning'}, {source}",
        "parameters": f"{total_parameters:,}, trained {trained_parameters:,} ({trained_parameters / total_parameters:.1%})",
        "samples": f"{workload.samples:,} of {length:,.0f} tokens and {images:.2f} images, "
        + ("measured" if workload.measured else "assumed"),
        "batches": f"{plan.batches:,} {batch} an epoch",
        "steps": f"{plan.steps:,} of {tuning.accumulation * tuning.world_size} batches, {tokens / 1e6:,.1f} M tokens",
        "GFLOPs a token": ", ".join(f"{k} {v:.2f}" for k, v in gflops_per_token.items()),
        "GiB a process": f"{memory.total / GIB:.1f}: {format_memory(memory)}",
        "GPU hours": f"{gpu_hours:,.1f}, {gpu_hours / tuning.world_size:,.1f} hours on {tuning.world_size} {gpu.name}: "
        f"{utilisation:.0%} of its "
        f"{gpu.peak_flops / 1e12:,.0f} TFLOP/s assumed, {rate:,.0f} tokens/s each",
    }
    limit = int((tuning.gpu_memory_gb or gpu.memory_gb) * GIB)
    if memory.total > limit:
        rows["does not fit"] = f"{format_gibibytes(limit)}. These would: {format_variants(plan, limit)}"
    else:
        rows["fits"] = format_gibibytes(limit)
        if faster_variant := find_faster(plan, limit):
            rows["faster"] = f"{faster_variant}: {faster_variant.plan.gpu_hours(gpu, utilisation):,.1f} GPU hours"
    return "\n".join(f"{key:<16}{value}" for key, value in rows.items())


def format_gpu_hours(models: Mapping[str, Any], folder: Path, questions: Mapping[str, int], gpu: GpuType) -> list[str]:
    """GPU hours of each of a run's trainings that has GPUs, and their sum, in lines; arguments as of `plan_run_training`."""
    lines, total, unknown_models = [], 0.0, []
    for name in (n for n, model in models.items() if model["base"] and model["tuning"]["gpus"]):
        try:
            plan, *_ = plan_run_training(models, name, folder, questions)
        except UnknownArchitectureError as error:
            unknown_models.append(name)
            lines.append(f"GPU hours, {name}: not known: {error}")
            continue
        gpu_hours = plan.gpu_hours(gpu)
        total += gpu_hours
        lines.append(
            f"GPU hours, {name}: {gpu_hours:,.1f} ({gpu_hours / plan.tuning.world_size:,.1f} hours on "
            f"{plan.tuning.world_size} {gpu.name} at"
            f" {UTILISATION:.0%} of the peak, assumed)"
        )
    if not lines:
        return ["GPU hours: none, no model is tuned on a GPU"]
    return [
        *lines,
        f"GPU hours of all trainings: {total:,.1f}" + (f" and those of {', '.join(unknown_models)}" if unknown_models else ""),
    ]


def plan_record(plan: TrainingPlan, gpu: GpuType, utilisation: float = UTILISATION) -> dict[str, Any]:
    """A plan for machines: counts, FLOPs, bytes and hours."""
    trained_parameters, limit = count_trained(plan.architecture, plan.tuning), plan.tuning.gpu_memory_gb or gpu.memory_gb
    return {
        "parameters": plan.architecture.parameter_count,
        "trained": trained_parameters,
        "workload": asdict(plan.workload),
        "batches": plan.batches,
        "steps": plan.steps,
        "tokens": plan.total_tokens,
        "flops": asdict(plan.flops) | {"model": plan.flops.model, "executed": plan.flops.executed},
        "memory_bytes": asdict(plan.memory) | {"total": plan.memory.total},
        "gpu": gpu.name,
        "gpu_memory_gb": limit,
        "fits": plan.memory.total <= limit * GIB,
        "utilisation": utilisation,
        "gpu_hours": plan.gpu_hours(gpu, utilisation),
    }
