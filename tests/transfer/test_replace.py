from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    EncodeError,
    OutcomeUnknown,
    QueryError,
    RowsRejected,
)
from connectome_dagster.transfer import replace as replacing
from tests.api.scripted import Request, Step, answer, cut, reset, serving
from tests.transfer.conftest import Local, Open
from tests.transfer.faults import applied_then, by_verb, forward, once, verb_of, when
from tests.transfer.test_write import (
    DONE,
    DOUBTS,
    ROWS,
    TABLE,
    canonical,
    every_frame,
)


def in_turn(*steps: Step) -> Step:
    """One step for each request, the last one for all that follow."""
    left = list(steps)
    lock = threading.Lock()

    def step(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        return chosen(connection, request, over)

    return step


OLD = [{"day": "mon", "n": n} for n in range(5)]
OTHER = [{"day": "tue", "n": 0}]
NEW = [{"day": "mon", "n": n} for n in range(100, 125)]
MONDAY = {"day": "mon"}


class TestReplace:
    @every_frame
    def test_every_kind_of_frame_takes_the_place_of_what_was_found(
        self, local: Local, make: Callable[[], Any]
    ) -> None:
        things = local.collection([{"sku": 1}, {"other": 1}])
        report = things.replace(make(), where={"sku": {"$exists": True}})
        assert canonical(local.documents(things)) == canonical([*ROWS, {"other": 1}])
        assert (report.operation, report.rows, report.inserted) == ("replace", 25, 25)
        assert report.deleted is None
        assert report.requests == report.batches + 4
        loads = {each.get("_dagster", {}).get("load") for each in local.server.documents(things.id)}
        assert loads == {None, report.load}

    def test_the_new_are_inserted_and_counted_before_the_old_are_deleted(
        self, local: Local
    ) -> None:
        with serving(forward(local.server.base_url)) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url, concurrency=1)
            things.replace(NEW, where=MONDAY)
            assert list(map(verb_of, server.requests)) == [
                "readwithquery",
                *["batchwrite"] * 3,
                *["readwithquery"] * 2,
                "batchdelete",
            ]
            assert server.requests[-1].method == "DELETE"
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_rows_that_where_does_not_find_replace_nothing_and_are_not_left_behind(
        self, local: Local
    ) -> None:
        things = local.collection([*OLD, *OTHER])
        stray = {**NEW[0], **dict.fromkeys(MONDAY, "elsewhere")}
        with pytest.raises(ConfigurationError, match="where does not find 1 of the 4 rows"):
            things.replace([*NEW[:3], stray], where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*OLD, *OTHER])

    def test_a_where_that_the_service_refuses_leaves_nothing_behind(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        with pytest.raises(QueryError, match=r"\$nope"):
            things.replace(NEW, where={"day": {"$nope": 1}})
        assert canonical(local.documents(things)) == canonical([*OLD, *OTHER])

    @pytest.mark.parametrize("make", [list, pa.Table.from_pylist], ids=["documents", "table"])
    def test_rows_with_an_id_are_refused_before_anything_is_sent(
        self, local: Local, make: Callable[[Any], Any]
    ) -> None:
        things = local.collection(OLD)
        known = [{"_id": "a", **row} for row in NEW[:2]]
        with pytest.raises(ConfigurationError, match="drop the column '_id'"):
            things.replace(make(known), where=MONDAY)
        assert local.server.log == []

    def test_running_it_again_only_reads(self, local: Local) -> None:
        with serving(forward(local.server.base_url)) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url)
            first = things.replace(NEW, where=MONDAY)
            before = local.server.documents(things.id)
            sent = len(server.requests)
            second = things.replace(NEW, where=MONDAY)
            verbs = Counter(map(verb_of, server.requests[sent:]))
        assert first.load == second.load
        assert (second.rows, second.inserted, second.unchanged) == (25, 0, 25)
        assert verbs["batchwrite"] == 0
        assert local.server.documents(things.id) == before

    def test_rows_that_changed_take_the_place_of_those_that_did(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        things.replace(NEW, where=MONDAY)
        changed = [*NEW[5:], {"day": "mon", "n": -1}, NEW[7], {"day": "mon", "n": -1}]
        report = things.replace(changed, where=MONDAY)
        assert (report.inserted, report.unchanged) == (3, 20)
        assert canonical(local.documents(things)) == canonical([*changed, *OTHER])

    def test_other_rows_alone_take_the_place_of_all(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        things.replace(NEW, where=MONDAY)
        things.replace([{"day": "mon", "n": -1}], where=MONDAY)
        assert canonical(local.documents(things)) == canonical([{"day": "mon", "n": -1}, *OTHER])

    @pytest.mark.parametrize("idempotency", ["field", "id"])
    def test_documents_that_were_changed_by_hand_are_replaced(
        self, local: Local, idempotency: str
    ) -> None:
        things = local.collection(OTHER, idempotency=idempotency)
        things.replace(NEW, where=MONDAY)
        things.update({"n": 103}, {"n": "edited"})
        things.update({"n": 104}, {"more": 1})
        report = things.replace(NEW, where=MONDAY)
        assert (report.inserted, report.unchanged) == (2, 23)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_documents_of_another_load_are_replaced_whatever_the_clock_says(
        self, local: Local
    ) -> None:
        things = local.collection(OTHER, now=lambda: 2_000_000_000.0)
        things.replace(NEW, where=MONDAY, load="yesterday")
        late = local.again(things, now=lambda: 1_000_000_000.0)
        late.replace(OLD, where=MONDAY, load="today")
        assert canonical(local.documents(things)) == canonical([*OLD, *OTHER])
        late.replace(NEW, where=MONDAY, load="yesterday")
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    @pytest.mark.parametrize("fault", DOUBTS.values(), ids=DOUBTS)
    @pytest.mark.parametrize("applied", [True, False])
    @pytest.mark.parametrize("at", [1, 2, 3])
    @pytest.mark.parametrize("idempotency", ["field", "id"])
    def test_a_doubt_about_a_batch_is_looked_into(
        self, local: Local, fault: Step, applied: bool, at: int, idempotency: str
    ) -> None:
        base = local.server.base_url
        broken = applied_then(base, fault) if applied else fault
        writes = [*[forward(base)] * (at - 1), broken, forward(base)]
        with serving(by_verb(forward(base), batchwrite=in_turn(*writes))) as server:
            things = local.collection(
                [*OLD, *OTHER],
                through=server.base_url,
                concurrency=1,
                read_timeout=0.3,
                idempotency=idempotency,
            )
            report = things.replace(NEW, where=MONDAY)
            verbs = Counter(map(verb_of, server.requests))
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])
        assert verbs["batchwrite"] == 3 + (not applied)
        assert report.guarantee == ("enforced" if idempotency == "id" else "verified")

    @pytest.mark.parametrize("fault", [reset, answer(503), answer(401), cut(b'[{"_id":"x"}')])
    @pytest.mark.parametrize("which", [1, 2, 3])
    def test_a_failing_read_deletes_nothing_and_running_again_repairs(
        self, local: Local, fault: Step, which: int
    ) -> None:
        base = local.server.base_url
        reads = in_turn(*[forward(base)] * (which - 1), fault)
        with serving(by_verb(forward(base), readwithquery=reads)) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url, max_attempts=2)
            with pytest.raises(ConnectomeError) as caught:
                things.replace(NEW, where=MONDAY)
            assert "batchdelete" not in map(verb_of, server.requests)
        if which > 1:
            assert "Nothing was deleted" in str(caught.value)
        assert canonical(local.documents(things)) >= canonical([*OLD, *OTHER])
        local.again(things).replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_a_batch_that_was_acknowledged_and_is_not_there_deletes_nothing(
        self, local: Local
    ) -> None:
        base = local.server.base_url
        swallowed = when(lambda request: b'"n":124' in request.body, DONE, forward(base))
        with serving(by_verb(forward(base), batchwrite=swallowed)) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url)
            with pytest.raises(OutcomeUnknown, match=r"of 25 documents.*5 were not") as caught:
                things.replace(NEW, where=MONDAY)
            assert "batchdelete" not in map(verb_of, server.requests)
        assert caught.value.load
        assert "Nothing was deleted" in str(caught.value)
        assert canonical(local.documents(things)) >= canonical([*OLD, *OTHER])
        local.again(things).replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    @pytest.mark.parametrize("applied", [True, False])
    def test_a_delete_of_unknown_outcome_is_repaired_by_running_again(
        self, local: Local, applied: bool
    ) -> None:
        base = local.server.base_url
        fault = applied_then(base, reset) if applied else reset
        with serving(by_verb(forward(base), batchdelete=fault)) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url, max_attempts=2)
            with pytest.raises(OutcomeUnknown, match="All new documents are there"):
                things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) >= canonical([*NEW, *OTHER])
        local.again(things).replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_a_delete_that_was_lost_once_is_sent_again(self, local: Local) -> None:
        base = local.server.base_url
        with serving(by_verb(forward(base), batchdelete=once(reset, forward(base)))) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url)
            report = things.replace(NEW, where=MONDAY)
            assert report.retries == 1
            assert report.requests == len(server.requests)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_a_frame_that_fails_midway_deletes_nothing(self, local: Local) -> None:
        things = local.collection(OLD, batch_rows=2)
        rows = [*NEW, *NEW, *NEW, {"day": "mon", "n": float("inf")}]
        with pytest.raises(EncodeError, match=r"row 75.*Nothing was deleted"):
            things.replace(rows, where=MONDAY)
        assert canonical(local.documents(things)) >= canonical(OLD)
        things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical(NEW)

    @pytest.mark.parametrize("switches", [{"page_cap": 3}, {"response_path": "data"},
                                          {"id_form": "oid"}, {"id_form": "objectid"},
                                          {"batch": "ordered"}])  # fmt: skip
    @pytest.mark.parametrize("again", [False, True])
    def test_what_the_service_is_like_makes_no_difference(
        self, local: Local, switches: dict[str, Any], again: bool
    ) -> None:
        local.server.switches(**switches)
        things = local.collection([*OLD, *OTHER])
        if again:
            things.replace([*NEW[:9], {"day": "mon", "n": -1}], where=MONDAY)
        report = things.replace(NEW, where=MONDAY)
        assert report.unchanged == (9 if again else 0)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    @pytest.mark.parametrize(
        "make", [list, pd.DataFrame, lambda: TABLE.slice(0, 0), lambda: iter([])]
    )
    def test_an_empty_frame_is_refused_unless_deleting_is_meant(
        self, local: Local, make: Callable[[], Any]
    ) -> None:
        with serving(forward(local.server.base_url)) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url)
            with pytest.raises(ConfigurationError, match="pass empty='delete'"):
                things.replace(make(), where=MONDAY)
            assert server.requests == []
            report = things.replace(make(), where=MONDAY, empty="delete")
        assert (report.rows, report.requests) == (0, 2)
        assert local.documents(things) == OTHER

    def test_everything_is_replaced_only_when_asked_for(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        with pytest.raises(ConfigurationError, match="everything=True"):
            things.replace(NEW, where={})
        assert canonical(local.documents(things)) == canonical([*OLD, *OTHER])
        things.replace(NEW, where={}, everything=True)
        assert canonical(local.documents(things)) == canonical(NEW)

    @pytest.mark.parametrize(
        ("where", "options"),
        [(MONDAY, {"everything": True}), (None, {}), ("day", {}), ([], {"everything": True}),
         ({}, {"everything": 1}), (MONDAY, {"empty": "keep"}), (MONDAY, {"empty": True})],
    )  # fmt: skip
    def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
        self, open_collection: Open, where: Any, options: dict[str, Any]
    ) -> None:
        with serving(DONE) as server:
            with pytest.raises(ConfigurationError):
                open_collection(server.base_url).replace(NEW, where, **options)
            assert server.requests == []

    @pytest.mark.parametrize("missing", ["read", "write"])
    def test_both_credentials_are_needed_before_anything_is_sent(
        self, open_collection: Open, missing: str
    ) -> None:
        with serving(DONE) as server:
            with pytest.raises(ConfigurationError, match=f"needs a {missing} credential"):
                open_collection(server.base_url, **{missing: None}).replace(NEW, where=MONDAY)
            assert server.requests == []

    def test_readers_do_not_see_the_mark(self, local: Local) -> None:
        things = local.collection(OLD)
        things.replace(NEW, where=MONDAY)
        assert canonical(things.find(project={"_id": 0}).to_pylist()) == canonical(NEW)

    def test_the_reserved_field_is_refused(self, open_collection: Open) -> None:
        with serving(DONE) as server:
            with pytest.raises(EncodeError, match="_dagster"):
                open_collection(server.base_url).replace([{"_dagster": 1}], where=MONDAY)
            assert server.requests == []


