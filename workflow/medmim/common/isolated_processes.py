"""Work that may end its process, as decoders in C do on broken files: done in other processes, and found out item by item."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
QUEUED_ITEMS_PER_PROCESS = 16
"""Items that wait for a process or for their turn, for each process: bounds what is in memory."""


@dataclass(frozen=True)
class ProcessDeath:
    """What an item's process ended with in place of a result: an exit status, negative for a signal."""

    exit_status: int

    @property
    def was_killed(self) -> bool:
        """Whether someone else ended it, such as the system for lack of memory, and not what it computed."""
        return self.exit_status in (-signal.SIGKILL, -signal.SIGTERM)

    def __str__(self) -> str:
        return signal.Signals(-self.exit_status).name if self.exit_status < 0 else f"exit status {self.exit_status}"


def map_isolated(function: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result | ProcessDeath]:
    """Results in the order of the items, computed in so many other processes; function, items and results must pickle.

    Where a process dies, the items that were under way are computed anew, each in a process of its own: the one that did it gives
    its ProcessDeath. Raises what `function` and `items` raise, each in its turn.
    """
    remaining_items = iter(items)
    is_exhausted, items_error = False, None
    pending: deque[tuple[Item, Future[Result]]] = deque()
    pool = ProcessPoolExecutor(processes)
    try:
        while True:
            while not is_exhausted and len(pending) < QUEUED_ITEMS_PER_PROCESS * processes:
                try:
                    item = next(remaining_items)
                except StopIteration:
                    is_exhausted = True
                    break
                except Exception as error:  # to be raised in its turn
                    is_exhausted, items_error = True, error
                    break
                pending.append((item, _submit(pool, function, item)))
            if not pending:
                if items_error:
                    raise items_error
                return
            try:
                result = pending[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                for item, future in pending:
                    is_done = future.done() and not isinstance(future.exception(), BrokenProcessPool)
                    yield future.result() if is_done else _compute_alone(function, item)
                pending.clear()
                pool = ProcessPoolExecutor(processes)
                continue
            pending.popleft()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item) -> "Future[Result]":
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:
        future: Future[Result] = Future()
        future.set_exception(error)
        return future


def _compute_alone(function: Callable[[Item], Result], item: Item) -> Result | ProcessDeath:
    context = get_context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, item), daemon=True)
    process.start()
    sender.close()
    try:
        has_result, value = receiver.recv()
    except EOFError:
        process.join()
        return ProcessDeath(process.exitcode or 0)
    process.join()
    if not has_result:
        raise value
    result: Result = value
    return result


def _send_result(sender: Connection, function: Callable[[Any], Any], item: Any) -> None:
    try:
        outcome: tuple[bool, Any] = (True, function(item))
    except BaseException as error:
        outcome = (False, error)
    sender.send(outcome)
