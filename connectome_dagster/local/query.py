"""MongoDB's filters, compiled to functions of a document.

A filter is parsed once, with everything that is wrong with it found there; what comes out asks one
document. Knows nothing of where documents are kept.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bson import Int64, MaxKey, MinKey, Regex

from connectome_dagster.local.expressions import compile_expression, truth
from connectome_dagster.local.extended_json import regex_parts
from connectome_dagster.local.paths import Predicate, Test, matcher
from connectome_dagster.local.refusal import QueryError, shown
from connectome_dagster.local.regexes import check_options, compile_search, one_budget
from connectome_dagster.local.values import (
    MISSING,
    NUMBER,
    comparison_key,
    integer,
    is_nan,
    number,
    type_name,
)

__all__ = ["QueryError", "compile_filter", "equalities", "equality_parts"]

MAX_DEPTH = 100  # MongoDB's own bound on the nesting of a filter
MAX_BIT_POSITION = 1 << 20  # far beyond the 64 bits of a number; keeps a mask small


def compile_filter(query: Mapping[str, Any]) -> Predicate:
    """A function that says whether a document matches the filter.

    Compile for each query anew: the time that its regular expressions may take is bounded over
    the life of the function.

    Args:
        query: a MongoDB filter of BSON values; `{}` matches everything.

    Raises:
        QueryError: an unknown operator (the text names it) or a wrong shape.

    Example:
        >>> list(filter(compile_filter({"n": {"$gte": 2}}), [{"n": 1}, {"n": 2}]))
        [{'n': 2}]
    """
    if not isinstance(query, Mapping):
        raise QueryError(f"the query must be an object, not {shown(query)}")
    with one_budget():
        return _document_filter(query, 0)


def equalities(query: Mapping[str, Any]) -> dict[str, Any]:
    """The plain equality parts of a filter: dotted path and the value that must be found there.

    Looks at the top level and inside `$and`. Every matching document matches each part (as
    `{path: value}` does: an array also by an element, null also by absence), so the parts can
    narrow a search by an index. A path that is named twice keeps its first value.
    """
    found: dict[str, Any] = {}
    for path, value in equality_parts(query):
        found.setdefault(path, value)
    return found


def equality_parts(query: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every equality part of a filter in its order, as an upsert takes them over.

    `$eq`, and what amounts to it: `$in` with one value, each value of `$all`, `$or` with one
    filter. What is malformed is passed over: `compile_filter` is there to refuse it.
    """
    for name, value in query.items():
        if name in {"$and", "$or"} and isinstance(value, list):
            if name == "$and" or len(value) == 1:
                for part in value:
                    yield from equality_parts(part if isinstance(part, Mapping) else {})
        elif name[:1] == "$":
            continue
        elif not _is_operators(value):
            if not isinstance(value, (Regex, re.Pattern)):
                yield name, value
        else:
            for operation, operand in value.items():
                yield from _equality_operand(name, operation, operand)


def _equality_operand(path: str, operation: str, operand: Any) -> Iterator[tuple[str, Any]]:
    if operation == "$eq":
        yield path, operand
    elif isinstance(operand, list) and (
        operation == "$all" or (operation == "$in" and len(operand) == 1)
    ):
        for value in operand:
            if not isinstance(value, (Regex, re.Pattern)) and not _is_operators(value):
                yield path, value


@dataclass(frozen=True)
class _Leaf:
    """A question to one value at a path."""

    test: Test
    into_array: bool = True

    def at(self, path: str) -> Predicate:
        return matcher(path, self.test, into_array=self.into_array)

    def of_value(self) -> Test:
        return self.test


@dataclass(frozen=True)
class _All:
    """Several conditions on one path, each of which some value there must meet."""

    parts: tuple[_Condition, ...]

    def at(self, path: str) -> Predicate:
        return _conjunction([part.at(path) for part in self.parts])

    def of_value(self) -> Test:
        return _conjunction([part.of_value() for part in self.parts])


@dataclass(frozen=True)
class _Not:
    """The opposite of a condition: no value at the path meets it."""

    part: _Condition

    def at(self, path: str) -> Predicate:
        return _negation(self.part.at(path))

    def of_value(self) -> Test:
        return _negation(self.part.of_value())


_Condition = _Leaf | _All | _Not


