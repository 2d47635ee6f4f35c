"""Sorting as MongoDB's manual documents it: types, arrays, missing values, several fields."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from bson import Decimal128, ObjectId, Regex
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local.refusal import QueryError
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.local.values import MISSING, sort_key
from tests.local.bson_values import documents, law, scalars


def order(sort: Any, docs: list[dict[str, Any]], limit: int = 0) -> list[int]:
    numbered = [{"_id": position, **document} for position, document in enumerate(docs)]
    return [document["_id"] for document in compile_sort(sort, limit)(numbered)]


MIXED: list[dict[str, Any]] = [
    {"a": True},  # 0
    {"a": "text"},  # 1
    {"a": 5},  # 2
    {},  # 3
    {"a": None},  # 4
    {"a": []},  # 5
    {"a": {"b": 1}},  # 6
    {"a": float("nan")},  # 7
    {"a": Decimal128("5.5")},  # 8
    {"a": ObjectId("0" * 24)},  # 9
    {"a": Regex("x")},  # 10
    {"a": [9, 1]},  # 11
    {"a": [[1]]},  # 12
]

CASES: list[tuple[Any, list[dict[str, Any]], list[int]]] = [
    # an empty array below null, null and missing equal and in their order, NaN below all numbers
    ({"a": 1}, MIXED, [5, 3, 4, 7, 11, 2, 8, 1, 6, 12, 9, 0, 10]),
    ({"a": -1}, MIXED, [10, 0, 9, 12, 6, 1, 11, 8, 2, 7, 3, 4, 5]),
    # an array stands for its smallest or its largest element
    ({"a": 1}, [{"a": [3, 9]}, {"a": 4}, {"a": [1, 20]}], [2, 0, 1]),
    ({"a": -1}, [{"a": [3, 9]}, {"a": 10}, {"a": [1, 20]}], [2, 1, 0]),
    ({"a": 1}, [{"a": [None, 5]}, {"a": 1}, {"a": []}], [2, 0, 1]),
    ({"a": 1}, [{"a": ["a", 5]}, {"a": 6}], [0, 1]),
    ({"a": -1}, [{"a": ["a", 5]}, {"a": 6}], [0, 1]),
    # several fields, ties keep their order
    ({"a": 1, "b": -1}, [{"a": 1, "b": 1}, {"a": 0, "b": 1}, {"a": 1, "b": 2}], [1, 2, 0]),
    ([("a", -1), ("b", 1)], [{"a": 1, "b": 2}, {"a": 1, "b": 1}, {"a": 2}], [2, 1, 0]),
    ({"a": 1}, [{"a": 1}, {"a": 1.0}, {"a": Decimal128("1")}], [0, 1, 2]),
    ({"a": -1}, [{"a": 1}, {"a": 1.0}, {"a": Decimal128("1")}], [0, 1, 2]),
    # dotted paths, through documents, arrays, to a position
    ({"a.b": 1}, [{"a": {"b": 2}}, {"a": {"b": 1}}, {"a": 5}, {}], [2, 3, 1, 0]),
    ({"a.b": 1}, [{"a": [{"b": 5}, {"b": 2}]}, {"a": {"b": 3}}, {"a": [{"b": 1}]}], [2, 0, 1]),
    ({"a.b": -1}, [{"a": [{"b": 5}, {"b": 2}]}, {"a": {"b": 3}}, {"a": [{"b": 1}]}], [0, 1, 2]),
    ({"a.b": 1}, [{"a": [{"b": 5}, {"c": 2}]}, {"a": {"b": 3}}], [0, 1]),
    ({"a.b": 1}, [{"a": [{"b": [4, 1]}]}, {"a": {"b": [2, 3]}}], [0, 1]),
    ({"a.b": 1}, [{"a": {"b": 0}}, {"a": []}], [1, 0]),
    ({"a.0": 1}, [{"a": [3, 1]}, {"a": [2, 9]}], [1, 0]),
    # an array at a position counts whole, an empty one as an empty array does: below null
    (
        {"a.0": 1},
        [{"a": [5]}, {"a": [None]}, {"a": [[]]}, {"a": []}, {"a": [[0]]}],
        [2, 1, 3, 0, 4],
    ),
    ({"a.0": -1}, [{"a": [5]}, {"a": [None]}, {"a": [[]]}, {"a": "b"}], [0, 1, 3, 2]),
    ({"a.1.b": 1}, [{"a": [0, {"b": 3}]}, {"a": [9, {"b": 2}]}, {"a": [1]}], [2, 1, 0]),
    # two paths through one array take the same element
    (
        {"a.x": 1, "a.y": 1},
        [{"a": [{"x": 1, "y": 5}, {"x": 2, "y": 0}]}, {"a": [{"x": 1, "y": 4}]}],
        [1, 0],
    ),
    (
        {"a.x": 1, "a.y": -1},
        [{"a": [{"x": 1, "y": 5}, {"x": 1, "y": 7}]}, {"a": [{"x": 1, "y": 6}]}],
        [0, 1],
    ),
    ({"a": 1, "b": 1}, [{"a": [1, 2], "b": 2}, {"a": 1, "b": 1}], [1, 0]),
    # whole documents, field by field
    ({"a": 1}, [{"a": {"y": 1}}, {"a": {"x": 2}}, {"a": {"x": 1, "z": 0}}], [2, 1, 0]),
    ({}, [{"a": 2}, {"a": 1}], [0, 1]),
    (None, [{"a": 2}, {"a": 1}], [0, 1]),
    ({"$natural": 1}, [{"a": 2}, {"a": 1}], [0, 1]),
    ({"$natural": -1}, [{"a": 2}, {"a": 1}], [1, 0]),
    ({"a": 1.0}, [{"a": 2}, {"a": 1}], [1, 0]),
]


@pytest.mark.parametrize(("sort", "docs", "expected"), CASES, ids=lambda case: repr(case)[:60])
def test_documents_sort_as_the_manual_documents(
    sort: Any, docs: list[dict[str, Any]], expected: list[int]
) -> None:
    assert order(sort, docs) == expected
    for limit in (1, 2, len(docs), 100):
        assert order(sort, docs, limit) == expected[:limit]


@pytest.mark.parametrize(
    ("sort", "reason"),
    [
        ({"a": 2}, "must be 1 or -1"),
        ({"a": 0}, "must be 1 or -1"),
        ({"a": True}, "must be 1 or -1"),
        ({"a": "asc"}, "must be 1 or -1"),
        ({"a": None}, "must be 1 or -1"),
        ({"a": {"$meta": "textScore"}}, "not supported"),
        ({"": 1}, "empty field name"),
        ({"a..b": 1}, "empty field name"),
        ({"$a": 1}, "must not start with"),
        ({"$natural": 1, "a": 1}, "cannot stand beside"),
        ("a", "must be an object"),
        (5, "must be an object"),
        ([("a",)], "pairs"),
    ],
)
def test_a_wrong_sort_is_refused_and_says_why(sort: Any, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        compile_sort(sort)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(QueryError, match="limit"):
        compile_sort({"a": 1}, -1)


def test_two_arrays_side_by_side_cannot_be_sorted() -> None:
    with pytest.raises(QueryError, match=r"parallel arrays: 'a' and 'b\.c'"):
        order({"a": 1, "b.c": 1}, [{"a": [1], "b": {"c": [2]}}])


@law
@given(st.lists(documents, max_size=8), st.sampled_from([1, -1]), st.integers(1, 9))
def test_a_limit_takes_the_start_of_the_whole_sort(
    docs: list[dict[str, Any]], direction: int, limit: int
) -> None:
    sort = {"a": direction}
    assert order(sort, docs, limit) == order(sort, docs)[:limit]


@law
@given(st.lists(st.fixed_dictionaries({}, optional={"a": scalars, "b": scalars}), max_size=8))
def test_a_mixed_sort_is_lexicographic_and_stable(docs: list[dict[str, Any]]) -> None:
    places = order({"a": 1, "b": -1}, docs)
    assert sorted(places) == list(range(len(docs)))
    for here, there in pairwise(places):
        left, right = docs[here], docs[there]
        first = [sort_key(document.get("a", MISSING)) for document in (left, right)]
        second = [sort_key(document.get("b", MISSING)) for document in (left, right)]
        assert first[0] <= first[1]
        if first[0] == first[1]:
            assert second[0] >= second[1]
            if second[0] == second[1]:
                assert here < there
    assert order([("a", 1), ("b", -1)], docs, 3) == places[:3]
