"""The rows of the table: what is compared with what, and what should be reached.

Knows which documents a row needs, not how they are made, moved or measured.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks import data
from benchmarks.data import DOCUMENTS, FLIGHTS, KEYED, LARGE, MIXED, PLAIN
from benchmarks.replay import SLOW
from benchmarks.report import (
    GROWTH,
    GROWTH_OVER_START,
    OVER_START,
    REQUESTS,
    SENT,
    SPEED,
    Target,
)
from benchmarks.sides import FEW, SIDES
from benchmarks.writing import SYNC_ROWS

FEW_DOCUMENTS = 100
SMALL_DOCUMENTS = 9_000  # 2 MB

# The first of the documents: what is read from a slow server with little to say.
SMALL = "small"

# By hand a read holds 7.8 times the bytes of its body, measured on 464 MB.
HELD_BY_HAND = 10

# Of what takes long, fewer runs than of the others.
LARGE_RUNS = 3
SLOWEST_RUNS = 1


class Subject(NamedTuple):
    """What is measured: a side, and what it reads or writes.

    Attributes:
        side: its name.
        collection: of the replaying server; of a write, the shape of its frame.
    """

    side: str
    collection: str = DOCUMENTS


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        product: what the package does.
        alternative: what it is compared with; None where it has a target of its own alone.
        targets: what should be reached.
        beside: what the alternative is called in the table.
        same: whether both move the same documents.
    """

    product: Subject
    alternative: Subject | None
    targets: tuple[Target, ...] = ()
    beside: str = "by hand"
    same: bool = True


def _by_hand(collection: str) -> Subject:
    return Subject("read by hand", collection)


MEMORY = Target(OVER_START, 64)
BATCHES = (Target(SPEED, 10), MEMORY)
PANDAS = (Target(SPEED, 5),)
PARQUET = (Target(SPEED, 7), MEMORY)
FLAT = (Target(GROWTH, 10), Target(GROWTH_OVER_START, 10))
PARSER = (Target(SPEED, 0.75),)
APPEND = (Target(SPEED, 4),)


def _reads(name: str, collection: str) -> dict[str, Row]:
    sides = {"batches": BATCHES, "to_arrow": (), "to_pandas": PANDAS, "to_parquet": PARQUET}
    return {
        f"read: {name}{side}": Row(
            Subject(side.removeprefix("to_"), collection), _by_hand(collection), targets
        )
        for side, targets in sides.items()
    }


def _first_batch(collection: str) -> Row:
    return Row(Subject("first batch", f"{SLOW}{collection}"), None, (Target(SENT, 10),))


def _large(side: str, targets: tuple[Target, ...]) -> dict[str, Row]:
    name, large = f"read: large, {side}", Subject(side.removeprefix("to_"), LARGE)
    return {
        name: Row(large, _by_hand(LARGE), targets, same=False),
        f"{name}, memory": Row(
            large, Subject(large.side), FLAT, f"1/{data.LARGE_TIMES}", same=False
        ),
    }


