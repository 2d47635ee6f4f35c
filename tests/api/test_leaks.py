"""Whatever goes wrong, and whoever listens, the credential is not to be seen."""

from __future__ import annotations

import base64
import gc
import gzip
import http.client
import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.api.retry import RetryPolicy
from connectome_dagster.errors import ConnectomeError
from tests.api.scripted import (
    Request,
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

SECRET = 'r3ad&Cred"ential%7Eé+x'
CREDENTIALS = Credentials(read=SECRET, write=SECRET[::-1])
SPELLINGS = [
    spelling
    for secret in CREDENTIALS.secrets
    for spelling in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], secret[:8])
]

CALLS = [
    endpoints.read("movies"),
    endpoints.read_with_query("movies", query={"a": 1}),
    endpoints.batch_write("movies", b"[]"),
    endpoints.batch_delete("movies", {"a": 1}),
]


def echo(request: Request) -> bytes:
    """Everything that a careless service might say about a request."""
    plain = SECRET if "read" in request.target else SECRET[::-1]
    said = {"error": f"no access with {plain}", "path": request.target, "again": plain * 300}
    return json.dumps(said).encode() + request.target.encode() + plain.encode()


def cut_in_half(request: Request) -> bytes:
    """A body whose credential stands across the bound of what is read."""
    return b"x" * 4080 + echo(request)[len('{"error": "no access with ') :]


def echo_and_cut(status: int) -> Step:
    def step(connection: Any, request: Request, over: Any) -> bool:
        return cut(echo(request)[:70], status=status)(connection, request, over)

    return step


def redirect(connection: Any, request: Request, over: Any) -> bool:
    elsewhere = f"https://elsewhere.example{request.target}"
    return answer(302, echo, Location=elsewhere)(connection, request, over)


def bad_header(connection: Any, request: Request, _over: Any) -> bool:
    target = request.target.encode()
    connection.sendall(
        b"HTTP/1.1 500 No\r\nA: b\r\nno header " + target + b"\r\nContent-Length: 0\r\n\r\n"
    )
    return False


def bad_status(connection: Any, request: Request, _over: Any) -> bool:
    connection.sendall(b"HTTP " + request.target.encode() + b"\r\n\r\n")
    return False


def bad_chunk(connection: Any, request: Request, _over: Any) -> bool:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"
        + request.target.encode()
        + b"\r\n"
    )
    return False


WAYS: dict[str, Step] = {
    "200 page": answer(body=lambda request: b"<p>" + echo(request), content_type="text/html"),
    "302": redirect,
    "400": answer(400, echo),
    "401": answer(401, echo),
    "403": answer(403, echo),
    "404": answer(404, echo),
    "404 gzip": answer(404, lambda r: gzip.compress(echo(r)), Content_Encoding="gzip"),
    "404 half": answer(404, cut_in_half),
    "404 cut": echo_and_cut(404),
    "413": answer(413, echo),
    "429": answer(429, echo),
    "429 long": answer(429, echo, Retry_After="9999"),
    "500": answer(500, echo),
    "503": answer(503, echo),
    "timeout": stall,
    "no answer": hang_up,
    "reset": reset,
    "cut": cut(b"[1,2"),
    "cut at once": cut(b""),
    "cut chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[1"),
    "cut between chunks": chunked(b"[1,2", end=False),
    "stall midway": stall_after(b"[1,2"),
    "bad header": bad_header,
    "bad status": bad_status,
    "bad chunk": bad_chunk,
}


def send(client: Client, call: Call) -> None:
    client.send(call, CREDENTIALS)


def stream(client: Client, call: Call) -> None:
    with client.stream(call, CREDENTIALS) as body:
        list(body)


@pytest.fixture
def everyone_listens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    with caplog.at_level(logging.DEBUG):
        yield


def fail(base_url: str, call: Call, way: Callable[[Client, Call], None]) -> ConnectomeError:
    client = Client(
        base_url,
        read_timeout=0.1,
        retry=RetryPolicy(max_attempts=2),
        sleep=lambda _: None,
    )
    try:
        way(client, call)
    except ConnectomeError as error:
        return error
    finally:
        client.close()
    pytest.fail("it went well")


def look(error: ConnectomeError, *more: Any) -> str:
    """Everything that can be seen of an error."""
    assert error.__cause__ is None
    assert error.__context__ is None
    views = [str(error), repr(error), error.args, vars(error), more]
    return "\n".join([*map(repr, views), *map(str, views), *traceback.format_exception(error)])


def assert_clean(seen: str) -> None:
    for spelling in SPELLINGS:
        assert spelling not in seen


