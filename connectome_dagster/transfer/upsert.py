"""One document for each key of a frame: updated, or created where there is none (F6).

Knows how a row is sent, looked for and sent again. What tells rows apart are their keys alone:
nothing is added to a document, and nothing but a unique index keeps two writers of one key from
creating two documents at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Answer
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    DuplicateKeys,
    OutcomeUnknown,
    RequestRejected,
)
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.contents import same_content
from connectome_dagster.transfer.cursor import ID
from connectome_dagster.transfer.key_forms import are_object_ids, check_found
from connectome_dagster.transfer.keys import DistinctKeys, KeyColumns, KeyedRow
from connectome_dagster.transfer.load import MAX_WAIT_SECONDS
from connectome_dagster.transfer.readback import PAUSES, read
from connectome_dagster.transfer.refusals import Refusals
from connectome_dagster.transfer.report import Guarantee, WriteReport
from connectome_dagster.transfer.rows import Frame, batches_of, count_of, is_in_memory
from connectome_dagster.transfer.sending import send_all
from connectome_dagster.transfer.spool import Spool
from connectome_dagster.transfer.target import Tally, Target

# What a refusal has for a status that is about the row, and not about who sends it or whereto. A
# conflict is not one of them: of two writers who create one document, the slower one updates it.
_ABOUT_THE_ROW = (400, 413, 422)
_CONFLICT = 409


def upsert(
    target: Target,
    frame: Frame,
    on: Sequence[str],
    *,
    on_reject: str = "fail",
    encoding: Encoding = DEFAULT_ENCODING,
) -> WriteReport:
    """Update the document of each row's key, or create it; one request for each row.

    Args:
        target: the collection.
        frame: the rows. One that can be read once alone is kept in a temporary file meanwhile.
        on: the columns that together name one document. Of `_id`, and of others that may not be
            what they look like, it is found out first whether text finds them there.
        on_reject: `"fail"` raises in the end when the service refuses rows, `"skip"` reports them.
        encoding: the forms of values.

    Raises:
        DuplicateKeys: two rows have one key; nothing was sent. Or two documents have.
        EncodeError: a key that is null or NaN, or a value that JSON cannot say; nothing was sent.
        OutcomeUnknown: the fate of rows could not be found out.
        RowsRejected: the service refuses rows; all others are written.
        ConnectomeError: the service refused, or could not be reached.
    """
    tally = Tally()
    call = endpoints.upsert_encoded(target.collection, b"{}", b"{}")
    keys = KeyColumns(on, encoding)
    by_id = ID in keys.names
    target.check_credentials(call, reads_back=by_id or target.verify == "always")
    if by_id:
        keys = KeyColumns(on, encoding, object_ids=are_object_ids(target, tally))
    with _checked(frame, keys) as rows:
        first = next(rows.again(), [])[:1]
        if first and target.can_read:
            check_found(target, tally, _decoded(first[0].key))
        upserts = _Upserts(target, tally)
        every = (row for chunk in rows.again() for row in chunk)
        send_all(upserts.deliver, every, _shown, target.concurrency, tally)
    rejected = upserts.refusals.check(on_reject)
    written = tally.rows + len(rejected)
    if written != rows.total:
        raise ConfigurationError(
            f"upsert in collection {target.collection!r}: the frame has changed while it was "
            f"written: it had {rows.total} rows, and {written} were sent. Run it again"
        )
    return tally.report(
        target, "upsert", rows=written, rejected=rejected, guarantee=_guarantee(target)
    )


def _shown(row: KeyedRow) -> str:
    return f"row {row.row}"


def _guarantee(target: Target) -> Guarantee:
    looks = target.can_read and target.verify != "never"
    return "verified" if looks else "at_least_once"


class _Rows(NamedTuple):
    """Rows that have been looked at: how many, and what gives them again."""

    total: int
    again: Callable[[], Iterator[list[KeyedRow]]]


@contextmanager
def _checked(frame: Frame, keys: KeyColumns) -> Iterator[_Rows]:
    """Look at every row, and give the rows again, from the frame or from where they were kept."""
    distinct = DistinctKeys(keys.names)
    count = 0
    with ExitStack() as stack:
        spool = None if is_in_memory(frame) else stack.enter_context(Spool(2))
        for chunk in _keyed(frame, keys):
            distinct.add(chunk)
            count += len(chunk)
            if spool is not None:
                spool.write([row.key for row in chunk], [row.data for row in chunk])

        def again() -> Iterator[list[KeyedRow]]:
            return _keyed(frame, keys) if spool is None else _from(spool)

        if distinct.suspected:
            distinct.check(row for chunk in again() for row in chunk)
        yield _Rows(count, again)


def _keyed(frame: Frame, keys: KeyColumns) -> Iterator[list[KeyedRow]]:
    row = 0
    for batch in batches_of(frame):
        yield keys.rows(batch, row)
        row += count_of(batch)


def _from(spool: Spool) -> Iterator[list[KeyedRow]]:
    first = 0
    for keys, data in spool.read():
        yield [KeyedRow(first + at, *each) for at, each in enumerate(zip(keys, data, strict=True))]
        first += len(keys)


class _Upserts:
    """Sends the rows of one upsert, from several threads."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self._target = target
        self._tally = tally
        # In the key of every request: the same values may be meant again tomorrow.
        self._run = f"{target.random_bits(64):016x}"
        self.refusals = Refusals("upsert", "updatewithupsert", target.collection)

    def deliver(self, row: KeyedRow) -> None:
        """Send a row until it is known to be there, or known not to be wanted."""
        attempt = 1
        while (trouble := self._send(row, attempt)) is not None:
            last = attempt == self._target.max_attempts
            if isinstance(trouble, RequestRejected):
                if trouble.status != _CONFLICT or last:
                    self.refusals.add(row.row, trouble)
                    return
            elif self._is_there(row, trouble):
                break
            elif last:
                raise trouble.saying(
                    f"It was sent {attempt} times and not found afterwards: run the same upsert "
                    "again when the service is well"
                )
            attempt += 1
            self._tally.add_retry()
        self._tally.add_row()

    def _send(self, row: KeyedRow, attempt: int) -> OutcomeUnknown | RequestRejected | None:
        call = endpoints.upsert_encoded(
            self._target.collection,
            row.key,
            row.data,
            idempotency_key=f"{self._run}-{row.row}-{attempt}",
        )
        try:
            answer = self._target.send(call)
        except OutcomeUnknown as unknown:
            self._tally.add_unanswered(call)
            unknown.keys = (_values(row),)
            return unknown
        except RequestRejected as refusal:
            self._tally.add_unanswered(call)
            if refusal.status not in (*_ABOUT_THE_ROW, _CONFLICT):
                raise
            return refusal
        self._tally.add(answer)
        return self._acknowledged(row, call, answer)

    def _acknowledged(self, row: KeyedRow, call: Call, answer: Answer) -> OutcomeUnknown | None:
        if matched(answer.body) > 1:
            raise self._several(row)
        if self._target.verify != "always" or self._look(row, same_content):
            return None
        return OutcomeUnknown(
            f"{call.verb} of collection {call.collection!r}: it was acknowledged, and the document "
            "is not found as it was sent",
            verb=call.verb,
            collection=call.collection,
            status=answer.status,
            keys=(_values(row),),
        )

    def _is_there(self, row: KeyedRow, doubt: OutcomeUnknown) -> bool:
        """Look what has become of a row; a document that has its key and says the same is it."""
        target = self._target
        if target.verify == "never":
            raise doubt.saying("verify='never': it was not looked for")
        if not target.can_read:
            raise doubt.saying("There is no read credential to look with")
        wait = doubt.retry_after or 0.0
        if wait > MAX_WAIT_SECONDS:
            raise doubt.saying(f"The service asks to wait {wait:.0f} s before it is looked for")
        if wait:
            target.sleep(wait)
        unread = ""
        try:
            return self._look(row, _is_exactly)
        except DuplicateKeys:
            raise
        except ConnectomeError as error:
            unread = type(error).__name__  # its text speaks of the read alone
        raise doubt.saying(f"Reading the key back failed too ({unread})")

    def _look(self, row: KeyedRow, is_same: Callable[[Any, Any], bool]) -> bool:
        """Whether the row's document is there and says the same.

        One that is not there is looked for again: a read may not see it yet (U13), and a request
        that is still on its way would create a second one beside what is sent anew.
        """
        key, data = _decoded(row.key), _decoded(row.data)
        found = self._found(row, key)
        for part in PAUSES if self._target.settle_seconds else ():
            if found is not None:
                break
            self._target.sleep(part * self._target.settle_seconds)
            found = self._found(row, key)
        if found is None:
            return False
        return is_same({name: found[name] for name in data if name in found}, data)

    def _found(self, row: KeyedRow, key: Mapping[str, Any]) -> dict[str, Any] | None:
        documents = read(self._target, self._tally, key, limit=2)
        if len(documents) > 1:
            raise self._several(row)
        return documents[0] if documents else None

    def _several(self, row: KeyedRow) -> DuplicateKeys:
        return DuplicateKeys(
            f"upsert in collection {self._target.collection!r}: several documents have the key "
            f"{row.key[:200].decode(errors='replace')} of row {row.row}: two writers created it at "
            "the same time, and no unique index kept them from that. Remove all but one, then run "
            "the upsert again",
            keys=[_values(row)],
        )


def _decoded(text: bytes) -> dict[str, Any]:
    (document,) = plain_documents(text)
    return document


def _is_exactly(one: Any, other: Any) -> bool:
    """Equal as MongoDB has it: 1 is 1.0, but true is not 1, and null is not nothing.

    What differs from the row is sent again, and that harms nothing.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        same_names = one.keys() == other.keys()
        return same_names and all(_is_exactly(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_exactly, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _values(row: KeyedRow) -> tuple[Any, ...]:
    return tuple(_decoded(row.key).values())


# How an answer may state how many documents the filter found.
_MATCHED = ("matchedCount", "matched_count", "matched", "nMatched")


def matched(body: bytes) -> int:
    """How many documents an answer to an update says that its filter found; 0 if it does not.

    Example:
        >>> matched(b'{"matchedCount":2}'), matched(b'{"status":"ok"}'), matched(b"ok")
        (2, 0, 0)
    """
    if b"atched" not in body:
        return 0
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0
    counts = [answer.get(name) for name in _MATCHED] if isinstance(answer, dict) else []
    return max((count for count in counts if type(count) is int), default=0)
