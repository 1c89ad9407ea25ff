"""Real servers on loopback that answer as the owners of the sources do, and that fail as servers do."""

import base64
import hashlib
import http.server
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

TRUNCATED = "cut"
"""A fault: half of what was asked for, and the connection is closed."""
CORRUPTED = "wrong"
"""A fault: as many bytes, the first of them another."""


@dataclass
class Page:
    """What a path has. `ranges` False ignores Range; `etag` False sends none; `login` is "name:password" or "Bearer token"."""

    content: bytes = b""
    ranges: bool = True
    etag: bool = True
    login: str = ""
    moved: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    answer: Callable[[dict[str, list[str]]], bytes | None] | None = None
    """Makes the content from the query, None for a 404."""


@dataclass
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class Site:
    """A server with its pages by path; `faults` are what the next requests for a path get: an HTTP status, CUT or WRONG."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.faults: dict[str, deque[int | str]] = {}
        self.retry_after: str | None = None
        self.requests: list[Request] = []
        self.url = ""

    def add_page(self, path: str, content: bytes = b"", **page_fields: object) -> Page:
        self.pages[path] = page = Page(content, **page_fields)  # type: ignore[arg-type]
        return page

    def add_faults(self, path: str, *faults: int | str) -> None:
        self.faults.setdefault(path, deque()).extend(faults)

    def count_bytes_sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def count_requests(self) -> Counter[str]:
        return Counter(request.path for request in self.requests)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        request = Request(parts.path, dict(self.headers))
        self.site.requests.append(request)
        page = self.site.pages.get(parts.path)
        queue = self.site.faults.get(parts.path)
        fault = queue.popleft() if queue else None
        content = page.answer(parse_qs(parts.query)) if page and page.answer else page.content if page else None
        if isinstance(fault, int):
            self._send_empty(request, fault, {"Retry-After": self.site.retry_after} if self.site.retry_after else {})
        elif page is None or content is None:
            self._send_empty(request, 404)
        elif page.login and self.headers.get("Authorization") != _authorization_header(page.login):
            self._send_empty(request, 401, {"WWW-Authenticate": "Basic"})
        elif page.moved:
            self._send_empty(request, 302, {"Location": page.moved})
        else:
            self._send_content(request, page, content, str(fault or ""))

    def _send_empty(self, request: Request, status: int, headers: dict[str, str] | None = None) -> None:
        request.status = status
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_content(self, request: Request, page: Page, content: bytes, fault: str) -> None:
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start, status = 0, 200
        range_match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if page.ranges else None
        if range_match and self.headers.get("If-Range", etag) == etag:
            start, status = int(range_match[1]), 206
            if start >= len(content):
                request.status = 416
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        body = content[start : int(range_match[2]) + 1] if range_match and range_match[2] and status == 206 else content[start:]
        sent_body = body
        if fault == CORRUPTED:
            sent_body = bytes([body[0] ^ 1]) + body[1:]
        if fault == TRUNCATED:
            sent_body = body[: max(1, len(body) // 2)]
            self.close_connection = True
        # Before the client has a byte of it: it may count at once, having read no more than the headers.
        request.status, request.sent = status, len(sent_body)
        self.send_response(status)
        if page.etag:
            self.send_header("ETag", etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent_body)
        if fault == TRUNCATED:
            self.wfile.flush()
            self.connection.close()


def _authorization_header(login: str) -> str:
    return login if login.startswith("Bearer ") else "Basic " + base64.b64encode(login.encode()).decode()


@contextmanager
def serve_site(host: str = "127.0.0.1") -> Iterator[Site]:
    """A server while the context lasts."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        site.url = f"http://{host}:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield site
        finally:
            server.shutdown()
