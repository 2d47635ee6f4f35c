"""Switches, faults and the log of a running server over HTTP, under `/control/`.

Never reachable with empty hands, on whatever host: each request brings the control credential in
`Authorization: Bearer …`. Knows nothing of the Data API's paths, where no such header is read.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectome_dagster.local.conditions import Conditions, ConditionsByCollection
from connectome_dagster.local.faults import Fault
from connectome_dagster.local.http_errors import (
    BadRequest,
    HttpError,
    NotFound,
    TooLarge,
    Unauthorized,
)
from connectome_dagster.local.log import Entry, RequestLog
from connectome_dagster.local.store import Store
from connectome_dagster.local.switches import Switches

# Hundreds of faults: a plan that is larger is a mistake.
MAX_BODY_BYTES = 100_000

Answer = Callable[[Request, str | None, Any], Any]


class Control:
    """What a test, or a person with curl, changes while the server runs.

    Every path takes `?collection=ID`: then it is about that collection alone, which has its own
    switches and faults from the first PUT on, until they are deleted.

    Args:
        store: the collections.
        conditions: switches and faults.
        log: the requests.
        credential: what each request must bring.
    """

    def __init__(
        self,
        store: Store,
        conditions: ConditionsByCollection,
        log: RequestLog,
        *,
        credential: str,
    ) -> None:
        self._store = store
        self._conditions = conditions
        self._log = log
        self._credential = credential

    def routes(self) -> list[Route]:
        """Where the controls are."""
        switches = {
            "GET": self._switches,
            "PUT": self._set_switches,
            "DELETE": self._clear_switches,
        }
        faults = {"GET": self._faults, "PUT": self._set_faults, "DELETE": self._clear_faults}
        return [
            self._route("/control/switches", switches),
            self._route("/control/faults", faults),
            self._route("/control/log", {"GET": self._entries}),
            self._route("/control/reset", {"POST": self._reset}),
        ]

    def _route(self, path: str, answers: Mapping[str, Answer]) -> Route:
        async def answered(request: Request) -> Response:
            try:
                self._check(request)
                collection = request.query_params.get("collection")
                if collection is not None and collection not in self._store:
                    raise NotFound("there is no such collection on this server")
                body = await _body(request) if request.method == "PUT" else None
                # HEAD comes with GET, and its body is left out further on.
                method = "GET" if request.method == "HEAD" else request.method
                told = answers[method](request, collection, body)
            except HttpError as error:
                return _told({"error": str(error)}, error.status)
            return _told(told)

        endpoint: Callable[[Request], Awaitable[Response]] = answered
        return Route(path, endpoint, methods=list(answers))

    def _check(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._credential.encode())
        if scheme.lower() != "bearer" or not same:
            raise Unauthorized(
                "bring the control credential, or the write credential if there is none, as "
                "Authorization: Bearer"
            )

    def _of(self, collection: str | None) -> Conditions:
        return self._conditions.general if collection is None else self._conditions.of(collection)

    def _own(self, collection: str | None) -> Conditions:
        return self._conditions.general if collection is None else self._conditions.own(collection)

    def _switches(self, _request: Request, collection: str | None, _body: Any) -> Any:
        return self._of(collection).switches.to_json()

    def _set_switches(self, _request: Request, collection: str | None, body: Any) -> Any:
        switches = _valid(Switches.from_json, body)
        self._own(collection).switches = switches
        return switches.to_json()

    def _clear_switches(self, request: Request, collection: str | None, _body: Any) -> Any:
        return self._set_switches(request, collection, {})

    def _faults(self, _request: Request, collection: str | None, _body: Any) -> Any:
        return self._of(collection).faults.to_json()

    def _set_faults(self, _request: Request, collection: str | None, body: Any) -> Any:
        if not isinstance(body, list):
            raise BadRequest("a fault plan is a JSON array of faults")
        plan = [_valid(Fault.from_json, one) for one in body]
        own = self._own(collection)
        own.faults.replace(plan)
        return own.faults.to_json()

    def _clear_faults(self, request: Request, collection: str | None, _body: Any) -> Any:
        return self._set_faults(request, collection, [])

    def _entries(self, request: Request, collection: str | None, _body: Any) -> Any:
        entries = self._log.entries(
            collections=None if collection is None else [collection],
            verb=request.query_params.get("verb"),
            after=_number(request, "after") or 0,
            last=_number(request, "last"),
        )
        return {"forgotten": self._log.forgotten, "entries": [_shown(one) for one in entries]}

    def _reset(self, _request: Request, collection: str | None, _body: Any) -> Any:
        """The documents stay: they go by `batchdelete`."""
        if collection is None:
            self._conditions.reset()
            self._log.clear()
        else:
            self._conditions.release(collection)
            self._log.clear([collection])
        return {"reset": collection or "everything but documents"}


def _shown(entry: Entry) -> dict[str, Any]:
    return dataclasses.asdict(entry)


def _valid(make: Callable[[Any], Any], value: Any) -> Any:
    try:
        return make(value)
    except ValueError as error:
        trouble = str(error)
    raise BadRequest(trouble)


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest(f"{name} must be a whole number")
    return int(text)


async def _body(request: Request) -> Any:
    text = bytearray()
    async for piece in request.stream():
        text += piece
        if len(text) > MAX_BODY_BYTES:
            raise TooLarge(f"the body is over {MAX_BODY_BYTES} bytes")
    try:
        return json.loads(bytes(text))
    except (ValueError, RecursionError):
        pass
    raise BadRequest("the body is not JSON")


def _told(value: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
