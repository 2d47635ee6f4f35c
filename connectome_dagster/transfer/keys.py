"""The key of each row of an upsert: checked, and said as the filter that finds its document.

Pure. Knows nothing of requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import ConfigurationError, DuplicateKeys, EncodeError
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encode_document import encode_document
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.frames.schema import EXACT_FLOAT, check_names
from connectome_dagster.transfer.cursor import ID
from connectome_dagster.transfer.identity import DigestSet
from connectome_dagster.transfer.rows import Batch, encoded

# What is remembered of a key. Two that differ are the same by chance once in 370,000 frames of ten
# million rows; whether they are is looked up then, so that it refuses nothing.
DIGEST_BYTES = 8

_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")

# Keys that seem to be there twice and are looked up; by chance there are one or two at most.
MAX_SUSPECTS = 1000


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
        encoding: the forms of values; those of the key are its filter's.
        object_ids: whether digits in the column `_id` are those of an ObjectId. The filter says so
            then, and the data does not say it again.

    Raises:
        ConfigurationError: none, or a name that an update would take for a path or an operator.
    """

    def __init__(
        self,
        on: Sequence[str],
        encoding: Encoding = DEFAULT_ENCODING,
        *,
        object_ids: bool = False,
    ) -> None:
        if isinstance(on, str) or not on or not all(isinstance(name, str) for name in on):
            raise ConfigurationError(f"on is {on!r}: give a list of column names, such as ['sku']")
        self.names = list(dict.fromkeys(on))
        self._encoding = encoding
        self._object_ids = object_ids and ID in self.names
        _check_paths(self.names)

    def rows(self, batch: Batch, first_row: int) -> list[KeyedRow]:
        """Give the rows of a batch with their keys.

        Raises:
            ConfigurationError: a key column is missing, or a column name is a path.
            EncodeError: a key that is null, NaN, or not a single value; or a value that JSON
                cannot say.
            SchemaConflict: two columns of one name.
        """
        if isinstance(batch, pa.RecordBatch):
            self._check_columns(batch, first_row)
            keys = encode_rows(batch.select(self.names), first_row, self._encoding)
            if any(_may_hold_floats(batch.schema.field(name).type) for name in self.names):
                keys = [_one_per_number(key) for key in keys]
        else:
            keys = [
                self._key_of(document, row) for row, document in enumerate(batch, start=first_row)
            ]
        if self._object_ids:
            keys = [_with_object_id(key) for key in keys]
            batch = _without_id(batch)
        data = encoded(batch, first_row, self._encoding)
        return [
            KeyedRow(row, key, line)
            for row, (key, line) in enumerate(zip(keys, data, strict=True), start=first_row)
        ]

    def _check_columns(self, batch: pa.RecordBatch, first_row: int) -> None:
        check_names(batch.schema.names)
        _check_paths(batch.schema.names)
        for name in self.names:
            at = batch.schema.get_field_index(name)
            if at < 0:
                raise _missing(name, batch.schema.names)
            column = batch.column(at)
            if pa.types.is_nested(column.type):
                raise _not_single(name, first_row, str(column.type))
            if pa.types.is_dictionary(column.type):
                # A null may stand among its values, where older versions of pyarrow do not look.
                column = column.dictionary_decode()
            absent = column.is_null(nan_is_null=True)
            if pc.any(absent).as_py():
                raise _is_null(name, first_row + absent.index(True).as_py())

    def _key_of(self, document: Mapping[str, Any], row: int) -> bytes:
        _check_paths(document)
        for name in self.names:
            if name not in document:
                raise _missing(name, list(document))
        columns = {name: document[name] for name in self.names}
        key = encode_document(columns, row)
        # As JSON has it: there is but one null then, and one kind of list.
        for name, value in msgspec.json.decode(key).items():
            if value is None:
                raise _is_null(name, row)
            if isinstance(value, (dict, list)):
                raise _not_single(name, row, type(document[name]).__name__)
        if self._encoding != DEFAULT_ENCODING:
            key = encode_document(columns, row, self._encoding)
        return _one_per_number(key)


class DistinctKeys:
    """Finds a key that two rows have, in 8 bytes for each row, and in 16 for moments.

    Args:
        on: the names of the key columns, for the error.

    Example:
        >>> rows = KeyColumns(["sku"]).rows([{"sku": 1}, {"sku": 2}, {"sku": 1}], first_row=0)
        >>> keys = DistinctKeys(["sku"])
        >>> keys.add(rows)
        >>> keys.check(rows)
        Traceback (most recent call last):
        connectome_dagster.errors.DuplicateKeys: row 2: the key {"sku":1} is that of row 0 as \
well; an upsert keeps one document per key, so drop the duplicates or add columns to on=['sku']
    """

    def __init__(self, on: Sequence[str]) -> None:
        self._on = list(on)
        self._digests = DigestSet()
        self._suspects: set[bytes] = set()

    def add(self, rows: Sequence[KeyedRow]) -> None:
        """Remember the keys of rows."""
        digests = [_digest(row.key) for row in rows]
        before = self._digests.add(np.frombuffer(b"".join(digests), dtype=np.uint64))
        for at in np.flatnonzero(before)[: MAX_SUSPECTS - len(self._suspects)].tolist():
            self._suspects.add(digests[at])

    @property
    def suspected(self) -> bool:
        """Whether two keys may be the same, so that all rows have to be looked at again."""
        return bool(self._suspects)

    def check(self, rows: Iterable[KeyedRow]) -> None:
        """Look at all rows again, for the keys that seemed to be there twice.

        Raises:
            DuplicateKeys: two rows have one key.
        """
        first: dict[bytes, int] = {}
        for row in rows:
            if _digest(row.key) not in self._suspects:
                continue
            if row.key in first:
                raise self._duplicate(first[row.key], row)
            first[row.key] = row.row

    def _duplicate(self, first: int, row: KeyedRow) -> DuplicateKeys:
        return DuplicateKeys(
            f"row {row.row}: the key {row.key[:200].decode(errors='replace')} is that of row "
            f"{first} as well; an upsert keeps one document per key, so drop the duplicates or add "
            f"columns to on={self._on!r}",
            keys=[tuple(msgspec.json.decode(row.key).values())],
        )


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=DIGEST_BYTES).digest()


def _with_object_id(key: bytes) -> bytes:
    values = msgspec.json.decode(key)
    digits = values[ID]
    if isinstance(digits, str) and _OBJECT_ID.fullmatch(digits):
        values[ID] = {"$oid": digits}
    return msgspec.json.encode(values)


def _without_id(batch: Batch) -> Batch:
    if not isinstance(batch, pa.RecordBatch):
        return [{name: document[name] for name in document if name != ID} for document in batch]
    names = [name for name in batch.schema.names if name != ID]
    # Of a batch without columns, Arrow forgets the rows.
    return batch.select(names) if names else [{}] * batch.num_rows


def _may_hold_floats(type_: pa.DataType) -> bool:
    # Others (dictionaries, extensions) hold floats in themselves.
    return not (pa.types.is_integer(type_) or pa.types.is_string(type_))


def _one_per_number(key: bytes) -> bytes:
    """Write 1.0 as 1 and -0.0 as 0: one number in MongoDB, so one key here."""
    values: dict[str, Any] = msgspec.json.decode(key)
    for name, value in values.items():
        if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOAT:
            values[name] = int(value)
    return msgspec.json.encode(values)


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
