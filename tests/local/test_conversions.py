"""Conversions as MongoDB's manual documents them, through `$convert` and its shorthands."""

from __future__ import annotations

import doctest
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest
from bson import Decimal128, Int64, MaxKey, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given

from connectome_dagster.local import conversions
from connectome_dagster.local.conversions import TARGETS, Unconvertible, convert
from connectome_dagster.local.expressions import compile_expression
from connectome_dagster.local.refusal import QueryError
from connectome_dagster.local.values import equals, type_name
from tests.local.bson_values import law, values

SHORTHANDS = {
    "bool": "$toBool", "date": "$toDate", "decimal": "$toDecimal", "double": "$toDouble",
    "int": "$toInt", "long": "$toLong", "objectId": "$toObjectId", "string": "$toString",
}  # fmt: skip
OID = ObjectId("5ab9c3da31c2ab715d421285")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[arg-type, misc]  # as many as given


# The manual's examples, type by type, and then what the server does besides.
DOCUMENTED: list[tuple[Any, str, Any]] = [
    (True, "bool", True), (False, "bool", False), (1.99999, "bool", True),
    (Decimal128("5"), "bool", True), (Decimal128("0"), "bool", False), (100, "bool", True),
    (utc(2018, 3, 26, 4, 38, 28, 44000), "bool", True), ("hello", "bool", True),
    ("false", "bool", True), ("", "bool", True), (OID, "bool", True),
    (True, "int", 1), (False, "int", 0), (1.99999, "int", 1), (Decimal128("5.5000"), "int", 5),
    (Int64(5000), "int", 5000), ("-2", "int", -2),
    (True, "decimal", Decimal128("1")), (False, "decimal", Decimal128("0")),
    (2.5, "decimal", Decimal128("2.50000000000000")), (5, "decimal", Decimal128("5")),
    (Int64(10000), "decimal", Decimal128("10000")), ("-5.5", "decimal", Decimal128("-5.5")),
    (utc(2018, 3, 27, 5, 4, 47, 890000), "decimal", Decimal128("1522127087890")),
    (True, "double", 1.0), (False, "double", 0.0), (2.5, "double", 2.5), (5, "double", 5.0),
    (Int64(10000), "double", 10000.0), ("-5.5", "double", -5.5), ("5e10", "double", 5e10),
    (utc(2018, 3, 27, 5, 4, 47, 890000), "double", 1522127087890.0),
    (True, "long", Int64(1)), (False, "long", Int64(0)), (1.99999, "long", Int64(1)),
    (Decimal128("5.5000"), "long", Int64(5)), (8, "long", Int64(8)), ("-2", "long", Int64(-2)),
    (utc(2018, 3, 26, 4, 38, 28, 44000), "long", Int64(1522039108044)),
    (120000000000.5, "date", utc(1973, 10, 20, 21, 20)),
    (Decimal128("1253372036000.50"), "date", utc(2009, 9, 19, 14, 53, 56)),
    (Int64(1100000000000), "date", utc(2004, 11, 9, 11, 33, 20)),
    (Int64(-1100000000000), "date", utc(1935, 2, 22, 12, 26, 40)),
    (OID, "date", utc(2018, 3, 27, 4, 8, 58)),
    ("2018-03-03", "date", utc(2018, 3, 3)),
    ("2018-03-03T12:00:00Z", "date", utc(2018, 3, 3, 12)),
    ("2018-03-03T12:00:00+0500", "date", utc(2018, 3, 3, 7)),
    ("2018-03-20 11:00:06 +0500", "date", utc(2018, 3, 20, 6, 0, 6)),
    ("5ab9cbfa31c2ab715d42129e", "objectId", ObjectId("5ab9cbfa31c2ab715d42129e")),
    (True, "string", "true"), (False, "string", "false"), (2.5, "string", "2.5"),
    (2, "string", "2"), (Int64(1000), "string", "1000"), (OID, "string", str(OID)),
    (utc(2018, 3, 27, 16, 58, 51, 538000), "string", "2018-03-27T16:58:51.538Z"),
    (OID, "objectId", OID), ("x", "string", "x"), (utc(1, 1, 1), "date", utc(1, 1, 1)),
    ("+5", "int", 5), ("-" + "0" * 5000 + "7", "int", -7), ("1e3", "double", 1000.0),
    (".5", "double", 0.5),
    ("5.", "double", 5.0), ("Infinity", "double", float("inf")),
    ("2020-01-01T00:00:00.1234567Z", "date", utc(2020, 1, 1, 0, 0, 0, 123000)),
    ("2020-01-01T00:00:00+02:00", "date", utc(2019, 12, 31, 22)),
    (" 2020-01-01 ", "date", utc(2020, 1, 1)), ("2020-01", "date", utc(2020, 1, 1)),
    (Timestamp(1, 1), "date", utc(1970, 1, 1, 0, 0, 1)),
    (float("inf"), "string", "Infinity"), (float("nan"), "string", "NaN"),
    (1e300, "string", "1e+300"), (1.0, "string", "1"), (0.0, "decimal", Decimal128("0")),
    (Decimal128("1.10"), "string", "1.10"), (utc(1, 2, 3), "string", "0001-02-03T00:00:00.000Z"),
    (2**40, "date", DatetimeMS(2**40)), (float("-inf"), "decimal", Decimal128("-Infinity")),
]  # fmt: skip


