"""The log of requests: what it holds, in which order, and that it forgets what is too much."""

from __future__ import annotations

import doctest

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local import log as log_module
from connectome_dagster.local.log import Applied, RequestLog
from connectome_dagster.local.server import LocalServer


def test_requests_stand_in_the_order_of_their_arrival_and_know_what_they_applied() -> None:
    log = RequestLog()
    first, second = log.begin("POST"), log.begin("DELETE")

    log.note(second, verb="batchdelete", collection="a", status=200)
    log.apply(second, Applied(1, deleted=("x",)))
    log.note(first, verb="batchwrite", collection="a", status=500)
    log.apply(first, Applied(2, inserted=("y", "z")))
    log.apply(first, Applied(3, inserted=("v",)))

    written, removed = log.entries()
    assert (written.sequence, written.status, written.inserted) == (1, 500, ("y", "z", "v"))
    assert (removed.sequence, removed.method, removed.deleted) == (2, "DELETE", ("x",))
    assert [applied.order for _, applied in log.changes()] == [1, 2, 3]
    assert [entry.verb for entry, _ in log.changes()] == ["batchdelete", "batchwrite", "batchwrite"]


def test_entries_can_be_chosen_by_collection_verb_place_and_number() -> None:
    log = RequestLog()
    for number in range(6):
        sequence = log.begin("GET")
        log.note(sequence, verb=("read", "write")[number % 2], collection=("a", "b")[number // 3])

    def chosen(**by: object) -> list[int]:
        return [entry.sequence for entry in log.entries(**by)]  # type: ignore[arg-type]

    assert chosen(collections=["a"]) == [1, 2, 3]
    assert chosen(verb="write") == [2, 4, 6]
    assert chosen(after=4) == [5, 6]
    assert chosen(last=2) == [5, 6]
    assert chosen(last=0) == []
    assert chosen(last=99) == [1, 2, 3, 4, 5, 6]
    assert chosen(collections=["b"], verb="read") == [5]


@given(sizes=st.lists(st.integers(0, 9), max_size=40), entries=st.integers(1, 9))
def test_it_never_holds_more_than_its_bounds_and_counts_what_it_forgot(
    sizes: list[int], entries: int
) -> None:
    log = RequestLog(max_entries=entries, max_ids=12)
    for order, size in enumerate(sizes, start=1):
        log.apply(log.begin("POST"), Applied(order, inserted=tuple(range(size))))

    kept = log.entries()

    assert len(kept) <= entries
    assert len(kept) <= 1 or sum(len(entry.inserted) for entry in kept) <= 12
    assert [entry.sequence for entry in kept] == list(
        range(len(sizes) - len(kept) + 1, len(sizes) + 1)
    )
    assert log.forgotten == len(sizes) - len(kept)


def test_what_is_told_of_a_forgotten_request_is_dropped() -> None:
    log = RequestLog(max_entries=1)
    old, new = log.begin("GET"), log.begin("GET")

    log.note(old, status=200)
    log.apply(old, Applied(1, inserted=("x",)))

    assert [(entry.sequence, entry.applied) for entry in log.entries()] == [(new, ())]


def test_it_can_forget_one_collection() -> None:
    log = RequestLog()
    for collection in "ab":
        log.note(log.begin("GET"), collection=collection)

    log.clear(["a"])

    assert [entry.collection for entry in log.entries()] == ["b"]
    log.clear()
    assert len(log) == 0


def test_every_request_is_in_the_servers_log_with_sizes_status_and_what_it_changed() -> None:
    with LocalServer(["things"]) as server, requests.Session() as session:
        url = f"{server.base_url}/collection"
        write, read = server.write_credential, server.read_credential
        body = b'[{"_id":"a","n":1},{"_id":"b","n":2}]'
        session.post(f"{url}/batchwrite/{write}/things", data=body, timeout=10)
        update = {"search query": {"n": 1}, "data": {"n": 3}}
        session.post(f"{url}/update/{write}/things", json=update, timeout=10)
        upsert = {"search query": {"_id": "c"}, "data": {"n": 4}, "upsert": True}
        session.post(f"{url}/updatewithupsert/{write}/things", json=upsert, timeout=10)
        session.delete(f"{url}/batchdelete/{write}/things", json={"n": {"$gt": 2}}, timeout=10)
        answer = session.get(f"{url}/read/{read}/things", timeout=10)

        batch, updated, upserted, deleted, last = server.log.entries()

    assert (batch.method, batch.verb, batch.collection) == ("POST", "batchwrite", "things")
    assert (batch.request_bytes, batch.status, batch.fault) == (len(body), 200, None)
    assert batch.milliseconds is not None
    assert batch.inserted == ("a", "b")
    assert (updated.updated, upserted.inserted, deleted.deleted) == (("a",), ("c",), ("a", "c"))
    assert (last.response_bytes, last.applied) == (len(answer.content), ())
    orders = [applied.order for entry, applied in server.log.changes()]
    assert orders == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("path", "verb", "collection", "status"),
    [
        ("read/{write}/things", "read", "things", 403),
        ("read/nobody/things", "read", "things", 401),
        ("read/{read}/{write}", "read", "", 404),
        ("{read}/{read}/things", "", "", 404),
        ("read/{read}/things/{read}", "", "", 404),
    ],
)
def test_a_refused_request_is_logged_without_what_may_be_a_secret(
    path: str, verb: str, collection: str, status: int
) -> None:
    with LocalServer(["things"]) as server:
        credentials = {"read": server.read_credential, "write": server.write_credential}
        url = f"{server.base_url}/collection/{path.format(**credentials)}"

        answer = requests.get(url, timeout=10)

        (entry,) = server.log.entries()
    assert answer.status_code == entry.status == status
    assert (entry.verb, entry.collection) == (verb, collection)
    assert not any(credential in repr(entry) for credential in credentials.values())


def test_a_batch_without_effect_is_in_the_log_but_changed_nothing() -> None:
    with LocalServer(["things"]) as server:
        url = f"{server.base_url}/collection/batchwrite/{server.write_credential}/things"
        requests.post(url, json=[{"_id": 1}, {"_id": 1}], timeout=10)

        (entry,) = server.log.entries()

    assert (entry.status, entry.applied) == (400, ())


def test_the_documented_example_holds() -> None:
    assert doctest.testmod(log_module).failed == 0
