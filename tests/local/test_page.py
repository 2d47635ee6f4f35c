"""The page at /: what it shows, that it runs nothing that it shows, and who gets it."""

from __future__ import annotations

import doctest
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
from starlette.requests import Request

from connectome_dagster.local import calls
from connectome_dagster.local.page import DOCUMENTS, REQUESTS, _from_this_machine
from connectome_dagster.local.rendering import MAX_COLLECTIONS
from connectome_dagster.local.server import LocalServer
from tests.local.page_parts import PageParts

READ, WRITE = "read-credential-of-the-tests", "write-credential-of-the-tests"
PARTS = ["/page/now", "/page/documents?collection=movies"]


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(["movies"], read_credential=READ, write_credential=WRITE) as running:
        yield running


def get(server: LocalServer, path: str = "/", **headers: str) -> requests.Response:
    return requests.get(server.base_url + path, headers=headers, timeout=10)


def post(server: LocalServer, path: str = "/page/credentials", **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(server.base_url + path, headers=named, timeout=10)


def parts(server: LocalServer, collection: str = "movies") -> PageParts:
    return PageParts(get(server, f"/?collection={quote(collection, safe='')}").text)


# ---- what it shows


def test_it_lists_the_collections_with_the_number_of_their_documents(server: LocalServer) -> None:
    server.add_collection("<b>&\"'%")
    server.seed("movies", [{"n": number} for number in range(1200)])

    assert parts(server).links == {
        "/?collection=movies": "movies 1,200",
        "/?collection=%3Cb%3E%26%22%27%25": "<b>&\"'% 0",
    }


def test_it_shows_the_first_documents_of_the_collection_that_was_chosen(
    server: LocalServer,
) -> None:
    server.seed("movies", [{"_id": "m", "title": "Movie ABC"}])
    server.seed("events", [{"_id": str(number)} for number in range(DOCUMENTS + 1)])

    assert PageParts(get(server).text).documents == ['{\n  "_id": "m",\n  "title": "Movie ABC"\n}']
    shown = parts(server, "events").documents
    assert shown == [f'{{\n  "_id": "{number}"\n}}' for number in range(DOCUMENTS)]
    assert f"first {DOCUMENTS} of {DOCUMENTS + 1}" in get(server, "/?collection=events").text


def test_a_server_without_collections_says_how_to_have_one() -> None:
    with LocalServer() as server:
        answer = get(server)

    assert answer.status_code == 200
    assert "connectome serve --collection movies" in answer.text


def test_an_unknown_collection_is_a_404_that_does_not_repeat_it(server: LocalServer) -> None:
    answer = get(server, f"/?collection={WRITE}")

    assert answer.status_code == 404
    assert "no collection of that name" in answer.text
    assert WRITE not in answer.text


def test_thousands_of_collections_are_listed_in_part(server: LocalServer) -> None:
    for number in range(MAX_COLLECTIONS + 50):
        server.add_collection(f"c{number}")

    last = f"c{MAX_COLLECTIONS + 49}"
    listed = parts(server, last).links

    assert len(listed) == MAX_COLLECTIONS + 1
    assert f"/?collection={last}" in listed
    assert "and 50 more" in get(server, f"/?collection={last}").text


def test_it_stays_small_whatever_the_documents_are(server: LocalServer) -> None:
    server.seed("movies", [{"x" * 500_000: "y" * 500_000, "z": list(range(100_000))}] * 7)

    assert len(get(server).content) < 200_000


def test_it_shows_the_last_requests_newest_first(server: LocalServer) -> None:
    for number in range(REQUESTS + 5):
        sequence = server.log.begin("POST")
        server.log.note(
            sequence,
            verb="readwithquery",
            collection="movies",
            status=200,
            milliseconds=1.25,
            request_bytes=1000,
            response_bytes=number,
        )

    rows = [row for row in parts(server).rows if row]

    assert len(rows) == REQUESTS
    newest = ["POST readwithquery", "movies", "200", "1.2", "1,000", str(REQUESTS + 4)]
    assert rows[0][1:] == newest


def test_a_request_to_the_data_api_is_in_the_list_without_its_credential(
    server: LocalServer,
) -> None:
    url = f"{server.base_url}/collection/batchwrite/{{}}/movies"
    body = b'[{"title":"Movie ABC"}]'
    requests.post(url.format(WRITE), data=body, timeout=10)
    requests.post(url.format(READ), data=body, timeout=10)

    page = get(server)

    refused, done = [row for row in PageParts(page.text).rows if row]
    assert (done[1:4], done[5:]) == (
        ["POST batchwrite", "movies", "200"],
        [str(len(body)), str(len(b'{"inserted":1}'))],
    )
    assert float(done[4]) > 0
    assert refused[1:4] == ["POST batchwrite", "movies", "403"]
    assert READ not in page.text
    assert WRITE not in page.text


def test_a_request_that_is_not_answered_yet_is_there_without_a_status(server: LocalServer) -> None:
    server.log.begin("POST")

    (row,) = [row for row in parts(server).rows if row]

    assert row[1:5] == ["POST —", "—", "…", "…"]


# ---- what it shows stays text

HOSTILE = [
    "<script>alert(1)</script>",
    "</pre></script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" \'',
    "&lt;script&gt;",
    "<!--",
    "]]>",
    "a\u2028b\u2029c\u202ed\u2066e\x00f\ufeffg",
    "${alert(1)} $token $script {0}",
]


def tags(server: LocalServer, collection: str) -> list[str]:
    return parts(server, collection).tags


@pytest.mark.parametrize("text", HOSTILE)
def test_documents_add_text_and_no_markup(server: LocalServer, text: str) -> None:
    server.seed("plain", [{"_id": "x", "name": "value", "in": {"name": ["value"]}}])
    document = {"_id": text, "name": text, "in": {text: [text]}}
    server.seed("movies", [document])

    assert tags(server, "movies") == tags(server, "plain")
    (shown,) = parts(server).documents
    assert json.loads(shown) == document
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("text", [one.replace("/", "") for one in HOSTILE if one.isprintable()])
def test_names_add_text_and_no_markup(server: LocalServer, text: str) -> None:
    server.add_collection(text)
    server.add_collection("plain")
    sequence = server.log.begin(text)
    server.log.note(sequence, verb=text, collection=text, fault=text, status=200)

    page = parts(server, text)

    assert page.tags == tags(server, "plain")
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert text in page.links[f"/?collection={quote(text, safe='')}"]


def test_the_policy_admits_the_pages_own_style_and_script_alone(server: LocalServer) -> None:
    policy = get(server).headers["content-security-policy"]

    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules["style-src"])
    assert "unsafe" not in policy
    assert "http" not in policy


