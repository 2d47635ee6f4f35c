from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import ConfigurationError, EncodeError, SchemaConflict
from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encode_document import encode_document
from connectome_dagster.frames.encoding import Encoding
from tests.frames.batches import batches as any_batches
from tests.frames.batches import encodings

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = text.filter(lambda name: "\0" not in name)
wholes = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False, allow_infinity=False)
instants = st.integers(-62135596800, 253402300799)  # the years 1 to 9999


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


PLAIN: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), wholes),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), doubles),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pa.bool_(), st.booleans()),
    (pa.string(), text),
    (pa.large_string(), text),
    (pa.string_view(), text),
    (pa.null(), st.none()),
    (pa.dictionary(pa.int8(), pa.string()), text),
]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)]


@st.composite
def nested(draw: st.DrawFn, depth: int = 2) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    if not depth or draw(st.booleans()):
        return draw(st.sampled_from(PLAIN))
    type_, values = draw(nested(depth - 1))
    lists = st.lists(optional(values), max_size=3)
    if pa.types.is_dictionary(type_):
        return pa.list_(type_), lists
    shape = draw(st.sampled_from(["list", "large", "fixed", "view", "struct", "map", "empty"]))
    if shape == "struct":
        fields = [pa.field("x", type_), pa.field("y z", pa.int64())]
        return pa.struct(fields), st.fixed_dictionaries({"x": optional(values), "y z": wholes})
    if shape == "empty":
        return pa.struct([]), st.just({})
    if shape == "map":
        pairs = st.dictionaries(names, optional(values), max_size=3)
        return pa.map_(pa.string(), type_), pairs.map(lambda items: list(items.items()))
    if shape == "fixed":
        return pa.list_(type_, 2), st.lists(optional(values), min_size=2, max_size=2)
    makers = {"list": pa.list_, "large": pa.large_list, "view": pa.list_view}
    return makers[shape](type_), lists


@st.composite
def batches(draw: st.DrawFn, column: st.SearchStrategy[Any] | None = None) -> pa.RecordBatch:
    rows = draw(st.integers(1, 6))
    columns = {}
    for at in range(draw(st.integers(1, 3))):
        type_, values = draw(nested() if column is None else column)
        items = draw(st.lists(optional(values), min_size=rows, max_size=rows))
        columns[f"c{at}"] = pa.array(items, type_)
    return pa.record_batch(columns)


def said(batch: pa.RecordBatch) -> list[str]:
    """What a slow encoder makes of values that JSON has."""
    return [
        repr({field.name: _said(row[field.name], field.type) for field in batch.schema})
        for row in batch.to_pylist()
    ]


