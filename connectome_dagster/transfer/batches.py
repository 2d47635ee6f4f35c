"""Encoded rows gathered into batches that travel together, bounded by rows and by bytes.

Pure. Knows neither frames nor requests, nor what is written beside each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class RowBatch:
    """Rows that travel together.

    Attributes:
        rows: their positions in what was handed in, from 0, rising.
        lines: the rows as JSON objects, without the closing brace.
        keys: a key for each; none at all where rows have no keys.
    """

    rows: Sequence[int]
    lines: Sequence[bytes] = field(repr=False)
    keys: Sequence[bytes] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shown(self) -> str:
        """The rows as people say them."""
        first, last = self.rows[0], self.rows[-1]
        if first == last:
            return f"row {first}"
        if last - first + 1 == len(self.rows):
            return f"rows {first} to {last}"
        return f"{len(self.rows)} of rows {first} to {last}"

    @property
    def texts(self) -> list[str]:
        """The keys as text."""
        return [key.decode() for key in self.keys]

    def plain(self) -> bytes:
        """The rows as a JSON array, as they are."""
        return b"[" + b"},".join(self.lines) + b"}]"

    def at(self, places: Sequence[int]) -> RowBatch:
        """The batch of the rows in these places of this one."""
        return RowBatch(
            [self.rows[place] for place in places],
            [self.lines[place] for place in places],
            [self.keys[place] for place in places] if self.keys else (),
        )

    def halves(self) -> tuple[RowBatch, RowBatch]:
        """The batch in two."""
        middle = len(self) // 2
        return self._part(0, middle), self._part(middle, len(self))

    def _part(self, begin: int, end: int) -> RowBatch:
        part = slice(begin, end)
        return RowBatch(self.rows[part], self.lines[part], self.keys[part])


def gather(
    chunks: Iterable[tuple[list[bytes], list[bytes]]],
    max_rows: int,
    max_bytes: int,
    beside: int = 0,
) -> Iterator[RowBatch]:
    """Gather encoded rows into batches.

    Args:
        chunks: rows as JSON objects without the closing brace, and their keys, as many or none.
        max_rows: rows in a batch at most.
        max_bytes: bytes of a body at most; a row that is larger travels alone.
        beside: bytes that are written beside each row.

    Example:
        >>> chunks = [([b'{"a":1', b'{"a":2'], []), ([b'{"a":3'], [])]
        >>> [batch.plain() for batch in gather(chunks, 2, 1000)]
        [b'[{"a":1},{"a":2}]', b'[{"a":3}]']
    """
    first = 0
    lines: list[bytes] = []
    keys: list[bytes] = []
    for more_lines, more_keys in chunks:
        lines += more_lines
        keys += more_keys
        begin = 0
        for end in _cuts(lines, max_rows, max_bytes, beside):
            yield _batch(first + begin, lines[begin:end], keys[begin:end])
            begin = end
        first += begin
        # What is left is less than a batch.
        lines, keys = lines[begin:], keys[begin:]
    if lines:
        yield _batch(first, lines, keys)


def _cuts(lines: list[bytes], max_rows: int, max_bytes: int, beside: int) -> Iterator[int]:
    """Where batches end that can take no more; the last one may, and is not told."""
    each = np.fromiter(map(len, lines), np.int64, len(lines)) + (2 + beside)  # brace, comma
    ends = np.cumsum(each)
    begin = 0
    while True:
        before = int(ends[begin - 1]) if begin else 0
        # The brackets are two bytes, and the last row has no comma.
        fits = int(np.searchsorted(ends, before + max_bytes - 1, "right"))
        end = max(begin + 1, min(fits, begin + max_rows))
        if end >= len(lines) and end < begin + max_rows:
            return
        if end > len(lines):
            return
        yield end
        begin = end


def _batch(first: int, lines: list[bytes], keys: list[bytes]) -> RowBatch:
    return RowBatch(range(first, first + len(lines)), lines, keys)
