"""What a document looks like to a person: JSON, whatever is in it, and never too much of it."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.local import preview
from connectome_dagster.local.preview import (
    MAX_CHARACTERS,
    MAX_LEVELS,
    MAX_LINES,
    MAX_MEMBERS,
    pieces,
    visible,
)

SMALL = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=9), inner, max_size=3
        )
    ),
    max_leaves=12,
)


def lines(document: Any) -> list[str]:
    return ["".join(text for _, text in line) for line in pieces(document)]


@settings(deadline=None)
@given(SMALL)
def test_a_small_document_is_shown_whole_as_json(document: Any) -> None:
    notes = [text for line in pieces(document) for kind, text in line if kind == "note"]

    if not notes:
        assert json.loads("\n".join(lines(document))) == document


@settings(deadline=None)
@given(SMALL)
def test_whatever_is_shown_can_be_seen(document: Any) -> None:
    assert all(line.isprintable() for line in lines(document))


def test_the_layout_is_what_json_tools_print() -> None:
    document = {"_id": "a", "n": 1, "x": -0.0, "list": [1, {"é": None}, []], "none": {}}

    assert "\n".join(lines(document)) == json.dumps(document, indent=2, ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a\\u202eb"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\u0085"),
        ("\x00\x1b[31m", "\\u0000\\u001b[31m"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("é 電 🎬", "é 電 🎬"),
    ],
)
def test_what_has_no_glyph_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_long_text_is_cut_and_its_length_told() -> None:
    (line,) = lines("x" * 1_000_000)

    assert line == f'"{"x" * MAX_CHARACTERS}"… 1,000,000 characters'


def test_a_long_name_of_a_field_is_cut_too() -> None:
    assert all(len(line) < 2 * MAX_CHARACTERS for line in lines({"x" * 1_000_000: 1}))


def test_a_long_array_shows_its_beginning_and_how_much_more_there_is() -> None:
    shown = lines({"many": list(range(100))})

    assert shown[2 : 2 + MAX_MEMBERS] == [f"    {number}," for number in range(MAX_MEMBERS)]
    assert shown[2 + MAX_MEMBERS] == f"    … {100 - MAX_MEMBERS} more"


def test_deep_nesting_ends_with_how_much_is_inside() -> None:
    document: Any = 1
    for _ in range(100):
        document = [document]

    assert lines(document)[MAX_LEVELS] == "  " * MAX_LEVELS + "[… 1 inside]"
    assert len(lines(document)) == 2 * MAX_LEVELS + 1


def test_a_document_takes_no_more_than_two_screens() -> None:
    document = {str(number): list(range(19)) for number in range(19)}

    assert len(lines(document)) == MAX_LINES + 1
    assert lines(document)[-1] == "… more lines"


def test_the_examples_of_the_module_are_true() -> None:
    assert doctest.testmod(preview).failed == 0
