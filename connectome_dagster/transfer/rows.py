"""Whatever holds rows, as batches: the one place that knows the kinds of frames.

A frame is a pandas DataFrame, a pyarrow Table, RecordBatch or RecordBatchReader, anything that
speaks `__arrow_c_stream__`, or an iterable of those or of documents (dicts).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import pyarrow as pa

from connectome_dagster.errors import ConfigurationError, EncodeError
from connectome_dagster.frames.encode import encode_document, encode_rows
from connectome_dagster.transfer.marks import BOOKKEEPING

Frame: TypeAlias = Any  # see above; pandas and others cannot be named without importing them
Batch: TypeAlias = "pa.RecordBatch | list[Mapping[str, Any]]"

# Rows that are encoded at a time; a batch of a request is cut from them.
ENCODE_ROWS = 4096


def is_rereadable(frame: Frame) -> bool:
    """Whether `batches_of` can be called twice: the frame is no stream that is used up."""
    return not isinstance(frame, (pa.RecordBatchReader, Iterator))


def batches_of(frame: Frame) -> Iterator[Batch]:
    """Give the rows of a frame as record batches, or as lists of documents where they are dicts.

    Raises:
        ConfigurationError: it is not a frame.
        EncodeError: a DataFrame whose columns Arrow cannot hold.
    """
    if _is_dataframe(frame):
        from connectome_dagster.frames.dataframe import from_pandas  # pandas is there already

        frame = from_pandas(frame)
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        return iter(frame.to_batches(max_chunksize=ENCODE_ROWS))
    if isinstance(frame, (Mapping, str, bytes)):
        raise ConfigurationError(
            f"a {type(frame).__name__} is not a frame; for a single document use insert(document)"
        )
    if isinstance(frame, pa.RecordBatchReader):
        return _sliced(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        return _sliced(pa.RecordBatchReader.from_stream(frame))
    if isinstance(frame, Iterable):
        return _of_items(frame)
    raise ConfigurationError(
        f"a {type(frame).__name__} is not a frame: give a pandas DataFrame, a pyarrow Table or "
        "RecordBatchReader, an object with __arrow_c_stream__, or an iterable of dicts"
    )


def _is_dataframe(frame: Frame) -> bool:
    # Whoever has a DataFrame has imported pandas.
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(frame, pandas.DataFrame)


def _sliced(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for at in range(0, batch.num_rows, ENCODE_ROWS):
            yield batch.slice(at, ENCODE_ROWS)


def _of_items(items: Iterable[Any]) -> Iterator[Batch]:
    documents: list[Mapping[str, Any]] = []
    for item in items:
        if isinstance(item, Mapping):
            documents.append(item)
            if len(documents) == ENCODE_ROWS:
                yield documents
                documents = []
            continue
        if documents:
            yield documents
            documents = []
        if isinstance(item, Iterable) and not _is_columnar(item):
            raise ConfigurationError(
                f"an item of the iterable is a {type(item).__name__}, neither a dict nor a frame"
            )
        yield from batches_of(item)
    if documents:
        yield documents


def _is_columnar(item: Any) -> bool:
    return (
        _is_dataframe(item)
        or hasattr(item, "__arrow_c_stream__")
        or isinstance(item, pa.RecordBatch)
    )


def encoded(batch: Batch, first_row: int) -> list[bytes]:
    """Encode each row of a batch as one JSON object.

    Raises:
        EncodeError: a value that JSON cannot say, or the field that is kept for bookkeeping.
    """
    if isinstance(batch, pa.RecordBatch):
        if BOOKKEEPING in batch.schema.names:
            raise _reserved(first_row)
        return encode_rows(batch, first_row)
    lines = []
    for row, document in enumerate(batch, start=first_row):
        if BOOKKEEPING in document:
            raise _reserved(row)
        lines.append(encode_document(document, row))
    return lines


def _reserved(row: int) -> EncodeError:
    return EncodeError(
        f"row {row}: the field {BOOKKEEPING!r} is kept for this package's own notes, and readers "
        "hide it; rename it",
        column=BOOKKEEPING,
        row=row,
    )


def count_of(batch: Batch) -> int:
    """Rows of a batch."""
    return batch.num_rows if isinstance(batch, pa.RecordBatch) else len(batch)
