from __future__ import annotations

import gc
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectome_dagster.api import endpoints
from connectome_dagster.api.client import Client
from connectome_dagster.api.credentials import Credentials
from connectome_dagster.api.retry import RetryPolicy
from connectome_dagster.errors import (
    AuthenticationError,
    CollectionNotFound,
    ConfigurationError,
    ConnectomeError,
    MalformedResponse,
    QueryError,
    ReadInterrupted,
    SchemaConflict,
    SchemaDrift,
    ServiceUnavailable,
)
from connectome_dagster.frames.fit import OnConflict
from connectome_dagster.transfer.collection import Collection
from connectome_dagster.transfer.fetch import Source
from connectome_dagster.transfer.read import Documents
from tests.api.scripted import (
    Request,
    ScriptedServer,
    Step,
    answer,
    chunked,
    cut,
    head,
    raw,
    reset,
    serving,
    stall_after,
    unused_port,
)
from tests.transfer.conftest import READ_SECRET, WRITE_SECRET, Local, Open

MOVIES = [
    {"title": "Movie ABC", "amount": 10, "tags": ["a", "b"], "seen": True},
    {"title": "Movie XYZ", "amount": 39, "tags": [], "seen": None},
    {"title": 'Møvie "BDD"', "amount": 100, "tags": ["c"]},
]
NO_ID = {"_id": 0}


@pytest.fixture
def movies(local: Local) -> Collection:
    return local.collection(MOVIES)


def encoded(documents: list[dict[str, Any]]) -> bytes:
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":")).encode()


def documents_of(
    server: ScriptedServer,
    *,
    piece_bytes: int = 1 << 20,
    response_path: str | None = None,
    attempts: int = 1,
    read_timeout: float = 20.0,
) -> Documents:
    client = Client(
        server.base_url,
        retry=RetryPolicy(max_attempts=attempts),
        read_timeout=read_timeout,
        sleep=lambda _seconds: None,
    )
    return Documents(
        Source(
            client,
            Credentials(READ_SECRET, WRITE_SECRET),
            endpoints.read_with_query("movies"),
            response_path=response_path,
            piece_bytes=piece_bytes,
        )
    )


def drained(documents: Documents) -> tuple[list[dict[str, Any]], ConnectomeError | None]:
    """What a reader hands out, and how it ends."""
    rows: list[dict[str, Any]] = []
    try:
        for batch in documents.reader():
            rows += batch.to_pylist()
    except ConnectomeError as error:
        return rows, error
    return rows, None


def until(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.005)
    return True


def decoding_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("connectome-dec")]