def _said(value: Any, type_: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(type_):
        return {key: _said(item, type_.item_type) for key, item in value}
    if pa.types.is_struct(type_):
        return {field.name: _said(value[field.name], field.type) for field in type_}
    if isinstance(value, list):
        return [_said(item, type_.value_type) for item in value]
    return value


def spoken(lines: list[bytes]) -> list[str]:
    return [repr(json.loads(line)) for line in lines]


@settings(max_examples=120, deadline=None)
@given(batches(), st.integers(0, 5), st.integers(0, 6))
def test_rows_say_every_value_and_a_slice_says_what_its_rows_are(
    batch: pa.RecordBatch, begin: int, length: int
) -> None:
    lines = encode_rows(batch)
    assert spoken(lines) == said(batch)
    assert encode_rows(batch.slice(begin, length)) == lines[begin : begin + length]


@settings(max_examples=60, deadline=None)
@given(
    batches(st.sampled_from([p for p in PLAIN if p[0] in (pa.int64(), pa.float64(), pa.bool_())]))
)
def test_numbers_and_booleans_come_back_with_their_types_bit_by_bit(batch: pa.RecordBatch) -> None:
    read = decode(b",".join(encode_rows(batch)), Hints()).batch
    for name, column, theirs in zip(batch.schema.names, batch.columns, read.columns, strict=True):
        if column.null_count < len(column):
            assert theirs.type.equals(column.type), name
        assert repr(theirs.to_pylist()) == repr(column.to_pylist())


@settings(deadline=None)
@given(st.lists(optional(text), min_size=1, max_size=5))
def test_text_comes_back_as_it_was(values: list[str | None]) -> None:
    batch = pa.record_batch({"t": pa.array(values, pa.string())})
    assert decode(b",".join(encode_rows(batch)), Hints()).batch.to_pylist() == batch.to_pylist()


@settings(deadline=None)
@given(
    st.lists(optional(instants), min_size=1, max_size=4),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from([None, "UTC", "+05:30", "Europe/Zurich", "America/New_York"]),
    st.integers(0, 999_999_999),
)
def test_instants_are_said_in_utc_with_every_digit(
    seconds: list[int | None], unit: str, zone: str | None, below: int
) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    fraction = below * scale // 10**9
    limit = 2**63 // scale - 1
    counts = [s and max(-limit, min(limit, s)) * scale + fraction for s in seconds]
    array = pa.array(counts, pa.int64()).cast(pa.timestamp(unit, zone))
    for line, count in zip(encode_rows(pa.record_batch({"t": array})), counts, strict=True):
        value = json.loads(line)["t"]
        if count is None:
            assert value is None
            continue
        assert value.endswith("Z")
        whole, digits = value.rstrip("Z").split(".")
        told = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
        epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
        told_seconds = (told - epoch) // timedelta(seconds=1)
        assert told_seconds * 10**9 + int(digits.ljust(9, "0")) == count * 10**9 // scale


def test_instants_in_milliseconds_come_back_as_instants() -> None:
    array = pa.array([0, None, -1, 253402300799999], pa.timestamp("ms", "UTC"))
    lines = encode_rows(pa.record_batch({"t": array}))
    assert lines[0] == b'{"t":"1970-01-01T00:00:00.000Z"}'
    assert decode(b",".join(lines), Hints()).batch.column("t").equals(array)


@settings(deadline=None)
@given(
    st.lists(optional(st.binary(min_size=3, max_size=3)), min_size=1, max_size=5), st.integers(0, 4)
)
@pytest.mark.parametrize("type_", BYTES, ids=str)
def test_binary_is_said_as_base64(
    type_: pa.DataType, values: list[bytes | None], begin: int
) -> None:
    batch = pa.record_batch({"b": pa.array(values, type_)}).slice(begin)
    expected = [v if v is None else base64.b64encode(v).decode() for v in values[begin:]]
    assert [json.loads(line)["b"] for line in encode_rows(batch)] == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)), ["1.50", None]),
        (pa.array([Decimal(-(10**37))], pa.decimal128(38, 0)), [str(-(10**37))]),
        (pa.array([Decimal("1e-3")], pa.decimal256(50, 3)), ["0.001"]),
        (pa.array([date(1969, 12, 31), None]), ["1969-12-31", None]),
        (pa.array([date(2018, 2, 1)], pa.date64()), ["2018-02-01"]),
        (pa.array([time(1, 2, 3)], pa.time32("s")), ["01:02:03"]),
        (pa.array([time(1, 2, 3, 4)], pa.time64("us")), ["01:02:03.000004"]),
        (pa.array([1.5, math.nan, None]), [1.5, None, None]),
        (pa.array([np.float16(1.5)], pa.float16()), [1.5]),
        (pa.array([-0.0, 5e-324]), [-0.0, 5e-324]),
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["x", None]), ["x", "x", None]),
        (pa.array([[{"a": 1}], None, []]), [[{"a": 1}], None, []]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    ],
)
def test_other_types_are_said_and_their_slices_too(array: pa.Array, expected: list[Any]) -> None:
    batch = pa.record_batch({"v": array})
    for begin in range(len(expected)):
        read = [json.loads(line)["v"] for line in encode_rows(batch.slice(begin))]
        assert repr(read) == repr(expected[begin:])


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="this pyarrow has no type for UUIDs")
def test_canonical_extension_types_are_said_as_what_they_mean() -> None:
    uuid = UUID("c8edabc3-f738-4ca3-b68d-ab92a91478a3")
    batch = pa.record_batch(
        {
            "u": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.bytes], pa.binary(16))),
            "b": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
        }
    )
    assert encode_rows(batch) == [b'{"u":"%s","b":true}' % str(uuid).encode()]


def infinite_behind_null() -> pa.Array:
    return pa.StructArray.from_arrays(
        [pa.array([math.inf, 1.0])], names=["x"], mask=pa.array([True, False])
    )


def test_what_stands_behind_a_null_is_not_looked_at() -> None:
    batch = pa.record_batch({"s": infinite_behind_null()})
    assert encode_rows(batch) == [b'{"s":null}', b'{"s":{"x":1.0}}']


