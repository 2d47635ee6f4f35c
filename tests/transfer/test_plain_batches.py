from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from connectome_dagster import Collection, Connectome
from connectome_dagster.errors import ConfigurationError, ReadInterrupted
from connectome_dagster.testing import ConnectomeServer

ROWS = 3000
PAD = "x" * 400  # so that the documents do not come in one piece


def reading(server: ConnectomeServer, collection: str, **settings: Any) -> Collection:
    connectome = Connectome(
        base_url=server.base_url, read_credential=server.read_credential, **settings
    )
    return connectome.collection(collection)


def test_batches_are_what_the_list_is_and_no_batch_is_everything(
    connectome_server: ConnectomeServer,
) -> None:
    id_ = connectome_server.collection({"n": n, "pad": PAD} for n in range(ROWS))
    documents = reading(connectome_server, id_).find({"n": {"$gte": 5}}, project={"pad": 1})
    batches = list(documents.plain_batches())
    assert [each for batch in batches for each in batch] == documents.to_pylist()
    assert max(map(len, batches)) < ROWS
    assert documents.report is not None
    assert (documents.report.rows, documents.report.proved) == (ROWS - 5, True)


def test_values_stay_as_they_came_and_what_is_missing_stays_missing(
    connectome_server: ConnectomeServer,
) -> None:
    id_ = connectome_server.collection([{"v": 1}, {"v": "1"}, {}, {"v": 1.0}, {"v": None}])
    [batch] = reading(connectome_server, id_).find(project={"_id": 0, "v": 1}).plain_batches()
    assert [repr(each) for each in batch] == [
        "{'v': 1}",
        "{'v': '1'}",
        "{}",
        "{'v': 1.0}",
        "{'v': None}",
    ]


def test_a_break_is_gone_over_and_costs_no_document(connectome_server: ConnectomeServer) -> None:
    id_ = connectome_server.collection({"n": n, "pad": PAD} for n in range(ROWS))
    connectome_server.faults.add("cut", verb="readwithquery", nth=1, bytes=600_000)
    documents = reading(connectome_server, id_).find(project={"n": 1, "pad": 1})
    numbers = [each["n"] for batch in documents.plain_batches() for each in batch]
    assert numbers == list(range(ROWS))


def test_a_break_that_cannot_be_gone_over_is_an_error_and_no_end(
    connectome_server: ConnectomeServer,
) -> None:
    id_ = connectome_server.collection({"n": n, "pad": PAD} for n in range(ROWS))
    connectome_server.faults.add("cut", verb="readwithquery", nth=1, bytes=600_000)
    documents = reading(connectome_server, id_).find(strategy="stream")
    with pytest.raises(ReadInterrupted):
        list(documents.plain_batches())


def test_closing_it_early_leaves_the_connection_usable(
    connectome_server: ConnectomeServer,
) -> None:
    id_ = connectome_server.collection({"n": n, "pad": PAD} for n in range(ROWS))
    collection = reading(connectome_server, id_, concurrency=1)
    batches = collection.find().plain_batches()
    assert next(batches)
    batches.close()
    assert len(collection.find({"n": {"$lt": 3}}).to_pylist()) == 3


@pytest.mark.parametrize(
    "option", [{"on_conflict": "error"}, {"schema": pa.schema([("n", pa.int64())])}]
)
def test_what_would_change_the_documents_is_refused(
    connectome_server: ConnectomeServer, option: dict[str, Any]
) -> None:
    id_ = connectome_server.collection()
    documents = reading(connectome_server, id_).find(**option)
    with pytest.raises(ConfigurationError, match="plain_batches"):
        next(documents.plain_batches())
    assert connectome_server.log == []
