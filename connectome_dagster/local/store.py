"""Collections of documents: found, inserted, updated, deleted, and kept.

Documents live decoded in memory and as text in the journal. One writer at a time; a reader works
on the documents as they were when it began. Knows nothing of HTTP and credentials.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from bson import ObjectId, Regex

from connectome_dagster.local.changes import SET, Change
from connectome_dagster.local.collection import Collection, Document, Stored
from connectome_dagster.local.extended_json import to_json_value
from connectome_dagster.local.history import History
from connectome_dagster.local.http_errors import (
    BadRequest,
    HttpError,
    NoMatch,
    NotFound,
    SomeRefused,
    TooLarge,
)
from connectome_dagster.local.journal import Journal, NoJournal
from connectome_dagster.local.log import Applied
from connectome_dagster.local.projection import compile_projection
from connectome_dagster.local.query import compile_filter, equalities
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.local.text import decode, decode_plainly, encode, encode_exactly
from connectome_dagster.local.values import Key, comparison_key, number

# MongoDB's bound for one document ("Limits and Thresholds: BSON Document Size").
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
# Large enough that a thread hop per chunk costs little, small enough that a slow reader of a large
# collection holds next to nothing.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Search:
    """What `readwithquery` asks for (F3).

    Attributes:
        query: MongoDB filter; empty means all.
        project: MongoDB projection, None for whole documents.
        sort: dotted path to 1 or -1; None for natural order.
        limit: how many documents at most; 0 means all.
    """

    query: Document = field(default_factory=dict)
    project: Document | None = None
    sort: Document | None = None
    limit: int = 0


@dataclass(frozen=True)
class Ids:
    """What becomes of `_id` (U2, U3).

    Attributes:
        native: whether the server's own are ObjectIds, and not their 24 hexadecimal digits.
        client: whether a client's is kept and `"unique"`, kept whatever it is (`"any"`), or
            `"dropped"` for the server's own.
    """

    native: bool = False
    client: Literal["unique", "any", "dropped"] = "unique"


# Asked for at every call otherwise; the server's usual way.
PLAIN_IDS = Ids()

Tell = Callable[[Applied], None]


@dataclass(frozen=True)
class Updated:
    """What an update did.

    Attributes:
        matched: documents that the query selected; at most 1 unless all are updated.
        modified: those of them that changed.
        upserted: `_id` of the document that was created, None if none was.
    """

    matched: int
    modified: int
    upserted: Any = None


class Store:
    """All collections of one server.

    Args:
        directory: where documents are kept; None keeps them in memory.
        remember: given a collection, how many seconds of its past a reader may ask for.
        clock: seconds that only rise.

    Raises:
        JournalError: the directory cannot be used.

    >>> store = Store()
    >>> store.add_collection("movies")
    >>> store.insert("movies", [{"title": "Movie ABC"}])
    1
    >>> [document["title"] for document in store.documents("movies")]
    ['Movie ABC']
    >>> store.close()
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        remember: Callable[[str], float] = lambda _name: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = NoJournal() if directory is None else Journal(directory)
        self._collections: dict[str, Collection] = {}
        self._histories: dict[str, History] = {}
        self._remember = remember
        self._clock = clock
        self._last_seq = self._journal.last_seq()
        self._changes = 0
        # One writer from its look at the documents to its commit; readers don't wait for it ...
        self._writing = threading.Lock()
        # ... but for the moment in which the outcome becomes visible.
        self._showing = threading.Lock()

    def close(self) -> None:
        """Let go of the file."""
        with self._writing:
            self._journal.close()

    def add_collection(self, name: str) -> None:
        """Serve a collection; documents that are kept of it are there again. Repeating is harmless.

        Raises:
            ValueError: the name is empty or has a character that cannot stand in a path segment.
        """
        if not name or "/" in name or not name.isprintable():
            raise ValueError(f"{name!r} cannot be a collection id: it is one segment of a path")
        with self._writing:
            if name in self._collections:
                return
            collection = Collection()
            collection.put([_load(seq, text) for seq, text in self._journal.load(name)])
            self._collections[name] = collection

    def drop_collection(self, name: str) -> None:
        """Forget a collection and its documents."""
        with self._writing:
            if self._collections.pop(name, None) is not None:
                self._histories.pop(name, None)
                self._journal.drop(name)

    def collections(self) -> list[str]:
        """The names of all collections, in the order in which they were added."""
        return list(self._collections)

    def __contains__(self, name: str) -> bool:
        return name in self._collections

    def count(self, name: str) -> int:
        """How many documents a collection has."""
        return len(self._named(name).rows)

    def documents(self, name: str) -> list[Document]:
        """Copies of all documents as a read answers them, in natural order."""
        return [decode_plainly(one.text) for one in self._candidates(name, {})]

    def find(
        self,
        name: str,
        search: Search,
        *,
        age: float = 0.0,
        show: Callable[[Document], Document] | None = None,
    ) -> Iterator[bytes]:
        """The documents that a search selects, as the pieces of one JSON array.

        Everything that can be refused is refused before the first piece.

        Args:
            name: the collection.
            search: what is asked for.
            age: seconds; the collection is searched as it was so long ago, as far as `remember`
                had it kept (U13).
            show: makes of each document what is answered, after the projection.

        Raises:
            NotFound: there is no such collection.
            BadRequest: query, projection or sort is not what MongoDB takes.
        """
        self._named(name)
        project = compile_projection(search.project) if search.project else None
        found = self._select(name, search, age)
        if show is not None:
            shown, inner = show, project or _whole
            return _pieces(encode(shown(inner(one.document)), plain=one.plain) for one in found)
        if project is None:
            return _pieces(one.text for one in found)
        return _pieces(encode(project(one.document), plain=one.plain) for one in found)

    def insert(
        self,
        name: str,
        documents: Sequence[Document],
        *,
        plain: bool = False,
        ids: Ids = PLAIN_IDS,
        tell: Tell | None = None,
        settled: bool = False,
    ) -> int:
        """Insert documents, all or none; one without `_id` is given one.

        Args:
            name: the collection.
            documents: decoded documents.
            plain: whether they hold nothing but what JSON itself has.
            ids: what becomes of `_id`.
            tell: told what was inserted, before anything else changes.
            settled: whether the past that a reader may be shown has them too.

        Returns:
            How many were inserted.

        Raises:
            NotFound: there is no such collection.
            BadRequest: an `_id` is there already, or is of a type that cannot be one.
            TooLarge: a document is over MongoDB's bound.
        """
        with self._writing:
            plain = plain and not ids.native
            added = [
                _stored(self._last_seq + number, _with_id(document, ids), plain)
                for number, document in enumerate(documents, start=1)
            ]
            if ids.client == "unique":
                _refuse_known_ids(added, self._named(name).ids)
            self._change(name, inserted=added, tell=tell, settled=settled)
        return len(documents)

    def insert_some(
        self,
        name: str,
        documents: Sequence[Any],
        *,
        go_on: bool,
        plain: bool = False,
        ids: Ids = PLAIN_IDS,
        tell: Tell | None = None,
    ) -> int:
        """Insert documents but for the bad ones (U7).

        Args:
            name: the collection.
            documents: decoded values, of which some may be no documents.
            go_on: whether those after a bad one are inserted too.
            plain: whether they hold nothing but what JSON itself has.
            ids: what becomes of `_id`.
            tell: told what was inserted, before anything else changes.

        Returns:
            How many were inserted, if that is all.

        Raises:
            NotFound: there is no such collection.
            SomeRefused: some were not inserted; the others are.
        """
        with self._writing:
            collection = self._named(name)
            added: list[Stored] = []
            errors: list[tuple[int, HttpError]] = []
            taken: set[Key] = set()
            for position, document in enumerate(documents):
                one = self._checked(document, len(added), plain and not ids.native, ids)
                if isinstance(one, Stored) and ids.client == "unique":
                    key = comparison_key(one.document["_id"])
                    one = (
                        _duplicate(one, position) if key in collection.ids or key in taken else one
                    )
                    taken.add(key)
                if isinstance(one, Stored):
                    added.append(one)
                    continue
                errors.append((position, one))
                if not go_on:
                    break
            self._change(name, inserted=added, tell=tell)
        if errors:
            raise SomeRefused(len(added), errors)
        return len(added)

    def update(
        self,
        name: str,
        query: Document,
        data: Document,
        *,
        upsert: bool,
        plain: bool = False,
        change: Change = SET,
        many: bool = False,
        ids: Ids = PLAIN_IDS,
        tell: Tell | None = None,
    ) -> Updated:
        """Change the first document that matches, or all of them (F6, U6).

        Args:
            name: the collection.
            query: MongoDB filter.
            data: dotted paths and their new values, unless `change` takes another form.
            upsert: whether to create a document of the query's equality parts and the data when
                none matches.
            plain: whether query and data hold nothing but what JSON itself has.
            change: what the data makes of a document.
            many: whether all that match are changed.
            ids: what becomes of the `_id` of a document that is created.
            tell: told what was changed, before anything else changes.

        Raises:
            NotFound: no such collection, or no match and no upsert.
            BadRequest: query or data is not what MongoDB takes.
            TooLarge: a document would be over MongoDB's bound.
        """
        with self._writing:
            found = list(islice(self._matching(name, query), None if many else 1))
            if found:
                return self._update(name, found, data, change, plain, tell)
            if not upsert:
                raise NoMatch(f"no document of collection {name!r} matches the search query")
            document = _with_id(change.create(query, data), ids)
            new = _stored(self._last_seq + 1, document, plain and not ids.native)
            if ids.client == "unique":
                _refuse_known_ids([new], self._named(name).ids)
            self._change(name, inserted=[new], tell=tell)
            return Updated(matched=0, modified=0, upserted=document["_id"])

    def delete(
        self,
        name: str,
        query: Document,
        *,
        many: bool,
        most: int | None = None,
        tell: Tell | None = None,
    ) -> int:
        """Remove what matches: everything (F8), or the first in natural order (U10).

        Args:
            name: the collection.
            query: MongoDB filter.
            many: whether all that match are removed.
            most: how many are removed at most, if they are many.
            tell: told what was removed, before anything else changes.

        Returns:
            How many were removed.

        Raises:
            NotFound: there is no such collection.
            BadRequest: the query is not what MongoDB takes.
        """
        with self._writing:
            found = list(islice(self._matching(name, query), most if many else 1))
            self._change(name, deleted=found, tell=tell)
            return len(found)

    def _named(self, name: str) -> Collection:
        collection = self._collections.get(name)
        if collection is None:
            raise NotFound(f"there is no collection {name!r} on this server")
        return collection

    def _candidates(self, name: str, equal: Mapping[str, Any]) -> list[Stored]:
        collection = self._named(name)
        with self._showing:
            return collection.candidates(equal)

    def _matching(self, name: str, query: Document) -> Iterator[Stored]:
        if not query:
            return iter(self._candidates(name, {}))
        matches = compile_filter(query)
        candidates = self._candidates(name, equalities(query))
        return (one for one in candidates if matches(one.document))

    def _select(self, name: str, search: Search, age: float) -> list[Stored]:
        order = compile_sort(search.sort, search.limit)
        found = self._past(name, search.query, age) if age > 0 else self._sorted(name, search)
        if found is None:
            found = self._matching(name, search.query)
            if search.sort:
                return _ordered(found, order)
        return list(islice(found, search.limit or None))

    def _sorted(self, name: str, search: Search) -> Iterator[Stored] | None:
        """What matches in its order already, where such an order is kept and worth it.

        Pages are asked for by `_id`, or by a field with `_id` to break its ties.
        """
        fields = list(search.sort.items()) if search.sort and search.limit else []
        if not 1 <= len(fields) <= 2 or fields[-1][0] != "_id" or fields[0][0][:1] == "$":
            return None
        direction = 1 if number(fields[0][1]) == 1 else -1
        if number(fields[-1][1]) != direction:
            return None
        matches = compile_filter(search.query)
        collection = self._named(name)
        with self._showing:
            rows = collection.sorted_by(
                fields[0][0], direction, search.query, equalities(search.query)
            )
        return None if rows is None else (one for one in rows if matches(one.document))

    def _past(self, name: str, query: Document, age: float) -> Iterator[Stored] | None:
        """What matched so many seconds ago, in natural order; None if nothing changed since."""
        collection, history = self._named(name), self._histories.get(name)
        if history is None:
            return None
        matches = compile_filter(query)
        with self._showing:
            rows = history.before(self._clock() - age, collection.rows)
        return (one for one in rows if matches(one.document))

    def _checked(self, document: Any, ahead: int, plain: bool, ids: Ids) -> Stored | HttpError:
        if type(document) is not dict:
            return BadRequest("not a document")
        try:
            return _stored(self._last_seq + ahead + 1, _with_id(document, ids), plain)
        except HttpError as error:
            return error

    def _update(
        self,
        name: str,
        found: list[Stored],
        data: Document,
        change: Change,
        plain: bool,
        tell: Tell | None,
    ) -> Updated:
        changed = []
        for old in found:
            new = _stored(old.seq, change.apply(old.document, data), plain and old.plain)
            if _exact_text(new) != _exact_text(old):
                changed.append(new)
        self._change(name, updated=changed, tell=tell)
        return Updated(matched=len(found), modified=len(changed))

    def _change(
        self,
        name: str,
        *,
        inserted: Sequence[Stored] = (),
        updated: Sequence[Stored] = (),
        deleted: Sequence[Stored] = (),
        tell: Tell | None,
        settled: bool = False,
    ) -> None:
        """Keep a change, show it, tell of it: in this order, and while nobody else writes."""
        collection = self._named(name)
        if not (inserted or updated or deleted):
            return
        put = inserted or updated
        self._journal.write(
            name,
            put=[(one.seq, _exact_text(one)) for one in put],
            remove=[one.seq for one in deleted],
        )
        self._last_seq += len(inserted)
        self._changes += 1
        remembered = self._remember(name)
        with self._showing:
            if settled:
                pass  # as if it had always been there
            elif remembered > 0:
                changes = [(one.seq, collection.rows.get(one.seq)) for one in (*put, *deleted)]
                history = self._histories.setdefault(name, History())
                history.note(self._clock(), changes, seconds=remembered)
            else:
                self._histories.pop(name, None)
            collection.put(put)
            collection.remove(deleted)
        if tell is not None:
            tell(Applied(self._changes, _ids(inserted), _ids(updated), _ids(deleted)))


