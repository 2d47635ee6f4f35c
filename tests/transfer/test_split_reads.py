"""Several readers of disjoint ranges read what one would."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Generator
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import AuthenticationError, ConfigurationError, ReadInterrupted
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer.pages import Progress, Take, Walk
from connectome_dagster.transfer.ranges import between, outside
from connectome_dagster.transfer.readers import side_by_side
from connectome_dagster.transfer.search import Paging
from tests.transfer.conftest import Local
from tests.transfer.test_complete import IDS, cursors, held

Document = dict[str, Any]


def in_any_order(documents: list[Document]) -> list[bytes]:
    return sorted(map(msgspec.json.encode, documents))


@pytest.fixture
def server(local: Local) -> ConnectomeServer:
    return local.server


class TestPoints:
    @pytest.mark.parametrize(
        ("first", "last", "points"),
        [
            (0, 9, [3, 5, 7]),
            (0, 1, [1]),
            (0.0, 1, [0.25, 0.5, 0.75]),
            ("0" * 24, "f" * 24, ["4" + "0" * 23, "8" + "0" * 23, "c" + "0" * 23]),
            ({"$oid": "0" * 24}, {"$oid": "0" * 23 + "1"}, [{"$oid": "0" * 23 + "1"}]),
            ("2020-01-01T00:00:00Z", "2020-01-01T00:00:04Z",
             [f"2020-01-01T00:00:0{n}.000Z" for n in (1, 2, 3)]),
            (1, "a", []),
            (None, None, []),
            (5, 5, []),
            ([1], [2], []),
            (-1.7e308, 1.7e308, []),
        ],
    )  # fmt: skip
    def test_divide_evenly_what_numbers_can_tell(
        self, first: Any, last: Any, points: list[Any]
    ) -> None:
        assert between(first, last, 4) == points

    @given(st.text(max_size=6), st.text(max_size=6), st.integers(2, 6))
    def test_of_texts_rise_and_can_be_said(self, one: str, other: str, parts: int) -> None:
        first, last = sorted([one, other])
        found = between(first, last, parts)
        assert found == sorted(set(found))
        assert len(found) < parts
        assert msgspec.json.decode(msgspec.json.encode(found)) == found


class TestSplit:
    @pytest.mark.parametrize("cap", [None, 2])
    @pytest.mark.parametrize("ids", list(IDS.values()), ids=list(IDS))
    def test_reads_every_type_of_cursor(
        self, local: Local, server: ConnectomeServer, ids: list[Any], cap: int | None
    ) -> None:
        things = local.collection([{"_id": value, "n": n} for n, value in enumerate(ids)])
        server.switches(page_cap=cap)
        for split in (2, 3):
            docs = local.again(things, concurrency=3).find(split=split)
            assert in_any_order(docs.to_pylist()) == in_any_order(held(server, things.id))
            assert docs.report is not None
            assert docs.report.proved

    def test_divides_the_ids_that_the_service_makes_in_each_form(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        for id_form in ("hex", "oid", "objectid"):
            server.switches(id_form=id_form)
            things = local.collection()
            for at in range(0, 400, 100):
                things.append([{"n": n} for n in range(at, at + 100)])
            docs = local.again(things, concurrency=4).find(split=4)
            table = docs.to_arrow()
            assert sorted(table.column("n").to_pylist()) == list(range(400))
            ranges = ranges_of(docs, 4)
            assert len(ranges) == 4
            assert_disjoint_and_everything(local, things.id, ranges, table.num_rows)
            assert json.loads(json.dumps(ranges)) == ranges

    def test_takes_an_array_for_no_cursor(self, local: Local) -> None:
        things = local.collection([{"k": 1}, {"k": [1, 9]}, {"k": 9}])
        with pytest.raises(ReadInterrupted, match="'k' holds an array"):
            things.find(cursor="k", split=2).to_pylist()

    def test_is_refused_beside_what_asks_for_an_order(self, local: Local) -> None:
        things = local.collection()
        for more in ({"sort": {"k": 1}}, {"limit": 3}, {"strategy": "stream"}):
            with pytest.raises(ConfigurationError, match="in no order"):
                things.find(split=2, **more)
        for split in (0, 3, True, "2"):
            with pytest.raises(ConfigurationError, match="from 1 to the concurrency, 2"):
                things.find(split=split)  # type: ignore[arg-type]

    def test_ends_its_threads_when_the_reader_is_dropped(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection([{"_id": n} for n in range(60)])
        server.switches(page_cap=3)
        reader = things.find(split=2).reader()
        reader.read_next_batch()
        assert readers_running()
        del reader
        gc.collect()
        assert not readers_running()

    def test_tells_the_error_of_one_of_its_readers(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection([{"_id": n} for n in range(60)])
        server.faults.add("error", verb="readwithquery", nth=5, status=403)  # three divide
        with pytest.raises(AuthenticationError):
            things.find(split=2).to_pylist()
        assert not readers_running()


def readers_running() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "connectome-read"]


def ranges_of(docs: Any, parts: int) -> list[dict[str, Any]]:
    def fetch(call: Any) -> Generator[tuple[bytes, None], None, None]:
        yield from docs._source._fetch(call, lambda _piece: None, TallyOfNothing())

    paging: Paging = docs._source.paging

    def look(call: Any) -> Generator[bytes, None, None]:
        return (piece for piece, _ in fetch(call))

    take: Take[None] = Take(fetch, look, lambda _item: 0, lambda item, _start, _rows: item)
    return Walk(paging, take, Progress()).ranges(parts)


class TallyOfNothing:
    def add(self, body: Any) -> None:
        """Nobody counts here."""


def assert_disjoint_and_everything(
    local: Local, collection: str, ranges: list[dict[str, Any]], rows: int
) -> None:
    things = local.server
    found = local._opened(things.base_url, collection, read=things.read_credential)
    counts = [len(found.find(part, strategy="stream").to_pylist()) for part in ranges]
    assert sum(counts) == rows
    assert sum(count > 0 for count in counts) > 1
    for one, other in combinations(ranges, 2):
        assert found.find({"$and": [one, other]}, limit=1).to_pylist() == []
    assert found.find(outside(ranges), limit=1).to_pylist() == []


@given(
    documents=st.lists(
        st.fixed_dictionaries({}, optional={"k": cursors | st.integers(0, 99)}), max_size=14
    ),
    cap=st.none() | st.integers(1, 6),
    split=st.integers(2, 4),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_split_reads_what_the_server_holds(
    local: Local, documents: list[Document], cap: int | None, split: int
) -> None:
    server = local.server
    server.switches(page_cap=None)
    things = local.collection()
    if documents:
        things.append(documents)
    server.switches(page_cap=cap)
    docs = local.again(things, concurrency=4).find(split=split, cursor="k")
    assert in_any_order(docs.to_pylist()) == in_any_order(held(server, things.id))
    assert docs.report is not None
    assert docs.report.proved


def test_readers_hand_on_everything_and_the_first_error_ends_them() -> None:
    def counting(name: str, fails: bool) -> Generator[str, None, None]:
        for n in range(100):
            yield f"{name}{n}"
        if fails:
            raise ValueError(name)

    got = list(side_by_side([lambda: counting("a", False), lambda: counting("b", False)]))
    assert sorted(got) == sorted(f"{name}{n}" for name in "ab" for n in range(100))
    with pytest.raises(ValueError, match="b"):
        list(side_by_side([lambda: counting("a", False), lambda: counting("b", True)]))
    assert not readers_running()
