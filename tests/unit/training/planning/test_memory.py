"""The plan of a training: counts held against models on the meta device, torch's FLOP counter and the bytes torch keeps."""

import itertools
import json
import re
import shutil
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, MistralConfig, PretrainedConfig, SiglipVisionConfig

from medmim.common.errors import UserError
from medmim.config.run_config import load_config
from medmim.config.training import Tuning
from medmim.provenance.code_digest import WORKFLOW
from medmim.tables import table_io
from medmim.training.adapters import make_trainable
from medmim.training.planning import architecture, disk, memory, meta_model
from medmim.training.planning.architecture import REFERENCE_CONFIGS, Architecture, UnknownArchitectureError
from medmim.training.planning.gpu_types import find_gpu_type
from small_models import run_program

PUBLISHED = {
    # base, its tower, its language model with the vocabulary it was published with
    "TIGER-Lab/Mantis-8B-siglip-llama3": (8_480_007_232, 428_225_600, 8_030_261_248, 128_256),
    "chaoyinshe/llava-med-v1.5-mistral-7b-hf": (7_566_743_552, 303_507_456, 7_241_732_096, 32_000),
}
WIDE = {"num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 448}
NARROW = {
    "image_size": 56, "patch_size": 14, "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3,
    "num_attention_heads": 4,
}  # fmt: skip
SMALL = {
    "siglip": {
        "model_type": "llava", "tie_word_embeddings": False, "vision_feature_layer": -2, "image_token_index": 1,
        "text_config": {"model_type": "llama", "vocab_size": 500, **WIDE},
        "vision_config": {"model_type": "siglip_vision_model", **NARROW},
    },
    "clip": {
        "model_type": "llava", "tie_word_embeddings": False, "vision_feature_layer": -2, "image_token_index": 1,
        "text_config": {"model_type": "mistral", "vocab_size": 500, "sliding_window": None, **WIDE},
        "vision_config": {"model_type": "clip_vision_model", **NARROW},
    },
}  # fmt: skip
RECIPE = {"lora_rank": 16, "lora_dropout": 0.0, "gradient_checkpointing": False, "zero_stage": 2, "gpus": 4, "precision": "bf16"}
IMAGES, TEXT, LABELS = 4, 60, 20


def small(kind: str) -> Architecture:
    return Architecture.from_config(SMALL[kind], kind)


@pytest.mark.parametrize("hub", PUBLISHED)
def test_the_published_sizes(hub: str) -> None:
    """Of the hub's pages and the owners' papers; and of the very model, built without its weights."""
    config, source = REFERENCE_CONFIGS[hub]
    whole, tower, language, vocabulary = PUBLISHED[hub]
    counted = Architecture.from_config(config, source)
    alone = Architecture.from_config(config | {"text_config": config["text_config"] | {"vocab_size": vocabulary}}, source)
    assert (counted.parameter_count, counted.tower.parameter_count, alone.language.parameter_count) == (whole, tower, language)
    model = meta_model.build_empty_model(config)
    assert meta_model.count_parameters(model) == whole and meta_model.count_parameters(model.model.vision_tower) == tower
    tuning = paper().tuning
    adapted = meta_model.build_adapted_model(config, tuning)
    own = memory.count_trained(counted, tuning)
    assert (meta_model.count_parameters(adapted, trained=True), meta_model.count_parameters(adapted)) == (own, whole + own)


@pytest.mark.parametrize("config", [
    SMALL["siglip"],
    SMALL["clip"] | {"tie_word_embeddings": True, "vision_feature_select_strategy": "full"},
    SMALL["siglip"] | {"vision_config": SMALL["siglip"]["vision_config"] | {"vision_use_head": False}},
    SMALL["siglip"] | {"text_config": SMALL["siglip"]["text_config"] | {"head_dim": 24}},
])  # fmt: skip
def test_any_other_sizes(config: dict[str, Any]) -> None:
    counted = Architecture.from_config(config, "here")
    model = meta_model.build_empty_model(config)
    assert counted.parameter_count == meta_model.count_parameters(
        model
    ) and counted.tower.parameter_count == meta_model.count_parameters(model.model.vision_tower)
    lora = meta_model.build_adapted_model(config, Tuning(**RECIPE))
    assert meta_model.count_parameters(lora, trained=True) == counted.language.lora_parameters(16) + counted.projector_parameters


def test_what_a_config_leaves_out_is_what_transformers_fills_in() -> None:
    kinds: list[type[PretrainedConfig]] = [CLIPVisionConfig, SiglipVisionConfig, LlamaConfig, MistralConfig]
    for kind in kinds:
        filled = kind()
        for key, value in architecture.CONFIG_DEFAULTS[kind.model_type].items():
            default = filled.num_attention_heads if key == "num_key_value_heads" and value is None else value
            assert getattr(filled, key) == default, (kind, key)


def test_what_is_not_counted_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitectureError, match="qwen2_vl"):
        Architecture.from_config({"model_type": "qwen2_vl"}, "here")
    with pytest.raises(UnknownArchitectureError, match="here: a gpt2"):
        Architecture.from_config(SMALL["clip"] | {"text_config": {"model_type": "gpt2"}}, "here")
    with pytest.raises(UnknownArchitectureError, match="biases"):
        Architecture.from_config(
            SMALL["siglip"] | {"text_config": SMALL["siglip"]["text_config"] | {"attention_bias": True}}, "here"
        )
    with pytest.raises(UnknownArchitectureError, match=r"some/model has no config\.json"):
        architecture.find_config("some/model", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnknownArchitectureError, match="no JSON"):
        architecture.find_config("some/model", tmp_path)


