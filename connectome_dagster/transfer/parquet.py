"""A Parquet file that is written while its schema may still grow.

Batches go to a part of the file as long as they fit; a batch that shows more begins a new part.
At the end the parts become one file of the schema that holds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.schema import conform, merge_schemas

# Rows that are in memory at a time while parts are merged; pyarrow reads and writes groups well
# at this size.
MERGE_ROWS = 64 * 1024


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
        try:
            for batch in batches:
                merged = merge_schemas(schema, batch.schema)
                if writer is None or not merged.equals(schema):
                    if writer is not None:
                        writer.close()
                    schema = merged
                    writer = self._begin(schema)
                writer.write_batch(conform(batch, _filled(schema)))
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
                    yield conform(batch, part.schema)


def _filled(schema: pa.Schema) -> pa.Schema:
    """With a child in every struct, so that Parquet can hold it until more is known."""
    child = pa.struct([pa.field("", pa.null())])
    return pa.schema([(field.name, _replace(field.type, child)) for field in schema])


def _said(schema: pa.Schema) -> pa.Schema:
    """With text in place of structs without children."""
    return pa.schema([(field.name, _replace(field.type, pa.string())) for field in schema])


def _replace(type_: pa.DataType, empty: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):
        return pa.list_(_replace(type_.value_type, empty))
    if not pa.types.is_struct(type_):
        return type_
    if not type_.num_fields:
        return empty
    return pa.struct([(field.name, _replace(field.type, empty)) for field in type_])
