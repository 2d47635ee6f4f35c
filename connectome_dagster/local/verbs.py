"""What each verb does to the store, as the switches have it (F3-F9, U1-U13).

Bodies in, answers out: knows no HTTP request, no credential and no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from bson import ObjectId

from connectome_dagster.local import bodies
from connectome_dagster.local.changes import OPERATE, REPLACE, SET, Change
from connectome_dagster.local.collection import Document
from connectome_dagster.local.http_errors import BadRequest, NoMatch, SomeRefused, TooLarge
from connectome_dagster.local.store import Ids, Search, Store, Tell
from connectome_dagster.local.switches import FIXED, Switches
from connectome_dagster.local.text import encode


@dataclass(frozen=True)
class Work:
    """One admitted request, as far as the store is concerned.

    Attributes:
        store: the collections.
        collection: the one that is asked.
        body: the request's body.
        switches: what holds for the collection.
        tell: told of each change.
        first: of a batch, or of what a query selects, only so many; None for all.
        age: seconds; a read sees the collection as it was so long ago.
    """

    store: Store
    collection: str
    body: bytes
    switches: Switches
    tell: Tell | None = None
    first: int | None = None
    age: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What is answered: a body, whole or in pieces, and its status."""

    content: bytes | Iterator[bytes]
    status: int = 200


@dataclass(frozen=True)
class Verb:
    """One verb of the path.

    Attributes:
        name: as the page, or data-api.md for the plain calls, spells it.
        method: its HTTP method.
        credential: which credential it takes (F2).
        act: does what a request asks for.
    """

    name: str
    method: str
    credential: Literal["read", "write"]
    act: Callable[[Work], Answer]


def offered(switches: Switches) -> dict[str, dict[str, Verb]]:
    """The verbs by the name that the path has for them, then by method (U10)."""
    calls = {
        **{name: f"{method} {name}" for name, method in FIXED.items()},
        "read": switches.read_call,
        "write": switches.write_call,
        "update": switches.update_call,
        "delete": switches.delete_call,
    }
    verbs: dict[str, dict[str, Verb]] = {}
    for name, (credential, act) in _ACTS.items():
        call = calls[name]
        if call is not None:
            method, _, path = call.partition(" ")
            verbs.setdefault(path, {})[method] = Verb(name, method, credential, act)
    return verbs


def _read(work: Work) -> Answer:
    return _found(work, Search())


def _read_with_query(work: Work) -> Answer:
    return _found(work, bodies.search(work.body, work.switches))


def _found(work: Work, search: Search) -> Answer:
    switches = work.switches
    bounds = (search.limit or None, switches.page_cap, work.first)
    most = min((bound for bound in bounds if bound is not None), default=None)
    # A limit of 0 means none: an answer without documents is one with a document left out.
    asked = replace(search, limit=0 if most is None else max(most, 1))
    pieces = work.store.find(
        work.collection,
        asked,
        age=max(work.age, switches.stale_seconds),
        show=_SHOWN.get(switches.id_form),
    )
    if most == 0:
        pieces = iter([b"[]"])
    if switches.response_path is not None:
        pieces = _wrapped(pieces, switches.response_path)
    return Answer(pieces)


def _without_id(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "_id"}


def _with_hex_id(document: Document) -> Document:
    if isinstance(document.get("_id"), ObjectId):
        return {**document, "_id": str(document["_id"])}
    return document


_SHOWN: dict[str, Callable[[Document], Document]] = {
    "absent": _without_id,
    "objectid": _with_hex_id,
}


def _wrapped(pieces: Iterator[bytes], path: str) -> Iterator[bytes]:
    names = path.split(".")
    # One piece is held back, so that the end needs no piece of its own.
    held = b"".join(b"{" + _json(name) + b":" for name in names)
    for number, piece in enumerate(pieces):
        if number:
            yield held
            held = piece
        else:
            held += piece
    yield held + b"}" * len(names)


def _write(work: Work) -> Answer:
    document, plain = bodies.document(work.body, work.switches)
    inserted = work.store.insert(
        work.collection, [document], plain=plain, ids=_ids(work.switches), tell=work.tell
    )
    return Answer(_json({"inserted": inserted}))


def _batch_write(work: Work) -> Answer:
    switches = work.switches
    documents, plain = bodies.batch(work.body, switches)
    part = documents if work.first is None else documents[: work.first]
    into: dict[str, Any] = {"plain": plain, "ids": _ids(switches), "tell": work.tell}
    try:
        if switches.batch == "atomic":
            work.store.insert(work.collection, part, **into)
        else:
            go_on = switches.batch == "unordered"
            work.store.insert_some(work.collection, part, go_on=go_on, **into)
    except (BadRequest, TooLarge, SomeRefused) as error:
        if switches.batch_reports:
            raise
        return Answer(_json({"inserted": error.more.get("inserted", 0)}))
    return Answer(_json({"inserted": len(documents)}))


def _update(work: Work, *, may_upsert: bool) -> Answer:
    switches = work.switches
    asked = bodies.update(work.body, switches)
    try:
        done = work.store.update(
            work.collection,
            asked.query,
            asked.data,
            upsert=asked.upsert and may_upsert,
            plain=asked.plain,
            change=_change(switches, asked.data),
            many=switches.update_many,
            ids=_ids(switches),
            tell=work.tell,
        )
    except NoMatch as error:
        error.status = switches.no_match_status
        if error.status >= 400:
            raise
        return Answer(_updated(0, 0, 0), error.status)
    return Answer(_updated(done.matched, done.modified, 0 if done.upserted is None else 1))


def _updated(matched: int, modified: int, upserted: int) -> bytes:
    return _json({"matched": matched, "modified": modified, "upserted": upserted})


def _change(switches: Switches, data: Document) -> Change:
    if switches.update_operators and any(name[:1] == "$" for name in data):
        return OPERATE
    return REPLACE if switches.update_replaces else SET


def _delete(work: Work, *, many: bool) -> Answer:
    query = bodies.query(work.body, work.switches)
    deleted = work.store.delete(work.collection, query, many=many, most=work.first, tell=work.tell)
    return Answer(_json({"deleted": deleted}))


def _ids(switches: Switches) -> Ids:
    return Ids(native=switches.id_form in ("oid", "objectid"), client=switches.client_id)


def _json(value: Any) -> bytes:
    return encode(value, plain=True)


_ACTS: Mapping[str, tuple[Literal["read", "write"], Callable[[Work], Answer]]] = {
    "read": ("read", _read),
    "readwithquery": ("read", _read_with_query),
    "write": ("write", _write),
    "batchwrite": ("write", _batch_write),
    "update": ("write", partial(_update, may_upsert=False)),
    "updatewithupsert": ("write", partial(_update, may_upsert=True)),
    "delete": ("write", partial(_delete, many=False)),
    "batchdelete": ("write", partial(_delete, many=True)),
}
