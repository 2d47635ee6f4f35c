"""The documents of one collection in memory: in natural order, by `_id`, by what is searched for.

Knows neither storage nor threads: its caller holds the lock, and keeps what lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectome_dagster.local.index import EqualityIndex
from connectome_dagster.local.order import FieldOrder, bounds
from connectome_dagster.local.values import Key, comparison_key

# Each index costs every write one look and every document some hundred bytes; an upsert searches
# by a few fields, a pipeline by a few more.
MAX_INDEXES = 16
# An index per field of a filter with thousands of them would cost more than it saves.
MAX_NARROWING = 4
# An index that leaves less than this share of the documents is worth sorting what it found.
SELECTIVE = 0.1
# Beyond so many changes at once, sorting anew is cheaper than finding each one's place.
PLACED_ONE_BY_ONE = 100
# Each order costs every write two searches; a pipeline pages by `_id` and a field or two.
MAX_ORDERS = 4

Document = dict[str, Any]


@dataclass(eq=False)
class Stored:
    """One document as it is kept; an update makes a new one, so readers may hold on to it."""

    __slots__ = ("document", "plain", "seq", "text")

    seq: int
    document: Document
    text: bytes  # as a read without projection answers it
    plain: bool  # made of what JSON itself has


class Collection:
    """Documents by sequence number, with the indexes that searches asked for.

    Attributes:
        rows: documents by sequence number, which rises with insertion.
        ids: sequence numbers by the comparison key of `_id`; of copies, one's.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Stored] = {}
        self.ids: dict[Key, int] = {}
        # How many documents more than one have an `_id`, where the server is told to allow it.
        self._copies: dict[Key, int] = {}
        self._indexes: dict[str, EqualityIndex] = {}
        self._orders: dict[str, FieldOrder[Stored]] = {}

    def put(self, stored: Sequence[Stored]) -> None:
        """Take new documents in, or put them in the place of those with their numbers."""
        self._keep_order(stored)
        for one in stored:
            old = self.rows.get(one.seq)
            for index in self._indexes.values():
                if old is not None:
                    index.remove(old.seq, old.document)
                index.add(one.seq, one.document)
            if old is None:
                self._take_id(comparison_key(one.document["_id"]), one.seq)
            for order in self._orders.values():
                if old is not None:
                    order.remove(old)
                order.put(one)
            self.rows[one.seq] = one

    def remove(self, stored: Sequence[Stored]) -> None:
        """Take documents out."""
        self._keep_order(stored)
        for one in stored:
            for index in self._indexes.values():
                index.remove(one.seq, one.document)
            for order in self._orders.values():
                order.remove(one)
            self._free_id(comparison_key(one.document["_id"]))
            del self.rows[one.seq]

    def candidates(self, equal: Mapping[str, Any]) -> list[Stored]:
        """All documents that may have these values at these paths, in natural order."""
        seqs = self._narrowed(equal)
        if seqs is None:
            return list(self.rows.values())
        return [self.rows[seq] for seq in sorted(seqs)]

    def sorted_by(
        self, path: str, direction: int, query: Document, equal: Mapping[str, Any]
    ) -> list[Stored] | None:
        """All documents that may match, sorted by a field and `_id`; None if that is not worth it.

        An index may find few instead, some documents may share an `_id`, or have an array there.
        """
        if self._copies:
            return None
        seqs = self._narrowed(equal)
        if seqs is not None and len(seqs) <= SELECTIVE * len(self.rows):
            return None
        order = self._order(path)
        return None if order.arrays else order.walk(direction, bounds(query, path))

    def _order(self, path: str) -> FieldOrder[Stored]:
        order = self._orders.pop(path, None)
        if order is None:
            order = FieldOrder(path, self.rows.values())
            if len(self._orders) >= MAX_ORDERS:
                del self._orders[next(iter(self._orders))]
        # The last place is the most recently used one.
        self._orders[path] = order
        return order

    def _take_id(self, key: Key, seq: int) -> None:
        if key in self.ids:
            self._copies[key] = self._copies.get(key, 0) + 1
            self._orders.clear()
        self.ids[key] = seq

    def _free_id(self, key: Key) -> None:
        copies = self._copies.pop(key, 0)
        if not copies:
            del self.ids[key]
        elif copies > 1:
            self._copies[key] = copies - 1

    def _keep_order(self, stored: Sequence[Stored]) -> None:
        if len(stored) > PLACED_ONE_BY_ONE:
            self._orders.clear()

    def _narrowed(self, equal: Mapping[str, Any]) -> set[int] | None:
        best: set[int] | None = None
        # those that are there first, in the filter's order
        paths = sorted(equal, key=lambda path: path not in self._indexes)[:MAX_NARROWING]
        for path in paths:
            found = self._index(path).candidates(equal[path])
            if found is not None and (best is None or len(found) < len(best)):
                best = found
        return best

    def _index(self, path: str) -> EqualityIndex:
        index = self._indexes.pop(path, None)
        if index is None:
            index = EqualityIndex(path)
            for one in self.rows.values():
                index.add(one.seq, one.document)
            if len(self._indexes) >= MAX_INDEXES:
                del self._indexes[next(iter(self._indexes))]
        # The last place is the most recently used one.
        self._indexes[path] = index
        return index
