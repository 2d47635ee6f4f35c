"""A collection on a local server of one's own, whose switches and faults a test may set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from connectome_dagster.local.server import LocalServer
from connectome_dagster.local.switches import Switches
from tests.local.calling import Calls


@pytest.fixture(scope="module")
def _one_server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture
def calls(_one_server: LocalServer) -> Iterator[Calls]:
    _one_server.add_collection("things")
    _one_server.log.clear()
    with requests.Session() as session:
        yield Calls(_one_server, session)
    _one_server.faults.clear()
    _one_server.switches = Switches()
    _one_server.quiesce()
    _one_server.drop_collection("things")
