"""The open questions of the Data API (U1-U14), each with the answer that this server gives.

A pure value: knows neither HTTP nor storage, nor for which collections it holds.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# MongoDB's own bound for one message (maxMessageSizeBytes): no batch it takes is larger.
MAX_BODY_BYTES = 48_000_000
# The past is kept in memory as long as it can be read.
MAX_STALE_SECONDS = 600.0
# The limiter remembers so many moments for each group of collections.
MAX_RATE = 100_000

IdForm = Literal["hex", "oid", "objectid", "absent"]
ClientId = Literal["unique", "any", "dropped"]
BatchMode = Literal["atomic", "ordered", "unordered"]
RetryAfter = Literal["seconds", "date", "none"]

_PATH = re.compile(r"[^.\s\"\\]+(\.[^.\s\"\\]+)*\Z")
_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) ([A-Za-z0-9_-]+)\Z")
# The verbs that the page fixes (F3, F6-F8) and the method of each: no switch takes their place.
FIXED = {
    "readwithquery": "POST",
    "updatewithupsert": "POST",
    "batchwrite": "POST",
    "batchdelete": "DELETE",
}


@dataclass(frozen=True)
class Switches:
    """One answer to each open question; the defaults are what data-api.md starts from.

    Attributes:
        response_path: U1. None: a read answers a bare array. A dotted path: the array stands there
            in an object, `"data"` or `"result.items"`.
        id_form: U2, U4. `"hex"`: a string of 24 hexadecimal digits. `"oid"`: an ObjectId, answered
            as `{"$oid": …}`. `"objectid"`: an ObjectId, answered as its hex string, which then
            finds nothing in a filter. `"absent"`: a string that no response shows. Documents keep
            the `_id` that they were inserted with.
        client_id: U3. `"unique"`: a client's `_id` is kept, a second one refused. `"any"`: kept,
            and a second one too. `"dropped"`: the server makes its own.
        extended_json: U4. Whether `{"$oid": …}` and its like have their meaning in filters and
            documents. If not, a filter takes them for unknown operators and a document that holds a
            name with `$` is refused, both with 400.
        expr: U4. Whether a filter may hold `$expr`; if not, it is a 400.
        page_cap: U5. The most documents that one response holds; None for no bound.
        update_many: U6. Whether an update touches all that match, or the first.
        update_replaces: U6. Whether `data` takes the place of the document, or sets its fields.
        update_operators: U6. Whether `data` may be made of operators (`{"$inc": …}`); if not, they
            are a 400.
        batch: U7. What a bad document does to its batch. `"atomic"`: nothing is inserted.
            `"ordered"`: those before it are. `"unordered"`: all the others are.
        batch_reports: U7. Whether the answer to such a batch is an error; if not it is a 200 with
            the number of the inserted, and nothing else.
        max_body_bytes: U8. Larger bodies are a 413. A batch's bytes as they came, unpacked ones of
            gzip too.
        rate_limit: U8. The most requests in `rate_seconds`; those above are a 429. None: no limit.
        rate_seconds: U8. The length of that window in seconds.
        retry_after: U8. `Retry-After` of a 429: in `"seconds"`, as an HTTP `"date"`, or `"none"`.
        no_match_status: U9. Status of an update that finds nothing and may not create: an error's
            (400-599), or a success's (200-299).
        read_call: U10. Method and verb of the plain read; None: it is not offered.
        write_call: U10. Those of the plain write.
        update_call: U10. Those of the plain update.
        delete_call: U10. Those of the plain delete.
        delete_body: U11. Whether the body of a DELETE arrives; if not, it is as if it were empty.
        empty_delete_is_all: U11. Whether a DELETE with an empty body means everything; if not, it
            is a 400.
        gzip_responses: U12. Whether responses are packed for who accepts it.
        gzip_requests: U12. Whether packed requests are taken; if not, they are a 415.
        stale_seconds: U13. A read sees the collection as it was so many seconds ago.
        error_form: U14. An error is told by its `"status"`, or hides behind a 200: as the same JSON
            `"object"`, or as an HTML `"page"`.

    Raises:
        ValueError: a value that its switch does not take.

    >>> Switches(page_cap=10).changed()
    {'page_cap': 10}
    """

    response_path: str | None = None
    id_form: IdForm = "hex"
    client_id: ClientId = "unique"
    extended_json: bool = True
    expr: bool = True
    page_cap: int | None = None
    update_many: bool = False
    update_replaces: bool = False
    update_operators: bool = False
    batch: BatchMode = "atomic"
    batch_reports: bool = True
    max_body_bytes: int = MAX_BODY_BYTES
    rate_limit: int | None = None
    rate_seconds: float = 1.0
    retry_after: RetryAfter = "seconds"
    no_match_status: int = 404
    read_call: str | None = "GET read"
    write_call: str | None = "POST write"
    update_call: str | None = "POST update"
    delete_call: str | None = "DELETE delete"
    delete_body: bool = True
    empty_delete_is_all: bool = False
    gzip_responses: bool = False
    gzip_requests: bool = False
    stale_seconds: float = 0.0
    error_form: Literal["status", "object", "page"] = "status"

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not _fits(value, kind):
                raise ValueError(f"switch {name}: {value!r} is not {_expected(kind)}")
        self._check_range("page_cap", 1, None)
        self._check_range("max_body_bytes", 1, None)
        self._check_range("rate_limit", 1, MAX_RATE)
        self._check_range("stale_seconds", 0, MAX_STALE_SECONDS)
        if not 0 < self.rate_seconds <= MAX_STALE_SECONDS:
            raise ValueError(f"switch rate_seconds: {self.rate_seconds!r} is not above 0")
        if not (200 <= self.no_match_status < 300 or 400 <= self.no_match_status < 600):
            raise ValueError(
                f"switch no_match_status: {self.no_match_status} is neither a success (200-299) "
                "nor an error (400-599)"
            )
        if self.response_path is not None and not _PATH.match(self.response_path):
            raise ValueError(
                f"switch response_path: {self.response_path!r} is not a dotted path of names"
            )
        self._check_calls()

    def _check_range(self, name: str, low: float, high: float | None) -> None:
        value = getattr(self, name)
        if value is None or (value >= low and (high is None or value <= high)):
            return
        most = "" if high is None else f" and at most {high:g}"
        raise ValueError(f"switch {name}: {value!r} is not at least {low}{most}")

    def _check_calls(self) -> None:
        taken = {f"{method} {verb}" for verb, method in FIXED.items()}
        for name in ("read_call", "write_call", "update_call", "delete_call"):
            call = getattr(self, name)
            if call is None:
                continue
            if not _CALL.match(call):
                raise ValueError(f'switch {name}: {call!r} is not of the form "METHOD verb"')
            if call in taken:
                raise ValueError(f"switch {name}: {call} is another call already")
            taken.add(call)

    def changed(self) -> dict[str, Any]:
        """The switches that are not as they are by default, by name."""
        return {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if getattr(self, one.name) != one.default
        }

    def to_json(self) -> dict[str, Any]:
        """All switches by name, as `from_json` takes them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Switches:
        """Switches of a JSON object; those that it does not name have their defaults.

        Raises:
            ValueError: not an object, an unknown name, or a value that its switch does not take.
        """
        if not isinstance(values, Mapping):
            raise ValueError("switches are a JSON object of names and values")  # noqa: TRY004 - one error for all that is wrong with it
        for name in values:
            _known(name)
        return cls(**values)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Switches:
        """Switches of texts of the form `NAME=VALUE`, as a command line has them.

        `on`, `yes` and `true` are true, `off`, `no` and `false` false, `none` is None.

        Raises:
            ValueError: another form, an unknown name, or a value that its switch does not take.

        >>> Switches.from_texts(["page_cap=10", "expr=off"]).changed()
        {'expr': False, 'page_cap': 10}
        """
        values: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"{text!r} is not of the form NAME=VALUE")
            values[name] = _parsed(name, value, _known(name))
        return cls(**values)


