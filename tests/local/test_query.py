"""Filters: what MongoDB's manual documents for find, case by case, and laws that hold for all."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local import regexes
from connectome_dagster.local.query import QueryError, compile_filter, equalities
from connectome_dagster.local.values import equals
from tests.local.bson_values import documents, law, scalars, values

NAN, INF = float("nan"), float("inf")
OID = ObjectId("65a000000000000000000001")
DAY = datetime(2026, 11, 23, tzinfo=timezone.utc)


def matching(query: dict[str, Any], docs: list[dict[str, Any]]) -> list[int]:
    matches = compile_filter(query)
    return [position for position, document in enumerate(docs) if matches(document)]


# every type once, under one field; positions are the ids
TYPES: list[dict[str, Any]] = [
    {},  # 0
    {"a": None},  # 1
    {"a": 1},  # 2
    {"a": 1.0},  # 3
    {"a": Int64(1)},  # 4
    {"a": Decimal128("1.0")},  # 5
    {"a": True},  # 6
    {"a": False},  # 7
    {"a": 0},  # 8
    {"a": -0.0},  # 9
    {"a": NAN},  # 10
    {"a": Decimal128("NaN")},  # 11
    {"a": INF},  # 12
    {"a": -INF},  # 13
    {"a": ""},  # 14
    {"a": "b"},  # 15
    {"a": {}},  # 16
    {"a": {"b": 1}},  # 17
    {"a": []},  # 18
    {"a": [1, "b"]},  # 19
    {"a": b"x"},  # 20
    {"a": OID},  # 21
    {"a": DAY},  # 22
    {"a": Regex("b")},  # 23
    {"a": Timestamp(1, 1)},  # 24
    {"a": MinKey()},  # 25
    {"a": MaxKey()},  # 26
    {"a": 2**40},  # 27
    {"a": [None]},  # 28
    {"a": [[1]]},  # 29
]

TYPE_CASES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, list(range(30))),
    ({"a": 1}, [2, 3, 4, 5, 19]),
    ({"a": True}, [6]),
    ({"a": False}, [7]),
    ({"a": 0}, [8, 9]),
    ({"a": None}, [0, 1, 28]),
    ({"a": {"$ne": None}}, [n for n in range(30) if n not in (0, 1, 28)]),
    ({"a": NAN}, [10, 11]),
    ({"a": {"$gte": NAN}}, [10, 11]),
    ({"a": {"$gt": NAN}}, []),
    ({"a": {"$lt": 5}}, [2, 3, 4, 5, 8, 9, 13, 19]),
    ({"a": {"$lte": INF}}, [2, 3, 4, 5, 8, 9, 12, 13, 19, 27]),
    ({"a": {"$gt": 1}}, [12, 27]),
    ({"a": {"$gte": Decimal128("1")}}, [2, 3, 4, 5, 12, 19, 27]),
    ({"a": {"$gt": "a"}}, [15, 19]),
    ({"a": {"$lt": "b"}}, [14]),
    ({"a": {"$gte": None}}, [0, 1, 28]),
    ({"a": {"$gt": None}}, []),
    ({"a": {"$gt": False}}, [6]),
    ({"a": {"$gt": {}}}, [17]),
    ({"a": {"$gte": {}}}, [16, 17]),
    ({"a": {"$lt": {"b": 2}}}, [16, 17]),
    ({"a": {"$gte": []}}, [18, 19, 28, 29]),
    ({"a": {"$gt": [1]}}, [19, 29]),
    ({"a": {"$lt": [1]}}, [18, 28]),
    ({"a": [1]}, [29]),
    ({"a": []}, [18]),
    ({"a": [1, "b"]}, [19]),
    ({"a": {}}, [16]),
    ({"a": {"b": 1.0}}, [17]),
    ({"a": Regex("b")}, [15, 19, 23]),
    ({"a": {"$eq": Regex("b")}}, [23]),
    ({"a": {"$in": [Regex("^b"), None]}}, [0, 1, 15, 19, 28]),
    ({"a": {"$nin": [1, "b", None, []]}}, [*range(6, 15), 16, 17, *range(20, 28), 29]),
    ({"a": {"$in": []}}, []),
    ({"a": {"$nin": []}}, list(range(30))),
    ({"a": {"$in": [[1]]}}, [29]),
    ({"a": {"$gt": DAY.replace(year=2025)}}, [22]),
    ({"a": {"$gt": Timestamp(0, 9)}}, [24]),
    ({"a": {"$lte": OID}}, [21]),
    ({"a": {"$lt": ObjectId("ffffffffffffffffffffffff")}}, [21]),
    ({"a": {"$lt": "ffffffffffffffffffffffff"}}, [14, 15, 19]),
    ({"a": b"x"}, [20]),
    ({"a": Binary(b"x", 5)}, []),
    ({"a": {"$gt": MinKey()}}, [n for n in range(30) if n != 25]),
    ({"a": {"$lt": MaxKey()}}, [n for n in range(30) if n != 26]),
    ({"a": MaxKey()}, [26]),
    ({"a": {"$exists": True}}, list(range(1, 30))),
    ({"a": {"$exists": 0}}, [0]),
    ({"a": {"$exists": None}}, [0]),
    ({"a": {"$exists": ""}}, list(range(1, 30))),
    ({"a": {"$type": "null"}}, [1, 28]),
    ({"a": {"$type": 10}}, [1, 28]),
    ({"a": {"$type": "int"}}, [2, 8, 19]),
    ({"a": {"$type": "long"}}, [4, 27]),
    ({"a": {"$type": 1.0}}, [3, 9, 10, 12, 13]),
    ({"a": {"$type": "decimal"}}, [5, 11]),
    ({"a": {"$type": "number"}}, [2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 19, 27]),
    ({"a": {"$type": ["bool", 2]}}, [6, 7, 14, 15, 19]),
    ({"a": {"$type": "object"}}, [16, 17]),
    ({"a": {"$type": "array"}}, [18, 19, 28, 29]),
    ({"a": {"$type": "binData"}}, [20]),
    ({"a": {"$type": "objectId"}}, [21]),
    ({"a": {"$type": "date"}}, [22]),
    ({"a": {"$type": "regex"}}, [23]),
    ({"a": {"$type": "timestamp"}}, [24]),
    ({"a": {"$type": -1}}, [25]),
    ({"a": {"$type": "maxKey"}}, [26]),
    ({"a": {"$not": {"$type": "number"}}}, [0, 1, 6, 7, *range(14, 19), *range(20, 27), 28, 29]),
    ({"a": {"$size": 0}}, [18]),
    ({"a": {"$size": 1.0}}, [28, 29]),
    ({"a": {"$all": [1, "b"]}}, [19]),
    ({"a": {"$all": [[1]]}}, [29]),
    ({"a": {"$all": []}}, []),
    ({"a": {"$all": [None]}}, [0, 1, 28]),
    ({"a": {"$elemMatch": {"$gte": 1, "$lt": 2}}}, [19]),
    ({"a": {"$elemMatch": {"$exists": True}}}, [19, 28, 29]),
    ({"a": {"$elemMatch": {"$elemMatch": {"$eq": 1}}}}, [29]),
    ({"a": {"$elemMatch": {"$not": {"$type": "number"}}}}, [19, 28, 29]),
    ({"a": {"$mod": [2, 1]}}, [2, 3, 4, 5, 19]),
    ({"a": {"$mod": [2, 0]}}, [8, 9, 27]),
    ({"a.b": 1}, [17]),
    ({"a.b": None}, [*range(17), *range(20, 28)]),
    ({"a.b": {"$exists": False}}, [n for n in range(30) if n != 17]),
    ({"a.0": 1}, [19]),
    ({"a.0": [1]}, [29]),
    ({"a.0.0": 1}, [29]),
    ({"a.1": {"$exists": True}}, [19]),
    ({"$and": [{"a": {"$gt": 0}}, {"a": {"$lt": 2}}]}, [2, 3, 4, 5, 19]),
    ({"$or": [{"a": "b"}, {"a": DAY}]}, [15, 19, 22]),
    ({"$nor": [{"a": {"$exists": True}}]}, [0]),
    ({"$comment": "why", "a": "b"}, [15, 19]),
    ({"$expr": {"$eq": ["$a", None]}}, [1]),
    ({"$expr": {"$eq": ["$a", 1]}}, [2, 3, 4, 5]),
    ({"$expr": {"$lt": ["$a", None]}}, [0, 25]),
    ({"$expr": {"$and": [{"$isArray": "$a"}, {"$eq": [{"$size": "$a"}, 0]}]}}, [18]),
    ({"$expr": "$a"}, [2, 3, 4, 5, 6, *range(10, 30)]),
    ({"$alwaysTrue": 1}, list(range(30))),
]


@pytest.mark.parametrize(("query", "expected"), TYPE_CASES, ids=lambda case: repr(case)[:60])
def test_a_filter_selects_by_type_and_value(query: dict[str, Any], expected: list[int]) -> None:
    assert matching(query, TYPES) == expected


PEOPLE: list[dict[str, Any]] = [
    {"name": "Ann Lee", "tags": ["red", "blank"], "size": {"h": 14, "w": 21, "uom": "cm"}},  # 0
    {"name": "bob", "tags": ["blank", "red"], "size": {"w": 21, "h": 14, "uom": "cm"}},  # 1
    {"name": "Cy\nAnn", "tags": "red", "grades": [{"s": 80, "t": "x"}, {"s": 95, "t": "y"}]},  # 2
    {"name": "dé", "tags": [["red", "blank"]], "grades": [{"s": 85, "t": "y"}]},  # 3
    {"name": 5, "tags": [], "grades": []},  # 4
    {"tags": ["red", "blank", "plain"], "grades": {"s": 85, "t": "x"}},  # 5
    {"grades": [1, {"s": None}, [{"s": 7}]], "m": [[{"x": 1}], [{"x": 2}]]},  # 6
    {"n": [-7, 7.9], "deep": {"list": [{"b": [1, 2]}, {"b": [3]}]}},  # 7
]
REFERENCES: list[dict[str, Any]] = [
    {"link": {"$ref": "c", "$id": 7}, "links": [{"$ref": "c", "$id": 8}]},
    {"link": {"$ref": "c", "$id": 8}, "links": [{"$ref": "c", "$id": 7}]},
]

DOCUMENTED_CASES: list[tuple[dict[str, Any], list[int]]] = [
    # query on embedded documents: a whole document matches with the order of its fields
    ({"size": {"h": 14, "w": 21, "uom": "cm"}}, [0]),
    ({"size": {"w": 21, "h": 14, "uom": "cm"}}, [1]),
    ({"size": {"h": 14}}, []),
    ({"size.h": {"$lt": 15}, "size.uom": "cm"}, [0, 1]),
    # query an array: exactly, for an element, for all of several
    ({"tags": ["red", "blank"]}, [0, 3]),
    ({"tags": "red"}, [0, 1, 2, 5]),
    ({"tags": {"$all": ["red", "blank"]}}, [0, 1, 5]),
    ({"tags": {"$all": [["red", "blank"]]}}, [0, 3]),
    ({"tags": {"$size": 2}}, [0, 1]),
    ({"tags": {"$size": 1}}, [3]),
    ({"tags.1": "red"}, [1]),
    ({"tags.0": {"$in": ["red", "x"]}}, [0, 5]),
    ({"tags": {"$not": {"$size": 2}}}, [2, 3, 4, 5, 6, 7]),
    # query an array of embedded documents
    ({"grades.s": 85}, [3, 5]),
    ({"grades.0.s": 80}, [2]),
    ({"grades": {"s": 85, "t": "y"}}, [3]),
    ({"grades": {"t": "y", "s": 85}}, []),
    ({"grades.s": {"$gt": 90}, "grades.t": "x"}, [2]),
    ({"grades": {"$elemMatch": {"s": {"$gt": 90}, "t": "x"}}}, []),
    ({"grades": {"$elemMatch": {"s": {"$gt": 90}, "t": "y"}}}, [2]),
    ({"grades": {"$elemMatch": {"s": {"$gte": 80, "$lt": 90}}}}, [2, 3]),
    ({"grades": {"$elemMatch": {"$or": [{"s": 95}, {"t": "y"}]}}}, [2, 3]),
    ({"grades": {"$elemMatch": {}}}, [2, 3, 6]),
    ({"grades": {"$elemMatch": {"0.s": 7}}}, [6]),
    (
        {"grades": {"$all": [{"$elemMatch": {"s": 80}}, {"$elemMatch": {"t": "y"}}]}},
        [2],
    ),
    ({"grades": {"$not": {"$elemMatch": {"s": {"$gt": 90}}}}}, [0, 1, 3, 4, 5, 6, 7]),
    ({"grades.s": None}, [0, 1, 6, 7]),
    ({"grades.s": {"$exists": False}}, [0, 1, 4, 7]),
    ({"grades.2.0.s": 7}, [6]),
    ({"grades.2.s": 7}, [6]),
    ({"m.x": 1}, []),
    ({"m.0.x": 1}, [6]),
    ({"m.0.0.x": 1}, [6]),
    ({"deep.list.b": 3}, [7]),
    ({"deep.list.b": [1, 2]}, [7]),
    ({"deep.list.b": {"$size": 1}}, [7]),
    ({"deep.list.b.1": 2}, [7]),
    ({"deep.list.0.b.1": 2}, [7]),
    ({"deep.list.1.b": {"$all": [1]}}, []),
    # several conditions on one array need not be met by one element
    ({"n": {"$gt": 7, "$lt": -5}}, [7]),
    ({"n": {"$elemMatch": {"$gt": 7, "$lt": -5}}}, []),
    ({"n": {"$mod": [4, -3]}}, [7]),
    ({"n": {"$mod": [4.9, 3.2]}}, [7]),
    ({"n": {"$mod": [4, 1]}}, []),
    # $regex and its options
    ({"name": {"$regex": "ann"}}, []),
    ({"name": {"$regex": "ann", "$options": "i"}}, [0, 2]),
    ({"name": {"$options": "i", "$regex": "^ANN"}}, [0]),
    ({"name": {"$regex": "^Ann", "$options": "m"}}, [0, 2]),
    ({"name": {"$regex": "Cy.Ann"}}, []),
    ({"name": {"$regex": "Cy.Ann", "$options": "s"}}, [2]),
    ({"name": {"$regex": "b o b # c", "$options": "x"}}, [1]),
    ({"name": {"$regex": Regex("BOB", "i")}}, [1]),
    ({"name": re.compile("^b")}, [1]),
    ({"name": {"$not": Regex("^b")}}, [0, 2, 3, 4, 5, 6, 7]),
    ({"name": {"$not": {"$regex": "^b"}}}, [0, 2, 3, 4, 5, 6, 7]),
    ({"name": {"$in": [Regex("^A"), Regex("B$", "i")]}}, [0, 1]),
    ({"name": {"$regex": "DÉ", "$options": "i"}}, [3]),
    ({"name": {"$regex": "^d\\w$"}}, []),
    ({"name": {"$regex": "^[[:upper:]]"}}, [0, 2]),
    ({"name": {"$regex": "(?i)^BO"}}, [1]),
    ({"name": {"$regex": "^b", "$ne": "bob"}}, []),
    ({"tags": {"$all": [Regex("^re"), "plain"]}}, [5]),
    ({"tags": {"$elemMatch": {"$regex": "^pl"}}}, [5]),
    ({"name": {"$gte": "b", "$lt": "c"}}, [1]),
    # $expr compares two fields, values across types
    ({"$expr": {"$gt": ["$size.w", "$size.h"]}}, [0, 1]),
    ({"$expr": {"$eq": ["$name", {"$literal": "bob"}]}}, [1]),
    ({"$expr": {"$in": ["plain", {"$cond": [{"$isArray": "$tags"}, "$tags", []]}]}}, [5]),
    ({"$or": [{"$expr": {"$eq": ["$name", 5]}}, {"name": "bob"}]}, [1, 4]),
    ({"$expr": {"$not": [{"$gt": ["$size", None]}]}}, [2, 3, 4, 5, 6, 7]),
    ({"$expr": {"$eq": ["$grades.s", [80, 95]]}}, [2]),
    ({"$and": [{"$or": [{"name": "bob"}, {"name": 5}]}, {"tags": []}]}, [4]),
    ({"name": {"$not": {"$not": {"$eq": "bob"}}}}, [1]),
    ({"name": {"$exists": True, "$nin": ["bob", 5]}}, [0, 2, 3]),
]


@pytest.mark.parametrize(("query", "expected"), DOCUMENTED_CASES, ids=lambda case: repr(case)[:70])
def test_a_filter_selects_as_the_manual_documents(
    query: dict[str, Any], expected: list[int]
) -> None:
    assert matching(query, PEOPLE) == expected


@pytest.mark.parametrize(
    "query",
    [
        {"link.$id": 7},
        {"link": {"$ref": "c", "$id": 7}},
        {"links": {"$elemMatch": {"$id": 8}}},
        {"links.$id": {"$gt": 7}},
    ],
)
def test_a_reference_is_a_document_with_its_own_names(query: dict[str, Any]) -> None:
    assert matching(query, REFERENCES) == [0]


BITS = [{"a": 54}, {"a": 20}, {"a": 20.0}, {"a": Binary(b"f")}, {"a": -1}, {"a": 1.5}, {"a": "x"}]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"a": {"$bitsAllSet": [1, 5]}}, [0, 3, 4]),
        ({"a": {"$bitsAllSet": 50}}, [0, 4]),
        ({"a": {"$bitsAllClear": [1, 5]}}, [1, 2]),
        ({"a": {"$bitsAllClear": 35}}, [1, 2]),
        ({"a": {"$bitsAnySet": [1, 5]}}, [0, 3, 4]),
        ({"a": {"$bitsAnyClear": [1, 5]}}, [1, 2]),
        ({"a": {"$bitsAllSet": [100]}}, [4]),
        ({"a": {"$bitsAnySet": Binary(b"\x30")}}, [0, 1, 2, 3, 4]),
    ],
)
def test_bits_are_tested_as_the_manual_documents(
    query: dict[str, Any], expected: list[int]
) -> None:
    assert matching(query, BITS) == expected


REFUSED: list[tuple[Any, str]] = [
    ([], "must be an object"),
    ({"a": {"$foo": 1}}, r"\$foo"),
    ({"a": {"$gt": 1, "b": 2}}, "unknown operator: b"),
    ({"$foo": 1}, r"unknown top level operator: \$foo"),
    ({"$gt": 1}, r"\$gt"),
    ({"$where": "1"}, r"\$where is not supported"),
    ({"$text": {"$search": "x"}}, r"\$text is not supported"),
    ({"$jsonSchema": {}}, r"\$jsonSchema is not supported"),
    ({"a": {"$near": [0, 0]}}, r"\$near is not supported"),
    ({"a": {"$geoWithin": {}}}, r"\$geoWithin is not supported"),
    ({"$and": []}, r"\$and must be a nonempty array"),
    ({"$or": {}}, r"\$or must be a nonempty array"),
    ({"$nor": [1]}, r"\$nor takes objects"),
    ({"a": {"$in": 1}}, r"\$in on 'a' needs an array"),
    ({"a": {"$nin": {"b": 1}}}, r"\$nin on 'a' needs an array"),
    ({"a": {"$in": [{"$gt": 1}]}}, r"\$in on 'a' cannot hold operators"),
    ({"a": {"$all": 1}}, r"\$all on 'a' needs an array"),
    ({"a": {"$all": [{"$gt": 1}]}}, r"\$all on 'a' cannot hold operators"),
    ({"a": {"$all": [{"$elemMatch": {}}, 1]}}, r"\$all on 'a' mixes"),
    ({"a": {"$all": [1, {"$elemMatch": {}}]}}, r"\$all on 'a' mixes"),
    ({"a": {"$size": -1}}, r"\$size on 'a' must not be negative"),
    ({"a": {"$size": 1.5}}, r"\$size on 'a' needs an integer"),
    ({"a": {"$size": "1"}}, r"\$size on 'a' needs an integer"),
    ({"a": {"$size": NAN}}, r"\$size on 'a' needs an integer"),
    ({"a": {"$size": INF}}, r"\$size on 'a' needs an integer"),
    ({"a": {"$mod": [0, 1]}}, "divisor must not be 0"),
    ({"a": {"$mod": [0.5, 1]}}, "divisor must not be 0"),
    ({"a": {"$mod": [2]}}, r"\$mod on 'a' needs an array"),
    ({"a": {"$mod": [2, 1, 0]}}, r"\$mod on 'a' needs an array"),
    ({"a": {"$mod": ["2", 1]}}, "finite numbers"),
    ({"a": {"$mod": [NAN, 1]}}, "finite numbers"),
    ({"a": {"$not": 1}}, r"\$not on 'a' needs"),
    ({"a": {"$not": {}}}, r"\$not on 'a' must not be empty"),
    ({"a": {"$not": {"b": 1}}}, "unknown operator: b"),
    ({"a": {"$ne": Regex("x")}}, r"\$ne on 'a' cannot take a regular expression"),
    ({"a": {"$gt": Regex("x")}}, r"\$gt on 'a' cannot take a regular expression"),
    ({"a": {"$elemMatch": 1}}, r"\$elemMatch on 'a' needs an object"),
    ({"a": {"$elemMatch": {"$foo": 1}}}, r"\$foo"),
    ({"a": {"$elemMatch": {"$expr": True}}}, r"\$expr"),
    ({"a": {"$expr": True}}, r"\$expr"),
    ({"a": {"$type": "what"}}, "unknown type name 'what'"),
    ({"a": {"$type": 99}}, "invalid type number"),
    ({"a": {"$type": 1.5}}, "invalid type number"),
    ({"a": {"$type": NAN}}, "invalid type number"),
    ({"a": {"$type": []}}, "at least one type"),
    ({"a": {"$type": {}}}, r"\$type on 'a' takes"),
    ({"a": {"$regex": "("}}, "not valid"),
    ({"a": {"$regex": "((a{1000}){1000}){1000}"}}, "too large"),
    ({"a": {"$regex": "(a{1,1000}){1,1000}"}}, "too large"),
    ({"a": {"$regex": "[" * 30_000}}, "not valid"),
    ({"a": {"$regex": "(" * 30_000}}, "not valid"),
    ({"a": {"$regex": "a" * 40_000}}, "longer than"),
    ({"a": {"$regex": "(?R)"}}, "recursion"),
    ({"a": {"$regex": 1}}, r"\$regex on 'a' must be"),
    ({"a": {"$regex": "x", "$options": "q"}}, r"\$options: 'q'"),
    ({"a": {"$regex": "x", "$options": 1}}, r"\$options on 'a' must be a string"),
    ({"a": {"$options": "i"}}, r"\$options on 'a' needs a \$regex"),
    ({"a": {"$regex": Regex("x", "i"), "$options": "m"}}, "options set in both"),
    ({"a": {"$regex": "a\0b"}}, "NUL"),
    ({"a": {"$bitsAllSet": -1}}, r"\$bitsAllSet on 'a'"),
    ({"a": {"$bitsAllSet": [1.5]}}, r"\$bitsAllSet on 'a'"),
    ({"a": {"$bitsAllSet": "1"}}, r"\$bitsAllSet on 'a'"),
    ({"$expr": {"$foo": 1}}, r"unknown expression operator: \$foo"),
    ({"$expr": {"$gt": ["$a"]}}, r"\$gt takes 2 arguments"),
    ({"$expr": {"$eq": ["$$nope", 1]}}, r"\$\$nope"),
    ({"$expr": {"$eq": [1, 1], "$ne": [1, 1]}}, "exactly one operator"),
    ({"$expr": "$a..b"}, "field name"),
]


@pytest.mark.parametrize(("query", "reason"), REFUSED, ids=lambda case: repr(case)[:60])
def test_a_wrong_filter_is_refused_and_says_why(query: Any, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        compile_filter(query)


def test_a_filter_nested_too_deeply_is_refused() -> None:
    query: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        query = {"$and": [query]}
    with pytest.raises(QueryError, match="deeper"):
        compile_filter(query)


def test_operators_nested_too_deeply_are_refused() -> None:
    operators: dict[str, Any] = {"$eq": 1}
    for _ in range(5000):
        operators = {"$not": operators}
    with pytest.raises(QueryError, match="deeper"):
        compile_filter({"a": operators})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"a": 1, "b.c": {"$eq": "x"}}, {"a": 1, "b.c": "x"}),
        ({"$and": [{"a": 1}, {"$and": [{"b": None}]}]}, {"a": 1, "b": None}),
        ({"a": {"$gt": 1}, "b": {"$in": [1, 2]}, "$or": [{"c": 1}, {"d": 1}]}, {}),
        ({"a": {"$in": [7]}, "b": {"$all": [8]}, "$or": [{"c": 9}]}, {"a": 7, "b": 8, "c": 9}),
        ({"a": Regex("x"), "b": {"$in": [Regex("x")]}, "c": {"$not": {"$eq": 1}}}, {}),
        ({"a": {"$eq": 1, "$gt": 0}}, {"a": 1}),
        ({"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"$and": 1, "$or": [2], "a": {"$in": 3}}, {}),
    ],
)
def test_equalities_are_the_plain_equal_parts(
    query: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert equalities(query) == expected


def test_a_catastrophic_pattern_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexes, "SECONDS_PER_QUERY", 0.1)
    matches = compile_filter({"a": {"$regex": "^(a|a)*$"}})
    began = time.monotonic()
    with pytest.raises(QueryError, match="takes too much"):
        matches({"a": "a" * 60 + "b"})
    assert time.monotonic() - began < 5


def test_a_catastrophic_pattern_is_bounded_over_all_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(regexes, "SECONDS_PER_QUERY", 0.1)
    matches = compile_filter({"a": {"$regex": "^(a|a)*$"}})
    began = time.monotonic()
    with pytest.raises(QueryError, match="takes too much"):
        sum(map(matches, [{"a": "a" * 16 + "b"}] * 100_000))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"end\Z", "end\n", True),
        (r"end\z", "end\n", False),
        (r"end\z", "end", True),
        (r"end$", "end\n", True),
        (r"\Aend", "end", True),
        (r"a++b", "aab", True),
        (r"(?>a+)ab", "aaab", False),
        (r"\Qa.b\E", "axb", False),
        (r"\Qa.b\Ec", "a.bc", True),
        (r"^[]x]$", "]", True),
        (r"^[^]x]$", "]", False),
        (r"^[\d_]+$", "1_2", True),
        (r"\d", "٣", False),
        (r"^\S\W\D$", "xéy", True),
        (r"(?<year>\d{4})-\k<year>", "2026-2026", True),
        (r"(?P<y>a)(?P=y)", "aa", True),
        (r"^[[:alpha:]]+$", "abc", True),
        (r"^[[:digit:]a]+$", "1a", True),
        (r"(?<!x)y", "xy", False),
        (r"\bAnn\b", "x Ann.", True),
        (r"(a)\g{1}", "aa", True),
        (r"^a{,2}$", "a{,2}", True),
        (r"^(?:cat){e<=1}$", "cot", False),
        (r"^[[:alpha:]]{3}$", "abc", True),
        (r"^a{2,}$", "aaa", True),
        (r"[[a]", "[", True),
        (r"[a&&b]", "&", True),
        (r"^[a||b]$", "|", True),
        (r"^[+--]$", ",", True),
        (r"^\bé", "é", False),
        (r"(*UCP)^\bé", "é", True),
        (r"(*UCP)^\w$", "é", True),
        (r"^\w$", "é", False),
        (r"\x41\x{42}", "AB", True),
        (r"^\p{Lu}", "É", True),
        (r"^\p{Xan}+$", "é1", True),
        (r"^[\p{Xwd}-]+$", "é_-1", True),
        (r"^\P{Xan}$", "é", False),
        ("(*UCP)^[[:digit:]]$", "༢", True),
        ("^[[:digit:]]$", "༢", False),
        ("a(*FAIL)", "a", False),
        ("(*F)|b", "b", True),
        ("(*PRUNE:x)a", "ba", True),
        ("(*SKIP:x)a", "ba", True),
        (r"\h", "\t", True),
        (r"a.c", "a\nc", False),
        ("", "anything", True),
    ],
)
def test_patterns_mean_what_they_mean_in_pcre(pattern: str, text: str, expected: bool) -> None:
    assert compile_filter({"a": {"$regex": pattern}})({"a": text}) is expected


OPERATORS = [
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$type", "$mod", "$size",
    "$all", "$elemMatch", "$not", "$regex", "$options", "$bitsAllSet", "$bitsAnyClear", "$expr",
    "$and", "$or", "$nor", "$comment",
]  # fmt: skip


def test_the_patterns_of_a_query_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexes, "SECONDS_PER_QUERY", 0.2)
    catastrophic = [{"a": {"$regex": f"^(a|aa)+{letter}$"}} for letter in "bcdefghijk"]
    matches = compile_filter({"$nor": catastrophic})
    start = time.perf_counter()

    with pytest.raises(QueryError, match="takes too much"):
        matches({"a": "a" * 60})

    assert time.perf_counter() - start < 2


@law
@given(st.sampled_from(OPERATORS), values, documents)
def test_an_operator_answers_or_refuses_whatever_it_is_given(
    name: str, operand: Any, document: dict[str, Any]
) -> None:
    queries = ({"a": {name: operand}}, {name: operand}, {"a.b": {"$elemMatch": {name: operand}}})
    for query in queries:
        with suppress(QueryError):
            assert isinstance(compile_filter(query)(document), bool)


NAMES = st.sampled_from([*OPERATORS, "a", "b", "a.b", "a.0", "", "a..b", "$literal", "$gt"])
QUERIES = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@law
@given(st.dictionaries(NAMES, QUERIES, max_size=3), documents)
def test_any_object_as_a_query_is_answered_or_refused(
    query: dict[str, Any], document: dict[str, Any]
) -> None:
    with suppress(QueryError):
        assert isinstance(compile_filter(query)(document), bool)


@law
@given(st.lists(documents, min_size=1, max_size=4), documents)
def test_nor_is_the_complement_of_or(parts: list[dict[str, Any]], document: dict[str, Any]) -> None:
    either = compile_filter({"$or": parts})(document)
    assert compile_filter({"$nor": parts})(document) is (not either)


@law
@given(values, documents)
def test_ne_is_the_complement_of_eq(value: Any, document: dict[str, Any]) -> None:
    equal = compile_filter({"a": {"$eq": value}})(document)
    assert compile_filter({"a": {"$ne": value}})(document) is (not equal)
    assert compile_filter({"a": {"$in": [value]}})(document) is equal
    assert compile_filter({"a": {"$nin": [value]}})(document) is (not equal)


@law
@given(values)
def test_every_value_is_found_by_equality_with_itself(value: Any) -> None:
    assert compile_filter({"a": {"$eq": value}})({"a": value})
    assert compile_filter({"a.b": {"$eq": value}})({"a": [{"b": value}]})
    assert compile_filter({"a": {"$eq": value}})({"a": [value]})


@law
@given(scalars, scalars)
def test_lte_is_lt_or_equal(left: Any, right: Any) -> None:
    document = {"a": left}
    below = compile_filter({"a": {"$lt": right}})(document)
    at_most = compile_filter({"a": {"$lte": right}})(document)
    assert at_most is (below or equals(left, right))
    assert not (below and compile_filter({"a": {"$gt": right}})(document))
