"""BSON values: their order, their types, and Extended JSON in both forms."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.datetime_ms import DatetimeMS
from hypothesis import given

from connectome_dagster.local.values import (
    MISSING,
    comparison_key,
    equals,
    from_json_value,
    sort_key,
    to_json_value,
    type_name,
)
from tests.local.bson_values import law, values

NAN, INF = float("nan"), float("inf")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# MongoDB's order between types, and within each of them
RISING: list[Any] = [
    MinKey(),
    None,
    NAN,
    -INF,
    Decimal128("-1E+6000"),
    -(2**63),
    -1.5,
    0,
    Decimal128("0.1"),
    0.1,  # the double nearest to a tenth is above it
    Int64(1),
    2**53,
    2**53 + 1,
    2.0**53 + 2,
    Decimal128("1E+6000"),
    INF,
    "",
    "a",
    "a\0",
    "aa",
    "b",
    "\uffff",
    "\U0001f600",  # code points, not UTF-16 units
    {},
    {"a": None},
    {"a": 1},
    {"a": 1, "b": 1},
    {"a": 2},
    {"b": 1},
    {"a": "x"},  # the type of a value goes before its name
    {"a": {}},
    [],
    [1],
    [1, 2],
    [2],
    ["a"],
    b"",
    b"b",
    Binary(b"a", 5),
    b"aa",
    ObjectId("000000000000000000000000"),
    ObjectId("65a000000000000000000000"),
    False,
    True,
    DatetimeMS(-(2**60)),
    datetime(1, 1, 1, tzinfo=timezone.utc),
    EPOCH,
    EPOCH + timedelta(milliseconds=1),
    DatetimeMS(2**60),
    Timestamp(0, 1),
    Timestamp(1, 0),
    Regex("a"),
    Regex("a", "i"),
    Regex("b"),
    Code("a"),
    Code("a", {}),
    MaxKey(),
]


@pytest.mark.parametrize("pair", list(pairwise(RISING)), ids=repr)
def test_values_rise_in_bson_order(pair: tuple[Any, Any]) -> None:
    lower, higher = pair
    assert sort_key(lower) < sort_key(higher)
    assert not equals(lower, higher)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, Int64(1)),
        (1, Decimal128("1.00")),
        (0.0, -0.0),
        (0.5, Decimal128("0.5")),
        (NAN, NAN),
        (NAN, Decimal128("NaN")),
        (INF, Decimal128("Infinity")),
        (2**53, 2.0**53),
        (b"a", Binary(b"a", 0)),
        (EPOCH, DatetimeMS(0)),
        (EPOCH, datetime(1970, 1, 1)),
        (EPOCH, datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))),
        (EPOCH, EPOCH + timedelta(microseconds=999)),
        ({"a": [1, {"b": 2}]}, {"a": [1.0, {"b": Int64(2)}]}),
        (uuid.UUID(int=7), Binary(uuid.UUID(int=7).bytes, 4)),
        (DBRef("c", 1), {"$ref": "c", "$id": 1}),
    ],
    ids=repr,
)
def test_equal_values_of_different_kinds_are_equal(left: Any, right: Any) -> None:
    assert equals(left, right)
    assert hash(comparison_key(left)) == hash(comparison_key(right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True),
        (0, False),
        (0, None),
        ("1", 1),
        (0.1, Decimal128("0.1")),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1, 2], [2, 1]),
        ([], None),
        (MISSING, None),
        ("a", b"a"),
        (Code("a"), "a"),
    ],
    ids=repr,
)
def test_values_that_look_alike_are_not_equal(left: Any, right: Any) -> None:
    assert not equals(left, right)


def test_a_missing_value_sorts_as_null_and_compares_below_it() -> None:
    assert sort_key(MISSING) == sort_key(None)
    assert comparison_key(MISSING) < comparison_key(None)


def test_something_that_is_no_bson_value_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        comparison_key({1})
    with pytest.raises(TypeError, match="set"):
        to_json_value({1})


@law
@given(values, values, values)
def test_the_order_is_total(left: Any, middle: Any, right: Any) -> None:
    low, mid, high = sorted([sort_key(left), sort_key(middle), sort_key(right)])
    assert low <= mid <= high
    assert low <= high
    assert (low < mid) + (low == mid) + (low > mid) == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "int"),
        (2**31 - 1, "int"),
        (-(2**31), "int"),
        (2**31, "long"),
        (Int64(1), "long"),
        (1.0, "double"),
        (Decimal128("1"), "decimal"),
        (True, "bool"),
        (None, "null"),
        (MISSING, "missing"),
        ("", "string"),
        ({}, "object"),
        ([], "array"),
        (b"", "binData"),
        (EPOCH, "date"),
        (DatetimeMS(2**60), "date"),
        (Code("a"), "javascript"),
        (Code("a", {}), "javascriptWithScope"),
    ],
    ids=repr,
)
def test_a_value_knows_the_name_of_its_type(value: Any, name: str) -> None:
    assert type_name(value) == name


# value, canonical, relaxed: from the specification of Extended JSON v2
EXTENDED_JSON: list[tuple[Any, Any, Any]] = [
    (ObjectId("56e1fc72e0c917e9c4714161"), {"$oid": "56e1fc72e0c917e9c4714161"}, None),
    ("text", "text", None),
    (True, True, None),
    (None, None, None),
    (-1, {"$numberInt": "-1"}, -1),
    (2**31, {"$numberLong": "2147483648"}, 2**31),
    (Int64(5), {"$numberLong": "5"}, 5),
    (-1.5, {"$numberDouble": "-1.5"}, -1.5),
    (1e300, {"$numberDouble": "1E+300"}, 1e300),
    (INF, {"$numberDouble": "Infinity"}, {"$numberDouble": "Infinity"}),
    (-INF, {"$numberDouble": "-Infinity"}, {"$numberDouble": "-Infinity"}),
    (NAN, {"$numberDouble": "NaN"}, {"$numberDouble": "NaN"}),
    (Decimal128("1.20E+3"), {"$numberDecimal": "1.20E+3"}, {"$numberDecimal": "1.20E+3"}),
    (b"\xff", {"$binary": {"base64": "/w==", "subType": "00"}}, None),
    (Binary(b"\xff", 128), {"$binary": {"base64": "/w==", "subType": "80"}}, None),
    (
        datetime(2012, 12, 24, 12, 15, 30, 501000, tzinfo=timezone.utc),
        {"$date": {"$numberLong": "1356351330501"}},
        {"$date": "2012-12-24T12:15:30.501Z"},
    ),
    (EPOCH, {"$date": {"$numberLong": "0"}}, {"$date": "1970-01-01T00:00:00Z"}),
    (
        EPOCH - timedelta(milliseconds=1),
        {"$date": {"$numberLong": "-1"}},
        {"$date": {"$numberLong": "-1"}},
    ),
    (
        DatetimeMS(253402300800000),
        {"$date": {"$numberLong": "253402300800000"}},
        {"$date": {"$numberLong": "253402300800000"}},
    ),
    (Regex("a\\d", "im"), {"$regularExpression": {"pattern": "a\\d", "options": "im"}}, None),
    (Timestamp(42, 1), {"$timestamp": {"t": 42, "i": 1}}, None),
    (Code("f()"), {"$code": "f()"}, None),
    (
        Code("f()", {"x": 1}),
        {"$code": "f()", "$scope": {"x": {"$numberInt": "1"}}},
        {"$code": "f()", "$scope": {"x": 1}},
    ),
    (MinKey(), {"$minKey": 1}, None),
    (MaxKey(), {"$maxKey": 1}, None),
    ({"$ref": "c", "$id": ObjectId("0" * 24)}, {"$ref": "c", "$id": {"$oid": "0" * 24}}, None),
    ([{"a": 1.0}], [{"a": {"$numberDouble": "1.0"}}], [{"a": 1.0}]),
]


@pytest.mark.parametrize(("value", "canonical", "relaxed"), EXTENDED_JSON, ids=repr)
def test_extended_json_is_written_and_read_in_both_forms(
    value: Any, canonical: Any, relaxed: Any
) -> None:
    relaxed = canonical if relaxed is None else relaxed
    assert to_json_value(value, relaxed=False) == canonical
    assert to_json_value(value) == relaxed
    assert equals(from_json_value(canonical), value)
    assert type_name(from_json_value(canonical)) == type_name(value)
    assert equals(from_json_value(relaxed), value)


@pytest.mark.parametrize(
    ("extended", "value"),
    [
        ({"$uuid": "00000000-0000-0000-0000-0000000000ff"}, bytes(15) + b"\xff"),
        ({"$date": "1970-01-01T02:00:00+0200"}, EPOCH),
        ({"$date": "1970-01-01T00:00:00.1-00:00"}, EPOCH + timedelta(milliseconds=100)),
        ({"$binary": "/w==", "$type": "00"}, b"\xff"),
        ({"$symbol": "s"}, "s"),
        ({"$undefined": True}, None),
    ],
    ids=repr,
)  # fmt: skip
def test_other_forms_of_extended_json_are_read(extended: Any, value: Any) -> None:
    found = from_json_value(extended)
    assert bytes(found) == value if isinstance(value, bytes) else equals(found, value)


@pytest.mark.parametrize(
    "extended",
    [
        {"$oid": "xyz"},
        {"$oid": 1},
        {"$oid": "56e1fc72e0c917e9c4714161", "extra": 1},
        {"$numberInt": "2147483648"},
        {"$numberInt": 1},
        {"$numberInt": "1.0"},
        {"$numberLong": "9223372036854775808"},
        {"$numberLong": " 1"},
        {"$numberDouble": "x"},
        {"$numberDouble": "1_0"},
        {"$numberDouble": 1.0},
        {"$numberDecimal": "1 "},
        {"$numberDecimal": "11111111111111111111111111111111111.5"},
        {"$date": "yesterday"},
        {"$date": "2026-02-30T00:00:00Z"},
        {"$date": "2026-01-01T00:00:00"},
        {"$date": 42},
        {"$date": {"$numberLong": "1", "x": 1}},
        {"$binary": {"base64": "!", "subType": "00"}},
        {"$binary": {"base64": "/w==", "subType": "xyz"}},
        {"$binary": {"base64": "/w=="}},
        {"$uuid": "73ffd264"},
        {"$regularExpression": {"pattern": "a"}},
        {"$regularExpression": {"pattern": "a", "options": "q"}},
        {"$timestamp": {"t": -1, "i": 0}},
        {"$timestamp": {"t": 1}},
        {"$code": 1},
        {"$code": "f", "$scope": 1},
        {"$minKey": 2},
        {"$maxKey": True},
        {"$undefined": 1},
        {"$symbol": 1},
        {"$dbPointer": {"$ref": "a"}},
    ],
    ids=repr,
)
def test_a_malformed_wrapper_is_refused_by_its_name(extended: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Extended JSON: \$"):
        from_json_value({"field": [extended]})


def test_a_query_operator_is_no_extended_json() -> None:
    query = {"a": {"$regex": "x", "$options": "i"}, "b": {"$type": "int"}}
    assert from_json_value(query) is query


def test_what_holds_no_extended_json_is_not_copied() -> None:
    plain = {"a": [1, {"b": []}]}
    assert from_json_value(plain) is plain
    mixed = {"a": {"b": 1}, "c": [{"$numberLong": "1"}]}
    assert from_json_value(mixed)["a"] is mixed["a"]
    assert mixed["c"] == [{"$numberLong": "1"}]


def test_a_document_nested_too_deeply_is_refused() -> None:
    document: Any = 1
    for _ in range(900):
        document = [document]
    with pytest.raises(ValueError, match="nested deeper"):
        from_json_value(document)


def test_the_deepest_document_allowed_can_be_compared_and_written() -> None:
    document: Any = {"$numberLong": "1"}
    for _ in range(199):
        document = [document]
    value = from_json_value(document)
    assert sort_key(value) == sort_key(from_json_value(document))
    assert to_json_value(value, relaxed=False) == document


@law
@given(values)
def test_canonical_extended_json_keeps_every_value_and_type(value: Any) -> None:
    text = json.dumps(to_json_value(value, relaxed=False), allow_nan=False)
    found = from_json_value(json.loads(text))
    assert equals(found, value)
    assert type_name(found) == type_name(value)


@law
@given(values)
def test_relaxed_extended_json_keeps_every_value(value: Any) -> None:
    text = json.dumps(to_json_value(value), allow_nan=False)
    assert equals(from_json_value(json.loads(text)), value)
