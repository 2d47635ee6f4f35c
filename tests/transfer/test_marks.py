from __future__ import annotations

import json

import pytest

from connectome_dagster.transfer.marks import BOOKKEEPING, mark, not_of_load, of_load
from tests.transfer.conftest import Local


@pytest.mark.parametrize("document", [{}, {"a": 1}, {"a": {"b": []}, "c": '"}'}])
def test_a_mark_is_one_more_field(document: dict[str, object]) -> None:
    line = json.dumps(document, separators=(",", ":")).encode()
    assert json.loads(mark(line, 'l"1')) == {**document, BOOKKEEPING: {"load": 'l"1'}}


def test_the_filters_part_a_collection_in_two(local: Local) -> None:
    ours = [{"n": 1, BOOKKEEPING: {"load": "a"}}]
    others = [{"n": 2, BOOKKEEPING: {"load": "b"}}, {"n": 3}, {"n": 4, BOOKKEEPING: None}]
    things = local.collection([*ours, *others])
    numbers = [
        [each["n"] for each in things.find(query, sort={"n": 1}).to_pylist()]
        for query in (of_load("a"), not_of_load("a", {}), not_of_load("a", {"n": {"$gt": 2}}))
    ]
    assert numbers == [[1], [2, 3, 4], [3, 4]]


def test_a_filter_of_the_same_field_is_kept_beside_it() -> None:
    where = {f"{BOOKKEEPING}.load": "b"}
    assert not_of_load("a", where) == {"$and": [where, {f"{BOOKKEEPING}.load": {"$ne": "a"}}]}
