"""Arrow batches to JSON documents, compiled: one line of JSON for each row.

Pure. Brings each column into a form whose JSON keeps the value, then lets arro3 write it. What
JSON cannot say is an `EncodeError` that names column and row, before anything is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import arro3.io
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames import forms
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.frames.schema import check_names

_Mask: TypeAlias = npt.NDArray[np.bool_]


def encode_rows(
    batch: pa.RecordBatch, first_row: int = 0, encoding: Encoding = DEFAULT_ENCODING
) -> list[bytes]:
    """Encode each row as one JSON object. What a row becomes does not depend on the others.

    Args:
        batch: any types that JSON can say. NaN is written as null; dates and times as ISO text;
            dictionaries as their values; maps as objects; the rest as `encoding` has it.
        first_row: position of the first row in what was handed in, for errors.
        encoding: the forms of nulls, timestamps, decimals and binary.

    Returns:
        A text without line breaks for each row.

    Raises:
        EncodeError: an infinity, a value that `encoding` has no form for, or a type without a
            form in JSON.
        SchemaConflict: two columns of one name.

    Example:
        >>> rows = pa.record_batch({"a": [1, None], "b": [b"x", b"y"]})
        >>> encode_rows(rows)
        [b'{"a":1,"b":"eA=="}', b'{"a":null,"b":"eQ=="}']
        >>> encode_rows(rows, encoding=Encoding(nulls="omit"))
        [b'{"a":1,"b":"eA=="}', b'{"b":"eQ=="}']
    """
    check_names(batch.schema.names)
    for name in batch.schema.names:
        check_name(name, name)
    if not batch.num_columns:
        return [b"{}"] * batch.num_rows
    columns = [
        _Column(name, first_row, encoding).sayable(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    sayable = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    out = io.BytesIO()
    arro3.io.write_ndjson(sayable, out, explicit_nulls=encoding.nulls == "null")
    lines = out.getvalue().split(b"\n")[: batch.num_rows]
    if encoding.nulls == "omit":
        for row in _rows_with_null_entries(sayable):
            lines[row] = _without_nulls(sayable.slice(row, 1))
    return lines


def check_name(name: str, column: str) -> None:
    """Refuse a name that no document can have.

    Raises:
        EncodeError: naming the column.
    """
    if "\0" in name:
        raise EncodeError(
            f"column {column!r}: a name with the character NUL, which MongoDB does not take and "
            "Arrow does not hand on; rename it",
            column=column,
        )


def _rows_with_null_entries(batch: pa.RecordBatch) -> Iterator[int]:
    """The rows that hold a map with null for an entry, which arro3 would leave out as well."""
    columns = [column for column in batch.columns if _holds_maps(column.type)]
    if columns:
        marks = np.logical_or.reduce([_has_null_entries(column) for column in columns])
        yield from map(int, np.flatnonzero(marks))


def _holds_maps(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(_holds_maps(field.type) for field in type_)
    if pa.types.is_large_list(type_):
        return _holds_maps(type_.value_type)
    return bool(pa.types.is_map(type_))


def _has_null_entries(array: pa.Array) -> _Mask:
    type_ = array.type
    if not _holds_maps(type_):
        return np.zeros(len(array), dtype=bool)
    if pa.types.is_struct(type_):
        marks: _Mask = np.logical_or.reduce([_has_null_entries(c) for c in array.flatten()])
        return marks
    bounds = array.offsets.to_numpy()
    items = array.items if pa.types.is_map(type_) else array.values
    below = _has_null_entries(items)
    if pa.types.is_map(type_):
        below |= items.is_null().to_numpy(zero_copy_only=False)
    seen = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(below)])
    any_below: _Mask = seen[bounds[1:]] > seen[bounds[:-1]]
    return any_below


def _without_nulls(row: pa.RecordBatch) -> bytes:
    struct = row.to_struct_array()
    return msgspec.json.encode(_lean(struct[0].as_py(), struct.type))


def _lean(value: Any, type_: pa.DataType) -> Any:
    if value is None or not pa.types.is_nested(type_):
        return value
    if pa.types.is_struct(type_):
        there = ((field, value[field.name]) for field in type_)
        return {field.name: _lean(item, field.type) for field, item in there if item is not None}
    if pa.types.is_map(type_):
        return {key: _lean(item, type_.item_type) for key, item in value}
    return [_lean(item, type_.value_type) for item in value]


class _Column:
    """Brings one column into types that arro3 writes as we want them.

    Args:
        name: for errors.
        first_row: position of the first row, for errors.
        encoding: the forms that are wanted.
        rows: the row of each value, from 0, where a row holds several; None if it is its own.
    """

    def __init__(
        self, name: str, first_row: int, encoding: Encoding, rows: pa.Array | None = None
    ) -> None:
        self._name = name
        self._first_row = first_row
        self._encoding = encoding
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
        if is_.is_large_string(type_):
            return array
        if is_.is_string_view(type_):
            return forms.cast_views(array, pa.large_string())
        if is_.is_floating(type_):
            return self._finite(array.cast(pa.float64()))
        if is_.is_dictionary(type_):
            return self.sayable(array.dictionary_decode())
        if is_.is_time(type_):
            return array.cast(pa.string())
        form = self._form_of(type_)
        return self._nested(array) if form is None else self._in_form(form, array)

    def _form_of(self, type_: pa.DataType) -> Callable[[pa.Array], pa.Array] | None:
        is_ = pa.types
        if is_.is_timestamp(type_):
            return _INSTANTS[self._encoding.timestamps]
        if is_.is_decimal(type_):
            return _DECIMALS[self._encoding.decimals]
        if is_.is_fixed_size_binary(type_) and type_.byte_width == forms.UUID_BYTES:
            return _UUIDS[self._encoding.binary]
        if _is_binary(type_):
            return _BINARY[self._encoding.binary]
        return forms.iso_dates if is_.is_date(type_) else None

    def _in_form(self, form: Callable[[pa.Array], pa.Array], array: pa.Array) -> pa.Array:
        try:
            return form(array)
        except forms.Unsayable as unsayable:
            reason, at = unsayable.reason, unsayable.at
        raise self._unsayable(reason, at)

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
            at = infinite.index(True).as_py()
            raise self._unsayable("JSON has no infinity; replace it by null or by a number", at)
        nans = pc.is_nan(array)
        if pc.any(nans).as_py():
            return pc.if_else(nans, pa.scalar(None, pa.float64()), array)
        return array

    def _struct(self, array: pa.StructArray) -> pa.Array:
        if not array.type.num_fields:
            return array
        names = [field.name for field in array.type]
        check_names(names)
        for name in names:
            check_name(name, f"{self._name}.{name}")
        # Flattened, so that what stands behind a null is not looked at.
        children = [
            _Column(f"{self._name}.{name}", self._first_row, self._encoding, self._rows).sayable(
                child
            )
            for name, child in zip(names, array.flatten(), strict=True)
        ]
        return pa.StructArray.from_arrays(children, names=names, mask=array.is_null())

    def _list(self, array: pa.Array) -> pa.Array:
        lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
        below = _Column(f"{self._name}[]", self._first_row, self._encoding, self._below(lengths))
        items = below.sayable(array.flatten())
        offsets = _offsets(lengths)
        return pa.LargeListArray.from_arrays(offsets, items, mask=array.is_null())

    def _map(self, array: pa.MapArray) -> pa.Array:
        begin, end = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
        keys = array.keys.slice(begin, end - begin).cast(pa.string())
        offsets = pc.subtract(array.offsets, begin).cast(pa.int32())
        rows = self._below(pc.subtract(offsets[1:], offsets[:-1]))
        self._check_keys(keys, offsets)
        items = _Column(f"{self._name}.*", self._first_row, self._encoding, rows).sayable(
            array.items.slice(begin, end - begin)
        )
        return pa.MapArray.from_arrays(offsets, keys, items, mask=array.is_null())

    def _check_keys(self, keys: pa.Array, offsets: pa.Array) -> None:
        bounds = offsets.to_pylist()
        names = keys.to_pylist()
        for at, (begin, end) in enumerate(pairwise(bounds)):
            if len(set(names[begin:end])) < end - begin:
                raise self._unsayable("a map has a key twice, and a document each field once", at)
        with_nul = pc.match_substring(keys, "\0")
        if pc.any(with_nul).as_py():
            name = keys[with_nul.index(True).as_py()].as_py()
            check_name(name, f"{self._name}.{name}")

    def _unsayable(self, why: str, at: int | None = None) -> EncodeError:
        row = None if at is None else self._row(at)
        where = f"column {self._name!r}" + ("" if row is None else f", row {row}")
        return EncodeError(f"{where}: {why}", column=self._name, row=row)


_INSTANTS = {
    "iso": forms.iso_instants,
    "ejson": forms.ejson_dates,
    "epoch_ms": forms.epoch_milliseconds,
}
_DECIMALS = {"text": forms.decimal_text, "ejson": forms.ejson_decimals}
_BINARY = {"base64": forms.base64_text, "ejson": forms.ejson_binary}
_UUIDS = {"base64": forms.uuid_text, "ejson": forms.ejson_uuids}


def _offsets(lengths: pa.Array) -> pa.Array:
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
        or pa.types.is_binary_view(type_)
    )
