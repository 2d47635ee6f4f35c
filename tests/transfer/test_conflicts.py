"""A document that does not fit is named: which it is, wherever responses and pieces were cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectome_dagster.errors import ReadInterrupted, SchemaConflict
from connectome_dagster.testing import ConnectomeServer
from connectome_dagster.transfer.collection import Connectome
from connectome_dagster.transfer.read import Documents
from tests.api.scripted import answer, serving
from tests.transfer.conftest import READ_SECRET, Local
from tests.transfer.test_complete import paged

Document = dict[str, Any]


@pytest.fixture
def server(local: Local) -> ConnectomeServer:
    return local.server


def in_pieces_of(docs: Documents, piece_bytes: int) -> Documents:
    docs._source = replace(docs._source, piece_bytes=piece_bytes)
    return docs


def every_form(docs: Documents, folder: FilePath) -> list[Callable[[], Any]]:
    return [
        docs.to_arrow,
        docs.to_pandas,
        docs.to_pylist,
        lambda: docs.reader().read_all(),
        lambda: docs.to_parquet(folder / "x.parquet"),
    ]


class TestTheFirstDocumentThatDoesNotFit:
    @pytest.mark.parametrize("more", [{"schema": pa.schema({"v": pa.int64()})},
                                      {"on_conflict": "error"}])  # fmt: skip
    @pytest.mark.parametrize("strategy", ["auto", "pages", "stream"])
    def test_is_named_in_every_form_across_pages_caps_and_breaks(
        self, local: Local, server: ConnectomeServer, tmp_path: FilePath, strategy: Any, more: Any
    ) -> None:
        documents = [{"_id": n, "v": "x" if n >= 11 else n} for n in range(20)]
        things = paged(local.collection(documents), 4)
        whole = strategy == "stream"
        for cap, nth in [(None, None), (5, None), (None, 1), (5, 2)][: 1 if whole else None]:
            for piece_bytes in (30, 1 << 20):
                server.switches(page_cap=cap)
                server.faults.replace([])
                if nth:
                    server.faults.add("cut", verb="readwithquery", nth=nth, bytes=50)
                project = {"_id": 0} if "schema" in more else None
                docs = things.find(sort={"_id": 1}, strategy=strategy, project=project, **more)
                for read in every_form(in_pieces_of(docs, piece_bytes), tmp_path):
                    with pytest.raises(SchemaConflict) as caught:
                        read()
                    assert caught.value.document == 11, (cap, nth, piece_bytes)
                    assert caught.value.field == "v"
                    if not whole or project is None:
                        assert caught.value.id == 11
                        assert "document 11 (counted from 0), _id 11: v: " in str(caught.value)

    def test_is_named_by_its_id_alone_where_several_readers_read(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        documents = [{"_id": n, "v": "x" if n == 31 else n} for n in range(40)]
        things = local.again(local.collection(documents), concurrency=4)
        server.switches(page_cap=3)
        for more in ({"schema": pa.schema({"v": pa.int64()}), "extra_fields": "drop"},):
            with pytest.raises(SchemaConflict, match=r"': _id 31: v: ") as caught:
                things.find(split=4, **more).to_arrow()
            assert (caught.value.document, caught.value.id) == (None, 31)
        with pytest.raises(SchemaConflict, match=r"': _id \d+: v: ") as caught:
            things.find(split=4, on_conflict="error").to_arrow()
        assert caught.value.document is None

    def test_is_not_one_that_only_a_look_at_the_end_has_seen(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection([{"_id": n, "v": "x" if n == 8 else n} for n in range(9)])
        server.switches(page_cap=3)
        with pytest.raises(SchemaConflict) as caught:
            things.find(on_conflict="error").to_arrow()
        assert caught.value.document == 8

    def test_is_not_one_behind_the_limit(self, local: Local, server: ConnectomeServer) -> None:
        server.switches(id_form="objectid")
        things = local.collection()
        things.append([{"k": n // 4, "n": "x" if n == 7 else n} for n in range(8)])
        server.switches(extended_json=False, expr=False, page_cap=6)
        docs = things.find(cursor="k", limit=7, on_conflict="error")
        assert docs.to_arrow().column("n").to_pylist() == list(range(7))
        assert len(docs.to_pylist()) == 7
        with pytest.raises(SchemaConflict) as caught:
            things.find(cursor="k", on_conflict="error").to_pylist()
        assert caught.value.document == 7

    def test_is_told_in_a_reader_too_and_drift_is_what_a_new_field_is(self, local: Local) -> None:
        things = local.collection([{"_id": 1, "v": 1}, {"_id": 2, "v": [1]}])
        docs = in_pieces_of(things.find(on_conflict="error"), 5)
        with pytest.raises(SchemaConflict, match=r"document 1 .*v: int64 and array in one field"):
            docs.reader().read_all()

    def test_is_none_for_fields_that_only_the_read_itself_needs(self, local: Local) -> None:
        documents = [{"_id": 1, "o": {"k": 1, "n": 1}}, {"_id": "a", "o": {"k": "x", "n": 2}}]
        docs = local.collection(documents).find(
            project={"_id": 0, "o.n": 1}, cursor="o.k", on_conflict="error"
        )
        assert docs.to_arrow().to_pylist() == [{"o": {"n": 1}}, {"o": {"n": 2}}]
        assert docs.to_pylist() == [{"o": {"n": 1}}, {"o": {"n": 2}}]

    def test_shows_no_credential(self, local: Local) -> None:
        things = local.collection([{"_id": READ_SECRET, "v": 1}, {"_id": "z", "v": "x"}])
        secret = local.server.read_credential
        things.insert({"_id": f"{secret}", "v": "y"})
        schema = pa.schema({"_id": pa.string(), "v": pa.string()})
        with pytest.raises(SchemaConflict) as caught:
            things.find(schema=schema, sort={"v": 1}).to_arrow()
        assert caught.value.id == READ_SECRET  # another one than what is used
        with pytest.raises(SchemaConflict) as caught:
            things.find({"v": "y"}, schema=pa.schema({"v": pa.int64()})).to_arrow()
        assert secret not in f"{caught.value} {caught.value.id}"


values = st.one_of(
    st.none(), st.integers(-2, 2), st.sampled_from([2**53 + 1, 0.5, "a", True, "", [], {}]),
    st.sampled_from([[1], ["a"], [None], [0.5], {"x": 1}, {"x": "a"}, {"x": None}, {"y": "b"}]),
    st.sampled_from(["2020-01-01T00:00:00.000Z", {"$date": "2020-01-01T00:00:00Z"}]),
)  # fmt: skip


def kinds_of(value: Any, path: str) -> list[tuple[str, str]]:
    """Every place in a value with the kind that it has there."""
    if isinstance(value, bool) or value is None:
        return [] if value is None else [(path, "bool")]
    if isinstance(value, dict) and "$date" in value:
        return [(path, "date")]
    if isinstance(value, dict):
        inner = [found for name in value for found in kinds_of(value[name], f"{path}.{name}")]
        return [(path, "object"), *inner]
    if isinstance(value, list):
        return [
            (path, "array"),
            *(found for item in value for found in kinds_of(item, path + "[]")),
        ]
    if isinstance(value, int):
        return [(path, "int" if abs(value) <= 2**53 else "large")]
    return [(path, type(value).__name__ if value != "2020-01-01T00:00:00.000Z" else "instant")]


ONE_TYPE = [{"int", "large"}, {"int", "float"}, {"str", "instant"}, {"date", "instant"}]


def first_conflict(documents: list[Document]) -> int | None:
    """What the table of types says, document by document."""
    seen: dict[str, set[str]] = {}
    for at, document in enumerate(documents):
        for path, kind in kinds_of(document.get("v"), "v"):
            kinds = seen.setdefault(path, set())
            kinds.add(kind)
            if len(kinds) > 1 and kinds not in ONE_TYPE:
                return at
    return None


@given(
    found=st.lists(values, min_size=1, max_size=9),
    cap=st.none() | st.integers(1, 4),
    page_rows=st.integers(1, 4),
    piece_bytes=st.sampled_from([10, 60, 1 << 20]),
    strategy=st.sampled_from(["auto", "pages", "stream"]),
    direction=st.sampled_from([1, -1]),
    breaks=st.booleans(),
)
@example(
    found=["2020-01-01T00:00:00.000Z", "a", 0, [1]],
    cap=None,
    page_rows=1,
    piece_bytes=10,
    strategy="auto",
    direction=1,
    breaks=False,
)
@example(
    found=["2020-01-01T00:00:00.000Z", {"$date": "2020-01-01T00:00:00Z"}, "a"],
    cap=None,
    page_rows=1,
    piece_bytes=10,
    strategy="auto",
    direction=1,
    breaks=False,
)
@example(
    found=["a", {"$date": "2020-01-01T00:00:00Z"}, 0],
    cap=None,
    page_rows=1,
    piece_bytes=10,
    strategy="auto",
    direction=1,
    breaks=False,
)
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_first_conflict_is_the_same_however_the_documents_come(
    local: Local,
    found: list[Any],
    cap: int | None,
    page_rows: int,
    piece_bytes: int,
    strategy: Any,
    direction: int,
    breaks: bool,
) -> None:
    server = local.server
    server.faults.replace([])
    server.switches(page_cap=None)
    documents: list[Document] = [{"_id": n, "v": value} for n, value in enumerate(found)]
    things = paged(local.collection(documents), page_rows)
    if strategy != "stream":
        server.switches(page_cap=cap)
        if breaks:
            server.faults.add("cut", verb="readwithquery", nth=2, bytes=60)
    in_order = documents[::direction]
    docs = in_pieces_of(
        things.find(sort={"_id": direction}, strategy=strategy, on_conflict="error"), piece_bytes
    )
    expected = first_conflict(in_order)
    for read in (docs.to_arrow, docs.to_pylist):
        if expected is None:
            assert len(read()) == len(documents)
            continue
        with pytest.raises(SchemaConflict) as caught:
            read()
        assert (caught.value.document, caught.value.id) == (expected, in_order[expected]["_id"])


class TestNamesThatStandTwice:
    BODY = b'[{"_id":1,"a":1,"a":2,"o":{"b":1,"b":2}},{"_id":2,"a":3},{"_id":3,"a":4,"a":5}]'

    def test_are_counted_in_every_form_and_told_once(
        self, tmp_path: FilePath, caplog: pytest.LogCaptureFixture
    ) -> None:
        for piece_bytes in (10, 1 << 20):
            for more in ({}, {"on_conflict": "error"}):
                with (
                    serving(answer(body=self.BODY)) as service,
                    Connectome(base_url=service.base_url, read_credential="r" * 20) as connectome,
                ):
                    docs = connectome.collection("movies").find(strategy="stream", **more)
                    for read in every_form(in_pieces_of(docs, piece_bytes), tmp_path):
                        caplog.clear()
                        read()
                        assert docs.report is not None
                        assert docs.report.duplicate_fields == {"a": 2, "o.b": 1}
                        [told] = [each.getMessage() for each in caplog.records if each.levelno > 20]
                        assert "a (2 times), o.b (1 times)" in told
                    assert [each["a"] for each in docs.to_pylist()] == [2, 3, 5]

    def test_are_counted_once_where_pages_begin_with_what_was_there(
        self, tmp_path: FilePath
    ) -> None:
        documents = [b'{"_id":%d,"a":1,"a":2}' % n for n in range(3)]
        pages = [documents[:2], documents[1:], documents[2:]]
        steps = [answer(body=b"[%b]" % b",".join(page)) for page in pages]
        for reading in range(5):
            with (
                serving(*steps) as service,
                Connectome(
                    base_url=service.base_url, read_credential="r" * 20, page_rows=2
                ) as connectome,
            ):
                docs = connectome.collection("movies").find(strategy="pages")
                every_form(docs, tmp_path)[reading]()
                assert docs.report is not None
                assert docs.report.duplicate_fields == {"a": 3}


def test_fields_that_became_text_are_told_once_for_a_read(
    local: Local, caplog: pytest.LogCaptureFixture
) -> None:
    documents = [{"_id": n, "v": "x" if n % 2 else n, "w": [n] if n > 5 else n} for n in range(9)]
    for piece_bytes in (10, 1 << 20):
        caplog.clear()
        docs = in_pieces_of(local.collection(documents).find(), piece_bytes)
        docs.to_arrow()
        [told] = [each.getMessage() for each in caplog.records if each.levelno > 20]
        assert "2 fields hold values of several types and were read as text: v (" in told


class TestPlainDocuments:
    def test_have_the_fields_and_values_of_a_schema_that_is_given(self, local: Local) -> None:
        things = local.collection([{"_id": 1, "n": 5, "t": "x"}, {"_id": 2, "n": None}])
        schema = pa.schema({"n": pa.float64(), "late": pa.string()})
        docs = things.find(schema=schema, extra_fields="drop")
        assert docs.to_pylist() == [{"n": 5.0, "late": None}, {"n": None, "late": None}]
        assert docs.to_pylist() == docs.to_arrow().to_pylist()
        with pytest.raises(SchemaConflict, match=r"document 0 .*_id: a field that the schema"):
            things.find(schema=schema).to_pylist()

    def test_are_as_they_were_sent_where_no_field_has_several_types(self, local: Local) -> None:
        documents = [
            {"_id": n, "v": {"$numberLong": "5"}, "d": "2020-01-01T00:00:00.000Z"} | more
            for n, more in enumerate([{}, {"late": [1]}, {"d": "no date"}])
        ]
        things = local.collection(documents)
        found = things.find(on_conflict="error", project={"_id": 0})
        sent = things.find(project={"_id": 0}).to_pylist()
        for piece_bytes in (10, 1 << 20):
            assert in_pieces_of(found, piece_bytes).to_pylist() == sent


class TestAReadThatBroke:
    def test_tells_how_far_it_came_and_from_where_to_go_on(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        things = local.collection([{"_id": f"{n:024x}", "a": {"k": n // 2}} for n in range(6)])
        server.faults.add("cut", verb="readwithquery", nth=1, bytes=40)
        docs = things.find(sort={"a.k": 1, "_id": -1}, project={"_id": 0}, strategy="stream")
        with pytest.raises(ReadInterrupted) as caught:
            docs.to_pylist()
        rows, key = caught.value.rows, caught.value.last_key
        assert 0 < rows < 6
        assert key == {"a.k": (rows - 1) // 2}  # what the stream showed
        server.faults.replace([])
        server.faults.add("cut", verb="readwithquery", nth=1, bytes=60)
        server.faults.add("cut", verb="readwithquery", bytes=10)
        with pytest.raises(ReadInterrupted) as caught:
            things.find(sort={"a.k": -1}, project={"_id": 0}, strategy="pages").to_pylist()
        assert caught.value.rows == 1
        assert caught.value.last_key == {"a.k": 2, "_id": f"{5:024x}"}
        assert '(1 documents had arrived, the last with a.k 2, _id "0' in str(caught.value)
        assert "a filter from there on finds the rest" in str(caught.value)

    def test_came_nowhere_or_in_no_order(self, local: Local, server: ConnectomeServer) -> None:
        things = local.collection([{"_id": n} for n in range(9)])
        for strategy, byte in (("stream", 40), ("stream", 2), ("auto", 2)):
            server.faults.replace([])
            server.faults.add("cut", verb="readwithquery", bytes=byte)
            with pytest.raises(ReadInterrupted) as caught:
                things.find(strategy=strategy).to_pylist()  # type: ignore[arg-type]
            assert caught.value.last_key == {}
            assert (caught.value.rows > 0) == (byte == 40)

    def test_shows_no_credential_that_is_a_key(
        self, local: Local, server: ConnectomeServer
    ) -> None:
        secret = server.read_credential
        things = local.collection([{"_id": f"{secret}{n}"} for n in range(9)])
        server.faults.add("cut", verb="readwithquery", bytes=3 * len(secret))
        with pytest.raises(ReadInterrupted) as caught:
            things.find(sort={"_id": 1}, strategy="stream").to_pylist()
        assert caught.value.last_key
        assert secret not in f"{caught.value} {caught.value.last_key}"