# The question of each switch and, for a list of them, its meaning in a line.
_MEANINGS = {
    "response_path": ("U1", "dotted path of the array in a read's response"),
    "id_form": ("U2", "what _id is, and how it is answered"),
    "client_id": ("U3", "what becomes of a client's _id"),
    "extended_json": ("U4", "Extended JSON has its meaning"),
    "expr": ("U4", "a filter may hold $expr"),
    "page_cap": ("U5", "most documents of one response"),
    "update_many": ("U6", "an update touches all that match"),
    "update_replaces": ("U6", "data replaces the document"),
    "update_operators": ("U6", "data may be operators"),
    "batch": ("U7", "what a bad document does to its batch"),
    "batch_reports": ("U7", "a batch with a bad document is answered by an error"),
    "max_body_bytes": ("U8", "larger bodies are a 413"),
    "rate_limit": ("U8", "most requests in rate_seconds"),
    "rate_seconds": ("U8", "length of that window in seconds"),
    "retry_after": ("U8", "form of Retry-After in a 429"),
    "no_match_status": ("U9", "status of an update that finds nothing"),
    "read_call": ("U10", "method and verb of the plain read"),
    "write_call": ("U10", "method and verb of the plain write"),
    "update_call": ("U10", "method and verb of the plain update"),
    "delete_call": ("U10", "method and verb of the plain delete"),
    "delete_body": ("U11", "the body of a DELETE arrives"),
    "empty_delete_is_all": ("U11", "a DELETE without a body removes everything"),
    "gzip_responses": ("U12", "responses are packed for who accepts it"),
    "gzip_requests": ("U12", "packed requests are taken"),
    "stale_seconds": ("U13", "how old the state is that a read sees"),
    "error_form": ("U14", "how errors look"),
}

