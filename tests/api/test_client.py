from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest

from connectome_dagster.api import client as client_module
from connectome_dagster.api import connections as connections_module
from connectome_dagster.api import endpoints
from connectome_dagster.api.client import CHUNK_BYTES, Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.api.retry import RetryPolicy
from connectome_dagster.errors import (
    AuthenticationError,
    CollectionNotFound,
    ConfigurationError,
    MalformedResponse,
    NoMatch,
    OutcomeUnknown,
    PayloadTooLarge,
    QueryError,
    ReadInterrupted,
    RequestRejected,
    ServiceUnavailable,
)
from tests.api.scripted import (
    ScriptedServer,
    Step,
    answer,
    chunked,
    cut,
    hang_up,
    raw,
    reset,
    serving,
    stall,
    stall_after,
    unused_port,
)

CREDENTIALS = Credentials("read-credential", "write-credential")
NOW = 1_700_000_000.0

READ = endpoints.read_with_query("movies", query={"amount": 1})
PLAIN_READ = endpoints.read("movies")
BATCH = endpoints.batch_write("movies", b'[{"amount":10}]')
INSERT = endpoints.write("movies", b'{"amount":10}')
UPDATE = endpoints.update("movies", {"sku": 1}, {"amount": 2}, upsert=False)
UPSERT = endpoints.update("movies", {"sku": 1}, {"amount": 2}, upsert=True)
DELETE_ALL = endpoints.batch_delete("movies", {"amount": 10})
DELETE_ONE = endpoints.delete("movies", {"amount": 10})

EVERY = [READ, PLAIN_READ, BATCH, INSERT, UPDATE, UPSERT, DELETE_ALL, DELETE_ONE]
READS = [call for call in EVERY if call.needs == "read"]
WRITES = [call for call in EVERY if call.needs == "write"]
REPEATABLE_WRITES = [UPDATE, DELETE_ALL]
ONCE = [BATCH, INSERT, UPSERT, DELETE_ONE]


def named(calls: list[Call]) -> Any:
    ids = [f"{call.verb}-{'repeatable' if call.repeatable else 'once'}" for call in calls]
    return pytest.mark.parametrize("call", calls, ids=ids)


