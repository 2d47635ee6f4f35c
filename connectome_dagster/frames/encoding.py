"""How values that JSON has no type for are written: one immutable value, chosen once for a write.

Knows the words and what they mean, and nothing of how a value is brought into its form.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, get_args

from connectome_dagster.errors import ConfigurationError

Nulls = Literal["null", "omit"]
Timestamps = Literal["iso", "ejson", "epoch_ms"]
Decimals = Literal["text", "ejson"]
Binary = Literal["base64", "ejson"]

_WORDS = {"nulls": Nulls, "timestamps": Timestamps, "decimals": Decimals, "binary": Binary}


@dataclass(frozen=True)
class Encoding:
    """The forms of values in documents that are written.

    Each of them is read back equal where the frame's own schema is given to `find`; what comes
    back without one is said below. "ejson" is MongoDB's Extended JSON in its canonical form, for
    services that store its values by their types.

    Attributes:
        nulls: `"null"`, the default, writes null; `"omit"` leaves the field out, in structs at any
            depth, so that an update does not touch it. A null among the items of a list or the
            entries of a map stays: without it the others would be something else.
        timestamps: `"iso"`, the default, writes instants as text in UTC
            (`"2018-02-01T00:00:00.000Z"`), with three digits below the second, or six or nine
            where the value has them; years from 0000 to 9999. Text with three digits is read back
            as an instant. `"ejson"` writes `{"$date": {"$numberLong": "1517443200000"}}`, also
            read back as an instant, and `"epoch_ms"` the integer `1517443200000`, which is read
            back as an integer; both take any year, and refuse what is finer than a millisecond.
            A timestamp without a zone is taken for UTC in all of them.
        decimals: `"text"`, the default, writes `"1.50"`, read back as text; `"ejson"` writes
            `{"$numberDecimal": "1.50"}`, read back as a decimal; it has 34 digits at most.
        binary: `"base64"`, the default, writes `"AAE="`, read back as text; `"ejson"` writes
            `{"$binary": {"base64": "AAE=", "subType": "00"}}`, read back as bytes. Values of 16
            bytes by their type, which are UUIDs to MongoDB as well, are
            `"c8edabc3-f738-4ca3-b68d-ab92a91478a3"` and `{"$uuid": "c8edabc3-…"}`.

    Raises:
        ConfigurationError: another word.

    Example:
        >>> Encoding(nulls="omit", timestamps="ejson")
        Encoding(nulls='omit', timestamps='ejson', decimals='text', binary='base64')
    """

    nulls: Nulls = "null"
    timestamps: Timestamps = "iso"
    decimals: Decimals = "text"
    binary: Binary = "base64"

    def __post_init__(self) -> None:
        for each in fields(self):
            word, words = getattr(self, each.name), get_args(_WORDS[each.name])
            if word not in words:
                shown = " or ".join(map(repr, words))
                raise ConfigurationError(f"{each.name} is {word!r}: give {shown}")


DEFAULT_ENCODING: Final = Encoding()
