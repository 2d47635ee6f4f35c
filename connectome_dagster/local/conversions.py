"""Conversions between BSON types as MongoDB's `$convert` documents them.

Knows values, and neither expressions nor documents. A pair of types that the manual does not list,
and text in another form than those it shows, is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal
from typing import Any

from bson import Decimal128, Int64, ObjectId

from connectome_dagster.local.extended_json import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    date_of,
    milliseconds,
)
from connectome_dagster.local.refusal import shown
from connectome_dagster.local.values import number, type_name

__all__ = ["TARGETS", "Unconvertible", "convert"]

# The types that `to` may name, and their numbers.
TARGETS = {
    1: "double", 2: "string", 7: "objectId", 8: "bool", 9: "date", 16: "int", 18: "long",
    19: "decimal",
}  # fmt: skip

_DIGITS_OF_A_DOUBLE = 15  # MongoDB gives a decimal that is made of a double so many

_WHOLE = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf(inity)?|nan)", re.I)
_DATE = re.compile(
    r"(\d{4})-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
    r"(?: ?(Z|[+-]\d\d:?(?:\d\d)?))?)?)?",
    re.ASCII,
)


class Unconvertible(Exception):  # turned into a refusal by who evaluates, or into `onError`
    """A value has no counterpart in the other type."""


def convert(value: Any, to: str) -> Any:
    """The value as another type.

    Args:
        value: any BSON value but null.
        to: one of `TARGETS`.

    Raises:
        Unconvertible: it has no counterpart there.

    Example:
        >>> convert("5ab9cbfa31c2ab715d42129e", "objectId")
        ObjectId('5ab9cbfa31c2ab715d42129e')
    """
    kind = type_name(value)
    if kind == to:
        return value
    found = _CONVERSIONS.get((_FAMILIES.get(kind, kind), to))
    # An int is no number of milliseconds: only a long, a double or a decimal is.
    if found is None or (kind, to) == ("int", "date"):
        raise Unconvertible(f"Unsupported conversion from {kind} to {to}")
    return found(value)


def _whole(low: int, high: int, make: Callable[[int], Any]) -> Callable[[Any], Any]:
    def converted(value: Any) -> Any:
        exact = number(value)
        if not isinstance(exact, int) and not math.isfinite(exact or 0):
            raise Unconvertible(f"Attempt to convert {exact} to an integer type")
        whole = int(exact or 0)
        if not low <= whole <= high:
            raise Unconvertible(f"Conversion would overflow target type: {value}")
        return make(whole)

    return converted


def _parsed_whole(convert_number: Callable[[Any], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        if not _WHOLE.fullmatch(text):
            raise Unconvertible(f"Failed to parse number {shown(text)}")
        # Python converts a few thousand digits only, leading zeros counted.
        digits = text.lstrip("+-").lstrip("0") or "0"
        if len(digits) > len(str(INT64_MAX)):
            raise Unconvertible(f"Failed to parse number {shown(text)}: overflow")
        return convert_number(-int(digits) if text[0] == "-" else int(digits))

    return parsed


def _parsed_double(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise Unconvertible(f"Failed to parse number {shown(text)}")
    found = float(text)
    if math.isinf(found) and "n" not in text.lower():
        raise Unconvertible(f"Failed to parse number {shown(text)}: out of range")
    return found


def _double(value: Any) -> float:
    exact = number(value)
    found = float(exact or 0)
    if math.isinf(found) and isinstance(exact, Decimal) and exact.is_finite():
        raise Unconvertible(f"Conversion would overflow target type: {value}")
    return found


def _decimal(value: Any) -> Decimal128:
    exact = number(value)
    if not isinstance(exact, float) or not math.isfinite(exact) or exact == 0:
        return Decimal128(Decimal(exact or 0))
    rounded = Context(prec=_DIGITS_OF_A_DOUBLE).create_decimal_from_float(exact)
    step = Decimal((0, (1,), rounded.adjusted() - _DIGITS_OF_A_DOUBLE + 1))
    return Decimal128(rounded.quantize(step, context=Context(prec=34)))


def _parsed_decimal(text: str) -> Decimal128:
    if _FLOAT.fullmatch(text):
        try:
            return Decimal128(text)
        except (ArithmeticError, ValueError):  # more digits or a larger exponent than there are
            pass
    raise Unconvertible(f"Failed to parse number {shown(text)} to a decimal")


def _since_epoch(value: Any) -> int:
    return milliseconds(value) if isinstance(value, datetime) else int(value)


def _parsed_date(text: str) -> Any:
    parts = _DATE.fullmatch(text.strip(" "))
    if parts is None:
        raise Unconvertible(f"Error parsing date string {shown(text)}")
    year, month, day, hour, minute, second = (int(part or 0) for part in parts.groups()[:6])
    thousandths = int(((parts[7] or "") + "000")[:3])
    try:
        moment = datetime(year, month, day or 1, hour, minute, second, tzinfo=timezone.utc)
        local = milliseconds(moment) + thousandths
    except ValueError as error:
        reason = str(error)
    else:
        return date_of(local - _offset(parts[8] or "Z") // timedelta(milliseconds=1))
    raise Unconvertible(f"Error parsing date string {shown(text)}: {reason}")


def _offset(zone: str) -> timedelta:
    if zone == "Z":
        return timedelta()
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if zone[0] == "-" else offset


def _parsed_object_id(text: str) -> ObjectId:
    if not re.fullmatch(r"[0-9a-fA-F]{24}", text):
        raise Unconvertible(f"Failed to parse objectId {shown(text)}: give 24 hexadecimal digits")
    return ObjectId(text)


def _text_of_double(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return f"{value:.16g}"


def _text_of_date(value: Any) -> str:
    if not isinstance(value, datetime):
        raise Unconvertible(f"the date {int(value)} is outside of the years 1 to 9999")
    return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03}Z".rjust(24, "0")


def _text_of_number(value: Any) -> str:
    return _text_of_double(value) if isinstance(value, float) else str(value)


_FAMILIES = {"int": "number", "long": "number", "double": "number", "decimal": "number"}
_INT = _whole(INT32_MIN, INT32_MAX, int)
_LONG = _whole(INT64_MIN, INT64_MAX, Int64)
_DATE_OF = _whole(INT64_MIN, INT64_MAX, date_of)

_CONVERSIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("bool", "double"): float,
    ("bool", "int"): int,
    ("bool", "long"): Int64,
    ("bool", "decimal"): lambda value: Decimal128(str(int(value))),
    ("bool", "string"): lambda value: "true" if value else "false",
    ("number", "bool"): lambda value: bool(number(value)),
    ("number", "double"): _double,
    ("number", "int"): _INT,
    ("number", "long"): _LONG,
    ("number", "decimal"): _decimal,
    ("number", "string"): _text_of_number,
    ("number", "date"): _DATE_OF,
    ("string", "bool"): lambda _: True,
    ("string", "double"): _parsed_double,
    ("string", "int"): _parsed_whole(_INT),
    ("string", "long"): _parsed_whole(_LONG),
    ("string", "decimal"): _parsed_decimal,
    ("string", "date"): _parsed_date,
    ("string", "objectId"): _parsed_object_id,
    ("objectId", "bool"): lambda _: True,
    ("objectId", "string"): str,
    ("objectId", "date"): lambda value: value.generation_time,
    ("date", "bool"): lambda _: True,
    ("date", "string"): _text_of_date,
    ("date", "long"): lambda value: Int64(_since_epoch(value)),
    ("date", "double"): lambda value: float(_since_epoch(value)),
    ("date", "decimal"): lambda value: Decimal128(str(_since_epoch(value))),
    ("timestamp", "date"): lambda value: date_of(value.time * 1000),
}
