"""Several documents of one row: which of them stays, and the removal of the others.

Happens where a request was applied twice, or long after it was read back as absent, or where two
runs of a load wrote at a time. Knows the notes in documents, and not what wrote them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from connectome_dagster.api import endpoints
from connectome_dagster.errors import OutcomeUnknown
from connectome_dagster.transfer.identity import winning
from connectome_dagster.transfer.target import Tally, Target

# By attempt, the `_id`s of the documents that have it.
_Copies = dict[str, list[Any]]


def leave_one(target: Target, tally: Tally, load: str, keys: Sequence[str]) -> int:
    """Remove all documents but one of each key.

    The latest run's first attempt stays. Of two documents of that attempt, which are the same, one
    is removed by its `_id`.

    Args:
        target: the collection.
        tally: told what it costs.
        load: the load id.
        keys: a bounded number of keys.

    Returns:
        How many documents were removed.

    Raises:
        OutcomeUnknown: two documents of one attempt cannot be told apart by their `_id`.
        ConnectomeError: the service refused, or could not be reached.
    """
    copies = _copies(target, tally, load, keys)
    losing: dict[tuple[str, ...], list[str]] = defaultdict(list)
    twins: dict[str, list[Any]] = {}
    removed = 0
    for key, found in copies.items():
        stays = winning(found)
        attempts = tuple(sorted(found.keys() - {stays}))
        removed += sum(len(found[tried]) for tried in attempts)
        if attempts:
            losing[attempts].append(key)
        if len(found[stays]) > 1:
            twins[key] = found[stays][1:]
    # By equal attempts, so that none is named of a key of which it stays.
    for attempts, of_keys in losing.items():
        query = target.marks.copies(load, of_keys, attempts)
        tally.add(target.send(endpoints.batch_delete(target.collection, query)))
    if twins:
        removed += _remove_twins(target, tally, load, twins)
    return removed


def _copies(target: Target, tally: Tally, load: str, keys: Sequence[str]) -> dict[str, _Copies]:
    """The attempts of each key that there is more than one document of."""
    marks = target.marks
    found = target.find(marks.of_keys(load, keys), project=marks.projection)
    copies: dict[str, _Copies] = defaultdict(lambda: defaultdict(list))
    for document in found.to_pylist():
        note = document.get(marks.field)
        if isinstance(note, Mapping):
            copies[str(note.get("key"))][str(note.get("attempt"))].append(document.get("_id"))
    tally.add_read(found.report)
    return {key: each for key, each in copies.items() if sum(map(len, each.values())) > 1}


def _remove_twins(target: Target, tally: Tally, load: str, twins: Mapping[str, list[Any]]) -> int:
    """Remove documents by their `_id`, in the form in which the service finds them (U4)."""
    ids = [each for of_key in twins.values() for each in of_key]
    mine = target.marks.of_keys(load, list(twins))
    for form in (ids, [{"$oid": each} for each in ids if isinstance(each, str)]):
        if not form or any(each is None for each in form):
            continue
        query = {**mine, "_id": {"$in": form}}
        if _count(target, tally, query) == len(ids):
            tally.add(target.send(endpoints.batch_delete(target.collection, query)))
            return len(ids)
    raise OutcomeUnknown(
        f"collection {target.collection!r}: {len(twins)} rows are there twice, and the service "
        "finds no document by the _id that it shows, so that one cannot be removed alone",
        verb="batchdelete",
        collection=target.collection,
        load=load,
        keys=list(twins),
    )


def _count(target: Target, tally: Tally, query: Mapping[str, Any]) -> int:
    found = target.find(query, project=target.marks.projection)
    documents: Iterable[object] = found.to_pylist()
    tally.add_read(found.report)
    return len(list(documents))
