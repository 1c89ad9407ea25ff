"""Packing: the plan, and that a model learns from a pack what it learns from its samples one at a time."""

import os
import pickle
import signal
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medmim.common.errors import UserError
from medmim.config.training import Tuning
from medmim.models import weights
from medmim.models.collate import collate_samples, pack_samples, restrict_loss_to_labels
from medmim.models.families.base import Layout, Sample
from medmim.models.families.registry import get_family
from medmim.tables.images import ImageStore
from medmim.training.adapters import make_trainable
from medmim.training.data.build_shards import build_samples
from medmim.training.data.packing import find_fullest_subset, pack_batches, pack_epoch
from medmim.training.finetune import _BatchCollator, _BatchDataset, plan_batches
from small_models import write_model, write_tables

FAMILIES = ["llava-med", "mantis"]


def paper(tokens: int, pairs: float, count: int = 4000) -> np.ndarray:
    """Lengths as at the paper's scale: a share of `pairs` of images, the rest threes, and 60 to 200 tokens of text."""
    rng = np.random.default_rng([tokens, count])
    return np.where(rng.random(count) < pairs, 2, 3) * tokens + rng.integers(60, 201, count)


@pytest.mark.parametrize(
    ("tokens", "pairs", "budget", "fill"),
    [
        (576, 0.8, 8192, 0.99),
        (576, 0.5, 8192, 0.985),
        # Of 728 tokens an image no packs are fuller: 5 pairs, or 2 pairs and 2 threes, of average text are 0.97 and 0.95 of it.
        (728, 1.0, 8192, 0.96),
        (728, 0.5, 8192, 0.945),
        (728, 0.5, 4096, 0.94),
    ],
)
def test_packs_are_full(tokens: int, pairs: float, budget: int, fill: float) -> None:
    lengths = paper(tokens, pairs)
    made = pack_epoch(lengths, 1, 0, budget)
    assert sorted(np.concatenate(made).tolist()) == list(range(len(lengths)))
    sums = np.array([lengths[pack].sum() for pack in made])
    assert sums.max() <= budget and lengths.sum() / (len(made) * budget) > fill
    # As full early as late, and mixed: neither packs nor what is in them come in an order.
    halves = np.array_split(sums[: len(sums) // 2 * 2], 2)
    assert halves[0].mean() == pytest.approx(halves[1].mean(), rel=0.01)
    places = np.argsort(np.concatenate(made))
    assert abs(np.corrcoef(places, np.arange(len(lengths)))[0, 1]) < 0.05


def test_the_fullest_subset_is_found() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths, room = rng.integers(1, 40, 9), int(rng.integers(0, 200))
        sums = [sum(lengths[k] for k in range(9) if chosen >> k & 1) for chosen in range(512)]
        places = find_fullest_subset(lengths.tolist(), room)
        assert places == sorted(set(places), reverse=True)
        assert lengths[places].sum() == max(s for s in sums if s <= room)


def test_a_plan_is_a_pure_function_and_the_same_for_any_processes() -> None:
    lengths = paper(576, 0.8, 700)
    for epoch in (0, 1):
        a, b = (pack_epoch(lengths, 5, epoch, 8192) for _ in range(2))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    first, second = (pack_epoch(lengths, 5, epoch, 8192) for epoch in (0, 1))
    assert [p.tolist() for p in pack_batches(lengths, 5, 8192, len(first) + 3)] == [p.tolist() for p in (*first, *second[:3])]
    recipe = {"max_steps": 9, "max_length": 2048, "pack_tokens": 8192}
    alone = plan_batches(Tuning(**recipe, accumulation=4), lengths, 5)
    for shared in ({"accumulation": 2, "processes": 2}, {"accumulation": 1, "processes": 4}):
        assert [p.tolist() for p in plan_batches(Tuning(**recipe, **shared), lengths, 5)] == [p.tolist() for p in alone]
    assert len(plan_batches(Tuning(epochs=2, accumulation=8), lengths, 5)) == -(-2 * len(first) // 8) * 8


def test_a_sample_that_fits_no_pack_is_said() -> None:
    with pytest.raises(UserError, match="a training sample has 1928 tokens, more than pack_tokens 1024"):
        pack_epoch(np.array([100, 1928]), 1, 0, 1024)
    with pytest.raises(ValueError, match="pack_tokens: 1024 is less than max_length 2048"):
        Tuning(pack_tokens=1024, max_length=2048)
    with pytest.raises(ValueError, match="batch: is for trainings without packing"):
        Tuning(batch=4)


class Family:
    """A small base of a family, and samples of 0 to 3 images."""

    def __init__(self, folder: Path, name: str) -> None:
        _, images, asked = write_tables(folder)
        write_model(folder / name, name)
        self.name, self.folder, self.layout = name, folder / name, Layout.from_folder(get_family(name), folder / name)
        store = ImageStore([images])
        rows, _ = build_samples(asked, self.layout, store, system="", max_length=512)
        self.samples = [
            Sample(r["input_ids"], r["labels"], [self.layout.preprocess_image(store.read_image(i)) for i in r["image_ids"]])
            for r in rows
        ]

    def model(self, **tuning: Any) -> torch.nn.Module:
        """In training, LoRA's second factors not zero, as they begin."""
        torch.manual_seed(1)
        model = make_trainable(
            weights.load_model(self.folder, family=self.name),
            Tuning(lora_rank=4, lora_dropout=0.0, precision="fp32", **tuning),
            "b",
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model.train()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("packing"), request.param)


def learned(model: torch.nn.Module, given: list[dict[str, Any]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss over all label tokens and the gradient of each weight that is trained, of batches that make one step."""
    labels = sum(
        int(b["shift_labels"].ne(-100).sum() if "shift_labels" in b else b["labels"][:, 1:].ne(-100).sum()) for b in given
    )
    model.zero_grad()
    total = 0.0
    for batch in given:
        loss = model(**batch, use_cache=False, num_items_in_batch=labels).loss
        loss.backward()
        total += loss.item()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert all(g.abs().max() > 0 for g in grads.values())
    return total, grads


def assert_same(a: tuple[float, dict[str, torch.Tensor]], b: tuple[float, dict[str, torch.Tensor]]) -> None:
    """To rounding in float32."""
    assert a[0] == pytest.approx(b[0], rel=1e-5) and a[1].keys() == b[1].keys()
    for name, gradient in a[1].items():
        torch.testing.assert_close(
            gradient, b[1][name], rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pack_teaches_what_its_samples_teach_one_at_a_time(family: Family, checkpointing: bool) -> None:
    """Loss and the gradient of every weight of LoRA and projector; the head's work only where labels are."""
    alone, packed = family.model(packing=False), family.model()
    one = learned(alone, [collate_samples(family.layout, [s]) for s in family.samples])
    assert_same(one, learned(alone, [collate_samples(family.layout, family.samples)]))
    assert_same(one, learned(alone, [restrict_loss_to_labels(collate_samples(family.layout, family.samples))]))
    if checkpointing:
        packed.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    order = np.random.default_rng(2).permutation(len(family.samples))
    for parts in (1, 3):
        made = [[family.samples[i] for i in part] for part in np.array_split(order, parts)]
        assert_same(one, learned(packed, [restrict_loss_to_labels(pack_samples(family.layout, part)) for part in made]))


def test_full_fine_tuning_learns_the_same_from_packs(family: Family) -> None:
    models = {packing: family.model(method="full", packing=packing) for packing in (False, True)}
    trained = {n for n, p in models[True].named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in models[True].named_parameters() if "vision_tower" not in n}
    one = learned(models[False], [collate_samples(family.layout, [s]) for s in family.samples])
    assert_same(one, learned(models[True], [restrict_loss_to_labels(pack_samples(family.layout, family.samples))]))


def windowed(family: Family, window: int | None) -> dict[bool, Any]:
    """Models that do and don't take packs, each position of which sees `window` positions."""
    models: dict[bool, Any] = {packing: family.model(packing=packing) for packing in (False, True)}
    for model in models.values():
        model.get_base_model().config.text_config.sliding_window = window
    return models


@pytest.mark.parametrize("family", ["llava-med"], indirect=True)
@pytest.mark.parametrize("window", [None, 8, 40])
@torch.no_grad()
def test_a_sliding_window_is_honoured_inside_each_sample(family: Family, window: int | None) -> None:
    """The logits are those of transformers' own masks, which see one sample at a time. Llama has no window."""
    models = windowed(family, window)
    lengths = [family.layout.count_tokens(s.input_ids) for s in family.samples]
    assert 8 < min(lengths) < 40 < max(lengths)
    alone = [models[False].eval()(**collate_samples(family.layout, [s]), use_cache=False).logits[0] for s in family.samples]
    packed = models[True].eval()(**pack_samples(family.layout, family.samples), use_cache=False).logits[0]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-4)
    unlimited = family.model().eval()(**pack_samples(family.layout, family.samples)).logits[0]
    assert torch.allclose(packed, unlimited, rtol=1e-4, atol=1e-4) == (window is None)


@pytest.mark.parametrize("family", ["llava-med"], indirect=True)
def test_a_pack_teaches_the_same_within_a_sliding_window(family: Family) -> None:
    models = windowed(family, 40)
    one = learned(models[False], [collate_samples(family.layout, [s]) for s in family.samples])
    assert_same(one, learned(models[True], [restrict_loss_to_labels(pack_samples(family.layout, family.samples))]))


@torch.no_grad()
def test_a_sample_changes_nothing_for_its_neighbours(family: Family) -> None:
    """Neither its words nor its images; and what transformers itself makes of restarting positions is the same."""
    model = family.model().eval()
    given = family.samples[1:5]
    before = model(**pack_samples(family.layout, given)).logits[0]
    changed = given[1]
    ids = np.array(changed.input_ids)
    ids[-3] = (ids[-3] + 1) % 50
    other = Sample(ids, changed.labels, [255 - p for p in changed.pixels])
    after = model(**pack_samples(family.layout, [given[0], other, *given[2:]])).logits[0]
    first, second = np.cumsum([family.layout.count_tokens(s.input_ids) for s in given])[:2]
    assert torch.equal(before[:first], after[:first]) and torch.equal(before[second:], after[second:])
    assert not torch.equal(before[first:second], after[first:second])
    batch = pack_samples(family.layout, given)
    del batch["sample_lengths"]
    masked = family.model(packing=False).eval()(**batch, use_cache=False).logits[0]
    torch.testing.assert_close(before, masked, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        before[first:], family.model(packing=False).eval()(**batch | {"position_ids": None}).logits[0, first:]
    )


def test_the_head_works_where_labels_are(family: Family) -> None:
    model = family.model()
    rows: list[int] = []
    model.get_base_model().lm_head.register_forward_hook(lambda module, given, logits: rows.append(logits.shape[-2]))
    batch = restrict_loss_to_labels(pack_samples(family.layout, family.samples))
    assert model(**batch).loss.isfinite()
    wanted = sum(sum(label >= 0 for label in s.labels) for s in family.samples)
    assert rows == [wanted] and batch["labels"].shape == (wanted,) and wanted < batch["input_ids"].shape[1] / 4


def test_a_first_token_is_nobodys_label(family: Family) -> None:
    """Else the last token of the sample before it would be taught to foresee it."""
    odd = Sample(family.samples[0].input_ids, family.samples[0].input_ids, [])
    batch = restrict_loss_to_labels(pack_samples(family.layout, [odd, odd]))
    assert len(batch["labels"]) == 2 * (len(odd.input_ids) - 1) and len(family.samples[0].pixels) == 0


def test_workers_change_nothing(family: Family) -> None:
    planned = [np.array(b) for b in ([3, 1], [0], [2, 5, 4], [6, 7])]
    data = _BatchDataset(family.samples, planned)
    made = [list(DataLoader(data, 1, collate_fn=_BatchCollator(family.layout, True), num_workers=workers)) for workers in (0, 2)]
    assert len(made[0]) == 4
    for a, b in zip(*made, strict=True):
        assert a.keys() == b.keys() and a["sample_lengths"] == b["sample_lengths"]
        assert all(torch.equal(a[n], b[n]) for n in a if isinstance(a[n], torch.Tensor))
    assert pickle.loads(pickle.dumps(_BatchCollator(family.layout, True)))([family.samples[:2]]).keys() == made[0][0].keys()


def test_workers_leave_sigterm_to_the_training(family: Family) -> None:
    """SLURM sends it to all processes of a job, and the training still needs batches to end its step."""
    data = _BatchDataset(family.samples, [np.array([n]) for n in range(8)])
    batches_ = iter(DataLoader(data, 1, collate_fn=_BatchCollator(family.layout, True), num_workers=1, prefetch_factor=2))
    next(batches_)
    [worker] = active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    assert len(list(batches_)) == 7
