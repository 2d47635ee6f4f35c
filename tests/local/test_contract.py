"""F3, F6, F7 and F8 over a matrix of switches: each still means what the switches say it means."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from connectome_dagster.local.server import LocalServer
from connectome_dagster.local.switches import Switches
from tests.local.calling import Calls

HEX = re.compile("[0-9a-f]{24}")

READING = [
    Switches(response_path=path, id_form=form, page_cap=cap, gzip_responses=packed)
    for path, form, cap, packed in itertools.product(
        (None, "data", "result.items"),
        ("hex", "oid", "objectid", "absent"),
        (None, 2),
        (False, True),
    )
]
WRITING = [
    Switches(id_form=form, client_id=client, batch=batch, batch_reports=reports, error_form=errors)
    for form, client, batch, reports, errors in itertools.product(
        ("hex", "objectid"),
        ("unique", "any", "dropped"),
        ("atomic", "ordered", "unordered"),
        (True, False),
        ("status", "object"),
    )
]
UPDATING = [
    Switches(
        update_many=many, update_replaces=replaces, update_operators=operators,
        no_match_status=status, client_id=client,
    )
    for many, replaces, operators, status, client in itertools.product(
        (False, True), (False, True), (False, True), (404, 200), ("unique", "dropped")
    )
]  # fmt: skip
DELETING = [
    Switches(delete_body=body, empty_delete_is_all=everything, extended_json=extended, expr=expr)
    for body, everything, extended, expr in itertools.product((True, False), repeat=4)
]


def said(switches: Switches) -> str:
    return ",".join(f"{name}={value}" for name, value in switches.changed().items()) or "default"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture
def call(server: LocalServer, request: pytest.FixtureRequest) -> Iterator[Calls]:
    server.add_collection("movies")
    server.switches = request.getfixturevalue("switches")
    with requests.Session() as session:
        yield Calls(server, session, "movies")
    server.switches = Switches()
    server.drop_collection("movies")


def documents(call: Calls, switches: Switches, body: Any) -> list[dict[str, Any]]:
    """The array of a read's response, found where the switch puts it."""
    response = call("readwithquery", body)
    assert response.status_code == 200
    assert ("Content-Encoding" in response.headers) == switches.gzip_responses
    found = response.json()
    for name in (switches.response_path or "").split(".") if switches.response_path else []:
        assert list(found) == [name]
        found = found[name]
    assert isinstance(found, list)
    return found


def failed(response: requests.Response, switches: Switches, status: int) -> bool:
    """Whether it is an error of this status, in the form that the switch gives errors."""
    told = "error" in response.json()
    return told and response.status_code == (status if switches.error_form == "status" else 200)


@pytest.mark.parametrize("switches", READING, ids=said)
def test_f3_the_pages_query_projects_sorts_and_limits(call: Calls, switches: Switches) -> None:
    movies = [
        {"amount": 10, "title": "Movie ABC", "seen": True},
        {"amount": 100, "title": "Movie BDD", "seen": True},
        {"amount": 39, "title": "Movie XYZ", "seen": True},
        {"amount": 40, "title": "Movie ZZZ", "seen": True},
    ]
    assert call("batchwrite", movies).json() == {"inserted": 4}
    body = {
        "query": {"amount": {"$gte": 30}},
        "project": {"amount": 1, "title": 1},
        "sort": {"amount": 1},
        "limit": 10,
    }

    found = documents(call, switches, body)

    expected = ["Movie XYZ", "Movie ZZZ", "Movie BDD"][: switches.page_cap]
    assert [movie["title"] for movie in found] == expected
    fields = ["amount", "title"] if switches.id_form == "absent" else ["_id", "amount", "title"]
    assert all(list(movie) == fields for movie in found)
    one = documents(call, switches, {**body, "limit": 1})
    assert one == found[:1]
    if switches.id_form == "absent":
        return
    shown = [movie["_id"] for movie in found]
    hexes = [one["$oid"] for one in shown] if switches.id_form == "oid" else shown
    assert all(map(HEX.fullmatch, hexes))
    by_hex = documents(call, switches, {"query": {"_id": hexes[0]}})
    by_oid = documents(call, switches, {"query": {"_id": {"$oid": hexes[0]}}})
    strings = switches.id_form == "hex"
    assert (len(by_hex), len(by_oid)) == ((1, 0) if strings else (0, 1))


