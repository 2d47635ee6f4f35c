# Without `from __future__ import annotations`: Dagster reads the annotations of local functions.

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timezone
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from connectome_dagster import ConnectomeIOManager, ConnectomeResource
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.testing import ConnectomeServer
from tests.test_resource import SECRET, everything_kept

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),  # ranges in one run are beta there
    # Dagster's own way of starting nested resources, not ours to mend.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
]

UTC = timezone.utc
DAYS = dg.DailyPartitionsDefinition("2018-02-01", end_date="2018-02-09")
COLOURS = dg.StaticPartitionsDefinition(["red", "green", "blue"])
MOVIES = pd.DataFrame({"title": ["XYZ", "ABC", None], "amount": [39, 10, 20]})

Documents = list[dict[str, Any]]


class Pipeline:
    """Assets on one local server, materialized by a real Dagster."""

    def __init__(self, server: ConnectomeServer, instance: dg.DagsterInstance) -> None:
        self.server = server
        self.instance = instance
        self.connection: dict[str, Any] = {
            "base_url": server.base_url,
            "read_credential": server.read_credential,
            "write_credential": server.write_credential,
        }

    @property
    def resources(self) -> dict[str, Any]:
        return {"io_manager": ConnectomeIOManager(connectome=ConnectomeResource(**self.connection))}

    def run(
        self, *assets: Any, keys: Sequence[str] = (), **options: Any
    ) -> dg.ExecuteInProcessResult:
        """Materialize for no partition, for one, or for the range from the first to the last."""
        if len(keys) == 1:
            options["partition_key"] = keys[0]
        elif keys:
            options["tags"] = {
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            }
        return dg.materialize(assets, resources=self.resources, instance=self.instance, **options)

    def refused(self, *assets: Any, **options: Any) -> str:
        """The innermost error of a materialization that must fail: its class and message."""
        result = self.run(*assets, raise_on_error=False, **options)
        [failure] = [event for event in result.all_events if event.is_step_failure]
        error = failure.step_failure_data.error
        while error.cause is not None:
            error = error.cause
        return error.message.removeprefix("connectome_dagster.").split(".", 1)[1]

    def stored(self, collection: str) -> Documents:
        """The documents without what the service and this package add, in no particular order."""
        return [
            {name: value for name, value in document.items() if name[0] != "_"}
            for document in self.server.documents(collection)
        ]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def pipeline(connectome_server: ConnectomeServer, instance: dg.DagsterInstance) -> Pipeline:
    return Pipeline(connectome_server, instance)


@pytest.fixture
def collection(connectome_server: ConnectomeServer) -> str:
    return connectome_server.collection()


def metadata_of(result: dg.ExecuteInProcessResult, node: str) -> dict[str | None, dict[str, Any]]:
    """Metadata values of each materialization of an asset, by partition."""
    materializations = result.asset_materializations_for_node(node)
    return {
        event.partition: {key: value.value for key, value in event.metadata.items()}
        for event in materializations
    }


def by(name: str, documents: Documents) -> Documents:
    return sorted(documents, key=lambda document: str(document[name]))


# ---- without partitions


@pytest.mark.parametrize(
    "form",
    [
        lambda frame: frame,
        pa.Table.from_pandas,
        lambda frame: pa.Table.from_pandas(frame).to_reader(max_chunksize=2),
    ],
    ids=["DataFrame", "Table", "RecordBatchReader"],
)
def test_every_kind_of_frame_is_stored_and_described(
    form: Callable[[pd.DataFrame], Any], pipeline: Pipeline, collection: str
) -> None:
    @dg.asset(metadata={"connectome/collection": collection})
    def movies() -> Any:
        return form(MOVIES)

    shown = metadata_of(pipeline.run(movies), "movies")[None]
    assert by("amount", pipeline.stored(collection)) == [
        {"title": "ABC", "amount": 10},
        {"title": None, "amount": 20},
        {"title": "XYZ", "amount": 39},
    ]
    assert shown["dagster/row_count"] == 3
    assert "dagster/partition_row_count" not in shown
    assert [column.name for column in shown["dagster/column_schema"].columns] == ["title", "amount"]
    assert shown["dagster/table_name"] == collection
    assert shown["dagster/storage_kind"] == "connectome"
    assert shown["connectome/link"] == pipeline.server.base_url
    assert "| XYZ | 39 |" in shown["connectome/preview"]
    assert shown["connectome/rows"] == 3
    for number in ("bytes", "requests", "seconds"):
        assert shown[f"connectome/{number}"] > 0
    assert shown["connectome/retries"] == 0


