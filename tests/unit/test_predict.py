"""Replies: the same alone and in a batch, equal to a plain loop by hand, with adapters, blind, and through a program."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GenerationConfig, LlavaForConditionalGeneration

from medmim import gpus, tables
from medmim.files import INDEX, index, sha256
from medmim.images import ImageStore
from medmim.job import UserError
from medmim.models import FAMILIES
from medmim.models.batch import Sample, collate
from medmim.models.layout import Layout
from medmim.models.prompter import prompter
from medmim.models.weights import load
from medmim.predict.replies import batches, prompts, replies
from small_models import dialogues, run, write_model, write_tables

torch.set_num_threads(1)
CFG = {"model": "m", "condition": "plain", "system": "", "batch": 4, "max_new_tokens": 8}
CFG |= {"precision": "fp32", "gpus": 0, "threads": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder with qa, images, and a model and an adapter of each family."""
    folder = tmp_path_factory.mktemp("world")
    write_tables(folder)
    for family in FAMILIES:
        write_model(folder / family, family)
        model = LlavaForConditionalGeneration.from_pretrained(folder / family)
        torch.manual_seed(5)
        lora = LoraConfig(
            r=4, lora_alpha=64, target_modules=r".*language_model.*\.(q_proj|v_proj)", modules_to_save=["multi_modal_projector"]
        )
        adapted = get_peft_model(model, lora)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(str(folder / f"{family}-adapter"))
        tables.write(folder / f"{family}-adapter" / INDEX, "files", index(folder / f"{family}-adapter"))
    return folder


def asked(world, family, condition="plain"):
    store = ImageStore([world / "images.parquet"])
    asker = prompter(family, world / family, store.image)
    questions = tables.read(world / "qa.parquet", "qa").to_pylist()
    return asker, questions, prompts(questions, asker, condition=condition, system="")


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_do_not_depend_on_the_batch(world, family, adapter):
    asker, questions, given = asked(world, family)
    model = load(world / family, family=family, adapter=world / f"{family}-adapter" if adapter else None)
    options = [len(q["options"]) for q in questions]
    one, five, all_ = (replies(model, asker, given, options, batch=b, max_new_tokens=12) for b in (1, 5, 99))
    assert [r.text for r in one] == [r.text for r in five] == [r.text for r in all_]
    assert len({r.text for r in one}) > 3  # random weights, but they do read the question
    for a, b in ((one, five), (one, all_)):
        for x, y in zip(a, b, strict=True):
            assert x.logprobs == pytest.approx(y.logprobs, abs=1e-4)
    assert [len(r.logprobs) for r in one] == options


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_a_plain_greedy_loop(world, tmp_path, family, adapter):
    """By hand: one sample, no cache, no padding, the whole forward again for each token. Settings of the hub are not used."""
    shutil.copytree(world / family, tmp_path / family)
    settings = GenerationConfig(do_sample=True, repetition_penalty=50.0, no_repeat_ngram_size=1, max_new_tokens=3)
    settings.save_pretrained(tmp_path / family)
    asker, questions, given = asked(world, family)
    layout, store = Layout.open(family, world / family), ImageStore([world / "images.parquet"])
    model = load(tmp_path / family, family=family, adapter=world / f"{family}-adapter" if adapter else None)
    found = replies(model, asker, given, [len(q["options"]) for q in questions], batch=4, max_new_tokens=6)
    for question, (text, _), reply in zip(questions, dialogues(questions), found, strict=True):
        ids, _ = layout.encode(text)
        pixels = [layout.pixels(store.image(i)) for i in question["image_ids"]]
        new: list[int] = []
        logprobs = None
        while len(new) < 6 and not set(new) & set(layout.stops):
            with torch.inference_mode():
                logits = model(**collate(layout, [Sample([*ids, *new], [*ids, *new], pixels)])).logits[0, -1]
            logprobs = logits.log_softmax(-1) if logprobs is None else logprobs
            new.append(int(logits.argmax()))
        assert reply.text == layout.tokenizer.decode([i for i in new if i not in layout.stops], skip_special_tokens=True).strip()
        # the letter's token is the first one that training takes a loss on in "A: ..."
        targets = [f"{letter}: {o}" for letter, o in zip("ABC", question["options"], strict=False)]
        letters = [next(i for i in layout.encode(text, target)[1] if i >= 0) for target in targets]
        assert reply.logprobs == pytest.approx([float(logprobs[i]) for i in letters], abs=1e-4)


def test_replies_end_at_a_stop_token_or_the_limit(world):
    asker, questions, given = asked(world, "mantis")
    options = [len(q["options"]) for q in questions]
    assert asker.tokenizer.convert_ids_to_tokens(list(asker.stops)) == ["<|eot_id|>", "<|end_of_text|>"]
    lesion = asker.tokenizer.convert_tokens_to_ids("Ġlesion")
    for always, wanted in [(asker.stops[0], ""), (asker.stops[1], ""), (lesion, "lesion lesion lesion")]:
        model = load(world / "mantis", family="mantis")
        model.lm_head = torch.nn.Linear(32, len(asker.tokenizer))
        with torch.no_grad():
            model.lm_head.bias[always] = 1e4
        assert {r.text for r in replies(model, asker, given, options, batch=4, max_new_tokens=3)} == {wanted}


def test_option_logprobs_add_up_over_the_whole_vocabulary(world):
    asker, questions, given = asked(world, "llava-med")
    model = load(world / "llava-med", family="llava-med")
    found = replies(model, asker, given, [len(q["options"]) for q in questions], batch=4, max_new_tokens=1)
    assert all(p < 0 for r in found for p in r.logprobs) and all(sum(map(np.exp, r.logprobs)) < 1 for r in found)


