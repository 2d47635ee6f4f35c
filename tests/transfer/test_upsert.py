from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from connectome_dagster import Connectome
from connectome_dagster.errors import (
    AuthenticationError,
    CollectionNotFound,
    ConfigurationError,
    ConnectomeError,
    DuplicateKeys,
    EncodeError,
    OutcomeUnknown,
    RequestRejected,
    RowsRejected,
)
from connectome_dagster.frames.encoding import Encoding
from connectome_dagster.transfer import keys as keys_module
from connectome_dagster.transfer import refusals
from connectome_dagster.transfer.upsert import matched
from tests.api.scripted import Request, Step, answer, hang_up, reset, serving, stall
from tests.transfer.conftest import Local, Open
from tests.transfer.faults import applied_then, by_verb, forward, once, verb_of, when
from tests.transfer.test_write import (
    DONE,
    ROWS,
    TABLE,
    Frame,
    Gauge,
    canonical,
    every_doubt,
    every_frame,
)


@every_frame
def test_every_kind_of_frame_arrives_once_per_key(local: Local, make: Callable[[], Any]) -> None:
    things = local.collection([{"sku": 3, "name": "old", "kept": True}, {"sku": 99}])
    report = things.upsert(make(), on=["sku"])
    expected = [{**row, **({"kept": True} if row["sku"] == 3 else {})} for row in ROWS]
    assert canonical(local.documents(things)) == canonical([*expected, {"sku": 99}])
    assert (report.operation, report.rows, report.requests) == ("upsert", 25, 25)
    assert (report.inserted, report.updated) == (None, None)
    assert (report.guarantee, report.load, report.rejected) == ("verified", None, ())
    things.upsert(make(), on=["sku"])
    assert len(local.documents(things)) == 26


def test_several_columns_make_a_key(local: Local) -> None:
    rows = [{"day": d, "place": p, "n": 1} for d in ("mon", "tue") for p in ("a", "b")]
    things = local.collection()
    things.upsert(rows, on=["day", "place"])
    things.upsert([{**row, "n": 2} for row in rows[:2]], on=["day", "place"])
    expected = [{**row, "n": 2} for row in rows[:2]] + rows[2:]
    assert canonical(local.documents(things)) == canonical(expected)


def test_the_page_s_body_is_sent(open_collection: Open) -> None:
    with serving(DONE) as server:
        open_collection(server.base_url).upsert([{"sku": 1, "n": None}], on=["sku"])
        (request,) = server.requests
    assert request.method == "POST"
    assert json.loads(request.body) == {
        "search query": {"sku": 1},
        "data": {"sku": 1, "n": None},
        "upsert": True,
    }


def test_as_many_requests_as_allowed_are_in_flight_and_never_more(open_collection: Open) -> None:
    gauge = Gauge(4)
    with serving(gauge) as server:
        open_collection(server.base_url, concurrency=4).upsert(ROWS[:24], on=["sku"])
    assert gauge.most == 4


def patience(doubt: Step) -> float:
    """Little where it is to run out, and plenty elsewhere: machines can be busy."""
    return 1.0 if doubt is stall else 20.0


REFUSED: tuple[tuple[list[dict[str, Any]], type[ConnectomeError], str], ...] = (
    ([{"k": 1}, {"k": 2}, {"k": 1}], DuplicateKeys, "row 2"),
    ([{"k": 1}, {"k": None}], EncodeError, "row 1"),
    ([{"k": 1.5}, {"k": float("nan")}], EncodeError, "row 1"),
)


@pytest.mark.parametrize(("rows", "kind", "where"), REFUSED)
@pytest.mark.parametrize(
    "frame_of", [list, pa.Table.from_pylist, pd.DataFrame,
                 lambda rows: Frame(pa.Table.from_pylist(rows)),
                 lambda rows: [rows[0], pa.RecordBatch.from_pylist(rows[1:])]],
    ids=["list", "table", "pandas", "frame", "mixed"],
)  # fmt: skip
def test_a_key_that_names_no_document_is_refused_before_anything_is_sent(
    open_collection: Open,
    rows: list[dict[str, Any]],
    kind: type[ConnectomeError],
    where: str,
    frame_of: Callable[[Any], Any],
) -> None:
    with serving(DONE) as server:
        with pytest.raises(kind, match=where):
            open_collection(server.base_url).upsert(frame_of(rows), on=["k"])
        assert server.requests == []


