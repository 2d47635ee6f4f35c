"""Whole columns of instants, decimals and bytes brought into forms that JSON has.

Pure, and compiled: no value is looked at in Python. Which form is wanted is decided elsewhere, and
so is what an error says of the column.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# BSON's decimals have no more digits (IEEE 754 decimal128).
DECIMAL_DIGITS = 34

# Values up to this many bytes, on average, are encoded together: that takes up to 24 times their
# memory, and saves a call for each, which beside longer values costs nothing.
TOGETHER_BYTES = 256

UUID_BYTES = 16
_UUID_PARTS = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]  # of its 32 digits
_UUID_LENGTH = 36

_PER_MILLISECOND = {"s": 1, "ms": 1, "us": 10**3, "ns": 10**6}

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_YEAR_0, _YEAR_10000 = -62_167_219_200, 253_402_300_800  # seconds from there to the epoch
_ISO_LENGTH = len("2018-02-01T00:00:00.000Z")

FOUR_DIGITS = "ISO text has years from 0000 to 9999 only"
BETWEEN_MILLISECONDS = (
    "the instant lies between two milliseconds, and only ISO text has finer ones; round it"
)
TOO_MANY_DIGITS = (
    f"it has more than the {DECIMAL_DIGITS} digits of MongoDB's decimals; round it, or write "
    "decimals as text"
)
_OUT_OF_RANGE = "its instants are out of range"


class Unsayable(Exception):  # never leaves the package: the caller knows the column
    """A value has no such form; `at` is its position, None if it is the whole column."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at