def test_materializing_again_replaces_what_was_there(pipeline: Pipeline, collection: str) -> None:
    amounts = iter([[1, 2, 3], [3, 4]])

    @dg.asset(metadata={"connectome/collection": collection})
    def numbers() -> pd.DataFrame:
        return pd.DataFrame({"n": next(amounts)})

    pipeline.run(numbers)
    pipeline.run(numbers)
    assert by("n", pipeline.stored(collection)) == [{"n": 3}, {"n": 4}]


def test_an_empty_frame_replaces_the_collection_by_nothing(
    pipeline: Pipeline, collection: str
) -> None:
    pipeline.server.seed(collection, [{"n": 1}])

    @dg.asset(metadata={"connectome/collection": collection})
    def numbers() -> pd.DataFrame:
        return pd.DataFrame()

    shown = metadata_of(pipeline.run(numbers), "numbers")[None]
    assert pipeline.stored(collection) == []
    assert shown["dagster/row_count"] == 0
    assert shown["connectome/rows"] == 0


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, pa.RecordBatchReader, Any])
def test_a_downstream_asset_loads_what_was_stored_as_it_asks_for_it(
    kind: Any, pipeline: Pipeline, collection: str
) -> None:
    got = []

    @dg.asset(metadata={"connectome/collection": collection})
    def movies() -> pd.DataFrame:
        return MOVIES

    def count(movies: Any) -> None:
        got.append(movies.read_all() if kind is pa.RecordBatchReader else movies)

    count.__annotations__["movies"] = kind
    pipeline.run(movies, dg.asset(count))
    frame = got[0]
    assert isinstance(frame, pd.DataFrame if kind is Any else pd.DataFrame | pa.Table)
    rows = frame.to_dict("records") if isinstance(frame, pd.DataFrame) else frame.to_pylist()
    assert [sorted(row) for row in rows] == [["amount", "title"]] * 3
    assert sorted(row["amount"] for row in rows) == [10, 20, 39]


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, pa.RecordBatchReader])
def test_a_load_tells_in_the_log_what_it_did_and_warns_of_what_is_not_certain(
    kind: Any, pipeline: Pipeline, collection: str, instance: dg.DagsterInstance
) -> None:
    @dg.asset(metadata={"connectome/collection": collection})
    def movies() -> pd.DataFrame:
        return MOVIES

    def count(movies: Any) -> None:
        if kind is pa.RecordBatchReader:
            movies.read_all()

    count.__annotations__["movies"] = kind
    result = pipeline.run(movies, dg.asset(count))
    info, *more = told(instance, result)
    assert re.match(
        rf"Loaded 3 rows of collection {collection} in 2 requests, \d+ bytes, [\d.]+ s: "
        'strategy "auto", 1 pages, resumed 0 times, proved to be all.$',
        info,
    )
    assert more == []
    pipeline.server.switches(id_form="absent")
    mixed = dg.AssetSpec("movies", metadata={"connectome/collection": collection})
    pipeline.server.documents(collection)
    titles = pd.DataFrame({"title": [1, 2, 3]})

    @dg.asset(metadata={"connectome/collection": collection, "connectome/write_mode": "append"})
    def more_movies() -> pd.DataFrame:
        return titles

    pipeline.run(more_movies)
    result = pipeline.run(mixed, dg.asset(count), selection="count")
    info, *warnings = told(instance, result)
    assert "not proved to be all" in info
    assert [warning.split(",")[0] for warning in warnings] == [
        f"It is not proved that collection {collection} has no more than these 6 rows",
        f"Of collection {collection}",
    ]
    assert "1 field holds values of several types and was read as text: title (" in warnings[1]


