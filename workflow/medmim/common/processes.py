"""The processes that one run of a program is made of."""

from collections.abc import Callable


class JobProcesses:
    """The processes that one run of a program is: this one alone."""

    is_main = True
    """Of several, only this one leaves outputs."""

    def broadcast(self, what: str, decide: Callable[[], str]) -> str:
        """What `decide`, called in the first process, gives, in all of them."""
        return decide()
