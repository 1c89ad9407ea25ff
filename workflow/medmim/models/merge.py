"""A tuned model as one folder that stock transformers loads: weights, tokenizer, processor and chat template.

The processor does to text and images what the family's layout does, so that who loads the folder with AutoProcessor asks as the
model was trained: the tests compare ids and pixels with the layout's.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import processors
from transformers import GenerationConfig, LlavaConfig, LlavaProcessor, SiglipImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from medmim.common.cpu_threads import set_torch_threads
from medmim.common.errors import UserError
from medmim.models import weights
from medmim.models.families.base import Family, Layout
from medmim.models.families.registry import FAMILIES, get_family

MAX_SHARD_SIZE = "5GB"
"""Most of one file of weights."""

PROMPT_STARTS = ("{{- bos_token }}", "{{- bos_token + ' ' }}")
"""How a prompt begins: SentencePiece tokenizers differ in whether a word after <s> is one that begins a text."""
PROBE_QUESTION = "Is there a lesion?"


def build_image_processor(family: Family, size: int) -> Any:
    """What makes pixel_values of images as the family's layout does; `size` of the tower's square input, pixels."""
    common = {"image_mean": list(family.mean), "image_std": list(family.std), "do_convert_rgb": True, "resample": 3}
    if not family.pads_to_square:
        return SiglipImageProcessorPil(size={"height": size, "width": size}, **common)
    # CLIP's own processor would cut to the centre; this one pads to a square first.
    crop = {"height": size, "width": size}
    return LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": size}, crop_size=crop, **common)


def build_processor(folder: Path, family: str, system: str = "") -> LlavaProcessor:
    """The processor of a model of a family, from the tokenizer and config.json in its folder.

    Its chat template writes BOS, and the system message `system` where a conversation brings none; its tokenizer adds nothing, so
    that a text of the template, tokenized by whatever tool, has one BOS. Batches are padded on the left, as generation needs.
    """
    layout, config = Layout.from_folder(get_family(family), folder), LlavaConfig.from_pretrained(str(folder))
    vision = config.vision_config
    expected_ids, _ = layout.encode_sample(PROBE_QUESTION, system=system)
    _stop_adding_tokens(layout.tokenizer)
    layout.tokenizer.padding_side = layout.tokenizer.init_kwargs["padding_side"] = "left"  # the latter is what is saved
    llava_processor = LlavaProcessor(
        image_processor=build_image_processor(layout.family, vision.image_size),
        tokenizer=layout.tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=int(vision.model_type == "clip_vision_model"),
    )
    for start in PROMPT_STARTS:
        llava_processor.chat_template = start + _write_default_system(system) + layout.family.chat_template
        prompt = llava_processor.apply_chat_template([{"role": "user", "content": PROBE_QUESTION}], add_generation_prompt=True)
        if llava_processor.tokenizer(prompt)["input_ids"] == expected_ids:
            return llava_processor
    raise UserError(f"{folder}: no chat template gives its tokenizer's ids of a prompt of {family}")


def _stop_adding_tokens(tokenizer: Any) -> None:
    """Let a tokenizer add neither BOS nor EOS, neither now nor when it is loaded again."""
    for name in ("add_bos_token", "add_eos_token"):
        if hasattr(tokenizer, name):
            setattr(tokenizer, name, False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])


def _write_default_system(system: str) -> str:
    """What a chat template does where a conversation has no system message of its own."""
    if not system:
        return ""
    message = f"{{'role': 'system', 'content': {json.dumps(system)}}}"
    return f"{{%- if messages[0]['role'] != 'system' %}}{{%- set messages = [{message}] + messages %}}{{%- endif %}}"


def merge_adapter(base: Path, tuned: Path, family: str, out: Path, system: str = "") -> dict[str, Any]:
    """Write the model of an adapter on its base into the folder `out`; of a whole tuned model, that model.

    Weights are added in float32 and rounded once, to the type in which the base is stored. Generation ends where a reply of the
    family does. `system` is what the model was tuned with. Returns {"dtype", "parameters"}. Raises UserError where there is no
    model, or no family whose layout is known.
    """
    if family not in FAMILIES:
        raise UserError(f"family {family}: only models that are tuned here are merged, of {' or '.join(FAMILIES)}")
    adapter = tuned if (tuned / "adapter_config.json").is_file() else None
    dtype = weights.read_stored_dtype(base)
    set_torch_threads(1)
    model = weights.load_model(base if adapter else tuned, family=family, precision="fp32", adapter=adapter)
    model.to(dtype)
    layout = Layout.from_folder(get_family(family), base)
    model.generation_config = GenerationConfig(
        bos_token_id=layout.tokenizer.bos_token_id, eos_token_id=list(layout.stop_ids), pad_token_id=layout.pad_id
    )
    model.save_pretrained(str(out), max_shard_size=MAX_SHARD_SIZE)
    build_processor(base, family, system).save_pretrained(str(out))
    return {"dtype": str(dtype).removeprefix("torch."), "parameters": sum(p.numel() for p in model.parameters())}
