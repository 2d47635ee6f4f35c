"""Runs the comparisons and prints them as Markdown tables; the numbers stay in a JSON file.

Each run has a fresh interpreter, all sides take turns, and the tables show medians: the machine is
shared. Ends with an error when a side fails or when the two of a row did not move the same
documents, never for being slow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks import local_server
from benchmarks.data import FLIGHTS, FRAMED, LARGE, body_file, flights_are_real, frame_file
from benchmarks.report import (
    Comparison,
    Measured,
    Run,
    machine,
    record,
    table,
    targets_table,
)
from benchmarks.rows import (
    ROWS,
    Body,
    Subject,
    bodies,
    dlt_python,
    held,
    missing,
    needed,
    subjects,
    times,
)
from benchmarks.sides import SIDES

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = 200_000  # 46 MB of JSON
QUICK_DOCUMENTS = 20_000

LOCAL_SERVER = "local server"  # its rows are measured otherwise, beside other servers
LOCAL_DOCUMENTS = 100_000  # what its targets are for

# One run of the slowest side takes a minute; a side that takes this long hangs.
RUN_SECONDS = 900


class BenchmarkFailed(Exception):
    """A side failed, or the sides did not do the same."""


def _environment() -> dict[str, str]:
    # A proxy does not know this machine's loopback.
    return {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _output(*command: str, python: str = sys.executable) -> str:
    done = subprocess.run(
        [python, "-m", *command],
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
def replaying(files: Mapping[str, Path]) -> Iterator[str]:
    """Start the server that replays the bodies in these files, by collection; yield its address."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.replay"),
            *(f"{name}={path}" for name, path in files.items()),
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


class Bench:
    """Measures subjects over what stands in a folder.

    Args:
        folder: for the documents, and for the environment that has dlt.
        count: documents of the usual collection.
        repeat: runs of each side; fewer of what takes long.
    """

    def __init__(self, folder: Path, count: int, repeat: int) -> None:
        self._documents = folder.resolve() / "bench"
        self._dlt = dlt_python(folder.resolve())
        self._repeat = repeat
        self._bodies = bodies(count)

    def comparisons(self, names: Sequence[str]) -> list[Comparison]:
        """Measure what some rows need, and compare."""
        wanted = subjects(list(names))
        files = self._prepared(needed(wanted))
        absent = {
            subject: reason
            for subject in wanted
            if (reason := missing(subject, files[held(subject)].stat().st_size, self._dlt))
        }
        with replaying(files) as address:
            measured = self._measured([each for each in wanted if each not in absent], address)
        return [self._compared(name, measured, absent, files) for name in names]

    def _prepared(self, names: set[str]) -> dict[str, Path]:
        wanted = {name: body for name, body in self._bodies.items() if name in names}
        for body in wanted.values():  # each in a process of its own: this one stays small
            _output("benchmarks.data", str(self._documents), f"{body.shape}={body.documents}")
        return {name: body_file(self._documents, *body) for name, body in wanted.items()}

    def _measured(self, wanted: list[Subject], address: str) -> dict[Subject, list[Run]]:
        measured: dict[Subject, list[Run]] = {subject: [] for subject in wanted}
        for turn in range(self._repeat):
            for subject in wanted:
                if turn < times(subject, self._repeat):
                    print(f"{turn + 1}/{self._repeat} {', '.join(subject)}", file=sys.stderr)
                    measured[subject].append(self._run(subject, address, first=turn == 0))
        return measured

    def _run(self, subject: Subject, address: str, *, first: bool) -> Run:
        body = self._bodies[held(subject)]
        frame = ""
        if SIDES[subject.side].rows is not None:
            assert body.shape in FRAMED
            frame = str(frame_file(self._documents, *body))
        # What is large is proved where it is not: its documents as objects fill the memory.
        prove = "prove" if first and body.shape != LARGE else ""
        python = str(self._dlt) if subject.side == "dlt" else sys.executable
        told = _output("benchmarks.sides", *subject, frame, prove, address, python=python)
        run = Run(**json.loads(told))
        check_rows(subject, run, body)
        return run

    def _compared(
        self,
        name: str,
        measured: Mapping[Subject, list[Run]],
        absent: Mapping[Subject, str],
        files: Mapping[str, Path],
    ) -> Comparison:
        def side(subject: Subject | None) -> Measured | None:
            if subject is None or subject in absent:
                return None
            body = held(subject)
            size = files[body].stat().st_size / self._bodies[body].documents
            return Measured(measured[subject], size)

        row = ROWS[name]
        product, alternative = side(row.product), side(row.alternative)
        assert product is not None
        if row.same and alternative is not None:
            check_same(name, product.runs, alternative.runs)
        why = absent.get(row.alternative, "") if row.alternative is not None else ""
        return Comparison(name, product, alternative, row.beside, row.targets, why)


