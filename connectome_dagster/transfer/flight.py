"""Keeps a bounded number of calls in flight, and stops at the first that fails.

Knows nothing of what is called. What is in flight when something fails, a call or what it is to
be called with, is awaited, so that its outcome is known when the failure is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Landing(Generic[T, R]):
    """How one call ended.

    Attributes:
        item: what it was called with.
        result: what it returned, None if it raised.
        error: what it raised, None if it returned.
    """

    item: T
    result: R | None
    error: Exception | None


def in_flight(
    call: Callable[[T], R], items: Iterable[T], concurrency: int
) -> Generator[Landing[T, R], None, None]:
    """Call for each item, `concurrency` at a time, and tell how each ended, as they end.

    Items are taken when there is room for them, and no more of them once a call has failed. What
    is sent by the calls is paced by the client, which may let fewer of them through at a time.

    Raises:
        Whatever `items` raises, after it was told how everything in flight ended.
    """
    crew: _Crew[T, R] = _Crew(call, concurrency)
    try:
        broken = yield from _landings(crew, iter(items))
    finally:
        crew.dismiss()
    if broken is not None:
        raise broken


def _landings(
    crew: _Crew[T, R], source: Iterator[T]
) -> Generator[Landing[T, R], None, Exception | None]:
    more = True
    broken: Exception | None = None
    while more or crew.pending:
        try:
            while more and crew.has_room:
                for item in source:
                    crew.take(item)
                    break
                else:
                    more = False
        except Exception as error:  # raised in the end, when everything has landed
            more, broken = False, error
        if crew.pending:
            landing = crew.landing()
            more = more and landing.error is None
            yield landing
    return broken


class _Crew(Generic[T, R]):
    """Threads that call. An executor's futures would cost more than a call to the service."""

    def __init__(self, call: Callable[[T], R], size: int) -> None:
        self.pending = 0
        self._call = call
        self._size = size
        self._threads: list[Thread] = []
        self._items: SimpleQueue[tuple[T] | None] = SimpleQueue()
        self._landed: SimpleQueue[Landing[T, R] | BaseException] = SimpleQueue()

    @property
    def has_room(self) -> bool:
        return self.pending < self._size

    def take(self, item: T) -> None:
        self.pending += 1
        if self.pending > len(self._threads):
            # Not daemons: what they send must not be cut off by the end of the program.
            thread = Thread(target=self._work, name=f"connectome-send-{len(self._threads)}")
            thread.start()
            self._threads.append(thread)
        self._items.put((item,))

    def landing(self) -> Landing[T, R]:
        landed = self._landed.get()
        self.pending -= 1
        if isinstance(landed, BaseException):
            raise landed
        return landed

    def dismiss(self) -> None:
        """Wait until what is in flight has landed, and let the threads end."""
        for _ in self._threads:
            self._items.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (taken := self._items.get()) is not None:
            self._landed.put(self._landing_of(taken[0]))

    def _landing_of(self, item: T) -> Landing[T, R] | BaseException:
        try:
            return Landing(item, self._call(item), None)
        except Exception as error:  # told as it is
            return Landing(item, None, error)
        except BaseException as error:  # the end of the program: raised where it is waited for
            return error
