"""What a fault makes of a request: what is applied, how often and when, and what is answered.

Knows neither HTTP nor storage: it is handed the request as something to perform. How an answer
fails on its way is `delivery`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from math import ceil
from typing import Protocol

from starlette.responses import HTMLResponse
from starlette.types import ASGIApp

from connectome_dagster.local.delivery import Cut, Drip, EndsEarly, Pause, Then, send_reset
from connectome_dagster.local.faults import Fault

# What a person would see who is not logged in: nothing that a program could take for documents.
PAGE = "<!doctype html><title>Log in</title><h1>Log in</h1><p>Please log in to go on.</p>"


class Perform(Protocol):
    """Does what a request asks for; its answer, an error's too."""

    def __call__(self, *, first: int | None = None, age: float = 0.0) -> Awaitable[ASGIApp]:
        """The first documents alone, or the collection as it was, if that is wanted."""


@dataclass(frozen=True)
class Attempt:
    """One request that a fault strikes.

    Attributes:
        perform: does what it asks for.
        refuse: the answer of a status and headers, with an error as its body.
        pause: waits.
        postpone: performs after seconds, whatever became of the answer.
        now: seconds since 1970.
    """

    perform: Perform
    refuse: Callable[[int, dict[str, str]], ASGIApp]
    pause: Pause
    postpone: Callable[[float], None]
    now: Callable[[], float]


async def struck(fault: Fault, attempt: Attempt) -> ASGIApp:
    """The answer to a request that a fault strikes, what it asked for done or not."""
    return await _STRIKES[fault.kind](fault, attempt)


def retry_after(wait: float, *, as_date: bool, now: float) -> dict[str, str]:
    """The header `Retry-After`, in whole seconds or as an HTTP date, rounded up.

    >>> retry_after(1.5, as_date=False, now=0.0), retry_after(1.5, as_date=True, now=0.0)
    ({'Retry-After': '2'}, {'Retry-After': 'Thu, 01 Jan 1970 00:00:02 GMT'})
    """
    value = formatdate(ceil(now + wait), usegmt=True) if as_date else str(ceil(wait))
    return {"Retry-After": value}


async def _reset(_fault: Fault, _attempt: Attempt) -> ASGIApp:
    return send_reset


async def _error(fault: Fault, attempt: Attempt) -> ASGIApp:
    headers = {}
    if fault.retry_after is not None:
        headers = retry_after(fault.retry_after, as_date=fault.retry_after_date, now=attempt.now())
    return attempt.refuse(fault.status, headers)


async def _page(_fault: Fault, _attempt: Attempt) -> ASGIApp:
    return HTMLResponse(PAGE)


async def _applied_reset(_fault: Fault, attempt: Attempt) -> ASGIApp:
    await attempt.perform()
    return send_reset


async def _applied_error(fault: Fault, attempt: Attempt) -> ASGIApp:
    await attempt.perform()
    return await _error(fault, attempt)


async def _partial(fault: Fault, attempt: Attempt) -> ASGIApp:
    answer = await attempt.perform(first=fault.documents)
    return answer if fault.status == 200 else await _error(fault, attempt)


async def _twice(_fault: Fault, attempt: Attempt) -> ASGIApp:
    answer = await attempt.perform()
    await attempt.perform()
    return answer


async def _later(fault: Fault, attempt: Attempt) -> ASGIApp:
    answer = await _error(fault, attempt) if fault.status else send_reset
    return Then(answer, lambda: attempt.postpone(fault.seconds))


async def _cut(fault: Fault, attempt: Attempt) -> ASGIApp:
    return Cut(await attempt.perform(), fault.bytes)


async def _ends_early(fault: Fault, attempt: Attempt) -> ASGIApp:
    return EndsEarly(await attempt.perform(), fault.bytes)


async def _leaves_out(fault: Fault, attempt: Attempt) -> ASGIApp:
    return await attempt.perform(first=fault.documents)


async def _drip(fault: Fault, attempt: Attempt) -> ASGIApp:
    return Drip(await attempt.perform(), fault.bytes_per_second, attempt.pause)


async def _delay(fault: Fault, attempt: Attempt) -> ASGIApp:
    answer = await attempt.perform()
    await attempt.pause(fault.seconds)
    return answer


async def _stale(fault: Fault, attempt: Attempt) -> ASGIApp:
    return await attempt.perform(age=fault.seconds)


_STRIKES: dict[str, Callable[[Fault, Attempt], Awaitable[ASGIApp]]] = {
    "reset": _reset,
    "error": _error,
    "page": _page,
    "applied_reset": _applied_reset,
    "applied_error": _applied_error,
    "partial": _partial,
    "twice": _twice,
    "later": _later,
    "cut": _cut,
    "ends_early": _ends_early,
    "leaves_out": _leaves_out,
    "drip": _drip,
    "delay": _delay,
    "stale": _stale,
}
