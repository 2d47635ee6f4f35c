"""What arrived at the server and what it applied, in order: a test's oracle, a person's overview.

Knows no path, no body and no credential, so it cannot show one.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

# A test sends tens of requests, a demonstration some thousands; an entry takes half a kilobyte.
MAX_ENTRIES = 10_000
# References to strings that the documents hold anyway: 8 MB, and as much as a large load inserts.
MAX_IDS = 1_000_000


@dataclass(frozen=True)
class Applied:
    """One change of a collection, as it became visible.

    Attributes:
        order: its place among all changes of the server, from 1; what is later is higher.
        inserted: `_id` of the documents that were inserted, upserted ones included.
        updated: `_id` of those that were changed.
        deleted: `_id` of those that were removed.
    """

    order: int
    inserted: tuple[Any, ...] = ()
    updated: tuple[Any, ...] = ()
    deleted: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.inserted) + len(self.updated) + len(self.deleted)


@dataclass(frozen=True)
class Entry:
    """One request.

    Attributes:
        sequence: its place among all requests, from 1, in the order of arrival.
        method: HTTP method.
        verb: verb of the path, as the page spells it; empty if the path has none that is known.
        collection: collection id; empty if there is no such collection.
        request_bytes: size of the request's body.
        response_bytes: size of the response's body, as far as it was sent.
        status: HTTP status; None while it is not answered, and if it never was.
        milliseconds: from its arrival to the end of its answer; None until then.
        fault: kind of the fault that struck it, None if none did.
        applied: what it changed, in order; a change may come after the answer.
    """

    sequence: int
    method: str
    verb: str = ""
    collection: str = ""
    request_bytes: int = 0
    response_bytes: int = 0
    status: int | None = None
    milliseconds: float | None = None
    fault: str | None = None
    applied: tuple[Applied, ...] = ()

    @property
    def inserted(self) -> tuple[Any, ...]:
        """`_id` of all documents that this request inserted."""
        return tuple(one for applied in self.applied for one in applied.inserted)

    @property
    def updated(self) -> tuple[Any, ...]:
        """`_id` of all documents that this request changed."""
        return tuple(one for applied in self.applied for one in applied.updated)

    @property
    def deleted(self) -> tuple[Any, ...]:
        """`_id` of all documents that this request removed."""
        return tuple(one for applied in self.applied for one in applied.deleted)


class RequestLog:
    """The last requests; the oldest are forgotten, and counted. Any thread may use it.

    Args:
        max_entries: how many requests are kept.
        max_ids: how many `_id` of changed documents are kept, the newest request's whatever.

    >>> log = RequestLog()
    >>> number = log.begin("POST")
    >>> log.note(number, verb="write", collection="movies", request_bytes=9, status=200)
    >>> log.apply(number, Applied(order=1, inserted=("a",)))
    >>> [(entry.verb, entry.inserted) for entry in log.entries()]
    [('write', ('a',))]
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_ids: int = MAX_IDS) -> None:
        self._max_entries = max_entries
        self._max_ids = max_ids
        self._lock = threading.Lock()
        # What is known of each request by the names of `Entry`, which is made when it is asked for:
        # every request is taken down, few are looked at.
        self._known: dict[int, dict[str, Any]] = {}
        self._ids = 0
        self._last = 0
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def forgotten(self) -> int:
        """How many requests were dropped to stay within the bounds; 0: the log is complete."""
        return self._forgotten

    def begin(self, method: str) -> int:
        """Take down a request that arrived; returns its sequence number."""
        with self._lock:
            self._last += 1
            self._known[self._last] = {"sequence": self._last, "method": method}
            self._forget()
            return self._last

    def note(self, sequence: int, **known: Any) -> None:
        """Add what is known of a request by now, by the names of `Entry`."""
        with self._lock:
            entry = self._known.get(sequence)
            if entry is not None:
                entry.update(known)

    def apply(self, sequence: int, applied: Applied) -> None:
        """Add a change that a request made."""
        with self._lock:
            entry = self._known.get(sequence)
            if entry is not None:
                entry["applied"] = (*entry.get("applied", ()), applied)
                self._ids += len(applied)
                self._forget()

    def entries(
        self,
        *,
        collections: Collection[str] | None = None,
        verb: str | None = None,
        after: int = 0,
        last: int | None = None,
    ) -> list[Entry]:
        """Requests in the order of their arrival.

        Args:
            collections: only those to these collections.
            verb: only those to this verb.
            after: only those with a higher sequence number.
            last: at most so many, the newest.
        """
        with self._lock:
            found = [
                known
                for known in self._known.values()
                if known["sequence"] > after
                and (collections is None or known.get("collection", "") in collections)
                and (verb is None or known.get("verb", "") == verb)
            ]
            newest = found if last is None else found[len(found) - min(last, len(found)) :]
            return [Entry(**known) for known in newest]

    def changes(self, *, collections: Collection[str] | None = None) -> list[tuple[Entry, Applied]]:
        """Everything that was applied and is still in the log, in the order of application."""
        found = [
            (entry, applied)
            for entry in self.entries(collections=collections)
            for applied in entry.applied
        ]
        return sorted(found, key=lambda change: change[1].order)

    def clear(self, collections: Iterable[str] | None = None) -> None:
        """Forget everything, or what was to these collections."""
        names = None if collections is None else set(collections)
        with self._lock:
            for sequence, known in list(self._known.items()):
                if names is None or known.get("collection", "") in names:
                    self._drop(sequence)

    def _forget(self) -> None:
        while len(self._known) > self._max_entries or (
            self._ids > self._max_ids and len(self._known) > 1
        ):
            self._drop(next(iter(self._known)))
            self._forgotten += 1

    def _drop(self, sequence: int) -> None:
        known = self._known.pop(sequence)
        self._ids -= sum(map(len, known.get("applied", ())))
