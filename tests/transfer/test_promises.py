"""What docs/reading.md promises: with arrays and odd cursors, under breaks, splits and changes."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import ReadInterrupted
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer import pages
from connectome_dagster.transfer.collection import Collection
from connectome_dagster.transfer.search import PAGE_ROWS, Strategy
from tests.api.scripted import Request, Step, answer, serving
from tests.transfer.conftest import Local
from tests.transfer.faults import forward, when
from tests.transfer.test_complete import cursors, held, in_order, paged

Document = dict[str, Any]
slow = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def server(local: Local) -> ConnectomeServer:
    return local.server


def ids_of(documents: list[Document]) -> list[Any]:
    return [document["_id"] for document in documents]


class TestACursorThatHoldsArrays:
    @pytest.mark.parametrize("cap", [1, 2, 3, None])
    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    def test_ends_nowhere_before_an_empty_one(
        self, local: Local, server: ConnectomeServer, strategy: Any, cap: int | None
    ) -> None:
        # It stands before null, and no filter on what stands there finds it.
        documents = [{"_id": 1, "k": 5}, {"_id": 2, "k": None}, {"_id": 3, "k": []}, {"_id": 4}]
        things = paged(local.collection(documents), 2)
        server.switches(page_cap=cap)
        if strategy == "auto" and cap is None:
            docs = things.find(sort={"k": -1})
            assert ids_of(docs.to_pylist()) == [1, 4, 2, 3]
            assert docs.report is not None
            assert docs.report.proved  # the opposite order begins with the document, and it alone
            return
        with pytest.raises(ReadInterrupted, match="'k' holds an array"):
            things.find(sort={"k": -1}, strategy=strategy).to_pylist()

    @pytest.mark.parametrize(
        "documents",
        [
            [{"k": 1}, {"k": [0, 9]}, {"k": 5}, {"k": 9}, {"k": 3}],
            [{"a": {"b": 1}}, {"a": [{"b": 0}, {"b": 9}]}, {"a": {"b": 5}}, {"a": {"b": 9}}, {}],
            [{"a": {"b": 1}}, {"a": {"b": [3]}}, {"a": []}, {"a": {"b": []}}, {"a": [[2]]}],
            [{"k": [n, -n]} for n in range(5)],
        ],
    )
    @pytest.mark.parametrize("direction", [1, -1])
    def test_is_refused_or_read_whole(
        self, local: Local, server: ConnectomeServer, documents: list[Document], direction: int
    ) -> None:
        documents = [{"_id": n, **document} for n, document in enumerate(documents)]
        things = local.collection(documents)
        name = "k" if "k" in documents[0] else "a.b"
        for cap in (None, 1, 2, 3, 4):
            server.switches(page_cap=cap)
            finds = [
                things.find(cursor=name, split=2),
                things.find(sort={name: direction}),
                paged(things, 2).find(sort={name: direction}, strategy="pages"),
            ]
            for docs in finds:
                try:
                    read = ids_of(docs.to_pylist())
                except ReadInterrupted as error:
                    assert "array" in str(error)  # noqa: PT017 - or it reads everything
                    continue
                assert docs.report is not None
                assert sorted(read) == list(range(5)) or not docs.report.proved, cap
        server.switches(page_cap=None)
        assert len(things.find(sort={name: direction}).to_pylist()) == 5

    @given(
        arrays=st.lists(st.lists(st.integers(0, 9), max_size=3) | st.integers(0, 9), max_size=9),
        nested=st.booleans(),
        direction=st.sampled_from([1, -1]),
        cap=st.none() | st.integers(1, 5),
        strategy=st.sampled_from(["auto", "pages"]),
    )
    @settings(slow, max_examples=80)
    def test_loses_none_and_doubles_none(
        self,
        local: Local,
        arrays: list[Any],
        nested: bool,
        direction: int,
        cap: int | None,
        strategy: Any,
    ) -> None:
        local.server.switches(page_cap=None)
        things = paged(
            local.collection(
                {"_id": n, "a": {"b": value} if nested else value} for n, value in enumerate(arrays)
            ),
            3,
        )
        local.server.switches(page_cap=cap)
        docs = things.find(sort={"a.b" if nested else "a": direction}, strategy=strategy)
        try:
            read = ids_of(docs.to_pylist())
        except ReadInterrupted as error:
            assert any(isinstance(value, list) for value in arrays), error  # noqa: PT017
            return
        assert len(set(read)) == len(read)
        assert docs.report is not None
        assert sorted(read) == list(range(len(arrays))) or not docs.report.proved
        if cap is None or strategy == "pages":
            assert len(read) == len(arrays)


class TestAResponseThatLacksDocuments:
    @pytest.mark.parametrize("strategy", ["auto", "pages"])
    @pytest.mark.parametrize("split", [1, 2])
    def test_is_found_out_however_many_they_are_and_which_it_is(
        self, local: Local, server: ConnectomeServer, strategy: Any, split: int
    ) -> None:
        things = paged(local.collection({"_id": n} for n in range(9)), 4)
        for nth in range(1, 8):
            for shown in range(5):
                server.faults.replace([])
                server.faults.add("leaves_out", verb="readwithquery", nth=nth, documents=shown)
                docs = things.find(strategy=strategy, split=split)
                try:
                    read = ids_of(docs.to_pylist())
                except ReadInterrupted:
                    assert shown == 0
                    continue
                assert sorted(read) == list(range(9)), (nth, shown)

    def test_that_comes_time_and_again_is_an_error(self, local: Local) -> None:
        local.collection()
        looked = lambda request: b'{"_id":-1}' in request.body  # noqa: E731
        step = when(looked, answer(body=b'[{"_id":1}]'), answer(body=b"[]"))
        with serving(step) as service:
            through = local.collection(through=service.base_url)
            with pytest.raises(ReadInterrupted, match="no documents, and one when"):
                through.find().to_pylist()
            assert through.find(strategy="stream").to_pylist() == []


class TestQueriesThatSpeakOfTheCursor:
    QUERIES: tuple[Document, ...] = (
        {"_id": {"$gte": 2, "$lt": 9}},
        {"$or": [{"_id": {"$lt": 3}}, {"k": {"$in": [2, None]}}]},
        {"$and": [{"_id": {"$ne": 4}}, {"k": {"$gte": 1}}]},
        {"$nor": [{"_id": 5}], "$or": [{"k": 0}, {"_id": 7}]},
        {"k": None},
        {"k": {"$not": {"$gt": 1}}},
        {"_id": 3},
        {"_id": {"$in": []}},
        {"a.b": {"$gte": 1}},
    )

    @pytest.mark.parametrize("query", QUERIES, ids=repr)
    def test_are_read_whole_by_every_cursor(
        self, local: Local, server: ConnectomeServer, query: Document
    ) -> None:
        documents: list[Document] = [{"_id": n, "k": n % 3, "a": {"b": n % 2}} for n in range(9)]
        documents += [{"_id": 9}, {"_id": 10, "k": None, "a": None}]
        things = local.again(local.collection(documents), concurrency=3)
        found = ids_of(things.find(query, strategy="stream").to_pylist())
        for cap in (None, 1, 2):
            server.switches(page_cap=cap)
            for cursor in ("_id", "k", "a.b"):
                for docs in (
                    things.find(query, cursor=cursor),
                    paged(things, 2).find(query, cursor=cursor, strategy="pages"),
                    things.find(query, cursor=cursor, split=3),
                ):
                    assert sorted(ids_of(docs.to_pylist())) == found
                    assert docs.report is not None
                    assert docs.report.proved


def cut_in_turn(server: ConnectomeServer, size: int) -> Iterator[str]:
    """Every byte of the first responses as the place of a break."""
    for nth in (1, 2, 3):
        for byte in range(size):
            server.faults.replace([])
            server.faults.add("cut", verb="readwithquery", nth=nth, bytes=byte)
            yield f"byte {byte} of response {nth}"


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 2, "sort": {"n": -1}},
        {"limit": 3, "project": {"_id": 0, "n": 1}, "sort": {"n": 1}},
        {"project": {"_id": 0, "n": 0}, "sort": {"n": 1, "t": -1}},
        {"limit": 2, "strategy": "pages"},
        {"split": 2},
        {"split": 3, "project": {"_id": 0, "n": 1}},
    ],
    ids=repr,
)
def test_a_break_at_any_byte_shows_in_no_combination(
    local: Local, server: ConnectomeServer, asked: Document
) -> None:
    documents = [{"_id": n, "n": n // 2, "t": "é]"} for n in range(3)]
    things = local.again(local.collection(documents), concurrency=3)
    expected = sorted(map(msgspec.json.encode, things.find(**asked).to_pylist()))
    for where in cut_in_turn(server, len(msgspec.json.encode(documents)) + 2):
        docs = things.find(**asked)
        read = docs.to_pylist()
        if "split" not in asked:
            assert docs.report is not None
            assert docs.report.proved
        assert sorted(map(msgspec.json.encode, read)) == expected, where


class TestSplit:
    @pytest.mark.parametrize(
        "documents",
        [
            [],
            [{"k": 5}],
            [{"k": 1}] * 7,
            [{}] * 5,
            [{"k": n} for n in range(20)],
            [{"k": None}, {}, {"k": 3}, {"k": "x"}, {"k": True}, {"k": 4}, {"k": {"a": 1}}],
            [{"k": {"$minKey": 1}}, {"k": -(2**62)}, {"k": 2.5}, {"k": 2**62}],
            [{"k": {"$maxKey": 1}}, {"k": 1}, {"k": 9}],
            [{"k": {"$numberDouble": name}} for name in ("NaN", "-Infinity", "0.5", "Infinity")],
            [{"k": {"$date": f"20{n}-01-01T00:00:00Z"}} for n in range(10, 20)] + [{"k": "a"}],
        ],
        ids=lambda documents: repr(documents)[:50],
    )  # fmt: skip
    @pytest.mark.parametrize("cap", [None, 3])
    def test_into_any_number_of_ranges_is_everything_once(
        self, local: Local, server: ConnectomeServer, documents: list[Document], cap: int | None
    ) -> None:
        documents = [{"_id": n, **document} for n, document in enumerate(documents)]
        things = local.again(local.collection(documents), concurrency=8)
        server.switches(page_cap=cap)
        for split in range(1, 9):
            for cursor in (None, "k"):
                docs = things.find(split=split, cursor=cursor)
                assert sorted(ids_of(docs.to_pylist())) == list(range(len(documents))), split
                assert docs.report is not None
                assert docs.report.proved


class TestPagesFitTheirBytes:
    def test_of_documents_of_a_megabyte_there_are_few_to_a_page(
        self, local: Local, server: ConnectomeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pages, "FIRST_PAGE_ROWS", 3)
        monkeypatch.setattr(pages, "PAGE_BYTES", 2 << 20)
        things = local.collection()
        for n in range(9):
            things.insert({"_id": n, "text": f"{n}" * (1 << 20)})
        strategies: tuple[Strategy, ...] = ("pages", "auto")
        for strategy in strategies:
            if strategy == "auto":
                server.faults.add("cut", verb="readwithquery", nth=1, bytes=5 << 19)
            seen = len(server.log)
            docs = things.find(strategy=strategy)
            assert ids_of(docs.to_pylist()) == list(range(9))
            assert docs.report is not None
            assert docs.report.proved
            assert (docs.report.resumed == 1) == (strategy == "auto")
            # Two documents at most beside the one that was there, once their size is known.
            assert max(each.response_bytes for each in server.log[seen + 1 :]) < 3.1 * (1 << 20)

    def test_the_first_one_is_small_while_nobody_knows_how_large_documents_are(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection({"_id": n} for n in range(pages.FIRST_PAGE_ROWS + 100))
        with serving(forward(server.base_url)) as service:
            docs = local.again(things, through=service.base_url).find(strategy="pages")
            assert len(docs.to_pylist()) == pages.FIRST_PAGE_ROWS + 100
            limits = [msgspec.json.decode(each.body)["limit"] for each in service.requests]
        assert docs.report is not None
        assert (docs.report.pages, docs.report.requests) == (2, 3)
        assert limits == [pages.FIRST_PAGE_ROWS, PAGE_ROWS + 1, 2]


# --- while others write

Change = tuple[str, int, Any]

changes = st.lists(
    st.none()
    | st.tuples(st.just("insert"), st.integers(20, 60), cursors)
    | st.tuples(st.just("delete"), st.integers(0, 19), st.none())
    | st.tuples(st.just("delete_last"), st.just(0), st.none())
    | st.tuples(st.just("touch"), st.integers(0, 19), st.integers(0, 3)),
    max_size=12,
)


def writing(base_url: str, write: Callable[[Change], None], todo: list[Change | None]) -> Step:
    """Forwards, and lets somebody else write something before each request."""

    def step(connection: socket.socket, request: Request, over: threading.Event) -> bool:
        change = todo.pop(0) if todo else None
        if change is not None:
            write(change)
        return forward(base_url)(connection, request, over)

    return step


class Writer:
    """Somebody else, who tells what became of the documents."""

    def __init__(self, things: Collection, documents: list[Document]) -> None:
        self._things = things
        self.there = {document["_id"]: document for document in documents}
        self.always = set(self.there)
        self.ever = dict(self.there)

    def __call__(self, change: Change) -> None:
        what, number, value = change
        if what == "insert" and number not in self.ever:
            self.ever[number] = self.there[number] = {"_id": number, "k": value}
            self._things.insert(self.there[number])
        elif what == "touch" and number in self.there:
            self._things.update({"_id": number}, {"touched": value})
        elif what == "delete_last" and self.there:
            self._delete(max(self.there))
        elif what == "delete" and number in self.there:
            self._delete(number)

    def _delete(self, number: int) -> None:
        del self.there[number]
        self.always.discard(number)
        self._things.delete({"_id": number})


@given(
    found=st.lists(cursors, min_size=1, max_size=12),
    todo=changes,
    cap=st.none() | st.integers(1, 4),
    page_rows=st.integers(1, 4),
    strategy=st.sampled_from(["auto", "pages"]),
    sort=st.sampled_from([None, {"_id": -1}, {"k": 1}, {"k": -1}]),
    split=st.sampled_from([1, 1, 2]),
)
@example(
    found=[None, None],
    todo=[None, ("delete_last", 0, None)],
    cap=None,
    page_rows=1,
    strategy="auto",
    sort={"k": 1},
    split=1,
)
@settings(slow, max_examples=150)
def test_what_is_there_all_the_time_is_read_once_and_nothing_twice_while_others_write(
    local: Local,
    found: list[Any],
    todo: list[Change | None],
    cap: int | None,
    page_rows: int,
    strategy: Any,
    sort: Any,
    split: int,
) -> None:
    server = local.server
    server.switches(page_cap=None)
    documents: list[Document] = [{"_id": n, "k": value} for n, value in enumerate(found)]
    things = local.collection(documents)
    writer = Writer(things, documents)
    server.switches(page_cap=cap)
    with serving(writing(server.base_url, writer, list(todo))) as service:
        through = paged(local.again(things, through=service.base_url), page_rows)
        docs = through.find(
            sort=None if split > 1 else sort, strategy=strategy, split=split, project={"k": 1}
        )
        try:
            read = ids_of(docs.to_pylist())
        except ReadInterrupted as error:
            # Its last document is gone, and no other one shows how such values are said: never so
            # of plain ones, as these ids are.
            assert sort is not None
            assert "k" in sort
            assert "no filter on k and _id finds" in str(error)  # noqa: PT017 - or it reads all
            assert len(writer.there) < len(writer.ever)
            return
    counts = Counter(read)
    assert set(counts) <= set(writer.ever)
    assert max(counts.values(), default=1) == 1
    assert writer.always <= set(counts)
    assert docs.report is not None
    assert docs.report.proved
    if split == 1:
        order = {**(sort or {"_id": 1})}
        order.setdefault("_id", list(order.values())[-1])
        assert read == ids_of(in_order([writer.ever[n] for n in read], order))


@given(
    more=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    cap=st.none() | st.integers(1, 4),
    strategy=st.sampled_from(["auto", "pages"]),
)
@settings(slow, max_examples=40)
def test_what_is_added_at_the_end_before_the_last_look_is_read(
    local: Local, more: list[int], cap: int | None, strategy: Any
) -> None:
    server = local.server
    server.switches(page_cap=None)
    documents = [{"_id": n, "k": n} for n in range(3)]
    things = local.collection(documents)
    writer = Writer(things, documents)
    todo: list[Change | None] = [None]
    numbers = iter(range(20, 60))
    for count in more:
        todo += [("insert", next(numbers), n) for n in range(count)] + [None]
    server.switches(page_cap=cap)
    with serving(writing(server.base_url, writer, todo)) as service:
        docs = paged(local.again(things, through=service.base_url), 2).find(strategy=strategy)
        read = ids_of(docs.to_pylist())
    assert read == sorted(writer.ever)
    assert sorted(ids_of(held(server, things.id))) == read


service_changes = st.lists(
    st.none()
    | st.tuples(st.sampled_from(["insert", "delete", "delete_last"]), st.integers(0, 40), cursors),
    max_size=10,
)


@given(
    count=st.integers(1, 9),
    todo=service_changes,
    cap=st.none() | st.integers(1, 4),
    id_form=st.sampled_from(["hex", "oid", "objectid"]),
    extended_json=st.booleans(),
    strategy=st.sampled_from(["auto", "pages"]),
    direction=st.sampled_from([1, -1]),
    page_rows=st.integers(1, 4),
)
@example(
    count=1,
    todo=[None, ("delete", 0, None)],
    cap=None,
    id_form="hex",
    extended_json=False,
    strategy="pages",
    direction=1,
    page_rows=1,
)
@settings(slow, max_examples=100)
def test_the_same_holds_of_ids_that_the_service_makes_and_shows_in_its_own_form(
    local: Local,
    count: int,
    todo: list[Change | None],
    cap: int | None,
    id_form: str,
    extended_json: bool,
    strategy: Any,
    direction: int,
    page_rows: int,
) -> None:
    server = local.server
    server.switches(page_cap=None, id_form=id_form, extended_json=extended_json)
    things = local.collection()
    numbers = list(range(count))
    for number in numbers:
        things.insert({"n": number})
    always, ever = set(numbers), set(numbers)

    def write(change: Change) -> None:
        what, number, _ = change
        if what == "insert":
            if number not in ever:
                ever.add(number)
                things.insert({"n": number})
            return
        shown = [each["n"] for each in server.documents(things.id)]
        gone = shown[-1:] if what == "delete_last" else [n for n in shown if n == number]
        for each in gone:
            always.discard(each)
            things.delete({"n": each})

    server.switches(page_cap=cap)
    with serving(writing(server.base_url, write, list(todo))) as service:
        through = paged(local.again(things, through=service.base_url), page_rows)
        docs = through.find(sort={"_id": direction}, strategy=strategy)
        read = [each["n"] for each in docs.to_pylist()]
    assert len(set(read)) == len(read)
    assert always <= set(read) <= ever
    assert docs.report is not None
    assert docs.report.proved
