"""The Data API over HTTP: which verb, whose credential, which answer (F1-F9, U10).

An ASGI application. It knows no sockets, and no document but by the store; what a verb does is in
`verbs`, what a fault makes of a request in `strikes`.
"""

from __future__ import annotations

import hmac
import logging
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectome_dagster.local.activity import Activity
from connectome_dagster.local.conditions import Conditions, ConditionsByCollection
from connectome_dagster.local.http_errors import (
    BadRequest,
    Forbidden,
    HttpError,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorized,
    WrongEncoding,
    WrongMethod,
)
from connectome_dagster.local.log import RequestLog
from connectome_dagster.local.refusal import QueryError
from connectome_dagster.local.store import Store
from connectome_dagster.local.strikes import PAGE, Attempt, retry_after, struck
from connectome_dagster.local.switches import Switches
from connectome_dagster.local.text import encode
from connectome_dagster.local.verbs import Answer, Verb, Work

# Reads that work at the same time; more would only share one interpreter among more threads.
READERS = 8
# The fastest level: a server on the same machine packs to be tested, not to save bytes.
GZIP_LEVEL = 1
# zlib's number for the gzip format with its largest window.
GZIP_FORMAT = 31

# A shorter credential is a toy, and perhaps a word of the messages themselves.
SECRET_LENGTH = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Called:
    """What a path says: verb and credential as they are spelled, and what holds for its collection.

    A path that is of another form has no verb.
    """

    verb: str
    credential: str
    collection: str
    conditions: Conditions


