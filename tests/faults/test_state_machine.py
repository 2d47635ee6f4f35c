"""Writes in any order, under faults, run again where they failed, with others editing meanwhile.

The model knows documents by what they say and by what wrote them; after every write that reports
success the collection holds the model's documents, and the server's log tells that a write which
was there already has changed nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from connectome_dagster.errors import ConnectomeError
from connectome_dagster.local.faults import Fault
from tests.transfer.conftest import Local
from tests.transfer.test_write import canonical

DAYS = ("mon", "tue")
KINDS = ("refuse", "reset", "error", "page", "applied_reset", "applied_error", "partial")
ATTEMPTS = 3

Row = dict[str, Any]

skus = st.integers(0, 4)
values = st.integers(0, 2)
days = st.sampled_from(DAYS)
any_rows = st.lists(
    st.builds(lambda day, sku, n: {"day": day, "sku": sku, "n": n}, days, skus, values), max_size=6
)
keyed_rows = st.dictionaries(skus, values, min_size=1, max_size=5)
faults = st.lists(
    st.builds(
        lambda kind, nth, verb: (
            Fault(kind, nth=nth)
            if kind == "refuse"
            else Fault(kind, nth=nth, verb=verb if kind != "partial" else "batchwrite")
        ),
        st.sampled_from(KINDS),
        st.integers(1, 4),
        st.sampled_from(["batchwrite", "updatewithupsert", "batchdelete"]),
    ),
    max_size=2,
)


@dataclass
class Held:
    """A document of the model: what it says, and which row of which load it is."""

    document: Row
    load: str | None = None
    key: str | None = None


class Writes(RuleBasedStateMachine):
    def __init__(self, local: Local, mode: str) -> None:
        super().__init__()
        self.local = local
        self.things = local.collection(batch_rows=2, idempotency=mode)
        self.held: list[Held] = []
        self.again: Callable[[], object] | None = None
        self.after: list[Held] | None = None

    def of_day(self, day: str) -> list[Held]:
        return [each for each in self.held if each.document["day"] == day]

    def write(self, run: Callable[[], object], after: list[Held], planned: list[Fault]) -> None:
        for fault in planned:
            self.local.server.faults.add(fault)
        try:
            run()
        except ConnectomeError:
            self.again, self.after = run, after
        else:
            self.again, self.after = None, None
            self.held = after
            self.check()
        finally:
            self.local.server.quiesce()
            self.local.server.faults.clear()

    def check(self) -> None:
        there = canonical(self.local.documents(self.things))
        assert there == canonical([each.document for each in self.held])

    @precondition(lambda self: self.again is None)
    @rule(rows=any_rows, load=st.sampled_from(["one", "two"]), planned=faults)
    def append(self, rows: list[Row], load: str, planned: list[Fault]) -> None:
        after = list(self.held)
        there = {(each.load, each.key) for each in after}
        for key, row in keyed(rows):
            if (load, key) not in there:
                after.append(Held(row, load, key))
        self.write(lambda: self.things.append(rows, load=load), after, planned)

    @precondition(lambda self: self.again is None)
    @rule(day=days, rows=any_rows, planned=faults)
    def replace(self, day: str, rows: list[Row], planned: list[Fault]) -> None:
        rows = [{**row, "day": day} for row in rows]
        after = [each for each in self.held if each.document["day"] != day]
        after += [Held(row, f"replace {day}", key) for key, row in keyed(rows)]
        self.write(lambda: self.things.replace(rows, {"day": day}, empty="delete"), after, planned)

    @precondition(lambda self: self.again is None)
    @rule(day=days, rows=keyed_rows, planned=faults)
    def upsert(self, day: str, rows: dict[int, int], planned: list[Fault]) -> None:
        found = Counter(each.document["sku"] for each in self.of_day(day))
        frame = [{"day": day, "sku": sku, "n": n} for sku, n in rows.items() if found[sku] < 2]
        after = self.updated(day, frame)
        self.write(lambda: self.things.upsert(frame, on=["day", "sku"]), after, planned)

    @precondition(lambda self: self.again is None)
    @rule(day=days, rows=keyed_rows, delete=st.booleans(), planned=faults)
    def sync(self, day: str, rows: dict[int, int], delete: bool, planned: list[Fault]) -> None:
        found = Counter(each.document["sku"] for each in self.of_day(day))
        if max(found.values(), default=0) > 1:
            return
        frame = [{"day": day, "sku": sku, "n": n} for sku, n in rows.items()]
        after = self.updated(day, frame)
        if delete:
            after = [
                each
                for each in after
                if each.document["day"] != day or each.document["sku"] in rows
            ]
        self.write(
            lambda: self.things.sync(
                frame, on=["day", "sku"], where={"day": day}, delete_missing=delete
            ),
            after,
            planned,
        )

    def updated(self, day: str, rows: list[Row]) -> list[Held]:
        after = list(self.held)
        for row in rows:
            for at, each in enumerate(after):
                if (each.document["day"], each.document["sku"]) == (day, row["sku"]):
                    after[at] = Held(row, each.load, each.key)
                    break
            else:
                after.append(Held(row))
        return after

    @precondition(lambda self: self.again is not None)
    @rule(planned=faults)
    def run_again(self, planned: list[Fault]) -> None:
        assert self.again is not None and self.after is not None  # noqa: PT018
        self.write(self.again, self.after, planned)

    @precondition(lambda self: self.again is None and self.held)
    @rule(data=st.data(), n=st.integers(10, 12))
    def edit_by_hand(self, data: st.DataObject, n: int) -> None:
        place = data.draw(st.integers(0, len(self.held) - 1))
        document = self.held[place].document
        alike = [each for each in self.held if same(each.document, document, "day", "sku")]
        if len(alike) == 1:
            self.things.update({"day": document["day"], "sku": document["sku"]}, {"n": n})
            self.held[place] = Held({**document, "n": n}, alike[0].load, alike[0].key)
            self.check()

    @precondition(lambda self: self.again is None)
    @rule(day=days)
    def delete(self, day: str) -> None:
        self.things.delete({"day": day})
        self.held = [each for each in self.held if each.document["day"] != day]
        self.check()

    @precondition(lambda self: self.again is None)
    @rule(load=st.sampled_from(["one", "two"]))
    def what_is_there_is_not_written_again(self, load: str) -> None:
        rows = [json.loads(each.key or "{}")["row"] for each in self.held if each.load == load]
        if any(json.loads(each.key or "{}")["place"] for each in self.held if each.load == load):
            return  # of rows that are the same, one was deleted
        before = len(self.local.server.changes)
        self.things.append(rows, load=load)
        assert len(self.local.server.changes) == before


def same(one: Row, other: Row, *names: str) -> bool:
    return all(one[name] == other[name] for name in names)


def keyed(rows: list[Row]) -> list[tuple[str, Row]]:
    """Rows with a key each: what they say, and how often it was said before."""
    seen: Counter[str] = Counter()
    keys = []
    for row in rows:
        said = json.dumps(row, sort_keys=True)
        keys.append((json.dumps({"row": row, "place": seen[said]}, sort_keys=True), row))
        seen[said] += 1
    return keys


LAWS = settings(
    max_examples=30,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def test_whatever_happens_what_was_reported_is_there(local: Local) -> None:
    run_state_machine_as_test(lambda: Writes(local, "field"), settings=LAWS)


def test_also_where_the_service_enforces_keys(local: Local) -> None:
    run_state_machine_as_test(lambda: Writes(local, "id"), settings=LAWS)
