"""The questions to a service about documents: what is kept of them, what finds them, what changes.

Each question is a generator: it writes what it needs, yields once, and reads when all the others
have written too, so that a service whose reads lag behind is waited for once and not each time.
Everything is asked in such a way that a response with a single document is enough (U5).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import msgspec

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Observation
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.transfer.findings import Finding, Value
from connectome_dagster.transfer.scratch import (
    Document,
    Scratch,
    any_of,
    array_of,
    refused,
    told_by,
)

Asking: TypeAlias = Generator[None, None, list[Finding]]

# What the page only offers (F9) may be spelled in many ways (U10); these are tried.
PLAIN_CALLS: dict[str, tuple[tuple[str, str], ...]] = {
    "read": (("GET", "read"), ("POST", "read")),
    "write": (("POST", "write"), ("PUT", "write"), ("POST", "insert")),
    "update": (("POST", "update"), ("PUT", "update"), ("PATCH", "update")),
    "delete": (("DELETE", "delete"), ("POST", "delete")),
}

# A credential of nobody, to see how a wrong one is refused.
WRONG_CREDENTIAL = "connectome-probe-wrong-credential"

_HEX24 = re.compile(r"[0-9a-fA-F]{24}\Z")
_INSTANT = "2020-02-29T12:34:56.789Z"
# The same in another form: where both are taken for what they look like, they are not equal.
_SAME_INSTANT = {"$date": {"$numberLong": "1582979696789"}}


def response(scratch: Scratch) -> Asking:
    """U1: where the documents stand in a response."""
    scratch.plant(scratch.document("response"))
    yield
    seen = scratch.look(scratch.document("response"))
    found = None if refused(seen) else array_of(seen.body)
    if not found or not found[1]:
        return [_unknown("U1", "response_path", f"no documents in the answer: {seen.excerpt}")]
    path = found[0]
    if path is None:
        return [Finding("U1", "response_path", None, "a response is a bare array")]
    told = f"the array stands at {path!r} in an object"
    return [Finding("U1", "response_path", path, told, {"response_path": path})]


def own_id(scratch: Scratch) -> Asking:
    """U2, U4: how the service's own `_id` is shown, and which filter finds it."""
    scratch.plant(scratch.document("own id"))
    yield
    found = scratch.find(scratch.document("own id")) or [{}]
    shown = found[0].get("_id")
    plainly = shown is not None and _finds(scratch, "own id", {"_id": shown})
    as_oid = type(shown) is str and _finds(scratch, "own id", {"_id": {"$oid": shown}})
    form, told = _form(shown, plainly=plainly, as_oid=as_oid)
    findings = [Finding("U2", "id_form", form, told)]
    if isinstance(shown, (str, dict)):
        # The zero of its type is below every other value of it, and of no other type.
        zero = {"$oid": "0" * 24} if isinstance(shown, dict) else "0"
        ranged = _finds(scratch, "own id", {"_id": {"$gt": zero}})
        told = f'{{"_id": {{"$gt": …}}}} of what is shown {"finds" if ranged else "does not find"} '
        findings.append(Finding("U4", "id_range", ranged, told + "the documents behind it"))
    return findings


def _finds(scratch: Scratch, case: str, more: Document) -> bool:
    return bool(scratch.find({**scratch.document(case), **more}, limit=1))


def _form(shown: Any, *, plainly: bool, as_oid: bool) -> tuple[str, str]:
    if shown is None:
        return "absent", "responses show no _id"
    if isinstance(shown, dict) and set(shown) == {"$oid"}:
        finds = "finds" if plainly else "does not find"
        return "oid", f'_id is shown as {{"$oid": …}}, and a filter with that {finds} it'
    if not (isinstance(shown, str) and _HEX24.match(shown)):
        finds = "finds" if plainly else "does not find"
        return "other", f"_id is a {type(shown).__name__}, and a filter with it {finds} it"
    if plainly:
        return "hex", "_id is shown as 24 hexadecimal digits, and a filter with them finds it"
    means = ', {"$oid": …} does' if as_oid else ', nor does {"$oid": …}'
    return "objectid", f"_id is shown as 24 hexadecimal digits, which find nothing{means}"


