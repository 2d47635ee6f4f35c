"""What goes wrong between a client and the real local server, as steps for a scripted server.

A step that forwards lets the request reach the local server; what comes back may then be lost.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.api.scripted import Request, Step, answer


def forward(base_url: str) -> Step:
    """Through to the service and back."""

    def step(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        status, body = exchange(base_url, request)
        return answer(status, body)(connection, request, over)

    return step


def applied_then(base_url: str, end: Step) -> Step:
    """The service does what was asked, and `end` comes in place of its answer."""

    def step(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        status, _ = exchange(base_url, request)
        assert status == 200
        return end(connection, request, over)

    return step


def by_verb(default: Step, **steps: Step) -> Step:
    """Another step for each verb of the path."""

    def step(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        return steps.get(verb_of(request), default)(connection, request, over)

    return step


def when(condition: Callable[[Request], bool], then: Step, otherwise: Step) -> Step:
    """One of two steps, by what the request is."""

    def step(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        chosen = then if condition(request) else otherwise
        return chosen(connection, request, over)

    return step


def once(step: Step, then: Step) -> Step:
    """One step for the first request, another for all later ones."""
    first = threading.Lock()

    def chosen(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        return (step if first.acquire(blocking=False) else then)(connection, request, over)

    return chosen


def verb_of(request: Request) -> str:
    return request.target.split("/")[2]


def exchange(base_url: str, request: Request) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    try:
        connection.request(request.method, request.target, request.body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
