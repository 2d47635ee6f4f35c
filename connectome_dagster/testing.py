"""Fixtures for those who test their pipelines against the local server.

A pytest plugin, loaded in every session of whoever installs the package: so it imports the server
only when a test asks for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from connectome_dagster.local.conditions import Conditions
    from connectome_dagster.local.faults import FaultPlan
    from connectome_dagster.local.log import Applied, Entry
    from connectome_dagster.local.server import LocalServer
    from connectome_dagster.local.switches import Switches

__all__ = ["ConnectomeServer", "connectome_server"]


class ConnectomeServer:
    """The session's local server as one test sees it: its collections are nobody else's.

    Attributes:
        base_url: where the server answers.
        read_credential: what serves reads (F2).
        write_credential: what serves writes, updates and deletes.
    """

    def __init__(self, server: LocalServer, conditions: Conditions) -> None:
        self._server = server
        self._conditions = conditions
        self._own: list[str] = []
        self._has_named = False
        self.base_url = server.base_url
        self.read_credential = server.read_credential
        self.write_credential = server.write_credential

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, collections={self._own!r})"

    def collection(
        self, documents: Iterable[dict[str, Any]] = (), *, name: str | None = None
    ) -> str:
        """Make a collection that lasts as long as the test.

        Args:
            documents: what it starts with, as `seed` takes it.
            name: its id, for a pipeline that has the id in its code; None makes one up.

        Returns:
            Its id; 24 hexadecimal digits if it was made up.

        Raises:
            ValueError: the name is taken, or cannot be one segment of a path.

        Example:
            connectome_server.collection([{"title": "Movie ABC"}], name="movies")
        """
        collection = secrets.token_hex(12) if name is None else name
        if collection in self._server.collections():
            raise ValueError(f"there is a collection {collection!r} already")
        self._server.add_collection(collection, conditions=self._conditions)
        self._own.append(collection)
        self._has_named = self._has_named or name is not None
        self.seed(collection, documents)
        return collection

    def seed(self, collection: str, documents: Iterable[dict[str, Any]]) -> int:
        """Insert documents into a collection of this test without a request.

        Args:
            collection: an id that `collection` returned.
            documents: decoded JSON; those without `_id` are given one.

        Returns:
            How many were inserted.

        Raises:
            ValueError: the collection is not of this test.
        """
        self._check(collection)
        return self._server.seed(collection, documents)

    def documents(self, collection: str) -> list[dict[str, Any]]:
        """All documents of a collection of this test, in natural order, with their `_id`.

        Args:
            collection: an id that `collection` returned.

        Raises:
            ValueError: the collection is not of this test.
        """
        self._check(collection)
        return self._server.documents(collection)

    @property
    def faults(self) -> FaultPlan:
        """What goes wrong with requests to this test's collections.

        `add` takes a kind and the parameters of `connectome_dagster.local.faults.Fault`.

        Example:
            connectome_server.faults.add("applied_reset", verb="batchwrite", nth=2)
        """
        return self._conditions.faults

    def switches(self, **switches: Any) -> Switches:
        """Answer the API's open questions (U1-U14) otherwise, for this test's collections.

        Args:
            switches: names and values of `connectome_dagster.local.switches.Switches`; those that
                are not named stay as they are.

        Returns:
            All switches, as they are now.

        Raises:
            ValueError: there is no such switch, or it does not take that value.

        Example:
            connectome_server.switches(page_cap=10, response_path="data")
        """
        now = self._conditions.switches
        if switches:
            self._conditions.switches = now.from_json({**now.to_json(), **switches})
        return self._conditions.switches

    @property
    def log(self) -> list[Entry]:
        """The requests to this test's collections in the order of their arrival.

        Each says what was asked, what was answered, which fault struck, and what was applied.
        """
        return self._server.log.entries(collections=self._own)

    @property
    def changes(self) -> list[tuple[Entry, Applied]]:
        """What requests changed in this test's collections, in the order of application."""
        return self._server.log.changes(collections=self._own)

    def refusing(self) -> AbstractContextManager[None]:
        """Refuse every new connection to the server while a `with` block lasts; open ones go on."""
        return self._server.refusing()

    def quiesce(self, seconds: float = 10.0) -> None:
        """Wait until no request runs and nothing is due to be applied after its answer.

        Args:
            seconds: how long at most.

        Raises:
            TimeoutError: it takes longer.
        """
        self._server.quiesce(seconds)

    def _check(self, collection: str) -> None:
        if collection not in self._own:
            raise ValueError(f"{collection!r} is no collection of this test: ask .collection()")

    def _forget(self) -> None:
        self._conditions.reset()
        if self._has_named:
            # The next test may have one of the same name: what is still due is not for it.
            self.quiesce()
        for collection in self._own:
            self._server.drop_collection(collection)


@pytest.fixture(scope="session")
def _connectome_local_server() -> Iterator[LocalServer]:
    try:
        # Starlette, uvicorn and bson: only who uses the fixture pays for them, or needs them.
        from connectome_dagster.local.server import LocalServer
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        with LocalServer() as server:
            yield server
        return
    pytest.fail(
        f"the local server needs {missing}: pip install 'connectome-dagster[local]'",
        pytrace=False,
    )


@pytest.fixture
def connectome_server(_connectome_local_server: LocalServer) -> Iterator[ConnectomeServer]:
    """A Data API on this machine: one server for the session, collections of its own per test.

    Example:

        def test_that_movies_are_found(connectome_server):
            movies = connectome_server.collection([{"title": "Movie ABC", "amount": 10}])
            with Connectome(
                base_url=connectome_server.base_url,
                read_credential=connectome_server.read_credential,
                write_credential=connectome_server.write_credential,
            ) as connectome:
                found = connectome.collection(movies).find({"amount": 10}).to_pylist()
            assert [movie["title"] for movie in found] == ["Movie ABC"]
    """
    from connectome_dagster.local.conditions import Conditions  # needs what the server needs

    server = ConnectomeServer(_connectome_local_server, Conditions())
    yield server
    server._forget()
