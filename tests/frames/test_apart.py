from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectome_dagster.frames.apart import MAX_APART, decode_apart
from connectome_dagster.frames.compiled import Uncertain
from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.exact import NotDocuments, decode_exactly
from connectome_dagster.frames.schema import ITEM, Path
from tests.frames.documents import collections, names
from tests.frames.test_compiled import same_bits

paths = st.frozensets(
    st.lists(names | st.just(ITEM), min_size=1, max_size=3).map(tuple), max_size=3
)


@settings(max_examples=400, deadline=None)
@given(collections(max_size=12), paths, paths)
@example(['{"a":"2018-02-01T00:00:00.000Z"}', '{"a":1}'], frozenset(), frozenset({("a",)}))
@example(['{"a":"2018-02-01T00:00:00.000Z"}'], frozenset(), frozenset({("a",)}))
@example(
    ['{"a":"0001-02-01T00:00:00.120Z"}', '{"a": "2018-02-01T00:00:00.000Z"}', '{"a":null}'],
    frozenset(),
    frozenset({("a",)}),
)
@example(
    ['{"b":{"a":"x"}}', '{"b":null}', "{}", '{"b":{}}', '{"b":{"a" : [1 , 2]}}'],
    frozenset(),
    frozenset(),
)
@example(['{"b":{"a":"x"}}', '{"b":1}', '{"b":{"a":1}}'], frozenset({("b", "a")}), frozenset())
@example(['{"a":"x"}', '{"a":{"$oid":"0123456789abcdef01234567"}}'], frozenset(), frozenset())
@example(['{"a":1,"a":"x"}', '{"a":"y"}'], frozenset({("a",)}), frozenset())
def test_fields_decoded_apart_are_what_the_exact_reader_makes_of_them(
    texts: list[str], apart: frozenset[Path], as_text: frozenset[Path]
) -> None:
    piece = ",".join(texts).encode()
    try:
        taken = decode_apart(piece, apart=apart, as_text=as_text)
    except Uncertain:
        return
    exact, conflicts = decode_exactly(piece, as_text)
    assert same_bits(taken.batch, exact)
    assert taken.conflicts == conflicts


@settings(max_examples=150, deadline=None)
@given(collections(repeats=True), paths, paths)
def test_what_is_known_beforehand_changes_no_value(
    texts: list[str], apart: frozenset[Path], as_text: frozenset[Path]
) -> None:
    piece = ",".join(texts).encode()
    decoded = decode(piece, Hints(apart=apart, as_text=as_text))
    exact, conflicts = decode_exactly(piece, as_text)
    assert same_bits(decoded.batch, exact)
    assert decoded.conflicts == conflicts


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['"ABC"', "300", "null"], ["ABC", "300", None]),
        (['"ABC"', "1.50", "-0", "1e400"], ["ABC", "1.50", "-0", "1e400"]),
        (["true", '"x"', "[1 ,2]", '{"b" : 1}'], ["true", "x", "[1,2]", '{"b":1}']),
        (['"a\\n\\u2028\\ud83c\\udf88"', "1"], ["a\n\u2028🎈", "1"]),
    ],
)
@pytest.mark.parametrize("frame", ['{"n":1,"a":%s,"z":"x"}', '{"n":1,"o":{"a":%s},"z":"x"}'])
def test_one_mixed_field_leaves_the_others_to_the_compiled_reader(
    values: list[str], expected: list[str | None], frame: str
) -> None:
    taken = decode_apart(",".join(frame % value for value in values).encode())
    path = ("o", "a") if '"o"' in frame else ("a",)
    assert taken.apart == {path}
    assert set(taken.conflicts) == {path}
    rows = taken.batch.to_pylist()
    assert [row["o"]["a"] if "o" in row else row["a"] for row in rows] == expected
    assert {(row["n"], row["z"]) for row in rows} == {(1, "x")}


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ('{"$numberDecimal":"15E-1"}', pa.decimal128(38, 1)),
        ("9223372036854775808", pa.decimal128(38, 0)),
        ('{"$date":"2018-02-01T01:00:00+01:00"}', pa.timestamp("ms", "UTC")),
        ('{"$binary":{"base64":"AAE=","subType":"00"}}', pa.binary()),
        ('[{"$numberLong":"01"}]', pa.list_(pa.int64())),
    ],
)
def test_a_field_of_extended_json_is_decoded_apart(value: str, type_: pa.DataType) -> None:
    taken = decode_apart(f'{{"a":{value},"b":1}},{{"b":2}}'.encode())
    assert taken.apart == {("a",)}
    assert taken.batch.schema == pa.schema({"a": type_, "b": pa.int64()})


def test_too_many_fields_apart_are_not_tried() -> None:
    fields = [f"f{at}" for at in range(MAX_APART + 1)]
    piece = ",".join(json.dumps(dict.fromkeys(fields, value)) for value in (1, "x"))
    with pytest.raises(Uncertain):
        decode_apart(piece.encode())
    assert set(decode(piece.encode(), Hints()).batch.schema.types) == {pa.string()}


@pytest.mark.parametrize("value", ["01", "1.", "nul", '"\\ud800"', "[1,]", "{", '{"b":NaN}'])
def test_what_is_no_json_is_refused_apart_too(value: str) -> None:
    hints = Hints(apart=frozenset({("a",)}), as_text=frozenset({("o", "a")}))
    for frame in ('{"a":"x"},{"a":%s}', '{"o":{"a":"x"}},{"o":{"a":%s}}'):
        with pytest.raises(NotDocuments):
            decode((frame % value).encode(), hints)


def test_what_was_learned_is_known_in_the_next_piece() -> None:
    first = decode(b'{"a":"x","d":"2018-02-01"},{"a":1,"d":"2018-02-02"}', Hints())
    hints = Hints().after(first)
    assert hints.strings == {("d",)}
    assert hints.apart == {("a",)}
    assert hints.with_text([("a",)]).as_text == {("a",)}
    again = decode(b'{"a":1,"d":"2018"},{"a":2}', hints)
    assert again.batch.schema.field("a").type == pa.int64()
