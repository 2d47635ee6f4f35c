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
    both,
    exactly,
    from_here,
    is_certain,
    sayings,
    shown,
    shows_id,
    ways,
)
from connectome_dagster.transfer.ranges import between, ranges
from connectome_dagster.transfer.search import Paging

_log = logging.getLogger(__name__)

T = TypeVar("T")

# What a page should not exceed by much, as its predecessor shows: a page that breaks off is read
# again from its last document, and a service may have to hold it whole.
PAGE_BYTES = 32 << 20

# Breaks one after the other that bring no document: after so many the service is not well.
FRUITLESS_BREAKS = 4


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
        self._size = paging.page_rows
        self._whole = paging.strategy != "pages"  # the next response may hold everything
        self._seems_all = False  # the last one may have
        self._order = paging.order or Order.by({})
        self._anchor: Key | None = None
        self._last_piece = b""
        self._seen = b""
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
        order = self.paging.order
        names = self._search.sort or {} if order is None else order.sort
        return shown(_documents(self._last_piece)[-1], names) if self._last_piece else {}

    def _response(self) -> Generator[T, None, bool]:
        """Hand out one response; whether it showed that there is no more."""
        rows = self._rows_wanted()
        if self._anchor is None:
            with closing(self._take.fetch(self._asking(rows))) as items:
                yield from self._hand_out(items)
            return not self._gained
        opened = self._continued(self._anchor, rows)
        if opened is None:
            return True
        with closing(opened):
            yield from self._hand_out(opened)
        if not self._gained and self._overlap and self._overlap >= self._largest:
            raise Unprovable(_tied(self._order))
        return not self._gained

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
            if not rows:
                continue
            self._last_piece = piece
            self._bytes += len(piece)
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
        seen = self._gained + self._overlap
        fitting = PAGE_BYTES * seen // max(1, self._bytes)
        self._size = min(self.paging.page_rows, max(1, fitting))
        self._seems_all, self._whole = self._whole, False
        return False

    def _after_break(self, broke: ReadInterrupted, fruitless: int) -> bool:
        if self.paging.strategy == "stream" or fruitless > FRUITLESS_BREAKS:
            raise broke
        if self._is_enough():
            return True
        why_not = self._go_on() if self._gained else self._no_order()
        if why_not:
            return self._unproved(why_not, broke)
        if not self._gained:
            self._size = max(1, self._size // 2)
        self._whole = False
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
        last = _documents(self._last_piece)[-1]
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
        follows = self._follows() if self.paging.order is not None else None
        if follows is False:
            self._progress.proved = True
            return True
        if follows or strategy == "pages" or self._progress.resumed:
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
        last = self._last(self._order)
        if last is None:
            return [{}]
        if name != ID and self._first_of({name: {"$type": "array"}}, self._order) is not None:
            raise Unprovable(f"{name!r} holds an array in one of the documents")
        hows = self._way_to(last)
        if hows is None:
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
        if self._is_all(anchor):
            return None
        if self._largest <= 1:
            return self._one_by_one(anchor, rows)
        for at, way in self._ways(anchor):
            opened = self._opened(at, way, anchor, rows)
            if opened is not None:
                self._said[anchor.shape] = tuple(said.how for said in way)
                return opened
        if self._is_last(anchor):
            return None
        at, way = self._way_around(anchor)
        return self._take.fetch(self._asking(rows, from_here(at, way)))

    def _is_all(self, anchor: Key) -> bool:
        """Whether a response without a limit brought everything: an answer that takes no filter."""
        seems_all, self._seems_all = self._seems_all, False
        try:
            return seems_all and ID in self._order.sort and self._is_last(anchor)
        except Unprovable:
            return False  # of the last document, which may hold an array; the anchor is sound

    def _one_by_one(
        self, anchor: Key, rows: int | None
    ) -> Generator[tuple[bytes, T], None, None] | None:
        """Go on where no response had two documents: an anchor alone may be a cap of one."""
        if self._is_last(anchor):
            return None
        at, way = self._way_to(anchor) or self._way_around(anchor)
        if ID not in at.sort:
            raise Unprovable("no response holds two documents, so that ties would not show")
        behind = both(from_here(at, way), {"$nor": [exactly(at, way)]})
        return self._take.fetch(self._asking(rows, behind))

    def _is_last(self, key: Key) -> bool:
        """Whether the opposite order begins with this key: no filter is needed to know that."""
        last = self._last(self._order)
        if last is None:
            return True
        return ID in self._order.sort and last.text == key.text and self._is_same()

    def _is_same(self) -> bool:
        """Whether the document that `_first_of` saw is the last one, and none shares its `_id`."""
        return self._seen == bytes(_documents(self._last_piece)[-1])

    def _ways(self, key: Key) -> list[tuple[Order, Way]]:
        """The ways to say a key, what proved right before first."""
        right = self._said.get(key.shape)
        found = list(ways(self._order, key))
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
        documents = _documents(first[0])
        self._overlap = known = self._known(order, anchor, documents)
        if not known:
            items.close()
            return None
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
                    self._check_unique(_documents(piece)[:1], anchor)
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
                return 0
        raise Unprovable(_tied(order))

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
        return self._first_of({}, order.reversed, rows=2)

    def _first_of(self, more: Filter, order: Order, *, rows: int = 1) -> Key | None:
        query = both(dict(self._search.query), more)
        asked = replace(self._search, query=query, sort=order.sort, limit=rows)
        with closing(self._take.look(asked.call())) as pieces:
            first = next(pieces, None)
        if first is None:
            return None
        documents = _documents(first)
        keys = [self._order.key(document) for document in documents[:rows]]
        shared = len(keys) > 1 and keys[0].text == keys[1].text
        self._seen = b"" if shared else bytes(documents[0])
        return keys[0]

    def _follows(self) -> bool | None:
        """Whether a document follows the last one, told by the opposite order; None: unknown."""
        if not self._last_piece or ID not in self._order.sort:
            return None
        try:
            here = self._order.key(_documents(self._last_piece)[-1])
            last = self._last(self._order)
        except (Unprovable, QueryError):
            return None
        return None if last is None else last.text != here.text or not self._is_same()


def _tied(order: Order) -> str:
    names = [name for name, _ in order.without_id().fields] or [ID]
    return f"several documents share one value of {' and '.join(names)}"


def _is_too_much(refused: ServiceError) -> bool:
    """Whether asking for less may help: too large a response, or too much to sort at a time."""
    if isinstance(refused, PayloadTooLarge):
        return True
    # MongoDB's error 292 says that a sort exceeded its memory limit.
    return "memory" in refused.body.lower() or bool(re.search(r"\b292\b", refused.body))


def _documents(piece: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(b"[" + piece + b"]", type=list[msgspec.Raw])
