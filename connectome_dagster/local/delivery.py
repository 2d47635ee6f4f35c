"""Answers that do not arrive as they should: reset, cut, too short, slow. Transport faults.

Each is an ASGI application around a response, and knows nothing of why it is there.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Where a protocol leaves its transport for the application (ASGI "extensions").
TRANSPORT = "connectome.transport"
# A slow answer is sent in so many steps a second: smooth, and cheap enough at any speed.
DRIPS_PER_SECOND = 20

# Waits for seconds; False if the server ends before them.
Pause = Callable[[float], Coroutine[Any, Any, bool]]


def reset(transport: Any) -> None:
    """End a connection at once, so that the other side sees a reset and no orderly end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # A linger of no time makes the kernel send RST in place of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def send_reset(scope: Scope, receive: Receive, _send: Send) -> None:
    """Reset the connection in place of an answer."""
    reset(scope["extensions"][TRANSPORT])
    await _gone(receive)


class Cut:
    """A response whose connection ends before it does.

    Args:
        response: the whole one.
        at: how many bytes of its body are sent; None: up to a value within the last document of
            its first piece.
    """

    def __init__(self, response: ASGIApp, at: int | None) -> None:
        self._response = response
        self._at = at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the first part, then close."""
        left = _Left(self._at)

        async def until_cut(message: Message) -> None:
            if left.spent:
                return
            if message["type"] == "http.response.body":
                message = {**message, "body": left.take(message.get("body", b""))}
                # What is cut has no end that the protocol could tell.
                message["more_body"] = True
            await send(message)
            if left.spent:
                # Closed, not reset: what was sent before still arrives.
                scope["extensions"][TRANSPORT].close()
                await _gone(receive)

        await self._response(scope, receive, until_cut)
        if not left.spent:
            scope["extensions"][TRANSPORT].close()
            await _gone(receive)


class EndsEarly:
    """A response that ends as it should, by its protocol, but is not whole.

    Args:
        response: the whole one.
        at: how many bytes of its body are sent; None as in `Cut`.
    """

    def __init__(self, response: ASGIApp, at: int | None) -> None:
        self._response = response
        self._at = at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the first part as if it were the whole."""
        left = _Left(self._at)

        async def until_end(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The length of the whole would give it away.
                await send(_without_length(message))
            elif not left.spent:
                body = left.take(message.get("body", b""))
                more = message.get("more_body", False) and not left.spent
                await send({"type": "http.response.body", "body": body, "more_body": more})

        await self._response(scope, receive, until_end)


class Drip:
    """A response that comes slowly.

    Args:
        response: the whole one.
        rate: bytes per second.
        pause: waits.
    """

    def __init__(self, response: ASGIApp, rate: int, pause: Pause) -> None:
        self._response = response
        self._rate = rate
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it bit by bit."""
        step = max(1, self._rate // DRIPS_PER_SECOND)

        async def slowly(message: Message) -> None:
            body = message.get("body", b"")
            while len(body) > step:
                drop, body = body[:step], body[step:]
                await send({"type": "http.response.body", "body": drop, "more_body": True})
                await self._pause(step / self._rate)
            await send({**message, "body": body} if "body" in message else message)

        await self._response(scope, receive, slowly)


class Then:
    """A response, and what happens once it is sent.

    Args:
        response: the response.
        after: called when it is.
    """

    def __init__(self, response: ASGIApp, after: Callable[[], None]) -> None:
        self._response = response
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, then do the other thing, even if nobody was left to take the response."""
        try:
            await self._response(scope, receive, send)
        finally:
            self._after()


class _Left:
    """How much of a body is still to be sent."""

    def __init__(self, bytes_: int | None) -> None:
        self._bytes = bytes_
        self.spent = False

    def take(self, piece: bytes) -> bytes:
        if self._bytes is None:
            # The last name of a field is within the last document, wherever the array stands.
            self._bytes = piece.rfind(b":") + 1 or len(piece) // 2
        if self._bytes <= len(piece):
            self.spent = True
        taken = piece[: self._bytes]
        self._bytes -= len(taken)
        return taken


def _without_length(start: Message) -> Message:
    headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
    return {**start, "headers": headers}


async def _gone(receive: Receive) -> None:
    """Until the protocol knows that the connection is over: it complains of what is not whole."""
    while (await receive())["type"] != "http.disconnect":
        pass
