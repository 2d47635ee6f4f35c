"""Hypothesis strategies for BSON values and documents, small and likely to collide."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import settings
from hypothesis import strategies as st

# without a deadline: a busy machine is no reason for a law to fail
law = settings(deadline=None)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NAMES = st.sampled_from(["a", "b", "c", "0"])

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3).map(Int64),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 0.5, 1.0, 2.0**53, 1e300]),
    st.sampled_from(["NaN", "1.0", "1E+2", "0.1", "-0", "Infinity", "9007199254740993"]).map(
        Decimal128
    ),
    st.text("ab\u00e9\U0001f600", max_size=2),
    st.binary(max_size=2),
    st.binary(max_size=1).map(lambda data: Binary(data, 5)),
    st.integers(0, 2).map(lambda number: ObjectId(f"{number:024x}")),
    st.integers(-2, 2).map(lambda number: _EPOCH + timedelta(milliseconds=number)),
    st.integers(0, 2).map(lambda number: Timestamp(number, 1)),
    st.sampled_from([MinKey(), MaxKey()]),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(_NAMES, values, max_size=3)
