"""Takes a few fields out of a piece and decodes them exactly; the compiled reader has the rest.

So one value that it cannot take costs only its own field the speed. Which fields those are is
told by the compiled reader when it gives up, or known from earlier pieces of the same read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import add, attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.frames.compiled import Uncertain, decode_compiled
from connectome_dagster.frames.exact import Value, decode_field
from connectome_dagster.frames.repeats import repeated_names
from connectome_dagster.frames.schema import ITEM, Path

# Each field that the compiled reader stumbles over costs another attempt; a piece with more of
# them is decoded exactly as a whole.
MAX_APART = 8

# What msgspec takes in no name of a field.
_UNNAMEABLE = re.compile(r'[\x00-\x1f"\\]')


class Taken(NamedTuple):
    """One piece, decoded.

    Attributes:
        batch: its documents.
        strings: fields whose strings look like dates, besides those that were known.
        apart: fields that were decoded by themselves.
        conflicts: of those, what became text for having several kinds.
        duplicated: names in them that stood more than once in one object.
        type: what the compiled reader took the rest of a document for.
    """

    batch: pa.RecordBatch
    strings: frozenset[Path]
    apart: frozenset[Path]
    conflicts: dict[Path, tuple[str, ...]]
    duplicated: dict[Path, int]
    type: pa.StructType


def decode_apart(
    piece: bytes,
    strings: frozenset[Path] = frozenset(),
    apart: frozenset[Path] = frozenset(),
    as_text: frozenset[Path] = frozenset(),
    known: pa.StructType | None = None,
) -> Taken:
    """Decode the inside of a JSON array of documents, most of it compiled.

    Args:
        piece: as for `decode_compiled`.
        strings: as for `decode_compiled`.
        apart: fields known to need it.
        as_text: as for `decode_exactly`.
        known: as for `decode_compiled`, of the rest of the documents.

    Raises:
        Uncertain: `decode_exactly` must decide about all of it.
    """
    apart = _outermost(map(_liftable, apart | as_text))
    while len(apart) <= MAX_APART:
        lifted = _lift(piece, apart, as_text) if apart else _Lifted(piece, {}, {}, {})
        try:
            compiled = decode_compiled(lifted.rest, strings, known)
        except Uncertain as uncertain:
            more = _outermost([*apart, _liftable(uncertain.path)])
            if () in more or more == apart:
                raise
            apart = more
            continue
        batch = compiled.batch
        for path, column in lifted.columns.items():
            whole = _with_field(batch.to_struct_array(), path, column)
            batch = pa.RecordBatch.from_struct_array(whole)
        return Taken(
            *(batch, compiled.strings, apart, lifted.conflicts, lifted.duplicated),
            type=compiled.type,
        )
    raise Uncertain


def _liftable(path: Path) -> Path:
    """The outermost field that holds it all: of a list or of Extended JSON no part is taken."""
    for at, name in enumerate(path[1:], start=1):
        if name == ITEM or name.startswith("$"):
            return path[:at]
    return path


def _outermost(paths: Iterable[Path]) -> frozenset[Path]:
    every = frozenset(paths)
    return frozenset(
        path for path in every if not any(path[:at] in every for at in range(len(path)))
    )


class _Lifted(NamedTuple):
    rest: bytes  # with null in place of what was taken out
    columns: dict[Path, pa.Array]  # for each document; null where the rest has the value
    conflicts: dict[Path, tuple[str, ...]]
    duplicated: dict[Path, int]


def _lift(piece: bytes, paths: frozenset[Path], as_text: frozenset[Path]) -> _Lifted:
    if any(_UNNAMEABLE.search(name) for path in paths for name in path):
        raise Uncertain
    text = b"[%b]" % piece
    try:
        rows: list[Any] = _decoder(paths).decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        rows = []
    if not rows:  # the parent of a field is no object somewhere, or this is no JSON
        raise Uncertain
    columns: dict[Path, pa.Array] = {}
    conflicts: dict[Path, tuple[str, ...]] = {}
    duplicated: dict[Path, int] = {}
    taken: list[tuple[list[int], list[int]]] = []
    for path, values in _values(rows, _tree(paths), ()):
        field = _Field(text, values)
        column, found = field.decode(path, as_text)
        if column is not None:
            columns[path] = column
        conflicts |= found
        duplicated |= field.duplicated(path)
        taken.append(field.taken)
    return _Lifted(_nulled(text, taken), columns, conflicts, duplicated)


class _Field:
    """The values of one field.

    Attributes:
        taken: where the values begin, and where they end, that the compiled reader is not to see.
    """

    def __init__(self, text: bytes, values: list[msgspec.Raw | None]) -> None:
        self._values = values
        # What msgspec has not decoded is a view of the text that it was given.
        base = pa.py_buffer(text).address
        begins = [-1 if value is None else pa.py_buffer(value).address - base for value in values]
        self._begins = np.array(begins, dtype=np.int64)
        if self._begins.max() >= len(text) or self._begins.min() < -1:
            raise Uncertain
        first = np.frombuffer(text, dtype=np.uint8)[self._begins]  # its bracket for what is absent
        self._strings = np.flatnonzero(first == ord('"'))
        absent = (self._begins < 0) | (first == ord("n"))
        self._others = np.flatnonzero(~absent & (first != ord('"')))
        self._nested = np.flatnonzero((first == ord("{")) | (first == ord("[")))
        self.taken: tuple[list[int], list[int]] = [], []

    def decode(
        self, path: Path, as_text: frozenset[Path]
    ) -> tuple[pa.Array | None, dict[Path, tuple[str, ...]]]:
        """Decode what the compiled reader cannot; None if it can take all of it."""
        if len(self._strings) and (len(self._others) or path in as_text):
            # If the others and one string make text, then so do all: strings stay as they are.
            one = self._strings[:1]
            texts = self._some(one, self._others)
            column, found = decode_field(texts, path, as_text)
            if path in found:
                self._take(self._others, texts)
                return column, found
        elif not len(self._others):
            return None, {}
        texts = self._some(self._strings, self._others)
        self._take(np.concatenate([self._strings, self._others]), texts)
        return decode_field(texts, path, as_text)

    def duplicated(self, path: Path) -> dict[Path, int]:
        """Names that stand more than once in an object of this field."""
        texts = [bytes(self._values[row]) for row in self._nested]  # type: ignore[arg-type]  # it is there
        return repeated_names(b",".join(texts), path) if texts else {}

    def _some(self, *rows: npt.NDArray[np.intp]) -> list[Value]:
        texts: list[Value] = [None] * len(self._values)
        for row in np.concatenate(rows).tolist():
            texts[row] = bytes(self._values[row])
        return texts

    def _take(self, rows: npt.NDArray[np.intp], texts: list[Value]) -> None:
        begins = self._begins[rows].tolist()
        lengths = [len(texts[row]) for row in rows.tolist()]
        self.taken = begins, list(map(add, begins, lengths))


def _nulled(text: bytes, taken: list[tuple[list[int], list[int]]]) -> bytes:
    begins = sorted(begin for some, _ in taken for begin in some)
    ends = sorted(end for _, some in taken for end in some)  # no value is in another one
    inside = zip([1, *ends], [*begins, len(text) - 1], strict=True)
    return b"null".join([text[begin:end] for begin, end in inside])


def _tree(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for name in path:
            node = node.setdefault(name, {})
    return tree


@lru_cache(maxsize=64)  # a read asks with the same few sets again and again
def _decoder(paths: frozenset[Path]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(list[_struct(_tree(paths))])  # type: ignore[misc]  # made here


def _struct(tree: dict[str, Any]) -> Any:
    fields = [
        (
            f"f{at}",
            _struct(below) | None if below else msgspec.Raw,
            msgspec.field(name=name, default=None),
        )
        for at, (name, below) in enumerate(tree.items())
    ]
    return msgspec.defstruct("Fields", fields, gc=False)


def _values(
    rows: list[Any], tree: dict[str, Any], path: Path
) -> Iterable[tuple[Path, list[msgspec.Raw | None]]]:
    for at, (name, below) in enumerate(tree.items()):
        get = attrgetter(f"f{at}")
        members = [None if row is None else get(row) for row in rows]
        if below:
            yield from _values(members, below, (*path, name))
        else:
            yield (*path, name), members


def _with_field(array: pa.Array, path: Path, column: pa.Array) -> pa.Array:
    """Put the column in place of what is there, and what is there where the column has null."""
    if not path:
        return column if pa.types.is_null(array.type) else pc.coalesce(column, _text(array))
    at = array.type.get_field_index(path[0]) if pa.types.is_struct(array.type) else -1
    if at < 0:
        raise Uncertain
    children = [array.field(place) for place in range(array.type.num_fields)]
    children[at] = _with_field(children[at], path[1:], column)
    names = [field.name for field in array.type]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(children, names=names, mask=mask)


def _text(array: pa.Array) -> pa.Array:
    """The strings of a column: those that were all instants were made timestamps."""
    if not pa.types.is_timestamp(array.type):
        return array
    return pc.replace_substring(array.cast(pa.string()), " ", "T")
