"""The filters that continue from a key find exactly what stands at it or behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local.extended_json import from_json_value
from connectome_dagster.local.query import compile_filter
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.transfer.cursor import (
    Key,
    Order,
    Unprovable,
    exactly,
    from_here,
    is_certain,
    up_to,
    ways,
)

VALUES: list[Any] = [
    {"$minKey": 1}, None, {"$numberDouble": "NaN"}, {"$numberDouble": "-Infinity"}, -1, 0, 0.5,
    {"$numberLong": "9007199254740993"}, {"$numberDecimal": "1e40"}, "", "a", "é", "0" * 24, {},
    {"x": 1}, {"$binary": {"base64": "AA==", "subType": "00"}}, {"$oid": "0" * 24},
    {"$oid": "f" * 24}, False, True, {"$date": "2020-01-01T00:00:00Z"},
    {"$timestamp": {"t": 1, "i": 1}}, {"$maxKey": 1},
]  # fmt: skip

rows = st.lists(
    st.fixed_dictionaries(
        {}, optional={"k": st.sampled_from(VALUES), "m": st.sampled_from(VALUES)}
    ),
    min_size=1,
    max_size=8,
)
directions = st.sampled_from([1, -1])


def raw(document: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(document))


def found(query: dict[str, Any], documents: list[dict[str, Any]]) -> list[int]:
    matches = compile_filter(from_json_value(query))
    return [each["_id"] for each in documents if matches(from_json_value(each))]


def sorted_by(order: Order, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_id = {each["_id"]: each for each in documents}
    values = compile_sort(order.sort)([from_json_value(each) for each in documents])
    return [by_id[each["_id"]] for each in values]


@given(rows, st.lists(st.tuples(st.sampled_from(["k", "m"]), directions), max_size=2), directions)
def test_from_here_is_what_the_sort_puts_here_or_behind(
    some: list[dict[str, Any]], sort: list[tuple[str, int]], direction: int
) -> None:
    order = Order.by(dict(sort) or {"_id": direction})
    documents = sorted_by(order, [{"_id": n, **each} for n, each in enumerate(some)])
    for place, document in enumerate(documents):
        at, way = next(iter(ways(order, order.key(raw(document)))))
        expected = sorted(each["_id"] for each in documents[place:])
        assert sorted(found(from_here(at, way), documents)) == expected
        assert found(exactly(at, way), documents) == [document["_id"]]


@given(rows, st.sampled_from(VALUES))
def test_what_is_up_to_a_value_and_what_is_from_it_are_everything_and_disjoint(
    some: list[dict[str, Any]], value: Any
) -> None:
    order = Order((("k", 1),))
    documents = [{"_id": n, **each} for n, each in enumerate(some)]
    for _, way in ways(order, Key((value,))):
        parts = found(up_to(order, way), documents) + found(from_here(order, way), documents)
        assert sorted(parts) == list(range(len(documents)))


@pytest.mark.parametrize(
    ("value", "hows"),
    [
        (0, ["plain"]),
        ("", ["plain"]),
        (False, ["plain"]),
        ("a" * 24, ["plain", "ejson", "expr"]),
        ("2020-01-01T00:00:00.000Z", ["plain", "ejson", "expr"]),
        ({"$oid": "a" * 24}, ["ejson", "expr"]),
        ({"$numberLong": "5"}, ["ejson", "plain"]),
        ({"$numberDecimal": "5"}, ["ejson"]),
    ],
)
def test_each_value_is_said_in_the_likely_way_first(value: Any, hows: list[str]) -> None:
    order = Order((("_id", 1),))
    assert [way[0].how for _, way in ways(order, Key((value,)))] == hows
    assert is_certain(Key((value,))) == (hows == ["plain"])


def test_ways_that_leave_the_id_out_come_last() -> None:
    order = Order.by({"n": 1})
    names = [tuple(at.sort) for at, _ in ways(order, Key((5, "a" * 24)))]
    assert names == [("n", "_id")] * 3 + [("n",)]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"n": 1}, "show no _id"),
        ({"_id": 1, "n": [1]}, "'n' holds an array"),
        ({"_id": 1, "n": 1e999}, "a number that no filter says"),
    ],
)
def test_a_document_without_a_place_says_why(document: dict[str, Any], words: str) -> None:
    text = msgspec.json.encode(document).replace(b"null", b"1e999")
    with pytest.raises(Unprovable, match=words):
        Order.by({"n": 1}).key(msgspec.Raw(text))


def test_a_regular_expression_is_no_cursor() -> None:
    with pytest.raises(Unprovable, match="cannot be compared"):
        list(ways(Order((("k", 1),)), Key(({"$regularExpression": {}},))))


@pytest.mark.parametrize(
    ("sort", "fields"),
    [
        ({"a": -1}, {"a": -1, "_id": -1}),
        ({"a": 1, "b": -1}, {"a": 1, "b": -1, "_id": -1}),
        ({"_id": -1, "a": 1}, {"_id": -1}),
        ({"a": 1, "_id": -1, "b": 1}, {"a": 1, "_id": -1}),
        ({}, {"_id": 1}),
    ],
)
def test_an_order_ends_with_the_id(sort: dict[str, int], fields: dict[str, int]) -> None:
    assert Order.by(sort).sort == fields


def test_a_falling_key_is_one_that_certainly_stands_before() -> None:
    order = Order.by({"n": -1})
    assert order.falls(Key((5, 1)), Key((4, 1)))
    assert order.falls(Key((5, 1)), Key((5, 2))) is False
    assert order.falls(Key((5, 3)), Key((5, 2)))
    assert not order.falls(Key(("b", 1)), Key(("a", 1)))
    assert not order.falls(Key((1, 1)), Key((None, 1)))
