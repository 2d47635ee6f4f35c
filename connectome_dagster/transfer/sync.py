"""Makes documents say what the rows of a frame say, and sends only what differs.

Reads what is there once, as digests; inserts what is new, updates changed fields, and deletes what
is in no row if asked to. Memory: 16 bytes a row; what is to be deleted waits on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from connectome_dagster.api import endpoints
from connectome_dagster.errors import (
    ConfigurationError,
    DuplicateKeys,
    NoMatch,
    OutcomeUnknown,
    RequestRejected,
    RowsRejected,
)
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.batches import RowBatch, gather
from connectome_dagster.transfer.compare import (
    Digests,
    changed_fields,
    content_digests,
    text_of,
    value_digests,
)
from connectome_dagster.transfer.fetch import Source
from connectome_dagster.transfer.fetch import Tally as ReadTally
from connectome_dagster.transfer.identity import ID_BYTES, attempt, attempt_token, load_id
from connectome_dagster.transfer.key_forms import check_compared
from connectome_dagster.transfer.load import (
    MAX_REJECTED,
    MAX_WAIT_SECONDS,
    REASON_CHARACTERS,
    Load,
)
from connectome_dagster.transfer.passes import Passes
from connectome_dagster.transfer.readback import PAUSES
from connectome_dagster.transfer.report import Guarantee, ReadReport, WriteReport
from connectome_dagster.transfer.rows import Frame
from connectome_dagster.transfer.run import Run
from connectome_dagster.transfer.search import Search, paging
from connectome_dagster.transfer.sending import send_all
from connectome_dagster.transfer.spool import Spool
from connectome_dagster.transfer.target import Tally, Target

# A frame whose documents so many queries ask for by key is not worth reading a collection for.
MAX_KEY_QUERIES = 16
KEYS_PER_QUERY = 500

# Documents that seem to share the key of a row and are held until they are looked at by value.
MAX_SUSPECTS = 16

# Changed rows whose documents are read at a time, to see which fields differ.
ROWS_PER_LOOK = 200

# What a refusal of an update has for a status that is about the row.
_ABOUT_THE_ROW = (400, 409, 413, 422)


def sync(
    target: Target,
    frame: Frame,
    on: Sequence[str],
    *,
    where: Mapping[str, Any] | None = None,
    delete_missing: bool = False,
    load: str | None = None,
    on_reject: str = "fail",
    encoding: Encoding = DEFAULT_ENCODING,
) -> WriteReport:
    """Send what differs between a frame and a collection; see `Collection.sync`."""
    tally = Tally()
    target.check_credentials(endpoints.batch_write(target.collection, b"[]"), reads_back=True)
    with ExitStack() as stack:
        passes = Passes(frame, on, encoding, stack.enter_context(Spool(3)))
        known = _first_pass(passes)
        _check_names(target, passes)
        _check_forms(target, tally, passes)
        within = dict(where or {})
        _check_within(target, passes, within)
        surplus_on = stack if delete_missing else None
        reading = _Reading(target, tally, passes, known, within, surplus_on)
        reading.run()
        syncing = _Syncing(target, tally, passes, known, reading, load)
        if within:
            syncing.check_new_within()
        syncing.insert_new()
        syncing.update_changed()
        deleted = reading.delete_surplus() if delete_missing else 0
    return syncing.report(deleted, on_reject)


class Known:
    """The keys of a frame as sorted digests, and what the documents that have them say.

    16 bytes a row. What a document says is a digest as well, 0 where there is no document.
    """

    def __init__(self, keys: Digests) -> None:
        keys.sort()
        self._keys = keys
        self._contents = np.zeros(len(keys), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def repeated(self) -> bool:
        """Whether two rows seem to have one key."""
        return bool(np.any(self._keys[1:] == self._keys[:-1]))

    @property
    def seen(self) -> int:
        """How many rows have a document."""
        return int(np.count_nonzero(self._contents))

    def places(self, digests: Digests) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Where the rows with these keys are, -1 for none."""
        if not len(self._keys):
            return np.full(len(digests), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._keys, digests), len(self._keys) - 1)
        return np.where(self._keys[at] == digests, at, -1)

    def forget(self) -> None:
        """Begin again: no document is known."""
        self._contents[:] = 0

    def take(self, digests: Digests, contents: Digests) -> list[int]:
        """Note what documents say; which of them have a key that another one has as well."""
        places = self.places(digests)
        mine = np.flatnonzero(places >= 0)
        at = places[mine]
        _, first = np.unique(at, return_index=True)
        again = np.ones(len(at), dtype=bool)
        again[first] = False
        again |= self._contents[at] != 0
        self._contents[at] = contents[mine]
        return [int(place) for place in mine[again]]

    def contents(self, digests: Digests) -> Digests:
        """What the documents with these keys of rows say, 0 for none."""
        said: Digests = self._contents[self.places(digests)]
        return said


