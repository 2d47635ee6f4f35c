"""Frames into collections: append, upsert, replace, and the single calls.

What is promised: an unknown outcome is never guessed. A batch whose outcome is unknown is not
sent again but raised as `OutcomeUnknown`; a row of an upsert is read back first. Knows which
calls make a write, not how they travel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from uuid import uuid4

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Answer, Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    DuplicateKeys,
    OutcomeUnknown,
    QueryError,
)
from connectome_dagster.transfer.batches import DocumentBatch, gather
from connectome_dagster.transfer.fetch import Source
from connectome_dagster.transfer.flight import in_flight
from connectome_dagster.transfer.keys import KeyColumns, KeyedRow
from connectome_dagster.transfer.marks import mark, not_of_load, of_load
from connectome_dagster.transfer.read import Documents
from connectome_dagster.transfer.report import ReadReport, WriteReport
from connectome_dagster.transfer.rows import (
    Frame,
    batches_of,
    count_of,
    encoded,
    has_field,
    is_in_memory,
)

# A row of an upsert whose outcome stays unknown is sent this often in all, each time after it was
# read back as absent or different.
UPSERT_ATTEMPTS = 3

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)


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
        response_path: where a response holds its documents, None finds them (U1).
    """

    client: Client
    credentials: Credentials
    collection: str
    concurrency: int
    batch_rows: int
    batch_bytes: int
    response_path: str | None = None

    def send(self, call: Call) -> Answer:
        return self.client.send(call, self.credentials)

    def documents(self, query: Mapping[str, Any], **options: Any) -> Documents:
        call = endpoints.read_with_query(self.collection, query=query, **options)
        source = Source(self.client, self.credentials, call, response_path=self.response_path)
        return Documents(source, show_bookkeeping=True)

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
    with _adding(_NOTHING_DELETED, tally):
        _insert(target, frame, tally, load=load)
    if not tally.rows and empty != "delete":
        raise ConfigurationError(
            f"replace in collection {target.collection!r}: the frame has no rows, so that this "
            "would only delete; pass empty='delete' if that is meant. Nothing was sent"
        )
    with _adding(_NOTHING_DELETED, tally):
        _prove(target, load, where, tally)
    with _adding(_NOT_ALL_DELETED, tally):
        tally.add(target.send(removal))
    return tally.report(target, "replace", inserted=tally.rows, load=load)


_NOTHING_DELETED = (
    "Nothing was deleted: the old documents are still there, beside what was inserted. Run the "
    "same replace again to mend both"
)
_NOT_ALL_DELETED = (
    "All new documents are there, and the old ones may be as well. Run the same replace again to "
    "mend that"
)


@contextmanager
def _adding(more: str, tally: _Tally) -> Iterator[None]:
    """Add to the message of an error in what state the collection is, if anything was written."""
    try:
        yield
    except ConnectomeError as error:
        told = _saying(error, more) if tally.batches or isinstance(error, OutcomeUnknown) else error
    else:
        return
    raise told from None


def _prove(target: Target, load: str, where: Mapping[str, Any], tally: _Tally) -> None:
    """Count what `where` finds of a load: a 2xx may not promise all of a batch (U7).

    Rows that `where` does not find would never be replaced again, so they are taken out.
    """
    if not tally.rows:
        return
    found = _found(target, load, where, tally)
    there = found if found == tally.rows or not where else _count(target, of_load(load), tally)
    if there != tally.rows:
        raise OutcomeUnknown(
            f"replace in collection {target.collection!r}: {tally.rows} documents were "
            f"acknowledged, but {there} were read back",
            verb="batchwrite",
            collection=target.collection,
            load=load,
        )
    if found != there:
        _take_out(target, load, tally)
        raise ConfigurationError(
            f"replace in collection {target.collection!r}: where does not find {there - found} of "
            f"the {there} rows, so the next replace would not find them either. What was inserted "
            "has been removed again, and nothing else: give rows within where, or another where"
        )


def _found(target: Target, load: str, where: Mapping[str, Any], tally: _Tally) -> int:
    try:
        return _count(target, of_load(load, where), tally)
    except QueryError as error:
        refused = error
    _take_out(target, load, tally)
    raise refused.saying("What was inserted has been removed again, and nothing else")


def _take_out(target: Target, load: str, tally: _Tally) -> None:
    tally.add(target.send(endpoints.batch_delete(target.collection, of_load(load))))
    tally.batches = 0  # nothing of this write is there


def _count(target: Target, query: Mapping[str, Any], tally: _Tally) -> int:
    found = target.documents(query, project={"_id": 1})
    rows = sum(int(batch.num_rows) for batch in found)
    tally.add_read(found.report)
    return rows


