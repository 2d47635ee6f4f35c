"""What a materialization shows in Dagster: counts, schema, table, preview and costs.

Values only: makes metadata of reports, schemas and first rows. Knows neither client nor
credentials; whoever shows values hands in what blanks secrets in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import TableColumnConstraints

# Not exported elsewhere; Dagster's own integrations import both from here.
from dagster._core.definitions.metadata.metadata_set import NamespacedMetadataSet, TableMetadataSet

from connectome_dagster.transfer.report import ReadReport, WriteReport

__all__ = [
    "PREVIEW_ROWS",
    "STORAGE_KIND",
    "ReadMetadataSet",
    "WriteMetadataSet",
    "arrow_schema",
    "preview",
    "read_metadata",
    "table_metadata",
    "table_schema",
    "write_metadata",
]

STORAGE_KIND = "connectome"

PREVIEW_ROWS = 5  # enough to recognize the data; each row is stored with every materialization
_PREVIEW_COLUMNS = 20  # what a screen shows without losing the first column
_PREVIEW_VALUE = 80  # characters; a nested value or a text can be megabytes
_PREVIEW_READ = 4096  # characters of a value that are looked at: far more than are shown
_SCHEMA_COLUMNS = 500  # a schema is stored with every materialization


class WriteMetadataSet(NamespacedMetadataSet):
    """Costs of one write, numbers that the UI plots over time.

    Args:
        link: address of the service, without a credential.
        preview: the first rows as a Markdown table.
        rows: rows that were handed in.
        bytes: bytes of request bodies, as sent.
        requests: HTTP requests, retries and read-backs included.
        retries: requests that were sent again.
        seconds: wall time of the write.
        partitions: how many partitions these numbers are of together; only when several were
            written in one run, each of whose materializations shows the same numbers.
    """

    link: dg.UrlMetadataValue | None = None
    preview: dg.MarkdownMetadataValue | None = None
    rows: int | None = None
    bytes: int | None = None
    requests: int | None = None
    retries: int | None = None
    seconds: float | None = None
    partitions: int | None = None

    @classmethod
    def namespace(cls) -> str:
        """The part of the keys before the slash."""
        return "connectome"


def write_metadata(
    report: WriteReport,
    *,
    base_url: str | None = None,
    first_rows: pa.Table | None = None,
    partitions: int = 1,
    redact: Callable[[str], str] = str,
) -> dict[str, Any]:
    """The `connectome/…` metadata of one write.

    Args:
        report: what the write did.
        base_url: address of the service; becomes the link.
        first_rows: the first rows of the frame, at least `PREVIEW_ROWS` of them if it has as many.
        partitions: number of partitions that were written together.
        redact: blanks secrets in a text.

    Example:
        >>> report = WriteReport(collection="movies", operation="append", rows=3, requests=1)
        >>> write_metadata(report)["connectome/rows"]
        3
    """
    return dict(
        WriteMetadataSet(
            link=dg.MetadataValue.url(base_url) if base_url else None,
            preview=(
                dg.MetadataValue.md(preview(first_rows, redact=redact))
                if first_rows is not None and first_rows.num_columns
                else None
            ),
            rows=report.rows,
            bytes=report.bytes_sent,
            requests=report.requests,
            retries=report.retries,
            seconds=report.seconds,
            partitions=partitions if partitions > 1 else None,
        )
    )


class ReadMetadataSet(NamespacedMetadataSet):
    """Costs of one read, numbers that the UI plots over time, and how far it is to be trusted.

    Args:
        rows: documents that were read.
        bytes: bytes of the response bodies.
        requests: HTTP requests, retries included.
        retries: requests that were sent again.
        seconds: wall time of the read.
        pages: responses that the documents came from.
        resumed: breaks of the connection after which the read went on.
        proved: whether it is certain that these are all documents.
        text_fields: fields that were read as text, since their values have several types.
    """

    rows: int | None = None
    bytes: int | None = None
    requests: int | None = None
    retries: int | None = None
    seconds: float | None = None
    pages: int | None = None
    resumed: int | None = None
    proved: bool | None = None
    text_fields: int | None = None

    @classmethod
    def namespace(cls) -> str:
        """The part of the keys before the slash."""
        return "connectome"


def read_metadata(report: ReadReport) -> dict[str, Any]:
    """The `connectome/…` metadata of what was extracted by one read.

    Args:
        report: what the read did.

    Example:
        >>> read_metadata(ReadReport(collection="movies", rows=3, proved=True))["connectome/proved"]
        True
    """
    return dict(
        ReadMetadataSet(
            rows=report.rows,
            bytes=report.bytes_received,
            requests=report.requests,
            retries=report.retries,
            seconds=report.seconds,
            pages=report.pages,
            resumed=report.resumed,
            proved=report.proved,
            text_fields=len(report.conflicts),
        )
    )


def table_metadata(
    *,
    collection: str,
    schema: pa.Schema | None = None,
    row_count: int | None = None,
    partition_row_count: int | None = None,
) -> dict[str, Any]:
    """The `dagster/…` metadata of a collection as a table.

    Args:
        collection: the collection id.
        schema: the schema of the frame.
        row_count: rows of the **whole** collection's asset, None if not known.
        partition_row_count: rows of the one partition that the materialization is of.

    Raises:
        ValueError: both counts are given; a materialization is of a table or of a partition.
    """
    if row_count is not None and partition_row_count is not None:
        raise ValueError("give the row count of the table or of the partition, not both")
    table = TableMetadataSet(
        column_schema=table_schema(schema) if schema is not None else None,
        row_count=row_count,
        partition_row_count=partition_row_count,
        table_name=collection,
    )
    # By its name: the first Dagster releases that are supported do not have it in the set.
    return {**table, "dagster/storage_kind": STORAGE_KIND}


def table_schema(schema: pa.Schema) -> dg.TableSchema:
    """Dagster's form of an Arrow schema: column names, Arrow's names of the types, nullability.

    Example:
        >>> table_schema(pa.schema([("mag", pa.float64())])).columns[0].type
        'double'
    """
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=_TEXT.sub("string", str(column.type)),
                constraints=TableColumnConstraints(nullable=column.nullable),
            )
            for column in list(schema)[:_SCHEMA_COLUMNS]
        ]
    )


# pandas 3 keeps text as large strings: the same to a reader, and to what a document holds.
_TEXT = re.compile(r"\blarge_string\b|\bstring_view\b")


def arrow_schema(schema: dg.TableSchema) -> pa.Schema:
    """The Arrow schema that a declared table schema stands for.

    Reads Arrow's names of types (`"int64"`, `"double"`, `"timestamp[ms, tz=UTC]"`), pandas' and
    Python's; a type of another name becomes Arrow's null type, which an empty column can have.
    """
    return pa.schema([(column.name, _arrow_type(column.type)) for column in schema.columns])


_OTHER_TYPE_NAMES: Mapping[str, pa.DataType] = {
    "str": pa.string(),
    "object": pa.string(),
    "int": pa.int64(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "datetime": pa.timestamp("ms", "UTC"),
    "timestamp": pa.timestamp("ms", "UTC"),
}


def _arrow_type(name: str) -> pa.DataType:
    zoned = re.fullmatch(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]", name)
    if zoned:
        return pa.timestamp(zoned[1], zoned[2])
    name = re.sub(r"\[day\]$|\[ms\]$", "", name) if name.startswith("date") else name
    if name.lower() in _OTHER_TYPE_NAMES:
        return _OTHER_TYPE_NAMES[name.lower()]
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return pa.null()


def preview(rows: pa.Table, *, redact: Callable[[str], str] = str) -> str:
    """The first rows as a Markdown table: values escaped, long ones and further columns cut.

    Args:
        rows: the rows; the first `PREVIEW_ROWS` are shown.
        redact: blanks secrets in a text, before it is cut.

    Example:
        >>> print(preview(pa.table({"title": ["a|b"], "amount": [39]})))
        | title | amount |
        | --- | --- |
        | a\\|b | 39 |
    """
    names = rows.schema.names[:_PREVIEW_COLUMNS]
    head = rows.select(list(range(len(names)))).slice(0, PREVIEW_ROWS)
    columns = [[_cell(_value(scalar), redact) for scalar in column] for column in head.columns]
    titles = [_cell(name, redact) for name in names]
    hidden = rows.num_columns - len(names)
    if hidden:
        titles.append(f"… {hidden} more")
        columns.append([""] * head.num_rows)
    lines = [titles, ["---"] * len(titles), *map(list, zip(*columns, strict=True))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# What Markdown or HTML would take for a sign of their own.
_SIGNS = str.maketrans(
    {sign: f"\\{sign}" for sign in "\\|*_`[]~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # an instant that Python has no form for
        return "…"


def _cell(value: object, redact: Callable[[str], str]) -> str:
    if value is None:
        return ""
    text = " ".join(redact(str(value)[:_PREVIEW_READ]).split())
    if len(text) > _PREVIEW_VALUE:
        text = text[:_PREVIEW_VALUE] + "…"
    return text.translate(_SIGNS)
