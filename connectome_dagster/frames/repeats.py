"""Names that stand more than once in one object: the last one counts, and is told of.

So have it JavaScript, Python and MongoDB's drivers; JSON itself leaves it open. Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from connectome_dagster.frames.schema import ITEM, Path


class _Members(list[Any]):
    """The members of an object as pairs, all of them."""


def repeated_names(
    items: bytes, path: Path = (), decoded: list[Any] | None = None
) -> Counter[Path]:
    """Count the objects in which a name stands more than once.

    Args:
        items: the inside of a JSON array; what is no JSON has no names.
        path: where the items stand.
        decoded: what they became in plain Python, where they did: then most need not be parsed.

    Returns:
        For the path of each such name the number of objects.

    Example:
        >>> repeated_names(b'{"a":1,"a":2},{"b":[{"c":1,"c":1}]}')
        Counter({('a',): 1, ('b', '[]', 'c'): 1})
    """
    found: Counter[Path] = Counter()
    if decoded is not None and _has_as_many(items, decoded):
        return found
    if _any_repeated(items):
        _count(_loads(items, _Members), path, found)
    return found


def _has_as_many(items: bytes, decoded: list[Any]) -> bool:
    """Whether it is plain to see that all names that were written are there.

    A name ends in a quote and a colon. Where no text holds a quote, nothing else has the two.
    """
    if b"\\" in items and (b'\\"' in items or b"\\u0022" in items):
        return False
    written = items.translate(None, b" \t\r\n").count(b'":')
    return written == msgspec.json.encode(decoded).count(b'":')


def _any_repeated(items: bytes) -> bool:
    fewer = False

    def members(pairs: list[tuple[str, Any]]) -> None:
        nonlocal fewer
        fewer |= len(dict(pairs)) < len(pairs)

    _loads(items, members)
    return fewer


def _loads(items: bytes, members: Any) -> list[Any]:
    try:
        # Numbers are not looked at; Python would refuse the longest.
        return list(
            json.loads(b"[%b]" % items, object_pairs_hook=members, parse_int=len, parse_float=len)
        )
    except (ValueError, RecursionError):
        return []


def _count(items: list[Any], path: Path, found: Counter[Path]) -> None:
    for item in items:
        if isinstance(item, _Members):
            times = Counter(name for name, _ in item)
            found.update((*path, name) for name, count in times.items() if count > 1)
            for name, value in item:
                _count([value], (*path, name), found)
        elif isinstance(item, list):
            _count(item, (*path, ITEM), found)
