"""The switches: what they accept, and what each of them makes of the API's open questions."""

from __future__ import annotations

import dataclasses
import doctest
import gzip
import importlib
import json
import re
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local.collection import Stored
from connectome_dagster.local.history import History
from connectome_dagster.local.server import LocalServer
from connectome_dagster.local.store import Search, Store
from connectome_dagster.local.switches import Switches, described
from tests.local.calling import Calls

OBJECT_ID = re.compile("[0-9a-f]{24}")
PAGE = Path(__file__).parents[2] / "docs" / "local-server.md"

# One value for each switch that is not its default.
OTHER: dict[str, Any] = {
    "response_path": "result.items",
    "id_form": "oid",
    "client_id": "any",
    "extended_json": False,
    "expr": False,
    "page_cap": 10,
    "update_many": True,
    "update_replaces": True,
    "update_operators": True,
    "batch": "unordered",
    "batch_reports": False,
    "max_body_bytes": 1000,
    "rate_limit": 5,
    "rate_seconds": 0.5,
    "retry_after": "date",
    "no_match_status": 200,
    "read_call": "POST all",
    "write_call": None,
    "update_call": "PATCH update",
    "delete_call": "POST delete",
    "delete_body": False,
    "empty_delete_is_all": True,
    "gzip_responses": True,
    "gzip_requests": True,
    "stale_seconds": 2.5,
    "error_form": "page",
}


# --- the value


@given(names=st.sets(st.sampled_from(sorted(OTHER))))
def test_switches_survive_json_and_know_what_was_changed(names: set[str]) -> None:
    given_ = {name: OTHER[name] for name in names}
    switches = Switches(**given_)

    assert switches.changed() == given_
    assert Switches.from_json(json.loads(json.dumps(switches.to_json()))) == switches
    assert Switches.from_json(given_) == switches


@pytest.mark.parametrize("name", OTHER)
def test_each_switch_can_be_set_by_a_text(name: str) -> None:
    value = OTHER[name]
    text = {None: "none", True: "on", False: "off"}.get(value, str(value))

    assert Switches.from_texts([f"{name}={text}"]).changed() == {name: value}


def test_every_switch_is_tested_described_and_documented() -> None:
    names = [field.name for field in dataclasses.fields(Switches)]
    documented = PAGE.read_text().partition("## Switches")[2].partition("\n## ")[0]

    assert list(OTHER) == names == [name for name, *_ in described()]
    assert set(names) == set(re.findall(r"^\| `(\w+)`", documented, re.MULTILINE))
    questions = {question for _, question, *_ in described()}
    assert questions == {f"U{number}" for number in range(1, 15)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("page_cap", "NAME=VALUE"),
        ("pagecap=1", "there is no switch 'pagecap': there are response_path, id_form"),
        ("page_cap=0", "at least 1"),
        ("page_cap=many", "'many' is not a whole number or none"),
        ("page_cap=on", "'on' is not a whole number"),
        ("expr=maybe", "'maybe' is not on or off"),
        ("id_form=string", "hex or oid or objectid or absent"),
        ("rate_seconds=nan", "not above 0"),
        ("rate_limit=100001", "at most 100000"),
        ("stale_seconds=-1", "at least 0"),
        ("stale_seconds=nan", "at least 0"),
        ("no_match_status=302", "neither a success"),
        ("response_path=a..b", "dotted path"),
        ('response_path=a"b', "dotted path"),
        ("read_call=all", '"METHOD verb"'),
        ("read_call=POST batchwrite", "another call already"),
        ("write_call=GET read", "another call already"),
    ],
)
def test_a_wrong_switch_is_one_line_that_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        Switches.from_texts([text])

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[], "x", {"page_cap": True}, {"expr": 1}, {"rate_limit": 1.5}])
def test_json_of_another_type_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="switch"):
        Switches.from_json(values)


# --- U1 to U5: reading


