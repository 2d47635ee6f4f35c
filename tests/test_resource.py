from __future__ import annotations

import inspect
import json
import os
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from connectome_dagster import Connectome, ConnectomeResource
from connectome_dagster.errors import AuthenticationError, ConfigurationError
from connectome_dagster.testing import ConnectomeServer

MOVIES = [{"title": "Movie XYZ", "amount": 39}, {"title": "Movie ABC", "amount": 10}]
SECRET = "credential-that-nobody-may-see"


@pytest.fixture
def resource(connectome_server: ConnectomeServer) -> ConnectomeResource:
    return ConnectomeResource(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def everything_kept(instance: dg.DagsterInstance) -> str:
    """All that an instance keeps of its runs, as text: events, runs, job snapshots."""
    kept = []
    for record in instance.get_run_records():
        run = record.dagster_run
        kept.append(dg.serialize_value(run))
        kept += [entry.to_json() for entry in instance.all_logs(run.run_id)]
        snapshot = instance.get_job_snapshot(run.job_snapshot_id)
        kept.append(dg.serialize_value(snapshot))
    return "\n".join(kept)


# ---- in a run


def test_an_asset_reads_a_collection_through_the_resource(
    connectome_server: ConnectomeServer, resource: ConnectomeResource
) -> None:
    movies = connectome_server.collection(MOVIES)

    @dg.asset
    def titles(connectome: ConnectomeResource) -> dg.MaterializeResult[Any]:
        found = connectome.collection(movies).find({"amount": {"$gte": 30}}).to_pylist()
        return dg.MaterializeResult(metadata={"titles": [movie["title"] for movie in found]})

    result = dg.materialize([titles], resources={"connectome": resource})
    [event] = result.asset_materializations_for_node("titles")
    assert event.metadata["titles"].value == ["Movie XYZ"]


def test_an_op_writes_through_the_resource(
    connectome_server: ConnectomeServer, resource: ConnectomeResource
) -> None:
    movies = connectome_server.collection()

    @dg.op
    def store(connectome: ConnectomeResource) -> None:
        with connectome.get_client() as client:
            client.collection(movies).insert(MOVIES[0])

    @dg.job
    def storing() -> None:
        store()

    storing.execute_in_process(resources={"connectome": resource})
    assert [movie["amount"] for movie in connectome_server.documents(movies)] == [39]


def test_environment_variables_are_read_when_the_run_starts(
    connectome_server: ConnectomeServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    movies = connectome_server.collection(MOVIES)
    resource = ConnectomeResource(
        base_url=dg.EnvVar("CONNECTOME_BASE_URL"),
        read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
    )

    @dg.asset
    def titles(connectome: ConnectomeResource) -> None:
        assert len(connectome.collection(movies).find().to_pylist()) == 2

    monkeypatch.setenv("CONNECTOME_BASE_URL", connectome_server.base_url)
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", connectome_server.read_credential)
    result = dg.materialize([titles], resources={"connectome": resource}, instance=instance)
    assert result.success
    kept = everything_kept(instance)
    assert "CONNECTOME_READ_CREDENTIAL" in kept
    assert connectome_server.read_credential not in kept


def test_what_is_not_set_is_taken_from_the_environment(
    connectome_server: ConnectomeServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    movies = connectome_server.collection(MOVIES)

    @dg.asset
    def titles(connectome: ConnectomeResource) -> None:
        assert len(connectome.collection(movies).find().to_pylist()) == 2

    monkeypatch.setenv("CONNECTOME_BASE_URL", connectome_server.base_url)
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", connectome_server.read_credential)
    resource = ConnectomeResource()
    assert dg.materialize([titles], resources={"connectome": resource}, instance=instance).success
    assert connectome_server.read_credential not in everything_kept(instance)
    assert connectome_server.read_credential not in resource.redact(
        f"key {connectome_server.read_credential}"
    )


def test_a_run_has_one_client_that_is_closed_at_its_end(
    connectome_server: ConnectomeServer, resource: ConnectomeResource
) -> None:
    seen = []

    @dg.asset
    def twice(connectome: ConnectomeResource) -> None:
        for _ in range(2):
            with connectome.get_client() as client:
                seen.append(client)
        assert connectome.collection(connectome_server.collection()).find().to_pylist() == []
        seen.append(connectome)

    dg.materialize([twice], resources={"connectome": resource})
    first, second, initialized = seen
    assert first is second
    assert initialized._clients == {}


def test_nothing_is_made_before_it_is_used() -> None:
    made = []

    @dg.asset
    def idle(connectome: ConnectomeResource) -> None:
        made.append(dict(connectome._clients))

    # An address that answers nobody: a run that does not use the resource must not notice.
    nowhere = ConnectomeResource(base_url="http://127.0.0.1:9", read_credential=SECRET)
    assert dg.materialize([idle], resources={"connectome": nowhere}).success
    assert made == [{}]


# ---- outside of a run


def test_it_works_without_dagster(
    connectome_server: ConnectomeServer, resource: ConnectomeResource
) -> None:
    movies = connectome_server.collection(MOVIES)
    with resource.get_client() as connectome:
        assert len(connectome.collection(movies).find().to_pylist()) == 2
    assert resource._clients == {}


def test_dagster_resolves_environment_variables_outside_of_a_run_too(
    connectome_server: ConnectomeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    movies = connectome_server.collection(MOVIES)
    monkeypatch.setenv("SOME_CREDENTIAL", connectome_server.read_credential)
    unresolved = ConnectomeResource(
        base_url=connectome_server.base_url, read_credential=dg.EnvVar("SOME_CREDENTIAL")
    )
    with unresolved.process_config_and_initialize_cm() as resource:
        assert len(resource.collection(movies).find().to_pylist()) == 2


@pytest.mark.parametrize("field", ["base_url", "read_credential", "write_credential"])
def test_a_variable_that_nobody_resolved_is_never_taken_for_its_name(field: str) -> None:
    resource = ConnectomeResource(**{field: dg.EnvVar("NAME_OF_IT")})
    with pytest.raises(ConfigurationError, match=rf"{field} is an EnvVar") as refused:
        resource.collection("movies")
    assert "NAME_OF_IT" not in str(refused.value)
    with pytest.raises(ConfigurationError), resource.get_client():
        pass


def test_a_collection_may_have_credentials_of_its_own(
    connectome_server: ConnectomeServer,
) -> None:
    movies = connectome_server.collection(MOVIES)
    resource = ConnectomeResource(base_url=connectome_server.base_url, read_credential="wrong")
    with resource.process_config_and_initialize_cm() as connectome:
        with pytest.raises(AuthenticationError):
            connectome.collection(movies).find().to_pylist()
        own = connectome.collection(movies, read_credential=connectome_server.read_credential)
        assert len(own.find().to_pylist()) == 2
        with pytest.raises(ConfigurationError, match="EnvVar"):
            connectome.collection(movies, read_credential=dg.EnvVar("X"))


# ---- processes and threads


def test_it_travels_to_another_process_as_its_settings(
    connectome_server: ConnectomeServer, resource: ConnectomeResource
) -> None:
    movies = connectome_server.collection(MOVIES)
    with resource.process_config_and_initialize_cm() as used:
        used.collection(movies).find().to_pylist()
        travelled = pickle.loads(pickle.dumps(used))  # noqa: S301 - pickled a line ago
    assert travelled._clients == {}
    with travelled.get_client() as connectome:
        assert len(connectome.collection(movies).find().to_pylist()) == 2


def test_a_variable_travels_as_a_variable() -> None:
    resource = ConnectomeResource(read_credential=dg.EnvVar("NAME_OF_IT"))
    travelled = pickle.loads(pickle.dumps(resource))  # noqa: S301 - pickled a line ago
    assert isinstance(travelled.read_credential, dg.EnvVar)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # threads: the local server's
def test_a_fork_does_not_use_its_parents_connections(
    connectome_server: ConnectomeServer, resource: ConnectomeResource
) -> None:
    movies = connectome_server.collection(MOVIES)
    with resource.process_config_and_initialize_cm() as used:
        parents = used._client()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            # No assertion may leave this block: the child would go on as a second test session.
            os.write(write, b"own" if used._client() is not parents else b"shared")
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            assert answer.read() == b"own"
        os.waitpid(child, 0)
        assert len(used.collection(movies).find().to_pylist()) == 2


def test_threads_share_one_client(resource: ConnectomeResource) -> None:
    with resource.process_config_and_initialize_cm() as used:
        start = threading.Barrier(8)
        seen = []

        def use() -> None:
            start.wait()
            seen.append(used._client())

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert set(map(id, seen)) == {id(used._client())}


# ---- settings and secrets


def test_every_setting_of_the_engine_is_one_of_the_resource() -> None:
    engine = inspect.signature(Connectome.__init__).parameters
    fields = ConnectomeResource.model_fields
    assert set(fields) == set(engine) - {"self"}
    assert {name: field.default for name, field in fields.items()} == {
        name: parameter.default for name, parameter in engine.items() if name != "self"
    }


def test_settings_reach_the_engine_and_wrong_ones_are_refused_by_it() -> None:
    wrong = ConnectomeResource(base_url="ftp://example.org")
    with pytest.raises(ConfigurationError, match="base_url"), wrong.get_client():
        pass


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="read_timout"):
        ConnectomeResource(read_timout=3)


def test_no_secret_is_in_a_repr() -> None:
    secret = ConnectomeResource(read_credential=SECRET, write_credential=SECRET)
    for shown in (repr(secret), str(secret)):
        assert SECRET not in shown
        assert "read_credential='***'" in shown


def test_no_secret_is_in_the_error_about_a_wrong_setting() -> None:
    for wrong in ({"read_credential": [SECRET]}, {"credential": SECRET}, {"concurrency": SECRET}):
        with pytest.raises(ValidationError) as refused:
            ConnectomeResource(**wrong)
        assert SECRET not in str(refused.value)


def test_credentials_are_marked_secret_for_the_ui() -> None:
    fields = ConnectomeResource.to_config_schema().as_field().config_type.fields
    assert {name for name, field in fields.items() if field.is_secret} == {
        "read_credential",
        "write_credential",
    }


@pytest.mark.parametrize("trouble", ["wrong credential", "server down"])
def test_no_secret_is_kept_of_a_run_that_fails(
    trouble: str,
    connectome_server: ConnectomeServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", SECRET)
    down = trouble == "server down"
    movies = connectome_server.collection()

    @dg.asset
    def titles(connectome: ConnectomeResource) -> None:
        connectome.collection(movies).find().to_pylist()

    result = dg.materialize(
        [titles],
        resources={
            "connectome": ConnectomeResource(
                base_url="http://127.0.0.1:9" if down else connectome_server.base_url,
                read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
                max_attempts=1,
            )
        },
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    kept = everything_kept(instance)
    assert ("ServiceUnavailable" if down else "AuthenticationError") in kept
    assert f"readwithquery of collection {movies}" in kept.replace("'", "").replace('\\"', "")
    assert SECRET not in kept
    assert SECRET not in json.dumps(kept)
