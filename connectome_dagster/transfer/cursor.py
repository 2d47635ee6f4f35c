"""A position in a total order of documents, and the filters that continue from it. Pure.

Knows how MongoDB orders values of all types and in which ways a value that a response shows can
be said in a filter; knows neither requests nor what is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

ID = "_id"

TOLD = 200  # characters of a value in a message: a key is shorter, and a document can be megabytes

# MongoDB's order between types ("Comparison/Sort Order" of its manual), by the names of $type.
# What is null and what is missing are one bracket, which $type does not find.
_NULL = "null"
_BRACKETS: tuple[tuple[str, ...], ...] = (
    ("minKey",), (_NULL,), ("number",), ("string", "symbol"), ("object",), ("array",),
    ("binData",), ("objectId",), ("bool",), ("date",), ("timestamp",), ("regex",),
    ("dbPointer",), ("javascript",), ("javascriptWithScope",), ("maxKey",),
)  # fmt: skip
_PLACE = {names[0]: place for place, names in enumerate(_BRACKETS)}

_HEX24 = re.compile(r"[0-9a-fA-F]{24}\Z")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\Z", re.ASCII)

Filter = dict[str, Any]


class Unprovable(Exception):  # turned into one of ours, or into `proved=False`, by `pages`
    """What follows a document cannot be asked for; the text says why and what would help."""


@dataclass(frozen=True)
class Key:
    """Where a document stands in an order: its values, one for each field, as JSON shows them."""

    values: tuple[Any, ...]

    @property
    def text(self) -> bytes:
        """The same for equal keys and only for those: 1, 1.0 and true are three values."""
        return msgspec.json.encode(self.values)

    @property
    def shape(self) -> tuple[str, ...]:
        """Keys of one shape can be said in the same ways."""
        return tuple(_shape(value) for value in self.values)


@dataclass(frozen=True)
class Order:
    """A total order: fields and 1 or -1, the last of them unique.

    Example:
        >>> Order.by({"amount": -1}).sort
        {'amount': -1, '_id': -1}
    """

    fields: tuple[tuple[str, int], ...]

    @classmethod
    def by(cls, sort: Mapping[str, int]) -> Order:
        """The order of a sort, with ties broken by `_id`."""
        fields = list(sort.items())
        names = [name for name, _ in fields]
        if ID in names:
            fields = fields[: names.index(ID) + 1]  # what follows it orders nothing
        else:
            fields.append((ID, fields[-1][1] if fields else 1))
        return cls(tuple((name, int(direction)) for name, direction in fields))

    @property
    def sort(self) -> dict[str, int]:
        return dict(self.fields)

    @property
    def reversed(self) -> Order:
        return Order(tuple((name, -direction) for name, direction in self.fields))

    def without_id(self) -> Order:
        return Order(tuple(field for field in self.fields if field[0] != ID))

    @property
    def arrays(self) -> list[Filter]:
        """Filters that together find every document with an array in a field, or on the way."""
        paths = [name.split(".") for name, _ in self.fields if name != ID]
        ends = {".".join(path[:end]): None for path in paths for end in range(1, len(path) + 1)}
        return [{name: {"$type": "array"}} for name in ends]

    def has_arrays(self, document: msgspec.Raw) -> bool:
        """Whether a document has an array in a field, or on the way to it."""
        return any(_items(document, name.split(".")) is not None for name, _ in self.fields)

    def places_once(self, document: msgspec.Raw) -> bool:
        """Whether a document stands at one place, with no array of several items to choose from."""
        return all((_items(document, name.split(".")) or 0) < 2 for name, _ in self.fields)

    def key(self, document: msgspec.Raw) -> Key:
        """Where a document stands.

        Raises:
            Unprovable: it shows no `_id`, or has an array where a value is needed.
        """
        values = []
        for name, _ in self.fields:
            if name == ID and not shows_id(document):
                raise Unprovable("the documents show no _id, which tells them apart")
            values.append(_at(document, name))
        return Key(tuple(values))

    def falls(self, key: Key, earlier: Key) -> bool:
        """Whether `key` certainly stands before `earlier`; strings are left to the service."""
        for (_, direction), value, before in zip(
            self.fields, key.values, earlier.values, strict=True
        ):
            if Key((value,)).text == Key((before,)).text:
                continue
            now, then = _comparable(value), _comparable(before)
            if now[0] != then[0] or not now[0]:
                return False
            return bool((now < then) if direction == 1 else (then < now))
        return False


def _items(document: msgspec.Raw, path: list[str]) -> int | None:
    """Items of the longest array on the way to a field and in it, None if there is none."""
    opening = bytes(memoryview(document)[:1])
    if opening == b"[":
        items = msgspec.json.decode(document, type=list[msgspec.Raw])
        return max(len(items), *((_items(item, path) or 0) for item in items), 0)
    if opening != b"{" or not path:
        return None
    members = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    return _items(members[path[0]], path[1:]) if path[0] in members else None


def _at(document: msgspec.Raw, path: str) -> Any:
    at = document
    for name in path.split("."):
        opening = bytes(memoryview(at)[:1])
        if opening == b"[":
            raise Unprovable(_array(path))
        if opening != b"{":
            return None
        members = msgspec.json.decode(at, type=dict[str, msgspec.Raw])
        if name not in members:
            return None
        at = members[name]
    try:
        value = msgspec.json.decode(at)
    except msgspec.DecodeError:
        value = []  # a number that nothing here holds
    if isinstance(value, list):
        raise Unprovable(_array(path))
    return value


def _array(path: str) -> str:
    return f"{path!r} holds an array, or a number that no filter says, in one of the documents"


def _comparable(value: Any) -> tuple[str, Any]:
    """A value that is ordered here as everywhere, with its kind; the kind is empty for others."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53:
        return "number", value
    if isinstance(value, dict) and list(value) == ["$oid"]:
        return "oid", value["$oid"]
    return "", None


