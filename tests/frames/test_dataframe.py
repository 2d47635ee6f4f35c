from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import EncodeError, SchemaConflict
from connectome_dagster.frames.dataframe import FrameParts, from_pandas, to_pandas
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.exact import decode_exactly
from connectome_dagster.frames.schema import Unmergeable, conform, merge_schemas

Backend = Literal["pyarrow", "numpy_nullable"] | None
backends = pytest.mark.parametrize("backend", [None, "numpy_nullable", "pyarrow"])
BIG = 2**53 + 1


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


@backends
@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.int64(), [BIG, None]),
        (pa.int64(), [BIG, 1]),
        (pa.int8(), [1, None]),
        (pa.uint64(), [2**64 - 1, None]),
        (pa.bool_(), [True, None]),
        (pa.bool_(), [True, False]),
        (pa.string(), ["a", None]),
        (pa.list_(pa.int64()), [[BIG, None], None]),
        (pa.list_(pa.list_(pa.int64())), [[[BIG], [None, 2]], []]),
        (pa.list_(pa.bool_()), [[True, None], []]),
        (
            pa.struct([("x", pa.int64()), ("y", pa.list_(pa.int64()))]),
            [{"x": None, "y": [BIG, None]}],
        ),
        (pa.list_(pa.struct([("x", pa.int64())])), [[{"x": BIG}, {"x": None}]]),
        (pa.decimal128(38, 0), [Decimal(2**63), None]),
        (pa.list_(pa.null()), [[None, None], None]),
        (pa.struct([("x", pa.list_(pa.null()))]), [{"x": [None, None]}, {"x": []}]),
    ],
    ids=str,
)
def test_no_integer_becomes_a_float_and_no_null_a_value(
    type_: pa.DataType, values: list[Any], backend: Backend
) -> None:
    frame = to_pandas(
        pa.table({"a": pa.array([1.5] * len(values)), "v": pa.array(values, type_)}), backend
    )
    read = [plain(value) for value in frame["v"]]
    assert repr(read) == repr(values)
    if pa.types.is_integer(type_):
        assert pd.api.types.is_integer_dtype(frame["v"].dtype)
    if pa.types.is_boolean(type_):
        assert pd.api.types.is_bool_dtype(frame["v"].dtype)


def test_types_are_numpys_where_they_hold_every_value() -> None:
    frame = to_pandas(pa.table({"n": [1, None], "i": [1, 2], "b": [None, True], "f": [0.5, None]}))
    assert [str(dtype) for dtype in frame.dtypes] == ["Int64", "int64", "boolean", "float64"]
    assert list(frame.columns) == ["n", "i", "b", "f"]


@backends
def test_rows_and_order_are_kept_where_columns_are_few(backend: Backend) -> None:
    assert to_pandas(pa.table({"a": pa.array([None, 1, None])}), backend).shape == (3, 1)
    assert to_pandas(pa.table({"a": pa.array([], pa.int64())}), backend).shape == (0, 1)
    assert to_pandas(pa.table({}), backend).shape == (0, 0)
    chunks = pa.chunked_array([[1, None], [], [3]], pa.int64())
    assert [plain(v) for v in to_pandas(pa.table({"a": chunks}), backend)["a"]] == [1, None, 3]


@backends
def test_two_columns_of_one_name_are_refused(backend: Backend) -> None:
    with pytest.raises(SchemaConflict, match="'a'"):
        to_pandas(pa.table([[1], [2]], names=["a", "a"]), backend)
    with pytest.raises(SchemaConflict, match="'a'"):
        from_pandas(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_another_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="numpy_nullable"):
        FrameParts("polars")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="numpy_nullable"):
        to_pandas(pa.table({"a": [1]}), "polars")  # type: ignore[arg-type]


columns = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(
        lambda v: pa.array(v, pa.int64())
    ),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3).map(
        lambda v: pa.array(v, pa.bool_())
    ),
    st.lists(st.none() | st.text("aé\0🎈"), min_size=3, max_size=3).map(
        lambda v: pa.array(v, pa.string())
    ),
    st.lists(st.none() | st.floats(allow_nan=False), min_size=3, max_size=3).map(
        lambda v: pa.array(v, pa.float64())
    ),
)


@settings(max_examples=40, deadline=None)
@given(arrays=st.lists(columns, min_size=1, max_size=3))
@backends
def test_a_table_that_becomes_a_frame_comes_back(arrays: list[pa.Array], backend: Backend) -> None:
    table = pa.table(arrays, names=[f"c{at}" for at in range(len(arrays))])
    back = from_pandas(to_pandas(table, backend))
    for name in table.column_names:
        if table[name].null_count < 3:
            assert repr(back[name].to_pylist()) == repr(table[name].to_pylist())


