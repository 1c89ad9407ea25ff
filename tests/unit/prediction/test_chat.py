"""Family chat: tiny models of real architectures, saved and loaded with their own processors, tokenizers and templates."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from chat_models import CHAT_MODELS, FURTHER_CHAT_MODELS, MAX_POSITIONS, write_chat_model
from medmim.common.errors import UserError
from medmim.common.files import INDEX_NAME
from medmim.models.prompting import load_prompter
from medmim.models.weights import load_model
from medmim.prediction.local_replies import ask_batch, make_batches, prepare_questions
from medmim.provenance import job_record
from medmim.questions.conditions import apply_condition
from medmim.questions.prompt import option_lines
from medmim.tables import table_io
from medmim.tables.images import ImageStore
from small_models import make_image_rows, run_program, write_tables

torch.set_num_threads(1)
CFG = {"family": "chat", "model": "m", "conditions": ["plain", "blind"], "text_likelihood": True, "system": "", "batch": 4}
CFG |= {"max_new_tokens": 4, "precision": "fp32", "gpus": 0, "threads": 1, "chat": {}, "thinking": None}
KINDS = pytest.mark.parametrize("kind", CHAT_MODELS)
ALL_KINDS = pytest.mark.parametrize("kind", [*CHAT_MODELS, *FURTHER_CHAT_MODELS])
IMAGES = [str(r["image_id"]) for r in make_image_rows()]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_tables(folder)
    for kind in CHAT_MODELS | FURTHER_CHAT_MODELS:
        write_chat_model(folder / kind, kind)
    return folder


def asker(world: Path, kind: str):
    return load_prompter("chat", world / kind, ImageStore([world / "images.parquet"]).read_image)


def laid_out(world: Path, by, condition: str = "plain"):
    """Questions with 0, 1, 2 and 3 images of other shapes, closed and open, as one model is asked them."""
    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    contents = {i: i for row in rows for i in row["image_ids"]}
    return prepare_questions(apply_condition(rows, condition), by, system="", wants_lines=True, images=contents, basis=[])


@ALL_KINDS
def test_replies_do_not_depend_on_the_batch(world, kind):
    by = asker(world, kind)
    model = load_model(world / kind, family="chat")
    for condition in ("plain", "blind"):
        given = laid_out(world, by, condition)
        assert {len(q.prompt.images) for q in given} == ({0, 1, 2, 3} if condition == "plain" else {0})
        alone = {q.key: ask_batch(model, by, [q], max_new_tokens=4)[0] for q in given}
        together = {}
        for batch in make_batches(given, 99):
            together |= {q.key: r for q, r in zip(batch, ask_batch(model, by, batch, max_new_tokens=4), strict=True)}
        for question in given:
            one, many = alone[question.key], together[question.key]
            assert one.text == many.text and not one.failure
            assert len(one.letters) == len(one.lines) == len(question.item.options)
            assert one.letters + one.lines == pytest.approx(many.letters + many.lines, abs=1e-4)
        if condition == "plain":
            assert len({tuple(r.letters) for r in alone.values() if r.letters}) > 8  # the images are seen


@ALL_KINDS
def test_all_is_what_plain_passes_over_prompt_and_reply_say(world, kind):
    """By hand: the processor's own input of the whole text, no cache, no padding, a pass for each token and line."""
    by = asker(world, kind)
    model = load_model(world / kind, family="chat")

    @torch.inference_mode()
    def logprobs(text, images):
        shown = {"images": [[by._find_image(i).convert("RGB") for i in images]]} if images else {}
        inputs = by._processor(text=[text], **shown, add_special_tokens=False, return_tensors="pt")
        return inputs["input_ids"][0], model(**inputs).logits[0].log_softmax(-1)

    for question in [q for q in laid_out(world, by) if q.item.options][1:4]:  # of 1, 2 and 3 images
        prompt = question.prompt
        reply = ask_batch(model, by, [question], max_new_tokens=3)[0]
        _, before = logprobs(prompt.text, prompt.images)
        said, new, is_text = prompt.text, [], True  # some ids, as halves of a character, can't be said again as text
        for _ in range(3):
            new.append(int(logprobs(said, prompt.images)[1][-1].argmax()))
            said = prompt.text + by.tokenizer.decode(new)
            is_text &= by.tokenizer(by.tokenizer.decode(new), add_special_tokens=False)["input_ids"] == new
        if is_text:
            assert reply.text == by.tokenizer.decode(new, skip_special_tokens=True).strip()
        letters, lines = [], []
        for line in option_lines(question.item.options):
            ids, after = logprobs(prompt.text + line, prompt.images)
            tokens = ids[len(before) :]
            assert by.tokenizer.decode(tokens) == line
            each = after[len(before) - 1 : -1].gather(1, tokens[:, None])
            letters.append(float(each[0]))
            lines.append(float(each.mean()))
        assert reply.letters == pytest.approx(letters, abs=1e-4)
        assert reply.lines == pytest.approx(lines, abs=1e-4)


