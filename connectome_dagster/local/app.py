"""The Data API over HTTP: which verb, whose credential, which answer (F1-F9, U10).

An ASGI application. It knows no sockets, and no document but by the store.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal
from urllib.parse import unquote

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from connectome_dagster.local import bodies
from connectome_dagster.local.http_errors import (
    BadRequest,
    Forbidden,
    HttpError,
    NotFound,
    TooLarge,
    Unauthorized,
    WrongMethod,
)
from connectome_dagster.local.refusal import QueryError
from connectome_dagster.local.store import Search, Store
from connectome_dagster.local.text import encode

# MongoDB's own bound for one message (maxMessageSizeBytes): no batch it takes is larger.
MAX_BODY_BYTES = 48_000_000
# Reads that work at the same time; more would only share one interpreter among more threads.
READERS = 8

# A shorter credential is a toy, and perhaps a word of the messages themselves.
SECRET_LENGTH = 8

_log = logging.getLogger(__name__)

Answer = bytes | Iterator[bytes]


@dataclass(frozen=True)
class Verb:
    """One verb of the path.

    Attributes:
        method: its HTTP method.
        credential: which credential it takes (F2).
        act: given store, collection and body, does it and returns the answer.
    """

    method: str
    credential: Literal["read", "write"]
    act: Callable[[Store, str, bytes], Answer]


def _read(store: Store, collection: str, _body: bytes) -> Answer:
    return store.find(collection, Search())


def _read_with_query(store: Store, collection: str, body: bytes) -> Answer:
    return store.find(collection, bodies.search(body))


def _write(store: Store, collection: str, body: bytes) -> Answer:
    document, plain = bodies.document(body)
    return _json({"inserted": store.insert(collection, [document], plain=plain)})


def _batch_write(store: Store, collection: str, body: bytes) -> Answer:
    documents, plain = bodies.batch(body)
    return _json({"inserted": store.insert(collection, documents, plain=plain)})


def _update(store: Store, collection: str, body: bytes, *, may_upsert: bool) -> Answer:
    asked = bodies.update(body)
    done = store.update(
        collection,
        asked.query,
        asked.data,
        upsert=asked.upsert and may_upsert,
        plain=asked.plain,
    )
    upserted = 0 if done.upserted is None else 1
    return _json({"matched": done.matched, "modified": done.modified, "upserted": upserted})


def _delete(store: Store, collection: str, body: bytes, *, many: bool) -> Answer:
    return _json({"deleted": store.delete(collection, bodies.query(body), many=many)})


VERBS = {
    "read": Verb("GET", "read", _read),
    "readwithquery": Verb("POST", "read", _read_with_query),
    "write": Verb("POST", "write", _write),
    "batchwrite": Verb("POST", "write", _batch_write),
    "update": Verb("POST", "write", partial(_update, may_upsert=False)),
    "updatewithupsert": Verb("POST", "write", partial(_update, may_upsert=True)),
    "delete": Verb("DELETE", "write", partial(_delete, many=False)),
    "batchdelete": Verb("DELETE", "write", partial(_delete, many=True)),
}


class DataApi:
    """Everything under `/collection/`, one request at a time through `_answer`.

    Args:
        store: the collections.
        read_credential: what serves reads.
        write_credential: what serves writes, updates and deletes.
        max_body_bytes: larger bodies are refused with 413.
    """

    def __init__(
        self,
        store: Store,
        *,
        read_credential: str,
        write_credential: str,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._store = store
        self._credentials = {"read": read_credential, "write": write_credential}
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, an error as JSON that never holds a credential."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return  # nobody is left to answer
        except HttpError as error:
            response = self._refused(error)
        except QueryError as error:
            response = self._refused(BadRequest(str(error)))
        except Exception as error:  # whatever it is, the caller is told, and the path not logged
            _log.error("a request failed: %s", self._without_credentials(repr(error)))
            response = self._error(500, f"the local server failed: {error!r}")
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        verb, collection = self._admit(request)
        body = await self._body(request)
        limit = self._limits[verb.credential]
        first, rest = await to_thread.run_sync(
            lambda: _begin(verb.act(self._store, collection, body)), limiter=limit
        )
        if rest is None:
            return Response(first, media_type="application/json")
        return StreamingResponse(_stream(first, rest, limit), media_type="application/json")

    @cached_property
    def _limits(self) -> dict[str, CapacityLimiter]:
        # The store takes one writer at a time: others wait here and not in a thread each.
        # Made when a request asks for them, since older versions of anyio need a running loop.
        return {"read": CapacityLimiter(READERS), "write": CapacityLimiter(1)}

    def _admit(self, request: Request) -> tuple[Verb, str]:
        """Verb and collection of a request whose path, method and credential are right."""
        # The raw path: a credential may hold an escaped slash.
        path = request.scope.get("raw_path") or request.scope["path"].encode()
        segments = [unquote(segment) for segment in path.decode("ascii", "replace").split("/")]
        if len(segments) != 5 or segments[1] != "collection":
            raise NotFound("a path is /collection/<verb>/<credential>/<collection id>")
        _, _, name, credential, collection = segments
        verb = VERBS.get(name)
        if verb is None:
            raise NotFound(f"there is no such verb: there are {', '.join(VERBS)}")
        if request.method != verb.method:
            raise WrongMethod(f"{name} takes {verb.method} and no other method", verb.method)
        self._check(name, verb.credential, credential)
        if collection not in self._store:
            if collection in self._credentials.values():
                raise NotFound("the last segment of the path is a credential, no collection id")
            raise NotFound(f"there is no collection {collection!r} on this server")
        return verb, collection

    def _check(self, name: str, wanted: str, given: str) -> None:
        # Both are compared, each in constant time, so that time tells nothing either.
        accepted = {
            role: hmac.compare_digest(credential.encode(), given.encode())
            for role, credential in self._credentials.items()
        }
        if accepted[wanted]:
            return
        if any(accepted.values()):
            raise Forbidden(f"{name} takes the {wanted} credential, not the other one")
        raise Unauthorized(f"{name} takes the {wanted} credential, and this is not it")

    async def _body(self, request: Request) -> bytes:
        announced = request.headers.get("content-length", "0")
        pieces: list[bytes] = []
        size = int(announced) if announced.isdigit() else 0
        if size <= self._max_body_bytes:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > self._max_body_bytes:
                    break
                pieces.append(piece)
        if size > self._max_body_bytes:
            raise TooLarge(f"the body is over {self._max_body_bytes} bytes, the most that is taken")
        return b"".join(pieces)

    def _refused(self, error: HttpError) -> Response:
        response = self._error(error.status, str(error))
        response.headers.update(error.headers)
        return response

    def _error(self, status: int, message: str) -> Response:
        content = _json({"error": self._without_credentials(message)})
        return Response(content, status_code=status, media_type="application/json")

    def _without_credentials(self, message: str) -> str:
        for role, credential in self._credentials.items():
            if len(credential) >= SECRET_LENGTH:
                message = message.replace(credential, f"<{role} credential>")
        return message


def application(data_api: DataApi, pages: Sequence[Route] = ()) -> ASGIApp:
    """The server's whole web application: the Data API, pages, JSON errors everywhere else."""
    web = Starlette(
        routes=[Route("/collection/{rest:path}", data_api), *pages],
        exception_handlers={404: _no_such_page},
    )
    # A path that is not quite right is a 404 and not a redirect, which some clients follow as GET.
    web.router.redirect_slashes = False
    return web


async def _no_such_page(_request: Request, _error: Exception) -> Response:
    message = "there is nothing here: a path is /collection/<verb>/<credential>/<collection id>"
    return Response(_json({"error": message}), status_code=404, media_type="application/json")


def _json(value: Any) -> bytes:
    return encode(value, plain=True)


def _begin(answer: Answer) -> tuple[bytes, Iterator[bytes] | None]:
    """The first piece, and the others if there are any: most answers are one piece."""
    if isinstance(answer, bytes):
        return answer, None
    first = next(answer)
    second = next(answer, None)
    return (first, None) if second is None else (first, _then(second, answer))


def _then(piece: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield piece
    yield from rest


async def _stream(
    first: bytes, rest: Iterator[bytes], limit: CapacityLimiter
) -> AsyncIterator[bytes]:
    yield first
    while (piece := await to_thread.run_sync(next, rest, None, limiter=limit)) is not None:
        yield piece
