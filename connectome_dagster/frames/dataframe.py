"""Arrow tables to DataFrames and back, so that no integer becomes a float and no null a word.

The only module that imports pandas; imported when a DataFrame is asked for or handed in.
"""

from __future__ import annotations

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
            all; `"pyarrow"` Arrow's own.

    Raises:
        ValueError: another `dtype_backend`.

    Example:
        >>> to_pandas(pa.table({"n": [1, None]})).dtypes["n"]
        Int64Dtype()
    """
    frame: pd.DataFrame
    if dtype_backend == "pyarrow":
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return frame
    if dtype_backend == "numpy_nullable":
        frame = table.to_pandas(types_mapper=_NUMPY_NULLABLE.get)
        return frame
    if dtype_backend is not None:
        raise ValueError(
            f"dtype_backend is {dtype_backend!r}: give 'pyarrow', 'numpy_nullable' or None"
        )
    nullable = [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if column.null_count and column.type in _NULLABLE
    ]
    frame = table.drop_columns(nullable).to_pandas()
    if nullable:
        others = table.select(nullable).to_pandas(types_mapper=_NULLABLE.get)
        frame = pd.concat([frame, others], axis=1)[table.column_names]
    return frame


def from_pandas(frame: pd.DataFrame) -> pa.Table:
    """Make a table of a DataFrame; NaN and NaT become null.

    Named levels of the index become columns, since they were made to mean something (a `groupby`
    leaves the keys there); an index without a name is not kept.

    Raises:
        EncodeError: a column that Arrow cannot hold, such as one of mixed types.
        SchemaConflict: two columns of one name.
    """
    named = [name for name in frame.index.names if name is not None]
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


def _array(column: pd.Series[Any]) -> Any:
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        reason = str(error)
    raise EncodeError(
        f"column {column.name!r} (pandas {column.dtype}) has values that do not go together: "
        f"{reason[:200]}; make them one type, or text",
        column=str(column.name),
    )
