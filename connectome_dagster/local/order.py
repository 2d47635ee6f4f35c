"""Documents in the order of `_id`, kept sorted: what a page after page by `_id` reads from.

Knows neither filters nor storage.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from connectome_dagster.local.values import Key, sort_key

Row = TypeVar("Row")


class IdOrder(Generic[Row]):
    """Rows sorted by their keys, no two of which are equal.

    Args:
        rows: pairs of a row's key, the `sort_key` of its `_id`, and the row.

    >>> order = IdOrder([(sort_key("b"), "second"), (sort_key("a"), "first")])
    >>> order.put(sort_key("c"), "third")
    >>> list(order.walk(1, {"_id": {"$gt": "b"}})), list(order.walk(-1, {}))
    (['second', 'third'], ['third', 'second', 'first'])
    """

    def __init__(self, rows: Iterable[tuple[Key, Row]]) -> None:
        ordered = sorted(rows, key=lambda pair: pair[0])
        self._keys = [key for key, _ in ordered]
        self._rows = [row for _, row in ordered]

    def put(self, key: Key, row: Row) -> None:
        """Add a row, or put it in the place of the one with this key."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            self._rows[place] = row
        else:
            self._keys.insert(place, key)
            self._rows.insert(place, row)

    def remove(self, key: Key) -> None:
        """Take the row with this key out."""
        place = bisect_left(self._keys, key)
        del self._keys[place]
        del self._rows[place]

    def walk(self, direction: int, query: dict[str, Any]) -> list[Row]:
        """All rows that may match a filter, and perhaps more, rising (1) or falling (-1).

        Args:
            direction: 1 or -1.
            query: a filter, whose bounds on `_id` narrow the walk from both ends.
        """
        first, last = 0, len(self._rows)
        for operator, value in _bounds(query):
            if operator in ("$gt", "$gte"):
                first = max(first, bisect_left(self._keys, sort_key(value)))
            else:
                last = min(last, bisect_right(self._keys, sort_key(value)))
        return self._rows[first:last] if direction == 1 else self._rows[first:last][::-1]


def _bounds(query: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The comparisons of `_id` that every match must pass."""
    for name, condition in query.items():
        if name == "$and":
            for part in condition:
                yield from _bounds(part)
        elif name == "_id" and isinstance(condition, dict):
            for operator, value in condition.items():
                if operator in ("$gt", "$gte", "$lt", "$lte"):
                    yield operator, value
