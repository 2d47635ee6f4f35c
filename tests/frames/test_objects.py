from __future__ import annotations

import gc
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.frames.objects import Lists, is_nested, lists_of, objects_of

BIG = 2**53 + 1
UTC = pa.timestamp("ms", "UTC")


def made(values: list[Any], type_: pa.DataType) -> list[Any]:
    array = pa.array(values, type_)
    return list(objects_of(array, lists_of(array)))


def alike(one: Any, other: Any) -> bool:
    """Whether both are the same values, of the same types, in the same containers."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and alike(list(one), list(other))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and alike(list(one.values()), list(other.values()))
    return repr(one) == repr(other)


leaves = st.sampled_from(
    [
        *(pa.int64(), pa.bool_(), pa.float64(), pa.string(), pa.null()),
        *(UTC, pa.decimal128(9, 2), pa.binary(), pa.binary(16)),
    ]
)
types = st.recursive(
    leaves,
    lambda below: (
        below.map(pa.list_)
        | below.map(pa.large_list)
        | st.lists(below, max_size=3).map(lambda each: pa.struct(list(zip("pqr", each))))  # noqa: B905 - as many as there are
    ),
    max_leaves=5,
).filter(is_nested)


def values_of(type_: pa.DataType, nulls: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if pa.types.is_struct(type_):
        fields = {field.name: values_of(field.type, nulls) for field in type_}
        return nulls | st.fixed_dictionaries(fields)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return nulls | st.lists(values_of(type_.value_type, nulls), max_size=3)
    if pa.types.is_integer(type_):
        return nulls | st.integers(-(2**63), 2**63 - 1)
    if pa.types.is_boolean(type_):
        return nulls | st.booleans()
    if pa.types.is_floating(type_):
        return nulls | st.floats(allow_nan=False)
    if pa.types.is_string(type_):
        return nulls | st.text("aé\0🎈", max_size=2)
    if pa.types.is_timestamp(type_):
        return nulls | st.just(datetime(2018, 2, 1, 5, tzinfo=timezone.utc))
    if pa.types.is_decimal(type_):
        return nulls | st.decimals(-9, 9, places=2)
    if not pa.types.is_null(type_):
        return nulls | st.just(b"0123456789abcdef")
    return st.none()


@st.composite
def arrays(draw: st.DrawFn, nulls: st.SearchStrategy[Any]) -> pa.Array:
    type_ = draw(types)
    values = draw(st.lists(values_of(type_, nulls), max_size=6))
    # A slice has neighbours on both sides that are not its own.
    whole = pa.array([None, *values, None] if draw(st.booleans()) else values, type_)
    start = draw(st.integers(0, len(whole)))
    return whole.slice(start, draw(st.integers(0, len(whole) - start)))


def as_arrow_says(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [as_arrow_says(item) for item in value.tolist()]
    if isinstance(value, list):
        return [as_arrow_says(item) for item in value]
    if isinstance(value, dict):
        return {name: as_arrow_says(item) for name, item in value.items()}
    return None if value != value else value


def in_utc(value: Any) -> Any:
    """Lists of instants are arrays of NumPy's, which know no zone."""
    if isinstance(value, dict):
        return {name: in_utc(item) for name, item in value.items()}
    if isinstance(value, list):
        return [in_utc(item) for item in value]
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


@settings(max_examples=60, deadline=None)
@given(arrays(st.none()))
def test_every_value_is_that_of_the_array(array: pa.Array) -> None:
    objects = objects_of(array, lists_of(array))
    assert objects.dtype == object
    said = in_utc([as_arrow_says(value) for value in objects])
    assert repr(said) == repr(in_utc(array.to_pylist()))


