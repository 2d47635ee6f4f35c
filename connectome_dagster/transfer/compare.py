"""Rows and documents as digests: which row is which document, and whether they say the same.

Pure. The same value has the same digest whichever side it comes from and however it is written:
1 is 1.0 but not true, null is as absent, the order of fields does not matter, and an instant, a
number or an id of Extended JSON is what it stands for. Digests hold within one process alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Digests = npt.NDArray[np.uint64]
Document = dict[str, Any]

# So that values of two types do not have one digest.
_TEXT = np.uint64(0x9E3779B97F4A7C15)
_FLOAT = np.uint64(0xC2B2AE3D27D4EB4F)
_BOOLEAN = np.uint64(0x165667B19E3779F9)
_NULL = np.uint64(0x27D4EB2F165667C5)
_OTHER = np.uint64(0xD6E8FEB86659FD93)

_MIN, _MAX = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_encode = msgspec.json.Encoder(order="sorted", decimal_format="number").encode


def column_digests(column: pa.Array) -> Digests | None:
    """The digests of a column of integers, floats, booleans or text; None for other types."""
    kind = column.type
    there = column.is_valid()
    if pa.types.is_integer(kind) and kind != pa.uint64():
        whole = column.fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
        found = _mixed(whole.view(np.uint64))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = _of_texts(column.fill_null("").to_pylist())
    elif pa.types.is_boolean(kind):
        found = _of_booleans(column.fill_null(False).to_numpy(zero_copy_only=False))
    elif pa.types.is_float64(kind) or pa.types.is_float32(kind):
        there = pc.and_(
            there, pc.invert(pc.is_nan(column.fill_null(0.0)))
        )  # NaN is written as null
        floats = column.fill_null(0.0).cast(pa.float64()).to_numpy(zero_copy_only=False)
        found = _of_floats(np.where(np.isfinite(floats), floats, 0.0))
    else:
        return None
    return np.where(there.to_numpy(zero_copy_only=False), found, _NULL)


def value_digests(values: Sequence[Any]) -> Digests:
    """The digests of values as JSON has them, each by itself.

    Example:
        >>> one, same, text, yes = value_digests([1, 1.0, "1", True]).tolist()
        >>> one == same, one == text, one == yes
        (True, False, False)
    """
    kinds = set(map(type, values))
    if len(kinds) == 1:
        return _of_one_type(values, kinds.pop())
    digests = np.empty(len(values), dtype=np.uint64)
    for kind in kinds:
        places = [at for at, value in enumerate(values) if type(value) is kind]
        digests[places] = _of_one_type([values[at] for at in places], kind)
    return digests


def _of_one_type(values: Sequence[Any], kind: type) -> Digests:
    if kind is str:
        return _of_texts(values)
    if kind is int and min(values) >= _MIN and max(values) <= _MAX:
        return _mixed(np.array(values, dtype=np.int64).view(np.uint64))
    if kind is float:
        return _of_floats(np.array(values, dtype=np.float64))
    if kind is bool:
        return _of_booleans(np.array(values, dtype=bool))
    if kind is type(None):
        return np.full(len(values), _NULL, dtype=np.uint64)
    return np.fromiter(map(_of_value, values), np.uint64, len(values))


def _of_texts(texts: Iterable[str]) -> Digests:
    # Python's own: 64 bits of SipHash, of which a text remembers the result.
    hashed = np.fromiter(map(hash, texts), np.int64)
    return _mixed(hashed.view(np.uint64) ^ _TEXT)


def _of_booleans(values: npt.NDArray[np.bool_]) -> Digests:
    return _mixed(values.astype(np.uint64) ^ _BOOLEAN)


def _of_floats(values: npt.NDArray[np.float64]) -> Digests:
    """Those of whole numbers are the integers'."""
    whole = values == np.floor(values)
    small = whole & (np.abs(values) < 2.0**63)
    digests = _mixed(values.view(np.uint64) ^ _FLOAT)
    digests[small] = _mixed(values[small].astype(np.int64).view(np.uint64))
    for at in np.flatnonzero(whole & ~small).tolist():
        digests[at] = _of_value(int(values[at]))
    return digests


def _of_value(value: Any) -> int:
    value = canonical(value)
    kind = type(value)
    if kind in _SCALARS and not (kind is int and not _MIN <= value <= _MAX):
        return int(_of_one_type([value], kind)[0])
    digest = blake2b(text_of(value), digest_size=8).digest()
    return int.from_bytes(digest, "little") ^ int(_OTHER)


_SCALARS = frozenset({str, int, float, bool})


def _mixed(values: Digests) -> Digests:
    """Spread values over 64 bits, each to another (SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Digests = mixed ^ (mixed >> np.uint64(31))
    return found


def together(columns: Sequence[Digests]) -> Digests:
    """One digest for several columns, in their order."""
    digests = columns[0]
    for column in columns[1:]:
        with np.errstate(over="ignore"):
            digests = _mixed(digests * np.uint64(3) + column)
    return digests


def content_digests(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Digests:
    """The digests of what documents say in some of their fields; never 0.

    Example:
        >>> one, same = content_digests([{"a": 1, "b": None}, {"a": 1.0}], ["a", "b"]).tolist()
        >>> one == same
        True
    """
    return said([value_digests([one.get(name) for one in documents]) for name in names])


def said(columns: Sequence[Digests]) -> Digests:
    """The digests of what rows say in all of their columns, in one order of these; never 0."""
    found = together(columns)
    return np.where(found == 0, np.uint64(1), found)


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same."""
    return text_of(canonical(one)) == text_of(canonical(other))


def changed_fields(row: Mapping[str, Any], document: Mapping[str, Any]) -> Document:
    """What of a row a document does not say; a field that the row does not name is left alone.

    Example:
        >>> changed_fields({"sku": 1, "price": 3, "note": None}, {"sku": 1.0, "price": 2, "x": 1})
        {'price': 3}
    """
    return {name: value for name, value in row.items() if not same_value(value, document.get(name))}


def canonical(value: Any) -> Any:
    """A value in the one form of all that are the same."""
    kind = type(value)
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is dict:
        if len(value) == 1:
            for name, inner in value.items():
                if name in _EXTENDED:
                    return _plain(name, inner, value)
        return {name: canonical(inner) for name, inner in value.items() if inner is not None}
    if kind is list:
        return [canonical(inner) for inner in value]
    return value


def _plain(name: str, inner: Any, whole: Document) -> Any:
    """What an object of Extended JSON stands for, itself if it is malformed."""
    try:
        if name == "$oid":
            return str(inner)
        if name == "$date":
            return _instant(inner)
        return canonical(float(inner) if name == "$numberDouble" else int(inner))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return whole


def _instant(inner: Any) -> str:
    if isinstance(inner, dict):
        inner = int(inner["$numberLong"]) if set(inner) == {"$numberLong"} else inner
    if isinstance(inner, int):
        moment = _EPOCH + timedelta(milliseconds=inner)
    else:
        moment = datetime.fromisoformat(inner.replace("Z", "+00:00")).astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


_EXTENDED = frozenset({"$oid", "$date", "$numberLong", "$numberInt", "$numberDouble"})


def text_of(value: Any) -> bytes:
    """A value as JSON, the same for equal values once they are canonical."""
    try:
        return _encode(value)
    except (OverflowError, UnicodeEncodeError, ValueError):  # integers beyond 64 bits for one
        return json.dumps(value, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
