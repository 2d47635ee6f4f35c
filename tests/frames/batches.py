"""Record batches of all types that are written, for Hypothesis."""

from __future__ import annotations

from datetime import time
from decimal import Decimal
from itertools import product
from typing import Any, TypeAlias, get_args

import pyarrow as pa
from hypothesis import strategies as st

from connectome_dagster.frames.encoding import Binary, Decimals, Encoding, Nulls, Timestamps

Column: TypeAlias = tuple[pa.DataType, st.SearchStrategy[Any]]

ENCODINGS = [
    Encoding(*words) for words in product(*map(get_args, (Nulls, Timestamps, Decimals, Binary)))
]
encodings = st.sampled_from(ENCODINGS)

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
ZONES = [None, "UTC", "+05:30", "America/New_York"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = texts.filter(lambda name: "\0" not in name)
NAMES = ["x", "y z", "", ".", "a.b", "$f", "$", "[]", "*", "\u2028", "🎈", '"', "\\", "_id", "d"]


def _decimals(digits: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**digits - 1
    wholes = st.integers(-most, most) | st.sampled_from([0, -1, 10**scale, most])
    return wholes.map(lambda whole: Decimal(f"{whole}e-{scale}"))


def _instants(unit: str, zone: str | None) -> Column:
    """Whole milliseconds, which all forms have, of years that Python has in any zone."""
    per_second = PER_SECOND[unit]
    least = max(-62000000000 * per_second, -(2**63) + 10**5 * per_second)
    most = min(253000000000 * per_second, 2**63 - 10**5 * per_second)
    step = max(1, per_second // 1000)
    counts = st.integers(-(-least // step), most // step) | st.sampled_from([0, -1, 1])
    return pa.timestamp(unit, zone), counts.map(lambda count: count * step)


SCALARS: list[Column] = [
    (pa.bool_(), st.booleans()),
    (pa.null(), st.none()),
    *((type_, st.integers(-(2**bits), 2**bits - 1)) for type_, bits in
      [(pa.int8(), 7), (pa.int16(), 15), (pa.int32(), 31), (pa.int64(), 63)]),
    *((type_, st.integers(0, 2**bits - 1)) for type_, bits in
      [(pa.uint8(), 8), (pa.uint16(), 16), (pa.uint32(), 32), (pa.uint64(), 64)]),
    *((type_, st.floats(width=width, allow_nan=False, allow_infinity=False)) for type_, width in
      [(pa.float32(), 32), (pa.float64(), 64)]),
    *((type_, texts) for type_ in [pa.string(), pa.large_string(), pa.string_view()]),
    (pa.string(), st.sampled_from(["2018-02-01T00:00:00.000Z", "2018-02-01", "1.5", "{}"])),
    (pa.dictionary(pa.int8(), pa.string()), texts),
    *(_instants(unit, zone) for unit in PER_SECOND for zone in ZONES),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("s"), st.times().map(lambda t: t.replace(microsecond=0))),
    (pa.time32("ms"), st.integers(0, 86_399_999).map(lambda ms: _time(ms * 1000))),
    (pa.time64("us"), st.times()),
    (pa.time64("ns"), st.times()),
    (pa.decimal128(9, 2), _decimals(9, 2)),
    (pa.decimal128(34, 33), _decimals(34, 33)),
    (pa.decimal128(38, 10), _decimals(34, 10)),
    (pa.decimal256(50, 16), _decimals(34, 0)),
    *((type_, st.binary(max_size=5)) for type_ in
      [pa.binary(), pa.large_binary(), pa.binary_view()]),
    (pa.binary(), st.binary(min_size=700, max_size=900)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.binary(16), st.binary(min_size=16, max_size=16)),
]  # fmt: skip


def _time(microseconds: int) -> time:
    seconds, below = divmod(microseconds, 10**6)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, below)


@st.composite
def columns(draw: st.DrawFn, depth: int = 2) -> Column:
    """A type and what it holds; deeper ones hold structs, lists and maps."""
    if not depth or draw(st.booleans()):
        return draw(st.sampled_from(SCALARS))
    type_, values = draw(columns(depth - 1))
    items = st.lists(st.none() | values, max_size=3)
    shape = draw(st.sampled_from(["list", "large", "fixed", "struct", "map", "empty"]))
    if shape == "struct":
        name, other = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=2, max_size=2))
        fields = {name: st.none() | values, other: st.integers(-5, 5)}
        return pa.struct([(name, type_), (other, pa.int64())]), st.fixed_dictionaries(fields)
    if shape == "empty":
        return pa.struct([]), st.just({})
    if shape == "map":
        pairs = st.dictionaries(names, st.none() | values, max_size=3)
        return pa.map_(pa.string(), type_), pairs.map(lambda pairs: list(pairs.items()))
    if shape == "fixed":
        return pa.list_(type_, 2), st.lists(st.none() | values, min_size=2, max_size=2)
    return (pa.list_ if shape == "list" else pa.large_list)(type_), items


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """A few rows of a few columns, each of one type; with nulls."""
    rows = draw(st.integers(1, 6))
    arrays = {}
    for name in draw(st.lists(st.sampled_from(NAMES) | names, unique=True, min_size=1, max_size=3)):
        type_, values = draw(columns())
        items = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        arrays[name] = pa.array(items, type_)
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
