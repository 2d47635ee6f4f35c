"""The faults: which requests they strike, what is applied then, and what arrives."""

from __future__ import annotations

import contextlib
import doctest
import http.client
import importlib
import json
import re
import socket
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.local.faults import KINDS, READS, WRITES, Fault, FaultPlan
from connectome_dagster.local.server import LocalServer
from connectome_dagster.local.switches import Switches
from tests.local.calling import METHODS, Calls

PAGE = Path(__file__).parents[2] / "docs" / "local-server.md"
BATCH = [{"_id": name} for name in "abc"]


# --- the plan


def struck(fault: Fault, requests_: int) -> list[int]:
    plan = FaultPlan([fault])
    return [n for n in range(1, requests_ + 1) if plan.strike("read", "c") is not None]


def test_a_fault_strikes_the_nth_every_nth_or_every_request() -> None:
    assert struck(Fault("reset", nth=3), 9) == [3]
    assert struck(Fault("reset", every=3), 9) == [3, 6, 9]
    assert struck(Fault("reset"), 3) == [1, 2, 3]


@given(share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_share_is_the_same_for_the_same_seed_and_about_as_large_as_asked(
    share: float, seed: int
) -> None:
    first, second = (struck(Fault("reset", share=share, seed=seed), 400) for _ in range(2))

    assert first == second
    assert abs(len(first) / 400 - share) < 0.15


def test_faults_count_what_concerns_them_and_the_first_that_selects_strikes() -> None:
    plan = FaultPlan(
        [
            Fault("error", verb="batchwrite", every=2),
            Fault("reset", collection="a", nth=2),
            Fault("cut"),
        ]
    )
    arriving = [("batchwrite", "a"), ("read", "b"), ("batchwrite", "a"), ("read", "a")]

    kinds = [fault and fault.kind for fault in (plan.strike(*one) for one in arriving)]

    assert kinds == [None, "cut", "error", "cut"]
    assert plan.counts() == [2, 3, 2]
    assert plan.strikes() == [1, 0, 2]


def test_two_that_select_one_request_do_not_both_strike_it() -> None:
    plan = FaultPlan([Fault("error", nth=1), Fault("reset", nth=1)])

    assert [fault and fault.kind for fault in (plan.strike("read", "c"),)] == ["error"]
    assert plan.strike("read", "c") is None
    assert plan.strikes() == [1, 0]


def test_a_kind_counts_only_verbs_for_which_it_means_something() -> None:
    for kind in KINDS:
        concerned = {verb for verb in (*READS, *WRITES) if Fault(kind).concerns(verb, "c")}
        if kind in ("cut", "ends_early", "leaves_out", "stale"):
            assert concerned == set(READS)
        elif kind in ("applied_reset", "applied_error", "twice", "later"):
            assert concerned == set(WRITES)
        elif kind == "partial":
            assert concerned == {"batchwrite", "batchdelete"}
        else:
            assert concerned == (set() if kind == "refuse" else {*READS, *WRITES})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "explode"}, "there is no fault 'explode': there are refuse, reset"),
        ({"verb": "read"}, '"kind"'),
        ([], '"kind"'),
        ({"kind": "reset", "when": 1}, "has no 'when'"),
        ({"kind": "cut", "verb": "batchwrite"}, "none of read, readwithquery"),
        ({"kind": "reset", "verb": "insert"}, "'insert' is none of"),
        ({"kind": "refuse", "verb": "read"}, "connections"),
        ({"kind": "reset", "nth": 1, "every": 2}, "only one of nth, every and share"),
        ({"kind": "reset", "nth": 0}, "nth must be at least 1"),
        ({"kind": "reset", "nth": True}, "nth must be int or null"),
        ({"kind": "reset", "share": 1.5}, "at most 1"),
        ({"kind": "error", "status": 200}, "no error's"),
        ({"kind": "error", "status": 0}, "no error's"),
        ({"kind": "later", "seconds": -1}, "seconds must be at least 0"),
        ({"kind": "later", "seconds": float("nan")}, "seconds must be at least 0"),
        ({"kind": "drip", "bytes_per_second": 0}, "at least 1"),
    ],
)
def test_a_wrong_fault_is_one_line_that_says_why(fault: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        Fault.from_json(fault)

    assert "\n" not in str(caught.value)


def test_a_fault_survives_json() -> None:
    fault = Fault("error", verb="write", every=2, status=429, retry_after=1.5)

    assert Fault.from_json(json.loads(json.dumps(fault.to_json()))) == fault


def test_every_kind_is_documented() -> None:
    documented = PAGE.read_text().partition("## Faults")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)`", documented, re.MULTILINE) == list(KINDS)


# --- nothing is applied


class Raw:
    """One connection at a time, and what comes over it, without a library's second attempts."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def __call__(self, verb: str, body: Any = None) -> http.client.HTTPResponse:
        url = urlsplit(self.calls.url(verb))
        connection = http.client.HTTPConnection(url.netloc, timeout=10)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(METHODS[verb], url.path, text)
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        return response


@pytest.fixture
def raw(calls: Calls) -> Raw:
    return Raw(calls)


BODIES: dict[str, Any] = {
    "read": None,
    "readwithquery": {},
    "write": {"_id": "x"},
    "batchwrite": BATCH,
    "update": {"search query": {"_id": "there"}, "data": {"n": 2}},
    "updatewithupsert": {"search query": {"_id": "y"}, "data": {"n": 2}, "upsert": True},
    "delete": {"_id": "there"},
    "batchdelete": {},
}


@pytest.mark.parametrize("verb", METHODS)
def test_reset_applies_nothing_and_resets(calls: Calls, raw: Raw, verb: str) -> None:
    calls.server.seed("things", [{"_id": "there"}])
    calls.server.faults.add("reset", nth=1)

    with pytest.raises(ConnectionResetError):
        raw(verb, BODIES[verb])

    calls.server.quiesce()
    (entry,) = calls.server.log.entries()
    assert (entry.verb, entry.fault, entry.status, entry.applied) == (verb, "reset", None, ())
    assert calls.server.documents("things") == [{"_id": "there"}]
    assert raw(verb, BODIES[verb]).status == 200


@pytest.mark.parametrize("verb", METHODS)
def test_applied_reset_applies_and_resets(calls: Calls, raw: Raw, verb: str) -> None:
    calls.server.seed("things", [{"_id": "there"}])
    if verb in READS:
        with pytest.raises(ValueError, match="none of"):
            calls.server.faults.add("applied_reset", verb=verb)
        return
    calls.server.faults.add("applied_reset", verb=verb, nth=1)

    with pytest.raises(ConnectionResetError):
        raw(verb, BODIES[verb])

    calls.server.quiesce()
    (entry,) = calls.server.log.entries()
    assert (entry.verb, entry.fault, entry.status) == (verb, "applied_reset", None)
    assert len(entry.applied) == 1
    assert calls.server.documents("things") != [{"_id": "there"}]


def test_refuse_resets_connections_before_they_are_read(calls: Calls) -> None:
    calls.server.faults.add("refuse", every=2)
    address = urlsplit(calls.server.base_url)

    def ask() -> str:
        try:
            with socket.create_connection((address.hostname, address.port), timeout=10) as one:
                one.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return one.recv(12).decode()
        except ConnectionError:
            return "refused"

    outcomes = [ask() for _ in range(4)]

    assert outcomes == ["HTTP/1.1 404", "refused"] * 2
    assert calls.server.log.entries() == []


def test_a_server_that_refuses_is_there_again_afterwards(calls: Calls) -> None:
    address = urlsplit(calls.server.base_url)
    assert calls("read").status_code == 200
    for _ in range(2):
        with calls.server.refusing():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address.hostname, address.port), timeout=10)
            assert calls("write", {}).status_code == 200  # over the connection that is open

        assert requests.get(calls.url("read"), timeout=10).status_code == 200


def test_a_server_that_refuses_can_be_stopped() -> None:
    with LocalServer(["things"]) as server:
        with server.refusing():
            server.stop()

    assert not server.running


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("form", ["seconds", "date", None])
def test_error_applies_nothing_and_says_when_to_come_back(
    calls: Calls, status: int, form: str | None
) -> None:
    calls.server.faults.add(
        "error",
        verb="batchwrite",
        nth=1,
        status=status,
        retry_after=None if form is None else 2,
        retry_after_date=form == "date",
    )

    before = time.time()
    answer = calls("batchwrite", BATCH)

    assert answer.status_code == status
    assert "error" in answer.json()["error"]
    told = answer.headers.get("Retry-After")
    if form == "date":
        assert told is not None
        assert 0 < parsedate_to_datetime(told).timestamp() - before < 60
    else:
        assert told == (None if form is None else "2")
    assert calls.ids() == []
    assert calls("batchwrite", BATCH).status_code == 200


@pytest.mark.parametrize("verb", ["read", "batchwrite"])
def test_page_is_html_with_200_and_applies_nothing(calls: Calls, verb: str) -> None:
    calls.server.faults.add("page", nth=1)

    answer = calls(verb, BODIES[verb])

    assert answer.status_code == 200
    assert "text/html" in answer.headers["Content-Type"]
    assert calls.ids() == []


# --- it is applied, but not as the answer says


@pytest.mark.parametrize("status", [500, 502, 504])
def test_applied_error_applies_all_and_answers_an_error(calls: Calls, status: int) -> None:
    calls.server.faults.add("applied_error", nth=1, status=status)

    assert calls("batchwrite", BATCH).status_code == status

    assert calls.ids() == ["a", "b", "c"]
    assert calls.server.log.entries()[0].inserted == ("a", "b", "c")


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("count", [0, 2, 3, 9])
def test_partial_applies_the_first_of_a_batch(calls: Calls, status: int, count: int) -> None:
    calls.server.faults.add("partial", nth=1, documents=count, status=status)

    answer = calls("batchwrite", BATCH)

    assert answer.status_code == status
    if status == 200:
        assert answer.json() == {"inserted": 3}
    assert calls.ids() == ["a", "b", "c"][:count]
    assert calls.server.log.entries()[0].inserted == tuple("abc"[:count])


def test_partial_deletes_the_first_of_what_matches(calls: Calls) -> None:
    calls.server.seed("things", BATCH)
    calls.server.faults.add("partial", verb="batchdelete", documents=2)

    assert calls("batchdelete", {}).status_code == 500

    assert calls.ids() == ["c"]


def test_twice_inserts_twice_where_ids_are_the_servers(calls: Calls) -> None:
    calls.server.faults.add("twice")

    assert calls("batchwrite", [{"n": 1}, {"n": 2}]).json() == {"inserted": 2}

    assert calls.values("n") == [1, 2, 1, 2]
    (entry,) = calls.server.log.entries()
    assert [len(applied.inserted) for applied in entry.applied] == [2, 2]


def test_twice_inserts_once_where_a_clients_id_is_unique(calls: Calls) -> None:
    calls.server.faults.add("twice")

    assert calls("batchwrite", BATCH).json() == {"inserted": 3}

    assert calls.ids() == ["a", "b", "c"]


@pytest.mark.parametrize("status", [500, 0])
def test_later_applies_after_the_answer(calls: Calls, raw: Raw, status: int) -> None:
    calls.server.faults.add("later", verb="batchwrite", nth=1, seconds=0.3, status=status)

    began = time.monotonic()
    if status:
        assert raw("batchwrite", BATCH).status == 500
    else:
        with pytest.raises(ConnectionResetError):
            raw("batchwrite", BATCH)
    calls("write", {"_id": "in between"})

    assert time.monotonic() - began > 0.3 or calls.ids() == ["in between"]
    calls.server.quiesce()
    assert time.monotonic() - began >= 0.3
    assert sorted(calls.ids()) == ["a", "b", "c", "in between"]
    changes = calls.server.log.changes()
    assert [entry.verb for entry, _ in changes] == ["write", "batchwrite"]
    assert changes[0][0].sequence > changes[1][0].sequence


def test_later_and_refused_then_changes_nothing_and_disturbs_nobody(calls: Calls) -> None:
    calls.server.faults.add("later", nth=1, seconds=0.05)
    calls("write", {"_id": "a"})
    calls("write", {"_id": "a", "first": True})

    calls.server.quiesce()

    assert calls.server.documents("things") == [{"_id": "a", "first": True}]


def test_a_collection_that_is_gone_by_then_is_left_alone(calls: Calls) -> None:
    calls.server.faults.add("later", nth=1, seconds=0.05)
    calls("write", {"_id": "a"})
    calls.server.drop_collection("things")

    calls.server.quiesce()

    calls.server.add_collection("things")
    assert calls.ids() == []


def test_quiesce_says_when_it_takes_too_long(calls: Calls) -> None:
    calls.server.faults.add("later", nth=1, seconds=0.5)
    calls("write", {"_id": "a"})

    with pytest.raises(TimeoutError, match="still at work"):
        calls.server.quiesce(0.05)


@pytest.mark.parametrize("kind", ["later", "delay"])
def test_a_server_that_stops_waits_for_no_fault(kind: Any, tmp_path: Path) -> None:
    with LocalServer(["things"], data=tmp_path) as server, requests.Session() as session:
        server.faults.add(kind, nth=1, seconds=500.0)
        writing = threading.Thread(target=Calls(server, session), args=("write", {"_id": "a"}))
        writing.start()
        deadline = time.monotonic() + 10
        while not server.faults.strikes()[0]:
            assert time.monotonic() < deadline
        if kind == "later":
            writing.join()
        began = time.monotonic()
        server.stop()
        took = time.monotonic() - began
        writing.join()
    with LocalServer(["things"], data=tmp_path) as server:
        kept = server.documents("things")

    assert took < 4
    assert kept == ([] if kind == "later" else [{"_id": "a"}])


# --- the response is not what it should be


@pytest.fixture(params=["small", "large"])
def documents(request: pytest.FixtureRequest, calls: Calls) -> list[dict[str, Any]]:
    """A response in one piece with its length, and one in many pieces."""
    count = 5 if request.param == "small" else 20_000
    documents = [{"_id": n, "text": "x }," * 10} for n in range(count)]
    calls.server.seed("things", documents)
    return documents


def received(calls: Calls, verb: str = "read") -> tuple[bytes, bool]:
    """What arrives of a response, and whether it ends as HTTP has it."""
    url = urlsplit(calls.url(verb))
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request(METHODS[verb], url.path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read(), True
    except http.client.IncompleteRead as error:
        return error.partial, False
    finally:
        connection.close()


@pytest.mark.usefixtures("documents")
@pytest.mark.parametrize("kind", ["cut", "ends_early"])
@pytest.mark.parametrize("at", [None, 0, 1, 40])
@pytest.mark.parametrize("switches", [Switches(), Switches(response_path="data")])
def test_a_response_that_is_not_whole_ends_within_a_document(
    calls: Calls, kind: Any, at: int | None, switches: Switches
) -> None:
    calls.server.switches = switches
    whole = calls("read").content
    calls.server.faults.add(kind, verb="read", nth=1, bytes=at)

    text, well_ended = received(calls)

    assert well_ended == (kind == "ends_early")
    assert whole.startswith(text)
    assert len(text) < len(whole)
    if at is not None:
        assert len(text) == at
    else:
        # One level of array and one of document are open, and the wrapper's.
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(text)
        json.loads(text + b"null}]" + (b"}" if switches.response_path else b""))
    assert calls("read").content == whole


def test_a_cut_beyond_the_first_piece_is_where_it_was_asked_for(calls: Calls) -> None:
    calls.server.seed("things", [{"_id": n, "text": "x" * 100} for n in range(20_000)])
    whole = calls("read").content
    calls.server.faults.replace(
        [Fault("cut", nth=1, bytes=1_000_000), Fault("ends_early", nth=2, bytes=1_000_001)]
    )

    assert received(calls) == (whole[:1_000_000], False)
    assert received(calls) == (whole[:1_000_001], True)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_leaves_out_is_a_whole_array_of_the_first_documents(
    calls: Calls, documents: list[Any], count: int
) -> None:
    calls.server.faults.add("leaves_out", nth=1, documents=count)

    assert calls("readwithquery", {"sort": {"_id": -1}}).json() == documents[::-1][:count]
    assert calls("read").json() == documents


def test_drip_is_slow_and_whole_and_stops_nobody_else(calls: Calls) -> None:
    calls.server.seed("things", [{"_id": n} for n in range(60)])
    whole = calls("read").content
    calls.server.faults.add("drip", verb="read", bytes_per_second=1500)
    took: list[float] = []

    def read() -> None:
        began = time.monotonic()
        assert received(calls) == (whole, True)
        took.append(time.monotonic() - began)

    reading = threading.Thread(target=read)
    reading.start()
    others = 0
    with requests.Session() as session:
        other = Calls(calls.server, session)
        while reading.is_alive():
            assert other("readwithquery", {"limit": 1}).status_code == 200
            others += 1
    reading.join()

    assert took[0] > 0.5 * len(whole) / 1500
    assert others > 3


def test_delay_applies_first_and_answers_late(calls: Calls) -> None:
    calls.server.faults.add("delay", verb="batchwrite", nth=1, seconds=0.3)
    answers: list[requests.Response] = []
    began = time.monotonic()
    writing = threading.Thread(target=lambda: answers.append(calls("batchwrite", BATCH)))
    writing.start()
    while not calls.ids():
        assert time.monotonic() < began + 10
    (entry,) = calls.server.log.entries()
    answered_early = entry.status is not None and time.monotonic() - began < 0.3
    writing.join()

    assert answers[0].json() == {"inserted": 3}
    assert time.monotonic() - began >= 0.3
    assert not answered_early


def test_a_client_that_times_out_may_have_been_applied(calls: Calls) -> None:
    calls.server.faults.add("delay", nth=1, seconds=0.5)

    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(calls.url("batchwrite"), json=BATCH, timeout=0.2)

    calls.server.quiesce()
    assert calls.ids() == ["a", "b", "c"]


def test_stale_shows_one_read_the_past(calls: Calls) -> None:
    calls.server.seed("things", [{"_id": "old"}])
    calls.server.faults.add("stale", verb="readwithquery", nth=1, seconds=60.0)
    calls("batchwrite", BATCH)
    calls("delete", {"_id": "old"})

    assert calls("readwithquery", {}).json() == [{"_id": "old"}]
    assert calls("readwithquery", {}).json() == BATCH


# --- where they hold, and what stays


def test_a_request_that_is_refused_anyway_is_not_counted(calls: Calls) -> None:
    calls.server.faults.add("error", nth=1, status=503)
    wrong = calls.url("read").replace(calls.server.read_credential, "nobody")

    assert requests.get(wrong, timeout=10).status_code == 401
    assert calls("read", method="PUT").status_code == 405
    assert calls("read").status_code == 503


def test_a_fault_may_strike_one_collection_alone(calls: Calls) -> None:
    calls.server.add_collection("others")
    calls.server.faults.add("error", collection="others")
    others = Calls(calls.server, calls.session, "others")

    assert [calls("read").status_code, others("read").status_code] == [200, 500]
    calls.server.drop_collection("others")


def test_each_request_is_struck_once_however_many_come_at_a_time(calls: Calls) -> None:
    calls.server.faults.add("applied_error", verb="write", every=3)
    statuses: list[int] = []

    def write() -> None:
        with requests.Session() as session:
            mine = Calls(calls.server, session)
            statuses.extend(mine("write", {}).status_code for _ in range(15))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert (statuses.count(500), statuses.count(200)) == (20, 40)
    assert len(calls.ids()) == 60
    assert calls.server.faults.strikes() == [20]
    orders = [applied.order for _, applied in calls.server.log.changes()]
    assert orders == list(range(orders[0], orders[0] + 60))


def test_faults_of_a_server_are_an_argument() -> None:
    with LocalServer(["things"], faults=[Fault("error", nth=1)]) as server:
        with requests.Session() as session:
            calls = Calls(server, session)
            assert [calls("read").status_code for _ in range(2)] == [500, 200]


def test_no_fault_logs_an_error_of_the_server(
    calls: Calls, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in KINDS:
        for verb in METHODS:
            calls.server.faults.replace([Fault(kind, seconds=0.01, bytes_per_second=10_000)])
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                raw(verb, BODIES[verb])
    calls.server.faults.clear()
    calls.server.quiesce()

    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []
    assert calls("read").status_code == 200


@pytest.mark.parametrize("module", ["faults", "strikes"])
def test_the_documented_examples_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"connectome_dagster.local.{module}"))

    assert found.attempted > 0
    assert found.failed == 0