@pytest.mark.parametrize(("path", "open_", "close"), [("data", 1, 1), ("result.items", 2, 2)])
@pytest.mark.parametrize("count", [0, 1, 9000])
def test_u1_a_read_is_wrapped_whole_however_large(
    calls: Calls, path: str, open_: int, close: int, count: int
) -> None:
    documents = [{"_id": number, "text": "x" * 50} for number in range(count)]
    calls.server.seed("things", documents)
    bare = calls("read").content

    calls.server.switches = Switches(response_path=path)
    text = calls("read").content

    lead = "".join(f'{{"{name}":' for name in path.split(".")).encode()
    assert lead.count(b"{") == open_
    assert text == lead + bare + b"}" * close
    assert calls("readwithquery", {"limit": 1}).content.startswith(lead + b"[")


def test_u2_an_oid_is_an_object_id_that_extended_json_finds(calls: Calls) -> None:
    calls.server.switches = Switches(id_form="oid")
    calls("write", {"n": 1})

    (document,) = calls("read").json()

    assert OBJECT_ID.fullmatch(document["_id"]["$oid"])
    found = calls("readwithquery", {"query": {"_id": document["_id"]}}).json()
    assert found == [document]
    assert calls("readwithquery", {"query": {"_id": document["_id"]["$oid"]}}).json() == []


def test_u4_an_object_id_that_is_shown_as_its_hex_is_not_found_by_it(calls: Calls) -> None:
    calls.server.switches = Switches(id_form="objectid")
    calls("batchwrite", [{"n": 1}, {"n": 2}])

    first, second = calls("readwithquery", {"project": {"n": 1}}).json()

    assert OBJECT_ID.fullmatch(first["_id"])
    ask = {"query": {"_id": {"$gt": first["_id"]}}}
    assert calls("readwithquery", ask).json() == []
    extended = {"query": {"_id": {"$gt": {"$oid": first["_id"]}}}}
    assert calls("readwithquery", extended).json() == [second]
    total = {"query": {"$expr": {"$gt": ["$_id", {"$literal": first["_id"]}]}}}
    assert calls("readwithquery", total).json() == [first, second]
    assert [one["n"] for one in calls("readwithquery", {"sort": {"_id": -1}}).json()] == [2, 1]


def test_u2_an_absent_id_is_in_no_response_but_can_be_asked_for(calls: Calls) -> None:
    calls.server.switches = Switches(id_form="absent")
    calls("batchwrite", [{"n": 1}, {"_id": "mine", "n": 2}])

    assert calls("read").content == b'[{"n":1},{"n":2}]'
    asked = {"query": {"_id": "mine"}, "project": {"_id": 1, "n": 1}}
    assert calls("readwithquery", asked).json() == [{"n": 2}]


def test_u4_without_extended_json_a_filter_has_an_unknown_operator(calls: Calls) -> None:
    calls.server.switches = Switches(extended_json=False)
    calls("write", {"n": 1})

    for query in ({"_id": {"$oid": "0" * 24}}, {"at": {"$date": "2026-11-23T00:00:00Z"}}):
        answer = calls("readwithquery", {"query": query})
        assert answer.status_code == 400
        (operator,) = next(iter(query.values()))
        assert operator in answer.json()["error"]
        assert calls("batchdelete", query).status_code == 400
    assert calls.values("n") == [1]


@pytest.mark.parametrize("verb", ["write", "batchwrite", "updatewithupsert"])
def test_u4_without_extended_json_no_document_may_hold_it(calls: Calls, verb: str) -> None:
    calls.server.switches = Switches(extended_json=False)
    value = {"deep": [{"at": {"$date": "2026-11-23T00:00:00Z"}}]}
    body: Any = {
        "write": value,
        "batchwrite": [{"n": 1}, value],
        "updatewithupsert": {"search query": {"n": 1}, "data": value, "upsert": True},
    }[verb]

    answer = calls(verb, body)

    assert answer.status_code == 400
    assert "$date" in answer.json()["error"]
    assert calls.ids() == []


def test_u4_expr_can_be_unknown_however_deep_it_stands(calls: Calls) -> None:
    calls.server.switches = Switches(expr=False)
    calls("write", {"n": 1})
    asked = {"$expr": {"$eq": ["$n", 1]}}

    for query in (asked, {"$and": [asked]}, {"$or": [{"n": 1}, {"$nor": [asked]}]}):
        answer = calls("readwithquery", {"query": query})
        assert (answer.status_code, "$expr" in answer.json()["error"]) == (400, True)
        assert calls("batchdelete", query).status_code == 400
        update = {"search query": query, "data": {"n": 2}}
        assert calls("update", update).status_code == 400
    assert calls.values("n") == [1]


