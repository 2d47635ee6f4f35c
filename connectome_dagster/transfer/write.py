"""Frames into collections: append, and the single calls.

Knows which calls make a write, not how they travel; how the rows of a load are inserted stands in
`load`. What is promised: an unknown outcome is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

from connectome_dagster.api import endpoints
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer.contents import checked_key
from connectome_dagster.transfer.form import Form, as_ids_of, batches_for
from connectome_dagster.transfer.identity import PlaceKeys, RowKeys, load_id
from connectome_dagster.transfer.load import Load
from connectome_dagster.transfer.readback import check_gone
from connectome_dagster.transfer.report import WriteReport
from connectome_dagster.transfer.rows import Frame, encoded
from connectome_dagster.transfer.run import new_run, run_of
from connectome_dagster.transfer.sending import adding
from connectome_dagster.transfer.target import Tally, Target

_AGAIN = "Running it again with the same load sends only what is missing"


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
        with adding(_AGAIN, tally) if lasting else nullcontext():
            loading.insert(chain([first], batches))
    rejected = loading.refusals.check(on_reject)
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
    call = endpoints.batch_delete(target.collection, query)
    target.check_credentials(call, reads_back=target.verify == "always")
    tally = Tally()
    tally.add(target.send(call))
    check_gone(target, tally, "delete", query)
    return tally.report(target, "delete")


def _single(
    target: Target, operation: str, call: Call, *, rows: int = 0, batches: int = 0, **known: Any
) -> WriteReport:
    tally = Tally(rows=rows, batches=batches)
    tally.add(target.send(call))
    return tally.report(target, operation, **known)
