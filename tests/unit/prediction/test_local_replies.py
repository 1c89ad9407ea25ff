"""Replies: the same alone and in a batch, equal to plain passes by hand, with adapters, under every condition, after a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlavaForConditionalGeneration

from config_files import config_file
from medmim.common import gpus
from medmim.common.errors import UserError
from medmim.common.files import INDEX_NAME, hash_file, index_files
from medmim.config.conditions import CONDITIONS
from medmim.endpoints.reply_store import ReplyStore
from medmim.models.collate import Sample, collate_samples
from medmim.models.families.base import Layout
from medmim.models.families.registry import FAMILIES, get_family
from medmim.models.prompting import load_prompter
from medmim.models.weights import load_model
from medmim.prediction.local_replies import ask_batch, batch_key, make_batches, prepare_questions
from medmim.provenance.code_digest import WORKFLOW
from medmim.questions.conditions import apply_condition as all_asked
from medmim.questions.prompt import option_lines, prompt_text
from medmim.tables import table_io
from medmim.tables.images import ImageStore
from small_models import run_program, write_model, write_tables

torch.set_num_threads(1)
CFG = {"model": "m", "conditions": ["plain"], "text_likelihood": True, "system": "", "batch": 4, "max_new_tokens": 8}
CFG |= {"chat": {}, "thinking": None}
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
        table_io.write_table(folder / f"{family}-adapter" / INDEX_NAME, "files", index_files(folder / f"{family}-adapter"))
    return folder


def laid_out(world, family, condition="plain", lines=True):
    """How a model is asked, and what."""
    by = load_prompter(family, world / family, ImageStore([world / "images.parquet"]).read_image)
    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    contents = {i: i for row in rows for i in row["image_ids"]}
    return by, prepare_questions(all_asked(rows, condition), by, system="", wants_lines=lines, images=contents, basis=[])


def replies(model, by, given, batch=99, max_new_tokens=8):
    """Replies in the order of the questions."""
    found = {}
    for part in make_batches(given, batch):
        found |= {q.key: r for q, r in zip(part, ask_batch(model, by, part, max_new_tokens=max_new_tokens), strict=True)}
    return [found[q.key] for q in given]


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_do_not_depend_on_the_batch(world, family, adapter):
    by, given = laid_out(world, family)
    model = load_model(world / family, family=family, adapter=world / f"{family}-adapter" if adapter else None)
    one, five, all_ = (replies(model, by, given, batch, 12) for batch in (1, 5, 99))
    assert [r.text for r in one] == [r.text for r in five] == [r.text for r in all_]
    assert len({r.text for r in one}) > 3  # random weights, but they do read the question
    for a, b in ((one, five), (one, all_)):
        for x, y in zip(a, b, strict=True):
            assert x.letters + x.lines == pytest.approx(y.letters + y.lines, abs=1e-4)
    assert [len(r.letters) for r in one] == [len(r.lines) for r in one] == [len(q.item.options) for q in given]


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_plain_passes(world, tmp_path, family, adapter):
    """By hand: one sample, no cache, no padding, the whole forward again for each token. Settings of the hub are not used."""
    shutil.copytree(world / family, tmp_path / family)
    settings = GenerationConfig(do_sample=True, repetition_penalty=50.0, no_repeat_ngram_size=1, max_new_tokens=3)
    settings.save_pretrained(tmp_path / family)
    by, given = laid_out(world, family)
    layout, store = Layout.from_folder(get_family(family), world / family), ImageStore([world / "images.parquet"])
    model = load_model(tmp_path / family, family=family, adapter=world / f"{family}-adapter" if adapter else None)
    found = replies(model, by, given, 4, 6)
    for question, reply in zip(given, found, strict=True):
        text = prompt_text(question.item.question, question.item.options)
        ids, _ = layout.encode_sample(text)
        pixels = [layout.preprocess_image(store.read_image(i)) for i in question.item.image_ids]

        @torch.inference_mode()
        def logprobs(ids, pixels=pixels):
            return model(**collate_samples(layout, [Sample(ids, ids, pixels)])).logits[0].log_softmax(-1)

        new: list[int] = []
        while len(new) < 6 and not set(new) & set(layout.stop_ids):
            new.append(int(logprobs([*ids, *new])[-1].argmax()))
        assert (
            reply.text == layout.tokenizer.decode([i for i in new if i not in layout.stop_ids], skip_special_tokens=True).strip()
        )
        # Of "A: ..." training takes a loss on all tokens but those of the prompt; the end is left out here, the letter the first.
        letters, lines = [], []
        for line in option_lines(question.item.options):
            whole, labels = layout.encode_sample(text, line)
            target = [i for i in labels if i >= 0][:-1]
            assert layout.tokenizer.decode(target).strip() == line
            before = logprobs(whole[:-1])[-len(target) - 1 : -1]
            each = before.gather(1, torch.tensor(target)[:, None])
            letters.append(float(each[0]))
            lines.append(float(each.mean()))
        assert reply.letters == pytest.approx(letters, abs=1e-4)
        assert reply.lines == pytest.approx(lines, abs=1e-4)


def test_replies_end_at_a_stop_token_or_the_limit(world):
    by, given = laid_out(world, "mantis")
    assert by.tokenizer.convert_ids_to_tokens(list(by.stop_ids)) == ["<|eot_id|>", "<|end_of_text|>"]
    lesion = by.tokenizer.convert_tokens_to_ids("Ġlesion")
    for always, wanted in [(by.stop_ids[0], ""), (by.stop_ids[1], ""), (lesion, "lesion lesion lesion")]:
        model = load_model(world / "mantis", family="mantis")
        model.lm_head = torch.nn.Linear(32, len(by.tokenizer))
        with torch.no_grad():
            model.lm_head.bias[always] = 1e4
        assert {r.text for r in replies(model, by, given, 4, 3)} == {wanted}


def test_option_logprobs_add_up_over_the_whole_vocabulary(world):
    by, given = laid_out(world, "llava-med")
    found = replies(load_model(world / "llava-med", family="llava-med"), by, given, 4, 1)
    assert all(p < 0 for r in found for p in r.letters) and all(sum(map(np.exp, r.letters)) < 1 for r in found)


def test_adapter_is_the_stock_peft_one_and_changes_replies(world):
    by, given = laid_out(world, "mantis")
    plain = replies(load_model(world / "mantis", family="mantis"), by, given)
    tuned = replies(load_model(world / "mantis", family="mantis", adapter=world / "mantis-adapter"), by, given)
    stock = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(world / "mantis"), str(world / "mantis-adapter")
    )
    for ours, theirs in zip(tuned, replies(stock.eval(), by, given), strict=True):  # ours is merged into the weights
        assert ours.text == theirs.text and ours.letters + ours.lines == pytest.approx(theirs.letters + theirs.lines, abs=1e-4)
    assert [r.text for r in plain] != [r.text for r in tuned]


@pytest.mark.parametrize("family", FAMILIES)
def test_blind_shows_no_image(world, family):
    by, given = laid_out(world, family, "blind")
    assert all(not q.prompt.images and "<image>" not in q.prompt.text and "(image 1" not in q.prompt.text for q in given)
    assert "pixel_values" not in by.build_batch([q.prompt for q in given])
    _, seen = laid_out(world, family)
    assert given[0].prompt.text == seen[0].prompt.text  # the text-only question is the same
    assert given[0].key == seen[0].key


def test_keys_tell_all_that_a_reply_depends_on(world):
    by, given = laid_out(world, "mantis")
    rows = list(all_asked(table_io.read_table(world / "qa.parquet", "qa").to_pylist(), "plain"))[2:3]
    same = {"system": "", "wants_lines": True, "images": {i: i for i in rows[0].image_ids}, "basis": []}
    others = {
        "system": "Be brief.",
        "wants_lines": False,
        "images": dict.fromkeys(rows[0].image_ids, "other pixels"),
        "basis": ["bf16"],
    }
    keys = {prepare_questions(rows, by, **same | {name: value})[0].key for name, value in others.items()}
    assert len(keys | {given[2].key}) == 5 and prepare_questions(rows, by, **same)[0].key == given[2].key


def many(world, count):
    """Questions of two lengths, as `batches` sees them."""
    _, given = laid_out(world, "mantis")
    one, two = given[1], given[2]
    return [
        type(q)(q.item, q.prompt, q.wants_lines, sha256_of(n), sha256_of(n)) for n in range(count) for q in [(one, two)[n % 2]]
    ]


def sha256_of(n: int) -> str:
    import hashlib

    return hashlib.sha256(str(n).encode()).hexdigest()


def test_batches_are_longest_first_and_keep_images_apart(world):
    _, given = laid_out(world, "mantis")
    parts = make_batches([*given, *given[:3]], 3)
    assert sorted(q.key for part in parts for q in part) == sorted({q.key for q in given})
    assert all(len({bool(q.prompt.images) for q in part}) == 1 and len(part) <= 3 for part in parts)
    lengths = [[q.prompt.length for q in part] for part in parts]
    assert all(max(part) < 2**0.25 * min(part) for part in lengths)
    seen = [max(part) for part, questions in zip(lengths, parts, strict=True) if questions[0].prompt.images]
    assert seen == sorted(seen, reverse=True) and seen == [max(part) for part in lengths][: len(seen)]


def test_a_question_more_or_less_makes_another_batch_of_few(world):
    given = many(world, 400)
    keys = {batch_key(part) for part in make_batches(given, 16)}
    assert keys == {batch_key(part) for part in make_batches(given[::-1], 16)} and 25 < len(keys) < 55
    for other in (given[:200] + given[201:], [*given, *many(world, 401)[-1:]]):
        assert len(keys ^ {batch_key(part) for part in make_batches(other, 16)}) <= 3


def options(world, tmp_path, family="mantis", adapter=False, out="out.parquet", **cfg):
    model = {"adapter": world / f"{family}-adapter" / INDEX_NAME} if adapter else {}
    return {
        "cfg": CFG | {"family": family} | cfg, "model": world / family / INDEX_NAME, **model, "qa": world / "qa.parquet",
        "images": [world / "images.parquet"], "replies": tmp_path / "replies", "predictions": tmp_path / out,
    }  # fmt: skip


def predict(monkeypatch, world, tmp_path, *arguments, **cfg):
    found = options(world, tmp_path, *arguments, **cfg)
    run_program(monkeypatch, "predict.py", **found)
    return table_io.read_table(found["predictions"], "predictions").to_pylist()


@pytest.mark.parametrize("family", FAMILIES)
def test_program_asks_under_all_conditions(monkeypatch, world, tmp_path, family):
    found = predict(monkeypatch, world, tmp_path, family, adapter=True, conditions=list(CONDITIONS)[::-1])
    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    wanted = [(c, a) for c in CONDITIONS for a in all_asked(rows, c)]
    assert [(r["condition"], r["qa_id"], r["rotation"]) for r in found] == [(c, a.qa_id, a.rotation) for c, a in wanted]
    assert [len(r["option_logprobs"]) for r in found] == [len(a.options) for _, a in wanted]
    assert [len(r["text_logprobs"]) for r in found] == [len(a.options) * (c == "plain") for c, a in wanted]
    assert {(r["model"], r["failure"]) for r in found} == {("m", "")} and {c for c, _ in wanted} == set(CONDITIONS)
    model = load_model(world / family, family=family, adapter=world / f"{family}-adapter")
    for condition in CONDITIONS:
        by, given = laid_out(world, family, condition)
        here = [r for r in found if r["condition"] == condition]
        assert [r["reply"] for r in here] == [r.text for r in replies(model, by, given)]
        assert len({r["prompt_sha256"] for r in here}) == len({q.prompt.text for q in given})
    bare = predict(monkeypatch, world, tmp_path, family, adapter=True, text_likelihood=False)
    assert not any(r["text_logprobs"] for r in bare)
    assert [r["reply"] for r in bare] == [r["reply"] for r in found if r["condition"] == "plain"]


def asked_now(said: str) -> int:
    return int(re.search(r"(\d+) asked now", said)[1])


def test_what_was_asked_is_not_asked_again(monkeypatch, world, tmp_path, capsys):
    """Byte for byte the same, whatever was there before; a condition or a question more asks for its own batches."""
    plain = predict(monkeypatch, world, tmp_path, out="a.parquet")
    count = len({q.key for q in laid_out(world, "mantis")[1]})
    assert asked_now(capsys.readouterr().err) == count == 11  # of 13, some are the same but for the gold
    assert predict(monkeypatch, world, tmp_path, out="b.parquet") == plain
    assert asked_now(capsys.readouterr().err) == 0
    assert hash_file(tmp_path / "a.parquet") == hash_file(tmp_path / "b.parquet")

    both = predict(monkeypatch, world, tmp_path, conditions=["plain", "reordered"])
    assert asked_now(capsys.readouterr().err) == len({q.key for q in laid_out(world, "mantis", "reordered")[1]})
    assert both[: len(plain)] == plain

    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    table_io.write_table(tmp_path / "qa.parquet", "qa", rows[:-1])
    fewer = options(world, tmp_path) | {"qa": tmp_path / "qa.parquet"}
    run_program(monkeypatch, "predict.py", **fewer)
    assert 0 < asked_now(capsys.readouterr().err) < CFG["batch"]
    for a, b in zip(table_io.read_table(tmp_path / "out.parquet", "predictions").to_pylist(), plain[:-1], strict=True):
        assert (a["qa_id"], a["reply"]) == (b["qa_id"], b["reply"])

    for other in ({"precision": "bf16"}, {"max_new_tokens": 3}, {"family": "llava-med"}, {"adapter": True}):
        predict(monkeypatch, world, tmp_path, **other)
        assert asked_now(capsys.readouterr().err) == count


def stored(folder):
    """Lines of the replies kept in a folder."""
    return [line for path in sorted((folder / "replies").glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def test_a_run_that_is_killed_goes_on_where_it_was(monkeypatch, world, tmp_path, capsys):
    """SIGKILL in the middle, and a line that was being written."""
    asked = {"conditions": list(CONDITIONS), "batch": 2}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    predict(monkeypatch, world, whole, **asked)
    total = asked_now(capsys.readouterr().err)
    found = options(world, broken, **asked)
    words = [word for name, value in found.items() if name != "cfg" for word in (f"--{name}", *np.ravel(value))]
    job = subprocess.Popen(
        [sys.executable, WORKFLOW / "scripts/predict.py", "--cfg", config_file(found["cfg"]), *map(str, words)],
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(WORKFLOW), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while len(stored(broken)) < 5 and job.poll() is None:
        time.sleep(0.01)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    lines = stored(broken)
    assert 5 <= len(lines) < len(stored(whole)) and not (broken / "out.parquet").exists()
    kept = ReplyStore(broken / "replies")
    before = sum(len(kept.get(json.loads(line)["key"])) for line in lines if line.endswith(b"}"))
    with next((broken / "replies").glob("*.jsonl")).open("ab") as file:
        file.write(b'{"key": "torn in')
    predict(monkeypatch, world, broken, **asked)
    assert asked_now(capsys.readouterr().err) == total - before
    keys = [json.loads(line)["key"] for line in stored(broken) if line.endswith(b"}")]
    assert len(keys) == len(set(keys)) == len(stored(whole)) > 25  # none was generated twice
    assert hash_file(broken / "out.parquet") == hash_file(whole / "out.parquet")


def test_program_in_bf16(monkeypatch, world, tmp_path):
    found = predict(monkeypatch, world, tmp_path, adapter=True, precision="bf16")
    exact = predict(monkeypatch, world, tmp_path, adapter=True)
    for a, b in zip(found, exact, strict=True):
        assert a["option_logprobs"] == pytest.approx(b["option_logprobs"], abs=0.3)
        assert a["text_logprobs"] == pytest.approx(b["text_logprobs"], abs=0.3)


def test_program_without_the_gpu_it_wants(monkeypatch, world, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        predict(monkeypatch, world, tmp_path, gpus=1)
    assert "gpus: 1 asked for, but torch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(monkeypatch, world, tmp_path, gpus=2)
    assert "one program predicts on one GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="GPU node"):
        gpus.require_gpus(2)


def test_a_prompt_longer_than_the_models_positions_is_not_asked(monkeypatch, world, tmp_path, capsys):
    """2048 positions: neither cut nor asked, and its neighbours' replies are as without it."""
    exact = predict(monkeypatch, world, tmp_path)
    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    rows[3]["question"] += " Long, long ago." * 600
    table_io.write_table(tmp_path / "qa.parquet", "qa", rows)
    capsys.readouterr()
    run_program(monkeypatch, "predict.py", **options(world, tmp_path) | {"qa": tmp_path / "qa.parquet"})
    assert ", 1 could not be asked" in capsys.readouterr().err
    found = table_io.read_table(tmp_path / "out.parquet", "predictions").to_pylist()
    tokens = laid_out(tmp_path_with(world, tmp_path), "mantis")[1][3].prompt.length
    room = max(
        CFG["max_new_tokens"], *(len(laid_out(world, "mantis")[0].encode_reply(x)) for x in option_lines(rows[3]["options"]))
    )
    assert found[3] == exact[3] | {
        "prompt_sha256": found[3]["prompt_sha256"], "reply": "", "option_logprobs": [], "text_logprobs": [],
        "failure": f"a prompt of {tokens} tokens and {room} of a reply are more than the model's 2048 positions",
    }  # fmt: skip
    for a, b in zip(found, exact, strict=True):
        assert a is found[3] or (a["qa_id"], a["reply"], a["failure"]) == (b["qa_id"], b["reply"], "")


