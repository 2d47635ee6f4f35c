"""Documents of a collection, read lazily into whatever frame is asked for.

Knows how a read is sent, decoded and gathered; what Arrow makes of a document is decided in
`frames`, how a request is repeated in `api`.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import pyarrow as pa

from connectome_dagster.api.client import Body, Client
from connectome_dagster.api.credentials import Credentials, redact
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import (
    ConfigurationError,
    ConnectomeError,
    MalformedResponse,
    ReadInterrupted,
    SchemaConflict,
    SchemaDrift,
)
from connectome_dagster.frames.decode import Decoded, Hints, decode
from connectome_dagster.frames.exact import NotDocuments, check_utf8
from connectome_dagster.frames.fit import Fit, Misfit, OnConflict, decode_uniform, first_value
from connectome_dagster.frames.schema import (
    Path,
    Unmergeable,
    check_wholes,
    conform,
    drifted,
    merge_schemas,
    show_path,
)
from connectome_dagster.frames.split import PIECE_BYTES, Splitter
from connectome_dagster.transfer.fields import without
from connectome_dagster.transfer.marks import BOOKKEEPING
from connectome_dagster.transfer.pages import Progress, Take, Walk
from connectome_dagster.transfer.parquet import ParquetParts
from connectome_dagster.transfer.pipeline import Pipeline
from connectome_dagster.transfer.ranges import outside
from connectome_dagster.transfer.readers import side_by_side
from connectome_dagster.transfer.report import ReadReport
from connectome_dagster.transfer.search import Paging, Search, Strategy

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
R = TypeVar("R")


class Documents:
    """What a query finds, read when it is asked for and again each time it is asked for.

    Speaks `__arrow_c_stream__`, so polars, duckdb and others take it as it is.

    Attributes:
        collection: the collection id.
        report: what the last read that ended did; None before.

    Example:
        >>> docs = movies.find({"amount": {"$gte": 30}}, sort={"amount": 1})  # doctest: +SKIP
        >>> docs.to_pandas()  # doctest: +SKIP
    """

    def __init__(
        self,
        client: Client,
        credentials: Credentials,
        call: Call,
        *,
        paging: Paging | None = None,
        response_path: str | None = None,
        show_bookkeeping: bool = False,
        fit: Fit | None = None,
        on_conflict: OnConflict = "text",
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self.collection = call.collection
        self.report: ReadReport | None = None
        self._client = client
        self._credentials = credentials
        self._call = call
        self._paging = paging or Paging(Search(call.collection), "stream")
        self._whole_call = call if paging is None else None
        self._response_path = response_path
        self._show_bookkeeping = show_bookkeeping
        self._fit = fit
        self._on_conflict = on_conflict
        self._piece_bytes = piece_bytes

    def __repr__(self) -> str:
        asked = (self._call.body or b"").decode()
        return f"<Documents of collection {self.collection!r}: {self._call.verb} {asked}>"

    def to_arrow(self) -> pa.Table:
        """Read everything into one table.

        Fields stand in the order in which they first appear; a document that lacks a field has
        null there. A field whose values have several types becomes text and is named in
        `report.conflicts`.

        Returns:
            A table; without columns if nothing matched.

        Raises:
            ReadInterrupted: the body broke off.
            MalformedResponse: the answer is not documents.
            SchemaConflict: a value does not fit the `schema` of `find`, or a field has several
                types and `find` was told `on_conflict="error"`.
            ConnectomeError: the service refused or could not be reached.
        """
        return self._gather(list, _table)

    def to_pandas(
        self, dtype_backend: Literal["pyarrow", "numpy_nullable"] | None = None
    ) -> pd.DataFrame:
        """Read everything into a DataFrame.

        Args:
            dtype_backend: as in `pandas.read_json`. None, the default, gives NumPy's types where
                they hold every value and pandas' nullable ones where they would not: integers and
                booleans with nulls are `Int64` and `boolean`, never floats or objects.

        Raises:
            ConfigurationError: another `dtype_backend`; nothing was sent.
            What `to_arrow` raises.
        """
        if dtype_backend not in (None, "pyarrow", "numpy_nullable"):
            raise ConfigurationError(
                f"dtype_backend is {dtype_backend!r}: give 'pyarrow', 'numpy_nullable' or None. "
                "Nothing was sent"
            )
        from connectome_dagster.frames.dataframe import to_pandas  # pandas takes long to import

        return to_pandas(self.to_arrow(), dtype_backend)

    def to_pylist(self) -> list[dict[str, Any]]:
        """Read everything into plain documents, as the service sent them.

        A missing field stays missing, integers keep every digit, and Extended JSON stays as it
        is. A number with a fraction or an exponent that no float holds is a `decimal.Decimal`.

        Raises:
            What `to_arrow` raises.
        """
        documents: list[dict[str, Any]] = []
        hidden, nested = self._names_hidden(), self._nested_hidden()

        def decode_piece(piece: bytes) -> list[dict[str, Any]]:
            return _plain_documents(without(piece, nested) if nested else piece)

        for piece in self._run(decode_piece, len, _part_of_list, _Tally()):
            for name in hidden:
                for document in piece:
                    document.pop(name, None)
            documents += piece
        return documents

    def reader(self) -> pa.RecordBatchReader:
        """Read as a stream of record batches, in memory that does not grow with the data.

        The schema is the one of `find`, else that of the first batch. Drop the reader to end the
        request before the last document; its `close()` is pyarrow's, and ends nothing.

        Raises:
            SchemaDrift: while reading, when a later document does not fit the schema; `to_arrow`,
                `to_pandas` and `to_parquet` take such documents.
            ReadInterrupted, MalformedResponse, SchemaConflict, ConnectomeError: as `to_arrow`.
        """
        batches = self._decoded(self._hints(), _Tally())
        first = next(batches, None)
        if first is None:
            return pa.RecordBatchReader.from_batches(self._schema(), [])
        return pa.RecordBatchReader.from_batches(first.schema, _of_one_schema(first, batches))

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Iterate over the batches of `reader()`."""
        return iter(self.reader())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader().__arrow_c_stream__(requested_schema)

    def to_parquet(self, path: str | os.PathLike[str], **options: Any) -> ReadReport:
        """Read into a Parquet file, batch by batch; always succeeds on legal documents.

        The file appears under its name when it is complete, and not before.

        Args:
            path: the file; one that is there is replaced.
            options: for `pyarrow.parquet.ParquetWriter`, `compression="zstd"` for one.

        Returns:
            The report of the read.

        Raises:
            What `to_arrow` raises.
        """
        target = FilePath(path)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as parts:
            merged = self._gather(
                lambda batches: ParquetParts(FilePath(parts), options).write(batches),
                lambda written, schema: written.merge(schema),
            )
            os.replace(merged, target)
        assert self.report is not None  # noqa: S101 - a read has just ended
        return self.report

    def _gather(
        self,
        take: Callable[[Iterator[pa.RecordBatch]], T],
        finish: Callable[[T, pa.Schema], R],
    ) -> R:
        """Read until every batch fits one schema; what does not is read again as text.

        A field that turns out to hold several types has already been decoded as one of them.
        Reading again, with that known from the start, gives every value from its own text, so the
        result does not depend on where the body was cut.
        """
        tally = _Tally()
        hints = self._hints()
        while True:
            growing = _GrowingSchema(self._schema())
            with closing(self._decoded(hints, tally)) as batches:
                taken = take(growing.watch(batches))
            conflicts = growing.conflicts
            if growing.first is not None and self._on_conflict == "error":
                raise self._conflict(growing.first, growing.rows)
            if not conflicts:
                try:
                    return finish(taken, growing.schema)
                except Unmergeable as unmergeable:
                    # An early batch of integers that floats do not hold, and floats came later.
                    kinds = unmergeable.kinds
                conflicts = frozenset(kinds)
                if self._on_conflict == "error":
                    raise self._conflict(_several(kinds), None)
            hints = hints.with_text(conflicts)

    def _decoded(self, hints: Hints, tally: _Tally) -> Generator[pa.RecordBatch, None, None]:
        learned = hints
        hidden, nested = self._names_hidden(), self._nested_hidden()

        def decode_piece(piece: bytes) -> Decoded:
            text = without(piece, nested) if nested else piece
            if self._fit is not None:
                return self._fit.decode(text, learned, hidden)
            if self._on_conflict == "error":
                return decode_uniform(text, learned, hidden)
            return decode(text, learned)

        try:
            for decoded in self._run(decode_piece, _rows_of, _part_of_batch, tally):
                learned = learned.after(decoded)
                conflicts = decoded.conflicts.items()
                tally.note({path: kinds for path, kinds in conflicts if path[0] not in hidden})
                dropped = [name for name in decoded.batch.schema.names if name in hidden]
                yield decoded.batch.drop_columns(dropped) if dropped else decoded.batch
        except Misfit as error:
            misfit = error
        else:
            return
        raise self._conflict(misfit, tally.progress.rows)

    def _hints(self) -> Hints:
        return Hints() if self._fit is None else self._fit.hints()

    def _schema(self) -> pa.Schema:
        return pa.schema([]) if self._fit is None else self._fit.schema

    def _conflict(self, misfit: Misfit, rows_before: int | None) -> SchemaConflict:
        where = ""
        if rows_before is not None:
            where = f"document {rows_before + misfit.row} (counted from 0): "
        advice = (
            "leave on_conflict unset to read such a field as text"
            if self._fit is None
            else "change the type, leave the field out with project, or leave schema unset"
        )
        return SchemaConflict(
            f"{self._call.verb} of collection {self.collection!r}: {where}{misfit}; {advice}",
            field=show_path(misfit.path),
        )

    def _names_hidden(self) -> frozenset[str]:
        names = {path[0] for path in self._paging.hidden if len(path) == 1}
        return frozenset(names if self._show_bookkeeping else names | {BOOKKEEPING})

    def _nested_hidden(self) -> list[Path]:
        return [path for path in self._paging.hidden if len(path) > 1]

    def _run(
        self,
        decode_piece: Callable[[bytes], T],
        count: Callable[[T], int],
        part: Callable[[T, int, int | None], T],
        tally: _Tally,
    ) -> Iterator[T]:
        """Read to the end and give what the pieces decode to; the report stands there."""
        trouble: ReadInterrupted | MalformedResponse
        tally.begin_again()

        def fetch(call: Call) -> Generator[tuple[bytes, T], None, None]:
            return self._fetch(self._whole_call or call, decode_piece, tally)

        take = Take(fetch, count, part)
        if self._paging.split == 1:
            running = Walk(self._paging, take, tally.progress).run()
        else:
            running = _in_ranges(self._paging, take, tally.progress)
        try:
            with closing(running) as decoded:
                yield from decoded
        except (ReadInterrupted, MalformedResponse) as error:
            trouble = error
        else:
            self.report = tally.report(self.collection, self._paging.strategy)
            return
        raise self._located(trouble, tally.progress.rows)

    def _fetch(
        self, call: Call, decode_piece: Callable[[bytes], T], tally: _Tally
    ) -> Generator[tuple[bytes, T], None, None]:
        """Send one call and give each piece of its response with what it decodes to."""
        with self._client.stream(call, self._credentials) as body:
            pipeline = Pipeline(Splitter(self._response_path, self._piece_bytes), decode_piece)
            try:
                with closing(pipeline.run(body)) as decoded:
                    for item in decoded:
                        yield pipeline.piece, item
            finally:
                tally.add(body)

    def _located(self, trouble: ReadInterrupted | MalformedResponse, rows: int) -> ConnectomeError:
        where: dict[str, Any] = {"verb": self._call.verb, "collection": self.collection}
        place = f"{self._call.verb} of collection {self.collection!r}"
        text = str(trouble)
        text = text if text.startswith(place) else f"{place}: {text}"
        text = redact(text, self._credentials.secrets)
        if isinstance(trouble, MalformedResponse):
            return MalformedResponse(text, **where)
        return ReadInterrupted(f"{text} ({rows} documents had arrived)", rows=rows, **where)


