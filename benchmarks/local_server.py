"""The local server's own speed, over HTTP from another process, beside its targets.

Runs `connectome serve` and talks to it with one thin client, so that what is measured is the
server. mongomock and montydb do the same in memory, without HTTP, where they are installed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from statistics import median
from typing import Any

from benchmarks.data import documents

READ, WRITE = "benchmark-read", "benchmark-write"  # made up for a server that lives for minutes
BATCH_ROWS = 1000
PAGE_ROWS = 1000
CONNECTIONS = 4
UPSERTS = 2000
# The others are asked for less: they need milliseconds for what the server does in microseconds.
OTHERS_DOCUMENTS = 20_000
OTHERS_UPSERTS = 20
# A request that takes longer hangs.
REQUEST_SECONDS = 300


@dataclass(frozen=True)
class Speed:
    """One row: what was measured, in its unit, and what it should reach.

    Attributes:
        name: of the row.
        unit: `documents/s`, `upserts/s`, `MB/s` or `ms`.
        runs: every run's value.
        target: what the median should reach: at least, but at most where the unit is `ms`.
        others: the same of others, by name: a value, or why there is none.
    """

    name: str
    unit: str
    runs: Sequence[float]
    target: float
    others: dict[str, float | str]

    @property
    def value(self) -> float:
        return median(self.runs)

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.unit == "ms" else self.value >= self.target


class Client:
    """A connection that asks and reads; nothing is decoded that a row does not look at."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=REQUEST_SECONDS)

    def __call__(self, verb: str, collection: str, body: Any = None, method: str = "POST") -> bytes:
        credential = READ if verb.startswith("read") else WRITE
        text = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, f"/collection/{verb}/{credential}/{collection}", text)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{verb} was answered by {response.status}: {answer[:200]!r}")
        return answer


