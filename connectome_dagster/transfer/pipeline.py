"""Decodes the pieces of a body in parallel while it arrives, and hands them out in order.

Knows neither where the chunks come from nor what a piece is decoded into. A piece that was cut
wrongly is taken back and cut again; nothing that came after it has been handed out by then.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from connectome_dagster.errors import MalformedResponse, ReadInterrupted
from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.frames.split import Splitter

T = TypeVar("T")

# The compiled reader lets go of the interpreter lock, so a thread per processor decodes; more
# than four would wait for the one that reads the body.
WORKERS = min(4, os.cpu_count() or 1)

# Pieces that are decoded or wait for it: one for each worker, one that is ready before a worker is,
# and one so that this holds also while the next is received (with one less, a worker of two waited
# a fifth of the time). This bounds what a read holds, whatever the consumer does.
IN_FLIGHT = WORKERS + 2


@dataclass(frozen=True)
class _Pending(Generic[T]):
    piece: bytes
    exactly_cut: bool
    result: Future[T]


class Pipeline(Generic[T]):
    """Runs one body through a splitter and a decoder.

    Args:
        splitter: cuts the body.
        decode: decodes a piece, in another thread; raises `NotDocuments` for what is none.

    Attributes:
        piece: the text of what `run` gave last.
    """

    def __init__(self, splitter: Splitter, decode: Callable[[bytes], T]) -> None:
        self._splitter = splitter
        self._decode = decode
        self._pending: deque[_Pending[T]] = deque()
        self.piece = b""

    def run(self, chunks: Iterable[bytes]) -> Generator[T, None, None]:
        """Give what the pieces decode to, in their order.

        Raises:
            ReadInterrupted: the body broke off; what arrived whole has been handed out before.
            MalformedResponse: the body is not an array of documents.
        """
        with ThreadPoolExecutor(WORKERS, "connectome-decode") as pool:
            try:
                broken = yield from self._while_it_arrives(iter(chunks), pool)
                yield from self._after_its_end(pool, broken)
            finally:
                for pending in self._pending:
                    pending.result.cancel()

    def _while_it_arrives(
        self, chunks: Iterator[bytes], pool: ThreadPoolExecutor
    ) -> Generator[T, None, ReadInterrupted | None]:
        # The first piece is small and waited for: its documents are out before more is received,
        # and what it teaches helps all others.
        may_wait = 0
        while True:
            try:
                chunk = next(chunks, None)
            except ReadInterrupted as interrupted:
                return interrupted
            if chunk is None:
                return None
            piece = self._splitter.feed(chunk)
            while piece is not None:
                self._submit(piece, pool)
                yield from self._ready(may_wait)
                may_wait = IN_FLIGHT - 1
                piece = self._splitter.next_piece()

    def _after_its_end(
        self, pool: ThreadPoolExecutor, broken: ReadInterrupted | None
    ) -> Iterator[T]:
        yield from self._ready(0)
        closed = False
        while not closed or self._splitter.waiting:
            piece, closed = self._splitter.finish()
            if piece:
                self._submit(piece, pool)
            yield from self._ready(0)
            # Without a piece nothing can be taken back: the array has not even begun.
            if not closed and not (piece and self._splitter.waiting):
                raise broken or ReadInterrupted(
                    "the body ended before the bracket that closes the documents. What arrived is "
                    "not everything: read again"
                )
        if broken is not None:
            raise broken

    def _submit(self, piece: bytes, pool: ThreadPoolExecutor) -> None:
        exact = self._splitter.exact
        self._pending.append(_Pending(piece, exact, pool.submit(self._decode, piece)))

    def _ready(self, may_wait: int) -> Iterator[T]:
        """Hand out what is decoded, and more until only `may_wait` pieces are pending."""
        while self._pending and (len(self._pending) > may_wait or self._pending[0].result.done()):
            pending = self._pending.popleft()
            try:
                decoded = pending.result.result()
            except NotDocuments as refused:
                reason = str(refused)
            else:
                self.piece = pending.piece
                yield decoded
                continue
            if pending.exactly_cut:
                raise MalformedResponse(f"the response is not JSON documents: {reason}")
            self._splitter.take_back([pending.piece, *(later.piece for later in self._pending)])
            self._pending.clear()
