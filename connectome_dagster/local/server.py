"""The local server as a running thing: a socket, uvicorn in a thread, a start and a clean end.

What it answers is decided in `app`; what it keeps, in `store`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from connectome_dagster.local import bodies
from connectome_dagster.local.activity import Activity
from connectome_dagster.local.app import DataApi, application
from connectome_dagster.local.collection import Document
from connectome_dagster.local.conditions import Conditions, ConditionsByCollection
from connectome_dagster.local.control import Control
from connectome_dagster.local.delivery import TRANSPORT, reset
from connectome_dagster.local.faults import Fault, FaultPlan
from connectome_dagster.local.log import RequestLog
from connectome_dagster.local.page import Page
from connectome_dagster.local.seed import read_seed
from connectome_dagster.local.store import Store
from connectome_dagster.local.switches import Switches

# Starting takes some 50 ms; an overloaded machine may take a hundred times that.
START_SECONDS = 10.0
# Requests that still run when the server is told to stop are given this long to end.
STOP_SECONDS = 5
# A client's idle connection is kept for longer than a pipeline's usual pause between requests: a
# request that meets the closing of its connection has an unknown outcome.
KEEP_ALIVE_SECONDS = 75


Result = TypeVar("Result")


class LocalServer:
    """The Data API on this machine, running in a thread while the `with` block lasts.

    Args:
        collections: names of the collections that are there; others are a 404.
        read_credential: what serves reads (F2); made up if not given.
        write_credential: what serves writes, updates and deletes; made up if not given.
        control_credential: what serves `/control/`; the write credential if not given.
        data: directory in which documents are kept; None keeps them in memory.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        switches: the answers to the API's open questions (U1-U14).
        faults: what goes wrong on purpose.

    Attributes:
        log: the last requests, and what they applied.

    Raises:
        JournalError: `data` cannot be used.
        OSError: host and port cannot be listened on.
        ValueError: a collection's name or a credential cannot be a path segment.

    >>> with LocalServer(collections=["movies"]) as server:
    ...     server.seed("movies", [{"title": "Movie ABC", "amount": 10}])
    ...     [document["amount"] for document in server.documents("movies")]
    1
    [10]
    """

    def __init__(
        self,
        collections: Iterable[str] = (),
        *,
        read_credential: str | None = None,
        write_credential: str | None = None,
        control_credential: str | None = None,
        data: Path | str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        switches: Switches | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.read_credential = _credential(read_credential)
        self.write_credential = _credential(write_credential)
        self.control_credential = _credential(control_credential or self.write_credential)
        self.log = RequestLog()
        self._conditions = ConditionsByCollection(Conditions(switches, faults))
        self._host = host
        self._thread: threading.Thread | None = None
        with ExitStack() as undo:
            self._socket = _listen(host, port)
            undo.callback(self._socket.close)
            self._port = int(self._socket.getsockname()[1])
            self._store = Store(
                None if data is None else Path(data), remember=self._conditions.remembered
            )
            undo.callback(self._store.close)
            for name in collections:
                self._store.add_collection(name)
            undo.pop_all()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, collections={self.collections()!r})"

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Where it answers, without a slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Answer requests from now on; returns when it does.

        Raises:
            RuntimeError: it did not come up.
        """
        api = DataApi(
            self._store,
            read_credential=self.read_credential,
            write_credential=self.write_credential,
            conditions=self._conditions,
            log=self.log,
        )
        page = Page(
            self._store,
            self.log,
            read_credential=self.read_credential,
            write_credential=self.write_credential,
        )
        self._activity = api.activity
        control = Control(
            self._store, self._conditions, self.log, credential=self.control_credential
        )
        self._server = _Server(
            api.activity,
            uvicorn.Config(
                application(api, [*page.routes(), *control.routes()]),
                lifespan="off",
                http=_protocol(self._conditions),
                ws="none",
                log_config=None,
                # Below it uvicorn logs whole requests, whose path holds the credential.
                log_level="info",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            ),
        )
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._socket]},
            name="connectome-local-server",
            daemon=True,
        )
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.answers.wait(0.1):
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the local server did not start within {START_SECONDS:g} s")

    @property
    def running(self) -> bool:
        """Whether it answers requests."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Let running requests end, then close socket and documents; repeating is harmless."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
            self._thread = None
        self._socket.close()
        self._store.close()

    def collections(self) -> list[str]:
        """The names of all collections."""
        return self._store.collections()

    @property
    def switches(self) -> Switches:
        """What holds for all collections without conditions of their own; may be set."""
        return self._conditions.general.switches

    @switches.setter
    def switches(self, switches: Switches) -> None:
        self._conditions.general.switches = switches

    @property
    def faults(self) -> FaultPlan:
        """What goes wrong with requests to collections without conditions of their own."""
        return self._conditions.general.faults

    def quiesce(self, seconds: float = 10.0) -> None:
        """Wait until no request runs and nothing is due to be applied after its answer.

        Args:
            seconds: how long at most.

        Raises:
            TimeoutError: it takes longer.
        """
        if self._thread is not None and not self._activity.wait(seconds):
            raise TimeoutError(f"the local server was still at work after {seconds:g} s")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse every new connection while the block lasts; open ones go on.

        The faults know requests and connections that were made; this is for what happens before.

        Example:
            with server.refusing():
                ...  # "connection refused", whatever the collection
        """
        self._socket = self._in_loop(self._server.refuse(self._socket))
        try:
            yield
        finally:
            if self.running:
                self._in_loop(self._server.accept(self._socket))

    def _in_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._server.loop).result(START_SECONDS)

    def add_collection(self, name: str, *, conditions: Conditions | None = None) -> None:
        """Serve one more collection; repeating is harmless.

        Args:
            name: its id.
            conditions: switches and faults of its own, in place of the server's.

        Raises:
            ValueError: the name cannot be a path segment.
        """
        self._store.add_collection(name)
        if conditions is not None:
            self._conditions.assign(name, conditions)

    def drop_collection(self, name: str) -> None:
        """Forget a collection and its documents; it is a 404 from now on."""
        self._conditions.release(name)
        self._store.drop_collection(name)

    def seed(self, name: str, documents: Iterable[Document]) -> int:
        """Insert documents without a request; the collection is added if it is not there.

        They are plain documents whatever the switches, and no read is too stale to see them.

        Args:
            name: the collection.
            documents: decoded JSON, as a body of `batchwrite` would hold it.

        Returns:
            How many were inserted.

        Raises:
            HttpError: what a `batchwrite` of them would be refused with.
        """
        self.add_collection(name)
        text = json.dumps(list(documents), allow_nan=False).encode()
        if text == b"[]":
            return 0
        decoded, plain = bodies.batch(text)
        return self._store.insert(name, decoded, plain=plain, settled=True)

    def seed_file(self, name: str, path: Path) -> int | None:
        """Insert the documents of a file into a collection that has none.

        Args:
            name: the collection; it is added if it is not there.
            path: a JSON array, NDJSON or GeoJSON FeatureCollection.

        Returns:
            How many were inserted; None if the collection has documents already.

        Raises:
            SeedError: the file is not there or is not such a file.
            HttpError: what a `batchwrite` of its documents would be refused with.
        """
        self.add_collection(name)
        if self._store.count(name):
            return None
        documents, plain = read_seed(path)
        return self._store.insert(name, documents, plain=plain, settled=True)

    def documents(self, name: str) -> list[Document]:
        """Copies of a collection's documents as a read answers them, in natural order.

        Raises:
            NotFound: there is no such collection.
        """
        return self._store.documents(name)


