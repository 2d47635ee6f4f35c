"""One run of a load: which load, which attempts, and whether there was a run before.

Nothing is kept outside of the collection: what an earlier run has written tells of it, to another
process on another day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connectome_dagster.transfer.identity import attempt_token, load_id
from connectome_dagster.transfer.readback import note_of, read
from connectome_dagster.transfer.target import Tally, Target


@dataclass(frozen=True)
class Run:
    """One run of a load.

    Attributes:
        load: the load id.
        token: what each of its attempts begins with.
        fresh: whether nothing of this load was there before.
    """

    load: str
    token: str
    fresh: bool


def run_of(target: Target, tally: Tally, load: str, where: Mapping[str, Any] | None = None) -> Run:
    """Begin a run of a load: find out whether there was one before.

    Args:
        target: the collection.
        tally: told what the look costs.
        load: the load id.
        where: what else the run will look at; its attempts are greater than all that are there.

    Raises:
        ConnectomeError: the service refused, or could not be reached.
    """
    marks = target.marks
    mine = marks.of_load(load)
    look = {"project": {marks.load: 1, marks.attempt: 1}, "sort": {marks.attempt: -1}, "limit": 1}
    found = read(target, tally, mine if where is None else _either(where, mine), **look)
    note = note_of(found[0], marks.field) if found else {}
    seen = note.get("attempt", "")
    fresh = note.get("load") != load
    if fresh and seen:  # another load has the greatest attempt, and this one may have others
        fresh = not read(target, tally, mine, **look)
    return Run(load, _token(target, seen if isinstance(seen, str) else ""), fresh)


def new_run(target: Target) -> Run:
    """Begin a load that there was never a run of, and never will be another."""
    load = load_id(target.collection, f"{target.random_bits(128):032x}")
    return Run(load, _token(target), fresh=True)


def _token(target: Target, seen: str = "") -> str:
    return attempt_token(int(target.now() * 1000), target.random_bits(20), seen)


def _either(where: Mapping[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    return {"$or": [dict(where), mine]} if where else {}