def real(kind: str, tuning: Tuning) -> Any:
    """The model with numbers, its types as DeepSpeed makes them."""
    made = meta_model.build_empty_model(SMALL[kind]).to_empty(device="cpu")
    for tensor in itertools.chain(made.parameters(), made.buffers()):
        torch.nn.init.uniform_(tensor, -0.05, 0.05) if tensor.is_floating_point() else tensor.zero_()
    for module in made.modules():  # positions, which nothing fills on the meta device
        if hasattr(module, "position_ids"):
            module.position_ids.copy_(torch.arange(module.position_ids.shape[-1])[None])
    if tuning.method == "full":
        made.model.vision_tower.requires_grad_(False)
        return made.train()
    adapted = make_trainable(made, tuning, "").to(torch.bfloat16).train()
    made.set_attn_implementation("sdpa")
    return adapted


def llava_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def step(model: Any) -> torch.Tensor:
    """Loss of one sample of IMAGES images, TEXT tokens and LABELS labels, the head run where the labels are."""
    llava = llava_of(model)
    side = llava.config.vision_config.image_size
    pixels, ids = torch.zeros(IMAGES, 3, side, side, dtype=llava.dtype), torch.zeros(1, TEXT, dtype=torch.int64)
    labels, at = torch.zeros(LABELS, dtype=torch.int64), torch.arange(LABELS)
    shown = torch.cat(list(llava.model.get_image_features(pixels, return_dict=True).pooler_output))
    embedded = torch.cat([shown, llava.get_input_embeddings()(ids)[0].to(shown.dtype)])[None]
    states = llava.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return torch.nn.functional.cross_entropy(llava.lm_head(states[0, at]).float(), labels)


def sums(counted: Architecture) -> dict[str, int]:
    tokens = IMAGES * counted.image_tokens + TEXT
    return {"tokens": tokens, "images": IMAGES, "labels": LABELS, "squares": tokens**2}


def checkpoint(model: Any) -> None:
    """As a training does it."""
    model.enable_input_require_grads = lambda: None
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_flops_are_what_torch_counts(kind: str, checkpointed: bool, method: str) -> None:
    counted, tuning = small(kind), Tuning(**RECIPE | {"method": method, "gradient_checkpointing": checkpointed})
    model = real(kind, tuning)
    llava = llava_of(model)
    llava.set_attn_implementation("eager")  # torch does not count all kernels of a CPU
    if checkpointed:
        checkpoint(llava)
    with FlopCounterMode(display=False) as counter:
        step(model).backward()
    assert meta_model.count_parameters(model, trained=True) == memory.count_trained(counted, tuning)
    planned = memory.count_flops(counted, tuning, **sums(counted))
    again = planned.recomputed + counted.language.attention_flops(sums(counted)["squares"]) / 2 if checkpointed else 0
    assert counter.get_total_flops() == planned.language + planned.attention + planned.projector + planned.vision + again


