"""Makes documents say what the rows of a frame say, and sends only what differs.

Reads what is there once, as digests; inserts what is new, updates changed fields, and deletes what
is in no row if asked to. Memory: 16 bytes a row; what is to be deleted waits on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from connectome_dagster.api import endpoints
from connectome_dagster.errors import ConfigurationError, OutcomeUnknown
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.batches import RowBatch, gather
from connectome_dagster.transfer.changes import Updates, decoded
from connectome_dagster.transfer.compare import value_digests
from connectome_dagster.transfer.current import Current, both
from connectome_dagster.transfer.identity import ID_BYTES, attempt, attempt_token, load_id
from connectome_dagster.transfer.key_forms import check_compared
from connectome_dagster.transfer.known import Known
from connectome_dagster.transfer.load import Load
from connectome_dagster.transfer.passes import Passes
from connectome_dagster.transfer.readback import PAUSES
from connectome_dagster.transfer.refusals import Refusals
from connectome_dagster.transfer.report import WriteReport
from connectome_dagster.transfer.rows import Frame
from connectome_dagster.transfer.run import Run
from connectome_dagster.transfer.spool import Spool
from connectome_dagster.transfer.target import Tally, Target


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
        current = Current(target, tally, passes, known, within, surplus_on)
        current.run()
        new = _New(target, tally, passes, known, current, _load(target, passes.on, load))
        if within:
            new.check_within()
        new.run()
        updates = Updates(target, tally, passes, known, current)
        updates.run()
        deleted = current.delete_surplus() if delete_missing else 0
    updates.refusals.join(new.refusals)
    rejected = updates.refusals.check(on_reject)
    return tally.report(
        target,
        "sync",
        rows=len(known),
        inserted=new.inserted,
        updated=updates.updated,
        unchanged=len(known) - new.inserted - updates.updated - len(rejected),
        deleted=deleted,
        rejected=rejected,
        load=None if target.idempotency == "none" else new.load,
        guarantee=target.guarantee,
    )


def _load(target: Target, on: Sequence[str], load: str | None) -> str:
    """All syncs by the same columns are one load, so that `reconcile` finds copies across runs."""
    scope = f"sync {msgspec.json.encode(on).decode()}" if load is None else load
    return load_id(target.collection, scope)


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


class _New:
    """Inserts the rows that have no document.

    Attributes:
        load: the load id.
        inserted: how many rows were.
        refusals: rows that the service refuses.
    """

    def __init__(
        self,
        target: Target,
        tally: Tally,
        passes: Passes,
        known: Known,
        current: Current,
        load: str,
    ) -> None:
        self.load = load
        self.inserted = 0
        self.refusals = Refusals("sync", "batchwrite", target.collection)
        self._target = target
        self._tally = tally
        self._passes = passes
        self._known = known
        self._current = current

    def check_within(self) -> None:
        """See that no document outside `where` has the key of a row that seems new."""
        current = self._current
        if self._known.seen == len(self._known):
            return
        for chunk in self._passes.again():
            keys = decoded(chunk.keys(self._known.contents(chunk.digests) == 0))
            for at in range(0, len(keys), current.keys_per_query):
                some = [tuple(key.values()) for key in keys[at : at + current.keys_per_query]]
                for document in current.documents(some):
                    shown = self._passes.key_text(document)[:200].decode(errors="replace")
                    raise ConfigurationError(
                        f"sync in collection {self._target.collection!r}: the document with the "
                        f"key {shown} is there, and where does not find it: give rows within "
                        "where, another where, or more columns in on. Nothing was sent"
                    )

    def run(self) -> None:
        """Insert the rows that have no document."""
        if self._known.seen == len(self._known):
            return
        target = self._target
        run = None
        if target.idempotency != "none":
            token = attempt_token(int(target.now() * 1000), target.random_bits(20))
            # What is there of them has just been read, by the columns of their keys.
            run = Run(self.load, token, fresh=True)
        as_ids = target.idempotency == "id" and self._passes.on != ["_id"]
        loading = Load(target, self._tally, run, as_ids=as_ids)
        loading.insert(self._batches(run, as_ids))
        self.inserted = loading.inserted
        self.refusals = loading.refusals
        if run is not None and self.inserted:
            self._check_inserted(run, as_ids)

    def _check_inserted(self, run: Run, as_ids: bool) -> None:
        """See that `where` finds the new rows, and that an `_id` was not that of something else."""
        of_run = self._target.marks.of_run(run.load, run.token)
        where = {
            name: value for name, value in self._current.where.items() if not _plain(name, value)
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
        if as_ids and self._found(of_run) < self.inserted:
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
            if rows >= self.inserted:
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
