"""A document as a person reads it: indented JSON, bounded, every character visible.

Knows no HTML and no storage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

# A preview shows what a document looks like. Beyond these nobody reads on, and a browser that is
# given sixteen megabytes, MongoDB's bound for one document, stops answering.
MAX_CHARACTERS = 200  # of one text, some three lines of it
MAX_MEMBERS = 20  # of one array or object, somewhat more than most documents have fields
MAX_LEVELS = 6  # of nesting
MAX_LINES = 60  # of one document, two screens

Kind = Literal["key", "value", "note", "mark"]
Piece = tuple[Kind, str]


def pieces(document: Any) -> Iterator[list[Piece]]:
    """Lay a document out as indented JSON.

    Args:
        document: decoded JSON.

    Yields:
        Lines, each as pieces: what a piece is, and its text. A `note` says what was left out, the
        other pieces together are JSON.

    >>> for line in pieces({"amount": 10, "tags": []}):
    ...     print("".join(text for _, text in line))
    {
      "amount": 10,
      "tags": []
    }
    """
    lines = _lines(document, lead=[], level=0, tail="")
    yield from islice(lines, MAX_LINES)
    if next(lines, None) is not None:
        yield [("note", "… more lines")]


def visible(text: str) -> str:
    r"""The text with an escape for whatever has no glyph, or turns the direction of writing.

    Control characters, line separators, bidirectional marks, unassigned and private characters:
    they could hide a part of what is shown, or show it in another place.

    >>> visible("total\u202e001")
    'total\\u202e001'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _lines(value: Any, *, lead: list[Piece], level: int, tail: str) -> Iterator[list[Piece]]:
    indent = "  " * level
    start: list[Piece] = [("mark", indent), *lead]
    if not isinstance(value, (dict, list)):
        yield [*start, *_scalar(value), ("mark", tail)]
        return
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    if not value:
        yield [*start, ("mark", opening + closing + tail)]
        return
    if level >= MAX_LEVELS:
        inside = f"… {len(value):,} inside"
        yield [*start, ("mark", opening), ("note", inside), ("mark", closing + tail)]
        return
    yield [*start, ("mark", opening)]
    last = len(value) - 1
    for position, (key, member) in enumerate(islice(_members(value), MAX_MEMBERS)):
        yield from _lines(member, lead=key, level=level + 1, tail="" if position == last else ",")
    if last >= MAX_MEMBERS:
        yield [("mark", indent + "  "), ("note", f"… {last + 1 - MAX_MEMBERS:,} more")]
    yield [("mark", indent + closing + tail)]


def _members(value: dict[str, Any] | list[Any]) -> Iterator[tuple[list[Piece], Any]]:
    if isinstance(value, list):
        return (([], member) for member in value)
    return (([*_text(name, "key"), ("mark", ": ")], member) for name, member in value.items())


def _scalar(value: Any) -> list[Piece]:
    return _text(value, "value") if isinstance(value, str) else [("value", json.dumps(value))]


def _text(value: str, kind: Kind) -> list[Piece]:
    shown = visible(json.dumps(value[:MAX_CHARACTERS], ensure_ascii=False))
    if len(value) <= MAX_CHARACTERS:
        return [(kind, shown)]
    return [(kind, shown), ("note", f"… {len(value):,} characters")]
