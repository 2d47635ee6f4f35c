"""Arrow batches to JSON documents, compiled: one line of JSON for each row.

Pure. Brings each column into a form whose JSON keeps the value, then lets arro3 write it. What
JSON cannot say is an `EncodeError` that names column and row, before anything is written.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import arro3.io
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.schema import check_names

# MongoDB takes a hundred levels of nesting.
MAX_DEPTH = 100


def encode_rows(batch: pa.RecordBatch, first_row: int = 0) -> list[bytes]:
    """Encode each row as one JSON object; nulls are written as null.

    Args:
        batch: any types that JSON can say. NaN is written as null; timestamps with a zone as
            instants in UTC (`2018-02-01T00:00:00.000Z`, with as many digits as the value has, at
            least three), those without as the same text without `Z`; dates and times as ISO text;
            decimals as text with all their digits; binary as base64; dictionaries as their
            values; maps as objects.
        first_row: position of the first row in what was handed in, for errors.

    Returns:
        A text without line breaks for each row.

    Raises:
        EncodeError: an infinity, or a type without a form in JSON.
        SchemaConflict: two columns of one name.

    Example:
        >>> encode_rows(pa.record_batch({"a": [1, None], "b": ["x", "y"]}))
        [b'{"a":1,"b":"x"}', b'{"a":null,"b":"y"}']
    """
    check_names(batch.schema.names)
    for name in batch.schema.names:
        _check_name(name, name)
    if not batch.num_columns:
        return [b"{}"] * batch.num_rows
    columns = [
        _Column(name, first_row).sayable(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    sayable = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    out = io.BytesIO()
    arro3.io.write_ndjson(sayable, out, explicit_nulls=True)
    return out.getvalue().split(b"\n")[: batch.num_rows]


def _check_name(name: str, column: str) -> None:
    if "\0" in name:
        raise EncodeError(
            f"column {column!r}: a name with the character NUL, which MongoDB does not take and "
            "Arrow does not hand on; rename it",
            column=column,
        )


class _Column:
    """Brings one column into types that arro3 writes as we want them.

    Args:
        name: for errors.
        first_row: position of the first row, for errors.
        rows: the row of each value, from 0, where a row holds several; None if it is its own.
    """

    def __init__(self, name: str, first_row: int, rows: pa.Array | None = None) -> None:
        self._name = name
        self._first_row = first_row
        self._rows = rows

    def sayable(self, array: pa.Array) -> pa.Array:
        type_ = array.type
        is_ = pa.types
        if isinstance(type_, pa.BaseExtensionType):
            return self._extension(array)
        if is_.is_boolean(type_) or is_.is_integer(type_) or is_.is_null(type_):
            return array
        if is_.is_string(type_):
            return array
        if is_.is_large_string(type_) or is_.is_string_view(type_):
            return array.cast(pa.large_string())
        if is_.is_floating(type_):
            return self._finite(array.cast(pa.float64()))
        if is_.is_timestamp(type_):
            return self._instants(array)
        if is_.is_date(type_):
            return self._iso(array.cast(pa.date32()).cast(pa.string()))
        if is_.is_time(type_) or is_.is_decimal(type_):
            return array.cast(pa.string())
        if is_.is_dictionary(type_):
            return self.sayable(array.dictionary_decode())
        if _is_binary(type_):
            return _base64(array)
        return self._nested(array)

    def _nested(self, array: pa.Array) -> pa.Array:
        type_ = array.type
        is_ = pa.types
        if is_.is_struct(type_):
            return self._struct(array)
        if is_.is_run_end_encoded(type_):
            return self.sayable(pc.run_end_decode(array))
        if is_.is_map(type_):
            if not is_.is_string(type_.key_type) and not is_.is_large_string(type_.key_type):
                raise self._unsayable(f"its keys are {type_.key_type}, and JSON has text only")
            return self._map(array)
        if (
            is_.is_list(type_)
            or is_.is_large_list(type_)
            or is_.is_fixed_size_list(type_)
            or is_.is_list_view(type_)
            or is_.is_large_list_view(type_)
        ):
            return self._list(array)
        raise self._unsayable(f"JSON has no form for the type {type_}; cast it to one, or to text")

    def _extension(self, array: pa.ExtensionArray) -> pa.Array:
        name = getattr(array.type, "extension_name", "")
        if name == "arrow.uuid":
            values = array.storage.to_pylist()
            return pa.array([v if v is None else str(UUID(bytes=v)) for v in values], pa.string())
        if name == "arrow.bool8":
            return array.storage.cast(pa.bool_())
        if name == "pandas.period":
            raise self._unsayable("JSON has no form for periods; make them timestamps or text")
        return self.sayable(array.storage)

    def _row(self, at: int) -> int:
        """The row that holds the value at this position."""
        return self._first_row + (at if self._rows is None else int(self._rows[at].as_py()))

    def _below(self, lengths: pa.Array) -> pa.Array:
        """The rows of the values of lists of these lengths."""
        rows = np.arange(len(lengths)) if self._rows is None else self._rows.to_numpy()
        return pa.array(np.repeat(rows, lengths.to_numpy()))

    def _finite(self, array: pa.Array) -> pa.Array:
        infinite = pc.is_inf(array)
        if pc.any(infinite).as_py():
            row = self._row(infinite.index(True).as_py())
            raise EncodeError(
                f"column {self._name!r}, row {row}: JSON has no infinity; replace it by null or by "
                "a number",
                column=self._name,
                row=row,
            )
        nans = pc.is_nan(array)
        if pc.any(nans).as_py():
            return pc.if_else(nans, pa.scalar(None, pa.float64()), array)
        return array

    def _instants(self, array: pa.Array) -> pa.Array:
        """ISO text: milliseconds as JavaScript prints them, more digits only where they count."""
        zone = array.type.tz
        if zone is not None and zone != "UTC":
            array = array.cast(pa.timestamp(array.type.unit, "UTC"))
        text = None
        for unit in ("ms", "us", "ns"):
            try:
                shorter = array.cast(pa.timestamp(unit, array.type.tz), safe=True)
            except pa.ArrowInvalid:
                continue
            text = pc.replace_substring(shorter.cast(pa.string()), " ", "T", max_replacements=1)
            break
        if text is None:
            raise self._unsayable("its instants are out of range")
        return self._iso(text)

    def _iso(self, text: pa.Array) -> pa.Array:
        """Check that years have four digits: all others are refused, or misread, by readers."""
        if pc.all(pc.match_substring_regex(text, "^[0-9]{4}-")).as_py() is False:
            raise self._unsayable("ISO text has years from 0000 to 9999 only")
        return text

    def _struct(self, array: pa.StructArray) -> pa.Array:
        if not array.type.num_fields:
            return array
        names = [field.name for field in array.type]
        check_names(names)
        for name in names:
            _check_name(name, f"{self._name}.{name}")
        # Flattened, so that what stands behind a null is not looked at.
        children = [
            _Column(f"{self._name}.{name}", self._first_row, self._rows).sayable(child)
            for name, child in zip(names, array.flatten(), strict=True)
        ]
        return pa.StructArray.from_arrays(children, names=names, mask=array.is_null())

    def _list(self, array: pa.Array) -> pa.Array:
        lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
        below = _Column(f"{self._name}[]", self._first_row, self._below(lengths))
        items = below.sayable(array.flatten())
        offsets = _offsets(lengths)
        return pa.LargeListArray.from_arrays(offsets, items, mask=array.is_null())

    def _map(self, array: pa.MapArray) -> pa.Array:
        begin, end = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
        keys = array.keys.slice(begin, end - begin).cast(pa.string())
        offsets = pc.subtract(array.offsets, begin).cast(pa.int32())
        rows = self._below(pc.subtract(offsets[1:], offsets[:-1]))
        self._check_keys(keys, offsets)
        items = _Column(f"{self._name}.*", self._first_row, rows).sayable(
            array.items.slice(begin, end - begin)
        )
        return pa.MapArray.from_arrays(offsets, keys, items, mask=array.is_null())

    def _check_keys(self, keys: pa.Array, offsets: pa.Array) -> None:
        bounds = offsets.to_pylist()
        names = keys.to_pylist()
        for at, (begin, end) in enumerate(pairwise(bounds)):
            if len(set(names[begin:end])) < end - begin:
                row = self._row(at)
                raise EncodeError(
                    f"column {self._name!r}, row {row}: a map has a key twice, and a document has "
                    "each field once",
                    column=self._name,
                    row=row,
                )

    def _unsayable(self, why: str) -> EncodeError:
        return EncodeError(f"column {self._name!r}: {why}", column=self._name)


def _offsets(lengths: pa.Array) -> pa.Array:
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
        or pa.types.is_binary_view(type_)
    )


def _base64(array: pa.Array) -> pa.Array:
    return pa.array(
        [
            None if value is None else base64.b64encode(value).decode()
            for value in array.to_pylist()
        ],
        pa.string(),
    )


def encode_document(document: Mapping[str, Any], row: int = 0) -> bytes:
    """Encode one document; what it lacks stays missing.

    Args:
        document: text for names; values as JSON has them, and `datetime`, `date`, `time`,
            `Decimal`, `UUID` and `bytes` as `encode_rows` writes their like.
        row: its position in what was handed in, for errors.

    Raises:
        EncodeError: a value that JSON cannot say.

    Example:
        >>> encode_document({"a": [1, 2.5], "b": None})
        b'{"a":[1,2.5],"b":null}'
    """
    plain = {_name(name, row): _plain(value, str(name), row, 1) for name, value in document.items()}
    try:
        return msgspec.json.encode(plain)
    except UnicodeEncodeError:
        pass
    raise EncodeError(f"row {row}: a text holds half a surrogate pair, which is not UTF-8", row=row)


def _name(name: object, row: int) -> str:
    if not isinstance(name, str):
        raise EncodeError(
            f"row {row}: the field name {name!r} is a {type(name).__name__}; names are text",
            column=str(name),
            row=row,
        )
    return name


def _plain(value: Any, column: str, row: int, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        whole = int(value)
        # msgspec writes no more than 64 bits; JSON has all digits.
        return whole if -(2**63) <= whole < 2**64 else msgspec.Raw(_digits(whole))
    if isinstance(value, str):
        return str.__str__(value)
    if depth > MAX_DEPTH:
        raise EncodeError(
            f"column {column!r}, row {row}: nested deeper than {MAX_DEPTH} levels",
            column=column,
            row=row,
        )
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(item, column, row, depth + 1) for item in value]
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind not in "mM":
        return _plain(value.item(), column, row, depth + 1)
    if isinstance(value, Mapping):
        return {
            _name(name, row): _plain(item, column, row, depth + 1) for name, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item, column, row, depth + 1) for item in value]
    return _plain_scalar(value, column, row)


def _plain_scalar(value: Any, column: str, row: int) -> Any:
    if _is_absent(value):
        return None
    if isinstance(value, float) and not math.isinf(value):
        return float(value)
    if isinstance(value, datetime):
        try:
            return _instant(value)
        except OverflowError:
            pass  # its zone takes it out of the years that Python has
    if isinstance(value, (date, time)) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID, np.datetime64)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    raise EncodeError(
        f"column {column!r}, row {row}: JSON has no form for {value!r} ({type(value).__name__}); "
        "replace it by null, a number or text",
        column=column,
        row=row,
    )


def _digits(whole: int) -> bytes:
    return format(Decimal(whole), "f").encode()  # str() refuses some thousands of digits


def _is_absent(value: Any) -> bool:
    """NaN and NaT, which are not equal to themselves, and pandas' NA, which nobody may compare."""
    if isinstance(value, Decimal):
        return value.is_nan()  # a signaling NaN may not be compared
    return type(value).__name__ == "NAType" or bool(value != value)


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        if getattr(value, "nanosecond", 0):  # a pandas.Timestamp has more digits than datetime
            return value.isoformat(timespec="nanoseconds")
        return value.isoformat(
            timespec="microseconds" if value.microsecond % 1000 else "milliseconds"
        )
    utc = value.astimezone(timezone.utc).replace(tzinfo=None)
    return _instant(utc) + "Z"
