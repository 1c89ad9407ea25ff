"""Model folders and adapters to models in memory."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig, LlavaForConditionalGeneration, logging

from medmim.common.cpu_threads import set_torch_threads
from medmim.common.errors import UserError, explain_library_errors

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def prepare_device(gpus: int, threads: int) -> torch.device:
    """Fix the number of CPU threads and choose the device."""
    set_torch_threads(threads)
    return torch.device("cuda" if gpus else "cpu")


def load_model(folder: Path, *, family: str, precision: str = "fp32", adapter: Path | None = None) -> Any:
    """The model of a folder, weights in `precision`, in evaluation mode, on the CPU; with a PEFT adapter merged into it where
    given: on its own it would make each layer several. Its own generation settings are dropped.

    Raises UserError where the folder or adapter has no model that can be loaded.
    """
    logging.disable_progress_bar()  # of reading the files: a job has its own
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft still asks for the old name
    model_class = AutoModelForImageTextToText if family == "chat" else LlavaForConditionalGeneration
    with explain_library_errors(f"no model could be loaded from {folder}"):
        model, report = model_class.from_pretrained(
            str(folder), dtype=DTYPES[precision], local_files_only=True, output_loading_info=True
        )
    if missing_weights := sorted(report["missing_keys"]):  # which the library would draw at random, with a warning
        raise UserError(f"{folder}: its files of weights lack {len(missing_weights)} that it needs, such as {missing_weights[0]}")
    model.generation_config = GenerationConfig()  # sampling and penalties of the hub's would slip into greedy replies
    if adapter is not None:
        from peft import PeftModel

        with (
            explain_library_errors(f"no model could be loaded from {folder} with adapter {adapter}: is it one of this base?"),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("error", "Found missing adapter keys")
            model = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
            model = model.merge_and_unload(safe_merge=True)  # which refuses weights that are no numbers
    return model.eval()