@pytest.mark.parametrize("switches", WRITING, ids=said)
def test_f7_a_batch_inserts_what_the_switches_say(call: Calls, switches: Switches) -> None:
    assert call("batchwrite", [{"n": 1}, {"n": 2}]).json() == {"inserted": 2}
    ids = call.ids()
    native = switches.id_form == "objectid"
    assert all(HEX.fullmatch(one["$oid"] if native else one) for one in ids)

    response = call("batchwrite", [{"_id": "a", "n": 3}, {"_id": "a", "n": 4}, {"n": 5}])

    good = switches.client_id != "unique"
    left = {"atomic": [], "ordered": [3], "unordered": [3, 5]}[switches.batch]
    inserted = [3, 4, 5] if good else left
    assert call.values("n") == [1, 2, *inserted]
    if good or not switches.batch_reports:
        assert (response.status_code, response.json()) == (200, {"inserted": len(inserted)})
    else:
        assert failed(response, switches, 400)
    kept = [one for one in call.ids() if one == "a"]
    assert len(kept) == (
        0 if switches.client_id == "dropped" else inserted.count(3) + inserted.count(4)
    )
    assert failed(call("batchwrite", {"no": "array"}), switches, 400)
    assert call.server.log.entries(verb="batchwrite", last=2)[0].inserted == tuple(
        document["_id"] for document in call.server.documents("movies")[2:]
    )


@pytest.mark.parametrize("switches", UPDATING, ids=said)
def test_f6_an_update_with_upsert_changes_what_the_switches_say(
    call: Calls, switches: Switches
) -> None:
    call("batchwrite", [{"sku": 1, "n": 0}, {"sku": 1, "n": 0}, {"sku": 2, "n": 0}])
    ids = call.ids()

    def without_ids() -> list[dict[str, Any]]:
        found = call.server.documents("movies")
        return [{name: document[name] for name in document if name != "_id"} for document in found]

    done = call("updatewithupsert", {"search query": {"sku": 1}, "data": {"n": 7}}).json()
    touched = 2 if switches.update_many else 1
    assert done == {"matched": touched, "modified": touched, "upserted": 0}
    new = {"n": 7} if switches.update_replaces else {"sku": 1, "n": 7}
    expected = [new, new if switches.update_many else {"sku": 1, "n": 0}, {"sku": 2, "n": 0}]
    assert without_ids() == expected
    assert call.ids() == ids

    missed = call("updatewithupsert", {"search query": {"sku": 3}, "data": {"n": 7}})
    assert missed.status_code == switches.no_match_status
    assert without_ids() == expected

    upsert = {"search query": {"sku": 3, "n": {"$gt": 1}}, "data": {"m": 7}, "upsert": True}
    assert call("updatewithupsert", upsert).json() == {"matched": 0, "modified": 0, "upserted": 1}
    created = {"m": 7} if switches.update_replaces else {"sku": 3, "m": 7}
    assert without_ids() == [*expected, created]
    assert call("update", {"search query": {"sku": 9}, "data": {}, "upsert": True}).status_code == (
        switches.no_match_status
    )

    increment = call("update", {"search query": {"sku": 2}, "data": {"$inc": {"n": 5}}})
    if switches.update_operators:
        assert increment.json() == {"matched": 1, "modified": 1, "upserted": 0}
        expected[2] = {"sku": 2, "n": 5}
    else:
        assert failed(increment, switches, 400)
    assert without_ids() == [*expected, created]


@pytest.mark.parametrize("switches", DELETING, ids=said)
def test_f8_a_delete_removes_what_the_switches_let_arrive(call: Calls, switches: Switches) -> None:
    day = {"$date": "2026-11-23T00:00:00Z"}
    call.server.seed("movies", [{"_id": 1, "at": day}, {"_id": 2, "at": "x"}, {"_id": 3, "n": 3}])

    def left_after(query: dict[str, Any]) -> list[int]:
        response = call("batchdelete", query)
        before = call.server.log.entries(verb="batchdelete", last=1)[0]
        assert response.status_code in (200, 400)
        removed = response.json().get("deleted", 0)
        assert removed == len(before.deleted)
        return [document["_id"] for document in call.server.documents("movies")]

    if not switches.delete_body:
        assert left_after({"_id": 99}) == ([] if switches.empty_delete_is_all else [1, 2, 3])
        return
    assert left_after({"_id": 99}) == [1, 2, 3]
    dated = left_after({"at": day})
    assert dated == ([2, 3] if switches.extended_json else [1, 2, 3])
    compared = left_after({"$expr": {"$eq": ["$n", 3]}})
    assert compared == [one for one in dated if one != 3 or not switches.expr]
    assert left_after({"at": {"$type": "string"}}) == [one for one in compared if one != 2]
    assert left_after({}) == []


def test_the_matrix_has_every_switch_that_changes_what_a_call_means() -> None:
    varied = {
        name
        for switches in (*READING, *WRITING, *UPDATING, *DELETING)
        for name in switches.changed()
    }
    others = {
        "max_body_bytes", "rate_limit", "rate_seconds", "retry_after", "stale_seconds",
        "gzip_requests", "read_call", "write_call", "update_call", "delete_call",
    }  # fmt: skip

    assert varied | others == set(json.loads(json.dumps(Switches().to_json())))
    assert not varied & others