def test_nothing_on_the_page_is_from_elsewhere(server: LocalServer) -> None:
    addresses = [value for name, value in parts(server).attributes if name in ("href", "src")]

    assert addresses
    assert all(address.startswith(("/?collection=", "#", "data:")) for address in addresses)


# ---- who gets it


def test_no_credential_is_in_the_page_or_its_parts(server: LocalServer) -> None:
    server.seed("movies", [{"title": "Movie ABC"}])
    token = parts(server).token

    for path in ["/", *PARTS]:
        answer = get(server, path, **{"X-Connectome-Page": token})
        assert answer.status_code == 200
        for secret in (READ, WRITE):
            assert secret not in answer.text
            assert secret not in str(answer.headers)


def test_credentials_are_given_to_the_page_when_it_asks(server: LocalServer) -> None:
    token = parts(server).token

    answer = post(server, X_Connectome_Page=token, Origin=server.base_url)

    assert {role: one["value"] for role, one in answer.json().items()} == {
        "read": READ,
        "write": WRITE,
    }
    assert answer.headers["cache-control"] == "no-store"


def test_credentials_are_given_to_nobody_else(server: LocalServer) -> None:
    token, origin = parts(server).token, server.base_url
    port = origin.rpartition(":")[2]
    refusals = [
        {},
        {"X_Connectome_Page": token},
        {"Origin": origin},
        {"X_Connectome_Page": token[:-1], "Origin": origin},
        {"X_Connectome_Page": f"{token}x", "Origin": origin},
        {"X_Connectome_Page": token, "Origin": "http://evil.example"},
        {"X_Connectome_Page": token, "Origin": "null"},
        {"X_Connectome_Page": token, "Origin": "http://127.0.0.1:1"},
        {"X_Connectome_Page": token, "Origin": f"https://127.0.0.1:{port}"},
        {"X_Connectome_Page": token, "Origin": origin, "Host": f"evil.example:{port}"},
        {"X_Connectome_Page": token, "Origin": origin, "X_Forwarded_For": "192.0.2.1"},
    ]

    for headers in refusals:
        answer = post(server, **headers)
        assert answer.status_code == 403, headers
        assert READ not in answer.text
        assert WRITE not in answer.text


