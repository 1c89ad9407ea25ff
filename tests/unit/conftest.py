"""What all unit tests share."""

import faulthandler
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def quiet_deaths() -> Iterator[None]:
    """Processes that die on purpose print no stack, as pytest would have them do."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__ or sys.stderr)
