"""Runs the comparisons and prints them as a Markdown table; the numbers stay in a JSON file.

Each run has a fresh interpreter, the package and the alternative take turns, and the table shows
medians: the machine is shared. Ends with an error when a side fails or when the two did not move
the same documents, never for being slow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks import local_server
from benchmarks.data import documents_file, frame_file
from benchmarks.report import Comparison, Run, machine, record, table
from benchmarks.sides import ALL, FEW, MIXED

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = 200_000  # 46 MB of JSON
QUICK_DOCUMENTS = 20_000
FEW_DOCUMENTS = 100  # what a side handles before it is measured

LOCAL_SERVER = "local server"  # its rows have targets and no package on the other side
LOCAL_DOCUMENTS = 100_000  # what its targets are for

# One run of the slowest side takes seconds; a side that takes this long hangs.
RUN_SECONDS = 900


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        product: a side.
        alternative: the side that it is compared with.
        takes_frame: whether both are handed a DataFrame.
        collection: what the product reads.
        beside: what the alternative is called in the table.
    """

    product: str
    alternative: str
    takes_frame: bool = False
    collection: str = ALL
    beside: str = "by hand"

    @property
    def same(self) -> bool:
        """Whether both move the same documents."""
        return self.collection == ALL


ROWS = {
    "read: batches": Row("batches", "read by hand"),
    "read: to_arrow": Row("arrow", "read by hand"),
    "read: to_pandas": Row("pandas", "read by hand"),
    "read: to_parquet": Row("parquet", "read by hand"),
    "read: mixed field, batches": Row("batches", "batches", collection=MIXED, beside="not mixed"),
    "read: beside the parser": Row("batches", "pyarrow in memory", beside="pyarrow, 2 threads"),
    "append": Row("append", "append by hand", takes_frame=True),
}


class BenchmarkFailed(Exception):
    """A side failed, or the sides did not do the same."""


def _environment() -> dict[str, str]:
    # A proxy does not know this machine's loopback.
    return {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFailed(f"python -m {' '.join(command)} ended with {done.returncode}")
    return done.stdout


@contextmanager
def replaying(folder: Path, count: int) -> Iterator[str]:
    """Start the server that replays what `benchmarks.data` wrote; yield its address."""
    bodies = {
        FEW: documents_file(folder, FEW_DOCUMENTS),
        ALL: documents_file(folder, count),
        MIXED: documents_file(folder, count, mixed=True),
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.replay"),
            *(f"{name}={path}" for name, path in bodies.items()),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # closes its standard input at the end, and waits
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise BenchmarkFailed("the replaying server did not start")
        yield address


def _run(side: str, address: str, frame: str, collection: str, *, prove: bool) -> Run:
    told = _output("benchmarks.sides", side, address, frame, collection, "prove" if prove else "")
    return Run(**json.loads(told))


def _compare(name: str, address: str, folder: Path, count: int, repeat: int) -> Comparison:
    row = ROWS[name]
    frame = str(frame_file(folder, count)) if row.takes_frame else ""
    product: list[Run] = []
    alternative: list[Run] = []
    for turn in range(repeat):
        print(f"{name}: {turn + 1} of {repeat}", file=sys.stderr)
        product.append(_run(row.product, address, frame, row.collection, prove=turn == 0))
        alternative.append(_run(row.alternative, address, frame, ALL, prove=turn == 0))
    check_same(name, count, product, alternative, documents=row.same)
    size = documents_file(folder, count).stat().st_size
    return Comparison(name, size, product, alternative, row.beside)


def check_same(
    name: str,
    count: int,
    product: Sequence[Run],
    alternative: Sequence[Run],
    *,
    documents: bool = True,
) -> None:
    """Refuse a comparison of sides that did not do the same.

    Raises:
        BenchmarkFailed: rows are missing, or the documents differ.
    """
    for run in (*product, *alternative):
        if run.rows != count:
            raise BenchmarkFailed(f"{name}: {run.rows} rows of {count}")
    if documents and product[0].digest != alternative[0].digest:
        raise BenchmarkFailed(f"{name}: the two sides moved different documents")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        metavar="ROW",
        help=f"one of {', '.join((*ROWS, LOCAL_SERVER))}, or its start",
    )
    parser.add_argument("--repeat", type=int, help="runs of each side (5, or 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_DOCUMENTS:,} documents")
    parser.add_argument("--documents", type=int, help=f"how many ({DOCUMENTS:,})")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "artefacts", help="for documents and numbers"
    )
    options = parser.parse_args(arguments)
    if options.repeat is None:
        options.repeat = 2 if options.quick else 5
    if options.documents is None:
        options.documents = QUICK_DOCUMENTS if options.quick else DOCUMENTS
    wanted = options.only or [""]
    options.rows = [name for name in ROWS if any(name.startswith(start) for start in wanted)]
    options.local_server = any(LOCAL_SERVER.startswith(start) for start in wanted)
    if not (options.rows or options.local_server) or options.repeat < 1 or options.documents < 1:
        parser.error("nothing to run: see --help for the rows; numbers count from 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for.

    Raises:
        BenchmarkFailed: a side failed, or the sides did not do the same.
    """
    options = _options(arguments)
    before = machine()
    comparisons = _comparisons(options) if options.rows else []
    speeds = _local_server(options) if options.local_server else []
    kept = options.folder / "bench.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    numbers = {**record(comparisons, before), "local_server": [asdict(speed) for speed in speeds]}
    kept.write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    print(
        f"Medians of {options.repeat}; Python {before['python']},"
        f" {before['processors']} processors, load {before['load_average']:.1f} at the start\n"
    )
    if comparisons:
        print(
            f"{options.documents:,} documents, {comparisons[0].bytes / 1e6:.1f} MB of JSON,"
            f" each run in a fresh process:\n\n{table(comparisons)}\n"
        )
    if speeds:
        print(
            f"{min(options.documents, LOCAL_DOCUMENTS):,} documents in a server of their own:"
            f"\n\n{local_server.table(speeds)}\n"
        )
    print(f"All numbers: {kept}")


def _comparisons(options: argparse.Namespace) -> list[Comparison]:
    documents = options.folder.resolve() / "bench"
    for count in (FEW_DOCUMENTS, options.documents):
        _output("benchmarks.data", str(documents), str(count))
    with replaying(documents, options.documents) as address:
        return [
            _compare(name, address, documents, options.documents, options.repeat)
            for name in options.rows
        ]


def _local_server(options: argparse.Namespace) -> list[local_server.Speed]:
    print(LOCAL_SERVER, file=sys.stderr)
    count = min(options.documents, LOCAL_DOCUMENTS)
    told = _output("benchmarks.local_server", str(count), str(options.repeat))
    return [local_server.Speed(**speed) for speed in json.loads(told)]


if __name__ == "__main__":
    try:
        main()
    except BenchmarkFailed as failure:
        sys.exit(f"benchmark failed: {failure}")