def test_credentials_are_not_given_to_a_get(server: LocalServer) -> None:
    headers = {"X-Connectome-Page": parts(server).token, "Origin": server.base_url}

    answer = get(server, "/page/credentials", **headers)

    assert answer.status_code == 405
    assert READ not in answer.text


def test_the_token_is_another_one_for_each_start(server: LocalServer) -> None:
    with LocalServer() as other:
        token = parts(other, "").token
    assert len(token) >= 32
    assert token != parts(server).token

    assert post(server, X_Connectome_Page=token, Origin=server.base_url).status_code == 403


@pytest.mark.parametrize("path", PARTS)
def test_the_parts_of_the_page_are_for_its_own_script(server: LocalServer, path: str) -> None:
    token = parts(server).token

    assert get(server, path).status_code == 403
    assert get(server, path, **{"X-Connectome-Page": "guess"}).status_code == 403
    elsewhere = {"X-Connectome-Page": token, "Origin": "http://evil.example"}
    assert get(server, path, **elsewhere).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8787",
        "evil.example#localhost",
        "127.0.0.1@evil.example",
        "0.0.0.0",  # noqa: S104 (a name that browsers let lead here)
        "192.0.2.1:8787",
        '127.0.0.1:8787"><script>',
        "",
    ],
)
def test_a_name_that_is_not_this_machines_gets_no_page(server: LocalServer, host: str) -> None:
    server.seed("movies", [{"title": "Movie ABC"}])

    answer = get(server, "/", Host=host)

    assert answer.status_code == 403
    assert "ssh -L" in answer.text
    assert "movies" not in answer.text.lower()
    assert "script" not in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:9", "[::1]:8787"]
)
def test_any_name_of_this_machine_gets_the_page_and_calls_that_lead_back(
    server: LocalServer, host: str
) -> None:
    page = PageParts(get(server, "/", Host=host).text)

    call = "".join(text for text, _ in page.snippets["readwithquery", "python"])
    assert f"http://{host}/collection/readwithquery/" in call


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_who_speaks_for_somebody_else_gets_no_page(server: LocalServer, header: str) -> None:
    assert get(server, "/", **{header: "192.0.2.1"}).status_code == 403


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
        ("fe80::1", False),
        ("10.0.0.1", False),
        ("172.17.0.1", False),
        ("testclient", False),
        (None, False),
    ],
)
def test_only_this_machine_is_admitted(address: str | None, admitted: bool) -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "headers": [(b"host", b"127.0.0.1:8787")],
        "client": None if address is None else (address, 50_000),
    }

    assert _from_this_machine(Request(scope)) is admitted


def test_a_caller_from_another_address_of_this_machine_gets_no_page() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks for the way there
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = probe.getsockname()[0]
    with LocalServer(["movies"], host="0.0.0.0") as server:  # noqa: S104 (open, to be refused)
        port = server.base_url.rpartition(":")[2]
        local = requests.get(f"http://127.0.0.1:{port}/", timeout=10)
        outside = requests.get(
            f"http://{address}:{port}/", headers={"Host": f"127.0.0.1:{port}"}, timeout=10
        )

    assert local.status_code == 200
    assert outside.status_code == 403


@pytest.mark.parametrize("path", ["/", "/page/now", "/page/nothing", "/page"])
def test_every_answer_forbids_caching_framing_and_guessing(server: LocalServer, path: str) -> None:
    headers = get(server, path).headers

    if path in ("/", "/page/now"):
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
    else:
        assert headers["content-type"] == "application/json"
    assert "access-control-allow-origin" not in headers


def test_the_examples_of_the_calls_are_true() -> None:
    assert doctest.testmod(calls).failed == 0
