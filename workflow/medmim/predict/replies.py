"""Greedy replies in batches of like lengths, with the log-likelihood of each option's letter from the same pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessor

from medmim.job import UserError
from medmim.models.prompter import Prompt, Prompter
from medmim.qa.prompt import blind, prompt_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What a model says to one prompt."""

    text: str
    """Decoded without special tokens, stripped."""
    logprobs: list[float]
    """Log-likelihood of each option's letter as the next token, nats; empty where there are no options."""


class _First(LogitsProcessor):
    """Keeps the scores of the first generated token, changes nothing."""

    def __init__(self) -> None:
        self.logprobs: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.logprobs is None:
            self.logprobs = scores.float().log_softmax(-1)
        return scores


def prompts(questions: Sequence[Mapping[str, Any]], prompter: Prompter, *, condition: str, system: str) -> list[Prompt]:
    """The prompts of questions (rows of the qa table) under a condition, "plain" or "blind".

    Raises UserError naming the question that can't be laid out.
    """
    made = []
    for question in questions:
        text, images = question["question"], question["image_ids"]
        if condition == "blind":
            text, images = blind(text), []
        try:
            made.append(prompter.prompt(prompt_text(text, question["options"]), images, system))
        except ValueError as error:
            raise UserError(f"question {question['qa_id']} can't be asked: {error}") from error
    return made


def batches(asked: Sequence[Prompt], size: int) -> list[list[int]]:
    """Indices of the prompts, longest first so that a lack of memory shows at once; with and without images apart."""
    order = sorted(range(len(asked)), key=lambda i: (not asked[i].images, -asked[i].length, i))
    seen = sum(bool(p.images) for p in asked)
    return [part[i : i + size] for part in (order[:seen], order[seen:]) for i in range(0, len(part), size)]


@torch.inference_mode()
def replies(
    model: Any, prompter: Prompter, asked: Sequence[Prompt], options: Sequence[int], *, batch: int, max_new_tokens: int
) -> list[Reply]:
    """Greedy replies of a model, in the order of the prompts; `options` tells how many options each question has.

    The model stays on its device; it is one of `weights.load`, which has no generation settings of its own.
    """
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(prompter.stops), pad_token_id=prompter.pad
    )
    letters = {n: prompter.letters(n) for n in set(options)}
    found: dict[int, Reply] = {}
    with tqdm(total=len(asked), unit="question", disable=None, leave=False) as bar:
        for part in batches(asked, batch):
            inputs = {
                name: t.to(model.device, model.dtype if t.is_floating_point() else None)
                for name, t in prompter.batch([asked[i] for i in part]).items()
            }
            first = _First()
            whole = model.generate(**inputs, generation_config=settings, logits_processor=[first])
            tokens = whole[:, inputs["input_ids"].shape[1] :].tolist()
            assert first.logprobs is not None
            for i, ids, logprobs in zip(part, tokens, first.logprobs, strict=True):
                end = next((n for n, token in enumerate(ids) if token in prompter.stops), len(ids))
                text = prompter.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
                found[i] = Reply(text, logprobs[letters[options[i]]].tolist())
            bar.update(len(part))
    return [found[i] for i in range(len(asked))]


def rows(
    questions: Sequence[Mapping[str, Any]], asked: Sequence[Prompt], given: Sequence[Reply], *, model: str, condition: str
) -> list[Row]:
    """Rows of the predictions table, in the order of the questions."""
    return [
        {
            "qa_id": question["qa_id"],
            "model": model,
            "condition": condition,
            "rotation": 0,
            "prompt_sha256": sha256(prompt.text.encode()).hexdigest(),
            "reply": reply.text,
            "option_logprobs": reply.logprobs,
            "text_logprobs": [],
            "failure": "",
        }
        for question, prompt, reply in zip(questions, asked, given, strict=True)
    ]