class TestCopies:
    """Rows that are there more than once, by faults or by others who write at the same time."""

    SWITCHES = ({}, {"id_form": "objectid"}, {"id_form": "oid"}, {"id_form": "absent"})

    @pytest.mark.parametrize("switches", SWITCHES, ids=str)
    def test_a_batch_that_is_applied_twice_is_there_once(
        self, local: Local, switches: dict[str, Any]
    ) -> None:
        local.server.switches(**switches)
        local.server.faults.add("twice", verb="batchwrite", nth=2)
        things = local.collection([*OLD, *OTHER])
        things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_so_it_is_where_an_id_that_is_given_is_not_unique(self, local: Local) -> None:
        local.server.switches(client_id="any")
        local.server.faults.add("twice", verb="batchwrite", nth=2)
        things = local.collection([*OLD, *OTHER], idempotency="id")
        things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_a_batch_that_is_applied_late_is_gone_when_it_is_run_again(self, local: Local) -> None:
        local.server.faults.add("later", verb="batchwrite", nth=2, seconds=0.3)
        things = local.collection([*OLD, *OTHER], settle_seconds=0.0)
        things.replace(NEW, where=MONDAY)
        local.server.quiesce()
        assert canonical(local.documents(things)) > canonical([*NEW, *OTHER])
        things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_of_two_at_a_time_one_wins(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        frames = [[{"day": "mon", "n": 1000 * who + n} for n in range(30)] for who in (1, 2)]
        both = [*frames[0], *frames[1]]
        local.server.faults.add("delay", seconds=0.01, share=0.5, seed=3)
        ended: list[int] = []

        def run(who: int) -> None:
            try:
                local.again(things).replace(frames[who], where=MONDAY)
            except ConnectomeError:
                return
            ended.append(who)

        threads = [threading.Thread(target=run, args=(who,)) for who in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        local.server.faults.clear()
        there = canonical(local.documents(things))
        assert there <= canonical([*OLD, *both, *OTHER])
        assert len(ended) < 2 or there in [canonical([*each, *OTHER]) for each in frames]
        assert not ended or any(there >= canonical(frames[who]) for who in ended)
        things.replace(frames[0], where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*frames[0], *OTHER])

    def test_two_of_the_same_rows_at_a_time_leave_them_once(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        failed: list[Exception] = []

        def run() -> None:
            try:
                local.again(things).replace(NEW, where=MONDAY)
            except ConnectomeError as error:
                failed.append(error)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        there = canonical(local.documents(things))
        assert there >= canonical([*NEW, *OTHER])
        things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_rows_of_a_newer_run_are_never_deleted(self, local: Local) -> None:
        things = local.collection(OTHER, now=lambda: 1_000_000_000.0)
        newer = local.again(things, now=lambda: 2_000_000_000.0)
        base = local.server.base_url
        overtaken = threading.Event()

        def overtake(connection: socket.socket, request: Request, over: threading.Event) -> bool:
            if not overtaken.is_set():
                overtaken.set()
                newer.replace(OLD, where=MONDAY)
            return forward(base)(connection, request, over)

        with serving(by_verb(forward(base), batchwrite=overtake)) as server:
            older = local.again(
                things, through=server.base_url, now=lambda: 1_000_000_000.0, concurrency=1
            )
            with pytest.raises(OutcomeUnknown, match="a newer run of the same replace"):
                older.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) >= canonical([*OLD, *OTHER])
        newer.replace(OLD, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*OLD, *OTHER])

    def test_always_notices_a_delete_that_removes_nothing(self, local: Local) -> None:
        base = local.server.base_url
        with serving(by_verb(forward(base), batchdelete=answer(body=b"{}"))) as server:
            things = local.collection([*OLD, *OTHER], through=server.base_url, verify="always")
            with pytest.raises(OutcomeUnknown, match="may drop the body of a DELETE"):
                things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*OLD, *NEW, *OTHER])

    def test_more_than_is_held_at_a_time_goes_all_the_same(
        self, local: Local, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replacing, "MAX_HELD_KEYS", 3)
        things = local.collection(OTHER)
        things.replace([*NEW, *NEW], where=MONDAY)
        things.replace(NEW[:2], where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW[:2], *OTHER])


