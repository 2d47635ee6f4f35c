"""A process that answers reads with fixed bytes and swallows writes: the least a service can do.

Raw sockets and large buffers, so that what is measured is the client. As a program it prints its
address and ends when its standard input does. It knows no JSON: a read in the opposite order is
answered with the last document, one for some keys with those documents, any other with all; and
what is written is read to its end and dropped.
"""

from __future__ import annotations

import mmap
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

# In so many bytes of a body there is a document, by which it is seen whether they have keys.
_FIRST = 64 * 1024

# A request's head that is longer is no request of ours.
HEAD_BYTES = 64 * 1024

# What is swallowed at a time: more than a socket's buffer holds, so one call empties it.
SINK_BYTES = 1024 * 1024

# Collections that are written to; a read finds them empty, and `kept-<collection>` and
# `delayed-<collection>` as that collection is, whatever was written. What is sent to `kept` is
# given back by `GET /kept`, once; `delayed` answers a request after `DELAY_SECONDS`.
SINK, KEPT, DELAYED = "sink", "kept", "delayed"
DELAY_SECONDS = 0.010

# A read of `slow-<collection>` is answered in so many pieces over so many seconds, and
# `GET /sent/slow-<collection>` tells which share of the bytes has been sent.
SLOW = "slow-"
SLOW_SECONDS = 2.0
SLOW_PIECES = 200

# What a read asks when it has everything, to prove that it has: which document is the last.
_ASKS_FOR_LAST = b'"sort":{"_id":-1}'
_DOCUMENT = b'{"_id"'

# What a read asks for the documents of some keys, and these in both; keys are 24 digits.
_ASKS_FOR_KEYS = b'"$in"'
_DIGITS = re.compile(rb'"([0-9a-f]{24})"')
_KEY = re.compile(rb'"sku":"([0-9a-f]{24})"')

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_ACKNOWLEDGED = b'{"acknowledged":true}'

# mmap has bytes' methods for what is done with a body here.
Body: TypeAlias = "bytes | mmap.mmap"


