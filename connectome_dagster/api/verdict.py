"""What the end of an attempt means: done, try again, or which error.

Pure. Knows statuses and how far a request got; does not know the HTTP library. Texts that come
from outside are redacted before they get here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    AuthenticationError,
    CollectionNotFound,
    ConfigurationError,
    ConnectomeError,
    MalformedResponse,
    NoMatch,
    OutcomeUnknown,
    PayloadTooLarge,
    QueryError,
    RequestRejected,
    ServiceUnavailable,
)

# unsent: nothing left this machine. refused: not processed, the service says so. lost: sent, and
# what became of it is unknown. rejected: the service said no. garbled: it said yes in a way that
# is not an answer (U14). unusable: the settings cannot work.
Fate: TypeAlias = Literal["unsent", "refused", "lost", "rejected", "garbled", "unusable"]


@dataclass(frozen=True)
class Trouble:
    """Why an attempt did not end well.

    Attributes:
        fate: how far it got.
        what: what happened, for a message.
        status: the HTTP status, None if no answer came.
        body: the redacted start of the answer's body.
        retry_after: seconds that the service asked to wait, None if it did not.
        pushed_back: whether it is too much that is asked of the service at a time: it says so, or
            does not get round to an answer.
        packed: whether the body was sent compressed.
    """

    fate: Fate
    what: str
    status: int | None = None
    body: str = ""
    retry_after: float | None = None
    pushed_back: bool = False
    packed: bool = False


# Too many requests, unavailable, and the two timeouts.
_PUSH_BACKS = frozenset({408, 429, 503, 504})


_HINTS: Mapping[int, str] = {
    401: "check the credential: it may be of the other kind, or of another collection",
    403: "check the credential: it may be of the other kind, or of another collection",
    404: "check the collection id and that the credential belongs to it",
    405: "the service takes this call by another method: check base_url, and compare with the call"
    " on the collection's Integration > API page",
    407: "the proxy wants a login: put user and password into the URL of the proxy setting",
    413: "send less at once",
    415: "the service does not read such a body: check base_url",
}


def of_status(
    call: Call,
    status: int,
    *,
    body: str,
    retry_after: float | None,
    no_match_status: int,
    packed: bool = False,
) -> Trouble:
    """Judge an answer whose status is not a success.

    Args:
        call: what was sent.
        status: the HTTP status.
        body: the redacted start of the answer's body.
        retry_after: seconds that the service asked to wait, None if it did not.
        no_match_status: the status that says that no document matched (U9).
        packed: whether the body was sent compressed.

    Example:
        >>> from connectome_dagster.api.endpoints import read
        >>> of_status(read("m"), 503, body="", retry_after=1.0, no_match_status=404).fate
        'lost'
    """
    fate: Fate
    if call.may_miss and status == no_match_status:
        fate = "rejected"
    elif status == 429:
        fate = "refused"
    elif status >= 500 or status == 408:  # 408: the service gave up waiting, not the request
        fate = "lost"
    elif status >= 300:
        fate = "rejected"
    else:
        fate = "garbled"
    what = f"the service answered {'a compressed body ' if packed else ''}with status {status}"
    pushed_back = status in _PUSH_BACKS and fate != "rejected"
    return Trouble(fate, what, status, body, retry_after, pushed_back, packed)


def of_success(call: Call, status: int, content_type: str, start: bytes) -> Trouble | None:
    """Judge an answer whose status is a success: is it what it says (U14)?

    Args:
        call: what was sent.
        status: the HTTP status.
        content_type: the header, `""` for none.
        start: the body, or its beginning in case of a read.

    Returns:
        None if nothing speaks against it, else the trouble, without its body. The JSON of a read
        is judged by whoever decodes it.

    Example:
        >>> from connectome_dagster.api.endpoints import read
        >>> of_success(read("m"), 200, "text/html", b"<html>").fate
        'garbled'
    """
    page = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    if page or content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        what = f"the service answered with status {status} and a web page"
    elif call.needs == "write" and _names_an_error(start):
        what = f"the service answered with status {status} and an error"
    else:
        return None
    return Trouble("garbled", what, status)


def _names_an_error(body: bytes) -> bool:
    if not body.lstrip().startswith(b"{"):
        return False
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bool(answer.get("error"))


def may_repeat(call: Call, trouble: Trouble) -> bool:
    """Say whether sending again can help and cannot harm.

    Example:
        >>> from connectome_dagster.api.endpoints import batch_write
        >>> may_repeat(batch_write("m", b"[]"), Trouble("lost", "the connection was reset"))
        False
    """
    if trouble.fate in ("unsent", "refused"):
        return True
    return trouble.fate == "lost" and call.repeatable


def error_of(
    call: Call, trouble: Trouble, *, doubt: Trouble | None, attempts: int, no_match_status: int
) -> ConnectomeError:
    """Make the error that tells the caller what to do.

    Args:
        call: what was sent.
        trouble: how the last attempt ended.
        doubt: an earlier attempt of unknown outcome, None if there was none.
        attempts: attempts in all.
        no_match_status: the status that says that no document matched (U9).

    Example:
        >>> from connectome_dagster.api.endpoints import batch_write
        >>> lost = Trouble("lost", "the connection was reset")
        >>> print(error_of(batch_write("m", b"[]"), lost, doubt=None, attempts=1,
        ...                no_match_status=404))
        batchwrite of collection 'm': the connection was reset. The write may have happened, and \