class TestRefusedRows:
    BAD = {"day": "mon", "n": {"$numberLong": "no"}}  # noqa: RUF012 - a constant

    def test_nothing_is_deleted_where_a_row_is_refused(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        with pytest.raises(RowsRejected, match="Nothing was deleted") as caught:
            things.replace([*NEW, self.BAD], where=MONDAY)
        assert [row for row, _ in caught.value.rows] == [25]
        assert canonical(local.documents(things)) == canonical([*OLD, *NEW, *OTHER])
        things.replace(NEW, where=MONDAY)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_they_are_left_out_where_that_is_asked_for(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        report = things.replace([*NEW, self.BAD], where=MONDAY, on_reject="skip")
        assert [row for row, _ in report.rejected] == [25]
        assert (report.rows, report.inserted) == (26, 25)
        assert canonical(local.documents(things)) == canonical([*NEW, *OTHER])

    def test_what_is_there_is_not_replaced_by_nothing(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        with pytest.raises(RowsRejected):
            things.replace([self.BAD], where=MONDAY, on_reject="skip")
        assert canonical(local.documents(things)) == canonical([*OLD, *OTHER])

    def test_documents_as_they_are_cannot_be_told_apart(self, local: Local) -> None:
        things = local.collection(OLD, idempotency="none")
        with pytest.raises(ConfigurationError, match=r"idempotency='field'\. Nothing was sent"):
            things.replace(NEW, where=MONDAY)
        assert local.server.log == []