class Live(TorchDispatchMode):
    """Bytes of the storages that live, those of some tensors not counted: now, and at their peak."""

    def __init__(self, without: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {t.untyped_storage()._cdata: None for t in without}

    def _gone(self, key: int, size: int) -> None:
        del self._known[key]
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (key := (storage := tensor.untyped_storage())._cdata) not in self._known:
                size = storage.nbytes()
                self._known[key] = weakref.ref(storage, lambda _, key=key, size=size: self._gone(key, size))
                self.now += size
                self.peak = max(self.peak, self.now)
        return result


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("recipe", [{}, {"lora_dropout": 0.1}, {"gradient_checkpointing": True}, {"method": "full"}], ids=str)
def test_memory_is_what_torch_holds(kind: str, recipe: dict[str, Any]) -> None:
    tuning = Tuning(**RECIPE | recipe)
    model, counted = real(kind, tuning), small(kind)
    llava = llava_of(model)
    if tuning.gradient_checkpointing:
        checkpoint(llava)
    batch = memory.PeakBatch(tokens=sums(counted)["tokens"], images=IMAGES, labels=LABELS)
    seen: list[int] = []
    llava.lm_head.register_forward_pre_hook(lambda *_: seen.append(live.now))
    live = Live([*model.parameters(), *model.buffers()])
    with live:
        step(model).backward()
    own = memory.count_trained(counted, tuning)
    assert live.now == 2 * own  # after it, nothing is left but the gradients
    # Beside what is kept for the backward pass: pixels and ids, the result of the layers, and its part that the head takes.
    b, w, side = 2, counted.language.width, SMALL[kind]["vision_config"]["image_size"]
    given = IMAGES * 3 * side**2 * b + TEXT * 8 + LABELS * 16 + (batch.tokens + LABELS) * b * w
    kept = memory.stored_activation_bytes(counted, tuning, batch)
    if tuning.lora_dropout and not tuning.gradient_checkpointing:  # on a CPU the masks are as wide as what they mask
        kept += batch.tokens * counted.language.layers * sum(i for i, _ in counted.language.linear_shapes.values())
    # Checkpointing holds the generators' states besides, 5 KB a layer.
    assert seen[0] == pytest.approx(kept + given, rel=0.08 if tuning.gradient_checkpointing else 0.03)
    allowed = memory.peak_activation_bytes(counted, tuning, batch)
    assert 0.8 * allowed < live.peak < 1.2 * (allowed + 2 * own)  # gradients come as what is kept goes


def test_optimizer_and_gradients_are_what_torch_allocates() -> None:
    tuning = Tuning(**RECIPE | {"zero_stage": 0, "gpus": 0, "precision": "fp32"})
    model = real("clip", tuning).float()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, 1e-3)
    step(model).backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    planned = memory.estimate_memory(small("clip"), tuning, memory.PeakBatch(tokens=1, images=0, labels=0))
    assert sum(t.nbytes for t in moments) == planned.optimizer
    assert sum(p.grad.nbytes for p in weights) == planned.gradients
    assert sum(p.nbytes for p in model.parameters()) == planned.weights


def paper(**changes: object) -> memory.TrainingPlan:
    """Med-Mantis at the paper's scale, on four H100."""
    built = Architecture.from_config(*REFERENCE_CONFIGS["TIGER-Lab/Mantis-8B-siglip-llama3"])
    tuning = Tuning(accumulation=8, gradient_checkpointing=True, zero_stage=2, max_length=8192, gpus=4)
    return memory.plan_training(built, tuning.model_copy(update=changes), memory.estimate_workload({}, built.image_tokens))


def test_the_shipped_recipes_fit_what_they_name() -> None:
    config = load_config(WORKFLOW.parent / "config/config.yaml")
    tuned = {name: model for name, model in config.models.items() if model.base}
    for name, model in tuned.items():
        built = Architecture.from_config(*architecture.find_config(config.models[model.base].hub))
        planned = memory.plan_training(
            built, model.tuning, memory.estimate_workload(config.qa.train.model_dump(), built.image_tokens)
        )
        assert model.tuning.gpu_memory_gb and planned.memory.total < model.tuning.gpu_memory_gb * memory.GIB
        memory.require_gpu_memory(planned, name)
    assert tuned.keys() == {"med-mantis", "mim-llava-med"}


def test_zero_shares_out_what_it_says() -> None:
    by = {stage: paper(zero_stage=stage).memory for stage in (1, 2, 3)}
    own = 357_048_320
    assert [m.optimizer for m in by.values()] == [3 * own] * 3  # 12 bytes over 4 GPUs
    assert [m.gradients for m in by.values()] == [4 * own, own, own]
    assert by[1].weights == by[2].weights == 2 * (8_480_007_232 + own) == 4 * by[3].weights
    assert by[3].buffers - by[2].buffers == 2 * memory.MAX_LIVE_PARAMETERS


