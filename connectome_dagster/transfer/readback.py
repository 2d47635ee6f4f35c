"""Looks at what is there: bounded reads that a write asks about its own rows.

One request each, which a hidden cap (U5) may cut short: whoever asks knows what is still missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectome_dagster.errors import OutcomeUnknown, ReadInterrupted
from connectome_dagster.transfer.target import Tally, Target

# The parts of `settle_seconds` after which it is looked again for what is not found: soon, in case
# it takes no time, and at the end for certain.
PAUSES = (0.1, 0.3, 0.6)


def read(
    target: Target, tally: Tally, query: Mapping[str, Any], **options: Any
) -> list[dict[str, Any]]:
    """Read a bounded number of documents in one request; again where the answer breaks off."""
    for left in reversed(range(target.max_attempts)):
        found = target.find(query, strategy="stream", **options)
        try:
            documents = found.to_pylist()
        except ReadInterrupted:
            if not left:
                raise
            tally.add_retry()
            continue
        tally.add_read(found.report)
        return documents
    raise AssertionError("max_attempts is at least 1")


def note_of(document: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """The note in a document; an empty one where there is none."""
    note = document.get(field)
    return note if isinstance(note, Mapping) else {}


def check_gone(
    target: Target,
    tally: Tally,
    operation: str,
    query: Mapping[str, Any],
    load: str | None = None,
) -> None:
    """Look, where that is asked for, whether a delete has removed what it should (U11).

    Raises:
        OutcomeUnknown: it has not.
    """
    if target.verify != "always":
        return
    for part in (0.0, *(PAUSES if target.settle_seconds else ())):
        target.sleep(part * target.settle_seconds)
        if not read(target, tally, query, project={"_id": 1}, limit=1):
            return
    raise not_gone(target, operation, load)


def not_gone(target: Target, operation: str, load: str | None = None) -> OutcomeUnknown:
    """The error for what a delete has left."""
    return OutcomeUnknown(
        f"{operation} in collection {target.collection!r}: a delete was acknowledged, and what it "
        "should have removed is still there; a proxy on the way may drop the body of a DELETE "
        "(connectome probe finds out)",
        verb="batchdelete",
        collection=target.collection,
        load=load,
    )
