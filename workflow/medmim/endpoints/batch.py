"""Requests sent as files, to be answered within a day at a lower price: OpenAI's batch API.

A batch is noted before it is made and with its id once it is, so a run that is killed while it waits finds it again. If it is
killed in between, the service is asked whether it has a batch of that name: no request is paid for twice.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import Any

from openai import NotFoundError
from openai.types import Batch

from medmim.common.errors import UserError
from medmim.endpoints.client import Asking, Malformed, Request, reply, unaskable
from medmim.endpoints.reply_store import Replies

log = logging.getLogger("medmim")
MOST_REQUESTS, MOST_BYTES = 50_000, 150_000_000
"""Of one batch; OpenAI takes 50,000 and 200 MB."""
FIRST_POLL, LONGEST_POLL = 1.0, 60.0
"""Seconds between a look at a batch and the next: twice as long each time, within these."""
FINAL = ("completed", "expired", "cancelled", "failed")
TAG = "medmim"
"""Key of a batch's metadata that holds our name of it."""


class Batching(Asking):
    """One round of requests, in as many batches as they take."""

    kept: Replies

    def tasks(self, requests: Iterable[Request]) -> list[Awaitable[None]]:
        """One: files are few."""
        return [self._all({r.key: r for r in requests})]

    async def _all(self, wanted: Mapping[str, Request]) -> None:
        await self._collect()  # what an earlier run has left
        for _ in range(self.service.attempts):
            left = {k: r for k, r in wanted.items() if k not in self.kept and k not in self.failures}
            if not left:
                return
            for lines in self._files(left.values()):
                await self._make(lines)
            await self._collect()
        left = {k: r for k, r in wanted.items() if k not in self.kept and k not in self.failures}
        if left:
            raise UserError(f"{self.service.url}: {self.service.attempts} batches left {len(left)} requests unanswered")

    def _files(self, requests: Iterable[Request]) -> Iterator[list[bytes]]:
        lines: list[bytes] = []
        size = 0
        for request in requests:
            asked = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": self.body(request)}
            line = json.dumps(asked).encode() + b"\n"
            if lines and (len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
                yield lines
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        yield lines

    async def _make(self, lines: list[bytes]) -> None:
        """Send a file and have its batch made."""
        file = await self.answered(
            "a batch's file", lambda: self.client.files.create(file=("requests.jsonl", b"".join(lines)), purpose="batch")
        )
        name = self.kept.plan_batch(self.service.url)
        tried = False

        async def made() -> Batch:
            nonlocal tried
            if tried and (found := await self._find(name)):  # the answer was lost, not the batch
                return found
            tried = True
            return await self.client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={TAG: name}
            )

        batch = await self.answered("a batch", made)
        self.kept.made_batch(name, batch.id)
        log.info("batch %s of %d requests is on its way: the service has 24 hours", batch.id, len(lines))

    async def _find(self, name: str) -> Batch | None:
        async for batch in self.client.batches.list(limit=100):
            if (batch.metadata or {}).get(TAG) == name:
                return batch
        return None

    async def _collect(self) -> None:
        """Wait for every batch on its way, keep its replies."""
        for name, known in self.kept.batches(self.service.url).items():
            id = known
            if id is None:
                found = await self.answered("batches", lambda name=name: self._find(name))  # type: ignore[misc]
                if found is None:  # it was never made
                    self.kept.end_batch(name, {})
                    continue
                id = found.id
                self.kept.made_batch(name, id)
            batch = await self._ended(id)
            if batch is None:
                log.warning("%s no longer has batch %s: its requests are sent again", self.service.url, id)
                self.kept.end_batch(name, {})
                continue
            replies: dict[str, Any] = {}
            refused: list[str] = []
            for file in (batch.output_file_id, batch.error_file_id):
                for line in await self._lines(file) if file else ():
                    self._read(line, replies, refused)
            self.kept.end_batch(name, replies)
            self.bar.update(len(replies))
            if batch.status == "failed":
                told = [e.message or e.code or "" for e in (batch.errors and batch.errors.data) or []]
                raise UserError(f"{self.service.url} took no batch: {self.clean('; '.join(told) or 'no reason given')}")
            if refused:
                raise UserError(f"{self.service.url}: {refused[0]} ({len(refused)} requests of a batch)")

    async def _lines(self, file: str) -> list[bytes]:
        async def content() -> list[bytes]:
            return (await self.client.files.content(file)).content.splitlines()

        return await self.answered(f"file {file}", content)

    async def _ended(self, id: str) -> Batch | None:
        """A batch when it is over; None where the service does not have it."""

        async def looked() -> Batch | None:
            try:
                return await self.client.batches.retrieve(id)
            except NotFoundError:
                return None

        pause = FIRST_POLL
        while True:
            batch = await self.answered(f"batch {id}", looked)
            if batch is None or batch.status in FINAL:
                return batch
            await self.wait(asyncio.sleep, pause)
            pause = min(2 * pause, LONGEST_POLL)

    def _read(self, line: bytes, replies: dict[str, Any], refused: list[str]) -> None:
        """A line of a batch's result: a reply, or why there is none. What is neither is asked again."""
        try:
            told = json.loads(line)
            key, response = str(told["custom_id"]), told.get("response") or {}
            body = response.get("body") or {}
            if response.get("status_code") == 200:
                replies[key] = reply(json.dumps(body).encode())
                return
            fault = (body.get("error") if isinstance(body, dict) else None) or told.get("error") or {}
            message = self.clean(f"{response.get('status_code', '')} {fault.get('message') or json.dumps(fault)}".strip())
        except (ValueError, LookupError, TypeError, AttributeError, Malformed) as error:
            log.info("a line of a batch's result can't be read: %s", self.clean(str(error)))
            return
        status = int(response.get("status_code") or 0)
        if why := unaskable(status, fault.get("code"), message):
            self.failures[key] = why
        elif status in (400, 401, 403, 404, 422):
            refused.append(message)
        log.info("request %s of a batch: %s", key[:12], message)
