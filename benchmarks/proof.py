"""A hash of documents, the same whichever side held them. Knows nothing of where they come from."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, TypeAlias

Documents: TypeAlias = "list[dict[str, Any]]"


def digest(documents: Documents) -> str:
    """A hash of every field of every document, in their order."""
    text = json.dumps([_plain(document) for document in documents], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """One form for what the sides hold differently: arrays, timestamps, kinds of numbers."""
    if isinstance(value, dict):
        return {name: _plain(below) for name, below in value.items()}
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return value