def test_checkpoints_take_what_the_arithmetic_gives() -> None:
    """Three at a time: two are kept, and a third is written before the oldest goes."""
    mantis = paper().architecture
    own, whole, tower = 357_048_320, 8_480_007_232, 428_225_600
    recipes = {
        "LoRA": ({"zero_stage": 0}, 12 * own),
        "LoRA, ZeRO-2": ({"zero_stage": 2}, 14 * own),
        "LoRA, ZeRO-3": ({"zero_stage": 3}, 12 * own),
        "full, ZeRO-2": ({"method": "full", "zero_stage": 2}, 14 * (whole - tower) + 2 * tower),
        "full, ZeRO-3": ({"method": "full", "zero_stage": 3}, 12 * (whole - tower) + 2 * tower),
    }
    for name, (changes, size) in recipes.items():
        tuning = paper(**changes).tuning
        assert disk.count_checkpoint_bytes(mantis, tuning) == size, name
        assert disk.count_peak_bytes(mantis, tuning) == 3 * size
    assert 3 * recipes["full, ZeRO-2"][1] == pytest.approx(340.7e9, rel=1e-3)


def test_a_runs_checkpoints_are_those_of_its_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """plan says when there is no room; tiny bases, which the run makes, need none to speak of."""
    config = load_config(WORKFLOW.parent / "config/config.yaml")
    models, asked = config.model_dump(mode="json")["models"], config.qa.train.model_dump()
    models |= {
        "small": models["med-mantis"] | {"base": None, "tiny": {"image_size": 56}},
        "own": models["med-mantis"] | {"base": "small"},
    }
    models["med-mantis"]["tuning"] |= {"method": "full", "zero_stage": 3}
    cfg = {
        "sources": {}, "download": config.download.model_dump(mode="json"), "models": {}, "trainings": models, "writing": {},
        "questions": {"train": asked, "benchmark": {}}, "folder": str(tmp_path),
    }  # fmt: skip
    room = type("Usage", (), {"free": 300 * 10**9})()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: room)
    with pytest.raises(SystemExit):
        run_program(monkeypatch, "plan.py", cfg=cfg)
    said = capsys.readouterr().out
    full = 3 * (12 * (8_480_007_232 - 428_225_600) + 2 * 428_225_600)
    assert re.search(rf"checkpoints of med-mantis .*{full / 1e9:.1f} GB", said) and "checkpoints of own" not in said
    assert re.search(r"Missing: disk: checkpoints of med-mantis, checkpoints of mim-llava-med need [\d.]+ GB", said)
    room.free = 400 * 10**9
    run_program(monkeypatch, "plan.py", cfg=cfg)
    assert "Missing" not in capsys.readouterr().out
    models["mantis"]["hub"] = "owner/other"
    counted = {name: (size, basis) for name, size, basis in disk.count_run_checkpoints(models, tmp_path, asked)}
    assert counted["med-mantis"][0] is None and "owner/other has no config.json" in counted["med-mantis"][1]


