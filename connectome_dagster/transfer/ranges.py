"""Disjoint ranges of a cursor that together are everything. Pure.

A range is a filter: plain JSON without a credential, so that it can travel to another process.
Knows values and filters, neither requests nor who reads the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby, pairwise
from typing import Any

from connectome_dagster.frames.extended_json import parse_instant
from connectome_dagster.transfer.cursor import Filter, Order, Way, both, from_here, up_to

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Characters of a text that decide where it is divided: four tell more ranges apart than anybody
# reads at a time.
_CHARACTERS = 4
_CODES = 0x110000
_BELOW_SURROGATES = 0xD7FF


def between(first: Any, last: Any, parts: int) -> list[Any]:
    """Values that divide what lies between two values evenly, as far as numbers can tell.

    Args:
        first: the smallest value, as JSON shows it.
        last: the largest one.
        parts: how many parts are wanted.

    Returns:
        At most `parts - 1` values, rising, each above `first`; none where the two have no
        arithmetic in common.

    Example:
        >>> between(0, 100, 4)
        [25, 50, 75]
    """
    scale = _scale(first, last)
    if scale is None:
        return []
    (low, high), back = scale
    if isinstance(low, float) or isinstance(high, float):
        steps: list[Any] = [low + (high - low) * part / parts for part in range(1, parts)]
    else:
        steps = [low - (low - high) * part // parts for part in range(1, parts)]
    points = map(back, sorted({step for step in steps if low < step <= high}))
    # Two numbers may become one text.
    return [point for point, _ in groupby(points)]


_Scale = tuple[tuple[Any, Any], Callable[[Any], Any]]


def _scale(first: Any, last: Any) -> _Scale | None:
    """Two values as numbers, and how a number becomes a value again."""
    if _is_number(first) and _is_number(last):
        return (first, last), lambda number: number
    if isinstance(first, dict) and isinstance(last, dict) and len(first) == len(last) == 1:
        name = next(iter(first))
        inner = _scale(first[name], last.get(name)) if name in ("$oid", "$date") else None
        return inner and (inner[0], lambda number: {name: inner[1](number)})
    if not isinstance(first, str) or not isinstance(last, str):
        return None
    if len(first) == len(last) == 24 and _hex(first) is not None and _hex(last) is not None:
        return (_hex(first), _hex(last)), lambda number: f"{number:024x}"
    instants = parse_instant(first), parse_instant(last)
    if None not in instants:
        return instants, _instant
    return _texts(first, last)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _hex(text: str) -> int | None:
    digits = set(text) <= set("0123456789abcdefABCDEF")
    return int(text, 16) if digits else None


def _instant(milliseconds: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z".rjust(24, "0")


def _texts(first: str, last: str) -> _Scale:
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    prefix = first[:shared]

    def number(text: str) -> int:
        codes = [ord(letter) for letter in text[shared : shared + _CHARACTERS]]
        codes += [0] * (_CHARACTERS - len(codes))
        total = 0
        for code in codes:
            total = total * _CODES + code
        return total

    def text(number: int) -> str:
        letters = []
        for _ in range(_CHARACTERS):
            number, code = divmod(number, _CODES)
            is_surrogate = _BELOW_SURROGATES < code < 0xE000
            letters.append(chr(_BELOW_SURROGATES if is_surrogate else code))
        return prefix + "".join(reversed(letters)).rstrip("\0")

    return (number(first), number(last)), text


def ranges(order: Order, points: Sequence[Way]) -> list[Filter]:
    """The ranges between points, the first from the very beginning, the last to the very end.

    Args:
        order: by one field, rising.
        points: rising ways to say a value.

    Example:
        >>> from connectome_dagster.transfer.cursor import Said
        >>> ranges(Order((("n", 1),)), [(Said("plain", "number", 5),)])[1]["$or"][0]
        {'n': {'$gte': 5}}
    """
    if not points:
        return [{}]
    middle = [both(from_here(order, low), up_to(order, high)) for low, high in pairwise(points)]
    return [up_to(order, points[0]), *middle, from_here(order, points[-1])]


def outside(parts: Sequence[Filter]) -> Filter:
    """The filter of what is in none of the ranges."""
    return {"$nor": list(parts)}
