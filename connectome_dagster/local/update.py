"""Applying data to documents as MongoDB's `$set` does, and the documents that upserts create.

Never changes what it is given: untouched parts are shared between the old and the new document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectome_dagster.local.extended_json import MAX_DEPTH
from connectome_dagster.local.paths import array_index, split_path
from connectome_dagster.local.query import equality_parts
from connectome_dagster.local.refusal import UpdateError, shown
from connectome_dagster.local.values import MISSING, equals

__all__ = ["apply_set", "build_upsert", "check_data"]

MAX_PADDING = 1_500_000  # MongoDB's own bound on the nulls that one update may add to an array

Document = dict[str, Any]
# field name -> what is set there: a leaf, or the fields below it
Tree = dict[str, "Leaf | Tree"]


class Leaf:
    """A value to set, with its whole path for messages."""

    __slots__ = ("path", "value")

    def __init__(self, path: str, value: Any) -> None:
        self.path = path
        self.value = value


def check_data(data: Mapping[str, Any]) -> None:
    """Refuse data that no document could take.

    Raises:
        UpdateError: not a document, an operator, an empty field name, two paths in conflict.
    """
    _tree(data)


def apply_set(doc: Document, data: Mapping[str, Any]) -> Document:
    """The document with every path of `data` set to its value; `doc` itself stays as it is.

    A dotted path creates the documents it needs and sets array elements by position, filling up
    with nulls. New fields come in the order of their names, as MongoDB adds them.

    Args:
        doc: the document.
        data: dotted paths and their values.

    Raises:
        UpdateError: the data is malformed, changes `_id`, or a path leads through a value that is
            neither a document nor an array.

    Example:
        >>> apply_set({"a": {"x": 1}}, {"a.y": 2, "b": 3})
        {'a': {'x': 1, 'y': 2}, 'b': 3}
    """
    changed = _set_fields(doc, _tree(data), "")
    before, after = doc.get("_id", MISSING), changed.get("_id", MISSING)
    if before is not MISSING and not equals(before, after):
        raise UpdateError("the data would change the immutable field '_id'")
    return changed


def build_upsert(query: Mapping[str, Any], data: Mapping[str, Any]) -> Document:
    """The document that an upsert inserts: the filter's equality parts with the data on top.

    It has an `_id` only if the filter or the data gives one.

    Raises:
        UpdateError: the filter names a path twice or a part of `_id`, or the data does not fit on
            its parts.

    Example:
        >>> build_upsert({"sku": 1, "n": {"$gt": 5}}, {"price": 2.5})
        {'sku': 1, 'price': 2.5}
    """
    base: Document = {}
    taken: set[str] = set()
    above: set[str] = set()
    for path, value in equality_parts(query):
        parts = split_path(path)
        _check_path(path, of_filter=True)
        _check_value(value, path, len(parts))
        if parts[0] == "_id" and len(parts) > 1:
            # as MongoDB: a filter's order of such parts would decide what the _id is
            raise UpdateError(f"upsert: the filter gives a part of '_id', {path!r}: give all of it")
        outer = [".".join(parts[:end]) for end in range(1, len(parts))]
        if path in taken or path in above or not taken.isdisjoint(outer):
            raise UpdateError(f"upsert: the filter gives {path!r} a value twice")
        taken.add(path)
        above.update(outer)
        below = base
        for part in parts[:-1]:
            below = below.setdefault(part, {})
        below[parts[-1]] = value
    document = apply_set(base, data)
    if "_id" in document:
        document = {"_id": document["_id"], **document}
    return document


def _tree(data: Any) -> Tree:
    if not isinstance(data, Mapping):
        raise UpdateError(f"data must be an object of fields and values, not {shown(data)}")
    tree: Tree = {}
    for path, value in data.items():
        parts = split_path(path)
        _check_path(path)
        _check_value(value, path, len(parts))
        node = tree
        for part in parts[:-1]:
            below = node.setdefault(part, {})
            if isinstance(below, Leaf):
                raise UpdateError(f"the path {path!r} is in conflict with {below.path!r}")
            node = below
        if parts[-1] in node:
            raise UpdateError(f"the path {path!r} is in conflict with one below it")
        node[parts[-1]] = Leaf(path, value)
    return tree


def _check_path(path: str, *, of_filter: bool = False) -> None:
    # what an upsert takes from a filter may be named as filters name it: empty, or a DBRef's part
    for part in path.split("."):
        if not part and not of_filter:
            raise UpdateError(f"the path {shown(path)} has an empty field name")
        if part[:1] == "$" and not (of_filter and part in _REFERENCE_FIELDS):
            raise UpdateError(
                f"the field name {part!r} in {shown(path)} must not start with $: "
                "data holds fields and their values, no operators"
            )


_REFERENCE_FIELDS = {"$ref", "$id", "$db"}  # a DBRef's own names


def _check_value(value: Any, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UpdateError(f"{shown(path)} would nest the document deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name[:1] == "$" and name not in _REFERENCE_FIELDS:
                raise UpdateError(f"the field name {name!r} in {shown(path)} starts with $")
            _check_value(item, path, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, path, depth + 1)


def _in_order(tree: Tree) -> list[tuple[str, Leaf | Tree]]:
    """Names in the order in which MongoDB sets them: numbers by value, then text."""

    def key(item: tuple[str, Any]) -> tuple[bool, int, str]:
        index = array_index(item[0])
        return (index is None, index or 0, item[0])

    return sorted(tree.items(), key=key)


def _set_fields(document: Document, tree: Tree, prefix: str) -> Document:
    changed = dict(document)
    for name, below in _in_order(tree):
        if isinstance(below, Leaf):
            changed[name] = below.value
        else:
            changed[name] = _set_below(changed.get(name, MISSING), below, f"{prefix}{name}")
    return changed


def _set_below(value: Any, tree: Tree, path: str) -> Any:
    if value is MISSING:
        return _set_fields({}, tree, f"{path}.")
    if isinstance(value, dict):
        return _set_fields(value, tree, f"{path}.")
    if isinstance(value, list):
        return _set_items(value, tree, path)
    name = next(iter(tree))
    raise UpdateError(f"cannot create the field {name!r} in {path!r}, which is {shown(value)}")


def _set_items(array: list[Any], tree: Tree, path: str) -> list[Any]:
    changed = list(array)
    for name, below in _in_order(tree):
        index = array_index(name)
        if index is None:
            raise UpdateError(f"cannot create the field {name!r} in {path!r}, which is an array")
        if index - len(changed) > MAX_PADDING:
            raise UpdateError(f"{path}.{name} would fill more than {MAX_PADDING} places with null")
        missing = index >= len(changed)
        changed.extend([None] * (index + 1 - len(changed)))
        if isinstance(below, Leaf):
            changed[index] = below.value
        else:
            before = MISSING if missing else changed[index]
            changed[index] = _set_below(before, below, f"{path}.{name}")
    return changed
