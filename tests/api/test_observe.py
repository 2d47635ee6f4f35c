"""One request, and its answer as it came: what a probe is made of."""

from __future__ import annotations

import gzip
from contextlib import closing

import pytest

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Client, Observation
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import OutcomeUnknown, ServiceUnavailable
from tests.api.scripted import Step, answer, cut, reset, serving, unused_port

CREDENTIALS = Credentials("read-credential", "write-credential")
READ = endpoints.read("movies")
BATCH = endpoints.batch_write("movies", b'[{"amount":10}]')


def observe(step: Step, call: Call = READ, **options: bool) -> tuple[Observation, int, bytes]:
    with serving(step) as server, closing(Client(server.base_url)) as client:
        seen = client.observe(call, CREDENTIALS, **options)
        return seen, len(server.requests), server.requests[0].body


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 415, 429, 500, 503])
def test_an_answer_of_any_status_is_told_and_nothing_is_sent_again(status: int) -> None:
    body = b"" if status == 204 else b'{"error":"no"}'
    seen, requests, _ = observe(answer(status, body, Retry_After="7"), BATCH)

    assert (seen.status, seen.body, seen.headers["retry-after"]) == (status, body, "7")
    assert requests == 1


def test_a_web_page_is_an_answer_like_any_other() -> None:
    seen, _, _ = observe(answer(200, b"<html>login</html>", content_type="text/html"))

    assert seen.body == b"<html>login</html>"
    assert seen.headers["content-type"] == "text/html"


def test_a_packed_answer_is_unpacked_and_says_that_it_was() -> None:
    seen, _, _ = observe(answer(200, gzip.compress(b"[1]"), Content_Encoding="gzip"))

    assert (seen.body, seen.headers["content-encoding"]) == (b"[1]", "gzip")


@pytest.mark.parametrize("packed", [False, True])
def test_a_packed_body_says_that_it_is(packed: bool) -> None:
    with serving(answer()) as server, closing(Client(server.base_url)) as client:
        client.observe(BATCH, CREDENTIALS, packed=packed)
        assert server.requests[0].headers.get("content-encoding") == ("gzip" if packed else None)


def test_the_excerpt_holds_no_credential() -> None:
    seen, _, _ = observe(answer(400, b"no read-credential and no write-credential"))

    assert seen.excerpt == "no *** and no ***"
    assert "credential" not in repr(seen)


@pytest.mark.parametrize("step", [reset, cut(b'[{"a":')])
def test_a_write_without_an_answer_is_unknown_and_not_sent_again(step: Step) -> None:
    with serving(step) as server, closing(Client(server.base_url)) as client:
        with pytest.raises(OutcomeUnknown):
            client.observe(BATCH, CREDENTIALS)
        assert len(server.requests) == 1


def test_who_cannot_be_reached_is_unavailable() -> None:
    with closing(Client(f"http://127.0.0.1:{unused_port()}")) as client:
        with pytest.raises(ServiceUnavailable):
            client.observe(BATCH, CREDENTIALS)
