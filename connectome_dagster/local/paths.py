"""Dotted paths through documents and arrays, as MongoDB's filters walk them.

Knows how a path reaches values; what is asked of a value is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connectome_dagster.local.values import MISSING

__all__ = ["array_index", "matcher", "split_path"]

Parts = tuple[str, ...]
Test = Callable[[Any], bool]
Predicate = Callable[[Any], bool]


def split_path(path: str) -> Parts:
    """The field names of a dotted path."""
    return tuple(path.split("."))


def array_index(part: str) -> int | None:
    """The array position that a field name means, None if it means none (`"01"` does not)."""
    if part.isascii() and part.isdigit() and (part[0] != "0" or part == "0"):
        return int(part)
    return None


def matcher(path: str, test: Test, *, into_array: bool) -> Predicate:
    """A function that says whether any value at the path passes the test.

    A value that is not there is tested as `MISSING`. Arrays on the way are searched: each document
    in them by the rest of the path, and the element whose position the next field name gives.

    Args:
        path: dotted path.
        test: asks one value.
        into_array: True if an array at the end of the path also passes when one of its elements
            does, False if only the array itself is asked.
    """
    parts = split_path(path)
    if len(parts) == 1:
        return _field_matcher(path, test, into_array)
    return lambda document: _any_at(document, parts, test, into_array)


def _field_matcher(name: str, test: Test, into_array: bool) -> Predicate:
    if not into_array:
        return lambda document: test(document.get(name, MISSING))

    def matches(document: dict[str, Any]) -> bool:
        value = document.get(name, MISSING)
        if type(value) is list and any(map(test, value)):
            return True
        return test(value)

    return matches


def _any_at(document: dict[str, Any], parts: Parts, test: Test, into_array: bool) -> bool:
    value: Any = document
    for position, part in enumerate(parts):
        if not isinstance(value, dict):
            return test(MISSING)
        value = value.get(part, MISSING)
        if type(value) is list:
            if position + 1 < len(parts):
                return _any_in_array(value, parts[position + 1 :], test, into_array)
            return (into_array and any(map(test, value))) or test(value)
    return test(value)


def _any_in_array(array: list[Any], rest: Parts, test: Test, into_array: bool) -> bool:
    """Whether a path that goes on inside an array finds a value that passes.

    Elements that are neither documents nor at the named position yield nothing, not even a
    missing value: `{"a.b": None}` does not match `{"a": [1]}`.
    """
    index = array_index(rest[0])
    for position, element in enumerate(array):
        if isinstance(element, dict):
            if _any_at(element, rest, test, into_array):
                return True
            if position == index and (
                test(element) if len(rest) == 1 else _any_at(element, rest[1:], test, into_array)
            ):
                return True
        elif position == index:
            if len(rest) == 1:
                if test(element):
                    return True
            elif type(element) is list and _any_in_array(element, rest[1:], test, into_array):
                return True
    return False