class TestEveryForm:
    def test_arrow_has_names_types_and_nulls(self, movies: Collection) -> None:
        table = movies.find(project=NO_ID).to_arrow()
        assert table.schema == pa.schema(
            {
                "title": pa.string(),
                "amount": pa.int64(),
                "tags": pa.list_(pa.string()),
                "seen": pa.bool_(),
            }
        )
        assert table.to_pylist() == [{"seen": None, **movie} for movie in MOVIES]

    def test_pandas_keeps_integers_and_booleans_with_nulls(self, local: Local) -> None:
        found = local.collection([{"n": 1, "b": True, "f": 1.5}, {"n": None, "b": None, "f": 2.5}])
        frame = found.find(project=NO_ID).to_pandas()
        assert list(frame.dtypes.astype(str)) == ["Int64", "boolean", "float64"]
        assert frame["n"].to_list() == [1, pd.NA]

    @pytest.mark.parametrize(
        ("backend", "dtypes"),
        [
            (None, ["str", "int64"]),
            ("pyarrow", ["string[pyarrow]", "int64[pyarrow]"]),
            ("numpy_nullable", ["string", "Int64"]),
        ],
    )
    def test_pandas_gives_the_types_of_the_backend_that_was_asked_for(
        self, movies: Collection, backend: Any, dtypes: list[str]
    ) -> None:
        frame = movies.find(project={"_id": 0, "title": 1, "amount": 1}).to_pandas(backend)
        assert list(frame["title"]) == [movie["title"] for movie in MOVIES]
        assert list(frame["amount"]) == [10, 39, 100]
        shown = [str(dtype) for dtype in frame.dtypes]
        if backend is None and pd.__version__ < "3":
            dtypes = ["object", "int64"]
        if backend == "pyarrow":
            assert all(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes)
        else:
            assert shown == dtypes

    def test_an_unknown_dtype_backend_is_refused_before_anything_is_sent(self) -> None:
        with serving(answer()) as server:
            with pytest.raises(ConfigurationError, match="dtype_backend is 'polars'"):
                documents_of(server).to_pandas("polars")  # type: ignore[arg-type]
            assert server.requests == []

    def test_a_reader_and_an_iteration_and_a_c_stream_have_the_same_rows(
        self, movies: Collection
    ) -> None:
        docs = movies.find(project=NO_ID)
        table = docs.to_arrow()
        assert docs.reader().read_all() == table
        assert pa.Table.from_batches(list(docs)) == table
        assert pa.table(docs) == table
        assert pa.RecordBatchReader.from_stream(docs).read_all() == table

    def test_parquet_has_the_same_rows(self, movies: Collection, tmp_path: Path) -> None:
        docs = movies.find(project=NO_ID)
        report = docs.to_parquet(tmp_path / "movies.parquet", compression="zstd")
        assert pq.read_table(tmp_path / "movies.parquet") == docs.to_arrow()
        assert report.rows == 3
        column = pq.ParquetFile(tmp_path / "movies.parquet").metadata.row_group(0).column(0)
        assert column.compression == "ZSTD"
        assert [path.name for path in tmp_path.iterdir()] == ["movies.parquet"]

    def test_row_groups_of_parquet_are_as_small_as_asked(
        self, local: Local, tmp_path: Path
    ) -> None:
        docs = local.collection([{"n": n} for n in range(100)]).find(split=2)
        docs.to_parquet(tmp_path / "small.parquet", row_group_bytes=1)
        docs.to_parquet(tmp_path / "one.parquet")
        small, one = (pq.ParquetFile(tmp_path / f"{name}.parquet") for name in ("small", "one"))
        assert small.read().num_rows == one.read().num_rows == 100
        assert small.num_row_groups >= 2
        assert one.num_row_groups == 1

    @pytest.mark.parametrize(
        "options",
        [{"row_group_bytes": 0}, {"row_group_bytes": 1.5}, {"no_such_option": 1}],
        ids=str,
    )
    def test_what_no_file_is_written_with_is_refused_before_anything_is_sent(
        self, options: dict[str, Any], tmp_path: Path
    ) -> None:
        with serving(answer()) as server:
            with pytest.raises(ConfigurationError, match="Nothing was sent"):
                documents_of(server).to_parquet(tmp_path / "x.parquet", **options)
            assert server.requests == []
        assert list(tmp_path.iterdir()) == []

    def test_a_frame_of_pieces_is_that_of_the_whole(self) -> None:
        rows = [
            {
                "o": {"n": None if n == 40 else BIG, "l": [n, "x"][: n % 2]},
                "b": [True, None][: n % 3],
            }
            for n in range(50)
        ]
        with serving(in_pieces(rows)) as server:
            frame = documents_of(server, piece_bytes=100).to_pandas()
            pd.testing.assert_frame_equal(frame, documents_of(server).to_pandas())
        assert [type(value["n"]) for value in frame["o"]] == [int] * 40 + [type(None)] + [int] * 9

    @pytest.mark.parametrize("on_conflict", ["text", "error"])
    @pytest.mark.parametrize(
        ("levels", "begin", "end"),
        [(98, '{"a":', "}"), (99, '{"a":', "}"), (49, "[", "]"), (50, "[", "]"), (99, "[", "]")],
    )
    @pytest.mark.parametrize("inside", ["1", "{}", "null"])
    def test_what_nests_too_deep_for_parquet_is_text_in_it(
        self,
        levels: int,
        begin: str,
        end: str,
        inside: str,
        on_conflict: OnConflict,
        local: Local,
        tmp_path: Path,
    ) -> None:
        text = begin * levels + inside + end * levels
        docs = local.collection([{"v": json.loads(text)}, {"v": None}]).find(
            project=NO_ID, on_conflict=on_conflict
        )
        docs.to_parquet(tmp_path / "deep.parquet")
        read, whole = pq.read_table(tmp_path / "deep.parquet"), docs.to_arrow()
        value, told = read.to_pylist()[0]["v"], ""
        while not isinstance(value, str | int | None):
            told += "[" if isinstance(value, list) else '{"a":'
            (value,) = value if isinstance(value, list) else value.values()
        told += "null" if value is None else str(value)
        assert told == text[: len(told)]
        assert text[len(told) :] == end * len(text[len(told) :])
        assert (read == whole) is not isinstance(value, str)

    def test_plain_documents_are_as_they_were_sent(self, movies: Collection) -> None:
        assert movies.find(project=NO_ID).to_pylist() == MOVIES

    def test_plain_documents_keep_the_digits_that_no_float_has(self) -> None:
        body = b'[{"n":123456789012345678901234567890,"x":1e999},{"s":"\xc3\xa9","d":{"$oid":"a"}}]'
        with serving(answer(body=body)) as server:
            assert documents_of(server).to_pylist() == [
                {"n": 123456789012345678901234567890, "x": Decimal("1e999")},
                {"s": "é", "d": {"$oid": "a"}},
            ]

    def test_query_sort_projection_and_limit_reach_the_service(self, movies: Collection) -> None:
        docs = movies.find(
            {"amount": {"$gte": 30}}, project={"_id": 0, "amount": 1}, sort={"amount": -1}, limit=1
        )
        assert docs.to_pylist() == [{"amount": 100}]

    def test_the_id_is_among_the_fields_unless_it_is_excluded(self, movies: Collection) -> None:
        assert "_id" in movies.find().to_arrow().column_names
        assert "_id" not in movies.find(project=NO_ID).to_arrow().column_names


