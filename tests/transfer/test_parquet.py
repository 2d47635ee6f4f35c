from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames.exact import decode_exactly
from connectome_dagster.frames.schema import Unmergeable, conform, merge_schemas
from connectome_dagster.transfer.parquet import ParquetParts


def batch_of(documents: list[dict[str, Any]]) -> pa.RecordBatch:
    return decode_exactly(json.dumps(documents)[1:-1].encode())[0]


def written(folder: Path, *batches: list[dict[str, Any]], **options: Any) -> pa.Table:
    schema = pa.schema([])
    decoded = [batch_of(batch) for batch in batches]
    for batch in decoded:
        schema = merge_schemas(schema, batch.schema)
    path = ParquetParts(folder, options).write(decoded).merge(schema)
    table = pq.read_table(path)
    assert table.num_rows == sum(map(len, batches))
    return table


def test_batches_of_one_schema_are_one_part(tmp_path: Path) -> None:
    table = written(tmp_path, [{"a": 1}], [{"a": 2}], [{"a": None}])
    assert table.to_pylist() == [{"a": 1}, {"a": 2}, {"a": None}]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_schema_that_grows_makes_parts_that_become_one_file(tmp_path: Path) -> None:
    table = written(tmp_path, [{"a": None}], [{"a": 1}], [{"a": 0.5, "b": ["x"]}], [{"b": None}])
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


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, "x", ""]),
    lambda below: (
        st.lists(below, max_size=2)
        | st.dictionaries(st.sampled_from(["p", "q", ""]), below, max_size=2)
    ),
    max_leaves=5,
)
documents = st.lists(st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2), max_size=4)


@given(st.lists(documents.filter(bool), min_size=1, max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_file_has_the_rows_of_the_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[dict[str, Any]]]
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
    table = written(tmp_path_factory.mktemp("parts"), *batches)
    assert with_text(table.to_pylist()) == with_text(expected.to_pylist())


def with_text(value: Any) -> Any:
    """Objects without any field and their text are the same here."""
    if isinstance(value, dict):
        return {name: with_text(item) for name, item in value.items()} or "{}"
    return [with_text(item) for item in value] if isinstance(value, list) else value