def test_u5_no_response_holds_more_than_the_cap(calls: Calls) -> None:
    calls.server.seed("things", [{"n": number} for number in range(7)])
    calls.server.switches = Switches(page_cap=3)

    def asked(**ask: Any) -> list[int]:
        return [one["n"] for one in calls("readwithquery", ask).json()]

    assert len(calls("read").json()) == 3
    assert asked() == asked(limit=0) == asked(limit=5) == [0, 1, 2]
    assert asked(limit=2) == [0, 1]
    assert asked(sort={"n": -1}) == [6, 5, 4]


# --- U3, U6, U7: writing


def test_u3_a_clients_id_may_be_there_twice_and_each_copy_stays_itself(calls: Calls) -> None:
    calls.server.switches = Switches(client_id="any")
    calls("batchwrite", [{"_id": "a", "n": 1}, {"_id": "b", "n": 2}, {"_id": "a", "n": 3}])
    calls("write", {"_id": "a", "n": 4})

    assert calls.ids() == ["a", "b", "a", "a"]
    by_id = {"sort": {"_id": -1}, "limit": 3}
    assert [one["n"] for one in calls("readwithquery", by_id).json()] == [2, 1, 3]
    calls("delete", {"_id": "a"})
    calls("update", {"search query": {"_id": "a"}, "data": {"n": 5}})
    assert calls.values("n") == [2, 5, 4]
    calls("batchdelete", {"_id": "a"})
    assert calls.ids() == ["b"]
    calls.server.switches = Switches()
    assert calls("write", {"_id": "a"}).status_code == 200
    assert calls("write", {"_id": "a"}).status_code == 400


def test_u3_copies_of_an_id_outlive_the_server(tmp_path: Path) -> None:
    switches = Switches(client_id="any")
    with LocalServer(["things"], data=tmp_path, switches=switches) as server:
        server.seed("things", [{"_id": "b"}])
        with requests.Session() as session:
            Calls(server, session)("batchwrite", [{"_id": "a"}, {"_id": "a"}])

    with LocalServer(["things"], data=tmp_path) as server, requests.Session() as session:
        calls = Calls(server, session)
        assert calls.ids() == ["b", "a", "a"]
        assert calls("write", {"_id": "a"}).status_code == 400


@pytest.mark.parametrize("verb", ["write", "batchwrite", "updatewithupsert"])
def test_u3_a_clients_id_may_be_dropped(calls: Calls, verb: str) -> None:
    calls.server.switches = Switches(client_id="dropped")
    body: Any = {
        "write": {"n": 1, "_id": "mine"},
        "batchwrite": [{"_id": "mine", "n": 1}],
        "updatewithupsert": {"search query": {"_id": "mine"}, "data": {"n": 1}, "upsert": True},
    }[verb]

    assert [calls(verb, body).status_code for _ in range(2)] == [200, 200]

    assert calls.values("n") == [1, 1]
    assert all(OBJECT_ID.fullmatch(one) for one in calls.ids())
    assert [list(one) for one in calls("read").json()] == [["_id", "n"]] * 2


def test_u6_an_update_may_touch_all_that_match(calls: Calls) -> None:
    calls("batchwrite", [{"k": 1, "v": 0}, {"k": 2, "v": 0}, {"k": 1, "v": 9}])
    calls.server.switches = Switches(update_many=True)

    answer = calls("updatewithupsert", {"search query": {"k": 1}, "data": {"v": 9}})

    assert answer.json() == {"matched": 2, "modified": 1, "upserted": 0}
    assert calls.values("v") == [9, 0, 9]


def test_u6_many_documents_are_updated_whole_or_not_at_all(calls: Calls) -> None:
    calls("batchwrite", [{"k": 1, "v": {}}, {"k": 1, "v": 5}])
    calls.server.switches = Switches(update_many=True)

    answer = calls("update", {"search query": {"k": 1}, "data": {"v.deep": 1}})

    assert answer.status_code == 400
    assert calls.values("v") == [{}, 5]


