"""Whatever holds rows, as batches: the one place that knows the kinds of frames.

A frame is a pandas DataFrame, a pyarrow Table, RecordBatch or RecordBatchReader, anything that
speaks `__arrow_c_stream__`, or an iterable of those or of documents (dicts).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import pyarrow as pa

from connectome_dagster.errors import ConfigurationError, EncodeError
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encode_document import encode_document
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer.marks import BOOKKEEPING
from connectome_dagster.transfer.read import Documents

Frame: TypeAlias = Any  # see above; pandas and others cannot be named without importing them
Batch: TypeAlias = "pa.RecordBatch | list[Mapping[str, Any]]"

# Rows that are encoded at a time, where they are so few bytes: enough that a call of the encoder
# costs nothing beside its work. A batch of a request is cut from them.
ENCODE_ROWS = 4096

# Bytes of rows that are encoded at a time: several batches of the default size, and small beside
# what holds a frame.
ENCODE_BYTES = 8 << 20

# Documents of an iterable that are held at a time. Their size is not known, and encoding them one
# by one costs no more.
HELD_DOCUMENTS = 64


def is_in_memory(frame: Frame) -> bool:
    """Whether all rows are there, so that `batches_of` can be called twice.

    What has no length is taken for a stream, which is used up by the first reading.
    """
    if isinstance(frame, (pa.RecordBatch, pa.Table)) or _is_dataframe(frame):
        return True
    if hasattr(frame, "__arrow_c_stream__"):
        return isinstance(frame, Sized)
    if isinstance(frame, Sequence):
        return all(isinstance(item, Mapping) or is_in_memory(item) for item in frame)
    return False


def batches_of(frame: Frame) -> Iterator[Batch]:
    """Give the rows of a frame as record batches, or as lists of documents where they are dicts.

    Raises:
        ConfigurationError: it is not a frame.
        EncodeError: a DataFrame whose columns Arrow cannot hold, or rows without columns.
    """
    if _is_dataframe(frame):
        frame = _table_of(frame)
    if isinstance(frame, pa.RecordBatch):
        return _sliced([frame])
    if isinstance(frame, pa.Table):
        return _sliced(frame.to_batches())
    if isinstance(frame, (Mapping, str, bytes)):
        raise ConfigurationError(
            f"a {type(frame).__name__} is not a frame; for a single document use insert(document)"
        )
    if isinstance(frame, pa.RecordBatchReader):
        return _sliced(frame)
    if isinstance(frame, Documents):
        return _sliced(frame)  # directly, so that an error of the read stays what it is
    if hasattr(frame, "__arrow_c_stream__"):
        return _sliced(_stream_of(frame))
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


def _table_of(frame: Any) -> pa.Table:
    from connectome_dagster.frames.dataframe import from_pandas  # pandas is there already

    table = from_pandas(frame)
    if table.num_rows != len(frame):
        raise EncodeError(
            f"the DataFrame has {len(frame)} rows and no columns, so that there is nothing to "
            "write; give it columns, or a name to its index"
        )
    return table


def _stream_of(frame: Any) -> pa.RecordBatchReader:
    try:
        return pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        reason = str(error)
    raise ConfigurationError(
        f"a {type(frame).__name__} is not a frame, since its Arrow stream is no table ({reason}); "
        "give it columns"
    )


def _sliced(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = max(1, min(ENCODE_ROWS, ENCODE_BYTES * batch.num_rows // max(1, batch.nbytes)))
        for at in range(0, batch.num_rows, rows):
            yield batch.slice(at, rows)


def _of_items(items: Iterable[Any]) -> Iterator[Batch]:
    documents: list[Mapping[str, Any]] = []
    for item in items:
        if isinstance(item, Mapping):
            documents.append(item)
            if len(documents) == HELD_DOCUMENTS:
                yield documents
                documents = []
            continue
        if documents:
            yield documents
            documents = []
        if not _is_columnar(item):
            raise ConfigurationError(
                f"an item of the {type(items).__name__} is a {type(item).__name__}, neither a dict "
                "nor a frame"
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


def encoded(batch: Batch, first_row: int, encoding: Encoding = DEFAULT_ENCODING) -> list[bytes]:
    """Encode each row of a batch as one JSON object.

    Args:
        batch: its rows.
        first_row: position of the first one in what was handed in, for errors.
        encoding: the forms of nulls, timestamps, decimals and binary.

    Raises:
        EncodeError: a value that JSON cannot say, or the field that is kept for bookkeeping.
    """
    if isinstance(batch, pa.RecordBatch):
        if BOOKKEEPING in batch.schema.names:
            raise _reserved(first_row)
        return encode_rows(batch, first_row, encoding)
    lines = []
    for row, document in enumerate(batch, start=first_row):
        if BOOKKEEPING in document:
            raise _reserved(row)
        lines.append(encode_document(document, row, encoding))
    return lines


def _reserved(row: int) -> EncodeError:
    return EncodeError(
        f"row {row}: the field {BOOKKEEPING!r} is kept for this package's own notes, and readers "
        "hide it; rename it",
        column=BOOKKEEPING,
        row=row,
    )


def has_field(batch: Batch, name: str) -> bool:
    """Whether a row of a batch has a field of this name."""
    if isinstance(batch, pa.RecordBatch):
        return name in batch.schema.names
    return any(name in document for document in batch)


def count_of(batch: Batch) -> int:
    """Rows of a batch."""
    return batch.num_rows if isinstance(batch, pa.RecordBatch) else len(batch)
