"""Training beside transformers' Trainer, padded and one sample at a time; shards beside Pillow; the head's memory; the loader.

Run: PYTHONPATH=workflow python tests/bench/bench_train.py [train] [shards] [head] [loader]. Where there is a GPU of 80 GB, `full`
trains both architectures at full size with random weights; it has not been run yet, for want of a GPU. Other times are CPU
seconds of this process, of one thread, so that others on the machine change little.
"""

import contextlib
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    SiglipVisionConfig,
    Trainer,
    TrainingArguments,
)  # fmt: skip

from medmim.config.training import Tuning
from medmim.models.collate import collate_samples, restrict_loss_to_labels
from medmim.models.families import registry
from medmim.models.families.base import IGNORE_INDEX, Layout, Sample, count_image_tokens
from medmim.models.weights import DTYPES
from medmim.tables import images, table_io
from medmim.tables.images import ImageStore
from medmim.training.adapters import make_trainable
from medmim.training.data import build_shards, packing, pixel_table
from medmim.training.data.dataset import ShardDataset
from medmim.training.finetune import _BatchCollator, _BatchDataset, _MeteredTrainer, count_elements
from medmim.training.runtime.progress import cumulate_tokens
from medmim.training.runtime.throughput import ThroughputMeter, format_measurements

# Text tokens of the demo's samples and of the paper's, by quantile, beside two images in 5 of 6 samples and three in the others.
TEXT = {"demo": ([0, 0.5, 0.9, 0.99, 1], [42, 60, 75, 110, 122]), "paper": ([0, 1], [60, 200])}
ANSWER = 7


def build_tiny_config(family: str) -> LlavaConfig:
    """The demo's sizes."""
    tower = dict(hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=8, image_size=56, patch_size=14)
    text = dict(vocab_size=1000, hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=8)
    return build_config(family, tower, text | {"num_key_value_heads": 8})


def build_full_config(family: str) -> LlavaConfig:
    """The real models' sizes."""
    mantis = family == "mantis"
    layers, heads, wide, side = (27, 16, 1152, 384) if mantis else (24, 16, 1024, 336)
    tower = dict(
        hidden_size=wide, intermediate_size=4304 if mantis else 4096, num_hidden_layers=layers, num_attention_heads=heads
    )
    text = dict(vocab_size=128258 if mantis else 32064, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32)
    return build_config(
        family, tower | {"image_size": side, "patch_size": 14}, text | {"num_attention_heads": 32, "num_key_value_heads": 8}
    )


def build_config(family: str, tower: dict[str, Any], text: dict[str, Any]) -> LlavaConfig:
    positions = {"max_position_embeddings": 8192, "tie_word_embeddings": False}
    if family == "mantis":
        vision, language = SiglipVisionConfig(**tower, vision_use_head=False), LlamaConfig(**text, **positions)
    else:
        vision, language = CLIPVisionConfig(**tower), MistralConfig(**text, **positions, sliding_window=None)
    return LlavaConfig(
        vision_config=vision, text_config=language, image_token_index=text["vocab_size"] - 2, vision_feature_layer=-2,
        vision_feature_select_strategy="default", tie_word_embeddings=False,
    )  # fmt: skip


def build_layout(family: str, model_config: LlavaConfig) -> Layout:
    last = model_config.text_config.vocab_size - 1
    return Layout(
        registry.get_family(family),
        None,
        model_config.vision_config.image_size,
        count_image_tokens(model_config),
        last - 1,
        last,
        (),
    )


def make_samples(lay: Layout, kind: str, count: int) -> list[Sample]:
    """Random ids and noise, as long as real samples."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (lay.image_size, lay.image_size, 3), np.uint8)
    random_samples = []
    for _ in range(count):
        shown = 3 if rng.random() < 1 / 6 else 2
        ids = rng.integers(3, 300, shown + int(np.interp(rng.random(), *TEXT[kind])))
        ids[1 : 1 + shown] = lay.image_token_id
        labels = np.where(np.arange(len(ids)) >= len(ids) - ANSWER, ids, IGNORE_INDEX)
        random_samples.append(Sample(ids, labels, [picture] * shown))
    return random_samples


class PaddedCollator:
    """The stock collator's work: a rectangle, and a loss over all its positions."""

    def __init__(self, lay: Layout) -> None:
        self.layout = lay

    def __call__(self, batch: list[Sample]) -> dict[str, torch.Tensor]:
        return collate_samples(self.layout, batch)