@settings(max_examples=60, deadline=None)
@given(arrays(st.nothing()))
def test_where_nothing_is_null_it_is_what_pyarrow_makes(array: pa.Array) -> None:
    inner = array.drop_null()
    if lists_of(inner) == Lists.ARRAYS and "fixed_size_binary" not in str(inner.type):
        expected = list(inner.to_pandas()) if len(inner) else []
        assert alike(list(objects_of(inner, Lists.ARRAYS)), expected)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.large_string(), "x"),
        (pa.binary(), b"xy"),
        (pa.date32(), date(2018, 2, 1)),
        (pa.time64("us"), time(1)),
        (pa.duration("ms"), timedelta(1)),
        (pa.timestamp("us", "Europe/Zurich"), datetime(2018, 2, 1)),
        (pa.float32(), 1.5),
        (pa.dictionary(pa.int32(), pa.string()), "x"),
        (pa.map_(pa.string(), pa.int64()), [("a", 1)]),
        (pa.list_(pa.int32(), 2), [1, 2]),
    ],
    ids=str,
)
def test_types_of_a_given_schema_are_as_pyarrow_makes_them(type_: pa.DataType, value: Any) -> None:
    within = pa.struct([("x", type_)])
    for array in (
        pa.array([{"x": value}, {"x": None}, None, {"x": value}], within),
        pa.array([[value], [], None], pa.list_(type_)),
        pa.array([[{"x": value}], []], pa.list_(within)),
        pa.array([{"x": [value]}, {"x": []}], pa.struct([("x", pa.list_(type_))])),
    ):
        assert alike(list(objects_of(array, Lists.ARRAYS)), list(array.to_pandas()))


@pytest.mark.parametrize(("type_", "value"), [(pa.binary(16), b"0" * 16), (pa.string_view(), "x")])
def test_types_that_pyarrow_makes_no_lists_of_are_made(type_: pa.DataType, value: Any) -> None:
    for nested, values in [
        (pa.list_(type_), [[value, None], [], None]),
        (pa.list_(pa.list_(type_)), [[[value], None]]),
        (pa.struct([("x", pa.list_(type_))]), [{"x": [value]}, None]),
        (pa.struct([("x", type_)]), [{"x": value}, None, {"x": None}]),
    ]:
        assert [as_arrow_says(each) for each in made(values, nested)] == values


def test_nanoseconds_in_an_object_are_an_instant() -> None:
    values = made([{"at": 1}, {"at": None}], pa.struct([("at", pa.timestamp("ns"))]))
    assert values == [{"at": pd.Timestamp(1)}, {"at": None}]


def test_integers_beside_nulls_stay_integers_in_objects() -> None:
    type_ = pa.struct([("n", pa.int64()), ("o", pa.struct([("m", pa.uint64())]))])
    values = [{"n": BIG, "o": {"m": 2**64 - 1}}, {"n": None, "o": {"m": None}}, None]
    assert alike(made(values, type_), values)


def test_nan_in_an_object_is_not_null() -> None:
    nan = float("nan")
    values = [{"f": nan}, {"f": None}, {"f": float("inf")}]
    assert alike(made(values, pa.struct([("f", pa.float64())])), values)


def test_lists_hold_what_they_have_to() -> None:
    assert made([[1], []], pa.list_(pa.int64()))[0].dtype == np.int64
    assert made([[True]], pa.list_(pa.bool_()))[0].dtype == bool
    assert made([[True], [None]], pa.list_(pa.bool_()))[0].dtype == object
    assert alike(made([[1, None], None], pa.list_(pa.int64())), [[1, None], None])
    nested = pa.struct([("l", pa.list_(pa.int64())), ("b", pa.list_(pa.bool_()))])
    assert alike(made([{"l": [None, BIG], "b": [True]}], nested), [{"l": [None, BIG], "b": [True]}])


@pytest.mark.parametrize("year", [10_000, 0])
def test_instants_that_python_has_no_datetime_for_are_numpys(year: int) -> None:
    far = np.datetime64(f"{year:04}-06-01T00:00:00.000")
    instants = pa.array([far, np.datetime64("2018-02-01T00:00:00.000"), None], pa.timestamp("ms"))
    rows = pa.StructArray.from_arrays([instants.cast(UTC)], names=["at"])
    first, second, third = (row["at"] for row in objects_of(rows, Lists.ARRAYS))
    assert type(first) is np.datetime64
    assert first == far
    assert second == datetime(2018, 2, 1, tzinfo=timezone.utc)
    assert third is None


def test_equal_strings_of_objects_are_one() -> None:
    rows = made(
        [{"s": "a long city"}, {"s": "a long city"}, {"s": None}], pa.struct([("s", pa.string())])
    )
    assert rows[0]["s"] is rows[1]["s"]


@pytest.mark.parametrize("runs", [True, False])
def test_the_collector_of_garbage_is_left_as_it_was(runs: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if runs else gc.disable)()
        made([{"a": 1}], pa.struct([("a", pa.int64())]))
        assert gc.isenabled() is runs
    finally:
        (gc.enable if was else gc.disable)()
