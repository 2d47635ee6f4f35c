"""Collections on the real local server, and on servers that misbehave on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from connectome_dagster.api.client import Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.retry import RetryPolicy
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer import target as targets
from connectome_dagster.transfer.collection import Collection
from connectome_dagster.transfer.target import Target

READ_SECRET = "read-5ecret-9f3b2c"
WRITE_SECRET = "write-5ecret-71d0aa"

Open = Callable[..., Collection]


@pytest.fixture
def open_collection() -> Iterator[Open]:
    """Opens a collection of any server; its client does not sleep between attempts."""
    with ExitStack() as stack:

        def opened(
            base_url: str,
            id: str = "movies",  # noqa: A002 - as in `Connectome.collection`
            *,
            read: str | None = READ_SECRET,
            write: str | None = WRITE_SECRET,
            concurrency: int = 2,
            batch_rows: int = 10,
            batch_bytes: int = 1 << 20,
            read_timeout: float = 20.0,
            max_attempts: int = 5,
            response_path: str | None = None,
            settle_seconds: float = 0.02,
            **settings: Any,
        ) -> Collection:
            client = Client(
                base_url,
                read_timeout=read_timeout,
                retry=RetryPolicy(max_attempts=max_attempts),
                pool_size=concurrency + 1,
                sleep=lambda _seconds: None,
            )
            stack.enter_context(closing(client))
            target = Target(
                client,
                Credentials(read, write),
                id,
                concurrency,
                batch_rows,
                batch_bytes,
                response_path,
                max_attempts=max_attempts,
                settle_seconds=settle_seconds,
                **settings,
            )
            return Collection(target, base_url)

        yield opened


class Local:
    """Collections on the local server, and what they hold."""

    def __init__(self, server: ConnectomeServer, opened: Open) -> None:
        self.server = server
        self._opened = opened

    def collection(
        self,
        documents: Iterable[dict[str, Any]] = (),
        *,
        through: str | None = None,
        **settings: Any,
    ) -> Collection:
        """A new collection, reached directly or through another address."""
        settings = {
            "read": self.server.read_credential,
            "write": self.server.write_credential,
            **settings,
        }
        return self._opened(
            through or self.server.base_url, self.server.collection(documents), **settings
        )

    def again(
        self, collection: Collection, *, through: str | None = None, **settings: Any
    ) -> Collection:
        """The same collection, with other settings or reached through another address."""
        settings = {
            "read": self.server.read_credential,
            "write": self.server.write_credential,
            **settings,
        }
        return self._opened(through or self.server.base_url, collection.id, **settings)

    def documents(self, collection: Collection) -> list[dict[str, Any]]:
        """What is there, without `_id` and without bookkeeping."""
        return [
            {name: value for name, value in document.items() if name not in ("_id", "_dagster")}
            for document in self.server.documents(collection.id)
        ]


@pytest.fixture
def local(connectome_server: ConnectomeServer, open_collection: Open) -> Local:
    return Local(connectome_server, open_collection)


ToTarget = Callable[..., targets.Target]


@pytest.fixture
def to_target(connectome_server: ConnectomeServer) -> Iterator[ToTarget]:
    """Gives the target of a collection of the local server, for what is below `Collection`."""
    with ExitStack() as stack:

        def target(
            collection: str,
            *,
            base_url: str = "",
            read: str | None = connectome_server.read_credential,
            write: str | None = connectome_server.write_credential,
            **settings: Any,
        ) -> targets.Target:
            client = Client(base_url or connectome_server.base_url, sleep=lambda _seconds: None)
            stack.enter_context(closing(client))
            settings = {"concurrency": 2, "batch_rows": 10, **settings}
            return targets.Target(client, Credentials(read, write), collection, **settings)

        yield target
