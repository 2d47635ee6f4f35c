"""Two writes at the same time: what is there after both have ended.

Processes of their own, released at one moment; how their requests mix is up to the machine, so each
case is run several times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from connectome_dagster import Connectome
from connectome_dagster.errors import ConnectomeError, DuplicateKeys
from tests.faults.test_kill import SECONDS, _processes
from tests.transfer.conftest import Local
from tests.transfer.test_write import canonical

ROWS = [{"day": "mon", "sku": sku, "n": sku * 10} for sku in range(12)]
OTHER = [{"day": "mon", "sku": sku, "n": sku * 100} for sku in range(6, 20)]
KEPT = [{"day": "tue", "sku": 7, "n": 7}]
OLD = [*KEPT, {"day": "mon", "sku": 1, "n": 0}]

TIMES = 4

WRITES: dict[str, Callable[[Any, list[dict[str, Any]]], object]] = {
    "append": lambda things, rows: things.append(rows, load="monday"),
    "replace": lambda things, rows: things.replace(rows, {"day": "mon"}),
    "sync": lambda things, rows: things.sync(rows, on=["sku"], where={"day": "mon"}, load="monday"),
    "upsert": lambda things, rows: things.upsert(rows, on=["sku"]),
}


def write(
    name: str,
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
    collection: str,
    start: Any,
    ended: Any,
) -> None:
    with Connectome(batch_rows=3, concurrency=2, **settings) as connectome:
        things = connectome.collection(collection)
        start.wait(SECONDS)
        try:
            WRITES[name](things, rows)
        except ConnectomeError as error:
            ended.put(type(error).__name__)
        else:
            ended.put("")


def side_by_side(
    local: Local, name: str, frames: list[list[dict[str, Any]]], collection: str, mode: str
) -> list[str]:
    """Write all frames at a time; return the errors that were raised, empty for none."""
    settings = {
        "base_url": local.server.base_url,
        "read_credential": local.server.read_credential,
        "write_credential": local.server.write_credential,
        "idempotency": mode,
        "settle_seconds": 0.02,
    }
    start, ended = _processes.Barrier(len(frames)), _processes.Queue()
    processes = [
        _processes.Process(target=write, args=(name, rows, settings, collection, start, ended))
        for rows in frames
    ]
    for process in processes:
        process.start()
    errors = [ended.get(timeout=SECONDS) for _ in processes]
    for process in processes:
        process.join(SECONDS)
    ended.close()
    local.server.quiesce()
    return errors


@pytest.mark.parametrize("mode", ["field", "id"])
def test_one_load_that_is_appended_twice_at_a_time_is_there_once(local: Local, mode: str) -> None:
    for _ in range(TIMES):
        things = local.collection(OLD, idempotency=mode)
        assert side_by_side(local, "append", [ROWS, ROWS], things.id, mode) == ["", ""]
        if mode == "field":  # both may have found nothing, so both have written
            things.reconcile(load="monday")
        assert canonical(local.documents(things)) == canonical([*OLD, *ROWS])


@pytest.mark.parametrize("mode", ["field", "id"])
def test_of_two_replaces_by_the_same_rows_their_rows_stay(local: Local, mode: str) -> None:
    for _ in range(TIMES):
        things = local.collection(OLD, idempotency=mode)
        errors = side_by_side(local, "replace", [ROWS, ROWS], things.id, mode)
        if errors != ["", ""]:
            WRITES["replace"](things, ROWS)
        assert canonical(local.documents(things)) == canonical([*KEPT, *ROWS])


@pytest.mark.parametrize("mode", ["field", "id"])
def test_of_two_replaces_by_other_rows_one_wins(local: Local, mode: str) -> None:
    """Where both report success, one has won; else an error says that it has to be run again."""
    for _ in range(TIMES):
        things = local.collection(OLD, idempotency=mode)
        errors = side_by_side(local, "replace", [ROWS, OTHER], things.id, mode)
        there = canonical(local.documents(things))
        assert sum(there.values()) >= len(ROWS) + len(KEPT), "neither has won"
        won = [canonical([*KEPT, *rows]) for rows in (ROWS, OTHER)]
        if errors == ["", ""]:
            assert there in won
        elif "" in errors:  # what the one that was overtaken wrote last may be there as well
            assert any(there >= each for each in won)
        WRITES["replace"](things, OTHER)
        assert canonical(local.documents(things)) == canonical([*KEPT, *OTHER])


def test_two_upserts_of_one_key_may_both_insert_and_a_sync_says_so(local: Local) -> None:
    """Upserts of one key are kept apart by a unique index alone, and there may be none."""
    for _ in range(TIMES):
        things = local.collection()
        errors = side_by_side(local, "upsert", [ROWS, ROWS], things.id, "field")
        assert set(errors) <= {"", "DuplicateKeys"}
        keys = Counter(document["sku"] for document in local.documents(things))
        assert keys.keys() == {row["sku"] for row in ROWS}
        assert max(keys.values()) <= 2
        if max(keys.values()) == 2:
            with pytest.raises(DuplicateKeys):
                things.sync(ROWS, on=["sku"])