class Sleeps(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


Connect = Callable[..., Client]


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
def connect(sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    made: list[Client] = []

    def connect(where: ScriptedServer | str, **settings: Any) -> Client:
        base_url = where if isinstance(where, str) else where.base_url
        seams = {"sleep": sleeps, "now": lambda: NOW, "random": lambda: 1.0}
        made.append(Client(base_url, **{**seams, **settings}))
        return made[-1]

    yield connect
    for client in made:
        client.close()


# --- what is sent


def test_a_call_is_sent_as_the_page_says(connect: Connect) -> None:
    with serving(answer(body=b"{}")) as server:
        connect(server).send(DELETE_ALL, CREDENTIALS)
    (request,) = server.requests
    assert request.method == "DELETE"
    assert request.target == "/collection/batchdelete/write-credential/movies"
    assert request.body == DELETE_ALL.body
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip"
    assert request.headers["user-agent"].startswith("connectome-dagster/")


def test_the_plain_read_has_no_body(connect: Connect) -> None:
    with serving(answer()) as server:
        connect(server).send(PLAIN_READ, CREDENTIALS)
    (request,) = server.requests
    assert (request.method, request.body) == ("GET", b"")
    assert request.target == "/collection/read/read-credential/movies"
    assert "content-type" not in request.headers


def test_credential_and_collection_are_percent_encoded(connect: Connect) -> None:
    with serving(answer()) as server:
        connect(server).send(endpoints.read("a?b%c"), Credentials(read="p#q%r\u00e9+&"))
    assert server.requests[0].target == "/collection/read/p%23q%25r%C3%A9%2B%26/a%3Fb%25c"


def test_a_path_in_front_of_the_calls_is_kept(connect: Connect) -> None:
    with serving(answer()) as server:
        connect(f"{server.base_url}/gateway/").send(PLAIN_READ, CREDENTIALS)
    assert server.requests[0].target == "/gateway/collection/read/read-credential/movies"


def test_an_answer_says_what_it_took(connect: Connect) -> None:
    with serving(answer(429), answer(201, b'{"inserted":1}')) as server:
        reply = connect(server).send(BATCH, CREDENTIALS)
    assert (reply.status, reply.body) == (201, b'{"inserted":1}')
    assert (reply.requests, reply.retries) == (2, 1)
    assert reply.bytes_sent == 2 * len(BATCH.body or b"")
    assert reply.bytes_received == 14
    assert "inserted" not in repr(reply)


@named(EVERY)
def test_without_its_credential_nothing_is_sent(call: Call, connect: Connect) -> None:
    other = Credentials(write="w") if call.needs == "read" else Credentials(read="r")
    with serving(answer()) as server:
        with pytest.raises(ConfigurationError, match=call.verb):
            connect(server).send(call, other)
    assert server.connections == 0


def test_an_empty_success_is_a_success(connect: Connect) -> None:
    with serving(raw(b"HTTP/1.1 204 No Content\r\n\r\n", keep=True)) as server:
        assert connect(server).send(DELETE_ALL, CREDENTIALS).body == b""


def test_the_body_of_a_write_may_take_longer_than_connecting(connect: Connect) -> None:
    # Larger than what the sockets buffer, to a server that starts to read late: the sending waits.
    started = threading.Event()
    body = b"[" + b" " * (64 << 20) + b"]"
    with serving(answer(body=b"{}")) as server:
        original = server._serve

        def late(connection: Any) -> None:
            started.wait(0.4)
            original(connection)

        server._serve = late  # type: ignore[method-assign]
        client = connect(server, connect_timeout=0.1, read_timeout=30.0)
        client.send(endpoints.batch_write("movies", body), CREDENTIALS)
    assert len(server.requests[0].body) == len(body)


# --- connections


def test_connections_are_reused(connect: Connect) -> None:
    with serving(answer(), answer(), chunked(b"[", b"]"), answer(404), answer()) as server:
        client = connect(server)
        client.send(READ, CREDENTIALS)
        client.send(BATCH, CREDENTIALS)
        with client.stream(READ, CREDENTIALS) as body:
            assert b"".join(body) == b"[]"
        with pytest.raises(CollectionNotFound):
            client.send(READ, CREDENTIALS)
        client.send(READ, CREDENTIALS)
    assert (server.connections, len(server.requests)) == (1, 5)


def test_many_threads_share_one_client_and_its_connections(connect: Connect) -> None:
    with serving(answer(body=lambda request: request.body)) as server:
        client = connect(server, pool_size=4)

        def one(number: int) -> bool:
            call = endpoints.read_with_query("movies", query={"n": number})
            return client.send(call, CREDENTIALS).body == call.body

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(one, range(200)))
    assert len(server.requests) == 200
    assert server.connections <= 4


def test_a_body_that_was_not_read_to_its_end_gives_its_place_back(connect: Connect) -> None:
    with serving(answer(body=b"[" * 3_000_000)) as server:
        client = connect(server, pool_size=1, connect_timeout=5.0)
        for _ in range(3):
            with client.stream(READ, CREDENTIALS) as body:
                next(body)
        with suppress(ZeroDivisionError), client.stream(READ, CREDENTIALS) as body:
            raise ZeroDivisionError
        assert len(client.send(READ, CREDENTIALS).body) == 3_000_000
    assert server.connections == 5


def test_a_pool_without_a_free_place_is_waited_for_and_then_reported(
    connect: Connect, sleeps: Sleeps
) -> None:
    with serving(answer(body=b"[" * 3_000_000)) as server:
        client = connect(
            server, pool_size=1, connect_timeout=0.05, retry=RetryPolicy(max_attempts=2)
        )
        with client.stream(READ, CREDENTIALS):
            with pytest.raises(ServiceUnavailable, match="all 1 connections"):
                client.send(BATCH, CREDENTIALS)
    assert len(server.requests) == 1
    assert len(sleeps) == 1


def test_a_write_does_not_ride_on_a_connection_that_idled(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "MAX_IDLE_SECONDS", -1.0)
    with serving(answer()) as server:
        client = connect(server)
        for call in (READ, READ, BATCH, DELETE_ALL):
            client.send(call, CREDENTIALS)
    assert server.connections == 2


def test_a_connection_that_the_service_closed_meanwhile_is_replaced(connect: Connect) -> None:
    closing = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", keep=False)
    with serving(closing) as server:
        client = connect(server)
        client.send(READ, CREDENTIALS)
        wait_for_close(client)
        client.send(BATCH, CREDENTIALS)
    assert (server.connections, len(server.requests)) == (2, 2)


def wait_for_close(client: Client) -> None:
    """Wait until the service's end of an idle connection has reached this side."""
    (idle,) = client._connections._idle
    assert idle.receive(1) == b""


def test_a_closed_client_says_so(connect: Connect) -> None:
    with serving(answer()) as server:
        client = connect(server)
        client.send(READ, CREDENTIALS)
        client.close()
        with pytest.raises(ConfigurationError, match="client is closed"):
            client.send(READ, CREDENTIALS)
    assert len(server.requests) == 1


# --- nothing was sent


@named(EVERY)
def test_a_refused_connection_is_tried_again_for_every_call(
    call: Call, connect: Connect, sleeps: Sleeps
) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        connect(f"http://127.0.0.1:{unused_port()}").send(call, CREDENTIALS)
    assert sleeps == [0.5, 1.0, 2.0, 4.0]
    for part in (call.verb, "'movies'", "Nothing was sent", "refused", "attempt 5"):
        assert part in str(caught.value)


def test_a_host_without_a_name_is_reported_as_such(connect: Connect) -> None:
    client = connect("http://nowhere.invalid", retry=RetryPolicy(max_attempts=1))
    with pytest.raises(ServiceUnavailable, match="host name is not known"):
        client.send(BATCH, CREDENTIALS)


# --- the service pushes back


@named(EVERY)
@pytest.mark.parametrize(
    ("retry_after", "waits"),
    [(None, 0.5), ("3", 3.0), (formatdate(NOW + 7, usegmt=True), 7.0), ("nonsense", 0.5)],
    ids=["absent", "seconds", "date", "nonsense"],
)
def test_a_429_is_waited_out_for_every_call(
    call: Call, retry_after: str | None, waits: float, connect: Connect, sleeps: Sleeps
) -> None:
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    with serving(answer(429, b"slow down", **headers), answer()) as server:
        assert connect(server).send(call, CREDENTIALS).retries == 1
    assert sleeps == [waits]


@named(EVERY)
def test_a_429_that_stays_is_unavailable_and_nothing_happened(call: Call, connect: Connect) -> None:
    with serving(answer(429, Retry_After="2")) as server:
        with pytest.raises(ServiceUnavailable, match="Nothing happened") as caught:
            connect(server).send(call, CREDENTIALS)
    assert len(server.requests) == 5
    assert (caught.value.status, caught.value.retry_after) == (429, 2.0)


@named([READ, BATCH])
def test_a_wait_beyond_patience_is_handed_on_instead_of_slept(
    call: Call, connect: Connect, sleeps: Sleeps
) -> None:
    with serving(answer(429, Retry_After="3600")) as server:
        with pytest.raises(ServiceUnavailable, match="3600 s") as caught:
            connect(server).send(call, CREDENTIALS)
    assert caught.value.retry_after == 3600.0
    assert sleeps == []
    assert len(server.requests) == 1


@named([*READS, *REPEATABLE_WRITES])
def test_a_503_obeys_retry_after_where_repeating_is_harmless(
    call: Call, connect: Connect, sleeps: Sleeps
) -> None:
    with serving(answer(503, Retry_After="4"), answer(500), answer()) as server:
        assert connect(server).send(call, CREDENTIALS).requests == 3
    assert sleeps == [4.0, 1.0]


# --- sent, and then?

LOSSES: dict[str, tuple[Step, str]] = {
    "500": (answer(500, b"oops"), "500"),
    "503": (answer(503, Retry_After="1"), "503"),
    "408": (answer(408), "408"),
    "no answer": (hang_up, "without an answer"),
    "reset": (reset, "reset"),
    "read timeout": (stall, "nothing more came within 0.2 s"),
    "cut": (cut(b'{"insert'), "before the end"),
    "cut in a chunk": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"),
        "end",
    ),
    "cut between chunks": (chunked(b"{}", end=False), "end"),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "not an HTTP answer"),
    "damaged compression": (answer(body=b"nonsense", Content_Encoding="gzip"), "compression"),
}


