"""What is to be asked of an endpoint, what of it is credentialed, and replies as rows of the predictions table.

A reply is kept under a hash of all that it depends on: the endpoint's URL, and the request with image ids in place of images.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmim.common.errors import UserError
from medmim.config.conditions import CONDITIONS, Condition
from medmim.config.endpoint import Endpoint
from medmim.endpoints.client import reply_key, require_allowed
from medmim.endpoints.reply_store import ReplyStore
from medmim.questions.conditions import PresentedQuestion, apply_condition
from medmim.questions.prompt import IMAGE_PLACEHOLDER, LETTERS, prompt_text
from medmim.tables import table_io
from medmim.tables.images import RELEASE_PREFIX

Row = dict[str, Any]


def build_messages(system: str, text: str, images: Sequence[str]) -> list[dict[str, Any]]:
    """A question as chat messages: its images, by URL, where its placeholders stand, and the words between them."""
    content: list[dict[str, Any]] = []
    for url, words in zip(("", *images), text.split(IMAGE_PLACEHOLDER), strict=True):
        if url:
            content.append({"type": "image_url", "image_url": {"url": url}})
        if words.strip():
            content.append({"type": "text", "text": words})
    user = {"role": "user", "content": content if images else text}  # plain where it can be, as not all services know parts
    return [{"role": "system", "content": system}, user] if system else [user]


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_data_url(png: bytes) -> str:
    """An image as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@dataclass(frozen=True)
class QuestionRequest:
    """One question under one condition, and the request that asks it."""

    item: PresentedQuestion
    condition: Condition
    system: str
    parameters: Mapping[str, Any]
    """All of the request but its messages."""
    prompt_sha256: str
    """Of the messages without their images."""
    key: str
    """Of all that the reply depends on."""

    @property
    def name(self) -> str:
        """For people."""
        return f"question {self.item.qa_id} ({self.condition})"

    def build_body(self, read_png: Callable[[str], bytes]) -> dict[str, Any]:
        """The request's JSON. `read_png`: bytes of an image by its name in the question."""
        text = prompt_text(self.item.question, self.item.options)
        return {
            **self.parameters,
            "messages": build_messages(self.system, text, [make_data_url(read_png(i)) for i in self.item.image_ids]),
        }


def build_requests(
    questions: Sequence[Mapping[str, Any]],
    conditions: Collection[str],
    endpoint: Endpoint,
    *,
    system: str,
    max_new_tokens: int,
    seed: int,
    image_ids: Mapping[str, str],
) -> list[QuestionRequest]:
    """What is to be asked, by condition in the order of CONDITIONS, then as `asked` gives it.

    `image_ids`: image_id of every image by the names that questions have for it. Raises UserError where an image is absent or
    there is not one placeholder for each.
    """
    parameters: dict[str, Any] = {"model": endpoint.model, "temperature": 0, "max_tokens": max_new_tokens, "seed": seed}
    parameters |= {"logprobs": True, "top_logprobs": 20} if endpoint.logprobs else {}
    parameters = {name: value for name, value in (parameters | endpoint.parameters).items() if value is not None}
    built = []
    for condition in (c for c in CONDITIONS if c in conditions):
        for item in apply_condition(questions, condition):
            prompt, image_count = prompt_text(item.question, item.options), len(item.image_ids)
            if prompt.count(IMAGE_PLACEHOLDER) != image_count:
                raise UserError(
                    f"question {item.qa_id} has {prompt.count(IMAGE_PLACEHOLDER)} placeholders for {image_count} images"
                )
            if missing_images := [i for i in item.image_ids if i not in image_ids]:
                raise UserError(f"question {item.qa_id} shows {missing_images[0]}, which is in none of the images tables")
            anonymous_messages = build_messages(system, prompt, ["image"] * image_count)
            keyed_messages = build_messages(system, prompt, [image_ids[i] for i in item.image_ids])
            key = reply_key(endpoint.url, {**parameters, "messages": keyed_messages})
            built.append(QuestionRequest(item, condition, system, parameters, _hash_json(anonymous_messages), key))
    return built


