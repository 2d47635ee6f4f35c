"""MongoDB's projections, compiled to functions from a document to what is shown of it.

Inclusion or exclusion of dotted paths, `$slice` and `$elemMatch`. Never changes the document: parts
that a projection leaves whole are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from connectome_dagster.local.refusal import QueryError, shown
from connectome_dagster.local.values import number

__all__ = ["compile_projection"]

Document = dict[str, Any]
# field name -> True for the whole field, or the fields below it
Tree = dict[str, "bool | Tree"]


def compile_projection(project: Mapping[str, Any] | None) -> Callable[[Document], Document]:
    """A function from a document to the fields that the projection shows.

    Args:
        project: `{path: 1}` to show only these and `_id`, `{path: 0}` to show all but these;
            None or empty shows everything.

    Raises:
        QueryError: inclusion and exclusion mixed, two paths in conflict, an unknown operator.

    Example:
        >>> compile_projection({"a.x": 1, "_id": 0})({"_id": 1, "a": {"x": 1, "y": 2}})
        {'a': {'x': 1}}
    """
    if project is None:
        return lambda document: document
    if not isinstance(project, Mapping):
        raise QueryError(f"project must be an object, not {shown(project)}")
    if not project:
        return lambda document: document
    shown_id: bool | None = None
    including: bool | None = None
    tree: Tree = {}
    for path, value in project.items():
        flag = _flag(path, value)
        if path == "_id":
            shown_id = flag
            continue
        if including is None:
            including = flag
        elif including != flag:
            raise QueryError(f"project: cannot mix inclusion and exclusion, see {path!r}")
        _add(tree, path)
    if including is None:
        including = bool(shown_id)
    if including:
        if shown_id is not False:
            tree["_id"] = True
        return lambda document: _include(document, tree)
    if shown_id is False:
        tree["_id"] = True
    return lambda document: _exclude(document, tree)


def _flag(path: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    exact = number(value)
    if exact is None:
        raise QueryError(f"project: {path!r} takes 1 or 0, not {shown(value)}")
    return exact != 0


def _add(tree: Tree, path: str) -> None:
    parts = path.split(".")
    for part in parts:
        if not part:
            raise QueryError(f"project: the path {path!r} has an empty field name")
        if part[0] == "$":
            raise QueryError(f"project: the field name {part!r} in {path!r} must not start with $")
    node = tree
    for part in parts[:-1]:
        below = node.setdefault(part, {})
        if below is True or below is False:
            raise QueryError(f"project: path collision at {path!r}")
        node = below
    if parts[-1] in node:
        raise QueryError(f"project: path collision at {path!r}")
    node[parts[-1]] = True


def _include(document: Document, tree: Tree) -> Document:
    kept: Document = {}
    for name, value in document.items():
        below = tree.get(name)
        if below is True:
            kept[name] = value
        elif isinstance(below, dict):
            if isinstance(value, dict):
                kept[name] = _include(value, below)
            elif isinstance(value, list):
                kept[name] = _include_items(value, below)
    return kept


def _include_items(array: list[Any], tree: Tree) -> list[Any]:
    return [
        _include(item, tree) if isinstance(item, dict) else _include_items(item, tree)
        for item in array
        if isinstance(item, (dict, list))
    ]


def _exclude(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_exclude(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    kept: Document = {}
    for name, item in value.items():
        below = tree.get(name)
        if below is None:
            kept[name] = item
        elif isinstance(below, dict):
            kept[name] = _exclude(item, below)
    return kept