def _conjunction(tests: list[Test]) -> Test:
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)
    return lambda value: all(test(value) for test in tests)


def _disjunction(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _negation(test: Test) -> Test:
    return lambda value: not test(value)


def _document_filter(query: Mapping[str, Any], depth: int, *, whole: bool = True) -> Predicate:
    if depth > MAX_DEPTH:
        raise QueryError(f"the query is nested deeper than {MAX_DEPTH} levels")
    tests: list[Predicate] = []
    for name, value in query.items():
        if name[:1] != "$" or name in _REFERENCE_FIELDS:
            tests.append(_condition(name, value, depth).at(name))
        elif name in _LOGICAL:
            tests.append(_LOGICAL[name](_clauses(name, value, depth, whole)))
        elif name == "$expr":
            if not whole:
                raise QueryError("$expr can only be asked of whole documents, not in $elemMatch")
            tests.append(_expression_filter(value))
        elif name in {"$alwaysTrue", "$alwaysFalse"}:
            tests.append(_constant(name, value))
        elif name != "$comment":
            raise QueryError(_unknown(name, top_level=True))
    return _conjunction(tests)


def _expression_filter(expression: Any) -> Predicate:
    evaluate = compile_expression(expression)
    return lambda document: truth(evaluate(document))


def _constant(name: str, value: Any) -> Predicate:
    if number(value) != 1:
        raise QueryError(f"{name} takes 1, not {shown(value)}")
    answer = name == "$alwaysTrue"
    return lambda _: answer


_REFERENCE_FIELDS = {"$ref", "$id", "$db"}  # a DBRef's own names, the only ones with a $
_LOGICAL: dict[str, Callable[[list[Predicate]], Predicate]] = {
    "$and": _conjunction,
    "$or": _disjunction,
    "$nor": lambda tests: _negation(_disjunction(tests)),
}

_REFUSED = {
    "$where", "$text", "$near", "$nearSphere", "$geoWithin", "$geoIntersects", "$within",
    "$geoNear", "$jsonSchema", "$function", "$sampleRate", "$search",
}  # fmt: skip


def _unknown(name: str, *, top_level: bool = False) -> str:
    if name in _REFUSED:
        return f"{name} is not supported by the local server"
    return f"unknown {'top level ' if top_level else ''}operator: {name}"


def _clauses(name: str, value: Any, depth: int, whole: bool) -> list[Predicate]:
    if not isinstance(value, list) or not value:
        raise QueryError(f"{name} must be a nonempty array")
    for clause in value:
        if not isinstance(clause, Mapping):
            raise QueryError(f"{name} takes objects, not {shown(clause)}")
    return [_document_filter(clause, depth + 1, whole=whole) for clause in value]


def _is_operators(value: Any) -> bool:
    """True for `{"$gt": …}`, False for a plain value, a document or a DBRef."""
    if not isinstance(value, Mapping) or not value:
        return False
    return next(iter(value))[:1] == "$" and not ("$ref" in value and "$id" in value)


def _condition(path: str, value: Any, depth: int) -> _Condition:
    if _is_operators(value):
        return _operators(path, value, depth + 1)
    if isinstance(value, (Regex, re.Pattern)):
        return _Leaf(_regex_test(value))
    return _Leaf(_equality(value))


def _operators(path: str, operators: Mapping[str, Any], depth: int) -> _Condition:
    if depth > MAX_DEPTH:
        raise QueryError(f"the query is nested deeper than {MAX_DEPTH} levels")
    parts: list[_Condition] = []
    for name, operand in operators.items():
        if name == "$options":
            if "$regex" not in operators:
                raise QueryError(f"$options on {path!r} needs a $regex")
        elif name == "$regex":
            parts.append(_regex_operator(path, operand, operators.get("$options", MISSING)))
        elif name in _OPERATORS:
            parts.append(_OPERATORS[name](path, operand, depth))
        elif name != "$comment":
            raise QueryError(f"{_unknown(name)} (on {path!r})")
    return parts[0] if len(parts) == 1 else _All(tuple(parts))


# --- comparison


def _equality(value: Any) -> Test:
    """Whether a value equals this one; null also equals a value that is not there."""
    if isinstance(value, Int64):
        value = int(value)
    kind = type(value)
    if value is None:
        return lambda other: other is None or other is MISSING
    if kind is str:
        return lambda other: type(other) is str and other == value
    if kind is bool:
        return lambda other: other is value
    key = comparison_key(value)
    if (kind is int or kind is float) and key[1]:

        def equals_number(other: Any) -> bool:
            found = type(other)
            if found is int or found is float:
                return bool(other == value)
            return found is not str and comparison_key(other) == key

        return equals_number
    return lambda other: comparison_key(other) == key


def _eq(_path: str, value: Any, _depth: int) -> _Condition:
    return _Leaf(_equality(value))


def _ne(path: str, value: Any, _depth: int) -> _Condition:
    if isinstance(value, (Regex, re.Pattern)):
        raise QueryError(f"$ne on {path!r} cannot take a regular expression")
    return _Not(_Leaf(_equality(value)))


def _ordering(name: str) -> Callable[[str, Any, int], _Condition]:
    def parse(path: str, value: Any, _depth: int) -> _Condition:
        if isinstance(value, (Regex, re.Pattern)):
            raise QueryError(f"{name} on {path!r} cannot take a regular expression")
        return _Leaf(_ordering_test(name, value))

    return parse


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def _ordering_test(name: str, value: Any) -> Test:
    compare, with_equal = _COMPARE[name], name in {"$gte", "$lte"}
    if isinstance(value, Int64):
        value = int(value)
    kind = type(value)
    if value is None:
        return lambda other: with_equal and (other is None or other is MISSING)
    key = comparison_key(value)
    bracket = key[0]
    if is_nan(value):
        return lambda other: with_equal and comparison_key(other) == key
    if isinstance(value, (MinKey, MaxKey)):
        return lambda other: bool(compare(comparison_key(other), key))

    def compares(other: Any) -> bool:
        found = comparison_key(other)
        if found[0] != bracket or (bracket == NUMBER and not found[1]):
            return False
        return bool(compare(found, key))

    if kind is int or kind is float:

        def compares_number(other: Any) -> bool:
            found = type(other)
            if found is int or found is float:
                return bool(compare(other, value))
            return found is not str and compares(other)

        return compares_number
    if kind is str:
        return lambda other: bool(type(other) is str and compare(other, value))
    return compares


def _in(path: str, values: Any, _depth: int) -> _Condition:
    return _Leaf(_membership("$in", path, values))


def _nin(path: str, values: Any, _depth: int) -> _Condition:
    return _Not(_Leaf(_membership("$nin", path, values)))


def _membership(name: str, path: str, values: Any) -> Test:
    if not isinstance(values, list):
        raise QueryError(f"{name} on {path!r} needs an array, not {shown(values)}")
    keys = set()
    patterns: list[Test] = []
    for value in values:
        if _is_operators(value):
            raise QueryError(f"{name} on {path!r} cannot hold operators: {shown(value)}")
        if isinstance(value, (Regex, re.Pattern)):
            patterns.append(_regex_test(value))
        else:
            keys.add(comparison_key(value))
    if None in values:
        keys.add(comparison_key(MISSING))
    if not patterns:
        return lambda other: comparison_key(other) in keys
    return lambda other: comparison_key(other) in keys or any(test(other) for test in patterns)


# --- element


def _exists(_path: str, value: Any, _depth: int) -> _Condition:
    there = _Leaf(lambda other: other is not MISSING)
    return there if truth(value) else _Not(there)


_TYPE_CODES: dict[int, str] = {
    1: "double", 2: "string", 3: "object", 4: "array", 5: "binData", 6: "undefined",
    7: "objectId", 8: "bool", 9: "date", 10: "null", 11: "regex", 12: "dbPointer",
    13: "javascript", 14: "symbol", 15: "javascriptWithScope", 16: "int", 17: "timestamp",
    18: "long", 19: "decimal", -1: "minKey", 127: "maxKey",
}  # fmt: skip
_NUMBER_TYPES = ("double", "int", "long", "decimal")


def _type(path: str, value: Any, _depth: int) -> _Condition:
    wanted = value if isinstance(value, list) else [value]
    if not wanted:
        raise QueryError(f"$type on {path!r} needs at least one type")
    names: set[str] = set()
    for item in wanted:
        names.update(_type_names(path, item))
    return _Leaf(lambda other: type_name(other) in names)


def _type_names(path: str, item: Any) -> tuple[str, ...]:
    if isinstance(item, str):
        if item == "number":
            return _NUMBER_TYPES
        if item in _TYPE_CODES.values():
            return (item,)
        raise QueryError(f"$type on {path!r}: unknown type name {item!r}")
    if number(item) is None:
        raise QueryError(f"$type on {path!r} takes names and numbers of types, not {shown(item)}")
    code = integer(item)
    if code not in _TYPE_CODES:
        raise QueryError(f"$type on {path!r}: invalid type number {shown(item)}")
    return (_TYPE_CODES[code],)


# --- evaluation


def _regex_test(value: Any) -> Test:
    """A regular expression as a value: found in a string, or equal to a stored expression."""
    pattern, options = regex_parts(value)
    search = compile_search(pattern, options.replace("l", ""))
    key = comparison_key(value)

    def test(other: Any) -> bool:
        if type(other) is str:
            return search(other)
        return isinstance(other, (Regex, re.Pattern)) and comparison_key(other) == key

    return test


def _regex_operator(path: str, value: Any, options: Any) -> _Condition:
    if not (options is MISSING or isinstance(options, str)):
        raise QueryError(f"$options on {path!r} must be a string, not {shown(options)}")
    if isinstance(value, (Regex, re.Pattern)):
        pattern, own = regex_parts(value)
        if own and options is not MISSING:
            raise QueryError(f"$regex on {path!r}: options set in both $regex and $options")
    elif isinstance(value, str):
        pattern, own = value, ""
    else:
        raise QueryError(f"$regex on {path!r} must be a string or a regular expression")
    chosen = options if isinstance(options, str) else own
    check_options(chosen)
    flags = sum(flag for letter, flag in _FLAGS.items() if letter in chosen)
    return _Leaf(_regex_test(Regex(pattern, flags)))


_FLAGS = {"i": int(re.I), "m": int(re.M), "s": int(re.S), "x": int(re.X), "u": int(re.U)}


def _mod(path: str, value: Any, _depth: int) -> _Condition:
    if not isinstance(value, list) or len(value) != 2:
        raise QueryError(f"$mod on {path!r} needs an array of divisor and remainder")
    divisor, remainder = (_truncated(part) for part in value)
    if divisor is None or remainder is None:
        raise QueryError(f"$mod on {path!r}: divisor and remainder must be finite numbers")
    if divisor == 0:
        raise QueryError(f"$mod on {path!r}: the divisor must not be 0")

    def test(other: Any) -> bool:
        found = _truncated(other)
        return found is not None and _remainder(found, divisor) == remainder

    return _Leaf(test)


def _truncated(value: Any) -> int | None:
    """The number without its fraction; None if it is no number or beyond 64 bits."""
    exact = number(value)
    if exact is None or is_nan(value) or not -(2**63) <= exact < 2**63:
        return None
    return int(exact)


def _remainder(value: int, divisor: int) -> int:
    """Remainder with the sign of the value, as C has it and Python does not."""
    rest = abs(value) % abs(divisor)
    return -rest if value < 0 else rest


# --- bits


def _bits(name: str, *, all_of_them: bool, set_bits: bool) -> Callable[[str, Any, int], _Condition]:
    def parse(path: str, value: Any, _depth: int) -> _Condition:
        mask = _bit_mask(name, path, value)

        def test(other: Any) -> bool:
            bits = _bits_of(other)
            if bits is None:
                return False
            found = (bits if set_bits else ~bits) & mask
            return found == mask if all_of_them else found != 0

        return _Leaf(test)

    return parse


def _bit_mask(name: str, path: str, value: Any) -> int:
    if isinstance(value, bytes):
        return int.from_bytes(value, "little")
    positions = value if isinstance(value, list) else [value]
    whole = [part for part in map(integer, positions) if part is not None and part >= 0]
    if len(whole) < len(positions):
        raise QueryError(
            f"{name} on {path!r} takes a mask, an array of bit positions or binary data, "
            f"none of them negative, not {shown(value)}"
        )
    if not isinstance(value, list):
        return whole[0]
    mask = 0
    for position in whole:
        if position >= MAX_BIT_POSITION:
            raise QueryError(f"{name} on {path!r}: {position} is no position of a bit")
        mask |= 1 << position
    return mask


def _bits_of(value: Any) -> int | None:
    """The bits of a value, the sign of a number going on for ever; None if it has none."""
    if isinstance(value, bytes):
        return int.from_bytes(value, "little")
    return integer(value)


# --- array


def _size(path: str, value: Any, _depth: int) -> _Condition:
    wanted = integer(value)
    if wanted is None:
        raise QueryError(f"$size on {path!r} needs an integer, not {shown(value)}")
    if wanted < 0:
        raise QueryError(f"$size on {path!r} must not be negative")
    return _Leaf(lambda other: type(other) is list and len(other) == wanted, into_array=False)


def _all(path: str, value: Any, depth: int) -> _Condition:
    if not isinstance(value, list):
        raise QueryError(f"$all on {path!r} needs an array, not {shown(value)}")
    if not value:
        return _Leaf(lambda _: False)
    parts: list[_Condition] = []
    matches = [isinstance(item, Mapping) and next(iter(item), "") == "$elemMatch" for item in value]
    if any(matches) and not all(matches):
        raise QueryError(f"$all on {path!r} mixes $elemMatch with values")
    for item in value:
        if matches[0]:
            parts.append(_operators(path, item, depth + 1))
        elif _is_operators(item):
            raise QueryError(f"$all on {path!r} cannot hold operators: {shown(item)}")
        else:
            parts.append(_condition(path, item, depth))
    return _All(tuple(parts))


def _elem_match(path: str, value: Any, depth: int) -> _Condition:
    if not isinstance(value, Mapping):
        raise QueryError(f"$elemMatch on {path!r} needs an object, not {shown(value)}")
    return _Leaf(element_test(path, value, depth), into_array=False)


# an $elemMatch that opens with one of these asks documents, not values
_NOT_OF_A_VALUE = {*_LOGICAL, *_REFERENCE_FIELDS, "$expr", "$where"}


def element_test(path: str, value: Mapping[str, Any], depth: int = 0) -> Test:
    """Whether an array has an element that meets all conditions of an `$elemMatch`."""
    of_element = element_condition(path, value, depth)
    return lambda other: type(other) is list and any(map(of_element, other))


def element_condition(path: str, value: Mapping[str, Any], depth: int = 0) -> Test:
    """The conditions of an `$elemMatch`, asked of one element."""
    if _is_operators(value) and next(iter(value)) not in _NOT_OF_A_VALUE:
        return _operators(path, value, depth + 1).of_value()
    of_document = _document_filter(value, depth + 1, whole=False)

    def test(element: Any) -> bool:
        if isinstance(element, dict):
            return of_document(element)
        # an array inside the array is a document whose names are the positions
        return type(element) is list and of_document(
            {str(position): item for position, item in enumerate(element)}
        )

    return test


def _not(path: str, value: Any, depth: int) -> _Condition:
    if isinstance(value, (Regex, re.Pattern)):
        return _Not(_Leaf(_regex_test(value)))
    if not isinstance(value, Mapping):
        raise QueryError(f"$not on {path!r} needs a regular expression or an object of operators")
    if not value:
        raise QueryError(f"$not on {path!r} must not be empty")
    return _Not(_operators(path, value, depth + 1))


_OPERATORS: dict[str, Callable[[str, Any, int], _Condition]] = {
    "$eq": _eq,
    "$ne": _ne,
    "$gt": _ordering("$gt"),
    "$gte": _ordering("$gte"),
    "$lt": _ordering("$lt"),
    "$lte": _ordering("$lte"),
    "$in": _in,
    "$nin": _nin,
    "$exists": _exists,
    "$type": _type,
    "$mod": _mod,
    "$size": _size,
    "$all": _all,
    "$elemMatch": _elem_match,
    "$not": _not,
    "$bitsAllSet": _bits("$bitsAllSet", all_of_them=True, set_bits=True),
    "$bitsAllClear": _bits("$bitsAllClear", all_of_them=True, set_bits=False),
    "$bitsAnySet": _bits("$bitsAnySet", all_of_them=False, set_bits=True),
    "$bitsAnyClear": _bits("$bitsAnyClear", all_of_them=False, set_bits=False),
}
