"""Cuts the body of a read, as it arrives in chunks, into pieces of whole documents.

Bytes in, bytes out: nothing is decoded here, and nothing is known of Arrow or of HTTP. A cut is
first guessed from how documents began before (one search from the right) and can be asked for
exactly (a scan of the structure). A wrong guess cannot pass a strict parser: what it leaves is
an unbalanced piece, because the piece before began where a document begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from connectome_dagster.errors import MalformedResponse

# A piece is what one call of a parser gets: large enough that the call costs little beside the
# parsing, small enough that a handful in flight stays far below the memory that a read may take.
# (With 1.5 MiB a read takes 2 % less CPU still, and writing Parquet 20 MiB more memory.)
PIECE_BYTES = 5 << 18

# The first piece is smaller, so that a slow response shows its first documents soon; each one
# after it is so many times larger than the one before, until a piece is what it should be.
FIRST_PIECE_BYTES = 128 << 10
_GROWTH = 4

# Chunks below this size are gathered as they come: each one that is kept costs some bytes more.
_SMALL_CHUNK_BYTES = 16 << 10

# What a wrapper may say before and after the documents (U1), and how much of a body that is not
# documents is kept for the error's text.
WRAPPER_BYTES = 64 << 10

# One document must fit in memory several times over; MongoDB stores none above 16 MiB, and JSON
# escapes can make six bytes of one.
DOCUMENT_BYTES = 96 << 20

_SPACE = b" \t\r\n"
_QUOTE, _BACKSLASH, _COMMA = 0x22, 0x5C, 0x2C

_STRUCTURE = np.zeros(256, dtype=bool)
_STRUCTURE[list(b'"\\{}[],')] = True
_DEPTH = np.zeros(256, dtype=np.int32)
_DEPTH[list(b"{[")] = 1
_DEPTH[list(b"}]")] = -1

# How many bytes `nests_deeper` takes for one step.
_BLOCK = 512

# And how many at a time: what it needs then stays in the processor's cache.
_WINDOW = 256 << 10

# From the brace that ends a document to the colon behind the first name of the next one.
_BETWEEN = re.compile(rb'[ \t\r\n]*,[ \t\r\n]*\{[ \t\r\n]*"(?:[^"\\]|\\.)*"[ \t\r\n]*:')


@dataclass(frozen=True)
class Boundaries:
    """Where the items of an array end, found from the structure and never guessed.

    Attributes:
        last_comma: position of the last comma between two items, -1 if there is none. Of a piece
            of a wanted size it is the last one within that size, else the first one behind it.
        first_comma: position of the first one, -1 if there is none.
        end: position of the bracket that closes the array, -1 if it is not there.
    """

    last_comma: int
    first_comma: int
    end: int


class _Structure(NamedTuple):
    at: npt.NDArray[np.intp]
    kinds: npt.NDArray[np.uint8]
    outside: npt.NDArray[np.bool_]  # of strings
    depth: npt.NDArray[np.intp]


def boundaries(body: bytes | bytearray, wanted: int | None = None) -> Boundaries:
    """Find the boundaries of the items in `body`, which begins inside an array.

    Args:
        body: the text.
        wanted: the size of a piece; None takes what is there.
    """
    if not body:
        return Boundaries(-1, -1, -1)
    at, kinds, outside, depth = _structure(body)
    ends = at[(depth < 0) & outside]
    end = int(ends[0]) if len(ends) else -1
    commas = at[(kinds == _COMMA) & outside & (depth == 0)]
    if end >= 0:
        commas = commas[commas < end]
    if not len(commas):
        return Boundaries(-1, -1, end)
    within = len(commas) if wanted is None else max(1, int(np.searchsorted(commas, wanted)))
    return Boundaries(int(commas[within - 1]), int(commas[0]), end)


def _structure(body: bytes | bytearray) -> _Structure:
    codes = np.frombuffer(body, dtype=np.uint8)
    at = np.flatnonzero(_STRUCTURE[codes])
    kinds = codes[at]
    quotes = kinds == _QUOTE
    if (kinds == _BACKSLASH).any():
        quotes &= ~_escaped(codes, at)
    outside = (np.cumsum(quotes) & 1) == 0
    return _Structure(at, kinds, outside, np.cumsum(_DEPTH[kinds] * outside))


def nests_deeper(body: bytes, levels: int) -> bool:
    """Tell whether brackets stand open in `body` so deep that a recursive parser may crash.

    Counts brackets in strings, too, which costs next to nothing beside the parsing; only if that
    looks deep is the structure scanned. It may take no notice of `_BLOCK` levels more.
    """
    opened = lowest = 0
    codes = np.frombuffer(body, dtype=np.uint8)
    room = np.empty((2, min(len(codes), _WINDOW)), dtype=np.uint8)
    for begin in range(0, len(codes), _WINDOW):
        steps = _steps(codes[begin : begin + _WINDOW], room)
        depths = opened + np.cumsum(steps)
        lows = np.minimum(np.minimum.accumulate(depths), lowest)
        if (depths - lows).max(initial=0) > levels:
            return int(_structure(body).depth.max(initial=0)) > levels
        opened += int(steps.sum())
        lowest = int(lows.min(initial=lowest))
    return False


def _steps(codes: npt.NDArray[np.uint8], room: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How many more brackets open than close in each whole block of the text."""
    size = len(codes) // _BLOCK * _BLOCK
    lower, steps = room[:, :size]
    np.bitwise_or(codes[:size], np.uint8(0x20), out=lower)  # now [ is { and ] is }
    # Two for what opens, nothing for what closes, one for all else: summed eight at a time, since
    # in 64 steps none of them leaves its byte.
    np.equal(lower, ord("{"), out=steps.view(np.bool_))
    np.not_equal(lower, ord("}"), out=lower.view(np.bool_))
    steps += lower
    lanes = steps.view(np.uint64).reshape(-1, _BLOCK // 8).sum(axis=1).view(np.uint8)
    net: npt.NDArray[np.int64] = lanes.reshape(-1, 8).sum(axis=1, dtype=np.int64) - _BLOCK
    return net


def _escaped(codes: npt.NDArray[np.uint8], at: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Tell which of the positions `at` stand behind an odd run of backslashes."""
    slashes = np.flatnonzero(codes == _BACKSLASH)
    begins_run = np.diff(slashes, prepend=-2) != 1
    run_begin = np.maximum.accumulate(np.where(begins_run, slashes, 0))
    odd_ends = slashes[(slashes - run_begin) % 2 == 0]
    escaped = np.zeros(len(codes) + 1, dtype=bool)
    escaped[odd_ends + 1] = True
    return escaped[at]


class Splitter:
    """Takes chunks of a body and gives pieces: the inside of an array, cut between documents.

    Args:
        response_path: where the array stands in a wrapped response, `"data"` or
            `"result.items"`; None finds it by itself (U1).
        piece_bytes: how much is gathered before a cut is looked for.

    Raises:
        MalformedResponse: from every method, when the body is not an array of documents.
    """

    def __init__(self, response_path: str | None = None, piece_bytes: int = PIECE_BYTES) -> None:
        self._path = response_path
        self._piece_bytes = piece_bytes
        self._next_bytes = min(piece_bytes, FIRST_PIECE_BYTES)
        self._wanted = self._next_bytes
        self._chunks: list[bytes | bytearray] = []
        self._given = 0  # bytes of the first chunk that were given out
        self._size = 0  # bytes that were not
        self._found = False
        self._head = b""  # the wrapper before the documents
        self._head_wanted = 0
        self._between = b""
        self._behind = b""  # what stood behind the last piece
        self._cut = False
        self.exact = False

    def feed(self, chunk: bytes) -> bytes | None:
        """Take a chunk; give the next piece, or None while there is not enough for one."""
        if len(chunk) >= _SMALL_CHUNK_BYTES:
            self._chunks.append(chunk)
        elif self._chunks and isinstance(self._chunks[-1], bytearray):
            self._chunks[-1] += chunk
        else:
            self._chunks.append(bytearray(chunk))
        self._size += len(chunk)
        if not self._found and not self._find_array():
            return None
        return self.next_piece()

    def next_piece(self) -> bytes | None:
        """Cut the next piece off what has arrived; None while there is not enough."""
        if not self._found or self._size < self._wanted:
            return None
        comma = -1 if self.exact else self._guess()
        if comma < 0:
            found = boundaries(self._whole(), self._wanted)
            self._learn(found)
            comma = found.last_comma
        if comma < 0:
            if self._size > DOCUMENT_BYTES:
                raise MalformedResponse(
                    f"a document of more than {DOCUMENT_BYTES >> 20} MiB, or not an array of "
                    "documents; check the collection, or exclude the large field with project"
                )
            # What was scanned once is not scanned again until as much again has arrived.
            self._wanted = 2 * self._size
            return None
        piece = self._cut_off(comma)
        if not piece.strip(_SPACE):
            raise MalformedResponse("the array of documents has a comma without a document")
        self._next_bytes = min(self._piece_bytes, _GROWTH * self._next_bytes)
        self._wanted = self._next_bytes
        self._cut = True
        return piece

    def _cut_off(self, comma: int) -> bytes:
        """Take what stands before the comma, in one copy, and keep what stands behind it."""
        if comma < self._size - len(self._chunks[-1]):
            self._whole()
        *before, last = self._chunks
        end = comma - (self._size - len(last))
        if before:
            first = memoryview(before[0])[self._given :]
            piece = b"".join((first, *before[1:], memoryview(last)[:end]))
        else:
            piece = bytes(memoryview(last)[self._given : end])
        self._chunks, self._given = [last], end + 1
        self._size = len(last) - self._given
        if isinstance(last, bytearray):  # chunks are still added to it
            del last[: self._given]
            self._given = 0
        return piece

    def _whole(self) -> bytes | bytearray:
        if self._given or len(self._chunks) != 1:
            first = (memoryview(chunk)[self._given :] for chunk in self._chunks[:1])
            self._keep(b"".join((*first, *self._chunks[1:])))
        return self._chunks[0]

    def _keep(self, text: bytes) -> None:
        self._chunks, self._given = [text], 0
        self._size = len(text)

    def take_back(self, pieces: list[bytes]) -> None:
        """Put pieces back, the first cut first, and cut exactly from here on."""
        behind = self._behind or b"," + self._whole()
        self._keep(b",".join(pieces) + behind)
        self._wanted = 0
        self.exact = True

    @property
    def waiting(self) -> bool:
        """Whether there are bytes that were not given out."""
        return self._size > 0

    def finish(self) -> tuple[bytes, bool]:
        """Give what is left when no more chunks come and every piece before proved right.

        Returns:
            The last piece (empty if nothing is left), and whether the array was closed: if not,
            the body broke off, and the piece holds the documents that still arrived whole.
        """
        if not self._found and not self._find_array(at_end=True):
            return self._unstarted()
        rest = bytes(self._whole())
        self._keep(b"")
        end = len(rest.rstrip(_SPACE)) - 1
        closed = rest[end : end + 1] == b"]"
        if self._head or self.exact or not closed:
            found = boundaries(rest)
            closed = found.end >= 0
            end = found.end if closed else max(found.last_comma, 0)
            closed = closed and self._wrapper_closes(rest[end + 1 :])
        self._behind = rest[end:]
        piece = rest[:end]
        if closed and self._cut and not piece.strip(_SPACE):
            raise MalformedResponse("the array of documents ends with a comma")
        return piece.strip(_SPACE), closed

    def _guess(self) -> int:
        """Guess the last boundary of a piece of the wanted size, else the first one behind it.

        It is the place that looks as the first one did.
        """
        if not self._between:
            return -1
        at = self._like_the_first()
        if at < 0 and len(self._chunks) > 1:
            self._whole()
            at = self._like_the_first()
        return at

    def _like_the_first(self) -> int:
        """Look at the last chunk alone: a boundary is rarely far."""
        last = self._chunks[-1]
        begin = self._size - len(last)  # where it stands; before 0 if something of it was given
        low, end = max(0, -begin), self._wanted - begin
        at = last.rfind(self._between, low, end)
        if at < 0:
            at = last.find(self._between, max(low, end - len(self._between)))
        return -1 if at < 0 else begin + last.index(b",", at)

    def _learn(self, found: Boundaries) -> None:
        if self._between or found.first_comma < 0:
            return
        whole = self._whole()
        brace = whole.rfind(b"}", 0, found.first_comma)
        between = _BETWEEN.match(whole, brace + 1)
        if brace >= 0 and between:
            self._between = b"}" + between.group()

    def _find_array(self, *, at_end: bool = False) -> bool:
        """Look for the bracket that opens the documents; drop what stands before it."""
        if self._size < self._head_wanted and not at_end:
            return False
        # What was looked at once is not looked at again until as much again has arrived.
        self._head_wanted = min(2 * self._size, WRAPPER_BYTES + 1)
        text = self._whole()
        start = _skip_space(text, 0)
        if start == len(text):
            self._bound_head(start)
            return False
        first = text[start]
        if first == ord("["):
            if self._path:
                raise MalformedResponse(
                    f"the response is a bare array, but response_path={self._path!r} is set; "
                    "leave response_path unset"
                )
            self._found = True
            self._keep(bytes(memoryview(text)[start + 1 :]))
            return True
        if first != ord("{"):
            raise MalformedResponse("the response is not JSON documents" + self._shown())
        at = _array_in_wrapper(bytes(text[:WRAPPER_BYTES]), self._path)
        if at < 0:
            self._bound_head(len(text))
            return False
        self._found = True
        self._head = bytes(text[:at])
        self._keep(bytes(memoryview(text)[at + 1 :]))
        return True

    def _bound_head(self, length: int) -> None:
        if length > WRAPPER_BYTES:
            raise MalformedResponse(
                f"no array of documents within the first {WRAPPER_BYTES >> 10} KiB of the "
                "response; set response_path to where it stands"
            )

    def _unstarted(self) -> tuple[bytes, bool]:
        try:
            whole = msgspec.json.decode(self._whole())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._keep(b"")  # nothing here waits for a piece
            return b"", False
        where = f" at response_path={self._path!r}" if self._path else ""
        said = " (the service reports an error)" if _reports_error(whole) else ""
        raise MalformedResponse(
            f"the response holds no array of documents{where}{said}" + self._shown()
        )

    def _wrapper_closes(self, tail: bytes) -> bool:
        """Check what follows the array: nothing, or the rest of the object around it."""
        if len(tail) > WRAPPER_BYTES:
            raise MalformedResponse(
                f"more than {WRAPPER_BYTES >> 10} KiB follow the documents; if another array "
                "holds them, set response_path"
            )
        if not self._head:
            if tail.strip(_SPACE):
                raise MalformedResponse("the response goes on after the array of documents")
            return True
        try:
            whole = msgspec.json.decode(self._head + b"[]" + tail)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if self._path is None and sum(isinstance(value, list) for value in whole.values()) > 1:
            raise MalformedResponse(
                "the response holds several arrays; set response_path to the one with documents"
            )
        return True

    def _shown(self) -> str:
        return ": " + bytes(self._whole()[:200]).decode("utf-8", "backslashreplace")


def _reports_error(whole: object) -> bool:
    return isinstance(whole, dict) and any(key in whole for key in ("error", "errors", "message"))


def _skip_space(text: bytes | bytearray, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


# The last one is a string whose end is not there yet.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|"', re.DOTALL)


def _name(text: bytes) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""  # no name that anybody asks for; the whole wrapper is parsed at its end


def _array_in_wrapper(head: bytes, path: str | None) -> int:
    """Position of the bracket that opens the documents in a wrapper; -1 if it is not there yet.

    With a path it is the array of that path, else the first array that is a member of the
    outermost object.
    """
    names: list[str] = []  # the member that is open at each depth
    kinds: list[int] = []
    name = ""
    for token in _TOKEN.finditer(head):
        text = token.group()
        kind = text[0]
        if text == b'"':
            return -1
        if kind == _QUOTE:
            name = _name(text)
        elif kind == ord(":"):
            names[-1] = name
        elif kind == ord("[") and kinds == [ord("{")] * len(kinds) and kinds:
            if ".".join(names) == path or (path is None and len(kinds) == 1):
                return token.start()
            kinds.append(kind)
            names.append("")
        elif kind in b"{[":
            kinds.append(kind)
            names.append("")
        elif kind in b"}]" and kinds:
            kinds.pop()
            names.pop()
            if not kinds:
                return -1  # the outermost object is closed
    return -1
