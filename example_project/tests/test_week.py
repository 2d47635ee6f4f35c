"""The whole week through real runs against a real local server, compared with plain arithmetic.

What is expected is computed here from the raw JSON alone: no pandas, none of the example's code.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from earthquakes.definitions import defs as load_definitions

from connectome_dagster.local.server import LocalServer

pytestmark = [
    # Dagster's own calls: for every resource that holds another one, and for every check.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning"),
]

DATA = Path(__file__).parents[1] / "data" / "earthquakes.json"
COLLECTIONS = ["earthquakes", "daily_region_summary", "earthquake_alerts"]
DAYS = [f"2018-01-{day:02}" for day in (31,)] + [f"2018-02-{day:02}" for day in range(1, 8)]
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SHORT = {"CA": "California", "MX": "Mexico", "NV": "Nevada"}

Document = dict[str, Any]


@dataclass(frozen=True)
class Week:
    """The collections after every asset was materialized once, and after the second time."""

    first: dict[str, list[Document]]
    second: dict[str, list[Document]]
    runs: list[dg.ExecuteInProcessResult]


@pytest.fixture(scope="module")
def features() -> list[Document]:
    content: list[Document] = json.loads(DATA.read_text())["features"]
    return content


@contextmanager
def started(events: list[Document]) -> Iterator[tuple[LocalServer, dg.DagsterInstance]]:
    """A server with these raw events, where the example's resources look for it."""
    with (
        pytest.MonkeyPatch.context() as environment,
        LocalServer(collections=["raw_earthquakes", *COLLECTIONS]) as server,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        server.seed("raw_earthquakes", events)
        environment.setenv("CONNECTOME_BASE_URL", server.base_url)
        environment.setenv("CONNECTOME_READ_CREDENTIAL", server.read_credential)
        environment.setenv("CONNECTOME_WRITE_CREDENTIAL", server.write_credential)
        yield server, instance


def run_day(day: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = load_definitions().resolve_job_def("daily_earthquakes")
    return job.execute_in_process(instance=instance, partition_key=day)


@pytest.fixture(scope="module")
def week(features: list[Document]) -> Week:
    runs: list[dg.ExecuteInProcessResult] = []
    states: list[dict[str, list[Document]]] = []
    with started(features) as (server, instance):
        for _ in range(2):
            runs += [run_day(day, instance) for day in DAYS]
            states.append({name: server.documents(name) for name in COLLECTIONS})
    return Week(first=states[0], second=states[1], runs=runs)


def instant(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


def region_of(place: str) -> str:
    last = place.split(", ")[-1]
    return SHORT.get(last, last)


def content(documents: list[Document]) -> list[str]:
    """Documents without what a new insertion gives anew."""
    return sorted(
        json.dumps({k: v for k, v in d.items() if k not in ("_id", "_dagster")}) for d in documents
    )


def test_every_event_of_the_week_is_in_exactly_one_day(
    week: Week, features: list[Document]
) -> None:
    stored = {document["id"]: document for document in week.first["earthquakes"]}

    assert len(week.first["earthquakes"]) == len(stored) == 1_707
    assert {event["id"] for event in features} == set(stored)


def test_every_stored_event_says_what_the_raw_one_says(
    week: Week, features: list[Document]
) -> None:
    stored = {document["id"]: document for document in week.first["earthquakes"]}

    for event in features:
        row, properties = stored[event["id"]], event["properties"]
        assert datetime.fromisoformat(row["time"].replace("Z", "+00:00")) == instant(
            properties["time"]
        )
        assert row["mag"] == properties["mag"]
        assert row["place"] == properties["place"]
        assert [row["longitude"], row["latitude"], row["depth_km"]] == event["geometry"][
            "coordinates"
        ]


def test_the_daily_summary_is_what_one_gets_by_hand(week: Week, features: list[Document]) -> None:
    magnitudes: dict[tuple[str, str], list[float]] = defaultdict(list)
    depths: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in features:
        properties = event["properties"]
        day = instant(properties["time"]).date().isoformat()
        key = (day, region_of(properties["place"]))
        magnitudes[key].append(properties["mag"])
        depths[key].append(event["geometry"]["coordinates"][2])

    stored = {(row["day"], row["region"]): row for row in week.first["daily_region_summary"]}

    assert len(week.first["daily_region_summary"]) == len(stored)
    assert set(stored) == set(magnitudes)
    for key, row in stored.items():
        assert row["events"] == len(magnitudes[key])
        assert row["max_mag"] == max(magnitudes[key])
        assert row["mean_depth_km"] == pytest.approx(
            math.fsum(depths[key]) / len(depths[key]), rel=1e-12, abs=1e-12
        )
    assert sum(row["events"] for row in stored.values()) == 1_707


def test_the_alerts_are_the_85_strong_events(week: Week, features: list[Document]) -> None:
    strong = {e["id"]: e["properties"] for e in features if e["properties"]["mag"] >= 4.5}

    stored = {document["id"]: document for document in week.first["earthquake_alerts"]}

    assert len(week.first["earthquake_alerts"]) == len(stored) == 85
    assert {name: row["mag"] for name, row in stored.items()} == {
        name: properties["mag"] for name, properties in strong.items()
    }


@pytest.mark.parametrize("name", COLLECTIONS)
def test_materializing_everything_again_changes_nothing(week: Week, name: str) -> None:
    assert content(week.second[name]) == content(week.first[name])


def test_an_alert_stays_the_same_document(week: Week) -> None:
    ids = [
        {document["id"]: document["_id"] for document in state["earthquake_alerts"]}
        for state in (week.first, week.second)
    ]

    assert ids[0] == ids[1]


def test_every_check_of_every_run_passes(week: Week) -> None:
    checks = [check for run in week.runs for check in run.get_asset_check_evaluations()]

    assert len(checks) == 2 * len(DAYS) * 4
    assert [check.check_name for check in checks if not check.passed] == []


def test_materializations_say_how_many_rows_they_stored(week: Week) -> None:
    rows: dict[str, int] = defaultdict(int)
    for run in week.runs[: len(DAYS)]:
        for event in run.get_asset_materialization_events():
            found = event.materialization.metadata["connectome/rows"].value
            assert isinstance(found, int)
            rows[event.materialization.asset_key.to_user_string()] += found

    assert rows == {name: len(week.first[name]) for name in COLLECTIONS}


def test_a_day_without_events_is_stored_as_nothing(features: list[Document]) -> None:
    others = [e for e in features if instant(e["properties"]["time"]).day != 3]

    with started(others) as (server, instance):
        run = run_day("2018-02-03", instance)
        held = {name: server.documents(name) for name in COLLECTIONS}

    assert held == {name: [] for name in COLLECTIONS}
    assert [c.check_name for c in run.get_asset_check_evaluations() if not c.passed] == [
        "has_the_whole_week"
    ]