@dataclass(frozen=True)
class Said:
    """One way of saying a value in a filter.

    Attributes:
        how: `"plain"`, `"ejson"` (Extended JSON) or `"expr"` (an aggregation expression).
        bracket: the type that it has if it is said so, by its name of `$type`.
        value: what is written.
    """

    how: str
    bracket: str
    value: Any


Way = tuple[Said, ...]

_CERTAIN = (_NULL, "bool", "number", "string")  # said plainly, they mean themselves


def ways(order: Order, key: Key) -> Iterator[tuple[Order, Way]]:
    """Every way to say a key, the likely ones first; at last those that leave `_id` out (U4)."""
    yield from _ways(order, key)
    shorter = order.without_id()
    if shorter.fields and shorter != order:
        yield from _ways(shorter, Key(key.values[: len(shorter.fields)]))


def _ways(order: Order, key: Key) -> Iterator[tuple[Order, Way]]:
    for way in itertools.product(*map(sayings, key.values)):
        yield order, way


def is_certain(key: Key) -> bool:
    """Whether there is no doubt about what the values mean in a filter."""
    return all(shape == "plain" for shape in key.shape)


def shows_id(document: msgspec.Raw) -> bool:
    """Whether a document has an `_id`."""
    return ID in msgspec.json.decode(document, type=dict[str, msgspec.Raw])


def shown(document: bytes | msgspec.Raw, names: Iterable[str]) -> dict[str, Any]:
    """What a document shows of fields, as JSON does; without those that it does not show.

    Example:
        >>> shown(b'{"_id": 7, "a": {"b": [1]}}', ["a.b", "a.c", "_id"])
        {'a.b': [1], '_id': 7}
    """
    found = {}
    for name in names:
        at: Any = msgspec.Raw(document)
        for part in name.split("."):
            inside = bytes(memoryview(at)[:1]) == b"{"
            at = msgspec.json.decode(at, type=dict[str, msgspec.Raw]).get(part) if inside else None
            if at is None:
                break
        else:
            with suppress(msgspec.DecodeError):  # a number that nothing here holds
                found[name] = msgspec.json.decode(at)
    return found


def told(values: Mapping[str, Any]) -> str:
    """Fields and their values for a message, long ones cut.

    Example:
        >>> told({"n": 5, "_id": "a"})
        'n 5, _id "a"'
    """
    texts = ((name, msgspec.json.encode(value).decode()) for name, value in values.items())
    return ", ".join(f"{name} {text[:TOLD]}{'…' * (len(text) > TOLD)}" for name, text in texts)


def _shape(value: Any) -> str:
    said = sayings(value)
    number = value if isinstance(value, (int, float)) else 0
    # Beyond, a service that prints floats shows another number than it holds.
    certain = said[0].how == "plain" and said[0].bracket in _CERTAIN
    if len(said) == 1 and certain and abs(number) < 2**53:
        return "plain"
    return "/".join(f"{each.how} {each.bracket}" for each in said)


def sayings(value: Any) -> list[Said]:
    """The ways to say one value, the likely one first."""
    if value is None:
        return [Said("plain", _NULL, None)]
    if isinstance(value, bool):
        return [Said("plain", "bool", value)]
    if isinstance(value, (int, float)):
        return [Said("plain", "number", value)]
    if isinstance(value, dict):
        return _said_object(value)
    said = [Said("plain", "string", value)]
    if _HEX24.match(value):
        said += [
            Said("ejson", "objectId", {"$oid": value}),
            Said("expr", "objectId", {"$toObjectId": value}),
        ]
    elif _INSTANT.match(value):
        said += [Said("ejson", "date", {"$date": value}), Said("expr", "date", {"$toDate": value})]
    return said