def exactly(value: Any) -> Any:
    """Say a value with its types: which containers, of what, and which kinds of numbers."""
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), [exactly(item) for item in value]
    if isinstance(value, list):
        return "list", [exactly(item) for item in value]
    if isinstance(value, dict):
        return {name: exactly(item) for name, item in value.items()}
    return type(value).__name__, repr(value)


def described(frame: pd.DataFrame) -> Any:
    columns = [[exactly(value) for value in frame[name]] for name in frame.columns]
    return list(frame.columns), list(map(str, frame.dtypes)), frame.index, columns


leaves = [st.integers(1, 2) | st.just(BIG), st.booleans(), st.just(0.5), st.sampled_from("xy")]
kinds = st.recursive(  # each is a strategy: values of one field, which mostly go together
    st.sampled_from([st.none() | leaf for leaf in leaves]),
    lambda below: (
        below.map(lambda item: st.none() | st.lists(item, max_size=2))
        | st.lists(below, max_size=2).map(
            lambda each: st.none() | st.fixed_dictionaries({}, optional=dict(enumerate_names(each)))
        )
    ),
    max_leaves=3,
)


def enumerate_names(values: list[Any]) -> list[tuple[str, Any]]:
    return [(f"f{at}", value) for at, value in enumerate(values)]


batches_of_documents = kinds.flatmap(
    lambda kind: st.lists(
        st.lists(st.fixed_dictionaries({}, optional={"a": kind, "b": kind}), max_size=2), max_size=6
    )
)


@settings(max_examples=100, deadline=None)
@given(divided=batches_of_documents)
@example(divided=[[{"a": [1]}], [{"a": [None]}]])
@example(divided=[[{"a": {"b": [True]}}], [{"a": {"b": [None]}}]])
@backends
def test_a_frame_does_not_depend_on_how_rows_are_divided_into_batches(
    divided: list[list[dict[str, Any]]], backend: Backend
) -> None:
    batches = [decode_exactly(json.dumps(each)[1:-1].encode())[0] for each in divided]
    schema = pa.schema([])
    try:
        for batch in batches:
            schema = merge_schemas(schema, batch.schema)
        whole = pa.Table.from_batches([conform(each, schema) for each in batches], schema)
    except Unmergeable:
        return
    parts = FrameParts(backend).write(batches).frame(schema)
    expected = to_pandas(whole.combine_chunks(), backend)
    pd.testing.assert_frame_equal(parts, expected)
    assert described(parts)[:2] == described(expected)[:2]
    assert described(parts)[3] == described(expected)[3]


@pytest.mark.parametrize(
    ("early", "late", "read"),
    [
        ({"n": 1}, {"n": None}, {"n": 1}),
        ({"o": {"n": BIG}}, {"o": {"n": None}}, {"o": {"n": BIG}}),
        ({"o": {"n": 1}}, {"o": {"m": 1}}, {"o": {"n": 1, "m": None}}),
        ({"o": {"n": 1}}, {"o": {"n": 0.5}}, {"o": {"n": 1.0}}),
        ({"o": {"l": None}}, {"o": {"l": [1]}}, {"o": {"l": None}}),
        ({"l": [BIG]}, {"l": [None]}, {"l": [BIG]}),
    ],
    ids=str,
)
def test_an_early_batch_has_the_types_of_the_whole(
    early: dict[str, Any], late: dict[str, Any], read: dict[str, Any]
) -> None:
    batches = [decode_exactly(json.dumps(each).encode())[0] for each in (early, late)]
    schema = merge_schemas(batches[0].schema, batches[1].schema)
    frame = FrameParts(None).write(batches).frame(schema)
    (name,) = read
    assert repr(plain(frame[name][0])) == repr(read[name])
    if name == "n":
        assert str(frame["n"].dtype) == "Int64"
    if name == "l":
        assert exactly(frame["l"][0]) == ("list", [("int", str(BIG))])


def test_lists_of_booleans_are_of_one_type_in_all_batches() -> None:
    batches = [
        pa.record_batch({"l": pa.array([[value]], pa.list_(pa.bool_()))}) for value in (True, None)
    ]
    frame = FrameParts(None).write(batches).frame(batches[0].schema)
    assert [value.dtype for value in frame["l"]] == [object, object]


