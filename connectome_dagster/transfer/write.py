"""Frames into collections: append, upsert, replace, and the single calls.

What is promised: an unknown outcome is never guessed. A batch whose outcome is unknown is not
sent again but raised as `OutcomeUnknown`; a row of an upsert is read back first. Knows which
calls make a write, not how they travel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Answer, Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    ConfigurationError,
    DuplicateKeys,
    OutcomeUnknown,
    ServiceError,
)
from connectome_dagster.transfer.batches import DocumentBatch, gather
from connectome_dagster.transfer.flight import in_flight
from connectome_dagster.transfer.keys import KeyColumns, KeyedRow
from connectome_dagster.transfer.marks import mark, not_of_load, of_load
from connectome_dagster.transfer.read import Documents
from connectome_dagster.transfer.report import ReadReport, WriteReport
from connectome_dagster.transfer.rows import Frame, batches_of, count_of, encoded, is_rereadable

# A row of an upsert whose outcome stays unknown is sent this often in all, each time after it was
# read back as absent or different.
UPSERT_ATTEMPTS = 3


@dataclass(frozen=True)
class Target:
    """Where a write goes and how much of it travels at a time.

    Attributes:
        client: sends the calls.
        credentials: of the collection.
        collection: the collection id.
        concurrency: calls in flight at a time.
        batch_rows: documents in a batch at most.
        batch_bytes: bytes of a batch at most; a larger document travels alone.
    """

    client: Client
    credentials: Credentials
    collection: str
    concurrency: int
    batch_rows: int
    batch_bytes: int

    def send(self, call: Call) -> Answer:
        return self.client.send(call, self.credentials)

    def documents(self, query: Mapping[str, Any], **options: Any) -> Documents:
        call = endpoints.read_with_query(self.collection, query=query, **options)
        return Documents(self.client, self.credentials, call, show_bookkeeping=True)

    def check_credentials(self, call: Call, *, reads_back: bool) -> None:
        """Find out before anything is sent that a credential is missing.

        Raises:
            ConfigurationError: the write credential is, or the read credential where the write
                has to read back.
        """
        self.credentials.for_("write", call.verb, self.collection)
        if reads_back:
            self.credentials.for_("read", call.verb, self.collection)


@dataclass
class _Tally:
    """Counts what a write costs; from several threads."""

    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    batches: int = 0
    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, answer: Answer) -> None:
        with self.lock:
            self.requests += answer.requests
            self.retries += answer.retries
            self.bytes_sent += answer.bytes_sent

    def add_retry(self) -> None:
        with self.lock:
            self.retries += 1

    def add_unanswered(self, call: Call) -> None:
        with self.lock:
            self.requests += 1
            self.bytes_sent += len(call.body or b"")

    def add_read(self, report: ReadReport | None) -> None:
        if report is not None:
            with self.lock:
                self.requests += report.requests
                self.retries += report.retries

    def report(self, target: Target, operation: str, **known: Any) -> WriteReport:
        return WriteReport(
            target.collection,
            operation,
            rows=self.rows,
            batches=self.batches,
            requests=self.requests,
            retries=self.retries,
            bytes_sent=self.bytes_sent,
            seconds=time.monotonic() - self.started,
            **known,
        )


def append(target: Target, frame: Frame) -> WriteReport:
    """Insert every row of the frame (F7)."""
    tally = _Tally()
    _insert(target, frame, tally, load=None)
    return tally.report(target, "append", inserted=tally.rows)


def replace(target: Target, frame: Frame, where: Mapping[str, Any], *, empty: str) -> WriteReport:
    """Insert the rows, prove that they are there, then delete what `where` selected before."""
    tally = _Tally()
    load = uuid4().hex
    removal = endpoints.batch_delete(target.collection, not_of_load(load, where))
    target.check_credentials(removal, reads_back=True)
    _insert(target, frame, tally, load=load)
    if not tally.rows and empty != "delete":
        raise ConfigurationError(
            f"replace in collection {target.collection!r}: the frame has no rows, so that this "
            "would only delete; pass empty='delete' if that is meant. Nothing was sent"
        )
    _prove(target, load, tally)
    tally.add(target.send(removal))
    return tally.report(target, "replace", inserted=tally.rows, load=load)


def _prove(target: Target, load: str, tally: _Tally) -> None:
    """Count the documents of a load: a 2xx may not promise all of a batch (U7)."""
    if not tally.rows:
        return
    found = target.documents(of_load(load), project={"_id": 1})
    there = sum(batch.num_rows for batch in found)
    tally.add_read(found.report)
    if there != tally.rows:
        raise OutcomeUnknown(
            f"replace in collection {target.collection!r}: {tally.rows} documents were "
            f"acknowledged, but {there} were read back. Nothing was deleted, so the old documents "
            "are still there beside the new ones; run the same replace again to mend both",
            verb="batchwrite",
            collection=target.collection,
            load=load,
        )


def _insert(target: Target, frame: Frame, tally: _Tally, *, load: str | None) -> None:
    target.check_credentials(endpoints.batch_write(target.collection, b"[]"), reads_back=False)

    def send(batch: DocumentBatch) -> Answer:
        return target.send(endpoints.batch_write(target.collection, batch.body))

    batches = gather(_lines(frame, load), target.batch_rows, target.batch_bytes)
    failed: list[tuple[str, Exception]] = []
    for batch, answer, error in in_flight(send, batches, target.concurrency):
        if answer is None or error is not None:
            failed.append((batch.shown, error or RuntimeError("no answer")))
            continue
        tally.add(answer)
        tally.rows += batch.rows
        tally.batches += 1
    if failed:
        raise _failure(failed, tally.rows, load)


def _lines(frame: Frame, load: str | None) -> Iterator[bytes]:
    row = 0
    for batch in batches_of(frame):
        lines = encoded(batch, row)
        row += count_of(batch)
        yield from lines if load is None else (mark(line, load) for line in lines)


def upsert(target: Target, frame: Frame, on: Sequence[str]) -> WriteReport:
    """Update the document of each row's key, or create it (F6); one request per row."""
    tally = _Tally()
    probe = endpoints.update(target.collection, {}, {}, upsert=True)
    target.check_credentials(probe, reads_back=False)
    if is_rereadable(frame):
        for _ in _keyed(frame, on):
            pass

    def send(row: KeyedRow) -> None:
        _upsert_row(target, row, tally)

    failed: list[tuple[str, Exception]] = []
    for row, _, error in in_flight(send, _keyed(frame, on), target.concurrency):
        if error is not None:
            failed.append((f"row {row.row}", error))
            continue
        tally.rows += 1
    if failed:
        raise _failure(failed, tally.rows, None)
    return tally.report(target, "upsert")