def told(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    """What the IO manager says of loading, in the log of a run."""
    entries = [entry for entry in instance.all_logs(result.run_id) if not entry.is_dagster_event]
    return [entry.user_message for entry in entries]


def test_an_input_without_annotation_is_a_dataframe(pipeline: Pipeline, collection: str) -> None:
    got = []

    @dg.asset(metadata={"connectome/collection": collection})
    def movies() -> pd.DataFrame:
        return MOVIES

    @dg.asset
    def count(movies) -> None:  # type: ignore[no-untyped-def]
        got.append(movies)

    pipeline.run(movies, count)
    assert isinstance(got[0], pd.DataFrame)


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, pa.RecordBatchReader])
def test_columns_name_what_is_loaded_and_in_which_order(
    kind: Any, pipeline: Pipeline, collection: str
) -> None:
    pipeline.server.seed(collection, [{"_id": "a" * 24, "title": "XYZ", "amount": 39, "year": 1}])
    movies = dg.AssetSpec("movies", metadata={"connectome/collection": collection})
    got = []

    def load(movies: Any) -> None:
        got.append(movies.read_all() if kind is pa.RecordBatchReader else movies)

    load.__annotations__["movies"] = kind
    for columns in (["amount", "title"], ["_id", "amount"], ["nowhere", "amount"]):
        asset = dg.asset(ins={"movies": dg.AssetIn(metadata={"columns": columns})})(load)
        pipeline.run(movies, asset)
        frame = got.pop()
        names = list(frame.columns) if kind is pd.DataFrame else frame.column_names
        assert names == columns


def test_the_default_collection_is_the_asset_key_with_its_prefix(pipeline: Pipeline) -> None:
    @dg.asset(key_prefix=["raw", "usgs"])
    def movies() -> pd.DataFrame:
        return MOVIES

    assert "'raw__usgs__movies'" in pipeline.refused(movies)


def test_outputs_of_ops_name_their_collection(pipeline: Pipeline, collection: str) -> None:
    got = []

    @dg.op(out=dg.Out(metadata={"connectome/collection": collection}))
    def produce() -> pd.DataFrame:
        return MOVIES

    @dg.op
    def consume(frame: pd.DataFrame) -> None:
        got.append(len(frame))

    @dg.job
    def both() -> None:
        consume(produce())

    both.execute_in_process(resources=pipeline.resources)
    assert got == [3]


def test_an_output_of_an_op_without_a_collection_is_refused(pipeline: Pipeline) -> None:
    @dg.op
    def produce() -> pd.DataFrame:
        return MOVIES

    @dg.job
    def job() -> None:
        produce()

    with pytest.raises(ConfigurationError, match=r"Out\(metadata="):
        job.execute_in_process(resources=pipeline.resources)


def test_what_an_asset_says_of_itself_is_not_overwritten(
    pipeline: Pipeline, collection: str
) -> None:
    @dg.asset(metadata={"connectome/collection": collection})
    def movies() -> dg.MaterializeResult[pd.DataFrame]:
        return dg.MaterializeResult(value=MOVIES, metadata={"dagster/table_name": "mine"})

    shown = metadata_of(pipeline.run(movies), "movies")[None]
    assert shown["dagster/table_name"] == "mine"
    assert shown["dagster/row_count"] == 3


# ---- partitions


def test_static_partitions_replace_themselves_alone(pipeline: Pipeline, collection: str) -> None:
    rows = {"red": [[1, 2], [3]], "blue": [[7]]}

    @dg.asset(
        partitions_def=COLOURS,
        metadata={"connectome/collection": collection, "partition_expr": "colour"},
    )
    def paint(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"n": rows[context.partition_key].pop(0)}).assign(
            colour=context.partition_key
        )

    for colour in ("red", "blue", "red"):
        shown = metadata_of(pipeline.run(paint, keys=[colour]), "paint")[colour]
    assert by("n", pipeline.stored(collection)) == [
        {"n": 3, "colour": "red"},
        {"n": 7, "colour": "blue"},
    ]
    assert shown["dagster/partition_row_count"] == 1
    assert "dagster/row_count" not in shown


def quakes_of(days: Sequence[str]) -> pd.DataFrame:
    """As many quakes on a day as its number says, the first at midnight."""
    at = [pd.Timestamp(f"{day}T{n:02d}:00", tz="UTC") for day in days for n in range(int(day[-1]))]
    return pd.DataFrame({"at": pd.Series(at, dtype="datetime64[ms, UTC]"), "mag": 1.5})


