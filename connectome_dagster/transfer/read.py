"""Documents of a collection, read lazily into whatever frame is asked for.

Knows how a read is sent, decoded and gathered; what Arrow makes of a document is decided in
`frames`, how a request is repeated in `api`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pyarrow as pa

from connectome_dagster.errors import ConfigurationError, SchemaConflict
from connectome_dagster.frames.decode import Decoded, Hints, decode
from connectome_dagster.frames.fit import Fit, Misfit, OnConflict
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.frames.schema import (
    Path,
    Unmergeable,
    check_c_names,
    conform,
    show_path,
)
from connectome_dagster.transfer.cursor import ID, shown, told
from connectome_dagster.transfer.fetch import Source, Tally
from connectome_dagster.transfer.fields import without
from connectome_dagster.transfer.marks import BOOKKEEPING
from connectome_dagster.transfer.one_schema import GrowingSchema, of_one_schema
from connectome_dagster.transfer.parquet import GROUP_BYTES, ParquetParts
from connectome_dagster.transfer.piece import Piece, PlainPiece
from connectome_dagster.transfer.report import ReadReport
from connectome_dagster.transfer.strict import Strict, Undecided, without_fields

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

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
        source: Source,
        *,
        show_bookkeeping: bool = False,
        bookkeeping: str = BOOKKEEPING,
        fit: Fit | None = None,
        on_conflict: OnConflict = "text",
    ) -> None:
        self.collection = source.call.collection
        self.report: ReadReport | None = None
        self._source = source
        self._show_bookkeeping = show_bookkeeping
        self._bookkeeping = bookkeeping
        self._fit = fit
        self._on_conflict = on_conflict

    def __repr__(self) -> str:
        call = self._source.call
        asked = (call.body or b"").decode()
        return f"<Documents of collection {self.collection!r}: {call.verb} {asked}>"

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
        from connectome_dagster.frames.dataframe import FrameParts  # pandas takes long to import

        frame: pd.DataFrame = self._gather(
            lambda batches: FrameParts(dtype_backend).write(batches),
            lambda written, schema: written.frame(schema),
        )
        return frame

    def to_pylist(self) -> list[dict[str, Any]]:
        """Read everything into plain documents, as the service sent them.

        A missing field stays missing, integers keep every digit, and Extended JSON stays as it
        is. A number with a fraction or an exponent that no float holds is a `decimal.Decimal`.

        With the `schema` of `find` they have its fields and values instead, as
        `to_arrow().to_pylist()` has: a missing field is None, an instant a datetime. With
        `on_conflict="error"` they are as the service sent them, or `SchemaConflict`.

        Raises:
            What `to_arrow` raises.
        """
        if self._fit is not None:
            return list(self.to_arrow().to_pylist())
        if self._on_conflict == "error":
            return self._uniform_list()
        return list(chain.from_iterable(self.plain_batches()))

    def plain_batches(self) -> Generator[list[dict[str, Any]], None, None]:
        """Iterate over plain documents, some at a time: in memory that does not grow with the data.

        They are as `to_pylist` has them. Close the iterator to end the request early.

        Raises:
            ConfigurationError: with the `schema` or `on_conflict="error"` of `find`, which take
                `reader` or `to_pylist`.
            ReadInterrupted, MalformedResponse, ConnectomeError: while reading, as `to_arrow`.

        Example:
            >>> for batch in movies.find().plain_batches():  # doctest: +SKIP
            ...     titles = [movie.get("title") for movie in batch]
        """
        if self._fit is not None or self._on_conflict == "error":
            raise ConfigurationError(
                "plain_batches gives documents as the service sent them: leave schema and "
                "on_conflict out of find, or take reader() or to_pylist(). Nothing was sent"
            )
        tally = Tally()

        def decode_piece(piece: bytes) -> PlainPiece:
            return PlainPiece.of(self._shown(piece))

        with closing(self._run(decode_piece, PlainPiece.count, PlainPiece.part, tally)) as pieces:
            for piece in pieces:
                tally.note({}, piece.duplicated)
                yield [self._without_hidden(document) for document in piece.documents]
        self._log_findings()

    def _uniform_list(self) -> list[dict[str, Any]]:
        tally = Tally()
        hints = self._hints()
        while True:
            documents: list[dict[str, Any]] = []
            strict = Strict(hints, self._names_hidden(), None)
            with suppress(Undecided):
                for piece, decoded in self._checked(strict, tally, again=True):
                    tally.note(decoded.conflicts, decoded.duplicated)
                    text = b",".join(piece.documents)
                    documents += map(self._without_hidden, plain_documents(text))
            if not strict.undecided:
                self._log_findings()
                return documents
            hints = hints.with_text(strict.undecided)

    def _without_hidden(self, document: dict[str, Any]) -> dict[str, Any]:
        for name in self._names_hidden():
            document.pop(name, None)
        return document

    def reader(self) -> pa.RecordBatchReader:
        """Read as a stream of record batches, in memory that does not grow with the data.

        The schema is the one of `find`, else that of the first batch, which is small so that it
        comes early: where the first documents do not show every field, give `find` a schema. Drop
        the reader to end the request before the last document; its `close()` is pyarrow's, and
        ends nothing.

        Raises:
            SchemaDrift: while reading, when a later document does not fit the schema; `to_arrow`,
                `to_pandas` and `to_parquet` take such documents.
            ReadInterrupted, MalformedResponse, SchemaConflict, ConnectomeError: as `to_arrow`.
        """
        batches = self._streamed()
        first = next(batches, None)
        if first is None:
            return pa.RecordBatchReader.from_batches(self._schema(), [])
        return pa.RecordBatchReader.from_batches(first.schema, of_one_schema(first, batches))

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Iterate over the batches of `reader()`."""
        return iter(self.reader())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = self.reader()
        check_c_names(reader.schema)
        return reader.__arrow_c_stream__(requested_schema)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        row_group_bytes: int = GROUP_BYTES,
        **options: Any,
    ) -> ReadReport:
        """Read into a Parquet file, batch by batch; always succeeds on legal documents.

        The file appears under its name when it is complete, and not before.

        Args:
            path: the file; one that is there is replaced.
            row_group_bytes: how large the file's row groups are, in bytes of Arrow; in the file
                they are smaller. Memory holds about three of them beside what each read takes.
            options: for `pyarrow.parquet.ParquetWriter`, `compression="zstd"` for one. Unless
                `use_dictionary` is among them, columns have a dictionary if their values repeat.

        Returns:
            The report of the read.

        Raises:
            ConfigurationError: another `row_group_bytes` than a whole number from 1, or options
                that `ParquetWriter` refuses; nothing was sent.
            What `to_arrow` raises.
        """
        if type(row_group_bytes) is not int or row_group_bytes < 1:
            raise ConfigurationError(
                f"row_group_bytes is {row_group_bytes!r}: give a whole number from 1. "
                "Nothing was sent"
            )
        target = FilePath(path)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as parts:
            file = ParquetParts(FilePath(parts), options, row_group_bytes)
            merged = self._gather(file.write, lambda written, schema: written.merge(schema))
            os.replace(merged, target)
        assert self.report is not None  # noqa: S101 - a read has just ended
        return self.report

    def _streamed(self) -> Generator[pa.RecordBatch, None, None]:
        yield from self._decoded(self._hints(), Tally(), again=False)
        self._log_findings()

    def _log_findings(self) -> None:
        """What the values are not as one would think; once, when nothing is read again any more."""
        assert self.report is not None  # noqa: S101 - a read has just ended
        place = f"{self._source.call.verb} of collection {self.collection!r}"
        for finding in (self.report.conflicts_told, self.report.duplicates_told):
            if finding:
                _log.warning("%s", self._source.redacted(f"{place}: {finding}"))

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
        tally = Tally()
        hints = self._hints()
        while True:
            growing = GrowingSchema(self._schema())
            try:
                with closing(self._decoded(hints, tally, again=True)) as batches:
                    taken = take(growing.watch(batches))
            except Undecided as undecided:
                hints = hints.with_text(undecided.paths)
                continue
            conflicts = growing.conflicts
            if not conflicts:
                try:
                    finished = finish(taken, growing.schema)
                except Unmergeable as unmergeable:
                    # An early batch of integers that floats do not hold, and floats came later.
                    conflicts = frozenset(unmergeable.kinds)
                else:
                    self._log_findings()
                    return finished
            hints = hints.with_text(conflicts)

    def _decoded(
        self, hints: Hints, tally: Tally, again: bool
    ) -> Generator[pa.RecordBatch, None, None]:
        if self._fit is None and self._on_conflict == "text":
            decoded: Iterator[Decoded] = self._leniently(hints, tally)
        else:
            strict = Strict(hints, self._names_hidden(), self._fit)
            decoded = (each for _, each in self._checked(strict, tally, again))
        for each in decoded:
            tally.note(each.conflicts, each.duplicated)
            yield each.batch

    def _leniently(self, learned: Hints, tally: Tally) -> Iterator[Decoded]:
        """Decode what comes, whatever it is."""
        hidden = self._names_hidden()

        def decode_piece(piece: bytes) -> Piece:
            text = self._shown(piece)
            return Piece.of(text, decode(text, learned))

        for piece in self._run(decode_piece, Piece.count, Piece.part, tally):
            decoded = piece.decoded
            assert decoded is not None  # noqa: S101 - nothing is refused here
            learned = learned.after(decoded)
            yield without_fields(decoded, hidden)

    def _checked(
        self, strict: Strict, tally: Tally, again: bool
    ) -> Iterator[tuple[Piece, Decoded]]:
        """Decode what comes, and refuse the first document that does not fit.

        Where it is not certain that this is the first, it is `Undecided` if the documents can be
        read again.
        """

        def decode_piece(piece: bytes) -> Piece:
            return strict.decode(self._shown(piece))

        with closing(self._run(decode_piece, Piece.count, Piece.part, tally)) as pieces:
            for piece in pieces:
                try:
                    decoded = strict.check(piece)
                except Misfit as error:
                    misfit = error
                else:
                    yield piece, decoded
                    continue
                if again and strict.undecided:
                    raise Undecided(strict.undecided)
                raise self._conflict(misfit, piece, tally.progress.rows - piece.rows)

    def _hints(self) -> Hints:
        return Hints() if self._fit is None else self._fit.hints()

    def _schema(self) -> pa.Schema:
        return pa.schema([]) if self._fit is None else self._fit.schema

    def _conflict(self, misfit: Misfit, piece: Piece, rows_before: int) -> SchemaConflict:
        place = f"{self._source.call.verb} of collection {self.collection!r}: "
        document = None
        if self._source.in_order:
            document = rows_before + misfit.row
            place += f"document {document} (counted from 0), "
        key = shown(piece.documents[misfit.row], [ID])
        place += f"{told(key)}: " if key else ""
        advice = (
            "leave on_conflict unset to read such a field as text"
            if self._fit is None
            else "change the type, leave the field out with project, or leave schema unset"
        )
        return SchemaConflict(
            self._source.redacted(f"{place}{misfit}; {advice}"),
            field=show_path(misfit.path),
            document=document,
            id=self._source.redacted_key(key).get(ID),
        )

    def _names_hidden(self) -> frozenset[str]:
        names = {path[0] for path in self._hidden() if len(path) == 1}
        return frozenset(names if self._show_bookkeeping else names | {self._bookkeeping})

    def _nested_hidden(self) -> list[Path]:
        return [path for path in self._hidden() if len(path) > 1]

    def _shown(self, piece: bytes) -> bytes:
        """A piece without the fields that are hidden inside others."""
        nested = self._nested_hidden()
        return without(piece, nested) if nested else piece

    def _hidden(self) -> frozenset[Path]:
        paging = self._source.paging
        return frozenset() if paging is None else paging.hidden

    def _run(
        self,
        decode_piece: Callable[[bytes], T],
        count: Callable[[T], int],
        part: Callable[[T, int, int | None], T],
        tally: Tally,
    ) -> Generator[T, None, None]:
        """Read to the end and give what the pieces decode to; the report stands there."""
        yield from self._source.run(decode_piece, count, part, tally)
        self.report = tally.report(self.collection, self._source.strategy)


def _table(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
