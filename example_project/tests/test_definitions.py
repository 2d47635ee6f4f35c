"""What Dagster sees of the example before anything runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest
from earthquakes.definitions import defs as load_definitions

PROJECT = Path(__file__).parents[1]
DAGSTER_YAML = PROJECT.parent / "demo" / "dagster.yaml"

LOAD_WITHOUT_A_NETWORK = """
import socket

def refuse(*_):
    raise AssertionError("loading definitions opened a connection")

socket.socket.connect = socket.getaddrinfo = refuse
from earthquakes.definitions import defs
defs().get_repository_def().load_all_definitions()
"""


@pytest.fixture
def bare_environment(tmp_path: Path) -> dict[str, str]:
    """No variable of the service is set, telemetry is off, nothing is kept."""
    shutil.copy(DAGSTER_YAML, tmp_path)
    folders = [str(Path(sys.executable).parent), os.defpath]
    return {"PATH": os.pathsep.join(folders), "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}


def test_definitions_load_without_network_and_without_credentials(
    bare_environment: dict[str, str],
) -> None:
    loaded = run([sys.executable, "-c", LOAD_WITHOUT_A_NETWORK], bare_environment)

    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.parametrize("command", [["check", "defs"], ["check", "toml"]])
def test_dg_finds_nothing_wrong(command: list[str], bare_environment: dict[str, str]) -> None:
    checked = run_dg(command, bare_environment)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_dg_lists_the_whole_project(bare_environment: dict[str, str]) -> None:
    listed = run_dg(["list", "defs", "--json"], bare_environment)

    assert listed.returncode == 0, listed.stderr
    definitions = json.loads(listed.stdout)
    assert [asset["asset_key"] for asset in definitions["assets"]] == [
        "daily_region_summary",
        "earthquake_alerts",
        "earthquakes",
        "raw_earthquakes",
    ]
    assert len(definitions["asset_checks"]) == 4
    assert [schedule["name"] for schedule in definitions["schedules"]] == [
        "daily_earthquakes_schedule"
    ]


# Dagster's own call, in the schedules that it builds.
@pytest.mark.filterwarnings("ignore:Function `JobDefinition.run_request:DeprecationWarning")
def test_the_schedule_asks_at_midnight_for_the_day_that_has_ended() -> None:
    schedule = load_definitions().resolve_schedule_def("daily_earthquakes_schedule")
    midnight = datetime(2018, 2, 3, tzinfo=timezone.utc)

    with dg.build_schedule_context(
        scheduled_execution_time=midnight, repository_def=load_definitions().get_repository_def()
    ) as context:
        requests = schedule.evaluate_tick(context).run_requests

    assert schedule.cron_schedule == "0 0 * * *"
    assert [request.partition_key for request in requests or []] == ["2018-02-02"]


def run_dg(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run([str(Path(sys.executable).with_name("dg")), *command], environment)


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the commands stand in this file
        command,
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