def test_u6_data_may_replace_the_document_but_for_its_id(calls: Calls) -> None:
    calls("write", {"_id": "a", "k": 1, "old": True})
    calls.server.switches = Switches(update_replaces=True)

    calls("updatewithupsert", {"search query": {"k": 1}, "data": {"new": 1}})
    upsert = {"search query": {"_id": "b", "k": 2}, "data": {"new": 2}, "upsert": True}
    calls("updatewithupsert", upsert)

    assert calls.server.documents("things") == [{"_id": "a", "new": 1}, {"_id": "b", "new": 2}]
    other_id = {"search query": {"_id": "a"}, "data": {"_id": "c"}}
    assert calls("update", other_id).status_code == 400


OPERATORS = [
    ({"$set": {"n": 5, "in.x": 1}}, {"n": 5, "tags": ["a"], "in": {"y": 2, "x": 1}}),
    ({"$inc": {"n": 2, "m": 1.5}}, {"n": 3, "tags": ["a"], "in": {"y": 2}, "m": 1.5}),
    ({"$mul": {"n": 3, "m": 2}}, {"n": 3, "tags": ["a"], "in": {"y": 2}, "m": 0}),
    ({"$min": {"n": 0}, "$max": {"in.y": 3}}, {"n": 0, "tags": ["a"], "in": {"y": 3}}),
    ({"$min": {"n": 7}, "$max": {"in.y": 1}}, {"n": 1, "tags": ["a"], "in": {"y": 2}}),
    ({"$unset": {"in.y": "", "gone": ""}}, {"n": 1, "tags": ["a"], "in": {}}),
    ({"$unset": {"tags.0": ""}}, {"n": 1, "tags": [None], "in": {"y": 2}}),
    ({"$push": {"tags": "a"}}, {"n": 1, "tags": ["a", "a"], "in": {"y": 2}}),
    ({"$push": {"tags": {"$each": [1, 2]}}}, {"n": 1, "tags": ["a", 1, 2], "in": {"y": 2}}),
    ({"$addToSet": {"tags": {"$each": ["a", "b"]}}}, {"n": 1, "tags": ["a", "b"], "in": {"y": 2}}),
    ({"$pull": {"tags": "a"}}, {"n": 1, "tags": [], "in": {"y": 2}}),
    ({"$setOnInsert": {"n": 9}}, {"n": 1, "tags": ["a"], "in": {"y": 2}}),
]


@pytest.mark.parametrize(("data", "expected"), OPERATORS)
def test_u6_operators_are_applied_where_they_are_accepted(
    calls: Calls, data: Any, expected: dict[str, Any]
) -> None:
    calls("write", {"_id": "a", "n": 1, "tags": ["a"], "in": {"y": 2}})
    update = {"search query": {"_id": "a"}, "data": data}
    assert calls("update", update).status_code == 400

    calls.server.switches = Switches(update_operators=True)
    assert calls("update", update).status_code == 200

    assert calls.server.documents("things") == [{"_id": "a", **expected}]


def test_u6_an_upsert_by_operators_creates_from_query_and_operators(calls: Calls) -> None:
    calls.server.switches = Switches(update_operators=True)
    upsert = {
        "search query": {"sku": 1},
        "data": {"$inc": {"n": 2}, "$setOnInsert": {"made": 5}},
        "upsert": True,
    }

    for _ in range(2):
        calls("updatewithupsert", upsert)

    (document,) = calls.server.documents("things")
    assert {**document, "_id": 0} == {"_id": 0, "sku": 1, "n": 4, "made": 5}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"$rename": {"n": "m"}}, "$rename"),
        ({"$inc": {"n": 1}, "plain": 1}, "plain"),
        ({"$inc": {"text": 1}}, "text"),
        ({"$inc": {"n": True}}, "$inc"),
        ({"$inc": {"n": 1}, "$set": {"n": 1}}, "conflict"),
        ({"$set": {"in": {}}, "$unset": {"in.x": ""}}, "conflict"),
        ({"$unset": {"in.x": ""}, "$push": {"in": 1}}, "conflict"),
        ({"$setOnInsert": {"n": 1}, "$inc": {"n": 1}}, "conflict"),
        ({"$inc": 1}, "object"),
        ({"$inc": {"big": 1}}, "64 bits"),
        ({"$push": {"n": 1}}, "array"),
        ({"$push": {"tags": {"$slice": 1}}}, "$each"),
        ({"$unset": {"_id": ""}}, "_id"),
        ({"$set": {"_id": "b"}}, "_id"),
    ],
)
def test_u6_operators_that_do_not_fit_are_refused_and_change_nothing(
    calls: Calls, data: Any, reason: str
) -> None:
    document = {"_id": "a", "n": 1, "text": "x", "tags": [], "big": 2**63 - 1}
    calls("write", document)
    calls.server.switches = Switches(update_operators=True)

    answer = calls("update", {"search query": {"_id": "a"}, "data": data})

    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert calls.server.documents("things") == [document]