def test_the_papers_plan() -> None:
    planned = paper()
    assert planned.workload.samples == 83_200 and planned.workload.tokens / 83_200 == pytest.approx(1650, rel=0.01)
    assert planned.memory.total < 80 * memory.GIB < paper(gradient_checkpointing=False).memory.total
    # Published for Llama-3-8B by LoRA: 32.2 GFLOPs a token at 4 a parameter; here the head runs where labels are alone.
    assert 28e9 < planned.flops.language / planned.total_tokens < 32.2e9
    hours = planned.gpu_hours(find_gpu_type("NVIDIA H100 80GB HBM3"))
    assert 3 < hours < 6 and hours == pytest.approx(planned.flops.executed / (989e12 * 0.4) / 3600)
    assert planned.steps == -(-planned.batches // 32)


def test_what_can_not_fit_is_refused_with_what_would() -> None:
    fits = paper(gpu_memory_gb=80)
    memory.require_gpu_memory(fits, "med-mantis")
    memory.require_gpu_memory(paper(), "med-mantis")  # it does not say what it has
    with pytest.raises(UserError) as refused:
        memory.require_gpu_memory(paper(gpu_memory_gb=80, gradient_checkpointing=False), "med-mantis")
    said = str(refused.value)
    assert "models.med-mantis.tuning" in said and "weights 16.5" in said and "gradient_checkpointing: true" in said
    for variant in memory.find_variants(paper(gradient_checkpointing=False), 80 * memory.GIB):
        assert variant.plan.memory.total <= 80 * memory.GIB and variant.changes
    with pytest.raises(UserError, match="more GPUs, or larger ones"):
        memory.require_gpu_memory(paper(gpu_memory_gb=4), "med-mantis")


def test_a_faster_recipe_is_named_where_there_is_room() -> None:
    better = memory.find_faster(paper(), 80 * memory.GIB)
    assert better is not None and better.changes == {"gradient_checkpointing": False, "max_length": 4096}
    assert memory.find_faster(better.plan, 80 * memory.GIB) is None


def test_lengths_of_samples_that_are_there(tmp_path: Path) -> None:
    rows = [
        {"qa_id": str(n), "input_ids": [5, 6, 7], "labels": [-100, 6, 7][: 3 - n % 2] + [-100] * (n % 2),
         "image_ids": ["a"] * (n % 3), "length": 100 + n}
        for n in range(6)
    ]  # fmt: skip
    table_io.write_table(tmp_path / "samples.parquet", "samples", rows)
    found = memory.measure_workload(tmp_path / "samples.parquet")
    assert (found.samples, found.tokens, found.images, found.labels, found.longest) == (6, 615, 6, 9, 105)
    assert found.squares == sum((100 + n) ** 2 for n in range(6)) and found.measured


def test_a_runs_gpu_hours_are_those_of_its_trainings(tmp_path: Path) -> None:
    run_ = load_config(WORKFLOW.parent / "config/config.yaml")
    models, asked, gpu = run_.model_dump()["models"], run_.qa.train.model_dump(), find_gpu_type("H100")
    assert gpu is not None
    tuned = [name for name, model in models.items() if model["base"]]
    each = {name: memory.plan_run_training(models, name, tmp_path, asked)[0].gpu_hours(gpu) for name in tuned}
    lines = memory.format_gpu_hours(models, tmp_path, asked, gpu)
    assert [line.split(" (")[0] for line in lines[:-1]] == [f"GPU hours, {name}: {hours:,.1f}" for name, hours in each.items()]
    assert lines[-1] == f"GPU hours of all trainings: {sum(each.values()):,.1f}" and len(each) == 2
    first = models[tuned[0]]
    models[first["base"]] = models[first["base"]] | {"hub": "owner/other"}
    lines = memory.format_gpu_hours(models, tmp_path, asked, gpu)
    assert lines[0].startswith(f"GPU hours, {tuned[0]}: not known: owner/other has no config.json")
    assert lines[-1] == f"GPU hours of all trainings: {each[tuned[1]]:,.1f} and those of {tuned[0]}"
    for name in tuned:
        models[name]["tuning"]["gpus"] = 0
    assert memory.format_gpu_hours(models, tmp_path, asked, gpu) == ["GPU hours: none, no model is tuned on a GPU"]


def test_gpus_by_their_names() -> None:
    names = {"NVIDIA H100 80GB HBM3": "H100", "NVIDIA H100 PCIe": "H100 PCIe", "NVIDIA A100-SXM4-80GB": "A100", "h200": "H200",
             "NVIDIA A100-PCIE-40GB": "A100 40GB", "NVIDIA L40S": "L40S"}  # fmt: skip
    assert {name: gpu.name for name in names if (gpu := find_gpu_type(name))} == names
    assert find_gpu_type("Radeon VII") is None


def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of the user's own folder, planned from its config.json; and one that is not fetched yet."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL["clip"]))
    sources = {"lumiere": {"origin": "local", "path": "x"}}
    tuning = RECIPE | {"gpu_memory_gb": 80, "max_length": 512}
    models = {
        "base": {"family": "llava-med", "path": str(tmp_path)}, "own": {"family": "llava-med", "base": "base", "tuning": tuning},
        "far": {"family": "mantis", "hub": "some/model"}, "farther": {"family": "mantis", "base": "far", "tuning": tuning},
    }  # fmt: skip
    config = {
        "run": "r",
        "results": str(tmp_path),
        "sources": sources,
        "models": models,
        "qa": {"train": {"temporal": 50}, "benchmark": {"temporal": 5}},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    run_program(monkeypatch, "plan_training.py", config=tmp_path / "config.yaml", json=tmp_path / "plan.json", gpu="H200")
    said = capsys.readouterr().out
    assert (
        f"LoRA of rank 16, {tmp_path}/config.json" in said
        and "farther         not planned: some/model has no config.json" in said
    )
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures.keys() == {"own"} and figures["own"]["fits"] and figures["own"]["gpu"] == "H200"
    assert figures["own"]["parameters"] == small("clip").parameter_count
    assert figures["own"]["peak_checkpoint_bytes"] == 3 * 14 * figures["own"]["trained"] and "on the disk at a time" in said
    with pytest.raises(SystemExit):
        run_program(monkeypatch, "plan_training.py", config=tmp_path / "config.yaml", models=["base"])
    with pytest.raises(SystemExit):
        run_program(monkeypatch, "plan_training.py", config=tmp_path / "config.yaml", gpu="abacus")
