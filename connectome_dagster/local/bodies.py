"""Request bodies to what they ask for: the shapes of F3, F6, F7 and F8, and nothing else.

Pure: bytes in, values out, as the switches have it. Knows neither HTTP nor what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from connectome_dagster.local.collection import Document
from connectome_dagster.local.http_errors import BadRequest
from connectome_dagster.local.store import Search
from connectome_dagster.local.switches import Switches
from connectome_dagster.local.text import decode

DEFAULT = Switches()


@dataclass(frozen=True)
class Update:
    """The body of `update` and `updatewithupsert` (F6).

    Attributes:
        query: which document, as MongoDB filter.
        data: dotted paths and their new values.
        upsert: whether to create a document when none matches.
        plain: whether query and data hold nothing but what JSON itself has.
    """

    query: Document
    data: Document
    upsert: bool
    plain: bool


def search(body: bytes, switches: Switches = DEFAULT) -> Search:
    """What a body of `readwithquery` asks for; every key may be left out or null (F3).

    Raises:
        BadRequest: not a JSON object, an unknown key, or a value of a wrong type.
    """
    asked, _ = decode(body, extended=switches.extended_json)
    _object(asked, "the body")
    _known(asked, "query", "project", "sort", "limit")
    for key in ("query", "project", "sort"):
        if asked.get(key) is not None:
            _object(asked[key], f'"{key}"')
    return Search(
        query=_filter(asked.get("query") or {}, switches),
        project=asked.get("project") or None,
        sort=asked.get("sort") or None,
        limit=_limit(asked.get("limit")),
    )


def update(body: bytes, switches: Switches = DEFAULT) -> Update:
    """What a body of `update` or `updatewithupsert` asks for (F6).

    Raises:
        BadRequest: not a JSON object, a missing or unknown key, or a value of a wrong type.
    """
    asked, plain = decode(body, extended=switches.extended_json)
    _object(asked, "the body")
    _known(asked, "search query", "data", "upsert")
    for key in ("search query", "data"):
        if key not in asked:
            raise BadRequest(f'the body has no "{key}"')
        _object(asked[key], f'"{key}"')
    upsert = asked.get("upsert", False)
    if type(upsert) is not bool:
        raise BadRequest(f'"upsert" must be true or false, not {_kind(upsert)}')
    return Update(_filter(asked["search query"], switches), asked["data"], upsert, plain)


def batch(body: bytes, switches: Switches = DEFAULT) -> tuple[list[Document], bool]:
    """The documents of a body of `batchwrite` (F7), and whether they are plain JSON.

    Where a batch is not refused as a whole (U7), its elements are handed on whatever they are.

    Raises:
        BadRequest: not a JSON array of objects, or an empty one.
    """
    documents, plain = decode(body, extended=switches.extended_json)
    if type(documents) is not list:
        raise BadRequest(f"the body must be an array of documents, not {_kind(documents)}")
    if not documents:
        raise BadRequest("the body is an empty array: there is nothing to insert")
    if switches.batch == "atomic":
        for position, document in enumerate(documents):
            if type(document) is not dict:
                raise BadRequest(f"element {position} must be a document, not {_kind(document)}")
    if not switches.extended_json:
        _refuse_operators(documents)
    return documents, plain


def document(body: bytes, switches: Switches = DEFAULT) -> tuple[Document, bool]:
    """The document of a body of `write` (U10), and whether it is plain JSON.

    Raises:
        BadRequest: not a JSON object.
    """
    value, plain = decode(body, extended=switches.extended_json)
    if not switches.extended_json:
        _refuse_operators(value)
    return _object(value, "the body"), plain


def query(body: bytes, switches: Switches = DEFAULT) -> Document:
    """The filter of a body of `batchdelete` (F8) and `delete` (U10).

    Raises:
        BadRequest: not a JSON object; an empty body, unless it means everything (U11).
    """
    if not body and switches.empty_delete_is_all:
        return {}
    asked, _ = decode(body, extended=switches.extended_json)
    return _filter(_object(asked, "the body"), switches)


def _filter(query: Document, switches: Switches) -> Document:
    if not switches.expr:
        _refuse_expr(query)
    return query


def _refuse_expr(query: Document) -> None:
    for name, value in query.items():
        if name == "$expr":
            raise BadRequest("unknown top level operator: $expr")
        if name in ("$and", "$or", "$nor") and type(value) is list:
            for part in value:
                if type(part) is dict:
                    _refuse_expr(part)


def _refuse_operators(value: Any) -> None:
    """Where Extended JSON has no meaning, it is a document that no document may hold (U4)."""
    if type(value) is dict:
        for name, child in value.items():
            if name[:1] == "$":
                raise BadRequest(f"the field name {name!r} starts with $: no document may hold it")
            _refuse_operators(child)
    elif type(value) is list:
        for child in value:
            _refuse_operators(child)


def _object(value: Any, what: str) -> Document:
    if type(value) is not dict:
        raise BadRequest(f"{what} must be an object, not {_kind(value)}")
    return value


def _known(asked: Document, *keys: str) -> None:
    for key in asked:
        if key not in keys:
            names = ", ".join(f'"{known}"' for known in keys)
            raise BadRequest(f'the body has an unknown key "{key}": it may have {names}')


def _limit(value: Any) -> int:
    if value is None:
        return 0
    if type(value) is bool or not isinstance(value, (int, float)) or value != value // 1:
        raise BadRequest(f'"limit" must be a whole number, 0 for all, not {_kind(value)}')
    if value < 0:
        raise BadRequest(f'"limit" must not be negative, as {value} is')
    if value >= 2**63:
        raise BadRequest(f'"limit" must fit 64 bits, as {value} does not')
    return int(value)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    kinds = {dict: "an object", list: "an array", str: "a string", int: "a number"}
    return kinds.get(type(value), "a number" if type(value) is float else type(value).__name__)