class TestReadingAgain:
    def test_each_form_sends_a_request_of_its_own_and_sees_what_is_new(self, local: Local) -> None:
        found = local.collection([{"n": 1}])
        docs = found.find(project=NO_ID)
        assert docs.to_pylist() == [{"n": 1}]
        found.insert({"n": 2})
        assert docs.to_arrow().to_pylist() == [{"n": 1}, {"n": 2}]
        assert len(docs.to_pandas()) == 2

    def test_nothing_is_sent_before_a_frame_is_asked_for(self) -> None:
        with serving(answer()) as server:
            docs = documents_of(server)
            assert repr(docs) == (
                "<Documents of collection 'movies': readwithquery {\"query\":{}}>"
            )
            assert docs.report is None
            assert server.requests == []


class TestNothingFound:
    def test_every_form_is_empty(self, movies: Collection, tmp_path: Path) -> None:
        docs = movies.find({"amount": -1})
        assert docs.to_arrow().num_rows == 0
        assert docs.to_pandas().shape == (0, 0)
        assert docs.to_pylist() == []
        assert list(docs) == []
        assert docs.reader().read_all().num_rows == 0
        assert pa.table(docs).num_rows == 0
        assert docs.to_parquet(tmp_path / "none.parquet").rows == 0
        assert pq.read_table(tmp_path / "none.parquet").num_rows == 0

    @pytest.mark.parametrize(
        "body", [b"[]", b" [ ] \n", b'{"data":[]}', b'{"n":0,"rows":[],"k":{}}']
    )
    def test_an_empty_array_is_no_documents_however_it_is_written(self, body: bytes) -> None:
        with serving(answer(body=body)) as server:
            assert documents_of(server).to_arrow().num_rows == 0

    def test_documents_without_fields_are_rows_all_the_same(self) -> None:
        with serving(answer(body=b"[{},{}]")) as server:
            docs = documents_of(server)
            assert docs.to_arrow().num_rows == 2
            assert docs.to_pandas().shape == (2, 0)
            assert docs.reader().read_all().num_rows == 2
            assert docs.to_pylist() == [{}, {}]


class TestReport:
    def test_it_counts_rows_requests_and_bytes(self) -> None:
        body = encoded(MOVIES)
        with serving(answer(body=body)) as server:
            docs = documents_of(server)
            docs.to_arrow()
            report = docs.report
        assert report is not None
        assert (report.collection, report.rows, report.requests, report.retries) == (
            *("movies", 3),
            *(1, 0),
        )
        assert report.bytes_received == len(body)
        assert report.seconds > 0
        assert report.conflicts == {}

    def test_it_counts_retries_of_503_and_429(self) -> None:
        with serving(answer(503), answer(429, Retry_After=1), answer(body=b'[{"a":1}]')) as server:
            docs = documents_of(server, attempts=5)
            assert docs.to_pylist() == [{"a": 1}]
            assert docs.report is not None
            assert (docs.report.requests, docs.report.retries) == (3, 2)

    def test_every_form_leaves_one(self, movies: Collection, tmp_path: Path) -> None:
        forms: list[Callable[[Documents], object]] = [
            Documents.to_arrow,
            Documents.to_pandas,
            Documents.to_pylist,
            list,
            pa.table,
            lambda docs: docs.to_parquet(tmp_path / "x.parquet"),
        ]
        for form in forms:
            docs = movies.find()
            form(docs)
            assert docs.report is not None
            assert docs.report.rows == 3