def test_names_of_the_index_become_columns() -> None:
    frame = pd.DataFrame({"k": ["x", "y"], "j": [1, 2], "v": [3, 4]})
    assert from_pandas(frame).column_names == ["k", "j", "v"]
    assert from_pandas(frame.set_index("k")).to_pylist()[0] == {"k": "x", "j": 1, "v": 3}
    assert from_pandas(frame.set_index(["k", "j"])).column_names == ["k", "j", "v"]
    half = frame.set_index(["k", "j"]).rename_axis(index=["k", None])
    assert from_pandas(half).column_names == ["k", "v"]
    assert from_pandas(frame.set_index(pd.Index([7, 7]))).column_names == ["k", "j", "v"]
    assert from_pandas(frame.groupby("k").sum()[["v"]]).column_names == ["k", "v"]


def test_an_index_level_that_is_called_like_another_name_is_refused() -> None:
    frame = pd.DataFrame({"v": [3]}, index=pd.Index([1], name="v"))
    with pytest.raises(EncodeError, match="'v'"):
        from_pandas(frame)
    levels = pd.MultiIndex.from_tuples([(1, 2)], names=["k", "k"])
    with pytest.raises(SchemaConflict, match="'k'"):
        from_pandas(pd.DataFrame({"v": [3]}, index=levels))


@pytest.mark.parametrize(
    "values",
    [
        [1, "x"],
        ["x", 1.5],
        [True, 1],
        [b"x", "x"],
        [{"a": 1}, [1]],
        [{"a": 1}, {"a": "x"}],
        [date(2018, 2, 1), datetime(2018, 2, 1, 5)],
        [datetime(2018, 2, 1, 5), date(2018, 2, 1)],
        [BIG, 0.5],
        [2**64, 1],
        [Ellipsis],
        [1j],
        ["\ud800"],
    ],
    ids=repr,
)
def test_a_column_of_values_that_do_not_go_together_is_named(values: list[Any]) -> None:
    frame = pd.DataFrame({"ok": range(len(values)), "bad": pd.Series(values, dtype=object)})
    with pytest.raises(EncodeError, match="'bad'") as caught:
        from_pandas(frame)
    assert caught.value.column == "bad"
    assert caught.value.__cause__ is None


def test_periods_are_refused_and_never_said_as_numbers() -> None:
    frame = pd.DataFrame({"p": pd.period_range("2018-01", periods=2, freq="M")})
    with pytest.raises(EncodeError, match="'p'"):
        encode_rows(from_pandas(frame).to_batches()[0])


@pytest.mark.parametrize("name", [0, ("a", "b"), None])
def test_a_column_whose_name_is_no_text_is_refused(name: Any) -> None:
    frame = pd.DataFrame([[1]])
    frame.columns = pd.Index([name], dtype=object, tupleize_cols=False)
    with pytest.raises(EncodeError, match="rename"):
        from_pandas(frame)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1.5, np.nan]), [1.5, None]),
        (pd.Series([1, None], dtype=object), [1, None]),
        (pd.Series([BIG, np.nan], dtype=object), [BIG, None]),
        (pd.Series([BIG, None], dtype="Int64"), [BIG, None]),
        (pd.Series([True, None], dtype="boolean"), [True, None]),
        (pd.Series(["a", "b", "a"], dtype="category"), ["a", "b", "a"]),
        (pd.to_datetime(pd.Series(["2018-02-01", None])), ["2018-02-01T00:00:00.000Z", None]),
        (
            pd.to_datetime(pd.Series(["2018-02-01"])).dt.tz_localize("Europe/Zurich"),
            ["2018-01-31T23:00:00.000Z"],
        ),
        (pd.Series([pd.NA, "x"], dtype="string"), [None, "x"]),
        (pd.Series([1, None], dtype=pd.ArrowDtype(pa.int64())), [1, None]),
        (pd.Series([[1, None], None]), [[1, None], None]),
        (pd.Series([{"a": 1}, {"b": None}]), [{"a": 1, "b": None}, {"a": None, "b": None}]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_a_column_is_sent_as_its_values(column: Any, expected: list[Any]) -> None:

    table = from_pandas(pd.DataFrame({"v": column}))
    lines = [line for batch in table.to_batches() for line in encode_rows(batch)]
    assert [json.loads(line)["v"] for line in lines] == expected


def test_a_frame_without_columns_keeps_no_rows_in_secret() -> None:
    assert from_pandas(pd.DataFrame()).num_columns == 0
    assert from_pandas(pd.DataFrame({"a": []})).column_names == ["a"]
