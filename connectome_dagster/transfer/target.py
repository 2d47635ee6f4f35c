"""Where a write goes, how it is to go there, and what it has cost so far.

Values and counts that every kind of write shares; knows no rows, and not what a write is made of.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from connectome_dagster.api.client import Answer, Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.transfer.fetch import Source
from connectome_dagster.transfer.marks import Marks
from connectome_dagster.transfer.read import Documents
from connectome_dagster.transfer.report import Guarantee, ReadReport, WriteReport
from connectome_dagster.transfer.search import PAGE_ROWS, Search, Strategy, paging

Idempotency = Literal["field", "id", "none"]
Verify = Literal["unknown", "always", "never"]


@dataclass(frozen=True)
class Target:
    """Where a write goes and how much of it travels at a time.

    Attributes:
        client: sends the calls.
        credentials: of the collection.
        collection: the collection id.
        concurrency: calls in flight at a time, at most.
        batch_rows: documents in a batch at most.
        batch_bytes: bytes of a batch at most; a larger document travels alone.
        response_path: where a response holds its documents, None finds them (U1).
        page_rows: documents of a page of a read at most.
        max_attempts: how often something of unknown outcome is sent in all, each time after it
            was read back as absent.
        idempotency: what tells rows apart that were written already: `"field"` a note in each
            document, `"id"` the `_id` as well, `"none"` nothing.
        verify: when what was written is read back: where the outcome is `"unknown"`, `"always"`,
            or `"never"`.
        settle_seconds: how long a read may not see yet what was acknowledged (U13).
        marks: the note in documents.
        sleep: waits for seconds.
        now: seconds since the epoch.
        random_bits: so many bits at random.
    """

    client: Client
    credentials: Credentials
    collection: str
    concurrency: int = 8
    batch_rows: int = 1000
    batch_bytes: int = 1 << 20
    response_path: str | None = None
    page_rows: int = PAGE_ROWS
    max_attempts: int = 5
    idempotency: Idempotency = "field"
    verify: Verify = "unknown"
    settle_seconds: float = 1.0
    marks: Marks = field(default_factory=Marks)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    now: Callable[[], float] = field(default=time.time, repr=False)
    # Not `random`, which whoever seeds it makes repeat: two loads would have one id.
    random_bits: Callable[[int], int] = field(default=secrets.randbits, repr=False)

    def __post_init__(self) -> None:
        for name, words in (
            ("idempotency", ("field", "id", "none")),
            ("verify", ("unknown", "always", "never")),
        ):
            word = getattr(self, name)
            if word not in words:
                shown = ", ".join(map(repr, words))
                raise ConfigurationError(f"{name} is {word!r}: give one of {shown}")
        seconds = self.settle_seconds
        if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_SETTLE_SECONDS:
            raise ConfigurationError(
                f"settle_seconds is {seconds!r}: give seconds, from 0 to {MAX_SETTLE_SECONDS}"
            )

    @property
    def can_read(self) -> bool:
        """Whether there is a credential to read back with."""
        return self.credentials.read is not None

    @property
    def guarantee(self) -> Guarantee:
        """What is promised of rows that a load inserts, and never more than that."""
        if self.idempotency == "id":
            return "enforced"
        looks = self.idempotency == "field" and self.verify != "never" and self.can_read
        return "verified" if looks else "at_least_once"

    def send(self, call: Call) -> Answer:
        """Send a call, with the credential of the collection.

        Raises:
            ConnectomeError: as `Client.send`.
        """
        return self.client.send(call, self.credentials)

    def find(
        self,
        query: Mapping[str, Any],
        *,
        project: Mapping[str, Any] | None = None,
        sort: Mapping[str, int] | None = None,
        limit: int | None = None,
        strategy: Strategy = "auto",
    ) -> Documents:
        """Read as `Collection.find` does, notes included: exact, hidden caps or not (U5).

        With `strategy="stream"` one request, which a cap may cut short.
        """
        search = Search(self.collection, query, project, sort, limit)
        how = paging(search, strategy, None, self.page_rows)
        source = Source(self.client, self.credentials, how.search.call(), how, self.response_path)
        return Documents(source, show_bookkeeping=True)

    def check_credentials(self, call: Call, *, reads_back: bool) -> None:
        """Find out before anything is sent that a credential is missing.

        Args:
            call: what is to be sent; its verb is named in the error.
            reads_back: whether the write cannot do without reading.

        Raises:
            ConfigurationError: the write credential is, or the read credential where the write
                has to read back.
        """
        self.credentials.for_("write", call.verb, self.collection)
        if reads_back:
            self.credentials.for_("read", call.verb, self.collection)


# Longer than that, a write would seem to hang; whoever knows of such a service asks it later.
MAX_SETTLE_SECONDS = 600


@dataclass
class Tally:
    """Counts what a write costs; from several threads."""

    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    batches: int = 0
    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, answer: Answer) -> None:
        """Count a call that was answered."""
        with self.lock:
            self.requests += answer.requests
            self.retries += answer.retries
            self.bytes_sent += answer.bytes_sent

    def add_row(self) -> None:
        """Count a row that was acknowledged."""
        with self.lock:
            self.rows += 1

    def add_retry(self) -> None:
        """Count that something is sent once more."""
        with self.lock:
            self.retries += 1

    def add_unanswered(self, call: Call) -> None:
        """Count a call that was sent and ended in an error."""
        with self.lock:
            self.requests += 1
            self.bytes_sent += len(call.body or b"")

    def add_read(self, report: ReadReport | None) -> None:
        """Count a read, None if it did not come to its end."""
        if report is not None:
            with self.lock:
                self.requests += report.requests
                self.retries += report.retries

    def report(self, target: Target, operation: str, **known: Any) -> WriteReport:
        """What has been counted, with what else is known of the write."""
        counted: dict[str, Any] = {
            "rows": self.rows,
            "batches": self.batches,
            "requests": self.requests,
            "retries": self.retries,
            "bytes_sent": self.bytes_sent,
            "seconds": time.monotonic() - self.started,
        }
        return WriteReport(target.collection, operation, **{**counted, **known})
