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
from functools import partial
from typing import Any, Protocol, TypeVar

import httpx2
from aiolimiter import AsyncLimiter
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from medmim.common.errors import RunInterruptedError, UserError
from medmim.common.formatting import parse_retry_after
from medmim.common.progress import CountedProgress
from medmim.config.endpoint import Service
from medmim.endpoints.reply_store import ReplyStore

log = logging.getLogger("medmim")
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 60.0
"""Seconds between a failed attempt and the next: twice as long each time, within these."""
MAX_RETRY_AFTER_SECONDS = 900.0
"""Most seconds that a service may ask to wait; one that asks for more has used up what is allowed for long."""
MAX_MESSAGE_CHARS = 300
"""Most characters of a service's message that are repeated."""
LENGTH_ERROR_PATTERN = re.compile(
    r"context.{0,10}(length|size|window)|maximum (model|input) length|(prompt|input) is too long", re.I
)
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


class MalformedReplyError(Exception):
    """A reply that is none, though the service says that all is well."""


class _PromptRejectedError(UserError):
    """A question that the service can't be asked, for a reason of the question's."""


def _format_status_error(error: APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or json.dumps(body)
    return f"{error.status_code}: {' '.join(str(body or 'no message').split())}"


def _describe_error(error: BaseException | None) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, APIStatusError):
        wait = _retry_after_seconds(error) or 0
        return _format_status_error(error) + (f" (to be asked again in {wait:.0f} s)" if wait > MAX_RETRY_AFTER_SECONDS else "")
    if isinstance(error, APIConnectionError):
        return f"no connection: {error.__cause__ or error}"
    if isinstance(error, TimeoutError):
        return "no reply within endpoint.timeout"
    return str(error)


def _retry_after_seconds(error: BaseException | None) -> float | None:
    """Return the seconds that the service asks to wait."""
    return parse_retry_after(error.response.headers.get("retry-after")) if isinstance(error, APIStatusError) else None


def _is_transient(error: BaseException) -> bool:
    """Whether the same request may be answered later."""
    if isinstance(error, APIStatusError):
        is_exhausted = error.code == "insufficient_quota" or (_retry_after_seconds(error) or 0) > MAX_RETRY_AFTER_SECONDS
        return (error.status_code in (408, 409, 429) or error.status_code >= 500) and not is_exhausted
    return isinstance(error, APIConnectionError | TimeoutError | MalformedReplyError)


def rejection_reason(status: int, code: Any, message: str) -> str | None:
    """Why a service refuses this very question, if that is so."""
    if status not in (400, 413, 422):
        return None
    if code in ("content_filter", "content_policy_violation"):
        return FILTERED
    if status == 413 or code == "context_length_exceeded" or LENGTH_ERROR_PATTERN.search(message):
        return TOO_LONG
    return None


def _drop_lone_surrogates(text: str | None) -> str | None:
    """Text without halves of surrogate pairs, which are left where a reply ends within a character."""
    return None if text is None else text.encode(errors="replace").decode()


def reply_key(url: str, body: Mapping[str, Any]) -> str:
    """Hex digest of all that a reply depends on: the service's URL and the request's JSON."""
    return hashlib.sha256(json.dumps({**body, "url": url}, sort_keys=True).encode()).hexdigest()


def parse_reply(content: bytes) -> dict[str, Any]:
    """What is kept of a chat completion. Raises MalformedReplyError."""
    try:
        completion = json.loads(content)
        choice = completion["choices"][0]
        message = choice["message"]
        record = {
            "content": _drop_lone_surrogates(message.get("content")),
            "refusal": _drop_lone_surrogates(message.get("refusal")),
            "finish_reason": choice.get("finish_reason"),
            "first": [],
            "model": completion.get("model"),
            "system_fingerprint": completion.get("system_fingerprint"),
            "usage": dict(completion.get("usage") or {}),
        }
        if first := (choice.get("logprobs") or {}).get("content"):
            record["first"] = [[_drop_lone_surrogates(top["token"]), float(top["logprob"])] for top in first[0]["top_logprobs"]]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise MalformedReplyError(
            f"no chat completion: {' '.join(content.decode(errors='replace').split()) or 'nothing'}"
        ) from None
    if record["finish_reason"] == "error":
        raise MalformedReplyError(f"no chat completion: {json.dumps(choice)}")
    return record


