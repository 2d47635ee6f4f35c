from __future__ import annotations

import doctest

import dagster as dg
import pyarrow as pa
import pytest

from connectome_dagster import metadata
from connectome_dagster.metadata import (
    PREVIEW_ROWS,
    arrow_schema,
    preview,
    read_metadata,
    table_metadata,
    table_schema,
    write_metadata,
)
from connectome_dagster.transfer.report import ReadReport, WriteReport

REPORT = WriteReport(
    collection="movies",
    operation="replace",
    rows=3,
    requests=4,
    retries=1,
    bytes_sent=120,
    seconds=0.5,
)


def test_text_has_one_name_however_it_is_kept() -> None:
    kept = [pa.string(), pa.large_string(), pa.list_(pa.large_string())]
    schema = pa.schema([(str(at), type_) for at, type_ in enumerate(kept)])
    shown = [column.type for column in table_schema(schema).columns]
    assert shown == ["string", "string", "list<item: string>"]


def test_a_table_is_described_by_dagsters_own_keys() -> None:
    metadata = table_metadata(
        collection="movies", schema=pa.schema([("amount", pa.int64())]), row_count=3
    )
    assert metadata == {
        "dagster/column_schema": table_schema(pa.schema([("amount", pa.int64())])),
        "dagster/row_count": 3,
        "dagster/table_name": "movies",
        "dagster/storage_kind": "connectome",
    }


def test_the_count_of_a_partition_is_never_the_count_of_the_table() -> None:
    assert "dagster/row_count" not in table_metadata(collection="movies", partition_row_count=3)
    with pytest.raises(ValueError, match="not both"):
        table_metadata(collection="movies", row_count=3, partition_row_count=3)


def test_no_rows_are_a_count_too() -> None:
    assert table_metadata(collection="movies", row_count=0)["dagster/row_count"] == 0


def test_the_costs_of_a_read_are_numbers_and_whether_it_is_all() -> None:
    report = ReadReport(
        "movies", rows=3, requests=4, retries=1, bytes_received=120, seconds=0.5, pages=2,
        resumed=1, proved=False, conflicts={"year": ("int", "string")},
    )  # fmt: skip
    shown = read_metadata(report)
    assert shown == {
        "connectome/rows": 3,
        "connectome/bytes": 120,
        "connectome/requests": 4,
        "connectome/retries": 1,
        "connectome/seconds": 0.5,
        "connectome/pages": 2,
        "connectome/resumed": 1,
        "connectome/proved": False,
        "connectome/text_fields": 1,
    }
    assert dg.MaterializeResult(metadata=shown).metadata == shown


def test_the_costs_of_a_write_are_numbers() -> None:
    metadata = write_metadata(REPORT)
    assert metadata == {
        "connectome/rows": 3,
        "connectome/bytes": 120,
        "connectome/requests": 4,
        "connectome/retries": 1,
        "connectome/seconds": 0.5,
    }


def test_the_link_is_the_address_of_the_service() -> None:
    link = write_metadata(REPORT, base_url="https://example.org")["connectome/link"]
    assert link == dg.MetadataValue.url("https://example.org")


def test_numbers_of_several_partitions_say_so() -> None:
    assert write_metadata(REPORT, partitions=8)["connectome/partitions"] == 8
    assert "connectome/partitions" not in write_metadata(REPORT, partitions=1)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.bool_(),
        pa.date32(),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("us"),
        pa.binary(),
    ],
    ids=str,
)
def test_a_schema_that_was_shown_can_be_declared(kind: pa.DataType) -> None:
    schema = pa.schema([("field", kind)])
    assert arrow_schema(table_schema(schema)) == schema


def test_a_declared_type_of_an_unknown_name_is_left_open() -> None:
    declared = dg.TableSchema(columns=[dg.TableColumn("a", "polygon"), dg.TableColumn("b", "str")])
    assert arrow_schema(declared) == pa.schema([("a", pa.null()), ("b", pa.string())])


def test_nullability_is_shown() -> None:
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("mag", pa.float64())])
    assert [c.constraints.nullable for c in table_schema(schema).columns] == [False, True]


def test_the_preview_shows_the_first_rows() -> None:
    lines = preview(pa.table({"n": list(range(100))})).splitlines()
    assert lines == ["| n |", "| --- |", *(f"| {n} |" for n in range(PREVIEW_ROWS))]


def test_values_cannot_break_out_of_the_preview() -> None:
    text = preview(pa.table({"a|b": ["x|y\n| z", "<img src=x>", "[a](javascript:b)", None]}))
    rows = text.splitlines()
    assert len(rows) == 6
    assert rows[0] == r"| a\|b |"
    assert rows[2] == r"| x\|y \| z |"
    assert rows[3] == "| &lt;img src=x&gt; |"
    assert rows[4] == r"| \[a\](javascript:b) |"
    assert rows[5] == "|  |"


def test_long_values_and_further_columns_are_cut() -> None:
    text = preview(pa.table({f"c{n}": ["x" * 1000] for n in range(30)}))
    assert "… 10 more" in text
    assert "x" * 81 not in text


def test_a_secret_in_the_data_is_blanked_before_the_value_is_cut() -> None:
    secret = "s" * 100
    text = preview(
        pa.table({"note": [f"key: {secret}"]}), redact=lambda text: text.replace(secret, "***")
    )
    assert "sss" not in text


def test_a_value_that_python_has_no_form_for_does_not_fail_a_write_that_succeeded() -> None:
    far = pa.array([10**15], pa.timestamp("s"))
    assert preview(pa.table({"at": far})).splitlines()[2] == "| … |"


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(metadata)
    assert (result.attempted > 0, result.failed) == (True, 0)
