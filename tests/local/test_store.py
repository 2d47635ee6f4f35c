"""What the store must hold: nothing lost, nothing half done, an index that changes no answer."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from bson import Regex
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_dagster.local.collection import MAX_INDEXES, MAX_NARROWING
from connectome_dagster.local.http_errors import BadRequest, NotFound, TooLarge
from connectome_dagster.local.index import EqualityIndex
from connectome_dagster.local.journal import FILE_NAME, Journal, JournalError
from connectome_dagster.local.query import compile_filter
from connectome_dagster.local.sorting import compile_sort
from connectome_dagster.local.store import MAX_DOCUMENT_BYTES, Search, Store
from connectome_dagster.local.text import encode
from connectome_dagster.local.values import MISSING, comparison_key


def found(store: Store, query: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return json.loads(b"".join(store.find("things", Search(query=query, **more))))


@pytest.fixture
def store() -> Any:
    opened = Store()
    opened.add_collection("things")
    yield opened
    opened.close()


def test_natural_order_is_that_of_insertion_whatever_is_updated(store: Store) -> None:
    store.insert("things", [{"_id": n, "k": 0} for n in range(5)])
    store.update("things", {"_id": 1}, {"k": 1}, upsert=False)
    store.delete("things", {"_id": 3}, many=True)
    store.insert("things", [{"_id": 3, "k": 0}])

    assert [one["_id"] for one in store.documents("things")] == [0, 1, 2, 4, 3]
    assert [one["_id"] for one in found(store, {"k": 0})] == [0, 2, 4, 3]


def test_kept_documents_are_the_same_after_a_restart(tmp_path: Path) -> None:
    documents = [
        {"_id": "b", "n": 9223372036854775807, "f": 1.0, "deep": {"z": [1, {"y": None}], "a": "ü"}},
        {"_id": "a", "f": -0.0},
        {"_id": 3},
    ]
    before = Store(tmp_path)
    before.add_collection("things")
    before.add_collection("other")
    before.insert("other", [{"_id": 1}])
    before.insert("things", documents)
    before.update("things", {"_id": "b"}, {"f": 2.5}, upsert=False)
    before.delete("things", {"_id": 3}, many=False)
    texts = list(before.find("things", Search()))
    before.close()

    after = Store(tmp_path)
    assert after.collections() == []
    after.add_collection("things")
    try:
        assert list(after.find("things", Search())) == texts
        with pytest.raises(BadRequest, match="duplicate"):
            after.insert("things", [{"_id": "a"}])
        after.insert("things", [{"_id": "new"}])
        assert [one["_id"] for one in after.documents("things")] == ["b", "a", "new"]
    finally:
        after.close()


def test_bson_types_outlive_a_restart(tmp_path: Path) -> None:
    from bson import Decimal128, Int64

    before = Store(tmp_path)
    before.add_collection("things")
    before.insert("things", [{"_id": 1, "long": Int64(5), "price": Decimal128("1.10")}])
    before.close()

    after = Store(tmp_path)
    after.add_collection("things")
    try:
        assert len(found(after, {"long": {"$type": "long"}})) == 1
        assert len(found(after, {"price": {"$type": "decimal"}})) == 1
    finally:
        after.close()


def test_a_dropped_collection_is_gone_for_good(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_collection("things")
    store.insert("things", [{"n": 1}])

    store.drop_collection("things")

    with pytest.raises(NotFound):
        store.documents("things")
    store.add_collection("things")
    assert store.documents("things") == []
    store.close()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    try:
        with pytest.raises(JournalError, match="another server"):
            Store(tmp_path)
    finally:
        store.close()
    Store(tmp_path).close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("not a database" * 100)

    with pytest.raises(JournalError, match="not a database"):
        Store(tmp_path)

    assert (tmp_path / FILE_NAME).read_text() == "not a database" * 100


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(JournalError, match="file"):
        Store(tmp_path / "file")


def test_what_sqlite_cannot_write_did_not_happen(store: Store) -> None:
    class Full:
        """A journal whose disk is full."""

        def write(self, *_: Any, **__: Any) -> None:
            raise JournalError("disk full")

        def close(self) -> None:
            """Nothing is open."""

    store.insert("things", [{"_id": 1, "n": 1}])
    store._journal.close()
    store._journal = Full()  # type: ignore[assignment]

    with pytest.raises(JournalError):
        store.insert("things", [{"_id": 2}])
    with pytest.raises(JournalError):
        store.update("things", {"_id": 1}, {"n": 2}, upsert=False)
    with pytest.raises(JournalError):
        store.delete("things", {}, many=True)

    assert store.documents("things") == [{"_id": 1, "n": 1}]


def test_a_change_that_breaks_midway_leaves_no_trace(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("things", put=[(1, b"1")])

    with pytest.raises(JournalError):
        journal.write("things", put=[(2, b"2"), (3, None)], remove=[1])  # type: ignore[list-item]

    assert journal.load("things") == [(1, b"1")]
    journal.write("things", put=[(4, b"4")], remove=[1])
    assert journal.load("things") == [(4, b"4")]
    journal.close()


def test_a_document_over_mongodbs_bound_is_refused(store: Store) -> None:
    with pytest.raises(TooLarge):
        store.insert("things", [{"_id": 1}, {"text": "x" * MAX_DOCUMENT_BYTES}])

    assert store.documents("things") == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], "an array"),
        (Regex("a"), "a regular expression"),
        ({"$x": 1}, "a document with a field '\\$x'"),
        ({"y": 1, "$x": 1}, "a document with a field '\\$x'"),
    ],
)
def test_an_id_that_mongodb_would_not_take_is_refused(
    store: Store, value: Any, reason: str
) -> None:
    with pytest.raises(BadRequest, match=f"_id cannot be {reason}"):
        store.insert("things", [{"_id": value}])

    assert store.documents("things") == []


def test_one_of_several_writers_at_a_time(store: Store) -> None:
    def upsert(worker: int) -> None:
        for n in range(50):
            store.update("things", {"k": n}, {f"by{worker}": True}, upsert=True)

    threads = [threading.Thread(target=upsert, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    documents = store.documents("things")
    assert sorted(one["k"] for one in documents) == list(range(50))
    assert all(one[f"by{worker}"] for one in documents for worker in range(4))


def test_a_read_sees_a_batch_whole_or_not_at_all(store: Store) -> None:
    done = threading.Event()
    sizes: set[int] = set()

    def read() -> None:
        while not done.is_set():
            sizes.add(len(found(store, {})))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        store.insert("things", [{"n": n} for n in range(100)])
    done.set()
    reader.join()

    assert all(size % 100 == 0 for size in sizes)


def test_indexes_are_bounded(store: Store) -> None:
    store.insert("things", [{f"f{n}": n for n in range(3 * MAX_INDEXES)}])

    for n in range(3 * MAX_INDEXES):
        assert len(found(store, {f"f{n}": n})) == 1

    assert len(store._collections["things"]._indexes) == MAX_INDEXES


def test_a_filter_on_more_equalities_than_indexes_still_answers(store: Store) -> None:
    fields = {f"f{n}": n for n in range(2 * MAX_INDEXES)}
    store.insert("things", [fields, {**fields, "f3": -1}])

    assert len(found(store, fields)) == 1


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, 1.0, -0.0, 2.5, float("nan"), float("inf")]),
    st.sampled_from(["", "a", "b", "1"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=2),
    ),
    max_leaves=5,
)
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2)
PATHS = st.sampled_from(["a", "b", "a.b", "a.0", "a.b.0", "a.0.b"])


@given(st.lists(DOCUMENTS, max_size=8), PATHS, VALUES, st.data())
@settings(max_examples=400, deadline=None)
def test_an_index_never_hides_a_match(
    documents: list[dict[str, Any]], path: str, value: Any, data: st.DataObject
) -> None:
    index = EqualityIndex(path)
    for seq, document in enumerate(documents):
        index.add(seq, document)
    removed = data.draw(st.sets(st.integers(0, len(documents) - 1))) if documents else set()
    for seq in removed:
        index.remove(seq, documents[seq])

    candidates = index.candidates(value)

    matches = compile_filter({path: {"$eq": value}})
    expected = {n for n, one in enumerate(documents) if n not in removed and matches(one)}
    assert candidates is None or expected <= candidates
    assert candidates is None or not candidates & removed


@given(st.lists(DOCUMENTS, max_size=6), st.lists(st.tuples(PATHS, VALUES), max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_store_answers_as_a_plain_list_would(
    documents: list[dict[str, Any]], looks: list[tuple[str, Any]]
) -> None:
    with closing(Store()) as store:
        store.add_collection("things")
        if documents:
            store.insert("things", [{"_id": n, **one} for n, one in enumerate(documents)])
        for path, value in looks:
            query = {path: {"$eq": value}}
            matches = compile_filter(query)
            expected = [n for n, one in enumerate(documents) if matches(one)]
            assert [one["_id"] for one in found(store, query)] == expected
            store.update("things", {"_id": 0}, {"b": value}, upsert=True)
            documents = [{**one} for one in documents] or [{}]
            documents[0]["b"] = value


IDS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=2))
BOUNDS = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), IDS, max_size=2)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_pages_by_id_are_what_sorting_everything_gives(data: st.DataObject) -> None:
    ids = data.draw(st.lists(IDS, max_size=12, unique_by=comparison_key))
    with closing(Store()) as store:
        store.add_collection("things")
        held = {}
        for id_ in ids:
            store.insert("things", [{"_id": id_, "k": len(held) % 2}])
            held[comparison_key(id_)] = {"_id": id_, "k": len(held) % 2}
            query: dict[str, Any] = {"$and": [{"_id": data.draw(BOUNDS)}, {"k": data.draw(BOUNDS)}]}
            if data.draw(st.booleans()):
                query["k"] = 1
            if data.draw(st.booleans()):
                gone = data.draw(st.sampled_from(sorted(held)))
                store.delete("things", {"_id": {"$in": [held.pop(gone)["_id"]]}}, many=True)
            if data.draw(st.booleans()):
                store.update("things", {}, {"k": 1}, upsert=True)
                held = {comparison_key(one["_id"]): one for one in _exactly(store)}
            sort, limit = {"_id": data.draw(st.sampled_from([1, -1]))}, data.draw(st.integers(1, 4))

            expected = compile_sort(sort, limit)(filter(compile_filter(query), held.values()))
            answer = b"".join(store.find("things", Search(query=query, sort=sort, limit=limit)))

            assert answer == b"[" + b",".join(encode(one, plain=False) for one in expected) + b"]"


KEYS = st.one_of(IDS, st.just(MISSING), st.lists(st.integers(-2, 2), max_size=2))
DIRECTIONS = st.sampled_from([1, -1])


@st.composite
def after(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """A filter as paging sends it, in each form: what follows a key, ties broken by `_id`."""
    operator, anchor = draw(st.sampled_from(["$gt", "$gte", "$lt", "$lte"])), draw(IDS)
    tie = {path: anchor, "_id": {operator: draw(IDS)}}
    return draw(
        st.sampled_from(
            [
                {path: {operator: anchor}},
                {"$or": [{path: {operator: anchor}}, tie]},
                {"$expr": {operator: [f"${path}", {"$literal": anchor}]}},
                {"$or": [{path: {operator: anchor}}, {"other": 1}]},
                {path: anchor},
            ]
        )
    )


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_pages_by_a_field_are_what_sorting_everything_gives(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(["k", "k.x"]))
    sort = dict.fromkeys([path, "_id"], data.draw(DIRECTIONS))
    with closing(Store()) as store:
        store.add_collection("things")
        for number in range(data.draw(st.integers(1, 6))):
            value = data.draw(KEYS)
            inner = {} if value is MISSING else {"x": value}
            store.insert(
                "things",
                [
                    {"_id": number, "k": inner}
                    if path == "k.x"
                    else {"_id": number, **({} if value is MISSING else {"k": value})}
                ],
            )
            if data.draw(st.booleans()):
                store.update("things", {"_id": 0}, {path: data.draw(IDS)}, upsert=True)
            if data.draw(st.booleans()):
                store.delete("things", {"_id": data.draw(st.integers(0, 6))}, many=True)
            query, limit = data.draw(after(path)), data.draw(st.integers(1, 4))

            held = filter(compile_filter(query), _exactly(store))
            expected = compile_sort(sort, limit)(held)
            answer = b"".join(store.find("things", Search(query=query, sort=sort, limit=limit)))

            assert answer == b"[" + b",".join(encode(one, plain=False) for one in expected) + b"]"


def _exactly(store: Store) -> list[dict[str, Any]]:
    return [one.document for one in store._collections["things"].rows.values()]


def test_pages_by_id_stay_right_while_documents_come_and_go(store: Store) -> None:
    def page(after: int) -> list[int]:
        query = {"_id": {"$gt": after}}
        return [one["_id"] for one in found(store, query, sort={"_id": 1}, limit=3)]

    store.insert("things", [{"_id": n} for n in range(0, 1000, 2)])
    assert page(500) == [502, 504, 506]
    store.insert("things", [{"_id": 503}])
    store.delete("things", {"_id": 504}, many=True)
    assert page(500) == [502, 503, 506]
    store.insert("things", [{"_id": n} for n in range(1, 999, 4) if n != 503])
    assert page(500) == [501, 502, 503]
    store.delete("things", {"_id": {"$lt": 990}}, many=True)
    assert page(500) == [990, 992, 993]


def test_a_filter_of_thousands_of_fields_builds_few_indexes(store: Store) -> None:
    store.insert("things", [{"_id": 1, "k0": 0, "k1": 1}])

    assert found(store, {f"k{n}": n for n in range(3000)}) == []
    assert len(store._collections["things"]._indexes) <= MAX_NARROWING


PROCESS = """
import sys
from connectome_dagster.cli import main
main(["serve", "--port", "0", "--data", sys.argv[1], "--collection", "things"])
"""


def start(data: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(data)],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "CONNECTOME_READ_CREDENTIAL": "reads",
            "CONNECTOME_WRITE_CREDENTIAL": "writes",
        },
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "answers at" in line, line
    return process, line.split()[-1]


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged: dict[str, set[int]] = {"inserted": set(), "upserted": set(), "deleted": set()}
    process, base_url = start(tmp_path)
    url = f"{base_url}/collection/%s/writes/things"
    enough = threading.Barrier(4)

    def write(worker: int) -> None:
        with requests.Session() as session:
            for n in range(10_000):
                number = n * 3 + worker
                try:
                    session.post(url % "batchwrite", json=[{"n": number}, {"n": -number - 1}])
                    acknowledged["inserted"].add(number)
                    body = {"search query": {"n": number}, "data": {"up": True}, "upsert": True}
                    session.post(url % "updatewithupsert", json=body)
                    acknowledged["upserted"].add(number)
                    session.delete(url % "batchdelete", json={"n": -number - 1})
                    acknowledged["deleted"].add(-number - 1)
                except requests.RequestException:
                    return
                if n == 20:
                    enough.wait(timeout=30)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    enough.wait(timeout=30)
    end(process)
    for thread in threads:
        thread.join()

    process, base_url = start(tmp_path)
    try:
        kept = requests.get(f"{base_url}/collection/read/reads/things", timeout=10).json()
    finally:
        end(process)

    by_number = {one["n"]: one for one in kept}
    assert len(acknowledged["inserted"]) >= 60
    assert len(by_number) == len(kept)
    assert acknowledged["inserted"] <= set(by_number)
    assert all(by_number[number].get("up") for number in acknowledged["upserted"])
    assert not acknowledged["deleted"] & set(by_number)
    # A batch is one transaction: the second document of one is there unless it was deleted again.
    for number in set(by_number) - acknowledged["upserted"]:
        assert number < 0 or -number - 1 in by_number


def test_the_database_is_sound_after_kill_9(tmp_path: Path) -> None:
    process, base_url = start(tmp_path)
    url = f"{base_url}/collection/batchwrite/writes/things"
    requests.post(url, json=[{"n": n} for n in range(1000)], timeout=10)
    end(process)

    database = sqlite3.connect(tmp_path / FILE_NAME)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM documents").fetchone() == (1000,)
    finally:
        database.close()
