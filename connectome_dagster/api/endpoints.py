"""Every call of the Data API as a value: method, verb, body, and whether repeating it is harmless.

Pure. Knows neither credentials nor how a call is sent; documents arrive as encoded JSON.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec

from connectome_dagster.errors import ConfigurationError

Needs: TypeAlias = Literal["read", "write"]
Endpoints: TypeAlias = Mapping[str, tuple[str, str]]

# What the page documents (F3, F6, F7, F8) is as it is.
_DOCUMENTED: Endpoints = {
    "readwithquery": ("POST", "readwithquery"),
    "updatewithupsert": ("POST", "updatewithupsert"),
    "batchwrite": ("POST", "batchwrite"),
    "batchdelete": ("DELETE", "batchdelete"),
}

# What it only offers (F9) is assumed (U10) and can be set.
_ASSUMED: Endpoints = {
    "read": ("GET", "read"),
    "write": ("POST", "write"),
    "update": ("POST", "update"),
    "delete": ("DELETE", "delete"),
}

DEFAULT_ENDPOINTS: Endpoints = MappingProxyType({**_DOCUMENTED, **_ASSUMED})

# MongoDB takes a hundred levels of nesting; a value that holds itself ends here as well.
MAX_DEPTH = 100

_METHOD = re.compile(r"[A-Z]+")
_VERB = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_TEXT = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True)
class Call:
    """One call, ready to be sent by whoever has the credential.

    Attributes:
        verb: the endpoint as in the path, `"readwithquery"` for one.
        method: the HTTP method.
        collection: the collection id.
        needs: which credential serves it (F2).
        body: the JSON body, None for none.
        repeatable: whether sending it twice leaves what sending it once leaves.
        carries_query: whether a refusal may be about a query.
        may_miss: whether the service may say that no document matched (F6, U9).
        idempotency_key: names this write and no other, for a service that does not do one twice;
            whether there is such a service is not known, so nothing relies on it. Empty for none.
    """

    verb: str
    method: str
    collection: str
    needs: Needs
    body: bytes | None = field(repr=False)
    repeatable: bool
    carries_query: bool = False
    may_miss: bool = False
    idempotency_key: str = field(default="", repr=False)


def resolve_endpoints(
    overrides: Mapping[str, str | Sequence[str]] | None = None,
) -> Endpoints:
    """Return the endpoints with the undocumented ones (U10) as an account has them.

    Args:
        overrides: of `read`, `write`, `update`, `delete`: method and verb, as `"POST insert"` or
            as a pair.

    Raises:
        ConfigurationError: an operation that the page documents or that does not exist, or a value
            that is not a method and a verb.

    Example:
        >>> resolve_endpoints({"write": "PUT insert"})["write"]
        ('PUT', 'insert')
    """
    endpoints = dict(DEFAULT_ENDPOINTS)
    for operation, value in (overrides or {}).items():
        if operation not in _ASSUMED:
            raise ConfigurationError(
                f"endpoints: {operation!r} cannot be set; these can: {', '.join(_ASSUMED)}"
            )
        parts = tuple(value.split() if isinstance(value, str) else value)
        if not (
            len(parts) == 2 and _METHOD.fullmatch(str(parts[0])) and _VERB.fullmatch(str(parts[1]))
        ):
            raise ConfigurationError(
                f"endpoints: {operation!r} is {value!r}; give a method and a verb: 'POST insert'"
            )
        endpoints[operation] = (parts[0], parts[1])
    return MappingProxyType(endpoints)


def read(collection: str, *, endpoints: Endpoints = DEFAULT_ENDPOINTS) -> Call:
    """The plain read: all documents of the collection (F4, U10).

    Args:
        collection: the collection id.
        endpoints: from `resolve_endpoints`.

    Raises:
        ConfigurationError: not a collection id.

    Example:
        >>> read("movies")
        Call(verb='read', method='GET', collection='movies', needs='read', repeatable=True, \
carries_query=False, may_miss=False)
    """
    method, verb = endpoints["read"]
    return Call(verb, method, check_collection(collection), "read", None, repeatable=True)


def read_with_query(
    collection: str,
    *,
    query: Mapping[str, Any] | None = None,
    project: Mapping[str, Any] | None = None,
    sort: Mapping[str, int] | None = None,
    limit: int | None = None,
) -> Call:
    """A read with a filter, a projection, a sort and a limit (F3).

    Args:
        collection: the collection id.
        query: a MongoDB filter, None for all documents.
        project: fields to show or hide, None for all fields.
        sort: fields and 1 or -1, the first field first; None for no order.
        limit: documents at most, from 1; None for no limit.

    Raises:
        ConfigurationError: not a collection id, or a value that JSON cannot say.

    Example:
        >>> read_with_query("movies", query={"amount": {"$gte": 30}}, limit=10).body
        b'{"query":{"amount":{"$gte":30}},"limit":10}'
    """
    body: dict[str, Any] = {"query": _object({} if query is None else query, "query")}
    if project:
        body["project"] = _object(project, "project")
    if sort:
        body["sort"] = _object(sort, "sort")
        for name, direction in sort.items():
            if isinstance(direction, bool) or direction not in (1, -1):
                raise ConfigurationError(
                    f"sort: {name!r} is {direction!r}; give 1 (ascending) or -1 (descending)"
                )
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, numbers.Integral) or limit < 1:
            raise ConfigurationError(
                f"limit is {limit!r}: give a whole number from 1, or leave it out for no limit"
            )
        body["limit"] = int(limit)
    return _call(
        "readwithquery", collection, "read", _json(body), repeatable=True, carries_query=True
    )


def batch_write(collection: str, documents_json: bytes, *, idempotency_key: str = "") -> Call:
    """Insert many documents (F7). Repeating it inserts them again.

    Args:
        collection: the collection id.
        documents_json: the documents as one JSON array.
        idempotency_key: names this write and no other, in letters and digits; sent along for a
            service that knows what to do with it.

    Raises:
        ConfigurationError: not a collection id, not an array, or a key that no header can hold.

    Example:
        >>> batch_write("movies", b'[{"amount":10}]').repeatable
        False
    """
    body = _text_of("[", "a JSON array of documents", documents_json)
    return _call(
        "batchwrite",
        collection,
        "write",
        body,
        repeatable=False,
        idempotency_key=_header_text(idempotency_key),
    )


def _header_text(idempotency_key: str) -> str:
    if idempotency_key and not _HEADER_TEXT.fullmatch(idempotency_key):
        raise ConfigurationError("an idempotency key is letters, digits, '-' and '_' alone")
    return idempotency_key


def write(collection: str, document: bytes, *, endpoints: Endpoints = DEFAULT_ENDPOINTS) -> Call:
    """Insert one document (U10). Repeating it inserts it again.

    Args:
        collection: the collection id.
        document: the document as a JSON object.
        endpoints: from `resolve_endpoints`.

    Raises:
        ConfigurationError: not a collection id, or not an object.

    Example:
        >>> write("movies", b'{"amount":10}').method
        'POST'
    """
    body = _text_of("{", "a JSON object", document)
    return _call("write", collection, "write", body, repeatable=False, endpoints=endpoints)


def update(
    collection: str, search: Mapping[str, Any], data: Mapping[str, Any], *, upsert: bool
) -> Call:
    """Update what a query finds, or create a document if it finds none (F6).

    Repeatable without upsert, as long as the change cannot move what the query finds: with upsert,
    two that overlap may both create.

    Args:
        collection: the collection id.
        search: a MongoDB filter.
        data: fields and their new values.
        upsert: whether to create a document when none matches.

    Raises:
        ConfigurationError: not a collection id, or a value that JSON cannot say.

    Example:
        >>> update("movies", {"sku": 1}, {"price": 2.5}, upsert=True).body
        b'{"search query":{"sku":1},"data":{"price":2.5},"upsert":true}'
    """
    if type(upsert) is not bool:
        raise ConfigurationError(f"upsert is {upsert!r}: give True or False")
    body = {**_search_and_data(search, data), "upsert": upsert}
    return _call(
        "updatewithupsert",
        collection,
        "write",
        _json(body),
        repeatable=not upsert and _finds_the_same_again(search, data),
        carries_query=True,
        may_miss=not upsert,
    )


def upsert_encoded(
    collection: str, search_json: bytes, data_json: bytes, *, idempotency_key: str = ""
) -> Call:
    """`update` with upsert, from JSON that is encoded already: of thousands, each row costs.

    Args:
        collection: the collection id.
        search_json: a MongoDB filter as a JSON object.
        data_json: fields and their new values as a JSON object.
        idempotency_key: as for `batch_write`.

    Raises:
        ConfigurationError: not a collection id, not objects, or a key that no header can hold.

    Example:
        >>> upsert_encoded("movies", b'{"sku":1}', b'{"price":2.5}').body
        b'{"search query":{"sku":1},"data":{"price":2.5},"upsert":true}'
    """
    search = _text_of("{", "a JSON object", search_json)
    data = _text_of("{", "a JSON object", data_json)
    body = b'{"search query":%b,"data":%b,"upsert":true}' % (search, data)
    return _call(
        "updatewithupsert",
        collection,
        "write",
        body,
        repeatable=False,
        carries_query=True,
        idempotency_key=_header_text(idempotency_key),
    )


def update_plain(
    collection: str,
    search: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
) -> Call:
    """Update what a query finds; never creates a document (U10).

    Args:
        collection: the collection id.
        search: a MongoDB filter.
        data: fields and their new values.
        endpoints: from `resolve_endpoints`.

    Raises:
        ConfigurationError: not a collection id, or a value that JSON cannot say.

    Example:
        >>> update_plain("movies", {"sku": 1}, {"price": 2.5}).body
        b'{"search query":{"sku":1},"data":{"price":2.5}}'
    """
    return _call(
        "update",
        collection,
        "write",
        _json(_search_and_data(search, data)),
        repeatable=_finds_the_same_again(search, data),
        carries_query=True,
        may_miss=True,
        endpoints=endpoints,
    )


def batch_delete(collection: str, query: Mapping[str, Any]) -> Call:
    """Remove everything that a query finds (F8). An empty query finds everything.

    Args:
        collection: the collection id.
        query: a MongoDB filter.

    Raises:
        ConfigurationError: not a collection id, or a value that JSON cannot say.

    Example:
        >>> batch_delete("movies", {"amount": 10}).method
        'DELETE'
    """
    body = _json(_object(query, "query"))
    return _call("batchdelete", collection, "write", body, repeatable=True, carries_query=True)


def delete(
    collection: str, query: Mapping[str, Any], *, endpoints: Endpoints = DEFAULT_ENDPOINTS
) -> Call:
    """Remove the first document that a query finds (U10). Repeating it removes the next one.

    Args:
        collection: the collection id.
        query: a MongoDB filter.
        endpoints: from `resolve_endpoints`.

    Raises:
        ConfigurationError: not a collection id, or a value that JSON cannot say.

    Example:
        >>> delete("movies", {"amount": 10}).repeatable
        False
    """
    body = _json(_object(query, "query"))
    return _call(
        "delete",
        collection,
        "write",
        body,
        repeatable=False,
        carries_query=True,
        endpoints=endpoints,
    )


def _call(
    operation: str,
    collection: str,
    needs: Needs,
    body: bytes,
    *,
    repeatable: bool,
    carries_query: bool = False,
    may_miss: bool = False,
    idempotency_key: str = "",
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
) -> Call:
    method, verb = endpoints[operation]
    return Call(
        verb,
        method,
        check_collection(collection),
        needs,
        body,
        repeatable,
        carries_query,
        may_miss,
        idempotency_key,
    )


def check_collection(collection: str) -> str:
    """Return a collection id that can stand in a URL.

    Raises:
        ConfigurationError: it cannot.
    """
    if type(collection) is not str:
        raise ConfigurationError(
            f"the collection id is a {type(collection).__name__}, not a plain str"
        )
    if (
        not collection
        or collection in (".", "..")
        or "/" in collection
        or any(character.isspace() or not character.isprintable() for character in collection)
    ):
        raise ConfigurationError(
            f"{collection!r} is not a collection id: give the id from the collection's"
            " Integration > API page, without '/', whitespace or control characters"
        )
    return collection


def _text_of(first: str, what: str, text: bytes) -> bytes:
    if not isinstance(text, bytes) or text.lstrip()[:1] != first.encode():
        raise ConfigurationError(f"what is to be written is not {what}, as bytes")
    return text


def _search_and_data(search: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {"search query": _object(search, "search query"), "data": _object(data, "data")}


def _finds_the_same_again(search: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    read_paths = list(_paths(search))
    return not any(
        changed.startswith("$") or _overlap(changed, seen)
        for changed in data
        for seen in read_paths
    )


def _paths(query: Mapping[str, Any]) -> Iterator[str]:
    """The paths a filter looks at; the empty path, which overlaps all, where it cannot be told."""
    for key, value in query.items():
        if not key.startswith("$"):
            yield key
        elif key in ("$and", "$or", "$nor") and isinstance(value, (list, tuple)):
            for clause in value:
                yield from _paths(clause) if isinstance(clause, Mapping) else [""]
        elif key != "$comment":
            yield ""


def _overlap(one: str, other: str) -> bool:
    one_parts, other_parts = (path.split(".") if path else [] for path in (one, other))
    return all(a == b for a, b in zip(one_parts, other_parts, strict=False))


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} is a {type(value).__name__}: give a mapping")
    plain: dict[str, Any] = _plain(value, name, 1)
    return plain


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        pass
    raise ConfigurationError("a text of the query holds half a surrogate pair, which is not UTF-8")


def _plain(value: Any, path: str, depth: int) -> Any:
    """Copy a value as what JSON has; checked here since an encoder turns NaN into null."""
    if depth > MAX_DEPTH:
        raise ConfigurationError(f"{path[:80]}…: nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        if not math.isfinite(value):
            raise ConfigurationError(f"{path} is {float(value)!r}, which JSON cannot say")
        return float(value)
    if isinstance(value, Mapping):
        return {
            _key(key, path): _plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(value)]
    return _instant(value, path)


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise ConfigurationError(f"{path}: the key {key!r} is not a str")
    return str.__str__(key)


def _instant(value: object, path: str) -> str:
    # The zone first: pandas' NaT is a datetime that cannot be asked for its offset.
    if isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None:
        # As JavaScript prints dates, and so the service's documents: three digits, and Z.
        utc = value.astimezone(timezone.utc).replace(tzinfo=None)
        return f"{utc.isoformat(timespec='milliseconds')}Z"
    if isinstance(value, date):
        raise ConfigurationError(
            f"{path} is a {type(value).__name__} without a time zone: give a datetime with one,"
            " such as datetime(2018, 2, 1, tzinfo=timezone.utc)"
        )
    raise ConfigurationError(
        f"{path} is a {type(value).__name__}, which JSON cannot say: give text, numbers, booleans,"
        " None, lists, mappings or datetimes with a zone (str(...) for an ObjectId)"
    )
