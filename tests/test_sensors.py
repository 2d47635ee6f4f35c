# Without `from __future__ import annotations`: Dagster reads the annotations of local functions.

import doctest
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.observe import observe
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.controller import create_daemon_grpc_server_registry
from dagster._daemon.sensor import execute_sensor_iteration

from connectome_dagster import (
    ConnectomeResource,
    build_connectome_checks,
    build_connectome_observable,
    build_connectome_sensor,
    build_reconcile_sensor,
    sensors,
)
from connectome_dagster.errors import AuthenticationError, ConfigurationError
from connectome_dagster.testing import ConnectomeServer


@dg.op
def nothing() -> None:
    pass


@dg.job
def refresh() -> None:
    nothing()


class Ticking:
    """A sensor on a collection of the real local server, whose ticks keep their cursor."""

    def __init__(self, server: ConnectomeServer, **options: Any) -> None:
        self.server = server
        self.collection = server.collection()
        self.options = {"cursor": "time", "job": refresh, **options}
        self.cursor: str | None = None
        self.read_credential = server.read_credential

    def tick(self, *documents: Any) -> Any:
        """Insert documents, then evaluate the sensor."""
        self.server.seed(self.collection, documents)
        sensor = build_connectome_sensor("moved", collection=self.collection, **self.options)
        resource = ConnectomeResource(
            base_url=self.server.base_url, read_credential=self.read_credential
        )
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(
                instance, cursor=self.cursor, resources={"connectome": resource}
            ) as context,
        ):
            data = sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data

    def fires(self, *documents: Any) -> bool:
        return bool(self.tick(*documents).run_requests)

    def skips(self, *documents: Any) -> str:
        data = self.tick(*documents)
        assert data.run_requests == []
        return str(data.skip_message)


@pytest.fixture
def ticking(connectome_server: ConnectomeServer) -> Ticking:
    return Ticking(connectome_server)


# ---- when it fires


def test_it_fires_when_the_greatest_cursor_grows_and_then_no_more(ticking: Ticking) -> None:
    assert "no document" in ticking.skips()
    assert ticking.fires({"time": "2018-02-01T00:00:00Z"})
    assert "nothing new" in ticking.skips()
    assert ticking.fires({"time": "2018-02-01T00:00:01Z"})
    assert "nothing new" in ticking.skips()


@pytest.mark.parametrize(
    "values",
    [
        [9, 10, 10.5, 12345678901],
        [{"$date": "2018-02-01T00:00:00.000Z"}, {"$date": "2018-02-01T00:00:00.001Z"}],
        ["2018-02-01T09:00:00.000Z", "2018-02-01T10:00:00.000Z"],
        ["a", "\ue000", "\U0001f600"],  # by bytes, not by the halves of surrogate pairs
    ],
    ids=["numbers", "dates", "text", "unicode"],
)
def test_values_of_every_type_are_kept_as_what_they_are(
    ticking: Ticking, values: list[Any]
) -> None:
    for value in values:
        assert ticking.fires({"time": value})
        assert ticking.cursor is not None
        kept = json.loads(ticking.cursor)["greatest"]["value"]
        assert type(kept) is type(value)
        assert "nothing new" in ticking.skips()


def test_a_further_document_with_the_same_cursor_is_noticed(ticking: Ticking) -> None:
    assert ticking.fires({"time": 5, "_id": "a"})
    assert ticking.fires({"time": 5, "_id": "b"})
    assert "nothing new" in ticking.skips()


def test_what_is_below_the_greatest_is_not_noticed_nor_what_has_no_cursor(
    ticking: Ticking,
) -> None:
    assert ticking.fires({"time": 5})
    assert "nothing new" in ticking.skips({"time": 4}, {"time": None}, {"other": 9})


def test_only_what_the_query_finds_counts(connectome_server: ConnectomeServer) -> None:
    ticking = Ticking(connectome_server, query={"kind": "quake"})
    assert "no document" in ticking.skips({"time": 1, "kind": "blast"})
    assert ticking.fires({"time": 1, "kind": "quake"})
    assert "nothing new" in ticking.skips({"time": 2, "kind": "blast"})