def records(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(f"{record.getMessage()} {vars(record)!r}" for record in caplog.records)


@pytest.mark.usefixtures("everyone_listens")
@pytest.mark.parametrize("step", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize(
    ("call", "way"),
    [
        *((call, send) for call in CALLS),
        *((call, stream) for call in CALLS if call.needs == "read"),
    ],
    ids=lambda part: getattr(part, "verb", getattr(part, "__name__", "")),
)
def test_the_credential_is_nowhere_to_be_seen(
    call: Call,
    step: Step,
    way: Callable[[Client, Call], None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serving(step) as server:
        error = fail(server.base_url, call, way)
    assert server.requests
    assert SECRET not in repr(call)
    assert_clean(look(error) + records(caplog) + "".join(capfd.readouterr()))


@pytest.mark.usefixtures("everyone_listens")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.verb)
def test_the_credential_is_not_seen_when_nobody_listens_at_the_other_end(
    call: Call, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    error = fail(f"http://127.0.0.1:{unused_port()}", call, send)
    assert_clean(look(error) + records(caplog) + "".join(capfd.readouterr()))


@pytest.mark.usefixtures("everyone_listens")
def test_the_credential_is_not_seen_when_all_goes_well(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(answer(body=b"[]")) as server:
        client = Client(server.base_url)
        reply = client.send(CALLS[1], CREDENTIALS)
        with client.stream(CALLS[0], CREDENTIALS) as body:
            list(body)
        seen = [client, reply, body, CREDENTIALS, vars(client), vars(body)]
        client.close()
    assert "read of collection 'movies': status 200" in records(caplog)
    assert_clean(repr(seen) + str(seen) + records(caplog) + "".join(capfd.readouterr()))


@pytest.mark.usefixtures("everyone_listens")
@pytest.mark.parametrize("step", [answer(401, echo), hang_up, reset], ids=["401", "none", "reset"])
def test_the_credential_is_not_seen_through_a_proxy(
    step: Step,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serving(step) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        monkeypatch.setenv("no_proxy", "")
        error = fail("http://app.example", CALLS[1], send)
    assert quote(SECRET, safe="") in proxy.requests[0].target
    assert_clean(look(error) + records(caplog) + "".join(capfd.readouterr()))


@pytest.mark.parametrize("method", ["sendall", "recv"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.verb)
def test_the_end_of_the_program_midway_shows_the_credential_to_no_tool(
    call: Call, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*given: object) -> None:
        del given
        raise KeyboardInterrupt

    with serving(answer(body=b"[]")) as server:
        client = Client(server.base_url)
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, method, end)
            with pytest.raises(KeyboardInterrupt) as caught:
                client.send(call, CREDENTIALS)
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        seen = "".join(
            f"{name}={value}"
            for frame in told.stack
            if "connectome_dagster" in frame.filename
            for name, value in (frame.locals or {}).items()
        )
        client.close()
    assert "flight=" in seen
    assert_clean(seen)


def test_the_sweep_would_find_a_leak() -> None:
    for leak in SPELLINGS:
        with pytest.raises(AssertionError):
            assert_clean(look(ConnectomeError(f"at /read/{leak}/movies")))


# http.client of Python 3.10 leaves a file of the proxy's answer to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("everyone_listens")
@pytest.mark.parametrize("step", [answer(407, echo), hang_up], ids=["407", "none"])
def test_neither_credential_nor_password_is_seen_when_a_proxy_makes_no_tunnel(
    step: Step,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    login = base64.b64encode(b"user:h1dden-word").decode()
    with serving(step) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url.replace("://", "://user:h1dden-word@"))
        monkeypatch.setenv("https_proxy", proxy.base_url.replace("://", "://user:h1dden-word@"))
        monkeypatch.setenv("no_proxy", "")
        error = fail("https://app.example", CALLS[1], send)
        gc.collect()
    assert proxy.requests[0].headers["proxy-authorization"] == f"Basic {login}"
    seen = look(error) + records(caplog) + "".join(capfd.readouterr())
    assert_clean(seen)
    assert "h1dden" not in seen
    assert login not in seen


@pytest.mark.usefixtures("everyone_listens")
def test_what_a_client_is_made_of_shows_no_login_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:h1dden-word@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")
    client = Client("http://app.example")
    seen = f"{client!r} {vars(client)!r} {vars(client._connections)!r} {client._way.connect!r}"
    client.close()
    assert "proxy.example" in seen
    assert "h1dden" not in seen
    assert base64.b64encode(b"user:h1dden-word").decode() not in seen
