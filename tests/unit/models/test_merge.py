"""A merged model: the same replies as adapter and base, loaded by stock transformers, asked as it was trained."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from medmim.common.files import INDEX_NAME, hash_file, index_files
from medmim.config.training import Tuning
from medmim.models import weights
from medmim.models.collate import Sample, collate_samples
from medmim.models.families import registry
from medmim.models.families.base import Layout
from medmim.models.families.registry import get_family
from medmim.models.merge import merge_adapter
from medmim.tables import table_io
from medmim.training.adapters import make_trainable
from small_models import run_program, write_model

FAMILIES = ["llava-med", "mantis"]
SHAPES = [(70, 50), (41, 60), (56, 56), (31, 30)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By family a folder with base, adapter and merged model."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for family in FAMILIES:
            folder = folders[family] = tmp_path_factory.mktemp(family)
            (folder / "base").mkdir()
            write_model(folder / "base", family)
            model = make_trainable(weights.load_model(folder / "base", family=family), Tuning(lora_rank=4, lora_alpha=8), "base")
            torch.manual_seed(1)
            for parameter in (p for p in model.parameters() if p.requires_grad):
                torch.nn.init.normal_(parameter, std=0.1)
            model.save_pretrained(str(folder / "adapter"))
            (folder / "adapter/README.md").unlink()
            table_io.write_table(folder / "adapter" / INDEX_NAME, "files", index_files(folder / "adapter"))
            (folder / "card.md").write_text("# A card\n")
            merge(patch, folder, "merged")
    return folders


def merge(patch: pytest.MonkeyPatch, folder: Path, name: str, tuned: str = "adapter", system: str = "") -> None:
    family = "mantis" if "mantis" in folder.name else "llava-med"
    run_program(patch, "merge_model.py", cfg={"family": family, "system": system}, base=folder / "base" / INDEX_NAME,
    tuned=folder / tuned / INDEX_NAME,
        card=folder / "card.md", merged=folder / name / INDEX_NAME)  # fmt: skip


def images() -> list[Image.Image]:
    return [Image.fromarray(np.random.default_rng(n).integers(0, 256, (h, w, 3), np.uint8)) for n, (w, h) in enumerate(SHAPES)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits_as_base_and_adapter(made: dict[str, Path], family: str) -> None:
    folder = made[family]
    layout = Layout.from_folder(get_family(family), folder / "base")
    ids, labels = layout.encode_sample("<image><image>Which image shows the larger lesion?", "the first image")
    batch = collate_samples(layout, [Sample(ids, labels, [layout.preprocess_image(i) for i in images()[:2]])])
    merged = LlavaForConditionalGeneration.from_pretrained(folder / "merged").eval()
    base = LlavaForConditionalGeneration.from_pretrained(folder / "base").eval()
    with torch.inference_mode():
        plain = base(**batch).logits
        got = merged(**batch).logits
        wanted = PeftModel.from_pretrained(base, folder / "adapter").eval()(**batch).logits
    assert (got - wanted).abs().max() < 1e-4 < 0.1 < (plain - wanted).abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", ["", "Answer as a radiologist."])
def test_its_processor_asks_as_the_layout_does(made: dict[str, Path], family: str, system: str) -> None:
    processor = AutoProcessor.from_pretrained(made[family] / "merged")
    layout = Layout.from_folder(get_family(family), made[family] / "base")
    text = "Which image shows the larger lesion?\nA: the first\nB: the second"
    for count in (0, 1, 3):
        shown = images()[:count]
        content = [*({"type": "image"} for _ in shown), {"type": "text", "text": text}]
        messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        messages.append({"role": "user", "content": content})
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        asked = processor(text=prompt, images=shown or None, add_special_tokens=False, return_tensors="pt")
        ids, _ = layout.encode_sample("<image>" * count + text, system=system)
        assert asked["input_ids"][0].tolist() == layout.expand_images(ids, ids)[0].tolist()
        if shown:
            found = registry.get_family(family)
            wanted = np.stack([(layout.preprocess_image(i) / 255 - found.mean) / found.std for i in shown]).transpose(0, 3, 1, 2)
            np.testing.assert_allclose(asked["pixel_values"].numpy(), wanted, atol=1e-5)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": "the first"}]})
        whole = processor.apply_chat_template(messages)
        assert whole == prompt + found_answer(family)


def found_answer(family: str) -> str:
    return registry.get_family(family).format_answer("the first")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_bytes_twice_and_no_path_in_them(made: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made[family]
    merge(monkeypatch, folder, "again")
    names = sorted(p.name for p in (folder / "merged").iterdir() if ".prov." not in p.name)
    assert {"README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", INDEX_NAME} <= set(names)
    assert [hash_file(folder / "merged" / n) for n in names] == [hash_file(folder / "again" / n) for n in names]
    assert (folder / "merged/README.md").read_text() == "# A card\n"
    for name in names:
        assert str(folder).encode() not in (folder / "merged" / name).read_bytes()


STOCK_USE = """
import json, sys
sys.modules["medmim"] = None  # whoever takes the folder has no such library
import numpy as np, torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration, LogitsProcessor

