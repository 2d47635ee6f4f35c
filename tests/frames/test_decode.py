from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import MalformedResponse
from connectome_dagster.frames.decode import MAX_SURPRISES, Decoded, Hints, decode
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.frames.schema import Unmergeable, conform, merge_schemas
from connectome_dagster.frames.split import Splitter
from tests.frames.cutting import BrokeOff, chunked, pieces_of
from tests.frames.documents import collections
from tests.frames.sameness import EJSON, is_same, loads
from tests.frames.test_compiled import same_bits, values_of
from tests.frames.test_schema import plain

SUITE = Path(__file__).parents[3] / "shared" / "json-test-suite"
PARSING = sorted((SUITE / "test_parsing").glob("*.json")) if SUITE.is_dir() else []
needs_suite = pytest.mark.skipif(not PARSING, reason="../shared/json-test-suite is not here")


def named(prefix: str) -> list[Path]:
    return [path for path in PARSING if path.name.startswith(prefix)]


def decode_body(body: bytes, piece_bytes: int = 1 << 20, step: int = 0) -> list[Decoded]:
    chunks = chunked(body, range(0, len(body), step)) if step else [body]
    return list(pieces_of(chunks, Splitter(None, piece_bytes), lambda p: decode(p, Hints())))


@needs_suite
@pytest.mark.parametrize("path", named("n_"), ids=lambda path: path.stem)
def test_what_is_not_json_is_refused_as_a_value_and_as_a_body(path: Path) -> None:
    text = path.read_bytes()
    if text.strip(b" \t\r\n") and path.stem != "n_structure_close_unopened_array":
        with pytest.raises(NotDocuments):
            decode(b'{"v":%s}' % text, Hints())
        with pytest.raises((MalformedResponse, BrokeOff)):
            decode_body(b'[{"v":%s}]' % text)
    for step in (0, 1) if len(text) < 1000 else (0,):
        with pytest.raises((MalformedResponse, BrokeOff)):
            decode_body(text, 1, step)


@needs_suite
@pytest.mark.parametrize("path", named("y_"), ids=lambda path: path.stem)
def test_what_is_json_is_read_as_a_value(path: Path) -> None:
    text = path.read_bytes()
    batch = decode(b'{"v":%s}' % text, Hints()).batch
    batch.validate(full=True)
    assert batch.num_rows == 1
    if path.stem == "y_object_escaped_null_in_key":  # which no document of MongoDB has
        assert repr(batch.to_pylist()) == repr([{"v": json.loads(text)}])
        return
    (line,) = encode_rows(batch, 0, EJSON)
    assert is_same(loads(line)["v"], loads(text), batch.schema.field("v").type)


TRANSFORMED = {
    "number_-9223372036854775808": [-(2**63)],
    "number_-9223372036854775809": [Decimal(-(2**63) - 1)],
    "number_1.0": [1.0],
    "number_1.000000000000000005": [1.0],  # the nearest float, as of every number with a point
    "number_1000000000000000": [10**15],
    "number_10000000000000000999": [Decimal(10000000000000000999)],
    "number_1e-999": [0.0],
    "number_1e6": [1e6],
    "number_9223372036854775807": [2**63 - 1],
    "number_9223372036854775808": [Decimal(2**63)],
    "object_key_nfc_nfd": {"\u00e9": "NFC", "e\u0301": "NFD"},
    "object_key_nfd_nfc": {"e\u0301": "NFD", "\u00e9": "NFC"},
    "object_same_key_different_values": {"a": 2},  # and the report tells of it
    "object_same_key_same_value": {"a": 1},
    "object_same_key_unclear_values": {"a": 0},
    "string_with_escaped_NULL": ["A\0B"],
    # Halves of surrogate pairs are no Unicode, and Arrow's text is UTF-8.
    "string_1_escaped_invalid_codepoint": None,
    "string_1_invalid_codepoint": None,
    "string_2_escaped_invalid_codepoints": None,
    "string_2_invalid_codepoints": None,
    "string_3_escaped_invalid_codepoints": None,
    "string_3_invalid_codepoints": None,
}


@needs_suite
@pytest.mark.parametrize("name", TRANSFORMED)
def test_what_parsers_are_known_to_change_keeps_its_value_or_is_refused(name: str) -> None:
    piece = b'{"v":%b}' % (SUITE / "test_transform" / f"{name}.json").read_bytes()
    if TRANSFORMED[name] is None:
        with pytest.raises(NotDocuments):
            decode(piece, Hints())
        return
    decoded = decode(piece, Hints())
    assert repr(decoded.batch.to_pylist()) == repr([{"v": TRANSFORMED[name]}])
    assert bool(decoded.duplicated) == ("same_key" in name)


