"""Family chat: a tiny randomly initialised Gemma 3 (MedGemma's architecture) through its own processor and template."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from medmim import tables
from medmim.files import INDEX, index
from medmim.images import ImageStore
from medmim.models.prompter import prompter
from medmim.models.weights import load
from medmim.predict.replies import prompts, replies
from small_models import dialogues, image_rows, questions, run, write_tables

torch.set_num_threads(1)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{{ '<start_of_image>' if c['type'] == 'image' else c['text'] }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
IMAGE_TOKENS = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
SPECIALS = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *IMAGE_TOKENS]
CFG = {"family": "chat", "model": "m", "condition": "plain", "system": "", "batch": 4, "max_new_tokens": 4}
CFG |= {"precision": "fp32", "gpus": 0, "threads": 1}


def write_chat_model(folder: Path) -> None:
    words = [w for t, a in dialogues(questions(["a", "b", "c"])) for w, _ in pre_tokenizers.Whitespace().pre_tokenize_str(t + a)]
    vocabulary = dict.fromkeys([*SPECIALS, "[UNK]", *"ABC", *words])
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(SPECIALS)
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=dict(zip(["boi_token", "eoi_token", "image_token"], IMAGE_TOKENS, strict=True)),
    )
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14,
        vision_use_head=False,
    )  # fmt: skip
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16,
        num_key_value_heads=1, initializer_range=0.3, sliding_window=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, boi_token_index=5, eoi_token_index=6, image_token_index=7
    )
    torch.manual_seed(2)
    model = Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [1, 4]
    model.save_pretrained(folder)
    image_processor = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    Gemma3Processor(image_processor, tokenizer, chat_template=TEMPLATE, image_seq_length=4).save_pretrained(folder)
    tables.write(folder / INDEX, "files", index(folder))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_tables(folder)
    write_chat_model(folder / "chat")
    return folder


def test_prompt_is_the_models_own_template(world):
    asker = prompter("chat", world / "chat", ImageStore([world / "images.parquet"]).image)
    prompt = asker.prompt("<image>See <image>there?\nA: x", ["a", "b"], "Be brief.")
    assert prompt.text == (
        "<bos><start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user\n<start_of_image>See <start_of_image>there?\n"
        "A: x<end_of_turn>\n<start_of_turn>model\n"
    )
    assert asker.tokenizer.convert_ids_to_tokens(list(asker.stops)) == ["<eos>", "<end_of_turn>"]
    assert asker.tokenizer.convert_ids_to_tokens(asker.letters(3)) == ["A", "B", "C"]
    with pytest.raises(ValueError, match="1 placeholders for 0 images"):
        asker.prompt("<image>x", [])


def test_batch_is_what_the_processor_makes_with_one_bos(world):
    store = ImageStore([world / "images.parquet"])
    asker = prompter("chat", world / "chat", store.image)
    ids = [str(r["image_id"]) for r in image_rows()]
    batch = asker.batch([asker.prompt("<image><image>x", ids[:2]), asker.prompt("<image>x", ids[2:3])])
    assert batch["pixel_values"].shape == (3, 3, 56, 56)
    tokens = [asker.tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"].tolist()]
    assert [t.count("<bos>") for t in tokens] == [1, 1]
    assert [t.count("<image_soft_token>") for t in tokens] == [8, 4]
    assert tokens[1][0] == "<pad>" and tokens[0][0] == "<bos>"


def test_replies_do_not_depend_on_the_batch(world):
    store = ImageStore([world / "images.parquet"])
    asker = prompter("chat", world / "chat", store.image)
    asked = tables.read(world / "qa.parquet", "qa").to_pylist()
    options = [len(q["options"]) for q in asked]
    model = load(world / "chat", family="chat")
    for condition in ("plain", "blind"):
        given = prompts(asked, asker, condition=condition, system="")
        one, many = (replies(model, asker, given, options, batch=b, max_new_tokens=6) for b in (1, 6))
        assert [r.text for r in one] == [r.text for r in many]
        for a, b in zip(one, many, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_program(monkeypatch, world, tmp_path):
    out = tmp_path / "out.parquet"
    options = {"qa": world / "qa.parquet", "images": [world / "images.parquet"], "predictions": out}
    run(monkeypatch, "predict.py", cfg=CFG, model=world / "chat" / INDEX, **options)
    assert tables.read(out, "predictions").num_rows == tables.read(world / "qa.parquet", "qa").num_rows


def test_folder_without_a_template_is_refused(world, tmp_path, monkeypatch, capsys):
    for path in (world / "chat").iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    options = {"qa": world / "qa.parquet", "images": [world / "images.parquet"], "predictions": tmp_path / "out.parquet"}
    with pytest.raises(SystemExit):
        run(monkeypatch, "predict.py", cfg=CFG, model=tmp_path / INDEX, **options)
    assert "its processor has no chat template" in capsys.readouterr().err
