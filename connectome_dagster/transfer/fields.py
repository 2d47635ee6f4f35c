"""Fields that paging needs and the reader did not ask for: asked for, and taken out again.

Pure. Knows projections and the JSON text of documents, neither Arrow nor requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from connectome_dagster.frames.exact import NotDocuments

Path = tuple[str, ...]


def widened(
    project: Mapping[str, Any] | None, needed: Iterable[str]
) -> tuple[dict[str, Any], frozenset[Path]] | None:
    """Add fields to a projection.

    Args:
        project: what the reader asked for.
        needed: dotted paths of the fields that must be shown.

    Returns:
        The projection, and the paths that the reader does not want to see. None if the projection
        computes, or asks for a part of a needed field alone.

    Example:
        >>> wider, hidden = widened({"_id": 0, "a": 1}, ["_id", "b"])
        >>> wider, sorted(hidden)
        ({'a': 1, 'b': 1}, [('_id',), ('b',)])
    """
    if not project:
        return {}, frozenset()
    if not all(isinstance(shown, (bool, int, float)) for shown in project.values()):
        return None
    if any(part.startswith("$") for name in project for part in name.split(".")):
        return None
    kinds = {bool(shown) for name, shown in project.items() if name != "_id"}
    if len(kinds) > 1:
        return None  # the service says what is wrong with it
    including = kinds.pop() if kinds else bool(project["_id"])
    if including:
        return _included(project, needed)
    return _not_excluded(project, needed)


def _included(
    project: Mapping[str, Any], needed: Iterable[str]
) -> tuple[dict[str, Any], frozenset[Path]] | None:
    wider = {name: shown for name, shown in project.items() if shown}
    hidden = set()
    for name in needed:
        path = tuple(name.split("."))
        asked = [tuple(each.split(".")) for each, shown in project.items() if shown]
        if name == "_id":
            if "_id" in project and not project["_id"]:
                hidden.add(path)
            continue
        if any(path[: len(each)] == each for each in asked):
            continue
        if any(each[: len(path)] == path for each in asked):
            return None
        wider[name] = 1
        # Of what the reader sees, the part above this field stays.
        shared = max((_shared(path, each) for each in asked), default=0)
        hidden.add(path[: shared + 1])
    return wider, frozenset(hidden)


def _shared(left: Path, right: Path) -> int:
    """How many names two paths have in common at their beginning."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _not_excluded(
    project: Mapping[str, Any], needed: Iterable[str]
) -> tuple[dict[str, Any], frozenset[Path]]:
    paths = [tuple(name.split(".")) for name in needed]
    wider: dict[str, Any] = {}
    hidden = set()
    for name, shown in project.items():
        gone = tuple(name.split("."))
        if not shown and any(_shared(gone, path) in (len(gone), len(path)) for path in paths):
            hidden.add(gone)
        else:
            wider[name] = shown
    return wider, frozenset(hidden)


def without(piece: bytes, hidden: Iterable[Path]) -> bytes:
    """Take fields out of the inside of an array of documents; every other digit stays.

    Raises:
        NotDocuments: the text is none.

    Example:
        >>> without(b'{"a":{"b":1,"c":2.50}}', [("a", "b")])
        b'{"a":{"c":2.50}}'
    """
    try:
        documents = msgspec.json.decode(b"[" + piece + b"]", type=list[msgspec.Raw])
        for path in hidden:
            documents = [_without(document, path) for document in documents]
    except (msgspec.DecodeError, RecursionError) as error:
        reason = str(error)
    else:
        return b",".join(bytes(document) for document in documents)
    raise NotDocuments(reason)


def _without(value: msgspec.Raw, path: Path) -> msgspec.Raw:
    opening = bytes(memoryview(value)[:1])
    if opening == b"[":
        items = msgspec.json.decode(value, type=list[msgspec.Raw])
        return msgspec.Raw(msgspec.json.encode([_without(item, path) for item in items]))
    if opening != b"{":
        return value
    members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    if path[0] not in members:
        return value
    if len(path) == 1:
        del members[path[0]]
    else:
        members[path[0]] = _without(members[path[0]], path[1:])
    return msgspec.Raw(msgspec.json.encode(members))
