"""What a caller meets over HTTP: paths, credentials, shapes, errors, streams, a clean end."""

from __future__ import annotations

import doctest
import http.client
import importlib
import json
import logging
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from connectome_dagster.local.http_errors import BadRequest
from connectome_dagster.local.server import LocalServer
from connectome_dagster.local.switches import Switches

READ, WRITE = "read-credential-of-the-tests", "write-credential-of-the-tests"
MAX_BODY = 1_000_000

READS = {"read": "GET", "readwithquery": "POST"}
WRITES = {
    "write": "POST",
    "batchwrite": "POST",
    "update": "POST",
    "updatewithupsert": "POST",
    "delete": "DELETE",
    "batchdelete": "DELETE",
}
VERBS = {**READS, **WRITES}


@pytest.fixture(scope="module")
def running() -> Iterator[LocalServer]:
    with LocalServer(
        read_credential=READ, write_credential=WRITE, switches=Switches(max_body_bytes=MAX_BODY)
    ) as server:
        yield server


class Caller:
    """One collection, called as a stranger would."""

    def __init__(self, server: LocalServer, session: requests.Session) -> None:
        self.server = server
        self.session = session

    def url(self, verb: str, *, credential: str | None = None, collection: str = "things") -> str:
        right = READ if verb in READS else WRITE
        return f"{self.server.base_url}/collection/{verb}/{credential or right}/{collection}"

    def __call__(self, verb: str, body: Any = None, **options: Any) -> requests.Response:
        return self.session.request(VERBS[verb], self.url(verb, **options), json=body, timeout=10)

    def raw(self, verb: str, body: bytes) -> requests.Response:
        return self.session.request(VERBS[verb], self.url(verb), data=body, timeout=10)

    def documents(self) -> list[dict[str, Any]]:
        return self.server.documents("things")


@pytest.fixture
def call(running: LocalServer) -> Iterator[Caller]:
    running.add_collection("things")
    with requests.Session() as session:
        yield Caller(running, session)
    running.drop_collection("things")


