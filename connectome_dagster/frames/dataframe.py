"""Arrow tables to DataFrames and back, so that no integer becomes a float and no null a word.

The only module that imports pandas; imported when a DataFrame is asked for or handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.schema import check_names

_NULLABLE = {
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
_NUMPY_NULLABLE = {
    **_NULLABLE,
    pa.float32(): pd.Float32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.string(): pd.StringDtype(),
}


def to_pandas(
    table: pa.Table, dtype_backend: Literal["pyarrow", "numpy_nullable"] | None = None
) -> pd.DataFrame:
    """Make a DataFrame of a table.

    Args:
        table: its column names must differ.
        dtype_backend: None gives NumPy's types, but `Int64` and `boolean` (and their like) for
            integers and booleans with nulls; `"numpy_nullable"` gives pandas' nullable types for
            all; `"pyarrow"` Arrow's own. Lists are NumPy arrays, but Python's lists in a column
            where integers and nulls stand together in a list; with `"pyarrow"` they stay Arrow's.

    Raises:
        ValueError: another `dtype_backend`.
        SchemaConflict: two columns of one name.

    Example:
        >>> to_pandas(pa.table({"n": [1, None]})).dtypes["n"]
        Int64Dtype()
    """
    check_names(table.column_names)
    frame: pd.DataFrame
    if dtype_backend == "pyarrow":
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return frame
    if dtype_backend == "numpy_nullable":
        return _to_numpy(table, _NUMPY_NULLABLE, lambda _: True)
    if dtype_backend is None:
        return _to_numpy(table, _NULLABLE, lambda column: bool(column.null_count))
    raise ValueError(
        f"dtype_backend is {dtype_backend!r}: give 'pyarrow', 'numpy_nullable' or None"
    )


def _to_numpy(
    table: pa.Table,
    nullable: dict[pa.DataType, Any],
    wants_nullable: Callable[[pa.ChunkedArray], bool],
) -> pd.DataFrame:
    """Convert at once what can be; the other columns one by one, each by its own rule."""
    apart: dict[str, pd.Series[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type in nullable and wants_nullable(column):
            apart[name] = column.to_pandas(types_mapper=nullable.get)
        elif _has_wholes_beside_nulls(column):
            apart[name] = pd.Series(column.to_pylist(), dtype=object)
    at_once = [at for at, name in enumerate(table.column_names) if name not in apart]
    frame: pd.DataFrame = table.select(at_once).to_pandas()
    if apart:
        frame = pd.concat([frame, pd.DataFrame(apart)], axis=1)[table.column_names]
    return frame


def _has_wholes_beside_nulls(column: pa.ChunkedArray) -> bool:
    """Whether lists in here hold integers and nulls, of which pyarrow makes NumPy floats."""
    if not pa.types.is_nested(column.type):
        return False
    return any(_loses_wholes(chunk, in_list=False) for chunk in column.chunks)


def _loses_wholes(array: pa.Array, in_list: bool) -> bool:
    is_ = pa.types
    if is_.is_struct(array.type):
        return any(_loses_wholes(child, in_list) for child in array.flatten())
    if is_.is_list(array.type) or is_.is_large_list(array.type):
        return _loses_wholes(array.flatten(), in_list=True)
    if is_.is_fixed_size_list(array.type):
        return _loses_wholes(array.flatten(), in_list=True)
    return in_list and is_.is_integer(array.type) and array.null_count > 0


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