ROWS = {
    **_reads("", DOCUMENTS),
    **_reads("plain, ", PLAIN),
    **_reads("flights, ", FLIGHTS),
    **_large("batches", BATCHES),
    **_large("to_parquet", PARQUET),
    "read: slow consumer": Row(
        Subject("batches, slowly"), Subject("batches"), (MEMORY, *FLAT), "at once"
    ),
    "read: slow response, first batch": _first_batch(DOCUMENTS),
    "read: slow small response, first batch": _first_batch(SMALL),
    "read: mixed field, batches": Row(
        Subject("batches", MIXED),
        Subject("batches"),
        (Target(SPEED, 0.5),),
        "not mixed",
        same=False,
    ),
    "read: beside the parser": Row(
        Subject("batches"), Subject("pyarrow in memory"), PARSER, "pyarrow, 2 threads"
    ),
    "read: plain, beside the parser": Row(
        Subject("batches", PLAIN), Subject("pyarrow in memory", PLAIN), PARSER, "pyarrow, 2 threads"
    ),
    "read: to_parquet beside dlt": Row(Subject("parquet"), Subject("dlt"), (), "dlt rest_api"),
    "append": Row(Subject("append"), Subject("append by hand"), APPEND),
    "append: plain": Row(Subject("append", PLAIN), Subject("append by hand", PLAIN), APPEND),
    "upsert": Row(Subject("upsert", PLAIN), Subject("upsert by hand", PLAIN), (Target(SPEED, 25),)),
    "sync, 1 % changed": Row(
        Subject("sync", PLAIN),
        Subject("upsert", PLAIN),
        (Target(SPEED, 20), Target(REQUESTS, 3)),
        "upsert of all",
    ),
    "sync, all new": Row(
        Subject("sync, all new", PLAIN),
        Subject("append", PLAIN),
        (Target(SPEED, 1 / 1.5),),
        "append",
    ),
}


class Body(NamedTuple):
    """The documents of a collection: their shape, and how many."""

    shape: str
    documents: int


def bodies(count: int) -> dict[str, Body]:
    """What the collections of the replaying server hold, where the usual one has so many."""
    return {
        FEW: Body(DOCUMENTS, FEW_DOCUMENTS),
        DOCUMENTS: Body(DOCUMENTS, count),
        MIXED: Body(MIXED, count),
        PLAIN: Body(PLAIN, count),
        FLIGHTS: Body(FLIGHTS, min(count, data.FLIGHTS_COUNT)),
        LARGE: Body(LARGE, count * data.LARGE_TIMES),
        KEYED: Body(KEYED, min(count, SYNC_ROWS)),
        SMALL: Body(DOCUMENTS, min(count, SMALL_DOCUMENTS)),
    }


def held(subject: Subject) -> str:
    """The name of the body that a subject reads, or whose frame it writes."""
    return subject.collection.removeprefix(SLOW)


def needed(wanted: list[Subject]) -> set[str]:
    """The names of all bodies that have to be there."""
    beside = {SIDES[subject.side].beside for subject in wanted} - {""}
    return {FEW, *map(held, wanted), *beside}


def subjects(names: list[str]) -> list[Subject]:
    """What has to be measured for some rows, each once, the two of a row near each other."""
    rows = [ROWS[name] for name in names]
    both = [each for row in rows for each in (row.product, row.alternative) if each is not None]
    return list(dict.fromkeys(both))


def times(subject: Subject, repeat: int) -> int:
    """How often a subject is measured where the others are measured so often."""
    if subject == _by_hand(LARGE) or subject.side == "dlt":
        return min(repeat, SLOWEST_RUNS)
    return min(repeat, LARGE_RUNS) if subject.collection == LARGE else repeat


def missing(subject: Subject, size: int, dlt: Path) -> str:
    """Say why a subject cannot be measured here, or nothing.

    Args:
        subject: a side that is compared with.
        size: bytes of the body that it reads.
        dlt: the interpreter that may have dlt.
    """
    if subject == _by_hand(LARGE):
        needed, free = HELD_BY_HAND * size, _free_bytes()
        if free < needed:
            return f"takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free"
    if subject.side == "dlt" and not _has_dlt(dlt):
        return f"no dlt in {dlt.parent.parent.name}/: `make bench` installs it where it can"
    return ""


def _free_bytes() -> int:
    told = Path("/proc/meminfo")
    if told.exists():
        for line in told.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    # Elsewhere what the machine has must do.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@cache
def _has_dlt(python: Path) -> bool:
    command = [str(python), "-c", "import dlt, pyarrow"]
    return python.exists() and subprocess.run(command, check=False).returncode == 0


def dlt_python(folder: Path) -> Path:
    """The interpreter of the environment that has dlt, apart so that it disturbs nothing."""
    return folder / "dlt" / ("Scripts" if os.name == "nt" else "bin") / "python"
