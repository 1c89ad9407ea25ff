"""What all unit tests share."""

import faulthandler
import sys
from collections.abc import Iterator

import pytest

from medmim.provenance.job import Job


@pytest.fixture(scope="session", autouse=True)
def process() -> Iterator[None]:
    """Programs run in the tests' own process find modules there that other tests imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "_check_modules", lambda job: None)
        yield


@pytest.fixture
def quiet_deaths() -> Iterator[None]:
    """Processes that die on purpose print no stack, as pytest would have them do."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__ or sys.stderr)
