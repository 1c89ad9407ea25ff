"""Model folders and adapters to models in memory."""

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig, LlavaForConditionalGeneration, logging

from medmim.common.cpu_threads import set_torch_threads
from medmim.common.errors import UserError, explain_library_errors

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ADAPTER_FILE = "adapter_model.safetensors"
MAX_NAMES = 3
"""Weights named in a message."""
ORIGINAL_LLAVA_CLASSES = ("LlavaLlamaForCausalLM", "LlavaMistralForCausalLM", "LlavaMptForCausalLM", "LlavaQwenForCausalLM")
"""What the original LLaVA code and its descendants write as architecture into config.json; github.com/haotian-liu/LLaVA."""


def prepare_device(gpus: int, threads: int) -> torch.device:
    """Fix the number of CPU threads and choose the device."""
    set_torch_threads(threads)
    return torch.device("cuda" if gpus else "cpu")


def check_folder(folder: Path, *, family: str) -> None:
    """Check that the weights in a model's folder are those that its config asks for, by name and shape; none is read.

    Raises UserError that names those that are missing, of another shape or, in a model that can be trained here, unknown, and
    where the folder is in the original LLaVA code's format.
    """
    _check_format(folder)
    _load_checked(folder, family, device_map="meta")


def load_model(folder: Path, *, family: str, precision: str = "fp32", adapter: Path | None = None) -> Any:
    """The model of a folder, weights in `precision`, in evaluation mode, on the CPU; with a PEFT adapter merged into it where
    given: on its own it would make each layer several. Its own generation settings are dropped.

    An adapter is added in float32 and the sum rounded once, to the type in which the base is stored: these are the weights that
    are published. Raises UserError where the folder or adapter has no model that can be loaded, or weights that do not fit it.
    """
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft still asks for the old name
    model = _load_checked(folder, family, dtype=torch.float32 if adapter else DTYPES[precision])
    model.generation_config = GenerationConfig()  # sampling and penalties of the hub's would slip into greedy replies
    if adapter is not None:
        model = _merge_adapter(
            model, adapter, f"no model could be loaded from {folder} with adapter {adapter}: is it one of this base?"
        )
        for dtype in (read_stored_dtype(folder), DTYPES[precision]):
            _round_weights(model, dtype)
    return model.eval()


def read_stored_dtype(folder: Path) -> torch.dtype:
    """The type in which a folder's weights are stored, as its config says."""
    config = _read_config(folder)
    dtype: torch.dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch."))
    return dtype


def _round_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Change the type of the weights alone: frequencies of rotary positions, which are buffers, stay exact."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    with explain_library_errors(f"{path} can't be read"):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def _check_format(folder: Path) -> None:
    """Refuse a folder that the original LLaVA code wrote: the library would read its config as that of another model."""
    config = _read_config(folder)
    original_names = [name for name in config.get("architectures") or [] if name in ORIGINAL_LLAVA_CLASSES]
    if original_names or ("mm_vision_tower" in config and "vision_config" not in config):
        raise UserError(
            f"{folder} is in the format of the original LLaVA code ({', '.join(original_names) or 'mm_vision_tower is set'}), "
            "which transformers does not load: take a folder that was converted for transformers, such as "
            "chaoyinshe/llava-med-v1.5-mistral-7b-hf, or convert it by transformers' convert_llava_weights_to_hf.py"
        )


def _load_checked(folder: Path, family: str, **options: Any) -> Any:
    """The model of a folder, whose weights all fit. The library draws those that do not at random, with a warning."""
    logging.disable_progress_bar()  # of reading the files: a job has its own
    model_class = AutoModelForImageTextToText if family == "chat" else LlavaForConditionalGeneration
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of what does not fit: said below
    try:
        with explain_library_errors(f"no model could be loaded from {folder}"):
            model, report = model_class.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    finally:
        logging.set_verbosity(verbosity)
    misfits = [
        ("lack", sorted(report["missing_keys"])),
        ("have another shape for", [_format_misshaped(*row) for row in sorted(report["mismatched_keys"])]),
        # Models that are only asked may bring more than is used, as heads for other tasks.
        ("have unknown", sorted(report["unexpected_keys"]) if family != "chat" else []),
    ]
    faults = [f"{verb} {_format_names(names)}" for verb, names in misfits if names]
    if faults:
        raise UserError(f"{folder}: its files of weights {'; they '.join(faults)}: take the whole model, in transformers' format")
    return model


def _format_misshaped(name: str, stored_shape: Iterable[int], shape: Iterable[int]) -> str:
    return f"{name} ({' x '.join(map(str, stored_shape))}, not {' x '.join(map(str, shape))})"


def _format_names(names: Sequence[str]) -> str:
    """How many weights there are, and the first of them."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{len(names)} weight{'s' * (len(names) > 1)}, {', '.join(names[:MAX_NAMES])}{more}"


def _merge_adapter(model: Any, adapter: Path, problem: str) -> Any:
    """The model with an adapter merged into it, all of whose weights fit."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    with explain_library_errors(problem):
        tuned_model: Any = PeftModel(model, PeftConfig.from_pretrained(str(adapter)), autocast_adapter_dtype=False)
        stored_weights = load_file(adapter / ADAPTER_FILE)
    expected_names = get_peft_model_state_dict(tuned_model, save_embedding_layers=False).keys()
    missing_names, unknown_names = sorted(expected_names - stored_weights.keys()), sorted(stored_weights.keys() - expected_names)
    misfits = [("lacks", missing_names), ("has unknown", unknown_names)]
    if faults := [f"{verb} {_format_names(names)}" for verb, names in misfits if names]:
        raise UserError(f"{problem} It {'; it '.join(faults)}")
    with explain_library_errors(problem):
        set_peft_model_state_dict(tuned_model, stored_weights)
        return tuned_model.merge_and_unload(safe_merge=True)  # which refuses weights that are no numbers
