"""The sections of the configuration that the trainings read; apart from the others, whose changes are none of theirs."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from medmim.config.base import Fault, Fraction, LearningRate, Section, Threads

SIZES = {"image_size", "vision_width", "vision_layers", "language_width", "language_layers", "heads"}
"""The fields of TinyBase that shape the model; the others train it."""
PATCH_SIZE = 14
"""Side of the patches of a tiny base's vision tower, pixels."""


class TinyBase(Section):
    """A small base model of the real architecture, made and trained here. Synthetic: for the demo and the tests."""

    image_size: Annotated[int, Field(ge=14, le=2048)] = 56
    """Side of the square image, pixels; the patch is 14."""
    vision_width: Annotated[int, Field(ge=1, le=16_384)] = 96
    """Hidden size of the vision tower."""
    vision_layers: Annotated[int, Field(ge=1, le=256)] = 3
    """Its layers."""
    language_width: Annotated[int, Field(ge=1, le=16_384)] = 128
    """Hidden size of the language model."""
    language_layers: Annotated[int, Field(ge=1, le=256)] = 3
    """Its layers."""
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Attention heads of both."""
    vision_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 150
    """Steps of the vision tower on attribute labels."""
    vision_batch: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Images a step."""
    language_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    """Steps of language model and projector on single-image and text-only questions."""
    language_batch: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Samples a step."""
    learning_rate: LearningRate = 2e-3
    """Peak learning rate of both stages."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield sizes that do not go together."""
        if self.image_size % PATCH_SIZE:
            smaller = self.image_size // PATCH_SIZE * PATCH_SIZE
            yield ("image_size",), f"is {self.image_size}; allowed: a multiple of {PATCH_SIZE}, such as {smaller}"
        for name, multiple in (("vision_width", self.heads), ("language_width", 2 * self.heads)):
            if getattr(self, name) % multiple:
                yield (name,), f"is {getattr(self, name)}; allowed with {self.heads} heads: a multiple of {multiple}"


class Tuning(Section):
    """The language model by LoRA or in full, the projector in full, the vision tower frozen."""

    method: Literal["lora", "full"] = "lora"
    """lora: adapters on the language model's attention and MLP. full: all its weights; what is saved is a whole model."""
    lora_rank: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Rank of the adapters."""
    lora_alpha: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Their scale is alpha / rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout before them."""
    learning_rate: LearningRate = 1e-4
    """Peak learning rate."""
    projector_learning_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    """That of the projector, where it is another."""
    epochs: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Passes over the training questions."""
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Overrides epochs when set."""
    packing: bool = True
    """Batches are packs: samples one after another, up to pack_tokens, without padding; attention stays inside each sample."""
    pack_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Most tokens of a pack, after image expansion; max_length where it is not set."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Samples of a batch without packing; then they are padded to the longest."""
    accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Batches, or packs, of each process in a step. The loss of a step is the mean over all its label tokens."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps that warm up."""
    schedule: Literal["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"] = "cosine"
    """Learning rate after warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """AdamW weight decay."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW second moment decay."""
    clip: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    """Largest gradient norm."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of frozen weights and activations."""
    gradient_checkpointing: bool = True
    """Recompute activations: less memory, half more work."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0 trains without DeepSpeed."""
    max_length: Annotated[int, Field(ge=1, le=10_000_000)] = 8192
    """Longest sample in tokens after image expansion; longer ones are rejected and listed, never cut."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 200
    """Steps between checkpoints."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that prepare the batches of each training process ahead of it; results do not depend on them."""
    gpus: Annotated[int, Field(ge=0, le=65_536)] = 0
    """GPUs of the job, over all its nodes, a process on each; 0 trains on the CPU."""
    gpu_memory_gb: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Memory of each, such as 80. A training that needs more is refused before anything runs; results do not depend on it."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Nodes of the job, with the same number of processes on each."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes on the CPU, where gpus is 0: for tests, and to find faults without a GPU."""
    threads: Threads = 1
    """CPU threads of each process. Part of the recipe: results depend on it."""

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.gpus or self.processes

    @property
    def batches_per_step(self) -> int:
        """Batches of a step, of all processes."""
        return self.accumulation * self.world_size

    @property
    def pack_budget(self) -> int:
        """Most tokens of a pack."""
        return self.pack_tokens or self.max_length

    def find_faults(self) -> Iterator[Fault]:
        """Yield settings that contradict one another."""
        if self.gpus and self.processes != 1:
            yield ("processes",), "is for trainings without a GPU: with gpus there is one process on each, leave it out"
        if self.packing and self.batch != 1:
            yield ("batch",), "is for trainings without packing, where a pack is a batch: leave it out, or set packing: false"
        if not self.packing and self.pack_tokens is not None:
            yield ("pack_tokens",), "is for trainings with packing: leave it out, or set packing: true"
        if self.packing and self.pack_budget < self.max_length:
            yield (
                ("pack_tokens",),
                f"{self.pack_budget} is less than max_length {self.max_length}: no pack would hold such a sample",
            )
        if self.world_size % self.nodes:
            yield ("nodes",), f"{self.world_size} processes can't be shared evenly by {self.nodes} nodes"
