from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.errors import ConfigurationError
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.transfer.contents import checked_key, contents, same_content
from connectome_dagster.transfer.rows import encoded

ROWS = [{"b": 1, "a": "x", "c": None}, {"b": 2, "a": "y", "c": 2.5}]


def said(batch: Any, key: tuple[str, ...] | None = None) -> list[bytes]:
    lines = encoded(batch, 0)
    return contents(batch, lines, 0, DEFAULT_ENCODING, key)


@pytest.mark.parametrize("make", [list, pa.RecordBatch.from_pylist])
@pytest.mark.parametrize("names", [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]])
def test_the_order_of_columns_makes_no_other_row(make: Any, names: list[str]) -> None:
    reordered = [{name: row[name] for name in names} for row in ROWS]
    assert said(make(reordered)) == said(make(ROWS))


@pytest.mark.parametrize("make", [list, pa.RecordBatch.from_pylist])
def test_of_a_key_only_its_columns_count(make: Any) -> None:
    key = checked_key(["b", "a"])
    others = [{**row, "c": -1.0} for row in ROWS]
    assert (
        said(make(others), key) == said(make(ROWS), key) == [b'{"a":"x","b":1}', b'{"a":"y","b":2}']
    )


def test_rows_are_said_in_the_forms_in_which_they_are_written() -> None:
    batch = pa.record_batch({"b": pa.array([None, 1]), "a": pa.array([b"x", b"y"])})
    encoding = Encoding(nulls="omit", binary="ejson")
    lines = encoded(batch, 0, encoding)
    assert contents(batch, lines, 0, encoding) == contents(
        batch.select(["a", "b"]), encoded(batch.select(["a", "b"]), 0, encoding), 0, encoding
    )


@pytest.mark.parametrize("make", [list, pa.RecordBatch.from_pylist])
def test_a_key_column_that_is_not_there_is_named(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="row 0: key names 'nope'"):
        said(make(ROWS), ("a", "nope"))


@pytest.mark.parametrize("key", ["sku", [], [1], ["a", None]])
def test_what_is_no_list_of_names_is_no_key(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="key is"):
        checked_key(key)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.5, 1.0, -0.0])
    | st.text(max_size=2),
    lambda below: (
        st.lists(below, max_size=2) | st.dictionaries(st.sampled_from("ab"), below, max_size=2)
    ),
    max_leaves=5,
)
documents = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(documents)
def test_a_document_says_what_it_says_in_any_order_and_without_its_nulls(document: Any) -> None:
    other = {name: value for name, value in reversed(document.items()) if value is not None}
    assert same_content(document, other)


@given(documents, st.sampled_from("abc"))
def test_a_field_that_differs_makes_another_document(document: Any, name: str) -> None:
    assert not same_content(document, {**document, name: [document.get(name), "more"]})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, 1.0, True), (1, True, False), (0, False, False), (2**60, float(2**60), True),
     ("1", 1, False), ([1, 2], [2, 1], False), ([None], [], False), ({}, None, False),
     ({"$oid": "65a0"}, "65a0", True), ({"$numberLong": "5"}, 5, True),
     ({"$date": {"$numberLong": "0"}}, {"$date": "1970-01-01T00:00:00Z"}, True),
     ({"$date": "1970-01-01T00:00:00Z"}, "1970-01-01T00:00:00.000Z", True)],
)  # fmt: skip
def test_values_are_the_same_as_mongodb_has_it(one: Any, other: Any, same: bool) -> None:
    assert same_content({"v": one}, {"v": other}) is same
    assert same_content({"v": [one]}, {"v": [other]}) is same
