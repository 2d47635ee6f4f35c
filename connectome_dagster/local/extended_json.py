"""MongoDB's Extended JSON v2, both forms, between decoded JSON and BSON values.

Works on decoded JSON (dicts, lists, scalars): reads and writes no text. Knows no query language:
`{"$regex": …}` stays a document, since in a filter it is an operator.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

__all__ = ["from_json_value", "milliseconds", "regex_parts", "to_json_value"]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_DEPTH = 200  # MongoDB's own bound on the nesting of BSON; keeps recursion far from Python's

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_NAIVE = datetime(1970, 1, 1)
_FIRST_DATE = (datetime(1, 1, 1, tzinfo=timezone.utc) - _EPOCH) // timedelta(milliseconds=1)
_LAST_DATE = (datetime(9999, 12, 31, tzinfo=timezone.utc) - _EPOCH) // timedelta(milliseconds=1)
_END_OF_LAST_DATE = _LAST_DATE + 86_400_000 - 1
_INTEGER = re.compile(r"-?[0-9]+\Z")
_DOUBLE = re.compile(r"(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\Z")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})\Z"
)
_REGEX_FLAGS = ((re.I, "i"), (re.L, "l"), (re.M, "m"), (re.S, "s"), (re.U, "u"), (re.X, "x"))


def milliseconds(value: datetime) -> int:
    """Milliseconds since 1970 UTC, rounded down as BSON stores them; naive means UTC."""
    since = value - (_EPOCH_NAIVE if value.tzinfo is None else _EPOCH)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def regex_parts(value: Any) -> tuple[str, str]:
    """Pattern and options, the options' letters sorted, of a `bson.Regex` or a compiled pattern."""
    pattern, flags = value.pattern, value.flags
    if isinstance(value, re.Pattern):
        flags &= ~re.U  # Python sets it on every pattern of text
    if isinstance(pattern, bytes):
        pattern = pattern.decode("utf-8", "surrogateescape")
    return pattern, "".join(letter for flag, letter in _REGEX_FLAGS if flags & flag)


