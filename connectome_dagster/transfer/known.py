"""The keys of a frame, and what the documents that have them say: both as digests.

Pure. Knows neither where rows come from nor how documents are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from connectome_dagster.transfer.compare import Digests


class Known:
    """The keys of a frame as sorted digests, and what the documents that have them say.

    16 bytes a row. What a document says is a digest as well, 0 where there is no document.
    """

    def __init__(self, keys: Digests) -> None:
        keys.sort()
        self._keys = keys
        self._contents = np.zeros(len(keys), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def repeated(self) -> bool:
        """Whether two rows seem to have one key."""
        return bool(np.any(self._keys[1:] == self._keys[:-1]))

    @property
    def seen(self) -> int:
        """How many rows have a document."""
        return int(np.count_nonzero(self._contents))

    def places(self, digests: Digests) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Where the rows with these keys are, -1 for none."""
        if not len(self._keys):
            return np.full(len(digests), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._keys, digests), len(self._keys) - 1)
        return np.where(self._keys[at] == digests, at, -1)

    def forget(self) -> None:
        """Begin again: no document is known."""
        self._contents[:] = 0

    def take(self, digests: Digests, contents: Digests) -> list[int]:
        """Note what documents say; which of them have a key that another one has as well."""
        places = self.places(digests)
        mine = np.flatnonzero(places >= 0)
        at = places[mine]
        _, first = np.unique(at, return_index=True)
        again = np.ones(len(at), dtype=bool)
        again[first] = False
        again |= self._contents[at] != 0
        self._contents[at] = contents[mine]
        return [int(place) for place in mine[again]]

    def contents(self, digests: Digests) -> Digests:
        """What the documents with these keys of rows say, 0 for none."""
        said: Digests = self._contents[self.places(digests)]
        return said
