"""Keeps a bounded number of calls in flight, and stops at the first that fails.

Knows nothing of what is called. What is in flight when something fails, a call or what it is to
be called with, is awaited, so that its outcome is known when the failure is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
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

    Items are taken when there is room for them, and no more of them once a call has failed.

    Raises:
        Whatever `items` raises, after it was told how everything in flight ended.
    """
    with ThreadPoolExecutor(concurrency, "connectome-send") as pool:
        pending: dict[Future[R], T] = {}
        source = iter(items)
        more = True
        broken: Exception | None = None
        while more or pending:
            try:
                while more and len(pending) < concurrency:
                    for item in source:
                        pending[pool.submit(call, item)] = item
                        break
                    else:
                        more = False
            except Exception as error:  # raised below, when everything has landed
                more, broken = False, error
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                landing = _landing(pending.pop(future), future)
                more = more and landing.error is None
                yield landing
    if broken is not None:
        raise broken


def _landing(item: T, future: Future[R]) -> Landing[T, R]:
    error = future.exception()
    if error is None:
        return Landing(item, future.result(), None)
    if not isinstance(error, Exception):
        raise error
    return Landing(item, None, error)
