"""When to try again and how long to wait, as an immutable value.

Knows numbers only: no clock, no randomness, no sleep, no HTTP. What may be repeated at all is
said by the call, not here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from connectome_dagster.errors import ConfigurationError


class Step(NamedTuple):
    """What comes before the next attempt: seconds to wait, and the policy from then on."""

    policy: RetryPolicy
    delay: float


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try, and how long to wait between.

    Args:
        max_attempts: attempts in all, the first included.
        base_delay: seconds; the longest wait before the second attempt, doubled each time.
        max_delay: seconds; the longest wait that this policy comes up with by itself.
        max_retry_after: seconds; how long a wait that the service asks for is put up with.
        attempt: the number of the attempt that is being made, from 1.

    Raises:
        ConfigurationError: a number that cannot be meant.

    Example:
        >>> RetryPolicy(max_attempts=2).next(0.5)
        Step(policy=RetryPolicy(max_attempts=2, base_delay=0.5, max_delay=30.0, \
max_retry_after=60.0, attempt=2), delay=0.25)
    """

    max_attempts: int = 5
    base_delay: float = 0.5
    max_delay: float = 30.0
    max_retry_after: float = 60.0
    attempt: int = 1

    def __post_init__(self) -> None:
        for name in ("max_attempts", "attempt"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise ConfigurationError(f"{name} is {number!r}: give a whole number from 1")
        for name in ("base_delay", "max_delay", "max_retry_after"):
            seconds = getattr(self, name)
            if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
                raise ConfigurationError(f"{name} is {seconds!r}: give seconds, 0 or more")

    def next(self, random_unit: float, retry_after: float | None = None) -> Step | None:
        """Say how long to wait before the next attempt.

        The wait is a random part of a doubling bound, so that many clients that failed together
        do not come back together; it is never shorter than what the service asked for.

        Args:
            random_unit: a random number from 0 to 1.
            retry_after: seconds that the service asked to wait, None if it did not.

        Returns:
            The step, None if the attempts are spent or the service asks for more patience than
            `max_retry_after`.

        Example:
            >>> RetryPolicy().next(0.0, retry_after=3.0).delay
            3.0
            >>> RetryPolicy().next(0.0, retry_after=3600.0) is None
            True
        """
        if self.attempt >= self.max_attempts:
            return None
        if retry_after is not None and retry_after > self.max_retry_after:
            return None
        doublings = min(self.attempt - 1, 64)  # 2**64 half seconds are beyond any max_delay
        bound = min(self.max_delay, self.base_delay * 2.0**doublings)
        delay = max(random_unit * bound, retry_after or 0.0)
        return Step(replace(self, attempt=self.attempt + 1), delay)


_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Read a `Retry-After` header (RFC 9110, 10.2.3).

    Args:
        value: the header's value: seconds or an HTTP date; None if there was none.
        now: the time, in seconds since the epoch.

    Returns:
        Seconds to wait, 0.0 for a date that has passed, None for a value that is neither.

    Example:
        >>> parse_retry_after("120", now=0.0)
        120.0
        >>> parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=0.0)
        60.0
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):  # what it raises varies by version
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, moment.timestamp() - now)
