"""The sections of the configuration that the trainings read; apart from the others, whose changes are none of theirs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medmim.part import Fraction, Part, Positive

SIZES = {"image_size", "vision_width", "vision_layers", "language_width", "language_layers", "heads"}
"""The fields of TinyBase that shape the model; the others train it."""


class TinyBase(Part):
    """A small base model of the real architecture, made and trained here. Synthetic: for the demo and the tests."""

    image_size: Positive = 56
    """Side of the square image, pixels; the patch is 14."""
    vision_width: Positive = 96
    """Hidden size of the vision tower."""
    vision_layers: Positive = 3
    """Its layers."""
    language_width: Positive = 128
    """Hidden size of the language model."""
    language_layers: Positive = 3
    """Its layers."""
    heads: Positive = 4
    """Attention heads of both."""
    vision_steps: Positive = 150
    """Steps of the vision tower on attribute labels."""
    vision_batch: Positive = 64
    """Images a step."""
    language_steps: Positive = 300
    """Steps of language model and projector on single-image and text-only questions."""
    language_batch: Positive = 16
    """Samples a step."""
    learning_rate: float = 2e-3
    """Peak learning rate of both stages."""


class Tuning(Part):
    """LoRA on the language model's attention and MLP, projector in full, vision frozen."""

    lora_rank: Positive = 128
    """Rank of the adapters."""
    lora_alpha: Positive = 256
    """Their scale is alpha / rank."""
    lora_dropout: Fraction = 0.05
    """Dropout before them."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    epochs: float = 1.0
    """Passes over the training questions."""
    max_steps: int | None = None
    """Overrides epochs when set."""
    batch: Positive = 1
    """Samples per device and step."""
    accumulation: Positive = 1
    """Batches a step."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps that warm up."""
    schedule: Literal["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"] = "cosine"
    """Learning rate after warm-up."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    adam_beta2: Fraction = 0.999
    """AdamW second moment decay."""
    clip: float = 1.0
    """Largest gradient norm."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of frozen weights and activations."""
    gradient_checkpointing: bool = True
    """Recompute activations: less memory, half more work."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0 trains without DeepSpeed."""
    max_length: Positive = 8192
    """Longest sample in tokens after image expansion; longer ones are rejected and listed, never cut."""
    checkpoint_steps: Positive = 200
    """Steps between checkpoints."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of the job, over all its nodes, a process on each; 0 trains on the CPU."""
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of each, such as 80. A training that needs more is refused before anything runs; results do not depend on it."""
    nodes: Positive = 1
    """Nodes of the job, with the same number of processes on each."""
    processes: Positive = 1
    """Processes on the CPU, where gpus is 0: for tests, and to find faults without a GPU."""
    threads: Positive = 1
    """CPU threads of each process. Part of the recipe: results depend on it."""

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.gpus or self.processes

    @property
    def samples(self) -> int:
        """Samples of a step, of all processes."""
        return self.batch * self.accumulation * self.world

    @model_validator(mode="after")
    def _consistent(self) -> "Tuning":
        if self.gpus and self.processes != 1:
            raise ValueError("processes is for trainings without a GPU: with gpus there is one process on each, leave it out")
        if self.world % self.nodes:
            raise ValueError(f"nodes: {self.world} processes can't be shared evenly by {self.nodes} nodes")
        return self
