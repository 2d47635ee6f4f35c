"""Documents through Arrow and back: what comes out is what went in, by the table of types."""

from __future__ import annotations

import base64
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.frames.extended_json import parse_instant, recognise
from connectome_dagster.frames.schema import Unmergeable, conform, merge_schemas
from connectome_dagster.frames.split import Splitter
from tests.frames.cutting import chunked, pieces_of
from tests.frames.documents import collections

EJSON = Encoding("null", "ejson", "ejson", "ejson")


def loads(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def in_pieces(texts: list[str], cuts: list[int], piece_bytes: int) -> pa.Table:
    """Read as a body in chunks; all at once where pieces by themselves do not go together."""
    piece = ",".join(texts).encode()
    splitter = Splitter(None, piece_bytes)
    chunks = chunked(b"[%b]" % piece, cuts)
    batches = [d.batch for d in pieces_of(chunks, splitter, lambda p: decode(p, Hints()))]
    schema = pa.schema([])
    try:
        for batch in batches:
            schema = merge_schemas(schema, batch.schema)
        return pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
    except Unmergeable:
        return pa.Table.from_batches([decode(piece, Hints()).batch])


@settings(max_examples=200, deadline=None)
@given(collections(), st.lists(st.integers(0, 10**6), max_size=6), st.integers(1, 400))
def test_documents_become_arrow_and_the_same_documents_again(
    texts: list[str], cuts: list[int], piece_bytes: int
) -> None:
    table = in_pieces(texts, cuts, piece_bytes)
    struct = pa.struct(list(table.schema))
    try:
        lines = [line for batch in table.to_batches() for line in encode_rows(batch, 0, EJSON)]
    except EncodeError:  # an infinity, a name with NUL, a decimal with more digits than MongoDB has
        return
    assert len(lines) == len(texts)
    for line, text in zip(lines, texts, strict=True):
        assert is_same(loads(line), loads(text), struct), (line, text)


def is_same(back: Any, raw: Any, type_: pa.DataType) -> bool:
    """Whether a value that came back is what was sent, in a field of this type."""
    if raw is None or raw == {"$undefined": True}:
        return back is None
    if pa.types.is_struct(type_):
        return (
            isinstance(raw, dict)
            and raw.keys() <= back.keys()
            and all(is_same(back[each.name], raw.get(each.name), each.type) for each in type_)
        )
    if pa.types.is_list(type_):
        return len(back) == len(raw) and all(
            is_same(one, other, type_.value_type) for one, other in zip(back, raw, strict=True)
        )
    form = recognise(raw) if isinstance(raw, dict) else None
    return is_same_scalar(back, raw if form is None else form.value, raw, type_)


def is_same_scalar(back: Any, value: Any, raw: Any, type_: pa.DataType) -> bool:
    if back is None:
        return isinstance(value, float) and math.isnan(value)
    if pa.types.is_string(type_):
        return bool(back in (value, raw) or loads(back) == raw)
    if pa.types.is_timestamp(type_):
        milliseconds = parse_instant(value) if isinstance(value, str) else value
        return bool(back == {"$date": {"$numberLong": str(milliseconds)}})
    if pa.types.is_decimal(type_):
        return Decimal(back["$numberDecimal"]) == Decimal(value)
    if pa.types.is_binary(type_):
        return base64.b64decode(back["$binary"]["base64"]) == value
    if pa.types.is_fixed_size_binary(type_):
        return bytes.fromhex(back["$uuid"].replace("-", "")) == value
    if pa.types.is_floating(type_):
        return float(back) == float(value) and float(back).hex() == float(value).hex()
    return type(back) is type(value) and bool(back == value)
