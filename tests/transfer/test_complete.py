"""Reads are complete: whatever caps, breaks, types and changes come between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import msgspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import ConfigurationError, PayloadTooLarge, ReadInterrupted
from connectome_dagster.local.extended_json import from_json_value
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer import pages
from connectome_dagster.transfer.collection import Collection, Connectome
from connectome_dagster.transfer.marks import BOOKKEEPING
from tests.api.scripted import Request, Step, answer, chunked, cut, head, raw, serving
from tests.transfer.conftest import Local
from tests.transfer.faults import forward, when

Document = dict[str, Any]


def in_order(documents: list[Document], sort: dict[str, int]) -> list[Document]:
    """What a read should give, by the server's own order of all that it holds."""
    wrapped = [(from_json_value(document), document) for document in documents]
    by_id = {id(value): document for value, document in wrapped}
    return [by_id[id(value)] for value in compile_sort(sort)([value for value, _ in wrapped])]


def held(server: ConnectomeServer, collection: str) -> list[Document]:
    """The documents of a collection, without the bookkeeping of writes, which reads hide."""
    documents = server.documents(collection)
    return [{k: v for k, v in each.items() if k != BOOKKEEPING} for each in documents]


def paged(collection: Collection, rows: int) -> Collection:
    return Collection(replace(collection._target, page_rows=rows), collection.base_url)


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

    @pytest.mark.parametrize("how", ["content-length", "chunked", "closed"])
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_at_any_byte_of_any_framing_does_not_show(
        self, local: Local, server: ConnectomeServer, how: str, wrapped: bool
    ) -> None:
        documents = [{"_id": n, "t": 'é"},{"_id":', "d": {"_id": [n]}} for n in range(3)]
        things = local.collection(documents)
        server.switches(response_path="data" if wrapped else None)
        text = msgspec.json.encode(documents)
        body = b'{"data":' + text + b"}" if wrapped else text
        ends: dict[str, Callable[[bytes], Step]] = {
            "content-length": lambda start: cut(start, missing=len(body) - len(start)),
            "chunked": lambda start: chunked(start, end=False),
            "closed": lambda start: raw(head(200, {"Content-Type": "application/json"}) + start),
        }
        for at in range(1, len(body)):
            with serving(ends[how](body[:at]), forward(server.base_url)) as service:
                docs = local.again(things, through=service.base_url).find()
                assert docs.to_pylist() == documents, body[:at]
                assert docs.report is not None
                assert (docs.report.resumed, docs.report.proved) == (1, True)

    def test_shows_in_no_form(
        self, local: Local, server: ConnectomeServer, tmp_path: FilePath
    ) -> None:
        documents: list[Document] = [
            {"_id": n, "v": [1, "x", None, {"a": 1}, 0.5][n % 5], "late": n} for n in range(10)
        ]
        del documents[0]["late"]
        things = local.collection(documents)
        table = things.find().to_arrow()
        server.switches(page_cap=4)
        server.faults.add("cut", verb="readwithquery", every=3, bytes=90)
        docs = things.find()
        assert docs.to_arrow() == table
        assert docs.to_pandas("pyarrow").equals(table.to_pandas(types_mapper=pd.ArrowDtype))
        docs.to_parquet(tmp_path / "x.parquet")
        assert pq.read_table(tmp_path / "x.parquet") == table
        plain = things.find(project={"late": 1})
        assert plain.reader().read_all().column("_id").to_pylist() == list(range(10))

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
    @pytest.mark.parametrize("id_form", ["hex", "oid", "objectid"])
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
        assert docs.report.requests == 2
        assert docs.report.proved

    def test_a_read_that_reached_its_limit_costs_one(self, local: Local) -> None:
        docs = local.collection(numbered(5)).find(limit=5)
        assert len(docs.to_pylist()) == 5
        assert docs.report is not None
        assert (docs.report.requests, docs.report.proved) == (1, True)

    def test_a_page_has_as_many_documents_as_the_setting_says(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection(numbered(10))
        with Connectome(
            base_url=server.base_url, read_credential=server.read_credential, page_rows=4
        ) as connectome:
            docs = connectome.collection(things.id).find(strategy="pages")
            assert len(docs.to_pylist()) == 10
        assert docs.report is not None
        assert (docs.report.pages, docs.report.requests) == (3, 4)
        with pytest.raises(ConfigurationError, match="page_rows is 0"):
            Connectome(page_rows=0)

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
        expected = in_order(held(server, things.id), {"_id": direction})
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
        server.switches(extended_json=False, expr=False, page_cap=3)
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

    @pytest.mark.parametrize("shown_as", ["objectid", "oid"])
    def test_is_found_by_an_expression_where_extended_json_means_nothing(
        self, local: Local, server: ConnectomeServer, shown_as: str
    ) -> None:
        server.switches(id_form=shown_as)
        things = local.collection()
        things.append([{"n": n} for n in range(7)])
        for cap in (1, 2, 3, None):
            server.switches(extended_json=False, page_cap=cap)
            for strategy in ("auto", "pages"):
                docs = paged(things, 4).find(strategy=strategy)
                assert sorted(each["n"] for each in docs.to_pylist()) == list(range(7)), cap
                assert docs.report is not None
                assert docs.report.proved
            docs = things.find(split=2)
            assert sorted(each["n"] for each in docs.to_pylist()) == list(range(7)), cap

    @pytest.mark.parametrize("cap", [None, 2, 3])
    def test_that_two_documents_share_is_no_end(
        self, local: Local, server: ConnectomeServer, cap: int | None
    ) -> None:
        server.switches(client_id="any")
        things = local.collection()
        things.append([{"_id": n, "n": n} for n in range(3)])
        things.append([{"_id": 2, "n": 3}])
        server.switches(page_cap=cap)
        for strategy in ("auto", "pages"):
            with pytest.raises(ReadInterrupted, match="several documents share one value of _id"):
                things.find(strategy=strategy).to_pylist()
            docs = things.find(strategy=strategy, cursor="n")
            assert [each["n"] for each in docs.to_pylist()] == [0, 1, 2, 3]

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


class TestChangesWhileReading:
    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    @pytest.mark.parametrize("id_form", ["hex", "oid", "objectid"])
    def test_documents_that_stay_are_read_once_and_what_comes_behind_is_not_seen(
        self, local: Local, server: ConnectomeServer, strategy: Any, id_form: str
    ) -> None:
        server.switches(id_form=id_form)
        things = local.collection()
        things.append([{"n": 10 * n} for n in range(12)])
        server.switches(page_cap=3)
        read: list[int] = []
        for batch in things.find(sort={"n": 1}, strategy=strategy):
            read += batch.column("n").to_pylist()
            if len(read) == 3:
                things.delete({"n": 20})  # the last document that was read
                things.delete({"n": 40})
                things.insert({"n": 15})
                things.insert({"n": 75})
        assert read == [0, 10, 20, 30, 50, 60, 70, 75, 80, 90, 100, 110]

    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    @pytest.mark.parametrize("id_form", ["hex", "oid", "objectid"])
    @pytest.mark.parametrize("cap", [1, 3])
    def test_the_last_document_may_go_at_every_page(
        self, local: Local, server: ConnectomeServer, strategy: Any, id_form: str, cap: int
    ) -> None:
        server.switches(id_form=id_form)
        things = local.collection()
        things.append([{"n": n} for n in range(9)])
        server.switches(page_cap=cap)
        docs = things.find(strategy=strategy)
        read: list[int] = []
        for batch in docs:
            read += batch.column("n").to_pylist()
            things.delete({"n": read[-1]})
        assert sorted(read) == list(range(9))
        assert docs.report is not None
        assert docs.report.proved

    def test_everything_may_go(self, local: Local, server: ConnectomeServer) -> None:
        things = local.collection(numbered(6))
        server.switches(page_cap=3)
        read: list[int] = []
        for batch in things.find():
            read += batch.column("n").to_pylist()
            things.delete({}, everything=True)
        assert read == [0, 1, 2]


class TestTheCursor:
    def test_shows_in_no_projection_that_did_not_ask_for_it(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = [
            {"_id": n, "a": {"k": n, "b": 1.50}, "c": [n]} | ({"d": {}} if n % 2 else {})
            for n in range(7)
        ]
        things = local.collection(documents)
        server.switches(page_cap=3)
        cases: list[tuple[dict[str, Any], list[Document]]] = [
            ({"_id": 0, "c": 1}, [{"c": [n]} for n in range(7)]),
            ({"_id": 0, "a.b": 1}, [{"a": {"b": 1.5}}] * 7),
            ({"_id": 0, "a.k": 1}, [{"a": {"k": n}} for n in range(7)]),
            ({"_id": 0, "a": 0}, [{"c": [n]} | ({"d": {}} if n % 2 else {}) for n in range(7)]),
            ({"a.k": 0, "c": 0, "d": 0}, [{"_id": n, "a": {"b": 1.5}} for n in range(7)]),
            ({"_id": 1}, [{"_id": n} for n in range(7)]),
        ]
        for project, expected in cases:
            for strategy in ("auto", "pages"):
                docs = things.find(project=project, cursor="a.k", strategy=strategy)
                assert docs.to_pylist() == expected, project
                table = docs.to_arrow()
                assert table.column_names == list(dict.fromkeys(k for row in expected for k in row))
                assert docs.report is not None
                assert docs.report.proved

    def test_of_several_types_is_no_conflict_where_it_is_not_shown(self, local: Local) -> None:
        things = local.collection([{"_id": 1, "n": 1}, {"_id": "a", "n": 2}])
        docs = things.find(project={"_id": 0})
        assert docs.to_arrow().to_pylist() == [{"n": 1}, {"n": 2}]
        assert docs.report is not None
        assert (docs.report.conflicts, docs.report.requests) == ({}, 2)

    def test_that_holds_an_array_is_refused_where_it_matters(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection([{"_id": n, "k": [n, n + 1]} for n in range(4)])
        with pytest.raises(ReadInterrupted, match="'k' holds an array"):
            things.find(cursor="k", strategy="pages").to_pylist()
        docs = things.find(sort={"k": 1})
        assert len(docs.to_pylist()) == 4
        assert docs.report is not None
        assert not docs.report.proved
        cut_at(server, 60)
        with pytest.raises(ReadInterrupted, match="It cannot go on"):
            things.find(sort={"k": 1}).to_pylist()

    def test_that_ties_where_no_filter_finds_the_id_is_walked_by_its_groups(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        server.switches(id_form="objectid")
        things = local.collection()
        things.append([{"k": n // 3, "n": n} for n in range(12)])
        server.switches(extended_json=False, expr=False, page_cap=5)
        for strategy in ("auto", "pages"):
            docs = things.find(cursor="k", strategy=strategy)
            assert sorted(each["n"] for each in docs.to_pylist()) == list(range(12))
        for cap in (1, 2, 3):  # no response shows more than one group
            server.switches(page_cap=cap)
            with pytest.raises(ReadInterrupted, match="cannot go on after"):
                things.find(cursor="k").to_pylist()

    def test_settings_that_contradict_each_other_are_refused(self, local: Local) -> None:
        things = local.collection()
        for settings_, words in (
            ({"strategy": "fast"}, "strategy is 'fast'"),
            ({"strategy": "stream", "cursor": "n"}, "takes no cursor"),
            ({"sort": {"a": 1}, "cursor": "n"}, "sort begins with 'a'"),
            ({"cursor": ""}, "name of a field"),
            ({"strategy": "pages", "project": {"c": {"$slice": 1}}}, "the projection computes"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                things.find(**settings_)


class TestAServiceThatCannotDoEverything:
    @staticmethod
    def asked(request: Request) -> Document:
        found: Document = msgspec.json.decode(request.body)
        return found

    @pytest.mark.parametrize(
        "refusal",
        [answer(413, b'{"error":"too large"}'), answer(400, b'{"error":"code 292"}'),
         answer(400, b'{"error":"Sort exceeded memory limit of 104857600 bytes"}')],
    )  # fmt: skip
    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    def test_is_asked_for_less_until_it_can(
        self, local: Local, server: ConnectomeServer, refusal: Step, strategy: Any
    ) -> None:
        documents = numbered(40)
        things = local.collection(documents)
        small = lambda request: self.asked(request).get("limit", 1 << 30) <= 6  # noqa: E731
        with serving(when(small, forward(server.base_url), refusal)) as service:
            through = paged(local.again(things, through=service.base_url), 20)
            docs = through.find(strategy=strategy)
            assert docs.to_pylist() == documents
            assert docs.report is not None
            assert docs.report.proved

    def test_not_even_one_document_is_its_error(self, local: Local) -> None:
        things = local.collection(numbered(3))
        with serving(answer(413)) as service:
            with pytest.raises(PayloadTooLarge):
                local.again(things, through=service.base_url).find().to_pylist()

    @pytest.mark.parametrize("operator", [b'"$type"', b'"$gte"', b'"$or"'])
    def test_that_knows_no_such_operator_proves_the_end_by_the_opposite_order(
        self, local: Local, server: ConnectomeServer, operator: bytes
    ) -> None:
        documents = numbered(5)
        things = local.collection(documents)
        knows = lambda request: operator not in request.body  # noqa: E731
        with serving(when(knows, forward(server.base_url), answer(400))) as service:
            docs = local.again(things, through=service.base_url).find()
            assert docs.to_pylist() == documents
            assert docs.report is not None
            assert docs.report.proved
            server.switches(page_cap=3)
            with pytest.raises(ReadInterrupted, match="cannot go on after 3 documents"):
                docs.to_pylist()

    def test_that_does_not_look_at_the_query_is_not_read_for_ever(self) -> None:
        body = msgspec.json.encode(numbered(5))
        with (
            serving(answer(body=body)) as service,
            Connectome(base_url=service.base_url, read_credential="r" * 20) as connectome,
        ):
            with pytest.raises(ReadInterrupted):
                connectome.collection("movies").find().to_pylist()
            assert len(service.requests) < 15

    def test_large_documents_make_smaller_pages(
        self, local: Local, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pages, "PAGE_BYTES", 3000)
        documents = [{"_id": n, "text": "x" * 1000} for n in range(12)]
        things = local.collection(documents)
        docs = paged(things, 5).find(strategy="pages")
        assert docs.to_pylist() == documents
        assert docs.report is not None
        # five, then two at a time, and the last one brings nothing but the anchor
        assert (docs.report.pages, docs.report.requests) == (5, 6)


INSTANT = {"$date": "2020-01-01T00:00:00Z"}
cursors = st.one_of(
    st.none(),
    st.integers(-2, 3),
    st.sampled_from(
        [0.5, -0.0, 2**53 + 2, 1e300, "", "a", "é", "0" * 24, "\U0001f600", False, True]
    ),
    st.sampled_from([{"$oid": "0" * 24}, {"$oid": "b" * 24}, INSTANT, {"x": 1}, {"x": None}, {}]),
    st.sampled_from(
        [{"$numberDouble": "NaN"}, {"$numberDecimal": "0.5"}, {"$numberDecimal": "NaN"}]
    ),
    st.sampled_from(
        [{"$minKey": 1}, {"$maxKey": 1}, {"$binary": {"base64": "AA==", "subType": "00"}}]
    ),
)
things_found = st.lists(
    st.fixed_dictionaries({"n": st.integers(0, 4)}, optional={"k": cursors, "m": cursors}),
    max_size=14,
)
sorts = st.sampled_from(
    [
        None,
        {"_id": -1},
        {"k": 1},
        {"k": -1},
        {"n": -1},
        {"k": 1, "n": -1},
        {"n": 1, "k": -1, "m": 1},
    ]
)


@given(
    documents=things_found,
    sort=sorts,
    limit=st.none() | st.integers(1, 9),
    cap=st.none() | st.integers(1, 6),
    breaks=st.none() | st.tuples(st.integers(0, 99), st.integers(1, 1000)),
    strategy=st.sampled_from(["auto", "pages"]),
    page_rows=st.integers(1, 6),
    id_form=st.sampled_from(["hex", "oid", "objectid"]),
    project=st.sampled_from([None, {"_id": 0}, {"n": 1}, {"n": 1, "_id": 0}, {"k": 0}]),
    least=st.integers(0, 2),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_read_equals_what_the_server_holds(
    local: Local,
    documents: list[Document],
    sort: Any,
    limit: int | None,
    cap: int | None,
    breaks: tuple[int, int] | None,
    strategy: Any,
    page_rows: int,
    id_form: str,
    project: Any,
    least: int,
) -> None:
    server = local.server
    server.faults.replace([])
    server.switches(id_form=id_form, page_cap=None)
    things = local.collection()
    if documents:
        things.append(documents)
    found = [each for each in held(server, things.id) if each["n"] >= least]
    order = {**(sort or {"_id": 1})}
    order.setdefault("_id", list(order.values())[-1])
    expected = [shown(each, project, id_form) for each in in_order(found, order)[:limit]]
    server.switches(page_cap=cap)
    if breaks is not None:
        server.faults.add("cut", verb="readwithquery", share=0.5, seed=breaks[0], bytes=breaks[1])
    docs = paged(things, page_rows).find(
        {"n": {"$gte": least}} if least else None,
        sort=sort,
        limit=limit,
        project=project,
        strategy=strategy,
    )
    try:
        read = docs.to_pylist()
    except ReadInterrupted as error:
        # So early that not even one document behind the anchor may arrive, time and again.
        broken_early = breaks is not None and breaks[1] < 500
        assert broken_early, error  # noqa: PT017 - a read may end so, or with everything
        return
    assert read == expected
    assert docs.report is not None
    assert docs.report.proved


def shown(document: Document, project: Any, id_form: str) -> Document:
    """A document as the switches and the projection of the law above show it."""
    project = project or {}
    hidden = {name for name, value in project.items() if not value}
    only = {name for name, value in project.items() if value}
    names = [n for n in document if n not in hidden and (not only or n in only or n == "_id")]
    found = {name: document[name] for name in names}
    if id_form == "objectid" and "_id" in found:
        found["_id"] = found["_id"]["$oid"]
    return found