BAD_BATCHES: list[list[Any]] = [
    [{"_id": "a"}, {"_id": "there"}, {"_id": "b"}],
    [{"_id": "a"}, {"_id": "a"}, {"_id": "b"}],
    [{"_id": "a"}, {"_id": ["no id"]}, {"_id": "b"}],
    [{"_id": "a"}, "no document", {"_id": "b"}],
]


@pytest.mark.parametrize("batch", BAD_BATCHES)
@pytest.mark.parametrize(
    ("mode", "inserted"), [("atomic", ""), ("ordered", "a"), ("unordered", "ab")]
)
@pytest.mark.parametrize("reports", [True, False])
def test_u7_a_bad_document_leaves_of_its_batch_what_the_switch_says(
    calls: Calls, batch: list[Any], mode: Any, inserted: str, reports: bool
) -> None:
    calls("write", {"_id": "there"})
    calls.server.switches = Switches(batch=mode, batch_reports=reports)

    answer = calls("batchwrite", batch)

    assert calls.ids() == ["there", *inserted]
    malformed = mode == "atomic" and "no document" in batch
    if reports or malformed:
        assert answer.status_code == 400
        assert answer.json()["error"]
    else:
        assert (answer.status_code, answer.json()) == (200, {"inserted": len(inserted)})
    if reports and mode != "atomic":
        assert answer.json()["inserted"] == len(inserted)
        assert [error["position"] for error in answer.json()["errors"]] == [1]


def test_u7_a_document_that_is_too_large_is_bad_alone(calls: Calls) -> None:
    calls.server.switches = Switches(batch="unordered")
    large = {"_id": "large", "text": "x" * 17_000_000}

    answer = calls("batchwrite", [{"_id": "a"}, large, {"_id": "b"}])

    assert answer.status_code == 413
    assert calls.ids() == ["a", "b"]


def test_u7_a_good_batch_is_whole_in_every_mode(calls: Calls) -> None:
    for mode in ("atomic", "ordered", "unordered"):
        calls.server.switches = Switches(batch=mode)
        assert calls("batchwrite", [{"m": mode}, {"m": mode}]).json() == {"inserted": 2}

    assert calls.values("m") == ["atomic", "atomic", "ordered", "ordered", "unordered", "unordered"]


# --- U8 to U14: the service around it


