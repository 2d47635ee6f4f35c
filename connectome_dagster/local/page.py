"""The page at `/` for a person: who may see it, and what it is made of.

It shows documents without a credential, and credentials when asked, so only a browser on the
server's own machine gets it. Knows nothing of HTML.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from connectome_dagster.local import rendering
from connectome_dagster.local.calls import Role, forms
from connectome_dagster.local.http_errors import NotFound
from connectome_dagster.local.log import RequestLog
from connectome_dagster.local.store import Search, Store
from connectome_dagster.local.text import decode_plainly

# A look at what documents are like, and at what was asked in the last minutes.
DOCUMENTS = 5
REQUESTS = 25
# Documents are laid out for the page as long as they are no more than this together: of larger
# ones fewer are shown.
PREVIEW_BYTES = 2_000_000

# Names by which a browser on this machine calls it. Any other name that leads here may be a page's
# from elsewhere that had its own name point to this machine (DNS rebinding). The port is free: a
# tunnel may end on another one.
_OURS = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
# Who brings these speaks for somebody else, who may be anywhere.
_PROXIED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
TOKEN_HEADER = "x-connectome-page"  # noqa: S105 (the header's name)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": rendering.POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_REFUSAL = (
    "This page shows what the server keeps: only a browser on the same machine gets it,\n"
    "at http://127.0.0.1 or http://localhost. From another machine: ssh -L 8787:127.0.0.1:8787 …\n"
)
_NO_TOKEN = "This is for the script of the page at / alone: load that page again.\n"  # noqa: S105 (no secret)


class Page:
    """What a person sees of the server. Whoever is logged in on its machine can open it.

    Args:
        store: the collections.
        log: the requests.
        read_credential: shown when asked for.
        write_credential: shown when asked for.
    """

    def __init__(
        self, store: Store, log: RequestLog, *, read_credential: str, write_credential: str
    ) -> None:
        self._store = store
        self._log = log
        self._credentials: dict[Role, str] = {"read": read_credential, "write": write_credential}
        self._escapes = any(quote(one, safe="") != one for one in self._credentials.values())
        # Another one for each start of the server. A page from elsewhere can send requests here,
        # but cannot read this one out of an answer.
        self._token = secrets.token_urlsafe(32)

    def routes(self) -> list[Route]:
        """Where the page and its parts are."""
        return [
            Route("/", self._guarded(self._whole)),
            Route("/page/now", self._guarded(self._now, token=True)),
            Route("/page/documents", self._guarded(self._documents, token=True)),
            Route(
                "/page/credentials",
                self._guarded(self._show_credentials, token=True),
                methods=["POST"],
            ),
        ]

    def _guarded(
        self, answer: Callable[[Request], Response], *, token: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not _from_this_machine(request):
                response: Response = PlainTextResponse(_REFUSAL, status_code=403)
            elif token and not self._of_the_page(request):
                response = PlainTextResponse(_NO_TOKEN, status_code=403)
            else:
                # Large documents take a while to lay out, and other requests go on meanwhile.
                response = await to_thread.run_sync(answer, request)
            response.headers.update(_HEADERS)
            return response

        return guarded

    def _of_the_page(self, request: Request) -> bool:
        # A browser names the origin of every request that is no plain GET of its own page.
        origin = request.headers.get("origin", _base_url(request) if _is_get(request) else "")
        given = request.headers.get(TOKEN_HEADER, "")
        same = hmac.compare_digest(given.encode(), self._token.encode())
        return same and origin == _base_url(request)

    def _whole(self, request: Request) -> Response:
        wanted = request.query_params.get("collection")
        counts = self._counts()
        name = wanted or next((name for name, _ in counts), None)
        shown = None if name is None else self._shown(name)
        text = rendering.page(
            base_url=_base_url(request),
            token=self._token,
            counts=counts,
            shown=shown,
            chosen=bool(wanted),
            requests=self._requests(),
        )
        return HTMLResponse(text, status_code=404 if wanted and shown is None else 200)

    def _now(self, request: Request) -> Response:
        listed = rendering.collections(self._counts(), request.query_params.get("collection"))
        rows = rendering.request_rows(self._requests())
        return JSONResponse({"collections": listed, "requests": rows})

    def _documents(self, request: Request) -> Response:
        shown = self._shown(request.query_params.get("collection", ""))
        if shown is None:
            return PlainTextResponse("There is no such collection.\n", status_code=404)
        return HTMLResponse(rendering.documents(shown))

    def _show_credentials(self, _request: Request) -> Response:
        return JSONResponse({role: forms(value) for role, value in self._credentials.items()})

    def _counts(self) -> list[tuple[str, int]]:
        counts = []
        for name in self._store.collections():
            count = self._count(name)
            if count is not None:
                counts.append((name, count))
        return counts

    def _count(self, name: str) -> int | None:
        try:
            return self._store.count(name)
        except NotFound:
            return None  # never there, or dropped since it was listed

    def _shown(self, name: str) -> rendering.Shown | None:
        count = self._count(name)
        if count is None:
            return None
        try:
            return rendering.Shown(name, count, self._first_documents(name), self._escapes)
        except NotFound:
            return None

    def _first_documents(self, name: str) -> list[Any]:
        text = bytearray()
        for piece in self._store.find(name, Search(limit=DOCUMENTS)):
            text += piece
        if len(text) <= PREVIEW_BYTES:
            return list(decode_plainly(bytes(text)))
        return list(decode_plainly(b"".join(self._store.find(name, Search(limit=1)))))

    def _requests(self) -> list[Any]:
        return self._log.entries(last=REQUESTS)[::-1]


def _from_this_machine(request: Request) -> bool:
    if request.client is None or any(header in request.headers for header in _PROXIED):
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback and _OURS.fullmatch(_host(request)))


def _host(request: Request) -> str:
    return request.headers.get("host", "")


def _base_url(request: Request) -> str:
    return f"http://{_host(request)}"


def _is_get(request: Request) -> bool:
    return request.method in ("GET", "HEAD")
