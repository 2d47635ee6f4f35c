"""Decodes one piece of documents: compiled where that is certain, exactly where it is not.

Knows what may be carried from piece to piece, and nothing of who carries it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from connectome_dagster.frames.apart import decode_apart
from connectome_dagster.frames.compiled import Uncertain
from connectome_dagster.frames.exact import check_utf8, decode_exactly
from connectome_dagster.frames.repeats import repeated_names
from connectome_dagster.frames.schema import Path, Unmergeable, merge_schemas

# Each document that goes beyond what is known costs another reading of its piece, and some
# collections have a new field every now and then: after so many of them nothing is taken for known.
MAX_SURPRISES = 4


@dataclass(frozen=True)
class Hints:
    """What earlier pieces of a read taught; it changes the speed or the type, never a value.

    Attributes:
        strings: fields whose strings look like dates to the compiled reader.
        as_text: fields that hold several types and are therefore read as text.
        apart: fields that the compiled reader cannot take.
        known: the type that holds all documents so far; None if that is of no use.
        surprises: how often a document went beyond it.
    """

    strings: frozenset[Path] = frozenset()
    as_text: frozenset[Path] = frozenset()
    apart: frozenset[Path] = frozenset()
    known: pa.StructType | None = None
    surprises: int = 0

    def after(self, decoded: Decoded) -> Hints:
        """What is known after one more piece."""
        known, surprises = self.known, self.surprises
        if known is None and not surprises:
            known = decoded.type
        elif known is not None and decoded.type is not None and not decoded.type.equals(known):
            known = _held_by_both(known, decoded.type)
            surprises += not known.equals(self.known)
        return Hints(
            self.strings | decoded.strings,
            self.as_text,
            self.apart | decoded.apart,
            known if surprises <= MAX_SURPRISES else None,
            surprises,
        )

    def with_text(self, paths: Iterable[Path]) -> Hints:
        """The same for reading again, with more fields that are text."""
        return Hints(self.strings, self.as_text | frozenset(paths), self.apart)


@dataclass(frozen=True)
class Decoded:
    """One decoded piece.

    Attributes:
        batch: its documents.
        strings: fields for `Hints.strings` that were found out.
        apart: fields for `Hints.apart`.
        conflicts: fields that became text for having several types, with the kinds seen.
        duplicated: names that stood more than once in one object, with the number of objects. The
            last one counts, as in JavaScript, Python and MongoDB's drivers.
        type: for `Hints.known`; None if it is not known.
    """

    batch: pa.RecordBatch
    strings: frozenset[Path] = frozenset()
    apart: frozenset[Path] = frozenset()
    conflicts: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    duplicated: dict[Path, int] = field(default_factory=dict)
    type: pa.StructType | None = None


def decode(piece: bytes, hints: Hints) -> Decoded:
    """Decode the inside of a JSON array of documents.

    Raises:
        NotDocuments: it is none; or the cut was wrong, if the cut was guessed.
    """
    check_utf8(piece)
    try:
        taken = decode_apart(piece, hints.strings, hints.apart, hints.as_text, hints.known)
    except Uncertain:
        batch, conflicts = decode_exactly(piece, hints.as_text)
        return Decoded(batch, conflicts=conflicts, duplicated=repeated_names(piece))
    # The compiled reader takes no object with a name twice, so there are none but in what it left.
    return Decoded(
        *(taken.batch, taken.strings, taken.apart, taken.conflicts, taken.duplicated),
        type=taken.type,
    )


def _held_by_both(known: pa.StructType, seen: pa.StructType) -> pa.StructType:
    try:
        return pa.struct(list(merge_schemas(pa.schema(list(known)), pa.schema(list(seen)))))
    except Unmergeable:
        return seen  # what comes next is more likely to be like the latest
