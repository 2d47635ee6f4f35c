"""Looks at single documents of a search: at the last one, as the first of the opposite order.

That needs no filter, and so no assumption about what a filter means. Knows orders and documents;
not how a read goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import msgspec

from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ReadInterrupted
from connectome_dagster.transfer.cursor import ID, Filter, Order, both, shown
from connectome_dagster.transfer.search import Search

# Breaks one after the other that bring no document: after so many the service is not well.
FRUITLESS_BREAKS = 4


@dataclass(frozen=True)
class Last:
    """The last document of an order.

    Attributes:
        document: its text.
        before: the one before it, None if there is none or it was not shown.
        shared: whether that one has the same place, so that nobody can tell which is the last.
    """

    document: msgspec.Raw
    before: msgspec.Raw | None
    shared: bool

    def is_surely(self, document: msgspec.Raw) -> bool:
        """Whether this is that document, and no other one has its place."""
        return not self.shared and bytes(self.document) == bytes(document)


class Looks:
    """Asks for single documents.

    Args:
        search: what they belong to.
        look: sends a call and gives the pieces of its response.
    """

    def __init__(
        self, search: Search, look: Callable[[Call], Generator[bytes, None, None]]
    ) -> None:
        self._search = search
        self._look = look

    def first(self, more: Filter, order: Order, rows: int = 1) -> list[msgspec.Raw]:
        """The first documents of an order, of those that a filter finds as well."""
        query = both(dict(self._search.query), more)
        asked = replace(self._search, query=query, sort=order.sort, limit=rows)
        for _ in range(FRUITLESS_BREAKS):
            with suppress(ReadInterrupted):
                return self._documents(asked.call())[:rows]
        return self._documents(asked.call())[:rows]

    def _documents(self, call: Call) -> list[msgspec.Raw]:
        with closing(self._look(call)) as pieces:
            piece = next(pieces, None)
        return [] if piece is None else documents_of(piece)

    def last(self, order: Order) -> Last | None:
        """The last document of an order, None if nothing is found."""
        documents = self.first({}, order.reversed, rows=2)
        if not documents:
            return None
        keys = [msgspec.json.encode(shown(document, order.sort)) for document in documents]
        before = documents[1] if len(documents) > 1 else None
        return Last(documents[0], before, shared=len(keys) > 1 and keys[0] == keys[1])

    def follows(self, order: Order, document: msgspec.Raw) -> bool | None:
        """Whether anything follows a document; None if nobody can tell.

        An array stands where its smallest item belongs, and in the opposite order where its largest
        one does. So the opposite order ends with the document that this one begins with only if
        that has one place in both.
        """
        last = self.last(order)
        if last is None or not shown(document, [ID]):
            return None
        if order.places_once(last.document):
            return not last.is_surely(document)
        if order.has_arrays(document):
            return None
        plain = self.first({"$nor": order.arrays}, order.reversed)
        follows = bool(plain) and shown(plain[0], [ID]) != shown(document, [ID])
        return follows or None


def documents_of(piece: bytes) -> list[msgspec.Raw]:
    """The documents of a piece, each as its text."""
    return msgspec.json.decode(b"[" + piece + b"]", type=list[msgspec.Raw])