class _Protocol(HttpToolsProtocol):
    """Logs no path, for the credential is in it; hands the application the connection.

    uvicorn's own switch acts on the process's logger, which other servers may share.
    """

    conditions: ConditionsByCollection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if self.conditions.strike_connection():
            reset(transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]  # ASGI leaves the value open


def _protocol(conditions: ConditionsByCollection) -> type[_Protocol]:
    # uvicorn makes one for each connection, of a class that it is given.
    return type("_Protocol", (_Protocol,), {"conditions": conditions})


class _Server(uvicorn.Server):
    """Says when it answers, instead of being asked again and again; ends what is due later."""

    def __init__(self, activity: Activity, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._activity = activity
        self.answers = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.answers.set()

    async def refuse(self, listening: socket.socket) -> socket.socket:
        """Listen no more, but keep the port: who connects to it is refused by the system."""
        address, family = listening.getsockname()[:2], listening.family
        for server in self.servers:
            server.close()
        self.servers = []
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        return held

    async def accept(self, held: socket.socket) -> None:
        """Listen again."""

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn calls it
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(protocol, sock=held)]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._activity.end()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)


def _credential(given: str | None) -> str:
    if given is None:
        return secrets.token_urlsafe(24)
    if not given.isprintable() or given.strip() != given or not given:
        raise ValueError("a credential is one segment of a path: printable, not empty, no space")
    return given
