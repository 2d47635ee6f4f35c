"""Encoded documents gathered into the bodies of requests, bounded by rows and by bytes.

Pure. Knows neither frames nor requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DocumentBatch:
    """Documents that travel together.

    Attributes:
        first_row: position of the first one in what was handed in, from 0.
        rows: how many they are.
        body: the JSON array.
    """

    first_row: int
    rows: int
    body: bytes = field(repr=False)

    @property
    def shown(self) -> str:
        """The rows as people say them."""
        if self.rows == 1:
            return f"row {self.first_row}"
        return f"rows {self.first_row} to {self.first_row + self.rows - 1}"


def gather(lines: Iterable[bytes], max_rows: int, max_bytes: int) -> Iterator[DocumentBatch]:
    """Gather encoded documents into batches.

    Args:
        lines: a JSON object each.
        max_rows: documents in a batch at most.
        max_bytes: bytes of a body at most; a document that is larger travels alone.

    Example:
        >>> [batch.body for batch in gather([b'{"a":1}', b'{"a":2}', b'{"a":3}'], 2, 1000)]
        [b'[{"a":1},{"a":2}]', b'[{"a":3}]']
    """
    held: list[bytes] = []
    first, size = 0, 2  # the brackets
    for line in lines:
        if held and (len(held) == max_rows or size + len(line) > max_bytes):
            yield _batch(first, held)
            first, held, size = first + len(held), [], 2
        held.append(line)
        size += len(line) + 1  # the comma
    if held:
        yield _batch(first, held)


def _batch(first: int, held: list[bytes]) -> DocumentBatch:
    return DocumentBatch(first, len(held), b"[" + b",".join(held) + b"]")
