"""What makes a row what it is: its canonical JSON, or that of the columns that are its key.

Pure. The order of the columns makes no other row; that 1 was written as 1.0 does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from connectome_dagster.errors import ConfigurationError
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encode_document import encode_document
from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.transfer.compare import same_value
from connectome_dagster.transfer.rows import Batch


def checked_key(key: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return key columns, in one order.

    Raises:
        ConfigurationError: not a list of names.
    """
    if key is None:
        return None
    if isinstance(key, str) or not key or not all(isinstance(name, str) for name in key):
        raise ConfigurationError(f"key is {key!r}: give a list of column names, such as ['sku']")
    return tuple(sorted(set(key)))


def contents(
    batch: Batch,
    lines: list[bytes],
    first_row: int,
    encoding: Encoding,
    key: tuple[str, ...] | None = None,
) -> list[bytes]:
    """Give what makes each row what it is.

    Args:
        batch: the rows.
        lines: the rows as JSON objects, as they are to be written.
        first_row: position of the first one in what was handed in, for errors.
        encoding: how they were encoded.
        key: the columns that are the rows' key; None for all of them.

    Raises:
        ConfigurationError: a row lacks a column of the key.
    """
    if isinstance(batch, pa.RecordBatch):
        there = batch.schema.names
        names = sorted(there) if key is None else list(key)
        for name in names:
            if name not in there:
                raise _missing(name, there, first_row)
        if names == there:
            return lines
        return encode_rows(batch.select(names), first_row, encoding)
    return [
        _content(document, line, row, encoding, key)
        for row, (document, line) in enumerate(zip(batch, lines, strict=True), start=first_row)
    ]


def _content(
    document: Mapping[str, object],
    line: bytes,
    row: int,
    encoding: Encoding,
    key: tuple[str, ...] | None,
) -> bytes:
    there = list(document)
    names = sorted(there) if key is None else list(key)
    if names == there:
        return line
    for name in names:
        if name not in document:
            raise _missing(name, there, row)
    return encode_document({name: document[name] for name in names}, row, encoding)


def _missing(name: str, there: Sequence[str], row: int) -> ConfigurationError:
    shown = ", ".join(map(repr, there[:20]))
    return ConfigurationError(f"row {row}: key names {name!r}, which is not there: it has {shown}")


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents say the same.

    The order of fields does not matter, a field that is null is as one that is not there, and
    numbers are equal as MongoDB has it: 1 is 1.0, but true is not 1. Extended JSON is what it
    stands for.

    Example:
        >>> same_content({"a": 1, "b": {"c": [2]}}, {"b": {"c": [2.0], "d": None}, "a": 1})
        True
    """
    return _same(one, other) or same_value(dict(one), dict(other))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = {*one, *other}
        return all(_same(one.get(name), other.get(name)) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