_KINDS: dict[str, Any] = typing.get_type_hints(Switches)
_WORDS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def described() -> list[tuple[str, str, str, str]]:
    """Name, question, meaning and values of every switch, its default first."""
    return [
        (
            one.name,
            *_MEANINGS[one.name],
            f"{_shown(one.default)} ({_expected(_KINDS[one.name])})",
        )
        for one in dataclasses.fields(Switches)
    ]


def _known(name: Any) -> Any:
    if name not in _KINDS:
        raise ValueError(f"there is no switch {name!r}: there are {', '.join(_KINDS)}")
    return _KINDS[name]


def _choices(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _parts(kind: Any) -> tuple[Any, ...]:
    """The kinds that a union is made of, or the kind itself."""
    return (kind,) if _choices(kind) or isinstance(kind, type) else typing.get_args(kind)


def _fits(value: Any, kind: Any) -> bool:
    if _choices(kind):
        return type(value) is str and value in _choices(kind)
    kinds = _parts(kind)
    # An integer is a number of seconds too, but true is no integer.
    return type(value) in kinds or (float in kinds and type(value) is int)


def _expected(kind: Any) -> str:
    if _choices(kind):
        return " or ".join(_choices(kind))
    names = {bool: "on or off", int: "a whole number", float: "a number", str: "a text"}
    return " or ".join(names.get(part, "none") for part in _parts(kind))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _parsed(name: str, text: str, kind: Any) -> Any:
    kinds = _parts(kind)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds:
        value: Any = _WORDS.get(text.lower(), text)
    elif int in kinds or float in kinds:
        number = int if int in kinds else float
        try:
            value = number(text)
        except ValueError:
            value = text
    else:
        value = text
    if not _fits(value, kind):
        raise ValueError(f"switch {name}: {text!r} is not {_expected(kind)}")
    return value