def patience(said: str) -> float:
    """Little where it is to run out, and plenty elsewhere: machines can be busy."""
    return 0.2 if said.startswith("nothing more came") else 20.0


losses = pytest.mark.parametrize(("step", "said"), LOSSES.values(), ids=LOSSES.keys())


@losses
@named(ONCE)
def test_a_write_that_repeating_could_harm_is_sent_once(
    call: Call, step: Step, said: str, connect: Connect, sleeps: Sleeps
) -> None:
    with serving(step, answer()) as server:
        with pytest.raises(OutcomeUnknown, match=said) as caught:
            connect(server, read_timeout=patience(said)).send(call, CREDENTIALS)
    assert len(server.requests) == 1
    assert sleeps == []
    for part in (call.verb, "'movies'", "may have happened", "read back"):
        assert part in str(caught.value)


@losses
@named([*READS, *REPEATABLE_WRITES])
def test_what_can_be_repeated_is_repeated(
    call: Call, step: Step, said: str, connect: Connect, sleeps: Sleeps
) -> None:
    with serving(step, answer()) as server:
        reply = connect(server, read_timeout=patience(said)).send(call, CREDENTIALS)
    assert (reply.requests, reply.retries, len(sleeps)) == (2, 1, 1)


@named(READS)
def test_a_read_whose_attempts_are_spent_is_unavailable(call: Call, connect: Connect) -> None:
    with serving(answer(500, b"oops")) as server:
        with pytest.raises(ServiceUnavailable, match="oops") as caught:
            connect(server).send(call, CREDENTIALS)
    assert len(server.requests) == 5
    assert (caught.value.status, caught.value.body) == (500, "oops")


