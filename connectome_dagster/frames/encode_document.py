"""One document to JSON, value by value: the same forms that `encode` gives to whole columns.

Pure. For documents that are Python's dicts, whose values have any type from row to row.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from connectome_dagster.errors import EncodeError
from connectome_dagster.frames import forms
from connectome_dagster.frames.encode import check_name
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding

# MongoDB takes a hundred levels of nesting.
MAX_DEPTH = 100


def encode_document(
    document: Mapping[str, Any], row: int = 0, encoding: Encoding = DEFAULT_ENCODING
) -> bytes:
    """Encode one document; what it lacks stays missing.

    Args:
        document: text for names; values as JSON has them, and `datetime`, `date`, `time`,
            `Decimal`, `UUID` and `bytes` as `encode_rows` writes their like.
        row: its position in what was handed in, for errors.
        encoding: the forms of nulls, timestamps, decimals and binary.

    Raises:
        EncodeError: a value that JSON cannot say.

    Example:
        >>> encode_document({"a": [1, 2.5], "b": None})
        b'{"a":[1,2.5],"b":null}'
    """
    plain = _Document(row, encoding).members(document, "", 1)
    try:
        return msgspec.json.encode(plain)
    except UnicodeEncodeError:
        pass
    raise EncodeError(f"row {row}: a text holds half a surrogate pair, which is not UTF-8", row=row)


class _Document:
    """Brings the values of one document into what msgspec writes as we want it."""

    def __init__(self, row: int, encoding: Encoding) -> None:
        self._row = row
        self._encoding = encoding

    def members(self, document: Mapping[str, Any], column: str, depth: int) -> dict[str, Any]:
        members = {}
        for name, value in document.items():
            self._check_name(name)
            plain = self._plain(value, column or name, depth)
            if plain is not None or self._encoding.nulls == "null":
                members[name] = plain
        return members

    def _check_name(self, name: object) -> None:
        if not isinstance(name, str):
            raise EncodeError(
                f"row {self._row}: the field name {name!r} is a {type(name).__name__}; names are "
                "text",
                column=str(name),
                row=self._row,
            )
        check_name(name, name)

    def _plain(self, value: Any, column: str, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            whole = int(value)
            # msgspec writes no more than 64 bits; JSON has all digits.
            return whole if -(2**63) <= whole < 2**64 else msgspec.Raw(_digits(whole))
        if isinstance(value, str):
            return str.__str__(value)
        if depth > MAX_DEPTH:
            raise self._unsayable(column, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, np.ndarray) and value.ndim:
            return [self._plain(item, column, depth + 1) for item in value]
        if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind not in "mM":
            return self._plain(value.item(), column, depth + 1)
        if isinstance(value, Mapping):
            return self.members(value, column, depth + 1)
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            return [self._plain(item, column, depth + 1) for item in value]
        return self._scalar(value, column)

    def _scalar(self, value: Any, column: str) -> Any:
        if _is_absent(value):
            return None
        if isinstance(value, float) and not math.isinf(value):
            return float(value)
        if isinstance(value, np.ndarray):  # of one value, with neither length nor axis
            return self._scalar(value[()], column)
        if isinstance(value, np.datetime64) and value.dtype.str[3:] in _NUMPY_DATES:
            return self._iso(str(value.astype("M8[D]")), column)
        if isinstance(value, (datetime, np.datetime64)):
            return self._instant(value, column)
        if isinstance(value, (date, time)):
            return value.isoformat()
        if isinstance(value, Decimal):
            return self._decimal(value, column)
        if isinstance(value, UUID):
            return {"$uuid": str(value)} if self._encoding.binary == "ejson" else str(value)
        if isinstance(value, (bytes, bytearray)):
            text = base64.b64encode(value).decode()
            ejson = {"$binary": {"base64": text, "subType": "00"}}
            return ejson if self._encoding.binary == "ejson" else text
        raise self._no_form(value, column)

    def _instant(self, value: datetime | np.datetime64, column: str) -> Any:
        nanoseconds = _nanoseconds(value)
        if nanoseconds is None:
            raise self._no_form(value, column)
        if self._encoding.timestamps == "iso":
            return self._iso(_iso_text(nanoseconds), column)
        milliseconds, between = divmod(nanoseconds, 10**6)
        if between:
            raise self._unsayable(column, forms.BETWEEN_MILLISECONDS)
        ejson = {"$date": {"$numberLong": str(milliseconds)}}
        return ejson if self._encoding.timestamps == "ejson" else milliseconds

    def _iso(self, text: str, column: str) -> str:
        if text[0] == "-" or text[4] != "-":
            raise self._unsayable(column, forms.FOUR_DIGITS)
        return text

    def _decimal(self, value: Decimal, column: str) -> Any:
        if self._encoding.decimals == "ejson":
            shorter = _without_needless_zeros(value)
            if len(shorter.as_tuple().digits) > forms.DECIMAL_DIGITS:
                raise self._unsayable(column, forms.TOO_MANY_DIGITS)
            return {"$numberDecimal": str(shorter)}
        if value.is_infinite():
            raise self._no_form(value, column)
        return str(value)

    def _no_form(self, value: object, column: str) -> EncodeError:
        kind = type(value).__name__
        return self._unsayable(
            column, f"JSON has no form for {value!r} ({kind}); replace it by null, a number or text"
        )

    def _unsayable(self, column: str, why: str) -> EncodeError:
        return EncodeError(
            f"column {column!r}, row {self._row}: {why}", column=column, row=self._row
        )


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_NUMPY_DATES = ("[Y]", "[M]", "[W]", "[D]")
_NUMPY_UNITS = {
    "[h]": 3600 * 10**9,
    "[m]": 60 * 10**9,
    "[s]": 10**9,
    "[ms]": 10**6,
    "[us]": 10**3,
    "[ns]": 1,
}


def _nanoseconds(value: datetime | np.datetime64) -> int | None:
    """Nanoseconds since 1970 in UTC, for which a value without a zone is taken."""
    if isinstance(value, np.datetime64):
        per = _NUMPY_UNITS.get(value.dtype.str[3:])  # finer units, or several at a time: None
        return None if per is None else int(value.astype(np.int64)) * per
    instant = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    # A pandas.Timestamp has more digits than datetime, but takes some dates for out of range.
    since = datetime.__sub__(instant, _EPOCH)
    return since // _MICROSECOND * 1000 + int(getattr(value, "nanosecond", 0))


def _iso_text(nanoseconds: int) -> str:
    if nanoseconds % 10**6 == 0:
        return f"{np.datetime64(nanoseconds // 10**6, 'ms')}Z"
    if nanoseconds % 10**3 == 0:
        return f"{np.datetime64(nanoseconds // 10**3, 'us')}Z"
    return f"{np.datetime64(nanoseconds, 'ns')}Z"


def _without_needless_zeros(value: Decimal) -> Decimal:
    """The same number, if it has too many digits without those at the end of its fraction."""
    sign, digits, exponent = value.as_tuple()
    if len(digits) <= forms.DECIMAL_DIGITS or not isinstance(exponent, int):
        return value
    needless = 0
    while needless < -exponent and digits[-1 - needless] == 0:
        needless += 1
    return Decimal((sign, digits[: len(digits) - needless], exponent + needless))


def _digits(whole: int) -> bytes:
    return format(Decimal(whole), "f").encode()  # str() refuses some thousands of digits


def _is_absent(value: Any) -> bool:
    """NaN and NaT, which are not equal to themselves, and pandas' NA, which nobody may compare."""
    if isinstance(value, Decimal):
        return value.is_nan()  # a signaling NaN may not be compared
    return type(value).__name__ == "NAType" or bool(value != value)
