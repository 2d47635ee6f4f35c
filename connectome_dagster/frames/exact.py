"""Documents to Arrow, exactly: the reference that `compiled` must equal where it dares to answer.

Works on the raw JSON text of each value, column by column, so that every digit is still there
when the type of a field is decided. Knows nothing of how documents were cut from a body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.frames.extended_json import Extended, recognise
from connectome_dagster.frames.schema import EXACT_FLOAT, ITEM, MAX_DIGITS, MAX_NESTING, Path

_T = TypeVar("_T")
Value = bytes | None  # the JSON text of one value; None where the document lacks the field

TIMESTAMP = pa.timestamp("ms", "UTC")
YEAR_ONE = -62_135_596_800_000  # milliseconds from there to the epoch

# As JavaScript prints dates: this text can be made again from the instant, digit by digit. Python
# has no year 0, so neither have we.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_ONE_INSTANT = re.compile(
    rf"^{_YEAR}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}\.[0-9]{{3}}Z$"
)
_INSTANT_LENGTH = len("2018-02-01T00:00:00.000Z")
# Of what Arrow reads as an instant, some has this length too: a space for the T, another zone.
_MARKS = {10: ord("T"), 19: ord("."), 23: ord("Z")}

_FRACTION = re.compile(rb"[.eE]")
_FORM = re.compile(rb'\{[ \t\r\n]*"(?:\$|\\u0024)')


class NotDocuments(Exception):  # never leaves the package: the caller knows where
    """The text is not a list of JSON objects."""


def decode_exactly(
    piece: bytes, as_text: frozenset[Path] = frozenset()
) -> tuple[pa.RecordBatch, dict[Path, tuple[str, ...]]]:
    """Decode the inside of a JSON array of documents.

    Args:
        piece: `{"a": 1}, {"a": 2}`.
        as_text: fields that become text whatever this piece holds, because other pieces of the
            same read hold other types.

    Returns:
        The batch, and the kinds that were seen in each field that became text for having
        several.

    Raises:
        NotDocuments: the text is not JSON, or an item is not an object, or a string is not
            Unicode (a lone surrogate, bytes that are not UTF-8), which Arrow cannot hold.
    """
    documents = _strictly(piece, list[dict[str, msgspec.Raw]])
    columns = _Columns(as_text)
    struct = columns.objects([dict(document) for document in documents], ())
    return pa.RecordBatch.from_struct_array(struct), columns.conflicts


def decode_field(
    values: Sequence[Value], path: Path, as_text: frozenset[Path] = frozenset()
) -> tuple[pa.Array, dict[Path, tuple[str, ...]]]:
    """Decode the values of one field, as `decode_exactly` does among all others.

    Raises:
        NotDocuments: as `decode_exactly`.
    """
    columns = _Columns(as_text)
    return columns.column(values, path), columns.conflicts


def check_utf8(piece: bytes) -> None:
    """Refuse bytes that are not UTF-8, which neither decoder looks for everywhere.

    Raises:
        NotDocuments: they are not.
    """
    ends = pa.py_buffer(np.array([0, len(piece)], dtype=np.int64))
    text = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(piece)])
    try:
        text.cast(pa.large_string())  # looks at 46 MB in 10 ms; `bytes.decode` would copy them too
    except pa.ArrowInvalid:
        pass
    else:
        return
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError as error:
        where = error.start
    else:
        return
    raise NotDocuments(f"not UTF-8 at byte {where}")


def _strictly(items: bytes, type_: type[_T]) -> _T:
    try:
        return msgspec.json.decode(b"[" + items + b"]", type=type_)
    except RecursionError:
        reason = f"nested deeper than {MAX_NESTING} levels"
    except UnicodeDecodeError:
        reason = "a string is not UTF-8"
    except msgspec.DecodeError as error:
        reason = str(error)
    raise NotDocuments(reason)


def _typed(values: Sequence[Value], type_: type[_T]) -> _T:
    return _strictly(b",".join(b"null" if value is None else value for value in values), type_)


class _Columns:
    """Builds columns and remembers which fields had several kinds."""

    def __init__(self, as_text: frozenset[Path]) -> None:
        self._as_text = as_text
        self.conflicts: dict[Path, tuple[str, ...]] = {}

    def objects(self, documents: Sequence[dict[str, msgspec.Raw] | None], path: Path) -> pa.Array:
        names = dict.fromkeys(name for document in documents if document for name in document)
        children = [
            self.column(
                [
                    bytes(document[name]) if document and name in document else None
                    for document in documents
                ],
                (*path, name),
            )
            for name in names
        ]
        if not names:
            return pa.array([None if d is None else {} for d in documents], pa.struct([]))
        missing = pa.array([document is None for document in documents])
        return pa.StructArray.from_arrays(children, names=list(names), mask=missing)

    def column(self, values: Sequence[Value], path: Path) -> pa.Array:
        if len(path) > MAX_NESTING:
            raise NotDocuments(f"nested deeper than {MAX_NESTING} levels")
        each = list(map(_kind, values))
        kinds = dict.fromkeys(each)
        kinds.pop("null", None)
        if not kinds:
            _typed(values, list[None])
            return pa.nulls(len(values))
        forms = self._forms(values) if "object" in kinds else None
        if forms:
            values, forms = _as_plain(values, forms)
            each = list(map(_kind, values))
            kinds = dict.fromkeys(
                form.kind if form else kind for kind, form in zip(each, forms, strict=True)
            )
            kinds.pop("null", None)
            if not kinds:
                return pa.nulls(len(values))
        if path in self._as_text:
            return self._text(values, each, path, tuple(kinds))
        build = self._builder(tuple(sorted(kinds)), forms, path)
        array = build(values) if build else None
        return self._text(values, each, path, tuple(kinds)) if array is None else array

    def _builder(
        self, kinds: tuple[str, ...], forms: list[Extended | None] | None, path: Path
    ) -> Callable[[Sequence[Value]], pa.Array | None] | None:
        builders: dict[tuple[str, ...], Callable[[Sequence[Value]], pa.Array | None]] = {
            ("bool",): lambda values: pa.array(_typed(values, list[bool | None]), pa.bool_()),
            ("string",): _strings,
            ("int",): partial(_integers, forms=forms),
            ("float",): partial(_floats, forms=forms),
            ("float", "int"): partial(_floats, forms=forms),
            ("oid", "string"): partial(_strings_and_oids, forms=forms),
            ("string", "timestamp"): partial(_instants, forms=forms),
            ("array",): partial(self._lists, path=path),
            ("object",): partial(self._structs, path=path),
            ("extended",): _json_text,
        }
        if forms and len(kinds) == 1 and kinds[0] in _FORM_BUILDERS:
            return partial(_FORM_BUILDERS[kinds[0]], forms=forms)
        if forms and kinds == ("decimal", "int"):
            return partial(_decimals, forms=forms)
        return builders.get(kinds)

    def _forms(self, values: Sequence[Value]) -> list[Extended | None] | None:
        forms = [_form(value) if value and _FORM.match(value) else None for value in values]
        return forms if any(forms) else None

    def _structs(self, values: Sequence[Value], path: Path) -> pa.Array:
        return self.objects(_typed(values, list[dict[str, msgspec.Raw] | None]), path)

    def _lists(self, values: Sequence[Value], path: Path) -> pa.Array:
        rows = _typed(values, list[list[msgspec.Raw] | None])
        offsets = [0]
        for row in rows:
            offsets.append(offsets[-1] + len(row or ()))
        items = self.column([bytes(item) for row in rows for item in row or ()], (*path, ITEM))
        missing = pa.array([row is None for row in rows])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=missing)

    def _text(
        self, values: Sequence[Value], each: list[str], path: Path, kinds: tuple[str, ...]
    ) -> pa.Array:
        # An ObjectId is read as its digits, beside strings as by itself.
        named = ("string" if kind == "oid" else kind for kind in kinds)
        self.conflicts[path] = tuple(dict.fromkeys(named))
        return _json_text(values, each, strings_as_they_are=True)


def _form(value: bytes) -> Extended | None:
    try:
        return recognise(_strictly(value, list[dict[str, Any]])[0])
    except NotDocuments as error:
        if _BEYOND not in str(error):
            raise
    return None  # no form has a number that no float holds


def _as_plain(
    values: Sequence[Value], forms: list[Extended | None]
) -> tuple[list[Value], list[Extended | None]]:
    """Write the forms of what JSON has without one, as it has it: strings and null."""
    plain = [form is not None and form.kind in ("string", "null") for form in forms]
    return [
        msgspec.json.encode(form.value) if form and is_plain else value
        for value, form, is_plain in zip(values, forms, plain, strict=True)
    ], [None if is_plain else form for form, is_plain in zip(forms, plain, strict=True)]


def _kind(value: Value) -> str:
    if value is None or value == b"null":
        return "null"
    if value.isdigit():
        return "int"
    kind = _KINDS.get(value[:1])
    if kind is None:
        return "float" if b"." in value or _FRACTION.search(value) else "int"
    return kind


_KINDS = {b'"': "string", b"{": "object", b"[": "array", b"t": "bool", b"f": "bool"}


_NUMBERS = ("int", "float")


def _json_text(
    values: Sequence[Value], kinds: list[str] | None = None, *, strings_as_they_are: bool = False
) -> pa.Array:
    """The JSON text of each value, without insignificant space and with every digit."""
    kinds = list(map(_kind, values)) if kinds is None else kinds
    plain = [value for value, kind in zip(values, kinds, strict=True) if kind == "string"]
    strings = iter(_typed(plain, list[str]) if strings_as_they_are else ())
    numbers = [value for value, kind in zip(values, kinds, strict=True) if kind in _NUMBERS]
    # A number beyond the range of floats is legal JSON, though no decoder here takes it.
    digits = iter(_compact(b"[%b]" % b",".join(filter(None, numbers)))[1:-1].split(","))
    texts: list[str | None] = []
    for value, kind in zip(values, kinds, strict=True):
        if kind in _NUMBERS:
            texts.append(next(digits))
        elif value is None or kind == "null":
            texts.append(None)
        elif kind == "string" and strings_as_they_are:
            texts.append(next(strings))
        elif strings_as_they_are and (oid := _oid(value)):
            texts.append(oid)
        else:
            _strictly(value, list[msgspec.Raw])
            texts.append(_compact(value))
    return _text_array(texts)


def _text_array(texts: Sequence[str | None]) -> pa.Array:
    """What `pa.array` makes; it imports pandas first, which takes longer than most reads."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    ends = np.zeros(len(texts) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(texts)), out=ends[1:])
    valid = np.packbits([text is not None for text in texts], bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _compact(value: bytes) -> str:
    return msgspec.json.format(value, indent=-1).decode()


def _oid(value: bytes) -> str | None:
    """The digits of an ObjectId: it is a string wherever it stands, so also among strings."""
    form = _form(value) if _FORM.match(value) else None
    return str(form.value) if form and form.kind == "oid" else None


def _strings_and_oids(values: Sequence[Value], forms: list[Extended | None] | None) -> pa.Array:
    del forms  # the text of an ObjectId is what its form holds
    return _json_text(values, strings_as_they_are=True)


def _instants(values: Sequence[Value], forms: list[Extended | None] | None) -> pa.Array | None:
    """Dates beside strings: one type if the strings by themselves are instants, too."""
    forms = forms or []
    strings = _strings([None if form else v for v, form in zip(values, forms, strict=True)])
    if not strings.type.equals(TIMESTAMP):
        return None
    return pc.coalesce(strings, pa.array([form and form.value for form in forms], TIMESTAMP))


def _strings(values: Sequence[Value]) -> pa.Array:
    return promote_instants(_text_array(_typed(values, list[str | None])))


def promote_instants(array: pa.Array) -> pa.Array:
    """Turn strings into timestamps if every one of them is an instant as JavaScript prints it."""
    if array.null_count == len(array):
        return array
    if not _ONE_INSTANT.match(_first_value(array).as_py()) or not _has_marks(array):
        return array
    try:
        instants = pc.cast(array, TIMESTAMP)
    except pa.ArrowInvalid:  # a thirteenth month: text that only looks like an instant
        return array
    return array if pc.min_max(instants)["min"].value < YEAR_ONE else instants


def _first_value(array: pa.Array) -> pa.Scalar:
    for value in array[:16]:  # in most columns it is among these
        if value.is_valid:
            return value
    # Not by `pc.index`: to compare with a value of Python's, pyarrow imports pandas.
    return array.drop_null()[0]


def _has_marks(array: pa.StringArray) -> bool:
    """Whether all strings have the length of an instant and its marks; the cast sees to digits."""
    texts = array.drop_null() if array.null_count else array
    ends = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)
    if not (np.diff(ends) == _INSTANT_LENGTH).all():
        return False
    data = np.frombuffer(texts.buffers()[2], np.uint8, len(texts) * _INSTANT_LENGTH, int(ends[0]))
    rows = data.reshape(-1, _INSTANT_LENGTH)
    return all((rows[:, at] == mark).all() for at, mark in _MARKS.items())