@named(REPEATABLE_WRITES)
def test_a_repeatable_write_whose_attempts_are_spent_is_unknown(
    call: Call, connect: Connect
) -> None:
    with serving(answer(502)) as server:
        with pytest.raises(OutcomeUnknown, match="repeating it is harmless"):
            connect(server).send(call, CREDENTIALS)
    assert len(server.requests) == 5


@pytest.mark.parametrize("then", [401, 404, 429])
def test_a_doubt_stays_when_a_later_attempt_is_turned_down(then: int, connect: Connect) -> None:
    with serving(hang_up, answer(then)) as server:
        with pytest.raises(OutcomeUnknown, match="earlier attempt may have happened") as caught:
            connect(server).send(DELETE_ALL, CREDENTIALS)
    assert caught.value.status == then


# --- the service says no


@pytest.mark.parametrize(
    ("status", "call", "kind", "hint"),
    [
        (401, READ, AuthenticationError, "credential"),
        (403, BATCH, AuthenticationError, "write credential"),
        (404, READ, CollectionNotFound, "collection id"),
        (404, UPSERT, CollectionNotFound, "collection id"),
        (404, UPDATE, NoMatch, "or there is no such collection"),
        (413, BATCH, PayloadTooLarge, "send less"),
        (400, READ, QueryError, "query"),
        (422, DELETE_ALL, QueryError, "query"),
        (400, BATCH, RequestRejected, "mend the request"),
        (422, INSERT, RequestRejected, "mend the request"),
        (405, INSERT, RequestRejected, "another method: check base_url"),
        (409, UPDATE, RequestRejected, "mend the request"),
        (302, READ, RequestRejected, "base_url"),
        (308, BATCH, RequestRejected, "base_url"),
    ],
)
def test_a_refusal_says_what_to_mend(
    status: int, call: Call, kind: type[RequestRejected], hint: str, connect: Connect
) -> None:
    elsewhere = "http://elsewhere.example/collection/read/read-credential/movies"
    with serving(answer(status, b"because", Location=elsewhere)) as server:
        with pytest.raises(RequestRejected, match=hint) as caught:
            connect(server).send(call, CREDENTIALS)
    assert len(server.requests) == 1
    assert type(caught.value) is kind
    assert (caught.value.verb, caught.value.collection) == (call.verb, "movies")
    assert (caught.value.status, caught.value.body) == (status, "because")
    for part in (call.verb, "'movies'", str(status), "because"):
        assert part in str(caught.value)


