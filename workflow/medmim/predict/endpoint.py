"""Requests put to a service that answers as OpenAI's chat completions do, each reply kept as it comes.

What goes wrong on the way, and what becomes of it:

    busy (429), broken (408, 409, 5xx), cut off, silent, not JSON     the request is sent again, after longer and longer waits; at
                                                            last the job fails, and all replies that came are kept
    a prompt too long, or held back by the service's filter     the question's `failure`; the others go on
    anything else that the service refuses (a key, a name, a parameter)     the job fails at once

A rerun, by whatever code, asks only what was never answered.
"""

import asyncio
import base64
import json
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx2
from aiolimiter import AsyncLimiter
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tqdm import tqdm

from medmim.errors import Interrupted, UserError
from medmim.predict.request import Request
from medmim.predict.settings import Endpoint
from medmim.predict.store import Store

log = logging.getLogger("medmim")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between a failed attempt and the next: twice as long each time, within these."""
PATIENCE = 900.0
"""Most seconds that a service may ask to wait; one that asks for more has used up what is allowed for long."""
SAID = 300
"""Most characters of a service's message that are repeated."""
LENGTH = re.compile(r"context.{0,10}(length|size|window)|maximum (model|input) length|(prompt|input) is too long", re.I)
"""What services say of a prompt that is too long: OpenAI, vLLM, SGLang, llama.cpp and Anthropic in their own words."""
TOO_LONG = "the prompt is longer than the endpoint can take"
FILTERED = "the endpoint's filter refused the prompt"


class _Malformed(Exception):
    """A reply that is none, though the service says that all is well."""


class _Unaskable(Exception):
    """A question that the service can't be asked, for a reason of the question's."""


def _message(error: APIStatusError) -> str:
    told = error.body
    if isinstance(told, dict):
        told = told.get("message") or told.get("detail") or json.dumps(told)
    return f"{error.status_code}: {' '.join(str(told or 'no message').split())}"


def _said(error: BaseException | None) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, APIStatusError):
        wait = _retry_after(error) or 0
        return _message(error) + (f" (to be asked again in {wait:.0f} s)" if wait > PATIENCE else "")
    if isinstance(error, APIConnectionError):
        return f"no connection: {error.__cause__ or error}"
    if isinstance(error, TimeoutError):
        return "no reply within endpoint.timeout"
    return str(error)


def _retry_after(error: BaseException | None) -> float | None:
    """Seconds that the service asks to wait, given as such or as a date."""
    value = error.response.headers.get("retry-after", "") if isinstance(error, APIStatusError) else ""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no such header, no date, or one without its zone
        return None


def _passing(error: BaseException) -> bool:
    """Whether the same request may be answered later."""
    if isinstance(error, APIStatusError):
        spent = error.code == "insufficient_quota" or (_retry_after(error) or 0) > PATIENCE
        return (error.status_code in (408, 409, 429) or error.status_code >= 500) and not spent
    return isinstance(error, APIConnectionError | TimeoutError | _Malformed)


def _unaskable(error: APIStatusError) -> str | None:
    """Why the service refuses this very question, if that is so."""
    if error.status_code not in (400, 413, 422):
        return None
    if error.code in ("content_filter", "content_policy_violation"):
        return FILTERED
    if error.status_code == 413 or error.code == "context_length_exceeded" or LENGTH.search(_message(error)):
        return TOO_LONG
    return None


def _whole(text: str | None) -> str | None:
    """Text without halves of surrogate pairs, which are left where a reply ends within a character."""
    return None if text is None else text.encode(errors="replace").decode()


def _reply(content: bytes) -> dict[str, Any]:
    """What is kept of a chat completion. Raises _Malformed."""
    try:
        found = json.loads(content)
        choice = found["choices"][0]
        message = choice["message"]
        kept = {
            "content": _whole(message.get("content")),
            "refusal": _whole(message.get("refusal")),
            "finish_reason": choice.get("finish_reason"),
            "first": [],
            "model": found.get("model"),
            "system_fingerprint": found.get("system_fingerprint"),
            "usage": dict(found.get("usage") or {}),
        }
        if first := (choice.get("logprobs") or {}).get("content"):
            kept["first"] = [[_whole(top["token"]), float(top["logprob"])] for top in first[0]["top_logprobs"]]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _Malformed(f"no chat completion: {' '.join(content.decode(errors='replace').split()) or 'nothing'}") from None
    if kept["finish_reason"] == "error":
        raise _Malformed(f"no chat completion: {json.dumps(choice)}")
    return kept


