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
from connectome_dagster.frames.schema import Path


@dataclass(frozen=True)
class Hints:
    """What earlier pieces of a read taught; it changes the speed or the type, never a value.

    Attributes:
        strings: fields whose strings look like dates to the compiled reader.
        as_text: fields that hold several types and are therefore read as text.
        apart: fields that the compiled reader cannot take.
    """

    strings: frozenset[Path] = frozenset()
    as_text: frozenset[Path] = frozenset()
    apart: frozenset[Path] = frozenset()

    def after(self, decoded: Decoded) -> Hints:
        """What is known after one more piece."""
        return Hints(self.strings | decoded.strings, self.as_text, self.apart | decoded.apart)

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
    """

    batch: pa.RecordBatch
    strings: frozenset[Path] = frozenset()
    apart: frozenset[Path] = frozenset()
    conflicts: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    duplicated: dict[Path, int] = field(default_factory=dict)


def decode(piece: bytes, hints: Hints) -> Decoded:
    """Decode the inside of a JSON array of documents.

    Raises:
        NotDocuments: it is none; or the cut was wrong, if the cut was guessed.
    """
    check_utf8(piece)
    try:
        taken = decode_apart(piece, hints.strings, hints.apart, hints.as_text)
    except Uncertain:
        batch, conflicts = decode_exactly(piece, hints.as_text)
        return Decoded(batch, conflicts=conflicts, duplicated=repeated_names(piece))
    # The compiled reader takes no object with a name twice, so there are none but in what it left.
    return Decoded(taken.batch, taken.strings, taken.apart, taken.conflicts, taken.duplicated)
