"""Data applied as `$set`, and the documents that upserts create, as MongoDB's manual has them."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from bson import Regex
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local.query import compile_filter
from connectome_dagster.local.refusal import QueryError, UpdateError
from connectome_dagster.local.update import apply_set, build_upsert, check_data
from connectome_dagster.local.values import equals
from tests.local.bson_values import documents, law, values

APPLIED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"a": 1}, {}, {"a": 1}),
    ({"a": 1}, {"a": 2}, {"a": 2}),
    ({"a": 1}, {"b": None}, {"a": 1, "b": None}),
    ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"y": 2}}),
    ({"a": {"x": 1}}, {"a.y": 2}, {"a": {"x": 1, "y": 2}}),
    ({}, {"a.b.c": 1}, {"a": {"b": {"c": 1}}}),
    ({}, {"a.0": 1}, {"a": {"0": 1}}),
    ({"a": [1, 2, 3]}, {"a.1": 9}, {"a": [1, 9, 3]}),
    ({"a": [1]}, {"a.3": 9}, {"a": [1, None, None, 9]}),
    ({"a": []}, {"a.0.b": 9}, {"a": [{"b": 9}]}),
    ({"a": [{"b": 1}, {"b": 2}]}, {"a.1.b": 9, "a.0.c": 8}, {"a": [{"b": 1, "c": 8}, {"b": 9}]}),
    ({"a": [[1], 2]}, {"a.0.1": 9}, {"a": [[1, 9], 2]}),
    ({"a": {"0": 1}}, {"a.0": 2}, {"a": {"0": 2}}),
    ({"_id": 1, "a": 1}, {"_id": 1.0, "a": 2}, {"_id": 1, "a": 2}),
    ({"_id": {"x": 1}}, {"_id.x": 1}, {"_id": {"x": 1}}),
    ({"a": 1}, {"a": {"$ref": "c", "$id": 5}}, {"a": {"$ref": "c", "$id": 5}}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "data", "expected"), APPLIED, ids=repr)
def test_data_is_set(
    document: dict[str, Any], data: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = copy.deepcopy(document)
    assert apply_set(document, data) == expected
    assert document == before


def test_a_field_keeps_its_place_and_new_ones_come_in_the_order_of_their_names() -> None:
    found = apply_set({"z": 1, "y": 1}, {"z": 2, "b": 1, "10": 1, "9": 1, "a": 1})
    assert list(found) == ["z", "y", "9", "10", "a", "b"]


DEEP: Any = 1
for _ in range(300):
    DEEP = [DEEP]

REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({"_id": 1}, {"_id": 2}, "immutable field '_id'"),
    ({"_id": {"x": 1}}, {"_id.x": 2}, "immutable field '_id'"),
    ({"_id": {"x": 1}}, {"_id.y": 2}, "immutable field '_id'"),
    ({"a": 1}, {"a.b": 1}, "cannot create the field 'b' in 'a'"),
    ({"a": None}, {"a.b": 1}, "cannot create the field 'b' in 'a'"),
    ({"a": "x"}, {"a.0": 1}, "cannot create the field '0' in 'a'"),
    ({"a": {"b": 1}}, {"a.b.c": 1}, "cannot create the field 'c' in 'a.b'"),
    ({"a": [1]}, {"a.b": 1}, "cannot create the field 'b' in 'a', which is an array"),
    ({"a": [1]}, {"a.-1": 1}, "cannot create the field '-1' in 'a'"),
    ({"a": [1]}, {"a.0.b": 1}, "cannot create the field 'b' in 'a.0'"),
    ({"a": [None]}, {"a.0.b": 1}, "cannot create the field 'b' in 'a.0'"),
    ({"a": []}, {"a.9999999": 1}, "fill more than"),
    ({}, {"a": 1, "a.b": 1}, "conflict"),
    ({}, {"a.b": 1, "a": 1}, "conflict"),
    ({}, {"a.b.c": 1, "a.b": 1}, "conflict"),
    ({}, {"$set": {"a": 1}}, r"'\$set' must not start with \$"),
    ({}, {"$inc": {"a": 1}}, r"'\$inc'"),
    ({}, {"a.$": 1}, r"'\$' in 'a.\$' must not start with \$"),
    ({}, {"a.$[].b": 1}, r"'\$\[\]'"),
    ({}, {"a": {"b": [{"$x": 1}]}}, r"'\$x'"),
    ({}, {"": 1}, "empty field name"),
    ({}, {"a.": 1}, "empty field name"),
    ({}, {"a..b": 1}, "empty field name"),
    ({}, {".".join("a" * 5000): 1}, "deeper than 200 levels"),
    ({}, {"a": DEEP}, "deeper than 200 levels"),
    ({}, [1], "must be an object"),
    ({}, None, "must be an object"),
]


@pytest.mark.parametrize(("document", "data", "reason"), REFUSED, ids=lambda case: repr(case)[:60])
def test_data_that_does_not_fit_is_refused_and_says_why(
    document: dict[str, Any], data: Any, reason: str
) -> None:
    with pytest.raises(UpdateError, match=reason):
        apply_set(document, data)


def test_malformed_data_is_found_without_a_document() -> None:
    check_data({"a.b": 1, "a.c": 2})
    with pytest.raises(UpdateError):
        check_data({"a": 1, "a.b": 1})


UPSERTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {"a": 1}, {"a": 1}),
    ({"sku": 1}, {"a": 1}, {"sku": 1, "a": 1}),
    ({"sku": 1}, {"sku": 2}, {"sku": 2}),
    ({"sku": {"$eq": 1}, "n": {"$gt": 5}}, {"a": 1}, {"sku": 1, "a": 1}),
    ({"a.b": 1, "a.c": 2}, {"a.d": 3}, {"a": {"b": 1, "c": 2, "d": 3}}),
    ({"$and": [{"x": 1}, {"y": {"$eq": 2}}]}, {"a": 1}, {"x": 1, "y": 2, "a": 1}),
    ({"$or": [{"x": 1}]}, {"a": 1}, {"x": 1, "a": 1}),
    ({"$or": [{"x": 1}, {"y": 1}]}, {"a": 1}, {"a": 1}),
    ({"x": {"$in": [1]}, "y": {"$in": [1, 2]}}, {"a": 1}, {"x": 1, "a": 1}),
    ({"x": {"$all": [1]}, "y": {"$all": []}}, {"a": 1}, {"x": 1, "a": 1}),
    ({"x": {"$eq": Regex("a")}}, {"a": 1}, {"x": Regex("a"), "a": 1}),
    ({"b.c.": 1, "b.d": 3}, {"a": 1}, {"b": {"c": {"": 1}, "d": 3}, "a": 1}),
    ({"x.$id": 1}, {"x": {"$ref": "c", "$id": 2}}, {"x": {"$ref": "c", "$id": 2}}),
    ({"x": Regex("a"), "y": {"$exists": False}, "z": {"$ne": 1}}, {"a": 1}, {"a": 1}),
    ({"x": {"k": 1}}, {"a": 1}, {"x": {"k": 1}, "a": 1}),
    ({"x": {"k": 1}}, {"x.m": 2}, {"x": {"k": 1, "m": 2}}),
    ({"x": None}, {"a": 1}, {"x": None, "a": 1}),
    ({"x": [1, 2]}, {"x.1": 3}, {"x": [1, 3]}),
    ({"_id": 5, "x": 1}, {"a": 1}, {"_id": 5, "x": 1, "a": 1}),
    ({"x": 1}, {"_id": 5}, {"_id": 5, "x": 1}),
    ({"_id": {"$gt": 3}}, {"_id": 5}, {"_id": 5}),
    ({"_id": 5}, {"_id": 5}, {"_id": 5}),
    ({"$expr": {"$eq": ["$x", 1]}}, {"a": 1}, {"a": 1}),
    ({"x": {"$elemMatch": {"k": 1}}}, {"a": 1}, {"a": 1}),
]


@pytest.mark.parametrize(("query", "data", "expected"), UPSERTS, ids=repr)
def test_an_upsert_takes_the_equal_parts_of_its_filter(
    query: dict[str, Any], data: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert build_upsert(query, data) == expected


def test_the_id_comes_first_in_an_upserted_document() -> None:
    assert list(build_upsert({"x": 1}, {"_id": 5})) == ["_id", "x"]


@pytest.mark.parametrize(
    ("query", "data", "reason"),
    [
        ({"_id": 1}, {"_id": 2}, "immutable field '_id'"),
        ({"$and": [{"a": 1}, {"a": 2}]}, {"b": 1}, "'a'"),
        ({"a": 1, "a.b": 2}, {"b": 1}, "'a.b'"),
        ({"a.b": 1, "a": {"b": 1}}, {"b": 1}, "'a'"),
        ({"a": 1}, {"a.b": 2}, "cannot create the field 'b'"),
        ({"a": {"$all": [1, 2]}}, {"c": 2}, "'a'"),
        ({"_id": {"$all": [1, 2]}}, {"c": 2}, "'_id'"),
        ({"_id.x": 1}, {"c": 2}, "'_id.x'"),
        ({"_id.x": 1, "_id.y": {"$eq": 2}}, {"_id": {"x": 1, "y": 2}}, "'_id.x'"),
        ({".".join("a" * 5000): 1}, {"c": 2}, "deeper than 200 levels"),
    ],
)  # fmt: skip
def test_an_upsert_that_contradicts_itself_is_refused(
    query: dict[str, Any], data: dict[str, Any], reason: str
) -> None:
    with pytest.raises(QueryError, match=reason):
        build_upsert(query, data)


def test_an_upsert_by_thousands_of_parts_takes_them_all_in_no_time() -> None:
    query = {f"q.{n % 100}.{n}": n for n in range(20_000)}

    assert len(build_upsert(query, {"a": 1})["q"]["7"]) == 200


names = st.sampled_from(["a", "b", "x"])


@law
@given(documents, names, values)
def test_what_was_set_is_there_and_nothing_else_has_changed(
    document: dict[str, Any], name: str, value: Any
) -> None:
    changed = apply_set(document, {name: value})
    assert equals(changed[name], value)
    others = [{k: v for k, v in d.items() if k != name} for d in (document, changed)]
    assert equals(*others)


@law
@given(documents, names, values)
def test_setting_twice_is_setting_once(document: dict[str, Any], name: str, value: Any) -> None:
    data = {f"new.{name}": value}
    once = apply_set(document, data)
    assert equals(apply_set(once, data), once)


@law
@given(st.dictionaries(names, values, max_size=3), values)
def test_an_upserted_document_matches_its_filter(query: dict[str, Any], value: Any) -> None:
    document = build_upsert({name: {"$eq": item} for name, item in query.items()}, {"new": value})
    assert compile_filter({name: {"$eq": item} for name, item in query.items()})(document)


paths = st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=3).map(".".join)


@law
@given(documents, st.dictionaries(paths, values, max_size=3))
def test_data_is_applied_or_refused_and_the_document_stays(
    document: dict[str, Any], data: dict[str, Any]
) -> None:
    before = copy.deepcopy(document)
    with suppress(UpdateError):
        changed = apply_set(document, data)
        assert compile_filter({path: {"$eq": value} for path, value in data.items()})(changed)
    assert equals(document, before)
