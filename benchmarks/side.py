"""What a side of a comparison is: how it is run, and how it shows what it moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from benchmarks.proof import Documents

CREDENTIAL = "made-up"

# A request that takes longer hangs.
REQUEST_SECONDS = 600

Run: TypeAlias = "Callable[[str, str, Any], Any]"
Read: TypeAlias = "Callable[[str, str, Any], Documents]"


@dataclass(frozen=True)
class Did:
    """What a run tells besides its cost.

    Attributes:
        rows: that went through.
        requests: that were sent, where it was counted.
        sent_share: of a response's bytes, those that were sent when its first batch came out.
        guarantee: that a write reached.
        written: rows that were sent, of a write that leaves out what is there.
    """

    rows: int
    requests: int | None = None
    sent_share: float | None = None
    guarantee: str | None = None
    written: int | None = None


class Side(NamedTuple):
    """One side of a comparison; all take an address, a collection and a frame (reads: None).

    Attributes:
        run: does the work; returns what it made, the number of its rows, or a `Did`.
        documents: does it again and gives what was moved, as plain documents.
        prepare: what happens before the measurement.
        rows: of a write, how many rows of the frame at most; None reads, 0 writes them all.
        writes_to: of a write, the collection of the server.
        beside: of a write, what the server has to hold.
        change: of a write, what is done to the frame before.
        written: of a write that leaves out what is there, how many of so many rows it has to send.
    """

    run: Run
    documents: Read
    prepare: Callable[[str, str], Any] | None = None
    rows: int | None = None
    writes_to: str = ""
    beside: str = ""
    change: Callable[[Any], Any] | None = None
    written: Callable[[int], int] | None = None
