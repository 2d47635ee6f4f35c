"""MongoDB's projections, compiled to functions from a document to what is shown of it.

Inclusion or exclusion of dotted paths, `$slice`, `$elemMatch` and computed fields. Never changes
the document: parts that a projection leaves whole are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectome_dagster.local.expressions import compile_expression, is_expression_name
from connectome_dagster.local.query import element_condition
from connectome_dagster.local.refusal import QueryError, shown
from connectome_dagster.local.regexes import one_budget
from connectome_dagster.local.values import MISSING, is_nan, number

__all__ = ["compile_projection"]

MAX_DEPTH = 100  # as in a filter

Document = dict[str, Any]


@dataclass(frozen=True)
class _Computed:
    """A field whose value is an expression of the whole document."""

    evaluate: Callable[[Document], Any]


@dataclass(frozen=True)
class _Slice:
    """A part of an array: `take` elements from `skip` on; without `skip` from the nearer end."""

    skip: int | None
    take: int

    def of(self, array: list[Any]) -> list[Any]:
        if self.skip is None:
            return array[: self.take] if self.take >= 0 else array[self.take :]
        start = self.skip if self.skip >= 0 else max(len(array) + self.skip, 0)
        return array[start : start + self.take]


@dataclass(frozen=True)
class _FirstMatch:
    """The first element of an array that meets conditions."""

    test: Callable[[Any], bool]


@dataclass
class _Below:
    """The fields below a path; a flag says whether a field is shown."""

    fields: dict[str, _Node] = field(default_factory=dict)


_Node = bool | _Computed | _Slice | _FirstMatch | _Below


def compile_projection(project: Mapping[str, Any] | None) -> Callable[[Document], Document]:
    """A function from a document to the fields that the projection shows.

    Args:
        project: `{path: 1}` to show only these and `_id`, `{path: 0}` to show all but these,
            `{path: {"$slice": n or [skip, n]}}`, `{field: {"$elemMatch": conditions}}`, any other
            value or expression for a computed field; None or empty shows everything.

    Raises:
        QueryError: inclusion and exclusion mixed, two paths in conflict, a positional `a.$`, an
            unknown operator.

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
    parsing = _Parsing()
    with one_budget():
        for path, value in project.items():
            parsing.add(path, value)
    including = parsing.finish()
    root = parsing.root
    if all(isinstance(node, bool) for node in root.fields.values()):
        names = frozenset(name for name, node in root.fields.items() if node is including)
        return _flat(names, including)
    if including:
        return lambda document: _include(document, root, document)
    return lambda document: _exclude(document, root, document)


def _flat(names: frozenset[str], including: bool) -> Callable[[Document], Document]:
    """The projection that needs no look below the first level: most of them."""

    def include(document: Document) -> Document:
        return {name: value for name, value in document.items() if name in names}

    def exclude(document: Document) -> Document:
        return {name: value for name, value in document.items() if name not in names}

    return include if including else exclude