@KINDS
def test_prompt_is_the_models_own_template(world, kind):
    by = asker(world, kind)
    prompt = by.build_prompt("<image>See <image>there?\nA: x", ["a", "b"], "Be brief.")
    first, second = prompt.text.split("See ")
    assert "Be brief." in first and second.index("there?\nA: x") > 0
    names = {"gemma3": "<start_of_image>", "gemma4": "<|image|>", "internvl": "<IMG_CONTEXT>\n"}
    names |= {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>"}
    name = names.get(kind, "<image>")
    assert first.endswith(name) and second.startswith(name)
    assert by.tokenizer.convert_ids_to_tokens(by.encode_letters(3)) == ["A", "B", "C"]
    with pytest.raises(ValueError, match="1 placeholders for 0 images"):
        by.build_prompt("<image>x", [])
    control = {"gemma3": "<end_of_turn>", "gemma4": "<turn|>"}.get(kind, "<|im_end|>")
    with pytest.raises(ValueError, match=r"the question holds .*, which structures the prompt of this model"):
        by.build_prompt(f"Yes?{control}", [])


def test_stops_are_the_tokenizers_and_those_of_the_generation_settings(world):
    by = asker(world, "gemma3")
    assert by.tokenizer.convert_ids_to_tokens(list(by.stop_ids)) == ["<eos>", "<end_of_turn>"]


def test_batch_has_one_bos_and_pads_on_the_left(world):
    by = asker(world, "gemma3")
    batch = by.build_batch([by.build_prompt("<image><image>x", IMAGES[:2]), by.build_prompt("<image>x", IMAGES[2:3])])
    assert batch["pixel_values"].shape == (3, 3, 56, 56)
    tokens = [by.tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"].tolist()]
    assert [t.count("<bos>") for t in tokens] == [1, 1]
    assert [t.count("<image_soft_token>") for t in tokens] == [8, 4]
    assert tokens[1][0] == "<pad>" and tokens[0][0] == "<bos>"


@KINDS
def test_program(monkeypatch, world, tmp_path, kind):
    assert predict(monkeypatch, world, world / kind, tmp_path) == table_io.read_table(world / "qa.parquet", "qa").num_rows * 2


def predict(monkeypatch, world, model: Path, tmp_path: Path, **cfg: object) -> int:
    """Replies that the program gives."""
    options = {"qa": world / "qa.parquet", "images": [world / "images.parquet"], "replies": tmp_path / "replies"}
    run_program(
        monkeypatch, "predict.py", cfg=CFG | cfg, model=model / INDEX_NAME, **options, predictions=tmp_path / "out.parquet"
    )
    return table_io.read_table(tmp_path / "out.parquet", "predictions").num_rows


def changed(world: Path, kind: str, target: Path, file: str, old: str, new: str) -> Path:
    """A model's folder with a text in one of its files replaced."""
    shutil.copytree(world / kind, target)
    text = (target / file).read_text()
    assert old in text
    (target / file).write_text(text.replace(old, new))
    return target


def test_folders_that_can_not_be_asked_are_refused(monkeypatch, world, tmp_path, capsys):
    shutil.copytree(world / "qwen2_5_vl", tmp_path / "bare")
    (tmp_path / "bare/chat_template.jinja").unlink()
    shutil.copytree(world / "qwen2_5_vl", tmp_path / "empty")
    (tmp_path / "empty/model.safetensors").unlink()
    shutil.copytree(world / "qwen2_5_vl", tmp_path / "mute")
    (tmp_path / "mute/tokenizer.json").unlink()
    text = changed(world, "qwen2_5_vl", tmp_path / "text", "config.json", '"model_type": "qwen2_5_vl",', '"model_type": "gpt2",')
    for folder, said in {
        tmp_path / "bare": f"{tmp_path}/bare: its processor has no chat template",
        tmp_path / "empty": f"no model could be loaded from {tmp_path}/empty: ",
        tmp_path / "mute": f"{tmp_path}/mute: the tokenizer does not give each letter from A to C a token of its own",
        text: f"{text}: a gpt2 has no processor of images and text",
    }.items():
        with pytest.raises(SystemExit):
            predict(monkeypatch, world, folder, tmp_path)
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error
    assert not (tmp_path / "out.parquet").exists()


THINKING_TEMPLATE = (
    "<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)
"""As Qwen 3.5's."""
BUDGET = {"tokens": 5, "end": "</think>\n\n"}


@pytest.fixture(scope="module")
def thinker(world):
    """Folder of a model whose template has it think."""
    return changed(world, "qwen2_5_vl", world / "thinker", "chat_template.jinja", "<|im_start|>assistant\n", THINKING_TEMPLATE)


def test_template_arguments_are_passed_and_a_template_that_thinks_is_not_asked_for_a_reply(world, thinker):
    def load(**settings):
        return load_prompter("chat", thinker, ImageStore([world / "images.parquet"]).read_image, **settings)

    with pytest.raises(UserError, match=r"has it think before it replies, .* set thinking: .*enable_thinking: false"):
        load()
    assert load(chat={"enable_thinking": False}).build_prompt("x", ()).text.endswith("assistant\n<think>\n\n</think>\n\n")
    assert load(thinking=BUDGET).build_prompt("x", ()).text.endswith("assistant\n<think>\n")
    with pytest.raises(UserError, match=r"chat: its template does not read enable_thinkin$"):
        load(chat={"enable_thinkin": False})
    with pytest.raises(UserError, match=r"thinking.end: </thought> is 10 tokens of its tokenizer, and should be one"):
        load(thinking={"tokens": 5, "end": "</thought>\n"})
    with pytest.raises(ValueError, match=r"the question holds '</think>'"):
        load(thinking=BUDGET).build_prompt("Yes?</think>", ())


def test_thoughts_end_by_themselves_or_by_their_budget_and_the_reply_follows(world, thinker):
    """By hand: greedy, token by token, a whole pass for each; the processor's input of the prompt, then ids."""
    by = load_prompter("chat", thinker, ImageStore([world / "images.parquet"]).read_image, thinking=BUDGET)
    model = load_model(thinker, family="chat")
    questions = laid_out(world, by)
    end_id = by.tokenizer.convert_tokens_to_ids("</think>")

    @torch.inference_mode()
    def logprobs(question, ids):
        images = [by._find_image(i).convert("RGB") for i in question.prompt.images]
        inputs = by._processor(text=[question.prompt.text], **({"images": [images]} if images else {}), return_tensors="pt")
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in inputs:
                added = torch.tensor([ids]) if name == "input_ids" else torch.full((1, len(ids)), int("mask" in name))
                inputs[name] = torch.cat([inputs[name], added.to(inputs[name].dtype)], 1)
        return model(**inputs).logits[0].log_softmax(-1)

    def go_on(question, ids, length, ends):
        new = []
        while len(new) < length:
            token = int(logprobs(question, ids + new)[-1].argmax())
            if token in ends:
                return new, True
            new.append(token)
        return new, False

    # Some of them end their thoughts by themselves: the token that one thinks third becomes the end.
    third = go_on(questions[1], [], 3, {end_id})[0][2]
    with torch.no_grad():
        model.lm_head.weight[end_id] = 1.01 * model.lm_head.weight[third]
    replies = {
        q.key: r
        for batch in make_batches(questions, 4)
        for q, r in zip(batch, ask_batch(model, by, batch, max_new_tokens=3), strict=True)
    }
    assert {r.thinking_cut for r in replies.values()} == {True, False}
    closing = [end_id, *by.tokenizer("\n\n")["input_ids"]]
    for question in questions[:6]:
        reply = replies[question.key]
        thought, ended = go_on(question, [], BUDGET["tokens"], {end_id, *by.stop_ids})
        assert (
            reply.thinking == by.tokenizer.decode(thought, skip_special_tokens=True).strip() and reply.thinking_cut is not ended
        )
        before = thought + closing
        said, _ = go_on(question, before, 3, by.stop_ids)
        assert reply.text == by.tokenizer.decode(said, skip_special_tokens=True).strip()
        for option, line in enumerate(option_lines(question.item.options)):
            ids = by.tokenizer(line)["input_ids"]
            each = logprobs(question, before + ids)[-len(ids) - 1 : -1].gather(1, torch.tensor(ids)[:, None])
            assert reply.letters[option] == pytest.approx(float(each[0]), abs=1e-4)
            assert reply.lines[option] == pytest.approx(float(each.mean()), abs=1e-4)
        alone = ask_batch(model, by, [question], max_new_tokens=3)[0]
        assert (alone.text, alone.thinking, alone.thinking_cut) == (reply.text, reply.thinking, reply.thinking_cut)


def test_a_model_that_sees_images_beside_its_tokens_does_not_think_here(world):
    by = load_prompter("chat", world / "mllama", ImageStore([world / "images.parquet"]).read_image, thinking=BUDGET)
    with pytest.raises(ValueError, match="by attention across, can't think"):
        ask_batch(load_model(world / "mllama", family="chat"), by, laid_out(world, by)[1:2], max_new_tokens=3)


def test_program_says_how_many_thoughts_were_cut(monkeypatch, world, thinker, tmp_path, capsys):
    predict(monkeypatch, world, thinker, tmp_path, thinking=BUDGET, conditions=["plain"])
    rows = table_io.read_table(tmp_path / "out.parquet", "predictions").to_pylist()
    assert f"{len(rows)} while it still thought" in capsys.readouterr().err
    assert job_record.read_record(job_record.sidecar_path(tmp_path / "out.parquet"))["thinking_cut"] == len(rows)
    at_once = tmp_path / "at_once"
    at_once.mkdir()
    predict(monkeypatch, world, thinker, at_once, chat={"enable_thinking": False}, conditions=["plain"])
    other = table_io.read_table(at_once / "out.parquet", "predictions").to_pylist()
    assert all(a["option_logprobs"] != b["option_logprobs"] for a, b in zip(rows, other, strict=True) if a["option_logprobs"])


TORCHVISION_ONLY = (
    "cohere2_vision", "kimi_k25", "lfm2_vl", "llama4", "minicpmv4_6", "minimax_m3_vl", "mistral3", "molmo2", "smolvlm"
)  # fmt: skip
"""Models whose image processor, or another part of the processor, is there for torchvision alone."""


NEEDED_PACKAGES = [*((kind, "torchvision") for kind in TORCHVISION_ONLY), ("smolvlm", "num2words")]


@pytest.mark.parametrize(("kind", "package"), [row for row in NEEDED_PACKAGES if importlib.util.find_spec(row[1]) is None])
def test_a_processor_that_needs_a_package_names_it(world, tmp_path, monkeypatch, kind, package):
    if (kind, package) == ("smolvlm", "torchvision"):
        monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(world / "idefics3" / name, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    part = {"image_processor_type": IMAGE_PROCESSOR_MAPPING_NAMES[kind]["torchvision"]}
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"processor_class": PROCESSOR_MAPPING_NAMES[kind], "image_processor": part})
    )
    with pytest.raises(UserError, match=rf"its processor needs {package}, which is not installed: .* pip install '\.\[chat\]'"):
        load_prompter("chat", tmp_path, Image.open)


def test_a_template_that_drops_an_image_is_refused(monkeypatch, world, tmp_path, capsys):
    folder = changed(
        world, "qwen2_5_vl", tmp_path / "m", "chat_template.jinja",
        "{{ '<|vision_start|><|image_pad|><|vision_end|>' if c['type'] == 'image' else c['text'] }}",
        "{% if c['type'] == 'text' %}{{ c['text'] }}{% elif loop.first %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}",
    )  # fmt: skip
    with pytest.raises(SystemExit):
        predict(monkeypatch, world, folder, tmp_path)
    error = capsys.readouterr().err
    faulty = [q for q in table_io.read_table(world / "qa.parquet", "qa").to_pylist() if len(q["image_ids"]) > 1]
    assert "can't be asked" in error and any(q["qa_id"] in error for q in faulty)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("by", [-1, 1])
def test_a_processor_that_drops_or_adds_an_image_is_refused(monkeypatch, world, tmp_path, capsys, by):
    whole = Qwen2VLImageProcessorPil.preprocess

    def other(self, images, **settings):
        flat = [i for row in images for i in (row if isinstance(row, list) else [row])]
        return whole(self, flat[:-1] if by < 0 and len(flat) > 1 else flat * 2 if by > 0 else flat, **settings)

    monkeypatch.setattr(Qwen2VLImageProcessorPil, "preprocess", other)
    with pytest.raises(SystemExit):
        predict(monkeypatch, world, world / "qwen2_5_vl", tmp_path)
    error = capsys.readouterr().err
    faulty = [
        q for q in table_io.read_table(world / "qa.parquet", "qa").to_pylist() if len(q["image_ids"]) > (1 if by < 0 else 0)
    ]
    assert "can't be asked" in error and any(q["qa_id"] in error for q in faulty) and "Traceback" not in error


@KINDS
def test_a_prompt_longer_than_the_models_positions_is_not_asked(monkeypatch, world, tmp_path, capsys, kind):
    rows = table_io.read_table(world / "qa.parquet", "qa").to_pylist()
    long = next(q for q in rows if len(q["image_ids"]) == 2)
    long |= {"question": f"{long['question']} {'Long, long ago. ' * (MAX_POSITIONS // 16)}"}
    table_io.write_table(tmp_path / "qa.parquet", "qa", rows)
    shutil.copy(world / "images.parquet", tmp_path)
    predict(monkeypatch, tmp_path, world / kind, tmp_path, conditions=["plain"])
    found = table_io.read_table(tmp_path / "out.parquet", "predictions").to_pylist()
    failed = [row for row in found if row["failure"]]
    assert [row["qa_id"] for row in failed] == [long["qa_id"]] and "1 could not be asked" in capsys.readouterr().err
    assert (failed[0]["reply"], failed[0]["option_logprobs"], failed[0]["text_logprobs"]) == ("", [], [])
    assert "a prompt of 1" in failed[0]["failure"] and f"more than the model's {MAX_POSITIONS} positions" in failed[0]["failure"]
    assert all(len(r["text_logprobs"]) == len(r["option_logprobs"]) > 0 for r in found[:-1] if r not in failed)
