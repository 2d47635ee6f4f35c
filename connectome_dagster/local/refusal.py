"""What the local server's MongoDB semantics refuse, as errors whose text goes to the caller.

Bottom of `local`: everything in this folder may raise these. Knows no HTTP status.
"""

from __future__ import annotations

from typing import Any

__all__ = ["QueryError", "UpdateError", "shown"]

SHOWN_CHARACTERS = 80  # enough to recognise a value, short enough for an error line


class QueryError(ValueError):
    """A filter, projection, sort or update that MongoDB would refuse; the text says why."""


class UpdateError(QueryError):
    """Data that cannot be applied to a document (a scalar in the way, a changed `_id`, …)."""


def shown(value: Any) -> str:
    """Text of a value for an error message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
