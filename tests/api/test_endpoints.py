from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.api import endpoints
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ConfigurationError


def every_call(collection: str) -> list[Call]:
    return [
        endpoints.read(collection),
        endpoints.read_with_query(collection),
        endpoints.batch_write(collection, b"[]"),
        endpoints.write(collection, b"{}"),
        endpoints.update(collection, {"a": 1}, {"b": 2}, upsert=False),
        endpoints.update(collection, {"a": 1}, {"b": 2}, upsert=True),
        endpoints.update_plain(collection, {"a": 1}, {"b": 2}),
        endpoints.batch_delete(collection, {"a": 1}),
        endpoints.delete(collection, {"a": 1}),
    ]


def test_the_query_of_the_page_is_said_as_on_the_page() -> None:
    call = endpoints.read_with_query(
        "movies",
        query={"amount": {"$gte": 30}},
        project={"amount": 1, "title": 1},
        sort={"amount": 1},
        limit=10,
    )
    assert json.loads(call.body or b"") == {
        "query": {"amount": {"$gte": 30}},
        "project": {"amount": 1, "title": 1},
        "sort": {"amount": 1},
        "limit": 10,
    }
    assert (call.method, call.verb, call.needs) == ("POST", "readwithquery", "read")


def test_the_update_of_the_page_is_said_as_on_the_page() -> None:
    call = endpoints.update("movies", {"f1": "foo", "f2": "bar"}, {"f3": "baz"}, upsert=True)
    assert json.loads(call.body or b"") == {
        "search query": {"f1": "foo", "f2": "bar"},
        "data": {"f3": "baz"},
        "upsert": True,
    }
    assert (call.method, call.verb) == ("POST", "updatewithupsert")


def test_methods_verbs_and_credentials_are_those_of_the_page() -> None:
    assert [(call.method, call.verb, call.needs) for call in every_call("m")] == [
        ("GET", "read", "read"),
        ("POST", "readwithquery", "read"),
        ("POST", "batchwrite", "write"),
        ("POST", "write", "write"),
        ("POST", "updatewithupsert", "write"),
        ("POST", "updatewithupsert", "write"),
        ("POST", "update", "write"),
        ("DELETE", "batchdelete", "write"),
        ("DELETE", "delete", "write"),
    ]


def test_only_what_leaves_the_same_when_repeated_is_repeatable() -> None:
    assert [call.repeatable for call in every_call("m")] == [
        *(True, True),  # reads
        *(False, False),  # inserts
        *(True, False, True),  # update, upsert, plain update
        *(True, False),  # delete all that match, delete the first match
    ]


@pytest.mark.parametrize(
    ("search", "data", "repeatable"),
    [
        ({"sku": 1}, {"price": 2}, True),
        ({}, {"price": 2}, True),
        ({"sku": 1}, {"sku": 2}, False),
        ({"a.b": 1}, {"a": {"b": 2}}, False),
        ({"a": {"b": 1}}, {"a.b": 2}, False),
        ({"ab": 1}, {"a": 2}, True),
        ({"a.b": 1}, {"a.c": 2}, True),
        ({"$and": [{"x": 1}, {"$or": [{"price": {"$lt": 5}}]}]}, {"price": 2}, False),
        ({"$and": [{"x": 1}, {"y": 1}], "$comment": "price"}, {"price": 2}, True),
        ({"$expr": {"$gt": ["$price", 1]}}, {"price": 2}, False),
        ({"$where": "this.price > 1"}, {"price": 2}, False),
        ({"$or": "nonsense"}, {"price": 2}, False),
        ({"sku": 1}, {"$inc": {"n": 1}}, False),
    ],
)
def test_an_update_is_repeatable_if_it_cannot_move_what_it_finds(
    search: dict[str, Any], data: dict[str, Any], repeatable: bool
) -> None:
    assert endpoints.update("m", search, data, upsert=False).repeatable is repeatable
    assert endpoints.update_plain("m", search, data).repeatable is repeatable
    assert endpoints.update("m", search, data, upsert=True).repeatable is False


def test_only_updates_without_upsert_may_find_nothing() -> None:
    assert [call.verb for call in every_call("m") if call.may_miss] == [
        "updatewithupsert",
        "update",
    ]
    assert endpoints.update("m", {}, {}, upsert=True).may_miss is False


@pytest.mark.parametrize(
    "collection", ["", "a/b", "a b", "a\n", "\x00", ".", "..", None, 7, type("S", (str,), {})("m")]
)
def test_what_cannot_be_a_collection_id_is_refused(collection: Any) -> None:
    with pytest.raises(ConfigurationError, match="collection id"):
        endpoints.read(collection)
    with pytest.raises(ConfigurationError, match="collection id"):
        endpoints.batch_write(collection, b"[]")


def test_a_repr_holds_no_body() -> None:
    assert "confidential" not in repr(endpoints.batch_write("m", b'["confidential"]'))


