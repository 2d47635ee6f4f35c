"""Drives a splitter and a decoder over chunks, one piece after the other: what a pipeline does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

from connectome_dagster.errors import MalformedResponse
from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.frames.split import Splitter

T = TypeVar("T")


class BrokeOff(Exception):
    """The body ended before its documents were closed."""


def pieces_of(
    chunks: Iterable[bytes], splitter: Splitter, decode: Callable[[bytes], T]
) -> Iterator[T]:
    """Give what the pieces decode to; a piece that was cut wrongly is cut again."""
    for chunk in chunks:
        piece = splitter.feed(chunk)
        while piece is not None:
            yield from _decoded(piece, splitter, decode)
            piece = splitter.next_piece()
    closed = False
    while not closed or splitter.waiting:
        piece, closed = splitter.finish()
        if piece:
            yield from _decoded(piece, splitter, decode)
        if not closed and not splitter.waiting:
            raise BrokeOff


def _decoded(piece: bytes, splitter: Splitter, decode: Callable[[bytes], T]) -> Iterator[T]:
    exactly_cut = splitter.exact
    try:
        decoded = decode(piece)
    except NotDocuments as refused:
        reason = str(refused)
    else:
        yield decoded
        return
    if exactly_cut:
        raise MalformedResponse(reason)
    splitter.take_back([piece])


def chunked(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut a body at these positions."""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[begin:end] for begin, end in pairwise(places)]
