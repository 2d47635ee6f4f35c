from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.extended_json import Extended, parse_instant, recognise

OID = "0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("document", "kind", "value"),
    [
        ({"$oid": OID}, "oid", OID),
        ({"$oid": OID.upper()}, "oid", OID.upper()),
        ({"$date": "1970-01-01T00:00:01Z"}, "timestamp", 1000),
        ({"$date": "1969-12-31T23:59:59.999Z"}, "timestamp", -1),
        ({"$date": "1970-01-01T01:00:00+01:00"}, "timestamp", 0),
        ({"$date": "1970-01-01T01:00:00.5+0100"}, "timestamp", 500),
        ({"$date": {"$numberLong": "-62135596800001"}}, "timestamp", -62135596800001),
        ({"$date": {"$numberLong": "9223372036854775807"}}, "timestamp", 2**63 - 1),
        ({"$date": 5}, "timestamp", 5),
        ({"$numberInt": "-5"}, "int", -5),
        ({"$numberLong": "-9223372036854775808"}, "int", -(2**63)),
        ({"$numberDouble": "-Infinity"}, "float", -math.inf),
        ({"$numberDouble": "1.5e3"}, "float", 1500.0),
        ({"$numberDouble": "5"}, "float", 5.0),
        ({"$numberDecimal": "1.50"}, "decimal", Decimal("1.50")),
        ({"$numberDecimal": "1E-6176"}, "decimal", Decimal("1E-6176")),
        ({"$binary": {"base64": "AAE=", "subType": "00"}}, "binary", b"\0\1"),
        ({"$binary": {"base64": "AAE=", "subType": "0"}}, "binary", b"\0\1"),
        ({"$binary": "AAE=", "$type": "00"}, "binary", b"\0\1"),
        ({"$type": "00", "$binary": "AAE="}, "binary", b"\0\1"),
        ({"$binary": {"base64": "AAE=", "subType": "80"}}, "extended", None),
        ({"$binary": {"base64": "A" * 22 + "==", "subType": "04"}}, "uuid", b"\0" * 16),
        ({"$uuid": "00000000-0000-0000-0000-000000000001"}, "uuid", b"\0" * 15 + b"\1"),
        ({"$timestamp": {"t": 1, "i": 1}}, "extended", None),
        ({"$regularExpression": {"pattern": "a", "options": ""}}, "extended", None),
        ({"$code": "x"}, "extended", None),
        ({"$code": "x", "$scope": {}}, "extended", None),
        ({"$minKey": 1}, "extended", None),
        ({"$maxKey": 1}, "extended", None),
        ({"$symbol": "x"}, "string", "x"),
        ({"$dbPointer": {"$ref": "b", "$id": {"$oid": OID}}}, "extended", None),
        ({"$undefined": True}, "null", None),
    ],
)  # fmt: skip
def test_forms_are_recognised(document: dict[str, Any], kind: str, value: Any) -> None:
    assert recognise(document) == Extended(kind, value)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": 1},
        {"$oid": 5},
        {"$oid": "xyz"},
        {"$oid": OID + "0"},
        {"$oid": OID + "\n"},
        {"$oid": OID, "a": 1},
        {"a": 1, "$oid": OID},
        {"$date": True},
        {"$date": 0.5},
        {"$date": 2**63},
        {"$date": "2018-02-01"},
        {"$date": "2018-02-30T00:00:00Z"},
        {"$date": "2018-02-01T00:00:00"},
        {"$date": "2018-02-01T00:00:00+99:99"},
        {"$date": "2018-02-01T00:00:00.0001Z"},
        {"$date": "0000-01-01T00:00:00Z"},
        {"$date": "\uff12018-02-01T00:00:00Z"},
        {"$date": {"$numberLong": "x"}},
        {"$numberInt": 5},
        {"$numberLong": "9223372036854775808"},
        {"$numberLong": "1" * 5000},
        {"$numberLong": "\uff11"},
        {"$numberLong": "1_0"},
        {"$numberLong": ""},
        {"$numberDouble": "1e400"},
        {"$numberDouble": "1_0"},
        {"$numberDouble": " 1"},
        {"$numberDouble": "\uff11"},
        {"$numberDecimal": "x"},
        {"$numberDecimal": "1_0"},
        {"$numberDecimal": "\uff11"},
        {"$binary": {"base64": "A", "subType": "00"}},
        {"$binary": {"base64": "é", "subType": "00"}},
        {"$binary": {"base64": "AAE="}},
        {"$binary": "AAE="},
        {"$type": "00"},
        {"$uuid": "0" * 32},
        {"$code": "x", "other": 1},
        {"$code": 42},
        {"$code": "", "$scope": 42},
        {"$scope": {}},
        {"$timestamp": 42},
        {"$timestamp": {"t": "1", "i": 1}},
        {"$timestamp": {"t": 1, "i": 1, "u": 1}},
        {"$regularExpression": {"pattern": "a"}},
        {"$regularExpression": {"pattern": 42, "options": ""}},
        {"$minKey": 0},
        {"$maxKey": True},
        {"$undefined": 1},
        {"$symbol": 5},
        {"$dbPointer": {"$ref": "b"}},
        {"$minKey": 1, "a": 1},
        {"$unknown": 1},
    ],
    ids=str,
)
def test_what_only_looks_like_a_form_is_an_ordinary_object(document: dict[str, Any]) -> None:
    assert recognise(document) is None


