"""Assets as documents of a collection: stores frames and loads them, whole or by partition.

Knows Dagster's contexts and what an asset's definition metadata asks for. Does not know how
partitions are told apart in documents, how data moves, or what a materialization shows.
"""

# Without `from __future__ import annotations`: Dagster looks for ResourceDependency among a class's
# annotations while the class is made, and does not find it in their text.

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import ConfigDict

from connectome_dagster.errors import ConfigurationError, ConnectomeError
from connectome_dagster.frames.dataframe import from_pandas, to_pandas
from connectome_dagster.frames.schema import check_names
from connectome_dagster.metadata import (
    PREVIEW_ROWS,
    arrow_schema,
    table_metadata,
    write_metadata,
)
from connectome_dagster.partitions import (
    OutsidePartition,
    PartitionFormat,
    PartitionSelection,
    select_partitions,
)
from connectome_dagster.resource import ConnectomeResource
from connectome_dagster.transfer.collection import Collection
from connectome_dagster.transfer.read import Documents
from connectome_dagster.transfer.report import WriteReport

__all__ = ["ConnectomeIOManager"]

Frame: TypeAlias = pd.DataFrame | pa.Table | pa.RecordBatchReader

_NAMESPACE = "connectome/"
_WRITE_MODES = ("replace", "append", "upsert")
_OUTPUT_KEYS = ("collection", "write_mode", "on", "partition_format")
_SUPPORTED = "pandas.DataFrame, pyarrow.Table or pyarrow.RecordBatchReader"

_CHECKED_ROWS = 1 << 16  # rows checked at once: some megabytes of temporary arrays, no more
# Dagster lists the whole range for each count: 750 of them, two years of days, take 0.3 s; the
# hours of a year would take more than half a minute.
_COUNTED_PARTITIONS = 750


