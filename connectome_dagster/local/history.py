"""What a collection was a while ago: the changes of the last seconds, to be taken back.

Knows no clock: the moments are its caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from connectome_dagster.local.collection import Stored

# Documents whose former state is kept: a few hundred MB at most, and more than a test writes in
# the seconds for which a read lags behind.
MAX_CHANGES = 1_000_000


class History:
    """Former states of documents by the moment at which they were replaced.

    >>> history = History()
    >>> history.note(10.0, [(1, None)], seconds=5.0)
    >>> history.before(9.0, {1: Stored(1, {"_id": "a"}, b'{"_id":"a"}', True)})
    []
    """

    def __init__(self, max_changes: int = MAX_CHANGES) -> None:
        self._max_changes = max_changes
        self._changes: deque[tuple[float, int, Stored | None]] = deque()

    def note(
        self, moment: float, changes: Iterable[tuple[int, Stored | None]], *, seconds: float
    ) -> None:
        """Take a change down, and forget those that nobody may ask for any more.

        Args:
            moment: when the change becomes visible.
            changes: sequence number and former state, None for a document that is new.
            seconds: how far back a reader may look.
        """
        self._changes.extend((moment, seq, before) for seq, before in changes)
        while self._changes and (
            self._changes[0][0] < moment - seconds or len(self._changes) > self._max_changes
        ):
            self._changes.popleft()

    def before(self, moment: float, rows: Mapping[int, Stored]) -> list[Stored]:
        """The documents as they were at a moment, in natural order, from how they are now."""
        past = dict(rows)
        for changed, seq, before in reversed(self._changes):
            if changed <= moment:
                break
            if before is None:
                past.pop(seq, None)
            else:
                past[seq] = before
        return [past[seq] for seq in sorted(past)]
