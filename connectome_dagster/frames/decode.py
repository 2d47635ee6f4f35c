"""Decodes one piece of documents: compiled where that is certain, exactly where it is not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from connectome_dagster.frames.compiled import Uncertain, decode_compiled
from connectome_dagster.frames.exact import check_utf8, decode_exactly
from connectome_dagster.frames.schema import Path


@dataclass(frozen=True)
class Hints:
    """What earlier pieces of a read taught; it changes the speed or the type, never a value.

    Attributes:
        strings: fields whose strings look like dates to the compiled reader.
        as_text: fields that hold several types and are therefore read as text.
    """

    strings: frozenset[Path] = frozenset()
    as_text: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Decoded:
    """One decoded piece.

    Attributes:
        batch: its documents.
        strings: fields for `Hints.strings` that were found out.
        conflicts: fields that became text for having several types, with the kinds seen.
    """

    batch: pa.RecordBatch
    strings: frozenset[Path] = frozenset()
    conflicts: dict[Path, tuple[str, ...]] = field(default_factory=dict)


def decode(piece: bytes, hints: Hints) -> Decoded:
    """Decode the inside of a JSON array of documents.

    Raises:
        NotDocuments: it is none; or the cut was wrong, if the cut was guessed.
    """
    check_utf8(piece)
    if not hints.as_text:
        try:
            batch, strings = decode_compiled(piece, hints.strings)
            return Decoded(batch, strings)
        except Uncertain:
            pass
    batch, conflicts = decode_exactly(piece, hints.as_text)
    return Decoded(batch, conflicts=conflicts)