def client_id(scratch: Scratch) -> Asking:
    """U3: what becomes of a client's `_id`: the ground of the guarantee "enforced"."""
    # As row keys are: 24 hexadecimal digits, which a service might take for an ObjectId.
    key = secrets.token_hex(12)
    scratch.plant(scratch.document("client id", _id=key, n=1))
    scratch.plant(scratch.document("client id", _id=key, n=2))
    yield
    kept = _finds(scratch, "client id", {"n": 1})
    again = _finds(scratch, "client id", {"n": 2})
    found = _finds(scratch, "client id", {"_id": key}) and _finds(
        scratch, "client id", {"_id": any_of([key])}
    )
    if not (kept or again):
        return [_unknown("U3", "client_id", "documents with an _id of ours are refused")]
    if not found:
        shown = (scratch.find(scratch.document("client id"), limit=1) or [{}])[0].get("_id")
        kept_but = "kept, but a filter with it finds nothing" if shown == key else "dropped"
        value = "unfound" if shown == key else "dropped"
        return [Finding("U3", "client_id", value, f"an _id of ours is {kept_but}")]
    if not again:
        told = "an _id of ours is kept, found by a filter, and a second one is not taken"
        return [Finding("U3", "client_id", "unique", told, {"idempotency": "id"})]
    if not kept:
        told = "an _id of ours is kept, and a second document with it took the place of the first"
        return [Finding("U3", "client_id", "replaced", told)]
    told = "an _id of ours is kept, and so is a second document with the same"
    return [Finding("U3", "client_id", "any", told)]


def marks(scratch: Scratch) -> Asking:
    """Whether a note in a document finds it: the ground of the guarantee "verified"."""
    marks_ = scratch.target.marks
    note = {"load": scratch.run, "key": "a", "attempt": "1"}
    scratch.plant(scratch.document("marks", **{marks_.field: note}))
    yield
    found = bool(scratch.find(marks_.of_keys(scratch.run, ["a", "b"]), limit=1))
    newer = scratch.find(marks_.of_run(scratch.run, "2"), limit=1)
    apart = found and newer == []
    told = "finds" if apart else "does not find"
    told = f"a filter by {marks_.load}, {marks_.key} and {marks_.attempt} {told} the note"
    return [Finding("marks", "bookkeeping", apart, told)]


def extended_json(scratch: Scratch) -> Asking:
    """U4: whether Extended JSON and `$expr` have their meaning."""
    planted = scratch.plant(scratch.document("instant", at={"$date": _INSTANT}))
    scratch.plant(scratch.document("expr", n=1))
    yield
    query = scratch.document("instant", at=_SAME_INSTANT)
    means = not refused(planted) and bool(scratch.find(query, limit=1))
    told = '{"$date": …} in documents and filters '
    told += "is an instant" if means else f"has no meaning ({_why(planted)})"
    same = {"$expr": {"$eq": ["$n", {"$literal": 1}]}}
    other = {"$expr": {"$eq": ["$n", {"$literal": 2}]}}
    seen = scratch.look({**scratch.document("expr"), **same}, limit=1)
    hit = bool(scratch.documents_of(seen))
    expr = hit and scratch.find({**scratch.document("expr"), **other}, limit=1) == []
    said = "compares" if expr else ("is taken, and compares nothing" if hit else _why(seen))
    return [
        Finding("U4", "extended_json", means, told),
        Finding("U4", "expr", expr, f"$expr in a filter: {said}"),
    ]


def updates(scratch: Scratch) -> Asking:
    """U6: one document or all that match; fields or the whole; operators."""
    many = [scratch.document("many", tag=tag, n=0) for tag in "ab"]
    scratch.plant(*many, scratch.document("one", tag="a", n=0), scratch.document("inc", n=1))
    # The data hold what finds the document, so that it can be found whatever was replaced.
    on_many = scratch.update(scratch.document("many"), scratch.document("many", n=9))
    on_one = scratch.update(scratch.document("one"), scratch.document("one", n=9))
    on_operator = scratch.update(scratch.document("inc"), {"$inc": {"n": 1}})
    yield
    findings: list[Finding] = []
    if refused(on_many) or not scratch.holds("many", n=9):
        findings.append(_unknown("U6", "update_many", f"an update did nothing: {_why(on_many)}"))
    else:
        all_ = not scratch.holds("many", n=0)
        told = "all documents that match" if all_ else "one of the documents that match"
        findings.append(Finding("U6", "update_many", all_, f"an update touches {told}"))
    if refused(on_one) or not scratch.holds("one", n=9):
        findings.append(_unknown("U6", "update_replaces", f"an update did nothing: {_why(on_one)}"))
    else:
        whole = not scratch.holds("one", tag="a")
        told = "takes the place of the document" if whole else "sets fields, and leaves the others"
        findings.append(Finding("U6", "update_replaces", whole, f"data {told}"))
    works = scratch.holds("inc", n=2)
    told = "are applied" if works else f"do nothing: {_why(on_operator)}"
    findings.append(Finding("U6", "update_operators", works, f"operators as data {told}"))
    return findings