def _integers(values: Sequence[Value], forms: list[Extended | None] | None) -> pa.Array | None:
    try:
        numbers = _numbers(values, forms)
    except _BeyondFloats:  # thousands of digits
        return None
    try:
        return pa.array(numbers, pa.int64())
    except OverflowError:
        pass
    if any(number is not None and abs(number) >= 10**MAX_DIGITS for number in numbers):
        return None
    return pa.array([None if n is None else Decimal(n) for n in numbers], pa.decimal128(38, 0))


def _floats(values: Sequence[Value], forms: list[Extended | None] | None) -> pa.Array | None:
    try:
        numbers = _numbers(values, forms)
    except _BeyondFloats:
        return None
    if any(type(number) is int and abs(number) > EXACT_FLOAT for number in numbers):
        return None
    # The integer -0 is 0, here as well: whether floats stand beside it depends on the cut.
    return pa.array([None if n is None else float(n) for n in numbers], pa.float64())


class _BeyondFloats(Exception):
    pass


_BEYOND = "out of range"  # what msgspec says of numbers that neither int nor float holds


def _numbers(values: Sequence[Value], forms: list[Extended | None] | None) -> list[Any]:
    if forms:
        plain = [None if form else value for value, form in zip(values, forms, strict=True)]
        read = _numbers(plain, None)
        return [form.value if form else n for form, n in zip(forms, read, strict=True)]
    try:
        return _typed(values, list[int | float | None])
    except NotDocuments as error:
        if _BEYOND not in str(error):
            raise
    raise _BeyondFloats