_FORMS = {
    "$oid": "objectId", "$date": "date", "$numberInt": "number", "$numberLong": "number",
    "$numberDouble": "number", "$numberDecimal": "number", "$binary": "binData",
    "$uuid": "binData", "$timestamp": "timestamp", "$minKey": "minKey", "$maxKey": "maxKey",
    "$symbol": "string",
}  # fmt: skip


def _said_object(value: dict[str, Any]) -> list[Said]:
    first = next(iter(value), "")
    if not first.startswith("$"):
        return [Said("plain", "object", value)]
    bracket = _FORMS.get(first)
    if bracket is None:
        raise Unprovable(f"a value of the form {first} cannot be compared by a filter")
    said = [Said("ejson", bracket, value)]
    inner = value[first]
    if first in ("$numberInt", "$numberLong"):
        said.append(Said("plain", "number", int(inner)))
    elif first == "$oid":
        said.append(Said("expr", bracket, {"$toObjectId": inner}))
    elif first == "$date" and isinstance(inner, str):
        said.append(Said("expr", bracket, {"$toDate": inner}))
    return said


def from_here(order: Order, way: Way) -> Filter:
    """The filter of everything that stands at a key or behind it.

    Example:
        >>> order = Order.by({"_id": 1})
        >>> [(order, way)] = ways(order, Key((7,)))
        >>> from_here(order, way)["$or"][0]
        {'_id': {'$gte': 7}}
    """
    (name, direction), said = order.fields[0], way[0]
    if len(way) == 1:
        here = _within(name, direction, said, inclusive=True)
        return any_of([*here, *_later(name, direction, said)])
    tail = both(_equal(name, said), from_here(Order(order.fields[1:]), way[1:]))
    behind = _within(name, direction, said, inclusive=False)
    behind += _later(name, direction, said)
    return any_of([*behind, tail])


def up_to(order: Order, way: Way) -> Filter:
    """The filter of everything that stands before a key, of an order by one field."""
    (name, direction), said = order.fields[0], way[0]
    clauses = _within(name, -direction, said, inclusive=False)
    return any_of([*clauses, *_later(name, -direction, said)])


def exactly(order: Order, way: Way) -> Filter:
    """The filter of the documents at a key."""
    fields = zip(order.fields, way, strict=True)
    return {"$and": [_equal(name, said) for (name, _), said in fields]}


def both(left: Filter, right: Filter) -> Filter:
    """The filter of what two filters find."""
    if not left or not right:
        return left or right
    return {"$and": [left, right]}


def any_of(clauses: list[Filter]) -> Filter:
    """The filter of what any of these finds."""
    if not clauses:
        return {"$nor": [{}]}
    return clauses[0] if len(clauses) == 1 else {"$or": clauses}


def _later(name: str, direction: int, said: Said) -> list[Filter]:
    """What stands behind the whole bracket of a value."""
    if said.how == "expr":
        return []  # an expression compares across types
    place = _PLACE[said.bracket]
    brackets = _BRACKETS[place + 1 :] if direction == 1 else _BRACKETS[:place]
    types = [each for names in brackets for each in names if each != _NULL]
    clauses: list[Filter] = [{name: {"$type": types}}] if types else []
    if (_NULL,) in brackets:
        clauses.append({name: None})
    return clauses


def _within(name: str, direction: int, said: Said, *, inclusive: bool) -> list[Filter]:
    """What stands behind a value in its own bracket."""
    operator = ("$gt" if direction == 1 else "$lt") + ("e" if inclusive else "")
    if said.how == "expr":
        return [{"$expr": {operator: [f"${name}", said.value]}}]
    if said.bracket in (_NULL, "minKey", "maxKey"):
        return [_equal(name, said)] if inclusive else []
    if _is_nan(said.value):
        numbers = [{name: {"$lte": 0}}, {name: {"$gt": 0}}] if direction == 1 else []
        return [*numbers, _not_a_number(name)] if inclusive else numbers
    if said.bracket == "number" and direction == -1:
        # NaN is the smallest number, and no comparison finds it.
        above = "$gt" if inclusive else "$gte"
        return [{name: {"$type": "number", "$not": {above: said.value}}}]
    return [{name: {operator: said.value}}]


def _is_nan(value: Any) -> bool:
    return isinstance(value, dict) and "NaN" in (
        value.get("$numberDouble"),
        value.get("$numberDecimal"),
    )


def _not_a_number(name: str) -> Filter:
    return {name: {"$type": "number"}, "$nor": [{name: {"$lte": 0}}, {name: {"$gt": 0}}]}


def _equal(name: str, said: Said) -> Filter:
    if said.how == "expr":
        return {"$expr": {"$eq": [f"${name}", said.value]}}
    if said.bracket in ("minKey", "maxKey"):
        return {name: {"$type": said.bracket}}
    if said.bracket == _NULL:
        return {name: None}
    return _not_a_number(name) if _is_nan(said.value) else {name: {"$eq": said.value}}
