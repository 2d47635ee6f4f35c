"""Finds the rows of a load that are there more than once, and leaves one document of each.

Reads keys and attempts alone, in memory that grows by 16 bytes a row at most. Which document stays
is decided in `copies`, as everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.api import endpoints
from connectome_dagster.errors import OutcomeUnknown, ReadInterrupted
from connectome_dagster.transfer.compare import Digests, together
from connectome_dagster.transfer.copies import leave_one
from connectome_dagster.transfer.identity import DigestSet
from connectome_dagster.transfer.report import WriteReport
from connectome_dagster.transfer.search import Strategy
from connectome_dagster.transfer.target import Tally, Target

_log = logging.getLogger(__name__)

# Keys of surplus documents that are held at a time, some megabytes; of more of them, the others
# are found when these are gone.
MAX_HELD_KEYS = 1 << 16

# Keys whose documents are looked at in one request.
KEYS_PER_LOOK = 500

_KEY = "^[0-9a-f]{24}$"


def reconcile(target: Target, load: str, *, where: Mapping[str, Any] | None = None) -> WriteReport:
    """Remove all documents of a load but one for each row; see `Collection.reconcile`.

    Args:
        target: the collection.
        load: the load id.
        where: a MongoDB filter for the part of the load that is looked at.
    """
    tally = Tally()
    query = target.marks.of_load(load, where)
    target.check_credentials(endpoints.batch_delete(target.collection, query), reads_back=True)
    found = _look(target, tally, query)
    rows, removed = found.rows, 0
    for _ in range(target.max_attempts):
        if not found.surplus:
            return tally.report(
                target,
                "reconcile",
                rows=rows,
                deleted=removed,
                load=load,
                guarantee="enforced" if target.idempotency == "id" else "verified",
            )
        keys = list(found.keys)
        for at in range(0, len(keys), KEYS_PER_LOOK):
            leave_one(target, tally, load, keys[at : at + KEYS_PER_LOOK])
        target.sleep(target.settle_seconds if removed else 0.0)
        before, found = found, _look(target, tally, query)
        removed += max(0, before.surplus - found.surplus)
    raise OutcomeUnknown(
        f"reconcile in collection {target.collection!r}: {found.surplus} surplus documents of load "
        f"{load} are still found after they were deleted {target.max_attempts} times: something on "
        "the way may drop the body of a DELETE (run `connectome probe`), or a write of this load "
        "is still going on: run it again when that has ended",
        verb="batchdelete",
        collection=target.collection,
        load=load,
        keys=list(found.keys)[:KEYS_PER_LOOK],
    )


@dataclass
class _Found:
    """What one look at a load has found.

    Attributes:
        rows: documents of the load.
        surplus: documents beyond the first of each key.
        keys: keys that have such, as many as are held.
    """

    rows: int = 0
    surplus: int = 0
    keys: dict[str, None] = field(default_factory=dict)


def _look(target: Target, tally: Tally, query: Mapping[str, Any]) -> _Found:
    try:
        return _look_by(target, tally, query, "auto")
    except ReadInterrupted:
        pass
    # Twins that share one `_id` are in the way of a read that goes on by it; one request may be
    # cut short by a cap (U5), and then shows the others when these are gone.
    return _look_by(target, tally, query, "stream")


def _look_by(target: Target, tally: Tally, query: Mapping[str, Any], strategy: Strategy) -> _Found:
    found = _Found()
    seen = DigestSet()
    documents = target.find(query, project=target.marks.projection, strategy=strategy)
    for batch in documents:
        if target.marks.field in batch.schema.names:
            keys = _keys(batch.column(target.marks.field))
            found.rows += len(keys)
            again = np.flatnonzero(seen.add(_digests(keys)))
            found.surplus += len(again)
            for at in again.tolist():
                if len(found.keys) < MAX_HELD_KEYS:
                    found.keys[keys[at]] = None
    tally.add_read(documents.report)
    return found


def _keys(notes: pa.Array) -> list[str]:
    """The keys of notes; what somebody else has put in their place is none of a row."""
    if not pa.types.is_struct(notes.type) or notes.type.get_field_index("key") < 0:
        return []
    keys = pc.struct_field(notes, "key")
    if not pa.types.is_string(keys.type):
        return []
    kept: list[str] = keys.filter(pc.match_substring_regex(keys, _KEY)).to_pylist()
    return kept


def _digests(keys: Sequence[str]) -> Digests:
    """64 bits of all 96 of each key: keys by place begin alike."""
    halves = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint32).reshape(-1, 3)
    return together([halves[:, at].astype(np.uint64) for at in range(3)])
