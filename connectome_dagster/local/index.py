"""Which documents may have a value at a path: an equality index that is never wrong, only broad.

It answers with candidates; the filter decides. Knows neither storage nor filters.
"""

from __future__ import annotations

from typing import Any

from bson import Regex

from connectome_dagster.local.values import Key, comparison_key


class EqualityIndex:
    """Sequence numbers of documents by the value at one dotted path.

    Where the path leads through an array the document is a candidate for every value.

    >>> index = EqualityIndex("sku")
    >>> index.add(7, {"sku": "a"})
    >>> index.candidates("a"), index.candidates("b"), index.candidates(None)
    ({7}, set(), None)
    """

    def __init__(self, path: str) -> None:
        self._steps = path.split(".")
        self._found: dict[Key, set[int]] = {}
        self._always: set[int] = set()

    def add(self, seq: int, document: dict[str, Any]) -> None:
        """Take a document in."""
        keys = self._keys(document)
        if keys is None:
            self._always.add(seq)
            return
        for key in keys:
            self._found.setdefault(key, set()).add(seq)

    def remove(self, seq: int, document: dict[str, Any]) -> None:
        """Take a document out; it must be as it was when it was added."""
        keys = self._keys(document)
        if keys is None:
            self._always.discard(seq)
            return
        for key in keys:
            seqs = self._found[key]
            seqs.discard(seq)
            if not seqs:
                del self._found[key]

    def candidates(self, value: Any) -> set[int] | None:
        """All that may equal `value`, and perhaps more; None if the index cannot tell."""
        # null is also equal to what is missing, a regular expression to what it finds.
        if value is None or isinstance(value, Regex):
            return None
        return self._found.get(comparison_key(value), set()) | self._always

    def _keys(self, document: dict[str, Any]) -> set[Key] | None:
        """What the document equals at the path; None if that is more than one look can tell."""
        value: Any = document
        for step in self._steps:
            if type(value) is list:
                return None
            if type(value) is not dict or step not in value:
                return set()
            value = value[step]
        keys = {comparison_key(value)}
        if type(value) is list:
            # An array equals what it is and what is in it.
            keys.update(comparison_key(item) for item in value)
        return keys
