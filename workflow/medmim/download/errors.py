"""What can go wrong between us and a server, by what is to be done about it."""

from medmim.common.errors import UserError


class TransientError(Exception):
    """A fault that may be over when one tries again. `retry_after`: seconds that the server asks for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFoundError(Exception):
    """The owner does not have the file."""


class AccessDeniedError(UserError):
    """The server wants other credentials, or has not been told by its owner to let this user in."""


class UnreachableError(UserError):
    """No answer from the server."""