class ConnectomeIOManager(dg.ConfigurableIOManager):
    """Stores what assets return as documents of collections, and loads it for downstream assets.

    Takes and gives `pandas.DataFrame`, `pyarrow.Table` and `pyarrow.RecordBatchReader` (streamed
    both ways). An input without annotation is a DataFrame. A column `_id` is not stored, unless
    `connectome/on` names it: the documents get their own, so that storing a frame that was read
    elsewhere can be repeated. Nor is `_id` loaded, unless `columns` asks for it.

    What an asset's definition metadata says:

    - `connectome/collection`: the collection id. Default: the asset key, its parts joined by `__`
      (an id cannot hold a `/`, and no two assets may share a collection by accident);
    - `connectome/write_mode`: `"replace"` (the partition, or the whole collection of an asset
      without partitions; an empty frame replaces it by nothing), `"append"` or `"upsert"`.
      Default: the IO manager's own `write_mode`;
    - `connectome/on`: for `"upsert"`, the columns that make a row's key;
    - `partition_expr`: for a partitioned asset, the field of its documents that tells the
      partitions apart; for several dimensions, a mapping of dimension to field;
    - `connectome/partition_format`: `"instant"` (default) or `"key"`; see
      `connectome_dagster.partitions.select_partitions` for what each matches.

    What an input's metadata says: `columns`, the columns to load.

    Storing a partition again, or retrying a step or a run, writes nothing twice: rows that are
    there already are not sent. What `"append"` adds without partitions is told by the run and its
    retries, so that the next run adds again. Rows are told by what they say; a partition that is
    appended to with other rows keeps those that it had, and partitions that were appended as a
    range in one run are known again as that range alone (`"replace"` knows each by itself).

    Every row that is stored as a partition must belong to it; the first that does not is an
    error, for a DataFrame or Table before anything is sent.

    Args:
        connectome: the connection.
        write_mode: the write mode of assets that say none.

    Example:
        >>> import dagster as dg
        >>> @dg.asset(
        ...     partitions_def=dg.DailyPartitionsDefinition("2018-01-31"),
        ...     metadata={"partition_expr": "time", "connectome/collection": "quakes"},
        ... )
        ... def earthquakes(context: dg.AssetExecutionContext) -> pd.DataFrame:
        ...     day = pd.Timestamp(context.partition_key, tz="UTC")
        ...     return pd.DataFrame({"time": [day], "mag": [4.5]})
        >>> defs = dg.Definitions(
        ...     assets=[earthquakes],
        ...     resources={
        ...         "io_manager": ConnectomeIOManager(
        ...             connectome=ConnectomeResource(
        ...                 read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
        ...                 write_credential=dg.EnvVar("CONNECTOME_WRITE_CREDENTIAL"),
        ...             )
        ...         )
        ...     },
        ... )
    """

    # Merged with Dagster's own: unknown settings are mistakes, and none is printed in an error.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    connectome: dg.ResourceDependency[ConnectomeResource]
    write_mode: str = "replace"

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store what an asset or op returned, and describe it in the materialization.

        Raises:
            ConfigurationError: metadata that cannot work, or something that is not a frame.
            OutsidePartition: a row that does not belong to the partitions being written.
            ConnectomeError: whatever else the write raises.
        """
        settings = _Settings.of(context, context.definition_metadata, self.write_mode)
        selection = _selection(context, settings)
        frame = _without_id(_frame(obj, settings.name), settings.on)
        seen = _Seen(selection)
        if isinstance(frame, pa.Table):
            for batch in frame.to_batches(max_chunksize=_CHECKED_ROWS):
                seen.check(batch)
            source: pa.Table | pa.RecordBatchReader = frame
        else:
            source = seen.through(frame)
        collection = self.connectome.collection(settings.collection)
        scope = _scope(context, settings, selection)
        report = _write(collection, source, settings, selection, seen, scope)
        counted = _counted(collection, settings, selection, seen)
        self._describe(context, collection, selection, seen, frame.schema, report, counted)

    def load_input(self, context: dg.InputContext) -> Frame:
        """Load what an upstream asset stored, as the type that the input is annotated with.

        Raises:
            ConfigurationError: another annotation, or metadata that cannot work.
            ConnectomeError: whatever else the read raises.
        """
        kind = _input_kind(context)
        upstream = context.upstream_output.definition_metadata if context.upstream_output else {}
        settings = _Settings.of(context, upstream, self.write_mode)
        columns = _columns(context, settings.name)
        selection = _selection(context, settings)
        declared = _declared(upstream)
        if selection is not None and not selection.keys:
            return _as(kind, _shaped(_empty(declared), declared, columns))
        documents = self.connectome.collection(settings.collection).find(
            selection.filter() if selection is not None else None, project=_projection(columns)
        )
        if kind is pa.RecordBatchReader:
            reader = _logging_reader(context, documents)
            return _shaped_reader(reader, declared, columns)
        return _as(kind, _loaded(context, documents, declared, columns))

    def _describe(
        self,
        context: dg.OutputContext,
        collection: Collection,
        selection: PartitionSelection | None,
        seen: "_Seen",
        schema: pa.Schema,
        report: WriteReport,
        total: int | None,
    ) -> None:
        keys = selection.keys if selection is not None else ()
        metadata = {
            **table_metadata(
                collection=collection.id,
                schema=schema,
                row_count=total if selection is None else None,
                partition_row_count=total if len(keys) == 1 else None,
            ),
            **write_metadata(
                report,
                base_url=collection.base_url,
                first_rows=seen.first_rows(schema),
                partitions=len(keys),
                redact=self.connectome.redact,
            ),
        }
        theirs = context.output_metadata
        context.add_output_metadata({k: v for k, v in metadata.items() if k not in theirs})
        if report.operation == "replace" and 1 < len(keys) <= _COUNTED_PARTITIONS:
            for key, rows in zip(keys, seen.per_partition, strict=True):
                context.step_context.add_asset_metadata(
                    {"dagster/partition_row_count": int(rows)}, context.asset_key, key
                )


# ---- what the definitions ask for


@dataclass(frozen=True)
class _Settings:
    """What an asset's or output's definition metadata asks for, checked."""

    name: str  # of the asset or output, for messages
    collection: str
    write_mode: str
    on: tuple[str, ...]
    partition_expr: str | Mapping[str, str] | None
    partition_format: PartitionFormat

    @classmethod
    def of(
        cls,
        context: dg.OutputContext | dg.InputContext,
        metadata: Mapping[str, Any],
        write_mode: str,
    ) -> "_Settings":
        name = _name(context)
        values = {key: _plain(value) for key, value in metadata.items()}
        unknown = [
            key
            for key in values
            if key.startswith(_NAMESPACE) and key[len(_NAMESPACE) :] not in _OUTPUT_KEYS
        ]
        if unknown:
            raise ConfigurationError(
                f"{name} has the metadata {_listed(unknown)}, which ConnectomeIOManager does not "
                f"know. It knows {_listed([_NAMESPACE + key for key in _OUTPUT_KEYS])}."
            )
        mode = values.get("connectome/write_mode", write_mode)
        return cls(
            name=name,
            collection=_collection_id(context, values, name),
            write_mode=mode,
            on=_on(values.get("connectome/on"), mode, name),
            partition_expr=values.get("partition_expr"),
            partition_format=values.get("connectome/partition_format", "instant"),
        )


def _name(context: dg.OutputContext | dg.InputContext) -> str:
    if context.has_asset_key:
        return f"Asset {context.asset_key.to_user_string()}"
    return f'Output "{context.name}"'


def _plain(value: object) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value


def _listed(values: Sequence[object]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _collection_id(
    context: dg.OutputContext | dg.InputContext, values: Mapping[str, Any], name: str
) -> str:
    given = values.get("connectome/collection")
    if isinstance(given, str):
        return given
    if given is not None:
        raise ConfigurationError(
            f'{name}: "connectome/collection" must be a collection id, which is text.'
        )
    if context.has_asset_key:
        return context.asset_key.to_python_identifier()
    raise ConfigurationError(
        f'{name} is no asset, so no name of a collection follows from it. Set "connectome/'
        'collection" in its metadata: Out(metadata={"connectome/collection": "…"}).'
    )


def _on(value: object, mode: object, name: str) -> tuple[str, ...]:
    if mode not in _WRITE_MODES:
        raise ConfigurationError(
            f'{name}: the write mode "{mode}" is not known. Set "connectome/write_mode" to one of '
            f"{_listed(_WRITE_MODES)}."
        )
    on = (value,) if isinstance(value, str) else value
    if mode == "upsert":
        named = isinstance(on, Sequence) and on and all(isinstance(c, str) and c for c in on)
        if not named:
            raise ConfigurationError(
                f'{name}: the write mode "upsert" needs the columns that make a row\'s key. Set '
                '"connectome/on" in its metadata, to ["id"] for one.'
            )
        return tuple(cast(Sequence[str], on))
    if on is not None:
        raise ConfigurationError(
            f'{name}: "connectome/on" says what to upsert by, but the write mode is "{mode}". Set '
            '"connectome/write_mode" to "upsert", or leave "connectome/on" out.'
        )
    return ()


def _selection(
    context: dg.OutputContext | dg.InputContext, settings: _Settings
) -> PartitionSelection | None:
    """The partitions of this output or input; None for an asset without partitions."""
    if not context.has_asset_key:
        return None
    partitions_def = _partitions_def(context)
    if partitions_def is None and not context.has_asset_partitions:
        return None
    if partitions_def is None or not context.has_asset_partitions:
        raise ConfigurationError(
            f"{settings.name} is partitioned, but no partition was asked for, and the whole "
            "collection is never meant by that. Run it or load it with a partition key or range."
        )
    problem = None
    try:
        return select_partitions(
            partitions_def,
            context.asset_partition_keys,
            settings.partition_expr,
            settings.partition_format,
        )
    except ConfigurationError as error:
        problem = str(error)
    raise ConfigurationError(f"{settings.name}: {problem}")


def _partitions_def(
    context: dg.OutputContext | dg.InputContext,
) -> dg.PartitionsDefinition[Any] | None:
    try:
        return context.asset_partitions_def
    except dg.DagsterInvariantViolationError:  # its way of saying that there is none
        return None


# ---- what is stored


def _frame(obj: object, name: str) -> pa.Table | pa.RecordBatchReader:
    """What an asset returned, as Arrow; a stream stays one."""
    if isinstance(obj, pa.Table | pa.RecordBatchReader):
        check_names(obj.schema.names)
        return obj
    if isinstance(obj, pd.DataFrame):
        return from_pandas(obj)
    if obj is None:
        raise ConfigurationError(
            f"{name} returned None, which is no frame. If it stores nothing through its IO "
            "manager, annotate its return type with `-> None`; if there is nothing to store, "
            "return an empty frame."
        )
    raise ConfigurationError(
        f"{name} returned a {type(obj).__module__}.{type(obj).__qualname__}; "
        f"ConnectomeIOManager stores {_SUPPORTED}."
    )


def _without_id(
    frame: pa.Table | pa.RecordBatchReader, on: Sequence[str]
) -> pa.Table | pa.RecordBatchReader:
    """Without the `_id` of documents that the asset read: what is stored gets its own."""
    names = frame.schema.names
    if "_id" not in names or "_id" in on:
        return frame
    kept = [name for name in names if name != "_id"]
    if isinstance(frame, pa.Table):
        return frame.select(kept)
    schema = pa.schema([frame.schema.field(name) for name in kept])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(kept) for batch in frame))


class _Seen:
    """What has passed by on the way to the collection: how many rows, of which partition."""

    def __init__(self, selection: PartitionSelection | None) -> None:
        self._selection = selection
        self._first: list[pa.RecordBatch] = []
        self.rows = 0
        self.per_partition = np.zeros(len(selection.keys) if selection else 0, dtype=np.int64)
        self.refused: OutsidePartition | None = None

    def check(self, batch: pa.RecordBatch) -> None:
        """Count a batch; raises `OutsidePartition` for a row that does not belong."""
        if self._selection is not None:
            self.per_partition += self._selection.count(batch, first_row=self.rows)
        wanted = min(PREVIEW_ROWS - self.rows, batch.num_rows)
        if wanted > 0:
            self._first.append(batch.slice(0, wanted))
        self.rows += batch.num_rows

    def through(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The same stream, each batch checked before it is handed on."""

        def checked() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                try:
                    self.check(batch)
                except OutsidePartition as error:
                    self.refused = error
                    raise
                yield batch

        return pa.RecordBatchReader.from_batches(reader.schema, checked())

    def first_rows(self, schema: pa.Schema) -> pa.Table:
        """The first rows, for a preview."""
        return pa.Table.from_batches(self._first, schema)


