"""How many writes travel at a time: more while that helps, fewer when the service pushes back.

`Pace` is arithmetic and is told the time; `Gate` lets threads through by it. Knows no requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Where it starts. Browsers open six connections to one host, so that no service minds four.
FIRST_LEVEL = 4

# While it doubles, a round has to bring this much more than the one before: had it helped fully,
# it would be twice as much, and a busy machine blurs it.
HELPS = 1.25


class Pace:
    """How many may be in flight: doubles while that brings more, then grows by one, and halves.

    A round is as many successes as may be in flight. A level that was not reached in a round has
    proved nothing and stays. What departed before the level was halved does not halve it again.

    Args:
        limit: never more in flight than this.

    Example:
        >>> pace = Pace(limit=8)
        >>> for moment in range(4):
        ...     _ = pace.depart(now=0.0)
        >>> for ticket in range(4):
        ...     pace.land(ticket, now=1.0, success=True)
        >>> pace.level
        8
        >>> pace.push_back(pace.depart(now=1.0), now=2.0)
        >>> pace.level
        4
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.level = min(FIRST_LEVEL, limit)
        self.flying = 0
        self.held_until = 0.0
        self._departed = 0
        self._halved_at = 0
        self._doubling = True
        self._best = 0.0  # successes in a second, of the last round that doubled the level
        self._busy_since = 0.0
        self._begin_round(0.0)

    def _begin_round(self, now: float) -> None:
        self._successes = 0
        self._reached = False
        self._busy = 0.0
        self._busy_since = now

    @property
    def has_room(self) -> bool:
        """Whether one more may depart."""
        return self.flying < self.level

    def depart(self, now: float) -> int:
        """Count one that departs; returns its ticket."""
        if not self.flying:
            self._busy_since = now
        self.flying += 1
        self._reached = self._reached or self.flying >= self.level
        self._departed += 1
        return self._departed - 1

    def withdraw(self, now: float) -> None:
        """Count one that departed as landed, without a word on how it went."""
        self.flying -= 1
        if not self.flying:
            self._busy += now - self._busy_since

    def land(self, ticket: int, now: float, *, success: bool) -> None:
        """Count one that has landed.

        Args:
            ticket: from `depart`.
            now: seconds, on any clock that does not go back.
            success: whether it tells how fast the service works.
        """
        busy = self._busy + now - self._busy_since
        self.withdraw(now)
        if not success or ticket < self._halved_at:
            return
        self._successes += 1
        if self._successes >= self.level:
            self._end_round(now, busy)

    def _end_round(self, now: float, busy: float) -> None:
        if self._reached:
            rate = self._successes / max(busy, 1e-9)
            self._doubling = self._doubling and rate >= self._best * HELPS
            self._best = rate
            self.level = min(self.limit, self.level * 2 if self._doubling else self.level + 1)
        self._begin_round(now)

    def push_back(self, ticket: int, now: float) -> None:
        """Count one that the service has turned away, or kept waiting for too long."""
        self.withdraw(now)
        if ticket >= self._halved_at:
            self.level = max(1, self.level // 2)
            self._halved_at = self._departed
            self._doubling = False
            self._begin_round(now)

    def hold(self, until: float) -> None:
        """Let nothing depart before: the service has asked one to wait, and meant all."""
        self.held_until = max(self.held_until, until)


class Gate:
    """Lets threads through as `Pace` says.

    Args:
        limit: never more at a time than this.
        clock: seconds, never going back.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace = Pace(limit)
        self.clock = clock
        self._changed = threading.Condition(threading.Lock())

    def enter(self) -> int:
        """Wait for room; returns the ticket to leave with."""
        with self._changed:
            while not self.pace.has_room:
                self._changed.wait()
            return self.pace.depart(self.clock())

    def withdraw(self) -> None:
        """Leave without having done anything."""
        with self._changed:
            self.pace.withdraw(self.clock())
            self._tell()

    def leave(self, ticket: int, *, success: bool, pushed_back: bool) -> None:
        """Leave, and tell how it went."""
        with self._changed:
            if pushed_back:
                self.pace.push_back(ticket, self.clock())
            else:
                self.pace.land(ticket, self.clock(), success=success)
            self._tell()

    def _tell(self) -> None:
        room = self.pace.level - self.pace.flying
        if room > 0:
            self._changed.notify(room)

    def hold(self, seconds: float) -> None:
        """Let nothing depart for so long."""
        with self._changed:
            self.pace.hold(self.clock() + seconds)
