"""One read under way: its requests, one after the other or in several readers, and their cost.

Knows how a response becomes what its pieces decode to and says where a read broke off; what the
pieces decode to, and what comes of that, is the caller's.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from connectome_dagster.api.client import Body, Client
from connectome_dagster.api.credentials import Credentials, redact
from connectome_dagster.api.endpoints import Call
from connectome_dagster.errors import ConnectomeError, MalformedResponse, ReadInterrupted
from connectome_dagster.frames.plain import plain_documents
from connectome_dagster.frames.schema import Path, show_path
from connectome_dagster.frames.split import PIECE_BYTES, Splitter
from connectome_dagster.transfer.cursor import told
from connectome_dagster.transfer.pages import Progress, Take, Walk
from connectome_dagster.transfer.pipeline import Pipeline
from connectome_dagster.transfer.ranges import outside
from connectome_dagster.transfer.readers import side_by_side
from connectome_dagster.transfer.report import ReadReport
from connectome_dagster.transfer.search import Paging, Search, Strategy

T = TypeVar("T")


@dataclass
class Tally:
    """Counts what a read costs, over all the requests that it needed; from several threads."""

    started: float = field(default_factory=time.monotonic)
    progress: Progress = field(default_factory=Progress)
    requests: int = 0
    retries: int = 0
    bytes_received: int = 0
    kinds: dict[Path, dict[str, None]] = field(default_factory=dict)
    duplicates: Counter[Path] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin_again(self) -> None:
        self.progress = Progress()
        self.kinds = {}  # of a field that became text, what was below it counts no longer
        self.duplicates = Counter()

    def note(self, conflicts: Mapping[Path, Iterable[str]], duplicates: Mapping[Path, int]) -> None:
        self.duplicates.update(duplicates)
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
            duplicate_fields={show_path(path): n for path, n in self.duplicates.items()},
            strategy=strategy,
            pages=self.progress.pages,
            resumed=self.progress.resumed,
            proved=self.progress.proved,
        )


@dataclass(frozen=True)
class Source:
    """Where the documents of a read come from.

    Attributes:
        client: sends the requests.
        credentials: what it sends them with.
        call: what is asked.
        paging: how it is read; None sends the call as it is.
        response_path: where a response holds its documents; None finds them (U1).
        piece_bytes: what is decoded at a time.
    """

    client: Client
    credentials: Credentials
    call: Call
    paging: Paging | None = None
    response_path: str | None = None
    piece_bytes: int = PIECE_BYTES

    @property
    def strategy(self) -> Strategy:
        return "stream" if self.paging is None else self.paging.strategy

    @property
    def in_order(self) -> bool:
        """Whether the documents come one reader's after the other."""
        return self.paging is None or self.paging.split == 1

    def redacted(self, text: str) -> str:
        return redact(text, self.credentials.secrets)

    def redacted_key(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """A key for an error, as plain JSON."""
        return dict(json.loads(self.redacted(json.dumps(key))))

    def run(
        self,
        decode_piece: Callable[[bytes], T],
        count: Callable[[T], int],
        part: Callable[[T, int, int | None], T],
        tally: Tally,
    ) -> Iterator[T]:
        """Read to the end and give what the pieces decode to.

        Args:
            decode_piece: decodes the inside of an array of documents, in any thread.
            count: how many documents it decoded.
            part: those from a position on, so many of them or all.
            tally: told what it costs; complete when the read has ended.

        Raises:
            ReadInterrupted, MalformedResponse: saying where.
            ConnectomeError: the service refused or could not be reached.
        """
        trouble: ReadInterrupted | MalformedResponse
        tally.begin_again()

        def fetch(call: Call) -> Generator[tuple[bytes, T], None, None]:
            return self._fetch(call if self.paging else self.call, decode_piece, tally)

        def look(call: Call) -> Generator[bytes, None, None]:
            with closing(self._fetch(call, plain_documents, tally)) as items:
                yield from (piece for piece, _ in items)

        take = Take(fetch, look, count, part)
        paging = self.paging or Paging(Search(self.call.collection), "stream")
        walk = Walk(paging, take, tally.progress)
        running = walk.run() if self.in_order else _in_ranges(walk, take, tally.progress)
        try:
            with closing(running) as decoded:
                yield from decoded
        except (ReadInterrupted, MalformedResponse) as error:
            trouble = error
        else:
            return
        raise self._located(trouble, tally.progress.rows, walk.last_key())

    def _fetch(
        self, call: Call, decode_piece: Callable[[bytes], T], tally: Tally
    ) -> Generator[tuple[bytes, T], None, None]:
        """Send one call and give each piece of its response with what it decodes to."""
        with self.client.stream(call, self.credentials) as body:
            pipeline = Pipeline(Splitter(self.response_path, self.piece_bytes), decode_piece)
            try:
                with closing(pipeline.run(body)) as decoded:
                    for item in decoded:
                        yield pipeline.piece, item
            finally:
                tally.add(body)

    def _located(
        self, trouble: ReadInterrupted | MalformedResponse, rows: int, last_key: Mapping[str, Any]
    ) -> ConnectomeError:
        where: dict[str, Any] = {"verb": self.call.verb, "collection": self.call.collection}
        place = f"{self.call.verb} of collection {self.call.collection!r}"
        text = str(trouble)
        text = self.redacted(text if text.startswith(place) else f"{place}: {text}")
        if isinstance(trouble, MalformedResponse):
            return MalformedResponse(text, **where)
        key = self.redacted_key(last_key)
        arrived = f"{rows} documents had arrived"
        if key:
            arrived += f", the last with {told(key)}: a filter from there on finds the rest"
        return ReadInterrupted(f"{text} ({arrived})", rows=rows, last_key=key, **where)


def _in_ranges(walk: Walk[T], take: Take[T], progress: Progress) -> Generator[T, None, None]:
    """Read ranges of the cursor at a time, and at last whatever is in none of them."""
    paging = walk.paging
    parts = walk.ranges(paging.split)
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
