"""Reads completely: a stream or pages that go on from the last document until the end is proved.

Knows what is asked and in which order, and when there is no more. How a response is fetched and
what its documents become is the caller's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import msgspec

from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    PayloadTooLarge,
    QueryError,
    ReadInterrupted,
    RequestRejected,
    ServiceError,
    ServiceUnavailable,
)
from connectome_dagster.transfer.cursor import (
    ID,
    Filter,
    Key,
    Order,
    Unprovable,
    Way,
    any_of,
    both,
    exactly,
    from_here,
    is_certain,
    sayings,
    shown,
    shows_id,
    ways,
)
from connectome_dagster.transfer.looks import FRUITLESS_BREAKS, Looks, documents_of
from connectome_dagster.transfer.ranges import between, ranges
from connectome_dagster.transfer.search import Paging

_log = logging.getLogger(__name__)

T = TypeVar("T")

# What a page should not exceed by much, as its predecessor shows: a page that breaks off is read
# again from its last document, and a service may have to hold it whole.
PAGE_BYTES = 32 << 20

# Documents of the first page, while nobody knows how large they are: of a megabyte each, they are a
# gigabyte, and of a hundred bytes a request more is no cost.
FIRST_PAGE_ROWS = 1000

# Pages in a row that bring nothing although documents follow: one that was inserted in between
# comes with the next, and what does not come by then is out of the filter's reach.
LOOKS_AT_THE_END = 3


@dataclass
class Progress:
    """What a read has come to.

    Attributes:
        rows: documents that were handed out.
        pages: responses that they came from.
        resumed: breaks after which the read went on.
        proved: whether it is certain that nothing is missing.
    """

    rows: int = 0
    pages: int = 0
    resumed: int = 0
    proved: bool = False


@dataclass(frozen=True)
class Take(Generic[T]):
    """What a walk needs to know of what documents are decoded into.

    Attributes:
        fetch: sends a call, and gives each piece of its response with what it decodes to.
        look: the same for what is not handed out: the pieces alone.
        count: how many documents it decoded.
        part: those from a position on, so many of them or all.
    """

    fetch: Callable[[Call], Generator[tuple[bytes, T], None, None]]
    look: Callable[[Call], Generator[bytes, None, None]]
    count: Callable[[T], int]
    part: Callable[[T, int, int | None], T]


class Walk(Generic[T]):
    """Reads one search to its end.

    Args:
        paging: how.
        take: fetches and decodes.
        progress: told as it goes.
    """

    def __init__(self, paging: Paging, take: Take[T], progress: Progress) -> None:
        self.paging = paging
        self._search = paging.search
        self._take = take
        self._progress = progress
        self._looks = Looks(paging.search, take.look)
        self._size = min(paging.page_rows, FIRST_PAGE_ROWS)
        self._whole = paging.strategy != "pages"  # the next response may hold everything
        self._short = False  # the last one had less than was asked for
        self._order = paging.order or Order.by({})
        self._anchor: Key | None = None
        self._last_piece = b""
        self._is_there = False  # the anchor, when it was last asked for what follows it
        self._end: bytes | None = None  # the text of the last key there is, when last looked
        self._bytes = 0
        self._gained = 0
        self._overlap = 0  # documents that a response began with and that were there before
        self._largest = 0  # documents of one response that were seen
        self._said: dict[tuple[str, ...], tuple[str, ...]] = {}  # ways that proved right, by shape

    def run(self) -> Generator[T, None, None]:
        """Give what the pieces decode to, in their order.

        Raises:
            ReadInterrupted: a break after which the read cannot go on, or documents that are
                known to follow and cannot be asked for.
        """
        fruitless = 0
        ended = False
        while not ended:
            broke: ReadInterrupted | None = None
            why_not = ""
            self._gained = self._bytes = self._overlap = 0
            try:
                ended = yield from self._response()
                self._progress.proved = ended and self.paging.strategy != "stream"
            except ReadInterrupted as interrupted:
                broke = interrupted
            except Unprovable as unprovable:
                why_not = str(unprovable)
            except (RequestRejected, ServiceUnavailable) as refused:
                if self._gained or not (_is_too_much(refused) and self._smaller()):
                    raise
                continue
            if why_not:
                ended = self._unproved(why_not, None)
            elif broke is not None:
                fruitless = 0 if self._gained else fruitless + 1
                ended = self._after_break(broke, fruitless)
            elif not ended:
                ended = self._after_response()

    def last_key(self) -> dict[str, Any]:
        """What orders the documents, with the values in the last one that was handed out.

        Empty if none was, or if nothing orders them.
        """
        if not self._last_piece:
            return {}
        order = self.paging.order
        names = self._search.sort or {} if order is None else order.sort
        found = shown(documents_of(self._last_piece)[-1], names)
        # What is missing stands where null does; an `_id` that is not shown is none.
        return {name: found.get(name) for name in names if name in found or name != ID}

    def _response(self) -> Generator[T, None, bool]:
        """Hand out one response; whether it showed that there is no more."""
        rows = self._rows_wanted()
        if self._anchor is None:
            return (yield from self._first_response(rows))
        for _ in range(LOOKS_AT_THE_END):
            opened = self._continued(self._anchor, rows)
            if opened is None:
                return True
            with closing(opened):
                yield from self._hand_out(opened)
            if self._gained:
                self._short = rows is None or self._gained < rows
                return False
            if self._overlap and self._overlap >= self._largest:
                raise Unprovable(_tied(self._order))
            # A filter may find less than there is: in an order that arrays take part in, for one.
            last = self._last(self._order)
            if last is None or not self._is_there or last.text == self._anchor.text:
                return True
        name = next(iter(self._order.sort))
        raise Unprovable(f"documents follow that no filter on {name!r} finds")

    def _first_response(self, rows: int | None) -> Generator[T, None, bool]:
        for _ in range(LOOKS_AT_THE_END):
            with closing(self._take.fetch(self._asking(rows))) as items:
                yield from self._hand_out(items)
            if self._gained:
                self._short = rows is None or self._gained < rows
                return False
            # Nothing was answered; that nothing is there is another matter.
            if self.paging.strategy == "stream" or self._looks.last(self._order) is None:
                return True
        raise ReadInterrupted(
            f"readwithquery of collection {self._search.collection!r}: the service shows no "
            "documents, and one when it is asked for the last. Read again"
        )

    def _rows_wanted(self) -> int | None:
        limit = self._search.limit
        left = None if limit is None else limit - self._progress.rows
        if self._whole:
            return left
        return self._size if left is None else min(self._size, left)

    def _hand_out(self, items: Iterator[tuple[bytes, T]]) -> Generator[T, None, None]:
        limit = self._search.limit
        for piece, found in items:
            # An answer may hold more than is left, since what ties with the anchor came along.
            left = None if limit is None else limit - self._progress.rows
            decoded = self._take.part(found, 0, left)
            rows = self._take.count(decoded)
            self._bytes += len(piece)
            if not rows:
                continue
            self._last_piece = piece
            if not self._gained:
                self._progress.pages += 1
            self._gained += rows
            self._largest = max(self._largest, self._gained + self._overlap)
            self._progress.rows += rows
            yield decoded
            if self._progress.rows == limit:
                return

    def _after_response(self) -> bool:
        if self._is_enough():
            return True
        why_not = self._go_on()
        if why_not:
            return self._unproved(why_not, None)
        self._fit_size()
        self._whole = False
        return False

    def _fit_size(self) -> None:
        seen = self._gained + self._overlap
        fitting = PAGE_BYTES * seen // max(1, self._bytes)
        self._size = min(self.paging.page_rows, max(1, fitting))

    def _after_break(self, broke: ReadInterrupted, fruitless: int) -> bool:
        if self.paging.strategy == "stream" or fruitless > FRUITLESS_BREAKS:
            raise broke
        if self._is_enough():
            return True
        why_not = self._go_on() if self._gained else self._no_order()
        if why_not:
            return self._unproved(why_not, broke)
        if self._gained:
            self._fit_size()
        else:
            self._size = max(1, self._size // 2)
        self._whole = self._short = False
        self._progress.resumed += 1
        _log.info(
            "readwithquery of collection %r: broke off; goes on after %d documents",
            *(self._search.collection, self._progress.rows),
        )
        return False

    def _is_enough(self) -> bool:
        """Whether the limit is reached, so that nothing is left to prove."""
        limit = self._search.limit
        if limit is None or self._progress.rows < limit:
            return False
        self._progress.proved = True
        return True

    def _no_order(self) -> str:
        return self.paging.why_not if self.paging.order is None else ""

    def _go_on(self) -> str:
        """Move the anchor to the last document; why that is not possible, if it is not."""
        if self.paging.order is None:
            return self.paging.why_not or "it is read as one stream"
        try:
            key = self._key_of_last()
        except Unprovable as unprovable:
            return str(unprovable)
        if self._anchor is not None and (
            key.text == self._anchor.text or self._order.falls(key, self._anchor)
        ):
            raise ReadInterrupted(
                f"readwithquery of collection {self._search.collection!r}: the service did not go "
                f"on in the order of {', '.join(self._order.sort)}: choose another cursor",
                rows=self._progress.rows,
            )
        self._anchor = key
        return ""

    def _key_of_last(self) -> Key:
        last = documents_of(self._last_piece)[-1]
        shorter = self._order.without_id()
        if ID in self._order.sort and shorter.fields and not shows_id(last):
            # The order stays the same, but no document can be told from another that ties with it.
            self._order = shorter
            if self._anchor is not None:
                self._anchor = Key(self._anchor.values[: len(shorter.fields)])
        return self._order.key(last)

    def _smaller(self) -> bool:
        """Ask for less from now on; whether that is possible."""
        if self.paging.order is None or (self._size == 1 and not self._whole):
            return False
        self._size = self._size if self._whole else max(1, self._size // 2)
        self._whole = False
        return True

    def _unproved(self, why_not: str, broke: ReadInterrupted | None) -> bool:
        """The read cannot go on: it is complete as far as it is known, or an error."""
        strategy = self.paging.strategy
        advice = f"{why_not}: choose a field that is there, unique and comparable as cursor"
        if broke is not None:
            raise ReadInterrupted(f"{broke}. It cannot go on, since {advice}")
        if strategy == "stream":
            return True
        follows = self._follows()
        if follows is False:
            self._progress.proved = True
            return True
        # After a second page it is known that a response may be less than everything.
        in_pages = strategy == "pages" or self._progress.resumed or self._progress.pages > 1
        if follows or in_pages:
            raise ReadInterrupted(
                f"readwithquery of collection {self._search.collection!r}: it cannot go on after "
                f"{self._progress.rows} documents, since {advice}"
            )
        _log.warning(
            "readwithquery of collection %r: that nothing follows its %d documents is not proved, "
            "since %s",
            *(self._search.collection, self._progress.rows, why_not),
        )
        return True

    def ranges(self, parts: int) -> list[Filter]:
        """Divide what is found into ranges of the first field of the order.

        Args:
            parts: how many are wanted; fewer come where the values cannot be told apart so.

        Raises:
            ReadInterrupted: the cursor holds arrays, which are in several ranges at a time, or no
                filter finds its values.
        """
        try:
            return self._ranges(parts)
        except Unprovable as unprovable:
            why_not = str(unprovable)
        raise ReadInterrupted(
            f"readwithquery of collection {self._search.collection!r}: it cannot be split, since "
            f"{why_not}: choose another cursor, or leave split out"
        )

    def _ranges(self, parts: int) -> list[Filter]:
        name = self._order.fields[0][0]
        order = Order(((name, 1),))
        if order.arrays and self._looks.first(any_of(order.arrays), self._order):
            raise Unprovable(f"{name!r} holds an array in one of the documents")
        for _ in range(LOOKS_AT_THE_END):
            last = self._last(self._order)
            if last is None:
                return [{}]
            hows = self._way_to(last)
            if hows is not None:  # else it may be gone
                break
        else:
            raise Unprovable(f"no filter finds the values of {name!r} that the documents show")
        said = hows[1][0]
        first = self._first_of({name: {"$type": said.bracket}}, self._order)
        if first is None or said.bracket == "null":
            return [{}]
        points = [
            (found,)
            for value in between(first.values[0], last.values[0], parts)
            for found in sayings(value)
            if (found.how, found.bracket) == (said.how, said.bracket)
        ]
        return ranges(order, points)

    # --- continuing behind the anchor

    def _asking(self, rows: int | None, more: Filter | None = None) -> Call:
        query = both(dict(self._search.query), more or {})
        return replace(self._search, query=query, limit=rows).call()

    def _continued(
        self, anchor: Key, rows: int | None
    ) -> Generator[tuple[bytes, T], None, None] | None:
        """Ask for what follows the anchor, the anchor itself included as the proof.

        Returns:
            What follows, without the anchor; None if it is known that nothing does.
        """
        if self._may_be_last(anchor):
            return None
        if self._largest <= 1:
            return self._one_by_one(anchor, rows)
        for at, way in self._ways(anchor):
            opened = self._opened(at, way, anchor, rows)
            if opened is not None:
                self._said[anchor.shape] = tuple(said.how for said in way)
                return opened
        if self._is_over(anchor):
            return None
        self._is_there = False
        at, way = self._way_around(anchor)
        return self._take.fetch(self._asking(rows, from_here(at, way)))

    def _may_be_last(self, anchor: Key) -> bool:
        """Whether the anchor is the last document, where that is likely; else False."""
        short, self._short = self._short, False
        if anchor.text != self._end and not (short and self._end is None):
            return False
        try:
            return self._is_last(anchor)
        except Unprovable:
            return False  # of the last document, which may hold an array; the anchor is sound

    def _one_by_one(
        self, anchor: Key, rows: int | None
    ) -> Generator[tuple[bytes, T], None, None] | None:
        """Go on where no response had two documents: an anchor alone may be a cap of one."""
        found = self._way_to(anchor)
        self._is_there = found is not None
        if found is None and self._is_over(anchor):
            return None
        at, way = found or self._way_around(anchor)
        if ID not in at.sort:
            raise Unprovable("no response holds two documents, so that ties would not show")
        behind = both(from_here(at, way), {"$nor": [exactly(at, way)]})
        return self._take.fetch(self._asking(rows, behind))

    def _is_last(self, key: Key) -> bool:
        """Whether the opposite order begins with this key: no filter is needed to know that."""
        last = self._looks.last(self._order)
        if last is None:
            return True
        found = self._order.key(last.document)
        self._end = found.text
        same = last.is_surely(documents_of(self._last_piece)[-1])
        return ID in self._order.sort and found.text == key.text and same

    def _is_over(self, anchor: Key) -> bool:
        """Whether the last document is the anchor, or one before it now that the anchor is gone."""
        if self._is_last(anchor):
            return True
        last = self._looks.last(self._order)
        if last is None:
            return True
        if last.shared or not self._order.places_once(last.document):
            return False
        handed_out = list(map(bytes, documents_of(self._last_piece)))
        if bytes(last.document) not in handed_out:
            return False
        # A service that does not sort shows the first documents, whatever it is asked for.
        behind = handed_out[handed_out.index(bytes(last.document)) :]
        return last.before is None or bytes(last.before) not in behind

    def _ways(self, key: Key) -> list[tuple[Order, Way]]:
        """The ways to say a key, what proved right before first."""
        right = self._said.get(key.shape)
        # Where a filter surely finds the `_id`, others with the rest of the key tell nothing.
        surely = is_certain(key) or (right is not None and len(right) == len(key.values))
        found = [each for each in ways(self._order, key) if not surely or each[0] == self._order]
        return sorted(found, key=lambda each: tuple(said.how for said in each[1]) != right)

    def _opened(
        self, order: Order, way: Way, anchor: Key, rows: int | None
    ) -> Generator[tuple[bytes, T], None, None] | None:
        """What follows the anchor if the answer begins with it, else None."""
        # Behind an unknown number of ties there may be any number of rows to skip.
        asked = None if rows is None or order != self._order else rows + 1
        items = self._take.fetch(self._asking(asked, from_here(order, way)))
        try:
            first = next(items, None)
        except QueryError as refused:
            if _is_too_much(refused):
                raise
            return None
        if first is None:
            return None
        documents = documents_of(first[0])
        self._overlap = known = self._known(order, anchor, documents)
        if not known:
            items.close()
            return None
        self._is_there = True
        return self._behind(anchor, known, known == len(documents), first, items)

    def _behind(
        self,
        anchor: Key,
        known: int,
        alone: bool,
        first: tuple[bytes, T],
        items: Generator[tuple[bytes, T], None, None],
    ) -> Generator[tuple[bytes, T], None, None]:
        with closing(items):
            yield first[0], self._take.part(first[1], known, None)
            for piece, decoded in items:
                if alone:
                    self._check_unique(documents_of(piece)[:1], anchor)
                    alone = False
                yield piece, decoded

    def _known(self, order: Order, anchor: Key, documents: list[msgspec.Raw]) -> int:
        """How many documents at the beginning of an answer end with the anchor; 0: it is none."""
        tied = len(order.fields)
        for at, document in enumerate(documents):
            key = self._order.key(document)
            if key.text == anchor.text:
                self._check_unique(documents[at + 1 : at + 2], anchor)
                return at + 1
            if order == self._order or key.values[:tied] != anchor.values[:tied]:
                break
        return 0

    def _check_unique(self, following: list[msgspec.Raw], anchor: Key) -> None:
        if following and self._order.key(following[0]).text == anchor.text:
            raise Unprovable(_tied(self._order))

    def _way_around(self, anchor: Key) -> tuple[Order, Way]:
        """How to go on behind an anchor that no answer began with: it must be gone.

        Raises:
            Unprovable: the anchor is there and the filter does not find it, or nobody can tell.
        """
        for order in (self._order, self._order.reversed):
            if anchor.shape in self._said or is_certain(anchor):
                break
            # Another document shows how keys of this shape are said.
            witness = self._last(order)
            if witness is not None:
                self._way_to(witness)
        hows = self._said.get(anchor.shape)
        if hows is None and not is_certain(anchor):
            raise Unprovable(
                f"no filter on {' and '.join(self._order.sort)} finds the values that the documents"
                " show"
            )
        for at, way in self._ways(anchor):
            if hows is None or tuple(said.how for said in way) == hows:
                if at == self._order and not self._first_of(exactly(at, way), self._order):
                    return at, way
                break
        raise Unprovable(f"the service's filter and order by {next(iter(self._order.sort))} differ")

    def _way_to(self, key: Key) -> tuple[Order, Way] | None:
        """The way in which a filter finds a document that is there, if there is one."""
        for at, way in self._ways(key):
            try:
                # Not from here on: what finds everything begins with the first document, too.
                found = self._first_of(exactly(at, way), self._order)
            except QueryError:
                continue
            if found is not None and found.text == key.text:
                self._said[key.shape] = tuple(said.how for said in way)
                return at, way
        return None

    def _last(self, order: Order) -> Key | None:
        """The key of the last document of an order."""
        last = self._looks.last(order)
        return None if last is None else self._order.key(last.document)

    def _first_of(self, more: Filter, order: Order) -> Key | None:
        documents = self._looks.first(more, order)
        return self._order.key(documents[0]) if documents else None

    def _follows(self) -> bool | None:
        """Whether a document follows the last one, told by the opposite order; None: unknown."""
        if self.paging.order is None or not self._last_piece or ID not in self._order.sort:
            return None
        try:
            return self._looks.follows(self._order, documents_of(self._last_piece)[-1])
        except QueryError:
            return None


def _tied(order: Order) -> str:
    names = [name for name, _ in order.without_id().fields] or [ID]
    return f"several documents share one value of {' and '.join(names)}"


def _is_too_much(refused: ServiceError) -> bool:
    """Whether asking for less may help: too large a response, or too much to sort at a time."""
    if isinstance(refused, PayloadTooLarge):
        return True
    # MongoDB's error 292 says that a sort exceeded its memory limit.
    return "memory" in refused.body.lower() or bool(re.search(r"\b292\b", refused.body))
