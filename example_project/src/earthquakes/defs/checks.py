"""Do the row counts add up? Each check compares what is stored with where it came from."""

import dagster as dg
import pandas as pd

from connectome_dagster import ConnectomeResource
from earthquakes.defs.assets import days, during
from earthquakes.events import ALERT_MAGNITUDE

EVENTS_OF_THE_WEEK = 1_707
"""What the feed itself says: `metadata.count` in data/earthquakes.json."""


def count(connectome: ConnectomeResource, collection: str, query: dict[str, object]) -> int:
    """How many documents match. The API has no count, so their ids are read."""
    return len(connectome.collection(collection).find(query, project={"_id": 1}).to_pylist())


def same(stored: int, expected: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=stored == expected, metadata={"rows": stored, "expected rows": expected}
    )


@dg.asset_check(asset="raw_earthquakes")
def has_the_whole_week(connectome: ConnectomeResource) -> dg.AssetCheckResult:
    """All events that the feed announced are in the collection."""
    return same(count(connectome, "raw_earthquakes", {}), EVENTS_OF_THE_WEEK)


@dg.asset_check(asset="earthquakes", partitions_def=days, blocking=True)
def has_every_raw_event(
    context: dg.AssetCheckExecutionContext,
    connectome: ConnectomeResource,
    earthquakes: pd.DataFrame,
) -> dg.AssetCheckResult:
    """A row for each raw event of the day; if not, what is computed from them must wait."""
    raw = count(connectome, "raw_earthquakes", during(context.partition_time_window))
    return same(len(earthquakes), raw)


@dg.asset_check(
    asset="daily_region_summary",
    partitions_def=days,
    additional_ins={"earthquakes": dg.AssetIn("earthquakes")},
)
def counts_every_event_once(
    daily_region_summary: pd.DataFrame, earthquakes: pd.DataFrame
) -> dg.AssetCheckResult:
    """The regions' events of a day add up to the day's events."""
    return same(int(daily_region_summary["events"].sum()), len(earthquakes))


@dg.asset_check(asset="earthquake_alerts", partitions_def=days)
def has_every_strong_event(
    context: dg.AssetCheckExecutionContext,
    connectome: ConnectomeResource,
    earthquake_alerts: pd.DataFrame,
) -> dg.AssetCheckResult:
    """One alert for each raw event of the day that is strong enough."""
    strong = {"properties.mag": {"$gte": ALERT_MAGNITUDE}}
    raw = count(connectome, "raw_earthquakes", during(context.partition_time_window) | strong)
    return same(len(earthquake_alerts), raw)
