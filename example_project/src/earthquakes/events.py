"""What is computed from seismic events: frames in, frames out.

Knows nothing of Dagster nor of where events are kept, so it is tested with a handful of rows.
"""

from __future__ import annotations

import pandas as pd

ALERT_MAGNITUDE = 4.5
"""Where the U.S. Geological Survey's own feeds begin to call an event noteworthy."""

_REGIONS = {"CA": "California", "MX": "Mexico", "NV": "Nevada"}
"""The short names in `place`, so that "CA" and "California" are one region."""


def tidy(features: pd.DataFrame) -> pd.DataFrame:
    """GeoJSON features as one flat row per event.

    Args:
        features: columns `id`, `properties` and `geometry`, the last two holding objects.

    Returns:
        `id`, `time` (UTC), `mag`, `mag_type`, `kind`, `place`, `region`, `longitude`, `latitude`
        (degrees) and `depth_km`, in the order of `features`.
    """
    # A day without events comes as a frame without columns.
    features = features.reindex(columns=["id", "properties", "geometry"]).astype("object")
    properties = pd.DataFrame(
        features["properties"].tolist(), columns=["time", "mag", "magType", "type", "place"]
    )
    coordinates = pd.DataFrame(
        [geometry["coordinates"] for geometry in features["geometry"]],
        columns=["longitude", "latitude", "depth_km"],
        dtype="float64",
    )
    time = pd.to_datetime(properties["time"].astype("int64"), unit="ms", utc=True)
    events: pd.DataFrame = pd.DataFrame(
        {
            "id": features["id"],
            "time": time.dt.as_unit("ms"),
            "mag": properties["mag"].astype("float64"),
            "mag_type": properties["magType"],
            "kind": properties["type"],
            "place": properties["place"],
            "region": region(properties["place"]),
            **coordinates,
        }
    )
    return events


def region(place: pd.Series) -> pd.Series:
    """What follows the last comma of a place: "10km NE of Aguanga, CA" is in "California"."""
    last = place.astype("object").str.rsplit(", ", n=1).str[-1]
    return last.replace(_REGIONS).fillna("unknown")


def summarize(events: pd.DataFrame) -> pd.DataFrame:
    """One row per UTC day and region: how many events, how strong, how deep.

    Args:
        events: what `tidy` gives.

    Returns:
        `day` ("2018-02-01"), `region`, `events`, `max_mag` and `mean_depth_km`, in this order of
        rows too.
    """
    by_day_and_region = events.assign(day=events["time"].dt.strftime("%Y-%m-%d")).groupby(
        ["day", "region"], as_index=False
    )
    summary: pd.DataFrame = by_day_and_region.agg(
        events=("id", "count"), max_mag=("mag", "max"), mean_depth_km=("depth_km", "mean")
    )
    return summary


def alerts(events: pd.DataFrame) -> pd.DataFrame:
    """The events that someone should hear of: magnitude `ALERT_MAGNITUDE` or more."""
    columns = ["id", "time", "mag", "place", "region", "depth_km"]
    strong: pd.DataFrame = events.loc[events["mag"] >= ALERT_MAGNITUDE, columns]
    strong = strong.reset_index(drop=True)
    return strong