def _scope(
    context: dg.OutputContext, settings: _Settings, selection: PartitionSelection | None
) -> str | None:
    """What is written, in words that are the same when it is written again.

    An asset and its partitions: rows of theirs that are there stay. What is appended without
    partitions is the run's, and that of the runs that retry it: tomorrow's adds to it.
    """
    what: list[Any] = [context.asset_key.path if context.has_asset_key else None]
    if selection is not None:
        return json.dumps([*what, "partitions", sorted(selection.keys)])
    if settings.write_mode != "append":
        return json.dumps(what) if context.has_asset_key else None
    try:
        run = context.step_context.dagster_run
    except dg.DagsterInvariantViolationError:  # there is none: a context that a test has built
        return None
    output = [context.step_context.step.key, context.name, context.mapping_key]
    return json.dumps([*what, *output, "run", run.root_run_id or run.run_id])


def _write(
    collection: Collection,
    frame: pa.Table | pa.RecordBatchReader,
    settings: _Settings,
    selection: PartitionSelection | None,
    seen: _Seen,
    scope: str | None,
) -> WriteReport:
    try:
        if settings.write_mode == "append":
            return collection.append(frame, load=scope)
        if settings.write_mode == "upsert":
            return collection.upsert(frame, on=list(settings.on))
        # An asset that has no rows today says so: what was there yesterday has to go.
        if selection is None:
            return collection.replace(frame, where={}, load=scope, everything=True, empty="delete")
        return collection.replace(frame, where=selection.filter(), load=scope, empty="delete")
    except ConnectomeError:
        raise
    except Exception:
        # Where the stream crosses into C, an error of it may come out as another.
        if seen.refused is None:
            raise
    raise seen.refused