@pytest.mark.parametrize(("value", "to", "expected"), DOCUMENTED, ids=repr)
def test_a_value_becomes_what_the_manual_shows(value: Any, to: str, expected: Any) -> None:
    number = next(at for at, name in TARGETS.items() if name == to)
    for expression in (
        {"$convert": {"input": "$v", "to": to}},
        {"$convert": {"input": "$v", "to": number}},
        {SHORTHANDS[to]: "$v"},
        {SHORTHANDS[to]: ["$v"]},
    ):
        found = compile_expression(expression)({"v": value})
        assert equals(found, expected)
        assert type_name(found) == to
    assert str(convert(2.5, "decimal")) == "2.50000000000000"


REFUSED: list[tuple[Any, str]] = [
    (Decimal128("9223372036000.000"), "int"), (Int64(922337203600), "int"), ("2.5", "int"),
    (Decimal128("9223372036854775808.0"), "long"), ("2.5", "long"), ("0x6400", "int"),
    ("0x6400", "decimal"), ("5e550", "double"), ("Friday", "date"), ("2018-13-01", "date"),
    ("5ab9cbfa31c2ab715d42129", "objectId"), (5, "date"), (True, "date"), (1, "objectId"),
    (utc(2020, 1, 1), "int"), ([1, 2], "int"), ({"k": 1}, "int"), (MaxKey(), "string"),
    (float("nan"), "int"), (float("inf"), "long"), (1e300, "int"), (Decimal128("NaN"), "long"),
    (Decimal128("1e6000"), "double"), ("", "int"), (" 5", "int"), ("1_0", "int"), ("\uff15", "int"),
    ("9" * 5000, "long"), ("", "double"), (" 5", "double"), ("", "decimal"), ("", "date"),
    ("2020-01-01T25:00:00Z", "date"), (DatetimeMS(2**60), "string"), (1e30, "date"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "to"), REFUSED, ids=lambda case: repr(case)[:40])
def test_what_cannot_be_converted_is_refused_or_given_another_value(value: Any, to: str) -> None:
    with pytest.raises(QueryError, match=rf"\{SHORTHANDS[to]}: "):
        compile_expression({SHORTHANDS[to]: "$v"})({"v": value})
    with pytest.raises(QueryError, match="without onError"):
        compile_expression({"$convert": {"input": "$v", "to": to}})({"v": value})
    mended = {"$convert": {"input": "$v", "to": to, "onError": {"$concat": ["no ", "$w"]}}}
    assert compile_expression(mended)({"v": value, "w": to}) == f"no {to}"


def test_null_and_missing_are_null_or_given_another_value() -> None:
    for to, shorthand in SHORTHANDS.items():
        for document in ({"v": None}, {}):
            assert compile_expression({shorthand: "$v"})(document) is None
            given = {"input": "$v", "to": to, "onError": "error"}
            assert compile_expression({"$convert": given})(document) is None
            assert compile_expression({"$convert": {**given, "onNull": 7}})(document) == 7
    assert compile_expression({"$convert": {"input": 1, "to": "$t"}})({}) is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ({"$toInt": []}, r"\$toInt takes 1 arguments, not 0"),
        ({"$toInt": [1, 2]}, r"\$toInt takes 1 arguments, not 2"),
        ({"$convert": {"input": 1}}, "needs the argument 'to'"),
        ({"$convert": {"input": 1, "to": "int", "x": 1}}, "does not know the argument 'x'"),
        ({"$convert": {"input": 1, "to": "array", "onError": 1}}, "to must be one of double"),
        ({"$convert": {"input": 1, "to": 4, "onError": 1}}, "to must be one of double"),
        ({"$convert": {"input": 1, "to": [1]}}, "to must be one of double"),
    ],
)
def test_a_malformed_conversion_is_refused_and_says_why(expression: Any, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        compile_expression(expression)({})


@law
@given(values)
def test_a_value_is_converted_to_the_type_or_refused(value: Any) -> None:
    for to in TARGETS.values():
        if value is not None:
            with suppress(Unconvertible):
                assert type_name(convert(value, to)) == to


def test_the_example_in_the_docstring_is_true() -> None:
    result = doctest.testmod(conversions)
    assert (result.attempted, result.failed) == (1, 0)
