"""A collection to try things in: documents are planted, looked for and removed, one call at a time.

Takes every answer as it comes, and knows what counts as a refusal; what an answer says about the
service is the questions' to judge.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Observation
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.api.retry import parse_retry_after
from connectome_dagster.api.verdict import of_success
from connectome_dagster.errors import MalformedResponse
from connectome_dagster.transfer.target import Target

# The field that every planted document has, with the probe's own id.
MARK = "connectome_probe"

# A request that is refused for haste is repeated so often, and such a wait is put up with.
PATIENT_ATTEMPTS = 6
MAX_WAIT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.05

# How deep in an answer its documents are looked for (U1).
MAX_WRAPPING = 4

Document = dict[str, Any]


class Scratch:
    """The scratch collection, and what the probe knows of it so far.

    Args:
        target: the collection.
        run: the probe's own id.
        sleep: waits for seconds.
        clock: seconds that only rise.
        now: seconds since the epoch.

    Attributes:
        settle: seconds after a write until reads are sure to see it.
        requests: requests that were sent.
    """

    def __init__(
        self,
        target: Target,
        run: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self.collection = target.collection
        self.run = run
        self.settle = 0.0
        self.requests = 0
        self.sleep = sleep
        self.clock = clock
        self._now = now
        self._written = -float("inf")
        self._lock = threading.Lock()

    def document(self, case: str, **fields: Any) -> Document:
        """A document of this probe, to be planted."""
        return {MARK: self.run, "case": case, **fields}

    def ask(
        self, call: Call, *, packed: bool = False, credentials: Credentials | None = None
    ) -> Observation:
        """Send a call and return its answer; where the service asks to wait (429), wait first.

        Raises:
            ConnectomeError: no answer came.
        """
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, PATIENT_ATTEMPTS + 1):
            seen = self.ask_once(call, packed=packed, credentials=credentials)
            if seen.status != 429 or attempt == PATIENT_ATTEMPTS:
                break
            self.sleep(self.asked_wait(seen) or wait)
            wait *= 2
        return seen

    def ask_once(
        self, call: Call, *, packed: bool = False, credentials: Credentials | None = None
    ) -> Observation:
        """Send a call once; may be called from several threads."""
        with self._lock:
            self.requests += 1
        try:
            return self.target.client.observe(
                call, credentials or self.target.credentials, packed=packed
            )
        finally:
            if call.needs == "write":
                self._written = self.clock()

    def asked_wait(self, seen: Observation) -> float:
        """The seconds that an answer asks to wait, 0 for none."""
        asked = parse_retry_after(seen.headers.get("retry-after"), self._now()) or 0.0
        return min(asked, MAX_WAIT_SECONDS)

    def plant(self, *documents: Any, packed: bool = False) -> Observation:
        """Insert documents in one batch (F7)."""
        body = msgspec.json.encode(documents)
        call = endpoints.batch_write(self.collection, body)
        if packed:
            call = replace(call, body=gzip.compress(body))
        return self.ask(call, packed=packed)

    def update(
        self, search: Mapping[str, Any], data: Mapping[str, Any], *, upsert: bool = False
    ) -> Observation:
        """Update what a search finds (F6)."""
        return self.ask(endpoints.update(self.collection, search, data, upsert=upsert))

    def find(self, query: Mapping[str, Any], **options: Any) -> list[Document] | None:
        """What a query finds in one response; None if the service refuses it."""
        return self.documents_of(self.look(query, **options))

    def look(self, query: Mapping[str, Any], **options: Any) -> Observation:
        """The answer to a query, once everything that was written is to be seen."""
        wait = self._written + self.settle - self.clock()
        if wait > 0:
            self.sleep(wait)
        return self.ask(endpoints.read_with_query(self.collection, query=query, **options))

    def holds(self, case: str, **fields: Any) -> bool:
        """Whether a planted document is there: found by any filter on its fields."""
        return bool(self.find(self.document(case, **fields), limit=1))

    def documents_of(self, seen: Observation) -> list[Document] | None:
        """The documents of an answer, None if it has none to show."""
        if refused(seen):
            return None
        found = array_of(seen.body)
        return None if found is None else found[1]

    def malformed(self, what: str) -> MalformedResponse:
        return MalformedResponse(
            f"probe of collection {self.collection!r}: {what}. Check base_url, and whether "
            "something between here and the service answers in its place",
            verb="readwithquery",
            collection=self.collection,
        )


def refused(seen: Observation) -> bool:
    """Whether an answer says no: by its status, or behind a success (U14)."""
    return told_by(seen) != "nothing"


def told_by(seen: Observation) -> str:
    """What an answer says no with: its `"status"`, an `"object"`, a `"page"`, or `"nothing"`."""
    if not 200 <= seen.status <= 299:
        return "status"
    if of_success(_ANY_READ, seen.status, seen.headers.get("content-type", ""), seen.body[:256]):
        return "page"
    return "object" if of_success(_ANY_WRITE, seen.status, "", seen.body) else "nothing"


_ANY_READ = endpoints.read("any")
_ANY_WRITE = endpoints.batch_write("any", b"[]")


def array_of(body: bytes) -> tuple[str | None, list[Document]] | None:
    """The documents in a response, and the dotted path at which they stand (U1).

    Returns:
        None if there is no array of documents. The path is None for a bare array. Of several
        arrays, the first that holds something.

    Example:
        >>> array_of(b'{"status":"ok","data":[{"a":1}]}')
        ('data', [{'a': 1}])
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    found = list(_arrays(value, ()))
    found.sort(key=lambda at: not at[1])
    if not found:
        return None
    path, documents = found[0]
    return ".".join(path) or None, documents


def _arrays(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Document]]]:
    if isinstance(value, list):
        if all(isinstance(one, dict) for one in value):
            yield path, value
    elif isinstance(value, dict) and len(path) < MAX_WRAPPING:
        for name, inner in value.items():
            yield from _arrays(inner, (*path, name))


def any_of(values: Sequence[Any]) -> dict[str, Any]:
    """The filter of a field that has one of these values."""
    return {"$in": list(values)}