def test_the_status_of_no_match_is_a_setting(connect: Connect) -> None:
    with serving(answer(500), answer(404)) as server:
        client = connect(server, no_match_status=500)
        with pytest.raises(NoMatch) as caught:
            client.send(UPDATE, CREDENTIALS)
        with pytest.raises(CollectionNotFound):
            client.send(UPDATE, CREDENTIALS)
    assert "no such collection" not in str(caught.value)


def test_a_long_refusal_is_shortened(connect: Connect) -> None:
    with serving(answer(400, b"x" * 2_000_000)) as server:
        with pytest.raises(QueryError) as caught:
            connect(server).send(READ, CREDENTIALS)
    assert len(caught.value.body) <= 501
    assert caught.value.body.endswith("…")


def test_a_compressed_refusal_is_readable(connect: Connect) -> None:
    body = gzip.compress("unknown operator: $größer".encode())
    with serving(answer(400, body, Content_Encoding="gzip")) as server:
        with pytest.raises(QueryError, match=r"unknown operator: \$größer"):
            connect(server).send(READ, CREDENTIALS)


# --- the service says yes and does not mean it (U14)

PAGES = {
    "by type": answer(body=b"Please log in", content_type="text/html; charset=utf-8"),
    "by look": answer(body=b" \n\xef\xbb\xbf<!doctype html>Please log in"),
}
pages = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())


@pages
@named(READS)
def test_a_web_page_is_not_documents(page: Step, call: Call, connect: Connect) -> None:
    with serving(page) as server:
        client = connect(server)
        with pytest.raises(MalformedResponse, match="Please log in"):
            client.send(call, CREDENTIALS)
        with pytest.raises(MalformedResponse, match="Please log in"):
            with client.stream(call, CREDENTIALS):
                pytest.fail("there is nothing to stream")
    assert len(server.requests) == 2


@pages
@named(WRITES)
def test_a_web_page_does_not_say_that_a_write_happened(
    page: Step, call: Call, connect: Connect
) -> None:
    with serving(page) as server:
        with pytest.raises(OutcomeUnknown, match="Please log in"):
            connect(server).send(call, CREDENTIALS)
    assert len(server.requests) == 1


@named(WRITES)
def test_an_error_with_status_200_does_not_say_that_a_write_happened(
    call: Call, connect: Connect
) -> None:
    with serving(answer(body=b'{"error": "disk full"}'), answer(body=b'{"error": null}')) as server:
        client = connect(server)
        with pytest.raises(OutcomeUnknown, match="disk full"):
            client.send(call, CREDENTIALS)
        assert client.send(call, CREDENTIALS).status == 200


def test_a_compression_that_was_not_asked_for_is_reported(connect: Connect) -> None:
    with serving(answer(body=b"?", Content_Encoding="br")) as server:
        with pytest.raises(MalformedResponse, match="compression"):
            connect(server).send(READ, CREDENTIALS)


def test_more_than_send_holds_is_reported_not_held(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1 << 20)
    with serving(answer(body=b"x" * ((1 << 20) + 1))) as server:
        with pytest.raises(MalformedResponse, match="more than 1 MiB"):
            connect(server).send(READ, CREDENTIALS)


