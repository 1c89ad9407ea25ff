"""Fine-tuning of a base on multi-image questions: the language model by LoRA or in full, the projector in full.

The vision tower is frozen. transformers' Trainer runs it, on one process or several, with DeepSpeed where the config says.
"""

import logging
import math
import os
import platform
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.data import Dataset, get_worker_info
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerControl, TrainerState

from medmim.common import files
from medmim.common.errors import Interrupted, UserError
from medmim.config.training import Tuning
from medmim.models.attention import keep_inside_samples
from medmim.models.collate import Sample, at_labels, collate, pack
from medmim.models.families.base import Layout
from medmim.training.data import order, packing
from medmim.training.runtime import checkpoints
from medmim.training.runtime.preemption import Stop
from medmim.training.runtime.process_group import TIMEOUT, Group
from medmim.training.runtime.progress import Progress, cumulated, row
from medmim.training.runtime.throughput import Board, Meter, told

log = logging.getLogger("medmim")
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""LoRA's modules. A list of names would also match the vision tower's attention."""
PROJECTOR = "multi_modal_projector"
BETA1 = 0.9


def total_steps(tuning: Tuning, batches: float) -> int:
    """Optimizer steps: max_steps, or as many as `epochs` passes over the `batches` of one need, at least one."""
    return tuning.max_steps or max(1, math.ceil(batches * tuning.epochs / tuning.batches))


def plan(tuning: Tuning, lengths: np.ndarray, seed: int) -> list[np.ndarray]:
    """The samples of each batch of the whole training, in order: batch i is that of process i % world. The same for any world.

    `lengths` of all samples after expansion. A step's batches follow each other, and epochs do so without a gap.
    """
    if tuning.packing:
        steps = total_steps(tuning, len(packing.packs(lengths, seed, 0, tuning.budget)))
        return packing.batches(lengths, seed, tuning.budget, steps * tuning.batches)
    steps = total_steps(tuning, len(lengths) / tuning.batch)
    return order.batches(seed, len(lengths), tuning.batch, steps * tuning.batches)


def deepspeed(tuning: Tuning) -> dict[str, Any] | None:
    """DeepSpeed's configuration, None without it. torch's AdamW: DeepSpeed's own would be compiled first."""
    if not tuning.zero_stage:
        return None
    zero: dict[str, Any] = {"stage": tuning.zero_stage}
    if tuning.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "steps_per_print": 10**9,
    }


def arguments(tuning: Tuning, seed: int, steps: int, folder: Path) -> TrainingArguments:
    """The Trainer's arguments; made before the model is loaded, as ZeRO-3 wants it."""
    stable = tuning.schedule == "warmup_stable_decay"
    made = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # of our batches
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=tuning.accumulation,
        max_steps=steps,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type=tuning.schedule,
        lr_scheduler_kwargs={"num_decay_steps": round(DECAY * steps), "decay_type": "linear"} if stable else None,
        warmup_steps=round(tuning.warmup_ratio * steps),
        weight_decay=tuning.weight_decay,
        adam_beta1=BETA1,
        adam_beta2=tuning.adam_beta2,
        max_grad_norm=tuning.clip,
        optim="adamw_torch",
        bf16=tuning.precision == "bf16",
        activation_checkpointing=tuning.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if tuning.gradient_checkpointing else None,
        deepspeed=deepspeed(tuning),
        ddp_backend="gloo" if tuning.processes > 1 else None,
        ddp_timeout=int(TIMEOUT.total_seconds()),
        ddp_find_unused_parameters=False,
        use_cpu=not tuning.gpus,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=tuning.checkpoint_steps,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=tuning.workers,
        dataloader_prefetch_factor=max(2, math.ceil(tuning.accumulation / tuning.workers)) if tuning.workers else None,
        dataloader_pin_memory=bool(tuning.gpus),
        remove_unused_columns=False,
        label_names=["labels"],
    )
    made._n_gpu = min(made.n_gpu, 1)  # one process, one GPU: the Trainer would wrap the model in DataParallel
    return made


DECAY = 0.3
"""Share of the steps in which the schedule warmup_stable_decay falls to zero."""


def adapt(base: LlavaForConditionalGeneration, tuning: Tuning, name: str) -> nn.Module:
    """The base with just those weights to be trained that are to be; `name` of the base is written into an adapter.

    Raises AssertionError where anything else would be trained.
    """
    # peft and checkpointing want gradients of the embeddings, for the older way of checkpointing, and take the vision tower's for
    # such too: the whole tower would keep its activations and be gone back through for weights that are frozen.
    base.enable_input_require_grads = lambda: None
    model: Any = _full(base) if tuning.method == "full" else _lora(base, tuning, name)
    if not tuning.zero_stage:  # DeepSpeed keeps copies of its own in float32
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # updates of 1e-5 vanish in bfloat16
    check(model, tuning.method)
    if tuning.packing:
        keep_inside_samples(base)
    return model


def _full(base: LlavaForConditionalGeneration) -> nn.Module:
    base.model.vision_tower.requires_grad_(False)
    return base