@pytest.mark.parametrize(
    ("array", "column", "row"),
    [
        (pa.array([1.0, math.inf]), "v", 1),
        (pa.array([[1.0, 2.0], None, [3.0, -math.inf]]), "v[]", 2),
        (pa.array([{"x": 1.0}, {"x": math.inf}]), "v.x", 1),
        (pa.array([[[1.0, 2.0], [3.0]], [[4.0, math.inf]]]), "v[][]", 1),
        (
            pa.array([[("k", 1.0)], [("k", 1.0), ("l", math.inf)]], pa.map_("string", "double")),
            "v.*",
            1,
        ),
        (pa.array([[("k", 1)], [("l", 1), ("l", 2)]], pa.map_("string", "int64")), "v", 1),
        (pa.array([timedelta(1)]), "v", None),
        (pa.array([2**62], pa.timestamp("s")), "v", 0),
        (pa.array([0, 253402300800000], pa.timestamp("ms")), "v", 1),
        (pa.array([None, 0, -62167219200001], pa.timestamp("ms", "UTC")), "v", 2),
        (pa.array([0, 10**6 * 4], pa.date32()), "v", 1),
        (pa.array([[(1, 2)]], pa.map_("int64", "int64")), "v", None),
        (pa.array([{"a\0b": 1}]), "v.a\0b", None),
    ],
)
def test_what_json_cannot_say_names_column_and_row(
    array: pa.Array, column: str, row: int | None
) -> None:
    with pytest.raises(EncodeError) as caught:
        encode_rows(pa.RecordBatch.from_arrays([array], names=["v"]), first_row=10)
    assert caught.value.column == column
    assert caught.value.row == (None if row is None else 10 + row)


def test_a_name_that_arrow_would_cut_off_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n\0l"])
    with pytest.raises(EncodeError, match="NUL"):
        encode_rows(batch)


@settings(deadline=None)
@given(st.lists(names, unique=True, min_size=1, max_size=5))
def test_any_other_name_is_said_as_it_is(names: list[str]) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1])] * len(names), names=names)
    assert list(json.loads(encode_rows(batch)[0])) == names


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(SchemaConflict, match="'a'"):
        encode_rows(pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))