SMALL = [
    {"_id": f"{n:02}", "t": 'a},{"_id":"', "n": {"_id": n, "é": [{"_id": n}, {"_id": 0}]}}
    for n in range(3)
]


def wholly_arrived(text: bytes, prefix: int) -> int:
    """Documents of SMALL behind which a comma or the closing bracket has arrived too."""
    count, at = 0, prefix
    for document in SMALL:
        at += len(encoded([document])) - 2
        count += len(text) > at
        at += 1
    return count


class TestABodyThatBreaksOff:
    @pytest.mark.parametrize("wrapper", [(b"[", b"]"), (b'{"ok":true,"data":[', b'],"n":4}')])
    @pytest.mark.parametrize("how", ["content-length", "chunked", "closed"])
    @pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
    def test_what_arrived_whole_is_delivered_and_then_the_break_is_told(
        self, wrapper: tuple[bytes, bytes], how: str, piece_bytes: int
    ) -> None:
        prefix, suffix = wrapper
        body = prefix + encoded(SMALL)[1:-1] + suffix
        ends = {
            "content-length": lambda start: cut(start, missing=len(body) - len(start)),
            "chunked": lambda start: chunked(start, end=False),
            "closed": lambda start: raw(head(200, {"Content-Type": "application/json"}) + start),
        }
        script = [ends[how](body[:at]) for at in range(1, len(body))]
        with serving(*script) as server:
            docs = documents_of(server, piece_bytes=piece_bytes)
            for at in range(1, len(body)):
                rows, error = drained(docs)
                assert rows == SMALL[: len(rows)]
                assert len(rows) == wholly_arrived(body[:at], len(prefix)), body[:at]
                assert type(error) is ReadInterrupted, body[:at]
                assert error.rows == len(rows)
                assert (error.verb, error.collection) == ("readwithquery", "movies")
                assert "readwithquery of collection 'movies'" in str(error)
                assert docs.report is None
            assert len(server.requests) == len(body) - 1

    @pytest.mark.parametrize("form", ["to_arrow", "to_pandas", "to_pylist"])
    def test_a_frame_is_all_or_nothing(self, form: str) -> None:
        with serving(cut(encoded(SMALL)[:-5])) as server:
            with pytest.raises(ReadInterrupted, match="What arrived is not everything: read again"):
                getattr(documents_of(server), form)()

    def test_a_parquet_file_is_not_there_and_the_old_one_stays(self, tmp_path: Path) -> None:
        (tmp_path / "x.parquet").write_bytes(b"old")
        with serving(cut(encoded(SMALL)[:-5])) as server:
            with pytest.raises(ReadInterrupted):
                documents_of(server).to_parquet(tmp_path / "x.parquet")
        assert (tmp_path / "x.parquet").read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]

    def test_a_stall_ends_after_the_read_timeout(self) -> None:
        with serving(stall_after(encoded(SMALL)[:-5])) as server:
            rows, error = drained(documents_of(server, read_timeout=0.2))
            assert len(rows) == 2
            assert isinstance(error, ReadInterrupted)

    def test_a_break_before_the_first_byte_is_tried_again(self) -> None:
        with serving(reset, cut(b""), answer(500), answer(body=encoded(SMALL))) as server:
            assert documents_of(server, attempts=4).to_pylist() == SMALL

    def test_a_service_that_is_down_is_unavailable(self, open_collection: Open) -> None:
        collection = open_collection(f"http://127.0.0.1:{unused_port()}", max_attempts=2)
        with pytest.raises(ServiceUnavailable, match="readwithquery of collection 'movies'"):
            collection.find().to_arrow()


