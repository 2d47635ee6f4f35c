from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import ConfigurationError, EncodeError
from connectome_dagster.frames.exact import decode_exactly
from connectome_dagster.frames.schema import Unmergeable, conform, merge_schemas
from connectome_dagster.transfer.parquet import ParquetParts


def batch_of(documents: list[dict[str, Any]]) -> pa.RecordBatch:
    return decode_exactly(json.dumps(documents)[1:-1].encode())[0]


def written(
    folder: Path, *batches: list[dict[str, Any]], group_bytes: int = 1, **options: Any
) -> pa.Table:
    """What the file holds; as the groups are so small, whatever grows makes another part."""
    schema = pa.schema([])
    decoded = [batch_of(batch) for batch in batches]
    for batch in decoded:
        schema = merge_schemas(schema, batch.schema)
    path = ParquetParts(folder, options, group_bytes).write(decoded).merge(schema)
    table = pq.read_table(path)
    assert table.num_rows == sum(map(len, batches))
    return table


def test_batches_of_one_schema_are_one_part(tmp_path: Path) -> None:
    table = written(tmp_path, [{"a": 1}], [{"a": 2}], [{"a": None}])
    assert table.to_pylist() == [{"a": 1}, {"a": 2}, {"a": None}]
    assert len(list(tmp_path.iterdir())) == 1


GROWING = ([{"a": None}], [{"a": 1}], [{"a": 0.5, "b": ["x"]}], [{"b": None}])


@pytest.mark.parametrize(
    ("group_bytes", "files"),
    [
        pytest.param(1, {"0.parquet", "1.parquet", "merged.parquet"}, id="written"),
        pytest.param(1 << 20, {"0.parquet"}, id="gathered"),
    ],
)
def test_a_schema_that_grows_makes_parts_of_what_is_written(
    tmp_path: Path, group_bytes: int, files: set[str]
) -> None:
    table = written(tmp_path, *GROWING, group_bytes=group_bytes)
    assert {path.name for path in tmp_path.iterdir()} == files
    assert table.schema == pa.schema({"a": pa.float64(), "b": pa.list_(pa.string())})
    assert table.to_pylist() == [
        {"a": None, "b": None},
        {"a": 1.0, "b": None},
        {"a": 0.5, "b": ["x"]},
        {"a": None, "b": None},
    ]


@pytest.mark.parametrize("deep", [lambda v: v, lambda v: [v, v], lambda v: {"p": v, "q": 1}])
def test_objects_without_fields_are_kept_while_more_may_come(tmp_path: Path, deep: Any) -> None:
    grown = written(tmp_path, [{"o": deep({})}, {"o": None}], [{"o": deep({"x": 1})}])
    assert grown.to_pylist() == [
        {"o": deep({"x": None})},
        {"o": None},
        {"o": deep({"x": 1})},
    ]


@pytest.mark.parametrize("deep", [lambda v: v, lambda v: [v, None], lambda v: {"p": v, "q": 1}])
def test_objects_that_never_have_fields_are_their_text(tmp_path: Path, deep: Any) -> None:
    table = written(tmp_path, [{"o": deep({})}, {"o": None}], [{"o": deep({}), "late": 1}])
    assert [row["o"] for row in table.to_pylist()] == [deep("{}"), None, deep("{}")]


def test_documents_without_any_field_are_told(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="the documents have no fields"):
        written(tmp_path, [{}, {}])


def test_documents_without_fields_among_others_are_rows_of_nulls(tmp_path: Path) -> None:
    assert written(tmp_path, [{}], [{"a": 1}], [{}]).to_pylist() == [
        {"a": None},
        {"a": 1},
        {"a": None},
    ]


def test_options_reach_every_part_and_the_file(tmp_path: Path) -> None:
    written(tmp_path, [{"a": 1}], [{"a": 0.5}], compression="gzip")
    for path in tmp_path.iterdir():
        column = pq.ParquetFile(path).metadata.row_group(0).column(0)
        assert column.compression == "GZIP"


@pytest.mark.parametrize("group_bytes", [1, 1 << 20])
def test_integers_that_floats_do_not_hold_are_told_when_all_is_written(
    tmp_path: Path, group_bytes: int
) -> None:
    batches = [batch_of([{"a": value}]) for value in (2**53 + 1, 0.5)]
    parts = ParquetParts(tmp_path, {}, group_bytes).write(batches)
    with pytest.raises(Unmergeable):
        parts.merge(pa.schema({"a": pa.float64()}))


@pytest.mark.parametrize("grows", [False, True])
def test_row_groups_are_as_large_as_asked(tmp_path: Path, grows: bool) -> None:
    batches = [batch_of([{"a": at, "s": "x" * 100}] * 100) for at in range(40)]
    if grows:
        batches[20] = batch_of([{"a": 0.5, "s": "x" * 100}] * 100)
    schema = merge_schemas(batches[0].schema, batches[20].schema)
    size = 5 * batches[0].nbytes
    path = ParquetParts(tmp_path, {}, size).write(batches).merge(schema)
    metadata = pq.read_metadata(path)
    rows = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    assert sum(rows) == 4000
    assert rows == [500] * 8


