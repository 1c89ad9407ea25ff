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
from transformers import DynamicCache, GenerationConfig, LogitsProcessor

from medmim.common.errors import UserError
from medmim.common.progress import CountedProgress
from medmim.endpoints.reply_store import ReplyStore
from medmim.models.families.base import IGNORE_INDEX
from medmim.models.families.prompter import Prompt, Prompter, Thinking
from medmim.questions.conditions import PresentedQuestion
from medmim.questions.prompt import option_lines, prompt_text

Row = dict[str, Any]
BUCKETS_PER_DOUBLING = 4
"""Prompts are of like length where their lengths differ by less than a factor of 2 ** (1 / STEPS)."""

CROSS_ATTENTION = "cross_attention_mask"
"""Name of the input that says which tokens see which image, of models whose images are not among the tokens."""


@dataclass(frozen=True)
class PromptedQuestion:
    """A question as one model is asked it."""

    item: PresentedQuestion
    prompt: Prompt
    wants_lines: bool
    """Whether the log-likelihoods of the options' lines are wanted."""
    content_sha256: str
    """Hex digest of what the model is shown. Batches are made by it: neighbours move the last digits of likelihoods, and with
    the code or the weights they would change."""
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
    thinking: str = ""
    """What it thought before, decoded; empty where it replies at once."""
    thinking_cut: bool = False
    """Whether its budget ended that."""


def prepare_questions(
    items: Iterable[PresentedQuestion],
    prompter: Prompter,
    *,
    system: str,
    wants_lines: bool,
    images: Mapping[str, str],
    basis: Any,
) -> list[PromptedQuestion]:
    """Lay questions out for a model, in their order.

    wants_lines: whether the log-likelihoods of the options' lines are wanted. images: hash of the content behind each reference.
    basis: all else that replies depend on, as JSON holds it. Raises UserError naming the question that can't be laid out.
    """
    prepared = []
    for item in items:
        try:
            prompt = prompter.build_prompt(prompt_text(item.question, item.options), item.image_ids, system)
        except ValueError as error:
            raise UserError(f"question {item.qa_id} can't be asked: {error}") from error
        item_wants_lines = wants_lines and bool(item.options)
        content = [prompt.text, [images[i] for i in prompt.images], item.options, item_wants_lines]
        prepared.append(PromptedQuestion(item, prompt, item_wants_lines, _hash_json(content), _hash_json([basis, *content])))
    return prepared