@needs_suite
def test_no_case_of_the_suite_is_left_out() -> None:
    assert {path.stem for path in (SUITE / "test_transform").glob("*.json")} == set(TRANSFORMED)


@needs_suite
@pytest.mark.parametrize("path", named("i_"), ids=lambda path: path.stem)
def test_what_json_leaves_open_is_read_or_refused_but_never_crashes(path: Path) -> None:
    try:
        batch = decode(b'{"v":%s}' % path.read_bytes(), Hints()).batch
    except NotDocuments:
        return
    batch.validate(full=True)
    assert batch.num_rows == 1


@pytest.mark.parametrize("levels", [121, 500, 1000, 5000, 20_000, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")]
)
def test_nesting_without_end_is_refused_and_does_not_crash(
    levels: int, opening: bytes, closing: bytes
) -> None:
    text = b'{"v":%s1%s}' % (opening * levels, closing * levels)
    with pytest.raises(NotDocuments, match="nested deeper"):
        decode(text, Hints())


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_hundred_levels_are_read(opening: bytes, closing: bytes) -> None:
    value = opening * 100 + b"1" + closing * 100
    batch = decode(b'{"v":%s}' % value, Hints()).batch
    assert batch.to_pylist() == [{"v": json.loads(value)}]
    mixed = decode(b'{"v":%s},{"v":1,"w":9223372036854775808}' % value, Hints())
    assert mixed.batch.column("v").to_pylist() == [value.decode(), "1"]
    grown = merge_schemas(batch.schema, decode(b'{"w":1}', Hints()).batch.schema)
    assert conform(batch, grown).num_rows == 1


@settings(max_examples=120, deadline=None)
@given(
    collections(),
    st.lists(st.integers(0, 10**6), max_size=6),
    st.integers(1, 400),
    st.sampled_from([b"[%s]", b'{"data":[%s],"n":1}']),
)
def test_what_is_decoded_does_not_depend_on_chunks_and_pieces(
    texts: list[str], cuts: list[int], piece_bytes: int, frame: bytes
) -> None:
    piece = ",".join(texts).encode()
    whole = decode(piece, Hints()).batch
    chunks = chunked(frame % piece, cuts)
    splitter = Splitter(None, piece_bytes)
    batches = [d.batch for d in pieces_of(chunks, splitter, lambda p: decode(p, Hints()))]
    assert sum(batch.num_rows for batch in batches) == whole.num_rows
    schema = pa.schema([])
    try:
        for batch in batches:
            schema = merge_schemas(schema, batch.schema)
        rows = pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
    except Unmergeable:
        return
    assert set(schema.names) == set(whole.schema.names)
    for name in schema.names:
        column = rows.select([schema.get_field_index(name)]).combine_chunks().column(0).chunk(0)
        theirs = whole.column(whole.schema.get_field_index(name))
        if column.type.equals(theirs.type):
            assert plain(values_of(column)) == plain(values_of(theirs))


@settings(max_examples=200, deadline=None)
@given(collections(max_size=3), collections(max_size=3), collections(max_size=3))
def test_what_pieces_before_taught_changes_no_value(
    first: list[str], second: list[str], third: list[str]
) -> None:
    hints = Hints()
    # What comes again is known by then.
    for texts in (first, second, [*second, *first], third, first, [*third, *second]):
        if not texts:
            continue
        piece = ",".join(texts).encode()
        alone, taught = decode(piece, Hints()), decode(piece, hints)
        hints = hints.after(taught)
        assert_same(taught, alone)


def test_what_is_known_is_the_type_of_all_documents_until_they_surprise_too_often() -> None:
    hints = Hints()
    known = []
    for number in range(MAX_SURPRISES + 3):
        for _ in range(3):
            hints = hints.after(decode(b'{"a":1,"n%d":null}' % number, hints))
        known.append(None if hints.known is None else [each.name for each in hints.known])
    grown = [["a", *(f"n{n}" for n in range(m + 1))] for m in range(MAX_SURPRISES + 1)]
    assert known == [*grown, None, None]


ALIKE_OR_NOT = [
    *(b'{"a":1}', b'{"a":1.5}', b'{"a":9007199254740993}', b'{"a":-0}', b'{"a":null}', b"{}"),
    *(b'{"a":"x"}', b'{"a":true}', b'{"b":1}', b'{"a\\u0000":1}', b'{"a":{"$numberLong":"5"}}'),
    *(b'{"a":{"c":1}}', b'{"a":{"b":[]}}', b'{"a":[]}', b'{"a":[[1]]}', b'{"a":[null,{"b":1}]}'),
    *(b'{"a":"2018-02-01"}', b'{"a":"2018-02-01T00:00:00.000Z"}'),
    b'{"a":{"$oid":"0123456789abcdef01234567"}}',
]


@pytest.mark.parametrize("before", ALIKE_OR_NOT)
@pytest.mark.parametrize("piece", ALIKE_OR_NOT)
def test_what_is_not_like_the_pieces_before_is_read_as_it_is(before: bytes, piece: bytes) -> None:
    hints = Hints().after(decode(before, Hints()))
    assert_same(decode(piece, hints), decode(piece, Hints()))


def assert_same(taught: Decoded, alone: Decoded) -> None:
    merged = merge_schemas(taught.batch.schema, alone.batch.schema)
    assert set(merged.names) == set(taught.batch.schema.names)
    assert same_bits(conform(taught.batch, merged), conform(alone.batch, merged))
    assert taught.conflicts == alone.conflicts
    assert taught.duplicated == alone.duplicated


@pytest.mark.parametrize("levels", [3000, 100_000])
def test_nesting_that_was_not_seen_before_is_refused_and_does_not_crash(levels: int) -> None:
    hints = Hints().after(decode(b'{"a":{"a":{"a":1}},"b":[[[1]]]}', Hints()))
    assert hints.known is not None
    for opening, closing in ((b'{"a":', b"}"), (b"[", b"]")):
        name = b"a" if opening[:1] == b"{" else b"b"
        piece = b'{"%b":%b1%b}' % (name, opening * levels, closing * levels)
        with pytest.raises(NotDocuments):
            decode(piece, hints)


NUMBERS = ["0", "-0", "-0.0", "0.0", "-0e1", "7", "-7", "1.5", "-0.5", "1e-400", "-1e-400"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=6), st.data())
@pytest.mark.parametrize("frame", ['{"a":%s}', '{"o":{"a":[%s]}}'])
def test_the_sign_of_zero_does_not_depend_on_the_cut(
    frame: str, numbers: list[str], data: st.DataObject
) -> None:
    documents = [frame % number for number in numbers]
    cut = data.draw(st.integers(1, len(documents) - 1))
    pieces = [documents[:cut], documents[cut:]]
    batches = [decode(",".join(piece).encode(), Hints()).batch for piece in pieces]
    schema = merge_schemas(batches[0].schema, batches[1].schema)
    cut_up = pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
    whole = decode(",".join(documents).encode(), Hints()).batch
    assert whole.schema.equals(schema)
    assert repr(cut_up.to_pylist()) == repr(whole.to_pylist())


