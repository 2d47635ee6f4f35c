from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.frames.fit import ExtraFields, Fit, Misfit
from tests.frames.batches import ENCODINGS, SCALARS, batches, encodings

UTC = timezone.utc
ZURICH = "Europe/Zurich"


def read(piece: str, schema: pa.Schema, extra_fields: ExtraFields = "error") -> pa.RecordBatch:
    fit = Fit(schema, extra_fields)
    return fit.decode(piece.encode(), fit.hints()).batch


def column(type_: pa.DataType, *values: str) -> list[object]:
    piece = ",".join(f'{{"a":{value}}}' for value in values)
    batch = read(piece, pa.schema({"a": type_}))
    batch.validate(full=True)
    return list(batch.column("a").to_pylist())


ARRAYS = [
    pa.array([1, None], pa.int8()),
    pa.array([2**64 - 1, 0], pa.uint64()),
    pa.array([1.5, None, 0.1], pa.float32()),
    pa.array([1.5, None, -0.0, 5e-324]),
    pa.array([True, None]),
    pa.array(["a", None, "2018-02-01T00:00:00.000Z"]),
    pa.array(["2018-02-01T00:00:00.000Z"]),
    pa.array(["2018-02-01T00:00:00.000Z", "x"], pa.large_string()),
    pa.array(["2018-02-01"]),
    pa.array([Decimal("1.50"), None, Decimal("123456789012345678901234.12")], pa.decimal128(38, 2)),
    pa.array([Decimal(10) ** 50], pa.decimal256(60, 0)),
    pa.array([0, -1], pa.timestamp("s", "UTC")),
    pa.array([1, -1], pa.timestamp("us", "UTC")),
    pa.array([1, None], pa.timestamp("ns", ZURICH)),
    pa.array([0, 1001], pa.timestamp("ms")),
    pa.array([5], pa.timestamp("ns")),
    pa.array([1, -2], pa.date32()),
    pa.array([86_400_000], pa.date64()),
    pa.array([1, 2], pa.time32("s")),
    pa.array([1], pa.time64("ns")),
    pa.array([b"ab", None, b""]),
    pa.array([b"ab"], pa.large_binary()),
    pa.array([b"abcd"], pa.binary(4)),
    pa.array(["a", "b", "a", None]).dictionary_encode(),
    pa.array([[1, None], None, []], pa.list_(pa.int32())),
    pa.array([[1, 2]], pa.large_list(pa.float64())),
    pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    pa.array([[Decimal("1.1")]], pa.list_(pa.decimal128(5, 1))),
    pa.array([{"a": 1, "b": None}, None], pa.struct({"a": pa.int16(), "b": pa.date32()})),
    pa.array([[("k", 1), ("j", None)], None, []], pa.map_(pa.string(), pa.int32())),
    pa.array([[("k", Decimal("1.1"))]], pa.map_(pa.string(), pa.decimal128(5, 1))),
    pa.array([{}, None], pa.struct([])),
    pa.nulls(2),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.type))
def test_a_frame_that_was_written_is_equal_when_read_with_its_schema(array: pa.Array) -> None:
    batch = pa.record_batch({"x": array, "row": pa.array(range(len(array)))})
    piece = b",".join(encode_rows(batch)).decode()
    assert read(piece, batch.schema).equals(batch)
    for row in range(len(array)):
        one = b"".join(encode_rows(batch.slice(row, 1))).decode()
        again = read(one, batch.schema)
        assert again.schema.equals(batch.schema)
        assert again.to_pylist() == batch.slice(row, 1).to_pylist()


@settings(max_examples=150, deadline=None)
@given(batches(), encodings)
def test_frames_become_documents_and_the_same_frames_again_in_every_form(
    batch: pa.RecordBatch, encoding: Encoding
) -> None:
    piece = b",".join(encode_rows(batch, encoding=encoding)).decode()
    again = read(piece, batch.schema)
    assert again.equals(batch)
    assert repr(again.to_pylist()) == repr(batch.to_pylist())  # to `equals` is -0.0 another 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ENCODINGS), min_size=2, max_size=4), st.data())
def test_documents_of_several_forms_fit_side_by_side(
    chosen: list[Encoding], data: st.DataObject
) -> None:
    type_, values = data.draw(st.sampled_from(SCALARS))
    items = data.draw(st.lists(st.none() | values, min_size=len(chosen), max_size=len(chosen)))
    batch = pa.record_batch({"x": pa.array(items, type_)})
    lines = [
        encode_rows(batch.slice(row, 1), encoding=encoding)[0]
        for row, encoding in enumerate(chosen)
    ]
    assert read(b",".join(lines).decode(), batch.schema).equals(batch)


def test_text_without_a_zone_fits_instants_without_one_beside_text_with_one() -> None:
    texts = ['"2018-02-01T00:00:00"', '"2018-02-01"', '"2018-02-01T01:00:00.000001+01:00"']
    read_back = column(pa.timestamp("us"), *texts)
    assert read_back == [
        datetime(2018, 2, 1),
        datetime(2018, 2, 1),
        datetime(2018, 2, 1, 0, 0, 0, 1),
    ]