def no_match(scratch: Scratch) -> Asking:
    """U9: what an update says that finds nothing; and whether it creates when it may (F6)."""
    missed = scratch.update(scratch.document("nowhere"), scratch.document("nowhere", n=1))
    scratch.update(scratch.document("made"), scratch.document("made", n=1), upsert=True)
    yield
    status = missed.status
    told = f"an update that finds nothing is answered with status {status}"
    settings: dict[str, Any] = {}
    if 400 <= status <= 599 and status != 404:
        settings["no_match_status"] = status
    elif told_by(missed) != "nothing":
        told += f" and an error behind it, as {told_by(missed)}" if status < 300 else ""
    else:
        told += ": that nothing was found is not to be seen"
    created = scratch.holds("made", n=1)
    made = "creates" if created else "does not create"
    return [
        Finding("U9", "no_match_status", status, told, settings),
        Finding("U9", "upsert", created, f"an upsert that finds nothing {made} a document"),
    ]


def batches(scratch: Scratch) -> Asking:
    """U7: what becomes of a batch with a bad document, and whether its answer tells."""
    key = secrets.token_hex(12)
    scratch.plant(scratch.document("taken", _id=key))
    # A taken _id is the likeliest fault; an array as _id is one wherever _id is kept; the last is
    # no document at all.
    bad: list[Any] = [scratch.document("bad 0", _id=key), scratch.document("bad 1", _id=[1]), 42]
    answers = [
        scratch.plant(
            scratch.document(f"batch {at}", n=1), one, scratch.document(f"batch {at}", n=2)
        )
        for at, one in enumerate(bad)
    ]
    yield
    for at, answer in enumerate(answers):
        before, after = (scratch.holds(f"batch {at}", n=n) for n in (1, 2))
        if at < 2 and scratch.holds(f"bad {at}"):
            continue  # it was no fault here
        if at == 2 and before and after and not refused(answer) and counted(answer) == 3:
            continue
        return _batch_findings(answer, before=before, after=after)
    told = "no bad document was found: a taken _id, an array as _id and a number are all taken"
    return [_unknown("U7", "batch", told), _unknown("U7", "batch_reports", told)]


def _batch_findings(answer: Observation, *, before: bool, after: bool) -> list[Finding]:
    if after:
        mode, told = "unordered", "all the others are inserted"
    elif before:
        mode, told = "ordered", "those before it are inserted"
    else:
        mode, told = "atomic", "nothing is inserted"
    reports, number = refused(answer), counted(answer)
    settings: dict[str, Any] = {}
    if reports:
        said = f"is answered by an error ({_why(answer)})"
    elif number is not None:
        said = f"is answered with success, and the number {number}"
    else:
        said = "is answered with success, and nothing tells"
        settings = {"verify": "always"}
    return [
        Finding("U7", "batch", mode, f"of a batch with a bad document {told}"),
        Finding("U7", "batch_reports", reports, f"such a batch {said}", settings),
    ]


def counted(answer: Observation) -> int | None:
    """The number of documents that an answer to a batch says it inserted."""
    try:
        told = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    values = list(told.values()) if isinstance(told, dict) else [told]
    numbers = [value for value in values if type(value) is int]
    lists = [len(value) for value in values if isinstance(value, list)]
    return next(iter(numbers + lists), None)


def packed_requests(scratch: Scratch) -> Asking:
    """U12: whether packed requests are taken. Whether responses are packed is seen with U5."""
    answer = scratch.plant(scratch.document("packed"), packed=True)
    yield
    taken = scratch.holds("packed")
    told = "is taken; compress_requests=True would save bytes" if taken else _why(answer)
    return [Finding("U12", "gzip_requests", taken, f"a request packed with gzip: {told}")]


