"""Which weights of a base are trained: LoRA adapters or the language model in full, and always the projector."""

from functools import partial
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlavaForConditionalGeneration

from medmim.config.training import Tuning
from medmim.models.attention import enable_packed_attention

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""LoRA's modules. A list of names would also match the vision tower's attention."""
PROJECTOR = "multi_modal_projector"


def make_trainable(base: LlavaForConditionalGeneration, tuning: Tuning, name: str, revision: str | None = None) -> nn.Module:
    """Freeze all weights but the LoRA adapters and the projector.

    `name` and `revision` of the base, its repository on the hub and the commit, are written into an adapter.

    Raises AssertionError where anything else would be trained.
    """
    # peft and checkpointing want gradients of the embeddings, for the older way of checkpointing, and take the vision tower's for
    # such too: the whole tower would keep its activations and be gone back through for weights that are frozen.
    base.enable_input_require_grads = lambda: None
    model: Any = _freeze_vision_tower(base) if tuning.method == "full" else _add_lora(base, tuning, name, revision)
    if not tuning.zero_stage:  # DeepSpeed keeps copies of its own in float32
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # updates of 1e-5 vanish in bfloat16
    check_trained_weights(model, tuning.method)
    if tuning.packing:
        enable_packed_attention(base)
    return model


def _freeze_vision_tower(base: LlavaForConditionalGeneration) -> nn.Module:
    base.model.vision_tower.requires_grad_(False)
    return base


def _add_lora(base: LlavaForConditionalGeneration, tuning: Tuning, name: str, revision: str | None) -> nn.Module:
    config = LoraConfig(
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=LORA_TARGETS,
        modules_to_save=[PROJECTOR],
        task_type="CAUSAL_LM",
        revision=revision,
    )
    model = get_peft_model(base, config, autocast_adapter_dtype=not tuning.zero_stage)
    model.peft_config["default"].base_model_name_or_path = name  # peft took the path it was loaded from: no path in an artifact
    # Embeddings are not trained; left to itself peft would ask the hub whether the base's vocabulary was another.
    model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
    return model


def check_trained_weights(model: nn.Module, method: str) -> None:
    """AssertionError unless the projector is trained with all its weights and, of the rest, just LoRA in the language model, or
    all but the vision tower.
    """
    parameters = dict(model.named_parameters())
    trained = {name for name, p in parameters.items() if p.requires_grad}
    tower = {name for name in parameters if "vision_tower" in name}
    assert tower and not trained & tower, "the vision tower would be trained"
    if method == "full":
        assert trained == parameters.keys() - tower, (
            f"frozen beside the vision tower: {sorted(parameters.keys() - tower - trained)}"
        )
        return
    lora = {name for name in trained if "lora_" in name}
    projector = {name for name in parameters if PROJECTOR in name and "modules_to_save" in name}
    assert lora and all("language_model" in name for name in lora), "LoRA stands outside the language model"
    assert projector and projector == trained - lora, f"besides LoRA the projector is trained, not {sorted(trained - lora)}"


def unwrap_llava(model: nn.Module) -> LlavaForConditionalGeneration:
    """The model itself where there is an adapter around it."""
    llava: LlavaForConditionalGeneration = model.get_base_model() if isinstance(model, PeftModel) else model
    return llava