def quakes(collection: str, **metadata: Any) -> dg.AssetsDefinition:
    @dg.asset(
        partitions_def=DAYS,
        metadata={"connectome/collection": collection, "partition_expr": "at", **metadata},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def quakes(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return quakes_of(context.partition_keys)

    return quakes


def days_of(documents: Documents) -> list[str]:
    return sorted(document["at"][:10] for document in documents)


def test_days_are_stored_and_loaded_apart(pipeline: Pipeline, collection: str) -> None:
    loaded = {}

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def counted(context: dg.AssetExecutionContext, quakes: pd.DataFrame) -> None:
        loaded[context.partition_key] = quakes

    for day in ("2018-02-02", "2018-02-03", "2018-02-02"):
        pipeline.run(quakes(collection), counted, keys=[day])
    assert days_of(pipeline.stored(collection)) == ["2018-02-02"] * 2 + ["2018-02-03"] * 3
    for day, frame in loaded.items():
        expected = quakes_of([day]).sort_values("at", ignore_index=True)
        got = frame.sort_values("at", ignore_index=True)
        pd.testing.assert_frame_equal(got, expected, check_dtype=False)


def test_a_range_in_one_run_counts_each_partition_for_itself(
    pipeline: Pipeline, collection: str
) -> None:
    result = pipeline.run(quakes(collection), keys=["2018-02-02", "2018-02-04"])
    shown = metadata_of(result, "quakes")
    assert {day: m["dagster/partition_row_count"] for day, m in shown.items()} == {
        "2018-02-02": 2,
        "2018-02-03": 3,
        "2018-02-04": 4,
    }
    for metadata in shown.values():
        assert "dagster/row_count" not in metadata
        assert metadata["connectome/rows"] == 9
        assert metadata["connectome/partitions"] == 3


def test_a_range_replaces_its_days_and_no_other(pipeline: Pipeline, collection: str) -> None:
    pipeline.run(quakes(collection), keys=["2018-02-01", "2018-02-04"])
    pipeline.server.seed(collection, [{"at": "2018-02-02T01:00:00.000Z", "mag": 9.9}])
    pipeline.run(quakes(collection), keys=["2018-02-02", "2018-02-03"])
    assert days_of(pipeline.stored(collection)) == days_of(
        [{"at": f"2018-02-0{d}"} for d in (1, 2, 2, 3, 3, 3, 4, 4, 4, 4)]
    )


def test_a_range_downstream_loads_the_range(pipeline: Pipeline, collection: str) -> None:
    got = []

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def counted(quakes: pa.Table) -> None:
        got.append(quakes.num_rows)

    pipeline.run(quakes(collection), keys=["2018-02-01", "2018-02-05"])
    pipeline.run(quakes(collection).to_source_asset(), counted, keys=["2018-02-02", "2018-02-03"])
    assert got == [5]


def test_an_input_is_loaded_for_its_own_partitions_not_for_the_runs(
    pipeline: Pipeline, collection: str
) -> None:
    got = []
    yesterday = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    @dg.asset(partitions_def=DAYS, ins={"quakes": dg.AssetIn(partition_mapping=yesterday)})
    def counted(quakes: pd.DataFrame) -> None:
        got.append(set(quakes["at"].dt.day))

    pipeline.run(quakes(collection), keys=["2018-02-02", "2018-02-04"])
    pipeline.run(quakes(collection).to_source_asset(), counted, keys=["2018-02-04"])
    assert got == [{3}]


def test_partitions_with_a_gap_are_loaded_with_the_gap(pipeline: Pipeline, collection: str) -> None:
    got = []
    ends = dg.SpecificPartitionsPartitionMapping(["2018-02-01", "2018-02-04"])

    @dg.asset(ins={"quakes": dg.AssetIn(partition_mapping=ends)})
    def compared(quakes: pd.DataFrame) -> None:
        got.append(sorted(quakes["at"].dt.day))

    pipeline.run(quakes(collection), keys=["2018-02-01", "2018-02-05"])
    pipeline.run(quakes(collection).to_source_asset(), compared)
    assert got == [[1, 4, 4, 4, 4]]


def test_an_asset_without_partitions_loads_all_of_them(pipeline: Pipeline, collection: str) -> None:
    got = []

    @dg.asset
    def total(quakes: pd.DataFrame) -> None:
        got.append(len(quakes))

    pipeline.run(quakes(collection), keys=["2018-02-01", "2018-02-03"])
    pipeline.server.seed(collection, [{"at": "1999-01-01T00:00:00.000Z"}])
    pipeline.run(quakes(collection).to_source_asset(), total)
    assert got == [6]


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, pa.RecordBatchReader])
def test_no_partition_is_an_empty_typed_frame_and_no_request(
    kind: Any, pipeline: Pipeline, collection: str
) -> None:
    got = []
    pipeline.server.seed(collection, [{"at": "2018-02-01T00:00:00.000Z", "mag": 1.0}])
    declared = dg.TableSchema(
        columns=[dg.TableColumn("at", "timestamp[ms, tz=UTC]"), dg.TableColumn("mag", "double")]
    )
    yesterday = dg.TimeWindowPartitionMapping(
        start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )

    def load(quakes: Any) -> None:
        got.append(quakes.read_all() if kind is pa.RecordBatchReader else quakes)

    load.__annotations__["quakes"] = kind
    downstream = dg.asset(
        partitions_def=DAYS, ins={"quakes": dg.AssetIn(partition_mapping=yesterday)}
    )(load)
    upstream = quakes(collection, **{"dagster/column_schema": declared}).to_source_asset()
    pipeline.connection["base_url"] = "http://127.0.0.1:9"  # a request would fail
    pipeline.run(upstream, downstream, keys=["2018-02-01"])
    frame = got[0]
    assert len(frame) == 0
    if kind is pd.DataFrame:
        assert str(frame.dtypes["at"]).endswith(", UTC]")
        assert frame.dtypes["mag"] == "float64"
    else:
        assert frame.schema == pa.schema([("at", pa.timestamp("ms", "UTC")), ("mag", pa.float64())])


