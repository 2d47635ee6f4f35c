"""Several readers at a time, whose results are handed on as they come.

Knows threads and a bound for what waits, and nothing of what is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from queue import Queue
from typing import Generic, TypeVar

T = TypeVar("T")

# Results that wait for the consumer, per reader: one, so that none waits for another; each reader
# holds its own pieces besides.
WAITING = 1


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


@dataclass(frozen=True)
class _Given(Generic[T]):
    item: T


def side_by_side(
    readers: Sequence[Callable[[], Generator[T, None, None]]],
) -> Generator[T, None, None]:
    """Run readers in threads of their own and give what they give, in no order.

    The first error ends all of them. A consumer that stops early ends them at their next result.

    Args:
        readers: each makes the generator that its thread runs.

    Raises:
        What a reader raises.
    """
    queue: Queue[_Given[T] | _Ended] = Queue(maxsize=WAITING * len(readers))
    over = threading.Event()

    def work(reader: Callable[[], Generator[T, None, None]]) -> None:
        error: BaseException | None = None
        try:
            with closing(reader()) as items:
                for item in items:
                    queue.put(_Given(item))
                    if over.is_set():
                        break
        except BaseException as raised:
            error = raised
        queue.put(_Ended(error))

    threads = [
        threading.Thread(target=work, args=(reader,), name="connectome-read", daemon=True)
        for reader in readers
    ]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            got = queue.get()
            if isinstance(got, _Given):
                yield got.item
                continue
            running -= 1
            if got.error is not None:
                raise got.error
    finally:
        over.set()
        while running:  # who waits to hand something on must not wait for ever
            running -= isinstance(queue.get(), _Ended)
        for thread in threads:
            thread.join()
