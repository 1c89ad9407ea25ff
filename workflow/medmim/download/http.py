"""Files of an HTTP server: resumable requests, with a login for that server and no other."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from medmim.common.errors import UserError
from medmim.common.formatting import parse_retry_after
from medmim.download.credentials import Login, is_login_allowed, parse_origin
from medmim.download.errors import AccessDeniedError, NotFoundError, TransientError, UnreachableError
from medmim.download.transfer import CHUNK_BYTES, Checksum, FileResponse, RemoteFile

TIMEOUT_SECONDS = (15, 60)
"""Seconds for a connection, and without a byte."""
TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)


def redact_url(url: str) -> str:
    """A URL as it may be shown: without a login, and without a query, where signed URLs have their signature."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))


class _ScopedAuth(requests.auth.AuthBase):
    """A login for the requests to one server."""

    def __init__(self, url: str, login: Login) -> None:
        self.origin, self.login = parse_origin(url), login

    def __call__(self, request: Any) -> Any:
        if parse_origin(request.url) != self.origin:
            return request
        if self.login.name:
            return requests.auth.HTTPBasicAuth(self.login.name.encode(), self.login.password.encode())(request)
        request.headers["Authorization"] = f"Bearer {self.login.password}"
        return request


class _NoAuth(requests.auth.AuthBase):
    """No login: requests would look for one in ~/.netrc otherwise, its entry for all servers included."""

    def __call__(self, request: Any) -> Any:
        return request


class _SafeSession(requests.Session):
    def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
        """After a redirect to another server nothing secret goes along, and no other login is looked for."""
        if parse_origin(prepared_request.url) != parse_origin(response.request.url):
            for header in ("Authorization", "Cookie"):
                prepared_request.headers.pop(header, None)


class HttpClient:
    """One server (`base`), a login for it, and what it answers. `apply` says what to do where it refuses."""

    def __init__(self, base: str, login: Login | None = None, apply: str = "", connections: int = 8) -> None:
        self.base, self.login, self.apply = base, login, apply
        if login and not is_login_allowed(base):
            raise UserError(f"{redact_url(base)}: a login is not sent over http; set the server's URL to https://")
        self._session = _SafeSession()
        self._session.auth = _ScopedAuth(base, login) if login else _NoAuth()
        self._session.headers["User-Agent"] = "med-mim"
        adapter = requests.adapters.HTTPAdapter(pool_connections=connections, pool_maxsize=connections)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    @contextmanager
    def _open_response(
        self, url: str, headers: dict[str, str], query: dict[str, Any] | None = None
    ) -> Iterator[requests.Response]:
        """An answer that is good, or partial, or says that there is no more. Raises as _check_status and _translate_errors."""
        with _translate_errors(url):
            response = self._session.get(url, headers=headers, params=query, stream=True, timeout=TIMEOUT_SECONDS)
        with response:
            self._check_status(url, response)
            with _translate_errors(url):
                yield response

    def _check_status(self, url: str, response: requests.Response) -> None:
        status, redacted_url = response.status_code, redact_url(url)
        if status in (200, 206, 416):
            return
        if status in (404, 410):
            raise NotFoundError(f"{redacted_url}: not there ({status})")
        if status in (401, 403):
            login_used = f"the login of {self.login.where}" if self.login else "a request without a login"
            raise AccessDeniedError(f"{redacted_url}: the server refuses {login_used} ({status}). {self.apply}".rstrip())
        if status in TRANSIENT_STATUSES:
            raise TransientError(
                f"{redacted_url}: the server says {status} {response.reason}",
                parse_retry_after(response.headers.get("Retry-After")),
            )
        raise UserError(f"{redacted_url}: the server says {status} {response.reason}")

    @contextmanager
    def open_file(self, url: str, start: int, validator: str) -> Iterator[FileResponse]:
        """The bytes of a file from `start` on, or from 0 where the server can't or the file is no longer that of `validator`."""
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator and not validator.startswith("W/"):
                headers["If-Range"] = validator
        with self._open_response(url, headers) as response:
            response_headers = response.headers
            new_validator = response_headers.get("ETag") or response_headers.get("Last-Modified") or ""
            range_match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response_headers.get("Content-Range", ""))
            total = int(range_match[2]) if range_match and range_match[2] != "*" else None
            if response.status_code == 416:
                yield FileResponse(iter(()), start if total == start else 0, total, validator if total == start else "", None)
                return
            first_byte = int(range_match[1]) if response.status_code == 206 and range_match and range_match[1] else 0
            if (
                response.status_code == 200
                and "Content-Length" in response_headers
                and "Content-Encoding" not in response_headers
            ):
                total = int(response_headers["Content-Length"])
            yield FileResponse(
                _iter_chunks(response),
                first_byte,
                total,
                new_validator,
                _parse_google_md5(response_headers.get("X-Goog-Hash", "")),
            )

    def make_remote(self, path: str, url: str, size: int | None = None, checksum: Checksum | None = None) -> RemoteFile:
        """A file of this server's, or of one that it names, for `path` below a source's folder."""
        return RemoteFile(path, redact_url(url), partial(self.open_file, url), size, checksum)

    def get_json(self, url: str, **query: Any) -> Any:
        """A small answer of an API."""
        with self._open_response(url, {"Accept": "application/json"}, query or None) as response:
            try:
                return response.json()
            except ValueError:
                raise UserError(f"{redact_url(url)}: the answer is not the API's: no JSON") from None

    def get_size(self, url: str) -> int | None:
        """Bytes of a file, if the server says; costs one byte."""
        with self._open_response(url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as response:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            total = total if response.status_code == 206 else response.headers.get("Content-Length", "")
            return int(total) if total.isdigit() else None


def _iter_chunks(response: requests.Response) -> Iterator[bytes]:
    while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
        yield chunk


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Faults of the connection in our words: those of the libraries name the whole URL, signature included."""
    try:
        yield
    except requests.exceptions.SSLError:
        raise UnreachableError(f"{redact_url(url)}: its certificate can't be verified") from None
    except (requests.ConnectionError, urllib3.exceptions.NewConnectionError):
        raise TransientError(f"{redact_url(url)}: can't be reached, or closed the connection") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        raise TransientError(f"{redact_url(url)}: no answer in time") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise TransientError(f"{redact_url(url)}: the connection broke ({type(error).__name__})") from None


def _parse_google_md5(header: str) -> Checksum | None:
    """The md5 that Google's storage states of what it sends."""
    match = re.search(r"\bmd5=([A-Za-z0-9+/]{22}==)", header)
    return Checksum("md5", base64.b64decode(match[1]).hex()) if match else None
