from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import arro3.core
import pandas as pd
import pyarrow as pa
import pytest

from connectome_dagster.errors import ConfigurationError, SchemaConflict
from connectome_dagster.transfer.rows import (
    ENCODE_BYTES,
    ENCODE_ROWS,
    HELD_DOCUMENTS,
    batches_of,
    count_of,
    encoded,
    is_in_memory,
)
from tests.transfer.test_write import Frame, Stream

TABLE = pa.table({"a": [1, 2, 3]})


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_pandas(),
        Frame(TABLE),
        arro3.core.Table.from_arrow(TABLE),
        [{"a": 1}],
        ({"a": 1}, TABLE),
        [],
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_in_memory_gives_its_rows_twice(frame: Any) -> None:
    assert is_in_memory(frame)
    first, second = (sum(map(count_of, batches_of(frame))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "frame",
    [
        TABLE.to_reader(),
        Stream(TABLE),
        arro3.core.RecordBatchReader.from_arrow(TABLE),
        iter([{"a": 1}]),
        ({"a": n} for n in range(3)),
        [TABLE.to_reader()],
        [TABLE, Stream(TABLE)],
        (TABLE, iter([{"a": 1}])),
        map(dict, [{"a": 1}]),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_stream_is_not_taken_for_a_frame_in_memory(frame: Any) -> None:
    assert not is_in_memory(frame)


def test_a_foreign_reader_gives_its_rows() -> None:
    reader = arro3.core.RecordBatchReader.from_arrow(TABLE)
    assert sum(map(count_of, batches_of(reader))) == 3


def test_many_rows_come_in_bounded_batches() -> None:
    frame = pa.table({"a": range(3 * ENCODE_ROWS + 1)})
    for each in (frame, frame.to_reader(), frame.to_pandas(), frame.to_batches()):
        counts = [count_of(batch) for batch in batches_of(each)]
        assert sum(counts) == 3 * ENCODE_ROWS + 1
        assert max(counts) <= ENCODE_ROWS


def test_large_rows_come_in_smaller_batches() -> None:
    frame = pa.table({"a": ["x" * (ENCODE_BYTES // 4)] * 10})
    batches = list(batches_of(frame))
    assert sum(map(count_of, batches)) == 10
    assert all(1 <= batch.num_rows <= 4 for batch in batches if isinstance(batch, pa.RecordBatch))


def test_few_documents_of_an_iterable_are_held() -> None:
    taken = 0

    def documents() -> Iterator[dict[str, int]]:
        nonlocal taken
        for taken in itertools.count(1):
            yield {"n": taken}

    assert count_of(next(batches_of(documents()))) == HELD_DOCUMENTS
    assert taken <= HELD_DOCUMENTS + 1


def test_rows_without_columns_are_rows() -> None:
    none = pa.RecordBatch.from_struct_array(pa.array([{}] * 3, pa.struct([])))
    (batch,) = batches_of(none)
    assert encoded(batch, 0) == [b"{}"] * 3


def test_two_columns_of_one_name_are_told() -> None:
    (batch,) = batches_of(pa.table([[1], [2]], names=["a", "a"]))
    with pytest.raises(SchemaConflict, match="two columns are called 'a'"):
        encoded(batch, 0)


def test_the_named_index_of_a_dataframe_is_kept_and_others_are_not() -> None:
    frame = pd.DataFrame({"a": [1]}, index=[7])
    assert [encoded(batch, 0) for batch in batches_of(frame)] == [[b'{"a":1}']]
    frame.index.name = "i"
    assert [encoded(batch, 0) for batch in batches_of(frame)] == [[b'{"i":7,"a":1}']]


@pytest.mark.parametrize("frame", [pa.chunked_array([[1]]), pd.Series([1]), object(), None, 1.5])
def test_what_is_no_frame_is_told_by_its_type(frame: Any) -> None:
    with pytest.raises(ConfigurationError, match=type(frame).__name__):
        list(batches_of(frame))


def test_an_error_of_a_stream_is_its_own() -> None:
    class Broken:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        list(batches_of(Broken()))