def rows_of(subject: Subject, body: Body) -> int:
    """How many documents a subject moves: a write may take the first of them alone."""
    return min(body.documents, SIDES[subject.side].rows or body.documents)


def check_rows(subject: Subject, run: Run, body: Body) -> None:
    """Refuse a run that did not do all, or more.

    Raises:
        BenchmarkFailed: rows are missing, or others were sent than had to be.
    """
    expected, written = rows_of(subject, body), SIDES[subject.side].written
    if run.rows != expected:
        raise BenchmarkFailed(f"{', '.join(subject)}: {run.rows} rows of {expected}")
    if written is not None and run.written != written(expected):
        raise BenchmarkFailed(
            f"{', '.join(subject)}: {run.written} rows were sent, not {written(expected)}"
        )


def check_same(name: str, product: Sequence[Run], alternative: Sequence[Run]) -> None:
    """Refuse a comparison of sides that did not do the same.

    Raises:
        BenchmarkFailed: the documents differ.
    """
    if product[0].digest is None or product[0].digest != alternative[0].digest:
        raise BenchmarkFailed(f"{name}: the two sides moved different documents")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    rows = "; ".join((*ROWS, LOCAL_SERVER)).replace("%", "%%")  # argparse fills in names
    parser.add_argument(
        "--only", action="append", metavar="ROW", help=f"one of {rows}; or its start"
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
    bench = Bench(options.folder, options.documents, options.repeat)
    comparisons = bench.comparisons(options.rows) if options.rows else []
    speeds = _local_server(options) if options.local_server else []
    kept = options.folder / "bench.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    numbers = {**record(comparisons, before), "local_server": [asdict(speed) for speed in speeds]}
    kept.write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    print(
        f"Medians of {options.repeat}, of fewer where a run takes long; Python {before['python']},"
        f" {before['processors']} processors, load {before['load_average']:.1f} at the start\n"
    )
    if comparisons:
        print(f"{_described(comparisons, options)}\n\n{table(comparisons)}\n")
        print(f"{targets_table(comparisons)}\n")
    if speeds:
        print(
            f"{min(options.documents, LOCAL_DOCUMENTS):,} documents in a server of their own:"
            f"\n\n{local_server.table(speeds)}\n"
        )
    print(f"All numbers: {kept}")


def _described(comparisons: Sequence[Comparison], options: argparse.Namespace) -> str:
    size = comparisons[0].product.row_bytes * options.documents / 1e6
    told = f"{options.documents:,} documents, {size:.1f} MB of JSON, each run in a fresh process."
    if any(FLIGHTS in each.name for each in comparisons):
        told += f" The flights are {'real' if flights_are_real() else 'made up'}."
    runs = [run for each in comparisons for run in each.product.runs]
    guarantees = sorted({run.guarantee for run in runs if run.guarantee})
    if guarantees:
        told += f" Writes of the package reached: {', '.join(guarantees)}."
    return told


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
