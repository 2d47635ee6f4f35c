"""Which row is which: load ids, attempts, and a key for each row that comes from its data alone.

Pure. The same rows get the same keys in another process on another day, so that what is there
already can be told from what is missing. Knows neither frames nor requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Prefixes = npt.NDArray[np.uint64]

# Of a load id and of a row's key: 2**48 of them before two are likely to be the same.
ID_BYTES = 12

# Of what the attempts of one run begin with: its time, and chance.
TOKEN_DIGITS = 16

# An attempt's number has two digits; a batch that was halved to single documents and then sent
# again as often as allowed is far below.
MAX_ATTEMPT = 0xFF

# Keys are remembered in sorted runs of at most so many, 8 MiB: merging two of them needs no more
# than that again, and there is one search for each run.
RUN_KEYS = 1 << 20


def load_id(collection: str, scope: str) -> str:
    """The id of a load: of everything that is written into a collection for one purpose.

    Args:
        collection: the collection id.
        scope: what is written, in words that are the same when it is written again: an asset and
            its partition, for one.

    Returns:
        24 hexadecimal digits.

    Example:
        >>> load_id("movies", "2026-11-23")
        'b26cb07326e3a7a47f9718fa'
    """
    # No collection id holds a NUL, so that the two cannot be cut otherwise.
    return blake2b(f"{collection}\0{scope}".encode(), digest_size=ID_BYTES).hexdigest()


def attempt_token(now_ms: int, random_bits: int, seen: str = "") -> str:
    """What every attempt of one run begins with; a later run's is greater.

    Args:
        now_ms: milliseconds since the epoch.
        random_bits: at random, of which 20 are taken: two runs of one millisecond differ.
        seen: the greatest attempt that is there, `""` for none: the token is greater than that,
            whatever this machine's clock says.

    Returns:
        16 hexadecimal digits: 11 of the time, to the year 2527, and 5 of chance.

    Example:
        >>> attempt_token(1_800_000_000_000, 0xABCDE)
        '1a3185c5000abcde'
        >>> attempt_token(0, 0, seen="1a3185c5000abcde01")
        '1a3185c500100000'
    """
    return f"{max(now_ms, _moment(seen) + 1) & 0xFFF_FFFF_FFFF:011x}{random_bits & 0xF_FFFF:05x}"


def attempt(token: str, number: int) -> str:
    """The number-th attempt, from 1, of a batch in the run of this token.

    Example:
        >>> attempt("1a3185c5000abcde", 1)
        '1a3185c5000abcde01'
    """
    return f"{token}{min(number, MAX_ATTEMPT):02x}"


def winning(attempts: Iterable[str]) -> str:
    """Of several copies of a row, the attempt of the one that stays: the latest run's first.

    Everybody who removes copies goes by it, so that two who do so at a time agree; and what a run
    has written to take the place of an earlier run's is never the one to go.

    Example:
        >>> winning(["1a3185c5000abcde02", "1a3185c5000abcde01", "19"])
        '1a3185c5000abcde01'
    """
    there = set(attempts)
    latest = max(tried[:TOKEN_DIGITS] for tried in there)
    return min(tried for tried in there if tried[:TOKEN_DIGITS] == latest)


def _moment(seen: str) -> int:
    try:
        return int(seen[:11], 16)
    except ValueError:  # not one of ours
        return -1


class DigestSet:
    """Digests of 64 bits, as often as they were added: 8 bytes each, in sorted runs.

    Two different ones of a billion are the same by chance once in 37 times; of ten million, once
    in 370,000.

    Example:
        >>> seen = DigestSet()
        >>> seen.add(np.array([7, 5, 7], dtype=np.uint64)).tolist()
        [0, 0, 1]
        >>> seen.add(np.array([7], dtype=np.uint64)).tolist()
        [2]
    """

    def __init__(self) -> None:
        self._runs: list[Prefixes] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    @property
    def runs(self) -> Sequence[Prefixes]:
        """The sorted runs; what is added later may change them."""
        return self._runs

    def add(self, digests: Prefixes) -> npt.NDArray[np.int64]:
        """Add digests, and tell how often each was added before it, in this call too."""
        order = np.argsort(digests, kind="stable")
        ordered = digests[order]
        before = np.empty(len(ordered), dtype=np.int64)
        # How far each stands from the first of its equals.
        before[order] = self.count(ordered) + _places(ordered)
        self._keep(ordered)
        return before

    def count(self, digests: Prefixes) -> npt.NDArray[np.int64]:
        """Tell how often each was added; quicker where they are sorted."""
        found = np.zeros(len(digests), dtype=np.int64)
        for run in self._runs:
            at = np.searchsorted(run, digests)
            here = np.flatnonzero(run[np.minimum(at, len(run) - 1)] == digests)
            if len(here):
                found[here] += np.searchsorted(run, digests[here], "right") - at[here]
        return found

    def _keep(self, ordered: Prefixes) -> None:
        """As in a log-structured merge: a run is merged with one that is no larger."""
        while self._runs and len(self._runs[-1]) <= len(ordered) <= RUN_KEYS // 2:
            ordered = np.concatenate([self._runs.pop(), ordered])
            ordered.sort(kind="stable")  # which merges what is sorted already
        if len(ordered):
            self._runs.append(ordered)


class RowKeys:
    """Keys of the rows of one load: from what a row says, and how often it has been said before.

    Remembers 8 bytes for each row, and 8 more for one that was there before.

    Args:
        load: the load id.

    Example:
        >>> keys = RowKeys(load_id("movies", "2026-11-23"))
        >>> first, second, again = keys.take([b'{"a":1}', b'{"a":2}', b'{"a":1}'])
        >>> len({first, second, again}), len(first)
        (3, 24)
    """

    def __init__(self, load: str) -> None:
        self._hashed = blake2b(load.encode(), digest_size=ID_BYTES)
        self._rows = DigestSet()
        self._repeated = DigestSet()

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, contents: Sequence[bytes]) -> list[bytes]:
        """Give the keys of the next rows, in the order in which they were handed in.

        Args:
            contents: what makes each row what it is, in one form: its canonical JSON, or that of
                its key columns.

        Returns:
            24 hexadecimal digits each. The n-th row of the same content has another key than the
            first, and the same one as the n-th of another run.
        """
        keys = self._digests(contents)
        before = self._rows.add(prefixes(keys))
        repeated = np.flatnonzero(before)
        if len(repeated):
            again = [b"%b\0%d" % (contents[at], before[at]) for at in repeated.tolist()]
            # After a NUL, which JSON text cannot hold, so that no row says the same.
            others = self._digests(again)
            self._repeated.add(prefixes(others))
            every = np.frombuffer(keys, dtype=np.uint8).reshape(-1, ID_BYTES)
            every[repeated] = np.frombuffer(others, dtype=np.uint8).reshape(-1, ID_BYTES)
        return _hexadecimal(keys)

    def _digests(self, contents: Sequence[bytes]) -> bytearray:
        copy: Callable[[], blake2b] = self._hashed.copy
        digests: list[bytes] = []
        take = digests.append
        for content in contents:  # per row: what is done here counts
            hashed = copy()
            hashed.update(content)
            take(hashed.digest())
        return bytearray().join(digests)

    def known(self) -> KnownKeys:
        """All keys so far, to be compared with those of documents."""
        return KnownKeys([*self._rows.runs, *self._repeated.runs])


class KnownKeys:
    """The keys of a frame, and which of them have been seen: one bit for each."""

    def __init__(self, runs: Sequence[Prefixes]) -> None:
        self._runs = runs
        self._seen = [np.zeros(len(run) // 8 + 1, dtype=np.uint8) for run in runs]

    def see(self, digests: Prefixes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Tell of each key whether it is of the frame, and whether it was seen before it.

        Args:
            digests: `prefixes` of keys.
        """
        known = np.zeros(len(digests), dtype=bool)
        order = np.argsort(digests, kind="stable")
        seen = np.empty(len(digests), dtype=bool)
        seen[order] = _places(digests[order]) > 0
        for run, bits in zip(self._runs, self._seen, strict=True):
            at = np.searchsorted(run, digests)
            here = np.flatnonzero(run[np.minimum(at, len(run) - 1)] == digests)
            byte, bit = at[here] >> 3, np.left_shift(1, at[here] & 7).astype(np.uint8)
            seen[here] |= (bits[byte] & bit) != 0
            np.bitwise_or.at(bits, byte, bit)
            known[here] = True
        return known, seen & known

    def missing(self) -> int:
        """How many keys of the frame have not been seen."""
        count = 0
        for run, bits in zip(self._runs, self._seen, strict=True):
            unseen = np.unpackbits(bits, count=len(run), bitorder="little") == 0
            # Of equals, only the first is ever marked.
            unseen[1:] &= run[1:] != run[:-1]
            count += int(np.count_nonzero(unseen))
        return count