class EndTurn(LogitsProcessor):
    def __call__(self, ids, scores):
        scores[:, END] = torch.inf if ids.shape[1] >= LENGTH + 3 else -torch.inf
        return scores

folder, END = sys.argv[1], int(sys.argv[2])
processor, tokenizer = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
shown = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 50, 3), np.uint8)) for n in range(3)]
def ask(count, text):
    content = [{"type": "image", "image": image} for image in shown[:count]] + [{"type": "text", "text": text}]
    return [{"role": "user", "content": content}]
asked = [ask(3, "Which image shows the larger lesion?"), ask(1, "Is there a lesion?"), ask(0, "What is a lesion?")]
options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
def reply(messages):
    inputs = processor.apply_chat_template(messages, processor_kwargs={"padding": True}, **options)
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1]:]
    return processor.batch_decode(ids, skip_special_tokens=True)
one_step = processor.apply_chat_template(asked[0], **options)["input_ids"][0].tolist()
text = processor.apply_chat_template(asked[0], add_generation_prompt=True)
two_step = processor(text=text, images=shown, return_tensors="pt")["input_ids"][0].tolist()
alone = tokenizer(processor.apply_chat_template(asked[2], add_generation_prompt=True), return_tensors="pt")
LENGTH = alone["input_ids"].shape[1]
ended = model.generate(**alone, max_new_tokens=20, do_sample=False, logits_processor=[EndTurn()])[0].tolist()[LENGTH:]
print(json.dumps({
    "bos": [ids.count(tokenizer.bos_token_id) for ids in (one_step, two_step)], "same": one_step == two_step, "ids": two_step,
    "batch": reply(asked), "alone": [reply([one])[0] for one in asked], "ended": ended,
}))
"""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", ["", "Say \"yes\" or 'no', {{ not }} 5 µm.\nBe brief."])
def test_stock_tools_use_it_without_a_catch(
    made: dict[str, Path], family: str, system: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a process of its own: one BOS, a batch answered as one by one, and an end where a turn ends."""
    folder = made[family] / "merged"
    if system:
        merge(monkeypatch, made[family], "told", system=system)
        folder = made[family] / "told"
    layout = Layout.from_folder(get_family(family), made[family] / "base")
    end = layout.tokenizer.convert_tokens_to_ids(layout.family.end_tokens[0])
    words = [sys.executable, "-c", STOCK_USE, str(folder), str(end)]
    completed = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    used = json.loads(completed.stdout)
    assert used["bos"] == [1, 1] and used["same"]
    ids, _ = layout.encode_sample("<image>" * 3 + "Which image shows the larger lesion?", system=system)
    assert used["ids"] == layout.expand_images(ids, ids)[0].tolist(), "it is asked as it was tuned, system message and all"
    assert used["batch"] == used["alone"] and any(used["batch"])
    assert used["ended"][-1] == end and len(used["ended"]) == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_scored_is_what_is_published(made: dict[str, Path], tmp_path: Path, precision: str) -> None:
    """The base is in bfloat16, as published ones are."""
    base = tmp_path / "base"
    shutil.copytree(made["mantis"] / "base", base)
    LlavaForConditionalGeneration.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    merge_adapter(base, made["mantis"] / "adapter", "mantis", tmp_path / "merged")
    scored = weights.load_model(base, family="mantis", precision=precision, adapter=made["mantis"] / "adapter")
    published = LlavaForConditionalGeneration.from_pretrained(tmp_path / "merged", dtype=weights.DTYPES[precision])
    of_scored, of_published = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (scored, published))
    assert of_scored.keys() == of_published.keys()
    assert all(
        torch.equal(of_scored[name], value) and of_scored[name].dtype == value.dtype for name, value in of_published.items()
    )


def test_weights_keep_the_type_of_their_base(made: dict[str, Path], tmp_path: Path) -> None:
    base = made["mantis"] / "base"
    LlavaForConditionalGeneration.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    for path in base.iterdir():
        if "tokenizer" in path.name:
            (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    told = merge_adapter(tmp_path / "base", made["mantis"] / "adapter", "mantis", tmp_path / "out")
    assert told["dtype"] == "bfloat16" == json.loads((tmp_path / "out/config.json").read_text())["dtype"]
    rounded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    exact = LlavaForConditionalGeneration.from_pretrained(made["mantis"] / "merged", dtype=torch.float32).state_dict()
    assert all(torch.allclose(rounded[name], exact[name], rtol=2**-7, atol=1e-2) for name in exact)


def test_a_whole_model_is_taken_as_it_is(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made["llava-med"]
    merge(monkeypatch, folder, "whole", tuned="base")
    a, b = (LlavaForConditionalGeneration.from_pretrained(folder / n).state_dict() for n in ("base", "whole"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