class Replay:
    """Serves one connection per thread.

    Args:
        bodies: what a read of a collection is answered with, by the collection's name.
    """

    def __init__(self, bodies: Mapping[str, Body]) -> None:
        self._bodies = bodies
        self._by_key = {
            name: _by_key(body) for name, body in bodies.items() if _KEY.search(body, 0, _FIRST)
        }
        self._kept: list[bytes] = []
        self._sent: dict[str, float] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accept connections until the process ends."""
        while True:
            connection, _ = self._listener.accept()
            # Without this an answer waits for the delayed acknowledgement of the one before it.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            buffer = bytearray(SINK_BYTES)
            early = b""
            while True:
                head, early = _head(connection, early)
                if not head:
                    return
                method, target = head.split(b" ", 2)[:2]
                path = target.decode("ascii").split("/")
                keep = path[-1].startswith(KEPT) or "readwithquery" in path
                body, early = self._body(connection, head, early, buffer, keep=keep)
                status, answer = self._answer(method.decode("ascii"), path, body)
                connection.sendall(_answer_head(status, len(answer)))
                slow = "readwithquery" in path and _ASKS_FOR_LAST not in body
                slow = slow and path[-1].startswith(SLOW)
                for piece in self._slowly(path[-1], answer) if slow else (answer,):
                    connection.sendall(piece)

    def _slowly(self, collection: str, answer: Body) -> Iterator[memoryview]:
        start, view = time.monotonic(), memoryview(answer)
        size = -(-len(view) // SLOW_PIECES)
        for end in range(size, len(view) + size, size):
            # Counted before it is sent: what is still on its way has been sent.
            self._sent[collection] = min(1.0, end / len(view))
            yield view[end - size : end]
            time.sleep(max(0.0, start + SLOW_SECONDS * end / len(view) - time.monotonic()))

    def _body(
        self,
        connection: socket.socket,
        head: bytes,
        early: bytes,
        buffer: bytearray,
        *,
        keep: bool,
    ) -> tuple[bytes, bytes]:
        """Read a request's body to its end; return it if it is to be kept, and what follows it."""
        length = _LENGTH.search(head)
        left = int(length[1]) if length else 0
        kept, early = bytearray(early[:left]), early[left:]
        left -= len(kept)
        view = memoryview(buffer)
        while left:
            size = connection.recv_into(view[: min(left, SINK_BYTES)])
            if not size:
                raise ConnectionError("the request broke off")
            left -= size
            if keep:
                kept += view[:size]
        return bytes(kept), early

    def _answer(self, method: str, path: list[str], body: bytes) -> tuple[int, Body]:
        # /collection/<verb>/<credential>/<collection id>, /kept or /sent/<collection id>
        verb, collection = (path[2], path[4]) if len(path) == 5 else ("", path[-1])
        if verb and collection.startswith(DELAYED):
            time.sleep(DELAY_SECONDS)
        if (method, verb) == ("POST", "readwithquery"):
            return self._found(collection, body)
        if (method, verb) in (("POST", "batchwrite"), ("POST", "updatewithupsert")):
            if collection.startswith(KEPT):
                with self._lock:
                    self._kept.append(body)
            return 200, _ACKNOWLEDGED
        if (method, path) == ("GET", ["", KEPT]):
            with self._lock:
                kept, self._kept = self._kept, []
            return 200, b"[" + b",".join(kept) + b"]"
        if (method, path[:2]) == ("GET", ["", "sent"]):
            return 200, b"%.6f" % self._sent.get(collection, 1.0)
        return 404, b'{"error":"this server only replays"}'

    def _found(self, collection: str, asked: bytes) -> tuple[int, Body]:
        if collection in (SINK, KEPT, DELAYED):
            return 200, b"[]"
        name = re.sub(f"^({SLOW}|{KEPT}-|{DELAYED}-)", "", collection)
        body = self._bodies.get(name)
        if body is None:
            return 404, b'{"error":"no such collection"}'
        if _ASKS_FOR_KEYS in asked:
            documents = self._by_key[name]
            found = [documents[key] for key in _DIGITS.findall(asked) if key in documents]
            body = b"[" + b",".join(sorted(found)) + b"]"
        last = body.rfind(_DOCUMENT) if _ASKS_FOR_LAST in asked else -1
        return 200, body if last < 0 else b"[" + body[last:]


def _answer_head(status: int, length: int) -> bytes:
    reason = "OK" if status == 200 else "Not Found"
    fields = ("Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((f"HTTP/1.1 {status} {reason}", *fields, "", "")).encode("ascii")


def _head(connection: socket.socket, early: bytes) -> tuple[bytes, bytes]:
    """Read a request's head; return it and what came behind it, both empty at the end."""
    while (end := early.find(b"\r\n\r\n")) < 0:
        if len(early) > HEAD_BYTES:
            raise ConnectionError("the head of the request has no end")
        try:
            more = connection.recv(HEAD_BYTES)
        except ConnectionError:  # the other side left
            more = b""
        if not more:
            return b"", b""
        early += more
    return early[: end + 2], early[end + 4 :]


def _by_key(body: Body) -> dict[bytes, bytes]:
    """The documents of a body by their key, each without what parts it from the next."""
    starts = [found.start() for found in re.finditer(_DOCUMENT, body)]
    documents = [body[at:end] for at, end in pairwise([*starts, len(body)])]
    keyed = ((_KEY.search(document), document[:-1]) for document in documents)
    return {key[1]: document for key, document in keyed if key}


def mapped(file: Path) -> mmap.mmap:
    """A file's bytes, without a copy of them."""
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _bodies(arguments: list[str]) -> dict[str, Body]:
    pairs = (argument.partition("=") for argument in arguments)
    return {name: mapped(Path(file)) for name, _, file in pairs}


if __name__ == "__main__":
    replay = Replay(_bodies(sys.argv[1:]))
    threading.Thread(target=replay.serve, daemon=True).start()
    print(replay.address, flush=True)
    sys.stdin.read()
