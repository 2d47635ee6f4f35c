from __future__ import annotations

from typing import Any

import pytest

from connectome_dagster import Connectome
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.testing import ConnectomeServer
from tests.api.scripted import answer, serving
from tests.transfer.conftest import READ_SECRET, WRITE_SECRET

BOTH = {"read_credential": READ_SECRET, "write_credential": WRITE_SECRET}


def test_a_newcomer_s_round_trip(connectome_server: ConnectomeServer) -> None:
    with Connectome(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
    ) as connectome:
        movies = connectome.collection(connectome_server.collection())
        movies.append([{"title": "Movie ABC", "amount": 10}, {"title": "Movie XYZ", "amount": 39}])
        found = movies.find({"amount": {"$gte": 30}}, project={"_id": 0}).to_pylist()
    assert found == [{"title": "Movie XYZ", "amount": 39}]


@pytest.mark.parametrize(
    "setting",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"batch_rows": 0},
        {"batch_rows": 1.5},
        {"batch_bytes": -1},
        {"batch_bytes": "1"},
        {"connect_timeout": 0},
        {"read_timeout": -1},
        {"max_attempts": 0},
        {"no_match_status": 200},
        {"idempotency": "ids"},
        {"verify": "sometimes"},
        {"settle_seconds": -1},
        {"settle_seconds": 601},
        {"settle_seconds": True},
        {"bookkeeping": "a.b"},
        {"bookkeeping": "_id"},
        {"compress_requests": 1},
        {"base_url": "ftp://x"},
        {"base_url": "https://x/collection/read/secret"},
        {"read_credential": ""},
        {"write_credential": "a b"},
    ],
)
def test_a_setting_that_cannot_work_is_told_by_name(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ConfigurationError, match=name.replace("_credential", " credential")):
        Connectome(**setting)


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".", "..", 5, None])
def test_a_collection_id_that_cannot_be_one_is_told(name: Any) -> None:
    with Connectome(**BOTH) as connectome, pytest.raises(ConfigurationError, match="collection id"):
        connectome.collection(name)


def test_a_collection_may_have_credentials_of_its_own() -> None:
    with serving(answer()) as server:
        with Connectome(base_url=server.base_url, **BOTH) as connectome:
            connectome.collection("m", read_credential="another-one").find().to_pylist()
            connectome.collection("m").find().to_pylist()
        targets = list(dict.fromkeys(request.target for request in server.requests))
    assert targets == [
        "/collection/readwithquery/another-one/m",
        f"/collection/readwithquery/{READ_SECRET}/m",
    ]


def test_settings_reach_reads_and_writes() -> None:
    body = b'{"warnings":[],"data":[{"a":1}]}'
    with serving(answer(body=body)) as server:
        with Connectome(
            base_url=server.base_url, response_path="data", batch_rows=2, **BOTH
        ) as connectome:
            things = connectome.collection("m")
            assert things.find().to_pylist() == [{"a": 1}]
            assert things.append([{"a": n} for n in range(5)]).batches == 3


def test_nothing_shows_a_credential() -> None:
    with Connectome(**BOTH) as connectome:
        things = connectome.collection("m")
        shown = f"{connectome!r} {things!r} {things.find()!r} {things._target!r}"
    assert READ_SECRET not in shown
    assert WRITE_SECRET not in shown
    assert "https://app.connectomesystem.com" in shown


def test_a_call_after_the_end_says_that_it_is_closed() -> None:
    with Connectome(**BOTH) as connectome:
        things = connectome.collection("m")
    with pytest.raises(ConfigurationError, match="the client is closed"):
        things.find().to_pylist()
    with pytest.raises(ConfigurationError, match="the client is closed"):
        things.append([{"a": 1}])


def test_the_settings_of_writing_reach_every_collection(
    connectome_server: ConnectomeServer,
) -> None:
    connectome_server.switches(gzip_requests=True)
    id = connectome_server.collection()  # noqa: A001 - the service's word for it
    rows = [{"n": n, "text": "x" * 50} for n in range(60)]
    with Connectome(
        base_url=connectome_server.base_url,
        read_credential=connectome_server.read_credential,
        write_credential=connectome_server.write_credential,
        idempotency="id",
        verify="always",
        settle_seconds=0.0,
        bookkeeping="origin",
        compress_requests=True,
    ) as connectome:
        report = connectome.collection(id).append(rows, load="monday")
        again = connectome.collection(id).append(rows, load="monday")
        found = connectome.collection(id).find(project={"_id": 0}).to_pylist()
    assert (report.guarantee, report.inserted, again.unchanged) == ("enforced", 60, 60)
    assert sorted(found, key=lambda row: row["n"]) == rows
    for document in connectome_server.documents(id):
        assert document["_id"] == document["origin"]["key"]


@pytest.mark.parametrize("word", ["ignore", True, None])
def test_what_becomes_of_refused_rows_is_one_of_two_words(word: Any) -> None:
    with Connectome(**BOTH) as connectome:
        movies = connectome.collection("movies")
        with pytest.raises(ConfigurationError, match="on_reject is"):
            movies.append([{"a": 1}], on_reject=word)
        with pytest.raises(ConfigurationError, match="on_reject is"):
            movies.replace([{"a": 1}], where={"a": 1}, on_reject=word)


def test_a_closed_connection_finishes_what_is_under_way_and_begins_nothing(
    connectome_server: ConnectomeServer,
) -> None:
    numbers = connectome_server.collection({"n": n, "text": "x" * 500} for n in range(5000))
    connectome = Connectome(
        base_url=connectome_server.base_url, read_credential=connectome_server.read_credential
    )
    collection = connectome.collection(numbers)
    batches = iter(collection.find(strategy="stream"))
    rows = next(batches).num_rows
    assert rows < 5000
    connectome.close()
    assert rows + sum(batch.num_rows for batch in batches) == 5000
    with pytest.raises(ConfigurationError, match="closed"):
        collection.find().to_arrow()
