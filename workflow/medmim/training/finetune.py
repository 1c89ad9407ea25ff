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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import Dataset, get_worker_info
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerControl, TrainerState

from medmim.common import files
from medmim.common.errors import RunInterruptedError, UserError
from medmim.config.training import Tuning
from medmim.models.collate import Sample, collate_samples, pack_samples, restrict_loss_to_labels
from medmim.models.families.base import Layout
from medmim.training.adapters import PROJECTOR, make_trainable, unwrap_llava
from medmim.training.data import order, packing
from medmim.training.planning.disk import KEPT_CHECKPOINTS
from medmim.training.runtime import checkpoints
from medmim.training.runtime.preemption import StopRequest
from medmim.training.runtime.process_group import PEER_TIMEOUT, ProcessGroup
from medmim.training.runtime.progress import ProgressReporter, build_loss_row, cumulate_tokens
from medmim.training.runtime.throughput import TensorBoardLog, ThroughputMeter, format_measurements

log = logging.getLogger("medmim")
BETA1 = 0.9


def total_steps(tuning: Tuning, batches: float) -> int:
    """Optimizer steps: max_steps, or as many as `epochs` passes over the `batches` of one need, at least one."""
    return tuning.max_steps or max(1, math.ceil(batches * tuning.epochs / tuning.batches_per_step))


def plan_batches(tuning: Tuning, lengths: np.ndarray, seed: int) -> list[np.ndarray]:
    """The samples of each batch of the whole training, in order: batch i is that of process i % world. The same for any world.

    `lengths` of all samples after expansion. A step's batches follow each other, and epochs do so without a gap.
    """
    if tuning.packing:
        steps = total_steps(tuning, len(packing.pack_epoch(lengths, seed, 0, tuning.pack_budget)))
        return packing.pack_batches(lengths, seed, tuning.pack_budget, steps * tuning.batches_per_step)
    steps = total_steps(tuning, len(lengths) / tuning.batch)
    return order.order_batches(seed, len(lengths), tuning.batch, steps * tuning.batches_per_step)


def build_deepspeed_config(tuning: Tuning) -> dict[str, Any] | None:
    """DeepSpeed's configuration, None without it. torch's AdamW: DeepSpeed's own would be compiled first."""
    if not tuning.zero_stage:
        return None
    zero_config: dict[str, Any] = {"stage": tuning.zero_stage}
    if tuning.zero_stage == 3:
        zero_config["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero_config,
        "zero_allow_untested_optimizer": True,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "data_types": {"grad_accum_dtype": "fp32"},  # what many batches add up to vanishes in bfloat16
        "steps_per_print": 10**9,
    }


def build_trainer_arguments(tuning: Tuning, seed: int, steps: int, folder: Path) -> TrainingArguments:
    """The Trainer's arguments; made before the model is loaded, as ZeRO-3 wants it."""
    is_stable_decay = tuning.schedule == "warmup_stable_decay"
    training_arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # of our batches
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=tuning.accumulation,
        max_steps=steps,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type=tuning.schedule,
        lr_scheduler_kwargs={"num_decay_steps": round(DECAY_SHARE * steps), "decay_type": "linear"} if is_stable_decay else None,
        warmup_steps=round(tuning.warmup_ratio * steps),
        weight_decay=tuning.weight_decay,
        adam_beta1=BETA1,
        adam_beta2=tuning.adam_beta2,
        max_grad_norm=tuning.clip,
        optim="adamw_torch",
        bf16=tuning.precision == "bf16",
        activation_checkpointing=tuning.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if tuning.gradient_checkpointing else None,
        deepspeed=build_deepspeed_config(tuning),
        ddp_backend="gloo" if tuning.processes > 1 else None,
        ddp_timeout=int(PEER_TIMEOUT.total_seconds()),
        ddp_find_unused_parameters=False,
        use_cpu=not tuning.gpus,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=tuning.checkpoint_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=tuning.workers,
        dataloader_prefetch_factor=max(2, math.ceil(tuning.accumulation / tuning.workers)) if tuning.workers else None,
        dataloader_pin_memory=bool(tuning.gpus),
        remove_unused_columns=False,
        label_names=["labels"],
    )
    training_arguments._n_gpu = min(
        training_arguments.n_gpu, 1
    )  # one process, one GPU: the Trainer would wrap the model in DataParallel
    return training_arguments


DECAY_SHARE = 0.3
"""Share of the steps in which the schedule warmup_stable_decay falls to zero."""