def _hash_json(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_batches(questions: Iterable[PromptedQuestion], size: int) -> list[list[PromptedQuestion]]:
    """Every question once, in batches of at most `size`, longest first so that a lack of memory shows at once."""
    buckets: dict[tuple[bool, int], list[PromptedQuestion]] = {}
    for question in {q.key: q for q in questions}.values():
        bucket = (not question.prompt.images, -math.ceil(BUCKETS_PER_DOUBLING * math.log2(question.prompt.length)))
        buckets.setdefault(bucket, []).append(question)
    return [part for _, shelf in sorted(buckets.items()) for part in _split_bucket(sorted(shelf, key=_get_content), size)]


def _get_content(question: PromptedQuestion) -> str:
    return question.content_sha256


def _split_bucket(bucket: list[PromptedQuestion], size: int, bit: int = 255) -> list[list[PromptedQuestion]]:
    """Halved by the next bit of the contents' hashes until each part fits."""
    if len(bucket) <= size:
        return [bucket]
    bits = [bool(int(q.content_sha256, 16) >> bit & 1) for q in bucket]
    halves = [[q for q, one in zip(bucket, bits, strict=True) if one is half] for half in (False, True)]
    return [part for half in halves if half for part in _split_bucket(half, size, bit - 1)]


def batch_key(batch: Sequence[PromptedQuestion]) -> str:
    """Hex digest under which a batch's replies are stored: of its questions' keys, since neighbours move the last digits."""
    return sha256("\n".join(q.key for q in batch).encode()).hexdigest()


def ask_batches(
    model: Any, prompter: Prompter, batches: Sequence[Sequence[PromptedQuestion]], store: ReplyStore, *, max_new_tokens: int
) -> None:
    """Ask batches and store their replies, each batch's as soon as they are there. UserError names a question at fault."""
    progress = CountedProgress("predict", sum(map(len, batches)), "questions")
    for batch in batches:
        try:
            replies = ask_batch(model, prompter, batch, max_new_tokens=max_new_tokens)
        except ValueError as error:
            name, reason = _find_failing_question(model, prompter, batch, max_new_tokens) or (f"one of {len(batch)}", error)
            raise UserError(f"question {name} can't be asked: {reason}") from error
        store.put(batch_key(batch), [asdict(reply) for reply in replies])
        progress.advance(len(batch))


def _find_failing_question(
    model: Any, prompter: Prompter, batch: Sequence[PromptedQuestion], max_new_tokens: int
) -> tuple[str, ValueError] | None:
    """The first question that can't be asked alone, and why."""
    for question in batch:
        try:
            ask_batch(model, prompter, [question], max_new_tokens=max_new_tokens)
        except ValueError as error:
            return question.item.qa_id, error
    return None


def load_replies(batches: Iterable[Sequence[PromptedQuestion]], store: ReplyStore) -> dict[str, Reply]:
    """The replies to batches that are in the store, by the questions' keys."""
    return {q.key: Reply(**r) for batch in batches for q, r in zip(batch, store.get(batch_key(batch)), strict=True)}


def ask_batch(model: Any, prompter: Prompter, batch: Sequence[PromptedQuestion], *, max_new_tokens: int) -> list[Reply]:
    """Greedy replies of a model to one batch, in its order.

    The model stays on its device; it is one of `weights.load_model`, which has no generation settings of its own. A prompt that
    leaves no room for the reply in the model's positions is not asked: its reply says so. A model that may think does so first:
    all that a reply holds is then of what it says after that.
    """
    lines = [[prompter.encode_reply(text) for text in option_lines(q.item.options)] if q.wants_lines else [] for q in batch]
    inputs = prompter.build_batch([q.prompt for q in batch])
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    failures = {}
    for n, tokens in enumerate(inputs["attention_mask"].sum(1).tolist()):
        reply_tokens = max([max_new_tokens, *map(len, lines[n])])
        if prompter.thinking:
            reply_tokens += prompter.thinking.max_tokens + len(prompter.thinking.closing_ids)
        if tokens + reply_tokens > positions:
            failures[n] = (
                f"a prompt of {tokens} tokens and {reply_tokens} of a reply are more than the model's {positions} positions"
            )
    fitting = [n for n in range(len(batch)) if n not in failures]
    if failures and fitting:
        inputs = prompter.build_batch([batch[n].prompt for n in fitting])
    options = [len(batch[n].item.options) for n in fitting]
    replies = iter(
        _generate_replies(model, prompter, inputs, options, [lines[n] for n in fitting], max_new_tokens) if fitting else ()
    )
    return [Reply("", [], [], failures[n]) if n in failures else next(replies) for n in range(len(batch))]


class _FirstTokenRecorder(LogitsProcessor):
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
def _generate_replies(
    model: Any,
    prompter: Prompter,
    inputs: Mapping[str, torch.Tensor],
    options: Sequence[int],
    lines: Sequence[Sequence[Sequence[int]]],
    max_new_tokens: int,
) -> list[Reply]:
    inputs = {name: t.to(model.device, model.dtype if t.is_floating_point() else None) for name, t in inputs.items()}
    thoughts = [("", False)] * len(options)
    if prompter.thinking:
        inputs, thoughts = _think(model, prompter, prompter.thinking, inputs)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(prompter.stop_ids), pad_token_id=prompter.pad_id
    )
    cache = DynamicCache(config=model.config.get_text_config()) if any(lines) else None
    recorder = _FirstTokenRecorder(cache)
    generated = model.generate(**inputs, past_key_values=cache, generation_config=settings, logits_processor=[recorder])
    assert recorder.logprobs is not None
    letter_ids = prompter.encode_letters(max(options))
    line_logprobs: Sequence[list[float]] = [[] for _ in options]
    if recorder.cache is not None:
        line_logprobs = _score_lines(model, recorder.cache, inputs, recorder.logprobs, lines, prompter.pad_id)
    replies = []
    for n, ids in enumerate(generated[:, inputs["input_ids"].shape[1] :].tolist()):
        end = next((at for at, token in enumerate(ids) if token in prompter.stop_ids), len(ids))
        text = prompter.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
        thinking, thinking_cut = thoughts[n]
        letters = recorder.logprobs[n, letter_ids[: options[n]]].tolist()
        replies.append(Reply(text, letters, line_logprobs[n], thinking=thinking, thinking_cut=thinking_cut))
    return replies


