"""What the server says no to, each with its HTTP status. Knows neither HTTP requests nor storage.

A message says what is wrong with what was sent; it never repeats a credential.
"""

from __future__ import annotations

from typing import Any


class HttpError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of the answer.
        headers: more headers of the answer.
        more: more members of the answer, beside `error`.
    """

    status: int = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers: dict[str, str] = {}
        self.more: dict[str, Any] = {}


class BadRequest(HttpError):
    """Not JSON, a wrong shape, an operator that does not exist, a value that MongoDB refuses."""


class Unauthorized(HttpError):
    """The credential is neither of the server's two."""

    status = 401


class Forbidden(HttpError):
    """The read credential on a verb that writes, or the other way round (F2)."""

    status = 403


class NotFound(HttpError):
    """No such path, verb or collection."""

    status = 404


class NoMatch(NotFound):
    """An update without a match and without upsert (F6); U9 says with which status."""


class WrongMethod(HttpError):
    """The verb is there under another HTTP method."""

    status = 405

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.headers["Allow"] = allowed


class TooLarge(HttpError):
    """A body or a document over the server's bound."""

    status = 413


class WrongEncoding(HttpError):
    """A body that is packed, on a server that takes none (U12)."""

    status = 415


class TooMany(HttpError):
    """More requests than the rate limit allows (U8)."""

    status = 429


class SomeRefused(HttpError):
    """A batch of which not all documents were inserted (U7).

    Args:
        inserted: how many were.
        errors: position and reason of each that was not, at least one; the status is the first's.
    """

    def __init__(self, inserted: int, errors: list[tuple[int, HttpError]]) -> None:
        position, first = errors[0]
        super().__init__(f"{len(errors)} documents refused, the first at {position}: {first}")
        self.status = first.status
        self.more["inserted"] = inserted
        self.more["errors"] = [
            {"position": position, "error": str(error)} for position, error in errors
        ]
