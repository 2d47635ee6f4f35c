"""What documents carry so that a write can be told from another: a load id, in one field.

Pure. The API has no idempotency header to rely on, so the note travels in the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# The field of the note; readers hide it.
BOOKKEEPING = "_dagster"

_LOAD = f"{BOOKKEEPING}.load"


def mark(line: bytes, load: str) -> bytes:
    """Put the load id into an encoded document.

    Example:
        >>> mark(b'{"a":1}', "7f")
        b'{"a":1,"_dagster":{"load":"7f"}}'
    """
    note = b'"%s":{"load":%s}}' % (BOOKKEEPING.encode(), msgspec.json.encode(load))
    return line[:-1] + (b"," if line != b"{}" else b"") + note


def of_load(load: str, where: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The filter for the documents of a load, or for those of them that `where` finds."""
    mine = {_LOAD: load}
    return {"$and": [dict(where), mine]} if where else mine


def not_of_load(load: str, where: Mapping[str, Any]) -> dict[str, Any]:
    """The filter for what `where` selects and another load, or none, has written."""
    other = {_LOAD: {"$ne": load}}
    return {"$and": [dict(where), other]} if where else other
