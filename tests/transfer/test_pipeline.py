from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import MalformedResponse, ReadInterrupted
from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.frames.split import Splitter
from connectome_dagster.transfer.pipeline import IN_FLIGHT, WORKERS, Pipeline


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

    def first_is_slow(piece: bytes) -> list[dict[str, Any]]:
        found = decode(piece)
        if found[0]["n"] == 0 and WORKERS > 1:
            assert later.wait(10)
        else:
            later.set()
        return found

    slow = Pipeline(Splitter(piece_bytes=1), first_is_slow)
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
