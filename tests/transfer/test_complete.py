"""Reads are complete: whatever caps, breaks, types and changes come between."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from connectome_dagster.errors import ReadInterrupted
from connectome_dagster.local.extended_json import from_json_value
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer.collection import Collection
from tests.transfer.conftest import Local

Document = dict[str, Any]


def in_order(documents: list[Document], sort: dict[str, int]) -> list[Document]:
    """What a read should give, by the server's own order of all that it holds."""
    wrapped = [(from_json_value(document), document) for document in documents]
    by_id = {id(value): document for value, document in wrapped}
    return [by_id[id(value)] for value in compile_sort(sort)([value for value, _ in wrapped])]


def paged(collection: Collection, rows: int) -> Collection:
    return Collection(collection._target, collection.base_url, page_rows=rows)


def numbered(count: int) -> list[Document]:
    return [{"_id": f"{n:024x}", "n": n} for n in range(count)]


@pytest.fixture
def server(local: Local) -> ConnectomeServer:
    return local.server


class TestACapThatNobodyTellsOf:
    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    def test_shows_itself_whatever_its_size(
        self, local: Local, server: ConnectomeServer, strategy: Any
    ) -> None:
        documents = numbered(7)
        things = local.collection(documents)
        for cap in range(1, 9):
            server.switches(page_cap=cap)
            docs = paged(things, 3).find(strategy=strategy)
            assert docs.to_pylist() == documents, cap
            assert docs.report is not None
            assert docs.report.proved

    def test_of_one_document_looks_like_an_end_and_is_none(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = numbered(3)
        things = local.collection(documents)
        server.switches(page_cap=1)
        for strategy in ("auto", "pages"):
            docs = things.find(strategy=strategy)
            assert docs.to_pylist() == documents
            assert docs.report is not None
            assert docs.report.proved


def cut_at(server: ConnectomeServer, byte: int, *, nth: int = 1, kind: Any = "cut") -> None:
    server.faults.replace([])
    server.faults.add(kind, verb="readwithquery", nth=nth, bytes=byte)


class TestABreak:
    @pytest.mark.parametrize("kind", ["cut", "ends_early"])
    @pytest.mark.parametrize("sort", [None, {"n": -1}])
    def test_at_any_byte_does_not_show(
        self, local: Local, server: ConnectomeServer, kind: str, sort: Any
    ) -> None:
        documents = [{"_id": n, "n": n // 2, "t": 'a},{"'} for n in range(4)]
        things = local.collection(documents)
        undisturbed = things.find(sort=sort).to_pylist()
        assert undisturbed == in_order(documents, {"n": -1, "_id": -1} if sort else {"_id": 1})
        size = len(msgspec.json.encode(documents))
        for byte in range(1, size):
            cut_at(server, byte, kind=kind)
            docs = things.find(sort=sort)
            assert docs.to_pylist() == undisturbed, byte
            assert docs.report is not None
            assert docs.report.resumed == 1, byte
            assert docs.report.proved

    def test_in_the_proof_and_in_every_page_does_not_show_either(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = numbered(9)
        things = paged(local.collection(documents), 3)
        for strategy in ("auto", "pages"):
            for nth in range(1, 6):
                for byte in (1, 50, 100):
                    cut_at(server, byte, nth=nth)
                    assert things.find(strategy=strategy).to_pylist() == documents

    def test_of_every_second_response_does_not_show(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = numbered(50)
        things = local.collection(documents)
        server.faults.add("cut", verb="readwithquery", every=2, bytes=150)
        assert things.find().to_pylist() == documents

    def test_that_never_lets_a_document_through_is_told(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection(numbered(5))
        server.faults.add("cut", verb="readwithquery", bytes=5)
        with pytest.raises(ReadInterrupted, match="broke off"):
            things.find().to_pylist()

    def test_of_a_stream_is_an_error(self, local: Local, server: ConnectomeServer) -> None:
        things = local.collection(numbered(5))
        cut_at(server, 60)
        with pytest.raises(ReadInterrupted) as caught:
            things.find(strategy="stream").to_pylist()
        assert caught.value.rows == 1

    def test_counts_against_the_limit_only_what_was_delivered(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = numbered(9)
        things = local.collection(documents)
        for limit in range(1, 11):
            cut_at(server, 100)
            docs = things.find(limit=limit)
            assert docs.to_pylist() == documents[:limit]
            assert docs.report is not None
            assert docs.report.proved


class TestCosts:
    @pytest.mark.parametrize("id_form", ["hex", "oid"])
    @pytest.mark.parametrize("count", [0, 1, 2, 30])
    def test_a_small_collection_costs_two_requests_at_most(
        self, local: Local, server: ConnectomeServer, count: int, id_form: str
    ) -> None:
        server.switches(id_form=id_form)
        things = local.collection()
        if count:
            things.append([{"n": n} for n in range(count)])
        docs = things.find()
        assert len(docs.to_pylist()) == count
        assert docs.report is not None
        assert docs.report.requests == (2 if count else 1)
        assert docs.report.proved

    def test_a_read_that_reached_its_limit_costs_one(self, local: Local) -> None:
        docs = local.collection(numbered(5)).find(limit=5)
        assert len(docs.to_pylist()) == 5
        assert docs.report is not None
        assert (docs.report.requests, docs.report.proved) == (1, True)

    def test_a_stream_costs_one_and_proves_nothing(self, local: Local) -> None:
        docs = local.collection(numbered(5)).find(strategy="stream")
        docs.to_arrow()
        assert docs.report is not None
        assert (docs.report.requests, docs.report.proved) == (1, False)
        assert (docs.report.strategy, docs.report.pages, docs.report.resumed) == ("stream", 1, 0)


IDS: dict[str, list[Any]] = {
    "falsy": [0, "", False, 0.5, "a"],
    "numbers": [-(2**60), -1.5, 0, 2**53, 2**53 + 1, 1e300],
    "dates": [{"$date": f"20{year}-01-01T00:00:00Z"} for year in range(10, 16)],
    "strings": ["", "A", "a", "é", "\U0001f600", "\uffff"],
    "mixed": [None, 3, "x", {"k": 1}, {"$oid": "0" * 24}, True, {"$date": "2020-01-01T00:00:00Z"}],
    "hex and oids": ["0" * 23 + "5", "f" * 24, {"$oid": "0" * 23 + "6"}, {"$oid": "a" * 24}],
    "not a number": [{"$numberDouble": "NaN"}, {"$numberDouble": "-Infinity"}, 1, 2],
    "edges": [{"$minKey": 1}, None, 1, {"$timestamp": {"t": 1, "i": 2}}, {"$maxKey": 1}],
    "decimals": [{"$numberDecimal": "0.1"}, 0.1, {"$numberDecimal": "1.10"}, 7],
}


class TestEverySortOfId:
    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    @pytest.mark.parametrize("direction", [1, -1])
    @pytest.mark.parametrize("cap", [1, 2, 3])
    @pytest.mark.parametrize("ids", list(IDS.values()), ids=list(IDS))
    def test_is_walked(
        self,
        local: Local,
        server: ConnectomeServer,
        ids: list[Any],
        cap: int,
        direction: int,
        strategy: Any,
    ) -> None:
        documents = [{"_id": value, "n": n} for n, value in enumerate(ids)]
        things = local.collection(documents)
        server.switches(page_cap=cap)
        docs = paged(things, 2).find(sort={"_id": direction}, strategy=strategy)
        expected = in_order(server.documents(things.id), {"_id": direction})
        assert docs.to_pylist() == expected
        assert docs.report is not None
        assert docs.report.proved

    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    @pytest.mark.parametrize("id_form", ["hex", "oid", "objectid"])
    @pytest.mark.parametrize("cap", [1, 2, 5])
    def test_that_the_service_makes_is_found_in_each_of_its_forms(
        self, local: Local, server: ConnectomeServer, id_form: str, cap: int, strategy: Any
    ) -> None:
        server.switches(id_form=id_form)
        things = local.collection()
        things.append([{"n": n} for n in range(8)])
        server.switches(page_cap=cap)
        docs = things.find(project={"_id": 0, "n": 1}, strategy=strategy)
        assert sorted(each["n"] for each in docs.to_pylist()) == list(range(8))
        assert docs.report is not None
        assert docs.report.proved

    def test_that_no_filter_finds_is_no_end(self, local: Local, server: ConnectomeServer) -> None:
        server.switches(id_form="objectid")
        things = local.collection()
        things.append([{"n": n} for n in range(8)])
        server.switches(extended_json=False, page_cap=3)
        for strategy in ("auto", "pages"):
            with pytest.raises(ReadInterrupted, match="as cursor"):
                things.find(strategy=strategy).to_pylist()
            docs = things.find(cursor="n", strategy=strategy, project={"n": 1, "_id": 0})
            assert docs.to_pylist() == [{"n": n} for n in range(8)]
        server.switches(page_cap=None)
        docs = things.find()
        assert len(docs.to_pylist()) == 8
        assert docs.report is not None
        assert docs.report.proved  # the opposite order begins with the last document

    def test_that_is_not_shown_proves_nothing_and_another_cursor_does(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = numbered(6)
        things = local.collection(documents)
        server.switches(id_form="absent")
        docs = things.find()
        assert len(docs.to_pylist()) == 6
        assert docs.report is not None
        assert not docs.report.proved
        server.switches(page_cap=2)
        for strategy in ("auto", "pages"):
            docs = things.find(cursor="n", strategy=strategy)
            assert docs.to_pylist() == [{"n": n} for n in range(6)]
            assert docs.report is not None
            assert docs.report.proved
        with pytest.raises(ReadInterrupted, match="show no _id"):
            things.find(strategy="pages").to_pylist()
