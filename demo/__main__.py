"""`make demo`: materializes every asset of the example for all days, twice, on a real instance.

Ends in 0 only if both passes succeed with all their checks and the second one changed nothing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from earthquakes.definitions import defs as load_definitions
from rich.console import Console
from rich.table import Table

from connectome_dagster import Connectome, ConnectomeError
from demo.processes import COLLECTIONS, CannotStart, local_server, stop_on_signals

JOB = "daily_earthquakes"
REQUESTS = ("requests to read", "connectome/requests")  # of the raw day, and to store the rows
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
# Nobody reads the output of these steps, and catching it takes two processes for each.
NO_COMPUTE_LOGS = """
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
console = Console(highlight=False)


class Disagreement(Exception):
    """The demonstration ran and what it shows is not what was promised."""


@dataclass(frozen=True)
class Step:
    """What one asset did for one partition."""

    asset: str
    partition: str
    rows: int
    requests: int
    seconds: float


@contextmanager
def temporary_instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with files and databases of its own, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="connectome-demo-") as home:
        settings = Path(__file__).with_name("dagster.yaml").read_text()
        Path(home, "dagster.yaml").write_text(settings + NO_COMPUTE_LOGS)
        os.environ["DAGSTER_HOME"] = home
        with dg.DagsterInstance.get() as instance:
            yield instance


def main() -> int:
    stop_on_signals()
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new instance's tables, one by one
    try:
        with local_server() as address, temporary_instance() as instance:
            console.print(f"Local server at {address}, a week of earthquakes in it.")
            in_a_thread(demonstrate, instance)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left running.")
        return 130
    except (CannotStart, Disagreement, ConnectomeError) as error:
        console.print(f"[red]make demo:[/red] {error}", markup=True)
        return 1
    return 0


def in_a_thread(
    work: Callable[[dg.DagsterInstance, threading.Event], None], instance: dg.DagsterInstance
) -> None:
    """Runs it where Dagster leaves signals alone: in the main thread it swallows a Ctrl-C."""
    stopping = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(work, instance, stopping)
        try:
            done.result()
        except KeyboardInterrupt:
            stopping.set()
            raise


def demonstrate(instance: dg.DagsterInstance, stopping: threading.Event) -> None:
    passes: list[list[Step]] = []
    contents: list[dict[str, list[str]]] = []
    for number in (1, 2):
        began = time.perf_counter()
        steps = materialize_all(instance, stopping)
        passes.append(steps)
        contents.append({name: documents(name) for name in ("raw_earthquakes", *COLLECTIONS)})
        seconds = time.perf_counter() - began
        console.print(f"Pass {number}: {len(steps)} materializations in {seconds:.1f} s.")
    console.print(closing_table(*passes))
    compare(*contents)
    console.print(
        "The second pass left every collection as it was: "
        + ", ".join(f"{name} {len(held):,}" for name, held in contents[1].items())
        + " documents."
    )


def materialize_all(instance: dg.DagsterInstance, stopping: threading.Event) -> list[Step]:
    """Every asset and check of the example's job, one run for each day, as its schedule does."""
    job = load_definitions().resolve_job_def(JOB)
    partitions_def = job.partitions_def
    if partitions_def is None:
        raise Disagreement(f"the job {JOB} has no partitions")
    steps: list[Step] = []
    with console.status("") as status:
        for day in partitions_def.get_partition_keys():
            if stopping.is_set():
                raise KeyboardInterrupt
            status.update(f"materializing {day}")
            result = job.execute_in_process(
                run_config=QUIET, instance=instance, partition_key=day, raise_on_error=False
            )
            require_success(result, day)
            steps += steps_of(result, instance, day)
    return steps


def require_success(result: dg.ExecuteInProcessResult, day: str) -> None:
    failed = [event.step_key for event in result.get_step_failure_events()]
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            numbers = ", ".join(f"{name} {value.value}" for name, value in check.metadata.items())
            failed.append(f"{check.check_name} of {check.asset_key.to_user_string()} ({numbers})")
    if failed or not result.success:
        raise Disagreement(f"the run of {day} failed: {'; '.join(map(str, failed))}")


def steps_of(
    result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance, day: str
) -> list[Step]:
    seconds = {
        stats.step_key: (stats.end_time or 0.0) - (stats.start_time or 0.0)
        for stats in instance.get_run_step_stats(result.run_id)
    }
    steps: list[Step] = []
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        steps.append(
            Step(
                asset=event.materialization.asset_key.to_user_string(),
                partition=day,
                rows=number(metadata["connectome/rows"]),
                requests=sum(number(metadata[name]) for name in REQUESTS if name in metadata),
                seconds=seconds[str(event.step_key)],
            )
        )
    return steps


def number(value: dg.MetadataValue[Any]) -> int:
    return int(value.value)


def documents(collection: str) -> list[str]:
    """What a collection holds but for `_id`, which a replaced document gets anew; in no order."""
    with Connectome(
        base_url=os.environ["CONNECTOME_BASE_URL"],
        read_credential=os.environ["CONNECTOME_READ_CREDENTIAL"],
    ) as connectome:
        held = connectome.collection(collection).find().to_pylist()
    return sorted(
        json.dumps({k: v for k, v in document.items() if k != "_id"}, sort_keys=True, default=str)
        for document in held
    )


def closing_table(first: list[Step], second: list[Step]) -> Table:
    """A line for each asset and day, both passes side by side, and each asset's sum."""
    table = Table(
        title="What was materialized",
        caption="requests: to read the raw day, and to store the rows",
        title_justify="left",
        caption_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("asset, day (UTC)", no_wrap=True)
    for which in ("1st", "2nd"):
        for what in ("rows", "requests", "seconds"):
            table.add_column(f"{which}\n{what}", justify="right", no_wrap=True)
    for asset in COLLECTIONS:
        mine = [[step for step in steps if step.asset == asset] for steps in (first, second)]
        table.add_row(asset, *figures(mine[0]), *figures(mine[1]), style="bold")
        for one, two in zip(*mine, strict=True):
            table.add_row(f"  {one.partition}", *figures([one]), *figures([two]))
        table.add_section()
    return table


def figures(steps: list[Step]) -> tuple[str, str, str]:
    return (
        f"{sum(step.rows for step in steps):,}",
        f"{sum(step.requests for step in steps):,}",
        f"{sum(step.seconds for step in steps):.2f}",
    )


def compare(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    """Raises `Disagreement` unless every collection holds the same documents as before."""
    for name, held in after.items():
        if held != before[name]:
            gone, new = set(before[name]) - set(held), set(held) - set(before[name])
            raise Disagreement(
                f"the second pass changed {name}: {len(before[name]):,} documents became "
                f"{len(held):,}, {len(gone):,} different ones are gone and {len(new):,} are new"
            )


if __name__ == "__main__":
    sys.exit(main())
