"""Finds out in a scratch collection what this account's service really does (U1-U14).

Asks in order, so that what is dangerous comes last and what was planted is removed, also after an
error. Knows which guarantee rests on which answers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.errors import ConfigurationError, ServiceError
from connectome_dagster.transfer.findings import Finding, ProbeReport
from connectome_dagster.transfer.limits import (
    Bounds,
    body_bytes,
    page_cap,
    rate_limit,
    staleness,
)
from connectome_dagster.transfer.questions import QUESTIONS, Asking
from connectome_dagster.transfer.removal import Removal
from connectome_dagster.transfer.report import Guarantee
from connectome_dagster.transfer.scratch import MARK, Scratch, array_of
from connectome_dagster.transfer.target import Target

# The order in which findings are told.
_ORDER = {f"U{number}": number for number in range(1, 15)} | {"marks": 0}


def probe(
    target: Target,
    *,
    everything: bool = False,
    bounds: Bounds = Bounds(),  # noqa: B008 - an immutable value
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ProbeReport:
    """Ask everything that can be asked in a scratch collection; see `Collection.probe`."""
    target.check_credentials(endpoints.batch_write(target.collection, b"[]"), reads_back=True)
    scratch = Scratch(target, secrets.token_hex(8), sleep=sleep, clock=clock)
    began = clock()
    _check_empty(scratch, everything)
    removal = Removal(scratch, everything)
    trouble: ServiceError | None = None
    findings: list[Finding] = []
    left: int | None = None
    try:
        _plant_first(scratch)
        findings = _ask_all(scratch, bounds, removal)
    except ServiceError as error:
        trouble = error
    finally:
        left = removal.clean()
    if trouble is not None:
        raise trouble.saying(f"The probe ended here; {_left(left)}") from None
    guarantee, why = _within_reach(findings)
    return ProbeReport(
        target.collection,
        tuple(sorted(findings, key=lambda one: _ORDER[one.question] or len(_ORDER))),
        guarantee,
        why,
        left,
        scratch.requests,
        clock() - began,
    )


def _left(left: int | None) -> str:
    if left == 0:
        return "what it had written is removed"
    many = "what it has written may" if left is None else f"{left} or more of its documents"
    return f"{many} still be there: remove the documents with a field {MARK!r}"


def _check_empty(scratch: Scratch, everything: bool) -> None:
    """See that the collection can be spoiled. Documents of an earlier probe do not count.

    Sent as any read, so that a wrong address, id or credential is told as it is elsewhere.
    """
    for query in ({}, {MARK: {"$exists": False}}):
        call = endpoints.read_with_query(scratch.collection, query=query, limit=10)
        answer = scratch.target.send(call)
        scratch.requests += answer.requests
        found = array_of(answer.body)
        if found is None:
            raise scratch.malformed("the answer to a read holds no array of documents")
        if not everything and any(MARK not in document for document in found[1]):
            raise ConfigurationError(
                f"probe of collection {scratch.collection!r}: it holds documents. A probe writes "
                "and deletes, so name an empty collection that is there for this, or pass "
                "everything=True (--everything) to have all of its documents removed. Nothing was "
                "written"
            )


def _plant_first(scratch: Scratch) -> None:
    """Write one document as any write, so that what is wrong with writing is told as elsewhere."""
    body = b"[" + msgspec.json.encode(scratch.document("first")) + b"]"
    answer = scratch.target.send(endpoints.batch_write(scratch.collection, body))
    scratch.requests += answer.requests


def _ask_all(scratch: Scratch, bounds: Bounds, removal: Removal) -> list[Finding]:
    findings = [staleness(scratch, bounds)]
    if not findings[0].known:
        return findings
    asking = [question(scratch) for question in QUESTIONS]
    for each in asking:
        next(each)
    for each in asking:
        findings += _answer(each)
    findings += page_cap(scratch, bounds)
    findings.append(body_bytes(scratch, bounds))
    findings += rate_limit(scratch, bounds)
    findings += removal.ask()
    return findings


def _answer(asking: Asking) -> list[Finding]:
    """What a question has found out, which is asked on from its pause."""
    try:
        next(asking)
    except StopIteration as answered:
        findings: list[Finding] = answered.value
        return findings
    raise AssertionError("a question pauses once")


def _within_reach(findings: list[Finding]) -> tuple[Guarantee, str]:
    """The strongest guarantee that the answers allow; never more than they say."""
    by_name = {finding.name: finding for finding in findings}
    value = {name: finding.value for name, finding in by_name.items()}
    if value.get("stale_seconds") is None:
        return "at_least_once", "what is written is not found again, so nothing can be verified"
    if value.get("client_id") == "unique":
        return "enforced", "an _id of ours is kept, found by a filter and unique (U3)"
    why_not = by_name["client_id"].seen if "client_id" in by_name else "U3 is not known"
    if value.get("bookkeeping") is True:
        return "verified", f"{why_not}; but the note in each document finds it"
    return "at_least_once", f"{why_not}; and the note in a document does not find it"