def test_a_partition_that_holds_nothing_has_the_declared_columns(
    pipeline: Pipeline, collection: str
) -> None:
    got = []
    declared = dg.TableSchema(columns=[dg.TableColumn("mag", "double")])

    @dg.asset(partitions_def=DAYS)
    def counted(quakes: pd.DataFrame) -> None:
        got.append(quakes["mag"].max())

    upstream = quakes(collection, **{"dagster/column_schema": declared}).to_source_asset()
    pipeline.run(upstream, counted, keys=["2018-02-01"])
    assert len(got) == 1


def test_a_partitioned_asset_that_is_run_without_a_partition_harms_nothing(
    pipeline: Pipeline, collection: str
) -> None:
    pipeline.server.seed(collection, [{"at": "2018-02-01"}])

    @dg.asset(
        partitions_def=DAYS,
        metadata={"connectome/collection": collection, "partition_expr": "at"},
    )
    def quakes() -> pd.DataFrame:
        return quakes_of([])

    with pytest.raises(ConfigurationError, match="no partition was asked for"):
        pipeline.run(quakes)
    assert pipeline.stored(collection) == [{"at": "2018-02-01"}]


def test_an_empty_partition_replaces_its_day_by_nothing(
    pipeline: Pipeline, collection: str
) -> None:
    pipeline.server.seed(collection, [{"at": "2018-02-01T12:00Z"}, {"at": "2018-02-02T12:00Z"}])

    @dg.asset(
        partitions_def=DAYS,
        metadata={"connectome/collection": collection, "partition_expr": "at"},
    )
    def quakes() -> pd.DataFrame:
        return pd.DataFrame()

    shown = metadata_of(pipeline.run(quakes, keys=["2018-02-01"]), "quakes")["2018-02-01"]
    assert pipeline.stored(collection) == [{"at": "2018-02-02T12:00Z"}]
    assert shown["dagster/partition_row_count"] == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_row_outside_of_its_partition_is_refused_before_it_is_sent(
    streamed: bool, pipeline: Pipeline, collection: str
) -> None:
    pipeline.server.seed(collection, [{"at": "2018-02-01T12:00:00.000Z"}])

    @dg.asset(
        partitions_def=DAYS,
        metadata={"connectome/collection": collection, "partition_expr": "at"},
    )
    def quakes() -> Any:
        table = pa.table({"at": [datetime(2018, 2, 1), datetime(2018, 2, 2)]})
        return table.to_reader(max_chunksize=1) if streamed else table

    error = pipeline.refused(quakes, keys=["2018-02-01"])
    assert error.startswith('OutsidePartition: Column "at", row 1: 2018-02-02 00:00:00')
    stored = pipeline.stored(collection)
    assert {"at": "2018-02-01T12:00:00.000Z"} in stored
    assert not any(document["at"].startswith("2018-02-02") for document in stored)
    assert streamed or len(stored) == 1


def test_a_partitioned_asset_needs_partition_expr(pipeline: Pipeline, collection: str) -> None:
    @dg.asset(partitions_def=DAYS, metadata={"connectome/collection": collection})
    def quakes() -> pd.DataFrame:
        return quakes_of(["2018-02-01"])

    error = pipeline.refused(quakes, keys=["2018-02-01"])
    assert error.startswith("ConfigurationError: Asset quakes: ")
    assert "partition_expr" in error


