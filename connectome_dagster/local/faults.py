"""What goes wrong on purpose: which request is struck, and by what.

A plan decides from the order of the requests and a seed alone; it knows neither HTTP nor storage,
and does nothing itself.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

FaultKind = Literal[
    "refuse", "reset", "error", "page", "applied_reset", "applied_error", "partial", "twice",
    "later", "cut", "ends_early", "leaves_out", "drip", "delay", "stale",
]  # fmt: skip
KINDS: tuple[str, ...] = typing.get_args(FaultKind)

# Verbs as the page spells them, whatever U10 makes of their paths.
READS = ("read", "readwithquery")
WRITES = ("write", "batchwrite", "update", "updatewithupsert", "delete", "batchdelete")

# Kinds that mean something for some verbs only.
_VERBS: dict[str, tuple[str, ...]] = {
    "applied_reset": WRITES,
    "applied_error": WRITES,
    "twice": WRITES,
    "later": WRITES,
    "partial": ("batchwrite", "batchdelete"),
    "cut": READS,
    "ends_early": READS,
    "leaves_out": READS,
    "stale": READS,
}
# A test waits for what it asks for: more than this is a mistake in the unit.
MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and how often.

    It strikes every request that concerns it, or those that `nth`, `every` or `share` select: at
    most one of the three may be given. Requests are counted from 1 as they arrive, those that this
    fault concerns alone.

    Attributes:
        kind: what goes wrong.

            - `"refuse"`: the connection is reset when it is accepted, before a byte is read. It
              counts connections and takes neither verb nor collection.
            - `"reset"`: the body is read, nothing applied, the connection reset.
            - `"error"`: the body is read, nothing applied; the answer is `status`.
            - `"page"`: the body is read, nothing applied; the answer is an HTML page with 200.
            - `"applied_reset"`: applied, then the connection is reset.
            - `"applied_error"`: applied, then the answer is `status`.
            - `"partial"`: the first `documents` of a batch are applied (inserted, or deleted); the
              answer is `status`; 200 claims the whole batchwrite.
            - `"twice"`: applied two times; the answer is the first one's.
            - `"later"`: the answer is `status`, a reset if that is 0, and `seconds` after it the
              request is applied.
            - `"cut"`: the connection ends after `bytes` of the response, within a document.
            - `"ends_early"`: the response ends well after `bytes`, but it is not whole.
            - `"leaves_out"`: the response is well formed but has the first `documents` alone.
            - `"drip"`: the response comes at `bytes_per_second`.
            - `"delay"`: it is applied, and the answer comes `seconds` later.
            - `"stale"`: a read sees the collection as it was `seconds` ago.
        verb: verb that it strikes, as the page spells it; None for all that the kind concerns.
        collection: collection that it strikes; None for all.
        nth: strikes the n-th request, and no other.
        every: strikes every n-th request.
        share: strikes this share of the requests, from 0 to 1, chosen by `seed`.
        seed: of the choice that `share` makes; the same seed chooses the same requests.
        status: HTTP status of the answer; 0 in `"later"` for none.
        seconds: of `"later"`, `"delay"` and `"stale"`.
        documents: of `"partial"` and `"leaves_out"`.
        bytes: of `"cut"` and `"ends_early"`; None: within the last document of the response's first
            piece.
        bytes_per_second: of `"drip"`.
        retry_after: seconds that an `"error"` asks to wait; None: it has no `Retry-After`.
        retry_after_date: whether that is told as an HTTP date.

    Raises:
        ValueError: an unknown kind, a verb that the kind does not concern, or a value out of range.

    >>> Fault("applied_reset", verb="batchwrite", nth=2).concerns("read", "movies")
    False
    """

    kind: FaultKind
    verb: str | None = None
    collection: str | None = None
    nth: int | None = None
    every: int | None = None
    share: float | None = None
    seed: int = 0
    status: int = 500
    seconds: float = 1.0
    documents: int = 1
    bytes: int | None = None
    bytes_per_second: int = 1000
    retry_after: float | None = None
    retry_after_date: bool = False

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), kind)
        self._check_target()
        if sum(one is not None for one in (self.nth, self.every, self.share)) > 1:
            raise ValueError("fault: only one of nth, every and share can say when it strikes")
        _check_range("nth", self.nth, 1)
        _check_range("every", self.every, 1)
        _check_range("share", self.share, 0, 1)
        _check_range("seconds", self.seconds, 0, MAX_SECONDS)
        _check_range("documents", self.documents, 0)
        _check_range("bytes", self.bytes, 0)
        _check_range("bytes_per_second", self.bytes_per_second, 1)
        _check_range("retry_after", self.retry_after, 0)
        self._check_status()

    def _check_target(self) -> None:
        if self.verb is not None and self.verb not in _VERBS.get(self.kind, READS + WRITES):
            allowed = ", ".join(_VERBS.get(self.kind, READS + WRITES))
            raise ValueError(f"fault {self.kind}: verb {self.verb!r} is none of {allowed}")
        if self.kind == "refuse" and (self.verb is not None or self.collection is not None):
            raise ValueError(
                "fault refuse: it counts connections, which have no verb and no collection yet"
            )

    def _check_status(self) -> None:
        if self.kind == "partial" and self.status == 200:
            return
        if self.kind == "later" and self.status == 0:
            return
        if not 400 <= self.status < 600:
            raise ValueError(f"fault {self.kind}: status {self.status} is no error's (400-599)")

    def concerns(self, verb: str, collection: str) -> bool:
        """Whether a request of this verb to this collection is one that it counts."""
        return (
            self.kind != "refuse"
            and (verb == self.verb if self.verb else verb in _VERBS.get(self.kind, READS + WRITES))
            and self.collection in (None, collection)
        )

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults, and the kind, as `from_json` takes it."""
        return {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name == "kind" or getattr(self, one.name) != one.default
        }

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """A fault of a JSON object.

        Raises:
            ValueError: not an object, no kind, an unknown name, or a value out of range.
        """
        if not isinstance(value, Mapping) or "kind" not in value:
            raise ValueError('a fault is a JSON object with a "kind"')
        names = [one.name for one in dataclasses.fields(cls)]
        for name in value:
            if name not in names:
                raise ValueError(f"a fault has no {name!r}: it has {', '.join(names)}")
        return cls(**value)


class FaultPlan:
    """Faults in their order; each counts the requests that concern it and those that it struck.

    All faults count a request, and the first of those that select it strikes. Any thread may use
    it.

    Args:
        faults: what it starts with.

    >>> plan = FaultPlan([Fault("reset", nth=2)])
    >>> [plan.strike("read", "movies") is not None for _ in range(3)]
    [False, True, False]
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._planned = [_Planned(fault) for fault in faults]

    def __len__(self) -> int:
        return len(self._planned)

    @property
    def faults(self) -> list[Fault]:
        """The faults, in their order."""
        return [planned.fault for planned in self._planned]

    def add(self, fault: Fault | FaultKind, **parameters: Any) -> Fault:
        """Put a fault at the end; its count begins now.

        Args:
            fault: the fault, or its kind.
            parameters: of a fault that is given by its kind, by the names of `Fault`.

        Returns:
            The fault.

        Raises:
            ValueError: there is no such fault.
        """
        added = fault if isinstance(fault, Fault) else Fault(fault, **parameters)
        with self._lock:
            self._planned.append(_Planned(added))
        return added

    def replace(self, faults: Iterable[Fault]) -> None:
        """Take these faults in place of all others; every count begins anew."""
        with self._lock:
            self._planned = [_Planned(fault) for fault in faults]

    def clear(self) -> None:
        """Nothing goes wrong on purpose any more."""
        self.replace(())

    def strikes(self) -> list[int]:
        """How many requests each fault has struck, in the plan's order."""
        return [planned.struck for planned in self._planned]

    def counts(self) -> list[int]:
        """How many requests each fault has counted, in the plan's order."""
        return [planned.counted for planned in self._planned]

    def to_json(self) -> list[dict[str, Any]]:
        """Each fault with what it counted and struck."""
        with self._lock:
            return [
                {**one.fault.to_json(), "counted": one.counted, "struck": one.struck}
                for one in self._planned
            ]

    def strike(self, verb: str, collection: str) -> Fault | None:
        """Count a request; the fault that strikes it, None if none does."""
        if not self._planned:
            return None
        with self._lock:
            return self._first(one for one in self._planned if one.fault.concerns(verb, collection))

    def strike_connection(self) -> Fault | None:
        """Count a connection; the fault that refuses it, None if none does."""
        if not self._planned:
            return None
        with self._lock:
            return self._first(one for one in self._planned if one.fault.kind == "refuse")

    def stale_seconds(self, collection: str) -> float:
        """How far back a read of this collection may be made to look."""
        return max(
            (
                fault.seconds
                for fault in self.faults
                if fault.kind == "stale" and fault.collection in (None, collection)
            ),
            default=0.0,
        )

    @staticmethod
    def _first(concerned: Iterable[_Planned]) -> Fault | None:
        selecting = [planned for planned in concerned if planned.selects_next()]
        if not selecting:
            return None
        selecting[0].struck += 1
        return selecting[0].fault