def measure_steps(family: str, model_config: LlavaConfig, kind: str, *, gpu: bool, count: int, ways: dict[str, int]) -> None:
    """`count` steps of 16 samples each way: 0 is packed, else the samples of a padded batch. Real tokens a second."""
    lay = build_layout(family, model_config)
    data = make_samples(lay, kind, 16 * count)
    lengths = np.array([lay.count_tokens(s.input_ids.tolist()) for s in data])
    rank, precision, budget, kernel = (128, "bf16", 8192, "cuda") if gpu else (16, "fp32", 1536, "cpu")
    rates: dict[str, float] = {}
    for way, batch in ways.items():
        torch.manual_seed(0)
        with torch.device(kernel):
            torch.set_default_dtype(DTYPES[precision])
            base = LlavaForConditionalGeneration(deepcopy(model_config))
            torch.set_default_dtype(torch.float32)
        weights = sum(count_elements(p) for p in (*base.model.language_model.parameters(), *base.lm_head.parameters()))
        tuning = Tuning(lora_rank=rank, lora_alpha=rank, precision=precision, packing=not batch, batch=batch or 1)
        planned = list(np.arange(len(data)).reshape(-1, batch)) if batch else packing.pack_epoch(lengths, 0, 0, budget)
        each = len(planned) // count
        planned = planned[: each * count]
        tokens = cells = np.array([lengths[b].sum() for b in planned])
        if batch:
            cells = np.array([len(b) * lengths[b].max() for b in planned])
        seen = cumulate_tokens(tokens, each)
        name = torch.cuda.get_device_name() if gpu else ""
        meter = ThroughputMeter(seen, cumulate_tokens(cells, each), parameters=weights, gpus=int(gpu), gpu=name)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=batch or 1, gradient_accumulation_steps=each, max_steps=count, bf16=gpu,
                use_cpu=not gpu, report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no",
                remove_unused_columns=False, label_names=["labels"], activation_checkpointing=gpu,
                dataloader_num_workers=2 * gpu, train_sampling_strategy="sequential",
            )  # fmt: skip
            common = {"model": make_trainable(base, tuning, "base"), "args": arguments}
            if batch:
                trainer = Trainer(**common, train_dataset=data, data_collator=PaddedCollator(lay))
            else:
                ours = {"train_dataset": _BatchDataset(data, planned), "data_collator": _BatchCollator(lay, True)}
                trainer = _MeteredTrainer(projector_learning_rate=None, meter=meter, **common, **ours)
            meter.start(0)
            used = time_call(trainer.train)
        measured = meter.measure_step(count)
        rates[way] = measured["tokens_per_second"] if gpu else seen[-1] / used
        del base, trainer, common
        if gpu:
            torch.cuda.empty_cache()
        print(f"{family}, {way}: {rates[way]:,.0f} tokens/s" + (f"; {format_measurements(measured)}" if gpu else ""), flush=True)
    for way, other in list(rates.items())[1:]:
        print(f"  packed is {rates['packed'] / other:.2f} times as fast as {way}")


def bench_train() -> None:
    torch.set_num_threads(1)
    for family in ("mantis", "llava-med"):
        ways = {"packed": 0, "Trainer, padded to 16": 16, "Trainer, one at a time": 1}
        with contextlib.redirect_stdout(io.StringIO()):  # what is imported and set up once is nobody's
            measure_steps(family, build_tiny_config(family), "demo", gpu=False, count=2, ways=ways)
        measure_steps(family, build_tiny_config(family), "demo", gpu=False, count=40, ways=ways)


def bench_full() -> None:
    for family in ("mantis", "llava-med"):
        ways = {"packed": 0, "Trainer, padded to 4": 4, "Trainer, one at a time": 1}
        measure_steps(family, build_full_config(family), "paper", gpu=True, count=8, ways=ways)


