"""Expressions as MongoDB's manual documents them, for `$expr` and computed projections."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest
from bson import Decimal128, Int64
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local import expressions
from connectome_dagster.local.expressions import compile_expression
from connectome_dagster.local.refusal import QueryError
from connectome_dagster.local.values import MISSING, equals, type_name
from tests.local.bson_values import documents, law, values

DAY = datetime(2026, 11, 23, 14, 5, 9, tzinfo=timezone.utc)
DOC: dict[str, Any] = {
    "n": 5,
    "f": 2.5,
    "neg": -7,
    "d": Decimal128("1.10"),
    "zero": 0,
    "s": "Text",
    "null": None,
    "list": [3, 1, 2],
    "docs": [{"x": 1}, {"x": 2}, {"y": 3}, 4],
    "sub": {"x": {"y": 9}},
    "day": DAY,
    "yes": True,
}

CASES: list[tuple[Any, Any]] = [
    # values, paths, variables
    ("$n", 5),
    ("$sub.x.y", 9),
    ("$nope", MISSING),
    ("$n.x", MISSING),
    ("$docs.x", [1, 2]),
    ("$list.x", []),
    ("$list.0", []),
    ("$$ROOT.n", 5),
    ("$$CURRENT.sub.x", {"y": 9}),
    ("$$REMOVE", MISSING),
    ({"$literal": "$n"}, "$n"),
    ({"$literal": {"$add": [1]}}, {"$add": [1]}),
    ("plain", "plain"),
    (["$n", "$nope", 1], [5, None, 1]),
    ({"a": "$n", "b": "$nope"}, {"a": 5}),
    # comparison, in the order of all types
    ({"$eq": ["$n", 5.0]}, True),
    ({"$eq": ["$nope", None]}, False),
    ({"$lt": ["$nope", None]}, True),
    ({"$gt": ["$s", 5]}, True),
    ({"$gt": ["$list", "$s"]}, True),
    ({"$lte": ["$yes", "$n"]}, False),
    ({"$ne": ["$n", "$f"]}, True),
    ({"$gte": ["$n", "$n"]}, True),
    ({"$cmp": ["$n", "$f"]}, 1),
    ({"$cmp": ["$f", "$n"]}, -1),
    ({"$cmp": ["$n", {"$literal": Int64(5)}]}, 0),
    # logic: only false, null, missing and zero are not true
    ({"$and": []}, True),
    ({"$and": ["$n", "$s", "$list"]}, True),
    ({"$and": ["$n", "$zero"]}, False),
    ({"$or": []}, False),
    ({"$or": ["$null", "$nope", "$zero", False]}, False),
    ({"$or": ["$null", ""]}, True),
    ({"$not": ["$null"]}, True),
    ({"$not": "$s"}, False),
    ({"$cond": [{"$gt": ["$n", 3]}, "more", "less"]}, "more"),
    ({"$cond": {"if": "$null", "then": 1, "else": 2}}, 2),
    ({"$ifNull": ["$null", "$nope", "end"]}, "end"),
    ({"$ifNull": ["$n", 0]}, 5),
    (
        {"$switch": {"branches": [{"case": {"$eq": ["$n", 5]}, "then": "five"}], "default": 0}},
        "five",
    ),
    ({"$switch": {"branches": [{"case": False, "then": 1}], "default": 0}}, 0),
    ({"$let": {"vars": {"k": {"$add": ["$n", 1]}}, "in": {"$multiply": ["$$k", 2]}}}, 12),
    # arithmetic
    ({"$add": ["$n", "$f"]}, 7.5),
    ({"$add": ["$n", "$null"]}, None),
    ({"$add": ["$n", "$d"]}, Decimal128("6.10")),
    ({"$add": ["$day", 1000]}, DAY.replace(second=10)),
    ({"$subtract": ["$n", 7]}, -2),
    ({"$subtract": ["$day", 9000]}, DAY.replace(second=0)),
    ({"$subtract": ["$day", DAY.replace(second=8)]}, 1000),
    ({"$multiply": ["$n", "$n", 2]}, 50),
    ({"$divide": ["$n", 2]}, 2.5),
    ({"$divide": [{"$literal": Decimal128("1")}, 3]}, Decimal128("0." + "3" * 34)),
    ({"$mod": ["$neg", 4]}, -3),
    ({"$mod": ["$f", 2]}, 0.5),
    ({"$abs": "$neg"}, 7),
    ({"$ceil": "$f"}, 3.0),
    ({"$floor": "$f"}, 2.0),
    ({"$floor": float("inf")}, float("inf")),
    ({"$abs": "$null"}, None),
    ({"$sum": "$list"}, 6),
    ({"$sum": ["$n", "$s", 1]}, 6),
    ({"$sum": "$docs.x"}, 3),
    ({"$avg": "$list"}, 2.0),
    ({"$avg": "$nope"}, None),
    ({"$max": "$list"}, 3),
    ({"$min": ["$n", "$f", "$null"]}, 2.5),
    # types, arrays, text, dates
    ({"$type": "$n"}, "int"),
    ({"$type": "$nope"}, "missing"),
    ({"$isNumber": "$d"}, True),
    ({"$isNumber": "$yes"}, False),
    ({"$isArray": "$list"}, True),
    ({"$isArray": ["$n"]}, False),
    ({"$size": "$list"}, 3),
    ({"$in": [2.0, "$list"]}, True),
    ({"$in": ["$s", ["a"]]}, False),
    ({"$arrayElemAt": ["$list", 0]}, 3),
    ({"$arrayElemAt": ["$list", -1]}, 2),
    ({"$arrayElemAt": ["$list", 9]}, MISSING),
    ({"$arrayElemAt": ["$null", 0]}, None),
    ({"$first": "$list"}, 3),
    ({"$last": "$list"}, 2),
    ({"$slice": ["$list", 2]}, [3, 1]),
    ({"$slice": ["$list", -2]}, [1, 2]),
    ({"$slice": ["$list", 1, 5]}, [1, 2]),
    ({"$concatArrays": ["$list", [9]]}, [3, 1, 2, 9]),
    ({"$map": {"input": "$list", "as": "i", "in": {"$add": ["$$i", "$n"]}}}, [8, 6, 7]),
    ({"$map": {"input": "$null", "in": "$$this"}}, None),
    ({"$filter": {"input": "$list", "cond": {"$gt": ["$$this", 1]}}}, [3, 2]),
    ({"$filter": {"input": "$list", "cond": {"$gt": ["$$this", 1]}, "limit": 1}}, [3]),
    ({"$filter": {"input": "$docs", "as": "d", "cond": {"$gt": ["$$d.x", 1]}}}, [{"x": 2}]),
    ({"$concat": ["$s", "-", "x"]}, "Text-x"),
    ({"$concat": ["$s", "$null"]}, None),
    ({"$toLower": "$s"}, "text"),
    ({"$toUpper": "$nope"}, ""),
    ({"$strLenCP": "$s"}, 4),
    ({"$strLenBytes": "é"}, 2),
    ({"$regexMatch": {"input": "$s", "regex": "^t", "options": "i"}}, True),
    ({"$regexMatch": {"input": "$nope", "regex": "^t"}}, False),
    ({"$year": "$day"}, 2026),
    ({"$month": "$day"}, 11),
    ({"$dayOfMonth": "$day"}, 23),
    ({"$hour": "$day"}, 14),
    ({"$dayOfWeek": "$day"}, 2),
    ({"$dayOfYear": "$day"}, 327),
    ({"$year": "$null"}, None),
]


@pytest.mark.parametrize(("expression", "expected"), CASES, ids=lambda case: repr(case)[:60])
def test_an_expression_has_the_value_that_the_manual_documents(
    expression: Any, expected: Any
) -> None:
    found = compile_expression(expression)(DOC)
    assert equals(found, expected)
    assert type_name(found) == type_name(expected)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ({"$foo": 1}, r"unknown expression operator: \$foo"),
        ({"$eq": [1]}, r"\$eq takes 2 arguments, not 1"),
        ({"$eq": [1, 2], "x": 1}, "exactly one operator"),
        ("$", "field name"),
        ("$a.", "field name"),
        ("$a.$b", "field name"),
        ("$$this", r"unknown variable \$\$this"),
        ({"$cond": [1, 2]}, r"\$cond takes 3"),
        ({"$cond": {"if": 1, "then": 2}}, "needs the argument 'else'"),
        ({"$cond": {"if": 1, "then": 2, "else": 3, "x": 4}}, "does not know the argument 'x'"),
        ({"$ifNull": [1]}, r"\$ifNull"),
        ({"$switch": {"branches": []}}, r"\$switch"),
        ({"$let": {"vars": 1, "in": 1}}, r"\$let"),
        ({"$map": 1}, r"\$map takes an object"),
        ({"$regexMatch": {"input": "x", "regex": "("}}, "not valid"),
    ],
)
def test_a_malformed_expression_is_refused_and_says_why(expression: Any, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        compile_expression(expression)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ({"$add": ["$s", 1]}, r"\$add takes numbers, not string"),
        ({"$add": ["$day", "$day"]}, "only one date"),
        ({"$divide": ["$n", "$zero"]}, "divide by zero"),
        ({"$mod": ["$n", "$zero"]}, "divide by zero"),
        ({"$add": ["$day", float("nan")]}, r"\$add cannot be computed"),
        ({"$size": "$n"}, r"\$size needs an array, not int"),
        ({"$size": "$nope"}, r"\$size needs an array, not missing"),
        ({"$in": [1, "$n"]}, r"\$in needs an array"),
        ({"$arrayElemAt": ["$n", 0]}, r"\$arrayElemAt needs an array"),
        ({"$arrayElemAt": ["$list", 0.5]}, "needs an integer"),
        ({"$concat": ["$n"]}, r"\$concat takes strings, not int"),
        ({"$strLenCP": "$n"}, r"\$strLenCP takes strings"),
        ({"$year": "$n"}, r"\$year takes a date, not int"),
        ({"$slice": ["$list", 0, 0]}, "must be positive"),
        ({"$switch": {"branches": [{"case": False, "then": 1}]}}, "no branch fits"),
    ],
)
def test_an_argument_of_a_wrong_type_is_refused_and_says_why(expression: Any, reason: str) -> None:
    evaluate = compile_expression(expression)
    with pytest.raises(QueryError, match=reason):
        evaluate(DOC)


def test_an_expression_nested_too_deeply_is_refused() -> None:
    expression: Any = 1
    for _ in range(5000):
        expression = {"$not": [expression]}
    with pytest.raises(QueryError, match="deeper"):
        compile_expression(expression)


operators = st.sampled_from(sorted({*expressions._FUNCTIONS, *expressions._SPECIAL}))
arguments = values | st.fixed_dictionaries(
    {},
    optional={
        name: values | st.just("$a")
        for name in ("input", "in", "as", "cond", "limit", "vars", "regex", "options", "branches")
    },
)


@law
@given(operators, st.one_of(arguments, st.lists(arguments | st.just("$a"), max_size=3)), documents)
def test_an_operator_has_a_value_or_refuses_whatever_it_is_given(
    name: str, operand: Any, document: dict[str, Any]
) -> None:
    with suppress(QueryError):
        assert type_name(compile_expression({name: operand})(document))


@law
@given(values, values)
def test_exactly_one_of_less_equal_and_greater_holds(left: Any, right: Any) -> None:
    document = {"left": left, "right": right}
    operands = ["$left", "$right"]
    holds = [compile_expression({name: operands})(document) for name in ("$lt", "$eq", "$gt")]
    assert sum(holds) == 1
    assert compile_expression({"$cmp": operands})(document) == holds.index(True) - 1