def test_undocumented_endpoints_can_be_set_and_documented_ones_cannot() -> None:
    ours = endpoints.resolve_endpoints({"write": "PUT insert", "delete": ["POST", "remove"]})
    assert endpoints.write("m", b"{}", endpoints=ours).method == "PUT"
    assert endpoints.delete("m", {}, endpoints=ours).verb == "remove"
    assert endpoints.read("m", endpoints=ours) == endpoints.read("m")
    for overrides in ({"batchwrite": "PUT x"}, {"nonsense": "PUT x"}, {"write": "insert"}):
        with pytest.raises(ConfigurationError, match="endpoints"):
            endpoints.resolve_endpoints(overrides)
    with pytest.raises(ConfigurationError, match="endpoints"):
        endpoints.resolve_endpoints({"write": "PUT ../insert"})


def test_the_default_endpoints_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        endpoints.DEFAULT_ENDPOINTS["read"] = ("GET", "x")  # type: ignore[index]


def query_of(value: Any) -> Any:
    return json.loads(endpoints.read_with_query("m", query={"v": value}).body or b"")["query"]["v"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_a_query_arrives_as_it_was_given(value: Any) -> None:
    assert query_of(value) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**200, 2**200),
        (-(2**63) - 1, -(2**63) - 1),
        (np.int64(7), 7),
        (np.float64(1.5), 1.5),
        (np.float32(1.5), 1.5),
        ((1, 2), [1, 2]),
        (datetime(2018, 2, 1, tzinfo=timezone.utc), "2018-02-01T00:00:00.000Z"),
        (
            datetime(2018, 2, 1, 1, 2, 3, 456789, timezone(timedelta(hours=2))),
            "2018-01-31T23:02:03.456Z",
        ),
        (pd.Timestamp("2018-02-01", tz="UTC"), "2018-02-01T00:00:00.000Z"),
    ],
)
def test_numbers_and_instants_are_said_exactly(value: Any, said: Any) -> None:
    assert query_of(value) == said


class ObjectId:
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (datetime(2018, 2, 1), "time zone"),
        (date(2018, 2, 1), "time zone"),
        (pd.NaT, "NaT"),
        (b"bytes", "bytes"),
        (Decimal(1), "Decimal"),
        (Fraction(1, 3), "Fraction"),
        (np.bool_(True), "bool"),
        ({1, 2}, "set"),
        (ObjectId(), "ObjectId"),
        ({1: 2}, "key 1"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=r"query\.a\.\$in\[0\]") as caught:
        endpoints.batch_delete("m", {"a": {"$in": [value]}})
    assert named in str(caught.value)
    assert caught.value.__context__ is None


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="surrogate") as caught:
        endpoints.read_with_query("m", query={"a": "\ud800"})
    assert caught.value.__context__ is None


def test_a_query_that_holds_itself_is_refused() -> None:
    query: dict[str, Any] = {}
    query["a"] = query
    with pytest.raises(ConfigurationError, match="deeper than 100"):
        endpoints.read_with_query("m", query=query)


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, "10"])
def test_a_limit_is_a_whole_number_from_one(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        endpoints.read_with_query("m", limit=limit)


@pytest.mark.parametrize("direction", [0, 2, True, "asc", None])
def test_a_sort_goes_up_or_down(direction: Any) -> None:
    with pytest.raises(ConfigurationError, match="'a'"):
        endpoints.read_with_query("m", sort={"a": direction})


def test_a_sort_keeps_its_order() -> None:
    body = endpoints.read_with_query("m", sort={"z": 1, "a": -1}).body
    assert body == b'{"query":{},"sort":{"z":1,"a":-1}}'


@pytest.mark.parametrize("query", [None, [], "a", 1])
def test_a_query_is_a_mapping(query: Any) -> None:
    with pytest.raises(ConfigurationError, match="mapping"):
        endpoints.delete("m", query)


@pytest.mark.parametrize("text", [b"{}", b"", b" ", "[]", None, bytearray(b"[]")])
def test_a_batch_is_a_json_array_in_bytes(text: Any) -> None:
    with pytest.raises(ConfigurationError, match="array"):
        endpoints.batch_write("m", text)
    with pytest.raises(ConfigurationError, match="object"):
        endpoints.write("m", b"[]")


def test_upsert_is_true_or_false() -> None:
    with pytest.raises(ConfigurationError, match="upsert"):
        endpoints.update("m", {}, {}, upsert="yes")  # type: ignore[arg-type]


def test_an_upsert_of_encoded_json_is_the_documented_call() -> None:
    by_value = endpoints.update("movies", {"sku": 1}, {"price": 2.5}, upsert=True)
    assert endpoints.upsert_encoded("movies", b'{"sku":1}', b'{"price":2.5}') == by_value


@pytest.mark.parametrize("key", ["a\r\nX: y", "é", "a b", "x" * 256])
def test_an_idempotency_key_that_no_header_holds_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="idempotency key"):
        endpoints.batch_write("movies", b"[]", idempotency_key=key)
