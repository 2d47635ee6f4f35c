"""Batches that have to share one schema: widened as they come, or held to the first one's.

Knows schemas and batches; neither where these come from nor what is made of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import pyarrow as pa

from connectome_dagster.errors import SchemaDrift
from connectome_dagster.frames.schema import (
    Path,
    Unmergeable,
    check_wholes,
    conform,
    drifted,
    merge_schemas,
    show_path,
)


class GrowingSchema:
    """Watches batches go by and widens the schema that holds them all.

    After the first conflict nothing is handed on: what comes only tells of more conflicts, so
    that all of them are known before the documents are read again.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.conflicts: frozenset[Path] = frozenset()

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            try:
                self._widen(batch)
            except Unmergeable as unmergeable:
                self.conflicts |= frozenset(unmergeable.kinds)
            if not self.conflicts:
                yield batch

    def _widen(self, batch: pa.RecordBatch) -> None:
        if batch.schema.equals(self.schema):
            return
        merged = merge_schemas(self.schema, batch.schema)
        check_wholes(batch, merged)
        self.schema = merged


def of_one_schema(
    first: pa.RecordBatch, batches: Generator[pa.RecordBatch, None, None]
) -> Iterator[pa.RecordBatch]:
    # Closed when a batch drifts, and not when somebody lets go of the error.
    with closing(batches):
        yield first
        for at, batch in enumerate(batches, start=2):
            field, drift = _drift(first.schema, batch)
            if drift:
                raise SchemaDrift(
                    f"batch {at} does not fit the schema of the first: {drift}. A stream has one "
                    "schema: use to_arrow, to_pandas or to_parquet, which widen it, or leave the "
                    "field out with project",
                    field=field,
                )
            yield conform(batch, first.schema)


def _drift(schema: pa.Schema, batch: pa.RecordBatch) -> tuple[str, str]:
    """Which field of a batch goes beyond a schema, and how all that do go; both empty if none."""
    if batch.schema.equals(schema):
        return "", ""
    try:
        grown = merge_schemas(schema, batch.schema)
        check_wholes(batch, grown)
    except Unmergeable as unmergeable:
        kinds = {show_path(path): each for path, each in unmergeable.kinds.items()}
        told = [f"{path} ({', later '.join(each)})" for path, each in kinds.items()]
        return next(iter(kinds)), ", ".join(told)
    if grown.equals(schema):
        return "", ""
    known = set(schema)
    return next(each.name for each in grown if each not in known), ", ".join(drifted(schema, grown))