repeating it could apply it twice: read back what is there before writing again
    """
    is_write = call.needs == "write"
    where: dict[str, Any] = {
        "verb": call.verb,
        "collection": call.collection,
        "status": trouble.status,
        "body": trouble.body,
    }
    head = f"{call.verb} of collection {call.collection!r}: {trouble.what}"
    if attempts > 1:
        head += f" (attempt {attempts})"
    if trouble.body:
        head += f": {trouble.body}"
    if is_write and (doubt is not None or trouble.fate in ("lost", "garbled")):
        return OutcomeUnknown(
            f"{head}. {_unknown(call, trouble, doubt)}", retry_after=trouble.retry_after, **where
        )
    if trouble.fate == "unusable":
        return ConfigurationError(f"{head}. Nothing was sent")
    if trouble.fate == "rejected":
        return _rejection(call, trouble, head, where, no_match_status)
    if trouble.fate == "garbled":
        return MalformedResponse(
            f"{head}. That is not the documents that were asked for: check base_url, and whether"
            " something between here and the service answers in its place",
            **where,
        )
    return ServiceUnavailable(
        f"{head}. {_unavailable(trouble)}", retry_after=trouble.retry_after, **where
    )


def _unknown(call: Call, trouble: Trouble, doubt: Trouble | None) -> str:
    advice = (
        "repeating it is harmless: do so when the service is well again"
        if call.repeatable
        else "repeating it could apply it twice: read back what is there before writing again"
    )
    if doubt is not None and trouble.fate not in ("lost", "garbled"):
        return f"An earlier attempt may have happened ({doubt.what}), and {advice}"
    return f"The write may have happened, and {advice}"


def _unavailable(trouble: Trouble) -> str:
    if trouble.retry_after is not None:
        return (
            f"Nothing happened; the service asks to wait {trouble.retry_after:.0f} s: try again"
            " then, or send fewer requests at a time"
        )
    if trouble.fate == "unsent":
        return "Nothing was sent: check base_url, the network and the proxy settings, or try later"
    return "Nothing happened: try again later"


def _rejection(
    call: Call, trouble: Trouble, head: str, where: dict[str, Any], no_match_status: int
) -> ConnectomeError:
    status = trouble.status or 0
    hint = _HINTS.get(status, "mend the request; sending the same again will not help")
    kind: type[RequestRejected] = RequestRejected
    if call.may_miss and status == no_match_status:
        kind = NoMatch
        hint = "no document matches the search query: mend it, or ask for upsert"
        if status == 404:
            hint += "; or there is no such collection: check the collection id"
    elif status in (401, 403):
        kind = AuthenticationError
        hint = f"it needs a {call.needs} credential; {hint}"
    elif status == 404:
        kind = CollectionNotFound
    elif status == 413:
        kind = PayloadTooLarge
    elif trouble.packed and status in (400, 415, 422):
        hint = "it may not take compressed bodies (U12): set compress_requests=False and try again"
    elif status in (400, 422) and call.carries_query:
        kind = QueryError
        hint = "mend the query; sending the same again will not help"
    elif 300 <= status < 400:
        hint = "redirects are not followed, since the credential is in the URL: check base_url"
    return kind(f"{head}. What to do: {hint}", **where)