class _Planned:
    """A fault with its count."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.counted = 0
        self.struck = 0
        self._random = random.Random(fault.seed)  # noqa: S311 - repeatable, no secret

    def selects_next(self) -> bool:
        """Count one more; whether the fault is meant for it."""
        self.counted += 1
        fault = self.fault
        if fault.nth is not None:
            return self.counted == fault.nth
        if fault.every is not None:
            return self.counted % fault.every == 0
        return fault.share is None or self._random.random() < fault.share


def _check_type(name: str, value: Any, kind: Any) -> None:
    if name == "kind":
        if type(value) is not str or value not in KINDS:
            raise ValueError(f"there is no fault {value!r}: there are {', '.join(KINDS)}")
        return
    kinds = typing.get_args(kind) or (kind,)
    if type(value) in kinds or (float in kinds and type(value) is int):
        return
    names = " or ".join("null" if one is type(None) else one.__name__ for one in kinds)
    raise ValueError(f"fault: {name} must be {names}, not {value!r}")


def _check_range(name: str, value: float | None, low: float, high: float | None = None) -> None:
    if value is None or (value >= low and (high is None or value <= high)):
        return
    most = "" if high is None else f" and at most {high:g}"
    raise ValueError(f"fault: {name} must be at least {low:g}{most}, not {value!r}")
