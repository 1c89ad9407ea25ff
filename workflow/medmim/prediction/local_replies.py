"""Greedy replies, and the log-likelihoods of the options' letters and lines, from one pass over each prompt.

Batches are made by content: of prompts of like length, by the hash of all that a reply depends on. A question that is new or
changed makes another batch of few, and a run that goes on after a kill finds the same batches again.
"""

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import DynamicCache, GenerationConfig, LogitsProcessor

from medmim.common.errors import UserError
from medmim.models.families.base import IGNORE
from medmim.models.prompting import Prompt, Prompter
from medmim.prediction.reply_store import Store
from medmim.questions.conditions import Asked
from medmim.questions.prompt import option_lines, prompt_text

Row = dict[str, Any]
STEPS = 4
"""Prompts are of like length where their lengths differ by less than a factor of 2 ** (1 / STEPS)."""


@dataclass(frozen=True)
class Question:
    """A question as one model is asked it."""

    asked: Asked
    prompt: Prompt
    lines: bool
    """Whether the log-likelihoods of the options' lines are wanted."""
    key: str
    """Hex digest of all that the reply depends on."""


@dataclass(frozen=True)
class Reply:
    """What a model says to one prompt."""

    text: str
    """Decoded without special tokens, stripped."""
    letters: list[float]
    """Log-likelihood of each option's letter as the next token, nats; empty where there are no options."""
    lines: list[float]
    """Log-likelihood of each option's line as the reply, its end left out, nats a token; empty where not wanted."""
    failure: str = ""
    """Why the model was not asked; then all else is empty."""


def questions(
    asked: Iterable[Asked], prompter: Prompter, *, system: str, lines: bool, images: Mapping[str, str], basis: Any
) -> list[Question]:
    """Lay questions out for a model, in their order.

    lines: whether the log-likelihoods of the options' lines are wanted. images: hash of the content behind each reference.
    basis: all else that replies depend on, as JSON holds it. Raises UserError naming the question that can't be laid out.
    """
    made = []
    for one in asked:
        try:
            prompt = prompter.prompt(prompt_text(one.question, one.options), one.image_ids, system)
        except ValueError as error:
            raise UserError(f"question {one.qa_id} can't be asked: {error}") from error
        wanted = lines and bool(one.options)
        depends = [basis, prompt.text, [images[i] for i in prompt.images], one.options, wanted]
        made.append(Question(one, prompt, wanted, sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()))
    return made


def batches(asked: Iterable[Question], size: int) -> list[list[Question]]:
    """Every question once, in batches of at most `size`, longest first so that a lack of memory shows at once."""
    shelves: dict[tuple[bool, int], list[Question]] = {}
    for one in {q.key: q for q in asked}.values():
        shelf = (not one.prompt.images, -math.ceil(STEPS * math.log2(one.prompt.length)))
        shelves.setdefault(shelf, []).append(one)
    return [part for _, shelf in sorted(shelves.items()) for part in _parts(sorted(shelf, key=lambda q: q.key), size)]


def _parts(shelf: list[Question], size: int, bit: int = 255) -> list[list[Question]]:
    """Halved by the next bit of the keys until each part fits."""
    if len(shelf) <= size:
        return [shelf]
    ones = [bool(int(q.key, 16) >> bit & 1) for q in shelf]
    halves = [[q for q, one in zip(shelf, ones, strict=True) if one is half] for half in (False, True)]
    return [part for half in halves if half for part in _parts(half, size, bit - 1)]


def batch_key(batch: Sequence[Question]) -> str:
    """Hex digest under which a batch's replies are stored: of its questions' keys, since neighbours move the last digits."""
    return sha256("\n".join(q.key for q in batch).encode()).hexdigest()


def ask_new(model: Any, prompter: Prompter, new: Sequence[Sequence[Question]], kept: Store, *, max_new_tokens: int) -> None:
    """Ask batches and store their replies, each batch's as soon as they are there. UserError names a question at fault."""
    with tqdm(total=sum(map(len, new)), unit="question", disable=None, leave=False) as bar:
        for batch in new:
            try:
                replies = ask(model, prompter, batch, max_new_tokens=max_new_tokens)
            except ValueError as error:
                name, why = _fault(model, prompter, batch, max_new_tokens) or (f"one of {len(batch)}", error)
                raise UserError(f"question {name} can't be asked: {why}") from error
            kept.put(batch_key(batch), [asdict(reply) for reply in replies])
            bar.update(len(batch))


def _fault(model: Any, prompter: Prompter, batch: Sequence[Question], max_new_tokens: int) -> tuple[str, ValueError] | None:
    """The first question that can't be asked alone, and why."""
    for one in batch:
        try:
            ask(model, prompter, [one], max_new_tokens=max_new_tokens)
        except ValueError as error:
            return one.asked.qa_id, error
    return None


def stored(asked: Iterable[Sequence[Question]], kept: Store) -> dict[str, Reply]:
    """The replies to batches that are in the store, by the questions' keys."""
    return {q.key: Reply(**r) for batch in asked for q, r in zip(batch, kept.get(batch_key(batch)), strict=True)}


