"""Sync: what is new is inserted, what changed is updated, and nothing else is sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.api import endpoints
from connectome_dagster.errors import (
    ConfigurationError,
    DuplicateKeys,
    EncodeError,
    OutcomeUnknown,
    RowsRejected,
)
from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer import current
from connectome_dagster.transfer.collection import Connectome
from connectome_dagster.transfer.compare import changed_fields
from connectome_dagster.transfer.identity import RowKeys, load_id
from connectome_dagster.transfer.reconcile import reconcile
from connectome_dagster.transfer.sync import sync
from connectome_dagster.transfer.write import append
from tests.transfer.conftest import ToTarget

ROWS = [{"sku": n, "name": f"thing {n}", "price": n / 2} for n in range(40)]


def bare(server: ConnectomeServer, collection: str) -> list[dict[str, Any]]:
    return sorted(
        (
            {name: value for name, value in one.items() if name not in ("_id", "_dagster")}
            for one in server.documents(collection)
        ),
        key=lambda one: str(one.get("sku")).zfill(8),
    )


def written(server: ConnectomeServer) -> list[str]:
    return [entry.verb for entry, _ in server.changes]


def frames(rows: list[dict[str, Any]]) -> list[Any]:
    return [
        rows,
        pa.Table.from_pylist(rows),
        pd.DataFrame(rows),
        pa.Table.from_pylist(rows).to_reader(7),
        (row for row in rows),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_what_is_there_in_the_end_is_what_the_frame_says(
    connectome_server: ConnectomeServer, to_target: ToTarget, kind: int
) -> None:
    before = [{**row, "name": "old"} if row["sku"] % 5 == 0 else row for row in ROWS[:30]]
    collection = connectome_server.collection(before)

    report = sync(to_target(collection), frames(ROWS)[kind], ["sku"])

    assert bare(connectome_server, collection) == ROWS
    assert (report.rows, report.inserted, report.updated, report.unchanged) == (40, 10, 6, 24)
    assert report.deleted == 0


@pytest.mark.parametrize("kind", range(5))
def test_what_is_the_same_sends_nothing_but_reads(
    connectome_server: ConnectomeServer, to_target: ToTarget, kind: int
) -> None:
    collection = connectome_server.collection(ROWS)

    report = sync(to_target(collection), frames(ROWS)[kind], ["sku"])

    assert (report.inserted, report.updated, report.unchanged) == (0, 0, 40)
    assert connectome_server.changes == []


def test_only_the_fields_that_differ_are_sent(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{"sku": 1, "name": "a", "price": 1, "mine": "x"}])

    sync(to_target(collection), [{"sku": 1, "name": "a", "price": 2}], ["sku"])

    assert bare(connectome_server, collection) == [{"sku": 1, "name": "a", "price": 2, "mine": "x"}]
    (update,) = [entry for entry, _ in connectome_server.changes]
    assert (
        update.request_bytes
        < len('{"search query":{"sku":1},"data":{"price":2},"upsert":false}') + 4
    )


def test_a_document_that_was_edited_by_hand_counts_as_changed(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection()
    target = to_target(collection)
    sync(target, ROWS, ["sku"])
    target.send(endpoints.update(collection, {"sku": 3}, {"name": "edited"}, upsert=False))

    report = sync(target, ROWS, ["sku"])

    assert (report.updated, report.unchanged) == (1, 39)
    assert bare(connectome_server, collection) == ROWS


KEYS: list[tuple[list[str], list[dict[str, Any]]]] = [
    (["k"], [{"k": "a"}, {"k": "b"}, {"k": 'ä\u2028"\\'}, {"k": ""}]),
    (["k"], [{"k": 1}, {"k": 2**62}, {"k": -5}, {"k": 0}]),
    (["k"], [{"k": 1.5}, {"k": 2.0}, {"k": -0.0}]),
    (["k"], [{"k": True}, {"k": False}]),
    (["k"], [{"k": 1}, {"k": "1"}, {"k": True}]),
    (["k"], [{"k": dt.datetime(2026, 1, day, tzinfo=dt.timezone.utc)} for day in (1, 2)]),
    (["k"], [{"k": dt.date(2026, 1, day)} for day in (1, 2)]),
    (["k", "j"], [{"k": 1, "j": "a"}, {"k": 1, "j": "b"}, {"k": 2, "j": "a"}]),
    (["_id"], [{"_id": "a"}, {"_id": "b"}]),
]


@pytest.mark.parametrize(("on", "keys"), KEYS, ids=str)
@pytest.mark.parametrize("columns", [False, True])
def test_keys_of_any_type_find_their_documents_again(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    on: list[str],
    keys: list[dict[str, Any]],
    columns: bool,
) -> None:
    rows = [{**key, "v": at} for at, key in enumerate(keys)]
    if columns and len({type(key["k"]) for key in keys if "k" in key}) > 1:
        pytest.skip("a column has one type")
    frame = pa.Table.from_pylist(rows) if columns else rows
    target = to_target(connectome_server.collection())

    first = sync(target, frame, on)
    again = sync(target, frame, on)
    changed = sync(target, [{**row, "v": -1} for row in rows], on)

    assert (first.inserted, first.updated) == (len(rows), 0)
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, len(rows))
    assert (changed.inserted, changed.updated) == (0, len(rows))
    assert len(connectome_server.documents(target.collection)) == len(rows)


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize(
    "switches",
    [
        {"id_form": "oid"},
        {"id_form": "objectid"},
        {"id_form": "absent"},
        {"page_cap": 7},
        {"page_cap": 1},
        {"response_path": "data"},
        {"extended_json": False, "expr": False},
        {"update_many": True},
        {"batch": "unordered"},
        {"max_body_bytes": 600},
        {"no_match_status": 200},
    ],
    ids=str,
)
def test_it_holds_whatever_the_service_is_like(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    monkeypatch: pytest.MonkeyPatch,
    switches: dict[str, Any],
    few: bool,
) -> None:
    if not few:
        monkeypatch.setattr(current, "MAX_KEY_QUERIES", 0)
    before = [{**row, "name": "old"} if row["sku"] % 5 == 0 else row for row in ROWS[:30]]
    connectome_server.switches(**switches)
    collection = connectome_server.collection()
    target = to_target(collection, settle_seconds=0.0, batch_rows=5)
    append(target, before)

    report = sync(target, ROWS, ["sku"])

    assert bare(connectome_server, collection) == ROWS
    assert (report.inserted, report.updated, report.unchanged) == (10, 6, 24)


@pytest.mark.parametrize("where", [None, {"day": 1}])
def test_what_is_in_no_row_is_deleted_where_that_is_said(
    connectome_server: ConnectomeServer, to_target: ToTarget, where: dict[str, Any] | None
) -> None:
    there = [{"day": day, "sku": f"{day}-{n}", "v": 0} for day in (1, 2) for n in range(30)]
    collection = connectome_server.collection([*there, {"day": 1, "note": "no key"}])
    rows = [{"day": 1, "sku": f"1-{n}", "v": n - 20} for n in range(20, 40)]
    target = to_target(collection, batch_rows=5, settle_seconds=0.0)

    report = sync(target, rows, ["sku"], where=where, delete_missing=True)

    other_days = [] if where is None else there[30:]
    expected = sorted([*rows, *other_days], key=lambda one: str(one["sku"]).zfill(8))
    assert bare(connectome_server, collection) == expected
    assert (report.inserted, report.updated, report.unchanged) == (10, 9, 1)
    assert report.deleted == 21 + (30 if where is None else 0)


def test_nothing_is_deleted_unless_that_is_said(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{"sku": 1}, {"sku": 2}])

    report = sync(to_target(collection), [{"sku": 1}], ["sku"])

    assert (report.unchanged, report.deleted) == (1, 0)
    assert len(connectome_server.documents(collection)) == 2


def test_where_deletes_do_nothing_it_says_so(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{"sku": 1}, {"sku": 2}])
    connectome_server.faults.add("partial", verb="batchdelete", every=1, documents=0, status=200)
    target = to_target(collection, settle_seconds=0.0)

    with pytest.raises(OutcomeUnknown, match="body of a DELETE"):
        sync(target, [{"sku": 1}], ["sku"], delete_missing=True)


@pytest.mark.parametrize("few", [True, False])
def test_a_row_whose_document_where_does_not_find_is_refused_before_anything_is_sent(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    monkeypatch: pytest.MonkeyPatch,
    few: bool,
) -> None:
    collection = connectome_server.collection([{"sku": 1, "day": 2}])
    if not few:
        monkeypatch.setattr(current, "MAX_KEY_QUERIES", 0)

    with pytest.raises(ConfigurationError, match="where does not find"):
        sync(to_target(collection), [{"sku": 1, "day": 1}], ["sku"], where={"day": 1})

    assert connectome_server.changes == []


@pytest.mark.parametrize("idempotency", ["field", "id"])
def test_the_parts_of_a_collection_are_kept_apart_by_a_key_that_tells_them(
    connectome_server: ConnectomeServer, to_target: ToTarget, idempotency: str
) -> None:
    target = to_target(connectome_server.collection(), idempotency=idempotency)
    days = [[{"sku": sku, "day": day, "v": 0} for sku in range(5)] for day in (1, 2)]
    on = ["day", "sku"]

    for rows in days:
        assert sync(target, rows, on, where={"day": rows[0]["day"]}).inserted == 5
    changed = [{**row, "v": 1} for row in days[0]]
    report = sync(target, changed, on, where={"day": 1}, delete_missing=True)

    assert (report.updated, report.deleted) == (5, 0)
    there = bare(connectome_server, target.collection)
    assert sorted(there, key=lambda one: one["day"]) == [*changed, *days[1]]


@pytest.mark.parametrize(
    "frame",
    [
        [{"sku": 1, "day": 1}, {"sku": 2, "day": 2}],
        [{"sku": 1, "day": 1}, {"sku": 2}],
        [{"sku": 1}],
        iter([{"sku": 1, "day": 1}, {"sku": 2, "day": None}]),
        pa.table({"sku": [1, 2], "day": [1, 2]}),
        pa.table({"sku": [1, 2]}),
    ],
    ids=range(6),
)
def test_rows_outside_where_are_refused_before_anything_is_sent(
    connectome_server: ConnectomeServer, to_target: ToTarget, frame: Any
) -> None:
    target = to_target(connectome_server.collection())

    with pytest.raises(ConfigurationError, match="within where"):
        sync(target, frame, ["sku"], where={"day": 1})

    assert connectome_server.changes == []


def test_new_rows_that_where_does_not_find_are_taken_out_again(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{"sku": 1, "day": 1, "v": 0}])
    target = to_target(collection, settle_seconds=0.0)
    rows = [{"sku": sku, "day": sku, "v": 1} for sku in (1, 2, 3)]

    with pytest.raises(ConfigurationError, match="have been removed"):
        sync(target, rows, ["sku"], where={"day": {"$lt": 3}})
    assert bare(connectome_server, collection) == [{"sku": 1, "day": 1, "v": 0}]

    assert sync(target, rows[:2], ["sku"], where={"day": {"$lt": 3}}).inserted == 1
    assert bare(connectome_server, collection) == rows[:2]


def test_an_id_that_was_given_to_another_key_is_not_taken_for_the_row(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    target = to_target(connectome_server.collection(), idempotency="id", settle_seconds=0.0)
    sync(target, [{"sku": 1}], ["sku"])
    target.send(endpoints.update(target.collection, {"sku": 1}, {"sku": 9}, upsert=False))

    with pytest.raises(OutcomeUnknown, match="other keys"):
        sync(target, [{"sku": 1}, {"sku": 2}], ["sku"])


REFUSED: list[tuple[Any, list[str], type[Exception]]] = [
    ([{"k": 1}, {"k": 1}], ["k"], DuplicateKeys),
    ([{"k": 1}, {"k": 1.0}], ["k"], DuplicateKeys),
    (pa.table({"k": ["a", "b", "a"]}), ["k"], DuplicateKeys),
    (iter([{"k": 1}, {"k": 2}, {"k": 1}]), ["k"], DuplicateKeys),
    ([{"k": 1, "j": 1}, {"k": 1, "j": 1}], ["k", "j"], DuplicateKeys),
    ([{"k": None}], ["k"], EncodeError),
    (pa.table({"k": [1, None]}), ["k"], EncodeError),
    (pd.DataFrame({"k": [1.0, float("nan")]}), ["k"], EncodeError),
    ([{"k": [1]}], ["k"], EncodeError),
    ([{"j": 1}], ["k"], ConfigurationError),
    (pa.table({"j": [1]}), ["k"], ConfigurationError),
    ([{"k": 1, "a.b": 1}], ["k"], ConfigurationError),
    (pa.table({"k": [1], "$a": [1]}), ["k"], ConfigurationError),
    ([{"k": 1, "_dagster": 1}], ["k"], (ConfigurationError, EncodeError)),
    ([{"k": 1}], [], ConfigurationError),
    ({"k": 1}, ["k"], ConfigurationError),
]


@pytest.mark.parametrize(("frame", "on", "kind"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    frame: Any,
    on: list[str],
    kind: type[Exception],
) -> None:
    target = to_target(connectome_server.collection())

    with pytest.raises(kind):
        sync(target, frame, on)

    assert connectome_server.log == []


@pytest.mark.parametrize("few", [True, False])
def test_documents_that_share_a_key_are_told_before_anything_is_sent(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    monkeypatch: pytest.MonkeyPatch,
    few: bool,
) -> None:
    if not few:
        monkeypatch.setattr(current, "MAX_KEY_QUERIES", 0)
    collection = connectome_server.collection([*ROWS, {"sku": 7, "name": "again"}])

    with pytest.raises(DuplicateKeys) as error:
        sync(to_target(collection), [*ROWS, {"sku": 99}], ["sku"])

    assert error.value.keys == ((7,),)
    assert connectome_server.changes == []


def test_documents_that_share_a_key_of_no_row_are_nobody_s_business(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{"sku": 1}, {"sku": 2}, {"sku": 2}])
    target = to_target(collection, settle_seconds=0.0)

    assert sync(target, [{"sku": 1}], ["sku"]).unchanged == 1
    assert sync(target, [{"sku": 1}], ["sku"], delete_missing=True).deleted == 2
    assert bare(connectome_server, collection) == [{"sku": 1}]


def test_a_service_that_replaces_documents_is_found_out_at_the_first_one(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    connectome_server.switches(update_replaces=True)
    collection = connectome_server.collection([{**row, "mine": 1} for row in ROWS])

    with pytest.raises(ConfigurationError, match="replaces documents"):
        sync(to_target(collection), [{**row, "price": -1} for row in ROWS], ["sku"])

    assert len(connectome_server.changes) == 1


@pytest.mark.parametrize("kind", ["applied_reset", "reset", "twice"])
@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("verb", ["batchwrite", "updatewithupsert", "batchdelete"])
def test_a_fault_leaves_what_the_frame_says_or_an_error_that_a_second_run_mends(
    connectome_server: ConnectomeServer, to_target: ToTarget, verb: str, nth: int, kind: str
) -> None:
    before = [{**row, "name": "old"} for row in ROWS[:20]] + [{"sku": 100 + n} for n in range(30)]
    collection = connectome_server.collection(before)
    target = to_target(collection, batch_rows=4, settle_seconds=0.01)
    connectome_server.faults.add(kind, verb=verb, nth=nth)

    with suppress(OutcomeUnknown):
        sync(target, ROWS, ["sku"], delete_missing=True)
    reconcile(target, load_id(collection, 'sync ["sku"]'))
    sync(target, ROWS, ["sku"], delete_missing=True)
    connectome_server.quiesce()
    reconcile(target, load_id(collection, 'sync ["sku"]'))

    assert bare(connectome_server, collection) == ROWS


def test_rows_that_the_service_refuses_are_told_and_all_others_written(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    connectome_server.switches(max_body_bytes=400)
    collection = connectome_server.collection([{"sku": n, "v": ""} for n in range(3)])
    target = to_target(collection, batch_rows=2, settle_seconds=0.0)
    rows = [{"sku": n, "v": "x" * (500 if n in (1, 4) else 5)} for n in range(6)]

    with pytest.raises(RowsRejected) as error:
        sync(target, rows, ["sku"])
    report = sync(target, rows, ["sku"], on_reject="skip")

    assert [row for row, _ in error.value.rows] == [1, 4]
    assert [row for row, _ in report.rejected] == [1, 4]
    assert report.unchanged == 4
    there = {one["sku"]: len(one["v"]) for one in connectome_server.documents(collection)}
    assert there == {0: 5, 1: 0, 2: 5, 3: 5, 5: 5}


def test_a_document_that_is_deleted_meanwhile_is_written_whole(
    connectome_server: ConnectomeServer, to_target: ToTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = connectome_server.collection([{"sku": n, "a": 1, "b": 1} for n in range(5)])
    target = to_target(collection, settle_seconds=0.0)
    update = endpoints.update

    def after_a_delete(id_: str, search: Any, data: Any, **more: Any) -> Any:
        if search == {"sku": 3} and not more["upsert"]:
            target.send(endpoints.batch_delete(id_, {"sku": 3}))
        return update(id_, search, data, **more)

    monkeypatch.setattr(endpoints, "update", after_a_delete)
    sync(target, [{"sku": n, "a": 1, "b": 2} for n in range(5)], ["sku"])

    assert bare(connectome_server, collection) == [{"sku": n, "a": 1, "b": 2} for n in range(5)]


@pytest.mark.parametrize("frame", [[], pa.table({"sku": pa.array([], pa.int64())})], ids=str)
def test_a_frame_without_rows_changes_nothing_unless_it_may_delete(
    connectome_server: ConnectomeServer, to_target: ToTarget, frame: Any
) -> None:
    collection = connectome_server.collection(ROWS)
    target = to_target(collection, settle_seconds=0.0)

    assert sync(target, frame, ["sku"]).rows == 0
    assert len(bare(connectome_server, collection)) == 40
    assert sync(target, frame, ["sku"], delete_missing=True).deleted == 40


def test_nulls_and_missing_fields_are_one(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection(
        [{"sku": 1}, {"sku": 2, "v": None}, {"sku": 3, "v": 1}]
    )
    target = to_target(collection)
    rows = pa.table({"sku": [1, 2, 3], "v": pa.array([None, None, None], pa.int64())})

    omitted = sync(target, rows, ["sku"], encoding=Encoding(nulls="omit"))
    report = sync(target, rows, ["sku"])

    assert (omitted.updated, omitted.unchanged) == (0, 3)
    assert (report.updated, report.unchanged) == (1, 2)
    assert bare(connectome_server, collection)[2] == {"sku": 3, "v": None}


@pytest.mark.parametrize("idempotency", ["field", "id", "none"])
def test_each_mode_inserts_as_it_promises(
    connectome_server: ConnectomeServer, to_target: ToTarget, idempotency: str
) -> None:
    collection = connectome_server.collection()
    target = to_target(collection, idempotency=idempotency, settle_seconds=0.0)

    report = sync(target, ROWS, ["sku"])

    assert bare(connectome_server, collection) == ROWS
    wanted = {"field": "verified", "id": "enforced", "none": "at_least_once"}
    assert report.guarantee == wanted[idempotency]
    assert (report.load is None) == (idempotency == "none")


def test_a_small_change_costs_few_requests(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    rows = [{"sku": n, "v": n} for n in range(3000)]
    collection = connectome_server.collection(rows)
    rows[17]["v"] = -1

    report = sync(to_target(collection), rows, ["sku"])

    assert (report.updated, report.unchanged) == (1, 2999)
    assert report.requests == len(connectome_server.log) <= 20


@pytest.fixture
def connectome(connectome_server: ConnectomeServer) -> Iterator[Connectome]:
    with Connectome(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
    ) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delete_missing": True}, "everything=True"),
        ({"delete_missing": True, "where": {}}, "everything=True"),
        ({"delete_missing": True, "where": {"day": 1}, "everything": True}, "contradicts"),
        ({"everything": True}, "delete_missing=True"),
        ({"on_reject": "perhaps"}, "on_reject"),
    ],
)
def test_a_delete_of_everything_needs_the_word_for_it(
    connectome_server: ConnectomeServer,
    connectome: Connectome,
    options: dict[str, Any],
    text: str,
) -> None:
    collection = connectome.collection(connectome_server.collection(ROWS))

    with pytest.raises(ConfigurationError, match=text):
        collection.sync([{"sku": 1}], ["sku"], **options)

    assert connectome_server.log == []


def test_a_collection_syncs(connectome_server: ConnectomeServer, connectome: Connectome) -> None:
    collection = connectome.collection(connectome_server.collection(ROWS[:20]))

    report = collection.sync(ROWS[10:], ["sku"], delete_missing=True, everything=True)

    assert (report.inserted, report.unchanged, report.deleted) == (20, 10, 10)
    assert bare(connectome_server, collection.id) == ROWS[10:]
    assert collection.reconcile('sync ["sku"]').rows == 20


def test_rows_have_the_keys_that_a_load_by_the_same_columns_gives_them(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection()
    sync(to_target(collection), ROWS, ["sku"], load="today")
    load = load_id(collection, "today")
    keys = RowKeys(load).take([b'{"sku":%d}' % row["sku"] for row in ROWS])

    there = connectome_server.documents(collection)
    assert {one["_dagster"]["key"] for one in there} == {key.decode() for key in keys}
    assert {one["_dagster"]["load"] for one in there} == {load}


def test_everything_is_read_back_where_that_is_asked_for(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{**row, "name": "old"} for row in ROWS[:20]])
    target = to_target(collection, verify="always", settle_seconds=0.0)
    # Acknowledged, and not applied.
    connectome_server.faults.add("partial", verb="batchwrite", nth=1, documents=3, status=200)

    report = sync(target, ROWS, ["sku"])

    assert (report.inserted, report.updated) == (20, 20)
    assert bare(connectome_server, collection) == ROWS


def test_an_update_in_doubt_is_raised_where_looking_is_ruled_out(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{**row, "name": "old"} for row in ROWS])
    target = to_target(collection, verify="never", settle_seconds=0.0)
    connectome_server.faults.add("reset", verb="updatewithupsert", every=1)

    with pytest.raises(OutcomeUnknown) as error:
        sync(target, ROWS, ["sku"])

    assert error.value.keys
    connectome_server.faults.clear()
    sync(target, ROWS, ["sku"])
    assert bare(connectome_server, collection) == ROWS


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner),
    max_leaves=4,
)
KEYED = st.dictionaries(
    st.integers(0, 6) | st.text("xy", max_size=2),
    st.fixed_dictionaries({}, optional={"v": VALUES, "w": VALUES}),
    max_size=6,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=KEYED, rows=KEYED, few=st.booleans(), deletes=st.booleans())
def test_whatever_is_there_the_rows_are_there_and_a_second_time_sends_nothing(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    before: dict[Any, dict[str, Any]],
    rows: dict[Any, dict[str, Any]],
    few: bool,
    deletes: bool,
) -> None:
    collection = connectome_server.collection([{"k": k, **said} for k, said in before.items()])
    target = to_target(collection, settle_seconds=0.0)
    frame = [{"k": k, **said} for k, said in rows.items()]

    with pytest.MonkeyPatch.context() as patched:
        if not few:
            patched.setattr(current, "MAX_KEY_QUERIES", 0)
        sync(target, frame, ["k"], delete_missing=deletes)
        changes = len(connectome_server.changes)
        again = sync(target, frame, ["k"], delete_missing=deletes)

    assert len(connectome_server.changes) == changes
    assert again.unchanged == len(frame)
    there = {(type(one["k"]), one["k"]): one for one in connectome_server.documents(collection)}
    kept = {} if deletes else before
    assert len(there) == len({**kept, **rows})
    for k, said in {**kept, **rows}.items():
        expected = {**before.get(k, {}), **said, "k": k}
        assert changed_fields(expected, there[type(k), k]) == {}
