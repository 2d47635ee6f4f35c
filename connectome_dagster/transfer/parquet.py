"""A Parquet file that is written while its schema may still grow.

Batches go to a part of the file as long as they fit; a batch that shows more begins a new part.
At the end the parts become one file of the schema that holds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.schema import conform, merge_schemas

# Rows that are in memory at a time while parts are merged; pyarrow reads and writes groups well
# at this size.
MERGE_ROWS = 64 * 1024


# Batches are gathered into row groups of this size, in bytes of Arrow: readers of the file want few
# and large ones, and what is gathered is the largest part of what writing holds in memory.
GROUP_BYTES = 4 << 20


class _Part(NamedTuple):
    path: Path
    schema: pa.Schema


class ParquetParts:
    """Writes batches into a folder and merges them into one file.

    Args:
        folder: an empty folder of its own.
        options: for `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self._folder = folder
        self._options = options
        self._parts: list[_Part] = []

    def write(self, batches: Iterable[pa.RecordBatch]) -> ParquetParts:
        """Write all batches; returns itself."""
        schema = pa.schema([])
        writer: pq.ParquetWriter | None = None
        group: list[pa.RecordBatch] = []
        try:
            for batch in batches:
                merged = merge_schemas(schema, batch.schema)
                if writer is None or not merged.equals(schema):
                    if writer is not None:
                        _write_group(writer, group)
                        writer.close()
                    schema = merged
                    writer = self._begin(schema)
                group.append(conform(batch, _filled(schema)))
                if sum(each.nbytes for each in group) >= GROUP_BYTES:
                    _write_group(writer, group)
            if writer is not None:
                _write_group(writer, group)
        finally:
            if writer is not None:
                writer.close()
        return self

    def merge(self, schema: pa.Schema) -> Path:
        """Make one file of the parts and return its path.

        Objects without any field become their text, `{}`: Parquet has no such type.

        Raises:
            EncodeError: documents without any field; Parquet keeps no rows without columns.
        """
        if self._parts and not schema.names:
            raise EncodeError(
                "the documents have no fields, and Parquet keeps no rows without columns; "
                "read them with to_arrow, or ask for more fields with project"
            )
        said = _said(schema)
        if len(self._parts) == 1 and said.equals(schema):
            return self._parts[0].path
        path = self._folder / "merged.parquet"
        with pq.ParquetWriter(path, said, **self._options) as writer:
            for batch in self._batches():
                writer.write_batch(conform(batch, said))
        return path

    def _begin(self, schema: pa.Schema) -> pq.ParquetWriter:
        part = _Part(self._folder / f"{len(self._parts)}.parquet", schema)
        self._parts.append(part)
        return pq.ParquetWriter(part.path, _filled(schema), **self._options)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for part in self._parts:
            with pq.ParquetFile(part.path) as file:
                for batch in file.iter_batches(MERGE_ROWS):
                    rows = batch.to_struct_array()
                    yield pa.RecordBatch.from_struct_array(
                        _emptied(rows, pa.struct(list(part.schema)))
                    )


def _write_group(writer: pq.ParquetWriter, group: list[pa.RecordBatch]) -> None:
    if group:
        writer.write_table(pa.Table.from_batches(group))
        group.clear()


def _filled(schema: pa.Schema) -> pa.Schema:
    """With a child in every struct, the document itself too, so that Parquet can hold it."""
    child = pa.struct([pa.field("", pa.null())])
    return pa.schema(list(_replace(pa.struct(list(schema)), child)))


def _emptied(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Take the children out again that `_filled` put in."""
    if array.type.equals(type_):
        return array
    missing = array.is_null() if array.null_count else None
    if pa.types.is_list(type_):
        # A slice keeps the offsets of the whole.
        first = array.offsets[0]
        items = array.values.slice(first.as_py(), array.offsets[len(array)].as_py() - first.as_py())
        offsets = pc.subtract(array.offsets, first)
        return pa.ListArray.from_arrays(
            offsets, _emptied(items, type_.value_type), type=type_, mask=missing
        )
    if type_.num_fields:
        children = [_emptied(array.field(at), field.type) for at, field in enumerate(type_)]
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=missing)
    return pa.Array.from_buffers(type_, len(array), [array.is_valid().buffers()[1]])


def _said(schema: pa.Schema) -> pa.Schema:
    """With text in place of structs without children."""
    return pa.schema([field.with_type(_replace(field.type, pa.string())) for field in schema])


def _replace(type_: pa.DataType, empty: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):
        return pa.list_(_replace(type_.value_type, empty))
    if not pa.types.is_struct(type_):
        return type_
    if not type_.num_fields:
        return empty
    # `pa.field` would end a name at a NUL.
    return pa.struct([field.with_type(_replace(field.type, empty)) for field in type_])
