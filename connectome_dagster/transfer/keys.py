"""The key of each row of an upsert: checked, and said as the filter that finds its document.

Pure. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import ConfigurationError, DuplicateKeys, EncodeError
from connectome_dagster.frames.encode import encode_document, encode_rows
from connectome_dagster.transfer.rows import Batch, encoded

# What is remembered of a key to find it again: 2**64 keys before two of them are likely to collide.
DIGEST_BYTES = 16


class KeyedRow(NamedTuple):
    """One row of an upsert.

    Attributes:
        row: its position in what was handed in, from 0.
        key: its key columns as a JSON object: the filter.
        data: all of its columns as a JSON object, the key with them, so that the document is the
            same whether an update sets or replaces (U6).
    """

    row: int
    key: bytes
    data: bytes


class KeyColumns:
    """The columns whose values together name one document.

    Args:
        on: their names.

    Raises:
        ConfigurationError: none, or a name that an update would take for a path or an operator.
    """

    def __init__(self, on: Sequence[str]) -> None:
        if isinstance(on, str) or not on or not all(isinstance(name, str) for name in on):
            raise ConfigurationError(f"on is {on!r}: give a list of column names, such as ['sku']")
        self.names = list(dict.fromkeys(on))
        self._seen: set[bytes] = set()
        _check_paths(self.names)

    def rows(self, batch: Batch, first_row: int) -> Iterator[KeyedRow]:
        """Give the rows of a batch with their keys.

        Raises:
            ConfigurationError: a key column is missing, or a column name is a path.
            EncodeError: a key that is null, NaN, or not a single value.
            DuplicateKeys: a key that this or an earlier batch had.
        """
        if isinstance(batch, pa.RecordBatch):
            self._check_columns(batch, first_row)
            keys = encode_rows(batch.select(self.names), first_row)
        else:
            keys = [
                encode_document(self._key_of(document, row), row)
                for row, document in enumerate(batch, start=first_row)
            ]
        data = encoded(batch, first_row)
        for row, (key, line) in enumerate(zip(keys, data, strict=True), start=first_row):
            self._remember(key, row)
            yield KeyedRow(row, key, line)

    def _check_columns(self, batch: pa.RecordBatch, first_row: int) -> None:
        _check_paths(batch.schema.names)
        for name in self.names:
            at = batch.schema.get_field_index(name)
            if at < 0:
                raise _missing(name, batch.schema.names)
            column = batch.column(at)
            if pa.types.is_nested(column.type):
                raise _not_single(name, first_row, str(column.type))
            absent = column.is_null(nan_is_null=True)
            if pc.any(absent).as_py():
                raise _is_null(name, first_row + absent.index(True).as_py())

    def _key_of(self, document: Mapping[str, Any], row: int) -> dict[str, Any]:
        _check_paths(document)
        key = {}
        for name in self.names:
            if name not in document:
                raise _missing(name, list(document))
            value = document[name]
            if value is None or value != value:
                raise _is_null(name, row)
            if isinstance(value, (Mapping, list, tuple)):
                raise _not_single(name, row, type(value).__name__)
            # One number in MongoDB, so one key here.
            key[name] = int(value) if isinstance(value, float) and value.is_integer() else value
        return key

    def _remember(self, key: bytes, row: int) -> None:
        digest = blake2b(key, digest_size=DIGEST_BYTES).digest()
        if digest in self._seen:
            shown = key.decode()
            raise DuplicateKeys(
                f"row {row}: the key {shown[:200]} occurs more than once in the frame; an upsert "
                f"keeps one document per key, so drop the duplicates or add columns to on="
                f"{self.names!r}",
                keys=[(shown,)],
            )
        self._seen.add(digest)


def _check_paths(names: Sequence[str] | Mapping[str, Any]) -> None:
    for name in names:
        if isinstance(name, str) and ("." in name or name.startswith("$") or not name):
            raise ConfigurationError(
                f"column {name!r}: an update takes a name that is empty, holds a dot or begins "
                "with '$' for a path or an operator; rename it"
            )


def _missing(name: str, there: Sequence[str]) -> ConfigurationError:
    shown = ", ".join(map(repr, there[:20]))
    return ConfigurationError(f"on names {name!r}, which the frame does not have: it has {shown}")


def _is_null(name: str, row: int) -> EncodeError:
    return EncodeError(
        f"row {row}: the key column {name!r} is null or NaN, which names no document; fill it or "
        "drop the row",
        column=name,
        row=row,
    )


def _not_single(name: str, row: int, kind: str) -> EncodeError:
    return EncodeError(
        f"the key column {name!r} holds a {kind}; a key is one value, such as text or a number",
        column=name,
        row=row,
    )
