from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from connectome_dagster.frames.exact import NotDocuments, decode_exactly, promote_instants

INSTANT = pa.timestamp("ms", "UTC")
OID = "0123456789abcdef01234567"


def column(*values: str) -> pa.Array:
    piece = ",".join(f'{{"a":{value}}}' for value in values)
    return decode_exactly(piece.encode())[0].column("a")


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["true", "null"], pa.bool_(), [True, None]),
        (["null"], pa.null(), [None]),
        (["-9223372036854775808", "9223372036854775807"], pa.int64(), [-(2**63), 2**63 - 1]),
        (["9223372036854775808", "1"], pa.decimal128(38, 0), [Decimal(2**63), Decimal(1)]),
        (["9" * 38], pa.decimal128(38, 0), [Decimal("9" * 38)]),
        (["1" + "0" * 38, "1"], pa.string(), ["1" + "0" * 38, "1"]),
        (["1" * 5000, "1"], pa.string(), ["1" * 5000, "1"]),
        (["9007199254740992", "0.5"], pa.float64(), [2.0**53, 0.5]),
        (["9007199254740993", "0.50"], pa.string(), ["9007199254740993", "0.50"]),
        (["1e400", "1.50"], pa.string(), ["1e400", "1.50"]),
        (["-0", "0.5"], pa.float64(), [0.0, 0.5]),
        (["1.0"], pa.float64(), [1.0]),
        (["1e2", "1"], pa.float64(), [100.0, 1.0]),
        (['"x"', "1.50", "true", "null", '{"b" : [1.0]}'], pa.string(),
         ["x", "1.50", "true", None, '{"b":[1.0]}']),
        (['"2018-02-01"'], pa.string(), ["2018-02-01"]),
        (['"2018-02-01T00:00:00Z"'], pa.string(), ["2018-02-01T00:00:00Z"]),
        (["[]", "[null]", "null"], pa.list_(pa.null()), [[], [None], None]),
        (["[1]", "[0.5]"], pa.list_(pa.float64()), [[1.0], [0.5]]),
        (["{}", "null"], pa.struct([]), [{}, None]),
        (['{"$numberLong":"5"}', "6"], pa.int64(), [5, 6]),
        (['{"$numberDouble":"5"}', "6"], pa.float64(), [5.0, 6.0]),
        (['{"$numberDecimal":"1.50"}', "7"], pa.decimal128(38, 2),
         [Decimal("1.50"), Decimal("7.00")]),
        (['{"$numberDecimal":"NaN"}'], pa.string(), ['{"$numberDecimal":"NaN"}']),
        (['{"$numberDecimal":"1E-6176"}'], pa.string(), ['{"$numberDecimal":"1E-6176"}']),
        (['{"$numberDecimal":"1E+6144"}'], pa.string(), ['{"$numberDecimal":"1E+6144"}']),
        (['{"$numberDouble":"1e400"}'], pa.struct([("$numberDouble", pa.string())]),
         [{"$numberDouble": "1e400"}]),
        (['{"$strange":1e400}'], pa.struct([("$strange", pa.string())]), [{"$strange": "1e400"}]),
        ([f'{{"$oid":"{OID}"}}', '"x"'], pa.string(), [OID, "x"]),
        ([f'{{"\\u0024oid":"{OID}"}}'], pa.string(), [OID]),
        ([f'{{"$oid":"{OID}"}}', '"x"', "1"], pa.string(), [OID, "x", "1"]),
        (['{"$minKey": 1}'], pa.string(), ['{"$minKey":1}']),
        (['{"$binary":{"base64":"AAE=","subType":"00"}}', "null"], pa.binary(), [b"\0\1", None]),
        (['{"$uuid":"00000000-0000-0000-0000-000000000001"}'], pa.binary(16), [b"\0" * 15 + b"\1"]),
        (['{"x":1}', '{"y":{"z":[{}]}}'], None,
         [{"x": 1, "y": None}, {"x": None, "y": {"z": [{}]}}]),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_values_become_what_the_table_of_types_says(
    values: list[str], type_: pa.DataType | None, expected: list[Any]
) -> None:
    array = column(*values)
    array.validate(full=True)
    assert type_ is None or array.type.equals(type_)
    assert repr(array.to_pylist()) == repr(expected)


@pytest.mark.parametrize(
    ("values", "milliseconds"),
    [
        (['"1970-01-01T00:00:00.001Z"', "null"], [1, None]),
        (['{"$date":"1970-01-01T00:00:01Z"}', '"1970-01-01T00:00:00.001Z"'], [1000, 1]),
        (['{"$date":{"$numberLong":"253402300800000"}}'], [253402300800000]),
        (['"9999-12-31T23:59:59.999Z"', '"0001-01-01T00:00:00.000Z"'],
         [253402300799999, -62135596800000]),
    ],
)  # fmt: skip
def test_instants_become_timestamps(values: list[str], milliseconds: list[int | None]) -> None:
    array = column(*values)
    assert array.type.equals(INSTANT)
    assert array.cast(pa.int64()).to_pylist() == milliseconds