def _first_pass(passes: Passes) -> Known:
    """Look at every key before anything is sent."""
    digests = [chunk.digests for chunk in passes.first()]
    known = Known(np.concatenate(digests) if digests else np.empty(0, dtype=np.uint64))
    if known.repeated:
        passes.check_distinct()
    return known


def _check_names(target: Target, passes: Passes) -> None:
    if target.marks.field in passes.summary.names:
        raise ConfigurationError(
            f"sync in collection {target.collection!r}: the column {target.marks.field!r} is kept "
            "for this package's own notes, and readers hide it; rename it, or set bookkeeping to "
            "another name. Nothing was sent"
        )


def _check_forms(target: Target, tally: Tally, passes: Passes) -> None:
    """Look whether keys as they are said find documents: else all of them would seem missing."""
    for chunk in islice(passes.again(), 1):
        first = np.arange(len(chunk.digests)) == 0
        (key,) = plain_documents(chunk.keys(first)[0])
        check_compared(target, tally, key)


def _check_within(target: Target, passes: Passes, where: Mapping[str, Any]) -> None:
    """See that rows have what `where` asks for by equality; they would not be found again else."""
    for name, value in where.items():
        if not _plain(name, value):
            continue
        if name not in passes.summary.names and value is not None and passes.summary.rows:
            raise _outside(target, f"the frame has no column {name!r}")
        wanted = value_digests([value])[0]
        for chunk in passes.again():
            others = np.flatnonzero(chunk.values(name) != wanted)
            if len(others):
                row = chunk.first_row + int(others[0])
                raise _outside(target, f"row {row} has another {name!r} than where")


def _outside(target: Target, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"sync in collection {target.collection!r}: {what}, so that where would not find it again: "
        "give rows within where, or another where. Nothing was sent"
    )


@dataclass
class _Piece:
    """What a piece of a response says, and where its own documents are looked at by value."""

    keys: Digests
    contents: Digests
    documents: list[dict[str, Any]] = field(repr=False)

    def part(self, start: int, rows: int | None) -> _Piece:
        end = None if rows is None else start + rows
        part = slice(start, end)
        return _Piece(self.keys[part], self.contents[part], self.documents[part])

    def __len__(self) -> int:
        return len(self.documents)


