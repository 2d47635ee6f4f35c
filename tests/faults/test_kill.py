"""A process that writes is killed at every boundary of every request; another writes it again.

Real processes and SIGKILL: nothing of the first one is left but what the service has.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from itertools import count
from typing import Any

import pytest

from connectome_dagster import Connectome
from connectome_dagster.testing import ConnectomeServer
from tests.api.scripted import Request, answer, serving
from tests.faults.test_matrix import OLD, OPERATIONS, ROWS, Documents
from tests.transfer.conftest import Local
from tests.transfer.faults import exchange
from tests.transfer.test_write import canonical

# Processes of their own that begin where imports have been done: a fork of one without threads.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["connectome_dagster.transfer.collection", __name__])

# More than any of these writes sends.
MOST_REQUESTS = 60

SECONDS = 30

BOUNDARIES = ("sent", "applied", "answered")


def write(name: str, base_url: str, settings: dict[str, Any], collection: str) -> None:
    """What the processes do."""
    with Connectome(base_url=base_url, batch_rows=2, concurrency=1, **settings) as connectome:
        OPERATIONS[name].run(connectome.collection(collection))


class Killer:
    """Lets requests through to the service, and kills who sends them at a boundary of one."""

    def __init__(self, base_url: str, nth: int, boundary: str) -> None:
        self._base_url = base_url
        self._nth = nth
        self._boundary = boundary
        self._lock = threading.Lock()
        self._count = 0
        self._known = threading.Event()
        self._pid = 0

    def know(self, pid: int | None) -> None:
        assert pid is not None
        self._pid = pid
        self._known.set()

    def __call__(self, connection: socket.socket, request: Request, over: threading.Event) -> bool:
        with self._lock:
            self._count += 1
            mine = self._count == self._nth
        if mine and self._boundary == "sent":
            return self._kill()
        status, body = exchange(self._base_url, request)
        if mine and self._boundary == "applied":
            return self._kill()
        answer(status, body)(connection, request, over)
        if mine and self._boundary == "answered":
            return self._kill()
        return True

    def _kill(self) -> bool:
        assert self._known.wait(SECONDS)
        os.kill(self._pid, signal.SIGKILL)
        return False


def killed(server: ConnectomeServer, killer: Killer, name: str, *arguments: Any) -> bool:
    """Write in a process of its own; tell whether it was killed."""
    with serving(killer) as between:
        process = _processes.Process(target=write, args=(name, between.base_url, *arguments))
        process.start()
        killer.know(process.pid)
        process.join(SECONDS)
    server.quiesce()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


# An upsert writes no keys of ours.
CASES = [
    *((name, mode) for name in ("append", "replace", "sync") for mode in ("field", "id")),
    ("upsert", "field"),
]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_write_that_was_killed_ends_exact_when_it_is_run_again(
    local: Local, name: str, mode: str, boundary: str
) -> None:
    hold_for_every_request(local, name, mode, boundary, OLD)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_so_does_one_in_place_of_other_rows_of_the_same_load(local: Local, boundary: str) -> None:
    before: Documents = [{**row, "n": -1} for row in ROWS[:3]]
    hold_for_every_request(local, "replace", "field", boundary, OLD, before)


def hold_for_every_request(
    local: Local,
    name: str,
    mode: str,
    boundary: str,
    old: Documents,
    replaced: Documents | None = None,
) -> None:
    server = local.server
    settings = {
        "read_credential": server.read_credential,
        "write_credential": server.write_credential,
        "idempotency": mode,
        "settle_seconds": 0.02,
    }
    for nth in count(1):
        assert nth < MOST_REQUESTS
        things = local.collection(old)
        if replaced is not None:
            things.replace(replaced, {"day": "mon"}, load="monday")
        killer = Killer(server.base_url, nth, boundary)
        if not killed(server, killer, name, settings, things.id):
            assert nth > 3, "nobody was killed"
            break
        write(name, server.base_url, settings, things.id)
        there = canonical(local.documents(things))
        assert there == canonical(OPERATIONS[name].there), f"killed at request {nth}"
