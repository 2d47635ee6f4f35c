"""Digests: equal for what is the same, however it is written, and for nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.transfer.compare import (
    changed_fields,
    column_digests,
    content_digests,
    same_value,
    together,
    value_digests,
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=6,
)

SAME: list[tuple[Any, Any]] = [
    (1, 1.0),
    (0, -0.0),
    (10**20, 1e20),
    ({"a": 1, "b": None}, {"a": 1.0}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ([1, {"a": 2.0}], [1.0, {"a": 2}]),
    ({"$oid": "65a1b2c3d4e5f60718293a4b"}, "65a1b2c3d4e5f60718293a4b"),
    ({"$date": {"$numberLong": "1517443200000"}}, "2018-02-01T00:00:00.000Z"),
    ({"$date": "2018-02-01T00:00:00Z"}, "2018-02-01T00:00:00.000Z"),
    ({"$date": "2018-02-01T01:00:00+01:00"}, "2018-02-01T00:00:00.000Z"),
    ({"$numberLong": "5"}, 5),
    ({"$numberDouble": "5.0"}, 5),
]
DIFFERENT: list[tuple[Any, Any]] = [
    (1, True),
    (0, False),
    (1, "1"),
    ("", None),
    ("a", "A"),
    ([], None),
    ({}, None),
    ([1, 2], [2, 1]),
    ([None], []),
    (2**53, 2**53 + 1),
    (2**63, 2**63 + 1),
    (-1, -2),
    (2**61 - 1, 0),
    ({"$date": "x"}, "x"),
    ({"$oid": "a", "b": 1}, "a"),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_what_is_the_same_has_one_digest(one: Any, other: Any) -> None:
    assert same_value(one, other)
    assert len(set(value_digests([one, other]).tolist())) == 1
    assert value_digests([one])[0] == value_digests([other])[0]
    assert len(set(content_digests([{"a": one}, {"a": other}], ["a"]).tolist())) == 1
    assert changed_fields({"a": one}, {"a": other}) == {}


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=str)
def test_what_differs_has_another_digest(one: Any, other: Any) -> None:
    assert not same_value(one, other)
    assert len(set(value_digests([one, other]).tolist())) == 2
    assert value_digests([one])[0] != value_digests([other])[0]
    assert len(set(content_digests([{"a": one}, {"a": other}], ["a"]).tolist())) == 2
    assert changed_fields({"a": one}, {"a": other}) == {"a": one}


@given(VALUES, VALUES)
def test_digests_agree_with_values(one: Any, other: Any) -> None:
    digests = set(value_digests([one, other]).tolist())

    assert (len(digests) == 1) == same_value(one, other)


FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5).map(float)
COLUMNS = [
    (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    (st.integers(-5, 5), pa.int8()),
    (st.text(max_size=5), pa.string()),
    (FLOATS, pa.float64()),
    (st.booleans(), pa.bool_()),
]


@given(st.data())
def test_a_column_has_the_digests_of_its_values(data: st.DataObject) -> None:
    each, kind = data.draw(st.sampled_from(COLUMNS))
    values = data.draw(st.lists(each | st.none()))

    digests = column_digests(pa.array(values, kind))

    assert digests is not None
    assert digests.tolist() == [value_digests([value])[0] for value in values]


def test_several_columns_count_in_their_order() -> None:
    first, second = value_digests([1, 2]), value_digests([2, 1])

    assert together([first, second])[0] != together([second, first])[0]
    assert together([first]).tolist() == first.tolist()


def test_fields_that_are_not_named_do_not_count() -> None:
    one, other, third = content_digests([{"a": 1, "b": 2}, {"a": 1}, {"b": 2}], ["a"]).tolist()

    assert one == other != third


def test_a_field_that_the_row_does_not_name_is_left_alone() -> None:
    assert changed_fields({"a": None, "b": 2}, {"a": 1, "b": 2, "c": 3}) == {"a": None}


def test_nan_is_null() -> None:
    digests = column_digests(pa.array([float("nan"), None, 0.0]))

    assert digests is not None
    assert digests[0] == digests[1] == value_digests([None])[0] != digests[2]