@pytest.mark.parametrize(
    "second", [{"k": 1.0}, {"k": pd.Series([1], dtype="Int8")[0]},
               pa.RecordBatch.from_pylist([{"k": 1.0}]),
               pd.DataFrame({"k": [1]}, dtype="float32")],
)  # fmt: skip
def test_one_and_one_point_nought_are_one_key(open_collection: Open, second: Any) -> None:
    with serving(DONE) as server:
        with pytest.raises(DuplicateKeys):
            open_collection(server.base_url).upsert([{"k": 1}, second], on=["k"])
        assert server.requests == []


LATE: dict[str, tuple[Any, type[ConnectomeError]]] = {
    "duplicate": ({"sku": 3}, DuplicateKeys),
    "null": ({"sku": None}, EncodeError),
    "path": ({"sku": 99, "a.b": 1}, ConfigurationError),
    "no JSON": ({"sku": 99, "v": object()}, EncodeError),
}


@pytest.mark.parametrize(("row", "kind"), LATE.values(), ids=LATE.keys())
def test_a_stream_is_looked_at_whole_before_anything_is_sent(
    open_collection: Open, row: Any, kind: type[ConnectomeError]
) -> None:
    with serving(DONE) as server:
        frame = iter([*TABLE.to_batches(max_chunksize=7), row])
        with pytest.raises(kind) as caught:
            open_collection(server.base_url).upsert(frame, on=["sku"])
        assert server.requests == []
    assert "acknowledged" not in str(caught.value)


def test_a_stream_that_breaks_sends_nothing(open_collection: Open) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS
        raise LookupError("the source is gone")

    with serving(DONE) as server:
        with pytest.raises(LookupError):
            open_collection(server.base_url).upsert(rows(), on=["sku"])
        assert server.requests == []


@pytest.mark.parametrize("change", [lambda rows: rows.pop(), lambda rows: rows.append({"sku": 99})])
def test_a_frame_that_changes_while_it_is_written_is_not_called_written(
    local: Local, change: Callable[[list[dict[str, Any]]], Any]
) -> None:
    rows = [{"sku": n} for n in range(100)]
    base = local.server.base_url
    changed = threading.Lock()

    def is_first(_request: Request) -> bool:
        if changed.acquire(blocking=False):
            change(rows)
        return True

    with serving(when(is_first, forward(base), forward(base))) as server:
        things = local.collection(through=server.base_url, concurrency=1)
        with pytest.raises(ConfigurationError, match="has changed while it was written"):
            things.upsert(rows, on=["sku"])