def refused(response: requests.Response, status: int) -> str:
    """The reason of a refusal, having checked that it is one and holds no secret."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert READ not in response.text
    assert WRITE not in response.text
    answer = response.json()
    assert list(answer) == ["error"]
    assert isinstance(answer["error"], str)
    return answer["error"]


def test_a_plain_read_returns_everything_in_the_order_of_insertion(call: Caller) -> None:
    call("batchwrite", [{"n": 3}, {"n": 1}, {"n": 2}])
    call("write", {"n": 0})

    response = call("read")

    assert response.headers["content-type"] == "application/json"
    assert [one["n"] for one in response.json()] == [3, 1, 2, 0]


def test_an_empty_collection_is_an_empty_array(call: Caller) -> None:
    assert call("read").content == b"[]"
    assert call("readwithquery", {}).content == b"[]"


def test_each_document_is_given_an_object_ids_hex_string_that_no_other_has(call: Caller) -> None:
    call("batchwrite", [{"n": 1}, {"n": 2}])

    ids = [one["_id"] for one in call.documents()]

    assert len(set(ids)) == 2
    assert all(len(bytes.fromhex(one)) == 12 for one in ids)
    found = call("readwithquery", {"query": {"_id": ids[1]}}).json()
    assert found == [{"_id": ids[1], "n": 2}]


def test_fields_keep_their_order_and_numbers_every_digit(call: Caller) -> None:
    body = (
        b'[{"z":9223372036854775807,"a":-9223372036854775808,"m":1.0,"b":1,"x":0.1,"y":5e-324,'
        b'"c":1.7976931348623157e308,"d":-0.0,"t":"\xe2\x80\xa8 \\u0085 \\" \xf0\x9f\x8e\xac"}]'
    )

    call.raw("batchwrite", body)

    text = call("read").content.decode()
    assert text.partition(",")[2] == (
        '"z":9223372036854775807,"a":-9223372036854775808,"m":1.0,"b":1,"x":0.1,"y":5e-324,'
        '"c":1.7976931348623157e308,"d":-0.0,"t":"\u2028 \x85 \\" \U0001f3ac"}]'
    )


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "1" + "0" * 400])
def test_an_integer_beyond_64_bits_is_refused_and_never_rounded(call: Caller, number: str) -> None:
    reason = refused(call.raw("batchwrite", f'[{{"n":[{{"m":{number}}}]}}]'.encode()), 400)

    assert "64 bits" in reason
    assert call.documents() == []


def test_extended_json_keeps_its_types_and_comes_back_relaxed(call: Caller) -> None:
    document = {
        "_id": {"$oid": "64f0c1aa64f0c1aa64f0c1aa"},
        "at": {"$date": "2026-11-23T10:00:00Z"},
        "price": {"$numberDecimal": "10.10"},
        "ratio": {"$numberDouble": "NaN"},
        "plain": 1,
    }

    call("write", document)

    assert call("read").json() == [document]
    query = {"query": {"at": {"$gt": {"$date": "2026-11-23T09:59:59Z"}}}, "project": {"price": 1}}
    assert call("readwithquery", query).json() == [
        {"_id": document["_id"], "price": document["price"]}
    ]
    as_string = {"query": {"_id": "64f0c1aa64f0c1aa64f0c1aa"}}
    assert call("readwithquery", as_string).json() == []


def test_query_projection_sort_and_limit_work_together(call: Caller) -> None:
    call("batchwrite", [{"n": n, "even": n % 2 == 0, "other": "x"} for n in range(10)])
    body = {
        "query": {"even": True},
        "project": {"n": 1, "_id": 0},
        "sort": {"n": -1},
        "limit": 2,
    }

    assert call("readwithquery", body).content == b'[{"n":8},{"n":6}]'


@pytest.mark.parametrize("limit", [0, None, 3, 3.0, 100])
def test_a_limit_of_zero_or_none_is_no_limit(call: Caller, limit: Any) -> None:
    call("batchwrite", [{"n": n} for n in range(5)])

    answer = call("readwithquery", {"limit": limit}).json()

    assert len(answer) == (3 if limit in (3, 3.0) else 5)


def test_an_update_sets_fields_of_the_first_match_alone(call: Caller) -> None:
    call("batchwrite", [{"k": 1, "v": "a"}, {"k": 1, "v": "b"}])

    response = call("update", {"search query": {"k": 1}, "data": {"v": "c", "in.deep": 1}})

    assert response.json() == {"matched": 1, "modified": 1, "upserted": 0}
    changed, other = call.documents()
    assert {**changed, "_id": 0} == {"_id": 0, "k": 1, "v": "c", "in": {"deep": 1}}
    assert other["v"] == "b"


def test_an_update_that_changes_nothing_says_so(call: Caller) -> None:
    call("write", {"k": 1})

    response = call("update", {"search query": {"k": 1}, "data": {"k": 1}})

    assert response.json() == {"matched": 1, "modified": 0, "upserted": 0}


def test_true_is_a_change_from_one(call: Caller) -> None:
    call("write", {"k": 1})

    call("update", {"search query": {"k": 1}, "data": {"k": True}})

    assert call.documents()[0]["k"] is True


@pytest.mark.parametrize("verb", ["update", "updatewithupsert"])
def test_an_update_without_match_and_upsert_is_a_404_that_changes_nothing(
    call: Caller, verb: str
) -> None:
    reason = refused(call(verb, {"search query": {"k": 1}, "data": {"v": 1}}), 404)

    assert "matches" in reason
    assert call.documents() == []


def test_update_never_upserts(call: Caller) -> None:
    refused(call("update", {"search query": {"k": 1}, "data": {"v": 1}, "upsert": True}), 404)


def test_an_upsert_is_of_the_querys_equalities_and_the_data(call: Caller) -> None:
    body = {"search query": {"k": 1, "n": {"$gt": 5}}, "data": {"v": 1}, "upsert": True}

    assert call("updatewithupsert", body).json() == {"matched": 0, "modified": 0, "upserted": 1}

    (created,) = call.documents()
    assert {**created, "_id": 0} == {"_id": 0, "k": 1, "v": 1}


def test_concurrent_upserts_of_one_key_make_one_document(call: Caller) -> None:
    body = {"search query": {"k": 1}, "data": {"v": 1}, "upsert": True}

    def upsert() -> None:
        requests.post(call.url("updatewithupsert"), json=body, timeout=10)

    threads = [threading.Thread(target=upsert) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(call.documents()) == 1


def test_delete_removes_the_first_match_and_batchdelete_all(call: Caller) -> None:
    call("batchwrite", [{"k": 1, "n": n} for n in range(3)] + [{"k": 2, "n": 9}])

    assert call("delete", {"k": 1}).json() == {"deleted": 1}
    assert [one["n"] for one in call.documents()] == [1, 2, 9]
    assert call("batchdelete", {"k": 1}).json() == {"deleted": 2}
    assert [one["n"] for one in call.documents()] == [9]
    assert call("batchdelete", {"k": 1}).json() == {"deleted": 0}
    assert call("batchdelete", {}).json() == {"deleted": 1}


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_credential_is_a_401(call: Caller, verb: str) -> None:
    reason = refused(call(verb, {}, credential="nobody's"), 401)

    assert verb in reason


@pytest.mark.parametrize("verb", VERBS)
def test_the_other_credential_is_a_403(call: Caller, verb: str) -> None:
    call("write", {"n": 1})

    reason = refused(call(verb, {}, credential=WRITE if verb in READS else READ), 403)

    assert ("read" if verb in READS else "write") in reason
    assert len(call.documents()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_collection_that_was_not_named_is_a_404(call: Caller, verb: str) -> None:
    assert "other" in refused(call(verb, {}, collection="other"), 404)


@pytest.mark.parametrize("verb", VERBS)
def test_a_credential_in_the_place_of_the_collection_is_not_repeated(
    call: Caller, verb: str
) -> None:
    for credential in (READ, WRITE):
        refused(call(verb, {}, collection=credential), 404)


def test_a_credential_in_a_body_is_not_repeated(call: Caller) -> None:
    reason = refused(call("readwithquery", {"query": {"a": {f"${WRITE}": 1}}}), 400)

    assert "<write credential>" in reason


@pytest.mark.parametrize(
    ("verb", "method"),
    [
        (verb, method)
        for verb, right in VERBS.items()
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        if method != right
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(
    call: Caller, verb: str, method: str
) -> None:
    response = call.session.request(method, call.url(verb), json={}, timeout=10)

    assert VERBS[verb] in refused(response, 405)
    assert response.headers["allow"] == VERBS[verb]


@pytest.mark.parametrize("path", ["/collection", "/collection/read", f"/read/{READ}/things"])
def test_other_paths_are_404s(call: Caller, path: str) -> None:
    assert "/collection/<verb>/<credential>" in refused(
        call.session.get(call.server.base_url + path, timeout=10, allow_redirects=False), 404
    )


def test_an_unknown_verb_is_a_404_that_names_the_known_ones(call: Caller) -> None:
    url = call.url("read").replace("/read/", f"/{READ}/")

    assert "readwithquery" in refused(call.session.get(url, timeout=10), 404)


NOT_JSON = [
    b"",
    b"{",
    b"nonsense",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b"{'a':1}",
    b'{"a":1e400}',
    b'{"a":"\xff"}',
    b'{"a":"\\ud800"}',
    b'{"a":1} {}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "read"])
@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: body[:20].decode("ascii", "replace"))
def test_a_body_that_is_not_json_is_a_400(call: Caller, verb: str, body: bytes) -> None:
    call("write", {"n": 1})

    refused(call.raw(verb, body), 400)

    assert len(call.documents()) == 1


@pytest.mark.parametrize(
    ("verb", "body", "named"),
    [
        ("readwithquery", [], "array"),
        ("readwithquery", {"query": []}, '"query"'),
        ("readwithquery", {"project": 1}, '"project"'),
        ("readwithquery", {"sort": "n"}, '"sort"'),
        ("readwithquery", {"sort": {"n": 2}}, "n"),
        ("readwithquery", {"project": {"a": 1, "b": 0}}, "project"),
        ("readwithquery", {"limit": -1}, '"limit"'),
        ("readwithquery", {"limit": 1.5}, '"limit"'),
        ("readwithquery", {"limit": "1"}, '"limit"'),
        ("readwithquery", {"limit": True}, '"limit"'),
        ("readwithquery", {"limit": 1e300}, '"limit" must fit 64 bits'),
        ("readwithquery", {"filter": {}}, '"filter"'),
        ("readwithquery", {"query": {"n": {"$near": 1}}}, "$near"),
        ("readwithquery", {"query": {"$nothing": []}}, "$nothing"),
        ("readwithquery", {"query": {"n": {"$in": 1}}}, "$in"),
        ("readwithquery", {"query": {"n": {"$date": "yesterday"}}}, "$date"),
        ("update", {"data": {"v": 1}}, '"search query"'),
        ("update", {"search query": {}}, '"data"'),
        ("update", {"search query": [], "data": {}}, '"search query"'),
        ("update", {"search query": {}, "data": []}, '"data"'),
        ("update", {"search_query": {}, "data": {}}, '"search_query"'),
        ("updatewithupsert", {"search query": {}, "data": {}, "upsert": 1}, '"upsert"'),
        ("updatewithupsert", {"search query": {"$x": 1}, "data": {}, "upsert": True}, "$x"),
        ("batchwrite", {}, "array"),
        ("batchwrite", [], "empty"),
        ("batchwrite", [{}, 1], "element 1"),
        ("batchwrite", [{}, [{}]], "element 1"),
        ("write", [{}], "array"),
        ("write", {"_id": []}, "_id"),
        ("write", {"_id": {"$oid": "zz"}}, "$oid"),
        ("delete", [], "array"),
        ("batchdelete", [], "array"),
        ("batchdelete", {"n": {"$foo": 1}}, "$foo"),
    ],
)
def test_a_wrong_shape_is_a_400_that_names_what_is_wrong(
    call: Caller, verb: str, body: Any, named: str
) -> None:
    call("write", {"n": 1})

    assert named in refused(call(verb, body), 400)
    assert len(call.documents()) == 1


def test_a_batch_with_a_bad_document_inserts_none_of_it(call: Caller) -> None:
    refused(call("batchwrite", [{"_id": 1}, {"_id": 2}, {"_id": 1.0}]), 400)
    assert call.documents() == []

    call("write", {"_id": 7})
    assert "7" in refused(call("batchwrite", [{"_id": 8}, {"_id": 7}]), 400)
    assert call.documents() == [{"_id": 7}]


def test_a_client_id_is_kept_and_stands_first(call: Caller) -> None:
    call("batchwrite", [{"n": 1, "_id": "mine"}, {"_id": None}, {"_id": True}, {"_id": 1}])

    assert call("read").content == b'[{"_id":"mine","n":1},{"_id":null},{"_id":true},{"_id":1}]'


def test_a_deleted_id_may_come_again(call: Caller) -> None:
    call("write", {"_id": "mine"})
    call("delete", {"_id": "mine"})

    assert call("write", {"_id": "mine"}).status_code == 200


def test_changing_an_id_is_refused(call: Caller) -> None:
    call("write", {"_id": "mine"})

    assert "_id" in refused(call("update", {"search query": {}, "data": {"_id": "other"}}), 400)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "read"])
def test_a_body_over_the_bound_is_a_413_however_it_is_sent(call: Caller, verb: str) -> None:
    body = b'{"a":"' + b"x" * (2 * MAX_BODY) + b'"}'

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    assert str(MAX_BODY) in refused(call.raw(verb, body), 413)
    chunked = call.session.request(VERBS[verb], call.url(verb), data=pieces(), timeout=10)
    refused(chunked, 413)


def test_a_body_just_under_the_bound_is_taken(call: Caller) -> None:
    body = b'{"a":"' + b"x" * (MAX_BODY - 8) + b'"}'

    assert len(body) == MAX_BODY
    assert call.raw("write", body).status_code == 200


@pytest.mark.parametrize("depth", [250, 500, 5000])
def test_a_document_that_nests_too_deeply_is_refused(call: Caller, depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth

    assert "deeper" in refused(call.raw("write", body), 400)


def test_a_large_answer_comes_in_pieces_and_whole(call: Caller) -> None:
    documents = [{"_id": n, "text": "ä" * 100} for n in range(20_000)]
    call.server.seed("things", documents)

    for response in (call("read"), call("readwithquery", {"project": {"text": 1}})):
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.json() == documents


def test_a_stream_shows_the_collection_as_it_was_when_it_began(call: Caller) -> None:
    documents = [{"_id": n, "text": "x" * 1000} for n in range(20_000)]
    call.server.seed("things", documents)

    with requests.get(call.url("read"), stream=True, timeout=10) as response:
        start = response.raw.read(1000)
        assert call("batchdelete", {"_id": {"$gte": 10}}).json() == {"deleted": 19_990}
        call("update", {"search query": {"_id": 1}, "data": {"text": "changed"}})
        rest = response.raw.read()

    assert json.loads(start + rest) == documents
    assert len(call.documents()) == 10


def test_a_reader_that_goes_away_disturbs_nobody(
    call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    call.server.seed("things", [{"text": "x" * 1000} for _ in range(20_000)])

    with requests.get(call.url("read"), stream=True, timeout=10) as response:
        response.raw.read(10)

    assert call("readwithquery", {"limit": 1}).status_code == 200
    assert caplog.text == ""


def test_short_requests_are_answered_while_a_long_one_works(call: Caller) -> None:
    call.server.seed("things", [{"n": n, "t": "x" * 20} for n in range(50_000)])
    slow = {"query": {"$expr": {"$eq": ["$n", -1]}}}
    order: list[str] = []

    def scan() -> None:
        requests.post(call.url("readwithquery"), json=slow, timeout=60)
        order.append("long")

    thread = threading.Thread(target=scan)
    thread.start()
    call("write", {"n": -2})
    order.append("short")
    thread.join()

    assert order == ["short", "long"]


def test_no_credential_is_logged_whatever_happens(
    call: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        # requests would log the path itself: this caller logs nothing.
        host = call.server.base_url.removeprefix("http://")
        for verb in VERBS:
            for credential in (READ, WRITE, "wrong"):
                connection = http.client.HTTPConnection(host, timeout=10)
                connection.request(
                    VERBS[verb], f"/collection/{verb}/{credential}/things", body=b"{"
                )
                connection.getresponse().read()
                connection.close()
        with socket.create_connection(tuple(host.split(":")), timeout=10) as broken:  # type: ignore[arg-type]
            broken.sendall(f"GET /collection/read/{READ}/things NONSENSE\r\n\r\n".encode())
            broken.recv(1000)

    output = caplog.text + "".join(capfd.readouterr())
    assert READ not in output
    assert WRITE not in output


def test_a_failure_of_the_server_itself_is_a_500_without_secrets(
    call: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise OSError(f"disk full at {WRITE}")

    monkeypatch.setattr(call.server._store, "insert", fail)

    assert "disk full" in refused(call("write", {"n": 1}), 500)
    assert WRITE not in caplog.text


def test_an_escaped_credential_and_collection_are_understood() -> None:
    with LocalServer(["with space"], read_credential="a/b c", write_credential="ü") as server:
        url = f"{server.base_url}/collection/read/a%2Fb%20c/with%20space"
        assert requests.get(url, timeout=10).json() == []
        url = f"{server.base_url}/collection/write/%C3%BC/with%20space"
        assert requests.post(url, json={}, timeout=10).status_code == 200


def test_a_server_makes_up_credentials_that_differ() -> None:
    with LocalServer() as one, LocalServer() as other:
        made_up = {one.read_credential, one.write_credential}
        made_up |= {other.read_credential, other.write_credential}

    assert len(made_up) == 4
    assert min(map(len, made_up)) >= 32


def test_a_repr_shows_no_credential() -> None:
    with LocalServer(["things"], read_credential=READ, write_credential=WRITE) as server:
        assert READ not in repr(server)
        assert WRITE not in repr(server)
        assert "things" in repr(server)


def test_a_stopped_server_answers_no_more_and_may_be_stopped_again() -> None:
    with LocalServer(["things"]) as server:
        url = f"{server.base_url}/collection/read/{server.read_credential}/things"
        with requests.Session() as kept_alive:
            assert kept_alive.get(url, timeout=10).status_code == 200
            server.stop()
            with pytest.raises(requests.ConnectionError):
                kept_alive.get(url, timeout=10)
    assert not server.running


def test_a_taken_port_is_an_os_error() -> None:
    with LocalServer() as server:
        port = int(server.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            LocalServer(port=port)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb"])
def test_a_name_that_is_no_path_segment_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="collection id"):
        LocalServer([name])


@pytest.mark.parametrize("credential", ["", " ", "a\nb"])
def test_a_credential_that_is_no_path_segment_is_refused(credential: str) -> None:
    with pytest.raises(ValueError, match="credential"):
        LocalServer(read_credential=credential)


def test_seeds_are_copies_and_strictly_json(running: LocalServer) -> None:
    document = {"tags": ["a"]}
    running.seed("copies", [document])
    document["tags"].append("b")
    running.documents("copies")[0]["tags"].append("c")

    assert running.documents("copies")[0]["tags"] == ["a"]
    assert running.seed("copies", []) == 0
    with pytest.raises(ValueError, match="JSON"):
        running.seed("copies", [{"n": float("nan")}])
    with pytest.raises(BadRequest, match="duplicate"):
        running.seed("copies", [{"_id": 1}, {"_id": 1}])


@pytest.mark.parametrize("module", ["bodies", "index", "order", "seed", "server", "store", "text"])
def test_the_examples_of_the_docstrings_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"connectome_dagster.local.{module}"))

    assert SimpleNamespace(failed=found.failed) == SimpleNamespace(failed=0)