class DataApi:
    """Everything under `/collection/`: each request goes through `_respond`, where a fault strikes.

    Args:
        store: the collections.
        read_credential: what serves reads.
        write_credential: what serves writes, updates and deletes.
        conditions: switches and faults.
        log: is told of every request.
    """

    def __init__(
        self,
        store: Store,
        *,
        read_credential: str,
        write_credential: str,
        conditions: ConditionsByCollection | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self._store = store
        self._credentials = {"read": read_credential, "write": write_credential}
        self._conditions = conditions or ConditionsByCollection(Conditions())
        self._requests = RequestLog() if log is None else log
        self.activity = Activity()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, an error as JSON that never holds a credential."""
        request = Request(scope, receive)
        sequence = self._requests.begin(request.method)
        watched = _Watched(send, partial(self._requests.note, sequence))
        with self.activity.running():
            try:
                response = await self._respond(request, sequence)
                await response(scope, receive, watched)
            except ClientDisconnect:
                pass  # nobody is left to answer
            finally:
                watched.end()

    async def _respond(self, request: Request, sequence: int) -> ASGIApp:
        called = self._called(request)
        switches = called.conditions.switches
        return await self._guarded(switches, partial(self._answer, request, sequence, called))

    async def _guarded(self, switches: Switches, answer: Callable[[], Any]) -> ASGIApp:
        """What `answer` answers, or the error that it ends in."""
        try:
            response: ASGIApp = await answer()
        except ClientDisconnect:
            raise
        except HttpError as error:
            return self._refused(error, switches)
        except QueryError as error:
            return self._refused(BadRequest(str(error)), switches)
        except Exception as error:  # whatever it is, the caller is told, and the path not logged
            _log.error("a request failed: %s", self._without_credentials(repr(error)))
            return self._error(500, {"error": f"the local server failed: {error!r}"})
        return response

    async def _answer(self, request: Request, sequence: int, called: _Called) -> ASGIApp:
        verb = self._admit(request, sequence, called)
        conditions = called.conditions
        switches = conditions.switches
        self._slow_down(conditions)
        fault = conditions.faults.strike(verb.name, called.collection)
        if fault is not None:
            self._requests.note(sequence, fault=fault.kind)
        body = await self._body(request, sequence, switches)
        work = Work(
            self._store,
            called.collection,
            body,
            switches,
            partial(self._requests.apply, sequence),
        )
        packs = switches.gzip_responses and "gzip" in request.headers.get("accept-encoding", "")
        if fault is None:
            return await self._perform(verb, packs, work)

        async def perform(*, first: int | None = None, age: float = 0.0) -> ASGIApp:
            part = replace(work, first=first, age=age)
            return await self._guarded(switches, partial(self._perform, verb, packs, part))

        attempt = Attempt(
            perform=perform,
            refuse=partial(self._struck, fault.kind),
            pause=self.activity.pause,
            postpone=lambda seconds: self.activity.postpone(seconds, perform),
            now=time.time,
        )
        return await struck(fault, attempt)

    async def _perform(self, verb: Verb, packs: bool, work: Work) -> ASGIApp:
        limit = self._limits[verb.credential]
        first, rest, status = await to_thread.run_sync(
            lambda: _begin(verb.act(work), packs), limiter=limit
        )
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"} if packs else None
        if status == 204:
            return Response(status_code=status)
        if rest is None:
            return Response(
                first, status_code=status, headers=headers, media_type="application/json"
            )
        return StreamingResponse(
            _stream(first, rest, limit),
            status_code=status,
            headers=headers,
            media_type="application/json",
        )

    @cached_property
    def _limits(self) -> dict[str, CapacityLimiter]:
        # The store takes one writer at a time: others wait here and not in a thread each.
        # Made when a request asks for them, since older versions of anyio need a running loop.
        return {"read": CapacityLimiter(READERS), "write": CapacityLimiter(1)}

    def _called(self, request: Request) -> _Called:
        # The raw path: a credential may hold an escaped slash.
        path = request.scope.get("raw_path") or request.scope["path"].encode()
        segments = [unquote(segment) for segment in path.decode("ascii", "replace").split("/")]
        if len(segments) != 5 or segments[1] != "collection":
            return _Called("", "", "", self._conditions.general)
        _, _, verb, credential, collection = segments
        return _Called(verb, credential, collection, self._conditions.of(collection))

    def _admit(self, request: Request, sequence: int, called: _Called) -> Verb:
        """The verb of a request whose path, method and credential are right."""
        if not called.verb:
            raise NotFound("a path is /collection/<verb>/<credential>/<collection id>")
        verbs = called.conditions.verbs
        by_method = verbs.get(called.verb)
        if by_method is None:
            raise NotFound(f"there is no such verb: there are {', '.join(verbs)}")
        verb = by_method.get(request.method)
        # A wrong method is still a request for what the path names.
        meant = verb or next(iter(by_method.values()))
        there = called.collection in self._store
        self._requests.note(
            sequence, verb=meant.name, collection=called.collection if there else ""
        )
        if verb is None:
            methods = ", ".join(by_method)
            raise WrongMethod(f"{called.verb} takes {methods} and no other method", methods)
        self._check(called.verb, verb.credential, called.credential)
        if not there:
            if called.collection in self._credentials.values():
                raise NotFound("the last segment of the path is a credential, no collection id")
            raise NotFound(f"there is no collection {called.collection!r} on this server")
        return verb

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

    def _slow_down(self, conditions: Conditions) -> None:
        """Refuse what is over the rate limit (U8)."""
        wait = conditions.wait(time.monotonic())
        if wait <= 0:
            return
        switches = conditions.switches
        error = TooMany(f"more than {switches.rate_limit} requests in {switches.rate_seconds:g} s")
        if switches.retry_after != "none":
            as_date = switches.retry_after == "date"
            error.headers.update(retry_after(wait, as_date=as_date, now=time.time()))
        raise error

    async def _body(self, request: Request, sequence: int, switches: Switches) -> bytes:
        most = switches.max_body_bytes
        announced = request.headers.get("content-length", "0")
        pieces: list[bytes] = []
        size = int(announced) if announced.isdigit() else 0
        if size <= most:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    break
                pieces.append(piece)
        self._requests.note(sequence, request_bytes=size)
        if size > most:
            raise TooLarge(f"the body is over {most} bytes, the most that is taken")
        if request.method == "DELETE" and not switches.delete_body:
            return b""
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            return b"".join(pieces)
        if encoding != "gzip" or not switches.gzip_requests:
            raise WrongEncoding("a packed body is not taken: send it as it is")
        return await to_thread.run_sync(_unpacked, b"".join(pieces), most)

    def _struck(self, kind: str, status: int, headers: dict[str, str]) -> Response:
        response = self._error(status, {"error": f"the local server was told to fail: {kind}"})
        response.headers.update(headers)
        return response

    def _refused(self, error: HttpError, switches: Switches) -> Response:
        if switches.error_form == "page":
            response: Response = HTMLResponse(PAGE)
        else:
            status = error.status if switches.error_form == "status" else 200
            response = self._error(status, {"error": str(error), **error.more})
        response.headers.update(error.headers)
        return response

    def _error(self, status: int, told: dict[str, Any]) -> Response:
        content = _json(self._redacted(told))
        return Response(content, status_code=status, media_type="application/json")

    def _redacted(self, told: Any) -> Any:
        if isinstance(told, dict):
            return {name: self._redacted(value) for name, value in told.items()}
        if isinstance(told, list):
            return [self._redacted(value) for value in told]
        return self._without_credentials(told) if isinstance(told, str) else told

    def _without_credentials(self, message: str) -> str:
        for role, credential in self._credentials.items():
            if len(credential) >= SECRET_LENGTH:
                message = message.replace(credential, f"<{role} credential>")
        return message


class _Watched:
    """What is sent of a response, taken down before its last byte is: who has it may ask the log.

    Args:
        send: takes the messages.
        note: takes down what is known of the request.
    """

    def __init__(self, send: Send, note: Callable[..., None]) -> None:
        self._send = send
        self._note = note
        self._began = time.perf_counter()
        self._status: int | None = None
        self._bytes = 0
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.end()
        await self._send(message)

    def end(self) -> None:
        """Take down what was sent, once."""
        if not self._ended:
            self._ended = True
            took = round((time.perf_counter() - self._began) * 1000, 3)
            self._note(status=self._status, response_bytes=self._bytes, milliseconds=took)


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


def _begin(answer: Answer, packs: bool) -> tuple[bytes, Iterator[bytes] | None, int]:
    """The first piece, and the others if there are any: most answers are one piece."""
    content = answer.content
    pieces = iter([content]) if isinstance(content, bytes) else content
    if packs:
        pieces = _packed(pieces)
    first = next(pieces)
    second = next(pieces, None)
    return first, None if second is None else _then(second, pieces), answer.status


def _then(piece: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield piece
    yield from rest


def _packed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_FORMAT)
    for piece in pieces:
        # Flushed, so that the other side can read a piece when it has it.
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def _unpacked(body: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=GZIP_FORMAT)
    trouble = ""
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        trouble = f"the body is not gzip: {error}"
    if trouble:
        raise BadRequest(trouble)
    if len(plain) > most:
        raise TooLarge(f"the unpacked body is over {most} bytes, the most that is taken")
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest("the body is not one whole gzip stream")
    return plain


async def _stream(
    first: bytes, rest: Iterator[bytes], limit: CapacityLimiter
) -> AsyncIterator[bytes]:
    yield first
    while (piece := await to_thread.run_sync(next, rest, None, limiter=limit)) is not None:
        yield piece
