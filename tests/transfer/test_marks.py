from __future__ import annotations

import json

import pytest

from connectome_dagster.errors import ConfigurationError
from connectome_dagster.transfer.marks import BOOKKEEPING, Marks
from tests.transfer.conftest import Local

MARKS = Marks()


@pytest.mark.parametrize("document", [{}, {"a": 1}, {"a": {"b": []}, "c": '"}'}])
@pytest.mark.parametrize("field", ["_dagster", "notizen ü"])
def test_a_mark_is_one_more_field(document: dict[str, object], field: str) -> None:
    line = json.dumps(document, separators=(",", ":")).encode()
    note = {"load": "7f", "key": "c0", "attempt": "01"}
    assert json.loads(Marks(field).mark(line, "7f", "c0", "01")) == {**document, field: note}


@pytest.mark.parametrize("as_ids", [False, True])
def test_an_array_holds_each_document_with_its_own_note(as_ids: bool) -> None:
    documents: list[dict[str, object]] = [{"a": 1}, {}, {"b": [{}]}]
    opened = [json.dumps(each).encode()[:-1] for each in documents]
    keys = [b"c0", b"c1", b"c2"]
    array = MARKS.array(opened, "7f", keys, "01", as_ids=as_ids)
    assert json.loads(array) == [
        {
            **document,
            BOOKKEEPING: {"load": "7f", "key": key.decode(), "attempt": "01"},
            **({"_id": key.decode()} if as_ids else {}),
        }
        for document, key in zip(documents, keys, strict=True)
    ]
    beside = MARKS.bytes_beside("7f", "01", 2, as_ids=as_ids)
    own = sum(len(line) + 1 for line in opened)
    assert len(array) - 2 <= own + len(documents) * (beside + 1)


def test_an_array_of_nothing_is_empty() -> None:
    assert MARKS.array([], "7f", [], "01") == b"[]"


@pytest.mark.parametrize("name", ["", "_id", "a.b", "$set", 'a"b', "a\\b", "a\nb", "a\0b", 5, None])
def test_a_name_that_cannot_be_a_field_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="bookkeeping is"):
        Marks(name)


def note(load: str, key: str, attempt: str) -> dict[str, object]:
    return {BOOKKEEPING: {"load": load, "key": key, "attempt": attempt}}


THERE = [
    {"n": 1, **note("a", "k1", "0101")},
    {"n": 2, **note("a", "k2", "0201")},
    {"n": 3, **note("a", "k2", "0301")},
    {"n": 4, **note("b", "k1", "0101")},
    {"n": 5, **note("b", "k1", "0301")},
    {"n": 6},
    {"n": 7, BOOKKEEPING: None},
]


def test_filters_find_what_they_say(local: Local) -> None:
    things = local.collection(THERE)
    few = {"n": {"$lt": 6}}
    found = {
        name: [each["n"] for each in things.find(query, sort={"n": 1}).to_pylist()]
        for name, query in {
            "load": MARKS.of_load("a"),
            "load where": MARKS.of_load("a", {"n": {"$gt": 1}}),
            "keys": MARKS.of_keys("a", ["k2", "k3"]),
            "copies": MARKS.copies("a", ["k1", "k2"], ["0101", "0301"]),
            "run": MARKS.of_run("a", "02"),
            "replaced": MARKS.replaced("a", "0200", {}),
            "replaced where": MARKS.replaced("a", "0200", few),
        }.items()
    }
    assert found == {
        "load": [1, 2, 3],
        "load where": [2, 3],
        "keys": [2, 3],
        "copies": [1, 3],
        "run": [2],
        "replaced": [4, 6, 7],
        "replaced where": [4],
    }


def test_a_filter_of_the_same_field_is_kept_beside_it() -> None:
    where = {f"{BOOKKEEPING}.load": "b"}
    assert MARKS.of_load("a", where) == {"$and": [where, {f"{BOOKKEEPING}.load": "a"}]}
