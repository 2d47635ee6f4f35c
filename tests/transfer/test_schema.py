from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_dagster.errors import ConfigurationError, SchemaConflict
from tests.transfer.conftest import Local

NO_ID = {"_id": 0}
SCHEMA = pa.schema(
    {
        "sku": pa.int32(),
        "price": pa.decimal128(10, 2),
        "day": pa.date32(),
        "kind": pa.dictionary(pa.int32(), pa.string()),
        "at": pa.timestamp("us", "UTC"),
        "raw": pa.binary(),
    }
)
FRAME = pa.table(
    {
        "sku": [1, 2, None],
        "price": [Decimal("1.50"), None, Decimal("12345678.90")],
        "day": [None, 17563, 17564],
        "kind": ["a", "b", "a"],
        "at": [0, 1, None],
        "raw": [b"\0\1", None, b""],
    },
    schema=pa.schema(
        [field if field.name != "kind" else field.with_type(pa.string()) for field in SCHEMA]
    ),
).cast(SCHEMA)


def test_a_frame_that_was_appended_is_equal_when_read_with_its_schema(
    local: Local, tmp_path: Path
) -> None:
    collection = local.collection()
    collection.append(FRAME)
    found = collection.find({}, project=NO_ID, schema=SCHEMA)
    assert found.to_arrow().to_pylist() == FRAME.to_pylist()
    assert found.to_arrow().schema.equals(SCHEMA)
    assert found.reader().schema.equals(SCHEMA)
    found.to_parquet(tmp_path / "found.parquet")
    assert pq.read_table(tmp_path / "found.parquet").to_pylist() == FRAME.to_pylist()
    assert found.to_pandas()["price"].tolist()[0] == Decimal("1.50")
    assert found.report is not None
    assert not found.report.conflicts


def test_nothing_found_has_the_schema_all_the_same(local: Local, tmp_path: Path) -> None:
    found = local.collection().find({}, schema=SCHEMA)
    assert found.to_arrow().schema.equals(SCHEMA)
    assert found.reader().read_all().schema.equals(SCHEMA)
    found.to_parquet(tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").column_names == SCHEMA.names


def test_a_value_that_does_not_fit_is_named_with_its_document(local: Local) -> None:
    documents: list[dict[str, Any]] = [{"o": {"n": at}} for at in range(20)]
    documents[13]["o"]["n"] = "x"
    collection = local.collection(documents)
    schema = pa.schema({"o": pa.struct({"n": pa.int64()})})
    found = collection.find({}, project=NO_ID, schema=schema)
    for read in (found.to_arrow, lambda: found.reader().read_all(), found.to_pylist):
        with pytest.raises(
            SchemaConflict, match=r"document 13 .*o\.n: string does not fit int64"
        ) as e:
            read()
        assert e.value.field == "o.n"


def test_a_field_that_the_schema_does_not_have_is_refused_unless_it_is_to_be_dropped(
    local: Local,
) -> None:
    collection = local.collection([{"a": 1}, {"a": 2, "b": 3}])
    schema = pa.schema({"a": pa.int64()})
    with pytest.raises(SchemaConflict, match=r"document 1 .*b: a field that the schema does not"):
        collection.find({}, project=NO_ID, schema=schema).to_arrow()
    dropped = collection.find({}, schema=schema, extra_fields="drop")
    assert dropped.to_arrow().to_pylist() == [{"a": 1}, {"a": 2}]


def test_a_field_of_several_types_is_an_error_where_that_is_asked(local: Local) -> None:
    collection = local.collection([{"t": "a"}, {"t": "b"}, {"t": 300}])
    found = collection.find({}, on_conflict="error")
    with pytest.raises(SchemaConflict, match=r"document 2 .*t: string and int in one field") as e:
        found.to_arrow()
    assert e.value.field == "t"
    assert collection.find({"t": "a"}, on_conflict="error").to_arrow().num_rows == 1
    assert collection.find({}).to_arrow().column("t").to_pylist() == ["a", "b", "300"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schema": {"a": "int64"}}, "give a pyarrow.Schema"),
        ({"extra_fields": "ignore"}, "give 'error' or 'drop'"),
        ({"extra_fields": "drop"}, "without schema"),
        ({"on_conflict": "string"}, "give 'text' or 'error'"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_sent(
    settings: dict[str, Any], message: str, local: Local
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        local.collection().find({}, **settings)
