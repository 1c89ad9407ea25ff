"""Requests put to a service that answers as OpenAI's chat completions do, each reply kept as it comes.

What goes wrong on the way, and what becomes of it:

    busy (429), broken (408, 409, 5xx), cut off, silent, not JSON     the request is sent again, after longer and longer waits; at
                                                            last the job fails, and all replies that came are kept
    a prompt too long, or held back by the service's filter     the question's `failure`; the others go on
    anything else that the service refuses (a key, a name, a parameter)     the job fails at once

A rerun, by whatever code, asks only what was never answered.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

import httpx2
from aiolimiter import AsyncLimiter
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tqdm import tqdm

from medmim.common.errors import Interrupted, UserError
from medmim.config.endpoint import Service

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


T = TypeVar("T")


class Request(Protocol):
    """What is asked."""

    @property
    def key(self) -> str:
        """Hex digest of all that the reply depends on."""

    @property
    def name(self) -> str:
        """For people."""


R = TypeVar("R", bound=Request)


class Kept(Protocol):
    """Where replies are kept."""

    def __contains__(self, key: str) -> bool: ...

    def put(self, key: str, value: Any) -> None:
        """Keep a reply; it is on the disk when this returns."""


class Malformed(Exception):
    """A reply that is none, though the service says that all is well."""


class _Unaskable(UserError):
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
    return isinstance(error, APIConnectionError | TimeoutError | Malformed)


def unaskable(status: int, code: Any, message: str) -> str | None:
    """Why a service refuses this very question, if that is so."""
    if status not in (400, 413, 422):
        return None
    if code in ("content_filter", "content_policy_violation"):
        return FILTERED
    if status == 413 or code == "context_length_exceeded" or LENGTH.search(message):
        return TOO_LONG
    return None


def _whole(text: str | None) -> str | None:
    """Text without halves of surrogate pairs, which are left where a reply ends within a character."""
    return None if text is None else text.encode(errors="replace").decode()


def reply_key(url: str, body: Mapping[str, Any]) -> str:
    """Hex digest of all that a reply depends on: the service's URL and the request's JSON."""
    return hashlib.sha256(json.dumps({**body, "url": url}, sort_keys=True).encode()).hexdigest()


def reply(content: bytes) -> dict[str, Any]:
    """What is kept of a chat completion. Raises Malformed."""
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
        raise Malformed(f"no chat completion: {' '.join(content.decode(errors='replace').split()) or 'nothing'}") from None
    if kept["finish_reason"] == "error":
        raise Malformed(f"no chat completion: {json.dumps(choice)}")
    return kept


class Asking:
    """One round of requests, `concurrency` at a time. After an error or a signal none is begun any more; those on their way are
    waited for, as they are paid for.
    """

    def __init__(
        self, service: Service, key: str | None, kept: Kept, body: Callable[[Any], Mapping[str, Any]], bar: "tqdm[NoReturn]"
    ) -> None:
        self.service, self.kept, self.body, self.bar = service, kept, body, bar
        self.secret = key
        self.client = AsyncOpenAI(
            base_url=service.url,
            api_key=key or "EMPTY",  # vLLM's word for none
            admin_api_key="",
            max_retries=0,
            timeout=None,
            http_client=DefaultAsyncHttpxClient(follow_redirects=False),
        )
        rate = service.requests_per_minute
        self.limiter = AsyncLimiter(1, 60 / rate) if rate else None
        self.failures: dict[str, str] = {}
        self.errors: list[BaseException] = []
        self.sent = 0
        self.told = False
        """By a signal to stop."""
        self._idle: set[asyncio.Task[Any]] = set()
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
        async with self.client:
            ended = await asyncio.gather(*self.tasks(requests), return_exceptions=True)
        self.errors += [e for e in ended if e is not None and not isinstance(e, asyncio.CancelledError)]
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def tasks(self, requests: Iterable[Request]) -> list[Awaitable[None]]:
        """What to do at a time."""
        queue = iter(requests)
        return [self._work(queue) for _ in range(self.service.concurrency)]

    async def _work(self, queue: Iterator[Request]) -> None:
        for request in queue:
            if self._stopped:
                return
            try:
                self.kept.put(request.key, await self._answer(request))
            except _Unaskable as error:
                self.failures[request.key] = str(error)
            except Exception:
                self.stop()
                raise
            self.bar.update()

    async def _answer(self, request: Request) -> dict[str, Any]:
        """The reply. Raises _Unaskable, UserError."""

        async def asked() -> dict[str, Any]:
            sent = await self.client.post("/chat/completions", cast_to=httpx2.Response, body=self.body(request))
            return reply(sent.content)

        return await self.answered(request.name, asked)

    async def answered(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """What a call of the service gives, after as many attempts as it takes. Raises _Unaskable, UserError."""
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
            stop=stop_after_attempt(self.service.attempts),
            wait=wait,
            sleep=lambda seconds: self.wait(asyncio.sleep, seconds),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return await attempts(partial(self._send, call))
        except APIStatusError as error:
            said = self.clean(_said(error))
            if why := unaskable(error.status_code, error.code, _message(error)):
                log.warning("%s can't be asked: %s", name, said)
                raise _Unaskable(why) from None
            known = {
                401: "is that the right key?",
                403: "may that key use it?",
                404: "are endpoint.url and endpoint.model right?",
            }
            advice = known.get(error.status_code, "")
        except (APIConnectionError, TimeoutError, Malformed) as error:
            said, advice = self.clean(_said(error)), ""
        made = attempts.statistics["attempt_number"]
        raise UserError(
            f"{name}: {self.service.url} after {made} attempt{'s' * (made > 1)}: {said.rstrip('.')}. {advice}".strip()
        )

    async def _send(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.limiter:
            await self.wait(self.limiter.acquire)
        self.sent += 1
        async with asyncio.timeout(self.service.timeout):
            return await call()

    async def wait(self, wait: Callable[..., Awaitable[None]], *arguments: float) -> None:
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


def ask(
    requests: Sequence[R], service: Service, kept: Kept, body: Callable[[R], Mapping[str, Any]], way: type[Asking] = Asking
) -> tuple[dict[str, str], int]:
    """Have every request answered that no reply is kept of.

    `body`: the JSON of a request. Returns why questions could not be asked, by key, and how many requests were sent.
    Raises UserError, Interrupted; what was answered by then is kept.
    """
    for name in ("httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they tell of every request
    missing = {r.key: r for r in requests if r.key not in kept}
    if not missing:
        return {}, 0
    key = os.environ.get(service.key_env, "").strip() if service.key_env else None
    if key is not None and not re.fullmatch(r"[!-~]+", key):  # else errors would show it, with what can't be sent
        raise UserError(f"the environment variable {service.key_env}, which endpoint.key_env names, holds no key")
    os.environ.pop("OPENAI_CUSTOM_HEADERS", None)  # the client would send them to any service: they may hold another's key
    keys = {r.key for r in requests}
    with tqdm(total=len(keys), initial=len(keys) - len(missing), unit="reply", disable=None, leave=False) as bar:

        async def asked() -> Asking:
            asking = way(service, key, kept, body, bar)
            await asking.ask(missing.values())
            return asking

        asking = asyncio.run(asked())
    told = f"{sum(k in kept for k in keys)} of {len(keys)} replies are kept, a new start asks for the rest"
    if asking.told:
        raise Interrupted(f"told to stop: {told}")
    if asking.errors:
        error = asking.errors[0]
        raise UserError(f"{error}. {told}") if isinstance(error, UserError) else error
    return asking.failures, asking.sent


def require_allowed(counts: Mapping[str, str], service: Service, setting: str) -> None:
    """Raise UserError where data of credentialed sources would go to a service whose config does not say that it may have them.

    `counts`: what would go there, in words, by source; `setting`: where the config tells of the service.
    """
    if counts and not service.credentialed:
        told = "; ".join(f"{source}: {words}" for source, words in counts.items())
        raise UserError(
            f"data of credentialed sources would go to {service.url} ({told}): nothing was sent. Their owners' agreements "
            "forbid passing them on; PhysioNet's rules forbid sending credentialed data to third parties that may keep it. "
            "Where this endpoint is your own, or its operator is bound to keep nothing, set "
            f"{setting}.credentialed: true; else leave these sources out"
        )
