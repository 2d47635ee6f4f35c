"""MongoDB's expressions, as `$expr` and computed projections use them, compiled to functions.

Comparison, logic, field paths, variables and the common operators on numbers, text, arrays and
dates. An operator that is not here is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Context, Decimal, localcontext
from typing import Any

from bson import Decimal128, Regex
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import create_decimal128_context

from connectome_dagster.local.conversions import TARGETS, Unconvertible, convert
from connectome_dagster.local.extended_json import date_of, milliseconds, regex_parts
from connectome_dagster.local.refusal import QueryError, shown
from connectome_dagster.local.regexes import compile_search, one_budget
from connectome_dagster.local.values import (
    MISSING,
    comparison_key,
    integer,
    is_nan,
    number,
    type_name,
)

__all__ = ["compile_expression", "is_expression_name", "truth"]

MAX_DEPTH = 100  # as in a filter

Frame = Mapping[str, Any]  # variables: ROOT and CURRENT are the document, the others are $let's
Evaluate = Callable[[Frame], Any]


def compile_expression(expression: Any) -> Callable[[dict[str, Any]], Any]:
    """A function from a document to the value of the expression, `MISSING` if it has none.

    Args:
        expression: a value, a field path (`"$a.b"`), a variable (`"$$ROOT"`), an operator with its
            arguments, or an array or object of expressions.

    Raises:
        QueryError: an unknown operator or variable, a wrong number of arguments; when it is
            evaluated, an argument of a wrong type.

    Example:
        >>> compile_expression({"$gt": ["$spent", "$budget"]})({"spent": 5, "budget": 3})
        True
    """
    with one_budget():
        evaluate = _parse(expression, frozenset({"ROOT", "CURRENT", "REMOVE"}), 0)
    return lambda document: evaluate({"ROOT": document, "CURRENT": document, "REMOVE": MISSING})


def truth(value: Any) -> bool:
    """Truth of a value in an expression: everything but missing, null, false and zero."""
    if value is None or value is MISSING or value is False:
        return False
    return number(value) != 0


def is_expression_name(name: str) -> bool:
    """True if there is an operator of this name."""
    return name in _FUNCTIONS or name in _SPECIAL


def _parse(expression: Any, names: frozenset[str], depth: int) -> Evaluate:
    if depth > MAX_DEPTH:
        raise QueryError(f"the expression is nested deeper than {MAX_DEPTH} levels")
    if type(expression) is str and expression[:1] == "$":
        return _path(expression, names)
    if isinstance(expression, Mapping):
        for name in expression:
            if name[:1] == "$":
                return _operation(expression, names, depth)
        return _object(expression, names, depth)
    if isinstance(expression, (list, tuple)):
        items = [_parse(item, names, depth + 1) for item in expression]
        return lambda frame: [_null(item(frame)) for item in items]
    return lambda _: expression


def _null(value: Any) -> Any:
    return None if value is MISSING else value


def _object(expression: Mapping[str, Any], names: frozenset[str], depth: int) -> Evaluate:
    fields = {name: _parse(item, names, depth + 1) for name, item in expression.items()}

    def evaluate(frame: Frame) -> dict[str, Any]:
        values = {name: item(frame) for name, item in fields.items()}
        return {name: value for name, value in values.items() if value is not MISSING}

    return evaluate


def _path(text: str, names: frozenset[str]) -> Evaluate:
    variable, *parts = (
        text[2:].split(".") if text[:2] == "$$" else ["CURRENT", *text[1:].split(".")]
    )
    if variable not in names:
        raise QueryError(f"unknown variable $${variable} in an expression")
    for part in parts:
        if not part or part[0] == "$":
            raise QueryError(
                f"the field path {text!r} has a field name that is empty or starts with $"
            )
    if len(parts) == 1:
        only = parts[0]

        def field(frame: Frame) -> Any:
            value = frame[variable]
            return value.get(only, MISSING) if type(value) is dict else _follow(value, parts)

        return field
    return lambda frame: _follow(frame[variable], parts)


def _follow(value: Any, parts: list[str]) -> Any:
    """The value at a path; through an array it is the array of what its documents have there."""
    for position, part in enumerate(parts):
        if isinstance(value, list):
            rest = parts[position:]
            found = [_follow(item, rest) for item in value if isinstance(item, dict)]
            return [item for item in found if item is not MISSING]
        if not isinstance(value, dict):
            return MISSING
        value = value.get(part, MISSING)
    return value


def _operation(expression: Mapping[str, Any], names: frozenset[str], depth: int) -> Evaluate:
    if len(expression) != 1:
        raise QueryError(f"an expression must have exactly one operator: {shown(expression)}")
    ((name, operand),) = expression.items()
    if name in _SPECIAL:
        return _SPECIAL[name](operand, names, depth + 1)
    if name not in _FUNCTIONS:
        raise QueryError(f"unknown expression operator: {name}")
    least, most, function = _FUNCTIONS[name]
    operands = operand if isinstance(operand, (list, tuple)) else [operand]
    if not least <= len(operands) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise QueryError(f"{name} takes {wanted} arguments, not {len(operands)}")
    arguments = [_parse(item, names, depth + 1) for item in operands]
    if len(arguments) == 2:
        first, second = arguments
        return lambda frame: function([first(frame), second(frame)])
    return lambda frame: function([argument(frame) for argument in arguments])


# --- operators that do not evaluate all of their arguments, or bind variables


def _literal(operand: Any, _names: frozenset[str], _depth: int) -> Evaluate:
    return lambda _: operand


def _several(operand: Any, names: frozenset[str], depth: int) -> list[Evaluate]:
    operands = operand if isinstance(operand, (list, tuple)) else [operand]
    return [_parse(item, names, depth) for item in operands]


def _and(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    parts = _several(operand, names, depth)
    return lambda frame: all(truth(part(frame)) for part in parts)


def _or(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    parts = _several(operand, names, depth)
    return lambda frame: any(truth(part(frame)) for part in parts)


def _named(name: str, operand: Any, required: set[str], optional: set[str]) -> Mapping[str, Any]:
    if not isinstance(operand, Mapping):
        raise QueryError(f"{name} takes an object, not {shown(operand)}")
    for field in operand:
        if field not in required | optional:
            raise QueryError(f"{name} does not know the argument {field!r}")
    for field in sorted(required):
        if field not in operand:
            raise QueryError(f"{name} needs the argument {field!r}")
    return operand


def _cond(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    if isinstance(operand, Mapping):
        given = _named("$cond", operand, {"if", "then", "else"}, set())
        operand = [given["if"], given["then"], given["else"]]
    if not isinstance(operand, list) or len(operand) != 3:
        raise QueryError("$cond takes 3 arguments: if, then, else")
    test, yes, no = (_parse(item, names, depth) for item in operand)
    return lambda frame: yes(frame) if truth(test(frame)) else no(frame)


def _if_null(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    parts = _several(operand, names, depth)
    if len(parts) < 2:
        raise QueryError("$ifNull takes at least 2 arguments")

    def evaluate(frame: Frame) -> Any:
        for part in parts[:-1]:
            value = part(frame)
            if value is not None and value is not MISSING:
                return value
        return parts[-1](frame)

    return evaluate


def _switch(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    given = _named("$switch", operand, {"branches"}, {"default"})
    if not isinstance(given["branches"], list) or not given["branches"]:
        raise QueryError("$switch needs an array of branches")
    branches = []
    for branch in given["branches"]:
        parts = _named("$switch's branch", branch, {"case", "then"}, set())
        branches.append((_parse(parts["case"], names, depth), _parse(parts["then"], names, depth)))
    default = _parse(given["default"], names, depth) if "default" in given else None

    def evaluate(frame: Frame) -> Any:
        for case, then in branches:
            if truth(case(frame)):
                return then(frame)
        if default is None:
            raise QueryError("$switch: no branch fits and there is no default")
        return default(frame)

    return evaluate


def _let(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    given = _named("$let", operand, {"vars", "in"}, set())
    if not isinstance(given["vars"], Mapping):
        raise QueryError("$let: vars must be an object")
    bound = {name: _parse(item, names, depth) for name, item in given["vars"].items()}
    body = _parse(given["in"], names | frozenset(bound), depth)
    return lambda frame: body({**frame, **{name: item(frame) for name, item in bound.items()}})


def _array_argument(name: str, value: Any) -> list[Any] | None:
    if value is None or value is MISSING:
        return None
    if not isinstance(value, list):
        raise QueryError(f"{name} needs an array, not {type_name(value)}")
    return value


def _variable(name: str, given: Mapping[str, Any]) -> str:
    variable = given.get("as", "this")
    if not isinstance(variable, str) or not variable:
        raise QueryError(f"{name}: as must be the name of a variable")
    return variable


def _map(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    given = _named("$map", operand, {"input", "in"}, {"as"})
    variable = _variable("$map", given)
    source = _parse(given["input"], names, depth)
    body = _parse(given["in"], names | {variable}, depth)

    def evaluate(frame: Frame) -> Any:
        items = _array_argument("$map", source(frame))
        if items is None:
            return None
        return [_null(body({**frame, variable: item})) for item in items]

    return evaluate


def _filter(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    given = _named("$filter", operand, {"input", "cond"}, {"as", "limit"})
    variable = _variable("$filter", given)
    source = _parse(given["input"], names, depth)
    condition = _parse(given["cond"], names | {variable}, depth)
    limit = _parse(given.get("limit"), names, depth)

    def evaluate(frame: Frame) -> Any:
        items = _array_argument("$filter", source(frame))
        if items is None:
            return None
        most = limit(frame)
        if most is not None and (integer(most) or 0) < 1:
            raise QueryError("$filter: limit must be a positive integer")
        kept = [item for item in items if truth(condition({**frame, variable: item}))]
        return kept[: integer(most)]

    return evaluate


def _regex_match(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    given = _named("$regexMatch", operand, {"input", "regex"}, {"options"})
    if not isinstance(given["regex"], (str, Regex)) or str(given["regex"])[:1] == "$":
        raise QueryError("$regexMatch: regex must be a string or a regular expression")
    if isinstance(given["regex"], Regex):
        pattern, options = regex_parts(given["regex"])
    else:
        pattern, options = given["regex"], ""
    if not isinstance(given.get("options", ""), str):
        raise QueryError("$regexMatch: options must be a string")
    found = compile_search(pattern, given.get("options") or options)
    source = _parse(given["input"], names, depth)

    def evaluate(frame: Frame) -> bool:
        text = source(frame)
        if text is None or text is MISSING:
            return False
        return found(_text("$regexMatch", text))

    return evaluate


def _convert(operand: Any, names: frozenset[str], depth: int) -> Evaluate:
    given = _named("$convert", operand, {"input", "to"}, {"onError", "onNull"})
    source = _parse(given["input"], names, depth)
    target = _parse(given["to"], names, depth)
    on_null = _parse(given.get("onNull"), names, depth)
    on_error = _parse(given["onError"], names, depth) if "onError" in given else None

    def evaluate(frame: Frame) -> Any:
        to = target(frame)
        if _empty(to):
            return None
        name = TARGETS.get(integer(to) or 0) if number(to) is not None else to
        if not isinstance(name, str) or name not in TARGETS.values():
            raise QueryError(f"$convert: to must be one of {', '.join(TARGETS.values())}")
        value = source(frame)
        if _empty(value):
            return on_null(frame)
        try:
            return convert(value, name)
        except Unconvertible as unconvertible:
            reason = str(unconvertible)
        if on_error is None:
            raise QueryError(f"$convert without onError: {reason}")
        return on_error(frame)

    return evaluate


_SPECIAL: dict[str, Callable[[Any, frozenset[str], int], Evaluate]] = {
    "$literal": _literal,
    "$and": _and,
    "$or": _or,
    "$cond": _cond,
    "$ifNull": _if_null,
    "$switch": _switch,
    "$let": _let,
    "$map": _map,
    "$filter": _filter,
    "$regexMatch": _regex_match,
    "$convert": _convert,
}


# --- operators of values

_DECIMAL = Context(prec=34, rounding=create_decimal128_context().rounding, traps=[])


def _empty(value: Any) -> bool:
    return value is None or value is MISSING


def _numbers(name: str, values: list[Any]) -> list[Any] | None:
    """The arguments in exact terms, floats made decimals if a decimal is among them."""
    if any(_empty(value) for value in values):
        return None
    exact: list[Any] = []
    for value in values:
        found = number(value)
        if found is None:
            raise QueryError(f"{name} takes numbers, not {type_name(value)}")
        exact.append(found)
    if any(isinstance(found, Decimal) for found in exact):
        return [
            Decimal(repr(found)) if isinstance(found, float) else Decimal(found) for found in exact
        ]
    return exact


def _result(value: Any) -> Any:
    return Decimal128(_DECIMAL.plus(value)) if isinstance(value, Decimal) else value


def _is_date(value: Any) -> bool:
    return isinstance(value, (datetime, DatetimeMS))


def _since_epoch(value: Any) -> int:
    return milliseconds(value) if isinstance(value, datetime) else int(value)


def _arithmetic(name: str, function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """The function with decimals of 34 digits, and with an error that says what cannot be done."""

    def evaluate(values: list[Any]) -> Any:
        with localcontext(_DECIMAL):
            try:
                return function(values)
            except QueryError:
                raise
            except (ArithmeticError, ValueError) as error:
                reason = str(error)
        raise QueryError(f"{name} cannot be computed: {reason}")

    return evaluate


def _add(values: list[Any]) -> Any:
    dates = [value for value in values if _is_date(value)]
    if len(dates) > 1:
        raise QueryError("$add takes only one date")
    found = _numbers("$add", [value for value in values if not _is_date(value)])
    if found is None:
        return None
    if dates:
        return date_of(_since_epoch(dates[0]) + round(sum(found)))
    return _result(sum(found))


def _subtract(values: list[Any]) -> Any:
    left, right = values
    if _is_date(left) and not _empty(right):
        if _is_date(right):
            return _since_epoch(left) - _since_epoch(right)
        return date_of(_since_epoch(left) - round((_numbers("$subtract", [right]) or [0])[0]))
    found = _numbers("$subtract", values)
    return None if found is None else _result(found[0] - found[1])


def _multiply(values: list[Any]) -> Any:
    found = _numbers("$multiply", values)
    return None if found is None else _result(math.prod(found))


def _divide(values: list[Any]) -> Any:
    found = _numbers("$divide", values)
    if found is None:
        return None
    if found[1] == 0:
        raise QueryError("$divide cannot divide by zero")
    return _result(found[0] / found[1])


def _mod(values: list[Any]) -> Any:
    found = _numbers("$mod", values)
    if found is None:
        return None
    left, right = found
    if right == 0:
        raise QueryError("$mod cannot divide by zero")
    if isinstance(left, int) and isinstance(right, int):
        rest = abs(left) % abs(right)
        return -rest if left < 0 else rest
    return _result(left % right) if isinstance(left, Decimal) else math.fmod(left, right)


def _unary(name: str, function: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    def evaluate(values: list[Any]) -> Any:
        found = _numbers(name, values)
        if found is None:
            return None
        if is_nan(values[0]) or (isinstance(found[0], (float, Decimal)) and math.isinf(found[0])):
            return values[0]
        value = function(found[0])
        if isinstance(found[0], float):
            return float(value)
        return _result(Decimal(value)) if isinstance(found[0], Decimal) else value

    return _arithmetic(name, evaluate)


def _text(name: str, value: Any) -> str:
    if type(value) is not str:
        raise QueryError(f"{name} takes strings, not {type_name(value)}")
    return value


def _concat(values: list[Any]) -> str | None:
    if any(_empty(value) for value in values):
        return None
    return "".join(_text("$concat", value) for value in values)


def _case(name: str, change: Callable[[str], str]) -> Callable[[list[Any]], str]:
    return lambda values: "" if _empty(values[0]) else change(_text(name, values[0]))


def _ascii(text: str, change: Callable[[str], str]) -> str:
    return "".join(change(letter) if letter.isascii() else letter for letter in text)


def _size(values: list[Any]) -> int:
    if not isinstance(values[0], list):
        raise QueryError(f"$size needs an array, not {type_name(values[0])}")
    return len(values[0])


def _in(values: list[Any]) -> bool:
    item, array = values
    if not isinstance(array, list):
        raise QueryError(f"$in needs an array as its second argument, not {type_name(array)}")
    key = comparison_key(item)
    return any(comparison_key(other) == key for other in array)


def _element_at(values: list[Any]) -> Any:
    array = _array_argument("$arrayElemAt", values[0])
    if array is None or _empty(values[1]):
        return None
    index = integer(values[1])
    if index is None:
        raise QueryError("$arrayElemAt needs an integer")
    return array[index] if -len(array) <= index < len(array) else MISSING


def _end(name: str, position: int) -> Callable[[list[Any]], Any]:
    def evaluate(values: list[Any]) -> Any:
        array = _array_argument(name, values[0])
        if array is None:
            return None
        return array[position] if array else MISSING

    return evaluate


def _spread(values: list[Any]) -> list[Any]:
    """A single array argument stands for its elements, as in `$max` and `$sum`."""
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _extreme(choose: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    def evaluate(values: list[Any]) -> Any:
        found = [value for value in _spread(values) if not _empty(value)]
        return choose(found, key=comparison_key) if found else None

    return evaluate


def _sum(values: list[Any]) -> Any:
    return _add([value for value in _spread(values) if number(value) is not None])


def _average(values: list[Any]) -> Any:
    found = [value for value in _spread(values) if number(value) is not None]
    return _divide([_add(found), len(found)]) if found else None


def _concat_arrays(values: list[Any]) -> list[Any] | None:
    joined: list[Any] = []
    for value in values:
        array = _array_argument("$concatArrays", value)
        if array is None:
            return None
        joined.extend(array)
    return joined


def _slice(values: list[Any]) -> list[Any] | None:
    array = _array_argument("$slice", values[0])
    if array is None:
        return None
    whole = [count for count in map(integer, values[1:]) if count is not None]
    if len(whole) < len(values) - 1:
        raise QueryError("$slice takes integers after its array")
    if len(whole) == 1:
        return array[: whole[0]] if whole[0] >= 0 else array[whole[0] :]
    if whole[1] <= 0:
        raise QueryError("$slice: the number of elements must be positive")
    start = whole[0] if whole[0] >= 0 else max(len(array) + whole[0], 0)
    return array[start : start + whole[1]]


def _date_part(name: str, part: Callable[[datetime], int]) -> Callable[[list[Any]], Any]:
    def evaluate(values: list[Any]) -> Any:
        if _empty(values[0]):
            return None
        if not isinstance(values[0], datetime):
            raise QueryError(f"{name} takes a date, not {type_name(values[0])}")
        return part(values[0])

    return evaluate


def _converter(name: str, to: str) -> Callable[[list[Any]], Any]:
    def evaluate(values: list[Any]) -> Any:
        if _empty(values[0]):
            return None
        try:
            return convert(values[0], to)
        except Unconvertible as unconvertible:
            reason = str(unconvertible)
        raise QueryError(f"{name}: {reason}")

    return evaluate


def _compared(test: Callable[[Any, Any], bool]) -> Callable[[list[Any]], bool]:
    return lambda values: test(comparison_key(values[0]), comparison_key(values[1]))


def _cmp(values: list[Any]) -> int:
    left, right = comparison_key(values[0]), comparison_key(values[1])
    return (left > right) - (left < right)


MANY = 1 << 30  # no bound on the arguments but that of the request's body
_FUNCTIONS: dict[str, tuple[int, int, Callable[[list[Any]], Any]]] = {
    "$eq": (2, 2, _compared(lambda left, right: left == right)),
    "$ne": (2, 2, _compared(lambda left, right: left != right)),
    "$gt": (2, 2, _compared(lambda left, right: left > right)),
    "$gte": (2, 2, _compared(lambda left, right: left >= right)),
    "$lt": (2, 2, _compared(lambda left, right: left < right)),
    "$lte": (2, 2, _compared(lambda left, right: left <= right)),
    "$cmp": (2, 2, _cmp),
    "$not": (1, 1, lambda values: not truth(values[0])),
    "$in": (2, 2, _in),
    "$add": (0, MANY, _arithmetic("$add", _add)),
    "$subtract": (2, 2, _arithmetic("$subtract", _subtract)),
    "$multiply": (0, MANY, _arithmetic("$multiply", _multiply)),
    "$divide": (2, 2, _arithmetic("$divide", _divide)),
    "$mod": (2, 2, _arithmetic("$mod", _mod)),
    "$abs": (1, 1, _unary("$abs", abs)),
    "$ceil": (1, 1, _unary("$ceil", math.ceil)),
    "$floor": (1, 1, _unary("$floor", math.floor)),
    "$sum": (1, MANY, _arithmetic("$sum", _sum)),
    "$avg": (1, MANY, _arithmetic("$avg", _average)),
    "$max": (1, MANY, _extreme(max)),
    "$min": (1, MANY, _extreme(min)),
    "$type": (1, 1, lambda values: type_name(values[0])),
    **{
        name: (1, 1, _converter(name, to))
        for name, to in {
            "$toBool": "bool",
            "$toDate": "date",
            "$toDecimal": "decimal",
            "$toDouble": "double",
            "$toInt": "int",
            "$toLong": "long",
            "$toObjectId": "objectId",
            "$toString": "string",
        }.items()
    },
    "$isNumber": (1, 1, lambda values: number(values[0]) is not None),
    "$isArray": (1, 1, lambda values: isinstance(values[0], list)),
    "$size": (1, 1, _size),
    "$arrayElemAt": (2, 2, _element_at),
    "$first": (1, 1, _end("$first", 0)),
    "$last": (1, 1, _end("$last", -1)),
    "$concatArrays": (0, MANY, _concat_arrays),
    "$slice": (2, 3, _slice),
    "$concat": (0, MANY, _concat),
    "$toLower": (1, 1, _case("$toLower", lambda text: _ascii(text, str.lower))),
    "$toUpper": (1, 1, _case("$toUpper", lambda text: _ascii(text, str.upper))),
    "$strLenCP": (1, 1, lambda values: len(_text("$strLenCP", values[0]))),
    "$strLenBytes": (1, 1, lambda values: len(_text("$strLenBytes", values[0]).encode())),
    "$year": (1, 1, _date_part("$year", lambda date: date.year)),
    "$month": (1, 1, _date_part("$month", lambda date: date.month)),
    "$dayOfMonth": (1, 1, _date_part("$dayOfMonth", lambda date: date.day)),
    "$hour": (1, 1, _date_part("$hour", lambda date: date.hour)),
    "$minute": (1, 1, _date_part("$minute", lambda date: date.minute)),
    "$second": (1, 1, _date_part("$second", lambda date: date.second)),
    "$dayOfWeek": (1, 1, _date_part("$dayOfWeek", lambda date: date.isoweekday() % 7 + 1)),
    "$dayOfYear": (1, 1, _date_part("$dayOfYear", lambda date: date.timetuple().tm_yday)),
}
