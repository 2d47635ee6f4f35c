"""What is there now: read once as digests, by key or as a whole, and some of it again by value.

Knows when a read is certain to be all, and nothing of what is sent because of it; deletes what is
in no row, since it has read the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from connectome_dagster.api import endpoints
from connectome_dagster.errors import DuplicateKeys, OutcomeUnknown
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.transfer.compare import Digests, content_digests, text_of
from connectome_dagster.transfer.fetch import Source
from connectome_dagster.transfer.fetch import Tally as ReadTally
from connectome_dagster.transfer.known import Known
from connectome_dagster.transfer.passes import Passes
from connectome_dagster.transfer.readback import PAUSES
from connectome_dagster.transfer.report import ReadReport
from connectome_dagster.transfer.search import Search, paging
from connectome_dagster.transfer.spool import Spool
from connectome_dagster.transfer.target import Tally, Target

# A frame whose documents so many queries ask for by key is not worth reading a collection for.
MAX_KEY_QUERIES = 16
KEYS_PER_QUERY = 500

# Documents that seem to share the key of a row and are held until they are looked at by value.
MAX_SUSPECTS = 16


@dataclass
class _Piece:
    """What a piece of a response says, and where its own documents are looked at by value."""

    keys: Digests
    contents: Digests
    documents: list[dict[str, Any]] = field(repr=False)

    def part(self, start: int, rows: int | None) -> _Piece:
        end = None if rows is None else start + rows
        part = slice(start, end)
        return _Piece(self.keys[part], self.contents[part], self.documents[part])

    def __len__(self) -> int:
        return len(self.documents)


class Current:
    """Reads what is there: as digests, or documents of some keys by value.

    Attributes:
        by_key: whether documents are asked for by the keys of the frame.
    """

    def __init__(
        self,
        target: Target,
        tally: Tally,
        passes: Passes,
        known: Known,
        where: dict[str, Any],
        surplus_on: ExitStack | None,
    ) -> None:
        self.where = where
        self._target = target
        self._tally = tally
        self._passes = passes
        self._known = known
        self._surplus_on = surplus_on
        self._surplus: Spool | None = None
        self._project = dict.fromkeys(passes.names, 1)
        self._suspects: list[dict[str, Any]] = []
        keys = passes.summary.keys
        few = keys is not None and len(keys) <= MAX_KEY_QUERIES * self.keys_per_query
        self.by_key = few and surplus_on is None
        # What reads go on by where the connection breaks, and prove their end by (U5): `_id`, or
        # the key itself where no `_id` is shown.
        self._cursors: list[str | None] = [None]
        if len(passes.on) == 1 and passes.on[0] != "_id":
            self._cursors.append(passes.on[0])

    @property
    def keys_per_query(self) -> int:
        """Keys of several columns are longer to ask for."""
        return max(1, KEYS_PER_QUERY // len(self._passes.on))

    def run(self) -> None:
        """Read everything that may be the document of a row, or that is in no row.

        Raises:
            DuplicateKeys: two documents have the key of one row.
            OutcomeUnknown: it is not certain that what was read is all.
        """
        if not len(self._known) and self._surplus_on is None:
            return
        while not self._is_read():
            self._known.forget()
            self._suspects.clear()
        self._check_suspects(1)

    def _is_read(self) -> bool:
        """Read everything once; whether it is certain that this was all."""
        if self._surplus_on is not None:
            self._surplus = self._surplus_on.enter_context(Spool(1))
        for query in self._queries():
            report = handed_on(self._pieces(query), self._take)
            if not report.proved:
                self._without_proof()
                return False
        return True

    def _take(self, piece: _Piece) -> None:
        for at in self._known.take(piece.keys, piece.contents):
            self._suspects.append(self._passes.key_of(piece.documents[at]))
            self._check_suspects(MAX_SUSPECTS)
        self._keep_surplus(piece)

    def _without_proof(self) -> None:
        """Go on by the next cursor, if there is one."""
        del self._cursors[0]
        if not self._cursors:
            raise OutcomeUnknown(
                f"sync in collection {self._target.collection!r}: it cannot be proved that what "
                "was read is all that is there (documents show no _id, or no filter finds it), so "
                "that a row may seem new and be there: sync by one column that is text or a "
                "number, or use upsert. Nothing was sent",
                verb="readwithquery",
                collection=self._target.collection,
            )

    def _queries(self) -> Iterator[dict[str, Any]]:
        keys = self._passes.summary.keys
        if self.by_key and keys is not None:
            for at in range(0, len(keys), self.keys_per_query):
                yield both(self.where, self.of_keys(keys[at : at + self.keys_per_query]))
            return
        yield both(self.where, self._range())

    def _range(self) -> dict[str, Any]:
        """The bounds of the keys, where documents outside them are of no interest."""
        summary = self._passes.summary
        if self._surplus is not None or not summary.ordered or summary.least is None:
            return {}
        return {self._passes.on[0]: {"$gte": summary.least, "$lte": summary.greatest}}

    def of_keys(self, keys: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The filter for documents with one of these keys."""
        on = self._passes.on
        if len(on) == 1:
            return {on[0]: {"$in": [key[0] for key in keys]}}
        return {"$or": [dict(zip(on, key, strict=True)) for key in keys]}

    def _pieces(self, query: dict[str, Any]) -> Generator[_Piece, None, ReadReport]:
        """Everything that a query finds, in memory that does not grow."""
        target = self._target
        search = Search(target.collection, query, self._project)
        how = paging(search, "auto", self._cursors[0], target.page_rows)
        source = Source(
            target.client, target.credentials, how.search.call(), how, target.response_path
        )
        cost = ReadTally()
        yield from source.run(self._decoded, len, _Piece.part, cost)
        report = cost.report(target.collection, "auto")
        self._tally.add_read(report)
        return report

    def _decoded(self, piece: bytes) -> _Piece:
        documents = plain_documents(piece)
        return _Piece(
            self._passes.digests_of(documents),
            content_digests(documents, self._passes.names),
            documents,
        )

    def documents(self, keys: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """The documents with some keys, in the frame's columns."""
        while True:
            found: list[_Piece] = []
            report = handed_on(self._pieces(self.of_keys(keys)), found.append)
            if report.proved:
                return [document for piece in found for document in piece.documents]
            self._without_proof()

    def _check_suspects(self, least: int) -> None:
        """Look by value whether documents share the key of a row."""
        if len(self._suspects) < least:
            return
        keys = [tuple(each.values()) for each in self._suspects]
        self._suspects.clear()
        found = self.documents(keys)
        seen: set[bytes] = set()
        for document in found:
            key = self._passes.key_of(document)
            text = self._passes.key_text(document)
            if text in seen:
                raise DuplicateKeys(
                    f"sync in collection {self._target.collection!r}: several documents have the "
                    f"key {text.decode(errors='replace')[:200]}; remove all but one, or add "
                    f"columns to on={self._passes.on!r}. Nothing was sent",
                    keys=[tuple(key.values())],
                )
            seen.add(text)

    def _keep_surplus(self, piece: _Piece) -> None:
        if self._surplus is None:
            return
        others = np.flatnonzero(self._known.places(piece.keys) < 0).tolist()
        if others:
            keys = [self._passes.key_of(piece.documents[at]) for at in others]
            self._surplus.write([text_of(list(key.values())) for key in keys])

    def delete_surplus(self) -> int:
        """Delete the documents that are in no row, by their keys; how many there were."""
        assert self._surplus is not None  # noqa: S101 - else nothing was kept
        deleted = 0
        for (lines,) in self._surplus.read():
            for at in range(0, len(lines), self.keys_per_query):
                some = lines[at : at + self.keys_per_query]
                keys = msgspec.json.decode(b"[" + b",".join(some) + b"]", type=list[list[Any]])
                query = both(self.where, self.of_keys(keys))
                self._tally.add(
                    self._target.send(endpoints.batch_delete(self._target.collection, query))
                )
                self._check_gone(query)
                deleted += len(some)
        return deleted

    def _check_gone(self, query: dict[str, Any]) -> None:
        """See that a delete has deleted: something on the way may drop its body (U11)."""
        for part in (0.0, *(PAUSES if self._target.settle_seconds else ())):
            self._target.sleep(part * self._target.settle_seconds)
            found = self._target.find(query, project=self._project, limit=1)
            there = found.to_pylist()
            self._tally.add_read(found.report)
            if not there:
                return
        raise OutcomeUnknown(
            f"sync in collection {self._target.collection!r}: documents that are in no row were "
            "deleted, and are found all the same: something on the way may drop the body of a "
            "DELETE (run `connectome probe`). All rows are there",
            verb="batchdelete",
            collection=self._target.collection,
        )


def handed_on(
    pieces: Generator[_Piece, None, ReadReport], take: Callable[[_Piece], None]
) -> ReadReport:
    """Hand every piece on; the report of the read."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as ended:
            report: ReadReport = ended.value
            return report
        take(piece)


def both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The filter for what two filters find; of one level where they speak of different fields."""
    if one.keys() & other.keys() or any(name.startswith("$") for name in (*one, *other)):
        return {"$and": [one, other]} if one and other else one or other
    return {**one, **other}
