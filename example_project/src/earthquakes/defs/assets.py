"""The collections and how each one comes about, a UTC day at a time.

    raw_earthquakes ─► earthquakes ─┬─► daily_region_summary
                                    └─► earthquake_alerts

Each asset is a collection of the same name. A collection of yours has an id that you find in the
app; name it with `metadata={"connectome/collection": "<the id>"}`.
"""

import dagster as dg
import pandas as pd

from connectome_dagster import ConnectomeResource
from earthquakes.events import alerts, summarize, tidy

days = dg.DailyPartitionsDefinition(start_date="2018-01-31", end_date="2018-02-08")
"""Eight days; without an `end_date` there is one more every midnight."""

raw_earthquakes = dg.AssetSpec(
    "raw_earthquakes",
    description="A week of seismic events as the U.S. Geological Survey publishes them (GeoJSON).",
    group_name="earthquakes",
    kinds={"connectome"},
    metadata={"dagster/table_name": "raw_earthquakes"},
)
"""Somebody else fills this collection: Dagster knows it, checks it and reads it."""

event_columns = dg.TableSchema(
    [
        dg.TableColumn("id", "string", description="The survey's name of the event."),
        dg.TableColumn("time", "timestamp[ms, tz=UTC]"),
        dg.TableColumn("mag", "double", description="Magnitude, of the kind in mag_type."),
        dg.TableColumn("mag_type", "string"),
        dg.TableColumn("kind", "string", description="earthquake, quarry blast, explosion, ..."),
        dg.TableColumn("place", "string"),
        dg.TableColumn("region", "string", description="State or country, out of place."),
        dg.TableColumn("longitude", "double", description="Degrees east."),
        dg.TableColumn("latitude", "double", description="Degrees north."),
        dg.TableColumn("depth_km", "double"),
    ]
)
"""Declared, so that a day without events still has its columns."""

summary_columns = dg.TableSchema(
    [
        dg.TableColumn("day", "string", description="UTC."),
        dg.TableColumn("region", "string"),
        dg.TableColumn("events", "int64"),
        dg.TableColumn("max_mag", "double"),
        dg.TableColumn("mean_depth_km", "double"),
    ]
)


def during(window: dg.TimeWindow) -> dict[str, object]:
    """The query for raw events of a time window; their `time` is in milliseconds since 1970."""
    start, end = (int(instant.timestamp() * 1000) for instant in window)
    return {"properties.time": {"$gte": start, "$lt": end}}


@dg.asset(
    partitions_def=days,
    deps=[raw_earthquakes],
    group_name="earthquakes",
    kinds={"connectome", "pandas"},
    metadata={
        "dagster/table_name": "earthquakes",
        "partition_expr": "time",  # the field that says which day a document belongs to
        "dagster/column_schema": event_columns,
    },
)
def earthquakes(context: dg.AssetExecutionContext, connectome: ConnectomeResource) -> pd.DataFrame:
    """One flat row per event. Materializing a day again replaces that day and nothing else."""
    documents = connectome.collection("raw_earthquakes").find(
        during(context.partition_time_window),
        project={
            "id": 1,
            "geometry.coordinates": 1,
            **{f"properties.{name}": 1 for name in ("time", "mag", "magType", "type", "place")},
        },
        sort={"properties.time": 1},
    )
    events = tidy(documents.to_pandas())
    if documents.report is not None:
        context.add_output_metadata({"requests to read": documents.report.requests})
    return events


@dg.asset(
    partitions_def=days,
    group_name="earthquakes",
    kinds={"connectome", "pandas"},
    metadata={
        "dagster/table_name": "daily_region_summary",
        "partition_expr": "day",
        "dagster/column_schema": summary_columns,
    },
)
def daily_region_summary(earthquakes: pd.DataFrame) -> pd.DataFrame:
    """How many events a region had on a day, how strong and how deep."""
    return summarize(earthquakes)


@dg.asset(
    partitions_def=days,
    group_name="earthquakes",
    kinds={"connectome", "pandas"},
    metadata={
        "dagster/table_name": "earthquake_alerts",
        "partition_expr": "time",
        "connectome/write_mode": "upsert",  # one document per event, however often it is revised
        "connectome/on": ["id"],
    },
)
def earthquake_alerts(earthquakes: pd.DataFrame) -> pd.DataFrame:
    """Events of magnitude 4.5 or more, one document per event id."""
    return alerts(earthquakes)
