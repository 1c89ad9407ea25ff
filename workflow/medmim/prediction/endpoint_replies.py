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
from medmim.prediction.reply_store import Store
from medmim.questions.conditions import Asked, asked
from medmim.questions.prompt import IMAGE, LETTERS, prompt_text
from medmim.tables import table_io
from medmim.tables.images import RELEASE

Row = dict[str, Any]


def messages(system: str, text: str, images: Sequence[str]) -> list[dict[str, Any]]:
    """A question as chat messages: its images, by URL, where its placeholders stand, and the words between them."""
    content: list[dict[str, Any]] = []
    for url, words in zip(("", *images), text.split(IMAGE), strict=True):
        if url:
            content.append({"type": "image_url", "image_url": {"url": url}})
        if words.strip():
            content.append({"type": "text", "text": words})
    user = {"role": "user", "content": content if images else text}  # plain where it can be, as not all services know parts
    return [{"role": "system", "content": system}, user] if system else [user]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def data_url(png: bytes) -> str:
    """An image as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@dataclass(frozen=True)
class Request:
    """One question under one condition, and the request that asks it."""

    asked: Asked
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
        return f"question {self.asked.qa_id} ({self.condition})"

    def body(self, png: Callable[[str], bytes]) -> dict[str, Any]:
        """The request's JSON. `png`: bytes of an image by its name in the question."""
        text = prompt_text(self.asked.question, self.asked.options)
        return {**self.parameters, "messages": messages(self.system, text, [data_url(png(i)) for i in self.asked.image_ids])}


def requests(
    questions: Sequence[Mapping[str, Any]],
    conditions: Collection[str],
    endpoint: Endpoint,
    *,
    system: str,
    max_new_tokens: int,
    seed: int,
    image_ids: Mapping[str, str],
) -> list[Request]:
    """What is to be asked, by condition in the order of CONDITIONS, then as `asked` gives it.

    `image_ids`: image_id of every image by the names that questions have for it. Raises UserError where an image is absent or
    there is not one placeholder for each.
    """
    parameters: dict[str, Any] = {"model": endpoint.model, "temperature": 0, "max_tokens": max_new_tokens, "seed": seed}
    parameters |= {"logprobs": True, "top_logprobs": 20} if endpoint.logprobs else {}
    parameters = {name: value for name, value in (parameters | endpoint.parameters).items() if value is not None}
    found = []
    for condition in (c for c in CONDITIONS if c in conditions):
        for one in asked(questions, condition):
            text, count = prompt_text(one.question, one.options), len(one.image_ids)
            if text.count(IMAGE) != count:
                raise UserError(f"question {one.qa_id} has {text.count(IMAGE)} placeholders for {count} images")
            if absent := [i for i in one.image_ids if i not in image_ids]:
                raise UserError(f"question {one.qa_id} shows {absent[0]}, which is in none of the images tables")
            prompt = messages(system, text, ["image"] * count)
            shown = messages(system, text, [image_ids[i] for i in one.image_ids])
            key = reply_key(endpoint.url, {**parameters, "messages": shown})
            found.append(Request(one, condition, system, parameters, _hash(prompt), key))
    return found


def images(paths: Iterable[Path]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """(image_id, sources) of every image of the tables, by each name that questions have for it.

    Of the same pixels several sources may have an image.
    """
    ids: dict[str, str] = {}
    sources: dict[str, set[str]] = {}
    for path in paths:
        for row in table_io.read(path, "images", ["image_id", "source", "release_path"]).to_pylist():
            for name in (row["image_id"], *([RELEASE + row["release_path"]] if row["release_path"] else [])):
                ids.setdefault(name, row["image_id"])
                sources.setdefault(name, set()).add(row["source"])
    return ids, sources


def check_credentialed(
    requests: Iterable[Request],
    of_question: Mapping[str, str],
    of_image: Mapping[str, Collection[str]],
    credentialed: Collection[str],
    endpoint: Endpoint,
    model: str,
) -> dict[str, dict[str, int]]:
    """How many questions and images of each credentialed source go to the endpoint.

    `of_question`: source by qa_id; `of_image`: sources by the images' names. Raises UserError where there are any and the
    endpoint's config does not say that they may be sent there.
    """
    questions: dict[str, set[str]] = {}
    shown: dict[str, set[str]] = {}
    for request in requests:
        questions.setdefault(of_question[request.asked.qa_id], set()).add(request.asked.qa_id)
        for image in request.asked.image_ids:
            for source in of_image[image]:
                questions.setdefault(source, set()).add(request.asked.qa_id)
                shown.setdefault(source, set()).add(image)
    found = {
        source: {"questions": len(questions[source]), "images": len(shown.get(source, ()))}
        for source in sorted(questions.keys() & {*credentialed})
    }
    counts = {source: f"{n['questions']} questions, {n['images']} images" for source, n in found.items()}
    require_allowed(counts, endpoint, f"models.{model}.endpoint")
    return found


def _option_logprobs(first: Iterable[tuple[str, float]], options: int) -> list[float]:
    """Log-likelihood of each option's letter as the first token, with or without a space; empty where one is not told."""
    found: dict[str, float] = {}
    for token, logprob in first:
        letter = token.strip()
        found[letter] = float(np.logaddexp(found.get(letter, -np.inf), logprob))
    letters = LETTERS[:options]
    return [found[letter] for letter in letters] if all(letter in found for letter in letters) else []


def rows(requests: Iterable[Request], store: Store, failures: Mapping[str, str], model: str) -> list[Row]:
    """Rows of the predictions table, in the order of the requests. `failures`: why one could not be asked, by key.

    Raises UserError where none could.
    """
    requests = list(requests)
    if failures and len(failures) == len({r.key for r in requests}):
        raise UserError(f"{model} could be asked none of {len(failures)} questions: {next(iter(failures.values()))}")
    made = []
    for request in requests:
        kept = store.get(request.key) or {"content": "", "refusal": "", "first": []}
        made.append(
            {
                "qa_id": request.asked.qa_id,
                "model": model,
                "condition": request.condition,
                "rotation": request.asked.rotation,
                "prompt_sha256": request.prompt_sha256,
                "reply": (kept["content"] or kept["refusal"] or "").strip(),
                "option_logprobs": _option_logprobs(kept["first"], len(request.asked.options)),
                "text_logprobs": [],
                "failure": failures.get(request.key, ""),
            }
        )
    return made


def account(requests: Iterable[Request], store: Store) -> dict[str, Any]:
    """What the service said of its replies, summed up: how they ended, by what model, and the tokens it counted."""
    told = [kept for key in sorted({r.key for r in requests}) if (kept := store.get(key))]
    tokens: Counter[str] = Counter()
    for kept in told:
        tokens.update({name: n for name, n in kept["usage"].items() if isinstance(n, int)})

    def counted(name: str) -> dict[str, int]:
        return dict(sorted(Counter(str(kept[name]) for kept in told).items()))

    return {
        "replies": len(told),
        "finish_reasons": counted("finish_reason"),
        "models": counted("model"),
        "system_fingerprints": counted("system_fingerprint"),
        "tokens": dict(sorted(tokens.items())),
    }
