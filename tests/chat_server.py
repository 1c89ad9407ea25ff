"""A scripted server of chat completions on loopback, for the tests of endpoints: it answers, or fails, as it is told to."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    """What the server does with a request."""

    status: int = 200
    body: Any = None
    """Sent as JSON; bytes as they are."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before it answers."""
    cut: int | None = None
    """The connection ends after so many bytes of the body; all of it is announced."""


def make_completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as vLLM and OpenAI send it."""
    first = message.pop("first", None)
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    if first is not None:
        top_logprobs = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in first]
        choice["logprobs"] = {"content": [{**top_logprobs[0], "top_logprobs": top_logprobs}]}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": "served-2026", "choices": [choice],
        "system_fingerprint": "fp_1", "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }  # fmt: skip


def make_error_body(message: str, **fields: Any) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, **fields}}


def user_text(body: dict[str, Any]) -> str:
    """The user's words of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(p["text"] for p in content if p["type"] == "text")


@dataclass
class ChatRequest:
    """A request that came."""

    received_at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class ChatServer:
    """A server as a context. `answer` is called with a request and how often the same one came before; it may be replaced."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer] | None = None) -> None:
        self.answer = answer or (lambda body, before: Answer(body=make_completion("A")))
        self.requests: list[ChatRequest] = []
        self.open_count, self.max_open_count = 0, 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = threading.Event()  # no answer is waited for any longer
        chat_server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                chat_server.handle_request(self, self.rfile.read(int(self.headers["Content-Length"])))

            def do_GET(self) -> None:
                chat_server.handle_request(self, b"null")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def handle_request(self, connection: BaseHTTPRequestHandler, raw: bytes) -> None:
        """Answer a chat completion."""
        body = json.loads(raw)
        with self._lock:
            repeat_count = self._seen[raw.decode()]
            self._seen[raw.decode()] += 1
            headers = {name.lower(): value for name, value in connection.headers.items()}
            self.requests.append(ChatRequest(time.monotonic(), connection.path, headers, body))
            self.open_count += 1
            self.max_open_count = max(self.open_count, self.max_open_count)
        answer = self.answer(body, repeat_count)
        self._ended.wait(answer.delay)
        with self._lock:
            self.open_count -= 1
        self.send_reply(connection, answer)

    def send_reply(self, connection: BaseHTTPRequestHandler, answer: Answer) -> None:
        """Send an answer."""
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        try:
            connection.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **answer.headers}.items():
                connection.send_header(name, value)
            connection.end_headers()
            connection.wfile.write(data[: answer.cut])
        except OSError:  # who asked is gone
            pass
        if answer.cut is not None:
            connection.close_connection = True

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def user_texts(self) -> list[str]:
        """The user's words of every request, in order."""
        return [user_text(a.body) for a in self.requests]


class BatchServer(ChatServer):
    """One that has the batch API too. A batch is answered when it has been looked at `looks` times.

    `fault` is called with the method and path of each request but chat completions, and how often it came before.
    """

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer] | None = None, polls_needed: int = 1) -> None:
        super().__init__(answer)
        self.polls_needed = polls_needed
        self.fault: Callable[[str, int], Answer | None] = lambda call, before: None
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.status = "completed"
        self.unanswered_counts: list[int] = []
        """Requests at the end of each batch that are not answered before it expires."""
        self.calls: Counter[str] = Counter()

    @property
    def request_lines(self) -> list[dict[str, Any]]:
        """All requests that batches had, in order."""
        files = [self.files[batch["input_file_id"]] for batch in self.batches.values()]
        return [json.loads(line) for file in files for line in file.splitlines()]

    def handle_request(self, connection: BaseHTTPRequestHandler, raw: bytes) -> None:
        path = urlsplit(connection.path).path.removeprefix("/v1")
        if path == "/chat/completions":
            return super().handle_request(connection, raw)
        call = f"{connection.command} {re.sub('/(file|batch)-[a-z0-9-]+', '/ID', path)}"
        with self._lock:
            repeat_count = self.calls[call]
            self.calls[call] += 1
            fault = self.fault(call, repeat_count)
            if fault is None or fault.status < 400:  # else nothing is done; a fault of a good answer loses just the answer
                try:
                    answer = Answer(body=self.perform_call(call, path, raw))
                except KeyError:
                    answer = Answer(404, make_error_body("no such batch or file"))
        self.send_reply(connection, fault or answer)

    def perform_call(self, call: str, path: str, raw: bytes) -> Any:
        """Do what is asked, and say so."""
        match call:
            case "POST /files":
                name = f"file-{len(self.files)}"
                boundary = raw.split(b"\r\n", 1)[0]
                part = next(p for p in raw.split(boundary) if b"filename=" in p)
                self.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
                return {
                    "id": name,
                    "object": "file",
                    "bytes": 1,
                    "created_at": 1,
                    "filename": "f",
                    "purpose": "batch",
                    "status": "ok",
                }
            case "POST /batches":
                request = json.loads(raw)
                batch = {
                    "id": f"batch-{len(self.batches)}",
                    "object": "batch",
                    "created_at": 1,
                    "status": "in_progress",
                    **request,
                }
                self.batches[batch["id"]] = batch | {"looks": 0}
                return batch
            case "GET /batches":
                return {"object": "list", "data": list(self.batches.values()), "has_more": False}
            case "GET /batches/ID":
                batch = self.batches[path.rsplit("/", 1)[1]]
                batch["looks"] += 1
                if batch["looks"] > self.polls_needed and batch["status"] == "in_progress":
                    self.finish_batch(batch)
                return batch
            case _:
                return self.files[path.split("/")[2]]

    def finish_batch(self, batch: dict[str, Any]) -> None:
        """Answer a batch's requests."""
        out, errors = [], []
        lines = self.files[batch["input_file_id"]].splitlines()
        unanswered = self.unanswered_counts.pop(0) if self.unanswered_counts else 0
        for line in lines[: len(lines) - unanswered]:
            request = json.loads(line)
            repeat_count = self._seen[json.dumps(request["body"])]
            self._seen[json.dumps(request["body"])] += 1
            answer = self.answer(request["body"], repeat_count)
            result = {"custom_id": request["custom_id"], "response": {"status_code": answer.status, "body": answer.body}}
            (out if answer.status == 200 else errors).append(json.dumps(result).encode())
        for kind, results in (("output", out), ("error", errors)):
            if results:
                self.files[f"file-{batch['id']}-{kind}"] = b"\n".join(results)
                batch[f"{kind}_file_id"] = f"file-{batch['id']}-{kind}"
        batch["status"] = "expired" if unanswered else self.status
