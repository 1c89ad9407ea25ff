"""What the tasks of the Med-MIM benchmark ask lmms-eval to do: show the images, ask the question, score the reply.

Written beside the tasks as utils.py, with reply_parser.py and open_ended.py, by which the Med-MIM pipeline reads replies too.
"""

import importlib.util
import string
import sys
from functools import cache
from pathlib import Path
from typing import Any

IMAGE = "<image>"
RATES = ("unparsed", "refused", "ambiguous")
Doc = dict[str, Any]


@cache
def _load_sibling_module(name: str) -> Any:
    """A module of this folder, which is on no path."""
    spec = importlib.util.spec_from_file_location(f"medmim_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def doc_to_visual(doc: Doc) -> list[Any]:
    """The images in order, RGB."""
    return [image.convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: dict[str, str] | None = None) -> str:
    """The question, then one line per option, between what lmms_eval_specific_kwargs puts around it."""
    kwargs = lmms_eval_specific_kwargs or {}
    options = [f"{letter}: {text}" for letter, text in zip(string.ascii_uppercase, doc["options"], strict=False)]
    text = "\n".join([doc["question"].replace(IMAGE, "").strip(), *options])
    return kwargs.get("pre_prompt", "") + text + kwargs.get("post_prompt", "")


def doc_to_target(doc: Doc) -> str:
    """The gold option's line, or the answer where there are no options."""
    return f"{string.ascii_uppercase[doc['answer_index']]}: {doc['answer']}" if doc["options"] else str(doc["answer"])


def closed_results(doc: Doc, results: list[str]) -> dict[str, float]:
    """Whether the reply names the gold option, and how it was read. What can't be read counts as wrong."""
    reply_parser = _load_sibling_module("reply_parser")
    reading = reply_parser.parse_reply(results[0], doc["options"])
    right = reading.index is not None and reply_parser.is_same_option(doc["options"], reading.index, doc["answer_index"])
    return {"accuracy": float(right), **{f"{rate}_rate": float(reading.status == rate) for rate in RATES}}


def open_results(doc: Doc, results: list[str]) -> dict[str, float]:
    """Score the reply against the gold by every open metric."""
    open_ended = _load_sibling_module("open_ended")
    scores: dict[str, float] = open_ended.score_open_answer(results[0], doc["answer"])
    return scores