class _HistoryCallback(TrainerCallback):
    """What is said of a training while it runs; stops one that diverged."""

    def __init__(self, tokens: np.ndarray, meter: ThroughputMeter, board: TensorBoardLog) -> None:
        self.tokens, self.meter, self.board = tokens, meter, board
        self.progress: ProgressReporter | None = None

    def _tokens_seen(self, step: int) -> int:
        return int(self.tokens[step - 1]) if step else 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        start = state.global_step
        self.progress = ProgressReporter(
            "tune", state.max_steps, start, self._tokens_seen(start), is_shown=state.is_world_process_zero
        )
        self.meter.start(start)
        if state.is_world_process_zero:
            self.board.start(start)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs: object
    ) -> None:
        if self.progress is not None and "loss" in logs:
            step = state.global_step
            build_loss_row("tune", step, logs["loss"], logs["learning_rate"], 0)
            self.progress.report_step(step, logs["loss"], self._tokens_seen(step))
            scalars = {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs}
            self.board.add_scalars(step, scalars | self.meter.measure_step(step))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        assert self.progress is not None
        self.progress.close(state.global_step, self._tokens_seen(state.global_step))
        self.board.close()
        if state.is_world_process_zero:
            log.info("%s", format_measurements(self.meter.measure_run()))

    def loss_rows(self, state: TrainerState) -> list[dict[str, object]]:
        """The loss table, steps before a resume included."""
        return [
            build_loss_row("tune", e["step"], e["loss"], e["learning_rate"], self._tokens_seen(e["step"]))
            for e in state.log_history
            if "loss" in e
        ]


