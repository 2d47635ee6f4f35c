"""Documents to and from JSON text, without losing a digit. Knows no HTTP and no storage.

Plain JSON takes a path of compiled code; a text with a `"$…` key goes through Extended JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec

from connectome_dagster.local.extended_json import MAX_DEPTH, from_json_value, to_json_value
from connectome_dagster.local.http_errors import BadRequest

# The integers of BSON. Python holds larger ones, MongoDB refuses them.
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
# What a check of a body looks at: the values that have values in them, and integers.
_CHECKED = frozenset([dict, list, int])

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def decode(text: bytes, what: str = "the body", *, extended: bool = True) -> tuple[Any, bool]:
    """Read JSON text.

    Args:
        text: UTF-8.
        what: what the text is, for the message of an error.
        extended: whether Extended JSON has its meaning; if not, it is documents like others.

    Returns:
        The value, and whether it is plain: made of what JSON itself has, without Extended JSON.

    Raises:
        BadRequest: the text is not JSON (NaN and Infinity are not), nests too deeply, holds an
            integer beyond 64 bits or malformed Extended JSON.

    >>> decode(b'{"amount": 10}')
    ({'amount': 10}, True)
    """
    trouble = ""
    try:
        value = _decode(text)
    except RecursionError:
        trouble = f"{what} nests deeper than {MAX_DEPTH} levels"
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        trouble = f"{what} is not JSON: {error}"
    if trouble:
        raise BadRequest(trouble)
    if type(value) in _CHECKED:
        _refuse_excess(value)
    if not extended or (b'"$' not in text and rb"\u0024" not in text):
        return value, True
    try:
        return from_json_value(value), False
    except (ValueError, TypeError, OverflowError) as error:
        trouble = f"{what} has malformed Extended JSON: {error}"
    raise BadRequest(trouble)


def decode_plainly(text: bytes) -> Any:
    """Read JSON text that this server wrote, without giving Extended JSON its meaning."""
    return _decode(text)


def encode(value: Any, *, plain: bool) -> bytes:
    """Write a value as an answer has it: compact JSON, relaxed Extended JSON where it needs to be.

    >>> encode({"amount": 10.0}, plain=True)
    b'{"amount":10.0}'
    """
    return _encode(value if plain else to_json_value(value))


def encode_exactly(value: Any, *, plain: bool) -> bytes:
    """Write a value so that `decode` gives the same value and the same BSON types."""
    return _encode(value if plain else to_json_value(value, relaxed=False))


def _refuse_excess(value: Any) -> None:
    """Refuse what BSON has no room for: more levels than it has, integers beyond 64 bits."""
    level, depth = [value], 0
    while level:
        integers = [one for one in level if type(one) is int]
        if integers and not _INT64_MIN <= min(integers) <= max(integers) <= _INT64_MAX:
            most = max(integers, key=abs)
            raise BadRequest(f"the integer {most} does not fit 64 bits, the most that BSON has")
        parents = [one for one in level if type(one) is not int] if integers else level
        if depth > MAX_DEPTH and parents:
            raise BadRequest(
                f"a value nests deeper than {MAX_DEPTH} levels, the most that BSON has"
            )
        depth += 1
        level = [
            child
            for parent in parents
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _CHECKED
        ]
