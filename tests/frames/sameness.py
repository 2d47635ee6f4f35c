"""Whether a value that came back from Arrow is the one that went in, by the table of types."""

from __future__ import annotations

import base64
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa

from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.frames.extended_json import parse_instant, recognise

EJSON = Encoding("null", "ejson", "ejson", "ejson")  # in which types are told apart


def loads(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def is_same(back: Any, raw: Any, type_: pa.DataType) -> bool:
    """Whether a value that came back is what was sent, in a field of this type."""
    if raw is None or raw == {"$undefined": True}:
        return back is None
    if pa.types.is_struct(type_):
        return (
            isinstance(raw, dict)
            and raw.keys() <= back.keys()
            and all(is_same(back[each.name], raw.get(each.name), each.type) for each in type_)
        )
    if pa.types.is_list(type_):
        return len(back) == len(raw) and all(
            is_same(one, other, type_.value_type) for one, other in zip(back, raw, strict=True)
        )
    form = recognise(raw) if isinstance(raw, dict) else None
    return is_same_scalar(back, raw if form is None else form.value, raw, type_)


def is_same_scalar(back: Any, value: Any, raw: Any, type_: pa.DataType) -> bool:
    if back is None:
        return isinstance(value, float) and math.isnan(value)
    if pa.types.is_string(type_):
        return bool(back in (value, raw) or loads(back) == raw)
    if pa.types.is_timestamp(type_):
        milliseconds = parse_instant(value) if isinstance(value, str) else value
        return bool(back == {"$date": {"$numberLong": str(milliseconds)}})
    if pa.types.is_decimal(type_):
        return Decimal(back["$numberDecimal"]) == Decimal(value)
    if pa.types.is_binary(type_):
        return base64.b64decode(back["$binary"]["base64"]) == value
    if pa.types.is_fixed_size_binary(type_):
        return bytes.fromhex(back["$uuid"].replace("-", "")) == value
    if pa.types.is_floating(type_):
        return float(back) == float(value) and float(back).hex() == float(value).hex()
    return type(back) is type(value) and bool(back == value)