def tmp_path_with(world, tmp_path):
    for name in ("mantis", "images.parquet"):
        (tmp_path / name).symlink_to(world / name)
    return tmp_path


def test_program_names_what_is_wrong(monkeypatch, world, tmp_path, capsys):
    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    wrong = {
        "in none of the images tables": rows[1] | {"image_ids": ["f" * 64]},
        "can't be asked: the question holds '<|eot_id|>'": rows[1] | {"question": "<image>stop<|eot_id|>"},
        "can't be asked: 1 placeholders for 2 images": rows[1] | {"image_ids": rows[1]["image_ids"] * 2},
    }
    for message, question in wrong.items():
        table_io.write_table(tmp_path / "qa.parquet", "qa", [rows[0], question])
        found = options(world, tmp_path) | {"qa": tmp_path / "qa.parquet"}
        with pytest.raises(SystemExit):
            run_program(monkeypatch, "predict.py", **found)
        error = capsys.readouterr().err
        assert message in error and question["qa_id"] in error
    with pytest.raises(SystemExit):
        run_program(monkeypatch, "predict.py", **options(world, tmp_path) | {"cfg": CFG | {"family": "llava-med"}})
    assert "mantis: the tokenizer has no '</s>': is it that of llava-med?" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["qa.parquet"]


