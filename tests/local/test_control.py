"""Switches, faults and the log over HTTP while the server runs, and who may reach them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from connectome_dagster.local.faults import Fault
from connectome_dagster.local.server import LocalServer
from connectome_dagster.local.switches import Switches
from tests.local.calling import Calls

PATHS = {
    "/control/switches": ("GET", "PUT", "DELETE"),
    "/control/faults": ("GET", "PUT", "DELETE"),
    "/control/log": ("GET",),
    "/control/reset": ("POST",),
}
EVERY = [(method, path) for path, methods in PATHS.items() for method in methods]


class Controls:
    """The controls of a server, as curl would use them."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {server.control_credential}"}

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        return requests.request(
            method,
            self.server.base_url + path,
            json=body,
            params=query,
            headers=self.headers,
            timeout=10,
        )


@pytest.fixture
def control(calls: Calls) -> Iterator[Controls]:
    control = Controls(calls.server)
    yield control
    control("POST", "/control/reset")


def test_switches_are_shown_set_and_cleared(calls: Calls, control: Controls) -> None:
    calls.server.seed("things", [{"n": 1}, {"n": 2}])
    assert control("GET", "/control/switches").json() == Switches().to_json()

    told = control("PUT", "/control/switches", {"page_cap": 1, "response_path": "data"})

    assert told.json() == control("GET", "/control/switches").json()
    assert Switches.from_json(told.json()).changed() == {"page_cap": 1, "response_path": "data"}
    assert len(calls("read").json()["data"]) == 1
    control("PUT", "/control/switches", {"page_cap": 1})
    assert len(calls("read").json()) == 1
    assert control("DELETE", "/control/switches").json() == Switches().to_json()
    assert len(calls("read").json()) == 2


def test_faults_are_set_counted_and_cleared(calls: Calls, control: Controls) -> None:
    plan = [{"kind": "error", "verb": "read", "every": 2, "status": 503, "retry_after": 2}]

    assert control("PUT", "/control/faults", plan).json() == [
        {**plan[0], "counted": 0, "struck": 0}
    ]
    answers = [calls("read") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 503, 200, 503]
    assert answers[1].headers["Retry-After"] == "2"
    (shown,) = control("GET", "/control/faults").json()
    assert (shown["counted"], shown["struck"]) == (4, 2)
    assert control("DELETE", "/control/faults").json() == []
    assert [calls("read").status_code for _ in range(2)] == [200, 200]


def test_the_log_is_an_oracle_over_http_too(calls: Calls, control: Controls) -> None:
    calls("batchwrite", [{"_id": "a"}, {"_id": {"$oid": "0" * 24}}])
    calls("read")

    told = control("GET", "/control/log").json()
    written, read = told["entries"]

    assert told["forgotten"] == 0
    assert (written["verb"], written["collection"], written["status"]) == (
        "batchwrite",
        "things",
        200,
    )
    assert written["applied"][0]["inserted"] == ["a", {"$oid": "0" * 24}]
    assert control("GET", "/control/log", verb="read").json()["entries"] == [read]
    assert control("GET", "/control/log", last=1).json()["entries"] == [read]
    after = control("GET", "/control/log", after=written["sequence"]).json()
    assert after["entries"] == [read]


def test_one_collection_may_have_conditions_of_its_own(calls: Calls, control: Controls) -> None:
    calls.server.add_collection("others")
    others = Calls(calls.server, calls.session, "others")
    for one in (calls, others):
        one.server.seed(one.collection, [{"n": 1}, {"n": 2}])

    control("PUT", "/control/switches", {"page_cap": 1}, collection="others")
    control("PUT", "/control/faults", [{"kind": "error", "nth": 2}], collection="others")

    assert len(calls("read").json()) == 2
    assert len(others("read").json()) == 1
    assert [others("read").status_code, calls("read").status_code] == [500, 200]
    entries = control("GET", "/control/log", collection="others").json()["entries"]
    assert [entry["fault"] for entry in entries] == [None, "error"]
    control("POST", "/control/reset", collection="others")
    assert len(others("read").json()) == 2
    calls.server.drop_collection("others")


