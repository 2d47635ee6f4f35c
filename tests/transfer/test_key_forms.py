"""Keys on services that have them in each form: what text does not find is found out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from connectome_dagster.errors import ConfigurationError
from connectome_dagster.frames.encoding import Encoding
from tests.api.scripted import answer, serving
from tests.transfer.conftest import Local, Open
from tests.transfer.faults import by_verb, verb_of

DIGITS = "64f0c1d2a3b4c5d6e7f80912"
OTHERS = "64f0c1d2a3b4c5d6e7f80913"
INSTANT = "2024-02-29T12:00:00.000Z"
DATE = {"$date": INSTANT}


def changes(local: Local) -> Counter[str]:
    return Counter(entry.verb for entry, _ in local.server.changes)


@pytest.mark.parametrize("form", ["hex", "oid", "objectid"])
def test_what_was_read_is_written_back_to_the_same_documents(local: Local, form: str) -> None:
    local.server.switches(id_form=form)
    things = local.collection()
    things.append([{"n": 1}, {"n": 2}])
    before = local.server.documents(things.id)
    table = things.find(sort={"n": 1}).to_arrow()
    report = things.upsert(
        table.set_column(table.schema.get_field_index("n"), "n", [[3, 4]]), on=["_id"]
    )
    after = local.server.documents(things.id)
    assert report.rows == 2
    assert {str(each["_id"]) for each in after} == {str(each["_id"]) for each in before}
    assert sorted(each["n"] for each in after) == [3, 4]


@pytest.mark.parametrize("form", ["oid", "objectid"])
@pytest.mark.parametrize("frame_of", [list, pa.Table.from_pylist, iter])
def test_a_document_that_is_new_gets_an_id_of_the_same_kind(
    local: Local, form: str, frame_of: Any
) -> None:
    local.server.switches(id_form=form)
    things = local.collection([{"_id": {"$oid": DIGITS}, "n": 1}])
    things.upsert(frame_of([{"_id": DIGITS, "n": 2}, {"_id": OTHERS, "n": 3}]), on=["_id"])
    things.upsert(frame_of([{"_id": OTHERS, "n": 4}]), on=["_id"])
    found = {str(each["_id"]): each["n"] for each in local.server.documents(things.id)}
    assert found == {str({"$oid": DIGITS}): 2, str({"$oid": OTHERS}): 4}


def test_ids_alone_are_a_frame(local: Local) -> None:
    local.server.switches(id_form="oid")
    things = local.collection([{"_id": {"$oid": DIGITS}, "n": 1}])
    things.upsert(pa.table({"_id": [DIGITS]}), on=["_id"])
    assert local.server.documents(things.id) == [{"_id": {"$oid": DIGITS}, "n": 1}]


def test_ids_that_are_no_digits_are_what_they_are(local: Local) -> None:
    things = local.collection([{"_id": "a", "n": 1}, {"_id": 7, "n": 1}])
    things.upsert([{"_id": "a", "n": 2}, {"_id": "b", "n": 2}], on=["_id"])
    found = {each["_id"]: each["n"] for each in local.server.documents(things.id)}
    assert found == {"a": 2, "b": 2, 7: 1}


def test_ids_of_two_kinds_are_refused_before_anything_is_sent(local: Local) -> None:
    local.server.switches(id_form="oid")
    things = local.collection([{"_id": DIGITS}, {"_id": {"$oid": OTHERS}}])
    with pytest.raises(ConfigurationError, match="may be either"):
        things.upsert([{"_id": DIGITS, "n": 1}], on=["_id"])
    assert not changes(local)


def test_ids_that_no_filter_finds_are_refused_before_anything_is_sent(local: Local) -> None:
    things = local.collection([{"_id": {"$oid": DIGITS}}])
    local.server.switches(id_form="objectid", extended_json=False)
    with pytest.raises(ConfigurationError, match="no filter finds"):
        things.upsert([{"_id": DIGITS, "n": 1}], on=["_id"])
    assert not changes(local)


def test_ids_need_a_credential_to_look_with(open_collection: Open) -> None:
    with serving(answer(body=b"{}")) as server:
        with pytest.raises(ConfigurationError, match="read credential"):
            open_collection(server.base_url, read=None).upsert([{"_id": "a"}], on=["_id"])
        assert server.requests == []


def test_a_collection_without_documents_takes_ids_as_they_are(local: Local) -> None:
    things = local.collection()
    things.upsert([{"_id": DIGITS, "n": 1}], on=["_id"])
    assert local.server.documents(things.id) == [{"_id": DIGITS, "n": 1}]


MISSED: dict[str, tuple[Any, Any, Encoding, str]] = {
    "a date": (DATE, INSTANT, Encoding(), "timestamps='ejson'"),
    "an ObjectId": ({"$oid": DIGITS}, DIGITS, Encoding(), "other columns in on"),
    "text, by a date": (
        INSTANT,
        pa.scalar(1_709_208_000_000, pa.timestamp("ms", "UTC")).as_py(),
        Encoding(timestamps="ejson"),
        "as text",
    ),
}


@pytest.mark.parametrize(("there", "key", "encoding", "way"), MISSED.values(), ids=MISSED.keys())
def test_a_key_that_would_find_nothing_of_what_is_there_is_refused(
    local: Local, there: Any, key: Any, encoding: Encoding, way: str
) -> None:
    things = local.collection([{"k": None}, {"other": 1}, {"k": there, "n": 1}])
    with pytest.raises(ConfigurationError, match="'k'") as caught:
        things.upsert([{"k": key, "n": 2}], on=["k"], encoding=encoding)
    assert way in str(caught.value)
    assert "Nothing was sent" in str(caught.value)
    assert not changes(local)


FOUND: dict[str, tuple[Any, Any, Encoding]] = {
    "text": ("a", "a", Encoding()),
    "an instant as text": (INSTANT, INSTANT, Encoding()),
    "digits as text": (DIGITS, DIGITS, Encoding()),
    "a date": (
        DATE,
        pa.scalar(1_709_208_000_000, pa.timestamp("ms", "UTC")).as_py(),
        Encoding(timestamps="ejson"),
    ),
    "a number": (7, 7, Encoding()),
}


@pytest.mark.parametrize(("there", "key", "encoding"), FOUND.values(), ids=FOUND.keys())
def test_a_key_that_finds_what_is_there_goes_through(
    local: Local, there: Any, key: Any, encoding: Encoding
) -> None:
    things = local.collection([{"k": there, "n": 1}])
    things.upsert([{"k": key, "n": 2}], on=["k"], encoding=encoding)
    assert [each["n"] for each in local.documents(things)] == [2]


@pytest.mark.parametrize("shown", [b'[{"k":{"$numberDecimal":"1.5"}}]', b'[{"k":{"$uuid":"x"}}]'])
def test_a_form_that_is_shown_is_enough_to_know(open_collection: Open, shown: bytes) -> None:
    done = answer(body=b"{}")
    with serving(by_verb(answer(body=shown), updatewithupsert=done)) as server:
        with pytest.raises(ConfigurationError, match="ejson"):
            open_collection(server.base_url).upsert([{"k": DIGITS, "n": 2}], on=["k"])
        assert "updatewithupsert" not in set(map(verb_of, server.requests))


def test_keys_that_cannot_mislead_cost_no_look(local: Local) -> None:
    things = local.collection([{"k": "a", "j": 1}])
    report = things.upsert([{"k": "b", "j": 2}], on=["k", "j"])
    assert report.requests == 1


@pytest.mark.parametrize("frame_of", [list, iter, pa.Table.from_pylist])
@pytest.mark.parametrize("form", ["oid", "objectid"])
def test_a_sync_by_ids_that_text_does_not_find_is_refused_before_anything_is_sent(
    local: Local, form: str, frame_of: Any
) -> None:
    local.server.switches(id_form=form)
    things = local.collection([{"_id": {"$oid": DIGITS}, "n": 1}])
    with pytest.raises(ConfigurationError, match="upsert"):
        things.sync(frame_of([{"_id": DIGITS, "n": 2}]), on=["_id"])
    assert not changes(local)


@pytest.mark.parametrize(("there", "key", "encoding", "way"), MISSED.values(), ids=MISSED.keys())
def test_a_sync_by_a_key_that_would_find_nothing_is_refused_as_well(
    local: Local, there: Any, key: Any, encoding: Encoding, way: str
) -> None:
    things = local.collection([{"k": there, "n": 1}])
    with pytest.raises(ConfigurationError, match="'k'") as caught:
        things.sync([{"k": key, "n": 2}], on=["k"], encoding=encoding)
    assert way in str(caught.value)
    assert not changes(local)


@pytest.mark.parametrize(("there", "key", "encoding"), FOUND.values(), ids=FOUND.keys())
def test_a_sync_by_a_key_that_finds_what_is_there_goes_through(
    local: Local, there: Any, key: Any, encoding: Encoding
) -> None:
    things = local.collection([{"k": there, "n": 1}])
    report = things.sync([{"k": key, "n": 2}], on=["k"], encoding=encoding)
    assert [each["n"] for each in local.documents(things)] == [2]
    assert (report.inserted, report.updated) == (0, 1)


def test_a_sync_of_nothing_has_no_key_to_look_at(local: Local) -> None:
    assert local.collection([{"k": DATE}]).sync([], on=["k"]).rows == 0