def test_rows_without_columns_are_empty_documents() -> None:
    empty = pa.RecordBatch.from_struct_array(pa.array([{}, {}], pa.struct([])))
    assert encode_rows(empty) == [b"{}", b"{}"]
    assert encode_rows(pa.record_batch({"a": pa.array([], pa.int64())})) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63, 2**63),
        (10**40, 10**40),
        (-(10**40), -(10**40)),
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        (np.array([["a"], ["b"]]), [["a"], ["b"]]),
        (np.datetime64("2018-02-01T00:00:00.000000001"), "2018-02-01T00:00:00.000000001Z"),
        (np.datetime64("2018-02-01T05", "h"), "2018-02-01T05:00:00.000Z"),
        (np.datetime64("2018-02"), "2018-02-01"),
        (np.array(["2018-02-01"], "M8[ns]"), ["2018-02-01T00:00:00.000Z"]),
        (np.array("2018-02-01", "M8[ns]"), "2018-02-01T00:00:00.000Z"),
        (np.datetime64("NaT"), None),
        (math.nan, None),
        (pd.NA, None),
        (pd.NaT, None),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), None),
        (Decimal("sNaN"), None),
        (datetime(2018, 2, 1, tzinfo=timezone(timedelta(hours=1))), "2018-01-31T23:00:00.000Z"),
        (datetime(2018, 2, 1, 0, 0, 0, 5), "2018-02-01T00:00:00.000005Z"),
        (pd.Timestamp("2018-02-01T00:00:00.000000007Z"), "2018-02-01T00:00:00.000000007Z"),
        (date(2018, 2, 1), "2018-02-01"),
        (time(1, 2), "01:02:00"),
        (UUID(int=5), str(UUID(int=5))),
        (b"\0\1", "AAE="),
        ({"a": (1, [None])}, {"a": [1, [None]]}),
        ("n\0l\u2028🎈", "n\0l\u2028🎈"),
        (-0.0, -0.0),
    ],
)
def test_a_document_says_its_values(value: Any, expected: Any) -> None:
    assert repr(json.loads(encode_document({"v": value}))) == repr({"v": expected})


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [math.inf, {1}, object(), 1j, timedelta(1), np.timedelta64(5, "ns"), "\ud800", deep(200),
     {5: 1}, datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_a_document_cannot_say_names_its_row(value: Any) -> None:
    with pytest.raises(EncodeError, match="row 7") as caught:
        encode_document({"v": value}, row=7)
    assert caught.value.row == 7
    assert caught.value.__cause__ is None


@settings(deadline=None)
@given(st.dictionaries(names, st.recursive(
    st.none() | st.booleans() | st.integers() | doubles | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
), max_size=4))  # fmt: skip
def test_a_document_of_json_values_comes_back(document: dict[str, Any]) -> None:
    assert repr(json.loads(encode_document(document))) == repr(document)


@settings(max_examples=120, deadline=None)
@given(any_batches(), encodings, st.integers(0, 5))
def test_rows_are_said_as_documents_are_in_every_form(
    batch: pa.RecordBatch, encoding: Encoding, begin: int
) -> None:
    lines = encode_rows(batch, encoding=encoding)
    assert encode_rows(batch.slice(begin), encoding=encoding) == lines[begin:]
    for row, (line, value) in enumerate(zip(lines, batch.to_pylist(), strict=True)):
        document = encode_document(as_document(value, pa.struct(list(batch.schema))), row, encoding)
        said, expected = json.loads(line), json.loads(document)
        if encoding.nulls == "omit":  # an entry of a map is a field of a dict
            said, expected = without_nulls(said), without_nulls(expected)
        assert repr(said) == repr(expected)


def as_document(value: Any, type_: pa.DataType) -> Any:
    """What a document of Python's types has for a value of Arrow's."""
    if value is None:
        return None
    if pa.types.is_struct(type_):
        return {field.name: as_document(value[field.name], field.type) for field in type_}
    if pa.types.is_map(type_):
        return {key: as_document(item, type_.item_type) for key, item in value}
    if isinstance(value, list):
        return [as_document(item, type_.value_type) for item in value]
    if isinstance(value, time):  # of which Python's have no unit, and so no digits of one
        return pa.scalar(value, type_).cast(pa.string()).as_py()
    return UUID(bytes=value) if type_.equals(pa.binary(16)) else value


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


NESTED = pa.record_batch(
    {
        "a": pa.array([1, None]),
        "s": pa.array([{"x": None, "y": {"z": None}}, None]),
        "l": pa.array([[None, {"x": None}], None]),
        "m": pa.array([[("k", None), ("j", 1)], None], pa.map_(pa.string(), pa.int64())),
    }
)


def test_nulls_are_left_out_as_fields_and_stay_as_items_and_entries() -> None:
    lines = encode_rows(NESTED, encoding=Encoding(nulls="omit"))
    assert lines == [b'{"a":1,"s":{"y":{}},"l":[null,{}],"m":{"k":null,"j":1}}', b"{}"]
    document = {"a": math.nan, "s": {"x": None, "y": [None, {"z": pd.NA}]}}
    assert encode_document(document, encoding=Encoding(nulls="omit")) == b'{"s":{"y":[null,{}]}}'


def test_rows_whose_map_has_null_entries_are_said_beside_others() -> None:
    pairs = [[("a", 1)], [("a", None)], None, [], [("b", 2), ("c", None)]]
    maps = pa.array(pairs, pa.map_(pa.string(), pa.float64()))
    lists = pa.array([[each] for each in maps.to_pylist()], pa.list_(maps.type))
    batch = pa.record_batch({"m": maps, "n": lists, "o": pa.nulls(5)})
    lines = encode_rows(batch, encoding=Encoding(nulls="omit"))
    assert [json.loads(line) for line in lines] == [
        {"m": {"a": 1.0}, "n": [{"a": 1.0}]},
        {"m": {"a": None}, "n": [{"a": None}]},
        {"n": [None]},
        {"m": {}, "n": [{}]},
        {"m": {"b": 2.0, "c": None}, "n": [{"b": 2.0, "c": None}]},
    ]


@pytest.mark.parametrize(
    ("array", "encoding", "expected"),
    [
        (pa.array([-1, 0], pa.timestamp("ms")), Encoding(timestamps="ejson"),
         [{"$date": {"$numberLong": "-1"}}, {"$date": {"$numberLong": "0"}}]),
        (pa.array([2**50], pa.timestamp("ms", "UTC")), Encoding(timestamps="ejson"),
         [{"$date": {"$numberLong": str(2**50)}}]),
        (pa.array([-5, None], pa.timestamp("s", "+05:30")), Encoding(timestamps="epoch_ms"),
         [-5000, None]),
        (pa.array([1_000_000, 1, 1_000], pa.timestamp("ns")), Encoding(),
         ["1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.000000001Z",
          "1970-01-01T00:00:00.000001Z"]),
        (pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)), Encoding(decimals="ejson"),
         [{"$numberDecimal": "1.50"}, None]),
        (pa.array([Decimal(1)], pa.decimal128(38, 37)), Encoding(decimals="ejson"),
         [{"$numberDecimal": "1"}]),
        (pa.array([b"\0\1", b"", None]), Encoding(binary="ejson"),
         [{"$binary": {"base64": "AAE=", "subType": "00"}},
          {"$binary": {"base64": "", "subType": "00"}}, None]),
        (pa.array([UUID(int=5).bytes, None], pa.binary(16)), Encoding(),
         ["00000000-0000-0000-0000-000000000005", None]),
        (pa.array([UUID(int=5).bytes, None], pa.binary(16)), Encoding(binary="ejson"),
         [{"$uuid": "00000000-0000-0000-0000-000000000005"}, None]),
    ],
)  # fmt: skip
def test_values_are_said_in_the_forms_that_were_chosen(
    array: pa.Array, encoding: Encoding, expected: list[Any]
) -> None:
    lines = encode_rows(pa.record_batch({"v": array}), encoding=encoding)
    assert [json.loads(line)["v"] for line in lines] == expected


