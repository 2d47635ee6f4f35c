from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.errors import MalformedResponse, ReadInterrupted
from connectome_dagster.frames.decode import Hints
from connectome_dagster.frames.decode import decode as decode_piece
from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.frames.split import FIRST_PIECE_BYTES, Splitter
from connectome_dagster.transfer.pipeline import IN_FLIGHT, WORKERS, Pipeline
from tests.api.scripted import Request, head, serving


def decode(piece: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(b"[" + piece + b"]", type=list[dict[str, Any]])
    except msgspec.DecodeError as error:
        raise NotDocuments(str(error)) from None


def pipeline(piece_bytes: int = 1) -> Pipeline[list[dict[str, Any]]]:
    return Pipeline(Splitter(piece_bytes=piece_bytes), decode)


def in_chunks(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def run_until_it_breaks(
    running: Iterable[list[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], Exception | None]:
    """What comes out, and what ends it."""
    got: list[dict[str, Any]] = []
    try:
        for piece in running:
            got += piece
    except (ReadInterrupted, MalformedResponse) as error:
        return got, error
    return got, None


def numbered(count: int, *, pad: int = 0) -> list[dict[str, Any]]:
    return [{"n": n, "pad": "x" * pad} for n in range(count)]


def test_documents_come_in_their_order_and_in_pieces() -> None:
    pieces = list(pipeline(100).run(in_chunks(msgspec.json.encode(numbered(200)), 50)))
    assert [document["n"] for piece in pieces for document in piece] == list(range(200))
    assert len(pieces) > 20


def test_order_does_not_depend_on_which_piece_is_decoded_first() -> None:
    later = threading.Event()

    def second_is_slow(piece: bytes) -> list[dict[str, Any]]:
        found = decode(piece)
        if found[0]["n"] == 1 and WORKERS > 1:
            assert later.wait(10)
        elif found[0]["n"] > 1:
            later.set()
        return found

    slow = Pipeline(Splitter(piece_bytes=1), second_is_slow)
    pieces = list(slow.run(in_chunks(msgspec.json.encode(numbered(30)), 20)))
    assert [document["n"] for piece in pieces for document in piece] == list(range(30))


def test_no_more_pieces_are_held_than_the_bound_says() -> None:
    held = 0
    most = 0
    lock = threading.Lock()

    def counting(piece: bytes) -> list[dict[str, Any]]:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return decode(piece)

    chunks = in_chunks(msgspec.json.encode(numbered(500, pad=50)), 64)
    for _ in Pipeline(Splitter(piece_bytes=64), counting).run(chunks):
        with lock:
            held -= 1
    assert 1 <= most <= IN_FLIGHT


def test_who_takes_one_piece_makes_no_more_than_a_few_be_read() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield b'[{"n":0}'
        while True:
            taken += 1
            yield b',{"n":%d}' % taken

    running = pipeline(30).run(endless())
    next(running)
    assert taken * 7 < 30 * (IN_FLIGHT + 3)
    running.close()


def test_a_consumer_that_takes_its_time_lets_nothing_grow() -> None:
    size = 200
    received = decoded = 0
    lock = threading.Lock()

    def chunks(body: bytes) -> Iterator[bytes]:
        nonlocal received
        for chunk in in_chunks(body, 50):
            received += len(chunk)
            yield chunk

    def counting(piece: bytes) -> tuple[int, int]:
        nonlocal decoded
        with lock:
            decoded += 1
        return len(decode(piece)), len(piece)

    def are_decoded(pieces: int) -> bool:
        return decoded == pieces

    running = Pipeline(Splitter(piece_bytes=size), counting)
    taken = rows = 0
    for number, (count, length) in enumerate(
        running.run(chunks(msgspec.json.encode(numbered(2000, pad=20)))), start=1
    ):
        ahead = len(running._pending)
        assert ahead < IN_FLIGHT
        # Whatever could happen meanwhile has happened.
        assert until(partial(are_decoded, number + ahead))
        taken += length + 1
        rows += count
        assert received - taken <= (IN_FLIGHT + 1) * (size + 50)
    assert rows == 2000


def until(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.001)
    return True


def test_the_first_piece_is_out_before_more_is_received() -> None:
    body = msgspec.json.encode(numbered(2000, pad=500))
    received = 0

    def chunks() -> Iterator[bytes]:
        nonlocal received
        for chunk in in_chunks(body, 20_000):
            received += 1
            yield chunk

    running = Pipeline(Splitter(), decode).run(chunks())
    next(running)
    assert received == -(-FIRST_PIECE_BYTES // 20_000)
    running.close()


@pytest.mark.parametrize("megabytes", [2, 46])
def test_of_a_slow_response_documents_are_out_before_a_tenth_has_been_sent(megabytes: int) -> None:
    document = msgspec.json.encode({"_id": "0" * 24, "title": "x" * 150, "n": [1, 2, {"a": None}]})
    documents = megabytes * 1_000_000 // len(document)
    body = b"[%b]" % b",".join([document] * documents)
    out = threading.Event()

    def slowly(connection: socket.socket, _request: Request, _over: threading.Event) -> bool:
        connection.sendall(head(200, {"Content-Length": len(body)}))
        tenth = len(body) // 10
        for at in range(0, tenth, 10_000):
            connection.sendall(body[at : min(at + 10_000, tenth)])
        out.wait(20)  # and then the response breaks off
        return False

    with serving(slowly) as server, closing(Client(server.base_url)) as client:
        call = endpoints.read_with_query("movies")
        with client.stream(call, Credentials("made-up")) as chunks:
            running = Pipeline(Splitter(), lambda piece: decode_piece(piece, Hints())).run(chunks)
            began = time.monotonic()
            assert 0 < next(running).batch.num_rows < documents / 10
            assert time.monotonic() - began < 15
            out.set()
            running.close()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_pipeline_that_is_closed_leaves_no_thread(after: int) -> None:
    before = threading.active_count()
    running = pipeline(30).run(in_chunks(msgspec.json.encode(numbered(100)), 10))
    for _ in range(after):
        next(running)
    running.close()
    assert threading.active_count() == before


def test_an_error_that_nobody_expects_comes_through_and_leaves_no_thread() -> None:
    before = threading.active_count()

    def broken(piece: bytes) -> None:
        raise ZeroDivisionError(piece.decode())

    with pytest.raises(ZeroDivisionError):
        list(Pipeline(Splitter(piece_bytes=30), broken).run([msgspec.json.encode(numbered(9))]))
    assert threading.active_count() == before


def test_what_is_wrong_is_told_after_what_was_right() -> None:
    body = msgspec.json.encode(numbered(20, pad=10))[:-1] + b",5]"
    got, error = run_until_it_breaks(pipeline(50).run(in_chunks(body, 25)))
    assert isinstance(error, MalformedResponse)
    assert "not JSON documents" in str(error)
    assert got == numbered(20, pad=10)[: len(got)]
    assert len(got) > 10


@pytest.mark.parametrize("body", [b"", b" ", b"[", b"[ ", b'{"a":1,"b', b'{"data":', b'[{"a"'])
def test_a_body_that_ends_before_its_documents_is_interrupted_and_not_waited_for(
    body: bytes,
) -> None:
    with pytest.raises(ReadInterrupted, match="ended before the bracket"):
        list(pipeline().run(in_chunks(body, 3)))


def test_an_interruption_is_the_one_that_the_body_tells() -> None:
    told = ReadInterrupted("the line is cut")

    def cut() -> Iterator[bytes]:
        yield b'[{"n":1},{"n":2},{"n'
        raise told

    got, error = run_until_it_breaks(pipeline().run(cut()))
    assert error is told
    assert got == [{"n": 1}, {"n": 2}]


nested = st.recursive(
    st.integers(0, 9) | st.sampled_from(['},{"a":', '"', "\\", "]}", "{[", ""]) | st.none(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("ab"), below),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), nested, max_size=2), max_size=12),
    st.integers(1, 60),
    st.integers(1, 40),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([(b"", b""), (b' {"ok":{"x":[1]},"data": ', b' ,"n":1} ')]),
)
@settings(max_examples=300, deadline=None)
def test_pieces_add_up_to_the_documents_however_they_are_cut(
    documents: list[dict[str, Any]],
    piece_bytes: int,
    chunk_bytes: int,
    indent: int | None,
    wrapper: tuple[bytes, bytes],
) -> None:
    text = msgspec.json.encode(documents)
    if indent is not None:
        text = msgspec.json.format(text, indent=indent)
    body = wrapper[0] + text + wrapper[1]
    pieces = pipeline(piece_bytes).run(in_chunks(body, chunk_bytes))
    assert [document for piece in pieces for document in piece] == documents


@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), nested, max_size=2), max_size=6),
    st.integers(1, 60),
    st.integers(1, 40),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_of_a_broken_body_only_whole_documents_come(
    documents: list[dict[str, Any]], piece_bytes: int, chunk_bytes: int, data: st.DataObject
) -> None:
    body = msgspec.json.encode(documents)
    body = body[: data.draw(st.integers(0, len(body) - 1))]
    got, error = run_until_it_breaks(pipeline(piece_bytes).run(in_chunks(body, chunk_bytes)))
    assert isinstance(error, ReadInterrupted)
    assert got == documents[: len(got)]
    assert len(got) >= len(documents) - 1 or len(body) < len(
        msgspec.json.encode(documents[: len(got) + 2])
    )