def _counted(
    collection: Collection,
    settings: _Settings,
    selection: PartitionSelection | None,
    seen: _Seen,
) -> int | None:
    """Rows that are there after the write, in the partition or the whole collection.

    Only what replaces all there was knows; else a partition's documents are counted by reading
    their ids. A whole collection is not read for a number, nor is each partition of a range.
    """
    if settings.write_mode == "replace":
        return seen.rows
    if selection is None or len(selection.keys) != 1:
        return None
    ids = collection.find(selection.filter(), project={"_id": 1})
    return sum(int(batch.num_rows) for batch in ids)


# ---- what is loaded


def _input_kind(context: dg.InputContext) -> type[Frame]:
    wanted = context.dagster_type.typing_type
    if wanted is Any or context.dagster_type.is_nothing:
        return pd.DataFrame
    for kind in (pd.DataFrame, pa.Table, pa.RecordBatchReader):
        if wanted is kind:
            return cast(type[Frame], kind)
    raise ConfigurationError(
        f"{_name(context)} is loaded as {getattr(wanted, '__qualname__', wanted)}; "
        f"ConnectomeIOManager loads {_SUPPORTED}. Annotate the input with one of them."
    )


def _columns(context: dg.InputContext, name: str) -> list[str] | None:
    """The columns that the input's metadata asks for, None for all."""
    values = {key: _plain(value) for key, value in context.definition_metadata.items()}
    unknown = [key for key in values if key.startswith(_NAMESPACE)]
    if unknown:
        raise ConfigurationError(
            f"The input from {name} has the metadata {_listed(unknown)}, which "
            'ConnectomeIOManager does not know. It knows "columns".'
        )
    columns = values.get("columns")
    if columns is None:
        return None
    is_list = isinstance(columns, Sequence) and not isinstance(columns, str)
    if not (is_list and columns and all(_is_column(column) for column in columns)):
        raise ConfigurationError(
            f'The input from {name}: "columns" must be a list of column names, without "." and '
            f'not beginning with "$", like ["id", "mag"], but is {columns!r}.'
        )
    return list(dict.fromkeys(columns))


