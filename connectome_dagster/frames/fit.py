"""Documents read into a schema that was given: each value fits its type, or is refused.

Whether a value fits depends on the value alone, never on its neighbours. Knows the table of
types in both directions, so that a frame that was written is equal when it is read back.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.frames.decode import Decoded, Hints, decode
from connectome_dagster.frames.exact import decode_field
from connectome_dagster.frames.extended_json import recognise
from connectome_dagster.frames.forms import cast_views
from connectome_dagster.frames.schema import ITEM, Path, kind_of, show_path

ExtraFields = Literal["error", "drop"]
OnConflict = Literal["text", "error"]

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ZONE = r"Z$|:[0-9.]+[+-][0-9:]+$"  # behind the time of a day, unlike the month of a date
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Misfit(Exception):  # never leaves the package: the caller knows where the documents are
    """A document does not fit; `row` is its position in the piece."""

    def __init__(self, path: Path, reason: str, row: int = 0) -> None:
        super().__init__(f"{show_path(path)}: {reason}")
        self.path = path
        self.reason = reason
        self.row = row


@dataclass(frozen=True)
class Fit:
    """What documents have to fit.

    Attributes:
        schema: names and types; a field that a document lacks is null there.
        extra_fields: `"error"` refuses a field that is not in it, `"drop"` leaves it out.
    """

    schema: pa.Schema
    extra_fields: ExtraFields = "error"

    def hints(self) -> Hints:
        """What decoding has to know: fields whose text is needed, digit by digit."""
        return Hints(as_text=frozenset(_as_text(pa.struct(list(self.schema)), ())))

    def decode(self, piece: bytes, hints: Hints, hidden: frozenset[str] = frozenset()) -> Decoded:
        """Decode a piece into the schema.

        Args:
            piece: as for `decode`.
            hints: what `hints` gave, or what was learned since.
            hidden: fields that are left out before anything is compared with the schema.

        Raises:
            Misfit: naming the first document that does not fit.
            NotDocuments: as `decode`.
        """
        decoded = decode(piece, hints)
        try:
            self._check_conflicts(decoded.conflicts, hints.as_text)
            batch = self._fitted(decoded.batch, hidden)
        except Misfit:
            batch = self._one_by_one(piece, hints, hidden)
        return replace(decoded, batch=batch, conflicts={})

    def _fitted(self, batch: pa.RecordBatch, hidden: frozenset[str]) -> pa.RecordBatch:
        dropped = [name for name in batch.schema.names if name in hidden]
        batch = batch.drop_columns(dropped) if dropped else batch
        struct = pa.struct(list(self.schema))
        rows = _Fitting(self.extra_fields).struct(batch.to_struct_array(), struct, ())
        if not len(self.schema):
            return pa.RecordBatch.from_struct_array(rows)
        columns = [rows.field(at) for at in range(len(self.schema))]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _check_conflicts(self, conflicts: Iterable[Path], as_text: frozenset[Path]) -> None:
        # The text of a field that has several types does not tell 300 from "300".
        for path in conflicts:
            if path not in as_text and path[0] in self.schema.names:
                raise Misfit(path, "several types")

    def _one_by_one(self, piece: bytes, hints: Hints, hidden: frozenset[str]) -> pa.RecordBatch:
        """Fit each document by itself: names the first that does not fit, if there is one."""
        documents = msgspec.json.decode(b"[%b]" % piece, type=list[msgspec.Raw])
        batches: list[pa.RecordBatch] = []
        for document in documents:
            one = decode(bytes(document), hints)
            try:
                batches.append(self._fitted(one.batch, hidden))
            except Misfit as misfit:
                path, reason = misfit.path, misfit.reason
                break
        else:
            return pa.Table.from_batches(batches, self.schema).combine_chunks().to_batches()[0]
        raise Misfit(path, reason, row=len(batches))


def _as_text(type_: pa.DataType, path: Path) -> Iterator[Path]:
    """Decimals, which floats do not hold, and maps, whose keys are not known beforehand."""
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_decimal(type_) or pa.types.is_map(type_):
        yield path
    elif pa.types.is_struct(type_):
        for field in type_:
            yield from _as_text(field.type, (*path, field.name))
    elif _is_list(type_):
        yield from _as_text(type_.value_type, (*path, ITEM))


def _is_list(type_: pa.DataType) -> bool:
    is_ = pa.types
    return bool(is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_))


class _Fitting:
    def __init__(self, extra_fields: ExtraFields) -> None:
        self._extra_fields = extra_fields

    def struct(self, array: pa.Array, type_: pa.StructType, path: Path) -> pa.Array:
        known = {field.name for field in type_}
        if self._extra_fields == "error":
            for field in array.type:
                if field.name not in known:
                    raise Misfit((*path, field.name), "a field that the schema does not have")
        children = []
        missing = array.is_null()
        for field in type_:
            below = (*path, field.name)
            at = array.type.get_field_index(field.name)
            child = pa.nulls(len(array)) if at < 0 else array.field(at)
            fitted = self.array(child, field.type, below)
            if not field.nullable and pc.any(pc.and_not(fitted.is_null(), missing)).as_py():
                raise Misfit(below, "null or missing, in a field that must not be")
            children.append(fitted)
        if not children:
            return pa.array([None if gone else {} for gone in missing.to_pylist()], type_)
        mask = missing if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=mask)

    def array(self, array: pa.Array, type_: pa.DataType, path: Path) -> pa.Array:
        if isinstance(type_, pa.BaseExtensionType):
            storage = self.array(array, type_.storage_type, path)
            return pa.ExtensionArray.from_storage(type_, storage)
        if array.null_count == len(array):
            return pa.nulls(len(array), type_)
        if array.type.equals(type_):
            return array
        if pa.types.is_dictionary(type_):
            return self.array(array, type_.value_type, path).dictionary_encode().cast(type_)
        if pa.types.is_struct(type_) and pa.types.is_struct(array.type):
            return self.struct(array, type_, path)
        if pa.types.is_map(type_):
            return self._map(array, type_, path)
        if _is_list(type_) and pa.types.is_list(array.type):
            return self._list(array, type_, path)
        try:
            fitted = _scalars(array, type_)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, InvalidOperation):
            fitted = None
        if fitted is None:
            raise Misfit(path, f"{kind_of(array.type)} does not fit {type_}")
        return fitted

    def _list(self, array: pa.ListArray, type_: pa.DataType, path: Path) -> pa.Array:
        item = type_.value_field
        below = (*path, ITEM)
        items = self.array(array.flatten(), item.type, below)
        if not item.nullable and items.null_count:
            raise Misfit(below, "null, in a field that must not be")
        lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
        mask = array.is_null() if array.null_count else None
        if pa.types.is_list(type_):
            return pa.ListArray.from_arrays(offsets.cast(pa.int32()), items, type=type_, mask=mask)
        if pa.types.is_fixed_size_list(type_):
            if pc.any(pc.and_(pc.not_equal(lengths, type_.list_size), array.is_valid())).as_py():
                raise Misfit(path, f"its length does not fit {type_}")
            items = _with_room(items, array.is_null(), type_.list_size)
            return pa.FixedSizeListArray.from_arrays(items, type=type_, mask=mask)
        return pa.LargeListArray.from_arrays(offsets, items, type=type_, mask=mask)

    def _map(self, array: pa.Array, type_: pa.MapType, path: Path) -> pa.Array:
        keys: list[str] = []
        values: list[bytes | None] = []
        offsets: list[int | None] = [0]
        if not pa.types.is_string(array.type):
            raise Misfit(path, f"{kind_of(array.type)} does not fit {type_}")
        try:
            for text in array.to_pylist():
                members = (
                    {} if text is None else msgspec.json.decode(text, type=dict[str, msgspec.Raw])
                )
                keys += members
                values += map(bytes, members.values())
                offsets.append(len(keys))
        except msgspec.DecodeError:
            keys = []
        if len(offsets) <= len(array):
            raise Misfit(path, f"a value that is no object does not fit {type_}")
        below = (*path, "*")
        as_text = frozenset(_as_text(type_.item_type, below))
        decoded, conflicts = decode_field(values, below, as_text)
        if not as_text.issuperset(conflicts):
            raise Misfit(below, "several types")
        items = self.array(decoded, type_.item_type, below)
        names = pa.array(keys, pa.string()).cast(type_.key_type)
        mask = array.is_null() if array.null_count else None
        return pa.MapArray.from_arrays(
            pa.array(offsets, pa.int32()), names, items, type_, mask=mask
        )


def _with_room(items: pa.Array, missing: pa.Array, size: int) -> pa.Array:
    """The items of lists of one size; those that are missing take up as much room."""
    gone = np.flatnonzero(missing)
    room = pa.nulls(size, items.type)
    parts = []
    begin = 0
    for before, row in enumerate(gone):
        end = int(row - before) * size
        parts += [items.slice(begin, end - begin), room]
        begin = end
    # Of some types of text pyarrow puts arrays together, but takes no items by their positions.
    return pa.concat_arrays([*parts, items.slice(begin)]) if parts else items


def _scalars(array: pa.Array, type_: pa.DataType) -> pa.Array | None:
    """Convert what keeps its value; None or an error of Arrow's where it would not."""
    is_ = pa.types
    have = array.type
    if is_.is_string(have) or is_.is_timestamp(have):
        return _texts(array, type_)
    if is_.is_boolean(have) or is_.is_nested(have) or is_.is_boolean(type_):
        return None
    if is_.is_binary(have) or is_.is_fixed_size_binary(have):
        return cast_views(array, type_) if _is_bytes(type_) else None
    if is_.is_timestamp(type_) and is_.is_integer(have):
        return array.cast(pa.timestamp("ms", type_.tz)).cast(type_)  # `timestamps="epoch_ms"`
    if is_.is_integer(type_) or is_.is_floating(type_):
        if is_.is_decimal(have) and is_.is_floating(type_):
            return None  # digits that no float holds
        fitted = array.cast(type_)
        return None if is_.is_floating(type_) and pc.any(pc.is_inf(fitted)).as_py() else fitted
    return None


