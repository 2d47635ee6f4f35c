from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import (
    ConfigurationError,
    EncodeError,
    NoMatch,
    OutcomeUnknown,
    QueryError,
    ReadInterrupted,
    RequestRejected,
    ServiceUnavailable,
)
from connectome_dagster.transfer.collection import Collection
from tests.api.scripted import (
    Request,
    ScriptedServer,
    Step,
    answer,
    cut,
    hang_up,
    reset,
    serving,
    stall,
    unused_port,
)
from tests.transfer.conftest import WRITE_SECRET, Local, Open
from tests.transfer.faults import verb_of

NONE = (None, None, None)
ROWS = [{"sku": n, "name": f"thing {n}", "price": n / 4} for n in range(25)]
DONE = answer(body=b'{"ok":true}')


class Stream:
    """Speaks the Arrow stream protocol and can be read once."""

    def __init__(self, table: pa.Table) -> None:
        self._reader = table.to_reader(max_chunksize=7)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._reader.__arrow_c_stream__(requested_schema)


class Frame:
    """Speaks the Arrow stream protocol as a frame in memory does."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


TABLE = pa.Table.from_pylist(ROWS)
FRAMES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas-indexed": lambda: pd.DataFrame(ROWS).set_index("sku"),
    "table": lambda: TABLE,
    "batch": lambda: TABLE.combine_chunks().to_batches()[0],
    "reader": lambda: TABLE.to_reader(max_chunksize=7),
    "stream": lambda: Stream(TABLE),
    "frame": lambda: Frame(TABLE),
    "list": lambda: ROWS,
    "generator": lambda: (row for row in ROWS),
    "batches": lambda: iter(TABLE.to_batches(max_chunksize=6)),
    "mixed": lambda: [TABLE.slice(0, 5), *ROWS[5:9], pd.DataFrame(ROWS[9:])],
    "readers": lambda: [TABLE.slice(0, 20).to_reader(), Stream(TABLE.slice(20))],
}
every_frame = pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())

# What may stand in place of an answer when nobody knows what became of the request.
DOUBTS: dict[str, Step] = {
    "reset": reset,
    "hang up": hang_up,
    "500": answer(500, b"oops"),
    "502": answer(502, b"<html>bad gateway</html>", content_type="text/html"),
    "503": answer(503, Retry_After=0),
    "cut": cut(b'{"inserted"'),
    "page": answer(200, b"<html>Log in</html>", content_type="text/html"),
    "stall": stall,
}
every_doubt = pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS.keys())


def canonical(documents: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(document, sort_keys=True) for document in documents)


def sent(server: ScriptedServer, verb: str = "batchwrite") -> list[list[dict[str, Any]]]:
    return [json.loads(each.body) for each in server.requests if verb_of(each) == verb]


def bare(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("_id", "_dagster")}


class Gauge:
    """Counts the requests that are being served at a time, and waits until there are enough."""

    def __init__(self, wanted: int) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(wanted)

    def __call__(self, connection: socket.socket, request: Request, over: threading.Event) -> bool:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._together.wait(10)
        with self._lock:
            self._now -= 1
        return DONE(connection, request, over)


COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "i": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "f": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "s": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    "l": (pa.list_(pa.bool_()), st.lists(st.none() | st.booleans(), max_size=3)),
    "o": (
        pa.struct([("p", pa.int64())]),
        st.fixed_dictionaries({"p": st.none() | st.integers(0, 9)}),
    ),
}


class TestAppend:
    @every_frame
    def test_every_kind_of_frame_arrives(self, local: Local, make: Callable[[], Any]) -> None:
        things = local.collection()
        report = things.append(make())
        assert canonical(local.documents(things)) == canonical(ROWS)
        assert (report.operation, report.collection) == ("append", things.id)
        assert (report.rows, report.inserted) == (25, 25)
        assert report.batches == report.requests >= 3
        assert (report.updated, report.deleted, report.unchanged, report.retries) == (*NONE, 0)
        assert report.guarantee == "verified"
        loads = {each["_dagster"]["load"] for each in local.server.documents(things.id)}
        assert loads == {report.load}
        assert report.seconds > 0

    def test_documents_of_a_collection_are_a_frame(self, local: Local) -> None:
        old = local.collection(ROWS)
        new = local.collection()
        new.append(old.find(project={"_id": 0}))
        assert canonical(local.documents(new)) == canonical(ROWS)

    def test_a_read_that_breaks_while_it_is_written_stays_a_read_that_broke(
        self, local: Local, open_collection: Open
    ) -> None:
        new = local.collection()
        with serving(cut(json.dumps(ROWS).encode()[:-9])) as server:
            with pytest.raises(ReadInterrupted, match="of collection 'movies'"):
                new.append(open_collection(server.base_url).find())

    @pytest.mark.parametrize(
        "make", [list, pd.DataFrame, lambda: TABLE.slice(0, 0), lambda: iter([])]
    )
    def test_no_rows_send_nothing(self, open_collection: Open, make: Callable[[], Any]) -> None:
        with serving(DONE) as server:
            report = open_collection(server.base_url).append(make())
            assert (report.rows, report.inserted, report.batches, report.requests) == (0,) * 4
            assert server.requests == []

    def test_batches_are_bounded_by_rows(self, open_collection: Open) -> None:
        with serving(DONE) as server:
            report = open_collection(server.base_url, batch_rows=10, concurrency=1).append(ROWS)
            assert [len(batch) for batch in sent(server)] == [10, 10, 5]
            assert [bare(row) for batch in sent(server) for row in batch] == ROWS
            assert report.batches == 3
            assert report.bytes_sent == sum(len(each.body) for each in server.requests)

    def test_batches_are_bounded_by_bytes_and_a_large_document_travels_alone(
        self, open_collection: Open
    ) -> None:
        rows = [{"t": "x" * size} for size in (10, 10, 10, 500, 10, 10)]
        with serving(DONE) as server:
            open_collection(server.base_url, batch_bytes=450, concurrency=1).append(rows)
            assert [len(batch) for batch in sent(server)] == [3, 1, 2]
            assert all(len(each.body) <= 450 for each in server.requests if len(each.body) < 500)

    def test_as_many_requests_as_allowed_are_in_flight_and_never_more(
        self, open_collection: Open
    ) -> None:
        gauge = Gauge(4)
        with serving(gauge) as server:
            open_collection(server.base_url, concurrency=4, batch_rows=1).append(ROWS[:24])
            assert len(server.requests) == 24
        assert gauge.most == 4

    def test_a_stream_is_read_no_further_than_it_is_sent(self, open_collection: Open) -> None:
        taken = 0

        def endless() -> Iterator[dict[str, Any]]:
            nonlocal taken
            while True:
                taken += 1
                yield {"n": taken}

        with serving(answer(400, b"full")) as server:
            with pytest.raises(RequestRejected):
                open_collection(server.base_url, concurrency=2, batch_rows=5).append(endless())
        assert taken < 200

    def test_429_is_sent_again_and_counted(self, open_collection: Open) -> None:
        with serving(answer(429, Retry_After=1), DONE) as server:
            report = open_collection(server.base_url).append(ROWS[:3])
            assert (report.requests, report.retries, report.batches) == (2, 1, 1)
            assert len(server.requests) == 2

    def test_a_doubt_is_reported_before_a_refusal(self, open_collection: Open) -> None:
        together = threading.Barrier(2)

        def either(connection: socket.socket, request: Request, over: threading.Event) -> bool:
            together.wait(10)
            doubtful = b'"sku":0' in request.body
            return (reset if doubtful else answer(400))(connection, request, over)

        with serving(either) as server:
            things = open_collection(server.base_url, read=None, concurrency=2, batch_rows=1)
            with pytest.raises(OutcomeUnknown) as caught:
                things.append(ROWS)
        assert "This was row 0 of" in str(caught.value)
        assert "row 1 failed as well" in str(caught.value)

    @pytest.mark.parametrize(
        "wrong", [LookupError("the source is gone"), EncodeError("not to be said")]
    )
    def test_a_doubt_is_not_lost_when_the_frame_itself_fails(
        self, open_collection: Open, wrong: Exception
    ) -> None:
        def batches() -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_pylist(ROWS[:2])
            raise wrong

        with serving(reset) as server:
            things = open_collection(server.base_url, read=None, batch_rows=1, concurrency=1)
            with pytest.raises(OutcomeUnknown, match="This was row 0 of"):
                things.append(batches())
        with serving(DONE) as server:
            with pytest.raises(type(wrong), match=str(wrong)):
                open_collection(server.base_url, batch_rows=1).append(batches())
            there = [bare(row) for batch in sent(server) for row in batch]
            assert canonical(there) == canonical(ROWS[:2])

    def test_a_value_that_json_cannot_say_tells_what_was_sent_before(
        self, open_collection: Open
    ) -> None:
        rows = [*({"v": 1.0} for _ in range(150)), {"v": float("inf")}]
        with serving(DONE) as server:
            with pytest.raises(EncodeError, match="row 150") as caught:
                open_collection(server.base_url, batch_rows=10).append(rows)
        assert caught.value.row == 150
        assert "0 rows had been acknowledged" in str(caught.value)
        assert f"{10 * len(server.requests)} rows had been" in str(caught.value)

    @pytest.mark.parametrize(
        "frame",
        [
            [{"a": 1, "_dagster": {}}],
            pd.DataFrame({"_dagster": [1]}),
            pa.table({"a": [1], "_dagster": ["x"]}),
        ],
    )
    def test_the_reserved_field_is_refused(self, open_collection: Open, frame: Any) -> None:
        with serving(DONE) as server:
            with pytest.raises(EncodeError, match="the field '_dagster' is kept"):
                open_collection(server.base_url).append(frame)
            assert server.requests == []

    @pytest.mark.parametrize(
        "frame", [5, "text", b"bytes", {"a": 1}, [5], ["x"], [[{"a": 1}]], pa.array([1]),
                  pa.chunked_array([[1]]), pd.Series([1])],
    )  # fmt: skip
    def test_what_is_no_frame_is_told_before_anything_is_sent(
        self, open_collection: Open, frame: Any
    ) -> None:
        with serving(DONE) as server:
            with pytest.raises(ConfigurationError, match=r"frame|neither a dict"):
                open_collection(server.base_url).append(frame)
            assert server.requests == []

    def test_rows_without_columns_are_not_dropped_in_silence(self, open_collection: Open) -> None:
        with serving(DONE) as server:
            with pytest.raises(EncodeError, match="3 rows and no columns"):
                open_collection(server.base_url).append(pd.DataFrame(index=[0, 1, 2]))
            assert server.requests == []

    def test_a_service_that_is_down_is_unavailable_and_nothing_happened(
        self, open_collection: Open
    ) -> None:
        things = open_collection(f"http://127.0.0.1:{unused_port()}", max_attempts=2)
        with pytest.raises(ServiceUnavailable, match="rows 0 to 9"):
            things.append(ROWS)

    def test_a_missing_write_credential_is_told_before_the_frame_is_read(
        self, open_collection: Open
    ) -> None:
        with serving(DONE) as server:
            things = open_collection(server.base_url, write=None)
            with pytest.raises(ConfigurationError, match="needs a write credential"):
                things.append(iter([5]))
            assert server.requests == []

    def test_no_credential_is_in_a_refusal_that_repeats_it(self, open_collection: Open) -> None:
        with serving(answer(400, lambda request: request.target.encode())) as server:
            with pytest.raises(RequestRejected) as caught:
                open_collection(server.base_url).append(ROWS)
        assert WRITE_SECRET not in str(caught.value) + repr(caught.value) + str(vars(caught.value))

    plain = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(st.sampled_from(["x", "y", 'q"', "é"]), below, max_size=3)
        ),
        max_leaves=8,
    )

    @given(
        documents=st.lists(
            st.dictionaries(st.sampled_from(["a", "b", "c c", "ü"]), plain, max_size=4), max_size=12
        ),
        batch_rows=st.integers(1, 5),
    )
    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_documents_in_are_documents_there(
        self, local: Local, documents: list[dict[str, Any]], batch_rows: int
    ) -> None:
        things = local.collection(batch_rows=batch_rows)
        assert things.append(documents).inserted == len(documents)
        assert canonical(local.documents(things)) == canonical(documents)
        assert canonical(things.find(project={"_id": 0}).to_pylist()) == canonical(documents)

    columns = st.integers(0, 9).flatmap(
        lambda rows: st.fixed_dictionaries(
            {
                name: st.lists(st.none() | values, min_size=rows, max_size=rows)
                for name, (_, values) in COLUMNS.items()
            }
        )
    )

    @given(columns=columns, batch_rows=st.integers(1, 5), chunk=st.integers(1, 4))
    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_rows_in_are_documents_there(
        self, local: Local, columns: dict[str, list[Any]], batch_rows: int, chunk: int
    ) -> None:
        table = pa.table(
            {name: pa.array(columns[name], type_) for name, (type_, _) in COLUMNS.items()}
        )
        things = local.collection(batch_rows=batch_rows)
        report = things.append(table.to_reader(max_chunksize=chunk))
        assert report.inserted == table.num_rows
        assert canonical(local.documents(things)) == canonical(table.to_pylist())


OLD = [{"day": "mon", "n": n} for n in range(5)]
OTHER = [{"day": "tue", "n": 0}]
MONDAY = {"day": "mon"}


class TestSingleCalls:
    def test_insert_adds_one_document(self, local: Local) -> None:
        things = local.collection()
        report = things.insert({"a": {"b": [1, None]}})
        assert local.documents(things) == [{"a": {"b": [1, None]}}]
        assert (report.operation, report.rows, report.inserted, report.batches) == (
            "insert",
            1,
            1,
            1,
        )

    @every_doubt
    def test_an_insert_of_unknown_outcome_is_sent_once(
        self, open_collection: Open, doubt: Step
    ) -> None:
        with serving(doubt) as server:
            with pytest.raises(OutcomeUnknown):
                open_collection(server.base_url, read_timeout=0.3).insert({"a": 1})
            assert len(server.requests) == 1

    @pytest.mark.parametrize("document", [[1], "x", None, 5, pd.DataFrame({"a": [1]})])
    def test_insert_takes_a_document_and_nothing_else(
        self, open_collection: Open, document: Any
    ) -> None:
        with serving(DONE) as server:
            with pytest.raises(ConfigurationError, match="is not a document"):
                open_collection(server.base_url).insert(document)
            assert server.requests == []

    def test_update_changes_the_named_fields(self, local: Local) -> None:
        things = local.collection([{"sku": 1, "price": 1, "name": "x"}])
        report = things.update({"sku": 1}, {"price": 2.5})
        assert local.documents(things) == [{"sku": 1, "price": 2.5, "name": "x"}]
        assert (report.operation, report.requests) == ("update", 1)

    def test_update_without_a_match_says_so(self, local: Local) -> None:
        things = local.collection()
        with pytest.raises(NoMatch):
            things.update({"sku": 1}, {"price": 2.5})
        things.update({"sku": 1}, {"price": 2.5}, upsert=True)
        assert local.documents(things) == [{"sku": 1, "price": 2.5}]

    def test_delete_removes_what_it_finds(self, local: Local) -> None:
        things = local.collection([*OLD, *OTHER])
        report = things.delete(MONDAY)
        assert local.documents(things) == OTHER
        assert (report.operation, report.deleted, report.rows) == ("delete", None, 0)

    def test_delete_of_everything_needs_to_be_asked_for(self, local: Local) -> None:
        things = local.collection(OLD)
        with pytest.raises(ConfigurationError, match="everything=True"):
            things.delete({})
        assert len(local.documents(things)) == 5
        with pytest.raises(ConfigurationError, match="contradicts"):
            things.delete(MONDAY, everything=True)
        things.delete({}, everything=True)
        assert local.documents(things) == []

    def test_a_bad_query_deletes_nothing(self, local: Local) -> None:
        things = local.collection(OLD)
        with pytest.raises(QueryError, match=r"\$nope"):
            things.delete({"n": {"$nope": 1}})
        assert len(local.documents(things)) == 5


def test_a_collection_shows_its_id_and_address_and_no_credential(local: Local) -> None:
    things: Collection = local.collection()
    assert repr(things) == f"<Collection {things.id!r} at {local.server.base_url}>"