@contextmanager
def _serving(*collections: str) -> Iterator[str]:
    program = "from connectome_dagster.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--port", "0"]
    for name in collections:
        command += ["--collection", name]
    credentials = {"CONNECTOME_READ_CREDENTIAL": READ, "CONNECTOME_WRITE_CREDENTIAL": WRITE}
    process = subprocess.Popen(
        command, env={**os.environ, **credentials}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = re.search(r"http://(\S+)", process.stdout.readline())
        if address is None:
            raise RuntimeError("the local server did not start")
        yield address[1]
    finally:
        process.terminate()
        process.communicate()


def _seconds(work: Callable[[], Any], repeat: int) -> list[float]:
    runs = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        runs.append(time.perf_counter() - start)
    return runs


def measure(
    count: int, repeat: int, others: Sequence[str] = ("mongomock", "montydb")
) -> list[Speed]:
    """Measure every row.

    Args:
        count: documents of the large collection; the one that is upserted into has a fifth.
        repeat: runs of each row.
        others: packages to compare with, where they are installed.
    """
    made = list(documents(count))
    compared = _Others(made[:OTHERS_DOCUMENTS], others)
    with _serving("large", "small", *(f"written{run}" for run in range(repeat))) as address:
        ask = Client(address)
        bodies = [
            json.dumps(made[at : at + BATCH_ROWS], ensure_ascii=False).encode()
            for at in range(0, count, BATCH_ROWS)
        ]

        def write(collection: str) -> None:
            for body in bodies:
                ask("batchwrite", collection, body)

        targets = iter([f"written{run}" for run in range(repeat)])
        written = _seconds(lambda: write(next(targets)), repeat)
        write("large")
        for body in bodies[: max(1, len(bodies) // 5)]:
            ask("batchwrite", "small", body)
        rows = [
            _rate(
                "filter by an unindexed field",
                count,
                200_000,
                _filter(ask),
                repeat,
                compared.filter(),
            ),
            *_pages(ask, made, repeat),
            _rate(
                f"upsert by an unindexed field, {CONNECTIONS} connections",
                min(UPSERTS, count // 5),
                1_000,
                lambda: _upsert(address, made, min(UPSERTS, count // 5)),
                repeat,
                compared.upsert(),
                unit="upserts/s",
            ),
        ]
        size = len(ask("read", "large", method="GET"))
        streamed = _seconds(lambda: ask("read", "large", method="GET"), repeat)
    rows += [
        Speed("batchwrite", "documents/s", [count / s for s in written], 50_000, compared.insert()),
        Speed("stream a collection", "MB/s", [size / s / 1e6 for s in streamed], 100, {}),
    ]
    return rows


def _rate(
    name: str,
    count: int,
    target: float,
    work: Callable[[], Any],
    repeat: int,
    others: dict[str, float | str],
    unit: str = "documents/s",
) -> Speed:
    work()  # what is built at the first request is not measured
    return Speed(name, unit, [count / s for s in _seconds(work, repeat)], target, others)


def _filter(ask: Client) -> Callable[[], Any]:
    return lambda: ask("readwithquery", "large", {"query": {"sold": {"$gte": 9990}}})


def _pages(ask: Client, made: list[dict[str, Any]], repeat: int) -> Iterator[Speed]:
    last = sorted(document["_id"] for document in made)[len(made) // 2]
    sold, tied = sorted((document["sold"], document["_id"]) for document in made)[len(made) // 2]
    forms: dict[str, tuple[Any, Any]] = {
        "page by _id": ({"_id": {"$gt": last}}, {"_id": 1}),
        "page by a field, ties by _id": (
            {"$or": [{"sold": {"$gt": sold}}, {"sold": sold, "_id": {"$gte": tied}}]},
            {"sold": 1, "_id": 1},
        ),
        "page by $expr": ({"$expr": {"$gt": ["$_id", {"$literal": last}]}}, {"_id": 1}),
    }
    for name, (query, sort) in forms.items():
        asked = {"query": query, "sort": sort, "limit": PAGE_ROWS}
        ask("readwithquery", "large", asked)  # builds the order that later pages walk
        runs = _seconds(lambda asked=asked: ask("readwithquery", "large", asked), repeat)  # type: ignore[misc]  # bound early
        yield Speed(f"{name}, {PAGE_ROWS:,} rows", "ms", [s * 1e3 for s in runs], 20, {})


def _upsert(address: str, made: list[dict[str, Any]], count: int) -> None:
    def some(first: int) -> None:
        ask = Client(address)
        for number in range(first, count, CONNECTIONS):
            body = {
                "search query": {"made": made[number]["made"]},
                "data": {"price": time.perf_counter()},
                "upsert": True,
            }
            ask("updatewithupsert", "small", body)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(some, range(CONNECTIONS)))


class _Others:
    """The same with packages that imitate MongoDB in memory, called without HTTP."""

    def __init__(self, made: list[dict[str, Any]], names: Sequence[str]) -> None:
        self._made = made
        self._collections: dict[str, Any] = {}
        self._inserted: dict[str, float | str] = {}
        for name in names:
            try:
                collection = _collection(name)
            except ImportError:
                self._inserted[name] = "not installed"
                continue
            start = time.perf_counter()
            collection.insert_many([dict(document) for document in made])
            self._inserted[name] = len(made) / (time.perf_counter() - start)
            self._collections[name] = collection

    def insert(self) -> dict[str, float | str]:
        return dict(self._inserted)

    def filter(self) -> dict[str, float | str]:
        return self._each(
            lambda collection: sum(1 for _ in collection.find({"sold": {"$gte": 9990}})),
            len(self._made),
        )

    def upsert(self) -> dict[str, float | str]:
        count = min(OTHERS_UPSERTS, len(self._made))

        def upsert(collection: Any) -> None:
            for document in self._made[:count]:
                collection.update_one(
                    {"made": document["made"]}, {"$set": {"price": 1.5}}, upsert=True
                )

        return self._each(upsert, count)

    def _each(self, work: Callable[[Any], Any], count: int) -> dict[str, float | str]:
        told: dict[str, float | str] = {
            name: why for name, why in self._inserted.items() if isinstance(why, str)
        }
        for name, collection in self._collections.items():
            told[name] = count / _seconds(lambda it=collection: work(it), 1)[0]  # type: ignore[misc]  # bound early
        return told


def _collection(name: str) -> Any:
    # not everybody who runs the benchmarks has them
    package = import_module(name)
    client = package.MongoClient() if name == "mongomock" else package.MontyClient(":memory:")
    return client["benchmark"]["documents"]


def table(speeds: Sequence[Speed]) -> str:
    """Write the rows as a Markdown table."""
    names = sorted({name for speed in speeds for name in speed.others})
    heads = ["the local server", "median", "best", "target", "met", *names]
    lines = [f"| {' | '.join(heads)} |", f"|---|--:|--:|--:|---|{'--:|' * len(names)}"]
    for speed in speeds:
        best = (min if speed.unit == "ms" else max)(speed.runs)
        bound = "under" if speed.unit == "ms" else "over"
        cells = [
            speed.name,
            f"{_shown(speed.value)} {speed.unit}",
            _shown(best),
            f"{bound} {_shown(speed.target)}",
            "yes" if speed.met else "**no**",
            *(_other(speed.others.get(name, "")) for name in names),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _other(value: float | str) -> str:
    return value if isinstance(value, str) else _shown(value)


if __name__ == "__main__":
    speeds = measure(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps([asdict(speed) for speed in speeds]))