def prefixes(keys: bytes | bytearray) -> Prefixes:
    """The first 64 bits of keys that stand one after the other, `ID_BYTES` each."""
    rows = np.frombuffer(keys, dtype=np.uint8).reshape(-1, ID_BYTES)
    return np.ascontiguousarray(rows[:, :8]).view(np.uint64).reshape(-1)


def prefixes_of(keys: Iterable[str]) -> Prefixes:
    """The same of keys as `RowKeys` gives them.

    Raises:
        ValueError: text that is no such key.
    """
    return prefixes(bytes.fromhex("".join(keys)))


def _places(ordered: Prefixes) -> npt.NDArray[np.int64]:
    """How many equals stand before each of what is sorted."""
    places: npt.NDArray[np.int64] = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return places


def _hexadecimal(keys: bytes | bytearray) -> list[bytes]:
    digits = keys.hex().encode()
    width = 2 * ID_BYTES
    return [digits[at : at + width] for at in range(0, len(digits), width)]


class PlaceKeys:
    """Keys of rows by their places, for a load that nobody writes a second time.

    Such a load has an id of its own, made by chance: no other run has to find its rows again, so
    that what they say need not be looked at, nor be remembered.
    """

    def __init__(self, load: str) -> None:
        self._load = np.frombuffer(bytes.fromhex(load), dtype=np.uint8)[: ID_BYTES - _PLACE_BYTES]
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def take(self, contents: Sequence[bytes]) -> list[bytes]:
        """Give the keys of the next rows, as `RowKeys.take`."""
        keys = np.empty((len(contents), ID_BYTES), dtype=np.uint8)
        places = np.arange(self._rows, self._rows + len(contents), dtype=">u8")
        # First, so that the first 64 bits of no two keys are the same.
        keys[:, :_PLACE_BYTES] = places.view(np.uint8).reshape(-1, 8)[:, -_PLACE_BYTES:]
        keys[:, _PLACE_BYTES:] = self._load
        self._rows += len(contents)
        return _hexadecimal(keys.tobytes())


# Of a key by place: 2**40 rows in a load, and loads that differ in the other 56 bits.
_PLACE_BYTES = 5
