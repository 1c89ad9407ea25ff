"""Fine-tuning of a base on multi-image questions: LoRA on the language model's attention and MLP, the projector in full.

The vision tower is frozen. transformers' Trainer runs it, on one process or several, with DeepSpeed where the config says.
"""

import logging
import math
import os
import platform
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.data import Dataset
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerControl, TrainerState

from medmim.errors import Interrupted, UserError
from medmim.models.batch import Sample, collate
from medmim.models.layout import Layout
from medmim.train import checkpoints
from medmim.train.group import TIMEOUT, Group
from medmim.train.history import Progress, cumulated, row
from medmim.train.order import Order
from medmim.train.preempt import Stop
from medmim.train.recipe import Tuning

log = logging.getLogger("medmim")
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""LoRA's modules. A list of names would also match the vision tower's attention."""
PROJECTOR = "multi_modal_projector"
BETA1 = 0.9


def total_steps(tuning: Tuning, samples: int) -> int:
    """Optimizer steps: max_steps, or as many as `epochs` passes over the samples need, at least one."""
    return tuning.max_steps or max(1, math.ceil(samples * tuning.epochs / tuning.samples))


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
        per_device_train_batch_size=tuning.batch,
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
        dataloader_num_workers=0,
        dataloader_pin_memory=bool(tuning.gpus),
        remove_unused_columns=False,
        label_names=["labels"],
    )
    made._n_gpu = min(made.n_gpu, 1)  # one process, one GPU: the Trainer would wrap the model in DataParallel
    return made


DECAY = 0.3
"""Share of the steps in which the schedule warmup_stable_decay falls to zero."""


def adapt(base: LlavaForConditionalGeneration, tuning: Tuning, name: str) -> PeftModel:
    """The base with LoRA and a trainable projector; `name` of the base is written into the adapter.

    Raises AssertionError where anything else would be trained.
    """
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
    if not tuning.zero_stage:
        for parameter in model.parameters():
            if parameter.requires_grad:  # the projector's copy too: updates of 1e-5 vanish in bfloat16
                parameter.data = parameter.data.float()
    check(model)
    return model


def check(model: nn.Module) -> None:
    """AssertionError unless just LoRA in the language model and the projector are trained, each with all its weights."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    lora = {name for name in trained if "lora_" in name}
    projector = {name for name, _ in model.named_parameters() if PROJECTOR in name and "modules_to_save" in name}
    assert not {name for name in trained if "vision_tower" in name}, "the vision tower would be trained"
    assert lora and all("language_model" in name for name in lora), "LoRA stands outside the language model"
    assert projector and projector == trained - lora, f"besides LoRA the projector is trained, not {sorted(trained - lora)}"


class _History(TrainerCallback):
    """Progress while it runs; stops a diverged training."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens
        self.progress: Progress | None = None

    def _seen(self, step: int) -> int:
        return int(self.tokens[step - 1]) if step else 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        start = state.global_step
        self.progress = Progress("tune", state.max_steps, start, self._seen(start), shown=state.is_world_process_zero)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs: object
    ) -> None:
        if self.progress is not None and "loss" in logs:
            row("tune", state.global_step, logs["loss"], logs["learning_rate"], 0)
            self.progress.step(state.global_step, logs["loss"], self._seen(state.global_step))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        assert self.progress is not None
        self.progress.close(state.global_step, self._seen(state.global_step))

    def rows(self, state: TrainerState) -> list[dict[str, object]]:
        """The loss table, steps before a resume included."""
        return [
            row("tune", e["step"], e["loss"], e["learning_rate"], self._seen(e["step"])) for e in state.log_history if "loss" in e
        ]


class _Trainer(Trainer):
    """transformers' Trainer with our order of samples."""

    def __init__(self, *, order: Order, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._order = order

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loss. A batch without images still takes a blank one through tower and projector, for nothing.

        Processes must agree on what has gradients, and in which order they come: ZeRO-2 adds up what comes at the same place.
        """
        if "pixel_values" in inputs:
            return super().compute_loss(model, inputs, *args, **kwargs)
        llava = self.model.get_base_model()
        side = llava.config.vision_config.image_size

        def add_nothing(module: nn.Module, given: Any, embeddings: torch.Tensor) -> torch.Tensor:
            seen = llava.get_image_features(embeddings.new_zeros(1, 3, side, side), return_dict=True).pooler_output
            return embeddings + 0 * sum(features.sum() for features in seen)

        hook = llava.get_input_embeddings().register_forward_hook(add_nothing)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            hook.remove()

    def _get_train_sampler(self, train_dataset: Dataset[Sample] | None = None) -> Order:
        return self._order


class _Collator:
    """`collate` with its layout; pickles, for loader workers."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        return collate(self.layout, samples)


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
) -> tuple[Trainer, list[dict[str, object]]]:
    """Train. `load` gives the base called `name`; `dataset[i]` is a Sample, `lengths` their tokens after expansion.

    Checkpoints go to a folder of this run below `folder`, which must hold those of this very work only: the newest whole one
    there is gone on from. Returns the Trainer with the adapted model and the rows of the loss table. Raises Interrupted where
    `stop` was asked for, UserError where there is nothing to learn from, the training diverges, or `superseded` says that
    another run of this work took over.
    """
    if not len(dataset):
        raise UserError("no training sample: see the shards' list of rejected questions")
    steps = total_steps(tuning, len(dataset))
    order = Order(seed, len(dataset), steps * tuning.samples)
    run = group.agreed("run", lambda: f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    newest = group.agreed("newest checkpoint", lambda: str(checkpoints.newest(folder) or ""))
    made = arguments(tuning, seed, steps, folder / run)
    if tuning.zero_stage == 3:  # the weights are shared out as they are read
        from deepspeed import init_distributed

        init_distributed(dist_backend="nccl" if tuning.gpus else "gloo", timeout=TIMEOUT, verbose=False)
    base = load()
    torch.manual_seed(seed)  # as without ZeRO-3, which draws random numbers while it reads
    history = _History(cumulated(lengths, order.indices, tuning.samples))
    trainer = _Trainer(
        order=order,
        model=adapt(base, tuning, name),
        args=made,
        train_dataset=dataset,
        data_collator=_Collator(layout),
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
    return trainer, history.rows(trainer.state)
