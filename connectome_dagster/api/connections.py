"""A bounded number of connections, kept for the next call.

Knows sockets as far as they can be sent to and closed; how one is made, with TLS or through a
proxy, is handed in. Knows no HTTP.
"""

from __future__ import annotations

import select
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

# Services close idle connections after five seconds and more. A write that must not be repeated
# does not ride on a connection that may be closed under it: its outcome would be unknown.
MAX_IDLE_SECONDS = 2.0

# A body of up to this size is copied to travel with its head in one packet and one system call;
# copying a larger one costs more than that saves.
ONE_PACKET_BYTES = 64 * 1024


class ClosedError(Exception):
    """The connections have been closed for good."""


class NoPlaceError(Exception):
    """All connections were in use for as long as one was willing to wait."""


class Message(Protocol):
    """What is sent; what it is made of is not for a repr."""

    head: bytes
    body: bytes


class Connection:
    """A connected socket; whoever has it is alone with it.

    Args:
        sock: what is sent to; its timeout is how long it waits for the other side.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._last_used = time.monotonic()

    def send(self, message: Message) -> None:
        # Never in names of their own: tools show locals, and a head holds a credential.
        if len(message.body) <= ONE_PACKET_BYTES:
            self._sock.sendall(message.head + message.body)
        else:
            self._sock.sendall(message.head)
            self._sock.sendall(message.body)

    def receive(self, size: int) -> bytes:
        """Return what has arrived, at most `size` bytes; `b""` when the other side has closed."""
        return self._sock.recv(size)

    def used(self) -> None:
        self._last_used = time.monotonic()

    def is_fit(self, *, fresh: bool) -> bool:
        """Whether it can take another call: it still stands, and it did not idle if that counts."""
        if fresh and time.monotonic() - self._last_used > MAX_IDLE_SECONDS:
            return False
        return not _is_readable(self._sock)  # nothing is due, so it would be the end

    def close(self) -> None:
        with suppress(OSError):
            self._sock.close()


class Connections:
    """Makes connections, and keeps those that can be used again; from any number of threads.

    The one that was used last is used first, so that the others may fall idle.

    Args:
        connect: makes a connected socket.
        places: connections at a time.
    """

    def __init__(self, connect: Callable[[], socket.socket], places: int) -> None:
        self._connect = connect
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(places):
            self._places.put(None)
        self._idle: list[Connection] = []
        self._closed = False
        # For those who forget to close; without a reference to this object.
        weakref.finalize(self, _close_all, self._idle)

    def take(self, timeout: float, *, fresh: bool) -> Connection:
        """Return a connection, which has to be given back.

        Args:
            timeout: seconds to wait for a place.
            fresh: whether one that has idled will not do.

        Raises:
            ClosedError: they have been closed.
            NoPlaceError: there was none within the timeout.
            Exception: whatever connecting raises.
        """
        if not self._closed:
            try:
                self._places.get(timeout=timeout)
            except Empty:
                raise NoPlaceError from None
        taken: Connection | None = None
        try:
            taken = self._taken(fresh=fresh)
        finally:
            if taken is None:
                self._places.put(None)  # also for whoever waits, to be told of the end
        return taken

    def _taken(self, *, fresh: bool) -> Connection:
        while True:
            if self._closed:
                raise ClosedError
            try:
                connection = self._idle.pop()
            except IndexError:
                return Connection(self._connect())
            if connection.is_fit(fresh=fresh):
                return connection
            connection.close()

    def give(self, connection: Connection, *, keep: bool) -> None:
        """Give a connection back, to be kept or closed."""
        if keep:
            connection.used()
            self._idle.append(connection)
            if self._closed:
                _close_all(self._idle)
        else:
            connection.close()
        self._places.put(None)

    def close(self) -> None:
        """Close them: those that are in use when they are given back."""
        self._closed = True
        _close_all(self._idle)
        self._places.put(None)  # whoever waits for a place is told


def _close_all(idle: list[Connection]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop().close()


def _is_readable(sock: socket.socket) -> bool:
    if hasattr(select, "poll"):  # Windows has none
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])
