from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import SchemaConflict
from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.exact import decode_exactly
from connectome_dagster.frames.schema import (
    Unmergeable,
    check_c_names,
    check_names,
    check_wholes,
    conform,
    drifted,
    merge_schemas,
    show_path,
)
from tests.frames.documents import collections
from tests.frames.test_compiled import values_of

INSTANT = pa.timestamp("ms", "UTC")


def bag(type_: pa.DataType) -> object:
    """A type without the order of its fields."""
    if pa.types.is_struct(type_):
        return frozenset((field.name, bag(field.type)) for field in type_)
    if pa.types.is_list(type_):
        return ("list", bag(type_.value_type))
    return type_


def merged(*schemas: pa.Schema) -> object:
    whole = pa.schema([])
    try:
        for schema in schemas:
            whole = merge_schemas(whole, schema)
    except Unmergeable:
        return None
    return bag(pa.struct(list(whole)))


schemas = collections(max_size=3).map(
    lambda texts: decode_exactly(",".join(texts).encode())[0].schema
)


@settings(max_examples=80, deadline=None)
@given(schemas, schemas, schemas)
def test_types_merge_in_any_order_to_the_same(a: pa.Schema, b: pa.Schema, c: pa.Schema) -> None:
    assert merged(a, b, c) == merged(c, b, a) == merged(b, c, a)
    assert merged(a, a) == merged(a)


def read_in_batches(
    texts: list[str], cuts: list[int], as_text: frozenset[tuple[str, ...]] = frozenset()
) -> pa.Table:
    """Decode documents batch by batch into one table; read again as text what does not merge."""
    places = sorted({0, len(texts), *(cut % (len(texts) + 1) for cut in cuts)})
    hints, batches, schema = Hints(as_text=as_text), [], pa.schema([])
    conflicts: set[tuple[str, ...]] = set()
    for begin, end in pairwise(places):
        decoded = decode(",".join(texts[begin:end]).encode(), hints)
        hints = Hints(hints.strings | decoded.strings, as_text)
        try:
            grown = merge_schemas(schema, decoded.batch.schema)
            check_wholes(decoded.batch, grown)
            schema = grown
        except Unmergeable as unmergeable:
            conflicts |= set(unmergeable.kinds)
        batches.append(decoded.batch)
    if not conflicts:
        try:
            return pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
        except Unmergeable as unmergeable:
            conflicts = set(unmergeable.kinds)
    assert not conflicts <= as_text, conflicts
    return read_in_batches(texts, cuts, as_text | conflicts)


@settings(max_examples=100, deadline=None)
@given(collections(), st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_a_table_does_not_depend_on_where_its_documents_were_cut(
    texts: list[str], cuts: list[int]
) -> None:
    split, whole = read_in_batches(texts, cuts), read_in_batches(texts, [])
    split.validate(full=True)
    assert bag(pa.struct(list(split.schema))) == bag(pa.struct(list(whole.schema)))
    order = conform(split.combine_chunks().to_batches()[0], whole.schema)
    # An integer zero has no sign before it is known to stand among floats, hence not bit for bit.
    for ours, theirs in zip(order.columns, whole.combine_chunks().columns, strict=True):
        assert plain(values_of(ours)) == plain(values_of(theirs.chunk(0)))


def plain(value: object) -> object:
    if isinstance(value, float):
        return "NaN" if value != value else value + 0.0
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def checked(batches: list[pa.RecordBatch]) -> None:
    schema = merge_schemas(batches[0].schema, batches[1].schema)
    for batch in batches:
        check_wholes(batch, schema)


def document(field: bytes) -> pa.RecordBatch:
    return decode_exactly(b'{"a":%s}' % field)[0]


@pytest.mark.parametrize(
    ("first", "second", "type_", "values"),
    [
        (b"1", b"null", pa.int64(), [1, None]),
        (b"1", b"0.5", pa.float64(), [1.0, 0.5]),
        (b"9007199254740992", b"0.5", pa.float64(), [2.0**53, 0.5]),
        (b"9223372036854775808", b"1", pa.decimal128(38, 0), [2**63, 1]),
        (b'{"$numberDecimal":"1.5"}', b'{"$numberDecimal":"1.25"}', pa.decimal128(38, 2), None),
        (b'{"$numberDecimal":"1E-25"}', b"7", pa.decimal128(38, 25), None),
        (b"[]", b"[1]", pa.list_(pa.int64()), [[], [1]]),
        (b"[{}]", b'[{"x":1}]', pa.list_(pa.struct([("x", pa.int64())])), None),
        (b'{"$date":0}', b'"1970-01-01T00:00:00.000Z"', INSTANT, None),
    ],
)
def test_what_is_held_without_loss_merges(
    first: bytes, second: bytes, type_: pa.DataType, values: list[object] | None
) -> None:
    for pair in [(first, second), (second, first)]:
        batches = [document(text) for text in pair]
        schema = merge_schemas(batches[0].schema, batches[1].schema)
        assert schema.field("a").type.equals(type_)
        table = pa.Table.from_batches([conform(batch, schema) for batch in batches])
        whole, _ = decode_exactly(b'{"a":%s},{"a":%s}' % pair)
        assert table.equals(pa.Table.from_batches([whole]))
        if values is not None and pair == (first, second):
            assert table["a"].to_pylist() == values


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"1", b'"x"'),
        (b"true", b"1"),
        (b"9007199254740993", b"0.5"),
        (b"9223372036854775808", b"0.5"),
        (b"[1]", b"1"),
        (b"{}", b"1"),
        (b'"x"', b'"1970-01-01T00:00:00.000Z"'),
        (b'{"$numberDecimal":"1E-30"}', b"123456789012"),
    ],
)
def test_what_would_lose_a_value_is_told_by_its_path(first: bytes, second: bytes) -> None:
    for pair in [(first, second), (second, first)]:
        batches = [decode_exactly(b'{"o":[{"a":%s}]}' % text)[0] for text in pair]
        with pytest.raises(Unmergeable) as caught:
            checked(batches)
        assert list(caught.value.kinds) == [("o", "[]", "a")]
        assert str(caught.value) == "o[].a"


