"""The section of the configuration that tells of an endpoint; apart from the others, whose changes are none of its."""

from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from medmim.config.base import Positive, Section

RESERVED_PARAMETERS = ("model", "messages", "n", "stream")
"""What of a request is not the user's to set."""


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
    key_env: Annotated[str, Field(pattern="^[A-Z_][A-Z0-9_]*$")] | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; null where none is needed. The key itself never stands here."""
    credentialed: bool = False
    """Whether images and texts of credentialed sources (sources.NAME.credentialed) may be sent there."""
    concurrency: Positive = 8
    """Requests at a time."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """At most so many, evenly spaced; null for no limit."""
    timeout: Annotated[float, Field(gt=0)] = 300
    """Seconds to wait for a reply."""
    attempts: Positive = 8
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

    @model_validator(mode="after")
    def _check_parameters(self) -> "Service":
        if reserved := sorted(self.parameters.keys() & {*RESERVED_PARAMETERS}):
            raise ValueError(f"parameters: {', '.join(reserved)} can't be set here")
        parts = _split_url(self.url)
        is_unencrypted = parts.scheme == "http" and not _is_loopback(parts.hostname or "")
        if is_unencrypted and self.key_env is not None and "key_env" not in self.model_fields_set:
            raise ValueError("the key could be read on its way, as url is not https: set key_env, to null if no key is needed")
        return self


class Endpoint(Service):
    """A service whose model is scored."""

    logprobs: bool = False
    """Ask for the likeliest first tokens, top_logprobs 20. Where all letters of a question are among them, it has their
    log-likelihoods."""


class Author(Service):
    """A service whose model writes or reviews questions, and is paid by the token."""

    usd_per_million_prompt: Annotated[float, Field(ge=0)]
    """Price of a million tokens that are sent; with batch, that of a batch. 0 where nobody is paid."""
    usd_per_million_completion: Annotated[float, Field(ge=0)]
    """Price of a million tokens that come back, hidden reasoning included."""
    max_tokens: Positive = 1000
    """Longest reply."""
    batch: bool = False
    """Send many requests as a file, to be answered within a day, where the service has OpenAI's batch API."""

    @model_validator(mode="after")
    def _check_reply_bound(self) -> "Author":
        if "max_tokens" in self.parameters and not isinstance(self.max_reply_tokens, int):
            raise ValueError("parameters: without max_tokens or max_completion_tokens a reply could cost any amount")
        return self

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
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    return parts
