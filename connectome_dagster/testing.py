"""Fixtures for those who test their pipelines against the local server.

A pytest plugin, loaded in every session of whoever installs the package: so it imports the server
only when a test asks for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from connectome_dagster.local.server import LocalServer

__all__ = ["ConnectomeServer", "connectome_server"]


class ConnectomeServer:
    """The session's local server as one test sees it: its collections are nobody else's.

    Attributes:
        base_url: where the server answers.
        read_credential: what serves reads (F2).
        write_credential: what serves writes, updates and deletes.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._own: list[str] = []
        self.base_url = server.base_url
        self.read_credential = server.read_credential
        self.write_credential = server.write_credential

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, collections={self._own!r})"

    def collection(self, documents: Iterable[dict[str, Any]] = ()) -> str:
        """Make a collection that lasts as long as the test.

        Args:
            documents: what it starts with, as `seed` takes it.

        Returns:
            Its id, 24 hexadecimal digits.
        """
        collection = secrets.token_hex(12)
        self._server.add_collection(collection)
        self._own.append(collection)
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

    def _check(self, collection: str) -> None:
        if collection not in self._own:
            raise ValueError(f"{collection!r} is no collection of this test: ask .collection()")

    def _forget(self) -> None:
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
    server = ConnectomeServer(_connectome_local_server)
    yield server
    server._forget()
