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


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as vLLM and OpenAI send it."""
    first = message.pop("first", None)
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    if first is not None:
        tops = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in first]
        choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": "served-2026", "choices": [choice],
        "system_fingerprint": "fp_1", "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }  # fmt: skip


def refusal(message: str, **told: Any) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, **told}}


def text_of(body: dict[str, Any]) -> str:
    """The user's words of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(p["text"] for p in content if p["type"] == "text")


@dataclass
class Asked:
    """A request that came."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class ChatServer:
    """A server as a context. `answer` is called with a request and how often the same one came before; it may be replaced."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer] | None = None) -> None:
        self.answer = answer or (lambda body, before: Answer(body=completion("A")))
        self.asked: list[Asked] = []
        self.open, self.most_open = 0, 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        ours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                ours.handle(self, self.rfile.read(int(self.headers["Content-Length"])))

            def do_GET(self) -> None:
                ours.handle(self, b"null")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def handle(self, connection: BaseHTTPRequestHandler, raw: bytes) -> None:
        """Answer a chat completion."""
        body = json.loads(raw)
        with self._lock:
            before = self._seen[raw.decode()]
            self._seen[raw.decode()] += 1
            headers = {name.lower(): value for name, value in connection.headers.items()}
            self.asked.append(Asked(time.monotonic(), connection.path, headers, body))
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        answer = self.answer(body, before)
        time.sleep(answer.delay)
        with self._lock:
            self.open -= 1
        self.reply(connection, answer)

    def reply(self, connection: BaseHTTPRequestHandler, answer: Answer) -> None:
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
        self.server.shutdown()
        self.server.server_close()

    @property
    def texts(self) -> list[str]:
        """The user's words of every request, in order."""
        return [text_of(a.body) for a in self.asked]


class BatchServer(ChatServer):
    """One that has the batch API too. A batch is answered when it has been looked at `looks` times.

    `fault` is called with the method and path of each request but chat completions, and how often it came before.
    """

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer] | None = None, looks: int = 1) -> None:
        super().__init__(answer)
        self.looks = looks
        self.fault: Callable[[str, int], Answer | None] = lambda call, before: None
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.status = "completed"
        self.left_out: list[int] = []
        """Requests at the end of each batch that are not answered before it expires."""
        self.calls: Counter[str] = Counter()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All requests that batches had, in order."""
        files = [self.files[batch["input_file_id"]] for batch in self.batches.values()]
        return [json.loads(line) for file in files for line in file.splitlines()]

    def handle(self, connection: BaseHTTPRequestHandler, raw: bytes) -> None:
        path = urlsplit(connection.path).path.removeprefix("/v1")
        if path == "/chat/completions":
            return super().handle(connection, raw)
        call = f"{connection.command} {re.sub('/(file|batch)-[a-z0-9-]+', '/ID', path)}"
        with self._lock:
            before = self.calls[call]
            self.calls[call] += 1
            fault = self.fault(call, before)
            if fault is None or fault.status < 400:  # else nothing is done; a fault of a good answer loses just the answer
                try:
                    done = Answer(body=self.act(call, path, raw))
                except KeyError:
                    done = Answer(404, refusal("no such batch or file"))
        self.reply(connection, fault or done)

    def act(self, call: str, path: str, raw: bytes) -> Any:
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
                asked = json.loads(raw)
                batch = {"id": f"batch-{len(self.batches)}", "object": "batch", "created_at": 1, "status": "in_progress", **asked}
                self.batches[batch["id"]] = batch | {"looks": 0}
                return batch
            case "GET /batches":
                return {"object": "list", "data": list(self.batches.values()), "has_more": False}
            case "GET /batches/ID":
                batch = self.batches[path.rsplit("/", 1)[1]]
                batch["looks"] += 1
                if batch["looks"] > self.looks and batch["status"] == "in_progress":
                    self.end(batch)
                return batch
            case _:
                return self.files[path.split("/")[2]]

    def end(self, batch: dict[str, Any]) -> None:
        """Answer a batch's requests."""
        out, errors = [], []
        lines = self.files[batch["input_file_id"]].splitlines()
        left_out = self.left_out.pop(0) if self.left_out else 0
        for line in lines[: len(lines) - left_out]:
            asked = json.loads(line)
            before = self._seen[json.dumps(asked["body"])]
            self._seen[json.dumps(asked["body"])] += 1
            answer = self.answer(asked["body"], before)
            said = {"custom_id": asked["custom_id"], "response": {"status_code": answer.status, "body": answer.body}}
            (out if answer.status == 200 else errors).append(json.dumps(said).encode())
        for kind, found in (("output", out), ("error", errors)):
            if found:
                self.files[f"file-{batch['id']}-{kind}"] = b"\n".join(found)
                batch[f"{kind}_file_id"] = f"file-{batch['id']}-{kind}"
        batch["status"] = "expired" if left_out else self.status
