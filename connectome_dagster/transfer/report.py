"""What a read or a write did, in numbers. Values only: whoever moves the data fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_TOLD = 10  # fields that are named in a log; the report names them all

Guarantee = Literal["enforced", "verified", "at_least_once"]


@dataclass(frozen=True)
class WriteReport:
    """What one write did.

    A number that the service does not tell and that was not read back is None, never a guess.

    Attributes:
        collection: the collection id.
        operation: `"append"`, `"upsert"`, `"replace"`, `"sync"`, `"update"`, `"insert"` or
            `"delete"`.
        rows: rows of the frame that were handed in; 1 for a single document, 0 for a delete.
        inserted: documents created, as far as known.
        updated: documents changed, as far as known.
        unchanged: rows that were there already and were not sent again, as far as known.
        deleted: documents removed, as far as known.
        batches: bodies of documents that were sent with success.
        requests: HTTP requests that were sent, retries and read-backs included.
        retries: requests that were sent again.
        bytes_sent: bytes of request bodies, as sent.
        seconds: wall time of the whole write.
        load: load id that the documents carry, None if they carry none.
        rejected: rows that the service refused, where they were to be skipped: their positions in
            what was handed in, from 0, with its reasons.
        guarantee: what is promised of this write once it is reported. `"enforced"`: its rows are
            there exactly once, whatever happens. `"verified"`: nothing is lost, and nothing twice
            unless a request that timed out is applied after it was read back as absent; `reconcile`
            finds and removes that. `"at_least_once"`: nothing is lost; running it again may write
            again.
    """

    collection: str
    operation: str
    rows: int
    inserted: int | None = None
    updated: int | None = None
    unchanged: int | None = None
    deleted: int | None = None
    batches: int = 0
    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0
    load: str | None = None
    rejected: tuple[tuple[int, str], ...] = ()
    guarantee: Guarantee = "at_least_once"


@dataclass(frozen=True)
class ReadReport:
    """What one read did.

    Attributes:
        collection: the collection id.
        rows: documents that were handed out.
        requests: HTTP requests that were sent, retries included.
        retries: requests that were sent again.
        bytes_received: bytes of the response body, after decompression.
        seconds: wall time from the request to the last document.
        conflicts: paths of fields whose values had several types and became strings, with the
            names of the types that were seen.
        strategy: `"auto"`, `"stream"` or `"pages"`, as asked for.
        pages: responses that the documents came from.
        resumed: breaks of the connection after which the read went on from the last document.
        proved: whether it is certain that these are all: the service was asked for what follows
            the last document, or the limit was reached.
        duplicate_fields: paths of fields whose name stood more than once in one object, with the
            number of such objects; the last of them counts.
    """

    collection: str
    rows: int = 0
    requests: int = 0
    retries: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    conflicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strategy: Literal["auto", "stream", "pages"] = "stream"
    pages: int = 0
    resumed: int = 0
    proved: bool = False
    duplicate_fields: Mapping[str, int] = field(default_factory=dict)

    @property
    def conflicts_told(self) -> str:
        """The fields that became text for a log, with their types; `""` if there are none.

        Example:
            >>> ReadReport("movies", conflicts={"year": ("int", "string")}).conflicts_told
            '1 field holds values of several types and was read as text: year (int, string)'
        """
        if not self.conflicts:
            return ""
        count = len(self.conflicts)
        fields = [f"{path} ({', '.join(kinds)})" for path, kinds in self.conflicts.items()]
        more = [f"and {count - _TOLD} more"] if count > _TOLD else []
        verbs = ("holds", "was") if count == 1 else ("hold", "were")
        return (
            f"{count} field{'s' * (count > 1)} {verbs[0]} values of several types and {verbs[1]} "
            f"read as text: {', '.join([*fields[:_TOLD], *more])}"
        )

    @property
    def duplicates_told(self) -> str:
        """The names that stood twice in one object, for a log; `""` if there are none.

        Example:
            >>> ReadReport("movies", duplicate_fields={"o.year": 2}).duplicates_told
            'names stand more than once in one object, and the last one counts: o.year (2 times)'
        """
        if not self.duplicate_fields:
            return ""
        fields = [f"{path} ({count} times)" for path, count in self.duplicate_fields.items()]
        more = [f"and {len(fields) - _TOLD} more"] if len(fields) > _TOLD else []
        return (
            "names stand more than once in one object, and the last one counts: "
            f"{', '.join([*fields[:_TOLD], *more])}"
        )
