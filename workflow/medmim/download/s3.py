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
from medmim.download.errors import Missing, Passing, Refused
from medmim.download.transfer import CHUNK, Answer, Checksum, Remote

PASSING = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException", "503", "500")
REFUSED = ("403", "401", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
ABSENT = ("404", "NoSuchKey")


class S3:
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
            self.where = _where() if signed else ""
        except (ProfileNotFound, PartialCredentialsError) as error:
            raise Refused(f"s3://{name}: {error}. {apply}") from None

    def _url(self, path: str) -> str:
        return f"s3://{self.name}/{self.prefix}{path}"

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Faults of the service and the connection in our words, by what is to be done about them."""
        where = self._url(path)
        try:
            yield
        except NoCredentialsError:
            raise Refused(f"{where}: no AWS credentials are set up. {self.apply}") from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if code in ABSENT:
                raise Missing(f"{where}: not there ({code})") from None
            if code in REFUSED:
                raise Refused(f"{where}: the server refuses these AWS credentials ({code}). {self.apply}") from None
            if code in PASSING or status >= 500 or status == 429:
                raise Passing(f"{where}: the server says {code}", _wait(error)) from None
            if code in ("PreconditionFailed", "412", "InvalidRange", "416"):
                raise Passing(f"{where}: changed while it was fetched") from None
            raise UserError(f"{where}: the server says {code}") from None
        except (ConnectionError, HTTPClientError, IncompleteReadError, FlexibleChecksumError) as error:
            raise Passing(f"{where}: the connection broke or was not made ({type(error).__name__})") from None
        except BotoCoreError as error:
            raise UserError(f"{where}: {type(error).__name__}") from None

    @contextmanager
    def open(self, path: str, start: int, validator: str) -> Iterator[Answer]:
        """The bytes of an object from `start` on, or from 0 where it is no longer that of `validator`."""
        with self._told(path):
            asked: dict[str, Any] = {"Bucket": self.name, "Key": self.prefix + path}
            if start:
                asked |= {"Range": f"bytes={start}-", "IfMatch": validator}
            try:
                answer = self._client.get_object(**asked)
            except ClientError as error:
                if not start or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (412, 416):
                    raise
                start, answer = 0, self._client.get_object(Bucket=self.name, Key=self.prefix + path)
            body = answer["Body"]
            try:
                yield Answer(_chunks(body), start, start + answer["ContentLength"], answer["ETag"], None)
            finally:
                body.close()

    def listing(self, folder: str) -> list[Remote]:
        """The objects whose path begins with `folder`, sorted. One that is not there and one that is empty look the same."""
        with self._told(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + folder)
            found = [entry for page in pages for entry in page.get("Contents", [])]
        return [self.file(e["Key"].removeprefix(self.prefix), e["Size"]) for e in found if not e["Key"].endswith("/")]

    def sample(self, folder: str) -> list[int]:
        """Sizes of the first objects whose path begins with `folder`, at most 1000 and by one request."""
        with self._told(folder):
            page = self._client.list_objects_v2(Bucket=self.name, Prefix=self.prefix + folder)
        return [entry["Size"] for entry in page.get("Contents", [])]

    def file(self, path: str, size: int | None = None, place: str | None = None, checksum: Checksum | None = None) -> Remote:
        """An object, for `place` below a source's folder; by default that is its own path."""
        return Remote(place or path, self._url(path), partial(self.open, path), size, checksum)


def _chunks(body: Any) -> Iterator[bytes]:
    while chunk := body.read(CHUNK):
        yield chunk


def _wait(error: ClientError) -> float | None:
    asked = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return float(asked) if str(asked).isdigit() else None


def _where() -> str:
    """Where AWS's client finds the user's credentials; empty where it finds none."""
    found = boto3.session.Session().get_credentials()
    return f"AWS, {found.method}" if found else ""
