"""Documents through Arrow and back: what comes out is what went in, by the table of types."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.encode import encode_rows
from connectome_dagster.frames.schema import Unmergeable, conform, merge_schemas
from connectome_dagster.frames.split import Splitter
from tests.frames.cutting import chunked, pieces_of
from tests.frames.documents import collections
from tests.frames.sameness import EJSON, is_same, loads


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


@settings(max_examples=120, deadline=None)
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
