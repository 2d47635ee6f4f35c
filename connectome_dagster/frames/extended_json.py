"""MongoDB Extended JSON v2: objects such as `{"$oid": "…"}` that stand for one value.

Both forms, canonical and relaxed, as the specification has them ("MongoDB Extended JSON (v2)").
Knows which Python value a form means; what Arrow makes of it is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_INT64 = range(-(2**63), 2**63)
_HEX24 = re.compile(r"[0-9a-fA-F]{24}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# No int64 has more digits, leading zeros apart; Python refuses to read some thousands of them.
_INTEGER = re.compile(r"-?[0-9]{1,40}")
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)",
    re.ASCII,
)


class Extended(NamedTuple):
    """One value that was written as Extended JSON.

    Attributes:
        kind: `"oid"`, `"timestamp"` (value: milliseconds since the epoch), `"int"`, `"float"`,
            `"decimal"`, `"binary"`, `"uuid"` (16 bytes), `"string"` (a symbol), `"null"` (an
            undefined) or `"extended"` (any other form).
        value: as the kind says; None for `"extended"`, whose text stands for itself.
    """

    kind: str
    value: Any


def recognise(document: Mapping[str, Any]) -> Extended | None:
    """Tell what an object stands for, None if it is an ordinary object.

    An object that only looks like a form, such as `{"$oid": 5}`, is an ordinary object: its
    members are kept.
    """
    form = _FORMS.get(next(iter(document), ""))
    return form(document) if form else None


def _only(
    name: str, read: Callable[[Any], Extended | None]
) -> Callable[[Mapping[str, Any]], Extended | None]:
    return lambda document: read(document[name]) if len(document) == 1 else None


def _oid(value: Any) -> Extended | None:
    return Extended("oid", value) if isinstance(value, str) and _HEX24.fullmatch(value) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value) and int(value) in _INT64:
        return int(value)
    return None


def _number(value: Any) -> Extended | None:
    integer = _integer(value)
    return None if integer is None else Extended("int", integer)


def _double(value: Any) -> Extended | None:
    if not _is_number_text(value):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    # A number that no float holds keeps its text.
    beyond = math.isinf(number) and "inf" not in value.lower()
    return None if beyond else Extended("float", number)


def _decimal(value: Any) -> Extended | None:
    if not _is_number_text(value):
        return None
    try:
        return Extended("decimal", Decimal(value))
    except InvalidOperation:
        return None


def _is_number_text(value: Any) -> bool:
    """Whether Python's readers of numbers may look: they take spaces, `_` and any digits."""
    return (
        isinstance(value, str)
        and value.isascii()
        and "_" not in value
        and not any(map(str.isspace, value))
    )


def _date(value: Any) -> Extended | None:
    if isinstance(value, str):
        milliseconds = parse_instant(value)
    elif isinstance(value, dict) and set(value) == {"$numberLong"}:
        milliseconds = _integer(value["$numberLong"])
    elif type(value) is int and value in _INT64:
        milliseconds = value
    else:
        return None
    return None if milliseconds is None else Extended("timestamp", milliseconds)


def parse_instant(text: str) -> int | None:
    """Milliseconds since the epoch of an ISO instant with zone; None if it is none.

    Digits below the millisecond would be lost, so an instant that has them is none.
    """
    match = _INSTANT.fullmatch(text)
    if not match:
        return None
    *parts, fraction, zone = match.groups()
    fraction = (fraction or "").ljust(3, "0")
    if fraction[3:].strip("0"):
        return None
    try:
        instant = datetime(*map(int, parts), tzinfo=_zone(zone))  # type: ignore[misc, arg-type]  # six numbers by the pattern
    except ValueError:
        return None
    return (instant - _EPOCH) // _MILLISECOND + int(fraction[:3])


def _zone(text: str) -> timezone:
    if text == "Z":
        return timezone.utc
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _binary(document: Mapping[str, Any]) -> Extended | None:
    """`{"$binary": {"base64": …, "subType": …}}`, and the older form with `$type` beside it."""
    inner = document["$binary"]
    if len(document) == 1 and isinstance(inner, dict) and set(inner) == {"base64", "subType"}:
        text, subtype = inner["base64"], inner["subType"]
    elif len(document) == 2 and "$type" in document:
        text, subtype = inner, document["$type"]
    else:
        return None
    if not isinstance(text, str) or not isinstance(subtype, str):
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if subtype.lstrip("0") == "4" and len(data) == 16:
        return Extended("uuid", data)
    # Another subtype than the generic one is part of the value: its text keeps it.
    return Extended("binary", data) if subtype.strip("0") == "" else Extended("extended", None)


def _uuid(value: Any) -> Extended | None:
    if isinstance(value, str) and _UUID.fullmatch(value):
        return Extended("uuid", bytes.fromhex(value.replace("-", "")))
    return None


def _other(
    fits: Callable[[Any], bool], name: str
) -> Callable[[Mapping[str, Any]], Extended | None]:
    """A form with this one member, if its value fits; its text stands for itself."""
    return _only(name, lambda value: Extended("extended", None) if fits(value) else None)


def _symbol(value: Any) -> Extended | None:
    return Extended("string", value) if isinstance(value, str) else None


def _undefined(value: Any) -> Extended | None:
    return Extended("null", None) if value is True else None


def _code(document: Mapping[str, Any]) -> Extended | None:
    is_code = set(document) <= {"$code", "$scope"} and isinstance(document.get("$code"), str)
    is_scope = isinstance(document.get("$scope", {}), dict)
    return Extended("extended", None) if is_code and is_scope else None


def _is_one(value: Any) -> bool:
    return type(value) is int and value == 1


def _holds(type_: type, *names: str) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and set(value) == set(names)
        and all(type(each) is type_ for each in value.values())
    )


def _is_pointer(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"$ref", "$id"}


_FORMS: dict[str, Callable[[Mapping[str, Any]], Extended | None]] = {
    "$oid": _only("$oid", _oid),
    "$date": _only("$date", _date),
    "$numberInt": _only("$numberInt", _number),
    "$numberLong": _only("$numberLong", _number),
    "$numberDouble": _only("$numberDouble", _double),
    "$numberDecimal": _only("$numberDecimal", _decimal),
    "$binary": _binary,
    "$type": lambda document: _binary(document) if "$binary" in document else None,
    "$uuid": _only("$uuid", _uuid),
    "$timestamp": _other(_holds(int, "t", "i"), "$timestamp"),
    "$regularExpression": _other(_holds(str, "pattern", "options"), "$regularExpression"),
    "$symbol": _only("$symbol", _symbol),
    "$code": _code,
    "$scope": _code,
    "$dbPointer": _other(_is_pointer, "$dbPointer"),
    "$minKey": _other(_is_one, "$minKey"),
    "$maxKey": _other(_is_one, "$maxKey"),
    "$undefined": _only("$undefined", _undefined),
}
