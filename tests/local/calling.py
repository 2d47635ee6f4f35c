"""One collection of a running local server, called over HTTP as a stranger would."""

from __future__ import annotations

from typing import Any

import requests

from connectome_dagster.local.server import LocalServer

METHODS = {
    "read": "GET",
    "readwithquery": "POST",
    "write": "POST",
    "batchwrite": "POST",
    "update": "POST",
    "updatewithupsert": "POST",
    "delete": "DELETE",
    "batchdelete": "DELETE",
}


class Calls:
    """Calls of a server's collection by the names of the verbs."""

    def __init__(
        self, server: LocalServer, session: requests.Session, collection: str = "things"
    ) -> None:
        self.server = server
        self.session = session
        self.collection = collection

    def url(self, verb: str) -> str:
        reads = verb in ("read", "readwithquery")
        credential = self.server.read_credential if reads else self.server.write_credential
        return f"{self.server.base_url}/collection/{verb}/{credential}/{self.collection}"

    def __call__(
        self, verb: str, body: Any = None, *, method: str | None = None, **options: Any
    ) -> requests.Response:
        if body is not None:
            options["json"] = body
        method = method or METHODS[verb]
        return self.session.request(method, self.url(verb), timeout=10, **options)

    def ids(self) -> list[Any]:
        return [document["_id"] for document in self.server.documents(self.collection)]

    def values(self, name: str) -> list[Any]:
        return [document.get(name) for document in self.server.documents(self.collection)]
