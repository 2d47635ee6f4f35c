"""Through Dagster: a step's process is killed while it writes, and what Dagster's files keep."""

# Without `from __future__ import annotations`: Dagster reads the annotations of local functions.

import os
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from connectome_dagster import ConnectomeIOManager, ConnectomeResource
from connectome_dagster.local.faults import Fault
from connectome_dagster.testing import ConnectomeServer
from tests.api.scripted import serving
from tests.faults.test_kill import BOUNDARIES, SECONDS, Killer

pytestmark = [
    # Dagster's own way of starting nested resources, not ours to mend.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
]

COLOURS = dg.StaticPartitionsDefinition(["red", "green"])
COLLECTION = "painted"
PID_FILE = "PAINT_PID_FILE"
ROWS = 25

# Loggers of every library that speaks of requests, down to DEBUG, into the event log.
EVERYTHING = {"python_logs": {"managed_python_loggers": ["root"], "python_log_level": "DEBUG"}}


def paint(context: dg.AssetExecutionContext) -> pd.DataFrame:
    path = os.environ.get(PID_FILE)
    if path:
        Path(path).write_text(str(os.getpid()), encoding="ascii")
    return pd.DataFrame({"colour": context.partition_key, "n": range(ROWS)})


def painting(mode: str) -> dg.JobDefinition:
    asset = dg.asset(
        name="paint",
        partitions_def=COLOURS,
        metadata={
            "partition_expr": "colour",
            "connectome/collection": COLLECTION,
            "connectome/write_mode": mode,
        },
    )(paint)
    connection = ConnectomeResource(
        base_url=dg.EnvVar("CONNECTOME_BASE_URL"),
        read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
        write_credential=dg.EnvVar("CONNECTOME_WRITE_CREDENTIAL"),
        batch_rows=5,
        concurrency=2,
        settle_seconds=0.02,
    )
    return dg.Definitions(
        assets=[asset],
        jobs=[dg.define_asset_job("painting", [asset], executor_def=dg.multiprocess_executor)],
        resources={"io_manager": ConnectomeIOManager(connectome=connection)},
    ).resolve_job_def("painting")


def appending() -> dg.JobDefinition:
    return painting("append")


def replacing() -> dg.JobDefinition:
    return painting("replace")


JOBS = {"append": appending, "replace": replacing}


@pytest.fixture
def server(
    connectome_server: ConnectomeServer, monkeypatch: pytest.MonkeyPatch
) -> ConnectomeServer:
    connectome_server.collection([{"colour": "green", "n": 0}], name=COLLECTION)
    monkeypatch.setenv("CONNECTOME_BASE_URL", connectome_server.base_url)
    monkeypatch.setenv("CONNECTOME_READ_CREDENTIAL", connectome_server.read_credential)
    monkeypatch.setenv("CONNECTOME_WRITE_CREDENTIAL", connectome_server.write_credential)
    return connectome_server


def there(server: ConnectomeServer) -> Counter[tuple[str, int]]:
    return Counter((each["colour"], each["n"]) for each in server.documents(COLLECTION))


EXPECTED = Counter([("green", 0), *(("red", n) for n in range(ROWS))])


class StepKiller(Killer):
    """Learns whom to kill from the step itself."""

    def __init__(self, base_url: str, nth: int, boundary: str, path: Path) -> None:
        super().__init__(base_url, nth, boundary)
        self._path = path

    def _kill(self) -> bool:
        self.know(int(self._path.read_text(encoding="ascii")))
        return super()._kill()


@pytest.mark.parametrize(
    ("mode", "boundary", "nth"),
    [("append", "applied", 4), ("replace", "answered", 4)],
)
def test_a_step_that_was_killed_ends_exact_when_its_run_is_retried(
    server: ConnectomeServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str,
    boundary: str,
    nth: int,
) -> None:
    assert boundary in BOUNDARIES
    job = dg.reconstructable(JOBS[mode])
    red = {"dagster/partition": "red"}
    pid = tmp_path / "pid"
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=EVERYTHING) as instance:
        with serving(StepKiller(server.base_url, nth, boundary, pid)) as between:
            monkeypatch.setenv("CONNECTOME_BASE_URL", between.base_url)
            monkeypatch.setenv(PID_FILE, str(pid))
            with dg.execute_job(job, instance=instance, tags=red, raise_on_error=False) as killed:
                assert not killed.success
        server.quiesce(SECONDS)
        assert there(server) != EXPECTED, "it was killed too late to matter"
        monkeypatch.setenv("CONNECTOME_BASE_URL", server.base_url)
        monkeypatch.delenv(PID_FILE)
        again = dg.ReexecutionOptions.from_failure(killed.run_id, instance)
        with dg.execute_job(job, instance=instance, reexecution_options=again, tags=red) as retried:
            assert retried.success
        assert there(server) == EXPECTED
        assert_no_credential(server, tmp_path)


def assert_no_credential(server: ConnectomeServer, folder: Path) -> None:
    """Look through every file that Dagster keeps: databases, compute logs, events."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    assert b"painting" in kept
    assert b"connectome/rows" in kept
    for secret in (server.read_credential, server.write_credential):
        assert secret.encode() not in kept


FAULTS: list[dict[str, Any]] = [
    {"kind": "reset", "nth": 1},
    {"kind": "error", "status": 503, "nth": 3},
    {"kind": "applied_reset", "verb": "batchwrite", "nth": 2},
    {"kind": "applied_error", "verb": "batchwrite", "nth": 3},
    {"kind": "partial", "nth": 4},
    {"kind": "page", "verb": "batchwrite", "nth": 5},
    {"kind": "cut", "verb": "readwithquery", "nth": 2, "bytes": 10},
    {"kind": "refuse", "nth": 2},
]


def test_no_file_of_dagster_holds_a_credential_after_every_fault(
    server: ConnectomeServer, tmp_path: Path
) -> None:
    for fault in FAULTS:
        server.faults.add(Fault(**fault))
    job = dg.reconstructable(replacing)
    red = {"dagster/partition": "red"}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=EVERYTHING) as instance:
        for _ in range(2):  # whatever the first one ends with, the second one mends
            with dg.execute_job(job, instance=instance, tags=red, raise_on_error=False) as run:
                pass
            server.quiesce(SECONDS)
            if run.success:
                break
        assert run.success
        assert there(server) == EXPECTED
        assert_no_credential(server, tmp_path)
