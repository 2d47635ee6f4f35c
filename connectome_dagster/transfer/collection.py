"""The engine without Dagster: a connection to the service and the collections behind it.

The public face of `transfer`; what a read or a write is made of stands in `read` and `write`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from connectome_dagster.api import endpoints as calls
from connectome_dagster.api.client import Client
from connectome_dagster.api.credentials import ENVIRONMENT, Credentials
from connectome_dagster.api.retry import RetryPolicy
from connectome_dagster.errors import ConfigurationError
from connectome_dagster.frames.encoding import DEFAULT_ENCODING, Encoding
from connectome_dagster.frames.fit import ExtraFields, Fit, OnConflict
from connectome_dagster.frames.schema import check_names
from connectome_dagster.transfer import identity, write
from connectome_dagster.transfer import probe as probing
from connectome_dagster.transfer import reconcile as reconciling
from connectome_dagster.transfer import replace as replacing
from connectome_dagster.transfer import sync as syncing
from connectome_dagster.transfer import upsert as upserting
from connectome_dagster.transfer.fetch import Source
from connectome_dagster.transfer.findings import ProbeReport
from connectome_dagster.transfer.marks import BOOKKEEPING, Marks
from connectome_dagster.transfer.read import Documents
from connectome_dagster.transfer.report import WriteReport
from connectome_dagster.transfer.rows import Frame
from connectome_dagster.transfer.search import PAGE_ROWS, Search, Strategy, paging
from connectome_dagster.transfer.target import Idempotency, Target, Verify

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_BASE_URL = "https://app.connectomesystem.com"  # F1
BASE_URL_VARIABLE = "CONNECTOME_BASE_URL"

OnReject = Literal["fail", "skip"]


class Connectome:
    """A connection to the service; use it in a `with` block, or close it.

    Args:
        base_url: where the service is; None takes `CONNECTOME_BASE_URL` from the environment, and
            `https://app.connectomesystem.com` (F1) where that is not set.
        read_credential: serves reads (F2); None takes `CONNECTOME_READ_CREDENTIAL` from the
            environment. May be overridden for a collection.
        write_credential: serves writes, updates and deletes (F2); None takes
            `CONNECTOME_WRITE_CREDENTIAL` from the environment. May be overridden as well.
        concurrency: requests in flight at a time of one write, at most. There are fewer while more
            bring nothing, and half as many each time the service pushes back: 429, 503, or no
            answer in time (U8). When it asks one to wait, all wait.
        batch_rows: documents in one batch at most.
        batch_bytes: bytes of one batch at most; a larger document travels alone.
        page_rows: documents at most that a read in pages asks for at a time; fewer where they are
            large.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes of an answer.
        max_attempts: how often a request is sent at most, where repeating it is harmless; and a
            row of unknown outcome, each time after it was read back as absent.
        response_path: where a response holds its documents if it is no bare array, `"data"` for
            one; None finds them (U1).
        no_match_status: the status of an update that found nothing (U9).
        idempotency: how a row is known that was written already. `"field"`: by a note in each
            document that `append` and `replace` insert. `"id"`: by the document's `_id` as well,
            which takes a service that keeps the `_id` it is given and refuses a second one (U3;
            `connectome probe` tells). `"none"`: not at all; documents are written as they are.
        verify: when it is looked whether what was written is there: where the outcome is
            `"unknown"`, `"always"` (U7, U11), or `"never"`.
        settle_seconds: how long a read may not see yet what was acknowledged (U13): so long it is
            looked for before it counts as absent.
        bookkeeping: name of the field that holds the note; readers hide it.
        compress_requests: whether larger bodies are sent as gzip, for services that take it (U12).

    Raises:
        ConfigurationError: a setting cannot work.

    Example:
        >>> with Connectome(read_credential="r", base_url="http://127.0.0.1:8787") as connectome:
        ...     connectome.collection("movies")
        <Collection 'movies' at http://127.0.0.1:8787>
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        read_credential: str | None = None,
        write_credential: str | None = None,
        concurrency: int = 8,
        batch_rows: int = 1000,
        batch_bytes: int = 1 << 20,
        page_rows: int = PAGE_ROWS,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        max_attempts: int = 5,
        response_path: str | None = None,
        no_match_status: int = 404,
        idempotency: Idempotency = "field",
        verify: Verify = "unknown",
        settle_seconds: float = 1.0,
        bookkeeping: str = BOOKKEEPING,
        compress_requests: bool = False,
    ) -> None:
        for name, value in (
            ("concurrency", concurrency),
            ("batch_rows", batch_rows),
            ("batch_bytes", batch_bytes),
            ("page_rows", page_rows),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} is {value!r}: give a whole number from 1")
        self._credentials = Credentials(
            _given(read_credential, ENVIRONMENT["read"]),
            _given(write_credential, ENVIRONMENT["write"]),
        )
        self.base_url = _given(base_url, BASE_URL_VARIABLE) or DEFAULT_BASE_URL
        self._client = Client(
            self.base_url,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retry=RetryPolicy(max_attempts=max_attempts),
            pool_size=concurrency + 1,  # a write in flight, and a read beside it
            no_match_status=no_match_status,
            compress_requests=compress_requests,
        )
        # Of every collection; only credentials and the id are its own.
        self._target = Target(
            self._client,
            Credentials(None, None),
            "",
            concurrency,
            batch_rows,
            batch_bytes,
            response_path,
            page_rows,
            max_attempts,
            idempotency,
            verify,
            settle_seconds,
            Marks(bookkeeping),
        )

    def collection(
        self,
        id: str,  # noqa: A002 - the service's word for it
        *,
        read_credential: str | None = None,
        write_credential: str | None = None,
    ) -> Collection:
        """Return a collection. Nothing is sent, so it is not known yet whether it exists.

        Args:
            id: the collection id, as in the URL of its *Integration > API* page.
            read_credential: in place of the connection's.
            write_credential: in place of the connection's.

        Raises:
            ConfigurationError: an id or credential that cannot be one.
        """
        credentials = Credentials(
            self._credentials.read if read_credential is None else read_credential,
            self._credentials.write if write_credential is None else write_credential,
        )
        calls.check_collection(id)
        target = replace(self._target, credentials=credentials, collection=id)
        return Collection(target, self.base_url)

    def close(self) -> None:
        """Close the connections; a request under way is finished, the next is an error."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connectome {self.base_url}>"


def _given(value: str | None, variable: str) -> str | None:
    return (os.environ.get(variable) or None) if value is None else value


class Collection:
    """One collection of JSON documents; made by `Connectome.collection`.

    Attributes:
        id: the collection id.
        base_url: where the service is.
    """

    def __init__(self, target: Target, base_url: str) -> None:
        self.id = target.collection
        self._target = target
        self.base_url = base_url

    def __repr__(self) -> str:
        return f"<Collection {self.id!r} at {self.base_url}>"

    def find(
        self,
        query: Mapping[str, Any] | None = None,
        *,
        project: Mapping[str, Any] | None = None,
        sort: Mapping[str, int] | None = None,
        limit: int | None = None,
        strategy: Strategy = "auto",
        cursor: str | None = None,
        split: int = 1,
        schema: pa.Schema | None = None,
        extra_fields: ExtraFields = "error",
        on_conflict: OnConflict = "text",
    ) -> Documents:
        """Describe a read (F3); it is sent when a frame is asked of what is returned.

        By default the documents come as one stream, in the order of `_id` or of `sort`, ties broken
        by `_id`. Where the connection breaks, the read goes on from the last document; where the
        response ends well, the service is asked whether that was the last one, so that a cap on
        the documents of one response (U5) costs requests and never documents. Every document that
        is there during the whole read, and whose cursor does not change, is read once;
        `docs/reading.md` says what holds for others.

        Args:
            query: a MongoDB filter; None finds everything. Datetimes with a zone become ISO
                instants, as this package writes them.
            project: fields to include (1) or exclude (0).
            sort: fields and 1 (ascending) or -1 (descending), the first field first.
            limit: documents at most, from 1; None for no limit.
            strategy: `"auto"`, as above. `"pages"` asks for pages from the start, each from the
                last document of the one before: for services that cannot answer for a whole
                collection at once. `"stream"` sends one request, in no order unless `sort` names
                one; a break is an error, and that nothing is missing is not proved.
            cursor: the field to go on by; None takes the one of `sort`, or `_id`. Needed where
                the service does not find the `_id` that it shows: then name a field that every
                document has, and of which no two have the same value.
            split: how many readers read disjoint ranges of the cursor at a time, at most the
                connection's `concurrency`. The documents are the same, in no order; what is in
                no range is asked for at last.
            schema: names and types of the frame; a field that a document lacks is null. Text is
                read as what this package writes of decimals, dates, times and binary, integers
                as milliseconds where a timestamp is asked for. None takes what documents show.
            extra_fields: `"error"`, or `"drop"` to leave out fields that `schema` does not have.
            on_conflict: `"text"` reads a field whose values have several types as text;
                `"error"` raises `SchemaConflict`, with its types and the first such document.
                With `schema` each value has to fit its type, and this says nothing more.

        Returns:
            Documents, lazily. `_id` is among the fields unless `project` excludes it. Their
            `report.proved` tells whether the end was proved; it cannot be where documents show no
            `_id`, where the cursor holds arrays, or where the service compares it in no way. Then
            a break of the connection is an error as well.

        Raises:
            ConfigurationError: no read credential, something that JSON cannot say, or settings
                that contradict each other.
            SchemaConflict: two fields of `schema` have one name.

        Example:
            >>> docs = movies.find({"amount": {"$gte": 30}}, limit=10)  # doctest: +SKIP
            >>> docs.to_pandas()  # doctest: +SKIP
        """
        search = Search(self.id, {} if query is None else query, project, sort, limit)
        search.call()  # tells what is wrong with it, as the caller wrote it
        most = self._target.concurrency
        if isinstance(split, bool) or not isinstance(split, int) or not 1 <= split <= most:
            raise ConfigurationError(
                f"split is {split!r}: give a whole number from 1 to the concurrency, {most}"
            )
        how = paging(search, strategy, cursor, self._target.page_rows, split)
        call = how.search.call()
        self._target.credentials.for_("read", call.verb, self.id)
        fit = _fit(schema, extra_fields, on_conflict)
        return Documents(
            Source(
                self._target.client,
                self._target.credentials,
                call,
                how,
                self._target.response_path,
            ),
            show_bookkeeping=any(
                name.partition(".")[0] == self._target.marks.field and bool(shown)
                for name, shown in (project or {}).items()
            ),
            bookkeeping=self._target.marks.field,
            fit=fit,
            on_conflict=on_conflict,
        )

    def append(
        self,
        frame: Frame,
        *,
        load: str | None = None,
        key: Sequence[str] | None = None,
        on_reject: OnReject = "fail",
        encoding: Encoding = DEFAULT_ENCODING,
    ) -> WriteReport:
        """Insert every row of a frame (F7), in batches, several in flight.

        With `load`, running it again writes nothing twice: rows that are there are not sent. A
        batch whose outcome is unknown is looked for, and what is missing is sent again. The order
        in which batches land is not promised.

        Args:
            frame: a pandas DataFrame (its index is not kept, but named levels are), a pyarrow
                Table, RecordBatch or RecordBatchReader, anything that speaks
                `__arrow_c_stream__`, or an iterable of those or of dicts. It is read as it is
                sent, so it may be larger than memory; with `load`, 8 bytes a row are remembered,
                and 8 more for each row that says the same as one before.
            load: what is written, in words that are the same when it is written again, such as
                `"2026-11-23"`. None is a load of its own each time: running it again inserts again.
            key: the columns that make a row what it is: a row with other values in the others is
                the same row, and is not sent where it is there. None for all columns. The order of
                the columns never matters; that a number is 1 or 1.0 does.
            on_reject: rows that the service refuses by themselves. `"fail"` writes all others, and
                raises; `"skip"` tells them in the report alone.
            encoding: the forms of nulls, timestamps, decimals and binary.

        Returns:
            The report; `inserted` counts what this run has inserted, `unchanged` rows of the load
            that were there.

        Raises:
            OutcomeUnknown: the fate of a batch could not be found out. With `load`, run it again;
                else look before.
            RowsRejected: the service refuses rows; all others are written.
            EncodeError: a value that JSON cannot say; what stood in earlier batches may be sent.
            ConfigurationError: no write credential, or no read credential with `load`.
            ConnectomeError: the service refused, or could not be reached.

        Example:
            >>> movies.append(frame, load="2026-11-23")  # doctest: +SKIP
        """
        _check_on_reject(on_reject)
        return write.append(
            self._target, frame, load=load, key=key, on_reject=on_reject, encoding=encoding
        )

    def upsert(
        self,
        frame: Frame,
        on: Sequence[str],
        *,
        on_reject: OnReject = "fail",
        encoding: Encoding = DEFAULT_ENCODING,
    ) -> WriteReport:
        """Update the document with each row's key, or create it (F6).

        One request per row, several in flight, never two for one key. A request whose outcome is
        unknown is read back by its key, and sent again only if it did not land; running it again
        is harmless. Nothing is added to the documents.

        Nothing but a unique index keeps two writers of one key from creating two documents at the
        same moment, and the service may not have one. `sync`, and an upsert with
        `verify="always"`, say `DuplicateKeys` when they find such documents.

        Args:
            frame: as for `append`. All rows are looked at before the first is sent: what can be
                read once alone is kept in a temporary file (in `TMPDIR`) meanwhile, about as large
                as its rows as JSON. 8 bytes a row are remembered, and for moments as many again.
            on: names of the columns that together name one document. Digits in `_id` find
                ObjectIds where documents have those, which takes a read credential.
            on_reject: rows that the service refuses by themselves. `"fail"` writes all others, and
                raises; `"skip"` tells them in the report alone.
            encoding: the forms of nulls, timestamps, decimals and binary, of the key as well.

        Returns:
            The report; the service does not tell which rows were inserted and which updated.

        Raises:
            DuplicateKeys: two rows have one key; nothing was sent. Or two documents have.
            EncodeError: a key that is null or NaN, or a value that JSON cannot say; nothing was
                sent.
            ConfigurationError: a column is missing or has a name that an update takes for a path,
                a key column is a date or an ObjectId in the documents, which text does not find
                (U4), or there is no write credential; nothing was sent.
            OutcomeUnknown: the fate of rows could not be found out: `keys` has theirs.
            RowsRejected: the service refuses rows; all others are written.
            ConnectomeError: the service refused, or could not be reached.

        Example:
            >>> movies.upsert(frame, on=["sku"])  # doctest: +SKIP
        """
        _check_on_reject(on_reject)
        return upserting.upsert(self._target, frame, on, on_reject=on_reject, encoding=encoding)

    def replace(
        self,
        frame: Frame,
        where: Mapping[str, Any],
        *,
        load: str | None = None,
        everything: bool = False,
        empty: Literal["refuse", "delete"] = "refuse",
        on_reject: OnReject = "fail",
        encoding: Encoding = DEFAULT_ENCODING,
    ) -> WriteReport:
        """Replace what a query finds by the rows of a frame.

        Inserts the rows first, reads back that all of them are there, and only then deletes what
        was there before: a reader may see both for a moment, never neither. Rows that are there
        already are neither sent nor deleted, so that running it again with the same rows only
        reads; documents that were changed by hand since are replaced. What is inserted carries a
        note, which readers hide. After a failure, running it again repairs everything. Of two
        replaces of one `where` at a time, one wins; the other may say that it was overtaken.

        Args:
            frame: as for `append`, without `_id`: the documents get new ones. If `where` does not
                find all of the rows, they are removed again and nothing is replaced.
            where: a MongoDB filter for what is replaced.
            load: as for `append`; None takes `where` itself: two replaces of it are the same.
            everything: must be True for an empty `where`, which finds the whole collection.
            empty: `"delete"` lets a frame without rows delete what `where` finds.
            on_reject: as for `append`; in the case of `"fail"`, nothing is deleted.
            encoding: as for `append`.

        Returns:
            The report; the service does not tell how many documents were deleted.

        Raises:
            ConfigurationError: an empty `where` without `everything=True`, an empty frame, rows
                with `_id` or outside `where`, or a missing read or write credential.
            OutcomeUnknown: the fate of a batch is not known, or not all rows were read back.
                Nothing was deleted.
            RowsRejected: the service refuses rows. Nothing was deleted.
            ConnectomeError: the service refused, or could not be reached.

        Example:
            >>> movies.replace(frame, where={"day": "2026-11-23"})  # doctest: +SKIP
        """
        if empty not in ("refuse", "delete"):
            raise ConfigurationError(f"empty is {empty!r}: give 'refuse' or 'delete'")
        _check_on_reject(on_reject)
        self._check_everything("replace", "where", where, everything)
        return replacing.replace(
            self._target,
            frame,
            where,
            load=load,
            empty=empty,
            on_reject=on_reject,
            encoding=encoding,
        )

    def sync(
        self,
        frame: Frame,
        on: Sequence[str],
        *,
        where: Mapping[str, Any] | None = None,
        delete_missing: bool = False,
        everything: bool = False,
        load: str | None = None,
        on_reject: OnReject = "fail",
        encoding: Encoding = DEFAULT_ENCODING,
    ) -> WriteReport:
        """Send what differs between a frame and the collection, and nothing else.

        Reads what is there, once; then inserts the rows that have no document, and updates the
        changed fields of documents that say something else, one request each. Its cost follows
        the change, not the data. A document that was edited by hand counts as changed. Null and
        missing are the same, and so are 1 and 1.0, and fields in another order; fields that are
        no column are left alone. Rows are inserted with a note, as by `append`.

        Args:
            frame: as for `append`. A stream is kept in a temporary file while it is compared, in
                about as many bytes as its rows are as JSON. 16 bytes of memory for each row.
            on: names of the columns that together name one document. A single column of integers
                or text bounds what is read.
            where: a MongoDB filter for the part of the collection that the frame is: only that is
                read, and deleted. Give rows within it.
            delete_missing: delete the documents whose key is in no row.
            everything: must be True to delete without `where`.
            load: the load of the rows that are inserted, as for `append`, for `reconcile`; None
                takes `on`: all syncs by the same columns are one load.
            on_reject: as for `append`; refused updates as well.
            encoding: as for `append`.

        Returns:
            The report: `inserted`, `updated`, `unchanged`, `deleted` and `rejected`.

        Raises:
            DuplicateKeys: two rows have one key, or two documents that of one row; nothing was
                sent.
            EncodeError: a key that is null or NaN; nothing was sent. Or a value that JSON cannot
                say.
            ConfigurationError: a column is missing or has a name that an update takes for a path,
                a row or its document lies outside `where`, a credential is missing, or a delete
                would find the whole collection; nothing was sent. Or an update removes the fields
                that it does not name (U6), which is found out with the first one.
            OutcomeUnknown: the fate of rows could not be found out, or it cannot be proved that
                everything was read. Run it again.
            RowsRejected: the service refuses rows; all others are as they should be.
            ConnectomeError: the service refused, or could not be reached.

        Example:
            >>> movies.sync(frame, on=["sku"])  # doctest: +SKIP
        """
        _check_on_reject(on_reject)
        if delete_missing:
            self._check_everything("sync", "where", {} if where is None else where, everything)
        elif everything:
            raise ConfigurationError(
                f"sync in collection {self.id!r}: everything=True says nothing without "
                "delete_missing=True. Nothing was sent"
            )
        return syncing.sync(
            self._target,
            frame,
            on,
            where=where,
            delete_missing=delete_missing,
            load=load,
            on_reject=on_reject,
            encoding=encoding,
        )

    def reconcile(
        self,
        load: str | None = None,
        *,
        load_id: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> WriteReport:
        """Find rows of a load that are there more than once, and leave one document of each.

        That happens where the service applied a request twice, or long after it was read back as
        absent, or where two runs of a load wrote at the same time. Of several copies the latest
        run's first one stays, so that everybody who removes copies removes the same. Running it
        again, and beside a load that is going on, is harmless. Documents of other loads, and those
        without a note, are not touched.

        Args:
            load: the load, in the words that it was written with.
            load_id: in place of `load`, its id, as a report's `load` or an error tells it.
            where: a MongoDB filter for the part of the load that is looked at; None for all.

        Returns:
            The report: `rows` are the documents that were there, `deleted` the surplus among them.

        Raises:
            ConfigurationError: neither `load` nor `load_id`, both, or a missing credential.
            OutcomeUnknown: surplus documents are found again after they were deleted.
            ConnectomeError: the service refused, or could not be reached.

        Example:
            >>> movies.reconcile(load="2026-11-23")  # doctest: +SKIP
        """
        if (load is None) == (load_id is None):
            raise ConfigurationError(
                f"reconcile in collection {self.id!r}: give load, in the words that it was written "
                "with, or load_id, as a report tells it. Nothing was sent"
            )
        chosen = identity.load_id(self.id, load) if load is not None else str(load_id)
        return reconciling.reconcile(self._target, chosen, where=where)

    def probe(self, *, everything: bool = False) -> ProbeReport:
        """Find out what this account's service really does, in a collection that is there for it.

        Writes, reads, updates and deletes some thousand small documents, and bodies of up to 16
        MiB, in about 150 requests, and removes what it wrote, also after an error. Everything that
        the API's page leaves open (U1-U14) is answered by what was seen, with the settings to use.

        Args:
            everything: must be True for a collection that holds documents: all of them are
                removed.

        Returns:
            The report: `findings`, `settings` for `Connectome`, and the `guarantee` of writing
            that is within reach; `left` tells whether documents could not be removed.

        Raises:
            ConfigurationError: the collection holds documents, or a credential is missing.
            OutcomeUnknown, ServiceUnavailable: the service did not answer; run it again.
            ConnectomeError: the service refused, or could not be reached.

        Example:
            >>> scratch.probe().settings  # doctest: +SKIP
            {'idempotency': 'id'}
        """
        return probing.probe(self._target, everything=everything)

    def update(
        self, search: Mapping[str, Any], data: Mapping[str, Any], *, upsert: bool = False
    ) -> WriteReport:
        """Send one update, as the service documents it (F6).

        Args:
            search: a MongoDB filter. Whether one document or all that match are updated is not
                documented (U6).
            data: fields and their new values.
            upsert: create a document if none matches.

        Raises:
            NoMatch: nothing matched, and `upsert` is False.
            OutcomeUnknown: the update may have happened.
            ConnectomeError: the service refused, or could not be reached.
        """
        return write.update(self._target, search, data, upsert=upsert)

    def insert(self, document: Mapping[str, Any]) -> WriteReport:
        """Insert one document.

        Raises:
            OutcomeUnknown: the document may have been inserted; it was not sent again.
            ConnectomeError: the service refused, or could not be reached.
        """
        return write.insert(self._target, document)

    def delete(self, query: Mapping[str, Any], *, everything: bool = False) -> WriteReport:
        """Remove every document that a query finds (F8).

        Args:
            query: a MongoDB filter.
            everything: must be True for an empty query, which finds the whole collection.

        Returns:
            The report; the service does not tell how many documents were removed.

        Raises:
            ConfigurationError: an empty query without `everything=True`.
            ConnectomeError: the service refused, or could not be reached.
        """
        self._check_everything("delete", "query", query, everything)
        return write.delete(self._target, query)

    def _check_everything(
        self, operation: str, name: str, query: Mapping[str, Any], everything: bool
    ) -> None:
        if not isinstance(query, Mapping):
            raise ConfigurationError(
                f"{operation} in collection {self.id!r}: {name} is a {type(query).__name__}; give "
                "a filter as a dict"
            )
        if not query and everything is not True:
            raise ConfigurationError(
                f"{operation} in collection {self.id!r}: an empty {name} finds every document. If "
                "that is meant, pass everything=True. Nothing was sent"
            )
        if query and everything:
            raise ConfigurationError(
                f"{operation} in collection {self.id!r}: everything=True contradicts {name}; pass "
                f"one of them. Nothing was sent"
            )


def _check_on_reject(on_reject: object) -> None:
    if on_reject not in ("fail", "skip"):
        raise ConfigurationError(f"on_reject is {on_reject!r}: give 'fail' or 'skip'")


def _fit(schema: object, extra_fields: object, on_conflict: object) -> Fit | None:
    if extra_fields not in ("error", "drop"):
        raise ConfigurationError(f"extra_fields is {extra_fields!r}: give 'error' or 'drop'")
    if on_conflict not in ("text", "error"):
        raise ConfigurationError(f"on_conflict is {on_conflict!r}: give 'text' or 'error'")
    if schema is None:
        if extra_fields == "drop":
            raise ConfigurationError("extra_fields='drop' says nothing without schema: give one")
        return None
    if not isinstance(schema, pa.Schema):
        raise ConfigurationError(
            f"schema is a {type(schema).__name__}: give a pyarrow.Schema, such as "
            "pa.schema({'sku': pa.int64()}), or the schema of a table"
        )
    check_names(schema.names)
    return Fit(schema, "drop" if extra_fields == "drop" else "error")
