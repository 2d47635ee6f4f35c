"""Rows whose documents say something else: found, and updated with the fields that differ alone.

One request for each, several in flight. What has become of one whose outcome is unknown is looked
for by its key.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from connectome_dagster.api import endpoints
from connectome_dagster.errors import (
    ConfigurationError,
    NoMatch,
    OutcomeUnknown,
    RequestRejected,
)
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.compare import changed_fields
from connectome_dagster.transfer.current import Current
from connectome_dagster.transfer.known import Known
from connectome_dagster.transfer.load import MAX_WAIT_SECONDS
from connectome_dagster.transfer.passes import Passes
from connectome_dagster.transfer.readback import PAUSES
from connectome_dagster.transfer.refusals import Refusals
from connectome_dagster.transfer.sending import send_all
from connectome_dagster.transfer.target import Tally, Target

# Changed rows whose documents are read at a time, to see which fields differ.
ROWS_PER_LOOK = 200

# What a refusal of an update has for a status that is about the row.
_ABOUT_THE_ROW = (400, 409, 413, 422)


@dataclass(frozen=True)
class Change:
    """A row whose document says something else.

    Attributes:
        row: its position.
        key: what finds the document.
        said: the whole row.
        changed: the fields that differ; None if there is no document any more.
    """

    row: int
    key: dict[str, Any]
    said: dict[str, Any] = field(repr=False)
    changed: dict[str, Any] | None = field(repr=False)


class Updates:
    """Updates the documents of one sync.

    Attributes:
        updated: how many documents were.
        refusals: rows that the service refuses.
    """

    def __init__(
        self, target: Target, tally: Tally, passes: Passes, known: Known, current: Current
    ) -> None:
        self.updated = 0
        self.refusals = Refusals("sync", "updatewithupsert", target.collection)
        self._target = target
        self._tally = tally
        self._passes = passes
        self._known = known
        self._current = current
        self._lock = threading.Lock()

    def run(self) -> None:
        """Update the documents of which rows say something else, with the fields that differ."""
        if not self._known.seen:
            return
        changes = self._changes()
        first = next(changes, None)
        if first is None:
            return
        self._first_update(first)
        send_all(self._update, changes, lambda each: f"row {each.row}",
                 self._target.concurrency, self._tally, None)  # fmt: skip

    def _changes(self) -> Iterator[Change]:
        rows = self._differing()
        while some := list(islice(rows, ROWS_PER_LOOK)):
            keys = [self._passes.key_of(row) for _, row in some]
            found = self._current.documents([tuple(key.values()) for key in keys])
            by_digest = dict(zip(self._passes.digests_of(found).tolist(), found, strict=True))
            digests = self._passes.digests_of([row for _, row in some]).tolist()
            for (at, row), key, digest in zip(some, keys, digests, strict=True):
                document = by_digest.get(digest)
                if document is None:
                    yield Change(at, key, row, None)
                elif changed := changed_fields(row, document):
                    yield Change(at, key, row, changed)

    def _differing(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows whose digest is another than their document's."""
        for chunk in self._passes.again():
            there = self._known.contents(chunk.digests)
            differs = there != 0
            if differs.any():
                differs[differs] = chunk.contents(differs) != there[differs]
            places = np.flatnonzero(differs)
            if len(places):
                rows = decoded(chunk.lines(differs))
                yield from zip((places + chunk.first_row).tolist(), rows, strict=True)

    def _first_update(self, change: Change) -> None:
        """Update one document, and see that an update leaves the other fields alone (U6)."""
        key = tuple(change.key.values())
        before = self._whole(key)
        self._update(change)
        if before is None or change.changed is None:
            return
        after = self._whole(key) or {}
        lost = sorted(set(before) - set(after) - {*change.changed, "_id"})
        if lost:
            raise ConfigurationError(
                f"sync in collection {self._target.collection!r}: an update with one field removed "
                f"others ({', '.join(lost[:10])}) of the document with the key "
                f"{msgspec.json.encode(change.key).decode()[:200]}: this service replaces documents"
                " (U6), so use upsert with all columns, or replace. No other document was updated"
            )

    def _whole(self, key: tuple[Any, ...]) -> dict[str, Any] | None:
        found = self._target.find(self._current.of_keys([key]), limit=1)
        documents = found.to_pylist()
        self._tally.add_read(found.report)
        return documents[0] if documents else None

    def _update(self, change: Change) -> None:
        """Send one change until it is known to be there, or known not to be wanted."""
        for left in reversed(range(self._target.max_attempts)):
            trouble = self._send(change)
            if trouble is None or self._is_there(change, trouble):
                break
            if not left:
                raise trouble.saying("Its document says something else: run the same sync again")
            self._tally.add_retry()

    def _send(self, change: Change) -> OutcomeUnknown | None:
        data = change.said if change.changed is None else change.changed
        call = endpoints.update(
            self._target.collection, change.key, data, upsert=change.changed is None
        )
        try:
            answer = self._target.send(call)
        except NoMatch:  # deleted since it was read
            self._tally.add_unanswered(call)
            return self._send(Change(change.row, change.key, change.said, None))
        except OutcomeUnknown as doubt:
            self._tally.add_unanswered(call)
            doubt.keys = (tuple(change.key.values()),)
            return doubt
        except RequestRejected as refusal:
            self._tally.add_unanswered(call)
            if refusal.status not in _ABOUT_THE_ROW:
                raise
            self.refusals.add(change.row, refusal)
            return None
        self._tally.add(answer)
        if self._target.verify == "always":
            return OutcomeUnknown(
                f"{call.verb} of collection {call.collection!r}: it was acknowledged, and the "
                "document does not say so",
                verb=call.verb,
                collection=call.collection,
                status=answer.status,
                keys=(tuple(change.key.values()),),
            )
        self._landed()
        return None

    def _is_there(self, change: Change, doubt: OutcomeUnknown) -> bool:
        """Look whether the document says what the row says, as soon as reads see it (U13)."""
        if self._target.verify == "never":
            raise doubt.saying("verify='never': it was not looked for")
        if doubt.retry_after:
            self._target.sleep(min(doubt.retry_after, MAX_WAIT_SECONDS))
        for part in (0.0, *(PAUSES if self._target.settle_seconds else ())):
            self._target.sleep(part * self._target.settle_seconds)
            document = self._whole(tuple(change.key.values()))
            if document is not None and not changed_fields(change.said, document):
                self._landed()
                return True
        return False

    def _landed(self) -> None:
        with self._lock:
            self.updated += 1
            self._tally.rows += 1


def decoded(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The values of encoded rows."""
    return plain_documents(b",".join(lines)) if lines else []