class _Reading:
    """Reads what is there: as digests, or documents of some keys by value.

    Attributes:
        by_key: whether documents are asked for by the keys of the frame.
    """

    def __init__(
        self,
        target: Target,
        tally: Tally,
        passes: Passes,
        known: Known,
        where: dict[str, Any],
        surplus_on: ExitStack | None,
    ) -> None:
        self.where = where
        self._target = target
        self._tally = tally
        self._passes = passes
        self._known = known
        self._surplus_on = surplus_on
        self._surplus: Spool | None = None
        self._project = dict.fromkeys(passes.names, 1)
        self._suspects: list[dict[str, Any]] = []
        keys = passes.summary.keys
        few = keys is not None and len(keys) <= MAX_KEY_QUERIES * self.keys_per_query
        self.by_key = few and surplus_on is None
        # What reads go on by where the connection breaks, and prove their end by (U5): `_id`, or
        # the key itself where no `_id` is shown.
        self._cursors: list[str | None] = [None]
        if len(passes.on) == 1 and passes.on[0] != "_id":
            self._cursors.append(passes.on[0])

    @property
    def keys_per_query(self) -> int:
        """Keys of several columns are longer to ask for."""
        return max(1, KEYS_PER_QUERY // len(self._passes.on))

    def run(self) -> None:
        """Read everything that may be the document of a row, or that is in no row.

        Raises:
            DuplicateKeys: two documents have the key of one row.
            OutcomeUnknown: it is not certain that what was read is all.
        """
        if not len(self._known) and self._surplus_on is None:
            return
        while not self._is_read():
            self._known.forget()
            self._suspects.clear()
        self._check_suspects(1)

    def _is_read(self) -> bool:
        """Read everything once; whether it is certain that this was all."""
        if self._surplus_on is not None:
            self._surplus = self._surplus_on.enter_context(Spool(1))
        for query in self._queries():
            report = handed_on(self._pieces(query), self._take)
            if not report.proved:
                self._without_proof()
                return False
        return True

    def _take(self, piece: _Piece) -> None:
        for at in self._known.take(piece.keys, piece.contents):
            self._suspects.append(self._passes.key_of(piece.documents[at]))
            self._check_suspects(MAX_SUSPECTS)
        self._keep_surplus(piece)

    def _without_proof(self) -> None:
        """Go on by the next cursor, if there is one."""
        del self._cursors[0]
        if not self._cursors:
            raise OutcomeUnknown(
                f"sync in collection {self._target.collection!r}: it cannot be proved that what "
                "was read is all that is there (documents show no _id, or no filter finds it), so "
                "that a row may seem new and be there: sync by one column that is text or a "
                "number, or use upsert. Nothing was sent",
                verb="readwithquery",
                collection=self._target.collection,
            )

    def _queries(self) -> Iterator[dict[str, Any]]:
        keys = self._passes.summary.keys
        if self.by_key and keys is not None:
            for at in range(0, len(keys), self.keys_per_query):
                yield both(self.where, self.of_keys(keys[at : at + self.keys_per_query]))
            return
        yield both(self.where, self._range())

    def _range(self) -> dict[str, Any]:
        """The bounds of the keys, where documents outside them are of no interest."""
        summary = self._passes.summary
        if self._surplus is not None or not summary.ordered or summary.least is None:
            return {}
        return {self._passes.on[0]: {"$gte": summary.least, "$lte": summary.greatest}}

    def of_keys(self, keys: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The filter for documents with one of these keys."""
        on = self._passes.on
        if len(on) == 1:
            return {on[0]: {"$in": [key[0] for key in keys]}}
        return {"$or": [dict(zip(on, key, strict=True)) for key in keys]}

    def _pieces(self, query: dict[str, Any]) -> Generator[_Piece, None, ReadReport]:
        """Everything that a query finds, in memory that does not grow."""
        target = self._target
        search = Search(target.collection, query, self._project)
        how = paging(search, "auto", self._cursors[0], target.page_rows)
        source = Source(
            target.client, target.credentials, how.search.call(), how, target.response_path
        )
        cost = ReadTally()
        yield from source.run(self._decoded, len, _Piece.part, cost)
        report = cost.report(target.collection, "auto")
        self._tally.add_read(report)
        return report

    def _decoded(self, piece: bytes) -> _Piece:
        documents = plain_documents(piece)
        return _Piece(
            self._passes.digests_of(documents),
            content_digests(documents, self._passes.names),
            documents,
        )

    def documents(self, keys: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """The documents with some keys, in the frame's columns."""
        while True:
            found: list[_Piece] = []
            report = handed_on(self._pieces(self.of_keys(keys)), found.append)
            if report.proved:
                return [document for piece in found for document in piece.documents]
            self._without_proof()

    def _check_suspects(self, least: int) -> None:
        """Look by value whether documents share the key of a row."""
        if len(self._suspects) < least:
            return
        keys = [tuple(each.values()) for each in self._suspects]
        self._suspects.clear()
        found = self.documents(keys)
        seen: set[bytes] = set()
        for document in found:
            key = self._passes.key_of(document)
            text = self._passes.key_text(document)
            if text in seen:
                raise DuplicateKeys(
                    f"sync in collection {self._target.collection!r}: several documents have the "
                    f"key {text.decode(errors='replace')[:200]}; remove all but one, or add "
                    f"columns to on={self._passes.on!r}. Nothing was sent",
                    keys=[tuple(key.values())],
                )
            seen.add(text)

    def _keep_surplus(self, piece: _Piece) -> None:
        if self._surplus is None:
            return
        others = np.flatnonzero(self._known.places(piece.keys) < 0).tolist()
        if others:
            keys = [self._passes.key_of(piece.documents[at]) for at in others]
            self._surplus.write([text_of(list(key.values())) for key in keys])

    def delete_surplus(self) -> int:
        """Delete the documents that are in no row, by their keys; how many there were."""
        assert self._surplus is not None  # noqa: S101 - else nothing was kept
        deleted = 0
        for (lines,) in self._surplus.read():
            for at in range(0, len(lines), self.keys_per_query):
                some = lines[at : at + self.keys_per_query]
                keys = msgspec.json.decode(b"[" + b",".join(some) + b"]", type=list[list[Any]])
                query = both(self.where, self.of_keys(keys))
                self._tally.add(
                    self._target.send(endpoints.batch_delete(self._target.collection, query))
                )
                self._check_gone(query)
                deleted += len(some)
        return deleted

    def _check_gone(self, query: dict[str, Any]) -> None:
        """See that a delete has deleted: something on the way may drop its body (U11)."""
        for part in (0.0, *(PAUSES if self._target.settle_seconds else ())):
            self._target.sleep(part * self._target.settle_seconds)
            found = self._target.find(query, project=self._project, limit=1)
            there = found.to_pylist()
            self._tally.add_read(found.report)
            if not there:
                return
        raise OutcomeUnknown(
            f"sync in collection {self._target.collection!r}: documents that are in no row were "
            "deleted, and are found all the same: something on the way may drop the body of a "
            "DELETE (run `connectome probe`). All rows are there",
            verb="batchdelete",
            collection=self._target.collection,
        )


def handed_on(
    pieces: Generator[_Piece, None, ReadReport], take: Callable[[_Piece], None]
) -> ReadReport:
    """Hand every piece on; the report of the read."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as ended:
            report: ReadReport = ended.value
            return report
        take(piece)


def both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The filter for what two filters find; of one level where they speak of different fields."""
    if one.keys() & other.keys() or any(name.startswith("$") for name in (*one, *other)):
        return {"$and": [one, other]} if one and other else one or other
    return {**one, **other}


@dataclass(frozen=True)
class _Change:
    """A row whose document says something else.

    Attributes:
        row: its position.
        key: what finds the document.
        said: the whole row.
        changed: the fields that differ; None if there is no document any more.
    """

    row: int
    key: dict[str, Any]
    said: dict[str, Any] = field(repr=False)
    changed: dict[str, Any] | None = field(repr=False)


class _Syncing:
    """Sends what is new and what has changed."""

    def __init__(
        self,
        target: Target,
        tally: Tally,
        passes: Passes,
        known: Known,
        reading: _Reading,
        load: str | None,
    ) -> None:
        self._target = target
        self._tally = tally
        self._passes = passes
        self._known = known
        self._reading = reading
        scope = f"sync {msgspec.json.encode(passes.on).decode()}" if load is None else load
        self._load = load_id(target.collection, scope)
        self._rejected: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._inserted = 0
        self._updated = 0

    def report(self, deleted: int, on_reject: str) -> WriteReport:
        """What was done.

        Raises:
            RowsRejected: the service refused rows, and these are not to be skipped.
        """
        rejected = tuple(sorted(self._rejected))
        if rejected and on_reject != "skip":
            raise self._rows_rejected(
                "all others are as they should be: mend them and run it again, or pass "
                "on_reject='skip' to go on without them"
            )
        rows = len(self._known)
        return self._tally.report(
            self._target,
            "sync",
            rows=rows,
            inserted=self._inserted,
            updated=self._updated,
            unchanged=rows - self._inserted - self._updated - len(rejected),
            deleted=deleted,
            rejected=rejected,
            load=None if self._target.idempotency == "none" else self._load,
            guarantee=_GUARANTEES[self._target.idempotency],
        )

    def check_new_within(self) -> None:
        """See that no document outside `where` has the key of a row that seems new."""
        reading = self._reading
        if self._known.seen == len(self._known):
            return
        for chunk in self._passes.again():
            keys = _decoded(chunk.keys(self._known.contents(chunk.digests) == 0))
            for at in range(0, len(keys), reading.keys_per_query):
                some = [tuple(key.values()) for key in keys[at : at + reading.keys_per_query]]
                for document in reading.documents(some):
                    shown = self._passes.key_text(document)[:200].decode(errors="replace")
                    raise ConfigurationError(
                        f"sync in collection {self._target.collection!r}: the document with the "
                        f"key {shown} is there, and where does not find it: give rows within "
                        "where, another where, or more columns in on. Nothing was sent"
                    )

    def insert_new(self) -> None:
        """Insert the rows that have no document."""
        if self._known.seen == len(self._known):
            return
        target = self._target
        run = None
        if target.idempotency != "none":
            token = attempt_token(int(target.now() * 1000), target.random_bits(20))
            # What is there of them has just been read, by the columns of their keys.
            run = Run(self._load, token, fresh=True)
        as_ids = target.idempotency == "id" and self._passes.on != ["_id"]
        loading = Load(target, self._tally, run, as_ids=as_ids)
        loading.insert(self._batches(run, as_ids))
        self._inserted = loading.inserted
        self._rejected += loading.rejected
        if run is not None and self._inserted:
            self._check_inserted(run, as_ids)

    def _check_inserted(self, run: Run, as_ids: bool) -> None:
        """See that `where` finds the new rows, and that an `_id` was not that of something else."""
        of_run = self._target.marks.of_run(run.load, run.token)
        where = {
            name: value for name, value in self._reading.where.items() if not _plain(name, value)
        }
        if where and self._found(both(where, of_run)) < (there := self._found(of_run)):
            self._tally.add(
                self._target.send(endpoints.batch_delete(self._target.collection, of_run))
            )
            raise ConfigurationError(
                f"sync in collection {self._target.collection!r}: where does not find all of the "
                f"{there} rows that were inserted, so that the next sync would insert them again. "
                "They have been removed, and nothing else was sent: give rows within where, or "
                "another where"
            )
        if as_ids and self._found(of_run) < self._inserted:
            raise OutcomeUnknown(
                f"sync in collection {self._target.collection!r}: rows were refused because there "
                "are documents with their _id. Run it again; if it says so again, these documents "
                "have been given other keys: change them back, remove them, or set "
                "idempotency='field'",
                verb="batchwrite",
                collection=self._target.collection,
                load=run.load,
            )

    def _found(self, query: dict[str, Any]) -> int:
        """How many documents a query finds, as soon as reads see all that was inserted (U13)."""
        rows = 0
        for part in (0.0, *(PAUSES if self._target.settle_seconds else ())):
            self._target.sleep(part * self._target.settle_seconds)
            found = self._target.find(query, project=self._target.marks.projection)
            rows = sum(int(batch.num_rows) for batch in found)
            self._tally.add_read(found.report)
            if rows >= self._inserted:
                break
        return rows

    def _batches(self, run: Run | None, as_ids: bool) -> Iterator[RowBatch]:
        target = self._target
        rows: list[int] = []

        def chunks() -> Iterator[tuple[list[bytes], list[bytes]]]:
            for chunk in self._passes.again():
                new = self._known.contents(chunk.digests) == 0
                lines = chunk.lines(new)
                rows.extend((np.flatnonzero(new) + chunk.first_row).tolist())
                if as_ids and "_id" in self._passes.summary.names:
                    raise _has_ids(target.collection)
                taken = [] if run is None else _row_keys(run.load, chunk.keys(new))
                yield [line[:-1] for line in lines], taken

        beside = 0
        if run is not None:
            beside = target.marks.bytes_beside(run.load, attempt(run.token, 1), 24, as_ids=as_ids)
        for batch in gather(chunks(), target.batch_rows, target.batch_bytes, beside):
            yield RowBatch(rows[: len(batch)], batch.lines, batch.keys)
            del rows[: len(batch)]

    def update_changed(self) -> None:
        """Update the documents of which rows say something else, with the fields that differ."""
        if not self._known.seen:
            return
        changes = self._changes()
        first = next(changes, None)
        if first is None:
            return
        self._first_update(first)
        send_all(self._update, changes, lambda each: f"row {each.row}",
                 self._target.concurrency, self._tally, None)  # fmt: skip

    def _changes(self) -> Iterator[_Change]:
        rows = self._differing()
        while some := list(islice(rows, ROWS_PER_LOOK)):
            keys = [self._passes.key_of(row) for _, row in some]
            found = self._reading.documents([tuple(key.values()) for key in keys])
            by_digest = dict(zip(self._passes.digests_of(found).tolist(), found, strict=True))
            digests = self._passes.digests_of([row for _, row in some]).tolist()
            for (at, row), key, digest in zip(some, keys, digests, strict=True):
                document = by_digest.get(digest)
                if document is None:
                    yield _Change(at, key, row, None)
                elif changed := changed_fields(row, document):
                    yield _Change(at, key, row, changed)

    def _differing(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows whose digest is another than their document's."""
        for chunk in self._passes.again():
            there = self._known.contents(chunk.digests)
            differs = there != 0
            if differs.any():
                differs[differs] = chunk.contents(differs) != there[differs]
            places = np.flatnonzero(differs)
            if len(places):
                rows = _decoded(chunk.lines(differs))
                yield from zip((places + chunk.first_row).tolist(), rows, strict=True)

    def _first_update(self, change: _Change) -> None:
        """Update one document, and see that an update leaves the other fields alone (U6)."""
        key = tuple(change.key.values())
        before = self._whole(key)
        self._update(change)
        if before is None or change.changed is None:
            return
        after = self._whole(key) or {}
        lost = sorted(set(before) - set(after) - {*change.changed, "_id"})
        if lost:
            raise ConfigurationError(
                f"sync in collection {self._target.collection!r}: an update with one field removed "
                f"others ({', '.join(lost[:10])}) of the document with the key "
                f"{msgspec.json.encode(change.key).decode()[:200]}: this service replaces documents"
                " (U6), so use upsert with all columns, or replace. No other document was updated"
            )

    def _whole(self, key: tuple[Any, ...]) -> dict[str, Any] | None:
        found = self._target.find(self._reading.of_keys([key]), limit=1)
        documents = found.to_pylist()
        self._tally.add_read(found.report)
        return documents[0] if documents else None

    def _update(self, change: _Change) -> None:
        """Send one change until it is known to be there, or known not to be wanted."""
        for left in reversed(range(self._target.max_attempts)):
            trouble = self._send(change)
            if trouble is None or self._is_there(change, trouble):
                break
            if not left:
                raise trouble.saying("Its document says something else: run the same sync again")
            self._tally.add_retry()

    def _send(self, change: _Change) -> OutcomeUnknown | None:
        data = change.said if change.changed is None else change.changed
        call = endpoints.update(
            self._target.collection, change.key, data, upsert=change.changed is None
        )
        try:
            answer = self._target.send(call)
        except NoMatch:  # deleted since it was read
            self._tally.add_unanswered(call)
            return self._send(_Change(change.row, change.key, change.said, None))
        except OutcomeUnknown as doubt:
            self._tally.add_unanswered(call)
            doubt.keys = (tuple(change.key.values()),)
            return doubt
        except RequestRejected as refusal:
            self._tally.add_unanswered(call)
            if refusal.status not in _ABOUT_THE_ROW:
                raise
            self._reject(change.row, refusal)
            return None
        self._tally.add(answer)
        if self._target.verify == "always":
            return OutcomeUnknown(
                f"{call.verb} of collection {call.collection!r}: it was acknowledged, and the "
                "document does not say so",
                verb=call.verb,
                collection=call.collection,
                status=answer.status,
                keys=(tuple(change.key.values()),),
            )
        self._landed()
        return None

    def _is_there(self, change: _Change, doubt: OutcomeUnknown) -> bool:
        """Look whether the document says what the row says, as soon as reads see it (U13)."""
        if self._target.verify == "never":
            raise doubt.saying("verify='never': it was not looked for")
        if doubt.retry_after:
            self._target.sleep(min(doubt.retry_after, MAX_WAIT_SECONDS))
        for part in (0.0, *(PAUSES if self._target.settle_seconds else ())):
            self._target.sleep(part * self._target.settle_seconds)
            document = self._whole(tuple(change.key.values()))
            if document is not None and not changed_fields(change.said, document):
                self._landed()
                return True
        return False

    def _landed(self) -> None:
        with self._lock:
            self._updated += 1
            self._tally.rows += 1

    def _reject(self, row: int, refusal: RequestRejected) -> None:
        reason = f"status {refusal.status}: {refusal.body or str(refusal)}"[:REASON_CHARACTERS]
        with self._lock:
            self._rejected.append((row, reason))
            too_many = len(self._rejected) > MAX_REJECTED
        if too_many:
            raise self._rows_rejected(f"these are more than {MAX_REJECTED}: the rest was not sent")

    def _rows_rejected(self, what: str) -> RowsRejected:
        rejected = sorted(self._rejected)
        shown = "; ".join(f"row {row}: {reason}" for row, reason in rejected[:5])
        more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
        return RowsRejected(
            f"sync in collection {self._target.collection!r}: the service refuses {len(rejected)} "
            f"rows ({shown}{more}); {what}",
            rows=rejected,
            verb="batchwrite",
            collection=self._target.collection,
        )


_GUARANTEES: dict[str, Guarantee] = {"field": "verified", "id": "enforced", "none": "at_least_once"}


def _decoded(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    return plain_documents(b",".join(lines)) if lines else []


def _plain(name: str, value: Any) -> bool:
    """Whether a part of `where` is held against the rows before anything is sent."""
    by_name = not name.startswith("$") and "." not in name
    return by_name and (value is None or isinstance(value, (str, int, float)))


def _row_keys(load: str, texts: Sequence[bytes]) -> list[bytes]:
    """The keys of rows as `RowKeys` gives them, of rows that are known to have one key each."""
    hashed = blake2b(load.encode(), digest_size=ID_BYTES)
    digests = []
    for text in texts:  # per row: what is done here counts
        one = hashed.copy()
        one.update(text)
        digests.append(one.digest())
    digits = b"".join(digests).hex().encode()
    width = 2 * ID_BYTES
    return [digits[at : at + width] for at in range(0, len(digits), width)]


def _has_ids(collection: str) -> ConfigurationError:
    return ConfigurationError(
        f"sync in collection {collection!r}: the rows have an _id, and idempotency='id' gives each "
        "row one of its own: drop the column '_id', or name it in on=['_id'], or set "
        "idempotency='field'. Nothing was sent"
    )