def from_json_value(obj: Any, depth: int = 0) -> Any:
    """BSON value of decoded JSON, Extended JSON v2 (canonical and relaxed) understood.

    Containers without Extended JSON inside are handed back as they are, not copied.

    Args:
        obj: what a JSON parser returned.
        depth: levels of nesting around `obj`, 0 for a whole document.

    Raises:
        ValueError: an Extended JSON wrapper of a wrong shape, or more than 200 levels of nesting.

    Example:
        >>> from_json_value({"n": {"$numberDouble": "1"}})
        {'n': 1.0}
    """
    kind = type(obj)
    if kind is not dict and kind is not list:
        return obj
    if depth > MAX_DEPTH:
        raise ValueError(f"the document is nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return _from_items(obj, depth)
    changed = None
    for name, item in obj.items():
        if name[:1] == "$" and name in _WRAPPERS:
            return _WRAPPERS[name](obj, name)
        inner = type(item)
        if inner is dict or inner is list:
            value = from_json_value(item, depth + 1)
            if value is not item:
                if changed is None:
                    changed = dict(obj)
                changed[name] = value
    return obj if changed is None else changed


def _from_items(items: list[Any], depth: int) -> list[Any]:
    changed = None
    for position, item in enumerate(items):
        inner = type(item)
        if inner is dict or inner is list:
            value = from_json_value(item, depth + 1)
            if value is not item:
                if changed is None:
                    changed = list(items)
                changed[position] = value
    return items if changed is None else changed


def _wrong(name: str, expected: str) -> ValueError:
    return ValueError(f"Extended JSON: {name} takes {expected}")


def _only(obj: dict[str, Any], name: str, *others: str) -> Any:
    """The wrapper's payload, after a check that nothing else stands beside it."""
    for key in obj:
        if key != name and key not in others:
            raise ValueError(f"Extended JSON: {name} cannot stand beside the field {key!r}")
    return obj[name]


def _text(obj: dict[str, Any], name: str, *others: str) -> str:
    payload = _only(obj, name, *others)
    if type(payload) is not str:
        raise _wrong(name, "a string")
    return payload


def _integer(obj: dict[str, Any], name: str, low: int, high: int) -> int:
    text = _text(obj, name)
    if len(text) > 20 or not _INTEGER.match(text) or not low <= int(text) <= high:
        raise _wrong(name, f"a string with an integer from {low} to {high}")
    return int(text)


def _object_id(obj: dict[str, Any], name: str) -> ObjectId:
    text = _text(obj, name)
    if not ObjectId.is_valid(text):
        raise _wrong(name, "a string of 24 hexadecimal digits")
    return ObjectId(text)


def _double(obj: dict[str, Any], name: str) -> float:
    text = _text(obj, name)
    if text in {"NaN", "Infinity", "-Infinity"} or _DOUBLE.match(text):
        return float(text)
    raise _wrong(name, "a string with a number, NaN, Infinity or -Infinity")


def _decimal(obj: dict[str, Any], name: str) -> Decimal128:
    text = _text(obj, name)
    if not any(letter.isspace() for letter in text):
        try:
            return Decimal128(text)
        except (ArithmeticError, ValueError):
            pass
    raise _wrong(name, "a string with a decimal number of at most 34 digits")


def _date(obj: dict[str, Any], name: str) -> datetime | DatetimeMS:
    payload = _only(obj, name)
    if type(payload) is dict:
        if list(payload) != ["$numberLong"]:
            raise _wrong(name, 'an ISO date and time with zone or {"$numberLong": …}')
        return date_of(_integer(payload, "$numberLong", INT64_MIN, INT64_MAX))
    found = _DATE.match(payload) if type(payload) is str else None
    if found is None:
        raise _wrong(name, 'an ISO date and time with zone or {"$numberLong": …}')
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    millisecond = int(((found[7] or "") + "000")[:3])
    zone = found[8]
    offset = 0
    if zone != "Z":
        offset = (int(zone[1:3]) * 60 + int(zone[-2:])) * (-1 if zone[0] == "-" else 1)
    try:
        local = datetime(year, month, day, hour, minute, int(found[6] or 0), tzinfo=timezone.utc)
    except ValueError:
        local = None
    if local is None:
        raise _wrong(name, "a date that exists")
    return date_of(milliseconds(local) + millisecond - offset * 60_000)


def date_of(since_epoch: int) -> datetime | DatetimeMS:
    """The date of so many milliseconds since 1970 UTC; `DatetimeMS` outside Python's years."""
    if _FIRST_DATE <= since_epoch <= _END_OF_LAST_DATE:
        return _EPOCH + timedelta(milliseconds=since_epoch)
    return DatetimeMS(since_epoch)


def _binary(obj: dict[str, Any], name: str) -> bytes:
    if type(obj[name]) is str:  # Extended JSON v1: {"$binary": base64, "$type": hex}
        encoded, subtype = _text(obj, name, "$type"), obj.get("$type", "00")
    else:
        payload = _only(obj, name)
        if type(payload) is not dict or set(payload) != {"base64", "subType"}:
            raise _wrong(name, '{"base64": …, "subType": …}')
        encoded, subtype = payload["base64"], payload["subType"]
    if type(encoded) is not str or type(subtype) is not str:
        raise _wrong(name, "strings: base64 and the subtype in hexadecimal")
    if not re.match(r"[0-9a-fA-F]{1,2}\Z", subtype):
        raise _wrong(name, "a subtype of one or two hexadecimal digits")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise _wrong(name, "valid base64")
    number = int(subtype, 16)
    binary: bytes = Binary(data, number) if number else data
    return binary


def _uuid(obj: dict[str, Any], name: str) -> Any:
    text = _text(obj, name)
    if not re.match(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z", text):
        raise _wrong(name, "a UUID in its usual form")
    return Binary(uuid.UUID(text).bytes, 4)


def _regex(obj: dict[str, Any], name: str) -> Regex[str]:
    payload = _only(obj, name)
    if type(payload) is not dict or set(payload) != {"pattern", "options"}:
        raise _wrong(name, '{"pattern": …, "options": …}')
    pattern, options = payload["pattern"], payload["options"]
    if type(pattern) is not str or type(options) is not str:
        raise _wrong(name, "strings as pattern and options")
    if "\0" in pattern or any(letter not in "ilmsux" for letter in options):
        raise _wrong(name, "a pattern without NUL and options among i, l, m, s, u, x")
    flags = sum(int(flag) for flag, letter in _REGEX_FLAGS if letter in options)
    return Regex(pattern, flags)


def _timestamp(obj: dict[str, Any], name: str) -> Timestamp:
    payload = _only(obj, name)
    if type(payload) is dict and set(payload) == {"t", "i"}:
        time, increment = payload["t"], payload["i"]
        if all(type(part) is int and 0 <= part < 2**32 for part in (time, increment)):
            return Timestamp(time, increment)
    raise _wrong(name, '{"t": seconds, "i": increment}, both from 0 to 4294967295')


def _code(obj: dict[str, Any], name: str) -> Any:
    text = _text(obj, name, "$scope")
    if "$scope" not in obj:
        return Code(text)
    scope = from_json_value(obj["$scope"], 1)
    if type(scope) is not dict:
        raise _wrong("$scope", "a document")
    return Code(text, scope)


def _symbol(obj: dict[str, Any], name: str) -> str:
    return _text(obj, name)


def _pointer(obj: dict[str, Any], name: str) -> dict[str, Any]:
    payload = _only(obj, name)
    if type(payload) is not dict or set(payload) != {"$ref", "$id"}:
        raise _wrong(name, '{"$ref": …, "$id": …}')
    if type(payload["$ref"]) is not str or type(payload["$id"]) is not dict:
        raise _wrong(name, "a string as $ref and an ObjectId as $id")
    return {"$ref": payload["$ref"], "$id": from_json_value(payload["$id"], 1)}


def _constant(value: Any, mark: Any) -> Callable[[dict[str, Any], str], Any]:
    def unwrap(obj: dict[str, Any], name: str) -> Any:
        payload = _only(obj, name)
        if type(payload) is not type(mark) or payload != mark:
            raise _wrong(name, f"nothing but {'true' if mark is True else mark}")
        return value

    return unwrap


_WRAPPERS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "$oid": _object_id,
    "$date": _date,
    "$numberInt": lambda obj, name: _integer(obj, name, INT32_MIN, INT32_MAX),
    "$numberLong": lambda obj, name: Int64(_integer(obj, name, INT64_MIN, INT64_MAX)),
    "$numberDouble": _double,
    "$numberDecimal": _decimal,
    "$binary": _binary,
    "$uuid": _uuid,
    "$regularExpression": _regex,
    "$timestamp": _timestamp,
    "$code": _code,
    "$symbol": _symbol,
    "$dbPointer": _pointer,
    "$minKey": _constant(MinKey(), 1),
    "$maxKey": _constant(MaxKey(), 1),
    "$undefined": _constant(None, True),
}


def to_json_value(value: Any, relaxed: bool = True) -> Any:
    """Extended JSON v2 of a BSON value, as something a JSON encoder takes.

    Args:
        value: any BSON value.
        relaxed: plain JSON numbers and ISO dates where they say everything; False for the
            canonical form, which keeps every type.

    Raises:
        TypeError: not a BSON value.

    Example:
        >>> to_json_value({"n": 5, "x": float("inf")})
        {'n': 5, 'x': {'$numberDouble': 'Infinity'}}
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict:
        return {name: to_json_value(item, relaxed) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [to_json_value(item, relaxed) for item in value]
    for candidate in kind.__mro__:
        write = _WRITERS.get(candidate)
        if write is not None:
            return write(value, relaxed)
    raise TypeError(f"not a BSON value: {kind.__name__}")


def _write_integer(value: int, relaxed: bool) -> Any:
    if relaxed:
        return int(value)
    if INT32_MIN <= value <= INT32_MAX:
        return {"$numberInt": str(value)}
    return {"$numberLong": str(value)}


def _write_double(value: float, relaxed: bool) -> Any:
    if math.isfinite(value):
        return float(value) if relaxed else {"$numberDouble": repr(value).replace("e", "E")}
    text = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return {"$numberDouble": text}


def _write_date(value: Any, relaxed: bool) -> Any:
    since_epoch = milliseconds(value) if isinstance(value, datetime) else int(value)
    if not relaxed or not 0 <= since_epoch <= _END_OF_LAST_DATE:
        return {"$date": {"$numberLong": str(since_epoch)}}
    moment = _EPOCH + timedelta(milliseconds=since_epoch)
    fraction = f".{since_epoch % 1000:03}" if since_epoch % 1000 else ""
    return {"$date": f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"}


def _write_binary(value: bytes, _relaxed: bool) -> Any:
    encoded = base64.b64encode(value).decode("ascii")
    return {"$binary": {"base64": encoded, "subType": f"{getattr(value, 'subtype', 0):02x}"}}


def _write_regex(value: Any, _relaxed: bool) -> Any:
    pattern, options = regex_parts(value)
    return {"$regularExpression": {"pattern": pattern, "options": options}}


def _write_code(value: Code, relaxed: bool) -> Any:
    written: dict[str, Any] = {"$code": str(value)}
    if value.scope is not None:
        written["$scope"] = to_json_value(dict(value.scope), relaxed)
    return written


def _write_document(value: Mapping[str, Any], relaxed: bool) -> Any:
    return {name: to_json_value(item, relaxed) for name, item in value.items()}


_WRITERS: dict[type, Callable[[Any, bool], Any]] = {
    Int64: lambda value, relaxed: int(value) if relaxed else {"$numberLong": str(int(value))},
    int: _write_integer,
    float: _write_double,
    Decimal128: lambda value, _: {"$numberDecimal": str(value)},
    ObjectId: lambda value, _: {"$oid": str(value)},
    datetime: _write_date,
    DatetimeMS: _write_date,
    bytes: _write_binary,
    uuid.UUID: lambda value, _: _write_binary(Binary(value.bytes, 4), True),
    Regex: _write_regex,
    re.Pattern: _write_regex,
    Timestamp: lambda value, _: {"$timestamp": {"t": value.time, "i": value.inc}},
    Code: _write_code,
    str: lambda value, _: str(value),
    MinKey: lambda *_: {"$minKey": 1},
    MaxKey: lambda *_: {"$maxKey": 1},
    DBRef: lambda value, relaxed: _write_document(value.as_doc(), relaxed),
    dict: _write_document,
    list: lambda value, relaxed: [to_json_value(item, relaxed) for item in value],
}
