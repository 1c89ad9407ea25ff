"""The section of the configuration that tells of an endpoint; apart from the others, whose changes are none of its."""

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator

from medmim.config.base import Fault, Section, make_text_rule

RESERVED_PARAMETERS = ("model", "messages", "n", "stream")
"""What of a request is not the user's to set."""
VariableName = Annotated[
    str,
    make_text_rule(
        "^[A-Z_][A-Z0-9_]*$",
        "the name of an environment variable, in capital letters, digits and _: the key itself never stands here",
    ),
]
Price = Annotated[float, Field(ge=0, le=1_000_000)]
MOST_REPLY_TOKENS = 1_000_000
ReplyTokens = Annotated[int, Field(ge=1, le=MOST_REPLY_TOKENS)]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


class Service(Section):
    """A service that answers as OpenAI's chat completions do: vLLM's server, or a hosted one."""

    url: str
    """Base URL, as in https://api.openai.com/v1 or http://localhost:8000/v1."""
    model: str
    """Name of the model there."""
    key_env: VariableName | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; null where none is needed. The key itself never stands here."""
    credentialed: bool = False
    """Whether images and texts of credentialed sources (sources.NAME.credentialed) may be sent there."""
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 8
    """Requests at a time."""
    requests_per_minute: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """At most so many, evenly spaced; null for no limit."""
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 300
    """Seconds to wait for a reply."""
    attempts: Annotated[int, Field(ge=1, le=1000)] = 8
    """How often a question is sent at most, where the service is busy, broken or silent."""
    parameters: dict[str, Any] = Field(default={})
    """Further parameters of a request, or others than those that it has by itself (temperature 0, max_tokens, seed); null leaves
    one out. E.g. {max_tokens: null, max_completion_tokens: 64, temperature: null} for OpenAI's models that reason."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = _split_url(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL that begins with https:// or http://")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("expected a bare URL, as in https://HOST/v1: a key is named by key_env")
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("expected the base URL, which ends before /chat/completions")
        return url.rstrip("/")

    def find_faults(self) -> Iterator[Fault]:
        """Yield parameters that can't be sent, and a key that others could read."""
        if reserved := sorted(self.parameters.keys() & {*RESERVED_PARAMETERS}):
            yield ("parameters",), f"{', '.join(reserved)} can't be set here"
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            yield ("parameters",), f"can't be sent as JSON: {error}"
        parts = _split_url(self.url)
        is_unencrypted = parts.scheme == "http" and not _is_loopback(parts.hostname or "")
        if is_unencrypted and self.key_env is not None and "key_env" not in self.model_fields_set:
            yield (), "the key could be read on its way, as url is not https: set key_env, to null if no key is needed"


class Endpoint(Service):
    """A service whose model is scored."""

    logprobs: bool = False
    """Ask for the likeliest first tokens, top_logprobs 20. Where all letters of a question are among them, it has their
    log-likelihoods."""


class Author(Service):
    """A service whose model writes or reviews questions, and is paid by the token."""

    usd_per_million_prompt: Price
    """Price of a million tokens that are sent; with batch, that of a batch. 0 where nobody is paid."""
    usd_per_million_completion: Price
    """Price of a million tokens that come back, hidden reasoning included."""
    max_tokens: ReplyTokens = 1000
    """Longest reply."""
    batch: bool = False
    """Send many requests as a file, to be answered within a day, where the service has OpenAI's batch API."""

    def find_faults(self) -> Iterator[Fault]:
        """Yield a reply without bound too."""
        yield from super().find_faults()
        for name in ("max_tokens", "max_completion_tokens"):
            value = self.parameters.get(name, 1)
            if value is not None and (type(value) is not int or not 1 <= value <= MOST_REPLY_TOKENS):
                yield ("parameters", name), f"is {value!r}; allowed: whole number from 1 to {MOST_REPLY_TOKENS:,}"
        if self.max_reply_tokens is None:
            yield ("parameters",), "without max_tokens or max_completion_tokens a reply could cost any amount"

    @property
    def max_reply_tokens(self) -> Any:
        """Tokens of a reply at most, as a request says it."""
        limits = {"max_tokens": self.max_tokens} | self.parameters
        return limits.get("max_completion_tokens") or limits["max_tokens"]

    def cost_usd(self, prompt: int, completion: int) -> float:
        """What so many tokens cost."""
        return (prompt * self.usd_per_million_prompt + completion * self.usd_per_million_completion) / 1e6


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_usable = parts.port != 0 and not any(character.isspace() for character in url)
    except ValueError:  # whose message repeats parts of what may hold a password
        is_usable = False
    if not is_usable:
        raise ValueError("not a URL: expected https://HOST/v1, without blanks, any port from 1 to 65535")
    return parts