def test_a_path_is_a_cursor_and_so_is_the_id(connectome_server: ConnectomeServer) -> None:
    nested = Ticking(connectome_server, cursor="properties.time")
    assert nested.fires({"properties": {"time": 3}})
    assert "still 3" in nested.skips({"properties": {"time": 2}})
    ids = Ticking(connectome_server, cursor="_id")
    assert ids.fires({"_id": "a"})
    assert ids.fires({"_id": "b"})


def test_a_tick_is_one_request_for_one_document(ticking: Ticking) -> None:
    ticking.server.seed(ticking.collection, ({"time": n, "pad": "x" * 999} for n in range(500)))
    assert ticking.fires()
    [entry] = ticking.server.log
    assert entry.response_bytes < 500


# ---- run keys


def test_the_run_key_is_the_same_for_the_same_cursor_and_for_no_other(ticking: Ticking) -> None:
    [first] = ticking.tick({"time": 1}).run_requests
    ticking.cursor = None  # as after the sensor's state was lost
    [again] = ticking.tick().run_requests
    [other] = ticking.tick({"time": 2}).run_requests
    assert first.run_key == again.run_key
    assert first.run_key != other.run_key
    assert first.tags["connectome/collection"] == ticking.collection
    assert [first.tags["connectome/cursor"], other.tags["connectome/cursor"]] == ["1", "2"]


def test_a_cursor_that_went_back_is_said_and_what_comes_after_it_is_new(ticking: Ticking) -> None:
    [first] = ticking.tick({"time": 7, "_id": "x"}).run_requests
    ticking.collection = ticking.server.collection()
    state = json.loads(ticking.cursor or "")
    ticking.cursor = json.dumps({**state, "collection": ticking.collection})
    assert "went back from 7 to 3" in ticking.skips({"time": 3})
    assert "nothing new" in ticking.skips()
    [later] = ticking.tick({"time": 7, "_id": "x"}).run_requests
    assert later.run_key.partition("/")[2] != first.run_key.partition("/")[2]


def test_an_emptied_collection_is_said_and_what_comes_after_it_is_new(ticking: Ticking) -> None:
    [first] = ticking.tick({"time": 7, "_id": "x"}).run_requests
    name = ticking.collection
    full, ticking.collection = name, ticking.server.collection()
    state = json.loads(ticking.cursor or "")
    ticking.cursor = json.dumps({**state, "collection": ticking.collection})
    assert "any more" in ticking.skips()
    assert "no document" in ticking.skips()
    [later] = ticking.tick({"time": 7, "_id": "x"}).run_requests
    assert first.run_key.startswith(full)
    assert json.loads(ticking.cursor or "")["resets"] == 1
    assert later.run_key.startswith(ticking.collection)


@pytest.mark.parametrize("kept", ["", "12", "not json", '{"field": "time"}', "[]"])
def test_a_kept_cursor_that_is_none_of_ours_is_as_none(ticking: Ticking, kept: str) -> None:
    ticking.cursor = kept
    assert ticking.fires({"time": 1})


# ---- what goes wrong


@pytest.mark.parametrize(
    "fault", [("error", {"status": 503}), ("reset", {}), ("cut", {"bytes": 3})]
)
def test_a_service_that_is_not_there_skips_and_is_asked_again(
    ticking: Ticking, fault: tuple[Any, dict[str, Any]]
) -> None:
    assert ticking.fires({"time": 1})
    kept = ticking.cursor
    ticking.server.faults.add(fault[0], verb="readwithquery", nth=1, **fault[1])
    reason = ticking.skips({"time": 2})
    assert "next tick asks again" in reason
    assert ticking.server.read_credential not in reason
    ticking.cursor = kept
    assert ticking.fires()


@pytest.mark.parametrize("fault", [("delay", {"seconds": 20}), ("drip", {"bytes_per_second": 40})])
def test_a_tick_ends_with_its_time_box(
    connectome_server: ConnectomeServer, fault: tuple[Any, dict[str, Any]]
) -> None:
    ticking = Ticking(connectome_server, time_box_seconds=0.5)
    ticking.server.faults.add(fault[0], verb="readwithquery", **fault[1])
    began = time.monotonic()
    assert "next tick asks again" in ticking.skips({"time": "x" * 200})
    assert time.monotonic() - began < 4