def index_images(paths: Iterable[Path]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """(image_id, sources) of every image of the tables, by each name that questions have for it.

    Of the same pixels several sources may have an image.
    """
    ids: dict[str, str] = {}
    sources: dict[str, set[str]] = {}
    for path in paths:
        for row in table_io.read_table(path, "images", ["image_id", "source", "release_path"]).to_pylist():
            for name in (row["image_id"], *([RELEASE_PREFIX + row["release_path"]] if row["release_path"] else [])):
                ids.setdefault(name, row["image_id"])
                sources.setdefault(name, set()).add(row["source"])
    return ids, sources


def check_credentialed(
    requests: Iterable[QuestionRequest],
    source_of_question: Mapping[str, str],
    sources_of_image: Mapping[str, Collection[str]],
    credentialed: Collection[str],
    endpoint: Endpoint,
    model: str,
) -> dict[str, dict[str, int]]:
    """How many questions and images of each credentialed source go to the endpoint.

    `source_of_question`: source by qa_id; `sources_of_image`: sources by the images' names. Raises UserError where there are
    any and the
    endpoint's config does not say that they may be sent there.
    """
    questions: dict[str, set[str]] = {}
    images: dict[str, set[str]] = {}
    for request in requests:
        questions.setdefault(source_of_question[request.item.qa_id], set()).add(request.item.qa_id)
        for image in request.item.image_ids:
            for source in sources_of_image[image]:
                questions.setdefault(source, set()).add(request.item.qa_id)
                images.setdefault(source, set()).add(image)
    counts_by_source = {
        source: {"questions": len(questions[source]), "images": len(images.get(source, ()))}
        for source in sorted(questions.keys() & {*credentialed})
    }
    descriptions = {source: f"{n['questions']} questions, {n['images']} images" for source, n in counts_by_source.items()}
    require_allowed(descriptions, endpoint, f"models.{model}.endpoint")
    return counts_by_source


def _read_option_logprobs(first: Iterable[tuple[str, float]], options: int) -> list[float]:
    """Log-likelihood of each option's letter as the first token, with or without a space; empty where one is not told."""
    letter_logprobs: dict[str, float] = {}
    for token, logprob in first:
        letter = token.strip()
        letter_logprobs[letter] = float(np.logaddexp(letter_logprobs.get(letter, -np.inf), logprob))
    letters = LETTERS[:options]
    return [letter_logprobs[letter] for letter in letters] if all(letter in letter_logprobs for letter in letters) else []


def build_prediction_rows(
    requests: Iterable[QuestionRequest], store: ReplyStore, failures: Mapping[str, str], model: str
) -> list[Row]:
    """Rows of the predictions table, in the order of the requests. `failures`: why one could not be asked, by key.

    Raises UserError where none could.
    """
    requests = list(requests)
    if failures and len(failures) == len({r.key for r in requests}):
        raise UserError(f"{model} could be asked none of {len(failures)} questions: {next(iter(failures.values()))}")
    prediction_rows = []
    for request in requests:
        reply = store.get(request.key) or {"content": "", "refusal": "", "first": []}
        prediction_rows.append(
            {
                "qa_id": request.item.qa_id,
                "model": model,
                "condition": request.condition,
                "rotation": request.item.rotation,
                "prompt_sha256": request.prompt_sha256,
                "reply": (reply["content"] or reply["refusal"] or "").strip(),
                "option_logprobs": _read_option_logprobs(reply["first"], len(request.item.options)),
                "text_logprobs": [],
                "failure": failures.get(request.key, ""),
            }
        )
    return prediction_rows


def summarise_usage(requests: Iterable[QuestionRequest], store: ReplyStore) -> dict[str, Any]:
    """What the service said of its replies, summed up: how they ended, by what model, and the tokens it counted."""
    replies = [reply for key in sorted({r.key for r in requests}) if (reply := store.get(key))]
    tokens: Counter[str] = Counter()
    for reply in replies:
        tokens.update({name: n for name, n in reply["usage"].items() if isinstance(n, int)})

    def count_values(name: str) -> dict[str, int]:
        return dict(sorted(Counter(str(reply[name]) for reply in replies).items()))

    return {
        "replies": len(replies),
        "finish_reasons": count_values("finish_reason"),
        "models": count_values("model"),
        "system_fingerprints": count_values("system_fingerprint"),
        "tokens": dict(sorted(tokens.items())),
    }
