"""Rows of a load are there once when it is reported, whatever happens on the way."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    OutcomeUnknown,
    RequestRejected,
    RowsRejected,
)
from connectome_dagster.local.faults import Fault
from connectome_dagster.transfer import refusals
from connectome_dagster.transfer.load import stated_count
from tests.api.scripted import Step, answer, reset, serving
from tests.transfer.conftest import Local, Open
from tests.transfer.faults import applied_then, by_verb, forward
from tests.transfer.test_replace import in_turn
from tests.transfer.test_write import DONE, DOUBTS, FRAMES, ROWS, bare, canonical, sent

both_modes = pytest.mark.parametrize("idempotency", ["field", "id"])
every_doubt = pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS.keys())


def verbs(local: Local) -> Counter[str]:
    return Counter(entry.verb for entry in local.server.log)


class TestALoadThatIsWrittenAgain:
    @pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
    def test_every_kind_of_frame_is_there_once(self, local: Local, make: Callable[[], Any]) -> None:
        things = local.collection()
        first = things.append(make(), load="monday")
        second = things.append(make(), load="monday")
        assert canonical(local.documents(things)) == canonical(ROWS)
        assert (first.inserted, first.unchanged, second.inserted, second.unchanged) == (
            25,
            0,
            0,
            25,
        )
        assert first.load == second.load
        assert second.batches == 0

    def test_what_is_missing_alone_is_sent(self, local: Local) -> None:
        things = local.collection()
        things.append(ROWS[:13], load="monday")
        with serving(forward(local.server.base_url)) as server:
            report = local.again(things, through=server.base_url).append(ROWS, load="monday")
            there = [bare(row) for batch in sent(server) for row in batch]
        assert canonical(there) == canonical(ROWS[13:])
        assert (report.rows, report.inserted, report.unchanged) == (25, 12, 13)

    def test_another_load_writes_the_same_rows_again(self, local: Local) -> None:
        things = local.collection()
        things.append(ROWS, load="monday")
        things.append(ROWS, load="tuesday")
        things.append(ROWS)
        things.append(ROWS)
        assert canonical(local.documents(things)) == canonical(ROWS * 4)

    def test_identical_rows_are_as_many_as_they_were(self, local: Local) -> None:
        things = local.collection()
        rows = [{"n": 1}, {"n": 2}, {"n": 1}, {"n": 1}]
        things.append(rows[:2], load="monday")
        things.append(rows, load="monday")
        things.append(rows[::-1], load="monday")
        assert canonical(local.documents(things)) == canonical(rows)

    @pytest.mark.parametrize(
        "other",
        [
            lambda: pa.Table.from_pylist(ROWS).select(["price", "name", "sku"]),
            lambda: pd.DataFrame(ROWS)[["name", "price", "sku"]],
            lambda: [dict(reversed(row.items())) for row in ROWS],
            lambda: ROWS[::-1],
        ],
    )
    def test_the_order_of_columns_and_rows_makes_no_other_row(
        self, local: Local, other: Callable[[], Any]
    ) -> None:
        things = local.collection()
        things.append(ROWS, load="monday")
        assert things.append(other(), load="monday").inserted == 0
        assert canonical(local.documents(things)) == canonical(ROWS)

    @pytest.mark.parametrize("make", [list, pa.Table.from_pylist], ids=["documents", "table"])
    def test_key_columns_alone_make_a_row(self, local: Local, make: Callable[[Any], Any]) -> None:
        things = local.collection()
        things.append(make(ROWS), load="monday", key=["sku", "name"])
        changed = [{**row, "price": -1.0} for row in ROWS]
        report = things.append(make(changed), load="monday", key=["name", "sku"])
        assert (report.inserted, report.unchanged) == (0, 25)
        assert canonical(local.documents(things)) == canonical(ROWS)

    @pytest.mark.parametrize("make", [list, pa.Table.from_pylist], ids=["documents", "table"])
    @pytest.mark.parametrize("key", [["nope"], [], "sku", [5]])
    def test_a_key_that_is_not_there_is_told_before_anything_is_sent(
        self, open_collection: Open, make: Callable[[Any], Any], key: Any
    ) -> None:
        with serving(DONE) as server:
            with pytest.raises(ConfigurationError, match="key"):
                open_collection(server.base_url).append(make(ROWS), load="monday", key=key)
            assert server.requests == []

    def test_a_load_needs_a_read_credential_before_anything_is_sent(
        self, open_collection: Open
    ) -> None:
        with serving(DONE) as server:
            with pytest.raises(ConfigurationError, match="needs a read credential"):
                open_collection(server.base_url, read=None).append(ROWS, load="monday")
            assert server.requests == []

    def test_a_load_of_its_own_is_no_other_s_whoever_seeds_chance(self, local: Local) -> None:
        loads = set()
        for _ in range(2):
            random.seed(7)
            loads.add(local.collection().append(ROWS[:1]).load)
        things = local.collection()
        for _ in range(2):
            random.seed(7)
            loads.add(things.append(ROWS[:1]).load)
        assert len(loads) == 4

    def test_a_load_of_its_own_needs_none_and_looks_for_nothing(self, local: Local) -> None:
        things = local.collection(read=None)
        report = things.append(ROWS)
        assert report.guarantee == "at_least_once"
        assert verbs(local) == {"batchwrite": 3}

    @pytest.mark.parametrize(
        "switches",
        [{"page_cap": 3}, {"page_cap": 1}, {"response_path": "data"}, {"id_form": "oid"},
         {"id_form": "objectid"}, {"id_form": "absent"}, {"id_form": "absent", "page_cap": 3},
         {"client_id": "dropped"}, {"expr": False}],
    )  # fmt: skip
    def test_what_the_service_is_like_makes_no_difference(
        self, local: Local, switches: dict[str, Any]
    ) -> None:
        local.server.switches(**switches)
        things = local.collection()
        things.append(ROWS[:13], load="monday")
        assert things.append(ROWS, load="monday").unchanged == 13
        assert canonical(local.documents(things)) == canonical(ROWS)

    rows = st.lists(st.fixed_dictionaries({"a": st.integers(0, 3)}), max_size=12)

    @given(first=rows, second=rows, batch_rows=st.integers(1, 5))
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_two_runs_of_a_load_are_the_union_of_their_rows(
        self, local: Local, first: Any, second: Any, batch_rows: int
    ) -> None:
        things = local.collection(batch_rows=batch_rows)
        things.append(first, load="monday")
        things.append(second, load="monday")
        assert canonical(local.documents(things)) == canonical(first) | canonical(second)


class TestADoubt:
    @both_modes
    @every_doubt
    @pytest.mark.parametrize("applied", [True, False])
    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_what_landed_is_not_sent_again_and_what_did_not_is(
        self, local: Local, doubt: Step, applied: bool, at: int, idempotency: str
    ) -> None:
        base = local.server.base_url
        broken = applied_then(base, doubt) if applied else doubt
        writes = in_turn(*[forward(base)] * (at - 1), broken, forward(base))
        with serving(by_verb(forward(base), batchwrite=writes)) as server:
            things = local.collection(
                through=server.base_url, concurrency=1, read_timeout=0.3, idempotency=idempotency
            )
            report = things.append(ROWS)
            assert report.requests == len(server.requests)
        assert canonical(local.documents(things)) == canonical(ROWS)
        assert report.retries == (0 if applied else 1)
        assert report.guarantee == ("enforced" if idempotency == "id" else "verified")

    @both_modes
    @pytest.mark.parametrize(
        "fault",
        [{"kind": "partial", "documents": 4, "status": 500},
         {"kind": "partial", "documents": 4, "status": 400},
         {"kind": "applied_error", "status": 502},
         {"kind": "applied_reset"}, {"kind": "reset"}, {"kind": "page"},
         {"kind": "error", "status": 503, "retry_after": 0},
         {"kind": "error", "status": 429, "retry_after": 0}],
        ids=lambda fault: f"{fault['kind']}-{fault.get('status', 0)}",
    )  # fmt: skip
    @pytest.mark.parametrize("which", [{"nth": 1}, {"nth": 2}, {"nth": 3}, {"every": 2}, {}])
    def test_the_local_server_s_faults_lose_nothing_and_write_nothing_twice(
        self, local: Local, fault: dict[str, Any], which: dict[str, int], idempotency: str
    ) -> None:
        local.server.faults.add(Fault(**fault, **which, verb="batchwrite"))
        things = local.collection(idempotency=idempotency, max_attempts=3)
        reported = True
        try:
            things.append(ROWS, load="monday")
        except ConnectomeError:
            reported = False
        local.server.faults.clear()
        if reported:
            assert canonical(local.documents(things)) == canonical(ROWS)
        else:
            assert which == {}
        things.append(ROWS, load="monday")
        assert canonical(local.documents(things)) == canonical(ROWS)

    @pytest.mark.parametrize("kind", ["cut", "leaves_out", "ends_early"])
    @pytest.mark.parametrize("which", [{"nth": 1}, {"nth": 2}, {"nth": 3}])
    def test_a_read_back_that_does_not_tell_everything_is_not_believed(
        self, local: Local, kind: Any, which: dict[str, int]
    ) -> None:
        local.server.faults.add("applied_reset", verb="batchwrite", every=2)
        local.server.faults.add(kind, verb="readwithquery", **which)
        things = local.collection(concurrency=1)
        things.append(ROWS)
        assert canonical(local.documents(things)) == canonical(ROWS)

    def test_a_read_that_sees_it_late_is_waited_for(self, local: Local) -> None:
        local.server.switches(stale_seconds=0.2)
        local.server.faults.add("applied_reset", verb="batchwrite", nth=1)
        things = local.collection(settle_seconds=1.0)
        report = things.append(ROWS[:5])
        assert report.batches == 0
        assert canonical(local.documents(things)) == canonical(ROWS[:5])

    def test_what_the_service_asks_to_wait_is_waited_before_it_is_looked(
        self, local: Local
    ) -> None:
        waits: list[float] = []
        local.server.faults.add("error", verb="batchwrite", nth=1, status=503, retry_after=7)
        things = local.collection(sleep=waits.append, settle_seconds=0.0)
        things.append(ROWS[:5])
        assert waits == [7.0]
        assert canonical(local.documents(things)) == canonical(ROWS[:5])

    def test_a_wait_that_is_too_long_is_told(self, local: Local) -> None:
        local.server.faults.add("error", verb="batchwrite", status=503, retry_after=3600)
        with pytest.raises(OutcomeUnknown, match="asks to wait 3600 s"):
            local.collection().append(ROWS[:5])

    def test_a_doubt_that_stays_has_the_load_and_the_keys(self, local: Local) -> None:
        local.server.faults.add("reset", verb="batchwrite")
        things = local.collection(max_attempts=3, concurrency=1)
        with pytest.raises(
            OutcomeUnknown, match="10 rows were not found, and 3 attempts"
        ) as caught:
            things.append(ROWS, load="monday")
        assert "again with the same load sends only what is missing" in str(caught.value)
        assert len(caught.value.keys) == 10
        assert verbs(local)["batchwrite"] == 3
        local.server.faults.clear()
        report = things.append(ROWS, load="monday")
        assert caught.value.load == report.load

    @pytest.mark.parametrize(
        ("options", "match"),
        [({"verify": "never"}, "verify='never'"), ({"read": None}, "no read credential")],
    )
    def test_a_doubt_that_may_not_be_looked_into_is_raised_at_once(
        self, local: Local, options: dict[str, Any], match: str
    ) -> None:
        local.server.faults.add("applied_reset", verb="batchwrite")
        things = local.collection(concurrency=1, **options)
        with pytest.raises(OutcomeUnknown, match=match) as caught:
            things.append(ROWS)
        assert "rows 0 to 9 of what was handed in. 0 rows had been ack" in str(caught.value)
        assert verbs(local) == {"batchwrite": 1}

    @pytest.mark.parametrize("refusal", [answer(503), answer(401), reset, DOUBTS["page"]])
    def test_a_doubt_stays_a_doubt_when_it_cannot_be_looked_into(
        self, open_collection: Open, refusal: Step
    ) -> None:
        with serving(by_verb(refusal, batchwrite=reset)) as server:
            things = open_collection(server.base_url, max_attempts=2, concurrency=1)
            with pytest.raises(OutcomeUnknown, match="Reading back what of it is there failed"):
                things.append(ROWS)

    @pytest.mark.parametrize(
        ("body", "count"),
        [(b'{"inserted":3}', 3), (b'{"insertedCount":0}', 0), (b'{"insertedIds":["a","b"]}', 2),
         (b'{"insertedIds":{"0":"a"}}', 1), (b'{"n":7}', 7), (b'{"count":7}', 7), (b"", None),
         (b"[]", None), (b"null", None), (b'{"inserted":true}', None), (b'{"ok":1}', None),
         (b"\xff", None)],
    )  # fmt: skip
    def test_a_number_of_documents_is_found_in_an_answer(
        self, body: bytes, count: int | None
    ) -> None:
        assert stated_count(body) == count

    @both_modes
    @pytest.mark.parametrize("reports", [True, False])
    @pytest.mark.parametrize("batch", ["ordered", "unordered", "atomic"])
    def test_an_answer_that_tells_another_number_is_a_doubt(
        self, local: Local, batch: str, reports: bool, idempotency: str
    ) -> None:
        local.server.switches(batch=batch, batch_reports=reports)
        things = local.collection(idempotency=idempotency)
        rows = [*ROWS[:7], {"a": {"$oid": "no"}}, *ROWS[7:]]
        with pytest.raises((RowsRejected, OutcomeUnknown)) as caught:
            things.append(rows, load="monday")
        assert canonical(local.documents(things)) == canonical(ROWS)
        if reports:
            assert isinstance(caught.value, RowsRejected)


class TestRefusals:
    BAD = ({"n": 1, "b": {"$numberLong": "no"}}, {"a": {"$oid": "no"}})

    @both_modes
    @pytest.mark.parametrize("batch", ["atomic", "ordered", "unordered"])
    @pytest.mark.parametrize("bad", [[0], [9], [3, 4], [0, 10, 24], [24]])
    def test_refused_rows_are_told_and_all_others_are_there(
        self, local: Local, batch: str, bad: list[int], idempotency: str
    ) -> None:
        local.server.switches(batch=batch)
        things = local.collection(idempotency=idempotency)
        rows: list[dict[str, Any]] = [*ROWS]
        for at in bad:
            rows[at] = self.BAD[at % 2]
        with pytest.raises(RowsRejected) as caught:
            things.append(rows, load="monday")
        assert [row for row, _ in caught.value.rows] == bad
        assert all("status 400" in reason for _, reason in caught.value.rows)
        others = [row for at, row in enumerate(rows) if at not in bad]
        assert canonical(local.documents(things)) == canonical(others)
        report = things.append(rows, load="monday", on_reject="skip")
        assert [row for row, _ in report.rejected] == bad
        assert (report.rows, report.unchanged) == (25, 25 - len(bad))
        assert canonical(local.documents(things)) == canonical(others)

    def test_a_service_that_takes_less_at_once_is_sent_less(self, local: Local) -> None:
        local.server.switches(max_body_bytes=600)
        things = local.collection(concurrency=1)
        report = things.append(ROWS)
        assert canonical(local.documents(things)) == canonical(ROWS)
        assert report.batches > 3
        # It is learned from the first batch, in halves of ten, what is too large.
        assert [entry.status for entry in local.server.log].count(413) <= 3

    @both_modes
    def test_nor_is_it_asked_for_more_at_once(self, local: Local, idempotency: str) -> None:
        local.server.switches(max_body_bytes=320)
        things = local.collection(idempotency=idempotency)
        rows = [{"n": n} for n in range(25)]
        things.append(rows[:12], load="monday")
        assert things.append(rows, load="monday").unchanged == 12
        assert canonical(local.documents(things)) == canonical(rows)

    def test_a_document_that_is_too_large_by_itself_is_a_refused_row(self, local: Local) -> None:
        local.server.switches(max_body_bytes=600)
        things = local.collection()
        report = things.append([*ROWS, {"text": "x" * 700}], on_reject="skip")
        assert [(row, reason[:10]) for row, reason in report.rejected] == [(25, "status 413")]
        assert canonical(local.documents(things)) == canonical(ROWS)

    @pytest.mark.parametrize("status", [401, 403, 404, 405])
    def test_a_refusal_that_is_about_no_document_is_raised_at_once(
        self, open_collection: Open, status: int
    ) -> None:
        with serving(answer(status)) as server:
            with pytest.raises(RequestRejected, match="rows 0 to 9"):
                open_collection(server.base_url, concurrency=1).append(ROWS)
            assert len(server.requests) == 1

    def test_a_service_that_refuses_everything_is_not_asked_for_ever(
        self, local: Local, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refusals, "MAX_REJECTED", 3)
        local.server.faults.add("error", verb="batchwrite", status=400)
        things = local.collection(concurrency=1)
        with pytest.raises(RowsRejected, match="more than 3, so that the rest was not sent"):
            things.append(ROWS)
        assert verbs(local)["batchwrite"] < 25

    def test_a_refusal_that_cannot_be_looked_into_is_raised(self, local: Local) -> None:
        things = local.collection(read=None)
        with pytest.raises(RequestRejected, match="not looked for: there is no read cred"):
            things.append([{"a": {"$oid": "no"}}])


class TestModes:
    def test_none_writes_documents_as_they_are(self, local: Local) -> None:
        things = local.collection(idempotency="none")
        report = things.append(ROWS, load="monday")
        assert [set(each) for each in local.server.documents(things.id)] == [
            {"_id", "sku", "name", "price"}
        ] * 25
        assert (report.load, report.guarantee) == (None, "at_least_once")

    @pytest.mark.parametrize("fault", ["applied_reset", "reset"])
    def test_none_raises_a_doubt_at_once(self, local: Local, fault: Any) -> None:
        local.server.faults.add(fault, verb="batchwrite")
        with pytest.raises(OutcomeUnknown):
            local.collection(idempotency="none", concurrency=1).append(ROWS)
        assert verbs(local) == {"batchwrite": 1}

    def test_none_raises_a_refused_batch_and_says_what_is_not_known(self, local: Local) -> None:
        with pytest.raises(RequestRejected, match="Some of the batch may be there"):
            local.collection(idempotency="none").append([{"a": {"$oid": "no"}}])

    def test_id_gives_each_row_its_key_for_an_id(self, local: Local) -> None:
        things = local.collection(idempotency="id")
        things.append(ROWS, load="monday")
        documents = local.server.documents(things.id)
        assert [each["_id"] for each in documents] == [
            each["_dagster"]["key"] for each in documents
        ]

    @pytest.mark.parametrize("switches", [{"client_id": "dropped"}, {"id_form": "absent"}])
    def test_id_is_refused_where_the_service_does_not_keep_it(
        self, local: Local, switches: dict[str, Any]
    ) -> None:
        local.server.switches(**switches)
        things = local.collection(idempotency="id")
        if switches == {"id_form": "absent"}:
            things.append(ROWS)  # found by it, if not shown
            return
        with pytest.raises(ConfigurationError, match="set idempotency='field'"):
            things.append(ROWS)

    def test_id_takes_no_frame_with_ids_unless_they_are_the_key(self, local: Local) -> None:
        things = local.collection(idempotency="id")
        rows = [{"_id": f"id {row['sku']}", **row} for row in ROWS]
        with pytest.raises(ConfigurationError, match=r"key=\['_id'\]"):
            things.append(rows, load="monday")
        assert verbs(local) == {}
        for _ in range(2):
            things.append(rows, load="monday", key=["_id"])
        assert {each["_id"] for each in local.server.documents(things.id)} == {
            row["_id"] for row in rows
        }

    @pytest.mark.parametrize("modes", [("field", "id"), ("id", "field")])
    def test_a_load_may_go_on_in_another_mode(self, local: Local, modes: tuple[str, str]) -> None:
        things = local.collection(idempotency=modes[0])
        things.append(ROWS[:13], load="monday")
        report = local.again(things, idempotency=modes[1]).append(ROWS, load="monday")
        assert (report.inserted, report.unchanged) == (12, 13)
        assert canonical(local.documents(things)) == canonical(ROWS)

    def test_always_finds_what_was_acknowledged_and_is_not_there(self, local: Local) -> None:
        local.server.faults.add("partial", verb="batchwrite", nth=2, documents=4, status=200)
        things = local.collection(verify="always")
        report = things.append(ROWS)
        assert canonical(local.documents(things)) == canonical(ROWS)
        assert report.inserted == 25

    def test_always_does_not_report_what_is_never_there(self, open_collection: Open) -> None:
        with serving(by_verb(answer(body=b"[]"), batchwrite=DONE)) as server:
            things = open_collection(server.base_url, verify="always", max_attempts=2)
            with pytest.raises(OutcomeUnknown, match="acknowledged, and 10 of them are not found"):
                things.append(ROWS)

    def test_notes_may_have_another_name_which_readers_hide(self, local: Local) -> None:
        from connectome_dagster.transfer.marks import Marks

        things = local.collection(marks=Marks("origin"))
        things.append(ROWS, load="monday")
        assert things.append(ROWS, load="monday").unchanged == 25
        assert {*local.server.documents(things.id)[0]} == {"_id", "sku", "name", "price", "origin"}
        assert canonical(things.find(project={"_id": 0}).to_pylist()) == canonical(ROWS)
        with pytest.raises(ConnectomeError, match="'origin' is kept"):
            things.append([{"origin": 1}])

    @pytest.mark.parametrize(
        "options",
        [{"idempotency": "ids"}, {"verify": True}, {"settle_seconds": -1}, {"settle_seconds": "1"}],
    )
    def test_settings_that_cannot_be_meant_are_refused(
        self, local: Local, options: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            local.collection(**options)
