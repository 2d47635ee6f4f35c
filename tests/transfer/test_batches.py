from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.transfer.batches import RowBatch, gather

lines = st.lists(st.integers(0, 40).map(lambda size: b'{"t":"%b"}' % (b"x" * size)), max_size=30)


def batches_of(
    lines: list[bytes], cuts: list[int], max_rows: int, max_bytes: int, beside: int = 0
) -> list[RowBatch]:
    bounds = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    keys = [b"k%b" % line for line in lines]
    opened = [line[:-1] for line in lines]
    parts = itertools.starmap(slice, itertools.pairwise(bounds))
    chunks = ((opened[part], keys[part]) for part in parts)
    return list(gather(chunks, max_rows, max_bytes, beside))


cuts = st.lists(st.integers(0, 30), max_size=4)


@given(lines, cuts, st.integers(1, 6), st.integers(1, 120))
def test_batches_hold_every_line_in_order_within_their_bounds(
    lines: list[bytes], cuts: list[int], max_rows: int, max_bytes: int
) -> None:
    batches = batches_of(lines, cuts, max_rows, max_bytes)
    assert [json.dumps(each, separators=(",", ":")).encode() for batch in batches
            for each in json.loads(batch.plain())] == lines  # fmt: skip
    assert [key for batch in batches for key in batch.keys] == [b"k%b" % line for line in lines]
    assert [row for batch in batches for row in batch.rows] == list(range(len(lines)))
    for batch in batches:
        assert 0 < len(batch) <= max_rows
        assert len(batch.plain()) <= max_bytes or len(batch) == 1


@given(lines, cuts, st.integers(1, 6), st.integers(1, 120), st.integers(0, 30))
def test_no_batch_could_have_taken_the_next_line(
    lines: list[bytes], cuts: list[int], max_rows: int, max_bytes: int, beside: int
) -> None:
    batches = batches_of(lines, cuts, max_rows, max_bytes, beside)
    for batch, following in itertools.pairwise(batches):
        size = len(batch.plain()) + beside * (len(batch) + 1)
        one_more = size + 1 + len(lines[following.rows[0]])
        assert len(batch) == max_rows or one_more > max_bytes


def test_chunks_are_taken_as_they_are_needed() -> None:
    source = iter([([b"{"] * 5, [])] * 20)
    next(gather(source, 3, 1000))
    assert len(list(source)) == 19


@given(st.integers(1, 20), st.data())
def test_a_batch_is_parted_without_loss(rows: int, data: st.DataObject) -> None:
    lines = [b'{"a":%d' % row for row in range(rows)]
    batch = RowBatch(range(5, 5 + rows), lines, [b"%d" % row for row in range(rows)])
    one, other = batch.halves()
    assert [*one.rows, *other.rows] == list(batch.rows)
    assert [*one.lines, *other.lines] == lines
    assert abs(len(one) - len(other)) <= 1
    places = sorted(data.draw(st.sets(st.integers(0, rows - 1))))
    part = batch.at(places)
    assert [row - 5 for row in part.rows] == places
    assert part.texts == [str(place) for place in places]


def test_rows_are_shown_as_people_say_them() -> None:
    whole = RowBatch(range(3), [b"{"] * 3)
    assert whole.shown == "rows 0 to 2"
    assert whole.at([2]).shown == "row 2"
    assert whole.at([0, 2]).shown == "2 of rows 0 to 2"


def test_a_batch_does_not_show_its_documents() -> None:
    (batch,) = gather([([b'{"password":1'], [b"k"])], 2, 100)
    assert "password" not in repr(batch)
