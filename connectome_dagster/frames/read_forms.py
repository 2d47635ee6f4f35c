"""Whole columns of one form of Extended JSON brought into Arrow's types, compiled.

Pure. Answers only where it is certain to give what `exact` gives; None everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from connectome_dagster.frames.exact import TIMESTAMP, YEAR_ONE, promote_instants
from connectome_dagster.frames.schema import MAX_DIGITS


def read_form(array: pa.StructArray) -> pa.Array | None:
    """Read a column of objects with a `$` in a name.

    Args:
        array: as the compiled reader read the JSON; not null everywhere.

    Returns:
        What the objects stand for; None if they are not all of one form that is known here.
    """
    if array.type.num_fields != 1:
        return None
    values = array.field(0)
    read = _READERS.get(array.type.field(0).name)
    if read is None or values.null_count != array.null_count:
        return None
    try:
        return read(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _if_each(values: pa.Array, pattern: str) -> bool:
    is_text = pa.types.is_string(values.type)
    return is_text and pc.all(pc.match_substring_regex(values, pattern)).as_py() is not False


def _oids(values: pa.Array) -> pa.Array | None:
    return values if _if_each(values, "^[0-9a-fA-F]{24}$") else None


def _wholes(values: pa.Array) -> pa.Array | None:
    return values.cast(pa.int64()) if _if_each(values, "^-?(0|[1-9][0-9]{0,18})$") else None


def _instants(values: pa.Array) -> pa.Array | None:
    if pa.types.is_string(values.type):
        instants = promote_instants(values)  # what JavaScript prints is read without a regex
        return instants if instants.type.equals(TIMESTAMP) else _other_instants(values)
    if not pa.types.is_struct(values.type) or values.type.get_field_index("$numberLong") < 0:
        return None
    milliseconds = read_form(values)
    return None if milliseconds is None else milliseconds.cast(TIMESTAMP)


def _other_instants(values: pa.Array) -> pa.Array | None:
    day, time = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "[0-9]{2}:[0-9]{2}:[0-9]{2}"
    if not _if_each(values, rf"^{day}T{time}(\.[0-9]{{1,3}})?Z$"):
        return None
    instants = values.cast(TIMESTAMP)
    return None if pc.min(instants).value < YEAR_ONE else instants


def _doubles(values: pa.Array) -> pa.Array | None:
    if not _if_each(values, r"^(-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity)$"):
        return None
    numbers = values.cast(pa.float64())
    # A number that no float holds is no infinity.
    beyond = pc.and_not(pc.is_inf(numbers), pc.match_substring(values, "Infinity"))
    return None if pc.any(beyond).as_py() else numbers


def _decimals(values: pa.Array) -> pa.Array | None:
    if not _if_each(values, r"^-?[0-9]+(\.[0-9]+)?$"):
        return None
    below = pc.binary_length(pc.replace_substring_regex(values, r"^[^.]*\.?", ""))
    above = pc.subtract(pc.binary_length(values), below)  # with sign and point
    scale = pc.max(below).as_py()
    if pc.max(above).as_py() + scale > MAX_DIGITS:  # for which the cast does not look
        return None
    return values.cast(pa.decimal128(MAX_DIGITS, scale))


_READERS: dict[str, Callable[[pa.Array], pa.Array | None]] = {
    "$oid": _oids,
    "$date": _instants,
    "$numberInt": _wholes,
    "$numberLong": _wholes,
    "$numberDouble": _doubles,
    "$numberDecimal": _decimals,
}
