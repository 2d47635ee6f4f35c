"""What the server says no to, each with its HTTP status. Knows neither HTTP requests nor storage.

A message says what is wrong with what was sent; it never repeats a credential.
"""

from __future__ import annotations

from typing import ClassVar


class HttpError(Exception):
    """A request that is answered with an error and changes nothing."""

    status: ClassVar[int] = 400


class BadRequest(HttpError):
    """Not JSON, a wrong shape, an operator that does not exist, a value that MongoDB refuses."""


class Unauthorized(HttpError):
    """The credential is neither of the server's two."""

    status = 401


class Forbidden(HttpError):
    """The read credential on a verb that writes, or the other way round (F2)."""

    status = 403


class NotFound(HttpError):
    """No such path, verb or collection, or an update without a match (F6, U9)."""

    status = 404


class WrongMethod(HttpError):
    """The verb is there under another HTTP method."""

    status = 405

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class TooLarge(HttpError):
    """A body or a document over the server's bound."""

    status = 413
