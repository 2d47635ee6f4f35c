"""Reconcile: of each row of a load one document stays, whatever happened while it was written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from connectome_dagster.api import endpoints
from connectome_dagster.errors import ConfigurationError, OutcomeUnknown
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer import reconcile as reconciling
from connectome_dagster.transfer.collection import Connectome
from connectome_dagster.transfer.identity import attempt, attempt_token, load_id
from connectome_dagster.transfer.reconcile import reconcile
from connectome_dagster.transfer.write import append
from tests.transfer.conftest import ToTarget

ROWS = [{"n": n} for n in range(25)]
EARLIER, LATER = (attempt_token(ms, 0) for ms in (1, 2))


def bare(server: ConnectomeServer, collection: str) -> list[dict[str, Any]]:
    return sorted(
        (
            {name: value for name, value in one.items() if name not in ("_id", "_dagster")}
            for one in server.documents(collection)
        ),
        key=lambda one: str(sorted(one.items())),
    )


def noted(load: str, row: dict[str, Any], tried: str, **more: Any) -> dict[str, Any]:
    return {**row, **more, "_dagster": {"load": load, "key": f"{row['n']:024x}", "attempt": tried}}


def test_copies_of_rows_are_removed_and_a_second_time_finds_nothing(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection()
    target = to_target(collection, settle_seconds=0.0, concurrency=1)
    load = load_id(collection, "today")
    connectome_server.faults.add("twice", verb="batchwrite", nth=2)
    append(target, ROWS, load="today")
    assert len(connectome_server.documents(collection)) == 35

    report = reconcile(target, load)
    again = reconcile(target, load)

    assert bare(connectome_server, collection) == sorted(ROWS, key=lambda one: str(one["n"]))
    assert (report.rows, report.deleted) == (35, 10)
    assert (again.rows, again.deleted) == (25, 0)


def test_what_landed_after_it_was_found_absent_is_removed(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection()
    target = to_target(collection, settle_seconds=0.0)
    connectome_server.faults.add("later", verb="batchwrite", nth=1, seconds=0.3, status=504)

    append(target, ROWS, load="today")
    connectome_server.quiesce()
    surplus = len(connectome_server.documents(collection)) - len(ROWS)
    report = reconcile(target, load_id(collection, "today"))

    assert surplus > 0
    assert report.deleted == surplus
    assert bare(connectome_server, collection) == sorted(ROWS, key=lambda one: str(one["n"]))


def test_the_latest_run_s_first_attempt_stays(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    load = "ab" * 12
    tries = [attempt(EARLIER, 1), attempt(LATER, 2), attempt(LATER, 1), attempt(LATER, 3)]
    collection = connectome_server.collection([noted(load, {"n": 1}, each) for each in tries])

    reconcile(to_target(collection, settle_seconds=0.0), load)

    (left,) = connectome_server.documents(collection)
    assert left["_dagster"]["attempt"] == attempt(LATER, 1)


def test_an_attempt_that_loses_for_one_row_is_kept_where_it_wins(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    load = "ab" * 12
    one, two, three = (attempt(LATER, number) for number in (1, 2, 3))
    documents = [
        *(noted(load, {"n": 1}, each) for each in (one, two)),
        *(noted(load, {"n": 2}, each) for each in (two, three)),
        *(noted(load, {"n": 3}, each) for each in (one, three)),
    ]
    collection = connectome_server.collection(documents)

    reconcile(to_target(collection, settle_seconds=0.0), load)

    left = {one["n"]: one["_dagster"]["attempt"] for one in connectome_server.documents(collection)}
    assert left == {1: one, 2: two, 3: one}


def test_other_loads_and_documents_without_a_note_are_left_alone(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    mine, other = "ab" * 12, "cd" * 12
    tried = attempt(LATER, 1)
    kept = [{"n": 1}, {"n": 1}, noted(other, {"n": 1}, tried), noted(other, {"n": 1}, tried)]
    collection = connectome_server.collection(
        [*kept, noted(mine, {"n": 1}, tried), noted(mine, {"n": 1}, attempt(LATER, 2))]
    )

    reconcile(to_target(collection, settle_seconds=0.0), mine)

    assert len(connectome_server.documents(collection)) == len(kept) + 1


def test_a_part_of_a_load_can_be_looked_at_alone(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    load = "ab" * 12
    tries = [attempt(LATER, number) for number in (1, 2)]
    collection = connectome_server.collection(
        [noted(load, {"n": n}, each, day=n) for n in (1, 2) for each in tries]
    )

    report = reconcile(to_target(collection, settle_seconds=0.0), load, where={"day": 1})

    assert report.deleted == 1
    assert sorted(one["n"] for one in connectome_server.documents(collection)) == [1, 2, 2]


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"id_form": "oid"},
        {"id_form": "objectid"},
        {"id_form": "absent"},
        {"page_cap": 7},
        {"response_path": "data"},
        {"client_id": "any"},
        {"stale_seconds": 0.05},
    ],
    ids=str,
)
def test_twins_of_one_attempt_are_told_apart_whatever_an_id_is(
    connectome_server: ConnectomeServer, to_target: ToTarget, switches: dict[str, Any]
) -> None:
    connectome_server.switches(**switches)
    collection = connectome_server.collection()
    target = to_target(collection, settle_seconds=0.2)
    load = "ab" * 12
    rows = [noted(load, {"n": n, "big": 2**60 + 1, "half": 0.5}, attempt(LATER, 1)) for n in (1, 2)]
    connectome_server.faults.add("twice", verb="batchwrite", nth=1)
    target.send(endpoints.batch_write(collection, _json(rows)))
    written = target.find(target.marks.of_load(load), strategy="stream")
    until(lambda: len(written.to_pylist()) == 4)

    report = reconcile(target, load)

    assert bare(connectome_server, collection) == [
        {"n": n, "big": 2**60 + 1, "half": 0.5} for n in (1, 2)
    ]
    assert report.deleted is not None
    assert report.deleted >= 2


def test_twins_that_have_one_id_are_told_apart_by_a_new_copy(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    connectome_server.switches(client_id="any")
    collection = connectome_server.collection()
    target = to_target(collection, settle_seconds=0.0)
    load, key = "ab" * 12, f"{1:024x}"
    row = noted(load, {"n": 1}, attempt(LATER, 1), _id=key)
    target.send(endpoints.batch_write(collection, _json([row, row])))

    reconcile(target, load)

    (left,) = connectome_server.documents(collection)
    assert (left["_id"], left["n"]) == (key, 1)


def test_it_asks_again_for_more_keys_than_it_holds(
    connectome_server: ConnectomeServer, to_target: ToTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "MAX_HELD_KEYS", 4)
    load = "ab" * 12
    collection = connectome_server.collection(
        [noted(load, {"n": n}, attempt(LATER, number)) for n in range(9) for number in (1, 2)]
    )

    report = reconcile(to_target(collection, settle_seconds=0.0), load)

    assert report.deleted == 9
    assert len(connectome_server.documents(collection)) == 9


def test_where_deletes_do_nothing_it_says_so(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    load = "ab" * 12
    collection = connectome_server.collection(
        [noted(load, {"n": 1}, attempt(LATER, number)) for number in (1, 2)]
    )
    target = to_target(collection, settle_seconds=0.0)
    connectome_server.faults.add("partial", verb="batchdelete", every=1, documents=0, status=200)

    with pytest.raises(OutcomeUnknown, match="body of a DELETE"):
        reconcile(target, load)


def test_it_needs_both_credentials_before_anything_is_sent(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection()

    for missing in ({"read": None}, {"write": None}):
        with pytest.raises(ConfigurationError, match="credential"):
            reconcile(to_target(collection, **missing), "ab" * 12)
    assert connectome_server.log == []


def test_a_load_is_named_by_its_words_or_by_its_id(connectome_server: ConnectomeServer) -> None:
    id_ = connectome_server.collection()
    with Connectome(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
        settle_seconds=0.0,
    ) as connectome:
        movies = connectome.collection(id_)
        connectome_server.faults.add("twice", verb="batchwrite", every=1)
        by_words = movies.append(ROWS, load="today")
        by_chance = movies.append(ROWS)
        assert movies.reconcile("today").deleted == 25
        assert movies.reconcile(load_id=by_words.load).deleted == 0
        assert movies.reconcile(load_id=by_chance.load).deleted == 25
        for wrong in ({}, {"load": "today", "load_id": "7f"}):
            with pytest.raises(ConfigurationError, match="load_id"):
                movies.reconcile(**wrong)

    assert len(connectome_server.documents(id_)) == 50


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline


def _json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows).encode()
