"""Documents as JSON texts, for Hypothesis: every form of a value that the readers must tell apart.

Texts and not values, because the difference between `1`, `1.0`, `1e0` and `"1"` is the point.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from hypothesis import strategies as st

EDGES = [
    *("0", "-0", "1", "-1", "300", "9007199254740992", "9007199254740993", "-9007199254740993"),
    *("9223372036854775807", "-9223372036854775808", "9223372036854775808"),
    *("-9223372036854775809", "18446744073709551616", "9" * 38, "9" * 39, "1" * 400),
]
FLOATS = [
    *("0.0", "-0.0", "1.5", "1e3", "1E+3", "5e-324", "2.2250738585072014e-308", "1e-400", "0.1"),
    *("1.7976931348623157e308", "1e400", "-1e400", "9007199254740993.0", "1e22"),
]
ISO = [
    *("2018-02-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    *("0001-01-01T00:00:00.000Z", "0000-01-01T00:00:00.000Z", "2018-13-01T00:00:00.000Z"),
    *("2018-02-30T00:00:00.000Z", "2018-02-01T24:00:00.000Z", "2018-02-01T00:00:00.000Z\n"),
]
DATE_LIKE = [
    *("2018-02-01", "2018-02-01 10:00", "2018-02-01T10:00:00", "2018-02-01T10:00:00Z"),
    *("2018-02-01 10:00:00.123456", "2018", "10:00:00", "2018-02-01T10:00:00+01:00"),
]
STRINGS = [
    "",
    "a",
    "null",
    "NaN",
    "1",
    "{}",
    '{"$oid":"x"}',
    "\u2028",
    "\u0085",
    "\0",
    "🎈",
    "\\",
    '"',
]
FORMS = [
    *('{"$oid":"0123456789abcdef01234567"}', '{"$oid":"xyz"}', '{"$oid":5}'),
    *('{"\\u0024oid":"0123456789abcdef01234567"}', '{ "$oid" : "0123456789ABCDEF01234567" }'),
    *('{"$date":"2018-02-01T00:00:00.000Z"}', '{"$date":"2018-02-01T00:00:00Z"}'),
    *('{"$date":{"$numberLong":"-1"}}', '{"$date":12}', '{"$date":"0000-01-01T00:00:00.000Z"}'),
    *('{"$numberInt":"5"}', '{"$numberLong":"9223372036854775807"}', '{"$numberLong":"x"}'),
    *('{"$numberDouble":"NaN"}', '{"$numberDouble":"-Infinity"}', '{"$numberDouble":"1.5"}'),
    *('{"$numberDecimal":"1.50"}', '{"$numberDecimal":"NaN"}', '{"$numberDecimal":"1E-30"}'),
    *('{"$binary":{"base64":"AAE=","subType":"00"}}', '{"$binary":"AAE=","$type":"00"}'),
    *('{"$uuid":"c8edabc3-f738-4ca3-b68d-ab92a91478a3"}', '{"$minKey":1}', '{"$undefined":true}'),
    *('{"$regularExpression":{"pattern":"a","options":""}}', '{"$strange":1e400}', '{"$x":1}'),
]

space = st.sampled_from(["", "", "", " ", "\n", " \t\r\n"])
names = st.sampled_from(
    ["a", "b", "c", "d e", "", "x.y", "[]", "$f", "ключ", "\u2028", "n\0l", "d"]
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def json_string(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    return json.dumps(draw(values), ensure_ascii=draw(st.booleans()))


def canonical(form: tuple[str, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    """One form of canonical Extended JSON, so that whole columns are of it."""
    name, values = form
    return values.map(lambda value: json.dumps({name: value}))


SCALARS = [
    st.sampled_from(["true", "false"]),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.integers(-5, 5).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.floats(-10, 10).map(json.dumps),
    json_string(text),
    json_string(st.sampled_from(STRINGS)),
    json_string(st.sampled_from(DATE_LIKE)),
    json_string(st.sampled_from(ISO)),
    json_string(st.sampled_from(ISO[:4])),
    st.sampled_from(EDGES),
    st.sampled_from(FLOATS),
    st.sampled_from(FORMS),
    *map(
        canonical,
        [
            ("$numberInt", st.integers(-(2**31), 2**31 - 1).map(str)),
            ("$numberLong", st.sampled_from(["5", *EDGES[:12], "007", "+1"])),
            ("$numberDouble", st.floats().map(repr)),
            ("$numberDouble", st.sampled_from(["NaN", "-Infinity", "-0", "1E+3", *FLOATS[:8]])),
            (
                "$numberDecimal",
                st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
            ),
            ("$numberDecimal", st.sampled_from(["1.50", "-0", "1E+3", "NaN", "1." + "1" * 40])),
        ],
    ),
    st.integers(-(2**63), 2**63 - 1).map(lambda ms: f'{{"$date":{{"$numberLong":"{ms}"}}}}'),
    st.datetimes().map(lambda t: f'{{"$date":"{t.isoformat(timespec="seconds")}Z"}}'),
    st.just("null"),
]
NOT_JSON = ["NaN", "Infinity", "-Infinity", "nul", "01", "+1", "1.", "'a'", '"\\q"', '"\\ud800"']


class Plan(NamedTuple):
    """What a field holds as a rule, so that columns of one type come up often.

    Attributes:
        sorts: positions in `SCALARS`; several make a mixed field.
        fields: members of an object; None if it is none.
        items: what a list holds; None if it is none.
        nulls: whether null is among the values.
    """

    sorts: tuple[int, ...] = ()
    fields: dict[str, Plan] | None = None
    items: Plan | None = None
    nulls: bool = False


def _plan(draw: st.DrawFn, depth: int) -> Plan:
    nulls = draw(st.integers(0, 2)) == 0
    shape = draw(st.sampled_from(["one", "one", "one", "mixed", *["object", "list"] * bool(depth)]))
    if shape == "object":
        return Plan(fields=_fields(draw, depth - 1), nulls=nulls)
    if shape == "list":
        return Plan(items=_plan(draw, depth - 1), nulls=nulls)
    sort = st.integers(0, len(SCALARS) - 1)
    count = 1 if shape == "one" else 2
    return Plan(tuple(draw(sort) for _ in range(count)), nulls=nulls)


def _fields(draw: st.DrawFn, depth: int) -> dict[str, Plan]:
    chosen = draw(st.lists(names, unique=True, max_size=4))
    return {name: _plan(draw, depth) for name in chosen}


def _value(draw: st.DrawFn, plan: Plan, repeats: bool) -> str:
    if plan.nulls and draw(st.integers(0, 3)) == 0:
        return "null"
    if plan.fields is not None:
        return _object(draw, plan.fields, repeats)
    pad = draw(space)
    if plan.items is not None:
        items = [_value(draw, plan.items, repeats) for _ in range(draw(st.integers(0, 3)))]
        return f"[{pad}{f'{pad},'.join(items)}{pad}]"
    return draw(SCALARS[draw(st.sampled_from(plan.sorts))])


def _object(draw: st.DrawFn, fields: dict[str, Plan], repeats: bool) -> str:
    present = list(fields)
    if present and draw(st.booleans()):
        present = draw(st.lists(st.sampled_from(present), unique=not repeats, max_size=5))
    pad = draw(space)
    members = (
        f"{json.dumps(name)}{pad}:{pad}{_value(draw, fields[name], repeats)}" for name in present
    )
    return f"{{{pad}{f'{pad},{pad}'.join(members)}{pad}}}"


@st.composite
def collections(draw: st.DrawFn, max_size: int = 7, repeats: bool = False) -> list[str]:
    """Texts of documents that look like those of one collection; names may repeat if asked."""
    fields = _fields(draw, depth=3)
    size = draw(st.integers(1, max_size))
    return [_object(draw, fields, repeats) for _ in range(size)]