def _of_forms(
    values: Sequence[Value], forms: list[Extended | None], type_: pa.DataType
) -> pa.Array:
    del values  # every one of them is a form
    return pa.array([form.value if form else None for form in forms], type_)


def _decimals(values: Sequence[Value], forms: list[Extended | None]) -> pa.Array | None:
    try:
        numbers = _numbers(values, forms)
    except _BeyondFloats:
        return None
    decimals = [None if number is None else Decimal(number) for number in numbers]
    if not all(number is None or number.is_finite() for number in decimals):
        return _json_text(values)
    scale = max(-_exponent(number) for number in decimals if number is not None)
    if scale > MAX_DIGITS:
        return _json_text(values)
    try:
        return pa.array(decimals, pa.decimal128(MAX_DIGITS, max(scale, 0)))
    except (pa.ArrowInvalid, InvalidOperation):
        return _json_text(values)


def _exponent(number: Decimal) -> int:
    return int(number.as_tuple().exponent)


_FORM_BUILDERS: dict[str, Callable[..., pa.Array | None]] = {
    "oid": partial(_of_forms, type_=pa.string()),
    "timestamp": partial(_of_forms, type_=TIMESTAMP),
    "binary": partial(_of_forms, type_=pa.binary()),
    "uuid": partial(_of_forms, type_=pa.binary(16)),
    "decimal": _decimals,
}