def test_a_skipped_tick_keeps_the_cursor_that_it_had(ticking: Ticking) -> None:
    assert ticking.fires({"time": 1})
    kept = ticking.cursor
    ticking.server.faults.add("error", verb="readwithquery", status=503)
    ticking.skips()
    assert ticking.cursor == kept


def test_a_wrong_credential_fails_the_tick_and_is_not_said(ticking: Ticking) -> None:
    ticking.read_credential = "credential-that-nobody-may-see"
    with pytest.raises(AuthenticationError) as raised:
        ticking.tick()
    assert "nobody-may-see" not in str(raised.value)


def test_a_cursor_without_an_order_fails_the_tick(ticking: Ticking) -> None:
    with pytest.raises(ConfigurationError, match="holds objects"):
        ticking.tick({"time": {"a": 1}})


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"cursor": ""}, "cursor"),
        ({"cursor": "$natural"}, "cursor"),
        ({"query": {"n": float("nan")}}, "query"),
        ({"collection": "a/b"}, "collection"),
        ({"job": None}, "job or target"),
        ({"target": "movies"}, "job or target"),
        ({"time_box_seconds": 0}, "time_box_seconds"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_built(asked: dict[str, Any], text: str) -> None:
    given = {"collection": "movies", "cursor": "time", "job": refresh, **asked}
    with pytest.raises(ConfigurationError, match=text):
        build_connectome_sensor("moved", **given)


LOGGER = logging.getLogger("daemon")

# ---- by Dagster's own daemon, with a code server of its own

DEFINITIONS = """
import dagster as dg
from connectome_dagster import ConnectomeResource, build_connectome_sensor

@dg.asset
def movies():
    pass

defs = dg.Definitions(
    assets=[movies],
    sensors=[
        build_connectome_sensor(
            "moved",
            collection="{collection}",
            cursor="time",
            target=[movies],
            minimum_interval_seconds=1,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ],
    resources={{
        "connectome": ConnectomeResource(
            base_url=dg.EnvVar("A_BASE_URL"), read_credential=dg.EnvVar("A_CREDENTIAL")
        )
    }},
)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.mark.filterwarnings("ignore")  # what Dagster's own processes warn of is not ours to mend
def test_a_daemon_that_starts_again_requests_no_run_twice(
    connectome_server: ConnectomeServer,
    home: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_BASE_URL", connectome_server.base_url)
    monkeypatch.setenv("A_CREDENTIAL", connectome_server.read_credential)
    collection = connectome_server.collection([{"time": 1}])
    file = tmp_path / "defs.py"
    file.write_text(DEFINITIONS.format(collection=collection))

    def ticks() -> list[InstigatorTick]:
        states = home.all_instigator_state()
        return [t for s in states for t in home.get_ticks(s.instigator_origin_id, s.selector_id)]

    def daemon(*batches: list[Any]) -> None:
        target = PythonFileTarget(str(file), None, str(tmp_path), "here")
        with (
            create_daemon_grpc_server_registry(home) as servers,
            WorkspaceProcessContext(home, target, grpc_server_registry=servers) as workspace,
        ):
            for documents in batches:
                connectome_server.seed(collection, documents)
                before, deadline = len(ticks()), time.monotonic() + 120
                while len(ticks()) == before:
                    assert time.monotonic() < deadline
                    list(execute_sensor_iteration(workspace, LOGGER, None, None))
        servers.wait_for_processes()

    daemon([], [])
    daemon([])
    daemon([{"time": 2}], [])
    cursors = [run.tags["connectome/cursor"] for run in home.get_runs()]
    assert sorted(cursors) == ["1", "2"]
    assert len(ticks()) == 5
    said = "\n".join(str(tick.tick_data) for tick in ticks())
    assert "nothing new" in said
    assert connectome_server.read_credential not in said


# ---- observable assets


beta = pytest.mark.filterwarnings(
    "ignore:Function `observable_source_asset` is currently in beta:dagster.BetaWarning"
)


def version_of(server: ConnectomeServer, collection: str, **asked: Any) -> tuple[str, Any]:
    quakes = build_connectome_observable("quakes", collection=collection, **asked)
    resource = ConnectomeResource(base_url=server.base_url, read_credential=server.read_credential)
    with dg.DagsterInstance.ephemeral() as instance:
        result = observe([quakes], resources={"connectome": resource}, instance=instance)
        [event] = result.asset_observations_for_node("quakes")
    shown = {name: value.value for name, value in event.metadata.items()}
    return event.tags["dagster/data_version"], shown


@beta
def test_the_data_version_is_new_when_the_cursor_grows_and_only_then(
    connectome_server: ConnectomeServer,
) -> None:
    collection = connectome_server.collection([{"time": 3, "_id": "a"}])
    first, shown = version_of(connectome_server, collection, cursor="time")
    assert (shown["connectome/cursor"], shown["connectome/ties"]) == ("3", 1)
    connectome_server.seed(collection, [{"time": 2}, {"n": 1}])
    assert version_of(connectome_server, collection, cursor="time")[0] == first
    connectome_server.seed(collection, [{"time": 3, "_id": "b"}])
    tied, shown = version_of(connectome_server, collection, cursor="time")
    assert shown["connectome/ties"] == 2
    connectome_server.seed(collection, [{"time": 4}])
    later, _ = version_of(connectome_server, collection, cursor="time")
    assert len({first, tied, later}) == 3


@beta
def test_the_id_is_a_cursor_and_an_empty_collection_has_a_version(
    connectome_server: ConnectomeServer,
) -> None:
    collection = connectome_server.collection()
    empty, shown = version_of(connectome_server, collection)
    assert (shown["connectome/cursor"], shown["connectome/ties"]) == ("", 0)
    connectome_server.seed(collection, [{"n": 1}])
    assert version_of(connectome_server, collection)[0] != empty
    assert version_of(connectome_server, collection, query={"n": 2})[0] == empty


@beta
def test_observing_costs_one_request_of_a_bounded_size(
    connectome_server: ConnectomeServer,
) -> None:
    documents = ({"time": 1, "pad": "x" * 999} for _ in range(500))
    collection = connectome_server.collection(documents)
    _, shown = version_of(connectome_server, collection, cursor="time")
    assert shown["connectome/ties"] == 100
    [entry] = connectome_server.log
    assert entry.response_bytes < 100 * 100


# ---- reconcile


# Of Dagster's own copy of a sensor, when it is given to a job's definitions.
@pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer:dagster.BetaWarning")
def test_what_a_check_finds_is_reconciled_once(connectome_server: ConnectomeServer) -> None:
    collection = connectome_server.collection()
    resource = ConnectomeResource(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
        settle_seconds=0.0,
    )
    sensor = build_reconcile_sensor("mend", asset="movies", collection=collection)
    checks = build_connectome_checks(asset="movies", collection=collection, surplus_copies=True)
    defs = dg.Definitions(
        assets=[dg.AssetSpec("movies")],
        asset_checks=checks,
        sensors=[sensor],
        jobs=[dg.define_asset_job("checking", selection=dg.AssetSelection.checks(*checks))],
        resources={"connectome": resource},
    )
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> Any:
            with dg.build_sensor_context(instance, definitions=defs) as context:
                return sensor.evaluate_tick(context)

        def check() -> None:
            defs.resolve_job_def("checking").execute_in_process(instance=instance)

        assert "no result yet" in tick().skip_message
        connectome_server.faults.add("twice", verb="batchwrite", nth=1)
        with resource.get_client() as connectome:
            connectome.collection(collection).append([{"n": n} for n in range(4)], load="monday")
        assert len(connectome_server.documents(collection)) == 8
        check()
        [request] = tick().run_requests
        assert [again.run_key for again in tick().run_requests] == [request.run_key]
        mending = defs.resolve_job_def("mend_job")
        assert mending.execute_in_process(request.run_config, instance=instance).success
        numbers = sorted(each["n"] for each in connectome_server.documents(collection))
        assert numbers == [0, 1, 2, 3]
        check()
        assert "names no load" in tick().skip_message


@beta
def test_the_examples_say_what_happens() -> None:
    result = doctest.testmod(sensors)
    assert result.attempted
    assert not result.failed