def test_keys_that_are_the_same_by_chance_alone_are_two_keys(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_digest", lambda key: bytes(7) + bytes([len(key) % 2]))
    things = local.collection()
    things.upsert(ROWS, on=["sku"])
    things.upsert((row for row in ROWS), on=["sku"])
    assert canonical(local.documents(things)) == canonical(ROWS)
    with pytest.raises(DuplicateKeys, match=r"row 25: .* is that of row 4 as well"):
        things.upsert(iter([*ROWS, ROWS[4]]), on=["sku"])


@pytest.mark.parametrize(
    ("frame", "on"),
    [
        ([{"a": 1}], ["b"]),
        (pa.table({"a": [1]}), ["b"]),
        ([{"a": 1}], []),
        ([{"a": 1}], "a"),
        ([{"a": 1, "b.c": 2}], ["a"]),
        ([{"a": 1, "$set": 2}], ["a"]),
        (pa.table({"a": [1], "b.c": [1]}), ["a"]),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(
    open_collection: Open, frame: Any, on: Any
) -> None:
    with serving(DONE) as server:
        with pytest.raises(ConfigurationError):
            open_collection(server.base_url).upsert(frame, on=on)
        assert server.requests == []


@every_doubt
def test_what_landed_is_not_sent_again(local: Local, doubt: Step) -> None:
    base = local.server.base_url
    update = once(applied_then(base, doubt), forward(base))
    with serving(by_verb(forward(base), updatewithupsert=update)) as server:
        things = local.collection(
            through=server.base_url, concurrency=1, read_timeout=patience(doubt)
        )
        report = things.upsert(ROWS[:3], on=["sku"])
        assert Counter(map(verb_of, server.requests)) == {
            "updatewithupsert": 3,
            "readwithquery": 1,
        }
    assert canonical(local.documents(things)) == canonical(ROWS[:3])
    assert (report.rows, report.requests, report.retries) == (3, 4, 0)


@every_doubt
def test_what_did_not_land_is_sent_again(local: Local, doubt: Step) -> None:
    base = local.server.base_url
    with serving(by_verb(forward(base), updatewithupsert=once(doubt, forward(base)))) as server:
        things = local.collection(
            through=server.base_url, concurrency=1, read_timeout=patience(doubt), settle_seconds=0.0
        )
        report = things.upsert(ROWS[:3], on=["sku"])
        assert Counter(map(verb_of, server.requests)) == {
            "updatewithupsert": 4,
            "readwithquery": 1,
        }
    assert canonical(local.documents(things)) == canonical(ROWS[:3])
    assert (report.rows, report.requests, report.retries) == (3, 5, 1)


def test_what_is_absent_is_looked_for_as_long_as_reads_may_lag(local: Local) -> None:
    base = local.server.base_url
    waits: list[float] = []
    absent = answer(body=b"[]")
    # Landed, and four reads do not see it yet.
    reads = iter([absent, absent, absent])
    lagging = when(lambda _: True, lambda *given: next(reads, forward(base))(*given), absent)
    update = once(applied_then(base, reset), forward(base))
    with serving(by_verb(lagging, updatewithupsert=update)) as server:
        things = local.collection(
            through=server.base_url, concurrency=1, settle_seconds=10.0, sleep=waits.append
        )
        things.upsert(ROWS[:1], on=["sku"])
        assert Counter(map(verb_of, server.requests)) == {
            "updatewithupsert": 1,
            "readwithquery": 4,
        }
    assert waits == [1.0, 3.0, 6.0]


@pytest.mark.parametrize(
    ("old", "new"), [(1, True), ([0], [False]), ({"a": 1}, {"a": True}), ({}, {"a": None})]
)
def test_a_document_with_other_values_has_not_landed(local: Local, old: Any, new: Any) -> None:
    base = local.server.base_url
    with serving(by_verb(forward(base), updatewithupsert=once(reset, forward(base)))) as server:
        things = local.collection([{"sku": 1, "v": old}], through=server.base_url)
        things.upsert([{"sku": 1, "v": new}], on=["sku"])
    assert [repr(row["v"]) for row in local.documents(things)] == [repr(new)]


def test_a_doubt_that_stays_names_the_row_and_its_key(local: Local) -> None:
    base = local.server.base_url
    with serving(by_verb(forward(base), updatewithupsert=reset)) as server:
        things = local.collection(through=server.base_url, concurrency=1)
        with pytest.raises(OutcomeUnknown, match="This was row 0 of") as caught:
            things.upsert(ROWS, on=["sku", "name"])
    assert caught.value.keys == ((0, "thing 0"),)


@pytest.mark.parametrize("refusal", [answer(503, Retry_After=0), answer(401), answer(404), hang_up])
def test_a_doubt_stays_a_doubt_when_it_cannot_be_read_back(
    open_collection: Open, refusal: Step
) -> None:
    with serving(by_verb(refusal, updatewithupsert=reset)) as server:
        with pytest.raises(OutcomeUnknown, match="Reading the key back failed too") as caught:
            open_collection(server.base_url, max_attempts=2).upsert(ROWS[:1], on=["sku"])
    assert caught.value.keys == ((0,),)


def test_and_when_there_is_no_credential_to_read_with(open_collection: Open) -> None:
    with serving(reset) as server:
        with pytest.raises(OutcomeUnknown, match="no read credential to look with"):
            open_collection(server.base_url, read=None).upsert(ROWS[:1], on=["sku"])
        assert len(server.requests) == 1


def test_a_key_that_several_documents_have_is_told(local: Local) -> None:
    base = local.server.base_url
    with serving(by_verb(forward(base), updatewithupsert=reset)) as server:
        things = local.collection([{"sku": 1}, {"sku": 1}], through=server.base_url)
        with pytest.raises(DuplicateKeys, match="several documents have the key") as caught:
            things.upsert([{"sku": 1}], on=["sku"])
    assert caught.value.keys == ((1,),)


def test_reading_back_finds_the_documents_of_a_wrapped_response(open_collection: Open) -> None:
    found = answer(body=b'{"warnings":[],"data":[{"_id":"x","sku":1}]}')
    with serving(by_verb(found, updatewithupsert=reset)) as server:
        things = open_collection(server.base_url, response_path="data")
        assert things.upsert([{"sku": 1}], on=["sku"]).rows == 1


def test_the_reserved_field_is_refused(open_collection: Open) -> None:
    with serving(DONE) as server:
        with pytest.raises(EncodeError, match="_dagster"):
            open_collection(server.base_url).upsert([{"a": 1, "_dagster": 2}], on=["a"])
        assert server.requests == []


# --- doubts, and what is done about them


def test_a_wait_that_the_service_asks_for_comes_before_the_look(local: Local) -> None:
    base = local.server.base_url
    waits: list[float] = []
    update = once(answer(503, Retry_After=7), forward(base))
    with serving(by_verb(forward(base), updatewithupsert=update)) as server:
        things = local.collection(
            through=server.base_url, concurrency=1, settle_seconds=0.0, sleep=waits.append
        )
        things.upsert(ROWS[:1], on=["sku"])
    assert waits == [7.0]
    assert canonical(local.documents(things)) == canonical(ROWS[:1])


def test_nobody_waits_for_an_hour(open_collection: Open) -> None:
    with serving(answer(503, Retry_After=3600)) as server:
        with pytest.raises(OutcomeUnknown, match="asks to wait 3600 s"):
            open_collection(server.base_url).upsert(ROWS[:1], on=["sku"])
        assert len(server.requests) == 1


def test_verify_never_looks_at_nothing(local: Local) -> None:
    things = local.collection(verify="never")
    assert things.upsert(ROWS, on=["sku"]).guarantee == "at_least_once"
    with serving(reset) as server:
        things = local.again(things, through=server.base_url, verify="never")
        with pytest.raises(OutcomeUnknown, match="verify='never'"):
            things.upsert(ROWS[:1], on=["sku"])
        assert len(server.requests) == 1


def test_verify_always_sends_again_what_was_acknowledged_and_is_not_there(local: Local) -> None:
    base = local.server.base_url
    with serving(by_verb(forward(base), updatewithupsert=once(DONE, forward(base)))) as server:
        things = local.collection(through=server.base_url, concurrency=1, verify="always")
        report = things.upsert(ROWS[:3], on=["sku"])
    assert canonical(local.documents(things)) == canonical(ROWS[:3])
    assert (report.rows, report.retries, report.guarantee) == (3, 1, "verified")


def test_verify_always_takes_a_null_that_the_service_leaves_out(open_collection: Open) -> None:
    found = answer(body=b'[{"_id":"x","sku":1}]')
    with serving(by_verb(found, updatewithupsert=DONE)) as server:
        things = open_collection(server.base_url, verify="always")
        assert things.upsert([{"sku": 1, "v": None}], on=["sku"]).rows == 1
        assert Counter(map(verb_of, server.requests))["updatewithupsert"] == 1


def test_verify_always_needs_a_read_credential_before_anything_is_sent(
    open_collection: Open,
) -> None:
    with serving(DONE) as server:
        with pytest.raises(ConfigurationError, match="read credential"):
            open_collection(server.base_url, read=None, verify="always").upsert(ROWS, on=["sku"])
        assert server.requests == []


KINDS: dict[str, dict[str, Any]] = {
    "reset": {},
    "error": {"status": 503, "retry_after": 0.0},
    "page": {},
    "applied_reset": {},
    "applied_error": {"status": 500},
    "twice": {},
    "later": {"status": 0, "seconds": 0.05},
    "delay": {"seconds": 0.01},
}


@pytest.mark.parametrize("nth", [1, 4, 7], ids=["first", "middle", "last"])
@pytest.mark.parametrize(("kind", "more"), KINDS.items(), ids=KINDS.keys())
def test_whatever_goes_wrong_once_there_is_one_document_for_each_key(
    local: Local, kind: str, more: dict[str, Any], nth: int
) -> None:
    rows = ROWS[:7]
    things = local.collection([{"sku": 2, "name": "old"}, {"sku": 6, "name": "old"}])
    local.server.faults.add(kind, verb="updatewithupsert", nth=nth, **more)
    report = things.upsert(rows, on=["sku"])
    local.server.quiesce()
    assert canonical(local.documents(things)) == canonical(rows)
    assert (report.rows, report.guarantee) == (7, "verified")


@pytest.mark.parametrize("kind", ["cut", "ends_early", "leaves_out"])
def test_a_look_that_goes_wrong_as_well_loses_and_repeats_nothing(local: Local, kind: str) -> None:
    things = local.collection(concurrency=1)
    local.server.faults.add("applied_reset", verb="updatewithupsert", nth=2)
    local.server.faults.add(kind, verb="readwithquery", nth=1)
    things.upsert(ROWS[:4], on=["sku"])
    assert canonical(local.documents(things)) == canonical(ROWS[:4])


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_many_rows_arrive_through_many_faults(local: Local, share: float) -> None:
    rows = [{"k": n, "v": [n, {"n": None}]} for n in range(150)]
    things = local.collection(concurrency=6, max_attempts=8, settle_seconds=0.0)
    for kind in ("reset", "applied_reset", "applied_error"):
        local.server.faults.add(kind, verb="updatewithupsert", share=share / 3, seed=7)
    report = things.upsert(iter(rows), on=["k"])
    assert canonical(local.documents(things)) == canonical(rows)
    assert report.rows == 150
    assert report.requests > 150


def test_running_it_again_after_it_failed_ends_well(local: Local) -> None:
    things = local.collection(concurrency=3, max_attempts=2)
    local.server.faults.add("applied_reset", verb="updatewithupsert", every=3)
    local.server.faults.add("error", verb="readwithquery", every=1)
    with pytest.raises(OutcomeUnknown) as caught:
        things.upsert(ROWS, on=["sku"])
    assert caught.value.keys
    local.server.faults.clear()
    things.upsert(ROWS, on=["sku"])
    assert canonical(local.documents(things)) == canonical(ROWS)


@pytest.mark.parametrize("told", ["seconds", "none"])
def test_a_limit_of_requests_is_kept_to_by_all_who_send(local: Local, told: str) -> None:
    things = local.collection()
    server = local.server
    server.switches(rate_limit=40, rate_seconds=0.5, retry_after=told)
    with Connectome(
        base_url=server.base_url,
        read_credential=server.read_credential,
        write_credential=server.write_credential,
        concurrency=16,
    ) as connectome:
        report = connectome.collection(things.id).upsert(({"k": k} for k in range(100)), on=["k"])
    refused = [entry for entry in server.log if entry.status == 429]
    assert sorted(row["k"] for row in local.documents(things)) == list(range(100))
    assert report.requests == 100 + len(refused)
    assert len(refused) < 50  # in all of the waits, each of 16 could be refused some times


# --- rows that the service refuses


def refusing(base: str, status: int, *skus: int) -> Step:
    def is_refused(request: Request) -> bool:
        return (
            verb_of(request) == "updatewithupsert"
            and json.loads(request.body)["data"]["sku"] in skus
        )

    return when(is_refused, answer(status, b"document is odd"), forward(base))


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_refused_rows_are_told_with_their_reasons_and_all_others_are_written(
    local: Local, status: int
) -> None:
    base = local.server.base_url
    with serving(refusing(base, status, 3, 20)) as server:
        things = local.collection(through=server.base_url)
        with pytest.raises(RowsRejected, match="on_reject='skip'") as caught:
            things.upsert(ROWS, on=["sku"])
        told = f"status {status}: document is odd"
        assert caught.value.rows == ((3, told), (20, told))
        report = things.upsert(ROWS, on=["sku"], on_reject="skip")
    assert report.rejected == caught.value.rows
    assert report.rows == 25
    expected = [row for row in ROWS if row["sku"] not in (3, 20)]
    assert canonical(local.documents(things)) == canonical(expected)


def test_a_conflict_with_another_writer_is_tried_again(local: Local) -> None:
    base = local.server.base_url
    conflict = once(answer(409, b"duplicate key"), forward(base))
    with serving(by_verb(forward(base), updatewithupsert=conflict)) as server:
        things = local.collection(through=server.base_url, concurrency=1)
        report = things.upsert(ROWS[:2], on=["sku"])
    assert (report.rows, report.retries, report.rejected) == (2, 1, ())
    assert canonical(local.documents(things)) == canonical(ROWS[:2])


def test_a_service_that_refuses_everything_is_not_asked_for_ever(
    open_collection: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_REJECTED", 5)
    with serving(answer(422)) as server:
        with pytest.raises(RowsRejected, match="more than 5") as caught:
            open_collection(server.base_url, concurrency=1).upsert(ROWS, on=["sku"])
        assert len(server.requests) == 6
    assert len(caught.value.rows) == 6


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (404, CollectionNotFound), (405, RequestRejected)],
)
def test_a_refusal_that_is_not_about_the_row_ends_it(
    open_collection: Open, status: int, kind: type[RequestRejected]
) -> None:
    with serving(answer(status)) as server:
        with pytest.raises(kind):
            open_collection(server.base_url, concurrency=1).upsert(ROWS, on=["sku"])
        assert len(server.requests) == 1


def test_another_word_for_on_reject_is_refused(local: Local) -> None:
    with pytest.raises(ConfigurationError, match="on_reject"):
        local.collection().upsert(ROWS, on=["sku"], on_reject="ignore")  # type: ignore[arg-type]


# --- forms of values, and what goes along


def test_a_key_has_the_form_of_the_document_s_values(local: Local) -> None:
    things = local.collection()
    frame = pa.table({"day": pa.array([0, 86_400_000], pa.timestamp("ms", "UTC")), "n": [1, 2]})
    encoding = Encoding(timestamps="ejson")
    things.upsert(frame, on=["day"], encoding=encoding)
    things.upsert(frame.set_column(1, "n", [[3, 4]]), on=["day"], encoding=encoding)
    assert sorted(row["n"] for row in local.documents(things)) == [3, 4]


def test_every_request_has_a_key_of_its_own_and_of_this_run(open_collection: Open) -> None:
    with serving(reset, answer(body=b"[]"), DONE) as server:
        things = open_collection(server.base_url, concurrency=1, settle_seconds=0.0)
        things.upsert(ROWS[:3], on=["sku"])
        things.upsert(ROWS[:3], on=["sku"])
        keys = [
            each.headers["idempotency-key"]
            for each in server.requests
            if verb_of(each) == "updatewithupsert"
        ]
    assert len(set(keys)) == len(keys) == 7
    assert len({key.split("-")[0] for key in keys}) == 2


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 0),
        (b"matched", 0),
        (b'["matched"]', 0),
        (b'{"matched":true}', 0),
        (b'{"matched":"3"}', 0),
        (b'{"ok":1}', 0),
        (b'{"nMatched":3,"ok":1}', 3),
        (b'{"matchedCount":1}', 1),
    ],
)
def test_what_an_answer_says_of_the_documents_it_found(body: bytes, count: int) -> None:
    assert matched(body) == count