def _lora(base: LlavaForConditionalGeneration, tuning: Tuning, name: str) -> nn.Module:
    config = LoraConfig(
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=TARGETS,
        modules_to_save=[PROJECTOR],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config, autocast_adapter_dtype=not tuning.zero_stage)
    model.peft_config["default"].base_model_name_or_path = name  # peft took the path it was loaded from: no path in an artifact
    # Embeddings are not trained; left to itself peft would ask the hub whether the base's vocabulary was another.
    model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
    return model


def check(model: nn.Module, method: str) -> None:
    """AssertionError unless the projector is trained with all its weights and, of the rest, just LoRA in the language model, or
    all but the vision tower.
    """
    named = dict(model.named_parameters())
    trained = {name for name, p in named.items() if p.requires_grad}
    tower = {name for name in named if "vision_tower" in name}
    assert tower and not trained & tower, "the vision tower would be trained"
    if method == "full":
        assert trained == named.keys() - tower, f"frozen beside the vision tower: {sorted(named.keys() - tower - trained)}"
        return
    lora = {name for name in trained if "lora_" in name}
    projector = {name for name in named if PROJECTOR in name and "modules_to_save" in name}
    assert lora and all("language_model" in name for name in lora), "LoRA stands outside the language model"
    assert projector and projector == trained - lora, f"besides LoRA the projector is trained, not {sorted(trained - lora)}"


class _History(TrainerCallback):
    """What is said of a training while it runs; stops one that diverged."""

    def __init__(self, tokens: np.ndarray, meter: Meter, board: Board) -> None:
        self.tokens, self.meter, self.board = tokens, meter, board
        self.progress: Progress | None = None

    def _seen(self, step: int) -> int:
        return int(self.tokens[step - 1]) if step else 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        start = state.global_step
        self.progress = Progress("tune", state.max_steps, start, self._seen(start), shown=state.is_world_process_zero)
        self.meter.start(start)
        if state.is_world_process_zero:
            self.board.start(start)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs: object
    ) -> None:
        if self.progress is not None and "loss" in logs:
            step = state.global_step
            row("tune", step, logs["loss"], logs["learning_rate"], 0)
            self.progress.step(step, logs["loss"], self._seen(step))
            kept = {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs}
            self.board.add(step, kept | self.meter.step(step))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        assert self.progress is not None
        self.progress.close(state.global_step, self._seen(state.global_step))
        self.board.close()
        if state.is_world_process_zero:
            log.info("%s", told(self.meter.whole()))

    def rows(self, state: TrainerState) -> list[dict[str, object]]:
        """The loss table, steps before a resume included."""
        return [
            row("tune", e["step"], e["loss"], e["learning_rate"], self._seen(e["step"])) for e in state.log_history if "loss" in e
        ]


