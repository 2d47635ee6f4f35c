"""The questions to a service about its limits: how late, how many, how large, how fast.

Each search is bounded by `Bounds`, and what is not found within them is told as that.
"""

from __future__ import annotations

import math
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Observation
from connectome_dagster.errors import OutcomeUnknown, ServiceUnavailable
from connectome_dagster.transfer.findings import Finding
from connectome_dagster.transfer.scratch import Scratch, refused


@dataclass(frozen=True)
class Bounds:
    """How far a probe goes.

    Attributes:
        rows: documents that are planted to find a cap on a response.
        body_bytes: the largest body that is tried; MongoDB's own bound for one document.
        burst: requests at most that are sent without a pause to find a rate limit.
        patience: seconds at most that a write may take until a read sees it.
    """

    rows: int = 2000
    body_bytes: int = 16 << 20
    burst: int = 50
    patience: float = 10.0


# Three writes are looked for at once: where several replicas answer, one may know it already.
STALENESS_TRIALS = 3
FIRST_LOOK_SECONDS = 0.02
LONGEST_LOOK_SECONDS = 0.25

# Bodies of the rows that look for a cap: small enough for any limit worth having.
ROWS_PER_BATCH = 500
MAX_BATCHES = 24

# The smallest body that is tried, and by how much each next one is larger.
FIRST_BODY_BYTES = 4096
BODY_STEP = 4
# Steps of halving between a body that is taken and one that is not: within five per cent.
BODY_HALVINGS = 5
DOCUMENT_BYTES = 256 << 10

# As many senders as the default concurrency has.
SENDERS = 8
# A service that pushes back is asked so often how much it takes.
MAX_BURSTS = 3
MAX_POLLS = 24

# What one call may take, for the concurrency that a rate limit bears.
CALL_SECONDS = 0.1

# The default of the setting, which is kept where it is enough.
DEFAULT_SETTLE_SECONDS = 1.0
DEFAULT_BATCH_BYTES = 1 << 20
DEFAULT_CONCURRENCY = 8


def staleness(scratch: Scratch, bounds: Bounds) -> Finding:
    """U13: after how many seconds a read sees an acknowledged write; sets `scratch.settle`."""
    longest = 0.0
    for trial in range(STALENESS_TRIALS):
        scratch.plant(scratch.document("seen", n=trial))
        waited = _seen_after(scratch, trial, bounds.patience)
        if waited is None:
            told = f"a document that was written is not found within {bounds.patience:g} s"
            return Finding("U13", "stale_seconds", None, told, known=False)
        longest = max(longest, waited)
    if not longest:
        told = "a read sees what was acknowledged before it"
        return Finding("U13", "stale_seconds", 0.0, f"{told}, {STALENESS_TRIALS} times of as many")
    scratch.settle = longest * 1.5 + 2 * LONGEST_LOOK_SECONDS * min(1.0, longest)
    told = f"a read saw an acknowledged write after {longest:.2f} s at the latest"
    settings = {}
    if 2 * longest > DEFAULT_SETTLE_SECONDS:
        settings["settle_seconds"] = math.ceil(20 * longest) / 10
    return Finding("U13", "stale_seconds", round(longest, 3), told, settings)


def _seen_after(scratch: Scratch, trial: int, patience: float) -> float | None:
    """Seconds from the acknowledgement to the first read that sees it, 0 for the first read."""
    began = scratch.clock()
    pause = FIRST_LOOK_SECONDS
    first = True
    while not scratch.holds("seen", n=trial):
        first = False
        if scratch.clock() - began > patience:
            return None
        scratch.sleep(pause)
        pause = min(pause * 1.5, LONGEST_LOOK_SECONDS)
    return 0.0 if first else scratch.clock() - began


def page_cap(scratch: Scratch, bounds: Bounds) -> list[Finding]:
    """U5, U12: the most documents of one response, and whether a large one comes packed."""
    planted = _plant_rows(scratch, bounds.rows)
    query = scratch.document("cap")
    options: dict[str, Any] = {"project": {"_id": 0, "n": 1}}
    seen = scratch.look(query, sort={"n": 1}, **options)
    rising = scratch.documents_of(seen)
    packed = "gzip" in seen.headers.get("content-encoding", "")
    told = "comes packed with gzip" if packed else "comes as it is, though gzip was offered"
    gzip = Finding("U12", "gzip_responses", packed, f"a response of {len(seen.body)} bytes {told}")
    if not rising:
        told = "no document of many was found"
        return [Finding("U5", "page_cap", None, told, known=False), gzip]
    falling = scratch.find(query, sort={"n": -1}, **options) or []
    there = {one.get("n") for one in (*rising, *falling)}
    if len(there) > len(rising):
        told = f"of {planted} documents one response holds {len(rising)} and no more"
        return [Finding("U5", "page_cap", len(rising), f"{told}; reads go on by themselves"), gzip]
    told = f"no cap within {len(rising)} documents"
    return [Finding("U5", "page_cap", None, told), gzip]


def _plant_rows(scratch: Scratch, rows: int) -> int:
    """Plant rows to be counted, in batches that the service takes; how many it took."""
    planted, size = 0, ROWS_PER_BATCH
    for _ in range(MAX_BATCHES):
        count = min(size, rows - planted)
        if count < 1:
            break
        batch = [scratch.document("cap", n=planted + number) for number in range(count)]
        if not refused(scratch.plant(*batch)):
            planted += count
        else:
            size //= 4
    return planted


