"""Projections as MongoDB's manual documents them for find."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from bson import Decimal128, Int64
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local.projection import compile_projection
from connectome_dagster.local.refusal import QueryError
from tests.local.bson_values import documents, law, values

DOC: dict[str, Any] = {
    "_id": 1,
    "name": "Ann",
    "n": 5,
    "size": {"h": 14, "w": 21, "in": {"x": 1, "y": 2}},
    "stock": [{"w": "A", "q": 5}, {"w": "B", "q": 15}, 7, [{"w": "C", "q": 9}]],
    "list": [1, 2, 3, 4, 5],
}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in DOC.items() if name not in names}


CASES: list[tuple[Any, dict[str, Any]]] = [
    (None, DOC),
    ({}, DOC),
    # inclusion
    ({"name": 1}, {"_id": 1, "name": "Ann"}),
    ({"name": 1, "_id": 0}, {"name": "Ann"}),
    ({"name": True, "_id": 1}, {"_id": 1, "name": "Ann"}),
    ({"name": Int64(3)}, {"_id": 1, "name": "Ann"}),
    ({"name": 0.5}, {"_id": 1, "name": "Ann"}),
    ({"nope": 1}, {"_id": 1}),
    ({"_id": 1}, {"_id": 1}),
    ({"size.h": 1}, {"_id": 1, "size": {"h": 14}}),
    ({"size": {"h": 1}}, {"_id": 1, "size": {"h": 14}}),
    ({"size.h": 1, "size.in.y": 1, "_id": 0}, {"size": {"h": 14, "in": {"y": 2}}}),
    ({"size": {"h": 1, "in": {"y": 1}}, "_id": 0}, {"size": {"h": 14, "in": {"y": 2}}}),
    ({"size.nope": 1, "_id": 0}, {"size": {}}),
    ({"name.x": 1, "_id": 0}, {}),
    ({"stock.q": 1, "_id": 0}, {"stock": [{"q": 5}, {"q": 15}, [{"q": 9}]]}),
    ({"stock.0": 1, "_id": 0}, {"stock": [{}, {}, [{}]]}),
    ({"list.x": 1, "_id": 0}, {"list": []}),
    # exclusion
    ({"_id": 0}, without("_id")),
    ({"list": 0, "stock": False}, without("list", "stock")),
    ({"list": 0, "_id": 0}, without("list", "_id")),
    ({"list": 0, "_id": 1}, without("list")),
    ({"size.in": 0, "stock": 0}, {**without("stock"), "size": {"h": 14, "w": 21}}),
    (
        {"stock.q": 0, "size": 0, "list": 0},
        {**without("size", "list"), "stock": [{"w": "A"}, {"w": "B"}, 7, [{"w": "C"}]]},
    ),
    ({"name.x": 0, "nope": 0}, DOC),
    # $slice
    ({"list": {"$slice": 2}}, {**DOC, "list": [1, 2]}),
    ({"list": {"$slice": -2}}, {**DOC, "list": [4, 5]}),
    ({"list": {"$slice": 0}}, {**DOC, "list": []}),
    ({"list": {"$slice": [1, 2]}}, {**DOC, "list": [2, 3]}),
    ({"list": {"$slice": [-3, 2]}}, {**DOC, "list": [3, 4]}),
    ({"list": {"$slice": [-9, 2]}}, {**DOC, "list": [1, 2]}),
    ({"list": {"$slice": [9, 2]}}, {**DOC, "list": []}),
    ({"name": {"$slice": 1}}, DOC),
    ({"list": {"$slice": 1}, "name": 1}, {"_id": 1, "name": "Ann", "list": [1]}),
    ({"list": {"$slice": 1}, "_id": 1}, {"_id": 1, "list": [1]}),
    ({"list": {"$slice": 1}, "_id": 0}, {**without("_id"), "list": [1]}),
    ({"list": {"$slice": 1}, "stock": 0, "size": 0}, {**without("stock", "size"), "list": [1]}),
    ({"size.in": {"$slice": 1}, "_id": 1}, {"_id": 1, "size": {"in": {"x": 1, "y": 2}}}),
    # $elemMatch
    ({"stock": {"$elemMatch": {"q": {"$gt": 9}}}}, {"_id": 1, "stock": [{"w": "B", "q": 15}]}),
    ({"stock": {"$elemMatch": {"q": 99}}}, {"_id": 1}),
    ({"stock": {"$elemMatch": {"q": 5}}, "_id": 0}, {"stock": [{"w": "A", "q": 5}]}),
    ({"list": {"$elemMatch": {"$gt": 2}}, "name": 1}, {"_id": 1, "name": "Ann", "list": [3]}),
    ({"name": {"$elemMatch": {"$gt": 2}}}, {"_id": 1}),
    (
        {"list": {"$elemMatch": {"$gt": 2}}, "stock": 0, "size": 0},
        {"_id": 1, "name": "Ann", "n": 5, "list": [3]},
    ),
    # computed fields
    ({"copy": "$name"}, {"_id": 1, "copy": "Ann"}),
    ({"text": "x", "name": 1}, {"_id": 1, "name": "Ann", "text": "x"}),
    ({"one": {"$literal": 1}, "_id": 0}, {"one": 1}),
    ({"sum": {"$add": ["$n", "$size.h"]}, "_id": 0}, {"sum": 19}),
    ({"gone": "$nope", "_id": 0}, {}),
    ({"out.deep": "$n", "_id": 0}, {"out": {"deep": 5}}),
    ({"size.area": {"$multiply": ["$size.h", "$size.w"]}, "_id": 0}, {"size": {"area": 294}}),
    ({"list": {"$slice": ["$list", 1]}, "_id": 0}, {"list": [1]}),
    ({"_id": "$name"}, {"_id": "Ann"}),
    ({"both": ["$n", "$nope"], "_id": 0}, {"both": [5, None]}),
]  # fmt: skip


NESTED: list[tuple[Any, Any, Any]] = [
    # $slice goes through arrays, but not through an array that is in an array
    ({"b": {"$slice": 1}}, [{"b": [1, 2]}, 3, None], [{"b": [1]}, 3, None]),
    ({"b": {"$slice": 1}}, [[{"b": [1, 2]}], {"b": [1, 2]}], [[{"b": [1, 2]}], {"b": [1]}]),
    ({"b": {"$slice": 1}, "c": 1}, [[{"b": [1, 2], "d": 3}]], [[{"b": [1, 2]}]]),
    ({"b": {"$slice": 1}, "c": 0}, [[{"b": [1, 2], "c": 3}]], [[{"b": [1, 2]}]]),
    ({"b.c": {"$slice": 1}}, [{"b": [{"c": [1, 2]}]}], [{"b": [{"c": [1]}]}]),
    ({"b.c": {"$slice": 1}}, [{"b": [[{"c": [1, 2]}]]}], [{"b": [[{"c": [1, 2]}]]}]),
    ({"b": {"$slice": 1}}, {"b": [[1, 2], [3]]}, {"b": [[1, 2]]}),
    # an inclusion drops the scalars of an array and keeps its documents and arrays
    ({"b": 1}, ["x", {}, [], [1, {"b": 2, "c": 3}]], [{}, [], [{"b": 2}]]),
]


@pytest.mark.parametrize(("project", "value", "expected"), NESTED, ids=repr)
def test_arrays_are_projected_element_by_element(project: Any, value: Any, expected: Any) -> None:
    assert compile_projection({"_id": 0, "a": project})({"a": value}) == {"a": expected}


@pytest.mark.parametrize(("project", "expected"), CASES, ids=lambda case: repr(case)[:60])
def test_a_projection_shows_what_the_manual_documents(
    project: Any, expected: dict[str, Any]
) -> None:
    before = copy.deepcopy(DOC)
    assert compile_projection(project)(DOC) == expected
    assert before == DOC


def test_shown_fields_keep_the_order_of_the_document() -> None:
    shown = compile_projection({"list": {"$slice": 1}, "n": 1, "name": 1})(DOC)
    assert list(shown) == ["_id", "name", "n", "list"]


@pytest.mark.parametrize(
    ("project", "reason"),
    [
        ({"a": 1, "b": 0}, "cannot do exclusion on field 'b' in inclusion projection"),
        ({"a": 0, "b": 1}, "cannot do inclusion on field 'b' in exclusion projection"),
        ({"a": 0, "b": "$c"}, "cannot do inclusion on field 'b'"),
        ({"a": {"b": 1, "c": 0}}, "cannot do exclusion on field 'a.c'"),
        ({"a": 1, "a.b": 1}, "path collision at 'a.b'"),
        ({"a.b": 1, "a": 1}, "path collision at 'a'"),
        ({"a.b": 1, "a": {"b": 1}}, "path collision at 'a.b'"),
        ({"a.$": 1}, "positional 'a.\\$' is not supported"),
        ({"a.$.b": 1}, "positional"),
        ({"": 1}, "empty field name"),
        ({"a..b": 1}, "empty field name"),
        ({"$a": 1}, "must not start with"),
        ({"a": {}}, "empty object"),
        ({"a": {"$foo": 1}}, "unknown operator \\$foo"),
        ({"a": {"$meta": "textScore"}}, "unknown operator \\$meta"),
        ({"a": {"$slice": 1, "b": 1}}, "exactly one operator"),
        ({"a": {"$slice": "x"}}, "needs a number"),
        ({"a": {"$slice": Decimal128("NaN")}}, "needs a number"),
        ({"a": {"$slice": [1]}}, "skip, limit"),
        ({"a": {"$slice": [1, 0]}}, "limit must be positive"),
        ({"a": {"$slice": [1, -1]}}, "limit must be positive"),
        ({"a": {"$elemMatch": 1}}, "needs an object"),
        ({"a": {"$elemMatch": {"$foo": 1}}}, "\\$foo"),
        ({"a.b": {"$elemMatch": {"c": 1}}}, "nested field 'a.b'"),
        (["a"], "must be an object"),
        ("a", "must be an object"),
    ],
)  # fmt: skip
def test_a_wrong_projection_is_refused_and_says_why(project: Any, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        compile_projection(project)


def test_a_path_nested_too_deeply_is_refused() -> None:
    with pytest.raises(QueryError, match="deeper"):
        compile_projection({".".join("a" * 5000): "$b"})


def test_a_projection_nested_too_deeply_is_refused() -> None:
    project: Any = 1
    for _ in range(5000):
        project = {"a": project}
    with pytest.raises(QueryError, match="deeper"):
        compile_projection(project)


paths = st.lists(st.sampled_from(["a", "b", "c", "0"]), min_size=1, max_size=3).map(".".join)


@law
@given(documents, st.sampled_from(["a", "b", "c"]))
def test_inclusion_and_exclusion_of_a_field_are_complements(
    document: dict[str, Any], name: str
) -> None:
    included = compile_projection({name: 1})(document)
    excluded = compile_projection({name: 0})(document)
    assert {*included, *excluded} == {*document}
    assert not {*included} & {*excluded}


@law
@given(documents, paths, st.sampled_from([0, 1]))
def test_projecting_twice_is_projecting_once(
    document: dict[str, Any], path: str, flag: int
) -> None:
    project = compile_projection({path: flag})
    assert repr(project(project(document))) == repr(project(document))


@law
@given(st.dictionaries(paths, values | st.fixed_dictionaries({"$slice": values}), max_size=2))
def test_a_projection_shows_or_refuses_whatever_it_is_given(project: dict[str, Any]) -> None:
    with suppress(QueryError):
        assert isinstance(compile_projection(project)(DOC), dict)