class _Trainer(Trainer):
    """transformers' Trainer with a learning rate for the projector, and its waits for data measured."""

    def __init__(self, *, projector_learning_rate: float | None, meter: Meter, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._projector_learning_rate, self._meter = projector_learning_rate, meter

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's, its groups divided where the projector has a learning rate of its own."""
        optimizer = super().create_optimizer(model)
        rate = self._projector_learning_rate
        if rate is not None:
            projector = {id(p) for name, p in (model or self.model).named_parameters() if PROJECTOR in name}
            parts = [
                {**group, "params": [p for p in group["params"] if (id(p) in projector) == own], **({"lr": rate} if own else {})}
                for group in optimizer.param_groups
                for own in (False, True)
            ]
            optimizer.param_groups[:] = [part for part in parts if part["params"]]
        return optimizer

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The Trainer's for an adapter. A whole model's weights have other names on disk than in memory: the Trainer would warn
        that it knows none of them, and go on from the base's.
        """
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = LlavaForConditionalGeneration.from_pretrained(resume_from_checkpoint, dtype=torch.float32, local_files_only=True)
        self.model.load_state_dict(saved.state_dict())

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any) -> Any:
        """The Trainer's, timed."""
        return super().get_batch_samples(self._meter.waiting(epoch_iterator), *args)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loss. A batch without images still takes a blank one through tower and projector, for nothing.

        Processes must agree on what has gradients, and in which order they come: ZeRO-2 adds up what comes at the same place.
        """
        if "pixel_values" in inputs:
            return super().compute_loss(model, inputs, *args, **kwargs)
        llava = llava_of(self.model)
        side = llava.config.vision_config.image_size

        def add_nothing(module: nn.Module, given: Any, embeddings: torch.Tensor) -> torch.Tensor:
            seen = llava.get_image_features(embeddings.new_zeros(1, 3, side, side), return_dict=True).pooler_output
            return embeddings + 0 * sum(features.sum() for features in seen)

        hook = llava.get_input_embeddings().register_forward_hook(add_nothing)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            hook.remove()


def llava_of(model: nn.Module) -> LlavaForConditionalGeneration:
    """The model itself where there is an adapter around it."""
    found: LlavaForConditionalGeneration = model.get_base_model() if isinstance(model, PeftModel) else model
    return found


class _Batches(Dataset[list[Sample]]):
    """The batches of a plan."""

    def __init__(self, samples: Any, planned: Sequence[np.ndarray]) -> None:
        self.samples, self.planned = samples, planned

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> list[Sample]:
        if get_worker_info() is not None:
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # the training's to heed: it still needs its batches, and ends its workers
        return [self.samples[i] for i in self.planned[index].tolist()]


class _Collator:
    """A batch of samples to the model's input; pickles, for loader workers."""

    def __init__(self, layout: Layout, packing: bool) -> None:
        self.layout, self.packing = layout, packing

    def __call__(self, batches: Sequence[Sequence[Sample]]) -> dict[str, Any]:
        [samples] = batches
        made = pack(self.layout, samples) if self.packing else collate(self.layout, samples)
        return at_labels(made) | {"use_cache": False}  # keys and values are not asked for again


class Tuned(NamedTuple):
    """A finished training."""

    trainer: Trainer
    rows: list[dict[str, object]]
    """Of the loss table."""
    measured: dict[str, float]
    """What `Meter.whole` gives of this run."""


def tune(
    *,
    load: Callable[[], LlavaForConditionalGeneration],
    name: str,
    layout: Layout,
    dataset: Any,
    lengths: np.ndarray,
    tuning: Tuning,
    seed: int,
    folder: Path,
    group: Group,
    stop: Stop,
    superseded: Callable[[], bool],
    board: Board,
) -> Tuned:
    """Train. `load` gives the base called `name`; `dataset[i]` is a Sample, `lengths` their tokens after expansion.

    Checkpoints go to a folder of this run below `folder`, which must hold those of this very work only: the newest whole one
    there is gone on from. Raises Interrupted where `stop` was asked for, UserError where there is nothing to learn from, the
    training diverges, or `superseded` says that another run of this work took over.
    """
    if not len(dataset):
        raise UserError("no training sample: see the shards' list of rejected questions")
    planned = plan(tuning, lengths, seed)
    steps = len(planned) // tuning.batches
    run = group.agreed("run", lambda: f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    newest = group.agreed("newest checkpoint", lambda: str(checkpoints.newest(folder) or ""))
    made = arguments(tuning, seed, steps, folder / run)
    if tuning.zero_stage == 3:  # the weights are shared out as they are read
        from deepspeed import init_distributed

        init_distributed(dist_backend="nccl" if tuning.gpus else "gloo", timeout=TIMEOUT, verbose=False)
    base = load()
    torch.manual_seed(seed)  # as without ZeRO-3, which draws random numbers while it reads
    tokens = np.array([lengths[batch].sum() for batch in planned])
    cells = tokens if tuning.packing else np.array([lengths[batch].max() * len(batch) for batch in planned])
    seen = cumulated(tokens, tuning.batches)
    meter = Meter(
        seen,
        cumulated(cells, tuning.batches),
        parameters=sum(size(p) for p in (*base.model.language_model.parameters(), *base.lm_head.parameters())),
        gpus=tuning.gpus,
        gpu=torch.cuda.get_device_name() if tuning.gpus else "",
    )
    history = _History(seen, meter, board)
    trainer = _Trainer(
        projector_learning_rate=tuning.projector_learning_rate,
        meter=meter,
        model=adapt(base, tuning, name),
        args=made,
        train_dataset=_Batches(dataset, planned),
        data_collator=_Collator(layout, tuning.packing),
        callbacks=[history, checkpoints.Keeper(stop, superseded)],
    )
    trainer.remove_callback(PrinterCallback)
    if newest and group.first:
        log.info("resumes from %s", Path(newest).name)
    try:
        trainer.train(resume_from_checkpoint=newest or None)
    except RuntimeError as error:
        if group.world > 1 and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise UserError(
                f"process {group.rank} lost another of the {group.world}, which died or was cut off: see its own message, and "
                "whether it was killed for its memory. Started again, the training goes on from its newest checkpoint"
            ) from error
        raise
    if (step := trainer.state.global_step) < steps:
        raise Interrupted(f"told to stop (SIGTERM) at step {step} of {steps}: started again, it goes on from checkpoint-{step}")
    return Tuned(trainer, history.rows(trainer.state), meter.whole())


def size(parameter: nn.Parameter) -> int:
    """Its numbers, also where ZeRO-3 has shared them out."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.parquet", "*.prov.json")
"""Of a model's folder, what is another one's after a full fine-tuning."""


def save(trainer: Trainer, folder: Path, base: Path, tuning: Tuning, first: bool) -> None:
    """The adapter, or the whole model with all else that the base's folder has, such as the tokenizer. To be called on every
    process: ZeRO-3 gathers the weights.
    """
    trainer.save_model(str(folder))
    if not first:
        return
    for path in list(folder.iterdir()):
        if path.name == "training_args.bin" or (tuning.method == "lora" and path.name not in ADAPTER):
            files.remove(path)
    if tuning.method == "full":
        for path in base.iterdir():
            if not any(path.match(pattern) for pattern in WEIGHTS) and not (folder / path.name).exists():
                shutil.copy(path, folder)