@settings(max_examples=60, deadline=None)
@given(collections(), collections(), st.integers(0, 6), st.integers(0, 6))
def test_a_slice_conforms_as_its_copy_does(
    texts: list[str], others: list[str], begin: int, length: int
) -> None:
    batch = decode_exactly(",".join(texts).encode())[0]
    other = decode_exactly(",".join(others).encode())[0]
    try:
        schema = merge_schemas(other.schema, batch.schema)
        whole = conform(batch, schema)
    except Unmergeable:
        return
    part = conform(batch.slice(begin, length), schema)
    part.validate(full=True)
    assert part.num_rows == len(batch.slice(begin, length))
    if schema.names:
        expected = whole.slice(begin, length)
        assert [repr(values_of(c)) for c in part.columns] == [
            repr(values_of(c)) for c in expected.columns
        ]


def test_fields_stand_in_the_order_of_their_first_appearance() -> None:
    batches = [decode_exactly(text)[0] for text in (b'{"b":1,"a":{"y":1}}', b'{"a":{"x":1},"c":1}')]
    schema = merge_schemas(batches[0].schema, batches[1].schema)
    assert schema.names == ["b", "a", "c"]
    assert [field.name for field in schema.field("a").type] == ["y", "x"]


def test_a_name_with_a_nul_is_kept_whole() -> None:
    left, right = (
        decode_exactly(b'{"n":1,"n\\u0000%s":%s}' % p)[0] for p in [(b"l", b"1"), (b"l", b"1.5")]
    )
    schema = merge_schemas(left.schema, right.schema)
    assert schema.names == ["n", "n\0l"]
    assert conform(left, schema).schema.names == ["n", "n\0l"]
    assert conform(left, schema).column(1).to_pylist() == [1.0]


def test_drift_names_the_new_and_the_widened_field() -> None:
    first = pa.schema([("a", pa.int64()), ("b", pa.string())])
    later = pa.schema([("a", pa.float64()), ("b", pa.string()), ("c", pa.bool_())])
    assert list(drifted(first, later)) == ["a (int64, later double)", "c (new, bool)"]


def test_paths_are_shown_as_people_write_them() -> None:
    assert show_path(("properties", "tags", "[]", "name")) == "properties.tags[].name"


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(SchemaConflict, match="'a'") as caught:
        check_names(["b", "a", "a"])
    assert caught.value.field == "a"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (r'{"a\u0000b":1}', "a\0b"),
        (r'{"a":{"b\u0000":1}}', "a.b\0"),
        (r'{"a":[[{"b":[{"\u0000":1}]}]]}', "a[][].b[].\0"),
    ],
)
def test_a_name_that_arrow_would_hand_on_cut_off_is_refused(document: str, field: str) -> None:
    schema = decode(document.encode(), Hints()).batch.schema
    with pytest.raises(SchemaConflict, match="NUL") as caught:
        check_c_names(schema)
    assert caught.value.field == field
    check_c_names(decode(b'{"a":"\\u0000","b.c":[{"":1}]}', Hints()).batch.schema)
