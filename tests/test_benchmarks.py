"""The benchmarks run, and their sides move the same documents; how fast is not tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks import data, rows
from benchmarks.__main__ import BenchmarkFailed, check_rows, check_same, main, replaying, rows_of
from benchmarks.data import DOCUMENTS, FLIGHTS, KEYED, LARGE, LARGE_TIMES, PLAIN, documents, prepare
from benchmarks.local_server import Speed
from benchmarks.proof import digest
from benchmarks.replay import SLOW, SLOW_PIECES
from benchmarks.report import (
    GROWTH,
    GROWTH_OVER_START,
    OVER_START,
    REQUESTS,
    SENT,
    SPEED,
    Comparison,
    Measured,
    Run,
    Target,
    record,
    table,
    targets_table,
)
from benchmarks.rows import FEW, FEW_DOCUMENTS, ROWS, Body, Subject, bodies, missing, subjects
from benchmarks.sides import SIDES, run_side
from benchmarks.writing import CHANGED_EVERY, KEPT_UPSERTS

COUNT = 2300  # three batches, the last one not full

READS = [name for name, side in SIDES.items() if side.rows is None]
WRITES = [name for name, side in SIDES.items() if side.rows is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    prepare(folder, DOCUMENTS, FEW_DOCUMENTS)
    for shape in (DOCUMENTS, PLAIN, KEYED, FLIGHTS):
        prepare(folder, shape, COUNT)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    files = {
        FEW: data.body_file(folder, DOCUMENTS, FEW_DOCUMENTS),
        DOCUMENTS: data.body_file(folder, DOCUMENTS, COUNT),
        FLIGHTS: data.body_file(folder, FLIGHTS, COUNT),
        KEYED: data.body_file(folder, KEYED, COUNT),
    }
    with replaying(files) as address:
        yield address


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.mark.parametrize("name", READS)
def test_a_side_that_reads_gives_every_field_of_every_document(name: str, address: str) -> None:
    if name == "dlt" and find_spec("dlt") is None:
        pytest.skip("dlt is installed by `make bench`, in an environment of its own")
    told = run_side(name, address, DOCUMENTS, prove=True)

    assert told["rows"] == COUNT
    assert told["digest"] == digest(list(documents(COUNT)))
    assert told["seconds"] > 0
    assert told["peak_bytes"] >= told["baseline_bytes"] > 0


@pytest.mark.parametrize("name", WRITES)
def test_a_side_that_writes_sends_every_field_of_every_row(
    name: str, folder: Path, address: str
) -> None:
    frame = str(data.frame_file(folder, PLAIN, COUNT))

    told = run_side(name, address, PLAIN, frame, prove=True)

    side = SIDES[name]
    made = list(data.plain_documents(KEPT_UPSERTS if side.change else COUNT))
    for number, document in enumerate(made):
        document["sku"] = document.pop("_id")
        if side.change and number % CHANGED_EVERY == 0:
            document["amount"] += 1
    made.sort(key=lambda document: str(document["sku"]))
    assert told["rows"] == min(side.rows or COUNT, COUNT)
    assert told["digest"] == digest(made)


@pytest.mark.parametrize("name", ["batches", "arrow", "pandas", "parquet", "read by hand"])
def test_flights_are_read_as_they_stand_in_the_file(name: str, folder: Path, address: str) -> None:
    told = run_side(name, address, FLIGHTS, prove=True)

    flights = json.loads(data.body_file(folder, FLIGHTS, COUNT).read_bytes())
    assert told["rows"] == len(flights) == COUNT
    assert told["digest"] == digest(flights)


def test_a_run_of_all_rows_proves_what_it_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--quick", "--documents", "2000", "--repeat", "1", "--folder", str(tmp_path)])

    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in told["rows"]] == list(ROWS)
    for row in told["rows"]:
        expected = ROWS[row["name"]]
        assert f"| {row['name']} | package |" in printed
        assert len(row["targets"]) == len(expected.targets)
        assert row["product"][0]["rows"] == _rows(expected.product)
        if row["missing"]:
            assert f"{row['beside']}: {row['missing']}" in printed
        elif expected.alternative is not None:
            (product,), (alternative,) = row["product"], row["alternative"]
            assert alternative["rows"] == _rows(expected.alternative)
            assert product["digest"] == alternative["digest"] or not expected.same
            assert product["digest"] or expected.product.collection == LARGE
    assert {row["name"] for row in told["rows"] if row["missing"]} <= {
        "read: to_parquet beside dlt",
        "read: large, batches",
        "read: large, to_parquet",
    }
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len(told["local_server"]) > 0
    for speed in told["local_server"]:
        assert any(line.startswith(f"| {speed['name']} |") for line in lines)


def _rows(subject: Subject) -> int:
    return rows_of(subject, bodies(2000)[rows.held(subject)])


def test_a_run_of_one_row_measures_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        ["--only", "read: batches", "--repeat", "1", "--documents", "50", "--folder", str(tmp_path)]
    )

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| read")]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| read: batches", "package"],
        ["| read: batches", "by hand"],
        ["| read: batches", "at least 10 x the rows/s of by hand"],
        ["| read: batches", "at most 64 MB over its imports"],
    ]
    (row,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    (package,), (by_hand,) = row["product"], row["alternative"]
    assert package["rows"] == by_hand["rows"] == 50
    assert package["digest"] == by_hand["digest"] == digest(list(documents(50)))
    kept = {file.name for file in (tmp_path / "bench").glob("*.json")}
    assert kept == {"documents-1-50.json", f"documents-1-{FEW_DOCUMENTS}.json"}


def test_the_local_server_is_measured_beside_its_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        ["--only", "local server", "--repeat", "1", "--documents", "50", "--folder", str(tmp_path)]
    )

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    told = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    speeds = [Speed(**speed) for speed in told["local_server"]]
    assert told["rows"] == []
    assert len(lines) == len(speeds) + 2
    assert {speed.unit for speed in speeds} == {"documents/s", "upserts/s", "MB/s", "ms"}
    assert all(value > 0 for speed in speeds for value in speed.runs)


@pytest.mark.parametrize(
    ("unit", "runs", "met"),
    [("ms", [1, 9, 2], True), ("ms", [9, 9, 2], False), ("MB/s", [9, 9, 1], True)],
)
def test_a_target_of_the_local_server_is_a_bound_of_the_median(
    unit: str, runs: list[float], met: bool
) -> None:
    assert Speed("row", unit, runs, 5, {}).met is met


def test_every_row_names_sides_and_documents_that_exist_and_no_side_is_left_out() -> None:
    named = subjects(list(ROWS))

    assert {subject.side for subject in named} == SIDES.keys()
    assert rows.needed(named) == bodies(2000).keys()


def test_the_documents_are_the_same_on_every_machine() -> None:
    assert digest(list(documents(1000))) == "c4819d028cd5f1fbf293459ea93f2120"
    assert digest(list(data.plain_documents(1000))) == "324c04160908334d9a1b5194d7f251c0"
    assert digest(list(data.made_up_flights(1000))) == "f40b545129336307685ca69508ff0008"


def test_a_large_collection_is_the_documents_again_and_again_under_other_ids(
    tmp_path: Path,
) -> None:
    prepare(tmp_path, LARGE, 50 * LARGE_TIMES)

    large = json.loads(data.body_file(tmp_path, LARGE, 50 * LARGE_TIMES).read_bytes())
    assert len({document.pop("_id") for document in large}) == len(large) == 50 * LARGE_TIMES
    once = list(documents(50))
    for document in once:
        del document["_id"]
    assert large == once * LARGE_TIMES


def test_mixed_documents_differ_in_the_title_of_some_alone() -> None:
    pairs = zip(documents(3500), documents(3500, mixed=True), strict=True)
    differing = [(clean, mixed) for clean, mixed in pairs if clean != mixed]

    assert [mixed["title"] for _, mixed in differing] == [0, 3000]
    assert all(clean == {**mixed, "title": clean["title"]} for clean, mixed in differing)


def test_without_the_real_flights_others_of_their_shape_are_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "FLIGHTS_FILE", tmp_path / "nothing.json")

    prepare(tmp_path, FLIGHTS, 100)

    made = json.loads(data.body_file(tmp_path, FLIGHTS, 100).read_bytes())
    assert made == list(data.made_up_flights(100))
    assert {tuple(map(type, flight.values())) for flight in made} == {(int, int, float)}


def test_a_changed_value_changes_the_digest() -> None:
    changed: list[dict[str, Any]] = list(documents(10))
    changed[7]["place"]["geo"]["lat"] += 0.01

    assert digest(changed) != digest(list(documents(10)))


def test_a_slow_response_tells_how_much_of_it_has_been_sent(folder: Path) -> None:
    url = "{}/collection/readwithquery/made-up/" + SLOW + DOCUMENTS
    with replaying({DOCUMENTS: data.body_file(folder, DOCUMENTS, COUNT)}) as address:
        sent = f"{address}/sent/{SLOW}{DOCUMENTS}"
        with requests.post(url.format(address), json={}, stream=True, timeout=30) as response:
            head = response.raw.read(1)
            early = requests.get(sent, timeout=30).json()
            rest = response.raw.read()
        late = requests.get(sent, timeout=30).json()

    assert json.loads(head + rest) == list(documents(COUNT))
    assert 1 / SLOW_PIECES <= early < 1.0
    assert late == 1.0


RUN = Run(
    seconds=1.0,
    cpu_seconds=1.0,
    baseline_bytes=1_000_000,
    peak_bytes=3_000_000,
    rows=10,
    requests=None,
    sent_share=0.05,
    guarantee=None,
    written=None,
    digest="same",
)


def _compared(product: list[Run], alternative: list[Run] | None, **known: Any) -> Comparison:
    other = None if alternative is None else Measured(alternative, 100.0)
    return Comparison("row", Measured(product, 100.0), other, **known)


def test_sides_that_moved_different_documents_are_not_compared() -> None:
    check_same("read", [RUN], [RUN])
    for other in (replace(RUN, digest="other"), replace(RUN, digest=None)):
        with pytest.raises(BenchmarkFailed, match="read"):
            check_same("read", [RUN], [other])
    with pytest.raises(BenchmarkFailed, match="read"):
        check_same("read", [replace(RUN, digest=None)], [replace(RUN, digest=None)])


def test_a_run_that_did_less_or_other_than_it_should_is_refused() -> None:
    read, sync = Subject("batches"), Subject("sync", PLAIN)
    synced = replace(RUN, rows=250, written=3)

    check_rows(read, RUN, Body(DOCUMENTS, 10))
    check_rows(sync, synced, Body(PLAIN, 250))
    with pytest.raises(BenchmarkFailed, match="10 rows of 11"):
        check_rows(read, RUN, Body(DOCUMENTS, 11))
    with pytest.raises(BenchmarkFailed, match="250 rows were sent, not 3"):
        check_rows(sync, replace(synced, written=250), Body(PLAIN, 250))


def test_ratios_are_of_medians_and_of_rows_per_second() -> None:
    slow = [replace(RUN, seconds=seconds, peak_bytes=12_000_000) for seconds in (100.0, 3.0, 4.0)]
    fewer = [replace(RUN, rows=1, cpu_seconds=0.4)]

    assert _compared([RUN], slow).times_faster == 4.0
    assert _compared([RUN], slow).memory_share == 0.25
    assert "**4.00 x** | 1.00 x | 0.25 x" in table([_compared([RUN], slow)])
    assert _compared([RUN], fewer).times_faster == 10.0
    assert _compared([RUN], fewer).cpu_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("target", "measured"),
    [
        (Target(SPEED, 4), 4.0),
        (Target(OVER_START, 2), 2.0),
        (Target(GROWTH, 50), 50.0),
        (Target(GROWTH_OVER_START, 100), 100.0),
        (Target(SENT, 5), 5.0),
        (Target(REQUESTS, 200), 200.0),
    ],
)
def test_a_target_is_met_up_to_its_bound_and_not_beyond(target: Target, measured: float) -> None:
    compared = _compared(
        [replace(RUN, requests=2)],
        [replace(RUN, seconds=4.0, peak_bytes=2_000_000, requests=1)],
        targets=[target],
    )

    assert compared.reached() == [(target, measured)]
    assert targets_table([compared]).endswith("| yes |")
    beyond = target.bound * (0.99 if target.measure.at_most else 1.01)
    missed = replace(compared, targets=[Target(target.measure, beyond)])
    assert targets_table([missed]).endswith("| **no** |")
    (row,) = record([missed], {})["rows"]
    assert [each["met"] for each in row["targets"]] == [False]


def test_what_was_not_compared_is_said_with_its_reason_and_met_by_nothing() -> None:
    compared = _compared(
        [RUN], None, targets=[Target(SPEED, 1), Target(OVER_START, 64)], missing="no memory"
    )

    lines = table([compared, _compared([RUN], [RUN])]).splitlines()
    assert "by hand: no memory" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
    first, second = targets_table([compared]).splitlines()[2:]
    assert first.endswith("| not measured | ? |")
    assert second.endswith("| yes |")
    (row,) = record([compared], {})["rows"]
    assert [each["met"] for each in row["targets"]] == [None, True]


def test_a_read_by_hand_that_does_not_fit_into_memory_is_left_out(tmp_path: Path) -> None:
    large = Subject("read by hand", LARGE)

    assert "GB of memory" in missing(large, 10**15, tmp_path)
    assert missing(large, 1000, tmp_path) == ""
    assert missing(Subject("read by hand"), 10**15, tmp_path) == ""


def test_without_dlt_its_row_says_so(tmp_path: Path) -> None:
    assert "dlt" in missing(Subject("dlt"), 1000, rows.dlt_python(tmp_path))
    if find_spec("dlt") is None:
        assert "dlt" in missing(Subject("dlt"), 1000, Path(sys.executable))


@pytest.mark.parametrize("wrong", [["--only", "nothing"], ["--repeat", "0"], ["--documents", "0"]])
def test_an_option_that_runs_nothing_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)


def test_the_help_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in ROWS)
