"""A partition that is stored again, a step that is retried, a run that is run again: once each."""

# Without `from __future__ import annotations`: Dagster reads the annotations of local functions.

from collections import Counter
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from connectome_dagster import ConnectomeIOManager, ConnectomeResource
from connectome_dagster.testing import ConnectomeServer

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),  # ranges in one run are beta there
    # Dagster's own way of starting nested resources, not ours to mend.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
]

COLOURS = dg.StaticPartitionsDefinition(["red", "green"])
COLLECTION = "rewritten"


def paints(colour: str, numbers: Sequence[int]) -> pd.DataFrame:
    return pd.DataFrame({"colour": colour, "n": list(numbers)})


def resources(server: ConnectomeServer, **settings: Any) -> dict[str, Any]:
    connection = ConnectomeResource(
        base_url=server.base_url,
        read_credential=server.read_credential,
        write_credential=server.write_credential,
        batch_rows=10,
        **settings,
    )
    return {"io_manager": ConnectomeIOManager(connectome=connection)}


def stored(server: ConnectomeServer, collection: str) -> Counter[tuple[str, int]]:
    return Counter((each["colour"], each["n"]) for each in server.documents(collection))


def expected(*frames: pd.DataFrame) -> Counter[tuple[str, int]]:
    return Counter((str(c), int(n)) for frame in frames for c, n in frame.itertuples(index=False))


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_partition_that_is_stored_again_writes_nothing(
    connectome_server: ConnectomeServer, mode: str
) -> None:
    collection = connectome_server.collection()

    @dg.asset(
        partitions_def=COLOURS,
        metadata={
            "partition_expr": "colour",
            "connectome/collection": collection,
            "connectome/write_mode": mode,
        },
    )
    def paint(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return paints(context.partition_key, [*range(25), 7])

    for colour in ("red", "green", "red"):
        result = dg.materialize(
            [paint], resources=resources(connectome_server), partition_key=colour
        )
    assert stored(connectome_server, collection) == expected(
        paints("red", [*range(25), 7]), paints("green", [*range(25), 7])
    )
    verbs = Counter(entry.verb for entry in connectome_server.log)
    assert verbs["batchwrite"] == 6
    [event] = result.asset_materializations_for_node("paint")
    assert event.metadata["connectome/rows"].value == 26


def test_a_range_that_is_replaced_and_then_one_of_its_partitions_stay_exact(
    connectome_server: ConnectomeServer,
) -> None:
    collection = connectome_server.collection()
    green = iter([3, 3, 4, 4])

    @dg.asset(
        partitions_def=COLOURS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "colour", "connectome/collection": collection},
    )
    def paint(context: dg.AssetExecutionContext) -> pd.DataFrame:
        rows = {"red": range(5), "green": range(next(green))}
        return pd.concat([paints(key, rows[key]) for key in context.partition_keys])

    both = {
        "dagster/asset_partition_range_start": "red",
        "dagster/asset_partition_range_end": "green",
    }
    options: list[dict[str, Any]] = [{"tags": both}, {"partition_key": "green"}]
    for option in [*options, *options]:
        dg.materialize([paint], resources=resources(connectome_server), **option)
    assert stored(connectome_server, collection) == expected(
        paints("red", range(5)), paints("green", range(4))
    )


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("kind", ["applied_reset", "reset"])
def test_a_step_that_is_retried_writes_what_is_missing(
    connectome_server: ConnectomeServer, mode: str, kind: Any
) -> None:
    collection = connectome_server.collection()
    connectome_server.faults.add(kind, verb="batchwrite", nth=2)

    @dg.asset(
        retry_policy=dg.RetryPolicy(max_retries=1),
        metadata={"connectome/collection": collection, "connectome/write_mode": mode},
    )
    def paint() -> pd.DataFrame:
        return paints("red", range(25))

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [paint], resources=resources(connectome_server, verify="never"), instance=instance
        )
    assert result.success
    assert [event.step_key for event in result.all_events if event.is_step_up_for_retry]
    assert stored(connectome_server, collection) == expected(paints("red", range(25)))


@dg.asset(metadata={"connectome/collection": COLLECTION, "connectome/write_mode": "append"})
def appended() -> pd.DataFrame:
    return paints("red", range(25))


def appending_job() -> dg.JobDefinition:
    connection = ConnectomeResource(
        base_url=dg.EnvVar("CONNECTOME_BASE_URL"),
        read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
        write_credential=dg.EnvVar("CONNECTOME_WRITE_CREDENTIAL"),
    )
    return dg.Definitions(
        assets=[appended],
        jobs=[dg.define_asset_job("appending", [appended], executor_def=dg.in_process_executor)],
        resources={"io_manager": ConnectomeIOManager(connectome=connection)},
    ).resolve_job_def("appending")


def test_a_run_that_is_run_again_adds_nothing_and_the_next_run_adds(
    connectome_server: ConnectomeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connectome_server.collection(name=COLLECTION)
    monkeypatch.setenv("CONNECTOME_BASE_URL", connectome_server.base_url)
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", connectome_server.read_credential)
    monkeypatch.setenv("CONNECTOME_WRITE_CREDENTIAL", connectome_server.write_credential)
    job = dg.reconstructable(appending_job)
    counts = []
    with dg.instance_for_test() as instance:
        with dg.execute_job(job, instance=instance) as first:
            counts.append(len(connectome_server.documents(COLLECTION)))
        parent = first.run_id
        for _ in range(2):
            again = dg.ReexecutionOptions(parent_run_id=parent)
            with dg.execute_job(job, instance=instance, reexecution_options=again) as result:
                parent = result.run_id
            counts.append(len(connectome_server.documents(COLLECTION)))
        with dg.execute_job(job, instance=instance):
            counts.append(len(connectome_server.documents(COLLECTION)))
    assert counts == [25, 25, 25, 50]
