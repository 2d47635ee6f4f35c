"""Documents to Arrow with pyarrow's JSON reader: fast, and silent where it is not certain.

The reader guesses dates, makes floats of large integers and takes NaN. Each guess leaves a trace
in what it returns; where there is one, the piece is refused here and `exact` decodes it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json

from connectome_dagster.frames.exact import promote_instants
from connectome_dagster.frames.read_forms import read_form
from connectome_dagster.frames.schema import EXACT_FLOAT, ITEM, MAX_NESTING, Path, show_path
from connectome_dagster.frames.split import nests_deeper

_NEGATIVE_ZERO = np.float64(-0.0).view(np.int64)

_MEMBER = "d"
_BEFORE, _AFTER = b'{"d":[', b"]}"


class Uncertain(Exception):  # asks for the exact decoder, never seen outside
    """The compiled reader cannot vouch for this piece; `path` is the field, if it is only one."""

    def __init__(self, path: Path = ()) -> None:
        super().__init__(show_path(path))
        self.path = path


# What the reader says of a field that holds several types. A name with a slash in it is taken for
# two, and leads to no field.
_CHANGED = re.compile(rf"Column\(/{_MEMBER}/\[\]/(.*)\) changed from ", re.DOTALL)


class Compiled(NamedTuple):
    """One piece, decoded.

    Attributes:
        batch: its documents.
        strings: fields whose strings look like dates, besides those that were known.
        type: what the reader took a document for, before its guesses were checked.
    """

    batch: pa.RecordBatch
    strings: frozenset[Path]
    type: pa.StructType


def decode_compiled(
    piece: bytes, strings: frozenset[Path] = frozenset(), known: pa.StructType | None = None
) -> Compiled:
    """Decode the inside of a JSON array of documents, if it is certain to be right.

    Args:
        piece: `{"a": 1}, {"a": 2}`, known to be UTF-8: the reader does not look.
        strings: fields known to hold strings that look like dates.
        known: the type of pieces before this one. If this piece is like them, nothing is guessed
            and no depth is to be feared.

    Raises:
        Uncertain: `exact` must decide.
    """
    text = _wrapped(piece)
    if known is not None:
        try:
            rows = _read(text, pa.schema([(_MEMBER, pa.list_(known))]), "error")
            return Compiled(_certain_batch(rows, piece), frozenset(), known)
        except Uncertain:  # something is new
            pass
    if nests_deeper(piece, MAX_NESTING):
        raise Uncertain
    rows = _read(text, _schema_of(strings))
    guessed = frozenset(_dates(rows.type.value_type, ()))
    if guessed or not _is_whole(rows):
        rows = _read(text, pa.schema([(_MEMBER, _as_strings(rows.type))]))
    return Compiled(_certain_batch(rows, piece), guessed, rows.type.value_type)


# A piece stands in its wrapper only while it is read, which copies what it takes. One buffer for
# each thread that decodes, because new ones cost page faults; it grows to a piece of usual size.
_WRAPPED_BYTES = 2 << 20


class _Room(threading.local):
    buffer = bytearray()


_room = _Room()


def _wrapped(piece: bytes) -> bytes | memoryview:
    size = len(_BEFORE) + len(piece) + len(_AFTER)
    if size > _WRAPPED_BYTES:
        return b"".join((_BEFORE, piece, _AFTER))
    if len(_room.buffer) < size:
        _room.buffer = bytearray(min(size + size // 8, _WRAPPED_BYTES))
    text = memoryview(_room.buffer)[:size]
    text[: len(_BEFORE)] = _BEFORE
    text[len(_BEFORE) : -len(_AFTER)] = piece
    text[-len(_AFTER) :] = _AFTER
    return text


def _is_whole(rows: pa.ListArray) -> bool:
    """Whether every list has its items.

    Where a list begins with null and the type of its items was not known before, the reader loses
    the nulls (pyarrow 26); it does not once the type is given.
    """
    try:
        rows.validate()
    except pa.ArrowInvalid:
        return False
    return True


def _read(
    text: bytes | memoryview,
    explicit: pa.Schema | None,
    unexpected: Literal["infer", "error"] = "infer",
) -> pa.ListArray:
    options = pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    parse = pa.json.ParseOptions(
        explicit_schema=explicit, newlines_in_values=True, unexpected_field_behavior=unexpected
    )
    try:
        table = pa.json.read_json(
            pa.BufferReader(text),
            read_options=options,
            parse_options=parse,
            memory_pool=pa.system_memory_pool(),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        changed = _CHANGED.search(str(error))
        table = None
    if table is None:
        raise Uncertain(tuple(changed[1].split("/")) if changed else ())
    # The text may close the array itself and go on: then there is another row or another member.
    if table.num_rows != 1 or table.column_names != [_MEMBER]:
        raise Uncertain
    rows = table.column(0).chunk(0)
    if not pa.types.is_list(rows.type) or not pa.types.is_struct(rows.type.value_type):
        raise Uncertain
    return rows


def _dates(type_: pa.DataType, path: Path) -> Iterable[Path]:
    if len(path) > MAX_NESTING:
        raise Uncertain
    if pa.types.is_timestamp(type_):
        yield path
    elif pa.types.is_struct(type_):
        for field in type_:
            yield from _dates(field.type, (*path, field.name))
    elif pa.types.is_list(type_):
        yield from _dates(type_.value_type, (*path, ITEM))


def _as_strings(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_as_strings(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_as_strings(type_.value_type))
    return type_


def _schema_of(strings: Iterable[Path]) -> pa.Schema | None:
    """The schema that says of these paths, and of nothing else, that they are strings."""
    tree: dict[str, Any] = {}
    for path in sorted(strings):
        if any("\0" in name for name in path):
            continue  # pyarrow would end the name there
        node = tree
        for name in path:
            node = node.setdefault(name, {})
    if not tree:
        return None
    return pa.schema([(_MEMBER, pa.list_(_type_of(tree)))])


def _type_of(tree: dict[str, Any]) -> pa.DataType:
    if not tree:
        return pa.string()
    if ITEM in tree:
        return pa.list_(_type_of(tree[ITEM]))
    return pa.struct([(name, _type_of(below)) for name, below in tree.items()])


def _certain_batch(rows: pa.ListArray, piece: bytes) -> pa.RecordBatch:
    documents = rows.values
    if not _is_whole(rows) or documents.null_count:
        raise Uncertain
    # A document is no value, so it is never a form of Extended JSON.
    return pa.RecordBatch.from_struct_array(_Certain(piece).fields(documents, ()))


# The integer -0 is 0, but among floats the reader makes -0.0 of it, which is another number.
_INTEGER_ZERO = re.compile(rb"-0(?![0-9.eE])")
_NEGATIVE_ZERO = np.float64(-0.0).view(np.int64)


class _Certain:
    """Checks columns of one piece for the traces of a guess; gives them as `exact` would."""

    def __init__(self, piece: bytes) -> None:
        self._piece = piece

    def column(self, array: pa.Array, path: Path) -> pa.Array:
        type_ = array.type
        if array.null_count == len(array):
            return pa.nulls(len(array))  # a hint gave it a type that nothing here shows
        if pa.types.is_string(type_):
            return promote_instants(array)
        if pa.types.is_floating(type_):
            self._check_floats(array, path)
        elif pa.types.is_struct(type_):
            return self._struct(array, path)
        elif pa.types.is_list(type_):
            items = self.column(array.values, (*path, ITEM))
            if items is not array.values:
                mask = array.is_null() if array.null_count else None
                return pa.ListArray.from_arrays(array.offsets, items, mask=mask)
        return array

    def fields(self, array: pa.StructArray, path: Path) -> pa.StructArray:
        names = [field.name for field in array.type]
        children = [self.column(array.field(at), (*path, name)) for at, name in enumerate(names)]
        if [child.type for child in children] == [field.type for field in array.type]:
            return array
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, names=names, mask=mask)

    def _struct(self, array: pa.StructArray, path: Path) -> pa.Array:
        names = [field.name for field in array.type]
        if any(name.startswith("$") for name in names):
            form = read_form(array)
            if form is None:
                raise Uncertain(path)
            return form
        return self.fields(array, path)

    def _check_floats(self, array: pa.Array, path: Path) -> None:
        """Beyond 2**53 a float may stand for an integer that it does not hold; NaN is not JSON."""
        # What stands where a value is null is nobody's, and looked at only for being quicker so.
        values = _floats(array)
        if not _within_bounds(values) and not _within_bounds(_floats(array.drop_null())):
            raise Uncertain(path)
        if (values.view(np.int64) == _NEGATIVE_ZERO).any() and self._has_integer_zero:
            raise Uncertain(path)

    @cached_property
    def _has_integer_zero(self) -> bool:
        return _INTEGER_ZERO.search(self._piece) is not None


def _floats(array: pa.Array) -> npt.NDArray[np.float64]:
    return np.frombuffer(array.buffers()[1], np.float64, len(array), 8 * array.offset)


def _within_bounds(values: npt.NDArray[np.float64]) -> bool:
    with np.errstate(invalid="ignore"):
        least, most = values.min(), values.max()  # NaN if any of them is
    return bool(least > -EXACT_FLOAT and most < EXACT_FLOAT)
