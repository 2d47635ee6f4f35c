"""Rows that the service refuses by themselves: gathered from several threads, told in the end.

Values only; whoever sends finds out which rows they are.
"""

from __future__ import annotations

import threading

from connectome_dagster.errors import RequestRejected, RowsRejected

# Refused rows that are told one by one; a service that refuses more refuses the whole.
MAX_REJECTED = 1000

# Of a service's own reason, and of the message that tells all of them, so much is kept.
REASON_CHARACTERS = 300
REASONS_SHOWN = 5


class Refusals:
    """Refused rows with the service's reasons, in the order of the rows.

    Args:
        operation: what was done to the collection, for messages.
        verb: the endpoint that refused, for the error.
        collection: the collection id.

    Example:
        >>> refusals = Refusals("upsert", "updatewithupsert", "movies")
        >>> refusals.add(7, RequestRejected("no", status=400, body="too long"))
        >>> refusals.rows
        ((7, 'status 400: too long'),)
    """

    def __init__(self, operation: str, verb: str, collection: str) -> None:
        self._operation = operation
        self._verb = verb
        self._collection = collection
        self._rows: list[tuple[int, str]] = []
        self._lock = threading.Lock()

    @property
    def rows(self) -> tuple[tuple[int, str], ...]:
        """Positions and reasons."""
        with self._lock:
            return tuple(sorted(self._rows))

    def add(self, row: int, refusal: RequestRejected) -> None:
        """Take note of a refused row.

        Raises:
            RowsRejected: these are too many to go on.
        """
        reason = f"status {refusal.status}: {refusal.body or str(refusal)}"[:REASON_CHARACTERS]
        with self._lock:
            self._rows.append((row, reason))
            too_many = len(self._rows) > MAX_REJECTED
        if too_many:
            raise self._error(f"these are more than {MAX_REJECTED}, so that the rest was not sent")

    def join(self, others: Refusals) -> None:
        """Take note of what others have."""
        theirs = others.rows
        with self._lock:
            self._rows += theirs

    def check(self, on_reject: str) -> tuple[tuple[int, str], ...]:
        """Return the refused rows.

        Raises:
            RowsRejected: there are some, and `on_reject` is not `"skip"`.
        """
        rows = self.rows
        if rows and on_reject != "skip":
            raise self._error(
                "all others are there: mend them and run it again, or pass on_reject='skip' to go "
                "on without them"
            )
        return rows

    def _error(self, what: str) -> RowsRejected:
        rows = self.rows
        shown = "; ".join(f"row {row}: {reason}" for row, reason in rows[:REASONS_SHOWN])
        more = len(rows) - REASONS_SHOWN
        others = f"; and {more} more" if more > 0 else ""
        return RowsRejected(
            f"{self._operation} in collection {self._collection!r}: the service refuses "
            f"{len(rows)} rows ({shown}{others}); {what}",
            rows=rows,
            verb=self._verb,
            collection=self._collection,
        )