class _Parsing:
    """What is known of a projection while its fields are read."""

    def __init__(self) -> None:
        self.root = _Below()
        self.including: bool | None = None
        self.shows_id: bool | None = None
        self.names_id = False
        self.slices = False
        self.matches_elements = False

    def add(self, path: str, value: Any, prefix: str = "", depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise QueryError(f"project is nested deeper than {MAX_DEPTH} levels")
        whole = f"{prefix}{path}"
        _check_path(whole)
        if isinstance(value, Mapping) and not self._is_operator(whole, value):
            if not value:
                raise QueryError(f"project: {whole!r} has an empty object")
            self.names_id |= whole == "_id"
            for name, item in value.items():
                self.add(name, item, f"{whole}.", depth + 1)
            return
        self.names_id |= whole == "_id" or whole.startswith("_id.")
        self._insert(whole, self._node(whole, value))

    def _is_operator(self, path: str, value: Mapping[str, Any]) -> bool:
        name = next(iter(value), "")
        if name[:1] != "$":
            return False
        if len(value) > 1:
            raise QueryError(f"project: {path!r} must have exactly one operator")
        if name not in {"$slice", "$elemMatch"} and not is_expression_name(name):
            raise QueryError(f"project: unknown operator {name} on {path!r}")
        return True

    def _node(self, path: str, value: Any) -> _Node:
        if isinstance(value, Mapping):
            if "$elemMatch" in value:
                return self._first_match(path, value["$elemMatch"])
            if "$slice" in value and not _is_slice_expression(value["$slice"]):
                self.slices = True
                return _slice(path, value["$slice"])
        elif (flag := _flag(value)) is not None:
            if path == "_id":
                self.shows_id = flag
            else:
                self._choose(flag, path)
            return flag
        self._choose(True, path)
        return _Computed(compile_expression(value))

    def _first_match(self, path: str, conditions: Any) -> _FirstMatch:
        if "." in path:
            raise QueryError(f"project: $elemMatch cannot stand on the nested field {path!r}")
        if not isinstance(conditions, Mapping):
            raise QueryError(f"project: $elemMatch on {path!r} needs an object")
        self.matches_elements = True
        return _FirstMatch(element_condition(path, conditions))

    def _choose(self, flag: bool, path: str) -> None:
        if self.including is None:
            self.including = flag
        elif self.including != flag:
            this, other = ("inclusion", "exclusion") if flag else ("exclusion", "inclusion")
            raise QueryError(f"project: cannot do {this} on field {path!r} in {other} projection")

    def _insert(self, path: str, node: _Node) -> None:
        *outer, last = path.split(".")
        below = self.root
        for part in outer:
            found = below.fields.setdefault(part, _Below())
            if not isinstance(found, _Below):
                raise QueryError(f"project: path collision at {path!r}")
            below = found
        if last in below.fields:
            raise QueryError(f"project: path collision at {path!r}")
        below.fields[last] = node

    def finish(self) -> bool:
        """Whether the projection includes; `_id` is settled by the way."""
        including = self.including
        if including is None:
            if self.slices:
                including = self.shows_id is True
            else:
                including = self.matches_elements or self.shows_id is True
        if including and not self.names_id:
            self.root.fields["_id"] = True
        return including


def _check_path(path: str) -> None:
    parts = path.split(".")
    if len(parts) > MAX_DEPTH:
        raise QueryError(f"project: {shown(path)} is nested deeper than {MAX_DEPTH} levels")
    for part in parts:
        if not part:
            raise QueryError(f"project: the path {path!r} has an empty field name")
        if part == "$":
            raise QueryError(
                f"project: the positional {path!r} is not supported by the local server"
            )
        if part[0] == "$":
            raise QueryError(f"project: the field name {part!r} in {path!r} must not start with $")


def _flag(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    exact = number(value)
    return None if exact is None else exact != 0


def _is_slice_expression(value: Any) -> bool:
    """True for the `$slice` of expressions, whose first argument is an array and not a count."""
    return isinstance(value, list) and len(value) in {2, 3} and number(value[0]) is None


def _slice(path: str, value: Any) -> _Slice:
    counts = value if isinstance(value, list) else [value]
    if isinstance(value, list) and len(value) != 2:
        raise QueryError(f"project: $slice on {path!r} needs [skip, limit]")
    exact = [number(count) for count in counts]
    if any(count is None or is_nan(count) for count in exact):
        raise QueryError(f"project: $slice on {path!r} needs a number or [skip, limit]")
    whole = [_int32(count) for count in exact if count is not None]
    if len(whole) == 1:
        return _Slice(None, whole[0])
    if whole[1] <= 0:
        raise QueryError(f"project: $slice on {path!r}: the limit must be positive")
    return _Slice(whole[0], whole[1])


def _int32(value: Any) -> int:
    return int(max(-(2**31), min(value, 2**31 - 1)))


def _include(document: Document, below: _Below, root: Document, slices: bool = True) -> Document:
    shown_fields: Document = {}
    fields = below.fields
    for name, value in document.items():
        node = fields.get(name)
        if node is True:
            shown_fields[name] = value
        elif isinstance(node, _Below):
            inner = _include_below(value, node, root, slices)
            if inner is not MISSING:
                shown_fields[name] = inner
        elif isinstance(node, (_Slice, _FirstMatch)):
            _show_part(shown_fields, name, value, node, slices)
    for name, node in fields.items():
        _compute(shown_fields, document, name, node, root)
    return shown_fields


def _include_below(value: Any, below: _Below, root: Document, slices: bool) -> Any:
    if isinstance(value, dict):
        return _include(value, below, root, slices)
    if isinstance(value, list):
        items = [_include_below(item, below, root, _still(slices, item)) for item in value]
        return [item for item in items if item is not MISSING]
    # where fields are computed below a scalar, a document takes its place
    return (_include({}, below, root) or MISSING) if _computes(below) else MISSING


def _still(slices: bool, item: Any) -> bool:
    """Whether `$slice` goes on in an element: never through an array that is in an array."""
    return slices and not isinstance(item, list)


def _compute(
    shown_fields: Document, document: Document, name: str, node: _Node, root: Document
) -> None:
    if isinstance(node, _Computed):
        value = node.evaluate(root)
        if value is not MISSING:
            shown_fields[name] = value
    elif isinstance(node, _Below) and name not in document and _computes(node):
        shown_fields[name] = _include({}, node, root)


def _computes(below: _Below) -> bool:
    return any(
        isinstance(node, _Computed) or (isinstance(node, _Below) and _computes(node))
        for node in below.fields.values()
    )


def _show_part(
    shown_fields: Document, name: str, value: Any, node: _Slice | _FirstMatch, slices: bool
) -> None:
    if isinstance(node, _Slice):
        shown_fields[name] = node.of(value) if slices and isinstance(value, list) else value
    elif isinstance(value, list):
        for item in value:
            if node.test(item):
                shown_fields[name] = [item]
                return


def _exclude(value: Any, below: _Below, root: Document, slices: bool = True) -> Any:
    if isinstance(value, list):
        return [_exclude(item, below, root, _still(slices, item)) for item in value]
    if not isinstance(value, dict):
        return value
    shown_fields: Document = {}
    for name, item in value.items():
        node = below.fields.get(name)
        if node is None or node is True:
            shown_fields[name] = item
        elif isinstance(node, _Below):
            shown_fields[name] = _exclude(item, node, root, slices)
        elif isinstance(node, (_Slice, _FirstMatch)):
            _show_part(shown_fields, name, item, node, slices)
    return shown_fields
