from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.transfer.batches import gather

lines = st.lists(st.integers(0, 40).map(lambda size: b'{"t":"%b"}' % (b"x" * size)), max_size=30)


@given(lines, st.integers(1, 6), st.integers(1, 120))
def test_batches_hold_every_line_in_order_within_their_bounds(
    lines: list[bytes], max_rows: int, max_bytes: int
) -> None:
    batches = list(gather(lines, max_rows, max_bytes))
    assert [json.dumps(each, separators=(",", ":")).encode() for batch in batches
            for each in json.loads(batch.body)] == lines  # fmt: skip
    row = 0
    for batch in batches:
        assert batch.first_row == row
        assert batch.rows == len(json.loads(batch.body)) <= max_rows
        assert len(batch.body) <= max_bytes or batch.rows == 1
        row += batch.rows


@given(lines, st.integers(1, 6), st.integers(1, 120))
def test_no_batch_could_have_taken_the_next_line(
    lines: list[bytes], max_rows: int, max_bytes: int
) -> None:
    batches = list(gather(lines, max_rows, max_bytes))
    for batch, following in itertools.pairwise(batches):
        one_more = len(batch.body) + 1 + len(lines[following.first_row])
        assert batch.rows == max_rows or one_more > max_bytes


def test_lines_are_taken_as_they_are_needed() -> None:
    source = iter([b"{}"] * 100)
    next(gather(source, 3, 1000))
    assert len(list(source)) == 96


def test_rows_are_shown_as_people_say_them() -> None:
    assert [batch.shown for batch in gather([b"{}"] * 3, 2, 100)] == ["rows 0 to 1", "row 2"]


def test_a_batch_does_not_show_its_documents() -> None:
    (batch,) = gather([b'{"password":1}'], 2, 100)
    assert "password" not in repr(batch)
