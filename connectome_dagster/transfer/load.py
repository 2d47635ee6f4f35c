"""One load into a collection: its rows are inserted in batches, and each is there once.

What makes that so is in the documents: a load id, a key for each row, and the attempt that it was
sent in. Knows how a batch is sent, looked for and sent again; not what a write does beside that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NoReturn

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestRejected,
)
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.batches import RowBatch
from connectome_dagster.transfer.contents import same_content
from connectome_dagster.transfer.copies import leave_one
from connectome_dagster.transfer.identity import attempt
from connectome_dagster.transfer.readback import PAUSES, note_of, read
from connectome_dagster.transfer.refusals import Refusals
from connectome_dagster.transfer.run import Run
from connectome_dagster.transfer.sending import saying, send_all
from connectome_dagster.transfer.target import Tally, Target

# What a refusal that may be about one document of many has for a status.
_ABOUT_DOCUMENTS = (400, 409, 422)

# How long a wait that the service asks for is put up with before it is looked what has become of
# a request; as for requests that are sent again.
MAX_WAIT_SECONDS = 60.0

# How an answer may state how many documents were inserted, or their ids.
_COUNTS = ("insertedCount", "inserted_count", "inserted", "nInserted", "n", "count")
_IDS = ("insertedIds", "inserted_ids")


@dataclass(frozen=True)
class _Sending:
    """A batch that is to be sent.

    Attributes:
        batch: its rows.
        number: of the attempt; every sending has one of its own.
        doubts: how often it was sent already, and not found afterwards.
        replaces: whether there are documents with the keys of some of its rows that say something
            else: those of this run alone are the rows then.
    """

    batch: RowBatch
    number: int = 1
    doubts: int = 0
    replaces: bool = False

    def again(self, batch: RowBatch, *, doubtful: bool = False) -> _Sending:
        doubts = self.doubts + doubtful
        return replace(self, batch=batch, number=self.number + 1, doubts=doubts)


class Load:
    """Inserts the rows of one run, from several threads.

    Args:
        target: the collection.
        tally: told what is sent, and how many rows have landed.
        run: None writes documents as they are: what becomes of them is not looked for.
        as_ids: whether keys are `_id`s as well.
        compare: whether a row that was there before this run is there only if its document says
            the same; else its key is enough.

    Attributes:
        unchanged: rows that were there before.
        refusals: rows that the service refuses.
        rejected_keys: their keys.
    """

    def __init__(
        self,
        target: Target,
        tally: Tally,
        run: Run | None,
        *,
        as_ids: bool = False,
        compare: bool = False,
    ) -> None:
        self.unchanged = 0
        self.refusals = Refusals("insert", "batchwrite", target.collection)
        self.rejected_keys: list[str] = []
        self._target = target
        self._tally = tally
        self._run = run
        self._as_ids = as_ids
        self._marks = target.marks
        self._load = "" if run is None else run.load
        self._token = "" if run is None else run.token
        self._fresh = run is None or run.fresh
        self._compare = compare
        self._lock = threading.Lock()
        self._ids_checked = not as_ids
        self._too_large = sys.maxsize  # bytes of the smallest body that was refused as that

    @property
    def inserted(self) -> int:
        """Rows that this run has inserted."""
        return self._tally.rows - self.unchanged

    def insert(self, batches: Iterable[RowBatch]) -> None:
        """Insert all of them, several at a time.

        Raises:
            OutcomeUnknown: it could not be found out whether rows are there.
            RowsRejected: the service refuses more rows than are told one by one.
            ConnectomeError: the service refused, or could not be reached.
        """
        concurrency = self._target.concurrency
        load = self._load or None
        send_all(self._deliver, batches, lambda each: each.shown, concurrency, self._tally, load)

    def _deliver(self, batch: RowBatch) -> None:
        waiting = [_Sending(batch)]
        if not self._fresh:
            sending = self._not_there_before(batch)
            self._landed(len(batch) - len(sending.batch), unchanged=True)
            waiting = [sending] if len(sending.batch) else []
        while waiting:
            waiting += self._sent(waiting.pop())

    def _sent(self, sending: _Sending) -> list[_Sending]:
        """Send a batch; return what of it has to be sent once more."""
        call = self._call(sending)
        size = len(call.body or b"")
        if size >= self._too_large and len(sending.batch) > 1:
            return [replace(sending, batch=half) for half in sending.batch.halves()]
        trouble = self._send(sending, call)
        if trouble is None:
            return self._acknowledged(sending)
        if isinstance(trouble, OutcomeUnknown):
            return self._in_doubt(sending, trouble)
        if isinstance(trouble, PayloadTooLarge):
            if len(sending.batch) == 1:
                self._reject(sending.batch, trouble)
                return []
            self._too_large = min(size, self._too_large)
            return [sending.again(half) for half in sending.batch.halves()]
        if trouble.status not in _ABOUT_DOCUMENTS:
            raise trouble
        return self._refused(sending, trouble)

    def _call(self, sending: _Sending) -> Call:
        batch, run = sending.batch, self._run
        if run is None:
            return endpoints.batch_write(self._target.collection, batch.plain())
        tried = attempt(run.token, sending.number)
        body = self._marks.array(batch.lines, run.load, batch.keys, tried, as_ids=self._as_ids)
        call = endpoints.batch_write(self._target.collection, body)
        return replace(call, idempotency_key=_name_of(run.load, tried, batch.keys))

    def _send(self, sending: _Sending, call: Call) -> OutcomeUnknown | RequestRejected | None:
        batch = sending.batch
        if sending.number > 1:
            self._tally.add_retry()
        try:
            answer = self._target.send(call)
        except (OutcomeUnknown, RequestRejected) as error:
            self._tally.add_unanswered(call)
            return error
        self._tally.add(answer)
        stated = stated_count(answer.body)
        if stated is None or stated == len(batch):
            return None
        return OutcomeUnknown(
            f"{call.verb} of collection {call.collection!r}: {len(batch)} documents were sent, and "
            f"the service answered that it inserted {stated}",
            verb=call.verb,
            collection=call.collection,
            status=answer.status,
        )

    def _acknowledged(self, sending: _Sending) -> list[_Sending]:
        with self._lock:
            self._tally.batches += 1
        if not self._ids_checked:
            self._check_ids(sending.batch)
        # What takes the place of documents that were changed has to be there before they go.
        if self._run is None or not (self._target.verify == "always" or sending.replaces):
            self._landed(len(sending.batch))
            return []
        missing = self._settled(sending)
        self._landed(len(sending.batch) - len(missing))
        if not len(missing):
            return []
        doubt = OutcomeUnknown(
            f"batchwrite of collection {self._target.collection!r}: {len(sending.batch)} documents "
            f"were acknowledged, and {len(missing)} of them are not found",
            verb="batchwrite",
            collection=self._target.collection,
        )
        return self._once_more(sending, missing, doubt)

    def _in_doubt(self, sending: _Sending, doubt: OutcomeUnknown) -> list[_Sending]:
        """Look what has become of a batch, and send only what is missing."""
        batch, target = sending.batch, self._target
        doubt.keys = tuple(batch.texts)
        why = self._why_not_looked_for()
        if why:
            raise doubt.saying(f"It was not looked for: {why}")
        wait = doubt.retry_after or 0.0
        if wait > MAX_WAIT_SECONDS:
            raise doubt.saying(f"The service asks to wait {wait:.0f} s before it is looked for")
        if wait:
            target.sleep(wait)
        missing = self._looked_for(self._settled, sending, doubt)
        self._landed(len(batch) - len(missing))
        return self._once_more(sending, missing, doubt) if len(missing) else []

    def _once_more(
        self, sending: _Sending, missing: RowBatch, doubt: OutcomeUnknown
    ) -> list[_Sending]:
        if sending.doubts + 1 < self._target.max_attempts:
            return [sending.again(missing, doubtful=True)]
        doubt.keys = tuple(missing.texts)
        raise doubt.saying(
            f"{len(missing)} rows were not found, and {sending.doubts + 1} attempts are spent: run "
            "the same write again when the service is well"
        )

    def _refused(self, sending: _Sending, refusal: RequestRejected) -> list[_Sending]:
        """Find what a refusal is about: some of the batch may be there all the same (U7)."""
        batch = sending.batch
        why = self._why_not_looked_for()
        if why:
            raise saying(refusal, f"Some of the batch may be there; it is not looked for: {why}")
        # Of a whole batch much may be there, which a read sees late; of its parts little.
        look = self._settled if sending.number == 1 else self._missing
        missing = self._looked_for(look, sending, refusal)
        self._landed(len(batch) - len(missing))
        if not len(missing):
            return []
        if len(batch) == 1:
            self._reject(batch, refusal)
            return []
        if len(missing) < len(batch):
            return [sending.again(missing)]
        return [sending.again(half) for half in missing.halves()]

    def _why_not_looked_for(self) -> str:
        if self._run is None:
            return "idempotency='none' gives documents nothing to be found by"
        if self._target.verify == "never":
            return "verify='never'"
        return "" if self._target.can_read else "there is no read credential to look with"

    def _looked_for(
        self, look: Callable[[_Sending], RowBatch], sending: _Sending, trouble: ConnectomeError
    ) -> RowBatch:
        unread = ""
        try:
            return look(sending)
        except ConnectomeError as error:
            unread = type(error).__name__  # its text speaks of the read alone
        raise saying(trouble, f"Reading back what of it is there failed too ({unread})")

    def _settled(self, sending: _Sending) -> RowBatch:
        """What is missing also when a read that did not see it yet has had its time (U13)."""
        missing = self._missing(sending)
        for part in PAUSES if self._target.settle_seconds else ():
            if not len(missing):
                break
            self._target.sleep(part * self._target.settle_seconds)
            missing = self._missing(replace(sending, batch=missing))
        return missing

    def _missing(self, sending: _Sending) -> RowBatch:
        """What of a batch that was sent is not there."""
        which = self._marks.run(self._token) if sending.replaces else {}
        return self._look(sending.batch, which, by_id=self._as_ids)

    def _not_there_before(self, batch: RowBatch) -> _Sending:
        """What of a batch no earlier run has written: it may have given no `_id`s."""
        if not self._compare:
            return _Sending(self._look(batch, {}))
        rows = plain_documents(batch.plain()[1:-1])
        hidden = ("_id", self._marks.field)
        edited: dict[str, str] = {}

        def is_row(document: dict[str, Any], place: int) -> bool:
            shown = {name: value for name, value in document.items() if name not in hidden}
            same = same_content(shown, rows[place])
            if not same:
                note = note_of(document, self._marks.field)
                edited[str(note.get("key"))] = str(note.get("attempt"))
            return same

        missing = self._look(batch, {}, is_row)
        if edited and self._as_ids:
            self._make_room(edited)
        return _Sending(missing, replaces=bool(edited))

    def _make_room(self, edited: Mapping[str, str]) -> None:
        """Remove documents that were changed since: where an `_id` is unique, there is but one."""
        for tried in sorted(set(edited.values())):
            keys = [key for key, each in edited.items() if each == tried]
            copies = self._marks.copies(self._load, keys, [tried])
            self._tally.add(self._target.send(_removal(self._target, copies)))

    def _look(
        self,
        batch: RowBatch,
        which: Mapping[str, Any],
        is_row: Callable[[dict[str, Any], int], bool] | None = None,
        *,
        by_id: bool = False,
    ) -> RowBatch:
        """The rows of a batch whose keys are not found, or only in documents that are not the row.

        Asked for until an answer has none of what is still asked for: so a cap on the documents
        of one response (U5) costs a request, and is not taken for absence.
        """
        missing = {key: place for place, key in enumerate(batch.texts)}
        asked = set(missing)
        twice: set[str] = set()
        most = len(asked)
        while asked:
            keys = sorted(asked)[:most]
            query = {"_id": {"$in": keys}} if by_id else self._marks.of_keys(self._load, keys)
            documents = self._found({**query, **which}, keys, whole=is_row is not None)
            if documents is None:
                most = len(keys) // 2
                continue
            answered: set[str] = set()
            for document in documents:
                key = note_of(document, self._marks.field).get("key")
                if not isinstance(key, str) or key not in asked:
                    continue
                (twice if key in answered else answered).add(key)
                if key in missing and (is_row is None or is_row(document, missing[key])):
                    del missing[key]
            asked -= answered or set(keys)
        if twice and not self._compare:  # else they are looked at when all rows are there
            leave_one(self._target, self._tally, self._load, sorted(twice))
        return batch.at(sorted(missing.values()))

    def _found(
        self, query: Mapping[str, Any], keys: Sequence[str], *, whole: bool
    ) -> list[dict[str, Any]] | None:
        """Documents with keys, None if the service takes no question about so many (U8)."""
        project = None if whole else self._marks.projection
        try:
            return read(self._target, self._tally, query, project=project)
        except PayloadTooLarge:
            if len(keys) == 1:
                raise
        return None

    def _landed(self, rows: int, *, unchanged: bool = False) -> None:
        with self._lock:
            self._tally.rows += rows
            self.unchanged += rows if unchanged else 0

    def _reject(self, batch: RowBatch, refusal: RequestRejected) -> None:
        with self._lock:
            self.rejected_keys += batch.texts
        self.refusals.add(batch.rows[0], refusal)

    def _check_ids(self, batch: RowBatch) -> None:
        """Find out, once, whether an `_id` that was sent is the one that is there (U3)."""
        with self._lock:
            if self._ids_checked:
                return
            missing = self._settled(_Sending(batch.at([0])))
            self._ids_checked = True
        if len(missing):
            self._no_ids()

    def _no_ids(self) -> NoReturn:
        raise ConfigurationError(
            f"batchwrite of collection {self._target.collection!r}: a document is not found by the "
            "_id that it was sent with, so that idempotency='id' cannot work here: set "
            "idempotency='field'. What was inserted so far is found, and can be deleted, by "
            f"{{{self._marks.load!r}: {self._load!r}}}"
        )


def _name_of(load: str, tried: str, keys: Sequence[bytes]) -> str:
    """What names one sending of these rows and no other."""
    return f"{load}-{tried}-{blake2b(b''.join(keys), digest_size=12).hexdigest()}"


def _removal(target: Target, query: Mapping[str, Any]) -> Call:
    return endpoints.batch_delete(target.collection, query)


def stated_count(body: bytes) -> int | None:
    """How many documents an answer to a batch says were inserted, None if it does not (U7).

    Example:
        >>> stated_count(b'{"insertedCount":3}'), stated_count(b'{"insertedIds":["a"]}')
        (3, 1)
        >>> stated_count(b'{"status":"ok"}') is None
        True
    """
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(answer, dict):
        return None
    for name in (*_COUNTS, *_IDS):
        value = answer.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, (list, dict)) and (name in _IDS or isinstance(value, list)):
            return len(value)
    return None
