from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectome_dagster.frames.compiled import Uncertain, decode_compiled
from connectome_dagster.frames.exact import NotDocuments, check_utf8, decode_exactly
from connectome_dagster.frames.schema import conform, merge_schemas
from tests.frames.documents import NOT_JSON, collections, names

OID = b'{"$oid":"0123456789abcdef01234567"}'
DATE = b'{"$date":"2018-02-01T00:00:00.000Z"}'


def same_bits(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    """Equal in names, types and values; NaN is equal to itself, 0.0 is not -0.0."""
    left.validate(full=True)
    right.validate(full=True)
    return left.schema.equals(right.schema) and repr(shown(left)) == repr(shown(right))


def shown(batch: pa.RecordBatch) -> list[object]:
    return [values_of(column) for column in batch.columns]


def values_of(array: pa.Array) -> list[object]:
    """The values; timestamps as numbers, since Python has no year beyond 9999."""
    if pa.types.is_timestamp(array.type):
        return list(array.cast(pa.int64()).to_pylist())
    if pa.types.is_struct(array.type):
        members = [values_of(child) for child in array.flatten()]
        rows = zip(*members, strict=True) if members else ((),) * len(array)
        return [row if there else None for row, there in zip(rows, present(array), strict=True)]
    if pa.types.is_list(array.type):
        items = iter(values_of(array.flatten()))
        lengths = pc.list_value_length(array).to_pylist()
        return [None if n is None else [next(items) for _ in range(n)] for n in lengths]
    return list(array.to_pylist())


def present(array: pa.Array) -> list[bool]:
    return list(array.is_valid().to_pylist())


@settings(max_examples=250, deadline=None)
@given(collections())
def test_what_the_compiled_reader_vouches_for_is_what_the_exact_one_reads(texts: list[str]) -> None:
    piece = ",".join(texts).encode()
    try:
        batch, *_ = decode_compiled(piece)
    except Uncertain:
        return
    exact, conflicts = decode_exactly(piece)
    assert same_bits(batch, exact)
    assert not conflicts


@settings(max_examples=150, deadline=None)
@given(collections(max_size=4, repeats=True), st.data())
def test_what_the_exact_reader_refuses_the_compiled_one_does_not_vouch_for(
    texts: list[str], data: st.DataObject
) -> None:
    text = ",".join(texts)
    at = data.draw(st.integers(0, len(text)))
    broken = data.draw(st.sampled_from([*NOT_JSON, *']},"\\\0\x01[{', "]}", ""]))
    piece = (text[:at] + broken + text[at + data.draw(st.integers(0, 2)) :]).encode()
    try:
        exact, _ = decode_exactly(piece)
    except NotDocuments:
        with pytest.raises(Uncertain):
            decode_compiled(piece)
        return
    try:
        batch, *_ = decode_compiled(piece)
    except Uncertain:
        return
    assert same_bits(batch, exact)


@pytest.mark.parametrize("known", [False, True])
def test_a_batch_stays_as_it_is_when_other_pieces_are_read(known: bool) -> None:
    def piece(sign: str, rows: int) -> bytes:
        return b",".join(b'{"s":"%s%d","n":-%d.5}' % (sign.encode(), n, n) for n in range(rows))

    batch, _, type_ = decode_compiled(piece("x", 500))
    shown_before = repr(shown(batch))
    for rows in (500, 20, 1000, 100_000):  # the last one is larger than a piece ever is
        other, *_ = decode_compiled(piece("y", rows), known=type_ if known else None)
        assert other.column("s")[rows - 1].as_py() == f"y{rows - 1}"
    assert repr(shown(batch)) == shown_before


paths = st.frozensets(st.lists(names, min_size=1, max_size=3).map(tuple), max_size=4)


@settings(max_examples=120, deadline=None)
@given(collections(), collections(), paths)
def test_hints_change_no_value_and_no_type_of_a_whole_read(
    before: list[str], texts: list[str], more: frozenset[tuple[str, ...]]
) -> None:
    piece = ",".join(texts).encode()
    try:
        _, learned, _ = decode_compiled(",".join(before).encode())
        batch, *_ = decode_compiled(piece, learned | more)
    except Uncertain:
        return
    exact, _ = decode_exactly(piece)
    merged = merge_schemas(exact.schema, batch.schema)
    assert set(merged.names) == set(batch.schema.names)
    assert same_bits(conform(exact, merged), conform(batch, merged))
    for field in exact.schema:
        kept = batch.schema.field(field.name).type
        assert pa.types.is_nested(kept) or kept.equals(field.type)


@pytest.mark.parametrize("document", [OID, DATE, b'{"$numberLong":"5"}'])
def test_a_document_itself_is_never_a_form_of_extended_json(document: bytes) -> None:
    batch, _ = decode_exactly(document)
    assert batch.schema.names[0].startswith("$")
    try:
        assert same_bits(decode_compiled(document)[0], batch)
    except Uncertain:
        assert document not in (OID, DATE)


@pytest.mark.parametrize(
    ("forms", "type_"),
    [
        ((b'{"$numberInt":"-5"}', b'{"$numberInt":"0"}'), pa.int64()),
        ((b'{"$numberLong":"9223372036854775807"}', b'{"$numberLong":"-0"}'), pa.int64()),
        ((b'{"$numberDouble":"NaN"}', b'{"$numberDouble":"-1.5E-7"}'), pa.float64()),
        ((b'{"$numberDouble":"-Infinity"}', b'{"$numberDouble":"1"}'), pa.float64()),
        ((b'{"$numberDecimal":"1.50"}', b'{"$numberDecimal":"-7"}'), pa.decimal128(38, 2)),
        (
            (
                b'{"$numberDecimal":"-0.1234567890123456789012345678901234"}',
                b'{"$numberDecimal":"9"}',
            ),
            pa.decimal128(38, 34),
        ),
        (
            (b'{"$date":"2012-12-24T12:15:30Z"}', b'{"$date":"0001-12-24T12:15:30.50Z"}'),
            pa.timestamp("ms", "UTC"),
        ),
        ((b'{"$date":{"$numberLong":"-9223372036854775808"}}',) * 2, pa.timestamp("ms", "UTC")),
    ],
)
def test_columns_of_one_canonical_form_are_vouched_for(
    forms: tuple[bytes, bytes], type_: pa.DataType
) -> None:
    piece = b'{"a":%s,"o":[{"b":%s}]},{"a":null},{"a":%s}' % (forms[0], forms[1], forms[1])
    batch, *_ = decode_compiled(piece)
    assert batch.column("a").type.equals(type_)
    assert same_bits(batch, decode_exactly(piece)[0])


@pytest.mark.parametrize(
    "forms",
    [
        (b'{"$numberInt":"5"}', b'{"$numberLong":"5"}'),
        (b'{"$numberInt":"5"}', b'{"$numberInt":5}'),
        (b'{"$numberLong":"9223372036854775808"}', b'{"$numberLong":"1"}'),
        (b'{"$numberDouble":"1e400"}', b'{"$numberDouble":"1"}'),
        (b'{"$numberDouble":"inf"}', b'{"$numberDouble":"1"}'),
        (b'{"$numberDecimal":"NaN"}', b'{"$numberDecimal":"1"}'),
        (b'{"$numberDecimal":"%s"}' % (b"9" * 39), b'{"$numberDecimal":"1"}'),
        (b'{"$date":{"$numberLong":"1"}}', b'{"$date":"2018-02-01T00:00:00.000Z"}'),
        (b'{"$date":{"$numberLong":"1"}}', b'{"$date":{"$numberLong":null}}'),
        (b'{"$date":{"$numberLong":"1"}}', b'{"$date":{"$numberLong":"1","x":1}}'),
        (b'{"$date":"2012-12-24T12:15:30Z"}', b'{"$date":"0000-12-24T12:15:30Z"}'),
        (b'{"$date":"2012-12-24T12:15:30Z"}', b'{"$date":"2012-02-30T12:15:30Z"}'),
        (b'{"$date":"2012-12-24T12:15:30Z"}', b'{"$date":"2012-12-24T12:15:30.0001Z"}'),
        (b'{"$minKey":1}', b'{"$minKey":1}'),
    ],
)
def test_forms_that_are_not_all_certain_are_left_to_the_exact_reader(
    forms: tuple[bytes, bytes],
) -> None:
    with pytest.raises(Uncertain):
        decode_compiled(b'{"a":%s},{"a":%s}' % forms)


def test_objectids_and_dates_that_javascript_prints_are_vouched_for() -> None:
    batch, *_ = decode_compiled(b'{"_id":%s,"t":%s},{"_id":%s,"t":null}' % (OID, DATE, OID))
    assert batch.schema.types == [pa.string(), pa.timestamp("ms", "UTC")]


@pytest.mark.parametrize(
    "piece",
    [
        b'{"a":1}],"d":[{"b":2}',
        b'{"a":1}],"e":[{"b":2}',
        b'{"a":1}]}{"d":[{"a":2}',
        b'{"a":1}]}\n{"d":[{"a":2}',
        b'{"a":1}]}\0,{"b":2}',
        b'{"a":1}]}\0',
        b'{"a":[{"b":1}',
        b'{"a":"x',
        b'{"a":NaN}',
        b'{"a":Infinity},{"a":1.5}',
        b'{"a":[1,-Infinity]}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"null",
        b'{"a":1},null',
        b'null,{"a":1}',
        b"[1]",
        b"1",
        b'{"a":1},',
        b'{"a":1} {"a":2}',
    ],
)
def test_a_text_that_needs_judging_is_left_to_the_exact_reader(piece: bytes) -> None:
    with pytest.raises(Uncertain):
        decode_compiled(piece)


def test_a_field_that_a_hint_calls_text_has_no_type_where_it_is_null() -> None:
    batch, *_ = decode_compiled(b'{"a":null,"b":1},{"b":2}', frozenset({("a",), ("c", "[]")}))
    assert batch.schema.field("a").type.equals(pa.null())
    assert batch.schema.field("c").type.equals(pa.null())


@pytest.mark.parametrize(
    "items",
    ['null,"x"', "null,1", "null,null,1.5", 'null,{"b":1}', "null,[1]", '{"b":null},{"b":1}'],
)
def test_a_list_that_begins_with_null_keeps_it(items: str) -> None:
    piece = f'{{"a":[{items}],"b":{{"c":[[{items}],null]}}}},{{"a":[]}}'.encode()
    batch, *_ = decode_compiled(piece)
    assert same_bits(batch, decode_exactly(piece)[0])


@pytest.mark.parametrize("text", ["2018-02-01", "2018-02-01T10:00:00Z", "2018-02-01 10:00"])
@pytest.mark.parametrize("shape", ['"%s"', '["%s",null]', '{"x":"%s"}', '[{"x":["%s"]}]'])
def test_text_that_looks_like_a_date_stays_text(text: str, shape: str) -> None:
    piece = f'{{"a":{shape % text}}},{{"a":null}}'.encode()
    batch, learned, _ = decode_compiled(piece)
    assert same_bits(batch, decode_exactly(piece)[0])
    assert len(learned) == 1
    again, more, _ = decode_compiled(piece, learned)
    assert same_bits(again, batch)
    assert not more


@settings(deadline=None)
@given(st.binary(max_size=40))
@example(b'{"a":"\xff"}')
@example(b'{"\xed\xa0\x80":1}')
def test_bytes_that_are_not_utf_8_are_refused(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(NotDocuments):
            check_utf8(data)
    else:
        check_utf8(data)