def test_no_more_is_held_than_is_gathered_and_written(tmp_path: Path) -> None:
    seen: list[weakref.ref[pa.RecordBatch]] = []
    most = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for at in range(60):
            batch = batch_of([{"a": at}] * 100)
            seen.append(weakref.ref(batch))
            yield batch
            del batch
            most = max(most, sum(each() is not None for each in seen))

    in_a_group = 5
    size = in_a_group * batch_of([{"a": 1}] * 100).nbytes
    ParquetParts(tmp_path, {}, size).write(batches())
    assert most <= 2 * in_a_group


def test_columns_whose_values_repeat_have_a_dictionary(tmp_path: Path) -> None:
    rows = [
        {
            "unique": f"{at}",
            "repeated": f"{at % 7}",
            "o": {"unique": at, "repeated": at % 7},
            "l": [{"unique": at + 0.5, "repeated": None if at % 2 else "x"}],
            "a.b": at % 3,
        }
        for at in range(1000)
    ]
    written(tmp_path, rows)
    assert with_dictionaries(tmp_path / "0.parquet") == {
        "repeated",
        "o.repeated",
        "l.list.element.repeated",
        "a.b",
    }


@pytest.mark.parametrize(("told", "columns"), [(["a"], {"a"}), (True, {"a", "b"}), (False, set())])
def test_who_says_what_has_a_dictionary_is_obeyed(
    tmp_path: Path, told: Any, columns: set[str]
) -> None:
    rows = [{"a": at, "b": 1} for at in range(100)]
    written(tmp_path, rows, use_dictionary=told)
    assert with_dictionaries(tmp_path / "0.parquet") == columns


def with_dictionaries(path: Path) -> set[str]:
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    return {column.path_in_schema for column in columns if column.has_dictionary_page}


@pytest.mark.parametrize(
    "options",
    [{"no_such_option": 1}, {"compression": "nonsense"}, {"version": "9"}, {"page_size": 1}],
    ids=str,
)
def test_options_that_parquet_does_not_know_are_refused_first(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="Nothing was sent") as caught:
        ParquetParts(tmp_path, options)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_the_metadata_of_the_file_alone_is_collected(tmp_path: Path) -> None:
    collected: list[pq.FileMetaData] = []
    written(tmp_path, [{"a": 1}], metadata_collector=collected)
    assert [each.num_rows for each in collected] == [1]


def test_a_failure_to_write_is_told(tmp_path: Path) -> None:
    # LZO is in the format, and not in pyarrow
    with pytest.raises(OSError, match="LZO"):
        written(tmp_path, [{"a": 1}], [{"a": 2}], compression="lzo")
    assert not threads_that_write()


def test_a_read_that_breaks_off_leaves_no_thread(tmp_path: Path) -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield batch_of([{"a": 1}])
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        ParquetParts(tmp_path, {}, 1).write(breaking())
    assert not threads_that_write()


def threads_that_write() -> list[str]:
    return [each.name for each in threading.enumerate() if "parquet" in each.name]


def test_nothing_is_a_file_without_rows(tmp_path: Path) -> None:
    path = ParquetParts(tmp_path, {}).write([]).merge(pa.schema({"a": pa.int64()}))
    assert pq.read_table(path).equals(pa.table({"a": pa.array([], pa.int64())}))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, "x", ""]),
    lambda below: (
        st.lists(below, max_size=2)
        | st.dictionaries(st.sampled_from(["p", "q", ""]), below, max_size=2)
    ),
    max_leaves=5,
)
documents = st.lists(st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2), max_size=4)


@given(
    batches=st.lists(documents.filter(bool), min_size=1, max_size=4),
    group_bytes=st.sampled_from([1, 30, 1 << 20]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_file_has_the_rows_of_the_batches(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[dict[str, Any]]],
    group_bytes: int,
) -> None:
    decoded = [batch_of(batch) for batch in batches]
    schema = pa.schema([])
    try:
        for batch in decoded:
            schema = merge_schemas(schema, batch.schema)
        expected = pa.Table.from_batches([conform(batch, schema) for batch in decoded], schema)
    except Unmergeable:
        return
    if not schema.names:
        return
    table = written(tmp_path_factory.mktemp("parts"), *batches, group_bytes=group_bytes)
    assert with_text(table.to_pylist()) == with_text(expected.to_pylist())


def with_text(value: Any) -> Any:
    """Objects without any field and their text are the same here."""
    if isinstance(value, dict):
        return {name: with_text(item) for name, item in value.items()} or "{}"
    return [with_text(item) for item in value] if isinstance(value, list) else value
