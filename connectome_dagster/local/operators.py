"""MongoDB's update operators, for a server that applies them in `data` (U6).

`$set`, `$setOnInsert`, `$unset`, `$inc`, `$mul`, `$min`, `$max`, `$push` and `$addToSet` (both
with `$each`), `$pull` of plain values; others are refused by name. Pure, as `update` is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from connectome_dagster.local.paths import array_index, split_path
from connectome_dagster.local.refusal import UpdateError, shown
from connectome_dagster.local.update import apply_set, build_upsert
from connectome_dagster.local.values import MISSING, comparison_key, equals

Document = dict[str, Any]

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def apply_operators(document: Document, data: Document) -> Document:
    """The document with every operator of `data` applied; `document` stays as it is.

    Raises:
        UpdateError: an unknown operator or one beside plain fields, an operand that does not fit,
            two operators on one path.

    >>> apply_operators({"n": 1, "old": 0}, {"$inc": {"n": 2}, "$unset": {"old": ""}})
    {'n': 3}
    """
    return _applied(document, data, ("$set", *_VALUES))


def upsert_operators(query: Document, data: Document) -> Document:
    """The document that an upsert inserts: the filter's equality parts, then the operators.

    >>> upsert_operators({"sku": 1}, {"$setOnInsert": {"made": 5}, "$inc": {"n": 2}})
    {'sku': 1, 'made': 5, 'n': 2}
    """
    base = build_upsert(query, {})
    created = _applied(base, data, ("$set", "$setOnInsert", *_VALUES))
    return {"_id": created["_id"], **created} if "_id" in created else created


def _applied(document: Document, data: Document, setting: tuple[str, ...]) -> Document:
    fields: Document = {}
    gone: list[str] = []
    touched = _Touched()
    for name, operands in data.items():
        if name not in _KNOWN:
            what = "unknown update operator" if name[:1] == "$" else "a field beside operators"
            raise UpdateError(f"{what}: {name}")
        if type(operands) is not dict:
            raise UpdateError(f"{name} takes an object of fields, not {shown(operands)}")
        for path, operand in operands.items():
            touched.add(path)
            if name == "$unset":
                gone.append(path)
            elif name in setting:
                value = _new_value(name, path, _at(document, path), operand)
                if value is not MISSING:
                    fields[path] = value
    changed = apply_set(document, fields)
    for path in gone:
        if path == "_id":
            raise UpdateError("the data would remove the immutable field '_id'")
        changed = _without(changed, split_path(path))
    return changed


class _Touched:
    """The paths that operators name, none of which may be another one or above it."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._above: set[str] = set()

    def add(self, path: str) -> None:
        parts = split_path(path)
        above = {".".join(parts[:length]) for length in range(1, len(parts))}
        if path in self._paths or path in self._above or above & self._paths:
            raise UpdateError(f"the path {path!r} is in conflict with another operator's")
        self._paths.add(path)
        self._above |= above


def _new_value(name: str, path: str, current: Any, operand: Any) -> Any:
    if name in ("$set", "$setOnInsert"):
        return operand
    return _VALUES[name](path, current, operand)


def _at(value: Any, path: str) -> Any:
    for part in split_path(path):
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list):
            index = array_index(part)
            value = MISSING if index is None or index >= len(value) else value[index]
        else:
            return MISSING
    return value


def _without(value: Any, parts: tuple[str, ...]) -> Any:
    """The value without what is at the path; an array's element becomes null, as in MongoDB."""
    first, rest = parts[0], parts[1:]
    if isinstance(value, dict) and first in value:
        if not rest:
            return {name: item for name, item in value.items() if name != first}
        return {**value, first: _without(value[first], rest)}
    if isinstance(value, list):
        index = array_index(first)
        if index is not None and index < len(value):
            inner = _without(value[index], rest) if rest else None
            return [*value[:index], inner, *value[index + 1 :]]
    return value


def _arithmetic(name: str, combine: Callable[[Any, Any], Any], empty: Any) -> Any:
    def new_value(path: str, current: Any, operand: Any) -> Any:
        current = empty if current is MISSING else current
        for value in (current, operand):
            if type(value) is bool or not isinstance(value, (int, float)):
                raise UpdateError(f"{name} on {path!r} needs int or double, not {shown(value)}")
        result = combine(current, operand)
        if isinstance(result, int) and not _INT64_MIN <= result <= _INT64_MAX:
            raise UpdateError(f"{name} on {path!r} leaves the 64 bits of a long")
        return result

    return new_value


def _extreme(wins: Callable[[Any, Any], bool]) -> Any:
    def new_value(_path: str, current: Any, operand: Any) -> Any:
        if current is MISSING or wins(comparison_key(operand), comparison_key(current)):
            return operand
        return current

    return new_value


def _array(name: str, path: str, current: Any) -> list[Any]:
    if current is MISSING:
        return []
    if type(current) is not list:
        raise UpdateError(f"{name} on {path!r} needs an array, not {shown(current)}")
    return current


def _items(name: str, operand: Any) -> list[Any]:
    if not isinstance(operand, dict) or not any(key[:1] == "$" for key in operand):
        return [operand]
    if list(operand) != ["$each"] or type(operand["$each"]) is not list:
        raise UpdateError(f"{name} takes a value or {{'$each': […]}}, not {shown(operand)}")
    return list(operand["$each"])


def _push(path: str, current: Any, operand: Any) -> Any:
    return [*_array("$push", path, current), *_items("$push", operand)]


def _add_to_set(path: str, current: Any, operand: Any) -> Any:
    items = list(_array("$addToSet", path, current))
    for item in _items("$addToSet", operand):
        if not any(equals(item, other) for other in items):
            items.append(item)
    return items


def _pull(path: str, current: Any, operand: Any) -> Any:
    if isinstance(operand, dict):
        raise UpdateError("$pull is supported by the local server for plain values alone")
    if current is MISSING:
        return MISSING
    return [item for item in _array("$pull", path, current) if not equals(item, operand)]


_VALUES: dict[str, Callable[[str, Any, Any], Any]] = {
    "$inc": _arithmetic("$inc", operator.add, 0),
    "$mul": _arithmetic("$mul", operator.mul, 0),
    "$min": _extreme(lambda operand, current: operand < current),
    "$max": _extreme(lambda operand, current: operand > current),
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pull": _pull,
}
_KNOWN = {"$set", "$setOnInsert", "$unset", *_VALUES}