def test_a_field_that_holds_the_key_is_compared_as_text(
    pipeline: Pipeline, collection: str
) -> None:
    new_york = dg.DailyPartitionsDefinition("2018-02-01", timezone="America/New_York")

    @dg.asset(
        partitions_def=new_york,
        metadata={
            "connectome/collection": collection,
            "partition_expr": "day",
            "connectome/partition_format": "key",
        },
    )
    def summary(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"day": [date.fromisoformat(context.partition_key)]})

    for day in ("2018-02-01", "2018-02-02", "2018-02-01"):
        pipeline.run(summary, keys=[day])
    assert by("day", pipeline.stored(collection)) == [{"day": "2018-02-01"}, {"day": "2018-02-02"}]


def test_dynamic_partitions(
    pipeline: Pipeline, collection: str, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("customers", ["acme", "umbrella"])

    @dg.asset(
        partitions_def=dg.DynamicPartitionsDefinition(name="customers"),
        metadata={"connectome/collection": collection, "partition_expr": "customer"},
    )
    def orders(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"customer": [context.partition_key]})

    for customer in ("acme", "umbrella", "acme"):
        pipeline.run(orders, keys=[customer])
    assert by("customer", pipeline.stored(collection)) == [
        {"customer": "acme"},
        {"customer": "umbrella"},
    ]


def test_partitions_of_two_dimensions(pipeline: Pipeline, collection: str) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "colour": COLOURS})
    loaded = []

    @dg.asset(
        partitions_def=both,
        metadata={
            "connectome/collection": collection,
            "partition_expr": {"day": "at", "colour": "colour"},
        },
    )
    def paint(context: dg.AssetExecutionContext) -> pd.DataFrame:
        colour, day = context.partition_key.split("|")
        return pd.DataFrame({"at": [pd.Timestamp(day, tz="UTC")], "colour": [colour]})

    @dg.asset(partitions_def=both)
    def seen(paint: pd.DataFrame) -> None:
        loaded.append(len(paint))

    for key in ("red|2018-02-01", "blue|2018-02-01", "red|2018-02-02", "red|2018-02-01"):
        pipeline.run(paint, seen, keys=[key])
    assert len(pipeline.stored(collection)) == 3
    assert loaded == [1, 1, 1, 1]


def test_a_range_of_two_dimensions_counts_each_pair(pipeline: Pipeline, collection: str) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "colour": COLOURS})

    @dg.asset(
        partitions_def=both,
        metadata={
            "connectome/collection": collection,
            "partition_expr": {"day": "at", "colour": "colour"},
        },
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def paint() -> pd.DataFrame:
        return pd.DataFrame(
            {"at": ["2018-02-01", "2018-02-02", "2018-02-02"], "colour": ["red"] * 3}
        )

    shown = metadata_of(pipeline.run(paint, keys=["red|2018-02-01", "red|2018-02-02"]), "paint")
    assert {key: m["dagster/partition_row_count"] for key, m in shown.items()} == {
        "red|2018-02-01": 1,
        "red|2018-02-02": 2,
    }


# ---- write modes


@pytest.mark.parametrize("mode", ["replace", "append"])
@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, pa.RecordBatchReader])
def test_a_frame_that_was_read_is_stored_without_the_ids_of_what_was_read(
    pipeline: Pipeline, collection: str, mode: str, kind: type
) -> None:
    read = MOVIES.assign(_id=[f"{n:024x}" for n in range(len(MOVIES))])

    @dg.asset(metadata={"connectome/collection": collection, "connectome/write_mode": mode})
    def movies() -> Any:
        table = pa.Table.from_pandas(read, preserve_index=False)
        return {pd.DataFrame: read, pa.Table: table}.get(kind, table.to_reader())

    pipeline.run(movies)
    pipeline.run(movies)
    stored = pipeline.server.documents(collection)
    assert len(stored) == len(MOVIES) * (1 if mode == "replace" else 2)
    assert not {document["_id"] for document in stored} & set(read["_id"])


def test_append_adds_and_claims_no_count_of_the_table(pipeline: Pipeline, collection: str) -> None:
    @dg.asset(metadata={"connectome/collection": collection, "connectome/write_mode": "append"})
    def movies() -> pd.DataFrame:
        return MOVIES

    pipeline.run(movies)
    shown = metadata_of(pipeline.run(movies), "movies")[None]
    assert len(pipeline.stored(collection)) == 6
    assert shown["connectome/rows"] == 3
    assert "dagster/row_count" not in shown