@pytest.mark.parametrize(
    ("type_", "values", "expected"),
    [
        (pa.decimal128(10, 2), ["1.50", '"2.5"', '{"$numberDecimal":"3"}', "1e2", "null"],
         [Decimal("1.50"), Decimal("2.50"), Decimal(3), Decimal(100), None]),
        (pa.decimal128(20, 19), ["0.1234567890123456789"], [Decimal("0.1234567890123456789")]),
        (pa.timestamp("ms", "UTC"), ['"2018-02-01T00:00:00Z"', '{"$date":0}', "1"],
         [datetime(2018, 2, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC),
          datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)]),
        (pa.binary(), ['"AAE="', '{"$binary":{"base64":"AAE=","subType":"00"}}'], [b"\0\1"] * 2),
        (pa.binary(16), ['"00000000-0000-0000-0000-000000000001"'], [b"\0" * 15 + b"\1"]),
        (pa.int64(), ["1.0", '{"$numberLong":"2"}'], [1, 2]),
        (pa.float64(), ["1", "2.5", "9007199254740992"], [1.0, 2.5, 2.0**53]),
        (pa.date32(), ['"2018-02-01"'], [date(2018, 2, 1)]),
        (pa.string(), ['{"$oid":"0123456789abcdef01234567"}', '"x"'],
         ["0123456789abcdef01234567", "x"]),
    ],
)  # fmt: skip
def test_what_means_the_type_fits_it_beside_any_other_form(
    type_: pa.DataType, values: list[str], expected: list[object]
) -> None:
    assert column(type_, *values) == expected
    assert [column(type_, value)[0] for value in values] == expected


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (pa.string(), '"x"', "300"),
        (pa.string(), '"x"', "true"),
        (pa.string(), '"x"', '{"b":1}'),
        (pa.int64(), "1", '"1"'),
        (pa.int64(), "1", "1.5"),
        (pa.int64(), "1", "9223372036854775808"),
        (pa.int8(), "1", "128"),
        (pa.uint8(), "1", "-1"),
        (pa.float64(), "1.5", "9007199254740993"),
        (pa.float64(), "1.5", "9223372036854775808"),
        (pa.float32(), "1.5", "1e300"),
        (pa.float64(), "1.5", "1e400"),
        (pa.bool_(), "true", "1"),
        (pa.decimal128(5, 2), "1.5", "1.555"),
        (pa.decimal128(5, 2), "1.5", "12345.0"),
        (pa.decimal128(5, 2), "1.5", '"1_0"'),
        (pa.decimal128(5, 2), "1.5", '{"$numberDecimal":"NaN"}'),
        (pa.timestamp("ms", "UTC"), '"2018-02-01T00:00:00.000Z"', '"2018-02-01T00:00:00.000"'),
        (pa.timestamp("ms", "UTC"), '"2018-02-01T00:00:00.000Z"', '"2018-02-01T00:00:00.0001Z"'),
        (pa.timestamp("s", "UTC"), '"2018-02-01T00:00:00.000Z"', '"2018-02-01T00:00:00.001Z"'),
        (pa.date32(), '"2018-02-01"', '"2018-02-30"'),
        (pa.binary(), '"AAE="', '"AAE"'),
        (pa.binary(2), '"AAE="', '"AAEC"'),
        (pa.list_(pa.int64()), "[1]", "1"),
        (pa.list_(pa.int64()), "[1]", '["x"]'),
        (pa.list_(pa.int64(), 1), "[1]", "[1,2]"),
        (pa.struct({"b": pa.int64()}), '{"b":1}', "[1]"),
        (pa.struct({"b": pa.int64()}), '{"b":1}', '{"c":1}'),
        (pa.map_(pa.string(), pa.int64()), '{"b":1}', "[1]"),
        (pa.map_(pa.string(), pa.int64()), '{"b":1}', '{"b":"x"}'),
        (pa.null(), "null", "1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_with_the_first_document(
    type_: pa.DataType, good: str, bad: str
) -> None:
    with pytest.raises(Misfit) as caught:
        column(type_, good, "null", bad, good, bad)
    assert caught.value.row == 2
    assert caught.value.path[0] == "a"
    assert column(type_, good, "null", good)


def test_a_field_that_the_schema_does_not_have_is_refused_or_dropped_as_asked() -> None:
    piece = '{"a":1},{"b":{"c":true},"a":2},{"o":{"x":1,"y":2}}'
    schema = pa.schema({"o": pa.struct({"x": pa.int64()}), "a": pa.int64()})
    with pytest.raises(Misfit, match=r"^b: a field that the schema does not have") as caught:
        read(piece, schema)
    assert caught.value.row == 1
    rows = read(piece, schema, "drop").to_pylist()
    assert rows == [{"o": None, "a": 1}, {"o": None, "a": 2}, {"o": {"x": 1}, "a": None}]


def test_mixed_values_of_a_dropped_field_do_not_matter() -> None:
    piece = '{"a":1,"j":1,"o":{"j":1}},{"a":2,"j":"x","o":{"j":"x"}}'
    schema = pa.schema({"a": pa.int64(), "o": pa.struct([])})
    assert read(piece, schema, "drop").to_pylist() == [{"a": 1, "o": {}}, {"a": 2, "o": {}}]


@pytest.mark.parametrize("document", ['{"a":null}', "{}"])
def test_null_in_a_field_that_must_not_be_is_refused(document: str) -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    with pytest.raises(Misfit, match="a: null or missing"):
        read(f'{{"a":1}},{document}', schema)
    assert read('{"a":1}', schema).to_pylist() == [{"a": 1}]


def test_hidden_fields_are_left_out_before_they_are_compared() -> None:
    fit = Fit(pa.schema({"a": pa.int64()}))
    decoded = fit.decode(b'{"a":1,"h":1},{"h":"x"}', fit.hints(), frozenset({"h"}))
    assert decoded.batch.to_pylist() == [{"a": 1}, {"a": None}]
    assert not decoded.conflicts