class TestWrapped:
    def test_the_array_is_found_by_itself(self) -> None:
        body = b'{"status":{"code":[1]},"data":' + encoded(SMALL) + b',"total":3}'
        with serving(answer(body=body)) as server:
            assert documents_of(server, piece_bytes=16).to_pylist() == SMALL

    def test_or_by_its_path(self) -> None:
        body = b'{"warnings":[],"result":{"items":' + encoded(SMALL) + b"}}"
        with serving(answer(body=body)) as server:
            docs = documents_of(server, response_path="result.items", piece_bytes=16)
            assert docs.to_pylist() == SMALL

    def test_several_arrays_are_not_guessed_between(self) -> None:
        body = b'{"data":' + encoded(SMALL) + b',"warnings":[]}'
        with serving(answer(body=body)) as server:
            with pytest.raises(MalformedResponse, match="set response_path"):
                documents_of(server).to_pylist()

    @pytest.mark.parametrize(
        "body",
        [
            b'{"error":"no such thing"}',
            b"null",
            b'"text"',
            b"[1,2]",
            b"[[{}]]",
            b'[{"a":1},]',
            b'[{"a":1}]]',
            b'[{"a":1}]{"b":2}',
            b'[{"a":NaN}]',
            b'[{"a":1},{"a":1e999},{"a":NaN}]',
            b'[{"a":1e999},5]',
            b'[{"a":1e999,"b":"\\ud800"}]',
            b'[{"a":"\xff"}]',
            b"<html>Log in</html>",
            b"no JSON",
        ],
    )
    @pytest.mark.parametrize("form", ["to_arrow", "to_pylist"])
    def test_what_is_not_documents_is_never_a_frame(self, body: bytes, form: str) -> None:
        with serving(answer(body=body)) as server:
            with pytest.raises((MalformedResponse, ReadInterrupted)) as caught:
                getattr(documents_of(server), form)()
            assert "collection 'movies'" in str(caught.value)

    def test_an_error_page_that_repeats_the_url_is_redacted(self) -> None:
        echo = lambda request: b'{"error":"' + request.target.encode() + b'"}'  # noqa: E731
        with serving(answer(body=echo)) as server:
            with pytest.raises(MalformedResponse) as caught:
                documents_of(server).to_arrow()
        assert "/collection/readwithquery/" in str(caught.value)
        assert READ_SECRET not in "".join(map(str, chain_of(caught.value)))


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def framed(*chunks: bytes, end: bool = True) -> Step:
    """A body in chunks that are sent at once: each is read alone, and none waits for another."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    whole = head(200, {"Transfer-Encoding": "chunked"}) + body

    def step(connection: socket.socket, _request: Request, over: threading.Event) -> bool:
        connection.sendall(whole + b"0\r\n\r\n" if end else whole)
        return end or over.wait(30)

    return step


def in_chunks(body: bytes, size: int) -> Step:
    return framed(*(body[at : at + size] for at in range(0, len(body), size)))


TRICKY = [
    {
        "_id": n,
        "text": '},{"_id":7,"text":"' * (n % 3),
        "children": [{"_id": child, "text": "x"} for child in range(n % 7)],
        "back\\slash": "\\",
        "empty": {},
    }
    for n in range(200)
]


class TestCuts:
    @pytest.mark.parametrize("piece_bytes", [1, 100, 333, 2000])
    @pytest.mark.parametrize("text", [encoded(TRICKY), json.dumps(TRICKY, indent=1).encode()])
    def test_wrong_guesses_do_not_show(self, text: bytes, piece_bytes: int) -> None:
        with serving(in_chunks(text, 61)) as server:
            docs = documents_of(server, piece_bytes=piece_bytes)
            assert docs.to_pylist() == TRICKY
            table = docs.to_arrow()
            assert docs.report is not None
            assert docs.report.rows == len(TRICKY)
        with serving(answer(body=text)) as server:
            assert documents_of(server).to_arrow() == table

    def test_a_number_beyond_floats_beside_a_wrong_cut_does_not_show_either(self) -> None:
        documents = [{"_id": n, "kids": [{"_id": 1}, {"_id": 2}], "x": 0} for n in range(50)]
        text = encoded(documents).replace(b'"x":0', b'"x":1e999')
        expected = [{**document, "x": Decimal("1e999")} for document in documents]
        with serving(in_chunks(text, 13)) as server:
            for piece_bytes in (1, 40, 77, 100, 200, 500):
                assert documents_of(server, piece_bytes=piece_bytes).to_pylist() == expected

    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.integers(-3, 3)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5)
        | st.sampled_from(["2024-01-01T00:00:00.000Z", '},{"a":', "\\", '"'])
        | st.builds(lambda n: {"$oid": f"{n:024x}"}, st.integers(0, 9)),
        lambda below: (
            st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3)
        ),
        max_leaves=6,
    )
    documents = st.lists(st.dictionaries(st.sampled_from("abc"), values, max_size=3), max_size=8)

    @given(documents, st.integers(1, 200), st.integers(3, 50))
    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_the_frame_does_not_depend_on_the_cuts(
        self,
        echo: ScriptedServer,
        documents: list[dict[str, Any]],
        piece_bytes: int,
        chunk_bytes: int,
    ) -> None:
        echo.script = (in_chunks(encoded(documents), chunk_bytes),)
        cut_finely = documents_of(echo, piece_bytes=piece_bytes)
        whole = documents_of(echo)
        assert cut_finely.to_pylist() == whole.to_pylist() == documents
        assert cut_finely.to_arrow() == whole.to_arrow()
        assert cut_finely.report is not None
        assert whole.report is not None
        assert set(cut_finely.report.conflicts) == set(whole.report.conflicts)

    @pytest.mark.parametrize("later", ["2024-01-01T00:00:00.000Z", "plain"])
    def test_an_object_id_beside_strings_is_no_conflict_however_it_is_cut(self, later: str) -> None:
        documents = [{"v": {"$oid": "0" * 24}}, {"v": later}]
        with serving(in_chunks(encoded(documents), 3)) as server:
            docs = documents_of(server, piece_bytes=1)
            assert docs.to_arrow().to_pylist() == [{"v": "0" * 24}, {"v": later}]
            assert docs.report is not None
            assert docs.report.conflicts == {}

    @pytest.fixture
    def echo(self) -> Iterator[ScriptedServer]:
        with serving(answer()) as server:
            yield server


def in_pieces(documents: list[dict[str, Any]], *, end: bool = True) -> Step:
    """Each document arrives alone, so that it is a piece of its own if pieces are small.

    Without an end the server falls silent where it is due.
    """
    first, *later = [encoded([document])[1:-1] for document in documents]
    chunks = [b"[" + first, *(b"," + text for text in later)]
    return framed(*chunks, *([b"]"] if end else []), end=end)


def in_two_pieces(first: list[Any], later: list[Any], *, end: bool = True) -> Step:
    """Values of a field `v`; what comes later is long enough to be looked at by itself."""
    return in_pieces(
        [
            *({"v": value, "pad": "x" * 60} for value in first),
            *({"v": value, "pad": "x" * 250} for value in later),
        ],
        end=end,
    )


BIG = 2**53 + 1

CONFLICTS = [
    ([1, 2], ["one", None], ["1", "2", "one", None]),
    ([1], [True], ["1", "true"]),
    ([{"a": 1}], ["x"], ['{"a":1}', "x"]),
    ([{"a": 1}], [[1]], ['{"a":1}', "[1]"]),
    ([1.50], ["x"], ["1.5", "x"]),
    (["2024-01-01T00:00:00.000Z"], [5], ["2024-01-01T00:00:00.000Z", "5"]),
    ([BIG], [0.5], [str(BIG), "0.5"]),
    ([0.5], [BIG], ["0.5", str(BIG)]),
    ([BIG, None], [3, 0.5], [str(BIG), None, "3", "0.5"]),
]


def later_rows_that_fit(first: list[Any], later: list[Any]) -> int:
    """An integer fits in among integers, and nothing else of the conflicts above fits."""
    return sum(type(value) is type(first[0]) for value in later if value != BIG)


class TestConflictsBetweenPieces:
    @pytest.mark.parametrize(("first", "later", "texts"), CONFLICTS)
    def test_every_frame_has_the_texts_and_the_report_names_the_field(
        self, first: list[Any], later: list[Any], texts: list[str | None], tmp_path: Path
    ) -> None:
        with serving(in_two_pieces(first, later)) as server:
            docs = documents_of(server, piece_bytes=50)
            table = docs.to_arrow()
            assert table.schema.field("v").type == pa.string()
            assert table.column("v").to_pylist() == texts
            assert docs.report is not None
            assert list(docs.report.conflicts) == ["v"]
            assert docs.report.rows == len(texts)
            assert docs.report.requests == 2
            frame = docs.to_pandas("pyarrow")
            assert [None if pd.isna(value) else value for value in frame["v"]] == texts
            docs.to_parquet(tmp_path / "v.parquet")
            assert pq.read_table(tmp_path / "v.parquet") == table
            assert documents_of(server).to_arrow() == table

    def test_the_report_tells_the_types(self) -> None:
        with serving(in_two_pieces([1], ["x"])) as server:
            docs = documents_of(server, piece_bytes=50)
            docs.to_arrow()
            assert docs.report is not None
            assert set(docs.report.conflicts["v"]) == {"int", "string"}

    def test_conflicts_below_the_top_are_found_all_at_once(self) -> None:
        rows = [
            {"a": {"b": 1, "c": [{"d": 1}]}, "e": 1, "pad": "x" * 60},
            {"a": {"b": "1", "c": [{"d": "1"}]}, "e": "1", "pad": "x" * 60},
        ]
        with serving(in_pieces(rows)) as server:
            docs = documents_of(server, piece_bytes=60)
            table = docs.to_arrow()
            assert table.column("a").to_pylist() == [{"b": "1", "c": [{"d": "1"}]}] * 2
            assert docs.report is not None
            assert sorted(docs.report.conflicts) == ["a.b", "a.c[].d", "e"]
            assert docs.report.requests == 2

    def test_what_is_below_a_field_that_became_text_is_no_conflict_of_its_own(self) -> None:
        with serving(in_two_pieces([[1, True]], [{"a": 1}])) as server:
            docs = documents_of(server, piece_bytes=50)
            assert docs.to_arrow().column("v").to_pylist() == ["[1,true]", '{"a":1}']
            assert docs.report is not None
            assert list(docs.report.conflicts) == ["v"]

    def test_dates_that_turn_out_to_be_text_are_no_conflict(self) -> None:
        text = "2024-01-01T00:00:00.000Z"
        with serving(in_two_pieces([text], ["soon"])) as server:
            docs = documents_of(server, piece_bytes=50)
            assert docs.to_arrow().column("v").to_pylist() == [text, "soon"]
            assert docs.report is not None
            assert docs.report.conflicts == {}

    def test_fields_that_come_late_are_columns_with_nulls(self, tmp_path: Path) -> None:
        rows = [
            {"a": 1, "o": {}, "pad": "x" * 50},
            {"a": 0.5, "o": {"p": [None]}, "pad": "x" * 50},
            {"o": {"p": [7]}, "late": None, "pad": "x" * 50},
        ]
        with serving(in_pieces(rows)) as server:
            docs = documents_of(server, piece_bytes=50)
            table = docs.to_arrow()
            assert table.schema.field("a").type == pa.float64()
            assert table.column("o").to_pylist() == [{"p": None}, {"p": [None]}, {"p": [7]}]
            assert table.column_names == ["a", "o", "pad", "late"]
            docs.to_parquet(tmp_path / "x.parquet")
            assert pq.read_table(tmp_path / "x.parquet").to_pylist() == table.to_pylist()

    @pytest.mark.parametrize(("first", "later", "_texts"), CONFLICTS)
    def test_a_reader_gives_what_fits_and_then_names_the_field(
        self, first: list[Any], later: list[Any], _texts: object
    ) -> None:
        with serving(in_two_pieces(first, later)) as server:
            rows, error = drained(documents_of(server, piece_bytes=50))
        assert len(rows) == len(first) + later_rows_that_fit(first, later)
        assert isinstance(error, SchemaDrift)
        assert error.field == "v"
        assert "v (" in str(error)
        assert "use to_arrow, to_pandas or to_parquet" in str(error)

    def test_a_reader_names_a_field_with_spaces(self) -> None:
        rows = [{"a": 1, "pad": "x" * 60}, {"a": 1, "pad": "x" * 60, "late field": 2}]
        with serving(in_pieces(rows)) as server:
            _, error = drained(documents_of(server, piece_bytes=60))
        assert isinstance(error, SchemaDrift)
        assert error.field == "late field"
        assert "late field (new, int64)" in str(error)

    def test_a_reader_takes_integers_among_floats_if_floats_hold_them(self) -> None:
        with serving(in_two_pieces([0.5], [3])) as server:
            rows, error = drained(documents_of(server, piece_bytes=50))
        assert error is None
        assert [row["v"] for row in rows] == [0.5, 3.0]


class TestABoundedReader:
    def test_a_reader_that_is_dropped_leaves_neither_thread_nor_connection(self) -> None:
        before = decoding_threads()
        with serving(in_pieces(TRICKY, end=False)) as server:
            docs = documents_of(server, piece_bytes=500)
            reader = docs.reader()
            reader.read_next_batch()
            assert len(decoding_threads()) > len(before)
            del reader
            gc.collect()
            assert decoding_threads() == before
            docs._source.client.close()
            assert until(lambda: not server._open or is_hung_up(server))

    def test_a_reader_that_was_never_read_leaves_none_either(self) -> None:
        before = decoding_threads()
        with serving(in_pieces(TRICKY, end=False)) as server:
            reader = documents_of(server, piece_bytes=500).reader()
            del reader
            gc.collect()
            assert decoding_threads() == before
            assert until(lambda: is_hung_up(server))

    def test_nor_does_a_reader_that_drifted_while_its_error_is_kept(self) -> None:
        before = decoding_threads()
        with serving(in_two_pieces([1], ["x"] * 50, end=False)) as server:
            _, error = drained(documents_of(server, piece_bytes=50))
            assert isinstance(error, SchemaDrift)
            assert decoding_threads() == before
            assert until(lambda: is_hung_up(server))

    def test_nor_does_a_file_that_could_not_be_written(self, tmp_path: Path) -> None:
        before = decoding_threads()
        with serving(in_pieces(TRICKY, end=False)) as server:
            docs = documents_of(server, piece_bytes=500)
            with pytest.raises(OSError, match="LZO") as kept:  # which pyarrow cannot write
                docs.to_parquet(tmp_path / "x.parquet", compression="lzo", row_group_bytes=1)
            assert decoding_threads() == before
            assert until(lambda: is_hung_up(server))
            assert kept.value is not None

    def test_memory_does_not_grow_with_the_body(self) -> None:
        chunk = encoded([{"n": n, "text": "y" * 80} for n in range(600)])[1:-1]
        chunks = [b"[" + chunk, *[b"," + chunk] * 400, b"]"]
        total = sum(map(len, chunks))
        assert total > 20_000_000
        with serving(chunked(*chunks)) as server:
            docs = documents_of(server, piece_bytes=256 << 10)
            pool = pa.system_memory_pool()
            before, peak, rows = pool.bytes_allocated(), 0, 0
            tracemalloc.start()
            try:
                for batch in docs.reader():
                    rows += batch.num_rows
                    peak = max(peak, pool.bytes_allocated() - before)
                _, traced = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert rows == 401 * 600
        assert peak < total / 4
        assert traced < total / 4


def is_hung_up(server: ScriptedServer) -> bool:
    """Whether the client has closed every connection that the server still holds."""
    for connection in list(server._open):
        connection.setblocking(False)
        try:
            if connection.recv(1) != b"":
                return False
        except BlockingIOError:
            return False
        except OSError:
            continue
    return True


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [(401, AuthenticationError), (403, AuthenticationError), (404, CollectionNotFound),
         (400, QueryError), (503, ServiceUnavailable), (500, ServiceUnavailable)],
    )  # fmt: skip
    @pytest.mark.parametrize("form", ["to_arrow", "to_pylist", "reader"])
    def test_each_has_its_error_and_no_credential(
        self, status: int, kind: type[ConnectomeError], form: str
    ) -> None:
        echo = lambda request: request.target.encode()  # noqa: E731
        with serving(answer(status, echo)) as server:
            with pytest.raises(kind) as caught:
                getattr(documents_of(server), form)()
        for error in chain_of(caught.value):
            assert READ_SECRET not in repr(error) + str(vars(error))

    def test_the_local_server_says_what_it_does_not_know(self, movies: Collection) -> None:
        with pytest.raises(QueryError, match=r"\$near"):
            movies.find({"amount": {"$near": 1}}).to_arrow()

    def test_a_break_that_another_library_sees_holds_no_credential(self) -> None:
        with serving(cut(encoded(SMALL)[:-3])) as server:
            with pytest.raises((pa.ArrowException, OSError)) as caught:
                pa.RecordBatchReader.from_stream(documents_of(server)).read_all()
        assert "What arrived is not everything" in str(caught.value)
        assert READ_SECRET not in str(caught.value)

    def test_a_name_that_arrow_would_cut_off_is_refused_and_not_handed_on(self) -> None:
        with serving(*[answer(body=encoded([{"a\0b": 1}]))] * 2) as server:
            with pytest.raises(SchemaConflict, match="NUL"):
                pa.RecordBatchReader.from_stream(documents_of(server))
            assert documents_of(server).to_arrow().to_pylist() == [{"a\0b": 1}]

    def test_a_missing_read_credential_is_told_by_find(self, open_collection: Open) -> None:
        with serving(answer()) as server:
            with pytest.raises(ConfigurationError, match="needs a read credential"):
                open_collection(server.base_url, read=None).find()
            assert server.requests == []


MARKED = [{"a": 1, "_dagster": {"load": "7f"}}, {"a": 2}]


class TestBookkeeping:
    def test_it_is_hidden_in_every_form(self, local: Local, tmp_path: Path) -> None:
        docs = local.collection(MARKED).find(project=NO_ID)
        plain = [{"a": 1}, {"a": 2}]
        assert docs.to_arrow().to_pylist() == plain
        assert docs.to_pylist() == plain
        assert docs.reader().read_all().to_pylist() == plain
        assert list(docs.to_pandas().columns) == ["a"]
        docs.to_parquet(tmp_path / "x.parquet")
        assert pq.read_table(tmp_path / "x.parquet").to_pylist() == plain

    def test_it_is_shown_to_who_asks_for_it_by_name(self, local: Local) -> None:
        docs = local.collection(MARKED).find(project={"_id": 0, "_dagster.load": 1})
        assert docs.to_pylist() == [{"_dagster": {"load": "7f"}}, {}]