def _is_column(name: object) -> bool:
    return isinstance(name, str) and name != "" and "." not in name and name[0] != "$"


def _projection(columns: Sequence[str] | None) -> dict[str, int]:
    hidden = {} if columns is not None and "_id" in columns else {"_id": 0}
    return {**dict.fromkeys(columns or (), 1), **hidden}


def _declared(upstream: Mapping[str, Any]) -> pa.Schema | None:
    """The column schema that the upstream asset's definition declares."""
    schema = upstream.get("dagster/column_schema")
    schema = _plain(schema)
    return arrow_schema(schema) if isinstance(schema, dg.TableSchema) else None


def _loaded(
    context: dg.InputContext,
    documents: Documents,
    declared: pa.Schema | None,
    columns: Sequence[str] | None,
) -> pa.Table:
    table = documents.to_arrow()
    _log_read(context, documents)
    return _shaped(table if table.num_rows else _empty(declared), declared, columns)


def _logging_reader(context: dg.InputContext, documents: Documents) -> pa.RecordBatchReader:
    """The stream of the documents, which tells what it did when it has ended."""
    reader = documents.reader()

    def batches() -> Iterator[pa.RecordBatch]:
        yield from reader
        _log_read(context, documents)

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _log_read(context: dg.InputContext, documents: Documents) -> None:
    # In the log, not as input metadata: Dagster makes an observation of the upstream asset of
    # that, and the costs of one reader are no news about the asset.
    report = documents.report
    if report is None:
        return
    context.log.info(
        f"Loaded {report.rows} rows of collection {report.collection} in {report.requests} "
        f"requests, {report.bytes_received} bytes, {report.seconds:.2f} s: "
        f'strategy "{report.strategy}", {report.pages} pages, resumed {report.resumed} times, '
        f"{'proved' if report.proved else 'not proved'} to be all."
    )
    if not report.proved:
        context.log.warning(
            f"It is not proved that collection {report.collection} has no more than these "
            f"{report.rows} rows, since the service cannot be asked for what follows the last one."
        )
    if report.conflicts:
        context.log.warning(f"Of collection {report.collection}, {report.conflicts_told}.")
    if report.duplicate_fields:
        context.log.warning(f"In collection {report.collection}, {report.duplicates_told}.")


def _empty(declared: pa.Schema | None) -> pa.Table:
    return (pa.schema([]) if declared is None else declared).empty_table()


def _shaped(table: pa.Table, declared: pa.Schema | None, columns: Sequence[str] | None) -> pa.Table:
    """The columns that were asked for, in that order; one that no document has is null."""
    if columns is None:
        return table
    kinds = {} if declared is None else {field.name: field.type for field in declared}
    return pa.table(
        {
            name: table[name]
            if name in table.column_names
            else pa.nulls(table.num_rows, kinds.get(name, pa.null()))
            for name in columns
        }
    )


def _shaped_reader(
    reader: pa.RecordBatchReader, declared: pa.Schema | None, columns: Sequence[str] | None
) -> pa.RecordBatchReader:
    if columns is None or reader.schema.names == list(columns):
        return reader
    schema = _shaped(reader.schema.empty_table(), declared, columns).schema

    def shaped() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield from _shaped(pa.Table.from_batches([batch]), declared, columns).to_batches()

    return pa.RecordBatchReader.from_batches(schema, shaped())


def _as(kind: type[Frame], table: pa.Table) -> Frame:
    if kind is pd.DataFrame:
        return to_pandas(table)
    return table.to_reader() if kind is pa.RecordBatchReader else table
