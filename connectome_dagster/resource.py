"""The connection to the service as a Dagster resource: settings in, a `Connectome` out.

Knows Dagster's lifecycle of resources and which fields are secret. Opens nothing until it is first
used, and does not know how data moves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._config.field_utils import is_dagster_env_var  # the test Dagster itself resolves by
from pydantic import ConfigDict, Field, JsonValue, PrivateAttr

from connectome_dagster.api.credentials import ENVIRONMENT, redact
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.transfer.collection import Collection, Connectome
from connectome_dagster.transfer.marks import BOOKKEEPING
from connectome_dagster.transfer.search import PAGE_ROWS
from connectome_dagster.transfer.target import Idempotency, Verify

__all__ = ["ConnectomeResource"]

_SECRET: dict[str, JsonValue] = {"dagster__is_secret": True}  # masks the field in the UI
_SECRET_FIELDS = ("read_credential", "write_credential")


class ConnectomeResource(dg.ConfigurableResource[Any]):
    """The Connectome Data API, for assets, ops, sensors and the IO manager.

    Give credentials as `dg.EnvVar`: a text in code is kept in Dagster's snapshots. One client is
    made when it is first needed, shared by everything that uses this resource in a process, and
    closed when the run or step ends. Making the resource touches no network.

    Args:
        base_url: address of the service; None takes `CONNECTOME_BASE_URL` from the environment of
            the run, and the service's own address (F1) where that is not set.
        read_credential: serves reads (F2); None takes `CONNECTOME_READ_CREDENTIAL` from there.
        write_credential: serves writes, updates and deletes (F2); None takes
            `CONNECTOME_WRITE_CREDENTIAL` from there.
        concurrency: requests in flight at most.
        batch_rows: documents in one body at most.
        batch_bytes: bytes of one body at most.
        page_rows: documents at most that a read in pages asks for at a time.
        connect_timeout: seconds for a connection to come about.
        read_timeout: seconds without a byte of the answer.
        max_attempts: times that a request is sent at most, where repeating it is harmless.
        response_path: field of the answer that holds the documents; None finds it (U1).
        no_match_status: HTTP status by which an update says that nothing matched (U9).
        idempotency: how rows are known that were written already: `"field"`, `"id"` or `"none"`,
            as for `Connectome`.
        verify: when it is looked whether what was written is there: `"unknown"`, `"always"` or
            `"never"`, as for `Connectome`.
        settle_seconds: seconds for which a read may not see yet what was acknowledged (U13).
        bookkeeping: name of the field in documents that the package's own note stands in.
        compress_requests: whether larger bodies are sent as gzip (U12).

    Raises:
        ConfigurationError: when it is used: a credential is missing or cannot be one, or an
            `EnvVar` was never resolved, because no run did it.

    Example:
        >>> import dagster as dg
        >>> @dg.asset
        ... def movies(connectome: ConnectomeResource) -> None:
        ...     print(connectome.collection("movies").find({"amount": {"$gte": 30}}).to_pandas())
        >>> defs = dg.Definitions(
        ...     assets=[movies],
        ...     resources={
        ...         "connectome": ConnectomeResource(
        ...             base_url=dg.EnvVar("CONNECTOME_BASE_URL"),
        ...             read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
        ...         )
        ...     },
        ... )
    """

    # Unknown settings are mistakes, and an error about a wrong one must not print its value.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    base_url: str | None = Field(
        default=None,
        description="Address of the service; if not set, CONNECTOME_BASE_URL or the service's own.",
    )
    read_credential: str | None = Field(
        default=None,
        json_schema_extra=_SECRET,
        description="Credential that serves reads. Use an environment variable.",
    )
    write_credential: str | None = Field(
        default=None,
        json_schema_extra=_SECRET,
        description="Credential that serves writes, updates and deletes. "
        "Use an environment variable.",
    )
    concurrency: int = Field(default=8, description="Requests in flight at most.")
    batch_rows: int = Field(default=1000, description="Documents in one body at most.")
    batch_bytes: int = Field(default=1 << 20, description="Bytes of one body at most.")
    page_rows: int = Field(
        default=PAGE_ROWS, description="Documents that a read in pages asks for at a time, at most."
    )
    connect_timeout: float = Field(
        default=10.0, description="Seconds for a connection to come about."
    )
    read_timeout: float = Field(default=60.0, description="Seconds without a byte of the answer.")
    max_attempts: int = Field(
        default=5, description="Times that a request is sent at most, where repeating is harmless."
    )
    response_path: str | None = Field(
        default=None, description="Field of the answer that holds the documents; found if not set."
    )
    no_match_status: int = Field(
        default=404, description="HTTP status by which an update says that nothing matched."
    )
    idempotency: Idempotency = Field(
        default="field",
        description="How rows are known that were written already: by a note in each document, by "
        "its _id as well, or not at all.",
    )
    verify: Verify = Field(
        default="unknown",
        description="When it is looked whether what was written is there: where the outcome is "
        "unknown, always, or never.",
    )
    settle_seconds: float = Field(
        default=1.0,
        description="Seconds for which a read may not see yet what was acknowledged.",
    )
    bookkeeping: str = Field(
        default=BOOKKEEPING,
        description="Name of the field in documents that the package's own note stands in.",
    )
    compress_requests: bool = Field(
        default=False, description="Whether larger bodies are sent as gzip."
    )

    # By process id: a client that a fork inherited shares its sockets with the parent.
    _clients: dict[int, Connectome] = PrivateAttr(default_factory=dict)
    _in_execution: bool = PrivateAttr(default=False)

    def collection(
        self,
        id: str,  # noqa: A002 - the service's own word, as on Connectome
        *,
        read_credential: str | None = None,
        write_credential: str | None = None,
    ) -> Collection:
        """A collection of the service, to read from and write to. Sends nothing.

        Args:
            id: the collection id, as the service's app shows it.
            read_credential: overrides the resource's for this collection.
            write_credential: overrides the resource's for this collection.

        Raises:
            ConfigurationError: an id or a setting that cannot work.
        """
        return self._client().collection(
            id,
            read_credential=_resolved("read_credential", read_credential),
            write_credential=_resolved("write_credential", write_credential),
        )

    @contextmanager
    def get_client(self) -> Iterator[Connectome]:
        """The engine behind this resource, as a context manager.

        In a run it is the run's own client and stays open until the run ends; elsewhere it is a new
        one that is closed at the end of the `with`.

        Raises:
            ConfigurationError: a setting that cannot work.

        Example:
            >>> with ConnectomeResource(read_credential="…").get_client() as connectome:
            ...     movies = connectome.collection("movies")
        """
        if self._in_execution:
            yield self._client()
            return
        with self._connect() as client:
            yield client

    def redact(self, text: str) -> str:
        """The text with `***` for each occurrence of a credential of this resource.

        Example:
            >>> ConnectomeResource(read_credential="r-12345").redact("key: r-12345")
            'key: ***'
        """
        given = [getattr(self, name) for name in _SECRET_FIELDS]
        found = [os.environ.get(variable) for variable in ENVIRONMENT.values()]
        return redact(text, [value for value in (*given, *found) if value])

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Take note that a run begins; the client is made when it is needed."""
        self._in_execution = True

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Close the client, if one was made."""
        self._in_execution = False
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _client(self) -> Connectome:
        mine = os.getpid()
        if mine not in self._clients:
            made = self._connect()
            # Threads may race; there is no lock that a fork could inherit in a locked state.
            if self._clients.setdefault(mine, made) is not made:
                made.close()
        return self._clients[mine]

    def _connect(self) -> Connectome:
        settings = {name: _resolved(name, getattr(self, name)) for name in type(self).model_fields}
        return Connectome(**settings)

    def __reduce__(self) -> tuple[Callable[..., ConnectomeResource], tuple[Any, ...]]:
        # Settings travel to another process, sockets and Dagster's state of this one don't.
        settings = {name: getattr(self, name) for name in type(self).model_fields}
        return _rebuilt, (type(self), settings)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, "***" if name in _SECRET_FIELDS and value is not None else value


def _rebuilt(kind: type[ConnectomeResource], settings: dict[str, Any]) -> ConnectomeResource:
    return kind(**settings)


def _resolved(setting: str, value: Any) -> Any:
    """`value`, unless it is an environment variable that nobody has read: its text is a name."""
    if is_dagster_env_var(value):
        raise ConfigurationError(
            f"{setting} is an EnvVar that was not resolved: Dagster does so when a run starts. "
            "Outside of a run use `with ConnectomeResource(...).process_config_and_initialize_cm()"
            " as connectome:`, or give the value of the environment variable itself."
        )
    return value
