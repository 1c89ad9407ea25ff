"""The two layouts against references written out by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from medmim.common.errors import UserError
from medmim.models import tiny
from medmim.models.collate import Sample, collate_samples, normalise_pixels
from medmim.models.families import registry
from medmim.models.families.base import Layout, count_image_tokens
from medmim.models.families.registry import get_family
from small_models import make_dialogues, make_questions, write_model

torch.set_num_threads(1)

QUESTION = "<image><image>Which image shows the larger lesion?\nA: the first image\nB: the second image"
ANSWER = "B: the second image"
MANTIS_PROMPT = (
    "<|start_header_id|>user<|end_header_id|>\n\n"
    "(image 1: <Image><image></Image>)(image 2: <Image><image></Image>)Which image shows the larger lesion?\n"
    "A: the first image\nB: the second image<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
LLAVA_MED_PROMPT = (
    "[INST] <image>\n<image>\nWhich image shows the larger lesion?\nA: the first image\nB: the second image [/INST]"
)
PIRATE = "You are a pirate chatbot who always responds in pirate speak!"


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """One layout a family, reopened from a folder."""
    made = {}
    for name in registry.FAMILIES:
        folder = tmp_path_factory.mktemp(name)
        write_model(folder, name, weights=False)
        made[name] = Layout.from_folder(get_family(name), folder)
    return made


def test_prompts_by_hand():
    mantis, llava_med = registry.get_family("mantis"), registry.get_family("llava-med")
    assert mantis.format_prompt(QUESTION) == MANTIS_PROMPT
    assert (
        mantis.format_prompt(QUESTION, PIRATE)
        == f"<|start_header_id|>system<|end_header_id|>\n\n{PIRATE}<|eot_id|>" + MANTIS_PROMPT
    )
    assert mantis.format_answer(ANSWER) == "B: the second image<|eot_id|>"
    assert llava_med.format_prompt(QUESTION) == LLAVA_MED_PROMPT
    assert llava_med.format_prompt("Only text?", "Be brief.") == "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nOnly text? [/INST]"
    assert (
        llava_med.format_prompt("See <image> there") == "[INST] See <image> there [/INST]"
    )  # a newline only where it stands in front
    assert llava_med.format_answer(ANSWER) == " B: the second image</s>"


def test_mantis_tokens_and_labels_by_hand(layouts):
    layout = layouts["mantis"]
    ids, labels = layout.encode_sample(QUESTION, ANSWER)
    header = ["<|start_header_id|>", "user", "<|end_header_id|>", "ĊĊ"]
    image_1 = ["(image", "Ġ", "1", ":", "Ġ<", "Image", ">", "<image>", "</", "Image"]
    image_2 = [">)(", "image", "Ġ", "2", ":", "Ġ<", "Image", ">", "<image>", "</", "Image"]
    asked = [">)", "Which", "Ġimage", "Ġshows", "Ġthe", "Ġlarger", "Ġlesion", "?Ċ"]
    options = ["A", ":", "Ġthe", "Ġfirst", "Ġimage", "Ċ", "B", ":", "Ġthe", "Ġsecond", "Ġimage", "<|eot_id|>"]
    reply = ["<|start_header_id|>", "assistant", "<|end_header_id|>", "ĊĊ"]
    answer = ["B", ":", "Ġthe", "Ġsecond", "Ġimage", "<|eot_id|>"]
    prompt = ["<|begin_of_text|>", *header, *image_1, *image_2, *asked, *options, *reply]
    assert layout.tokenizer.convert_ids_to_tokens(ids) == prompt + answer
    assert labels == [-100] * len(prompt) + ids[len(prompt) :]
    assert layout.count_tokens(ids) == len(ids) - 2 + 2 * 15
    assert layout.encode_sample(QUESTION)[0] == ids[: len(prompt)]
    assert layout.tokenizer.convert_ids_to_tokens(list(layout.stop_ids)) == ["<|eot_id|>", "<|end_of_text|>"]


def test_llava_med_tokens_and_labels_by_hand(layouts):
    layout = layouts["llava-med"]
    ids, labels = layout.encode_sample(QUESTION, ANSWER)
    asked = ["Which", "▁image", "▁shows", "▁the", "▁larger", "▁lesion", "?", "\n"]
    options = ["A", ":", "▁the", "▁first", "▁image", "\n", "B", ":", "▁the", "▁second", "▁image"]
    prompt = ["<s>", "▁[", "INST", "]", "▁", "<image>", "\n", "<image>", "\n", *asked, *options, "▁[", "/", "INST", "]"]
    answer = ["▁B", ":", "▁the", "▁second", "▁image", "</s>"]
    assert layout.tokenizer.convert_ids_to_tokens(ids) == prompt + answer
    assert labels == [-100] * len(prompt) + ids[len(prompt) :]
    assert layout.count_tokens(ids) == len(ids) - 2 + 2 * 16
    assert layout.encode_sample(QUESTION)[0] == ids[: len(prompt)]
    assert layout.tokenizer.convert_ids_to_tokens(list(layout.stop_ids)) == ["</s>"]


@pytest.mark.parametrize("name", registry.FAMILIES)
def test_decoding_gives_the_answer_back(layouts, name):
    layout = layouts[name]
    for answer in (ANSWER, "Ödem, größer: 12.5 mm (week 3)", "a_b ▁ c"):
        labels = [i for i in layout.encode_sample("x", answer)[1] if i >= 0]
        decoded = layout.tokenizer.decode(labels, skip_special_tokens=True).strip()
        assert decoded == (answer if name == "mantis" else answer.replace("▁", " "))  # ▁ is SentencePiece's space


@pytest.mark.parametrize("name", registry.FAMILIES)
def test_texts_that_can_not_be_laid_out(layouts, name):
    layout = layouts[name]
    stop = layout.family.end_tokens[0]
    for text, answer, message in [
        (f"stop{stop}", "a", f"question holds '{stop}'"),
        ("x", f"a {stop}", f"answer holds '{stop}'"),
        ("x", " ", "is empty"),
        ("x", "see <image>", "or holds <image>"),
    ]:
        with pytest.raises(ValueError, match=message.replace("|", r"\|")):
            layout.encode_sample(text, answer)
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")), bos_token="a")
    with pytest.raises(ValueError, match="0 image tokens of 2"):
        layout.family.encode_sample(words, QUESTION)


def test_answer_is_stripped(layouts):
    for layout in layouts.values():
        assert layout.encode_sample(QUESTION, f" {ANSWER}\n") == layout.encode_sample(QUESTION, ANSWER)


def test_image_tokens_of_the_real_and_the_tiny_towers(layouts):
    clip = CLIPVisionConfig(hidden_size=1024, image_size=336, patch_size=14, num_attention_heads=16)
    siglip = SiglipVisionConfig(hidden_size=1152, image_size=384, patch_size=14, num_attention_heads=16, vision_use_head=False)
    assert count_image_tokens(LlavaConfig(vision_config=clip)) == 576
    assert count_image_tokens(LlavaConfig(vision_config=siglip, image_seq_length=576)) == 728
    assert count_image_tokens(LlavaConfig(vision_config=siglip, vision_feature_select_strategy="full")) == 729
    assert {name: layout.image_tokens for name, layout in layouts.items()} == {"llava-med": 16, "mantis": 15}


def test_expand_by_hand(layouts):
    for layout in layouts.values():
        image, n = layout.image_token_id, layout.image_tokens
        ids, labels = layout.expand_images([5, image, 6, image, 7], [-100, -100, -100, -100, 7])
        assert ids.tolist() == [5, *[image] * n, 6, *[image] * n, 7]
        assert labels.tolist() == [-100] * (2 * n + 2) + [7]


@pytest.mark.parametrize("shape", [(4, 10), (10, 4), (7, 10), (10, 10)])
def test_llava_med_pads_with_the_clip_mean_by_hand(shape):
    height, width = shape
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    wanted = np.empty((10, 10, 3), np.uint8)
    wanted[:] = (122, 116, 104)  # the CLIP mean times 255, rounded down
    top, left = {(4, 10): (3, 0), (10, 4): (0, 3), (7, 10): (1, 0), (10, 10): (0, 0)}[shape]
    wanted[top : top + height, left : left + width] = pixels
    family = registry.get_family("llava-med")
    assert np.array_equal(family.preprocess_image(Image.fromarray(pixels), 10), wanted)
    resized = family.preprocess_image(Image.fromarray(pixels), 56)
    assert np.array_equal(resized, np.asarray(Image.fromarray(wanted).resize((56, 56), Image.Resampling.BICUBIC)))
    stock = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    given = stock(Image.fromarray(wanted), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalise_pixels(family, resized[None]), given, atol=1e-6, rtol=0)
    padding = LlavaImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, do_pad=True)
    given = padding(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalise_pixels(family, resized[None]), given, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(40, 90, 3), (90, 40), (56, 56)])
def test_mantis_pixels_are_the_siglip_processors(shape):
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, shape, np.uint8))
    family = registry.get_family("mantis")
    pixels = family.preprocess_image(image, 56)
    assert pixels.shape == (56, 56, 3) and pixels.dtype == np.uint8
    given = SiglipImageProcessorPil(size={"height": 56, "width": 56})(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalise_pixels(family, pixels[None]), given, atol=1e-6, rtol=0)


def test_normalise_by_hand():
    pixels = np.array([[[[0, 127, 255]]]], np.uint8)
    assert normalise_pixels(registry.get_family("mantis"), pixels).flatten().tolist() == pytest.approx([-1, 127 / 127.5 - 1, 1])
    wanted = [-0.48145466 / 0.26862954, (127 / 255 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    assert normalise_pixels(registry.get_family("llava-med"), pixels).flatten().tolist() == pytest.approx(wanted)


def test_collate_by_hand(layouts):
    layout = layouts["mantis"]
    image, n = layout.image_token_id, layout.image_tokens
    one, two = (np.full((56, 56, 3), v, np.uint8) for v in (0, 255))
    samples = [Sample([8, 9], [-100, 9], []), Sample([image, image, 4], [-100, -100, 4], [one, two])]
    right, left = collate_samples(layout, samples), collate_samples(layout, samples, pad_left=True)
    gap = 2 * n - 1
    assert right["input_ids"].tolist() == [[8, 9, *[layout.pad_id] * gap], [image] * 2 * n + [4]]
    assert left["input_ids"].tolist() == [[*[layout.pad_id] * gap, 8, 9], [image] * 2 * n + [4]]
    assert right["labels"].tolist() == [[-100, 9, *[-100] * gap], [-100] * 2 * n + [4]]
    assert right["attention_mask"].tolist() == [[1, 1, *[0] * gap], [1] * (2 * n + 1)]
    assert left["attention_mask"].tolist() == [[*[0] * gap, 1, 1], [1] * (2 * n + 1)]
    assert left["position_ids"].tolist() == [[*[0] * gap, 0, 1], list(range(2 * n + 1))]
    assert right["position_ids"].tolist() == [[0, 1, *[0] * gap], list(range(2 * n + 1))]
    assert right["pixel_values"].shape == (2, 3, 56, 56)
    assert right["pixel_values"][:, 0, 0, 0].tolist() == [-1, 1]
    assert "pixel_values" not in collate_samples(layout, samples[:1])


@pytest.mark.parametrize("name", registry.FAMILIES)
def test_model_takes_the_batch_and_padding_changes_nothing(layouts, name):
    layout = layouts[name]
    family = layout.family
    torch.manual_seed(0)
    config = tiny.build_config(family, layout.tokenizer, vision_width=32, vision_layers=1, language_width=32, language_layers=2)
    model = LlavaForConditionalGeneration(config).eval()
    rng = np.random.default_rng(4)
    samples = [
        Sample(*layout.encode_sample(text, answer), [rng.integers(0, 256, (56, 56, 3), np.uint8)] * text.count("<image>"))
        for text, answer in make_dialogues(make_questions(["a", "b", "c"]))
    ]
    with torch.inference_mode():
        alone = [model(**collate_samples(layout, [s])).logits[0, -1] for s in samples]
        left = model(**collate_samples(layout, samples, pad_left=True)).logits[:, -1]
        right = collate_samples(layout, samples)
        last = right["attention_mask"].sum(1) - 1
        right_logits = model(**right).logits[torch.arange(len(samples)), last]
    torch.testing.assert_close(left, torch.stack(alone), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(right_logits, torch.stack(alone), atol=1e-5, rtol=1e-4)
    short = dict(right, input_ids=right["input_ids"].clone())
    short["input_ids"][1, (right["input_ids"][1] == layout.image_token_id).nonzero()[0]] = layout.pad_id
    with pytest.raises(ValueError, match="do not match"), torch.inference_mode():
        model(**short)


def test_tiny_models_are_the_real_architectures(layouts):
    kinds = {}
    for name, layout in layouts.items():
        config = tiny.build_config(layout.family, layout.tokenizer)
        model = LlavaForConditionalGeneration(config)
        kinds[name] = (type(model.model.vision_tower).__name__, type(model.model.language_model).__name__)
        assert 0.8e6 < sum(p.numel() for p in model.parameters()) < 1.5e6
        assert config.image_seq_length == layout.image_tokens
    assert kinds == {"llava-med": ("CLIPVisionModel", "MistralModel"), "mantis": ("SiglipVisionModel", "LlamaModel")}


@pytest.mark.parametrize("sizes", [{"image_size": 50}, {"vision_width": 30}, {"language_width": 36}])
def test_tiny_sizes_that_do_not_divide(layouts, sizes):
    layout = layouts["mantis"]
    with pytest.raises(ValueError, match=next(iter(sizes))):
        tiny.build_config(layout.family, layout.tokenizer, **sizes)


def test_layout_refuses_what_does_not_fit(layouts):
    mantis, llava_med = layouts["mantis"], layouts["llava-med"]
    config = tiny.build_config(mantis.family, mantis.tokenizer)
    with pytest.raises(ValueError, match="image_token_index"):
        Layout.from_tokenizer(mantis.family, llava_med.tokenizer, config)
    with pytest.raises(ValueError, match="has no '</s>'"):
        Layout.from_tokenizer(llava_med.family, mantis.tokenizer, config)
    with pytest.raises(ValueError, match="type llava"):
        Layout.from_tokenizer(mantis.family, mantis.tokenizer, config.text_config)


def test_the_pad_token_of_the_config_where_the_tokenizer_names_none(tmp_path):
    """As checkpoints of Mantis's own training code are: <|pad|> is a token of it, which nothing calls so."""
    write_model(tmp_path, "mantis", weights=False)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del told["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    layout = Layout.from_folder(get_family("mantis"), tmp_path)
    assert layout.tokenizer.convert_ids_to_tokens(layout.pad_id) == "<|pad|>" == layout.tokenizer.pad_token
    config = json.loads((tmp_path / "config.json").read_text())
    for pad_id in (None, len(layout.tokenizer)):
        changed = config | {"pad_token_id": pad_id, "text_config": config["text_config"] | {"pad_token_id": pad_id}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=f"has no pad token, and pad_token_id of config.json is {pad_id}, no token of it"):
            Layout.from_folder(get_family("mantis"), tmp_path)


def test_families_by_name():
    assert registry.family_module("llava-med") == "medmim.models.families.llava_med"
    with pytest.raises(ValueError, match="no model family 'llava'; did you mean 'llava-med'"):
        registry.get_family("llava")
    with pytest.raises(ValueError, match="there are llava-med, mantis, chat"):
        registry.get_family("x")
    with pytest.raises(ValueError, match="own processor"):
        registry.get_family("chat")


def test_a_family_without_a_recipe_makes_no_tiny_base(monkeypatch):
    family = registry.get_family("mantis")
    monkeypatch.setattr(type(family), "tiny", None)
    with pytest.raises(ValueError, match="family mantis has no recipe for a tiny base: set hub or path"):
        tiny.build_tokenizer(family, [("a", "b")])


def test_tokenizer_files_are_the_same_bytes_in_another_process(tmp_path):
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from small_models import write_model\n"
        "for n in ('mantis', 'llava-med'): write_model(pathlib.Path(sys.argv[2]) / n, n, weights=False)"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[2]), str(tmp_path / "there")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    for name in registry.FAMILIES:
        write_model(tmp_path / "here" / name, name, weights=False)
    folders = (tmp_path / "here", tmp_path / "there")
    here, there = ({p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*.*")} for f in folders)
    assert here == there and len(here) == 8