def _think(
    model: Any, prompter: Prompter, thinking: Thinking, inputs: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[tuple[str, bool]]]:
    """Have a model think about a batch.

    Returns the input of what follows, and for each prompt the thoughts and whether their budget ended them.
    A model that ends its turn where it should have ended its thoughts is asked to reply all the same.
    """
    if CROSS_ATTENTION in inputs:
        raise ValueError("a model that sees images beside its tokens, by attention across, can't think before it replies here")
    end_ids = {thinking.end_id, *prompter.stop_ids}
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=thinking.max_tokens, eos_token_id=list(end_ids), pad_token_id=prompter.pad_id
    )
    prompt_ids, mask = inputs["input_ids"], inputs["attention_mask"]
    generated = model.generate(**inputs, generation_config=settings)[:, prompt_ids.shape[1] :].tolist()
    ends = [next((at for at, token in enumerate(ids) if token in end_ids), None) for ids in generated]
    thoughts = [ids[:end] for ids, end in zip(generated, ends, strict=True)]
    rows = [[*thought, *thinking.closing_ids] for thought in thoughts]
    width = max(int(tokens) + len(row) for tokens, row in zip(mask.sum(1), rows, strict=True))
    extended = dict(inputs)
    for name, values in inputs.items():
        if values.shape != prompt_ids.shape:  # of the images
            continue
        extended[name] = values.new_full((len(rows), width), prompter.pad_id if name == "input_ids" else 0)
        for n, row in enumerate(rows):
            prompt_values = values[n][mask[n].bool()]
            added = values.new_tensor(row) if name == "input_ids" else values.new_full((len(row),), int(name == "attention_mask"))
            extended[name][n, width - len(prompt_values) - len(row) :] = torch.cat([prompt_values, added])
    texts = [prompter.tokenizer.decode(thought, skip_special_tokens=True).strip() for thought in thoughts]
    return extended, [(text, end is None) for text, end in zip(texts, ends, strict=True)]


def _score_lines(
    model: Any,
    cache: DynamicCache,
    inputs: Mapping[str, torch.Tensor],
    first_logprobs: torch.Tensor,
    lines: Sequence[Sequence[Sequence[int]]],
    pad: int,
) -> list[list[float]]:
    """Mean log-likelihood of the tokens of each line after its prompt, nats; `lines` are token ids by prompt and option.

    cache, inputs and first: of the prompts alone, and the log-likelihoods of the token that follows, B x V. The lines
    of one letter go through the model together, upon a copy of the cache, so that no prompt is read again.
    """
    sums = [[first_logprobs[n, line[0]].item() for line in row] for n, row in enumerate(lines)]
    mask, kept_inputs = inputs["attention_mask"], {name: inputs[name] for name in (CROSS_ATTENTION,) if name in inputs}
    for column in range(max(map(len, lines))):
        column_lines = [row[column] if column < len(row) else () for row in lines]
        width = max(map(len, column_lines)) - 1
        if not width:
            continue
        ids, targets = (torch.full((len(column_lines), width), fill) for fill in (pad, IGNORE_INDEX))
        for n, line in enumerate(column_lines):
            ids[n, : len(line[:-1])], targets[n, : len(line[1:])] = torch.tensor(line[:-1]), torch.tensor(line[1:])
        ids, targets = ids.to(mask.device), targets.to(mask.device)
        cache_copy, attention_mask = copy.deepcopy(cache), torch.cat([mask, (targets != IGNORE_INDEX).to(mask.dtype)], 1)
        # As generate does it: families differ in how positions go on after images, and after padding.
        positions = model._prepare_position_ids_for_generation(
            ids, {"attention_mask": attention_mask, "past_key_values": cache_copy}
        )
        model_inputs = model.prepare_inputs_for_generation(
            torch.cat([inputs["input_ids"], ids], 1),
            next_sequence_length=width,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=cache_copy,
            use_cache=True,
            **kept_inputs,
        )
        logits = model(**model_inputs).logits
        nats = cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=IGNORE_INDEX).sum(1).tolist()
        for n, line in enumerate(column_lines):
            if line:
                sums[n][column] -= nats[n]
    return [[total / len(line) for total, line in zip(*both, strict=True)] for both in zip(sums, lines, strict=True)]


def build_prediction_rows(
    questions: Sequence[PromptedQuestion], replies: Mapping[str, Reply], *, model: str, condition: str
) -> list[Row]:
    """Rows of the predictions table, in the order of the questions."""
    return [
        {
            "qa_id": question.item.qa_id,
            "model": model,
            "condition": condition,
            "rotation": question.item.rotation,
            "prompt_sha256": sha256(question.prompt.text.encode()).hexdigest(),
            "reply": reply.text,
            "option_logprobs": reply.letters,
            "text_logprobs": reply.lines,
            "failure": reply.failure,
        }
        for question, reply in ((one, replies[one.key]) for one in questions)
    ]