def body_bytes(scratch: Scratch, bounds: Bounds) -> Finding:
    """U8: the largest body that `batchwrite` takes."""
    taken, over = 0, 0
    size = min(FIRST_BODY_BYTES, bounds.body_bytes)
    why = ""
    while not over:
        why = _refusal(scratch, size)
        if why:
            over = size
        else:
            taken = size
            if size >= bounds.body_bytes:
                told = f"a body of {taken} bytes is taken; larger ones were not tried"
                return Finding("U8", "max_body_bytes", None, told)
            size = min(size * BODY_STEP, bounds.body_bytes)
    for _ in range(BODY_HALVINGS):
        # The geometric mean: what counts is the ratio.
        middle = math.isqrt(taken * over) if taken else over // 2
        if not taken < middle < over:
            break
        told = _refusal(scratch, middle)
        if told:
            why, over = told, middle
        else:
            taken = middle
    told = f"a body of {taken} bytes is taken, one of {over} is not ({why})"
    settings = {"batch_bytes": taken} if 0 < taken < DEFAULT_BATCH_BYTES else {}
    return Finding("U8", "max_body_bytes", taken, told, settings)


def _refusal(scratch: Scratch, size: int) -> str:
    """Why a batch of a size is not taken, `""` if it is."""
    documents = []
    left = size - 2  # the brackets
    while left > 0:
        part = min(left, DOCUMENT_BYTES)
        if left - part < 1024:  # no room for one more
            part = left
        empty = scratch.document("body", pad="")
        room = part - len(msgspec.json.encode(empty)) - 1  # the comma
        documents.append({**empty, "pad": secrets.token_hex(1) * (max(room, 0) // 2)})
        left -= part
    try:
        seen = scratch.plant(*documents)
    except (OutcomeUnknown, ServiceUnavailable):
        return "the connection was closed"
    return f"status {seen.status}" if refused(seen) else ""


def rate_limit(scratch: Scratch, bounds: Bounds) -> list[Finding]:
    """U8: how many requests in how many seconds are too many, and what a 429 says then."""
    first = _burst(scratch, bounds.burst)
    names = ("rate_limit", "rate_seconds", "retry_after")
    if first.refused is None:
        told = f"none of {first.taken} requests at once was too many"
        return [Finding("U8", name, None, told) for name in names]
    most, window = first.taken, _until_taken(scratch, first.began)
    for _ in range(MAX_BURSTS - 1):
        # The requests before the first burst counted as well, so that it may have ended early.
        scratch.sleep(window)
        burst = _burst(scratch, bounds.burst)
        if burst.refused is None:
            break
        known, window = window, max(window, _until_taken(scratch, burst.began))
        most = max(most, burst.taken)
        if window < 1.2 * known:
            break
    rate = most / max(window, 1e-3)
    told = f"after {most} requests the next is refused; about {window:.2g} s later it is not"
    settings = {}
    bearable = max(1, int(rate * CALL_SECONDS))
    if bearable < DEFAULT_CONCURRENCY:
        settings["concurrency"] = bearable
    form, said = _form_of(first.refused.headers.get("retry-after"))
    return [
        Finding("U8", "rate_limit", most, told, settings),
        Finding("U8", "rate_seconds", round(window, 2), told),
        Finding("U8", "retry_after", form, said),
    ]


@dataclass(frozen=True)
class _Burst:
    """Requests without a pause: how many were taken until one was refused, and since when."""

    began: float
    taken: int
    refused: Observation | None


def _burst(scratch: Scratch, most: int) -> _Burst:
    call = endpoints.read_with_query(scratch.collection, query=scratch.document("none"), limit=1)
    began = scratch.clock()
    over: list[Observation] = []

    def send(_number: int) -> bool:
        if over:
            return False
        seen = scratch.ask_once(call)
        if refused(seen):
            over.append(seen)
        return not refused(seen)

    with ThreadPoolExecutor(SENDERS, "connectome-probe") as pool:
        taken = sum(pool.map(send, range(most)))
    return _Burst(began, taken, over[0] if over else None)


def _until_taken(scratch: Scratch, began: float) -> float:
    """Seconds since a moment until a request is taken again; asks seldom."""
    call = endpoints.read_with_query(scratch.collection, query=scratch.document("none"), limit=1)
    pause = FIRST_LOOK_SECONDS
    for _ in range(MAX_POLLS):
        if not refused(scratch.ask_once(call)):
            break
        scratch.sleep(pause)
        pause *= 1.3
    return scratch.clock() - began


def _form_of(header: str | None) -> tuple[str, str]:
    if header is None:
        return "none", "a 429 has no Retry-After"
    if header.strip().replace(".", "", 1).isdigit():
        return "seconds", "Retry-After of a 429 is in seconds"
    try:
        parsedate_to_datetime(header)
    except (TypeError, ValueError, IndexError, OverflowError):  # what it raises varies by version
        return "other", "Retry-After of a 429 is neither seconds nor a date"
    return "date", "Retry-After of a 429 is an HTTP date"
