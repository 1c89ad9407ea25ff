"""A cluster a file of tests, on which nothing runs when a test begins."""

from collections.abc import Iterator

import pytest
from cluster import Cluster


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    yield running
    running.reset_nodes()