@pytest.mark.parametrize(
    "odd",
    ["2018-13-01T00:00:00.000Z", "0000-01-01T00:00:00.000Z", "2018-02-01T24:00:00.000Z",
     "2018-02-01T00:00:00.000Z\n", "2018-02-01T00:00:00.0000Z", "x"],
)  # fmt: skip
def test_one_text_that_is_no_instant_leaves_all_as_they_are(odd: str) -> None:
    texts = ["2018-02-01T00:00:00.000Z", odd]
    assert column(*map(json.dumps, texts)).to_pylist() == texts


def test_fields_stand_in_the_order_in_which_they_appear() -> None:
    batch, _ = decode_exactly(b'{"b":1},{"a":1,"b":2,"c":3}')
    assert batch.schema.names == ["b", "a", "c"]


def test_of_a_repeated_name_the_last_value_counts() -> None:
    batch, _ = decode_exactly(b'{"a":1,"b":2,"a":"x"}')
    assert batch.to_pylist() == [{"a": "x", "b": 2}]


@pytest.mark.parametrize("name", ["", "a.b", "$x", "d e", "\u2028", "n\0l", "🎈", "[]", '"'])
def test_any_name_is_kept(name: str) -> None:
    batch, _ = decode_exactly(json.dumps({name: {name: 1}}).encode())
    assert batch.schema.names == [name]
    assert batch.to_pylist() == [{name: {name: 1}}]


def test_a_conflict_is_told_with_its_kinds_and_costs_no_other_field() -> None:
    batch, conflicts = decode_exactly(b'{"o":[{"a":1,"b":1}]},{"o":[{"a":"x","b":2},{"a":true}]}')
    assert conflicts == {("o", "[]", "a"): ("int", "string", "bool")}
    assert batch.schema.field("o").type.value_type.field("b").type.equals(pa.int64())


@pytest.mark.parametrize(
    "piece",
    [b"1", b"null", b"[]", b'{"a":1},', b',{"a":1}', b'{"a":1}{"a":2}', b'{"a":nul}', b'{"a":01}',
     b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":{"b":"\\q"}},{"a":1}', b'{"a":"\\q","a":1}',
     b'{"a":{"b":[1,]}},{"a":"x"}', b'{"a":"\x01"}', b'{"a":{"$x":"\\q"}}', b"{'a':1}"],
)  # fmt: skip
def test_what_is_no_list_of_documents_is_refused(piece: bytes) -> None:
    with pytest.raises(NotDocuments):
        decode_exactly(piece)


def test_no_documents_are_a_batch_without_rows() -> None:
    assert decode_exactly(b" ")[0].num_rows == 0


def test_documents_without_fields_are_rows() -> None:
    assert decode_exactly(b"{},{}")[0].num_rows == 2


ISO = "2018-02-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "other",
    [
        *("2018-02-01 00:00:00.000Z", "2018-02-01T00:00:00+0000", "2018-02-01T00:00:00.0+00"),
        *("0000-02-01T00:00:00.000Z", "2018-02-30T00:00:00.000Z", "2018-02-01T24:00:00.000Z"),
        *("2018-02-01T00:00:60.000Z", "2018-02-01T00:00:00.00aZ", "2018-02-01T00.00.00.000Z"),
        *("-018-02-01T00:00:00.000Z", "+018-02-01T00:00:00.000Z", "2018/02/01T00:00:00.000Z"),
        *("", " 018-02-01T00:00:00.000Z", "2018-02-01T00:00:00.000ZZ"),
    ],
)
def test_one_string_that_is_no_instant_leaves_all_of_them_strings(other: str) -> None:
    for strings in ([ISO, other], [None, ISO, other, None]):
        array = pa.array(strings, pa.string())
        assert promote_instants(array).equals(array)
    part = pa.array(["x", ISO, other, "x"])[1:3]
    assert promote_instants(part).equals(part)


def test_instants_are_found_in_a_part_of_a_column_and_beside_nulls() -> None:
    edges = [None, ISO, "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", None]
    instants = promote_instants(pa.array(["x", *edges, "x"])[1:-1])
    assert instants.type == INSTANT
    assert instants.cast(pa.int64()).to_pylist() == [
        *(None, 1517443200000, -62135596800000, 253402300799999, None)
    ]