def ask(model: Any, prompter: Prompter, batch: Sequence[Question], *, max_new_tokens: int) -> list[Reply]:
    """Greedy replies of a model to one batch, in its order.

    The model stays on its device; it is one of `weights.load`, which has no generation settings of its own. A prompt that
    leaves no room for the reply in the model's positions is not asked: its reply says so.
    """
    lines = [[prompter.line(text) for text in option_lines(q.asked.options)] if q.lines else [] for q in batch]
    inputs = prompter.batch([q.prompt for q in batch])
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    failures = {}
    for n, tokens in enumerate(inputs["attention_mask"].sum(1).tolist()):
        room = max([max_new_tokens, *map(len, lines[n])])
        if tokens + room > positions:
            failures[n] = f"a prompt of {tokens} tokens and {room} of a reply are more than the model's {positions} positions"
    fit = [n for n in range(len(batch)) if n not in failures]
    if failures and fit:
        inputs = prompter.batch([batch[n].prompt for n in fit])
    options = [len(batch[n].asked.options) for n in fit]
    given = iter(_replies(model, prompter, inputs, options, [lines[n] for n in fit], max_new_tokens) if fit else ())
    return [Reply("", [], [], failures[n]) if n in failures else next(given) for n in range(len(batch))]


class _First(LogitsProcessor):
    """Keeps the scores of the first generated token, and a copy of the cache of the prompts; changes nothing."""

    def __init__(self, cache: DynamicCache | None) -> None:
        self.logprobs: torch.Tensor | None = None
        self.cache = cache

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.logprobs is None:
            self.logprobs = scores.float().log_softmax(-1)
            self.cache = copy.deepcopy(self.cache)
        return scores


@torch.inference_mode()
def _replies(
    model: Any,
    prompter: Prompter,
    inputs: Mapping[str, torch.Tensor],
    options: Sequence[int],
    lines: Sequence[Sequence[Sequence[int]]],
    max_new_tokens: int,
) -> list[Reply]:
    inputs = {name: t.to(model.device, model.dtype if t.is_floating_point() else None) for name, t in inputs.items()}
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(prompter.stops), pad_token_id=prompter.pad
    )
    cache = DynamicCache(config=model.config.get_text_config()) if any(lines) else None
    first = _First(cache)
    whole = model.generate(**inputs, past_key_values=cache, generation_config=settings, logits_processor=[first])
    assert first.logprobs is not None
    letters = prompter.letters(max(options))
    of_lines: Sequence[list[float]] = [[] for _ in options]
    if first.cache is not None:
        of_lines = _lines(model, first.cache, inputs["attention_mask"], first.logprobs, lines, prompter.pad)
    found = []
    for n, ids in enumerate(whole[:, inputs["input_ids"].shape[1] :].tolist()):
        end = next((at for at, token in enumerate(ids) if token in prompter.stops), len(ids))
        text = prompter.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
        found.append(Reply(text, first.logprobs[n, letters[: options[n]]].tolist(), of_lines[n]))
    return found


def _lines(
    model: Any,
    cache: DynamicCache,
    mask: torch.Tensor,
    first: torch.Tensor,
    lines: Sequence[Sequence[Sequence[int]]],
    pad: int,
) -> list[list[float]]:
    """Mean log-likelihood of the tokens of each line after its prompt, nats; `lines` are token ids by prompt and option.

    cache, mask and first: of the prompts alone, B x T, and the log-likelihoods of the token that follows, B x V. The lines
    of one letter go through the model together, upon a copy of the cache, so that no prompt is read again.
    """
    sums = [[first[n, line[0]].item() for line in row] for n, row in enumerate(lines)]
    for column in range(max(map(len, lines))):
        here = [row[column] if column < len(row) else () for row in lines]
        width = max(map(len, here)) - 1
        if not width:
            continue
        ids, targets = (torch.full((len(here), width), fill) for fill in (pad, IGNORE))
        for n, line in enumerate(here):
            ids[n, : len(line[:-1])], targets[n, : len(line[1:])] = torch.tensor(line[:-1]), torch.tensor(line[1:])
        ids, targets = ids.to(mask.device), targets.to(mask.device)
        past, seen = copy.deepcopy(cache), torch.cat([mask, (targets != IGNORE).to(mask.dtype)], 1)
        # As generate does it: families differ in how positions go on after images.
        positions = model._prepare_position_ids_for_generation(ids, {"attention_mask": seen, "past_key_values": past})
        logits = model(
            input_ids=ids, attention_mask=seen, position_ids=positions[..., -width:], past_key_values=past, use_cache=True
        ).logits
        nats = cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=IGNORE).sum(1).tolist()
        for n, line in enumerate(here):
            if line:
                sums[n][column] -= nats[n]
    return [[total / len(line) for total, line in zip(*both, strict=True)] for both in zip(sums, lines, strict=True)]


def rows(asked: Sequence[Question], given: Mapping[str, Reply], *, model: str, condition: str) -> list[Row]:
    """Rows of the predictions table, in the order of the questions."""
    return [
        {
            "qa_id": one.asked.qa_id,
            "model": model,
            "condition": condition,
            "rotation": one.asked.rotation,
            "prompt_sha256": sha256(one.prompt.text.encode()).hexdigest(),
            "reply": reply.text,
            "option_logprobs": reply.letters,
            "text_logprobs": reply.lines,
            "failure": reply.failure,
        }
        for one, reply in ((one, given[one.key]) for one in asked)
    ]