def _whole(document: Document) -> Document:
    return document


def _ids(stored: Sequence[Stored]) -> tuple[Any, ...]:
    """Each `_id` as a read answers it."""
    ids = [one.document["_id"] for one in stored]
    return tuple([one if type(one) is str else to_json_value(one) for one in ids])


def _ordered(
    found: Iterable[Stored], order: Callable[[Iterable[Document]], list[Document]]
) -> list[Stored]:
    by_document = {id(one.document): one for one in found}
    return [by_document[id(one)] for one in order(one.document for one in by_document.values())]


def _load(seq: int, text: bytes) -> Stored:
    document, plain = decode(text)
    return Stored(seq, document, text if plain else encode(document, plain=False), plain)


def _stored(seq: int, document: Document, plain: bool) -> Stored:
    text = encode(document, plain=plain)
    if len(text) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"a document of {len(text)} bytes: {MAX_DOCUMENT_BYTES} is the most")
    return Stored(seq, document, text, plain)


def _exact_text(stored: Stored) -> bytes:
    return stored.text if stored.plain else encode_exactly(stored.document, plain=False)


# A DBRef's own names, the only ones with a $ that an `_id` may hold.
_REFERENCE_FIELDS = {"$ref", "$id", "$db"}


def _with_id(document: Document, ids: Ids) -> Document:
    """`_id` first, as MongoDB has it, and a new one if there is none or it does not count."""
    if "_id" not in document or ids.client == "dropped":
        own = ObjectId() if ids.native else str(ObjectId())
        given = {"_id": own, **document}
        given["_id"] = own
        return given
    value = document["_id"]
    if isinstance(value, (list, Regex)):
        kind = "an array" if isinstance(value, list) else "a regular expression"
        raise BadRequest(f"_id cannot be {kind}")
    if isinstance(value, dict):
        for name in value:
            if name[:1] == "$" and name not in _REFERENCE_FIELDS:
                raise BadRequest(f"_id cannot be a document with a field {name!r}")
    if next(iter(document)) == "_id":
        return document
    return {"_id": value, **document}


def _refuse_known_ids(added: list[Stored], known: Mapping[Key, int]) -> None:
    seen: set[Key] = set()
    for position, one in enumerate(added):
        key = comparison_key(one.document["_id"])
        if key in known or key in seen:
            raise _duplicate(one, position)
        seen.add(key)


def _duplicate(one: Stored, position: int) -> BadRequest:
    shown = encode(one.document["_id"], plain=False).decode()
    return BadRequest(f"duplicate _id {shown} (document {position} of what was sent)")


def _pieces(texts: Iterable[bytes]) -> Iterator[bytes]:
    lead, held, size = b"[", [], 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= CHUNK_BYTES:
            yield lead + b",".join(held)
            lead, held, size = b",", [], 0
    if held or lead == b"[":
        yield lead + b",".join(held) + b"]"
    else:
        yield b"]"