def _insert(target: Target, frame: Frame, tally: _Tally, *, load: str | None) -> None:
    target.check_credentials(endpoints.batch_write(target.collection, b"[]"), reads_back=False)

    def send(batch: DocumentBatch) -> Answer:
        return target.send(endpoints.batch_write(target.collection, batch.body))

    def landed(batch: DocumentBatch, answer: Answer) -> None:
        tally.add(answer)
        tally.rows += batch.rows
        tally.batches += 1

    batches = gather(_lines(frame, load), target.batch_rows, target.batch_bytes)
    _send_all(send, batches, landed, lambda batch: batch.shown, target, tally, load)


def _send_all(
    send: Callable[[T], R],
    items: Iterator[T],
    landed: Callable[[T, R], None],
    shown: Callable[[T], str],
    target: Target,
    tally: _Tally,
    load: str | None = None,
) -> None:
    """Send all, several at a time; when something fails, say what has become of the rest."""
    failed: list[tuple[str, Exception]] = []
    broken: Exception | None = None
    try:
        for landing in in_flight(send, items, target.concurrency):
            if landing.error is None:
                landed(landing.item, cast("R", landing.result))
            else:
                failed.append((shown(landing.item), landing.error))
    except Exception as error:  # the frame could not be read on, or not be encoded
        broken = error
    if failed:
        raise _failure(failed, tally.rows, load)
    if broken is not None:
        raise _saying(broken, f"{tally.rows} rows had been acknowledged") if tally.rows else broken


def _lines(frame: Frame, load: str | None) -> Iterator[bytes]:
    row = 0
    for batch in batches_of(frame):
        if load is not None and has_field(batch, "_id"):
            raise ConfigurationError(
                "the rows to replace by have an _id, and while they are inserted the documents "
                "that they replace are still there: drop the column '_id', and they get new ones"
            )
        lines = encoded(batch, row)
        row += count_of(batch)
        yield from lines if load is None else (mark(line, load) for line in lines)


def upsert(target: Target, frame: Frame, on: Sequence[str]) -> WriteReport:
    """Update the document of each row's key, or create it (F6); one request per row."""
    tally = _Tally()
    probe = endpoints.update(target.collection, {}, {}, upsert=True)
    target.check_credentials(probe, reads_back=False)
    if is_in_memory(frame):
        for _ in _keyed(frame, on):
            pass

    def send(row: KeyedRow) -> None:
        _upsert_row(target, row, tally)

    def landed(_row: KeyedRow, _result: None) -> None:
        tally.rows += 1

    _send_all(send, _keyed(frame, on), landed, lambda row: f"row {row.row}", target, tally)
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
        doubt.keys = (tuple(key.values()),)
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
    documents: list[dict[str, Any]] = []
    unread = ""
    try:
        documents = found.to_pylist()
    except ConnectomeError as error:
        unread = type(error).__name__  # its text speaks of the read alone
    if unread:
        raise doubt.saying(f"Reading the key back failed too ({unread})")
    tally.add_read(found.report)
    if len(documents) > 1:
        raise DuplicateKeys(
            f"upsert in collection {target.collection!r}: several documents have the key "
            f"{msgspec.json.encode(key).decode()}; remove all but one, then run the upsert again",
            keys=[tuple(key.values())],
        )
    return bool(documents) and all(
        name in documents[0] and _same(documents[0][name], value) for name, value in data.items()
    )


def _same(one: Any, other: Any) -> bool:
    """Equal as MongoDB has it: 1 is 1.0, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def update(
    target: Target, search: Mapping[str, Any], data: Mapping[str, Any], *, upsert: bool
) -> WriteReport:
    """One updatewithupsert, as the page has it (F6)."""
    return _single(
        target, "update", endpoints.update(target.collection, search, data, upsert=upsert)
    )


def insert(target: Target, document: Mapping[str, Any]) -> WriteReport:
    """Insert one document, as a batch of one: batchwrite is documented (F7), write is not (U10)."""
    if not isinstance(document, Mapping):
        raise ConfigurationError(
            f"insert in collection {target.collection!r}: a {type(document).__name__} is not a "
            "document; give a dict, or use append for a frame. Nothing was sent"
        )
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
    return _saying(error, f"{told}. {landed} rows had been acknowledged, the rest was not sent")


def _saying(error: E, more: str) -> E:
    """The same error with more of the story behind its message, if it is one of ours."""
    if not isinstance(error, ConnectomeError):
        return error
    told = copy(error)
    told.args = (f"{str(error).rstrip('.')}. {more}",)
    return told