def _is_bytes(type_: pa.DataType) -> bool:
    is_ = pa.types
    return bool(
        is_.is_binary(type_)
        or is_.is_large_binary(type_)
        or is_.is_fixed_size_binary(type_)
        or is_.is_binary_view(type_)
    )


def _texts(array: pa.Array, type_: pa.DataType) -> pa.Array | None:
    is_ = pa.types
    if is_.is_timestamp(array.type):
        if is_.is_timestamp(type_):
            return array.cast(pa.timestamp(type_.unit, "UTC")).cast(type_)
        array = pc.replace_substring(array.cast(pa.string()), " ", "T")
    if is_.is_string(type_) or is_.is_large_string(type_) or is_.is_string_view(type_):
        return cast_views(array, type_)
    if is_.is_decimal(type_):
        return _each(array, type_, _decimal)
    if _is_bytes(type_):
        return _each(array, type_, _bytes)
    if is_.is_timestamp(type_):
        return _instants(array, type_)
    if is_.is_date(type_):
        return array.cast(pa.date32()).cast(type_)
    if is_.is_time(type_):
        # Arrow reads instants, but no times of a day.
        instants = pc.binary_join_element_wise("1970-01-01T", array, "")
        return instants.cast(pa.timestamp(type_.unit)).cast(type_)
    return None


def _instants(array: pa.Array, type_: pa.TimestampType) -> pa.Array:
    """Read instants; a type without a zone is taken for UTC, and so is text without one there."""
    in_utc = pa.timestamp(type_.unit, "UTC")
    if type_.tz:
        return array.cast(in_utc).cast(type_)
    has_zone = pc.match_substring_regex(array, _ZONE)
    without = pc.if_else(has_zone, pa.scalar(None, pa.string()), array)
    zoned = pc.if_else(has_zone, array, pa.scalar(None, pa.string()))
    return pc.coalesce(zoned.cast(in_utc).cast(type_), without.cast(type_))


def _each(array: pa.Array, type_: pa.DataType, read: Callable[[str], Any]) -> pa.Array:
    return pa.array([None if text is None else read(text) for text in array.to_pylist()], type_)


def _decimal(text: str) -> Decimal:
    if text.startswith("{"):
        form = recognise(msgspec.json.decode(text))
        if form is None or form.kind not in ("decimal", "int"):
            raise ValueError(text)
        return Decimal(form.value)
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return Decimal(text)


def _bytes(text: str) -> bytes:
    if _UUID.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        pass
    raise ValueError("no base64")
