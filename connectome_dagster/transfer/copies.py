"""Several documents of one row: which of them stays, and the removal of the others.

Happens where a request was applied twice, or long after it was read back as absent, or where two
runs of a load wrote at a time. Knows the notes in documents, and not what wrote them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.errors import OutcomeUnknown, QueryError, ReadInterrupted
from connectome_dagster.transfer.identity import attempt, attempt_token, winning
from connectome_dagster.transfer.readback import PAUSES, note_of, read
from connectome_dagster.transfer.target import Tally, Target

_log = logging.getLogger(__name__)

# By attempt, the `_id`s of the documents that have it.
_Copies = dict[str, list[Any]]


def leave_one(target: Target, tally: Tally, load: str, keys: Sequence[str]) -> None:
    """Remove all documents but one of each key.

    The latest run's first attempt stays. Of two documents of that attempt, which are the same, one
    is removed by its `_id`; where no filter finds that (U4), the row is inserted once more, and
    both are removed when the new one is found.

    Args:
        target: the collection.
        tally: told what it costs.
        load: the load id.
        keys: a bounded number of keys.

    Raises:
        ConnectomeError: the service refused, or could not be reached.
    """
    copies = _copies(target, tally, load, keys)
    _delete(target, tally, load, {key: found.keys() - {winning(found)} for key, found in
                                  copies.items()})  # fmt: skip
    twins = _twins(copies)
    if not twins or _removed_by_id(target, tally, load, twins):
        return
    # A read may have shown what somebody has just removed (U13).
    target.sleep(target.settle_seconds)
    twins = _twins(_copies(target, tally, load, list(twins)))
    if twins:
        _renew(target, tally, load, list(twins))


def _twins(copies: Mapping[str, _Copies]) -> dict[str, list[Any]]:
    """The `_id`s of several documents of the attempt that stays, in one order whoever looks."""
    staying = {key: found[winning(found)] for key, found in copies.items()}
    return {key: sorted(ids, key=str) for key, ids in staying.items() if len(ids) > 1}


def _copies(target: Target, tally: Tally, load: str, keys: Sequence[str]) -> dict[str, _Copies]:
    """The attempts of each key that there is more than one document of."""
    marks = target.marks
    query = marks.of_keys(load, keys)
    exact = target.find(query, project=marks.projection)
    try:
        documents = exact.to_pylist()
        tally.add_read(exact.report)
    except ReadInterrupted:
        documents = []
    # Where two documents share one `_id`, no read can go on by it.
    documents = documents or read(target, tally, query, project=marks.projection)
    copies: dict[str, _Copies] = defaultdict(lambda: defaultdict(list))
    for document in documents:
        note = note_of(document, marks.field)
        copies[str(note.get("key"))][str(note.get("attempt"))].append(document.get("_id"))
    return {key: each for key, each in copies.items() if sum(map(len, each.values())) > 1}


def _delete(target: Target, tally: Tally, load: str, losing: Mapping[str, Iterable[str]]) -> None:
    """Delete these attempts of each key: keys that lose the same ones in one request."""
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, attempts in losing.items():
        together[tuple(sorted(attempts))].append(key)
    for attempts, keys in together.items():
        if attempts:
            query = target.marks.copies(load, keys, attempts)
            tally.add(target.send(endpoints.batch_delete(target.collection, query)))


def _removed_by_id(target: Target, tally: Tally, load: str, twins: Mapping[str, list[Any]]) -> bool:
    """Remove all but one of documents that are the same by `_id`, if the service finds it (U4)."""
    ids = [each for of_key in twins.values() for each in of_key[1:]]
    if any(not isinstance(each, str) for each in ids):
        return False
    if any(of_key[0] in of_key[1:] for of_key in twins.values()):
        return False  # by its `_id`, the one that stays would go as well
    mine = target.marks.of_keys(load, list(twins))
    for form in (ids, [{"$oid": each} for each in ids]):
        query = {**mine, "_id": {"$in": form}}
        try:
            found = read(target, tally, query, project=target.marks.projection)
        except QueryError:  # it takes no Extended JSON
            continue
        if len(found) == len(ids):
            tally.add(target.send(endpoints.batch_delete(target.collection, query)))
            return True
    return False


def _renew(target: Target, tally: Tally, load: str, keys: Sequence[str]) -> None:
    """Insert each row once more, as the latest run's, and remove the copies before it.

    Nothing is removed until the new document is found, so that there is no moment without the row.
    """
    marks = target.marks
    rows: dict[str, dict[str, Any]] = {}
    tried: dict[str, set[str]] = defaultdict(set)
    for document in read(target, tally, marks.of_keys(load, keys)):
        note = note_of(document, marks.field)
        rows[str(note.get("key"))] = document
        tried[str(note.get("key"))].add(str(note.get("attempt")))
    latest = max(chain.from_iterable(tried.values()), default="")
    token = attempt_token(int(target.now() * 1000), target.random_bits(20), latest)
    for key, document in rows.items():
        document[marks.field] = {"load": load, "key": key, "attempt": attempt(token, 1)}
        if document.get("_id") != key:  # else it is the row's own, by idempotency="id"
            document.pop("_id", None)
    _insert(target, tally, list(rows.values()))
    found: set[str] = set()
    for part in (0.0, *PAUSES):
        target.sleep(part * target.settle_seconds)
        there = read(target, tally, marks.of_run(load, token), project=marks.projection)
        found = {str(note_of(document, marks.field).get("key")) for document in there}
        if found >= rows.keys():
            break
    _delete(target, tally, load, {key: tried[key] for key in found if key in tried})


def _insert(target: Target, tally: Tally, rows: Sequence[Mapping[str, Any]]) -> None:
    """Send rows once; what has become of them is seen by who looks for them next."""
    call = endpoints.batch_write(target.collection, _ENCODER.encode(rows))
    try:
        tally.add(target.send(call))
    except OutcomeUnknown:
        tally.add_unanswered(call)
        _log.info("batchwrite of collection %r: its outcome is looked for", target.collection)


# Numbers beyond floats stay the numbers that they are.
_ENCODER = msgspec.json.Encoder(decimal_format="number")
