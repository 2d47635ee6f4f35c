"""What a probe reports of a server that answers the open questions in a known way."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest

from connectome_dagster.api.client import Observation
from connectome_dagster.errors import (
    AuthenticationError,
    CollectionNotFound,
    ConfigurationError,
    MalformedResponse,
    OutcomeUnknown,
)
from connectome_dagster.local.switches import Switches
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer import questions
from connectome_dagster.transfer.collection import Connectome
from connectome_dagster.transfer.findings import ProbeReport
from connectome_dagster.transfer.limits import Bounds
from connectome_dagster.transfer.probe import probe
from connectome_dagster.transfer.scratch import MARK, array_of
from tests.api.scripted import answer, serving
from tests.transfer.conftest import ToTarget
from tests.transfer.faults import by_verb, forward

# Small, so that the whole matrix stays quick.
BOUNDS = Bounds(rows=40, body_bytes=64 << 10, burst=30, patience=2.0)

# What is found of a server with all its switches as they are by default: a limit that lies beyond
# what is tried is not found.
DEFAULTS: dict[str, Any] = {
    **Switches().to_json(),
    "max_body_bytes": None,
    "rate_seconds": None,
    "retry_after": None,
}

# So slow that a busy machine sends too many in time.
LIMITED = {"rate_limit": 20, "rate_seconds": 1.0}

# Every switch, and each of its values that is not the default's; then those that meet.
MATRIX: list[dict[str, Any]] = [
    {},
    {"response_path": "data"},
    {"response_path": "result.items"},
    {"id_form": "oid"},
    {"id_form": "objectid"},
    {"id_form": "absent"},
    {"client_id": "any"},
    {"client_id": "dropped"},
    {"extended_json": False},
    {"expr": False},
    {"page_cap": 1},
    {"page_cap": 17},
    {"update_many": True},
    {"update_replaces": True},
    {"update_operators": True},
    {"batch": "ordered"},
    {"batch": "unordered"},
    {"batch_reports": False},
    {"max_body_bytes": 1500},
    {"max_body_bytes": 20_000},
    {**LIMITED, "retry_after": "seconds"},
    {**LIMITED, "retry_after": "date"},
    {
        "rate_limit": 15,
        "rate_seconds": 0.8,
        "retry_after": "none",
        "page_cap": 3,
        "client_id": "dropped",
    },
    {"no_match_status": 200},
    {"no_match_status": 204},
    {"no_match_status": 400},
    {"no_match_status": 409},
    {"no_match_status": 503},
    {"read_call": None},
    {"read_call": "POST read"},
    {"write_call": None},
    {"write_call": "PUT write"},
    {"write_call": "POST insert"},
    {"update_call": None},
    {"update_call": "PATCH update"},
    {"delete_call": None},
    {"delete_call": "POST delete"},
    {"delete_body": False, "delete_call": "POST delete"},
    {"delete_body": False, "delete_call": "POST delete", "empty_delete_is_all": True},
    {"empty_delete_is_all": True},
    {"gzip_responses": True},
    {"gzip_requests": True},
    {"stale_seconds": 0.3},
    {"error_form": "object"},
    {"error_form": "page"},
    {"page_cap": 1, "response_path": "data", "id_form": "objectid", "client_id": "dropped"},
    {"batch": "ordered", "batch_reports": False, "client_id": "any"},
    {"batch": "unordered", "batch_reports": False, "client_id": "dropped"},
    {"update_many": True, "update_replaces": True, "extended_json": False},
    {"update_operators": True, "update_replaces": True, "expr": False},
    {"error_form": "object", "batch": "unordered", "client_id": "dropped"},
    {"error_form": "page", "max_body_bytes": 20_000, "gzip_requests": True},
    {"id_form": "absent", "client_id": "any", "stale_seconds": 0.3},
]


def probed(
    connectome_server: ConnectomeServer, to_target: ToTarget, **switches: Any
) -> ProbeReport:
    connectome_server.switches(**switches)
    return probe(to_target(connectome_server.collection()), bounds=BOUNDS)


def expected(switches: dict[str, Any]) -> dict[str, Any]:
    """What is to be found, where it differs from the switches as they are set."""
    found = {**DEFAULTS, **switches}
    if found["error_form"] != "status":
        found["no_match_status"] = 200  # the error is behind it
    return found


@pytest.mark.parametrize("switches", MATRIX, ids=lambda it: ",".join(map(str, it)) or "default")
def test_each_switch_is_reported_as_it_is_set_and_nothing_is_left(
    connectome_server: ConnectomeServer, to_target: ToTarget, switches: dict[str, Any]
) -> None:
    connectome_server.switches(**switches)
    collection = connectome_server.collection()

    report = probe(to_target(collection), bounds=BOUNDS)

    found = {finding.name: finding.value for finding in report.findings}
    wanted = expected(switches)
    about = {name: wanted.pop(name) for name in ("rate_seconds", "stale_seconds", "max_body_bytes")}
    assert {name: found[name] for name in wanted} == wanted
    assert all(finding.known for finding in report.findings)
    for name, value in about.items():
        if not value:
            assert found[name] == value
    if about["rate_seconds"]:
        assert 0.9 < found["rate_seconds"] / about["rate_seconds"] < 3
    if about["stale_seconds"]:
        # From the acknowledgement on, which a busy machine sends late.
        assert 0.05 < found["stale_seconds"] < 2
    if about["max_body_bytes"]:
        assert 0.9 * about["max_body_bytes"] <= found["max_body_bytes"] <= about["max_body_bytes"]
    assert report.left == 0
    assert connectome_server.documents(collection) == []


def test_the_matrix_has_every_switch_and_every_value_that_can_be_listed() -> None:
    kinds = typing.get_type_hints(Switches)
    for field in dataclasses.fields(Switches):
        tried = {repr(switches.get(field.name, field.default)) for switches in MATRIX}
        assert len(tried) > 1, field.name
        kind = kinds[field.name]
        listed = (False, True) if kind is bool else typing.get_args(kind)
        if kind is bool or typing.get_origin(kind) is typing.Literal:
            assert tried >= {repr(value) for value in listed}, field.name


@pytest.mark.parametrize(
    ("switches", "guarantee"),
    [
        ({}, "enforced"),
        ({"id_form": "oid"}, "enforced"),
        ({"id_form": "absent"}, "enforced"),
        ({"page_cap": 1}, "enforced"),
        ({"client_id": "any"}, "verified"),
        ({"client_id": "dropped"}, "verified"),
    ],
)
def test_the_guarantee_is_enforced_only_where_a_client_s_id_is_unique(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
    switches: dict[str, Any],
    guarantee: str,
) -> None:
    report = probed(connectome_server, to_target, **switches)

    assert report.guarantee == guarantee
    assert (report.settings.get("idempotency") == "id") == (guarantee == "enforced")


def test_what_is_not_found_again_allows_no_promise(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    report = probed(connectome_server, to_target, stale_seconds=30.0)

    assert report.guarantee == "at_least_once"
    assert not report["stale_seconds"].known


def test_settings_to_copy_are_those_that_connectome_takes(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    report = probed(
        connectome_server,
        to_target,
        response_path="data",
        no_match_status=409,
        max_body_bytes=20_000,
        batch_reports=False,
        stale_seconds=0.1,
    )

    assert report.settings.pop("batch_bytes") == report["max_body_bytes"].value
    assert report.settings == {
        "response_path": "data",
        "no_match_status": 409,
        "idempotency": "id",
        "batch_bytes": report["max_body_bytes"].value,
    }


def test_the_number_that_an_answer_to_a_batch_tells_is_found_by_its_kind() -> None:
    assert _counted_of(b"{}") is None
    assert _counted_of(b'{"inserted":2}') == 2
    assert _counted_of(b'{"ids":["a","b","c"]}') == 3


def _counted_of(body: bytes) -> int | None:
    return questions.counted(Observation(200, {}, body, ""))


def test_a_collection_that_holds_documents_is_refused_before_anything_is_written(
    connectome_server: ConnectomeServer,
    to_target: ToTarget,
) -> None:
    collection = connectome_server.collection([{"title": "Movie ABC"}])

    with pytest.raises(ConfigurationError, match="it holds documents"):
        probe(to_target(collection), bounds=BOUNDS)

    assert len(connectome_server.documents(collection)) == 1
    assert connectome_server.changes == []


def test_documents_of_others_behind_those_of_an_earlier_probe_are_seen(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    old = [{MARK: "old", "n": n} for n in range(20)]
    collection = connectome_server.collection([*old, {"title": "Movie ABC"}])

    with pytest.raises(ConfigurationError, match="it holds documents"):
        probe(to_target(collection), bounds=BOUNDS)


def test_what_an_earlier_probe_left_is_removed_as_well(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{MARK: "old", "n": n} for n in range(20)])

    assert probe(to_target(collection), bounds=BOUNDS).left == 0
    assert connectome_server.documents(collection) == []


def test_everything_is_removed_only_where_that_was_said(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection([{"title": "Movie ABC"}])

    report = probe(to_target(collection), everything=True, bounds=BOUNDS)

    assert report["delete_body"].value is True
    assert connectome_server.documents(collection) == []


@pytest.mark.parametrize("switches", [{}, {"delete_body": False}], ids=str)
def test_documents_that_others_write_meanwhile_outlive_the_probe(
    connectome_server: ConnectomeServer, to_target: ToTarget, switches: dict[str, Any]
) -> None:
    collection = connectome_server.collection()
    connectome_server.switches(empty_delete_is_all=True, **switches)

    def meanwhile(_seconds: float) -> None:
        connectome_server.seed(collection, [{"title": "Movie ABC"}])

    connectome_server.faults.add("error", verb="readwithquery", nth=30, status=429)
    report = probe(to_target(collection), bounds=BOUNDS, sleep=meanwhile)

    left = [one for one in connectome_server.documents(collection) if MARK in one]
    assert not report["empty_delete_is_all"].known
    assert not report["delete_body"].known
    assert len(connectome_server.documents(collection)) > len(left) == report.left


def test_where_no_delete_works_it_says_what_is_left(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    connectome_server.switches(delete_body=False, delete_call=None)
    collection = connectome_server.collection()

    report = probe(to_target(collection), bounds=BOUNDS)

    assert report["delete_body"].value is False
    assert report.left == len(connectome_server.documents(collection)) > 0


@pytest.mark.parametrize("nth", [1, 5, 9])
def test_an_error_on_the_way_is_raised_and_everything_removed(
    connectome_server: ConnectomeServer, to_target: ToTarget, nth: int
) -> None:
    collection = connectome_server.collection()
    connectome_server.faults.add("applied_reset", verb="batchwrite", nth=nth)

    with pytest.raises(OutcomeUnknown, match="what it had written is removed"):
        probe(to_target(collection), bounds=BOUNDS)

    assert connectome_server.documents(collection) == []


def test_a_wrong_credential_and_a_wrong_id_are_told_as_everywhere(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    here = connectome_server.collection()

    with pytest.raises(CollectionNotFound):
        probe(to_target("0" * 24), bounds=BOUNDS)
    with pytest.raises(AuthenticationError):
        probe(to_target(here, write="wrong"), bounds=BOUNDS)
    with pytest.raises(ConfigurationError, match="CONNECTOME_WRITE_CREDENTIAL"):
        probe(to_target(here, write=None), bounds=BOUNDS)


def test_a_service_that_answers_with_pages_is_not_taken_for_empty(to_target: ToTarget) -> None:
    with serving(answer(200, b'{"hello":"world"}')) as server:
        with pytest.raises(MalformedResponse):
            probe(to_target("movies", base_url=server.base_url), bounds=BOUNDS)


def test_no_credential_gets_into_a_report(
    connectome_server: ConnectomeServer, to_target: ToTarget
) -> None:
    collection = connectome_server.collection()
    echo = answer(400, lambda request: request.target.encode())
    script = by_verb(forward(connectome_server.base_url), write=echo, update=echo)
    with serving(script) as server:
        report = probe(to_target(collection, base_url=server.base_url), bounds=BOUNDS)

    assert report["write_call"].value is None
    for secret in (connectome_server.read_credential, connectome_server.write_credential):
        assert secret not in repr(report)
        assert secret not in repr(report.to_json())


@pytest.mark.parametrize(
    ("body", "path", "count"),
    [
        (b"[]", None, 0),
        (b'[{"a":1}]', None, 1),
        (b'{"data":[{"a":1}],"errors":[]}', "data", 1),
        (b'{"errors":[],"result":{"items":[{"a":1}]}}', "result.items", 1),
    ],
)
def test_the_array_is_found_by_what_it_holds(body: bytes, path: str | None, count: int) -> None:
    found = array_of(body)

    assert found is not None
    assert (found[0], len(found[1])) == (path, count)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a":1}', b"[1,2]", b"\xff", b"null"])
def test_what_holds_no_documents_has_no_array(body: bytes) -> None:
    assert array_of(body) is None


def test_a_collection_probes_itself(connectome_server: ConnectomeServer) -> None:
    with Connectome(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
    ) as connectome:
        scratch = connectome.collection(connectome_server.collection())
        report = scratch.probe()

    assert report.guarantee == "enforced"
    assert connectome_server.documents(scratch.id) == []
    with Connectome(base_url=connectome_server.base_url, **report.settings):
        pass  # what it says to set can be set