@dataclass
class _Tally:
    """Counts what a read costs, over all the requests that it needed; from several threads."""

    started: float = field(default_factory=time.monotonic)
    progress: Progress = field(default_factory=Progress)
    requests: int = 0
    retries: int = 0
    bytes_received: int = 0
    kinds: dict[Path, dict[str, None]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin_again(self) -> None:
        self.progress = Progress()
        self.kinds = {}  # of a field that became text, what was below it counts no longer

    def note(self, conflicts: Mapping[Path, Iterable[str]]) -> None:
        for path, kinds in conflicts.items():
            self.kinds.setdefault(path, {}).update(dict.fromkeys(kinds))

    def add(self, body: Body) -> None:
        with self.lock:
            self.requests += body.requests
            self.retries += body.retries
            self.bytes_received += body.bytes_received

    def report(self, collection: str, strategy: Strategy) -> ReadReport:
        return ReadReport(
            collection,
            rows=self.progress.rows,
            requests=self.requests,
            retries=self.retries,
            bytes_received=self.bytes_received,
            seconds=time.monotonic() - self.started,
            conflicts={
                show_path(path): tuple(kinds)
                for path, kinds in self.kinds.items()
                # Some pieces had only instants, but all are strings: of one type, after all.
                if set(kinds) != {"string"}
            },
            strategy=strategy,
            pages=self.progress.pages,
            resumed=self.progress.resumed,
            proved=self.progress.proved,
        )


class _GrowingSchema:
    """Watches batches go by and widens the schema that holds them all.

    After the first conflict nothing is handed on: what comes only tells of more conflicts, so
    that all of them are known before the documents are read again.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.conflicts: frozenset[Path] = frozenset()
        self.first: Misfit | None = None  # its row is counted from `rows`
        self.rows = 0

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            try:
                self._widen(batch)
            except Unmergeable as unmergeable:
                self.conflicts |= frozenset(unmergeable.kinds)
                if self.first is None:
                    self.first = _several(unmergeable.kinds, batch)
            if not self.conflicts:
                self.rows += batch.num_rows
                yield batch

    def _widen(self, batch: pa.RecordBatch) -> None:
        merged = merge_schemas(self.schema, batch.schema)
        check_wholes(batch, merged)
        self.schema = merged


def _several(
    conflicts: Mapping[Path, Iterable[str]], batch: pa.RecordBatch | None = None
) -> Misfit:
    path, kinds = next(iter(conflicts.items()))
    row = 0 if batch is None else first_value(batch, path)
    return Misfit(path, f"{' and '.join(kinds)} in one field", row)


def _in_ranges(paging: Paging, take: Take[T], progress: Progress) -> Generator[T, None, None]:
    """Read ranges of the cursor at a time, and at last whatever is in none of them."""
    parts = Walk(paging, take, Progress()).ranges(paging.split)
    each = [Progress() for _ in parts]
    readers = [Walk(paging.of(part), take, own).run for part, own in zip(parts, each, strict=True)]
    rest = Progress(proved=True)
    running = [side_by_side(readers)]
    if len(parts) > 1:
        running.append(Walk(paging.of(outside(parts)), take, rest).run())
    for items in running:
        with closing(items):
            for item in items:
                progress.rows += take.count(item)
                yield item
    progress.pages = sum(own.pages for own in (*each, rest))
    progress.resumed = sum(own.resumed for own in (*each, rest))
    progress.proved = all(own.proved for own in (*each, rest))


def _rows_of(decoded: Decoded) -> int:
    return int(decoded.batch.num_rows)


def _part_of_batch(decoded: Decoded, start: int, rows: int | None) -> Decoded:
    if start == 0 and (rows is None or rows >= decoded.batch.num_rows):
        return decoded
    return replace(decoded, batch=decoded.batch.slice(start, rows))


def _part_of_list(documents: list[T], start: int, rows: int | None) -> list[T]:
    return documents[start : None if rows is None else start + rows]


def _table(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)


def _of_one_schema(
    first: pa.RecordBatch, batches: Generator[pa.RecordBatch, None, None]
) -> Iterator[pa.RecordBatch]:
    # Closed when a batch drifts, and not when somebody lets go of the error.
    with closing(batches):
        yield first
        for at, batch in enumerate(batches, start=2):
            field, drift = _drift(first.schema, batch)
            if drift:
                raise SchemaDrift(
                    f"batch {at} does not fit the schema of the first: {drift}. A stream has one "
                    "schema: use to_arrow, to_pandas or to_parquet, which widen it, or leave the "
                    "field out with project",
                    field=field,
                )
            yield conform(batch, first.schema)


def _drift(schema: pa.Schema, batch: pa.RecordBatch) -> tuple[str, str]:
    """Which field of a batch goes beyond a schema, and how all that do go; both empty if none."""
    try:
        grown = merge_schemas(schema, batch.schema)
        check_wholes(batch, grown)
    except Unmergeable as unmergeable:
        kinds = {show_path(path): each for path, each in unmergeable.kinds.items()}
        told = [f"{path} ({', later '.join(each)})" for path, each in kinds.items()]
        return next(iter(kinds)), ", ".join(told)
    if grown.equals(schema):
        return "", ""
    known = set(schema)
    return next(each.name for each in grown if each not in known), ", ".join(drifted(schema, grown))


def _plain_documents(piece: bytes) -> list[dict[str, Any]]:
    check_utf8(piece)
    text = b"[" + piece + b"]"
    try:
        return msgspec.json.decode(text, type=list[dict[str, Any]])
    except msgspec.ValidationError as error:
        reason, beyond_floats = str(error), "out of range" in str(error)
    except (msgspec.DecodeError, RecursionError) as error:
        reason, beyond_floats = str(error), False
    if not beyond_floats:
        raise NotDocuments(reason)
    return _with_decimals(text)


def _with_decimals(text: bytes) -> list[dict[str, Any]]:
    """Decode documents with numbers beyond the range of floats, as strictly as all others."""
    try:
        documents = json.loads(text, parse_float=_exact_float, parse_constant=_no_constant)
        msgspec.json.encode(documents)  # refuses half a surrogate pair, which json lets pass
    except (ValueError, RecursionError) as error:
        reason = type(error).__name__ if isinstance(error, UnicodeError) else str(error)
    else:
        if all(isinstance(document, dict) for document in documents):
            return list(documents)
        reason = "an item is not an object"
    raise NotDocuments(reason)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _exact_float(text: str) -> float | Decimal:
    number = float(text)
    return number if math.isfinite(number) else Decimal(text)
