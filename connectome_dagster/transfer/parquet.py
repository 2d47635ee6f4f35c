"""A Parquet file that is written while its schema may still grow.

Batches go to a part of the file as long as they fit; a batch that shows more begins a new part.
At the end the parts become one file of the schema that holds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_dagster.errors import ConfigurationError, EncodeError
from connectome_dagster.frames.schema import (
    ITEM,
    Path,
    Unmergeable,
    conform,
    kind_of,
    merge_schemas,
)

# Batches are gathered into row groups of this size, in bytes of Arrow: readers of the file want few
# and large ones, and they are the largest part of what writing holds in memory, for one is gathered
# while the one before is written.
GROUP_BYTES = 4 << 20

# So many values of a column tell whether they repeat; counting them takes less than a millisecond.
SAMPLE_VALUES = 4096


# A file that nests deeper is written without a word, and pyarrow 26 refuses to read it. The
# document counts, an object counts once and a list twice.
MAX_DEPTH = 100


class _Part(NamedTuple):
    path: FilePath
    schema: pa.Schema


class ParquetParts:
    """Writes batches into a folder and merges them into one file.

    Args:
        folder: an empty folder of its own.
        options: for `pyarrow.parquet.ParquetWriter`. Unless they say what has a dictionary, the
            columns have one whose values repeat: others would only be written slower and larger.
        group_bytes: the size of a row group, in bytes of Arrow.

    Raises:
        ConfigurationError: options that `ParquetWriter` does not take.
    """

    def __init__(
        self, folder: FilePath, options: dict[str, Any], group_bytes: int = GROUP_BYTES
    ) -> None:
        _check(options)
        self._folder = folder
        self._options = options
        self._group_bytes = group_bytes
        self._parts: list[_Part] = []

    def write(self, batches: Iterable[pa.RecordBatch]) -> ParquetParts:
        """Write all batches, and none of those that were written before; returns itself."""
        self._parts.clear()
        schema = pa.schema([])
        file: _File | None = None
        group = _Group(self._group_bytes)
        try:
            for batch in batches:
                merged = merge_schemas(schema, batch.schema)
                if not merged.equals(schema):
                    if not group.conform(merged):
                        file = self._write(group, file, schema)
                    if file is not None:
                        file.close()
                        file = None
                    schema = merged
                group.add(conform(batch, schema))
                if group.full:
                    file = self._write(group, file, schema)
            if group.batches:
                file = self._write(group, file, schema)
        finally:
            if file is not None:
                file.close()
        return self

    def _write(self, group: _Group, file: _File | None, schema: pa.Schema) -> _File:
        if file is None:
            part = _Part(self._folder / f"{len(self._parts)}.parquet", schema)
            self._parts.append(part)
            file = _File(part.path, _filled(schema), self._options)
        file.write(group.take())
        return file

    def merge(self, schema: pa.Schema) -> FilePath:
        """Make one file of the parts and return its path.

        Objects without any field become their text, `{}`: Parquet has no such type.

        Raises:
            EncodeError: documents without any field; Parquet keeps no rows without columns.
            Unmergeable: as `conform`; or there are fields that nest too deep for Parquet.
        """
        deep = {path: kinds for field in schema for path, kinds in _too_deep(field, (), 2)}
        if deep:
            raise Unmergeable(deep)
        if self._parts and not schema.names:
            raise EncodeError(
                "the documents have no fields, and Parquet keeps no rows without columns; "
                "read them with to_arrow, or ask for more fields with project"
            )
        said = _said(schema)
        if len(self._parts) == 1 and said.equals(self._parts[0].schema):
            return self._parts[0].path
        path = self._folder / "merged.parquet"
        file = _File(path, said, self._options)
        try:
            for group in self._groups():
                file.write([conform(batch, said) for batch in group])
        finally:
            file.close()
        return path

    def _groups(self) -> Iterator[list[pa.RecordBatch]]:
        """Read the parts again, a row group at a time."""
        for part in self._parts:
            type_ = pa.struct(list(part.schema))
            with pq.ParquetFile(part.path) as file:
                for at in range(file.num_row_groups):
                    rows = (batch.to_struct_array() for batch in file.iter_batches(row_groups=[at]))
                    yield [pa.RecordBatch.from_struct_array(_emptied(each, type_)) for each in rows]


def _check(options: dict[str, Any]) -> None:
    """Refuse what no file is written with, while nothing has been read."""
    options = {name: value for name, value in options.items() if name != "metadata_collector"}
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([]), **options).close()
    except (TypeError, ValueError, pa.ArrowException) as error:
        reason = str(error)
    else:
        return
    raise ConfigurationError(
        f"pyarrow.parquet.ParquetWriter refuses these options: {reason}. Nothing was sent"
    )


class _Group:
    """Batches that become one row group."""

    def __init__(self, size: int) -> None:
        self.batches: list[pa.RecordBatch] = []
        self._size = size
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes >= self._size

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self._bytes += batch.nbytes

    def take(self) -> list[pa.RecordBatch]:
        """Give the batches away."""
        taken, self.batches, self._bytes = self.batches, [], 0
        return taken

    def conform(self, schema: pa.Schema) -> bool:
        """Give the batches another schema, if all their values survive that."""
        try:
            batches = [conform(batch, schema) for batch in self.batches]
        except Unmergeable:
            return False
        self.take()
        for batch in batches:
            self.add(batch)
        return True


class _File:
    """A file whose row groups are written by another thread while the next are gathered."""

    def __init__(self, path: FilePath, schema: pa.Schema, options: dict[str, Any]) -> None:
        self._path = path
        self._schema = schema
        self._options = options
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1, "connectome-parquet")
        self._pending: Future[None] | None = None

    def write(self, batches: list[pa.RecordBatch]) -> None:
        """Write a row group, after the one before has been written."""
        self._wait()
        self._pending = self._thread.submit(self._write, batches)

    def close(self) -> None:
        """End the file when all is written; without rows it still has its schema."""
        try:
            self._wait()
            if self._writer is None:
                self._writer = self._opened([])
        finally:
            self._thread.shutdown()
            if self._writer is not None:
                self._writer.close()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, batches: list[pa.RecordBatch]) -> None:
        fitting = [conform(batch, self._schema) for batch in batches]
        table = pa.Table.from_batches(fitting, self._schema)
        if self._writer is None:
            self._writer = self._opened(_repeating(table))
        self._writer.write_table(table)

    def _opened(self, dictionaries: list[str]) -> pq.ParquetWriter:
        options = {"use_dictionary": dictionaries, **self._options}
        return pq.ParquetWriter(self._path, self._schema, **options)


def _repeating(table: pa.Table) -> list[str]:
    """The columns of the file whose values repeat, by the paths that Parquet has for them."""
    sample = table.slice(0, SAMPLE_VALUES).combine_chunks().to_batches()
    return [
        path
        for batch in sample
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        for path, values in _leaves(column, name)
        if _repeat(values)
    ]


def _leaves(array: pa.Array, path: str) -> Iterator[tuple[str, pa.Array]]:
    is_, type_ = pa.types, array.type
    if is_.is_struct(type_):
        for at, field in enumerate(type_):
            yield from _leaves(array.field(at), f"{path}.{field.name}")
    elif is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_):
        yield from _leaves(array.flatten(), f"{path}.list.element")
    else:
        yield path, array


def _repeat(values: pa.Array) -> bool:
    sample = values.slice(0, SAMPLE_VALUES).drop_null()
    try:
        distinct = pc.count_distinct(sample).as_py()
    except pa.ArrowNotImplementedError:
        return True  # such as categories, which are a dictionary already
    return bool(2 * distinct <= len(sample))


def _too_deep(field: pa.Field, within: Path, depth: int) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Fields that have no place for what is in them, and its kind; `depth` is that of the field."""
    path = (*within, field.name)
    below: list[pa.Field] = []
    if pa.types.is_struct(field.type):
        depth += 1
        below = list(field.type)
    elif pa.types.is_list(field.type):
        depth += 2
        below = [field.type.value_field.with_name(ITEM)]
    if depth > MAX_DEPTH:
        yield path, (kind_of(field.type),)
        return
    for each in below:
        yield from _too_deep(each, path, depth)


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
