"""Frames into collections: append, upsert, and the single calls.

Knows which calls make a write, not how they travel; how the rows of a load are inserted stands in
`load`. What is promised: an unknown outcome is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    DuplicateKeys,
    OutcomeUnknown,
)
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer.contents import checked_key
from connectome_dagster.transfer.identity import PlaceKeys, RowKeys, load_id
from connectome_dagster.transfer.keys import KeyColumns, KeyedRow
from connectome_dagster.transfer.load import (
    Form,
    Load,
    as_ids_of,
    batches_for,
    new_run,
    run_of,
)
from connectome_dagster.transfer.report import WriteReport
from connectome_dagster.transfer.rows import (
    Frame,
    batches_of,
    count_of,
    encoded,
    is_in_memory,
)
from connectome_dagster.transfer.sending import send_all
from connectome_dagster.transfer.target import Tally, Target

# A row of an upsert whose outcome stays unknown is sent this often in all, each time after it was
# read back as absent or different.
UPSERT_ATTEMPTS = 3


def append(
    target: Target,
    frame: Frame,
    *,
    load: str | None = None,
    key: Sequence[str] | None = None,
    on_reject: str = "fail",
    encoding: Encoding = DEFAULT_ENCODING,
) -> WriteReport:
    """Insert every row of the frame (F7), those that are not there yet if it has a load."""
    tally = Tally()
    columns = checked_key(key)
    call = endpoints.batch_write(target.collection, b"[]")
    noted = target.idempotency != "none"
    lasting = load is not None and noted
    target.check_credentials(call, reads_back=lasting or target.idempotency == "id")
    run = new_run(target) if noted else None
    mine = None if run is None else run.load
    if load is not None and noted:
        mine = load_id(target.collection, load)
    form = Form(mine, columns, encoding)
    keys = _keys(mine, by_place=not lasting and columns is None)
    batches = batches_for(target, frame, form, keys)
    first = next(batches, None)
    if first is not None and lasting and mine is not None:
        run = run_of(target, tally, mine)
    loading = Load(target, tally, run, as_ids=as_ids_of(target, form))
    if first is not None:
        loading.insert(chain([first], batches))
    rejected = loading.check_rejected(on_reject)
    return tally.report(
        target,
        "append",
        rows=tally.rows + len(rejected),
        inserted=loading.inserted,
        unchanged=loading.unchanged if lasting else None,
        rejected=rejected,
        load=mine,
        guarantee=target.guarantee,
    )


def _keys(load: str | None, *, by_place: bool) -> RowKeys | PlaceKeys | None:
    if load is None:
        return None
    return PlaceKeys(load) if by_place else RowKeys(load)


def upsert(target: Target, frame: Frame, on: Sequence[str]) -> WriteReport:
    """Update the document of each row's key, or create it (F6); one request per row."""
    tally = Tally()
    probe = endpoints.update(target.collection, {}, {}, upsert=True)
    target.check_credentials(probe, reads_back=False)
    if is_in_memory(frame):
        for _ in _keyed(frame, on):
            pass

    def send(row: KeyedRow) -> None:
        _upsert_row(target, row, tally)
        tally.add_row()

    rows = _keyed(frame, on)
    send_all(send, rows, lambda row: f"row {row.row}", target.concurrency, tally)
    return tally.report(target, "upsert")


def _keyed(frame: Frame, on: Sequence[str]) -> Iterator[KeyedRow]:
    keys = KeyColumns(on)
    row = 0
    for batch in batches_of(frame):
        yield from keys.rows(batch, row)
        row += count_of(batch)


def _upsert_row(target: Target, row: KeyedRow, tally: Tally) -> None:
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
    tally: Tally,
    doubt: OutcomeUnknown,
) -> bool:
    """Read the key back: one document at most may have it, and it has the row's values or not."""
    if target.credentials.read is None:
        raise doubt.saying("There is no read credential to look with")
    found = target.find(key, limit=2, strategy="stream")
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
    tally = Tally(rows=rows, batches=batches)
    tally.add(target.send(call))
    return tally.report(target, operation, **known)
