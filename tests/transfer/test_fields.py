"""A projection shows what paging needs, and what was not asked for is taken out again."""

from __future__ import annotations

from typing import Any

import pytest

from connectome_dagster.frames.exact import NotDocuments
from connectome_dagster.transfer.fields import widened, without


@pytest.mark.parametrize(
    ("project", "needed", "wider", "hidden"),
    [
        (None, ["_id"], {}, set()),
        ({"a": 1}, ["_id"], {"a": 1}, set()),
        ({"a": 1, "_id": 0}, ["_id"], {"a": 1}, {("_id",)}),
        ({"_id": 0}, ["_id"], {}, {("_id",)}),
        ({"_id": 1}, ["n", "_id"], {"_id": 1, "n": 1}, {("n",)}),
        ({"a": True}, ["n", "_id"], {"a": True, "n": 1}, {("n",)}),
        ({"a": 0}, ["n", "_id"], {"a": 0}, set()),
        ({"a": 0, "n": 0}, ["n", "_id"], {"a": 0}, {("n",)}),
        ({"a": 1}, ["a.b", "_id"], {"a": 1}, set()),
        ({"a.c": 1}, ["a.b", "_id"], {"a.c": 1, "a.b": 1}, {("a", "b")}),
        ({"a.c.d": 1}, ["a.c.e", "_id"], {"a.c.d": 1, "a.c.e": 1}, {("a", "c", "e")}),
        ({"x": 1}, ["a.b", "_id"], {"x": 1, "a.b": 1}, {("a",)}),
        ({"a": 0}, ["a.b", "_id"], {}, {("a",)}),
        ({"a.b.c": 0}, ["a.b", "_id"], {}, {("a", "b", "c")}),
        ({"a.c": 0}, ["a.b", "_id"], {"a.c": 0}, set()),
        ({"ab": 0}, ["a", "_id"], {"ab": 0}, set()),
    ],
)
def test_the_projection_is_widened(
    project: Any, needed: list[str], wider: Any, hidden: set[tuple[str, ...]]
) -> None:
    assert widened(project, needed) == (wider, frozenset(hidden))


@pytest.mark.parametrize(
    "project", [{"a": {"$slice": 1}}, {"a": "$b"}, {"a.$": 1}, {"a": 1, "b": 0}, {"n.part": 1}]
)
def test_a_projection_that_cannot_be_widened_is_told(project: Any) -> None:
    assert widened(project, ["n", "_id"]) is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b'{"a":{"b":1,"c":1.50}}', b'{"a":{"c":1.50}}'),
        (b'{"a":{"b":1}},{"a":5},{"c":1e999}', b'{"a":{}},{"a":5},{"c":1e999}'),
        (b'{"a":[{"b":1,"c":2},7]}', b'{"a":[{"c":2},7]}'),
        (b"", b""),
    ],
)
def test_a_field_is_taken_out_and_every_other_digit_stays(text: bytes, left: bytes) -> None:
    assert without(text, [("a", "b")]) == left


def test_what_is_no_document_is_told() -> None:
    with pytest.raises(NotDocuments):
        without(b'{"a":{"b":1}', [("a", "b")])
