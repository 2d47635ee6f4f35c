from __future__ import annotations

import gc
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.retry import RetryPolicy
from connectome_dagster.errors import ConfigurationError, OutcomeUnknown, ServiceUnavailable
from tests.api.scripted import Request, ScriptedServer, answer, hang_up, serving, stall

CREDENTIALS = Credentials("read-credential", "write-credential")
READ = endpoints.read("movies")
BATCH = endpoints.batch_write("movies", b"[]")

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl to make a certificate"
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file with a key and the certificate of 127.0.0.1 that it signed itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, signed, both = (folder / name for name in ("key.pem", "signed.pem", "both.pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", signed),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    both.write_bytes(key.read_bytes() + signed.read_bytes())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def server(tls: ssl.SSLContext) -> Iterator[ScriptedServer]:
    with serving(answer(), tls=tls) as server:
        yield server


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_certificates_of_the_environment_are_trusted_and_the_connection_reused(
    variable: str, server: ScriptedServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    client = Client(server.base_url)
    client.send(READ, CREDENTIALS)
    client.send(BATCH, CREDENTIALS)
    client.close()
    assert [request.target for request in server.requests] == [
        "/collection/read/read-credential/movies",
        "/collection/batchwrite/write-credential/movies",
    ]
    assert server.connections == 1


def test_an_unknown_certificate_is_not_trusted_and_nothing_is_sent(server: ScriptedServer) -> None:
    waits: list[float] = []
    client = Client(server.base_url, sleep=waits.append)
    with pytest.raises(ConfigurationError, match="REQUESTS_CA_BUNDLE") as caught:
        client.send(BATCH, CREDENTIALS)
    client.close()
    assert server.requests == []
    assert waits == []
    assert caught.value.__context__ is None
    assert "Nothing was sent" in str(caught.value)


def test_a_certificate_of_another_host_is_not_trusted(
    server: ScriptedServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    client = Client(server.base_url.replace("127.0.0.1", "localhost"))
    with pytest.raises(ConfigurationError, match="not trusted"):
        client.send(BATCH, CREDENTIALS)
    client.close()
    assert server.requests == []


def test_a_service_without_tls_is_reported_before_anything_is_sent() -> None:
    with serving(answer()) as server:
        client = Client(
            server.base_url.replace("http:", "https:"),
            connect_timeout=0.2,
            retry=RetryPolicy(max_attempts=1),
        )
        with pytest.raises(ServiceUnavailable, match="Nothing was sent"):
            client.send(BATCH, CREDENTIALS)
        client.close()
    assert server.requests == []


@pytest.mark.parametrize("step", [hang_up, stall], ids=["no answer", "stall"])
def test_a_loss_behind_tls_is_of_unknown_outcome(
    step: object,
    tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(step, tls=tls) as server:  # type: ignore[arg-type]
        client = Client(server.base_url, read_timeout=0.2)
        with pytest.raises(OutcomeUnknown):
            client.send(BATCH, CREDENTIALS)
        client.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [None, b"not a certificate"])
def test_a_bundle_that_is_none_is_reported_with_its_variable(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with pytest.raises(ConfigurationError, match="REQUESTS_CA_BUNDLE") as caught:
        Client("https://app.example")
    assert caught.value.__context__ is None


# http.client of Python 3.10 leaves a file of the proxy's answer to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_tunnel_that_the_proxy_refuses_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(407, b"who are you?")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
        client = Client("https://app.example", retry=RetryPolicy(max_attempts=1))
        with pytest.raises(ServiceUnavailable, match="refused a tunnel with status 407"):
            client.send(BATCH, CREDENTIALS)
        client.close()
        gc.collect()
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("CONNECT", "app.example:443")
    ]


def tunnel(connection: socket.socket, request: Request, _over: threading.Event) -> bool:
    """A proxy's answer to CONNECT, and everything that then passes, both ways."""
    host, _, port = request.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as onward:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

        def back() -> None:
            with suppress(OSError):
                while data := onward.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        with suppress(OSError):
            while data := connection.recv(65536):
                onward.sendall(data)
        with suppress(OSError):
            onward.shutdown(socket.SHUT_RDWR)
    return False


def test_a_tunnel_through_a_proxy_is_logged_in_to_made_once_and_hides_the_path(
    server: ScriptedServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url.replace("://", "://user:pass%20word@"))
        client = Client(server.base_url)
        client.send(READ, CREDENTIALS)
        client.send(BATCH, CREDENTIALS)
        client.close()
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("CONNECT", server.base_url.removeprefix("https://"))
    ]
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
    assert server.connections == 1
    assert [request.target for request in server.requests] == [
        "/collection/read/read-credential/movies",
        "/collection/batchwrite/write-credential/movies",
    ]
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_behind_tls_forwards_what_goes_to_http(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(answer(), tls=tls) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        client = Client("http://app.example")
        client.send(READ, CREDENTIALS)
        client.close()
    assert [request.target for request in proxy.requests] == [
        "http://app.example/collection/read/read-credential/movies"
    ]


def test_a_tunnel_in_a_tunnel_reaches_the_service(
    server: ScriptedServer,
    tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(tunnel, tls=tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
        client = Client(server.base_url)
        client.send(READ, CREDENTIALS)
        client.send(READ, CREDENTIALS)
        client.close()
    assert (proxy.connections, server.connections, len(server.requests)) == (1, 1, 2)
