"""The example's arithmetic on a handful of rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from earthquakes.events import alerts, region, summarize, tidy


def feature(event: str, milliseconds: int, mag: float, place: str | None) -> dict[str, Any]:
    return {
        "id": event,
        "properties": {
            "time": milliseconds,
            "mag": mag,
            "magType": "ml",
            "type": "earthquake",
            "place": place,
        },
        "geometry": {"coordinates": [-118.5, 34, 10]},
    }


FEATURES = pd.DataFrame(
    [
        feature("a", 1517443200000, 2, "4km W of Castaic, CA"),
        feature("b", 1517443200001, 4.5, "Parkfield, California"),
        feature("c", 1517529599999, 4.4, "Gulf of Alaska"),
        feature("d", 1517529600000, 6.1, "Hualian, Taiwan"),
    ]
)


def test_a_feature_becomes_a_flat_row() -> None:
    row = tidy(FEATURES).iloc[0].to_dict()

    assert row == {
        "id": "a",
        "time": pd.Timestamp("2018-02-01T00:00:00Z"),
        "mag": 2.0,
        "mag_type": "ml",
        "kind": "earthquake",
        "place": "4km W of Castaic, CA",
        "region": "California",
        "longitude": -118.5,
        "latitude": 34.0,
        "depth_km": 10.0,
    }


def test_whole_numbers_do_not_change_the_type_of_a_magnitude() -> None:
    whole = pd.DataFrame([feature("a", 1517443200000, 2, "X")])

    assert tidy(whole)["mag"].dtype == "float64"


def test_a_day_without_events_has_the_same_columns() -> None:
    empty = tidy(pd.DataFrame())

    assert list(empty) == list(tidy(FEATURES))
    assert len(empty) == 0
    assert list(summarize(empty)) == list(summarize(tidy(FEATURES)))
    assert list(alerts(empty)) == list(alerts(tidy(FEATURES)))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("4km W of Castaic, CA", "California"),
        ("9km E of Mesquite, NV", "Nevada"),
        ("10km S of Mexicali, B.C., MX", "Mexico"),
        ("Gulf of Alaska", "Gulf of Alaska"),
        (None, "unknown"),
    ],
)
def test_the_region_follows_the_last_comma(place: str | None, expected: str) -> None:
    assert region(pd.Series([place, "somewhere, else"])).tolist() == [expected, "else"]


def test_days_and_regions_are_summarized_apart() -> None:
    assert summarize(tidy(FEATURES)).to_dict("records") == [
        {
            "day": "2018-02-01",
            "region": "California",
            "events": 2,
            "max_mag": 4.5,
            "mean_depth_km": 10.0,
        },
        {
            "day": "2018-02-01",
            "region": "Gulf of Alaska",
            "events": 1,
            "max_mag": 4.4,
            "mean_depth_km": 10.0,
        },
        {
            "day": "2018-02-02",
            "region": "Taiwan",
            "events": 1,
            "max_mag": 6.1,
            "mean_depth_km": 10.0,
        },
    ]


def test_an_event_without_a_place_is_counted() -> None:
    events = tidy(pd.DataFrame([feature("a", 1517443200000, 2, None)]))

    assert summarize(events)["events"].sum() == 1


def test_an_alert_needs_magnitude_4_5() -> None:
    assert alerts(tidy(FEATURES))["id"].tolist() == ["b", "d"]
