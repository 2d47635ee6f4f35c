"""Collections of documents: found, inserted, updated, deleted, and kept.

Documents live decoded in memory and as text in the journal. One writer at a time; a reader works
on the documents as they were when it began. Knows nothing of HTTP and credentials.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bson import ObjectId, Regex

from connectome_dagster.local.collection import Collection, Document, Stored
from connectome_dagster.local.http_errors import BadRequest, NotFound, TooLarge
from connectome_dagster.local.journal import Journal
from connectome_dagster.local.projection import compile_projection
from connectome_dagster.local.query import compile_filter, equalities
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.local.text import decode, decode_plainly, encode, encode_exactly
from connectome_dagster.local.update import apply_set, build_upsert
from connectome_dagster.local.values import Key, comparison_key

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
class Updated:
    """What an update did.

    Attributes:
        matched: documents that the query selected, 0 or 1.
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

    def __init__(self, directory: Path | None = None) -> None:
        self._journal = Journal(directory)
        self._collections: dict[str, Collection] = {}
        self._last_seq = self._journal.last_seq()
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

    def find(self, name: str, search: Search) -> Iterator[bytes]:
        """The documents that a search selects, as the pieces of one JSON array.

        Everything that can be refused is refused before the first piece.

        Raises:
            NotFound: there is no such collection.
            BadRequest: query, projection or sort is not what MongoDB takes.
        """
        self._named(name)
        project = compile_projection(search.project) if search.project else None
        found = self._select(name, search)
        if project is None:
            return _pieces(one.text for one in found)
        return _pieces(encode(project(one.document), plain=one.plain) for one in found)

    def insert(self, name: str, documents: Sequence[Document], *, plain: bool = False) -> int:
        """Insert documents, all or none; one without `_id` is given one.

        Args:
            name: the collection.
            documents: decoded documents.
            plain: whether they hold nothing but what JSON itself has.

        Returns:
            How many were inserted.

        Raises:
            NotFound: there is no such collection.
            BadRequest: an `_id` is there already, or is of a type that cannot be one.
            TooLarge: a document is over MongoDB's bound.
        """
        with self._writing:
            collection = self._named(name)
            self._add(collection, name, [_with_id(document) for document in documents], plain)
        return len(documents)

    def update(
        self, name: str, query: Document, data: Document, *, upsert: bool, plain: bool = False
    ) -> Updated:
        """Set fields of the first document that matches (F6, U6).

        Args:
            name: the collection.
            query: MongoDB filter.
            data: dotted paths and their new values, as in `$set`.
            upsert: whether to create a document of the query's equality parts and the data when
                none matches.
            plain: whether query and data hold nothing but what JSON itself has.

        Raises:
            NotFound: no such collection, or no match and no upsert.
            BadRequest: query or data is not what MongoDB takes.
            TooLarge: the document would be over MongoDB's bound.
        """
        with self._writing:
            collection = self._named(name)
            old = next(self._matching(name, query), None)
            if old is not None:
                return self._replace(collection, name, old, data, plain)
            if not upsert:
                raise NotFound(f"no document of collection {name!r} matches the search query")
            document = _with_id(build_upsert(query, data))
            self._add(collection, name, [document], plain)
            return Updated(matched=0, modified=0, upserted=document["_id"])

    def delete(self, name: str, query: Document, *, many: bool) -> int:
        """Remove what matches: everything (F8), or the first in natural order (U10).

        Returns:
            How many were removed.

        Raises:
            NotFound: there is no such collection.
            BadRequest: the query is not what MongoDB takes.
        """
        with self._writing:
            collection = self._named(name)
            found = list(islice(self._matching(name, query), None if many else 1))
            if found:
                self._journal.write(name, remove=[one.seq for one in found])
                with self._showing:
                    collection.remove(found)
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

    def _select(self, name: str, search: Search) -> list[Stored]:
        order = compile_sort(search.sort, search.limit)
        found = self._sorted(name, search)
        if found is None:
            found = self._matching(name, search.query)
            if search.sort:
                return _ordered(found, order)
        return list(islice(found, search.limit or None))

    def _sorted(self, name: str, search: Search) -> Iterator[Stored] | None:
        """What matches in its order already, where that is the order of `_id` and worth it."""
        if search.sort is None or list(search.sort) != ["_id"] or not search.limit:
            return None
        matches = compile_filter(search.query)
        direction = 1 if search.sort["_id"] == 1 else -1
        collection = self._named(name)
        with self._showing:
            rows = collection.by_id(direction, search.query, equalities(search.query))
        return None if rows is None else (one for one in rows if matches(one.document))

    def _add(
        self, collection: Collection, name: str, documents: list[Document], plain: bool
    ) -> None:
        added = [
            _stored(self._last_seq + number, document, plain)
            for number, document in enumerate(documents, start=1)
        ]
        _refuse_known_ids(added, collection.ids)
        self._journal.write(name, put=[(one.seq, _exact_text(one)) for one in added])
        self._last_seq += len(added)
        with self._showing:
            collection.put(added)

    def _replace(
        self, collection: Collection, name: str, old: Stored, data: Document, plain: bool
    ) -> Updated:
        new = _stored(old.seq, apply_set(old.document, data), plain and old.plain)
        exact = _exact_text(new)
        if exact == _exact_text(old):
            return Updated(matched=1, modified=0)
        self._journal.write(name, put=[(new.seq, exact)])
        with self._showing:
            collection.put([new])
        return Updated(matched=1, modified=1)


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


def _with_id(document: Document) -> Document:
    """`_id` first, as MongoDB has it, and a new one if there is none."""
    if "_id" not in document:
        return {"_id": str(ObjectId()), **document}
    value = document["_id"]
    if isinstance(value, (list, Regex)):
        kind = "an array" if isinstance(value, list) else "a regular expression"
        raise BadRequest(f"_id cannot be {kind}")
    return {"_id": value, **document}


def _refuse_known_ids(added: list[Stored], known: Mapping[Key, int]) -> None:
    seen: set[Key] = set()
    for position, one in enumerate(added):
        key = comparison_key(one.document["_id"])
        if key in known or key in seen:
            shown = encode(one.document["_id"], plain=False).decode()
            raise BadRequest(f"duplicate _id {shown} (document {position} of what was sent)")
        seen.add(key)


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
