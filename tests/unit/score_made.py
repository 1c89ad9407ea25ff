"""Small benchmarks and predictions for the tests of scoring."""

from typing import Any


def make_question(name: str, set_: str, options: list[str], gold: str, patients: list[str], **changed: Any) -> dict[str, Any]:
    """A qa row: closed with options, open without."""
    return {
        "qa_id": name,
        "split": "benchmark",
        "ability": "coreference" if set_ in ("rad", "odir") else set_,
        "set": set_,
        "kind": "closed" if options else "open",
        "task": "made",
        "question": "<image>What is it?",
        "options": options,
        "answer": gold,
        "answer_index": options.index(gold) if options else None,
        "image_ids": ["i"],
        "patient_ids": patients,
        "source": "made",
        "generator": "made/1",
        "findings": [],
    } | changed


def make_prediction(
    name: str, model: str, condition: str, reply: str, logprobs: list[float] | None = None, **changed: Any
) -> dict[str, Any]:
    """A predictions row."""
    return {
        "qa_id": name,
        "model": model,
        "condition": condition,
        "rotation": 0,
        "prompt_sha256": "0" * 64,
        "reply": reply,
        "option_logprobs": logprobs or [],
        "text_logprobs": [],
        "failure": "",
    } | changed