class _MeteredTrainer(Trainer):
    """transformers' Trainer with a learning rate for the projector, and its waits for data measured."""

    def __init__(self, *, projector_learning_rate: float | None, meter: ThroughputMeter, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._projector_learning_rate, self._meter = projector_learning_rate, meter

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's, its groups divided where the projector has a learning rate of its own."""
        optimizer = super().create_optimizer(model)
        rate = self._projector_learning_rate
        if rate is not None:
            projector = {id(p) for name, p in (model or self.model).named_parameters() if PROJECTOR in name}
            parts = [
                {
                    **group,
                    "params": [p for p in group["params"] if (id(p) in projector) == is_projector],
                    **({"lr": rate} if is_projector else {}),
                }
                for group in optimizer.param_groups
                for is_projector in (False, True)
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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The Trainer's, without the weights that need not be gathered or copied.

        A checkpoint (`_internal_call`) has DeepSpeed's own files, which a resume reads: the weights stand in them. Under ZeRO-1
        and 2 each process holds all weights, and the Trainer has each of them copy the whole model to the machine's memory, to
        write of an adapter what is trained: here the first alone writes, of what it holds.
        """
        if self.is_deepspeed_enabled and _internal_call:
            return
        is_sharded = self.is_deepspeed_enabled and self.deepspeed.zero_optimization_stage() == 3
        if self.is_deepspeed_enabled and not is_sharded and not self.args.should_save:
            return
        if self.is_deepspeed_enabled and not is_sharded and isinstance(self.model, PeftModel):
            folder = output_dir or str(self.args.output_dir)
            self.model.save_pretrained(folder, state_dict=self.deepspeed.module_state_dict(exclude_frozen_parameters=True))
            return
        super().save_model(output_dir, _internal_call)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any) -> Any:
        """The Trainer's, timed."""
        return super().get_batch_samples(self._meter.time_batches(epoch_iterator), *args)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loss. A batch without images still takes a blank one through tower and projector, for nothing.

        Processes must agree on what has gradients, and in which order they come: ZeRO-2 adds up what comes at the same place.
        """
        if "pixel_values" in inputs:
            return super().compute_loss(model, inputs, *args, **kwargs)
        llava = unwrap_llava(self.model)
        side = llava.config.vision_config.image_size

        def add_nothing(module: nn.Module, hook_inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
            image_features = llava.get_image_features(embeddings.new_zeros(1, 3, side, side), return_dict=True).pooler_output
            return embeddings + 0 * sum(features.sum() for features in image_features)

        hook = llava.get_input_embeddings().register_forward_hook(add_nothing)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            hook.remove()


class _BatchDataset(Dataset[list[Sample]]):
    """The batches of a plan."""

    def __init__(self, samples: Any, batches: Sequence[np.ndarray]) -> None:
        self.samples, self.batches = samples, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[Sample]:
        if get_worker_info() is not None:
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # the training's to heed: it still needs its batches, and ends its workers
        return [self.samples[i] for i in self.batches[index].tolist()]


class _BatchCollator:
    """A batch of samples to the model's input; pickles, for loader workers."""

    def __init__(self, layout: Layout, packing: bool) -> None:
        self.layout, self.packing = layout, packing

    def __call__(self, batches: Sequence[Sequence[Sample]]) -> dict[str, Any]:
        [samples] = batches
        batch = pack_samples(self.layout, samples) if self.packing else collate_samples(self.layout, samples)
        return restrict_loss_to_labels(batch) | {"use_cache": False}  # keys and values are not asked for again


class TuningResult(NamedTuple):
    """A finished training."""

    trainer: Trainer
    rows: list[dict[str, object]]
    """Of the loss table."""
    measured: dict[str, float]
    """What `Meter.whole` gives of this run."""


def tune_model(
    *,
    load_base: Callable[[], LlavaForConditionalGeneration],
    name: str,
    revision: str | None = None,
    layout: Layout,
    dataset: Any,
    lengths: np.ndarray,
    tuning: Tuning,
    seed: int,
    folder: Path,
    group: ProcessGroup,
    stop: StopRequest,
    is_superseded: Callable[[], bool],
    board: TensorBoardLog,
) -> TuningResult:
    """Train. `load_base` gives the base called `name`, of the hub at `revision`; `dataset[i]` is a Sample, `lengths` their tokens
    after expansion.

    Checkpoints go to a folder of this run below `folder`, which must hold those of this very work only: the newest whole one
    there is gone on from. Raises RunInterruptedError where `stop` was asked for, UserError where there is nothing to learn from,
    the training diverges, or `is_superseded` says that another run of this work took over.
    """
    if not len(dataset):
        raise UserError("no training sample: see the shards' list of rejected questions")
    batches = plan_batches(tuning, lengths, seed)
    steps = len(batches) // tuning.batches_per_step
    run_name = group.broadcast("run", lambda: f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    newest_checkpoint = group.broadcast("newest checkpoint", lambda: str(checkpoints.find_newest(folder) or ""))
    training_arguments = build_trainer_arguments(tuning, seed, steps, folder / run_name)
    if tuning.zero_stage == 3:  # the weights are shared out as they are read
        from deepspeed import init_distributed

        init_distributed(dist_backend="nccl" if tuning.gpus else "gloo", timeout=PEER_TIMEOUT, verbose=False)
    base = load_base()
    torch.manual_seed(seed)  # as without ZeRO-3, which draws random numbers while it reads
    tokens = np.array([lengths[batch].sum() for batch in batches])
    cells = tokens if tuning.packing else np.array([lengths[batch].max() * len(batch) for batch in batches])
    tokens_seen = cumulate_tokens(tokens, tuning.batches_per_step)
    meter = ThroughputMeter(
        tokens_seen,
        cumulate_tokens(cells, tuning.batches_per_step),
        parameters=sum(count_elements(p) for p in (*base.model.language_model.parameters(), *base.lm_head.parameters())),
        gpus=tuning.gpus,
        gpu=torch.cuda.get_device_name() if tuning.gpus else "",
    )
    history = _HistoryCallback(tokens_seen, meter, board)
    trainer = _MeteredTrainer(
        projector_learning_rate=tuning.projector_learning_rate,
        meter=meter,
        model=make_trainable(base, tuning, name, revision),
        args=training_arguments,
        train_dataset=_BatchDataset(dataset, batches),
        data_collator=_BatchCollator(layout, tuning.packing),
        callbacks=[history, checkpoints.CheckpointCallback(stop, is_superseded)],
    )
    trainer.remove_callback(PrinterCallback)
    if newest_checkpoint and group.is_main:
        log.info("resumes from %s", Path(newest_checkpoint).name)
    try:
        trainer.train(resume_from_checkpoint=newest_checkpoint or None)
    except RuntimeError as error:
        if group.world_size > 1 and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise UserError(
                f"process {group.rank} lost another of the {group.world_size}, which died or was cut off: see its own "
                "message, and "
                "whether it was killed for its memory. Started again, the training goes on from its newest checkpoint"
            ) from error
        raise
    if (step := trainer.state.global_step) < steps:
        raise RunInterruptedError(
            f"told to stop (SIGTERM) at step {step} of {steps}: started again, it goes on from checkpoint-{step}"
        )
    return TuningResult(trainer, history.loss_rows(trainer.state), meter.measure_run())


def count_elements(parameter: nn.Parameter) -> int:
    """Its numbers, also where ZeRO-3 has shared them out."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.index.json", "*.parquet", "*.prov.json")
"""Of a model's folder, what is another one's after a full fine-tuning."""


def save_tuned_model(trainer: Trainer, folder: Path, base: Path, tuning: Tuning, first: bool) -> None:
    """The adapter, or the whole model with all else that the base's folder has, such as the tokenizer. To be called on every
    process: ZeRO-3 gathers the weights.
    """
    trainer.save_model(str(folder))
    if not first:
        return
    for path in list(folder.iterdir()):
        if path.name == "training_args.bin" or (tuning.method == "lora" and path.name not in ADAPTER_FILES):
            files.remove_path(path)
    if tuning.method == "full":
        for path in base.iterdir():
            if not any(path.match(pattern) for pattern in WEIGHT_PATTERNS) and not (folder / path.name).exists():
                shutil.copy(path, folder)
