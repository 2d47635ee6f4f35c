"""HTTP/1.1 as bytes: the head of an answer, and where its body ends (RFC 9112).

Pure: whoever has a connection hands in what arrived. Knows no sockets, no credentials and not
what a body means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

# Heads are a few hundred bytes; proxies and servers refuse them beyond 8 to 64 KiB.
MAX_HEAD_BYTES = 64 * 1024

# The line before a chunk is its size in hex; what may stand behind that nobody sends.
MAX_CHUNK_LINE_BYTES = 4096


class NotHTTPError(Exception):
    """What came is not an answer by HTTP/1.1. Holds nothing of it."""


class AnswerHead(NamedTuple):
    """The head of an answer.

    Attributes:
        status: the HTTP status, from 200.
        headers: by name in lower case; several of one name are joined by a comma.
        persists: whether the connection can be used again when the body has ended.
    """

    status: int
    headers: Mapping[str, str]
    persists: bool


_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")


def take_head(data: bytes) -> tuple[AnswerHead, bytes] | None:
    """Take the head off what arrived; interim answers (1xx) before it are skipped.

    Args:
        data: everything that arrived so far.

    Returns:
        The head and what came behind it, None if the head has not ended yet.

    Raises:
        NotHTTPError: it is no head, or it is longer than 64 KiB.

    Example:
        >>> take_head(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
        (AnswerHead(status=200, headers={'content-length': '2'}, persists=True), b'[]')
    """
    at = 0
    while (end := _END.search(data, at)) is not None:
        head = _parsed(data[at : end.start()])
        at = end.end()
        if head.status >= 200:
            return head, data[at:]
        if head.status == 101:  # another protocol, which nobody asked for
            raise NotHTTPError
    if len(data) > MAX_HEAD_BYTES or not b"HTTP/1.".startswith(data[at : at + 7]):
        raise NotHTTPError
    return None


def _parsed(text: bytes) -> AnswerHead:
    first, *lines = text.decode("latin-1").split("\n")
    status_line = _STATUS_LINE.fullmatch(first.rstrip("\r"))
    if status_line is None:
        raise NotHTTPError
    headers: dict[str, str] = {}
    name = ""
    for line in lines:
        if line[:1] in (" ", "\t"):  # an old way to go on with the line before
            if name:
                headers[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.lower() if colon else ""
        if name:  # else a line that is no header; it says nothing, and its neighbours still do
            value = value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    said = headers.get("connection", "").lower()
    persists = "close" not in said and (status_line[1] != "0" or "keep-alive" in said)
    return AnswerHead(int(status_line[2]), headers, persists)


class Framing(Protocol):
    """Tells the bytes of a body from what frames them.

    Attributes:
        over: whether the body has ended.
        surplus: whether something came behind its end, so that nobody knows what it answers.
        ends_by_close: whether the end of the connection is the end of the body.
    """

    over: bool
    surplus: bool
    ends_by_close: bool

    def feed(self, data: bytes) -> bytes:
        """Return what of the data belongs to the body.

        Raises:
            NotHTTPError: it is not framed as the head said.
        """


def framing_of(head: AnswerHead) -> Framing:
    """Say how the body of an answer is framed.

    Raises:
        NotHTTPError: the head says it in no way that is known.

    Example:
        >>> framing = framing_of(AnswerHead(200, {"content-length": "2"}, True))
        >>> framing.feed(b"[]"), framing.over
        (b'[]', True)
    """
    coding = head.headers.get("transfer-encoding")
    if head.status in (204, 304):
        return _Counted(0)
    if coding is not None:
        if coding.strip().lower() != "chunked":
            raise NotHTTPError
        return _Chunked()
    said = head.headers.get("content-length")
    if said is None:
        return _UntilClose()
    lengths = {length.strip() for length in said.split(",")}  # a proxy may say it once more
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit()):
        raise NotHTTPError
    return _Counted(int(length))


class _Counted:
    ends_by_close = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.over = not length
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._left:
            self.surplus = True
            data = data[: self._left]
        self._left -= len(data)
        self.over = not self._left
        return data


class _UntilClose:
    ends_by_close = True
    over = False
    surplus = False

    def feed(self, data: bytes) -> bytes:
        return data


_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class _Chunked:
    ends_by_close = False

    def __init__(self) -> None:
        self.over = False
        self.surplus = False
        self._left = 0  # bytes of the chunk that are still to come
        self._between = False  # whether the line end behind a chunk is still to come
        self._trailer = 0  # bytes of the lines behind the last chunk, from 1
        self._line = b""  # the beginning of a line that is still to end

    def feed(self, data: bytes) -> bytes:
        body: list[bytes] = []
        at = 0
        while at < len(data) and not self.over:
            if self._left:
                piece = data[at : at + self._left]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._between = not self._left
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if len(self._line) > MAX_CHUNK_LINE_BYTES:
                raise NotHTTPError
            if end:
                line, self._line = self._line.rstrip(b"\r\n"), b""
                self._take(line)
        self.surplus = self.surplus or at < len(data)
        return body[0] if len(body) == 1 else b"".join(body)

    def _take(self, line: bytes) -> None:
        """Take a line that is no body."""
        if self._trailer:
            self._trailer += len(line) + 1
            self.over = not line
            if self._trailer > MAX_HEAD_BYTES:
                raise NotHTTPError
        elif self._between:
            self._between = False
            if line:
                raise NotHTTPError
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise NotHTTPError
            self._left = int(size[1], 16)
            self._trailer = int(not self._left)