def plain_calls(scratch: Scratch) -> Asking:
    """U10: methods and paths of the plain calls, but for the delete."""
    tried: dict[str, list[Observation]] = {"write": [], "update": []}
    for at, (method, verb) in enumerate(PLAIN_CALLS["write"]):
        document = msgspec.json.encode(scratch.document(f"write {at}"))
        tried["write"].append(scratch.ask(_plain(scratch, method, verb, document)))
    for at, (method, verb) in enumerate(PLAIN_CALLS["update"]):
        one = scratch.document(f"update {at}")
        scratch.plant({**one, "n": 1})
        body = msgspec.json.encode({"search query": one, "data": {**one, "n": 2}})
        tried["update"].append(scratch.ask(_plain(scratch, method, verb, body)))
    yield
    reads = [
        scratch.ask(Call(verb, method, scratch.collection, "read", None, repeatable=True))
        for method, verb in PLAIN_CALLS["read"]
    ]
    return [
        _call("read", reads, lambda at: bool(scratch.documents_of(reads[at]))),
        _call("write", tried["write"], lambda at: scratch.holds(f"write {at}")),
        _call("update", tried["update"], lambda at: scratch.holds(f"update {at}", n=2)),
    ]


def _plain(scratch: Scratch, method: str, verb: str, body: bytes) -> Call:
    return Call(verb, method, scratch.collection, "write", body, repeatable=False)


def _call(name: str, answers: list[Observation], works: Callable[[int], bool]) -> Finding:
    return plain_call(name, [refused(one) for one in answers], works)


def plain_call(name: str, refusals: list[bool], works: Callable[[int], bool]) -> Finding:
    """The finding of the first of the calls that are tried which did what it should (U10)."""
    calls = [f"{method} {verb}" for method, verb in PLAIN_CALLS[name]]
    for at, call in enumerate(calls):
        if not refusals[at] and works(at):
            return Finding("U10", f"{name}_call", call, f"the plain {name} is {call}")
    told = f"no plain {name} among {', '.join(calls)}; this package needs none"
    return Finding("U10", f"{name}_call", None, told)


def errors(scratch: Scratch) -> Asking:
    """U14: how an error is told, and what a wrong credential is answered with."""
    yield
    query = scratch.document("errors", n={"$connectomeprobe": 1})
    seen = scratch.look(query)
    if not refused(seen):  # an operator that does not exist finds nothing there: another mistake
        body = b'"no documents"'
        call = Call("batchwrite", "POST", scratch.collection, "write", body, repeatable=False)
        seen = scratch.ask(call)
    form = told_by(seen)
    wrong = scratch.ask(
        endpoints.read_with_query(scratch.collection, query=query, limit=1),
        credentials=Credentials(WRONG_CREDENTIAL, WRONG_CREDENTIAL),
    )
    told_wrong = f"a wrong credential is answered with status {wrong.status}"
    if wrong.status < 300:
        told_wrong += f" and an error behind it, as {told_by(wrong)}"
    credential = Finding("U14", "wrong_credential", wrong.status, told_wrong)
    if form == "nothing":
        told = "neither an unknown operator nor a batch that is none is refused"
        return [_unknown("U14", "error_form", told), credential]
    told = {
        "status": f"an error has its own status ({seen.status})",
        "object": f"an error comes with status {seen.status}, as a JSON object",
        "page": f"an error comes with status {seen.status}, as a web page",
    }[form]
    return [Finding("U14", "error_form", form, told), credential]


def _unknown(question: Any, name: str, told: str, value: Value = None) -> Finding:
    return Finding(question, name, value, told, known=False)


def _why(seen: Observation) -> str:
    """What an answer says, for a sentence."""
    if not refused(seen):
        return f"status {seen.status}"
    text = "a web page" if told_by(seen) == "page" else seen.excerpt[:120]
    return f"status {seen.status}, {text}" if text else f"status {seen.status}"


# All questions that write what they need before anything is read.
QUESTIONS: tuple[Callable[[Scratch], Asking], ...] = (
    response,
    own_id,
    client_id,
    marks,
    extended_json,
    updates,
    batches,
    no_match,
    plain_calls,
    packed_requests,
    errors,
)
