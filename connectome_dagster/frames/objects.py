"""Nested Arrow values as what a DataFrame's cells hold: dicts, NumPy arrays, Python's own values.

Exact where pyarrow is not: of integers beside nulls it makes floats, and a date after the year 9999
ends its conversion. Knows no DataFrame and no document.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Objects = npt.NDArray[np.object_]


class Lists(IntEnum):
    """What lists become; where batches of one column differ, all have the greatest."""

    ARRAYS = 0  # NumPy arrays, typed as their items are
    UNTYPED_BOOLEANS = 1  # the same, but those of booleans hold objects, for some are null
    PYTHON = 2  # Python's lists, for there are integers beside nulls


def is_nested(type_: pa.DataType) -> bool:
    """Whether values of this type are made here."""
    return bool(pa.types.is_struct(type_)) or _is_list(type_)


def lists_of(array: pa.Array) -> Lists:
    """What lists anywhere in the array have to become, as far as its own values tell."""
    return max(_lists_of(array, in_list=False), default=Lists.ARRAYS)


def _lists_of(array: pa.Array, *, in_list: bool) -> Iterator[Lists]:
    type_ = array.type
    if pa.types.is_struct(type_):
        for child in array.flatten():
            yield from _lists_of(child, in_list=in_list)
    elif _is_list(type_):
        yield from _lists_of(array.flatten(), in_list=True)
    elif in_list and array.null_count:
        if pa.types.is_integer(type_):
            yield Lists.PYTHON
        elif pa.types.is_boolean(type_):
            yield Lists.UNTYPED_BOOLEANS


def objects_of(array: pa.Array, lists: Lists) -> Objects:
    """Make the values of a nested array.

    Args:
        array: of structs or lists, to any depth.
        lists: at least what `lists_of` says of it.

    Returns:
        One object for each row; None where it is null.

    Example:
        >>> objects_of(pa.array([{"n": 1}, {"n": None}, None]), Lists.ARRAYS).tolist()
        [{'n': 1}, {'n': None}, None]
    """
    with _collector_paused():
        return _untyped(_values(array, lists, in_struct=False))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python from looking for garbage while only values are made that stay.

    It would look after each few hundred dicts, and that takes longer than making them. Pauses of
    several threads do not hurt each other: the last that found it running sets it going again.
    """
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


def _untyped(values: Sequence[Any] | Objects) -> Objects:
    if isinstance(values, np.ndarray):
        return values
    # np.array would look into lists and make one array of all that is in them.
    return np.fromiter(values, dtype=object, count=len(values))


def _values(array: pa.Array, lists: Lists, *, in_struct: bool) -> Sequence[Any] | Objects:
    type_ = array.type
    if pa.types.is_struct(type_):
        return _dicts(array, lists)
    if _is_list(type_):
        return _lists(array, lists, in_struct=in_struct)
    return _plain_values(array)


def _dicts(array: pa.StructArray, lists: Lists) -> Sequence[Any] | Objects:
    rows = _present(array)
    if not len(array.type):
        dicts: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for at, field in enumerate(array.type):
        name = field.name
        values = _values(rows.field(at), lists, in_struct=True)
        if at == 0:
            dicts = [{name: value} for value in values]
            continue
        for row, value in zip(dicts, values, strict=True):
            row[name] = value
    return _among_nulls(dicts, array) if array.null_count else dicts


def _present(array: pa.StructArray) -> pa.StructArray:
    try:
        return array.drop_null()
    except pa.ArrowNotImplementedError:  # pyarrow 26 cannot move views of text
        rows = [at for at, value in enumerate(array.is_valid().to_pylist()) if value]
    return pa.concat_arrays([array.slice(at, 1) for at in rows] or [array.slice(0, 0)])


def _among_nulls(values: Sequence[Any], array: pa.Array) -> Objects:
    """Put the values of an array that are not null where they stand in it."""
    objects = np.full(len(array), None)
    objects[array.is_valid().to_numpy(zero_copy_only=False)] = _untyped(values)
    return objects


def _lists(array: pa.Array, lists: Lists, *, in_struct: bool) -> Sequence[Any] | Objects:
    if lists < Lists.PYTHON and not _needs_items(array.type.value_type, lists, in_struct):
        with suppress(pa.ArrowNotImplementedError):  # such as lists of UUIDs
            made: Objects = array.to_pandas().to_numpy()
            return made
    items = _values(array.flatten(), lists, in_struct=in_struct)
    if lists < Lists.PYTHON:
        items = _untyped(items)
    elif isinstance(items, np.ndarray):
        items = items.tolist()
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    ends = [0, *np.cumsum(lengths).tolist()]
    slices = [items[start:end] for start, end in pairwise(ends)]
    if not array.null_count:
        return slices
    objects = _untyped(slices)
    objects[array.is_null().to_numpy(zero_copy_only=False)] = None
    return objects


def _needs_items(type_: pa.DataType, lists: Lists, in_struct: bool) -> bool:
    """Whether pyarrow would make something else of lists with such items."""
    if _is_list(type_):
        return _needs_items(type_.value_type, lists, in_struct)
    if pa.types.is_boolean(type_):
        return lists == Lists.UNTYPED_BOOLEANS
    if pa.types.is_timestamp(type_):
        return in_struct and type_.unit != "ns"  # Python's have no nanoseconds
    return bool(pa.types.is_struct(type_))


def _plain_values(array: pa.Array) -> list[Any]:
    type_ = array.type
    if pa.types.is_string(type_):
        return _strings(array)
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return _numbers(array)
    if pa.types.is_boolean(type_) or pa.types.is_null(type_):
        return list(array.to_numpy(zero_copy_only=False).tolist())
    if pa.types.is_timestamp(type_):
        return _instants(array)
    # One by one, pyarrow knows best what stands for a value in Python.
    rows = pa.StructArray.from_arrays([array], names=["value"]).to_pandas()
    return [row["value"] for row in rows]


def _strings(array: pa.StringArray) -> list[Any]:
    """Equal strings are one object: there are rarely many different ones beside each other."""
    encoded = array.dictionary_encode()
    words = _untyped([*encoded.dictionary.to_pylist(), None])
    return list(words.take(encoded.indices.fill_null(len(words) - 1).to_numpy()).tolist())


def _numbers(array: pa.Array) -> list[Any]:
    if not array.null_count:
        return list(array.to_numpy(zero_copy_only=False).tolist())
    numbers = array.fill_null(0).to_numpy(zero_copy_only=False).astype(object)
    numbers[array.is_null().to_numpy(zero_copy_only=False)] = None
    return list(numbers.tolist())


def _instants(array: pa.TimestampArray) -> list[Any]:
    if array.type.unit == "ns":
        return list(array.to_pylist())
    try:
        return list(array.to_pandas(timestamp_as_object=True).to_numpy().tolist())
    except (ValueError, OverflowError):
        pass  # Python's years end at 9999
    return [_instant(scalar) for scalar in array]


def _instant(scalar: pa.TimestampScalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return np.datetime64(scalar.value, scalar.type.unit)


def _is_list(type_: pa.DataType) -> bool:
    is_ = pa.types
    return bool(is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_))
