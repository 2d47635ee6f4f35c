"""Some of the documents of one piece of a body, decoded: what a read is made of until it is joined.

Knows what was meant of a piece; neither where it came from nor what becomes of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from connectome_dagster.frames.decode import Decoded
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.frames.repeats import repeated_names
from connectome_dagster.frames.schema import Path


@dataclass(frozen=True)
class Piece:
    """Documents, and what they became in Arrow.

    Attributes:
        text: the whole piece.
        start: position of the first document that is meant.
        rows: how many are.
        decoded: what they became, None if a document of the piece does not fit.
    """

    text: bytes
    start: int
    rows: int
    decoded: Decoded | None

    @classmethod
    def of(cls, text: bytes, decoded: Decoded) -> Piece:
        """A whole piece."""
        return cls(text, 0, decoded.batch.num_rows, decoded)

    @property
    def documents(self) -> list[bytes]:
        """The text of each document that is meant."""
        every = msgspec.json.decode(b"[%b]" % self.text, type=list[msgspec.Raw])
        return [bytes(each) for each in every[self.start : self.start + self.rows]]

    def count(self) -> int:
        """How many documents are meant."""
        return self.rows

    def part(self, start: int, rows: int | None) -> Piece:
        """The documents from a position on, so many of them or all."""
        left = max(0, self.rows - start)
        rows = left if rows is None else min(rows, left)
        decoded = self.decoded
        if decoded is None or rows == self.rows:
            return Piece(self.text, self.start + start, rows, decoded)
        decoded = replace(decoded, batch=decoded.batch.slice(start, rows))
        meant = Piece(self.text, self.start + start, rows, decoded)
        if not decoded.duplicated:
            return meant
        again = repeated_names(b",".join(meant.documents))
        return replace(meant, decoded=replace(decoded, duplicated=again))


@dataclass(frozen=True)
class PlainPiece:
    """Documents as plain Python.

    Attributes:
        documents: those that are meant.
        duplicated: names that stand more than once in one of their objects, with their number.
    """

    documents: list[dict[str, Any]]
    duplicated: Counter[Path]
    text: bytes
    start: int = 0

    @classmethod
    def of(cls, text: bytes) -> PlainPiece:
        """A whole piece.

        Raises:
            NotDocuments: as `frames.plain`.
        """
        documents = plain_documents(text)
        return cls(documents, repeated_names(text, decoded=documents), text)

    def count(self) -> int:
        """How many documents are meant."""
        return len(self.documents)

    def part(self, start: int, rows: int | None) -> PlainPiece:
        """The documents from a position on, so many of them or all."""
        stop = None if rows is None else start + rows
        documents = self.documents[start:stop]
        duplicated = self.duplicated
        first = self.start + start
        if duplicated and len(documents) < len(self.documents):
            every = msgspec.json.decode(b"[%b]" % self.text, type=list[msgspec.Raw])
            meant = every[first : first + len(documents)]
            duplicated = repeated_names(b",".join(map(bytes, meant)))
        return PlainPiece(documents, duplicated, self.text, first)