def bench_shards() -> None:
    """The same 768 px pictures by Pillow alone, decoded and resized in a loop, and by the stage, file to file."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        rows, pngs = [], []
        for n in range(96):
            coarse = Image.fromarray(rng.integers(0, 256, (96, 96), np.uint8)).resize((768, 640))
            noisy = np.clip(np.asarray(coarse, np.int16) + rng.integers(-4, 5, (640, 768)), 0, 255).astype(np.uint8)
            image_id, png = images.encode_png(noisy)
            pngs.append(png)
            image_row = dict.fromkeys(["view", "laterality", "release_path", "modality"], "") | {
                "day": None,
                "origin_sha256": "0" * 64,
            }
            image_row |= {"source": "embed", "patient_id": f"embed/{n}", "study_id": f"embed/{n}", "origin_file": f"{n}"}
            rows.append(image_row | {"image_id": image_id, "width": 768, "height": 640, "bytes": png, "thumbnail": bytes(4096)})
        images.write_images(Path(folder) / "images.parquet", rows)
        store = ImageStore([Path(folder) / "images.parquet"])
        question_rows = [{"image_ids": [row["image_id"]]} for row in rows]
        for family in ("mantis", "llava-med"):
            lay = build_layout(family, build_full_config(family))

            def run_pillow(lay: Layout = lay) -> None:
                for png in pngs:
                    resize_image(lay.family.name, Image.open(io.BytesIO(png)), lay.image_size)

            def run_stage(lay: Layout = lay) -> None:
                pixel_table.write_pixels(Path(folder) / "pixels.parquet", build_shards.render_pixels(question_rows, lay, store))

            ratios = [time_call(run_pillow) / time_call(run_stage) for _ in range(3)]
            print(
                f"{family}: shards at {np.median(ratios):.2f} of Pillow's rate, {len(pngs) / time_call(run_pillow):.0f} "
                "images/s a core"
            )


def resize_image(family: str, image: Image.Image, side: int) -> np.ndarray:
    """What Pillow does of itself for a family."""
    if family == "llava-med":
        return registry.get_family(family).preprocess_image(image, side)
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def time_call(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def bench_head() -> None:
    """Peak memory and CPU seconds of loss and gradient, vocabulary 128,258: over all of 1,024 positions, or where labels are."""
    for way in ("all", "labels"):
        print(
            way,
            subprocess.run([sys.executable, __file__, f"head-{way}"], capture_output=True, text=True, check=True).stdout,
            end="",
        )


def measure_head(where_labels_are: bool) -> None:
    torch.set_num_threads(1)
    model_config = build_tiny_config("mantis")
    model_config.text_config.vocab_size = 128258
    model_config.image_token_index = 128256
    lay = build_layout("mantis", model_config)
    model = LlavaForConditionalGeneration(model_config).requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    picture = np.zeros((lay.image_size, lay.image_size, 3), np.uint8)
    batch = collate_samples(
        lay, [Sample(np.r_[lay.image_token_id, np.full(112, 5)], np.r_[np.full(106, IGNORE_INDEX), np.full(7, 5)], [picture])] * 8
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = time_call(lambda: model(**(restrict_loss_to_labels(batch) if where_labels_are else batch)).loss.backward())
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3:,.0f} MB more at the peak, {used:.2f} s")


def bench_loader() -> None:
    """Samples a second of one process, in random order: their views, and their bytes copied, beside a copy from memory."""
    rng = np.random.default_rng(0)
    for side in (336, 384):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{name}.parquet" for name in ("samples", "pixels")]
            noise = rng.integers(0, 256, (1200, side, side, 3), np.uint8)
            written = ({"image_id": str(n), "height": side, "width": side, "pixels": p.tobytes()} for n, p in enumerate(noise))
            pixel_table.write_pixels(paths[1], written)
            text = {"input_ids": [1] * 120, "labels": [1] * 120, "length": 120}
            shown = rng.integers(0, len(noise), (20_000, 2))
            table_io.write_table(
                paths[0], "samples", [{"qa_id": str(n), "image_ids": [str(a), str(b)], **text} for n, (a, b) in enumerate(shown)]
            )
            data = ShardDataset(*paths)
            order = rng.permutation(len(data)).tolist()
            out = np.empty((2, side, side, 3), np.uint8)
            some = order[:2000]
            shown = shown.tolist()
            views = measure_rate(lambda i, data=data: data[i], order)
            copied = measure_rate(lambda i, data=data, out=out: np.stack(data[i].pixels, out=out), some)
            memory = measure_rate(lambda i, of=shown, noise=noise, out=out: np.stack([noise[j] for j in of[i]], out=out), some)
        needed = 0.45 * 989e12 / (4 * 8.03e9 * 1650)
        print(f"{side} px: {views:,.0f} samples/s as views, {copied:,.0f} copied, {memory:,.0f} copied from memory")
        print(
            f"  an H100 at 45 % of its peak takes {needed:.1f} samples/s: {needed / copied:.2%} of one core's time to copy them"
        )


def measure_rate(use: Callable[[int], object], indices: list[int]) -> float:
    return len(indices) / time_call(lambda: [use(i) is None for i in indices])


BENCHES = {"train": bench_train, "shards": bench_shards, "head": bench_head, "loader": bench_loader}

if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("head-"):
        measure_head(sys.argv[1] == "head-labels")
    else:
        for name in sys.argv[1:] or BENCHES:
            (BENCHES | {"full": bench_full})[name]()
