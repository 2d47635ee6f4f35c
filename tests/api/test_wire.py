from __future__ import annotations

import http.client
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.api.wire import (
    MAX_CHUNK_LINE_BYTES,
    MAX_HEAD_BYTES,
    AnswerHead,
    NotHTTPError,
    framing_of,
    take_head,
)


def received(answer: bytes, sizes: list[int]) -> tuple[AnswerHead, bytes, bool, bool]:
    """Take an answer as it arrives in pieces: head, body, whether it is over, what is behind it."""
    pieces, at = [], 0
    for size in [*sizes, len(answer)]:
        pieces.append(answer[at : at + size])
        at += size
    data = b""
    found = None
    while found is None:
        data += pieces.pop(0)
        found = take_head(data) if data else None
    head, early = found
    framing = framing_of(head)
    body = framing.feed(early)
    for piece in pieces:
        if framing.over:
            framing.surplus = framing.surplus or bool(piece)
        else:
            body += framing.feed(piece)
    return head, body, framing.over, framing.surplus


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;name=value\r\n[1,2\r\n00a \r\n,3,4,5,6,7\r\n1\n]\n0\r\nTrailer: x\r\n\r\n"
)
WHOLE: dict[str, tuple[bytes, bytes]] = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]", b"[1,2]"),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length:5\r\n\r\n[1,2]", b"[1,2]"),
    "said twice": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n[]",
        b"[]",
    ),
    "nothing": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "chunked": (CHUNKED, b"[1,2,3,4,5,6,7]"),
    "chunked wins": (CHUNKED.replace(b"\r\n", b"\r\nContent-Length: 3\r\n", 1), b"[1,2,3,4,5,6,7]"),
    "bare line ends": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n[]", b"[]"),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"[]",
    ),
}


@pytest.mark.parametrize(("answer", "body"), WHOLE.values(), ids=WHOLE.keys())
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, body: bytes) -> None:
    expected = received(answer, [])
    assert expected[1:] == (body, True, False)
    assert expected[0].status in (200, 204)
    for at in range(1, len(answer)):
        assert received(answer, [at]) == expected
    assert received(answer, [1] * len(answer)) == expected


@pytest.mark.parametrize("name", ["length", "chunked", "nothing"])
def test_what_comes_behind_an_answer_is_noticed_and_is_not_of_it(name: str) -> None:
    answer, body = WHOLE[name]
    for at in range(1, len(answer) + 1):
        assert received(answer + b"HTTP/1.1 200", [at])[1:] == (body, True, True)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    head, early = take_head(b"HTTP/1.1 200 OK\r\n\r\n[1") or pytest.fail("there is a head")
    framing = framing_of(head)
    assert framing.feed(early) + framing.feed(b",2]") == b"[1,2]"
    assert (framing.over, framing.ends_by_close) == (False, True)


@pytest.mark.parametrize("name", ["length", "chunked"])
def test_a_body_that_is_cut_is_not_over(name: str) -> None:
    answer, _ = WHOLE[name]
    head_ends = answer.index(b"\r\n\r\n") + 4
    for at in range(head_ends, len(answer)):
        head, early = take_head(answer[:at]) or pytest.fail("there is a head")
        framing = framing_of(head)
        framing.feed(early)
        assert (framing.over, framing.ends_by_close) == (False, False)


@pytest.mark.parametrize(
    ("head", "persists"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x\r\nconnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_connection_persists_as_the_head_says(head: bytes, persists: bool) -> None:
    found = take_head(head)
    assert found is not None
    assert found[0].persists is persists


def test_headers_are_found_by_name_whatever_stands_between_them() -> None:
    text = (
        b"HTTP/1.1 429 Slow\r\nRETRY-after:  5 \r\nno header at all\r\nX: a\r\nx: b\r\n"
        b"Folded: one\r\n\ttwo\r\n: nothing\r\n more\r\nLast: \xe9\r\n\r\n"
    )
    head, rest = take_head(text) or pytest.fail("there is a head")
    assert (head.status, rest) == (429, b"")
    assert head.headers == {"retry-after": "5", "x": "a, b", "folded": "one two", "last": "é"}


NO_HEADS = [
    b"SSH-2.0-OpenSSH_9\r\n\r\n",
    b"<html>",
    b"\x15\x03\x01\x00\x02",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_HEAD_BYTES,
]


@pytest.mark.parametrize("data", NO_HEADS)
def test_what_is_no_head_is_refused_and_nothing_of_it_is_told(data: bytes) -> None:
    with pytest.raises(NotHTTPError) as caught:
        take_head(data)
    assert caught.value.args == ()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "two"},
        {"content-length": "-2"},
        {"content-length": "+2"},
        {"content-length": "2, 3"},
        {"content-length": ""},
        {"content-length": "²"},
        {"transfer-encoding": "gzip, chunked"},
        {"transfer-encoding": "gzip"},
    ],
)
def test_a_framing_that_is_not_known_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NotHTTPError):
        framing_of(AnswerHead(200, headers, persists=True))


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"\r\n",
        b"0x1\r\n",
        b"1 1\r\n",
        b"f" * 16 + b"\r\n",
        b"1\r\n[]\r\n",
        b"1;" + b"x" * MAX_CHUNK_LINE_BYTES,
        b"0\r\n" + b"Trailer: x\r\n" * MAX_HEAD_BYTES,
    ],
)
def test_chunks_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(NotHTTPError):
        framing_of(AnswerHead(200, {"transfer-encoding": "Chunked"}, persists=True)).feed(body)


class Played:
    """A socket for the standard library's reader: it has received everything."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def by_the_standard_library(answer: bytes) -> tuple[int, bytes]:
    played: Any = Played(answer)
    response = http.client.HTTPResponse(played)
    response.begin()
    return response.status, response.read()


@given(
    st.binary(max_size=40),
    st.lists(st.integers(0, 12), max_size=6),
    st.lists(st.integers(0, 30), max_size=12),
    st.booleans(),
)
def test_a_body_is_what_the_standard_library_finds(
    body: bytes, chunks: list[int], sizes: list[int], chunked: bool
) -> None:
    if chunked:
        framed, at = b"", 0
        for size in [*filter(None, chunks), 40]:
            chunk = body[at : at + size]
            at += size
            framed += b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    else:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    head, found, over, surplus = received(answer, sizes)
    assert (head.status, found) == by_the_standard_library(answer)
    assert (found, over, surplus) == (body, True, False)
