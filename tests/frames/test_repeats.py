from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.frames.decode import Hints, decode
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.frames.repeats import repeated_names
from connectome_dagster.frames.schema import Path
from tests.frames.documents import collections


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ('{"a":1,"a":2}', {("a",): 1}),
        ('{"a":1},{"a":2}', {}),
        ('{"a":1,"a":2,"a":3},{"a":1,"b":1,"a":null}', {("a",): 2}),
        ('{"a":1,"\\u0061":2}', {("a",): 1}),
        ('{"a":1,"A":2}', {}),
        ('{"o":{"x":1,"x":1}},{"o":{"x":1,"x":1}}', {("o", "x"): 2}),
        ('{"p":[[{"y":{},"y":[]}],1]}', {("p", "[]", "[]", "y"): 1}),
        ('{"a":{"b":1,"b":2},"a":{"c":1}}', {("a",): 1, ("a", "b"): 1}),
        ('{"a":%s,"a":1e999}' % ("9" * 5000), {("a",): 1}),
        ('{"a":{"$oid":"0123456789abcdef01234567","$oid":"0123456789abcdef01234567"}}',
         {("a", "$oid"): 1}),
    ],
)  # fmt: skip
def test_names_that_stand_more_than_once_are_counted_by_object(
    piece: str, expected: dict[Path, int]
) -> None:
    assert repeated_names(piece.encode()) == expected
    assert decode(piece.encode(), Hints()).duplicated == expected


@settings(max_examples=100, deadline=None)
@given(collections(repeats=True) | collections(), st.sampled_from([", ", ",", " , "]))
def test_what_the_items_became_changes_only_the_speed(texts: list[str], between: str) -> None:
    items = between.join(texts).encode()
    assert repeated_names(items, (), plain_documents(items)) == repeated_names(items)


@pytest.mark.parametrize(
    "items",
    [
        b'{"a" :1,"a":2}',
        b'{"a":"\\u0022:","a":2}',
        b'{"a":"\\":","b":1,"b" :2}',
        b'{"a" \n:1,"a"\t:2}',
        b'{"b":"x\\\\","b":1}',
    ],
)
def test_nothing_hides_a_name_that_stands_twice(items: bytes) -> None:
    assert repeated_names(items, (), plain_documents(items))


def test_what_is_no_json_has_no_names() -> None:
    assert not repeated_names(b'{"a":1,"a":')
    assert not repeated_names(b"[" * 100_000)


def test_the_last_one_counts() -> None:
    decoded = decode(b'{"a":1,"b":true,"a":2.5},{"a":3,"a":null}', Hints())
    assert decoded.batch.to_pylist() == [{"a": 2.5, "b": True}, {"a": None, "b": None}]


def test_a_name_is_counted_in_a_field_that_is_decoded_by_itself() -> None:
    piece = b'{"n":1,"a":{"x":1,"x":9223372036854775808}},{"n":2,"a":{"x":2}}'
    decoded = decode(piece, Hints(apart=frozenset({("a",)})))
    assert decoded.apart == {("a",)}
    assert decoded.duplicated == {("a", "x"): 1}


@settings(max_examples=150, deadline=None)
@given(collections(repeats=True), st.booleans())
def test_all_are_counted_whichever_decoder_answers(texts: list[str], hinted: bool) -> None:
    counted: Counter[Path] = Counter()

    def count(members: list[tuple[str, Any]]) -> Any:
        for name, times in Counter(name for name, _ in members).items():
            counted[name] += times > 1
        return dict(members)

    for text in texts:
        json.loads(text, object_pairs_hook=count)
    hints = Hints(apart=frozenset({("a",), ("b",)})) if hinted else Hints()
    found = decode(",".join(texts).encode(), hints).duplicated
    by_name: Counter[str] = Counter()
    for path, times in found.items():
        by_name[path[-1]] += times
    assert by_name == +counted