@pytest.mark.parametrize(
    ("value", "encoding", "expected"),
    [
        (datetime(1, 1, 1), Encoding(timestamps="epoch_ms"), -62135596800000),
        (datetime.max.replace(microsecond=0, tzinfo=timezone(timedelta(hours=-5))),
         Encoding(timestamps="epoch_ms"), 253402318799000),
        (pd.Timestamp(5, unit="ms"), Encoding(timestamps="ejson"),
         {"$date": {"$numberLong": "5"}}),
        (np.datetime64(5, "ms"), Encoding(timestamps="ejson"), {"$date": {"$numberLong": "5"}}),
        (Decimal("1.50"), Encoding(decimals="ejson"), {"$numberDecimal": "1.50"}),
        (Decimal("9" * 34 + ".00"), Encoding(decimals="ejson"), {"$numberDecimal": "9" * 34}),
        (Decimal("1" + "0" * 33 + "E+2"), Encoding(decimals="ejson"),
         {"$numberDecimal": "1." + "0" * 33 + "E+35"}),
        (Decimal("-Infinity"), Encoding(decimals="ejson"), {"$numberDecimal": "-Infinity"}),
        (b"\0\1", Encoding(binary="ejson"), {"$binary": {"base64": "AAE=", "subType": "00"}}),
        (UUID(int=5), Encoding(binary="ejson"), {"$uuid": str(UUID(int=5))}),
    ],
)  # fmt: skip
def test_a_document_says_values_in_the_forms_that_were_chosen(
    value: Any, encoding: Encoding, expected: Any
) -> None:
    assert json.loads(encode_document({"v": value}, encoding=encoding)) == {"v": expected}


@pytest.mark.parametrize(
    ("values", "type_", "encoding", "message"),
    [
        ([0, 1500], pa.timestamp("us"), Encoding(timestamps="ejson"), "between two milliseconds"),
        ([0, -1], pa.timestamp("ns", "UTC"), Encoding(timestamps="epoch_ms"), "between two mill"),
        ([Decimal(1), Decimal("1" * 35)], pa.decimal256(40, 2), Encoding(decimals="ejson"), "34"),
    ],
)
def test_what_a_form_cannot_hold_names_column_and_row_in_rows_and_documents(
    values: list[Any], type_: pa.DataType, encoding: Encoding, message: str
) -> None:
    array = pa.array([[value] for value in values], pa.list_(type_))
    with pytest.raises(EncodeError, match=message) as caught:
        encode_rows(pa.record_batch({"v": array}), 5, encoding)
    assert (caught.value.column, caught.value.row) == ("v[]", 6)
    bad = array[1].as_py()
    with pytest.raises(EncodeError, match=message):
        encode_document({"v": bad}, 6, encoding)


def test_a_name_with_nul_is_refused_wherever_it_stands() -> None:
    maps = pa.array([[("a\0b", 1)]], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(EncodeError, match="NUL"):
        encode_rows(pa.record_batch({"m": maps}))
    with pytest.raises(EncodeError, match="NUL"):
        encode_document({"a": [{"b\0": 1}]})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"nulls": "none"}, "nulls is 'none': give 'null' or 'omit'"),
        ({"timestamps": None}, "timestamps is None: give 'iso' or 'ejson' or 'epoch_ms'"),
        ({"decimals": 5}, "decimals is 5: give 'text' or 'ejson'"),
        ({"binary": ["base64"]}, "binary is"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Encoding(**words)
