"""BSON values as Python objects: their types, brackets and total order.

A document is an insertion-ordered dict. Numbers are int (int32 or int64 by range), `bson.Int64`,
float and `bson.Decimal128`; dates are datetime (UTC) or `bson.DatetimeMS`. Knows no query language.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, final

from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from connectome_dagster.local.extended_json import (
    INT32_MAX,
    INT32_MIN,
    from_json_value,
    milliseconds,
    regex_parts,
    to_json_value,
)

__all__ = [
    "MISSING",
    "Key",
    "comparison_key",
    "equals",
    "from_json_value",
    "integer",
    "is_nan",
    "number",
    "sort_key",
    "to_json_value",
    "type_name",
]

Key = tuple[Any, ...]


@final
class Missing:
    """The value of a field that is not there; falsy, one instance: `MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()

# Brackets in BSON's order between types; the numbers are MongoDB's own canonical types.
MIN_KEY, UNDEFINED, NULL, NUMBER, STRING, OBJECT, ARRAY = -1, 0, 5, 10, 15, 20, 25
BINARY, OBJECT_ID, BOOLEAN, DATE, TIMESTAMP, REGEX = 30, 35, 40, 45, 47, 50
CODE, CODE_WITH_SCOPE, MAX_KEY = 60, 65, 127

NAN_KEY: Final[Key] = (NUMBER, 0)  # below (NUMBER, 1, x) for every other number x
NULL_KEY: Final[Key] = (NULL,)
EMPTY_ARRAY_SORT_KEY: Final[Key] = (UNDEFINED,)


def number(value: Any) -> int | float | Decimal | None:
    """The number in exact Python terms, None if the value is not a number (a bool is not).

    ints, floats and Decimals compare exactly with each other in Python.
    """
    kind = type(value)
    if kind is int or kind is float:
        return value  # type: ignore[no-any-return]  # narrowed by identity of the type
    if isinstance(value, Decimal128):
        exact = value.to_decimal()
        return Decimal("NaN") if exact.is_snan() else exact  # a signalling one would raise
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return None


def integer(value: Any) -> int | None:
    """The number as an int if it is a whole one of 64 bits, whatever its type; else None."""
    exact = number(value)
    if exact is None or is_nan(value) or not -(2**63) <= exact < 2**63:
        return None
    whole = int(exact)
    return whole if whole == exact else None


def is_nan(value: Any) -> bool:
    """True for the NaN of a double or a decimal."""
    if isinstance(value, float):
        return math.isnan(value)
    exact = value.to_decimal() if isinstance(value, Decimal128) else value
    return isinstance(exact, Decimal) and exact.is_nan()


def _float_key(value: float) -> Key:
    return (NUMBER, 1, value) if value == value else NAN_KEY  # unequal: NaN


def _decimal_key(value: Decimal128) -> Key:
    exact = value.to_decimal()
    return NAN_KEY if exact.is_nan() else (NUMBER, 1, exact)


def _document_key(value: Mapping[str, Any]) -> Key:
    fields = []
    for name, item in value.items():
        key = comparison_key(item)
        fields.append((key[0], name, key))
    return (OBJECT, tuple(fields))


def _array_key(value: Any) -> Key:
    return (ARRAY, tuple([comparison_key(item) for item in value]))


def _binary_key(value: bytes) -> Key:
    return (BINARY, len(value), getattr(value, "subtype", 0), bytes(value))


def _code_key(value: Code) -> Key:
    if value.scope is None:
        return (CODE, str(value))
    return (CODE_WITH_SCOPE, str(value), _document_key(value.scope))


_KEYS: dict[type, Callable[[Any], Key]] = {
    Missing: lambda _: (UNDEFINED,),
    type(None): lambda _: NULL_KEY,
    int: lambda value: (NUMBER, 1, value),
    float: _float_key,
    str: lambda value: (STRING, value),
    bool: lambda value: (BOOLEAN, value),
    dict: _document_key,
    list: _array_key,
    tuple: _array_key,
    Int64: lambda value: (NUMBER, 1, int(value)),
    Decimal128: _decimal_key,
    ObjectId: lambda value: (OBJECT_ID, value.binary),
    datetime: lambda value: (DATE, milliseconds(value)),
    DatetimeMS: lambda value: (DATE, int(value)),
    bytes: _binary_key,
    Binary: _binary_key,
    uuid.UUID: lambda value: (BINARY, 16, 4, value.bytes),
    Timestamp: lambda value: (TIMESTAMP, value.time, value.inc),
    Regex: lambda value: (REGEX, *regex_parts(value)),
    re.Pattern: lambda value: (REGEX, *regex_parts(value)),
    Code: _code_key,
    DBRef: lambda value: _document_key(value.as_doc()),
    MinKey: lambda _: (MIN_KEY,),
    MaxKey: lambda _: (MAX_KEY,),
}


def _key_of_subclass(value: Any) -> Key:
    for kind in type(value).__mro__[1:]:
        if kind in _KEYS:
            return _KEYS[kind](value)
    raise TypeError(f"not a BSON value: {type(value).__name__}")


def comparison_key(value: Any) -> Key:
    """A tuple that orders and equals as BSON values do; hashable, its first item the type bracket.

    Between types the order is MongoDB's: MinKey, missing, null, numbers, string, object, array,
    binary, ObjectId, bool, date, timestamp, regex, code, MaxKey. Numbers compare across their
    types, NaN below all of them; documents field by field in order (type, name, value).

    Args:
        value: any BSON value as the module describes them, or `MISSING`.

    Raises:
        TypeError: not a BSON value.

    Example:
        >>> comparison_key(1) == comparison_key(1.0) != comparison_key(True)
        True
    """
    make = _KEYS.get(type(value))
    return make(value) if make is not None else _key_of_subclass(value)


def sort_key(value: Any) -> Key:
    """`comparison_key`, but a missing value counts as null, as it does in a sort.

    An array is compared as a whole here; `sorting` picks the element that represents it.

    Example:
        >>> sort_key(MISSING) == sort_key(None) < sort_key(-1)
        True
    """
    return NULL_KEY if value is MISSING else comparison_key(value)


def equals(left: Any, right: Any) -> bool:
    """Equality of BSON values: 1 equals 1.0 and not true, NaN equals NaN, field order counts."""
    return comparison_key(left) == comparison_key(right)


_TYPE_NAMES: dict[int, str] = {
    MIN_KEY: "minKey",
    UNDEFINED: "missing",
    NULL: "null",
    STRING: "string",
    OBJECT: "object",
    ARRAY: "array",
    BINARY: "binData",
    OBJECT_ID: "objectId",
    BOOLEAN: "bool",
    DATE: "date",
    TIMESTAMP: "timestamp",
    REGEX: "regex",
    CODE: "javascript",
    CODE_WITH_SCOPE: "javascriptWithScope",
    MAX_KEY: "maxKey",
}


def type_name(value: Any) -> str:
    """Name of the value's type as `$type` spells it; `"missing"` for `MISSING`."""
    bracket = comparison_key(value)[0]
    if bracket != NUMBER:
        return _TYPE_NAMES[bracket]
    if isinstance(value, float):
        return "double"
    if isinstance(value, Decimal128):
        return "decimal"
    return "int" if type(value) is int and INT32_MIN <= value <= INT32_MAX else "long"
