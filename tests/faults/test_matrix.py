"""Every write under every fault: what was reported is there once, and what failed can be repeated.

The faults are the local server's own. An operation is run once undisturbed, to know how many
requests each fault could strike; then the first, one in the middle, and the last is struck.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from connectome_dagster.errors import ConnectomeError
from connectome_dagster.local.faults import Fault
from connectome_dagster.transfer.collection import Collection
from tests.transfer.conftest import Local
from tests.transfer.test_write import canonical

Documents = list[dict[str, Any]]

# Seven rows, two of them the same, in batches of two: a first, a middle and a last request.
ROWS: Documents = [{"day": "mon", "sku": sku, "n": sku * 10} for sku in (1, 2, 3, 4, 5, 6)]
TWINS = [*ROWS, ROWS[0]]
OLD: Documents = [
    {"day": "mon", "sku": 1, "n": 0},
    {"day": "mon", "sku": 3, "n": 30},
    {"day": "mon", "sku": 9, "n": 9},
    {"day": "tue", "sku": 7, "n": 7},
]
OTHERS = OLD[3:]


class Operation(NamedTuple):
    """A write, and what is there after it.

    Attributes:
        run: does it.
        there: the documents afterwards.
        loaded: whether its rows carry a note, which tells what they were written by.
    """

    run: Callable[[Collection], object]
    there: Documents
    loaded: bool = True


OPERATIONS = {
    "append": Operation(lambda each: each.append(TWINS, load="monday"), [*OLD, *TWINS]),
    "replace": Operation(
        lambda each: each.replace(TWINS, {"day": "mon"}, load="monday"), [*OTHERS, *TWINS]
    ),
    "upsert": Operation(
        lambda each: each.upsert(ROWS, on=["sku"]), [*OLD[2:], *ROWS], loaded=False
    ),
    "sync": Operation(
        lambda each: each.sync(
            ROWS, on=["sku"], where={"day": "mon"}, delete_missing=True, load="monday"
        ),
        [*OTHERS, *ROWS],
    ),
    "delete": Operation(lambda each: each.delete({"day": "mon"}), OTHERS, loaded=False),
}

MODES = ("field", "id")

WRITES = ("batchwrite", "updatewithupsert", "batchdelete")

# What strikes writes. A service whose 2xx may not be true of all that was sent (U7), or applies a
# request twice that it acknowledges once, is told from others by reading alone: "always".
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "refuse": ({"kind": "refuse"}, "unknown"),
    "reset": ({"kind": "reset"}, "unknown"),
    "500": ({"kind": "error", "status": 500}, "unknown"),
    "503 with Retry-After": ({"kind": "error", "status": 503, "retry_after": 0}, "unknown"),
    "429": ({"kind": "error", "status": 429, "retry_after": 0}, "unknown"),
    "a page": ({"kind": "page"}, "unknown"),
    "applied, then reset": ({"kind": "applied_reset"}, "unknown"),
    "applied, then 500": ({"kind": "applied_error", "status": 500}, "unknown"),
    "applied, then 503": ({"kind": "applied_error", "status": 503}, "unknown"),
    "partial, then 500": ({"kind": "partial", "documents": 1, "status": 500}, "unknown"),
    "partial, then 200": ({"kind": "partial", "documents": 1, "status": 200}, "always"),
    "twice": ({"kind": "twice"}, "always"),
    "late": ({"kind": "delay", "seconds": 0.02}, "unknown"),
}

# What strikes the reads that a write looks with, while another fault makes it look.
READ_FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"kind": "cut"},
    "cut at once": {"kind": "cut", "bytes": 1},
    "ends early": {"kind": "ends_early", "bytes": 3},
    "leaves out": {"kind": "leaves_out", "documents": 1},
    "drip": {"kind": "drip", "bytes_per_second": 100_000},
    "reset": {"kind": "reset"},
    "500": {"kind": "error", "status": 500},
    "a page": {"kind": "page"},
}


def struck(local: Local, fault: dict[str, Any], collection: Collection) -> int:
    """How many requests of an undisturbed run a fault could strike."""
    probe = Fault(**fault)
    if probe.kind == "refuse":
        return 2
    return sum(probe.concerns(entry.verb, collection.id) for entry in local.server.log)


def nth_of(count: int) -> list[int]:
    return sorted({1, (count + 1) // 2, count}) if count else []


def undisturbed(local: Local, operation: Operation, **settings: Any) -> Collection:
    things = local.collection(OLD, batch_rows=2, **settings)
    operation.run(things)
    assert canonical(local.documents(things)) == canonical(operation.there)
    return things


def hold(local: Local, operation: Operation, faults: list[dict[str, Any]], **settings: Any) -> None:
    """Run an operation under faults: reported is there, and what failed is there when repeated."""
    things = local.collection(OLD, batch_rows=2, **settings)
    for fault in faults:
        local.server.faults.add(Fault(**fault))
    reported = False
    try:
        operation.run(things)
        reported = True
    except ConnectomeError:
        pass
    local.server.quiesce()
    local.server.faults.clear()
    if not reported:
        operation.run(things)
        local.server.quiesce()
    assert canonical(local.documents(things)) == canonical(operation.there), reported


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_was_reported_is_there_once(local: Local, name: str, fault: str, mode: Any) -> None:
    operation = OPERATIONS[name]
    what, verify = FAULTS[fault]
    settings = {"idempotency": mode, "verify": verify}
    count = struck(local, what, undisturbed(local, operation, **settings))
    for nth in nth_of(count):
        hold(local, operation, [{**what, "nth": nth}], **settings)


@pytest.mark.parametrize("batch", ["ordered", "unordered"])
@pytest.mark.parametrize("fault", ["partial, then 500", "applied, then reset"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_a_bad_batch_leaves_makes_no_difference(
    local: Local, name: str, mode: Any, fault: str, batch: str
) -> None:
    local.server.switches(batch=batch)
    operation = OPERATIONS[name]
    what, verify = FAULTS[fault]
    settings = {"idempotency": mode, "verify": verify}
    count = struck(local, what, undisturbed(local, operation, **settings))
    for nth in nth_of(count):
        hold(local, operation, [{**what, "nth": nth}], **settings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reading", READ_FAULTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_look_that_fails_guesses_nothing(
    local: Local, name: str, reading: str, mode: Any
) -> None:
    operation = OPERATIONS[name]
    settings = {"idempotency": mode}
    doubt = {"kind": "applied_reset", "nth": 2 if name != "delete" else 1}
    reads = Fault(kind="reset", verb="readwithquery")
    things = undisturbed(local, operation, **settings)
    count = sum(reads.concerns(entry.verb, things.id) for entry in local.server.log) + 2
    for nth in range(1, count + 1):
        what = {**READ_FAULTS[reading], "verb": "readwithquery", "nth": nth}
        hold(local, operation, [doubt, what], **settings)


@pytest.mark.parametrize("name", ["append", "replace", "upsert", "sync"])
def test_a_read_that_lags_behind_is_waited_for(local: Local, name: str) -> None:
    operation = OPERATIONS[name]
    doubt = {"kind": "applied_reset", "nth": 2}
    stale = {"kind": "stale", "seconds": 0.1, "every": 1}
    hold(local, operation, [doubt, stale], settle_seconds=0.4)


@pytest.mark.parametrize("fault", [name for name in FAULTS if FAULTS[name][1] == "unknown"])
def test_without_notes_an_unknown_outcome_is_raised(local: Local, fault: str) -> None:
    what, _ = FAULTS[fault]
    append = Operation(lambda each: each.append(TWINS), [*OLD, *TWINS], loaded=False)
    count = struck(local, what, undisturbed(local, append, idempotency="none"))
    for nth in nth_of(count):
        things = local.collection(OLD, batch_rows=2, idempotency="none")
        local.server.faults.add(Fault(**what, nth=nth))
        reported = False
        try:
            append.run(things)
            reported = True
        except ConnectomeError:
            pass
        local.server.quiesce()
        local.server.faults.clear()
        if reported:
            assert canonical(local.documents(things)) == canonical(append.there)


class TestWhatIsAppliedAfterItWasLookedFor:
    """A request that timed out lands after it was found absent, and was sent again."""

    LATER = ({"kind": "later", "status": 500}, {"kind": "later", "status": 0})

    @pytest.mark.parametrize("fault", LATER, ids=["500", "reset"])
    @pytest.mark.parametrize("nth", [1, 2, 4])
    def test_duplicates_where_notes_alone_tell_rows_apart_until_it_is_reconciled(
        self, local: Local, fault: dict[str, Any], nth: int
    ) -> None:
        things = local.collection(OLD, batch_rows=2)
        local.server.faults.add(Fault(**fault, verb="batchwrite", nth=nth, seconds=0.2))
        report = things.append(TWINS, load="monday")
        local.server.quiesce()
        assert len(local.documents(things)) > len(OLD) + len(TWINS), "the oracle must bite"
        assert report.guarantee == "verified"
        removed = things.reconcile(load="monday").deleted
        assert canonical(local.documents(things)) == canonical([*OLD, *TWINS])
        assert removed == (2 if nth < 4 else 1)

    @pytest.mark.parametrize("fault", LATER, ids=["500", "reset"])
    @pytest.mark.parametrize("nth", [1, 2, 4])
    def test_never_duplicates_where_the_service_enforces_the_key(
        self, local: Local, fault: dict[str, Any], nth: int
    ) -> None:
        things = local.collection(OLD, batch_rows=2, idempotency="id")
        local.server.faults.add(Fault(**fault, verb="batchwrite", nth=nth, seconds=0.2))
        report = things.append(TWINS, load="monday")
        local.server.quiesce()
        assert canonical(local.documents(things)) == canonical([*OLD, *TWINS])
        assert report.guarantee == "enforced"

    @pytest.mark.parametrize("verb", WRITES)
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("name", OPERATIONS)
    def test_running_it_again_ends_where_it_should(
        self, local: Local, name: str, mode: Any, verb: str
    ) -> None:
        operation = OPERATIONS[name]
        later = {"kind": "later", "status": 0, "verb": verb, "seconds": 0.1}
        settings = {"idempotency": mode}
        count = struck(local, later, undisturbed(local, operation, **settings))
        for nth in nth_of(count):
            things = local.collection(OLD, batch_rows=2, **settings)
            local.server.faults.add(Fault(**later, nth=nth))
            with suppress(ConnectomeError):
                operation.run(things)
            local.server.quiesce()
            local.server.faults.clear()
            if operation.loaded and mode == "field":
                things.reconcile(load="monday")
            if name != "append":
                operation.run(things)
            assert canonical(local.documents(things)) == canonical(operation.there)
