"""Work in other processes, some of which die."""

import os
import signal

import pytest

from medmim.common.isolated_processes import ProcessDeath, map_isolated

pytestmark = pytest.mark.usefixtures("quiet_deaths")


def square_or_die(number: int) -> int:
    if number % 10 == 7:
        os.kill(os.getpid(), signal.SIGABRT)
    if number == -1:
        raise LookupError("minus one")
    return number**2


@pytest.mark.parametrize("processes", [1, 3])
def test_results_keep_their_order_and_deaths_their_places(processes: int) -> None:
    results = list(map_isolated(square_or_die, iter(range(100)), processes))
    assert results == [ProcessDeath(-signal.SIGABRT) if n % 10 == 7 else n**2 for n in range(100)]
    assert list(map_isolated(square_or_die, [], processes)) == []


@pytest.mark.parametrize("items", [[1, -1, 2], [7, -1, 2]])
def test_an_exception_passes_also_beside_a_death(items: list[int]) -> None:
    with pytest.raises(LookupError, match="minus one"):
        list(map_isolated(square_or_die, items, 1))


def test_deaths_are_named() -> None:
    assert [str(ProcessDeath(n)) for n in (-11, 3)] == ["SIGSEGV", "exit status 3"]
    assert [ProcessDeath(n).was_killed for n in (-9, -15, -11, 1)] == [True, True, False, False]
