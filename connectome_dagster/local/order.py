"""Documents in the order of one field and `_id`, kept sorted: what keyset paging reads from.

Knows the bounds that a filter sets, neither its other conditions nor storage.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from bson import Regex

from connectome_dagster.local.values import MISSING, Key, sort_key

Bounds = tuple[Key | None, Key | None]  # the lowest and the highest key; None where there is none
UNBOUNDED: Bounds = (None, None)
ABOVE_ALL: Key = (1000,)  # beyond every bracket of types


class HasDocument(Protocol):
    """What is kept in order: something with a document that has an `_id`."""

    @property
    def document(self) -> dict[str, Any]: ...


Row = TypeVar("Row", bound=HasDocument)


class FieldOrder(Generic[Row]):
    """Rows sorted by the value at a path and then by `_id`, no two of which are equal.

    Args:
        path: dotted path, or `_id` itself.
        rows: in any order.

    Attributes:
        arrays: how many rows have an array at the path or on the way to it. They have one place
            here and another one in a sort, so with any of them this order is of no use.
    """

    def __init__(self, path: str, rows: Iterable[Row]) -> None:
        self._steps = path.split(".")
        self.arrays = 0
        pairs = []
        for row in rows:
            key, through_array = self._key(row.document)
            self.arrays += through_array
            pairs.append((key, row))
        pairs.sort(key=lambda pair: pair[0])
        self._keys = [key for key, _ in pairs]
        self._rows = [row for _, row in pairs]

    def put(self, row: Row) -> None:
        """Add a row."""
        key, through_array = self._key(row.document)
        self.arrays += through_array
        place = bisect_left(self._keys, key)
        self._keys.insert(place, key)
        self._rows.insert(place, row)

    def remove(self, row: Row) -> None:
        """Take a row out; its document must be as it was when it was added."""
        key, through_array = self._key(row.document)
        self.arrays -= through_array
        place = bisect_left(self._keys, key)
        del self._keys[place]
        del self._rows[place]

    def walk(self, direction: int, bounds: Bounds) -> list[Row]:
        """All rows within the bounds, rising (1) or falling (-1)."""
        low, high = bounds
        first = 0 if low is None else bisect_left(self._keys, (low,))
        last = len(self._keys) if high is None else bisect_right(self._keys, (high, ABOVE_ALL))
        rows = self._rows[first:last]
        if direction == -1:
            rows.reverse()
        return rows

    def _key(self, document: dict[str, Any]) -> tuple[tuple[Key, ...], bool]:
        value: Any = document
        through_array = False
        for step in self._steps:
            if type(value) is not dict:
                value = MISSING
                break
            value = value.get(step, MISSING)
            if type(value) is list:
                through_array = True
                break
        key = sort_key(value)
        if self._steps == ["_id"]:
            return (key,), through_array
        return (key, sort_key(document["_id"])), through_array


def bounds(query: Mapping[str, Any], path: str) -> Bounds:
    """Where the value at a path must be in every document that matches, arrays left aside.

    Args:
        query: a filter that has been compiled, so that its shape is right.
        path: dotted path.

    >>> low, high = bounds({"n": {"$gte": 5}}, "n")
    >>> low == sort_key(5), high
    (True, None)
    """
    found = UNBOUNDED
    for name, condition in query.items():
        if name == "$and":
            for part in condition:
                found = _both(found, bounds(part, path))
        elif name == "$or":
            found = _both(found, _either([bounds(part, path) for part in condition]))
        elif name == "$expr":
            found = _both(found, _of_expression(condition, path))
        elif name == path:
            found = _both(found, _of_condition(condition))
    return found


def _both(one: Bounds, other: Bounds) -> Bounds:
    lows = [low for low in (one[0], other[0]) if low is not None]
    highs = [high for high in (one[1], other[1]) if high is not None]
    return (max(lows, default=None), min(highs, default=None))


def _either(parts: list[Bounds]) -> Bounds:
    lows = [low for low, _ in parts if low is not None]
    highs = [high for _, high in parts if high is not None]
    return (
        min(lows) if len(lows) == len(parts) else None,
        max(highs) if len(highs) == len(parts) else None,
    )


def _of_condition(condition: Any) -> Bounds:
    if isinstance(condition, Regex):
        return UNBOUNDED
    if not isinstance(condition, Mapping) or next(iter(condition), "")[:1] != "$":
        return _compared("$eq", condition)
    found = UNBOUNDED
    for operator, value in condition.items():
        found = _both(found, _compared(operator, value))
    return found


def _of_expression(expression: Any, path: str) -> Bounds:
    """Bounds of `{"$gt": ["$path", {"$literal": value}]}` and its like, nothing of any other."""
    if not isinstance(expression, Mapping) or len(expression) != 1:
        return UNBOUNDED
    ((operator, operands),) = expression.items()
    if not isinstance(operands, list) or len(operands) != 2 or operands[0] != f"${path}":
        return UNBOUNDED
    literal = operands[1]
    if not isinstance(literal, Mapping) or list(literal) != ["$literal"]:
        return UNBOUNDED
    return _compared(operator, literal["$literal"])


def _compared(operator: str, value: Any) -> Bounds:
    if operator == "$eq":
        return (sort_key(value), sort_key(value))
    if operator in {"$gt", "$gte"}:
        return (sort_key(value), None)
    if operator in {"$lt", "$lte"}:
        return (None, sort_key(value))
    return UNBOUNDED
