"""Arrow tables to DataFrames and back, so that no integer becomes a float and no null a word.

The only module that imports pandas; imported when a DataFrame is asked for or handed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.objects import Lists, Objects, is_nested, lists_of, objects_of
from connectome_dagster.frames.schema import check_names, conform

_NULLABLE_WHOLES = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}
_NULLABLE = {
    **_NULLABLE_WHOLES,
    pa.float32(): pd.Float32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.string(): pd.StringDtype(),
}


# Values of nested columns are made for so many rows at a time: a batch of a read has fewer, and
# what is made of a larger table must not keep the collector of garbage waiting (see `objects`).
ROWS_AT_A_TIME = 16 * 1024

Backend = Literal["pyarrow", "numpy_nullable"] | None


def to_pandas(table: pa.Table, dtype_backend: Backend = None) -> pd.DataFrame:
    """Make a DataFrame of a table.

    Args:
        table: its column names must differ.
        dtype_backend: None gives NumPy's types, but `Int64` and `boolean` (and their like) for
            integers and booleans with nulls; `"numpy_nullable"` gives pandas' nullable types for
            all; `"pyarrow"` Arrow's own. Objects are dicts of Python's values, in which integers
            and nulls stay what they are. Lists are NumPy arrays, but Python's lists in a column
            where integers and nulls stand together in a list; with `"pyarrow"` both stay Arrow's.

    Raises:
        ValueError: another `dtype_backend`.
        SchemaConflict: two columns of one name.

    Example:
        >>> to_pandas(pa.table({"n": [1, None]})).dtypes["n"]
        Int64Dtype()
    """
    check_names(table.column_names)
    parts = FrameParts(dtype_backend)
    return parts.write(table.to_batches(ROWS_AT_A_TIME)).frame(table.schema)


class FrameParts:
    """Makes a DataFrame of batches that are still being read.

    What takes Python long, objects and lists, is made of each batch when it comes; all else at the
    end, when the types of the whole are known. The frame is that of `to_pandas`, however the rows
    are divided into batches.

    Args:
        dtype_backend: as for `to_pandas`.

    Raises:
        ValueError: another `dtype_backend`.
    """

    def __init__(self, dtype_backend: Backend) -> None:
        if dtype_backend not in (None, "pyarrow", "numpy_nullable"):
            raise ValueError(
                f"dtype_backend is {dtype_backend!r}: give 'pyarrow', 'numpy_nullable' or None"
            )
        self._backend = dtype_backend
        self._batches: list[pa.RecordBatch] = []
        self._nested: dict[str, _Nested] = {}

    def write(self, batches: Iterable[pa.RecordBatch]) -> FrameParts:
        """Take all batches; returns itself."""
        for batch in batches:
            if self._backend != "pyarrow":
                for field, column in zip(batch.schema, batch.columns, strict=True):
                    if is_nested(field.type):
                        nested = self._nested.setdefault(field.name, _Nested())
                        nested.add(len(self._batches), column)
            self._batches.append(batch)
        return self

    def frame(self, schema: pa.Schema) -> pd.DataFrame:
        """Make the frame.

        Args:
            schema: holds that of each batch.

        Raises:
            Unmergeable: as `conform`.
        """
        batches = [conform(batch, schema) for batch in self._batches]
        table = pa.Table.from_batches(batches, schema)
        apart: dict[str, Any] = {}
        for at, field in enumerate(schema):
            column = table.column(at)
            if is_nested(field.type):
                apart[field.name] = self._nested_column(field.name, column)
            elif self._wants_nullable(column):
                apart[field.name] = column.to_pandas(types_mapper=_NULLABLE.get)
        at_once = [at for at, name in enumerate(schema.names) if name not in apart]
        mapper = pd.ArrowDtype if self._backend == "pyarrow" else None
        frame: pd.DataFrame = table.select(at_once).to_pandas(types_mapper=mapper)
        if apart:
            frame = pd.concat([frame, pd.DataFrame(apart, copy=False)], axis=1)[schema.names]
        return frame

    def _nested_column(self, name: str, column: pa.ChunkedArray) -> pd.Series[Any]:
        series: pd.Series[Any]
        if self._backend == "pyarrow":
            # Not by way of its type: pandas 2 would cast it to the type that it has, and of lists
            # that hold nothing but nulls pyarrow 26 loses some in that.
            series = pd.Series(pd.arrays.ArrowExtensionArray(column))
        else:
            objects = self._nested.get(name, _Nested()).objects(column.chunks)
            series = pd.Series(objects, dtype=object, copy=False)
        return series

    def _wants_nullable(self, column: pa.ChunkedArray) -> bool:
        if self._backend is not None:
            return self._backend == "numpy_nullable" and column.type in _NULLABLE
        return column.type in _NULLABLE_WHOLES and column.null_count > 0


class _Made(NamedTuple):
    type: pa.DataType
    lists: Lists
    objects: Objects


class _Nested:
    """One column of objects or lists, made batch by batch.

    What was made while the column seemed to be of another type, or seemed to have no nulls in its
    lists, is made again at the end.
    """

    def __init__(self) -> None:
        self._lists = Lists.ARRAYS
        self._made: dict[int, _Made] = {}  # by the number of the batch

    def add(self, batch: int, array: pa.Array) -> None:
        self._lists = max(self._lists, lists_of(array))
        self._made[batch] = self._make(array)

    def objects(self, arrays: list[pa.Array]) -> Objects:
        """Give the values of all batches, whose columns these are, of the type of the whole."""
        known = [self._known(batch, array.type) for batch, array in enumerate(arrays)]
        for made, array in zip(known, arrays, strict=True):
            if made is None:
                self._lists = max(self._lists, lists_of(array))
        parts = [
            made.objects if made and made.lists == self._lists else self._make(array).objects
            for made, array in zip(known, arrays, strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=object)

    def _known(self, batch: int, type_: pa.DataType) -> _Made | None:
        made = self._made.get(batch)
        return made if made is not None and made.type.equals(type_) else None

    def _make(self, array: pa.Array) -> _Made:
        return _Made(array.type, self._lists, objects_of(array, self._lists))


def from_pandas(frame: pd.DataFrame) -> pa.Table:
    """Make a table of a DataFrame; NaN and NaT become null.

    Named levels of the index become columns, since they were made to mean something (a `groupby`
    leaves the keys there); an index without a name is not kept.

    Raises:
        EncodeError: a column that Arrow cannot hold, such as one of mixed types.
        SchemaConflict: two columns of one name.
    """
    named = [name for name in frame.index.names if name is not None]
    check_names(map(str, named))
    if named:
        taken = [name for name in named if name in frame.columns]
        if taken:
            raise EncodeError(
                f"the index and a column are both called {taken[0]!r}; rename one of them",
                column=str(taken[0]),
            )
        unnamed = [at for at, name in enumerate(frame.index.names) if name is None]
        frame = frame.reset_index(level=unnamed, drop=True) if unnamed else frame
        frame = frame.reset_index()
    for name in frame.columns:
        if not isinstance(name, str):
            raise EncodeError(
                f"column {name!r} is named by a {type(name).__name__}; the fields of a document "
                "have text for names, so rename it",
                column=str(name),
            )
    check_names(frame.columns)
    return (
        pa.table({name: _array(frame[name]) for name in frame.columns})
        if len(frame.columns)
        else pa.Table.from_pandas(frame, preserve_index=False)
    )


def _swallowed(column: pd.Series[Any], type_: pa.DataType) -> type | None:
    """What pyarrow takes without a word and shouldn't: the time of a datetime, text for bytes."""
    foreign = datetime if pa.types.is_date(type_) else str if pa.types.is_binary(type_) else None
    if foreign is None or column.dtype != object:
        return None
    return foreign if any(isinstance(value, foreign) for value in column) else None


def _array(column: pd.Series[Any]) -> Any:
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        reason = str(error)
    else:
        swallowed = _swallowed(column, array.type)
        if swallowed is None:
            return array
        reason = f"{swallowed.__name__} among {array.type}"
    raise EncodeError(
        f"column {column.name!r} (pandas {column.dtype}) has values that do not go together: "
        f"{reason[:200]}; make them one type, or text",
        column=str(column.name),
    )
