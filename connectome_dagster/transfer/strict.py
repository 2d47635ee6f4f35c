"""Documents that must fit a schema, or have one type in each field: names the first that does not.

Knows pieces in the order in which they are handed out, and what was in those before; neither
requests nor what becomes of the documents.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.frames.decode import Decoded, Hints, decode
from connectome_dagster.frames.fit import Fit, Misfit
from connectome_dagster.frames.schema import (
    EXACT_FLOAT,
    ITEM,
    Path,
    Unmergeable,
    check_wholes,
    merge_schemas,
)
from connectome_dagster.transfer.piece import Piece

INSTANT = pa.timestamp("ms", "UTC")  # what instants become, by the table of types


# Dates and strings are of one type if these are instants, and strings are in any case.
_INSTANTS = "instant"
_ONE_TYPE = ({_INSTANTS, "timestamp"}, {_INSTANTS, "string"})


class Undecided(Exception):  # asks for another reading, never seen outside
    """Whether some fields have one type is told where they are read as text."""

    def __init__(self, paths: frozenset[Path]) -> None:
        super().__init__(*paths)
        self.paths = paths


class Strict:
    """Holds the documents of one read to a schema, or to what the fields of earlier ones held.

    Args:
        hints: what is known before the first piece.
        hidden: fields that may hold what they like, and that no batch has.
        fit: the schema; None asks for one type in each field, whichever it is.

    Attributes:
        undecided: fields that held instants here and other strings there. Whether these are of one
            type depends on how the instants were written, which is told where they are read as
            text.
    """

    def __init__(self, hints: Hints, hidden: frozenset[str], fit: Fit | None) -> None:
        self.undecided: frozenset[Path] = frozenset()
        self._hints = hints
        self._hidden = hidden
        self._fit = fit
        self._schema = pa.schema([])
        self._beyond_floats: frozenset[Path] = frozenset()
        self._kinds: dict[Path, frozenset[str]] = {}  # of fields that are read as text

    def decode(self, text: bytes) -> Piece:
        """Decode a piece, in any thread.

        Raises:
            NotDocuments: as `frames.decode`.
        """
        try:
            decoded = self._decoded(text)
        except Misfit:
            # Where it stands is told in its turn: what is to blame may not be meant at all.
            every = msgspec.json.decode(b"[%b]" % text, type=list[msgspec.Raw])
            return Piece(text, 0, len(every), None)
        return Piece.of(text, decoded)

    def check(self, piece: Piece) -> Decoded:
        """Hold the next piece to what came before, and give what it became.

        Raises:
            Misfit: naming the first document, counted from the first that is meant.
        """
        misfit: Misfit | None = None
        try:
            return self._learned(piece)
        except Misfit:
            if self._fit is not None:
                raise
        documents = piece.documents

        def conflicts(count: int) -> bool:
            nonlocal misfit
            try:
                text = b",".join(documents[:count])
                self._grown(Piece.of(text, self._decoded(text)))
            except Misfit as found:
                misfit = Misfit(found.path, found.reason, count - 1)
                return True
            return False

        bisect_left(range(len(documents) + 1), True, lo=1, key=conflicts)
        if misfit is None:  # what was to blame is not meant
            return self._learned(replace(piece, decoded=None))
        raise misfit

    def _decoded(self, text: bytes) -> Decoded:
        if self._fit is not None:
            return self._fit.decode(text, self._hints, self._hidden)
        decoded = decode(text, self._hints)
        shown = without_fields(decoded, self._hidden)
        for path, kinds in shown.conflicts.items():
            if path not in self._hints.as_text:
                raise _several(path, kinds)
        return shown

    def _learned(self, piece: Piece) -> Decoded:
        decoded = piece.decoded or self._decoded(b",".join(piece.documents))
        if self._fit is None:
            grown = self._grown(replace(piece, decoded=decoded))
            self._schema, self._beyond_floats, self._kinds = grown
        self._hints = self._hints.after(decoded)
        return decoded

    def _grown(self, piece: Piece) -> tuple[pa.Schema, frozenset[Path], dict[Path, frozenset[str]]]:
        """What the fields hold with one more piece."""
        decoded = piece.decoded
        assert decoded is not None  # noqa: S101 - it was decoded just now
        kinds = dict(self._kinds)
        for path, more in self._told_apart(piece, decoded.conflicts).items():
            kinds[path] = kinds.get(path, frozenset()) | more
            if len(kinds[path]) > 1 and kinds[path] not in _ONE_TYPE:
                names = {"string" if kind == _INSTANTS else kind for kind in kinds[path]}
                raise _several(path, tuple(sorted(names)))
        schema = self._merged(decoded.batch)
        beyond = self._beyond_floats
        for name, column in zip(decoded.batch.schema.names, decoded.batch.columns, strict=True):
            beyond |= frozenset(_beyond_floats(column, (name,)))
        for path in beyond:
            # Nothing tells later what the whole numbers of an earlier batch were.
            if _type_at(schema, path) == pa.float64():
                raise _several(path, ("int64", "double"))
        return schema, beyond, kinds

    def _told_apart(
        self, piece: Piece, conflicts: Mapping[Path, Iterable[str]]
    ) -> dict[Path, frozenset[str]]:
        """The kinds of fields that are read as text, instants apart from other strings."""
        told = {path: frozenset(kinds) for path, kinds in conflicts.items()}
        if any("string" in kinds for kinds in told.values()):
            text = b",".join(piece.documents)
            typed = decode(text, replace(self._hints, as_text=frozenset())).batch.schema
            for path in told:
                if _type_at(typed, path) == INSTANT:
                    told[path] = frozenset(
                        _INSTANTS if kind == "string" else kind for kind in told[path]
                    )
        return told

    def _merged(self, batch: pa.RecordBatch) -> pa.Schema:
        while True:
            ours = _with_text(self._schema, self.undecided)
            theirs = _with_text(batch.schema, self.undecided)
            try:
                merged = merge_schemas(ours, theirs)
                check_wholes(batch, merged)
            except Unmergeable as unmergeable:
                conflicts = unmergeable.kinds
            else:
                return merged
            for path, kinds in conflicts.items():
                if set(kinds) != {"string", str(INSTANT)}:
                    raise _several(path, kinds)
            self.undecided |= frozenset(conflicts)


def without_fields(decoded: Decoded, names: frozenset[str]) -> Decoded:
    """What documents became, without some of their fields."""
    dropped = [name for name in decoded.batch.schema.names if name in names]
    if not dropped:
        return decoded
    return replace(
        decoded,
        batch=decoded.batch.drop_columns(dropped),
        conflicts={p: kinds for p, kinds in decoded.conflicts.items() if p[0] not in names},
        duplicated={p: count for p, count in decoded.duplicated.items() if p[0] not in names},
    )


def _several(path: Path, kinds: tuple[str, ...]) -> Misfit:
    return Misfit(path, f"{' and '.join(kinds)} in one field")


def _beyond_floats(array: pa.Array, path: Path) -> Iterator[Path]:
    """Where there are whole numbers that floats do not hold."""
    if pa.types.is_struct(array.type):
        for at, field in enumerate(array.type):
            yield from _beyond_floats(array.field(at), (*path, field.name))
    elif pa.types.is_list(array.type):
        yield from _beyond_floats(array.flatten(), (*path, ITEM))
    elif array.type.equals(pa.int64()):
        least, most = pc.min_max(array).values()
        if least.is_valid and not -EXACT_FLOAT <= least.as_py() <= most.as_py() <= EXACT_FLOAT:
            yield path


def _with_text(schema: pa.Schema, paths: frozenset[Path]) -> pa.Schema:
    """The same with the instants of some fields as text."""

    def changed(type_: pa.DataType, path: Path) -> pa.DataType:
        if path in paths and type_.equals(INSTANT):
            return pa.string()
        if pa.types.is_struct(type_):
            # Not pa.field, which would end a name at a NUL.
            return pa.struct([f.with_type(changed(f.type, (*path, f.name))) for f in type_])
        if pa.types.is_list(type_):
            return pa.list_(changed(type_.value_type, (*path, ITEM)))
        return type_

    return pa.schema(list(changed(pa.struct(list(schema)), ()))) if paths else schema


def _type_at(schema: pa.Schema, path: Path) -> pa.DataType | None:
    at: pa.DataType = pa.struct(list(schema))
    for name in path:
        if pa.types.is_list(at) and name == ITEM:
            at = at.value_type
        elif pa.types.is_struct(at) and at.get_field_index(name) >= 0:
            at = at.field(name).type
        else:
            return None
    return at