def test_u8_a_body_over_the_limit_is_a_413_unpacked_too(calls: Calls) -> None:
    calls.server.switches = Switches(max_body_bytes=100, gzip_requests=True)
    packed = gzip.compress(json.dumps([{"text": "x" * 1000}]).encode())
    assert len(packed) < 100

    answers = [
        calls("batchwrite", [{"text": "x" * 100}]),
        calls("batchwrite", data=packed, headers={"Content-Encoding": "gzip"}),
    ]

    assert [answer.status_code for answer in answers] == [413, 413]
    assert calls.ids() == []


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_u8_above_the_rate_it_says_when_to_come_back(calls: Calls, form: Any) -> None:
    calls.server.switches = Switches(rate_limit=2, rate_seconds=30.0, retry_after=form)

    before = time.time()
    answers = [calls("read") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    told = answers[2].headers.get("Retry-After")
    if form == "seconds":
        assert told is not None
        assert 1 <= int(told) <= 30
    elif form == "date":
        assert told is not None
        assert before < parsedate_to_datetime(told).timestamp() <= before + 32
    else:
        assert told is None


def test_u8_who_waits_is_admitted_again(calls: Calls) -> None:
    calls.server.switches = Switches(rate_limit=3, rate_seconds=0.2)

    deadline = time.monotonic() + 10
    statuses: list[int] = []
    while statuses.count(200) < 9 and time.monotonic() < deadline:
        statuses.append(calls("read").status_code)

    assert statuses.count(200) == 9
    assert 429 in statuses


@pytest.mark.parametrize("status", [200, 204, 404, 409, 422, 500])
def test_u9_no_match_has_the_status_that_was_chosen(calls: Calls, status: int) -> None:
    calls.server.switches = Switches(no_match_status=status)

    answer = calls("updatewithupsert", {"search query": {"k": 1}, "data": {"v": 1}})

    assert answer.status_code == status
    if status == 200:
        assert answer.json() == {"matched": 0, "modified": 0, "upserted": 0}
    elif status != 204:
        assert "matches the search query" in answer.json()["error"]
    assert calls.ids() == []


def test_u10_the_plain_calls_are_where_the_switches_put_them(calls: Calls) -> None:
    calls.server.switches = Switches(
        read_call="GET documents",
        write_call="POST documents",
        update_call="PATCH documents",
        delete_call=None,
    )
    write = calls.url("batchwrite").replace("batchwrite", "documents")
    read = calls.url("read").replace("/read/", "/documents/")

    assert requests.post(write, json={"_id": "a", "n": 1}, timeout=10).ok
    update = {"search query": {"_id": "a"}, "data": {"n": 2}}
    assert requests.patch(write, json=update, timeout=10).ok
    assert requests.get(read, timeout=10).json() == [{"_id": "a", "n": 2}]
    wrong = requests.put(write, json={}, timeout=10)
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, POST, PATCH")
    assert calls("read").status_code == calls("write", {}).status_code == 404
    assert calls("delete", {}).status_code == 404
    assert calls("batchdelete", {"n": 2}).json() == {"deleted": 1}
    assert [one.verb for one in calls.server.log.entries(last=9)][:3] == ["write", "update", "read"]


@pytest.mark.parametrize("verb", ["delete", "batchdelete"])
@pytest.mark.parametrize("everything", [False, True])
def test_u11_a_delete_whose_body_is_lost_is_one_without(
    calls: Calls, verb: str, everything: bool
) -> None:
    calls("batchwrite", [{"_id": "a"}, {"_id": "b"}])
    calls.server.switches = Switches(delete_body=False, empty_delete_is_all=everything)

    answer = calls(verb, {"_id": "b"})

    if everything:
        assert answer.status_code == 200
        assert calls.ids() == ([] if verb == "batchdelete" else ["b"])
    else:
        assert answer.status_code == 400
        assert calls.ids() == ["a", "b"]


@pytest.mark.parametrize("count", [0, 3, 9000])
def test_u12_responses_are_packed_for_who_accepts_it_alone(calls: Calls, count: int) -> None:
    calls.server.seed("things", [{"_id": n, "text": "x" * 50} for n in range(count)])
    plain = calls("read").content
    calls.server.switches = Switches(gzip_responses=True)

    packed = calls("read", stream=True)
    raw = packed.raw.read(decode_content=False)
    unpacked = calls("read", headers={"Accept-Encoding": "identity"})

    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == plain
    assert "Content-Encoding" not in unpacked.headers
    assert unpacked.content == plain


def test_u12_packed_requests_are_taken_or_a_415(calls: Calls) -> None:
    packed = gzip.compress(b'[{"n":1}]')
    options: dict[str, Any] = {"data": packed, "headers": {"Content-Encoding": "gzip"}}

    assert calls("batchwrite", **options).status_code == 415
    calls.server.switches = Switches(gzip_requests=True)
    assert calls("batchwrite", **options).json() == {"inserted": 1}
    for broken in (packed[:-1], packed + b"x", b"no gzip"):
        assert calls("batchwrite", **{**options, "data": broken}).status_code == 400
    assert calls("batchwrite", data=packed, headers={"Content-Encoding": "br"}).status_code == 415
    assert calls.values("n") == [1]


def test_u13_a_read_sees_the_past_and_catches_up(calls: Calls) -> None:
    calls.server.seed("things", [{"_id": "old", "n": 1}])
    calls.server.switches = Switches(stale_seconds=0.3)
    wrote = time.monotonic()
    calls("write", {"_id": "new", "n": 2})
    calls("update", {"search query": {"_id": "old"}, "data": {"n": 3}})

    seen = calls("readwithquery", {"query": {"n": {"$gt": 0}}, "sort": {"n": -1}}).json()
    in_time = time.monotonic() - wrote < 0.3
    assert not in_time or seen == [{"_id": "old", "n": 1}]
    deadline = time.monotonic() + 10
    while calls("read").json() != [{"_id": "old", "n": 3}, {"_id": "new", "n": 2}]:
        assert time.monotonic() < deadline
    assert time.monotonic() - wrote >= 0.3


def test_u13_what_is_seeded_is_no_write_that_a_read_could_miss(calls: Calls) -> None:
    calls.server.switches = Switches(stale_seconds=600)
    calls("write", {"_id": "written"})
    calls.server.seed("things", [{"_id": "seeded"}])
    calls("write", {"_id": "written too"})

    assert calls("read").json() == [{"_id": "seeded"}]


@given(data=st.data())
def test_u13_the_past_is_exactly_what_was_there(data: st.DataObject) -> None:
    now = 0.0
    store = Store(remember=lambda _name: 5.0, clock=lambda: now)
    store.add_collection("c")
    states = [(0.0, store.documents("c"))]
    for _ in range(data.draw(st.integers(1, 8))):
        now += data.draw(st.sampled_from([0.0, 0.5, 1.0]))
        key = data.draw(st.integers(0, 3))
        if data.draw(st.booleans()):
            store.update("c", {"_id": key}, {"at": now, "n": len(states)}, upsert=True)
        else:
            store.delete("c", {"_id": {"$gte": key}}, many=True)
        states.append((now, store.documents("c")))
    age = data.draw(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]))

    found = json.loads(b"".join(store.find("c", Search(), age=age)))

    expected = [documents for moment, documents in states if moment <= now - age]
    assert found == (expected[-1] if expected else [])
    store.close()