# --- two writers of one key


@pytest.mark.parametrize("how", ["answer", "look"])
def test_two_documents_of_one_key_are_told_by_the_next_upsert(local: Local, how: str) -> None:
    local.server.switches(update_many=how == "answer")
    things = local.collection(
        [{"sku": 1, "n": 1}, {"sku": 1, "n": 2}],
        verify="unknown" if how == "answer" else "always",
    )
    with pytest.raises(DuplicateKeys, match="two writers created it") as caught:
        things.upsert([{"sku": 1, "n": 3}], on=["sku"])
    assert caught.value.keys == ((1,),)


WRITER = """
import sys
from connectome_dagster import Connectome
base_url, read, write, id, name = sys.argv[1:]
rows = [{"k": k, "writer": name, "also": name} for k in range(60)]
with Connectome(base_url=base_url, read_credential=read, write_credential=write) as connectome:
    things = connectome.collection(id)
    print("ready", flush=True)
    sys.stdin.readline()
    things.upsert(rows, on=["k"])
"""


def test_two_processes_that_upsert_the_same_keys_leave_one_whole_row_of_either(
    local: Local,
) -> None:
    things = local.collection()
    server = local.server
    given = (server.base_url, server.read_credential, server.write_credential, things.id)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *given, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        ends = [threading.Thread(target=writer.communicate, args=(b"go\n",)) for writer in writers]
        for end in ends:
            end.start()
        for end in ends:
            end.join(60)
        assert [writer.returncode for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    documents = local.documents(things)
    assert sorted(row["k"] for row in documents) == list(range(60))
    assert all(row["writer"] == row["also"] in ("one", "other") for row in documents)