@settings(deadline=None)
@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
)
def test_an_instant_is_its_milliseconds_in_any_zone(local: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    instant = local.replace(microsecond=local.microsecond // 1000 * 1000, tzinfo=zone)
    since = instant - datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert parse_instant(instant.isoformat()) == since // timedelta(milliseconds=1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["$numberLong", "base64", "subType", "a"]), inner)
    ),
    max_leaves=4,
)
form_names = st.sampled_from(
    [
        *("$oid", "$date", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"),
        *("$binary", "$type", "$uuid", "$timestamp", "$code", "$scope", "$minKey", "a"),
    ]
)


@settings(deadline=None)
@given(st.dictionaries(form_names, json_values, max_size=3))
def test_no_object_makes_it_fail(document: dict[str, Any]) -> None:
    form = recognise(document)
    assert form is None or form.kind


@pytest.mark.parametrize(
    "text",
    [
        '{"$oid":"0123456789abcdef01234567"}',
        '{"$date":"2018-02-01T10:00:00.123Z"}',
        '{"$date":"1969-12-31T23:59:59.999+02:00"}',
        '{"$date":{"$numberLong":"-1"}}',
        '{"$numberInt":"-7"}',
        '{"$numberLong":"9223372036854775807"}',
        '{"$numberDouble":"-0.0"}',
        '{"$numberDouble":"Infinity"}',
        '{"$numberDecimal":"1234567890.123456789012345678901234"}',
        '{"$numberDecimal":"-1.50E+3"}',
        '{"$binary":{"base64":"//8=","subType":"00"}}',
        '{"$uuid":"c8edabc3-f738-4ca3-b68d-ab92a91478a3"}',
    ],
)
def test_a_form_means_what_mongodbs_own_reader_says(text: str) -> None:
    json_util = pytest.importorskip("bson.json_util", reason="the extra `local` brings bson")
    theirs = json_util.loads(text, json_options=json_util.CANONICAL_JSON_OPTIONS)
    ours = recognise(json.loads(text))
    assert ours is not None
    expected = {
        "oid": lambda: str(theirs),
        "timestamp": lambda: (
            (theirs.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
        ),
        "int": lambda: int(theirs),
        "float": lambda: float(theirs),
        "decimal": lambda: theirs.to_decimal(),
        "binary": lambda: bytes(theirs),
        "uuid": lambda: bytes(theirs),
    }[ours.kind]()
    assert repr(ours.value) == repr(expected)


INSTANT = pa.timestamp("ms", "UTC")
TEXT = pa.string()


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ('{"$numberInt":"-2147483648"}', pa.int64(), -(2**31)),
        ('{"$numberLong":"9223372036854775807"}', pa.int64(), 2**63 - 1),
        ('{"$numberDouble":"-0.0"}', pa.float64(), -0.0),
        ('{"$numberDouble":"1.2345678921232E+18"}', pa.float64(), 1.2345678921232e18),
        ('{"$numberDouble":"NaN"}', pa.float64(), math.nan),
        ('{"$numberDouble":"Infinity"}', pa.float64(), math.inf),
        ('{"$date":{"$numberLong":"-284643869501"}}', INSTANT, -284643869501),
        ('{"$date":{"$numberLong":"253402300800000"}}', INSTANT, 253402300800000),
        ('{"$date":"2012-12-24T12:15:30.501Z"}', INSTANT, 1356351330501),
        ('{"$date":"2012-12-24T12:15:30Z"}', INSTANT, 1356351330000),
        ('{"$numberDecimal":"0.1234567890123456789012345678901234"}', pa.decimal128(38, 34),
         Decimal("0.1234567890123456789012345678901234")),
        ('{"$numberDecimal":"1.000E+3"}', pa.decimal128(38, 0), Decimal(1000)),
        ('{"$numberDecimal":"-0E-2"}', pa.decimal128(38, 2), Decimal("0.00")),
        ('{"$numberDecimal":"9.99E+6144"}', TEXT, None),
        ('{"$numberDecimal":"NaN"}', TEXT, None),
        ('{"$numberDecimal":"-Infinity"}', TEXT, None),
        ('{"$binary":{"base64":"","subType":"00"}}', pa.binary(), b""),
        ('{"$binary":{"base64":"//8=","subType":"00"}}', pa.binary(), b"\xff\xff"),
        *((f'{{"$binary":{{"base64":"//8=","subType":"{sub}"}}}}', TEXT, None)
          for sub in ("01", "02", "03", "05", "06", "07", "08", "09", "80")),
        ('{"$binary":{"base64":"c//SZESzTGmQ6OfR38A11A==","subType":"04"}}', pa.binary(16),
         bytes.fromhex("73ffd26444b34c6990e8e7d1dfc035d4")),
        ('{"$uuid":"73ffd264-44b3-4c69-90e8-e7d1dfc035d4"}', pa.binary(16),
         bytes.fromhex("73ffd26444b34c6990e8e7d1dfc035d4")),
        ('{"$regularExpression":{"pattern":"\\\\d","options":"ix"}}', TEXT, None),
        ('{"$timestamp":{"t":4294967295,"i":4294967295}}', TEXT, None),
        ('{"$code":"f()","$scope":{"x":{"$numberInt":"1"}}}', TEXT, None),
        ('{"$minKey":1}', TEXT, None),
        ('{"$undefined":true}', pa.null(), None),
        ('{"$symbol":"a"}', TEXT, "a"),
        ('{"$dbPointer":{"$ref":"b","$id":{"$oid":"56e1fc72e0c917e9c4714161"}}}', TEXT, None),
    ],
)  # fmt: skip
def test_forms_become_what_the_table_of_types_says_at_any_depth(
    text: str, type_: pa.DataType, value: Any
) -> None:
    batch = decode(f'{{"a":{text},"o":[{{"a":{text}}}]}}'.encode(), Hints()).batch
    for array in (batch.column("a"), batch.column("o").values.field("a")):
        assert array.type.equals(type_)
        array = array.cast(pa.int64()) if type_.equals(INSTANT) else array
        in_text = value is None and type_.equals(TEXT)
        assert repr(array[0].as_py()) == repr(text if in_text else value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"$oid":5}', {"$oid": 5}),
        ('{"$oid":"56e1fc72e0c917e9c4714161","x":1}', {"$oid": "56e1fc72e0c917e9c4714161", "x": 1}),
        ('{"$numberLong":5}', {"$numberLong": 5}),
        ('{"$timestamp":{"t":1}}', {"$timestamp": {"t": 1}}),
    ],
)
def test_what_only_looks_like_a_form_keeps_its_members(text: str, value: Any) -> None:
    assert decode(f'{{"a":{text}}}'.encode(), Hints()).batch.to_pylist() == [{"a": value}]


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (['{"$symbol":"a"}', '"b"', "null"], TEXT, ["a", "b", None]),
        (['{"$symbol":"a\\u2028"}', '{"$symbol":"b"}'], TEXT, ["a\u2028", "b"]),
        (['{"$symbol":"a"}', "1.50"], TEXT, ["a", "1.50"]),
        (['{"$undefined":true}', "1"], pa.int64(), [None, 1]),
        (['{"$undefined":true}', "true"], pa.bool_(), [None, True]),
        (['{"$undefined":true}', '"x"', '{"$symbol":"y"}'], TEXT, [None, "x", "y"]),
        (['{"$undefined":true}', "[1]"], pa.list_(pa.int64()), [None, [1]]),
        (['{"$undefined":true}', '{"x":1}'], pa.struct({"x": pa.int64()}), [None, {"x": 1}]),
        (['{"$undefined":true}', '{"$numberLong":"1"}'], pa.int64(), [None, 1]),
        (['{"$undefined":true}', "null"], pa.null(), [None, None]),
    ],
)
def test_symbols_are_strings_and_undefined_is_null_beside_other_values(
    values: list[str], type_: pa.DataType, expected: list[Any]
) -> None:
    piece = ",".join(f'{{"a":{value}}}' for value in values)
    array = decode(piece.encode(), Hints()).batch.column("a")
    assert array.type.equals(type_)
    assert array.to_pylist() == expected