def cast_views(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast text or bytes, also from and to the types with views, which older pyarrow does not."""
    try:
        return array.cast(type_)
    except pa.ArrowNotImplementedError:
        return pa.array(array.to_pylist(), type_)


def iso_instants(array: pa.Array) -> pa.Array:
    """ISO text in UTC: milliseconds as JavaScript prints them, more digits only where they count.

    A tenth of the CPU of Arrow's own cast to text, which has other digits, too.

    Raises:
        Unsayable: a year that has not four digits.
    """
    per_second = _PER_SECOND[array.type.unit]
    seconds, below = np.divmod(array.cast(pa.int64()).fill_null(0).to_numpy(), per_second)
    outside = (seconds < _YEAR_0) | (seconds >= _YEAR_10000)
    if outside.any():
        raise Unsayable(FOUR_DIGITS, int(outside.argmax()))
    below *= 10**9 // per_second
    # Each value by itself: what a row says does not depend on the rows beside it.
    finer = (below % 10**6 != 0).astype(np.int64) + (below % 10**3 != 0)
    lengths = _ISO_LENGTH + 3 * finer
    longest = int(lengths.max(initial=_ISO_LENGTH))
    rows = np.tile(
        np.frombuffer(b"0000-00-00T00:00:00.000000000Z", dtype=np.uint8), (len(array), 1)
    )
    _put_seconds(rows, seconds)
    _put(rows, 20, 9, below)
    rows[np.arange(len(array)), lengths - 1] = ord("Z")
    codes = rows[:, :longest]
    if longest > _ISO_LENGTH:
        codes = codes[np.arange(longest) < lengths[:, np.newaxis]]
    return _large_strings(np.cumsum(lengths), np.ascontiguousarray(codes).reshape(-1), array)


def _put_seconds(rows: npt.NDArray[np.uint8], seconds: npt.NDArray[np.int64]) -> None:
    days, rest = np.divmod(seconds, 86_400)
    months = days.astype("M8[D]").astype("M8[M]")
    since_1970 = months.astype(np.int64)
    _put(rows, 0, 4, since_1970 // 12 + 1970)
    _put(rows, 5, 2, since_1970 % 12 + 1)
    _put(rows, 8, 2, days - months.astype("M8[D]").astype(np.int64) + 1)
    _put(rows, 11, 2, rest // 3600)
    _put(rows, 14, 2, rest // 60 % 60)
    _put(rows, 17, 2, rest % 60)


def _put(rows: npt.NDArray[np.uint8], at: int, digits: int, numbers: npt.NDArray[np.int64]) -> None:
    left = numbers.astype(np.uint32)  # in which dividing takes half the time
    for place in reversed(range(at, at + digits)):
        left, digit = np.divmod(left, np.uint32(10))
        rows[:, place] += digit.astype(np.uint8)


def iso_years(text: pa.Array) -> pa.Array:
    """Check that years have four digits: all others are refused, or misread, by readers.

    Raises:
        Unsayable: one has not.
    """
    fits = pc.match_substring_regex(text, "^[0-9]{4}-")
    if pc.all(fits).as_py() is False:
        raise Unsayable(FOUR_DIGITS, fits.index(False).as_py())
    return text


def iso_dates(array: pa.Array) -> pa.Array:
    """`"2018-02-01"`.

    Raises:
        Unsayable: as `iso_instants`.
    """
    return iso_years(array.cast(pa.date32()).cast(pa.string()))


def epoch_milliseconds(array: pa.Array) -> pa.Array:
    """Integers: milliseconds since 1970 in UTC.

    Raises:
        Unsayable: an instant between two milliseconds, or out of range.
    """
    counts = array.cast(pa.int64())
    per = _PER_MILLISECOND[array.type.unit]
    if per > 1:
        between = counts.fill_null(0).to_numpy() % per != 0
        if between.any():
            raise Unsayable(BETWEEN_MILLISECONDS, int(between.argmax()))
    try:
        return array.cast(pa.timestamp("ms", array.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    raise Unsayable(_OUT_OF_RANGE)


def ejson_dates(array: pa.Array) -> pa.Array:
    """`{"$date": {"$numberLong": …}}`.

    Raises:
        Unsayable: as `epoch_milliseconds`.
    """
    digits = epoch_milliseconds(array).cast(pa.string())
    return _form("$date", _form("$numberLong", digits))


def decimal_text(array: pa.Array) -> pa.Array:
    """Text with all digits, those of the type's scale too."""
    text = array.cast(pa.string())
    return pc.replace_substring(text, ".E", "E")  # which older pyarrow writes, and no one reads


def ejson_decimals(array: pa.Array) -> pa.Array:
    """`{"$numberDecimal": …}`.

    Raises:
        Unsayable: a number with more digits than BSON's decimals have.
    """
    text = decimal_text(array)
    if array.type.precision > DECIMAL_DIGITS:
        # Zeros that the scale of the type alone asks for do not count.
        shorter = pc.replace_substring_regex(text, r"\.?0+(E.*)?$", r"\1")
        whole = pc.invert(pc.match_substring(text, "."))
        text = pc.if_else(pc.or_(whole, _fits_decimal(text)), text, shorter)
        fits = _fits_decimal(text)
        if pc.all(fits).as_py() is False:
            raise Unsayable(TOO_MANY_DIGITS, fits.index(False).as_py())
    return _form("$numberDecimal", text)


def _fits_decimal(text: pa.Array) -> pa.Array:
    digits = pc.replace_substring_regex(text, r"^-?0*\.?0*|\.|E.*$", "")
    return pc.less_equal(pc.utf8_length(digits), DECIMAL_DIGITS)


def base64_text(array: pa.Array) -> pa.Array:
    """Base64 of any type of binary, fixed sizes apart."""
    array = cast_views(array, pa.large_binary())
    lengths = pc.binary_length(array).fill_null(0).to_numpy()
    if lengths.sum() > TOGETHER_BYTES * len(array):
        texts = (None if value is None else base64.b64encode(value) for value in array.to_pylist())
        return pa.array(texts, pa.large_binary()).cast(pa.large_string())
    # Each value stands in whole groups of three bytes, so that one call can encode all of them.
    padded = (lengths + 2) // 3 * 3
    ends = np.cumsum(padded)
    groups = np.zeros(int(padded.sum()), dtype=np.uint8)
    groups[
        np.arange(lengths.sum()) + np.repeat(ends - padded - np.cumsum(lengths) + lengths, lengths)
    ] = _bytes_of(array)
    codes = np.frombuffer(bytearray(base64.b64encode(groups.data)), dtype=np.uint8)
    text_ends = ends // 3 * 4
    codes[text_ends[lengths % 3 != 0] - 1] = ord("=")
    codes[text_ends[lengths % 3 == 1] - 2] = ord("=")
    return _large_strings(text_ends, codes, array)


def _bytes_of(array: pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of all values of large binary; behind a null there may stand some."""
    filled = array.fill_null(b"") if array.null_count else array
    _, offsets, data = filled.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[filled.offset : filled.offset + len(filled) + 1]
    return np.frombuffer(data or b"", dtype=np.uint8)[bounds[0] : bounds[-1]]


def _large_strings(
    ends: npt.NDArray[np.int64], codes: npt.NDArray[np.uint8], like: pa.Array
) -> pa.Array:
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(codes)]
    texts = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
    return pc.if_else(like.is_valid(), texts, None) if like.null_count else texts


def ejson_binary(array: pa.Array) -> pa.Array:
    """`{"$binary": {"base64": …, "subType": "00"}}`."""
    text = base64_text(array)
    subtypes = pa.repeat(pa.scalar("00"), len(text))
    inner = pa.StructArray.from_arrays(
        [text, subtypes], names=["base64", "subType"], mask=text.is_null()
    )
    return _form("$binary", inner)


def uuid_text(array: pa.Array) -> pa.Array:
    """The usual text of each UUID, from its 16 bytes."""
    data = _bytes_of(array.cast(pa.large_binary()).fill_null(bytes(UUID_BYTES)))
    digits = np.frombuffer(binascii.hexlify(data.data), dtype=np.uint8).reshape(-1, 2 * UUID_BYTES)
    codes = np.full((len(array), _UUID_LENGTH), ord("-"), dtype=np.uint8)
    for hyphens, (begin, end) in enumerate(_UUID_PARTS):
        codes[:, begin + hyphens : end + hyphens] = digits[:, begin:end]
    ends = np.arange(1, len(array) + 1, dtype=np.int64) * _UUID_LENGTH
    return _large_strings(ends, codes.reshape(-1), array)


def ejson_uuids(array: pa.Array) -> pa.Array:
    """`{"$uuid": …}`."""
    return _form("$uuid", uuid_text(array))


def _form(name: str, values: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([values], names=[name], mask=values.is_null())