class _Asking:
    """One round of requests, `concurrency` at a time. After an error or a signal none is begun any more; those on their way are
    waited for, as they are paid for.
    """

    def __init__(
        self, endpoint: Endpoint, key: str | None, store: Store, url: Callable[[str], str], bar: "tqdm[NoReturn]"
    ) -> None:
        self.endpoint, self.store, self.url, self.bar = endpoint, store, url, bar
        self.secret = key
        self.client = AsyncOpenAI(
            base_url=endpoint.url,
            api_key=key or "EMPTY",  # vLLM's word for none
            admin_api_key="",
            max_retries=0,
            timeout=None,
        )
        rate = endpoint.requests_per_minute
        self.limiter = AsyncLimiter(1, 60 / rate) if rate else None
        self.failures: dict[str, str] = {}
        self.errors: list[Exception] = []
        self.sent = 0
        self.told = False
        """By a signal to stop."""
        self._idle: set[asyncio.Task[None]] = set()
        self._stopped = False

    def clean(self, text: str) -> str:
        """The beginning of a service's message, which may repeat the key, without it."""
        return (text.replace(self.secret, "(the key)") if self.secret else text)[:SAID]

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        for task in self._idle:
            task.cancel()

    async def ask(self, requests: Iterable[Request]) -> None:
        """Ask them all, keep the replies. Problems are in `failures`, by key, and `errors`."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            self.told = True
            for number in (signal.SIGINT, signal.SIGTERM):  # the next one ends at once
                loop.remove_signal_handler(number)
            log.warning("told to stop: waiting for the replies that are on their way")
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, tell)
        queue = iter(requests)
        async with self.client:
            await asyncio.gather(*(self._work(queue) for _ in range(self.endpoint.concurrency)), return_exceptions=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    async def _work(self, queue: Iterator[Request]) -> None:
        for request in queue:
            if self._stopped:
                return
            try:
                self.store.put(request.key, await self._answer(request))
            except _Unaskable as error:
                self.failures[request.key] = str(error)
            except Exception as error:
                self.errors.append(error)
                self.stop()
                return
            self.bar.update()

    async def _answer(self, request: Request) -> dict[str, Any]:
        """The reply, after as many attempts as it takes. Raises _Unaskable, UserError."""
        name = f"question {request.asked.qa_id} ({request.condition})"
        doubling = wait_exponential_jitter(multiplier=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT)

        def wait(state: RetryCallState) -> float:
            assert state.outcome is not None
            return max(_retry_after(state.outcome.exception()) or 0.0, doubling(state))

        def tell(state: RetryCallState) -> None:
            assert state.outcome is not None and state.next_action is not None
            said = self.clean(_said(state.outcome.exception()))
            log.info("%s: %s; again in %.1f s", name, said, state.next_action.sleep)

        attempts = AsyncRetrying(
            retry=retry_if_exception(_passing),
            stop=stop_after_attempt(self.endpoint.attempts),
            wait=wait,
            sleep=lambda seconds: self._wait(asyncio.sleep, seconds),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return await attempts(self._send, request)
        except APIStatusError as error:
            said = self.clean(_said(error))
            if why := _unaskable(error):
                log.warning("%s can't be asked: %s", name, said)
                raise _Unaskable(why) from None
            known = {
                401: "is that the right key?",
                403: "may that key use it?",
                404: "are endpoint.url and endpoint.model right?",
            }
            advice = known.get(error.status_code, "")
        except (APIConnectionError, TimeoutError, _Malformed) as error:
            said, advice = self.clean(_said(error)), ""
        made = attempts.statistics["attempt_number"]
        raise UserError(
            f"{name}: {self.endpoint.url} after {made} attempt{'s' * (made > 1)}: {said.rstrip('.')}. {advice}".strip()
        )

    async def _send(self, request: Request) -> dict[str, Any]:
        if self.limiter:
            await self._wait(self.limiter.acquire)
        self.sent += 1
        async with asyncio.timeout(self.endpoint.timeout):
            response = await self.client.post(
                "/chat/completions", cast_to=httpx2.Response, body=request.body(self.url), options={"follow_redirects": False}
            )
        return _reply(response.content)

    async def _wait(self, wait: Callable[..., Awaitable[None]], *arguments: float) -> None:
        """Wait in a way that `stop` ends, as it does one that begins after it."""
        if self._stopped:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self._idle.add(task)
        try:
            await wait(*arguments)
        finally:
            self._idle.discard(task)


def ask(requests: Sequence[Request], endpoint: Endpoint, store: Store, png: Callable[[str], bytes]) -> tuple[dict[str, str], int]:
    """Have every request answered that the store has no reply to.

    `png`: bytes of an image by its name. Returns why questions could not be asked, by key, and how many requests were sent.
    Raises UserError, Interrupted; what was answered by then is kept.
    """
    for name in ("httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they tell of every request
    missing = {r.key: r for r in requests if r.key not in store}
    if not missing:
        return {}, 0
    key = os.environ.get(endpoint.key_env, "").strip() if endpoint.key_env else None
    if key is not None and not re.fullmatch(r"[!-~]+", key):  # else errors would show it, with what can't be sent
        raise UserError(f"the environment variable {endpoint.key_env}, which endpoint.key_env names, holds no key")
    os.environ.pop("OPENAI_CUSTOM_HEADERS", None)  # the client would send them to any service: they may hold another's key

    def url(image: str) -> str:
        return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"

    keys = {r.key for r in requests}
    with tqdm(total=len(keys), initial=len(keys) - len(missing), unit="reply", disable=None, leave=False) as bar:
        asking = _Asking(endpoint, key, store, url, bar)
        asyncio.run(asking.ask(missing.values()))
    kept = f"{sum(k in store for k in keys)} of {len(keys)} replies are kept, a new start asks for the rest"
    if asking.told:
        raise Interrupted(f"told to stop: {kept}")
    if asking.errors:
        error = asking.errors[0]
        raise UserError(f"{error}. {kept}") if isinstance(error, UserError) else error
    if len(asking.failures) == len(keys):
        raise UserError(f"{endpoint.url} could be asked none of {len(keys)} questions: {next(iter(asking.failures.values()))}")
    return asking.failures, asking.sent