class RequestRunner:
    """One round of requests, `concurrency` at a time. After an error or a signal none is begun any more; those on their way are
    waited for, as they are paid for.
    """

    def __init__(
        self,
        service: Service,
        key: str | None,
        store: ReplyStore,
        body: Callable[[Any], Mapping[str, Any]],
        progress: CountedProgress,
    ) -> None:
        self.service, self.store, self.body, self.progress = service, store, body, progress
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
        self.is_interrupted = False
        """By a signal to stop."""
        self._waiting_tasks: set[asyncio.Task[Any]] = set()
        self._stopped = False

    def clean_message(self, text: str) -> str:
        """The beginning of a service's message, which may repeat the key, without it."""
        return (text.replace(self.secret, "(the key)") if self.secret else text)[:MAX_MESSAGE_CHARS]

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        for task in self._waiting_tasks:
            task.cancel()

    async def run(self, requests: Iterable[Request]) -> None:
        """Ask them all, keep the replies. Problems are in `failures`, by key, and `errors`."""
        loop = asyncio.get_running_loop()

        def stop_on_signal() -> None:
            self.is_interrupted = True
            for number in (signal.SIGINT, signal.SIGTERM):  # the next one ends at once
                loop.remove_signal_handler(number)
            log.warning("told to stop: waiting for the replies that are on their way")
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop_on_signal)
        async with self.client:
            results = await asyncio.gather(*self.create_tasks(requests), return_exceptions=True)
        self.errors += [e for e in results if e is not None and not isinstance(e, asyncio.CancelledError)]
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def create_tasks(self, requests: Iterable[Request]) -> list[Awaitable[None]]:
        """What to do at a time."""
        queue = iter(requests)
        return [self._work_through(queue) for _ in range(self.service.concurrency)]

    async def _work_through(self, queue: Iterator[Request]) -> None:
        for request in queue:
            if self._stopped:
                return
            try:
                self.store.put(request.key, await self._request_reply(request))
            except _PromptRejectedError as error:
                self.failures[request.key] = str(error)
            except Exception:
                self.stop()
                raise
            self.progress.advance()

    async def _request_reply(self, request: Request) -> dict[str, Any]:
        """The reply. Raises _PromptRejectedError, UserError."""

        async def post_request() -> dict[str, Any]:
            response = await self.client.post("/chat/completions", cast_to=httpx2.Response, body=self.body(request))
            return parse_reply(response.content)

        return await self.call_with_retries(request.name, post_request)

    async def call_with_retries(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """What a call of the service gives, after as many attempts as it takes. Raises _PromptRejectedError, UserError."""
        backoff = wait_exponential_jitter(multiplier=FIRST_BACKOFF_SECONDS, max=MAX_BACKOFF_SECONDS, jitter=FIRST_BACKOFF_SECONDS)

        def retry_delay(state: RetryCallState) -> float:
            assert state.outcome is not None
            return max(_retry_after_seconds(state.outcome.exception()) or 0.0, backoff(state))

        def log_retry(state: RetryCallState) -> None:
            assert state.outcome is not None and state.next_action is not None
            message = self.clean_message(_describe_error(state.outcome.exception()))
            log.info("%s: %s; again in %.1f s", name, message, state.next_action.sleep)

        attempts = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(self.service.attempts),
            wait=retry_delay,
            sleep=lambda seconds: self.wait_unless_stopped(asyncio.sleep, seconds),
            before_sleep=log_retry,
            reraise=True,
        )
        try:
            return await attempts(partial(self._attempt_call, call))
        except APIStatusError as error:
            message = self.clean_message(_describe_error(error))
            if reason := rejection_reason(error.status_code, error.code, _format_status_error(error)):
                log.warning("%s can't be asked: %s", name, message)
                raise _PromptRejectedError(reason) from None
            advice_by_status = {
                401: "is that the right key?",
                403: "may that key use it?",
                404: "are endpoint.url and endpoint.model right?",
            }
            advice = advice_by_status.get(error.status_code, "")
        except (APIConnectionError, TimeoutError, MalformedReplyError) as error:
            message, advice = self.clean_message(_describe_error(error)), ""
        attempt_count = attempts.statistics["attempt_number"]
        raise UserError(
            f"{name}: {self.service.url} after {attempt_count} attempt{'s' * (attempt_count > 1)}: {message.rstrip('.')}. "
            f"{advice}".strip()
        )

    async def _attempt_call(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.limiter:
            await self.wait_unless_stopped(self.limiter.acquire)
        self.sent += 1
        async with asyncio.timeout(self.service.timeout):
            return await call()

    async def wait_unless_stopped(self, start_wait: Callable[..., Awaitable[None]], *arguments: float) -> None:
        """Wait in a way that `stop` ends, as it does one that begins after it."""
        if self._stopped:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        self._waiting_tasks.add(task)
        try:
            await start_wait(*arguments)
        finally:
            self._waiting_tasks.discard(task)


def send_requests(
    requests: Sequence[R],
    service: Service,
    store: ReplyStore,
    body: Callable[[R], Mapping[str, Any]],
    runner_class: type[RequestRunner] = RequestRunner,
) -> tuple[dict[str, str], int]:
    """Have every request answered that no reply is kept of.

    `body`: the JSON of a request. Returns why questions could not be asked, by key, and how many requests were sent.
    Raises UserError, RunInterruptedError; what was answered by then is kept.
    """
    for name in ("httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they tell of every request
    missing = {r.key: r for r in requests if r.key not in store}
    if not missing:
        return {}, 0
    key = os.environ.get(service.key_env, "").strip() if service.key_env else None
    if key is not None and not re.fullmatch(r"[!-~]+", key):  # else errors would show it, with what can't be sent
        raise UserError(f"the environment variable {service.key_env}, which endpoint.key_env names, holds no key")
    os.environ.pop("OPENAI_CUSTOM_HEADERS", None)  # the client would send them to any service: they may hold another's key
    keys = {r.key for r in requests}

    async def run_all() -> RequestRunner:
        progress = CountedProgress("replies", len(keys), "replies", len(keys) - len(missing))
        runner = runner_class(service, key, store, body, progress)
        await runner.run(missing.values())
        return runner

    runner = asyncio.run(run_all())
    kept = f"{sum(k in store for k in keys)} of {len(keys)} replies are kept, a new start asks for the rest"
    if runner.is_interrupted:
        raise RunInterruptedError(f"told to stop: {kept}")
    if runner.errors:
        error = runner.errors[0]
        raise UserError(f"{error}. {kept}") if isinstance(error, UserError) else error
    return runner.failures, runner.sent


def require_allowed(counts: Mapping[str, str], service: Service, setting: str) -> None:
    """Raise UserError where data of credentialed sources would go to a service whose config does not say that it may have them.

    `counts`: what would go there, in words, by source; `setting`: where the config tells of the service.
    """
    if counts and not service.credentialed:
        contents = "; ".join(f"{source}: {words}" for source, words in counts.items())
        raise UserError(
            f"data of credentialed sources would go to {service.url} ({contents}): nothing was sent. Their owners' agreements "
            "forbid passing them on; PhysioNet's rules forbid sending credentialed data to third parties that may keep it. "
            "Where this endpoint is your own, or its operator is bound to keep nothing, set "
            f"{setting}.credentialed: true; else leave these sources out"
        )