def test_an_upserted_partition_is_counted_as_it_is_and_not_as_it_was_handed_in(
    pipeline: Pipeline, collection: str
) -> None:
    handed_in = iter([["a", "b"], ["b", "c"]])

    @dg.asset(
        partitions_def=COLOURS,
        metadata={
            "connectome/collection": collection,
            "connectome/write_mode": "upsert",
            "connectome/on": ["title"],
            "partition_expr": "colour",
        },
    )
    def paint() -> pd.DataFrame:
        return pd.DataFrame({"title": next(handed_in), "colour": "red"})

    pipeline.run(paint, keys=["red"])
    shown = metadata_of(pipeline.run(paint, keys=["red"]), "paint")["red"]
    assert shown["connectome/rows"] == 2
    assert shown["dagster/partition_row_count"] == 3


def test_upsert_keeps_one_document_for_each_key(pipeline: Pipeline, collection: str) -> None:
    amounts = iter([1, 2])

    @dg.asset(
        metadata={
            "connectome/collection": collection,
            "connectome/write_mode": "upsert",
            "connectome/on": ["title"],
        }
    )
    def movies() -> pd.DataFrame:
        return pd.DataFrame({"title": ["XYZ", "ABC"], "amount": next(amounts)})

    pipeline.run(movies)
    pipeline.run(movies)
    assert by("title", pipeline.stored(collection)) == [
        {"title": "ABC", "amount": 2},
        {"title": "XYZ", "amount": 2},
    ]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"connectome/write_mode": "merge"}, '"merge" is not known.*"replace", "append", "upsert"'),
        ({"connectome/write_mode": "upsert"}, 'set "connectome/on"'),
        ({"connectome/write_mode": "upsert", "connectome/on": []}, 'set "connectome/on"'),
        ({"connectome/on": ["id"]}, '"connectome/on" says what to upsert by'),
        ({"connectome/colection": "x"}, '"connectome/colection", which'),
        ({"connectome/collection": 5}, "must be a collection id"),
        ({"connectome/collection": "a/b"}, "a/b"),
    ],
)
def test_metadata_that_cannot_work_is_refused(
    metadata: dict[str, Any], message: str, pipeline: Pipeline
) -> None:
    @dg.asset(metadata=metadata)
    def movies() -> pd.DataFrame:
        return MOVIES

    error = pipeline.refused(movies)
    assert error.startswith("ConfigurationError: ")
    assert re.search(message, error, re.IGNORECASE)


# ---- what is no frame


def test_none_is_refused_unless_nothing_is_what_was_meant(
    pipeline: Pipeline, collection: str
) -> None:
    pipeline.server.seed(collection, [{"n": 1}])

    @dg.asset(metadata={"connectome/collection": collection})
    def forgotten():  # type: ignore[no-untyped-def]  # without an annotation it is stored
        pass

    @dg.asset(metadata={"connectome/collection": collection})
    def nothing() -> None:
        pass

    assert "ConfigurationError: Asset forgotten returned None" in pipeline.refused(forgotten)
    assert pipeline.run(nothing).success
    assert pipeline.stored(collection) == [{"n": 1}]


def test_what_is_no_frame_is_refused_by_name(pipeline: Pipeline) -> None:
    @dg.asset
    def numbers() -> Any:
        return {"n": 1}

    assert "returned a builtins.dict; ConnectomeIOManager stores pandas" in pipeline.refused(
        numbers
    )


def test_two_columns_of_one_name_are_refused(pipeline: Pipeline) -> None:
    @dg.asset
    def numbers() -> pa.Table:
        return pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])

    assert pipeline.refused(numbers).startswith("SchemaConflict: ")


def test_an_annotation_that_cannot_be_loaded_is_refused_by_name(
    pipeline: Pipeline, collection: str
) -> None:
    movies = dg.AssetSpec("movies", metadata={"connectome/collection": collection})

    @dg.asset
    def total(movies: dict) -> None:  # type: ignore[type-arg]
        pass

    error = pipeline.refused(movies, total)
    assert "is loaded as dict; ConnectomeIOManager loads pandas.DataFrame" in error


