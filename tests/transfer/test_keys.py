from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.errors import (
    ConfigurationError,
    DuplicateKeys,
    EncodeError,
    SchemaConflict,
)
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer import keys as keys_module
from connectome_dagster.transfer.keys import DistinctKeys, KeyColumns, KeyedRow


def keyed(*batches: Any, on: Any = ("k",), encoding: Encoding = DEFAULT_ENCODING) -> list[KeyedRow]:
    """Keys as an upsert has them: all rows are looked at, and again if two keys may be one."""
    columns = KeyColumns(list(on), encoding)
    distinct = DistinctKeys(columns.names)
    rows: list[KeyedRow] = []
    for batch in batches:
        more = columns.rows(batch, len(rows))
        distinct.add(more)
        rows += more
    if distinct.suspected:
        distinct.check(rows)
    return rows


AS_BATCH: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "batch": pa.RecordBatch.from_pylist,
    "documents": list,
}
either = pytest.mark.parametrize("batch_of", AS_BATCH.values(), ids=AS_BATCH.keys())


@either
def test_a_row_has_its_position_its_key_and_all_its_columns(batch_of: Any) -> None:
    rows = keyed(batch_of([{"v": 1, "k": "a"}]), batch_of([{"v": None, "k": "b"}]))
    assert [(row.row, json.loads(row.key), json.loads(row.data)) for row in rows] == [
        (0, {"k": "a"}, {"v": 1, "k": "a"}),
        (1, {"k": "b"}, {"v": None, "k": "b"}),
    ]


@either
def test_a_key_of_several_columns_is_in_the_order_that_was_asked_for(batch_of: Any) -> None:
    (row,) = keyed(batch_of([{"a": 1, "b": "x"}]), on=["b", "a", "b"])
    assert row.key == b'{"b":"x","a":1}'


@either
@pytest.mark.parametrize(
    ("first", "second"), [(1, 1.0), (0.0, -0.0), (1.5, 1.5), ("a", "a"), (True, True)]
)
def test_what_is_one_value_there_is_one_key_here(batch_of: Any, first: Any, second: Any) -> None:
    with pytest.raises(DuplicateKeys, match=r"row 1: the key .* is that of row 0") as caught:
        keyed(batch_of([{"k": first}]), batch_of([{"k": second}]))
    assert caught.value.keys in [((first,),), ((second,),)]


@either
@pytest.mark.parametrize(("first", "second"), [(1, True), (1, "1"), (0, False), (1, 1.5)])
def test_what_are_two_values_there_are_two_keys_here(
    batch_of: Any, first: Any, second: Any
) -> None:
    assert len(keyed(batch_of([{"k": first}]), batch_of([{"k": second}]))) == 2


@pytest.mark.parametrize(
    "nothing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, Decimal("NaN"),
                np.datetime64("NaT", "ns")],
)  # fmt: skip
def test_a_document_without_a_value_for_its_key_is_refused(nothing: Any) -> None:
    with pytest.raises(EncodeError, match="row 1: the key column 'k' is null or NaN") as caught:
        keyed([{"k": 1}, {"k": nothing}])
    assert (caught.value.column, caught.value.row) == ("k", 1)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None]),
        pa.array([1.0, float("nan")]),
        pa.array([1.0, float("nan")], pa.float32()),
        pa.array(["a", None]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([1.0, float("nan")])),
        pa.array([dt.datetime(2024, 1, 1), None]),
    ],
)
def test_a_row_without_a_value_for_its_key_is_refused(column: pa.Array) -> None:
    with pytest.raises(EncodeError, match="row 1: the key column 'k' is null or NaN") as caught:
        keyed(pa.record_batch({"k": column}))
    assert (caught.value.column, caught.value.row) == ("k", 1)


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1,), np.array([1, 2])])
def test_a_key_is_a_single_value(value: Any) -> None:
    with pytest.raises(EncodeError, match="a key is one value"):
        keyed([{"k": value}])


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([{"a": 1}])])
def test_a_key_column_holds_single_values(column: pa.Array) -> None:
    with pytest.raises(EncodeError, match="a key is one value"):
        keyed(pa.record_batch({"k": column}))


@either
def test_a_missing_key_column_is_told_with_those_that_are_there(batch_of: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"names 'k', .* it has 'a', 'b'"):
        keyed(batch_of([{"a": 1, "b": 2}]))


def test_two_columns_of_one_name_are_told() -> None:
    with pytest.raises(SchemaConflict, match="two columns are called 'k'"):
        keyed(pa.record_batch([pa.array([1]), pa.array([2])], names=["k", "k"]))


@pytest.mark.parametrize("on", [[], "sku", [1], ["a.b"], ["$a"], [""]])
def test_names_that_cannot_be_columns_are_refused(on: Any) -> None:
    with pytest.raises(ConfigurationError):
        KeyColumns(on)


@given(st.lists(st.integers(-3, 3) | st.sampled_from(["a", "b", "1", True, 0.5, 1.0]), max_size=8))
def test_keys_are_refused_exactly_if_two_are_equal_there(values: list[Any]) -> None:
    distinct = {(isinstance(value, bool), value) for value in values}
    try:
        rows = keyed([{"k": value} for value in values])
    except DuplicateKeys:
        assert len(distinct) < len(values)
    else:
        assert len(distinct) == len(values) == len(rows)


def test_keys_are_told_apart_also_where_what_is_remembered_of_them_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys_module, "_digest", lambda _key: bytes(8))
    assert len(keyed([{"k": n} for n in range(3 * keys_module.MAX_SUSPECTS)])) == 3000
    with pytest.raises(DuplicateKeys, match=r"row 7: the key .* is that of row 2 as well"):
        keyed([{"k": k} for k in "cdeab"], [{"k": k} for k in "zyex"])


def test_eight_bytes_of_a_key_are_remembered_and_for_moments_as_many_again() -> None:
    distinct = DistinctKeys(["k"])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for first in range(0, 40_000, 4000):
        distinct.add([KeyedRow(n, b"%d" % n, b"") for n in range(first, first + 4000)])
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not distinct.suspected
    assert after - before < 9 * 40_000
    assert peak - before < 16 * 40_000 + 4000 * 400  # and what the rows of one call take


FORMS: dict[str, tuple[Any, dict[str, str], Any]] = {
    "instant": (
        dt.datetime(1970, 1, 2, tzinfo=dt.timezone.utc),
        {"timestamps": "ejson"},
        {"$date": {"$numberLong": "86400000"}},
    ),
    "decimal": (Decimal("1.50"), {"decimals": "ejson"}, {"$numberDecimal": "1.50"}),
    "bytes": (b"ab", {"binary": "ejson"}, {"$binary": {"base64": "YWI=", "subType": "00"}}),
    "number": (1.0, {"nulls": "omit"}, 1),
}


@either
@pytest.mark.parametrize(("value", "words", "form"), FORMS.values(), ids=FORMS.keys())
def test_a_key_has_the_form_that_its_document_has(
    batch_of: Any, value: Any, words: Any, form: Any
) -> None:
    (row,) = keyed(batch_of([{"k": value}]), encoding=Encoding(**words))
    assert json.loads(row.key) == {"k": form}
    assert json.loads(row.data) == {"k": form}


@either
def test_a_null_that_is_left_out_of_documents_is_no_key_either(batch_of: Any) -> None:
    with pytest.raises(EncodeError, match="null or NaN"):
        keyed(batch_of([{"k": 1}, {"k": None}]), encoding=Encoding(nulls="omit"))
