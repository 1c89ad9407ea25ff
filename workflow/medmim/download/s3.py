"""Files of a bucket of S3, or of another server that speaks its protocol, by AWS's own client and the user's settings of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from medmim.common.errors import UserError
from medmim.common.formatting import parse_retry_after
from medmim.download.errors import AccessDeniedError, NotFoundError, TransientError
from medmim.download.transfer import CHUNK_BYTES, Checksum, FileResponse, RemoteFile

TRANSIENT_CODES = (
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "503",
    "500",
)
DENIED_CODES = ("403", "401", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
NOT_FOUND_CODES = ("404", "NoSuchKey")


class S3Bucket:
    """One bucket. `signed`: with the user's credentials; else as anybody. `apply` says what to do where it refuses."""

    def __init__(
        self, name: str, prefix: str, region: str, endpoint: str | None, *, signed: bool, apply: str = "", connections: int = 8
    ) -> None:
        self.name, self.prefix, self.apply = name, prefix, apply
        settings = Config(
            region_name=region,
            signature_version=None if signed else UNSIGNED,
            max_pool_connections=connections,
            connect_timeout=15,
            read_timeout=60,
            retries={"total_max_attempts": 1},  # we try again, and go on where it stopped
        )
        try:
            self._client = boto3.session.Session().client("s3", endpoint_url=endpoint, config=settings)
            self.credentials_source = _find_credentials_source() if signed else ""
        except (ProfileNotFound, PartialCredentialsError) as error:
            raise AccessDeniedError(f"s3://{name}: {error}. {apply}") from None

    def _format_url(self, path: str) -> str:
        return f"s3://{self.name}/{self.prefix}{path}"

    @contextmanager
    def _translate_errors(self, path: str) -> Iterator[None]:
        """Faults of the service and the connection in our words, by what is to be done about them."""
        shown_url = self._format_url(path)
        try:
            yield
        except NoCredentialsError:
            raise AccessDeniedError(f"{shown_url}: no AWS credentials are set up. {self.apply}") from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if code in NOT_FOUND_CODES:
                raise NotFoundError(f"{shown_url}: not there ({code})") from None
            if code in DENIED_CODES:
                raise AccessDeniedError(f"{shown_url}: the server refuses these AWS credentials ({code}). {self.apply}") from None
            if code in TRANSIENT_CODES or status >= 500 or status == 429:
                headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
                retry_after = parse_retry_after(headers.get("retry-after"))
                raise TransientError(f"{shown_url}: the server says {code}", retry_after) from None
            if code in ("PreconditionFailed", "412", "InvalidRange", "416"):
                raise TransientError(f"{shown_url}: changed while it was fetched") from None
            raise UserError(f"{shown_url}: the server says {code}") from None
        except (ConnectionError, HTTPClientError, IncompleteReadError, FlexibleChecksumError) as error:
            raise TransientError(f"{shown_url}: the connection broke or was not made ({type(error).__name__})") from None
        except BotoCoreError as error:
            raise UserError(f"{shown_url}: {type(error).__name__}") from None

    @contextmanager
    def open_object(self, path: str, start: int, validator: str) -> Iterator[FileResponse]:
        """The bytes of an object from `start` on, or from 0 where it is no longer that of `validator`."""
        with self._translate_errors(path):
            request: dict[str, Any] = {"Bucket": self.name, "Key": self.prefix + path}
            if start:
                request |= {"Range": f"bytes={start}-", "IfMatch": validator}
            try:
                response = self._client.get_object(**request)
            except ClientError as error:
                if not start or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (412, 416):
                    raise
                start, response = 0, self._client.get_object(Bucket=self.name, Key=self.prefix + path)
            body = response["Body"]
            try:
                yield FileResponse(_iter_chunks(body), start, start + response["ContentLength"], response["ETag"], None)
            finally:
                body.close()

    def list_objects(self, folder: str) -> list[RemoteFile]:
        """The objects whose path begins with `folder`, sorted. One that is not there and one that is empty look the same."""
        with self._translate_errors(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + folder)
            entries = [entry for page in pages for entry in page.get("Contents", [])]
        return [self.make_remote(e["Key"].removeprefix(self.prefix), e["Size"]) for e in entries if not e["Key"].endswith("/")]

    def sample_sizes(self, folder: str) -> list[int]:
        """Sizes of the first objects whose path begins with `folder`, at most 1000 and by one request."""
        with self._translate_errors(folder):
            page = self._client.list_objects_v2(Bucket=self.name, Prefix=self.prefix + folder)
        return [entry["Size"] for entry in page.get("Contents", [])]

    def make_remote(
        self, path: str, size: int | None = None, destination: str | None = None, checksum: Checksum | None = None
    ) -> RemoteFile:
        """An object, for `destination` below a source's folder; by default that is its own path."""
        return RemoteFile(destination or path, self._format_url(path), partial(self.open_object, path), size, checksum)


def _iter_chunks(body: Any) -> Iterator[bytes]:
    while chunk := body.read(CHUNK_BYTES):
        yield chunk


def _find_credentials_source() -> str:
    """Where AWS's client finds the user's credentials; empty where it finds none."""
    credentials = boto3.session.Session().get_credentials()
    return f"AWS, {credentials.method}" if credentials else ""