def test_a_tokenizer_without_a_token_for_each_letter_is_refused(monkeypatch, world, tmp_path, capsys):
    """One that spells the letters: each reply begins alike, and their likelihoods would say nothing."""
    shutil.copytree(world / "mantis", tmp_path / "mantis")
    text = json.loads((tmp_path / "mantis/tokenizer.json").read_text())
    text["normalizer"] = {"type": "Replace", "pattern": {"Regex": "^([A-Z]):"}, "content": ":"}
    (tmp_path / "mantis/tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(SystemExit):
        run_program(monkeypatch, "predict.py", **options(world, tmp_path) | {"model": tmp_path / "mantis" / INDEX_NAME})
    assert f"{tmp_path}/mantis: the tokenizer does not give each letter from A to C a token" in capsys.readouterr().err


def test_loading_what_is_no_model_or_adapter(world, tmp_path):
    with pytest.raises(UserError, match="no model could be loaded"):
        load_model(tmp_path, family="mantis")
    adapter_weights = load_file(world / "mantis-adapter/adapter_model.safetensors")
    for name, changed in {
        "other layers": {k.replace("layers.0.", "layers.7."): v for k, v in adapter_weights.items()},
        "no LoRA": {k: v for k, v in adapter_weights.items() if "lora_" not in k},
        "no projector": {k: v for k, v in adapter_weights.items() if "multi_modal_projector" not in k},
        "other sizes": {k: v.repeat(2, 2) for k, v in adapter_weights.items()},
    }.items():
        shutil.copytree(world / "mantis-adapter", tmp_path / name)
        save_file(changed, tmp_path / name / "adapter_model.safetensors", {"format": "pt"})
    for adapter, reason in {
        world: "",
        tmp_path / "other layers": r" It lacks 4 weights, .*layers\.0.* and 1 more; it has unknown 4 weights, .*layers\.7",
        tmp_path / "no LoRA": r" It lacks 8 weights, .*lora_A",
        tmp_path / "no projector": r" It lacks 4 weights, .*multi_modal_projector",
        tmp_path / "other sizes": "",
    }.items():
        with pytest.raises(UserError, match=rf"with adapter .*: is it one of this base\?{reason}"):
            load_model(world / "mantis", family="mantis", adapter=adapter)
    shutil.copytree(world / "mantis", tmp_path / "mantis")
    weights = load_file(tmp_path / "mantis/model.safetensors")
    left_out = next(name for name in weights if "layers.0" in name)
    save_file({k: v for k, v in weights.items() if k != left_out}, tmp_path / "mantis/model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"mantis: its files of weights lack 1 weight, .*layers\.0"):
        load_model(tmp_path / "mantis", family="mantis")
    (tmp_path / "mantis/model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"no model could be loaded from .*mantis: SafetensorError: "):
        load_model(tmp_path / "mantis", family="mantis")
    (tmp_path / "mantis/model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"no model could be loaded from {tmp_path}/mantis: .*model.safetensors"):
        load_model(tmp_path / "mantis", family="mantis")