# --- streaming


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
@pytest.mark.parametrize("way", ["length", "chunked", "gzip", "until close"])
def test_a_stream_is_whole_and_in_bounded_pieces(size: int, way: str, connect: Connect) -> None:
    content = (b"[1234567]" * (size // 9 + 1))[:size]
    steps = {
        "length": answer(body=content),
        "chunked": chunked(*filter(None, (content[:7], content[7:]))),
        "gzip": answer(body=gzip.compress(content), Content_Encoding="gzip"),
        "until close": raw(b"HTTP/1.1 200 OK\r\n\r\n" + content),
    }
    with serving(steps[way]) as server:
        with connect(server).stream(READ, CREDENTIALS) as body:
            pieces = list(body)
            assert list(body) == []
    assert b"".join(pieces) == content
    assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)
    assert (body.bytes_received, body.requests, body.retries) == (size, 1, 0)


def test_a_body_that_unpacks_to_much_stays_in_bounded_pieces(connect: Connect) -> None:
    size = 50 * CHUNK_BYTES
    members = gzip.compress(b" " * size) + gzip.compress(b"[]")
    with serving(answer(body=members, Content_Encoding="gzip")) as server:
        with connect(server).stream(READ, CREDENTIALS) as body:
            sizes = [len(piece) for piece in body]
    assert sum(sizes) == size + 2
    assert max(sizes) <= CHUNK_BYTES


def test_pieces_arrive_before_the_body_ends(connect: Connect) -> None:
    with serving(stall_after(b'[{"a":1},')) as server:
        with connect(server, read_timeout=30.0).stream(READ, CREDENTIALS) as body:
            assert next(body) == b'[{"a":1},'


BREAKS: dict[str, tuple[Step, str]] = {
    "cut": (cut(b"[1,2"), "before the end"),
    "cut in a chunk": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[1,2"),
        "before the end",
    ),
    "cut between chunks": (chunked(b"[1,2", end=False), "before the end"),
    "stall": (stall_after(b"[1,2"), "nothing more came"),
    "short compression": (
        answer(body=gzip.compress(b"[1,2,3]" * 99)[:-9], Content_Encoding="gzip"),
        "compression",
    ),
}


@pytest.mark.parametrize(("step", "said"), BREAKS.values(), ids=BREAKS.keys())
def test_a_stream_that_breaks_is_interrupted_and_not_repeated(
    step: Step, said: str, connect: Connect
) -> None:
    with serving(step) as server:
        with connect(server, read_timeout=patience(said)).stream(READ, CREDENTIALS) as body:
            with pytest.raises(ReadInterrupted, match=said) as caught:
                list(body)
            assert body.bytes_received > 0
            with pytest.raises(ReadInterrupted, match=said):
                next(body)
    assert len(server.requests) == 1
    for part in (READ.verb, "'movies'", f"{body.bytes_received} bytes"):
        assert part in str(caught.value)
    caught.value.rows = 2
    assert caught.value.rows == 2


def test_a_stream_that_breaks_before_its_first_byte_is_asked_for_again(connect: Connect) -> None:
    with serving(cut(b""), answer(503), answer(body=b"[]")) as server:
        with connect(server).stream(READ, CREDENTIALS) as body:
            assert b"".join(body) == b"[]"
    assert (body.requests, body.retries) == (3, 2)


def test_a_stream_that_is_closed_early_is_not_taken_for_whole(connect: Connect) -> None:
    with serving(answer(body=b"[" * 3_000_000)) as server:
        with connect(server).stream(READ, CREDENTIALS) as body:
            next(body)
        with pytest.raises(ReadInterrupted, match="closed before its end"):
            next(body)


@named(WRITES)
def test_a_write_is_not_streamed(call: Call, connect: Connect) -> None:
    with serving(answer()) as server:
        with pytest.raises(ConfigurationError, match="write"):
            with connect(server).stream(call, CREDENTIALS):
                pytest.fail("there is nothing to stream")
    assert server.connections == 0


# --- settings


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "app.example",
        "app.example:80/x",
        "ftp://app.example",
        "https://",
        "https:///path",
        "https://user:hidden@app.example",
        "https://app.example?hidden=1",
        "https://app.example/#hidden",
        "https://app.example/collection/read/hidden/movies",
        "https://app.example:port",
        "https://app.example:99999",
        "https://[::1",
        "https://app.example/\n",
        " https://app.example",
        None,
        b"https://app.example",
        type("EnvVar", (str,), {})("https://app.example"),
    ],
)
def test_a_wrong_base_url_is_refused_without_showing_it(base_url: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        Client(base_url)
    assert "hidden" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "settings",
    [
        {"connect_timeout": 0},
        {"read_timeout": -1.0},
        {"read_timeout": float("nan")},
        {"read_timeout": None},
        {"connect_timeout": 1e9},
        {"pool_size": 0},
        {"pool_size": 2.5},
        {"no_match_status": 200},
        {"no_match_status": "404"},
        {"compress_requests": 1},
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Client("http://app.example", **settings)


def test_a_proxy_of_the_environment_is_used_with_its_login(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(answer(body=b"[]")) as proxy:
        address = proxy.base_url.replace("://", "://user:pass%20word@")
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("http_proxy", address)
        connect("http://app.example").send(READ, CREDENTIALS)
    (request,) = proxy.requests
    target = "http://app.example/collection/readwithquery/read-credential/movies"
    assert request.target == target
    assert request.headers["host"] == "app.example"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="


def test_no_proxy_is_obeyed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer()) as server, serving(answer()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        connect(server).send(READ, CREDENTIALS)
    assert (server.connections, proxy.connections) == (1, 0)


def test_a_proxy_that_is_down_is_named_as_such_without_its_password(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:hidden@127.0.0.1:{unused_port()}")
    with pytest.raises(ServiceUnavailable, match="through the proxy") as caught:
        connect("http://app.example").send(BATCH, CREDENTIALS)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("address", ["socks5://hidden:1080", "http://:hidden", "http://[hidden"])
def test_a_proxy_that_cannot_be_used_is_refused_without_showing_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConfigurationError, match="NO_PROXY") as caught:
        Client("http://app.example")
    assert "hidden" not in str(caught.value)


# --- pace


def test_writes_of_many_threads_start_few_at_a_time_and_become_more(connect: Connect) -> None:
    now = 0
    seen: list[int] = []
    lock = threading.Lock()
    together = threading.Barrier(4)

    def counting(connection: Any, request: Any, over: threading.Event) -> bool:
        nonlocal now
        with lock:
            now += 1
            seen.append(now)
        together.wait(10)
        with lock:
            now -= 1
        return answer(body=b"{}")(connection, request, over)

    with serving(counting) as server:
        client = connect(server, pool_size=12)
        with ThreadPoolExecutor(12) as threads:
            list(threads.map(lambda _: client.send(UPSERT, CREDENTIALS), range(96)))
    assert max(seen[:4]) == 4
    assert max(seen) > 4


@pytest.mark.parametrize(
    "push_back", [answer(429), answer(503), stall], ids=["429", "503", "timeout"]
)
def test_a_service_that_pushes_back_is_sent_half_as_many_writes(
    push_back: Step, connect: Connect
) -> None:
    with serving(push_back, answer(body=b"{}")) as server:
        client = connect(server, pool_size=8, read_timeout=0.2)
        with suppress(OutcomeUnknown):
            client.send(BATCH, CREDENTIALS)
        assert client._gate.pace.level == 2


@pytest.mark.parametrize("step", [answer(400), hang_up, answer(500)], ids=["400", "cut", "500"])
def test_what_is_no_push_back_changes_nothing(step: Step, connect: Connect) -> None:
    with serving(step) as server:
        client = connect(server, pool_size=8)
        with suppress(OutcomeUnknown, RequestRejected):
            client.send(BATCH, CREDENTIALS)
        assert (client._gate.pace.level, client._gate.pace.flying) == (4, 0)


@named([READ, BATCH])
def test_when_one_is_asked_to_wait_the_others_wait_too(
    call: Call, connect: Connect, sleeps: Sleeps
) -> None:
    with serving(answer(503, Retry_After="30"), answer(body=b"{}")) as server:
        client = connect(server)
        with pytest.raises(OutcomeUnknown) as caught:
            client.send(UPSERT, CREDENTIALS)
        assert caught.value.retry_after == 30.0
        assert sleeps == []
        client.send(call, CREDENTIALS)
    assert len(sleeps) == 1
    assert 0 < 30.0 - sleeps[0] < 20


def test_too_many_requests_are_a_wait_for_all_also_if_the_service_does_not_say_how_long(
    connect: Connect, sleeps: Sleeps
) -> None:
    with serving(answer(429), answer(body=b"{}")) as server:
        client = connect(server, retry=RetryPolicy(max_attempts=1, base_delay=20.0))
        with pytest.raises(ServiceUnavailable):
            client.send(UPSERT, CREDENTIALS)
        client.send(UPSERT, CREDENTIALS)
    assert len(sleeps) == 1
    assert 0 < 20.0 - sleeps[0] < 15


def test_a_service_that_failed_once_is_not_waited_for_by_others(
    connect: Connect, sleeps: Sleeps
) -> None:
    with serving(answer(503), answer(body=b"{}")) as server:
        client = connect(server, retry=RetryPolicy(base_delay=20.0))
        with pytest.raises(OutcomeUnknown):
            client.send(UPSERT, CREDENTIALS)
        client.send(UPSERT, CREDENTIALS)
    assert sleeps == []


def test_nobody_waits_longer_than_anyone_would(connect: Connect, sleeps: Sleeps) -> None:
    with serving(answer(429, Retry_After="3600"), answer(body=b"{}")) as server:
        client = connect(server)
        with pytest.raises(ServiceUnavailable):
            client.send(UPSERT, CREDENTIALS)
        client.send(UPSERT, CREDENTIALS)
    assert sleeps == []


# --- what goes along with a write


def test_the_key_of_a_write_goes_along_with_every_attempt(connect: Connect) -> None:
    call = endpoints.batch_write("movies", b"[]", idempotency_key="7f-01")
    with serving(answer(429), answer(body=b"{}")) as server:
        connect(server).send(call, CREDENTIALS)
        connect(server).send(BATCH, CREDENTIALS)
    assert [request.headers.get("idempotency-key") for request in server.requests] == [
        "7f-01",
        "7f-01",
        None,
    ]


def test_bodies_are_compressed_if_asked_for_and_worth_it(connect: Connect) -> None:
    large = endpoints.batch_write("movies", b"[" + b'{"amount":10},' * 1000 + b"{}]")
    with serving(answer(body=b"{}")) as server:
        reply = connect(server, compress_requests=True).send(large, CREDENTIALS)
        connect(server, compress_requests=True).send(BATCH, CREDENTIALS)
        connect(server).send(large, CREDENTIALS)
    packed, small, plain = server.requests
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == large.body
    assert reply.bytes_sent == len(packed.body) < len(large.body or b"") / 2
    assert (small.body, plain.body) == (BATCH.body, large.body)
    assert "content-encoding" not in {**small.headers, **plain.headers}


@pytest.mark.parametrize("status", [400, 415, 422])
def test_a_service_that_takes_no_compressed_bodies_is_explained(
    status: int, connect: Connect
) -> None:
    large = endpoints.batch_write("movies", b"[" + b'{"amount":10},' * 1000 + b"{}]")
    with serving(answer(status)) as server:
        with pytest.raises(RequestRejected, match="compress_requests=False"):
            connect(server, compress_requests=True).send(large, CREDENTIALS)
        with pytest.raises(RequestRejected) as caught:
            connect(server).send(large, CREDENTIALS)
    assert "compress" not in str(caught.value)
