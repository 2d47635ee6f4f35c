from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from connectome_dagster.api import connections as module
from connectome_dagster.api.connections import (
    ClosedError,
    Connection,
    Connections,
    NoPlaceError,
)


class Pairs:
    """Connected sockets, and their other ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.ours: list[socket.socket] = []
        self.theirs: list[socket.socket] = []
        self.failing = False

    def __call__(self) -> socket.socket:
        if self.failing:
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        self.ours.append(ours)
        self.theirs.append(self._stack.enter_context(theirs))
        return ours


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    with ExitStack() as stack:
        yield Pairs(stack)


def test_the_connection_that_was_used_last_is_used_first(pairs: Pairs) -> None:
    pool = Connections(pairs, 3)
    first, second = pool.take(1, fresh=False), pool.take(1, fresh=False)
    pool.give(first, keep=True)
    pool.give(second, keep=True)
    assert pool.take(1, fresh=False) is second
    assert pool.take(1, fresh=False) is first
    assert len(pairs.ours) == 2
    for connection in (first, second):
        pool.give(connection, keep=False)
    assert all(sock.fileno() < 0 for sock in pairs.ours)


def test_there_are_never_more_than_there_are_places(pairs: Pairs) -> None:
    pool = Connections(pairs, 2)
    taken = [pool.take(1, fresh=False) for _ in range(2)]
    with pytest.raises(NoPlaceError):
        pool.take(0.01, fresh=False)
    pool.give(taken[0], keep=False)
    with pytest.raises(NoPlaceError):
        pool.take(0.01, fresh=False) and pool.take(0.01, fresh=False)
    pool.close()
    for sock in pairs.ours:
        sock.close()


def test_a_place_is_not_lost_by_a_connection_that_fails(pairs: Pairs) -> None:
    pool = Connections(pairs, 1)
    pairs.failing = True
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            pool.take(0.01, fresh=False)
    pairs.failing = False
    pool.give(pool.take(0.01, fresh=False), keep=False)


def test_one_that_the_other_side_closed_is_not_used(pairs: Pairs) -> None:
    pool = Connections(pairs, 1)
    first = pool.take(1, fresh=False)
    pool.give(first, keep=True)
    pairs.theirs[0].close()
    second = pool.take(1, fresh=False)
    assert second is not first
    assert pairs.ours[0].fileno() < 0
    pool.give(second, keep=False)


def test_one_that_idled_is_replaced_only_where_that_counts(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IDLE_SECONDS", -1.0)
    pool = Connections(pairs, 1)
    first = pool.take(1, fresh=True)
    pool.give(first, keep=True)
    assert pool.take(1, fresh=False) is first
    pool.give(first, keep=True)
    second = pool.take(1, fresh=True)
    assert second is not first
    pool.give(second, keep=False)


def test_closing_closes_those_that_idle_now_and_those_in_use_when_they_come_back(
    pairs: Pairs,
) -> None:
    pool = Connections(pairs, 2)
    idle, used = pool.take(1, fresh=False), pool.take(1, fresh=False)
    pool.give(idle, keep=True)
    pool.close()
    with pytest.raises(ClosedError):
        pool.take(1, fresh=False)
    assert pairs.ours[0].fileno() < 0
    assert pairs.ours[1].fileno() >= 0
    pool.give(used, keep=True)
    assert pairs.ours[1].fileno() < 0


def test_all_who_wait_for_a_place_are_told_of_the_end(pairs: Pairs) -> None:
    pool = Connections(pairs, 1)
    used = pool.take(1, fresh=False)
    told = threading.Semaphore(0)

    def wait() -> None:
        with pytest.raises(ClosedError):
            pool.take(20, fresh=False)
        told.release()

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for thread in waiting:
        thread.start()
    pool.close()
    for _ in waiting:
        assert told.acquire(timeout=10)
    for thread in waiting:
        thread.join(10)
    pool.give(used, keep=True)


def test_connections_that_nobody_closed_are_closed_with_their_owner(pairs: Pairs) -> None:
    pool = Connections(pairs, 1)
    pool.give(pool.take(1, fresh=False), keep=True)
    del pool
    gc.collect()
    assert pairs.ours[0].fileno() < 0


@dataclass
class Sent:
    head: bytes
    body: bytes


@pytest.mark.parametrize("size", [0, 10, module.ONE_PACKET_BYTES + 1])
def test_head_and_body_arrive_one_behind_the_other(pairs: Pairs, size: int) -> None:
    connection = Connection(pairs())
    body = b"b" * size
    got = bytearray()

    def read() -> None:
        while len(got) < 4 + size:
            got.extend(pairs.theirs[0].recv(1 << 20))

    reading = threading.Thread(target=read)
    reading.start()
    connection.send(Sent(b"head", body))
    reading.join(10)
    assert bytes(got) == b"head" + body
    connection.close()