@pytest.mark.parametrize("columns", ["amount", [], [1], ["a.b"], ["$a"], [""]])
def test_columns_that_are_none_are_refused(
    columns: Any, pipeline: Pipeline, collection: str
) -> None:
    movies = dg.AssetSpec("movies", metadata={"connectome/collection": collection})

    @dg.asset(ins={"movies": dg.AssetIn(metadata={"columns": columns})})
    def total(movies: pd.DataFrame) -> None:
        pass

    assert "must be a list of column names" in pipeline.refused(movies, total)


def test_input_metadata_that_is_not_known_is_refused(pipeline: Pipeline, collection: str) -> None:
    movies = dg.AssetSpec("movies", metadata={"connectome/collection": collection})

    @dg.asset(ins={"movies": dg.AssetIn(metadata={"connectome/column": ["a"]})})
    def total(movies: pd.DataFrame) -> None:
        pass

    assert '"connectome/column", which' in pipeline.refused(movies, total)


# ---- outside of a run, and when things fail


def test_an_asset_is_loaded_outside_of_a_run(pipeline: Pipeline, collection: str) -> None:
    definitions = dg.Definitions([quakes(collection)], resources=pipeline.resources)
    pipeline.run(quakes(collection), keys=["2018-02-02", "2018-02-03"])
    assert len(definitions.load_asset_value("quakes", partition_key="2018-02-02")) == 2
    with pytest.raises(ConfigurationError, match="no partition was asked for"):
        definitions.load_asset_value("quakes", python_type=pa.Table)


def test_a_failed_write_is_tried_again_where_the_asset_says_so(
    pipeline: Pipeline, collection: str
) -> None:
    made = []

    @dg.asset(
        metadata={"connectome/collection": collection},
        retry_policy=dg.RetryPolicy(max_retries=1),
    )
    def movies() -> pd.DataFrame:
        made.append(1)
        return MOVIES

    pipeline.connection |= {"base_url": "http://127.0.0.1:9", "max_attempts": 1}
    assert "ServiceUnavailable" in pipeline.refused(movies)
    assert len(made) == 2


@pytest.mark.parametrize("trouble", ["wrong credential", "server down", "no such collection"])
def test_no_secret_is_kept_of_a_write_that_fails(
    trouble: str,
    pipeline: Pipeline,
    collection: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = SECRET if trouble == "wrong credential" else pipeline.server.write_credential
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", pipeline.server.read_credential)
    monkeypatch.setenv("CONNECTOME_WRITE_CREDENTIAL", secret)
    pipeline.connection |= {
        "read_credential": dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
        "write_credential": dg.EnvVar("CONNECTOME_WRITE_CREDENTIAL"),
        "max_attempts": 1,
    }
    if trouble == "server down":
        pipeline.connection["base_url"] = "http://127.0.0.1:9"
    if trouble == "no such collection":
        collection = "f" * 24

    @dg.asset(metadata={"connectome/collection": collection})
    def movies() -> pd.DataFrame:
        return MOVIES

    error = pipeline.refused(movies)
    expected = {
        "wrong credential": "AuthenticationError",
        "server down": "ServiceUnavailable",
        "no such collection": "CollectionNotFound",
    }
    assert error.startswith(expected[trouble])
    assert collection in error
    kept = everything_kept(instance)
    assert secret not in kept
    assert pipeline.server.read_credential not in kept


def test_no_secret_is_kept_of_a_run_that_succeeds_even_if_the_data_hold_it(
    pipeline: Pipeline,
    collection: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = pipeline.server.write_credential
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", pipeline.server.read_credential)
    monkeypatch.setenv("CONNECTOME_WRITE_CREDENTIAL", secret)
    pipeline.connection |= {
        "read_credential": dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
        "write_credential": dg.EnvVar("CONNECTOME_WRITE_CREDENTIAL"),
    }

    @dg.asset(metadata={"connectome/collection": collection})
    def notes() -> pd.DataFrame:
        return pd.DataFrame({"note": [f"key {secret}"]})

    assert pipeline.run(notes).success
    kept = everything_kept(instance)
    assert "connectome/preview" in kept
    assert secret not in kept
    assert pipeline.server.read_credential not in kept


def test_nothing_of_the_connection_is_in_a_repr() -> None:
    manager = ConnectomeIOManager(connectome=ConnectomeResource(write_credential=SECRET))
    assert SECRET not in repr(manager)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="write_mod"):
        ConnectomeIOManager(connectome=ConnectomeResource(), write_mod="append")
