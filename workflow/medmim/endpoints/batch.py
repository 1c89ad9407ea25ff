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
from medmim.endpoints.client import MalformedReplyError, Request, RequestRunner, parse_reply, rejection_reason

log = logging.getLogger("medmim")
MAX_BATCH_REQUESTS, MAX_BATCH_BYTES = 50_000, 150_000_000
"""Of one batch; OpenAI takes 50,000 and 200 MB."""
FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 1.0, 60.0
"""Seconds between a look at a batch and the next: twice as long each time, within these."""
FINAL_STATUSES = ("completed", "expired", "cancelled", "failed")
METADATA_KEY = "medmim"
"""Key of a batch's metadata that holds our name of it."""


class BatchRunner(RequestRunner):
    """One round of requests, in as many batches as they take."""

    def create_tasks(self, requests: Iterable[Request]) -> list[Awaitable[None]]:
        """One: files are few."""
        return [self._run_batches({r.key: r for r in requests})]

    async def _run_batches(self, requests: Mapping[str, Request]) -> None:
        await self._collect_replies()  # what an earlier run has left
        for _ in range(self.service.attempts):
            unanswered = {k: r for k, r in requests.items() if k not in self.store and k not in self.failures}
            if not unanswered:
                return
            for lines in self._split_into_files(unanswered.values()):
                await self._submit_batch(lines)
            await self._collect_replies()
        unanswered = {k: r for k, r in requests.items() if k not in self.store and k not in self.failures}
        if unanswered:
            raise UserError(f"{self.service.url}: {self.service.attempts} batches left {len(unanswered)} requests unanswered")

    def _split_into_files(self, requests: Iterable[Request]) -> Iterator[list[bytes]]:
        lines: list[bytes] = []
        size = 0
        for request in requests:
            entry = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": self.body(request)}
            line = json.dumps(entry).encode() + b"\n"
            if lines and (len(lines) == MAX_BATCH_REQUESTS or size + len(line) > MAX_BATCH_BYTES):
                yield lines
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        yield lines

    async def _submit_batch(self, lines: list[bytes]) -> None:
        """Send a file and have its batch made."""
        file = await self.call_with_retries(
            "a batch's file", lambda: self.client.files.create(file=("requests.jsonl", b"".join(lines)), purpose="batch")
        )
        name = self.store.plan_batch(self.service.url)
        was_tried = False

        async def create_batch() -> Batch:
            nonlocal was_tried
            if was_tried and (existing := await self._find_batch(name)):  # the answer was lost, not the batch
                return existing
            was_tried = True
            return await self.client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={METADATA_KEY: name}
            )

        batch = await self.call_with_retries("a batch", create_batch)
        self.store.record_batch_id(name, batch.id)
        log.info("batch %s of %d requests is on its way: the service has 24 hours", batch.id, len(lines))

    async def _find_batch(self, name: str) -> Batch | None:
        async for batch in self.client.batches.list(limit=100):
            if (batch.metadata or {}).get(METADATA_KEY) == name:
                return batch
        return None

    async def _collect_replies(self) -> None:
        """Wait for every batch on its way, keep its replies."""
        for name, known_id in self.store.pending_batches(self.service.url).items():
            batch_id = known_id
            if batch_id is None:
                existing = await self.call_with_retries("batches", lambda name=name: self._find_batch(name))  # type: ignore[misc]
                if existing is None:  # it was never made
                    self.store.end_batch(name, {})
                    continue
                batch_id = existing.id
                self.store.record_batch_id(name, batch_id)
            batch = await self._poll_batch(batch_id)
            if batch is None:
                log.warning("%s no longer has batch %s: its requests are sent again", self.service.url, batch_id)
                self.store.end_batch(name, {})
                continue
            replies: dict[str, Any] = {}
            refusals: list[str] = []
            for file in (batch.output_file_id, batch.error_file_id):
                for line in await self._download_lines(file) if file else ():
                    self._read_result_line(line, replies, refusals)
            self.store.end_batch(name, replies)
            self.progress.advance(len(replies))
            if batch.status == "failed":
                reasons = [e.message or e.code or "" for e in (batch.errors and batch.errors.data) or []]
                raise UserError(
                    f"{self.service.url} took no batch: {self.clean_message('; '.join(reasons) or 'no reason given')}"
                )
            if refusals:
                raise UserError(f"{self.service.url}: {refusals[0]} ({len(refusals)} requests of a batch)")

    async def _download_lines(self, file: str) -> list[bytes]:
        async def fetch_lines() -> list[bytes]:
            return (await self.client.files.content(file)).content.splitlines()

        return await self.call_with_retries(f"file {file}", fetch_lines)

    async def _poll_batch(self, batch_id: str) -> Batch | None:
        """A batch when it is over; None where the service does not have it."""

        async def retrieve_batch() -> Batch | None:
            try:
                return await self.client.batches.retrieve(batch_id)
            except NotFoundError:
                return None

        pause = FIRST_POLL_SECONDS
        while True:
            batch = await self.call_with_retries(f"batch {batch_id}", retrieve_batch)
            if batch is None or batch.status in FINAL_STATUSES:
                return batch
            await self.wait_unless_stopped(asyncio.sleep, pause)
            pause = min(2 * pause, MAX_POLL_SECONDS)

    def _read_result_line(self, line: bytes, replies: dict[str, Any], refusals: list[str]) -> None:
        """A line of a batch's result: a reply, or why there is none. What is neither is asked again."""
        try:
            result = json.loads(line)
            key, response = str(result["custom_id"]), result.get("response") or {}
            body = response.get("body") or {}
            if response.get("status_code") == 200:
                replies[key] = parse_reply(json.dumps(body).encode())
                return
            fault = (body.get("error") if isinstance(body, dict) else None) or result.get("error") or {}
            message = self.clean_message(f"{response.get('status_code', '')} {fault.get('message') or json.dumps(fault)}".strip())
        except (ValueError, LookupError, TypeError, AttributeError, MalformedReplyError) as error:
            log.info("a line of a batch's result can't be read: %s", self.clean_message(str(error)))
            return
        status = int(response.get("status_code") or 0)
        if reason := rejection_reason(status, fault.get("code"), message):
            self.failures[key] = reason
        elif status in (400, 401, 403, 404, 422):
            refusals.append(message)
        log.info("request %s of a batch: %s", key[:12], message)