def test_u13_the_past_is_bounded() -> None:
    history = History(max_changes=3)
    for seq in range(10):
        history.note(float(seq), [(seq, None)], seconds=100.0)

    rows = {seq: Stored(seq, {"_id": seq}, b"", True) for seq in range(10)}
    assert [one.seq for one in history.before(-1.0, rows)] == list(range(7))


@pytest.mark.parametrize("form", ["object", "page"])
def test_u14_errors_can_hide_behind_a_200(calls: Calls, form: Any) -> None:
    told = calls("readwithquery", {"query": {"$nonsense": 1}}).json()
    calls.server.switches = Switches(error_form=form)

    answers = [
        calls("readwithquery", {"query": {"$nonsense": 1}}),
        calls("batchwrite", {"no": "array"}),
        requests.get(calls.url("read").replace("things", "nothing"), timeout=10),
    ]

    assert [answer.status_code for answer in answers] == [200] * 3
    if form == "object":
        assert answers[0].json() == told
        assert all(list(answer.json()) == ["error"] for answer in answers)
    else:
        assert all("text/html" in answer.headers["Content-Type"] for answer in answers)
        assert all(answer.text.startswith("<!doctype html>") for answer in answers)
    assert calls("read").json() == []


# --- where they hold


def test_switches_of_a_server_are_an_argument_and_can_be_set_while_it_runs() -> None:
    with LocalServer(["things"], switches=Switches(page_cap=1)) as server:
        server.seed("things", [{"n": 1}, {"n": 2}])
        with requests.Session() as session:
            calls = Calls(server, session)
            assert len(calls("read").json()) == 1
            server.switches = Switches(page_cap=2)
            assert len(calls("read").json()) == 2


def test_a_switch_that_is_set_amid_requests_disturbs_none(calls: Calls) -> None:
    calls.server.seed("things", [{"_id": number} for number in range(10)])
    over = threading.Event()
    lengths: set[int] = set()

    def read() -> None:
        with requests.Session() as session:
            mine = Calls(calls.server, session)
            while not over.is_set():
                lengths.add(len(mine("read").json()))

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 10
    while lengths != {3, 10} and time.monotonic() < deadline:
        calls.server.switches = Switches(page_cap=3) if 3 not in lengths else Switches()
    over.set()
    reader.join()

    assert lengths == {3, 10}


@pytest.mark.parametrize("module", ["switches", "conditions", "history", "operators"])
def test_the_documented_examples_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"connectome_dagster.local.{module}"))

    assert found.attempted > 0
    assert found.failed == 0
