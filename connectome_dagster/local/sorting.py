"""Sorting documents as MongoDB does: several fields, dotted paths, arrays, missing values.

An array stands for its smallest element in an ascending sort and its largest in a descending one;
an empty array sorts below null. Documents with equal keys keep their order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import total_ordering
from typing import Any

from connectome_dagster.local.paths import array_index, split_path
from connectome_dagster.local.refusal import QueryError, shown
from connectome_dagster.local.values import EMPTY_ARRAY_SORT_KEY, MISSING, Key, sort_key

__all__ = ["compile_sort"]

Document = dict[str, Any]
Sort = Mapping[str, Any] | Sequence[tuple[str, Any]]


def compile_sort(
    sort: Sort | None, limit: int = 0
) -> Callable[[Iterable[Document]], list[Document]]:
    """Turn a sort document into a function from documents to their sorted list.

    Args:
        sort: `{path: 1 or -1}`, or pairs of them; None or empty keeps the order.
        limit: how many documents are wanted, 0 for all. With a limit the function keeps only so
            many documents at a time.

    Raises:
        QueryError: a direction that is neither 1 nor -1, a bad path, a negative limit; while
            sorting, a document with arrays on two of the paths side by side.

    Example:
        >>> compile_sort({"n": -1}, limit=1)([{"n": 1}, {"n": 2}])
        [{'n': 2}]
    """
    if limit < 0:
        raise QueryError(f"limit must not be negative, not {limit}")
    fields = _parse_sort(sort)
    if not fields:
        return lambda documents: list(_first(documents, limit))
    key = _key_function([split_path(path) for path, _ in fields], [d for _, d in fields])
    directions = [direction for _, direction in fields]
    if limit:
        return _top(key, directions, limit)
    return _full(key, directions)


def _first(documents: Iterable[Document], limit: int) -> Iterable[Document]:
    if not limit:
        return documents
    return [document for document, _ in zip(documents, range(limit), strict=False)]


def _parse_sort(sort: Sort | None) -> list[tuple[str, int]]:
    if sort is None:
        return []
    if isinstance(sort, Mapping):
        pairs = list(sort.items())
    elif isinstance(sort, Sequence) and not isinstance(sort, (str, bytes)):
        pairs = [tuple(pair) for pair in sort]
    else:
        raise QueryError(f"sort must be an object of field: 1 or -1, not {shown(sort)}")
    fields: list[tuple[str, int]] = []
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise QueryError(f"sort takes pairs of a field and 1 or -1, not {shown(pair)}")
        path, direction = pair
        if isinstance(direction, Mapping):
            raise QueryError(f"sort: {shown(direction)} on {path!r} is not supported; use 1 or -1")
        if isinstance(direction, bool) or direction not in (1, -1):
            raise QueryError(f"sort direction of {path!r} must be 1 or -1, not {shown(direction)}")
        if path == "$natural":
            if len(pairs) > 1:
                raise QueryError("sort: $natural cannot stand beside other fields")
            return [("$natural", int(direction))]
        _check_path(path)
        fields.append((path, int(direction)))
    return fields


def _check_path(path: str) -> None:
    for part in path.split("."):
        if not part:
            raise QueryError(f"sort: the path {path!r} has an empty field name")
        if part[0] == "$":
            raise QueryError(f"sort: the field name {part!r} in {path!r} must not start with $")


def _top(
    key: Callable[[Document], Any], directions: list[int], limit: int
) -> Callable[[Iterable[Document]], list[Document]]:
    if all(direction == 1 for direction in directions):
        return lambda documents: heapq.nsmallest(limit, documents, key=key)
    if all(direction == -1 for direction in directions):
        return lambda documents: heapq.nlargest(limit, documents, key=key)

    def mixed_key(document: Document) -> tuple[Any, ...]:
        parts = zip(key(document), directions, strict=True)
        return tuple([part if way == 1 else _Falling(part) for part, way in parts])

    return lambda documents: heapq.nsmallest(limit, documents, key=mixed_key)


def _full(
    key: Callable[[Document], Any], directions: list[int]
) -> Callable[[Iterable[Document]], list[Document]]:
    if len(set(directions)) == 1:
        return lambda documents: sorted(documents, key=key, reverse=directions[0] == -1)

    def by_every_field(documents: Iterable[Document]) -> list[Document]:
        # one stable pass per field, the last first: quicker than keys that turn their order round
        pairs = [(key(document), document) for document in documents]
        for position in range(len(directions) - 1, -1, -1):

            def part(pair: tuple[Any, Document], at: int = position) -> Any:
                return pair[0][at]

            pairs.sort(key=part, reverse=directions[position] == -1)
        return [document for _, document in pairs]

    return by_every_field


@total_ordering
class _Falling:
    """A key in the opposite order, for a limit with mixed directions."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Falling) and bool(self.key == other.key)

    def __lt__(self, other: _Falling) -> bool:
        return bool(other.key < self.key)

    __hash__ = None  # type: ignore[assignment]  # only ever compared


def _key_function(paths: list[tuple[str, ...]], directions: list[int]) -> Callable[[Document], Any]:
    """The sort key of a document: a tuple with one part for each path."""
    if paths == [("$natural",)]:
        return lambda _: ()
    if len(paths) == 1 and len(paths[0]) == 1:
        return _one_field(paths[0][0], directions[0])
    return lambda document: _compound_key(document, paths, directions)


def _one_field(name: str, direction: int) -> Callable[[Document], Any]:
    choose = min if direction == 1 else max

    def key(document: Document) -> tuple[Key]:
        value = document.get(name, MISSING)
        if type(value) is list:
            return (choose(map(sort_key, value)) if value else EMPTY_ARRAY_SORT_KEY,)
        return (sort_key(value),)

    return key


def _compound_key(
    document: Document, paths: list[tuple[str, ...]], directions: list[int]
) -> tuple[Key, ...]:
    choose = {1: min, -1: max}
    return tuple(
        choose[direction](_keys_at(document, path))
        for path, direction in zip(paths, directions, strict=True)
    )


def _keys_at(value: Any, path: tuple[str, ...]) -> list[Key]:
    for position, part in enumerate(path):
        if not isinstance(value, dict):
            return [sort_key(None)]
        value = value.get(part, MISSING)
        if type(value) is list:
            return _keys_in(value, path[position + 1 :])
    return [sort_key(value)]


def _keys_in(array: list[Any], rest: tuple[str, ...]) -> list[Key]:
    if not rest:
        return [sort_key(item) for item in array] or [EMPTY_ARRAY_SORT_KEY]
    index = array_index(rest[0])
    if index is not None and index < len(array):
        item = array[index]
        if len(rest) == 1:
            return [sort_key(item)]
        return _keys_at(item, rest[1:])
    return [key for item in array for key in _keys_at(item, rest)] or [sort_key(None)]