def test_a_field_known_to_be_mixed_is_text_in_every_piece() -> None:
    hints = Hints(as_text=frozenset({("a",), ("b", "[]", "c")}))
    batch = decode(b'{"a":1.50,"b":[{"c":"x"},{"c":{"d" : 1}}]},{"a":null}', hints).batch
    assert batch.to_pylist() == [
        {"a": "1.50", "b": [{"c": "x"}, {"c": '{"d":1}'}]},
        {"a": None, "b": None},
    ]


def test_one_title_that_is_a_number_makes_text_of_titles_alone() -> None:
    decoded = decode(b'{"Title":"ABC","n":1},{"Title":300,"n":2}', Hints())
    assert decoded.batch.schema.types == [pa.string(), pa.int64()]
    assert decoded.batch.column("Title").to_pylist() == ["ABC", "300"]
    assert decoded.conflicts == {("Title",): ("string", "int")}


def test_documents_are_read_without_pandas_where_nobody_asks_for_it() -> None:
    script = """
import sys
from connectome_dagster.frames.decode import Hints, decode
piece = b'{"a":null,"b":1,"c":-0.0},' * 40 + b'{"a":"x","b":2,"c":0.5,"d":{"e":[1]}}'
for piece in (piece, piece, piece + b',{"a":3}'):
    hints = Hints().after(decode(piece, Hints()))
    decode(piece, hints)
print(decode(piece, hints).batch.column("a").to_pylist()[-2:], "pandas" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "['x', '3'] False\n"
