"""Sorting documents as MongoDB does: several fields, dotted paths, arrays, missing values.

An array stands for its smallest element in an ascending sort and its largest in a descending one;
an empty array sorts below null. Documents with equal keys keep their order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import total_ordering
from itertools import islice
from typing import Any

from connectome_dagster.local.paths import array_index, split_path
from connectome_dagster.local.refusal import QueryError, shown
from connectome_dagster.local.values import EMPTY_ARRAY_SORT_KEY, MISSING, Key, number, sort_key

__all__ = ["compile_sort"]

NATURAL = "$natural"  # the order in which documents are kept

Document = dict[str, Any]
Parts = tuple[str, ...]
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
        return lambda documents: _natural(documents, 1, limit)
    directions = [direction for _, direction in fields]
    if fields[0][0] == NATURAL:
        return lambda documents: _natural(documents, directions[0], limit)
    key = _key_function([split_path(path) for path, _ in fields], directions)
    return _top(key, directions, limit) if limit else _full(key, directions)


def _natural(documents: Iterable[Document], direction: int, limit: int) -> list[Document]:
    if direction == -1:
        documents = reversed(list(documents))
    return list(islice(documents, limit or None))


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
        if number(direction) not in (1, -1):
            raise QueryError(f"sort direction of {path!r} must be 1 or -1, not {shown(direction)}")
        if path != NATURAL:
            _check_path(path)
        elif len(pairs) > 1:
            raise QueryError("sort: $natural cannot stand beside other fields")
        fields.append((path, 1 if number(direction) == 1 else -1))
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
    return lambda documents: heapq.nsmallest(
        limit, documents, key=lambda document: _in_directions(key(document), directions)
    )


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


def _key_function(paths: list[Parts], directions: list[int]) -> Callable[[Document], Any]:
    """The sort key of a document: a tuple with one part for each path."""
    if len(paths) == 1 and len(paths[0]) == 1:
        return _field_key(paths[0][0], directions[0])

    def key(document: Document) -> tuple[Key, ...]:
        parts: list[Key] = []
        for path in paths:
            value, _ = _walk(document, path, 0)
            if type(value) is list:
                return _chosen(_expanded(paths, [(document, 0)] * len(paths)), directions)
            parts.append(sort_key(value))
        return tuple(parts)

    return key


def _field_key(name: str, direction: int) -> Callable[[Document], tuple[Key]]:
    choose = min if direction == 1 else max

    def key(document: Document) -> tuple[Key]:
        value = document.get(name, MISSING)
        if type(value) is list:
            return (choose(map(sort_key, value)) if value else EMPTY_ARRAY_SORT_KEY,)
        return (sort_key(value),)

    return key


def _chosen(keys: Iterator[tuple[Key, ...]], directions: list[int]) -> tuple[Key, ...]:
    """The key that comes first in the order of the sort stands for a document with arrays."""
    return min(keys, key=lambda key: _in_directions(key, directions))


def _in_directions(key: tuple[Key, ...], directions: list[int]) -> tuple[Any, ...]:
    parts = zip(key, directions, strict=True)
    return tuple([part if direction == 1 else _Falling(part) for part, direction in parts])


def _walk(value: Any, path: Parts, position: int) -> tuple[Any, int]:
    """The value at the path or the first array on the way, and how many names were used."""
    while type(value) is not list and position < len(path):
        if not isinstance(value, dict):
            return MISSING, len(path)
        value = value.get(path[position], MISSING)
        position += 1
    return value, position


# where a path goes on: a value and how many names led to it; or its key, once that is settled
_Open = tuple[Any, int]


@dataclass(frozen=True)
class _Settled:
    key: Key


def _expanded(paths: list[Parts], states: Sequence[_Open | _Settled]) -> Iterator[tuple[Key, ...]]:
    """Every combination of keys of a document, one for each element of its arrays.

    Paths through the same array take the same element; two arrays side by side are refused, since
    their elements have no order among each other.
    """
    settled: list[_Open | _Settled] = []
    holders: list[tuple[int, int]] = []
    array: list[Any] = []
    for at, (path, state) in enumerate(zip(paths, states, strict=True)):
        if isinstance(state, _Settled):
            settled.append(state)
            continue
        value, position = _walk(state[0], path, state[1])
        if type(value) is not list:
            settled.append(_Settled(sort_key(value)))
            continue
        if holders and paths[holders[0][0]][: holders[0][1]] != path[:position]:
            raise QueryError(
                "cannot sort with keys that are parallel arrays: "
                f"{'.'.join(paths[holders[0][0]])!r} and {'.'.join(path)!r}"
            )
        array = value
        holders.append((at, position))
        settled.append((value, position))
    if not holders:
        yield tuple([state.key for state in settled if isinstance(state, _Settled)])
        return
    for item in array or [_NO_ELEMENT]:
        following = list(settled)
        for at, position in holders:
            following[at] = _in_element(array, item, paths[at], position)
        yield from _expanded(paths, following)


_NO_ELEMENT = object()


def _in_element(array: list[Any], item: Any, path: Parts, position: int) -> _Open | _Settled:
    """Where a path goes on in one element of an array, or at the position that it names."""
    if position == len(path):
        return _Settled(EMPTY_ARRAY_SORT_KEY if item is _NO_ELEMENT else sort_key(item))
    name = path[position]
    index = array_index(name)
    in_document = isinstance(item, dict)
    if index is not None and index < len(array) and not (in_document and name in item):
        if position + 1 == len(path):
            # an array at a named position is compared whole, an empty one as everywhere
            at_index = array[index]
            return _Settled(EMPTY_ARRAY_SORT_KEY if at_index == [] else sort_key(at_index))
        return (array[index], position + 1)
    return (item if in_document else {}, position)