def _keyed(frame: Frame, on: Sequence[str]) -> Iterator[KeyedRow]:
    keys = KeyColumns(on)
    row = 0
    for batch in batches_of(frame):
        yield from keys.rows(batch, row)
        row += count_of(batch)


def _upsert_row(target: Target, row: KeyedRow, tally: _Tally) -> None:
    key, data = msgspec.json.decode(row.key), msgspec.json.decode(row.data)
    call = endpoints.update(target.collection, key, data, upsert=True)
    for attempt in range(1, UPSERT_ATTEMPTS + 1):
        try:
            tally.add(target.send(call))
        except OutcomeUnknown as unknown:
            tally.add_unanswered(call)
            doubt = unknown
        else:
            return
        if _has_landed(target, key, data, tally, doubt):
            return
        if attempt < UPSERT_ATTEMPTS:
            tally.add_retry()
    raise doubt


def _has_landed(
    target: Target,
    key: dict[str, Any],
    data: dict[str, Any],
    tally: _Tally,
    doubt: OutcomeUnknown,
) -> bool:
    """Read the key back: one document at most may have it, and it has the row's values or not."""
    if target.credentials.read is None:
        raise doubt.saying("There is no read credential to look with")
    found = target.documents(key, limit=2)
    documents = found.to_pylist()
    tally.add_read(found.report)
    if len(documents) > 1:
        raise DuplicateKeys(
            f"upsert in collection {target.collection!r}: several documents have the key "
            f"{msgspec.json.encode(key).decode()}; remove all but one, then run the upsert again",
            keys=[tuple(key.values())],
        )
    return bool(documents) and all(
        name in documents[0] and documents[0][name] == value for name, value in data.items()
    )


def update(
    target: Target, search: Mapping[str, Any], data: Mapping[str, Any], *, upsert: bool
) -> WriteReport:
    """One updatewithupsert, as the page has it (F6)."""
    return _single(
        target, "update", endpoints.update(target.collection, search, data, upsert=upsert)
    )


def insert(target: Target, document: Mapping[str, Any]) -> WriteReport:
    """Insert one document, as a batch of one: batchwrite is documented (F7), write is not (U10)."""
    lines = encoded([document], 0)
    call = endpoints.batch_write(target.collection, b"[" + lines[0] + b"]")
    return _single(target, "insert", call, rows=1, batches=1, inserted=1)


def delete(target: Target, query: Mapping[str, Any]) -> WriteReport:
    """Remove everything that the query finds (F8)."""
    return _single(target, "delete", endpoints.batch_delete(target.collection, query))


def _single(
    target: Target, operation: str, call: Call, *, rows: int = 0, batches: int = 0, **known: Any
) -> WriteReport:
    tally = _Tally(rows=rows, batches=batches)
    tally.add(target.send(call))
    return tally.report(target, operation, **known)


def _failure(failed: list[tuple[str, Exception]], landed: int, load: str | None) -> Exception:
    """The failure to report: a doubt first, since it asks for more care than a refusal."""
    where, error = next((each for each in failed if isinstance(each[1], OutcomeUnknown)), failed[0])
    if not isinstance(error, ServiceError):
        return error
    told = error.saying(
        f"This was {where} of what was handed in; {landed} rows had been acknowledged, the rest "
        "was not sent" + (f" or failed as well ({len(failed)} calls)" if len(failed) > 1 else "")
    )
    if isinstance(told, OutcomeUnknown):
        told.load = load
    return told