def test_reset_leaves_documents_and_nothing_else(calls: Calls, control: Controls) -> None:
    calls("write", {"_id": "a"})
    control("PUT", "/control/switches", {"page_cap": 1})
    control("PUT", "/control/faults", [{"kind": "reset"}])

    assert control("POST", "/control/reset").status_code == 200

    assert calls.server.switches == Switches()
    assert calls.server.faults.faults == []
    assert control("GET", "/control/log").json() == {"forgotten": 0, "entries": []}
    assert calls.ids() == ["a"]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/control/switches", {"pagecap": 1}, "there is no switch 'pagecap'"),
        ("/control/switches", {"page_cap": 0}, "at least 1"),
        ("/control/switches", [], "JSON object"),
        ("/control/faults", {"kind": "reset"}, "array"),
        ("/control/faults", [{"kind": "explode"}], "there is no fault 'explode'"),
        ("/control/faults", [{"kind": "reset"}, {"kind": "reset", "nth": 0}], "nth"),
    ],
)
def test_what_is_wrong_is_a_400_that_changes_nothing(
    control: Controls, path: str, body: Any, reason: str
) -> None:
    answer = control("PUT", path, body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert control.server.switches == Switches()
    assert control.server.faults.faults == []


def test_other_wrong_requests_have_their_status(control: Controls) -> None:
    url = f"{control.server.base_url}/control/switches"
    broken = requests.put(url, data=b"{", headers=control.headers, timeout=10)
    large = requests.put(url, data=b" " * 200_000, headers=control.headers, timeout=10)

    assert (broken.status_code, large.status_code) == (400, 413)
    assert control("GET", "/control/switches", collection="nothing").status_code == 404
    assert control("GET", "/control/log", last="many").status_code == 400
    assert control("POST", "/control/switches").status_code == 405
    assert control("GET", "/control/nothing").status_code == 404


@pytest.mark.parametrize(("method", "path"), EVERY)
@pytest.mark.parametrize(
    "given", [None, "Bearer nobody", "Bearer ", "Basic {control}", "{control}", "Bearer {read}"]
)
def test_nothing_is_reachable_without_the_credential(
    calls: Calls, method: str, path: str, given: str | None
) -> None:
    server = calls.server
    server.switches = Switches(page_cap=7)
    headers = {}
    if given is not None:
        headers["Authorization"] = given.format(
            control=server.control_credential, read=server.read_credential
        )

    body = {} if path.endswith("switches") else []
    answer = requests.request(
        method, server.base_url + path, json=body, headers=headers, timeout=10
    )

    assert answer.status_code == 401
    assert server.write_credential not in answer.text
    assert server.switches == Switches(page_cap=7)


def test_a_credential_of_its_own_keeps_the_write_credential_out() -> None:
    with LocalServer(["things"], control_credential="control-of-the-tests") as server:
        control = Controls(server)
        assert control("GET", "/control/switches").status_code == 200
        control.headers = {"Authorization": f"Bearer {server.write_credential}"}
        assert control("GET", "/control/switches").status_code == 401
        url = f"{server.base_url}/collection/read/control-of-the-tests/things"
        assert requests.get(url, timeout=10).status_code == 401


def test_a_collection_called_control_is_a_collection(calls: Calls) -> None:
    calls.server.add_collection("control")
    controls = Calls(calls.server, calls.session, "control")

    assert controls("write", {"_id": "a"}).status_code == 200
    assert controls.ids() == ["a"]
    calls.server.drop_collection("control")


def test_controls_are_reachable_while_requests_wait() -> None:
    with LocalServer(["things"]) as server, requests.Session() as session:
        control, calls = Controls(server), Calls(server, session)
        server.faults.add("delay", seconds=30.0)
        waiting = threading.Thread(target=calls, args=("read",))
        waiting.start()
        deadline = time.monotonic() + 10
        while not server.faults.strikes()[0]:
            assert time.monotonic() < deadline

        assert control("GET", "/control/faults").json()[0]["struck"] == 1
        (entry,) = control("GET", "/control/log").json()["entries"]
        assert (entry["fault"], entry["status"]) == ("delay", None)
        server.stop()
        waiting.join()


def test_an_argument_and_the_controls_speak_of_the_same_plan() -> None:
    with LocalServer(["things"], faults=[Fault("reset", nth=5)]) as server:
        (shown,) = Controls(server)("GET", "/control/faults").json()

    assert shown == {"kind": "reset", "nth": 5, "counted": 0, "struck": 0}
