"""A TCP server on a free loopback port that answers each request with the next step of a script.

Speaks just enough HTTP to be wrong on purpose: it cuts, stalls, resets and echoes. Shares no code
with what it tests.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

Step = Callable[[socket.socket, "Request", threading.Event], bool]


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    script: tuple[Step, ...] = field(repr=False)  # bodies of megabytes, in a failure's text
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list, repr=False)
    connections: int = 0

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def base_url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(self._forget, connection)
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            stack.enter_context(connection)
            reader = stack.enter_context(connection.makefile("rb"))
            while (request := _read_request(reader)) is not None:
                with self._lock:
                    step = self.script[min(len(self.requests), len(self.script) - 1)]
                    self.requests.append(request)
                if not step(connection, request, self.over):
                    return

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.remove(connection)
        connection.close()


def _read_request(reader: object) -> Request | None:
    words = reader.readline().decode("latin-1").split(" ")  # type: ignore[attr-defined]
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return None
    method, target, _ = words
    headers: dict[str, str] = {}
    while (line := reader.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", "0")))  # type: ignore[attr-defined]
    return Request(method, target, headers, body)


def head(status: int, headers: Mapping[str, object]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Whatever",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(
    status: int = 200,
    body: bytes | Callable[[Request], bytes] = b"[]",
    *,
    content_type: str = "application/json",
    **headers: object,
) -> Step:
    """A whole answer; an underscore in a header's name is a hyphen."""

    def step(connection: socket.socket, request: Request, _over: threading.Event) -> bool:
        content = body(request) if callable(body) else body
        fields = {"Content-Type": content_type, "Content-Length": len(content)}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.sendall(head(status, fields) + content)
        return True

    return step


def chunked(*chunks: bytes, end: bool = True) -> Step:
    """A body in chunks; without its end the connection closes where the next chunk is due."""

    def step(connection: socket.socket, _request: Request, _over: threading.Event) -> bool:
        connection.sendall(head(200, {"Transfer-Encoding": "chunked"}))
        for chunk in chunks:
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if end:
            connection.sendall(b"0\r\n\r\n")
        return end

    return step


def cut(body: bytes, *, missing: int = 100, status: int = 200) -> Step:
    """Promises more than it sends, and closes."""

    def step(connection: socket.socket, _request: Request, _over: threading.Event) -> bool:
        connection.sendall(head(status, {"Content-Length": len(body) + missing}) + body)
        return False

    return step


def raw(data: bytes, *, keep: bool = False) -> Step:
    """Any bytes, HTTP or not."""

    def step(connection: socket.socket, _request: Request, _over: threading.Event) -> bool:
        connection.sendall(data)
        return keep

    return step


def hang_up(_connection: socket.socket, _request: Request, _over: threading.Event) -> bool:
    """Closes without an answer."""
    return False


def reset(connection: socket.socket, _request: Request, _over: threading.Event) -> bool:
    """Sends a TCP reset instead of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def stall(_connection: socket.socket, _request: Request, over: threading.Event) -> bool:
    """Says nothing until the server closes."""
    over.wait(30)
    return False


def stall_after(body: bytes) -> Step:
    """Sends a beginning and then nothing until the server closes."""

    def step(connection: socket.socket, _request: Request, over: threading.Event) -> bool:
        connection.sendall(head(200, {"Content-Length": len(body) + 100}) + body)
        over.wait(30)
        return False

    return step


@contextlib.contextmanager
def serving(*script: Step, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    server = ScriptedServer(script, tls)
    try:
        yield server
    finally:
        server.close()


def unused_port() -> int:
    """A port that refuses: it was free a moment ago, and nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
