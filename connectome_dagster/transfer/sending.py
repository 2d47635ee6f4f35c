"""Sends all of something, several at a time; when something fails, says what became of the rest.

Knows nothing of what is sent, only how many rows had been acknowledged when it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TypeVar

from connectome_dagster.errors import ConnectomeError, OutcomeUnknown
from connectome_dagster.transfer.flight import in_flight
from connectome_dagster.transfer.target import Tally

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def send_all(
    send: Callable[[T], None],
    items: Iterable[T],
    shown: Callable[[T], str],
    concurrency: int,
    tally: Tally,
    load: str | None = None,
) -> None:
    """Send all; it is told after what is in flight has ended that something failed.

    Args:
        send: sends one of them, and counts its rows in the tally when they are acknowledged.
        items: taken as they are needed.
        shown: one of them as people say it, for messages.
        concurrency: how many are in flight at a time, at most.
        tally: knows how many rows have been acknowledged.
        load: the load id, for an unknown outcome.

    Raises:
        OutcomeUnknown: for one of them at least; it has the keys of all of those.
        Exception: whatever the first that failed, or `items`, has raised.
    """
    failed: list[tuple[str, Exception]] = []
    broken: Exception | None = None
    try:
        for landing in in_flight(send, items, concurrency):
            if landing.error is not None:
                what = shown(landing.item)
                failed.append((what, landing.error))
    except Exception as error:  # the frame could not be read on, or not be encoded
        broken = error
    if failed:
        raise _failure(failed, tally.rows, load)
    if broken is not None:
        told = f"{tally.rows} rows had been acknowledged"
        raise saying(broken, told) if tally.rows else broken


def _failure(failed: list[tuple[str, Exception]], landed: int, load: str | None) -> Exception:
    """The failure to report: a doubt first, since it asks for more care than a refusal."""
    doubts = [(where, each) for where, each in failed if isinstance(each, OutcomeUnknown)]
    chosen = doubts or failed[:1]
    others = [where for where, each in failed if all(each is not it for _, it in chosen)]
    error: Exception = chosen[0][1]
    if doubts:
        doubt = copy(doubts[0][1])
        doubt.load = load
        doubt.keys = tuple(key for _, each in doubts for key in each.keys)
        error = doubt
    told = f"This was {', '.join(where for where, _ in chosen)} of what was handed in"
    if others:
        told += f"; {', '.join(others)} failed as well"
    return saying(error, f"{told}. {landed} rows had been acknowledged, the rest was not sent")


def saying(error: E, more: str) -> E:
    """The same error with more of the story behind its message, if it is one of ours."""
    if not isinstance(error, ConnectomeError):
        return error
    told = copy(error)
    told.args = (f"{str(error).rstrip('.')}. {more}",)
    return told


@contextmanager
def adding(more: str, tally: Tally) -> Iterator[None]:
    """Add to the message of an error in what state the collection is, if anything was written."""
    try:
        yield
    except ConnectomeError as error:
        told = saying(error, more) if tally.batches or isinstance(error, OutcomeUnknown) else error
    else:
        return
    raise told from None
