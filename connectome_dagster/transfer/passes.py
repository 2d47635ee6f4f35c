"""A frame with keys, of which several passes can be made: keys alone first, then rows as they are
asked for.

A frame in memory is read again each time; a stream is kept in a temporary file, in about as many
bytes as its rows are as JSON. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.compare import (
    Digests,
    canonical,
    column_digests,
    content_digests,
    said,
    text_of,
    together,
    value_digests,
)
from connectome_dagster.transfer.keys import DistinctKeys, KeyColumns, KeyedRow
from connectome_dagster.transfer.rows import (
    Batch,
    Frame,
    batches_of,
    count_of,
    encoded,
    is_in_memory,
)
from connectome_dagster.transfer.spool import Spool

Mask = npt.NDArray[np.bool_]

# Of so many rows the keys themselves are held, to be asked for by name.
MAX_HELD_KEYS = 8000


@dataclass(frozen=True)
class Chunk:
    """Some rows, one after the other.

    Attributes:
        first_row: position of the first one.
        digests: of their keys.
        lines: encodes those of a mask as JSON objects.
        keys: encodes the keys of those of a mask, as JSON objects.
        contents: the digests of what those of a mask say in all columns.
        values: the digests of what all of them say in one column.
    """

    first_row: int
    digests: Digests
    lines: Callable[[Mask], list[bytes]]
    keys: Callable[[Mask], list[bytes]]
    contents: Callable[[Mask], Digests]
    values: Callable[[str], Digests]


@dataclass
class Summary:
    """What the first pass has seen.

    Attributes:
        rows: how many there are.
        names: all columns.
        keys: the key values of each row, None if there are too many rows.
        least: the least key, None if there is no order: several columns, or values of two kinds.
        greatest: the greatest.
    """

    rows: int = 0
    names: set[str] = field(default_factory=set)
    keys: list[tuple[Any, ...]] | None = field(default_factory=list)
    least: Any = None
    greatest: Any = None
    ordered: bool = True

    def note(self, columns: Sequence[Sequence[Any]] | None, rows: int) -> None:
        """Take the key values of rows down, as long as they are few."""
        self.rows += rows
        if self.keys is not None and columns is not None and self.rows <= MAX_HELD_KEYS:
            self.keys += zip(*columns, strict=True)
        else:
            self.keys = None

    def widen(self, least: Any, greatest: Any) -> None:
        """Take the bounds of a key of one column down."""
        kinds = {int, float} if type(least) in (int, float) else {str}
        same = self.least is None or type(self.least) in kinds
        if not (self.ordered and same and type(least) in kinds and type(greatest) in kinds):
            self.ordered = False
            return
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def widen_by(self, values: Sequence[Any]) -> None:
        """Take key values of any kind down."""
        for value in values:
            self.widen(value, value)


class Passes:
    """The rows of a frame, to be gone through more than once.

    Args:
        frame: the rows.
        on: the columns that together name one document.
        encoding: the forms of values.
        spool: keeps the rows of a stream.

    Attributes:
        summary: what the first pass has seen.
    """

    def __init__(self, frame: Frame, on: Sequence[str], encoding: Encoding, spool: Spool) -> None:
        self._keys = KeyColumns(on, encoding)
        self.on = self._keys.names
        self.summary = Summary()
        self._encoding = encoding
        self._spool = spool
        # Slices and references: a DataFrame is turned into columns once.
        self._held = list(batches_of(frame)) if is_in_memory(frame) else None
        self._frame = None if self._held is not None else frame

    @cached_property
    def names(self) -> list[str]:
        """All columns in one order; known after the first pass."""
        return sorted({*self.summary.names, *self.on})

    def first(self) -> Iterator[Chunk]:
        """Go through the rows for the first time, looking at every key.

        Raises:
            ConfigurationError: a key column is missing, or a column name is a path.
            EncodeError: a key that is null, NaN, or not a single value.
        """
        for chunk in self._chunks(self._batches(), first=True):
            if self._held is None:
                every = np.ones(len(chunk.digests), dtype=bool)
                raw = chunk.digests.tobytes()
                each = [raw[at : at + 8] for at in range(0, len(raw), 8)]
                self._spool.write(chunk.lines(every), chunk.keys(every), each)
            yield chunk

    def again(self) -> Iterator[Chunk]:
        """Go through the rows once more."""
        if self._held is not None:
            yield from self._chunks(self._held, first=False)
            return
        row = 0
        for lines, keys, raw in self._spool.read():
            digests = np.frombuffer(b"".join(raw), dtype=np.uint64)
            yield Chunk(
                row,
                digests,
                _picked(lines),
                _picked(keys),
                self._contents_of(lines),
                _values_of(lines),
            )
            row += len(lines)

    def check_distinct(self) -> None:
        """Look at every key by value.

        Raises:
            DuplicateKeys: two rows have one key.
        """
        distinct = DistinctKeys(self.on)
        for rows in self._keyed():
            distinct.add(rows)
        if distinct.suspected:
            distinct.check(row for rows in self._keyed() for row in rows)

    def key_of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The filter that finds the document of a row, or that is of one."""
        return {name: document.get(name) for name in self.on}

    def key_text(self, document: Mapping[str, Any]) -> bytes:
        """The key of a row or of a document, in one form."""
        return text_of(canonical({name: document.get(name) for name in self.on}))

    def digests_of(self, documents: Sequence[Mapping[str, Any]]) -> Digests:
        """The digests of the keys of documents."""
        return together([value_digests([each.get(name) for each in documents]) for name in self.on])

    def _batches(self) -> Iterator[Batch]:
        return iter(self._held) if self._held is not None else batches_of(self._frame)

    def _keyed(self) -> Iterator[list[KeyedRow]]:
        for chunk in self.again():
            every = np.ones(len(chunk.digests), dtype=bool)
            documents = msgspec.json.decode(_array(chunk.keys(every)))
            yield [
                KeyedRow(row, self.key_text(document), b"")
                for row, document in enumerate(documents, start=chunk.first_row)
            ]

    def _chunks(self, batches: Iterator[Batch] | list[Batch], *, first: bool) -> Iterator[Chunk]:
        row = 0
        for batch in batches:
            if first:
                self._note_names(batch)
            yield self._quick(batch, row, first) or self._slow(batch, row, first)
            row += count_of(batch)

    def _note_names(self, batch: Batch) -> None:
        if isinstance(batch, pa.RecordBatch):
            self.summary.names.update(batch.schema.names)
        else:
            for document in batch:
                self.summary.names.update(document)

    def _quick(self, batch: Batch, row: int, first: bool) -> Chunk | None:
        """The rows of a batch whose keys are integers or text: nothing is run for each row."""
        if not isinstance(batch, pa.RecordBatch) or not _plain_names(batch.schema.names):
            return None
        places = [batch.schema.get_field_index(name) for name in self.on]
        if min(places) < 0:
            return None
        columns = [batch.column(at) for at in places]
        if any(each.null_count or not _is_quick(each.type) for each in columns):
            return None
        known = [each for each in map(column_digests, columns) if each is not None]
        if first:
            few = self.summary.keys is not None and row + len(batch) <= MAX_HELD_KEYS
            self.summary.note([each.to_pylist() for each in columns] if few else None, len(batch))
            if len(columns) == 1 and len(batch):
                bounds = pc.min_max(columns[0]).as_py()
                self.summary.widen(bounds["min"], bounds["max"])

        def lines(mask: Mask) -> list[bytes]:
            return self._encoded(batch, mask, row)

        def keys(mask: Mask) -> list[bytes]:
            return encode_rows(_masked(batch.select(self.on), mask), row, self._encoding)

        def contents(mask: Mask) -> Digests:
            some = _masked(batch, mask)
            return said([self._said(some, name, row) for name in self.names])

        def values(name: str) -> Digests:
            return self._said(batch, name, row)

        return Chunk(row, together(known), lines, keys, contents, values)

    def _said(self, batch: pa.RecordBatch, name: str, row: int) -> Digests:
        """What a column says; one without a quick way as it is encoded."""
        at = batch.schema.get_field_index(name)
        digests = None if at < 0 else column_digests(batch.column(at))
        if digests is None:
            lines = encode_rows(batch.select([name]), row, self._encoding) if at >= 0 else []
            values = [one.get(name) for one in msgspec.json.decode(_array(lines))]
            digests = value_digests(values or [None] * len(batch))
        return digests

    def _contents_of(self, lines: Sequence[bytes]) -> Callable[[Mask], Digests]:
        picked = _picked(lines)
        return lambda mask: content_digests(plain_documents(b",".join(picked(mask))), self.names)

    def _encoded(self, batch: pa.RecordBatch, mask: Mask, row: int) -> list[bytes]:
        if mask.all():
            return encoded(batch, row, self._encoding)
        try:
            return encode_rows(_masked(batch, mask), row, self._encoding)
        except EncodeError:
            pass
        return _picked(encoded(batch, row, self._encoding))(mask)  # which names the right row

    def _slow(self, batch: Batch, row: int, first: bool) -> Chunk:
        keyed = self._keys.rows(batch, row)
        keys: list[dict[str, Any]] = msgspec.json.decode(_array([each.key for each in keyed]))
        columns = [[each[name] for each in keys] for name in self.on]
        if first:
            self.summary.note(columns, len(keyed))
            if len(columns) == 1:
                self.summary.widen_by(columns[0])
        digests = together([value_digests(column) for column in columns])
        lines = [each.data for each in keyed]
        return Chunk(
            row,
            digests,
            _picked(lines),
            _picked([each.key for each in keyed]),
            self._contents_of(lines),
            _values_of(lines),
        )


def _is_quick(kind: pa.DataType) -> bool:
    """Keys of this type are compared, and encoded, without a look at each of them."""
    whole = pa.types.is_integer(kind) and kind != pa.uint64()
    return bool(whole or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _masked(batch: pa.RecordBatch, mask: Mask) -> pa.RecordBatch:
    return batch if mask.all() else batch.filter(pa.array(mask))


def _picked(lines: Sequence[bytes]) -> Callable[[Mask], list[bytes]]:
    return lambda mask: [lines[at] for at in np.flatnonzero(mask).tolist()]


def _values_of(lines: Sequence[bytes]) -> Callable[[str], Digests]:
    return lambda name: value_digests(
        [one.get(name) for one in plain_documents(b",".join(lines))] if lines else []
    )


def _array(lines: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(lines) + b"]"


def _plain_names(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names) and all(
        name and "." not in name and name[0] != "$" for name in names
    )
