# ruff: noqa: E501 (the page's own lines)
"""The service's own page, executed: its four Python examples against the local server.

The code is the page's, but for host, credential and collection id, and for the batch, which the
page shows inside braces that no Python takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from connectome_dagster.local.server import LocalServer

SHARED = Path(__file__).parents[3] / "shared"

MOVIES = [
    {"amount": 10, "title": "Movie ABC"},
    {"amount": 100, "title": "Movie BDD"},
    {"amount": 39, "title": "Movie XYZ"},
]

READ_WITH_QUERY = """\
# Import Library
import requests

# Request data using POST
data = requests.post(
    url='https://app.connectomesystem.com/collection/readwithquery/<read credential>/<collection id>',
    json={
        "query": {"amount":{"$gte":30}},
        "project": {"amount": 1, "title": 1},
        "sort": {"amount": 1},
        "limit": 10
        }
    )
"""

UPDATE_WITH_UPSERT = """\
# Import library
import requests

# Only the POST method allows in the update method.
resp = requests.post(
    url='https://app.connectomesystem.com/collection/updatewithupsert/<write credential/<collection id>',
    json={
        "search query": {
            "<field name 1>": "foo",
            "<field name 2>": "bar"
        },
        "data": {
            "<field name 3>": "baz"
        },
        "upsert": True
    }
)
"""

BATCH_WRITE = """\
# Import library
import requests

# Only the POST method allows in the upload method.
resp = requests.post(
    url='https://app.connectomesystem.com/collection/batchwrite/<write credential>/<collection id>',
    json={
        [
            {
                "field 1": "foo"
            },
            {
                "field 1": "bar"
            }
        ]
    }
)
"""

BATCH_DELETE = """\
# Import library
import requests

# Only the DELETE method allows in the remove method.
resp = requests.delete(
    url='https://app.connectomesystem.com/collection/batchdelete/<write credential>/<collection id>',
    json={
        'field 1': 'foo',
        'field 2': 'bar'
    }
)
"""


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(collections=["movies"]) as running:
        yield running


def run(example: str, server: LocalServer) -> dict[str, Any]:
    code = (
        example.replace("https://app.connectomesystem.com", server.base_url)
        .replace("<read credential>", server.read_credential)
        .replace("<write credential>", server.write_credential)
        .replace("<write credential", server.write_credential)
        .replace("<collection id>", "movies")
    )
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 (the page's code is the test)
    return names


def without_ids(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "_id"} for one in documents]


def test_reading_with_a_query_returns_the_two_dearer_movies_in_order(server: LocalServer) -> None:
    server.seed("movies", MOVIES)

    data: requests.Response = run(READ_WITH_QUERY, server)["data"]

    assert data.status_code == 200
    assert [list(movie) for movie in data.json()] == [["_id", "amount", "title"]] * 2
    assert without_ids(data.json()) == [
        {"amount": 39, "title": "Movie XYZ"},
        {"amount": 100, "title": "Movie BDD"},
    ]


def test_an_upsert_creates_what_is_not_there_and_changes_what_is(server: LocalServer) -> None:
    fields = {"<field name 1>": "foo", "<field name 2>": "bar", "<field name 3>": "baz"}

    created: requests.Response = run(UPDATE_WITH_UPSERT, server)["resp"]

    assert created.status_code == 200
    assert without_ids(server.documents("movies")) == [fields]

    again: requests.Response = run(UPDATE_WITH_UPSERT.replace("baz", "changed"), server)["resp"]

    assert again.status_code == 200
    assert without_ids(server.documents("movies")) == [{**fields, "<field name 3>": "changed"}]


def test_an_update_without_upsert_says_that_nothing_was_found(server: LocalServer) -> None:
    answer = run(UPDATE_WITH_UPSERT.replace('"upsert": True', '"upsert": False'), server)["resp"]

    assert answer.status_code == 404
    assert server.documents("movies") == []


def test_a_batch_is_inserted_all_at_one_time(server: LocalServer) -> None:
    with_array = BATCH_WRITE.replace("json={\n        [", "json=[").replace("]\n    }", "]")

    resp: requests.Response = run(with_array, server)["resp"]

    assert resp.status_code == 200
    assert without_ids(server.documents("movies")) == [{"field 1": "foo"}, {"field 1": "bar"}]


def test_a_batch_delete_removes_everything_that_matches_and_nothing_else(
    server: LocalServer,
) -> None:
    kept = [{"field 1": "foo"}, {"field 1": "foo", "field 2": "other"}]
    server.seed("movies", [{"field 1": "foo", "field 2": "bar"}, *kept] * 2)

    resp: requests.Response = run(BATCH_DELETE, server)["resp"]

    assert resp.status_code == 200
    assert without_ids(server.documents("movies")) == kept * 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="the page's text is not beside this checkout")
@pytest.mark.parametrize(
    "example", [READ_WITH_QUERY, UPDATE_WITH_UPSERT, BATCH_WRITE, BATCH_DELETE]
)
def test_the_examples_are_the_pages_own(example: str) -> None:
    page = (SHARED / "data-api-page.txt").read_text()

    assert example.rstrip() in page
