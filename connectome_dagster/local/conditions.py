"""Which switches and faults hold for which collections.

The server has one set of conditions; a group of collections may have its own, so that tests that
share a server do not see each other's. Knows neither HTTP nor storage.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from connectome_dagster.local.faults import Fault, FaultPlan
from connectome_dagster.local.switches import Switches
from connectome_dagster.local.verbs import Verb, offered


class Conditions:
    """The switches and faults of some collections, and what their rate limit has seen.

    Attributes:
        faults: what goes wrong.
    """

    def __init__(self, switches: Switches | None = None, faults: Iterable[Fault] = ()) -> None:
        self.switches = switches or Switches()
        self.faults = FaultPlan(faults)

    @property
    def switches(self) -> Switches:
        """May be replaced at any time; the next request sees it, the first of a new window."""
        return self._switches

    @switches.setter
    def switches(self, switches: Switches) -> None:
        self._switches = switches
        self._verbs = offered(switches)
        self._admitted: deque[float] = deque()

    @property
    def verbs(self) -> dict[str, dict[str, Verb]]:
        """What the switches offer, by name in the path and method."""
        return self._verbs

    def wait(self, now: float) -> float:
        """Count a request against the rate limit (U8); the seconds until it would be admitted.

        Called by the event loop alone. A request that has to wait is not counted.
        """
        limit, window = self.switches.rate_limit, self.switches.rate_seconds
        if limit is None:
            return 0.0
        admitted = self._admitted
        while admitted and admitted[0] <= now - window:
            admitted.popleft()
        if len(admitted) >= limit:
            return admitted[0] + window - now
        admitted.append(now)
        return 0.0

    def remembered(self, collection: str) -> float:
        """How many seconds of a collection's past a reader may be shown (U13)."""
        return max(self.switches.stale_seconds, self.faults.stale_seconds(collection))

    def reset(self) -> None:
        """Switches as they are by default, no faults."""
        self.switches = Switches()
        self.faults.clear()


class ConditionsByCollection:
    """The server's conditions, and those of collections that have their own.

    Args:
        general: those of all other collections.

    >>> conditions = ConditionsByCollection(Conditions())
    >>> conditions.assign("movies", Conditions(Switches(page_cap=1)))
    >>> conditions.of("movies").switches.page_cap, conditions.of("books").switches.page_cap
    (1, None)
    """

    def __init__(self, general: Conditions) -> None:
        self.general = general
        self._own: dict[str, Conditions] = {}
        self._lock = threading.Lock()

    def of(self, collection: str) -> Conditions:
        """What holds for a collection."""
        return self._own.get(collection, self.general)

    def own(self, collection: str) -> Conditions:
        """A collection's own conditions, made from the general switches if it has none yet."""
        with self._lock:
            if collection not in self._own:
                self._own[collection] = Conditions(self.general.switches)
            return self._own[collection]

    def assign(self, collection: str, conditions: Conditions) -> None:
        """Let these conditions hold for a collection, whatever the general ones are."""
        with self._lock:
            self._own[collection] = conditions

    def release(self, collection: str) -> None:
        """Let the general conditions hold for a collection."""
        with self._lock:
            self._own.pop(collection, None)

    def reset(self) -> None:
        """Nothing is as it was set: the general conditions hold for all collections."""
        with self._lock:
            self._own.clear()
        self.general.reset()

    def remembered(self, collection: str) -> float:
        """How many seconds of a collection's past a reader may be shown (U13)."""
        return self.of(collection).remembered(collection)

    def strike_connection(self) -> bool:
        """Count a connection, which may be to any collection; whether a fault refuses it."""
        with self._lock:
            plans = {id(one): one.faults for one in (self.general, *self._own.values())}
        struck = [plan.strike_connection() for plan in plans.values()]
        return any(fault is not None for fault in struck)
