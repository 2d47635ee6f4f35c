"""The errors of the whole package, grouped by what the caller should do next.

Stands below every floor and imports nothing, so that `frames` and `api` can raise members of one
tree without knowing each other. `connectome_dagster.api.errors` offers the same names.

    ConnectomeError
    ├─ ConfigurationError         mend the settings: nothing was sent
    ├─ RequestRejected            mend the request: the service said no and will say it again
    │   ├─ AuthenticationError    ... the credential
    │   ├─ CollectionNotFound     ... the collection id
    │   ├─ NoMatch                ... the filter, or ask for upsert
    │   ├─ QueryError             ... the query
    │   └─ PayloadTooLarge        ... one document is larger than the service takes
    ├─ ServiceUnavailable         try later: nothing happened, retries are spent
    ├─ OutcomeUnknown             look before writing again: a write may have happened
    ├─ ReadInterrupted            read again: what arrived is not everything
    ├─ MalformedResponse          not the JSON documents that were asked for
    ├─ SchemaConflict             a value does not fit the schema that was given
    ├─ SchemaDrift                a later document does not fit the schema of a stream
    ├─ EncodeError                a value of the frame cannot be said in JSON
    ├─ DuplicateKeys              a key that must be unique is not
    └─ RowsRejected               the service refused rows; the others are written

A message says what failed, where (verb and collection) and what to do next. It never holds a
credential: whoever raises one of these has redacted what came from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "AuthenticationError",
    "CollectionNotFound",
    "ConfigurationError",
    "ConnectomeError",
    "DuplicateKeys",
    "EncodeError",
    "MalformedResponse",
    "NoMatch",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "QueryError",
    "ReadInterrupted",
    "RequestRejected",
    "RowsRejected",
    "SchemaConflict",
    "SchemaDrift",
    "ServiceUnavailable",
]


class ConnectomeError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(ConnectomeError):
    """The settings cannot work; nothing was sent."""


class ServiceError(ConnectomeError):
    """An error that belongs to one call of the service.

    Attributes:
        verb: the endpoint as in the path, `"readwithquery"` for one.
        collection: the collection id.
        status: the HTTP status, None if no answer came.
        body: the start of the answer's body, redacted; `""` if there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        verb: str = "",
        collection: str = "",
        status: int | None = None,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.verb = verb
        self.collection = collection
        self.status = status
        self.body = body

    def saying(self, more: str) -> Self:
        """Return the same error with more of the story behind its message."""
        told = copy(self)
        told.args = (f"{self}. {more}",)
        return told


class RequestRejected(ServiceError):
    """The service said no, and saying the same again will not help."""


class AuthenticationError(RequestRejected):
    """The credential is not accepted for this verb (401 or 403)."""


class CollectionNotFound(RequestRejected):
    """There is no collection of this id behind this credential (404)."""


class NoMatch(RequestRejected):
    """An update without upsert found no document (F6, U9)."""


class QueryError(RequestRejected):
    """The service refuses the query: an unknown operator or a wrong shape."""


class PayloadTooLarge(RequestRejected):
    """The service refuses the size of what was sent (413)."""


class ServiceUnavailable(ServiceError):
    """Nothing happened, and the retries are spent.

    Attributes:
        retry_after: seconds that the service asked to wait, None if it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.retry_after = retry_after


class OutcomeUnknown(ServiceError):
    """A write may or may not have happened; it was not sent again.

    Attributes:
        load: the load id of what was written, None for a write without one.
        keys: the keys of the rows whose fate is unknown, as far as they have keys.
        retry_after: seconds that the service asked to wait, None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        load: str | None = None,
        keys: Sequence[Any] = (),
        retry_after: float | None = None,
        **where: Any,
    ) -> None:
        super().__init__(message, **where)
        self.load = load
        self.keys = tuple(keys)
        self.retry_after = retry_after


class ReadInterrupted(ServiceError):
    """The body broke off before its end, or more documents are there and cannot be asked for.

    Attributes:
        rows: documents that were handed out before the break.
        last_key: what the documents are ordered by, with the values in the last of those, as JSON
            shows them: `{"_id": "64f0c1…"}` for one. A filter from there on finds the rest. Empty
            where none was handed out, and where they came in no order.
    """

    def __init__(
        self,
        message: str,
        *,
        rows: int = 0,
        last_key: Mapping[str, Any] | None = None,
        **where: Any,
    ) -> None:
        super().__init__(message, **where)
        self.rows = rows
        self.last_key = dict(last_key or {})


class MalformedResponse(ServiceError):
    """The answer is not the JSON documents that were asked for."""


class SchemaConflict(ConnectomeError):
    """A value does not fit the type that its field was given, or has in other documents.

    Attributes:
        field: path of the field, `"properties.mag"` for one.
        document: position of the first such document among those that were handed out, from 0;
            None where they come in no order, with `split`.
        id: its `_id` as JSON shows it, None if it shows none.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        document: int | None = None,
        id: Any = None,  # noqa: A002 - the service's word for it
    ) -> None:
        super().__init__(message)
        self.field = field
        self.document = document
        self.id = id


class SchemaDrift(ConnectomeError):
    """A later document does not fit the schema that the first batches fixed.

    Attributes:
        field: path of the field, `"properties.mag"` for one.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class EncodeError(ConnectomeError):
    """A value of the frame cannot be said in JSON.

    Attributes:
        column: name of the column.
        row: position of the row in what was handed in, from 0; None if the whole column is meant.
    """

    def __init__(self, message: str, *, column: str = "", row: int | None = None) -> None:
        super().__init__(message)
        self.column = column
        self.row = row


class DuplicateKeys(ConnectomeError):
    """A key that must name one document names several.

    Attributes:
        keys: some of the keys, each a tuple in the order of `on`.
    """

    def __init__(self, message: str, *, keys: Sequence[tuple[Any, ...]] = ()) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class RowsRejected(ServiceError):
    """The service refused rows; all others are written.

    Attributes:
        rows: pairs of the row's position in what was handed in and the service's reason.
    """

    def __init__(self, message: str, *, rows: Sequence[tuple[int, str]] = (), **where: Any) -> None:
        super().__init__(message, **where)
        self.rows = tuple(rows)