def test_adapter_is_the_stock_peft_one_and_changes_replies(world):
    asker, questions, given = asked(world, "mantis")
    options = [len(q["options"]) for q in questions]
    base = load(world / "mantis", family="mantis")
    sizes = {"batch": 8, "max_new_tokens": 8}
    plain = replies(base, asker, given, options, **sizes)
    tuned = replies(load(world / "mantis", family="mantis", adapter=world / "mantis-adapter"), asker, given, options, **sizes)
    stock = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(world / "mantis"), str(world / "mantis-adapter")
    )
    assert replies(stock.eval(), asker, given, options, **sizes) == tuned
    assert [r.text for r in plain] != [r.text for r in tuned]


@pytest.mark.parametrize("family", FAMILIES)
def test_blind_shows_no_image(world, family):
    asker, _, given = asked(world, family, "blind")
    assert all(not p.images and "<image>" not in p.text and "(image 1" not in p.text for p in given)
    assert "pixel_values" not in asker.batch(given)
    _, _, seen = asked(world, family)
    assert given[0].text == seen[0].text  # the text-only question is the same


def test_batches_are_longest_first_and_keep_images_apart(world):
    _, _, given = asked(world, "mantis")
    parts = batches(given, 3)
    assert sorted(i for part in parts for i in part) == list(range(len(given)))
    assert all(len({bool(given[i].images) for i in part}) == 1 for part in parts)
    lengths = [given[i].length for part in parts for i in part if given[i].images]
    assert lengths == sorted(lengths, reverse=True)


def predict(monkeypatch, world, out: Path, family="mantis", adapter=False, **cfg):
    options = {"adapter": world / f"{family}-adapter" / INDEX} if adapter else {}
    qa, store = world / "qa.parquet", [world / "images.parquet"]
    model, cfg = world / family / INDEX, CFG | {"family": family} | cfg
    run(monkeypatch, "predict.py", cfg=cfg, model=model, qa=qa, images=store, predictions=out, **options)
    return tables.read(out, "predictions").to_pylist()


@pytest.mark.parametrize("condition", ["plain", "blind"])
@pytest.mark.parametrize("family", FAMILIES)
def test_program(monkeypatch, world, tmp_path, family, condition):
    found = predict(monkeypatch, world, tmp_path / "a.parquet", family, adapter=True, condition=condition)
    again = predict(monkeypatch, world, tmp_path / "b.parquet", family, adapter=True, condition=condition)
    assert found == again and sha256(tmp_path / "a.parquet") == sha256(tmp_path / "b.parquet")
    questions = tables.read(world / "qa.parquet", "qa").to_pylist()
    assert [r["qa_id"] for r in found] == [q["qa_id"] for q in questions]
    assert [len(r["option_logprobs"]) for r in found] == [len(q["options"]) for q in questions]
    assert {(r["model"], r["condition"]) for r in found} == {("m", condition)}
    _, _, given = asked(world, family, condition)
    assert len({r["prompt_sha256"] for r in found}) == len({p.text for p in given})


def test_program_in_bf16(monkeypatch, world, tmp_path):
    found = predict(monkeypatch, world, tmp_path / "a.parquet", adapter=True, precision="bf16")
    exact = predict(monkeypatch, world, tmp_path / "b.parquet", adapter=True)
    for a, b in zip(found, exact, strict=True):
        assert a["option_logprobs"] == pytest.approx(b["option_logprobs"], abs=0.3)


def test_program_without_the_gpu_it_wants(monkeypatch, world, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        predict(monkeypatch, world, tmp_path / "a.parquet", gpus=1)
    assert "gpus: 1 asked for, but torch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(monkeypatch, world, tmp_path / "a.parquet", gpus=2)
    assert "one program predicts on one GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="GPU node"):
        gpus.require(2)


def test_program_names_what_is_wrong(monkeypatch, world, tmp_path, capsys):
    questions = tables.read(world / "qa.parquet", "qa").to_pylist()
    wrong = {
        "in none of the images tables": questions[1] | {"image_ids": ["f" * 64]},
        "can't be asked: the question holds '<|eot_id|>'": questions[1] | {"question": "<image>stop<|eot_id|>"},
        "can't be asked: 1 placeholders for 2 images": questions[1] | {"image_ids": questions[1]["image_ids"] * 2},
    }
    for message, question in wrong.items():
        tables.write(tmp_path / "qa.parquet", "qa", [questions[0], question])
        options = {"qa": tmp_path / "qa.parquet", "images": [world / "images.parquet"], "predictions": tmp_path / "out.parquet"}
        with pytest.raises(SystemExit):
            run(monkeypatch, "predict.py", cfg=CFG | {"family": "mantis"}, model=world / "mantis" / INDEX, **options)
        error = capsys.readouterr().err
        assert message in error and question["qa_id"] in error
        with pytest.raises(SystemExit):
            run(monkeypatch, "predict.py", cfg=CFG | {"family": "llava-med"}, model=world / "mantis" / INDEX, **options)
        assert "mantis: the tokenizer has no '</s>': is it that of llava-med?" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["qa.parquet"]


def test_loading_what_is_no_model_or_adapter(world, tmp_path):
    with pytest.raises(UserError, match="no model could be loaded"):
        load(tmp_path, family="mantis")
    with pytest.raises(UserError, match="with adapter"):
        load(world / "mantis", family="mantis", adapter=tmp_path)
