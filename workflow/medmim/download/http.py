"""Files of an HTTP server: resumable requests, with a login for that server and no other."""

import base64
import email.utils
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from medmim.common.errors import UserError
from medmim.download.credentials import Login, may_go_to, origin
from medmim.download.errors import Missing, Passing, Refused, Unreachable
from medmim.download.transfer import CHUNK, Answer, Checksum, Remote

TIMEOUT = (15, 60)
"""Seconds for a connection, and without a byte."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 3600.0
"""Seconds; a server that asks for more is asked again after these."""


def plain(url: str) -> str:
    """A URL as it may be shown: without a login, and without a query, where signed URLs have their signature."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))


class _Scoped(requests.auth.AuthBase):
    """A login for the requests to one server."""

    def __init__(self, url: str, login: Login) -> None:
        self.origin, self.login = origin(url), login

    def __call__(self, request: Any) -> Any:
        if origin(request.url) != self.origin:
            return request
        if self.login.name:
            return requests.auth.HTTPBasicAuth(self.login.name.encode(), self.login.password.encode())(request)
        request.headers["Authorization"] = f"Bearer {self.login.password}"
        return request


class _Nobody(requests.auth.AuthBase):
    """No login: requests would look for one in ~/.netrc otherwise, its entry for all servers included."""

    def __call__(self, request: Any) -> Any:
        return request


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
        """After a redirect to another server nothing secret goes along, and no other login is looked for."""
        if origin(prepared_request.url) != origin(response.request.url):
            for header in ("Authorization", "Cookie"):
                prepared_request.headers.pop(header, None)


class Http:
    """One server (`base`), a login for it, and what it answers. `apply` says what to do where it refuses."""

    def __init__(self, base: str, login: Login | None = None, apply: str = "", connections: int = 8) -> None:
        self.base, self.login, self.apply = base, login, apply
        if login and not may_go_to(base):
            raise UserError(f"{plain(base)}: a login is not sent over http; set the server's URL to https://")
        self._session = _Session()
        self._session.auth = _Scoped(base, login) if login else _Nobody()
        self._session.headers["User-Agent"] = "med-mim"
        adapter = requests.adapters.HTTPAdapter(pool_connections=connections, pool_maxsize=connections)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    @contextmanager
    def _get(self, url: str, headers: dict[str, str], query: dict[str, Any] | None = None) -> Iterator[requests.Response]:
        """An answer that is good, or partial, or says that there is no more. Raises as `_judge`, and Passing, Unreachable."""
        with _told(url):
            response = self._session.get(url, headers=headers, params=query, stream=True, timeout=TIMEOUT)
        with response:
            self._judge(url, response)
            with _told(url):
                yield response

    def _judge(self, url: str, response: requests.Response) -> None:
        status, where = response.status_code, plain(url)
        if status in (200, 206, 416):
            return
        if status in (404, 410):
            raise Missing(f"{where}: not there ({status})")
        if status in (401, 403):
            used = f"the login of {self.login.where}" if self.login else "a request without a login"
            raise Refused(f"{where}: the server refuses {used} ({status}). {self.apply}".rstrip())
        if status in PASSING:
            raise Passing(f"{where}: the server says {status} {response.reason}", _wait(response.headers.get("Retry-After")))
        raise UserError(f"{where}: the server says {status} {response.reason}")

    @contextmanager
    def open(self, url: str, start: int, validator: str) -> Iterator[Answer]:
        """The bytes of a file from `start` on, or from 0 where the server can't or the file is no longer that of `validator`."""
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator and not validator.startswith("W/"):
                headers["If-Range"] = validator
        with self._get(url, headers) as response:
            told = response.headers
            found = told.get("ETag") or told.get("Last-Modified") or ""
            spans = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", told.get("Content-Range", ""))
            total = int(spans[2]) if spans and spans[2] != "*" else None
            if response.status_code == 416:
                yield Answer(iter(()), start if total == start else 0, total, validator if total == start else "", None)
                return
            first = int(spans[1]) if response.status_code == 206 and spans and spans[1] else 0
            if response.status_code == 200 and "Content-Length" in told and "Content-Encoding" not in told:
                total = int(told["Content-Length"])
            yield Answer(_chunks(response), first, total, found, _goog(told.get("X-Goog-Hash", "")))

    def file(self, path: str, url: str, size: int | None = None, checksum: Checksum | None = None) -> Remote:
        """A file of this server's, or of one that it names, for `path` below a source's folder."""
        return Remote(path, plain(url), partial(self.open, url), size, checksum)

    def json(self, url: str, **query: Any) -> Any:
        """A small answer of an API."""
        with self._get(url, {"Accept": "application/json"}, query or None) as response:
            try:
                return response.json()
            except ValueError:
                raise UserError(f"{plain(url)}: the answer is not the API's: no JSON") from None

    def size(self, url: str) -> int | None:
        """Bytes of a file, if the server says; costs one byte."""
        with self._get(url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as response:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            total = total if response.status_code == 206 else response.headers.get("Content-Length", "")
            return int(total) if total.isdigit() else None


def _chunks(response: requests.Response) -> Iterator[bytes]:
    while chunk := response.raw.read(CHUNK, decode_content=False):
        yield chunk


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Faults of the connection in our words: those of the libraries name the whole URL, signature included."""
    try:
        yield
    except requests.exceptions.SSLError:
        raise Unreachable(f"{plain(url)}: its certificate can't be verified") from None
    except (requests.ConnectionError, urllib3.exceptions.NewConnectionError):
        raise Passing(f"{plain(url)}: can't be reached, or closed the connection") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        raise Passing(f"{plain(url)}: no answer in time") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise Passing(f"{plain(url)}: the connection broke ({type(error).__name__})") from None


def _wait(asked: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date."""
    if not asked:
        return None
    if asked.strip().isdigit():
        return min(LONGEST_WAIT, float(asked))
    try:
        until = email.utils.parsedate_to_datetime(asked)
    except ValueError:
        return None
    return min(LONGEST_WAIT, max(0.0, (until - datetime.now(UTC)).total_seconds()))


def _goog(header: str) -> Checksum | None:
    """The md5 that Google's storage states of what it sends."""
    found = re.search(r"\bmd5=([A-Za-z0-9+/]{22}==)", header)
    return Checksum("md5", base64.b64decode(found[1]).hex()) if found else None
