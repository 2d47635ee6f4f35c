"""Rows of a frame in place of what a query finds: inserted first, proved, and then the old deleted.

Knows what may be deleted and when; how rows are inserted stands in `load`. Nothing that a newer run
has written is ever deleted, so that of two that run at a time one wins, and never neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.api import endpoints
from connectome_dagster.errors import ConfigurationError, OutcomeUnknown, ReadInterrupted
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer.copies import leave_one
from connectome_dagster.transfer.form import Form, as_ids_of, batches_for
from connectome_dagster.transfer.identity import KnownKeys, RowKeys, load_id, prefixes_of
from connectome_dagster.transfer.load import Load
from connectome_dagster.transfer.readback import PAUSES, check_gone, not_gone
from connectome_dagster.transfer.report import WriteReport
from connectome_dagster.transfer.rows import Frame
from connectome_dagster.transfer.run import Run, run_of
from connectome_dagster.transfer.search import Strategy
from connectome_dagster.transfer.sending import adding
from connectome_dagster.transfer.target import Tally, Target

T = TypeVar("T")

# Keys of documents to be removed that are held at a time, some megabytes; of more of them, the
# others are found when these are gone.
MAX_HELD_KEYS = 1 << 16

_NOTHING_DELETED = (
    "Nothing was deleted: the old documents are still there, beside what was inserted. Run the "
    "same replace again to mend both"
)
_NOT_ALL_DELETED = (
    "All new documents are there, and the old ones may be as well. Run the same replace again to "
    "mend that"
)


def replace(
    target: Target,
    frame: Frame,
    where: Mapping[str, Any],
    *,
    load: str | None = None,
    empty: str = "refuse",
    on_reject: str = "fail",
    encoding: Encoding = DEFAULT_ENCODING,
) -> WriteReport:
    """Insert the rows, prove that they are there, then delete what `where` selected before."""
    tally = Tally()
    if target.idempotency == "none":
        raise ConfigurationError(
            f"replace in collection {target.collection!r}: new documents are told from old ones by "
            "the note that they carry, and idempotency='none' writes none: set "
            "idempotency='field'. Nothing was sent"
        )
    deletion = endpoints.batch_delete(target.collection, where)
    target.check_credentials(deletion, reads_back=True)
    mine = load_id(target.collection, _scope(deletion.body or b"") if load is None else load)
    form = Form(mine, own_ids=False, encoding=encoding)
    keys = RowKeys(mine)
    batches = batches_for(target, frame, form, keys)
    first = next(batches, None)
    if first is None:
        return _empty(target, tally, where, mine, empty)
    run = run_of(target, tally, mine, where)
    loading = Load(target, tally, run, as_ids=as_ids_of(target, form), compare=True)
    with adding(_NOTHING_DELETED, tally):
        loading.insert(chain([first], batches))
        rejected = loading.refusals.check(on_reject)
        if not tally.rows and empty != "delete":
            loading.refusals.check("fail")
    _Replacing(target, tally, run, where, keys, loading.rejected_keys).finish()
    return tally.report(
        target,
        "replace",
        rows=tally.rows + len(rejected),
        inserted=loading.inserted,
        unchanged=loading.unchanged,
        rejected=rejected,
        load=mine,
        guarantee=target.guarantee,
    )


def _scope(where: bytes) -> str:
    """Two replaces of one `where` are two runs of one load."""
    return "replace " + msgspec.json.encode(msgspec.json.decode(where), order="sorted").decode()


def _empty(
    target: Target, tally: Tally, where: Mapping[str, Any], load: str, empty: str
) -> WriteReport:
    if empty != "delete":
        raise ConfigurationError(
            f"replace in collection {target.collection!r}: the frame has no rows, so that this "
            "would only delete; pass empty='delete' if that is meant. Nothing was sent"
        )
    run = run_of(target, tally, load, where)
    before = target.marks.before(run.token, where)
    tally.add(target.send(endpoints.batch_delete(target.collection, before)))
    check_gone(target, tally, "replace", before, run.load)
    return tally.report(
        target, "replace", inserted=0, unchanged=0, load=load,
        guarantee=target.guarantee,
    )  # fmt: skip


@dataclass
class _Found:
    """What a look at the documents of a load has found.

    Attributes:
        missing: rows of the frame that are not there.
        copies: keys of rows that are there more than once.
        stale: attempts and keys of documents that are no row of the frame, and no newer run's.
        gone: how many documents of each attempt are such.
        kept: attempts of documents that are rows of the frame.
        newer: whether a newer run has written something that is no row of the frame.
        more: whether there are more keys than are held.
        proved: whether it is certain that these are all.
    """

    missing: int = 0
    copies: dict[str, None] = field(default_factory=dict)
    stale: list[tuple[str, str]] = field(default_factory=list)
    gone: Counter[str] = field(default_factory=Counter)
    kept: set[str] = field(default_factory=set)
    newer: bool = False
    more: bool = False
    proved: bool = False

    @property
    def surplus(self) -> int:
        """Documents that are to go, at least."""
        return self.gone.total() + len(self.copies)

    def hold_copy(self, key: str) -> None:
        if len(self.copies) < MAX_HELD_KEYS:
            self.copies[key] = None
        else:
            self.more = True

    def hold_stale(self, tried: str, key: str) -> None:
        self.gone[tried] += 1
        if len(self.stale) < MAX_HELD_KEYS:
            self.stale.append((tried, key))
        else:
            self.more = True


class _Replacing:
    """The second half of a replace: the rows are sent, and what is there is looked at."""

    def __init__(
        self,
        target: Target,
        tally: Tally,
        run: Run,
        where: Mapping[str, Any],
        keys: RowKeys,
        rejected: list[str],
    ) -> None:
        self._target = target
        self._tally = tally
        self._run = run
        self._where = where
        self._keys = keys
        self._rejected = rejected

    def finish(self) -> None:
        """Prove that every row is there, then delete what is none of them."""
        with adding(_NOTHING_DELETED, self._tally):
            found = self._prove()
        with adding(_NOT_ALL_DELETED, self._tally):
            replaced = self._target.marks.replaced(self._run.load, self._run.token, self._where)
            self._delete(replaced)
            check_gone(self._target, self._tally, "replace", replaced, self._run.load)
            self._delete_surplus(found)

    def _prove(self) -> _Found:
        """Find every row: a 2xx may not promise all of a batch (U7).

        Rows that `where` does not find would never be replaced again, so they are taken out.
        """
        query = self._target.marks.of_load(self._run.load, self._where)
        found = self._look(query)
        for part in PAUSES if self._target.settle_seconds else ():
            if not found.missing:
                break
            self._target.sleep(part * self._target.settle_seconds)
            found = self._look(query)
        outside = 0
        if found.missing and self._where:
            everywhere = self._look(self._target.marks.of_load(self._run.load))
            outside = found.missing - everywhere.missing
        if outside:
            self._take_out(outside)
        if found.missing:
            raise self._unknown(
                f"of {self._tally.rows} documents, which were acknowledged or found, "
                f"{found.missing} were not read back"
            )
        if found.newer:
            raise self._unknown(
                "a newer run of the same replace has written other rows meanwhile, and they stay"
            )
        return found

    def _take_out(self, outside: int) -> None:
        rows = self._tally.rows
        self._delete(self._target.marks.of_run(self._run.load, self._run.token))
        self._tally.batches = 0  # nothing of this run is there
        raise ConfigurationError(
            f"replace in collection {self._target.collection!r}: where does not find {outside} of "
            f"the {rows} rows, so the next replace would not find them either. What was inserted "
            "has been removed again, and nothing else: give rows within where, or another where"
        )

    def _unknown(self, what: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"replace in collection {self._target.collection!r}: {what}",
            verb="batchwrite",
            collection=self._target.collection,
            load=self._run.load,
        )

    def _look(self, query: Mapping[str, Any]) -> _Found:
        """Compare the documents of the load with the rows, in memory that does not grow."""
        try:
            return self._look_by(query, "auto")
        except ReadInterrupted:
            pass
        # Copies that share one `_id` are in the way of a read that goes on by it.
        return self._look_by(query, "stream")

    def _look_by(self, query: Mapping[str, Any], strategy: Strategy) -> _Found:
        marks = self._target.marks
        found = _Found()
        known = self._keys.known()
        documents = self._target.find(query, project=marks.projection, strategy=strategy)
        for batch in documents:
            if marks.field in batch.schema.names:
                self._compare(batch.column(marks.field), known, found)
        self._tally.add_read(documents.report)
        known.see(prefixes_of(self._rejected))  # which nobody expects
        found.missing = known.missing()
        found.proved = documents.report is not None and documents.report.proved
        return found

    def _compare(self, notes: pa.StructArray, known: KnownKeys, found: _Found) -> None:
        keys = pc.struct_field(notes, "key").to_pylist()
        attempts = pc.struct_field(notes, "attempt").to_pylist()
        mine, before = known.see(prefixes_of(map(_as_key, keys)))
        found.kept.update(tried for tried, is_row in zip(attempts, mine, strict=True) if is_row)
        for at in np.flatnonzero(before).tolist():
            found.hold_copy(keys[at])
        newest = f"{self._run.token}ff"
        for at in np.flatnonzero(~mine).tolist():
            if str(attempts[at]) > newest:
                found.newer = True
            elif str(attempts[at]) < self._run.token:
                found.hold_stale(str(attempts[at]), str(keys[at]))

    def _delete_surplus(self, found: _Found) -> None:
        """Delete what of this load is no row of the frame, and all but one of several copies."""
        query = self._target.marks.of_load(self._run.load, self._where)
        while found.surplus:
            self._delete_stale(found)
            for part in _parts(list(found.copies), self._target.batch_rows):
                leave_one(self._target, self._tally, self._run.load, part)
            if not found.more and found.proved and self._target.verify != "always":
                return
            left = self._look(query)
            for pause in PAUSES if self._target.settle_seconds else ():
                if left.surplus < found.surplus:
                    break
                self._target.sleep(pause * self._target.settle_seconds)
                left = self._look(query)
            if left.surplus >= found.surplus:
                raise not_gone(self._target, "replace", self._run.load)
            found = left

    def _delete_stale(self, found: _Found) -> None:
        """Whole attempts where none of their rows stays, else by key.

        Attempts are named, so that a delete that arrives late hits nothing written since.
        """
        marks = self._target.marks
        whole = sorted(found.gone.keys() - found.kept)
        for part in _parts(whole, self._target.batch_rows):
            self._delete(marks.of_attempts(self._run.load, part, self._where))
        rest = [each for each in found.stale if each[0] in found.kept]
        for pairs in _parts(rest, self._target.batch_rows):
            attempts = sorted({tried for tried, _ in pairs})
            copies = marks.copies(self._run.load, [key for _, key in pairs], attempts)
            self._delete({"$and": [dict(self._where), copies]} if self._where else copies)

    def _delete(self, query: Mapping[str, Any]) -> None:
        self._tally.add(self._target.send(endpoints.batch_delete(self._target.collection, query)))


def _as_key(key: object) -> str:
    """A key of ours, or one that no row has: somebody may have written the field by hand."""
    if isinstance(key, str) and len(key) == 24 and set(key) <= _DIGITS:
        return key
    return "0" * 24


_DIGITS = frozenset("0123456789abcdef")


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
